"""``cachefetch index status|update``: the local copies of the mirrors' indexes."""

from __future__ import annotations

from ..errors import NoUsableMirrorError
from ..resolver import explain
from .options import add_mirrors, add_output, client_from
from .report import document, line, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from ..sources import IndexFacts


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("action", choices=("status", "update"))
    parser.add_argument("--check", action="store_true", help="decode every record and hash each index again")
    add_mirrors(parser)
    add_output(parser)


def execute(args: argparse.Namespace) -> int:
    """Refresh, then print one line a local index."""
    code = 0
    args.refresh = args.action == "update"
    with client_from(args) as client:
        states = []
        if args.action == "update":
            try:
                states = [state.to_dict() for state in client.update()]
            except NoUsableMirrorError as error:
                states, code = error.context["mirrors"], error.exit_code
        indexes = client.indexes(check=args.check)
    if args.json:
        shown = [index.to_dict() for index in indexes]
        document({"schema": "cachefetch/index/1", "indexes": shown, "mirrors": states})
    else:
        for index in indexes:
            line(_shown(index))
        if not indexes:
            say("no index is stored; `cachefetch index update` reads those of the mirrors", args)
    for state in states:
        say(explain.state_line(state), args)
    return 10 if any(index.damaged for index in indexes) else code


def _shown(index: IndexFacts) -> str:
    text = (
        f"{index.mirror}  {index.location}  {index.kind}, database {index.version}, {index.specs} specs, "
        f"{index.size / 1e6:.1f} MB, asked {index.age_s:.0f} s ago, sha256 {index.sha256[:12]}"
    )
    text += f", ETag {index.etag}" if index.etag else ""
    text += f", {index.broken} unreadable records" if index.broken else ""
    return text + (", DAMAGED: it is dropped, and the next command reads it anew" if index.damaged else "")
