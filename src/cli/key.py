"""``cachefetch key list|trust|untrust``: the public keys that signatures are checked against."""

from __future__ import annotations

import os
import time

from ..errors import UsageError
from .options import add_output
from .report import document, line, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

    from ..fetch.keys import KeyInfo


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("action", choices=("list", "trust", "untrust"))
    parser.add_argument(
        "what", nargs="*", metavar="FILE|FINGERPRINT", help="files to trust, fingerprints to untrust"
    )
    add_output(parser)


def execute(args: argparse.Namespace) -> int:
    """Change or show the trusted keys."""
    from ..config import load
    from ..fetch import keys

    directory = os.path.join(load().config_dir, "keys")
    if args.action != "list" and not args.what:
        needed = "file" if args.action == "trust" else "fingerprint"
        raise UsageError(f"`cachefetch key {args.action}` needs a {needed}")
    infos: tuple[KeyInfo, ...] = ()
    removed: list[str] = []
    if args.action == "list":
        infos = keys.list_keys(directory)
    elif args.action == "trust":
        infos = tuple(info for path in args.what for info in keys.trust(_read(path), directory, what=path))
    else:
        removed = [keys.untrust(text, directory) for text in args.what]
    if args.json:
        shown = [_as_dict(info) for info in infos]
        document({"schema": "cachefetch/keys/1", "keys": shown, "removed": removed})
    else:
        for info in infos:
            line(_shown(info))
        for fingerprint in removed:
            line(f"{fingerprint}  no longer trusted")
    if args.action == "list" and not infos:
        say(f"no key is trusted; `cachefetch key trust FILE` puts one into {directory}", args)
    return 0


def _as_dict(info: KeyInfo) -> dict[str, Any]:
    return {field: getattr(info, field) for field in info.__slots__}


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise UsageError(f"cannot read the key file {path}: {os.strerror(error.errno or 0)}") from error


def _shown(info: KeyInfo) -> str:
    expires = (
        time.strftime("expires %Y-%m-%d", time.gmtime(info.expires)) if info.expires else "does not expire"
    )
    state = "REVOKED" if info.revoked else expires
    return f"{info.fingerprint}  {', '.join(info.user_ids) or 'no user id'}  {state}"
