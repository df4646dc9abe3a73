"""``cachefetch extract``: fetch, verify and unpack one package, as it was built."""

from __future__ import annotations

from .options import add_host, add_mirrors, add_output, client_from, host_from
from .progress import reporter_for
from .report import document, line, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from ..fetch.unpack.model import Contents


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "spec", metavar="/HASH", help="hash of a binary for any host; or a spec for this host"
    )
    parser.add_argument("directory", metavar="DIR", help="a new directory, which gets what the prefix held")
    parser.add_argument(
        "--portable",
        action="store_true",
        help="refuse names that differ only in case or Unicode form (always so where DIR cannot hold both)",
    )
    add_mirrors(parser)
    add_host(parser)
    add_output(parser)


def execute(args: argparse.Namespace) -> int:
    """Unpack, and say that the build's prefixes are still in the files."""
    with reporter_for(args) as reporter, client_from(args, reporter=reporter) as client:
        done = client.extract(args.spec, args.directory, host=host_from(args, client), portable=args.portable)
    if args.json:
        document(done.to_dict())
    else:
        line(f"{done.item.name}@{done.item.version}  /{done.item.hash}  {done.path}")
    for warning in done.warnings:
        say(f"warning: {warning.message}")
    if done.item.dag_hash:
        say("the DAG hash was computed again and is right", args)
    say(_prefixes(done.contents))
    return 0


def _prefixes(contents: Contents) -> str:
    """Return what everyone must know who wants to run the files."""
    files = "1 file holds" if contents.holding == 1 else f"{contents.holding} files hold"
    return (
        f"note: not relocated: prefixes are still those of the build; {files} paths below {contents.root}; "
        f"the package was built for {contents.prefix}"
    )
