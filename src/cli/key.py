"""``cachefetch key list|trust|untrust|fetch``: the public keys that signatures are checked against."""

from __future__ import annotations

import os
import sys
import time

from ..errors import ConfigError, UsageError
from ..regular import open_regular
from .options import add_mirrors, add_output, client_from
from .report import document, line, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence
    from typing import Any, BinaryIO

    from ..fetch.keys import KeyInfo, Published


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("action", choices=("list", "trust", "untrust", "fetch"))
    parser.add_argument(
        "what",
        nargs="*",
        metavar="FILE|DIR|FINGERPRINT",
        help="trust: key files, or directories of them (such as Spack's var/spack/gpg); untrust: fingerprints",
    )
    parser.add_argument(
        "--fingerprint",
        action="append",
        default=[],
        metavar="FPR",
        help="trust, fetch: trust this key and no other, without asking; repeatable",
    )
    add_mirrors(parser)
    add_output(parser)


def execute(args: argparse.Namespace) -> int:
    """Change or show the trusted keys."""
    from ..config import load

    directory = os.path.join(load().config_dir, "keys")
    if args.action in ("trust", "untrust") and not args.what:
        needed = "file" if args.action == "trust" else "fingerprint"
        raise UsageError(f"`cachefetch key {args.action}` needs a {needed}")
    if args.action in ("list", "fetch") and args.what:
        raise UsageError(f"`cachefetch key {args.action}` takes no {args.what[0]!r:.90}")
    return {"list": _list, "trust": _trust, "untrust": _untrust, "fetch": _fetch}[args.action](
        args, directory
    )


def _list(args: argparse.Namespace, directory: str) -> int:
    from ..fetch import keys

    infos = keys.list_keys(directory)
    problems = keys.load_trusted(directory).problems
    _show(args, infos, warnings=problems)
    if not infos:
        say(f"no key is trusted; `cachefetch key trust FILE` puts one into {directory}", args)
    return 0


def _trust(args: argparse.Namespace, directory: str) -> int:
    from ..fetch import keys

    contents: dict[str, bytes] = {}
    for path in args.what:
        if os.path.isdir(path):
            contents.update((one, _read(one, open_regular)) for one in keys.key_files(path))
        else:
            contents[path] = _read(path, _open)  # a FIFO is welcome: `key trust <(gpg --export ...)`
    wanted = _wanted(args)
    _require(wanted, [fpr for path, data in contents.items() for fpr in _fingerprints(data, path)])
    infos = [
        info
        for path, data in contents.items()
        for info in keys.trust(data, directory, what=path, only=wanted)
    ]
    _show(args, infos)
    return 0


def _untrust(args: argparse.Namespace, directory: str) -> int:
    from ..fetch import keys

    _show(args, (), removed=[keys.untrust(text, directory) for text in args.what])
    return 0


def _fetch(args: argparse.Namespace, directory: str) -> int:
    """Show the keys that the mirrors publish; trust those that the user names or confirms."""
    from ..fetch import keys

    with client_from(args) as client:
        published = client.published_keys()
    found = {key.info.fingerprint: key for mirror in published.values() for key in mirror}
    wanted = _wanted(args)
    _require(wanted, list(found))
    if not wanted and not args.json and sys.stdin is not None and sys.stdin.isatty():
        wanted = _confirmed(list(found.values()))
    trusted = [
        info
        for fingerprint in wanted
        for info in keys.trust(found[fingerprint].data, directory, what=f"key {fingerprint}")
    ]
    _show(args, [key.info for key in found.values()], trusted=[info.fingerprint for info in trusted])
    if not trusted:
        say(
            "no key was trusted: compare a fingerprint with one that you have from elsewhere, then run this again with "
            "--fingerprint FPR",
            args,
        )
    return 0


def _confirmed(published: Sequence[Published]) -> list[str]:
    """Ask for each key. Where the mirror is, is no proof: the question says so."""
    wanted = []
    for key in published:
        say(_shown(key.info))
        say("Does the owner give this fingerprint elsewhere too? Trust the key [y/N]: ", end="")
        if sys.stdin.readline().strip().lower() in ("y", "yes"):
            wanted.append(key.info.fingerprint)
    return wanted


def _wanted(args: argparse.Namespace) -> list[str]:
    from ..fetch.verify.openpgp import normalize_fingerprint

    return [normalize_fingerprint(text, what="--fingerprint") for text in args.fingerprint]


def _fingerprints(data: bytes, path: str) -> list[str]:
    from ..fetch.verify.openpgp import Keyring

    return sorted(Keyring.from_bytes(data, what=path).fingerprints)


def _require(wanted: Sequence[str], found: Sequence[str]) -> None:
    """Trust nothing at all when one of the wanted keys is missing: something is not as its caller believes."""
    missing = [fingerprint for fingerprint in wanted if fingerprint not in found]
    if missing:
        raise ConfigError(
            f"key {missing[0]} is not there; found: {', '.join(found) or 'none'}",
            hint="nothing was trusted; do not trust another key in its place without asking the owner",
            context={"missing": missing, "found": list(found)},
        )


def _show(
    args: argparse.Namespace,
    infos: Sequence[KeyInfo],
    *,
    removed: Sequence[str] = (),
    trusted: Sequence[str] | None = None,
    warnings: Sequence[str] = (),
) -> None:
    """Print keys; `trusted` tells which of them are, None where all are."""
    for warning in warnings:
        say(f"warning: {warning}")
    if args.json:
        shown = [_as_dict(info, trusted is None or info.fingerprint in trusted) for info in infos]
        document(
            {
                "schema": "cachefetch/keys/1",
                "keys": shown,
                "removed": list(removed),
                "warnings": list(warnings),
            }
        )
        return
    for info in infos:
        note = "" if trusted is None or info.fingerprint in trusted else "  not trusted"
        line(_shown(info) + note)
    for fingerprint in removed:
        line(f"{fingerprint}  no longer trusted")


def _as_dict(info: KeyInfo, trusted: bool) -> dict[str, Any]:
    return {**{field: getattr(info, field) for field in type(info).__annotations__}, "trusted": trusted}


def _open(path: str) -> BinaryIO:
    return open(path, "rb")


def _read(path: str, opened: Callable[[str], BinaryIO]) -> bytes:
    try:
        with opened(path) as file:
            return file.read()
    except OSError as error:
        raise UsageError(f"cannot read the key file {path}: {error.strerror}") from error


def _shown(info: KeyInfo) -> str:
    """Return a line about a key. User ids are free text of whoever made the key: control characters are not printed."""
    day = "%Y-%m-%d"
    expires = (
        time.strftime(f"expires {day}", time.gmtime(info.expires)) if info.expires else "does not expire"
    )
    state = "REVOKED" if info.revoked else f"WEAK: {info.weak}" if info.weak else expires
    names = "".join(c if c.isprintable() else "?" for c in ", ".join(info.user_ids)) or "no user id"
    made = time.strftime(f"made {day}", time.gmtime(info.created))
    return f"{info.fingerprint}  {names}  {made}  {state}"
