"""``cachefetch doctor [WHERE]``: check this installation, or say what a URL, directory or file is."""

from __future__ import annotations

import os
import sys

from ..errors import CachefetchError, NoUsableMirrorError
from ..resolver import explain
from .options import add_mirrors, add_output, client_from
from .report import document, line, public

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

    from ..blocking import Client
    from ..errors import ConfigError

#: What a kind is, for people.
KINDS = {
    "v3": "a Spack build cache of layout 3",
    "v2": "a Spack build cache of layout 2",
    "oci": "a Spack build cache in a container registry",
    "page": "a cache page: lists binaries, another mirror delivers them",
    "pages": "a directory of cache pages: they list binaries, another mirror delivers them",
    "bare": "an index without a mirror",
    "lock": "a spack.lock: lists binaries, another mirror delivers them",
    "spec": "one spec document",
    "catalogue": "a catalogue of public caches",
    "": "nothing that holds or lists binaries",
}
#: States of a place that wants credentials.
_REFUSED = ("unauthorized", "forbidden")
#: Variables that decide how the network is reached; of a pair in upper and lower case the latter counts.
_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR")
#: Settings that are shown; those of the network only where they are set.
_SETTINGS = ("config_dir", "cache_dir", "max_age", "libc", "site")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("where", nargs="?", metavar="WHERE", help="URL, directory or file to look at")
    add_mirrors(parser)
    add_output(parser)


def execute(args: argparse.Namespace) -> int:
    """Print what a place is, or the state of this installation."""
    return _place(args) if args.where else _installation(args)


def _place(args: argparse.Namespace) -> int:
    args.mirror, args.refresh = [args.where], True
    code = 0
    with client_from(args) as client:
        try:
            state = client.update()[0].to_dict()
        except NoUsableMirrorError as error:
            state, code = error.context["mirrors"][0], error.exit_code
    if os.path.exists(args.where) and not (os.path.isfile(args.where) or os.path.isdir(args.where)):
        state = {**state, "detail": f"{args.where} is neither a file nor a directory"}
    state = {name: public(value) if isinstance(value, str) else value for name, value in state.items()}
    what = _what(state)
    if args.json:
        document({"schema": "cachefetch/doctor/1", "what": what, "mirrors": [state]})
        return code
    line(f"{state['mirror']} {what}" if _unasked(state) else f"{state['mirror']} is {what}")
    line(f"state    {state['state']}" + (f": {state['detail']}" if state["detail"] else ""))
    if state["kind"] and not _unasked(state):
        line(f"specs    {state['specs']}")
    return code


def _unasked(state: dict[str, Any]) -> bool:
    """Return True for a place that said nothing about itself. A local path that does not exist is no such place."""
    silent = state["state"] == "unreachable" and bool(state["kind"] or "://" in state["mirror"])
    return silent or state["state"] in _REFUSED


def _what(state: dict[str, Any]) -> str:
    """Return what a place is, for people; of one that did not answer nothing is known."""
    if _unasked(state):
        return "could not be asked" + (": it refuses access" if state["state"] in _REFUSED else "")
    return str(KINDS.get(state["kind"], state["kind"]))


def _installation(args: argparse.Namespace) -> int:
    broken: list[ConfigError] = []
    with client_from(args, problems=broken) as client:
        found = _facts(client)
    found["problems"][:0] = [error.message for error in broken]
    if args.json:
        document({"schema": "cachefetch/doctor/1", **found})
        return 0 if not found["problems"] else 10
    line(f"cachefetch {found['version']}, Python {found['python']}")
    for name, entry in found["settings"].items():
        line(f"{name:18} {entry['value']}   ({entry['origin']})")
    for mirror in found["mirrors"]:
        line(f"mirror {mirror['name']:11} {mirror['url']}   ({mirror['origin']})")
    for index in found["indexes"]:
        line(f"index {index['mirror']:12} {index['specs']} specs, asked {index['age_s']:.0f} s ago")
    line(f"host               {found['host']}")
    for problem in found["problems"]:
        line(f"problem            {problem}")
    return 0 if not found["problems"] else 10


def _facts(client: Client) -> dict[str, Any]:
    """Return every setting with its origin, and what does not work."""
    from .. import __version__
    from .mirror import _as_dict

    config = client.options.config
    problems = [problem for path in (config.cache_dir,) if (problem := _unwritable(path))]
    problems += _unusable(client)
    mirrors: list[dict[str, Any]] = []
    try:
        mirrors = [_as_dict(mirror) for mirror in client.mirrors()]
    except CachefetchError as error:
        problems.append(error.message)
    settings = {
        name: {"value": getattr(config, name), "origin": config.origins.get(name, "default")}
        for name in _SETTINGS
    }
    # Credentials are names of variables and files, never secrets, and stay out all the same.
    settings |= {
        f"network.{name}": {"value": value, "origin": config.origins.get("network", "default")}
        for name, value in sorted(config.network.items())
        if name != "credentials"
    }
    for host in sorted(config.network.get("credentials", {})):
        origin = config.origins.get("network", "default")
        settings[f"network.credentials.{host}"] = {"value": "set", "origin": origin}
    settings |= _from_environment()
    return {
        "version": __version__,
        "python": sys.version.split()[0],
        "settings": settings,
        "mirrors": mirrors,
        "indexes": [index.to_dict() for index in client.indexes()],
        "host": explain.host_line(client.host()),
        "problems": problems,
    }


def _unusable(client: Client) -> list[str]:
    """Say of each file, directory and variable that the settings name why it cannot be used."""
    config = client.options.config
    return [
        *client.network_problems(),
        *(
            f"store.site in {config.origins['site']}: there is no directory {path}"
            for path in config.site
            if not os.path.isdir(path)
        ),
        *(
            f"mirrors.{mirror.name}.key_files in {mirror.origin}: there is no file {path}"
            for mirror in config.mirrors
            for path in mirror.key_files
            if not os.path.isfile(path)
        ),
    ]


def _from_environment() -> dict[str, dict[str, str]]:
    """Return what the environment says of the network; a proxy's user and password stay out."""
    from ..fetch.transports import redact

    found = {}
    for name in _VARIABLES:
        variable = next((v for v in (name.lower(), name) if os.environ.get(v)), "")
        if variable:
            value = redact(os.environ[variable])
            found[f"network.{name.lower()}"] = {"value": value, "origin": f"environment variable {variable}"}
    return found


def _unwritable(path: str) -> str:
    """Say why nothing can be stored below `path`, or ""."""
    here = path
    while not os.path.exists(here):
        here = os.path.dirname(here)
    return "" if os.access(here, os.W_OK) else f"{here} is not writable: nothing can be stored below {path}"
