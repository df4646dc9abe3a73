"""``cachefetch list``: what the mirrors hold."""

from __future__ import annotations

from ..resolver import explain
from .options import add_mirrors, add_output, client_from
from .report import document, line, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("spec", nargs="*", metavar="SPEC", help="only specs that satisfy this constraint")
    parser.add_argument(
        "--externals", action="store_true", help="also nodes that the build took from its machine"
    )
    add_mirrors(parser)
    add_output(parser)


def execute(args: argparse.Namespace) -> int:
    """Print one line a spec, sorted by name, version and hash."""
    with client_from(args) as client:
        found = client.list(" ".join(args.spec) or None, externals=args.externals)
    if args.json:
        document(found.to_dict())
    else:
        for artifact in found.specs:
            line(f"{explain.artifact_line(artifact)}  {','.join(artifact.mirrors)}".rstrip())
        say(f"{len(found.specs)} specs", args)
    for state in found.mirrors:
        if args.verbose or not found.specs or not state.usable:
            say(explain.mirror_line(state), args)
    return 0 if found.specs else 3
