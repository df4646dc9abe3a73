"""``cachefetch mirror add|remove|list|status``: the configured mirrors."""

from __future__ import annotations

import os

from ..errors import NoUsableMirrorError, UsageError
from ..resolver import explain
from .options import add_mirrors, add_output, client_from
from .report import document, line, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence
    from typing import Any

    from ..config import Mirror
    from ..errors import ConfigError


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("action", choices=("add", "remove", "list", "status"))
    parser.add_argument("what", nargs="*", metavar="NAME [URL]", help="add: name and URL; remove: names")
    parser.add_argument(
        "--signed",
        choices=("required", "if-present", "none"),
        default="",
        help="add: whether manifests need a signature; required, but none for a registry",
    )
    parser.add_argument(
        "--pin",
        action="append",
        default=[],
        metavar="FINGERPRINT",
        help="add: accept this key alone; repeatable",
    )
    parser.add_argument(
        "--view", default="", metavar="NAME", help="add: named index of the mirror (Spack 1.2)"
    )
    add_mirrors(parser)
    add_output(parser)


def execute(args: argparse.Namespace) -> int:
    """Change or show mirrors."""
    if args.action == "status":
        return _status(args)
    if args.action == "list":
        return _list(args)
    from ..config import load
    from ..config_edit import add_mirror, remove_mirrors

    config = load(problems=[])  # a bad entry must not be in the way of its removal
    path = os.path.join(config.config_dir, "config.toml")
    if args.action == "add":
        if len(args.what) != 2:
            raise UsageError(
                "`cachefetch mirror add` needs a name and a URL", hint="mirror add NAME URL|DIRECTORY"
            )
        signed = "none" if args.unsigned else args.signed
        add_mirror(path, *args.what, signed=signed, keys=tuple(args.pin), view=args.view)
    elif not args.what:
        raise UsageError("`cachefetch mirror remove` needs a name")
    else:
        remove_mirrors(path, args.what)
    problems: list[ConfigError] = []
    mirrors = load(problems=problems).mirrors
    if args.json:
        document({"schema": "cachefetch/mirrors/1", "mirrors": [_as_dict(mirror) for mirror in mirrors]})
    _warn(problems)
    say(f"{(args.action == 'add' and 'added to') or 'removed from'} {path}", args)
    return 0


def _warn(problems: Sequence[ConfigError]) -> None:
    for problem in problems:
        say(f"warning: {problem.message}")


def _list(args: argparse.Namespace) -> int:
    """Print the mirrors that a command without ``-m`` uses."""
    problems: list[ConfigError] = []
    with client_from(args, problems=problems) as client:
        mirrors = client.mirrors()
    _warn(problems)
    if args.json:
        document({"schema": "cachefetch/mirrors/1", "mirrors": [_as_dict(mirror) for mirror in mirrors]})
        return 0
    for mirror in mirrors:
        shown = _as_dict(mirror)
        view = f" view={mirror.view}" if mirror.view else ""
        line(f"{mirror.name}  {shown['url']}  signed={mirror.signed}{view}  ({mirror.origin})")
    if not mirrors and not problems:
        say("no mirror is configured; `cachefetch mirror add NAME URL` adds one", args)
    return 0


def _status(args: argparse.Namespace) -> int:
    """Ask every mirror, and print what each is and its state."""
    args.refresh = not args.offline
    code = 0
    with client_from(args) as client:
        try:
            states = [state.to_dict() for state in client.update()]
        except NoUsableMirrorError as error:
            states, code = error.context["mirrors"], error.exit_code
    if args.json:
        document({"schema": "cachefetch/mirror-status/1", "mirrors": states})
        return code
    for state in states:
        line(f"{state['kind'] or '-':9}  {explain.state_line(state)}")
    return code


def _as_dict(mirror: Mirror) -> dict[str, Any]:
    from ..fetch.transports import redact

    return {
        "name": mirror.name,
        "url": redact(mirror.location),
        "signed": mirror.signed,
        "keys": list(mirror.pinned),
        "key_files": list(mirror.key_files),
        "view": mirror.view,
        "origin": mirror.origin,
    }
