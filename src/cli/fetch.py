"""``cachefetch fetch``: fetch and verify the chosen binaries with their closure."""

from __future__ import annotations

from ..resolver import explain
from .options import (
    add_host,
    add_mirrors,
    add_output,
    add_requirements,
    client_from,
    host_from,
    requirements_from,
)
from .progress import reporter_for
from .report import document, line, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from ..client import Client
    from ..fetch.model import Receipt
    from ..resolver.resolution import Resolution


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("spec", nargs="*", metavar="SPEC", help="as for `cachefetch resolve`; or /hash")
    parser.add_argument("--to", metavar="DIR", help="link the packages there as NAME-VERSION-HASH.spack")
    parser.add_argument(
        "--no-deps", action="store_true", help="only the named packages, without their closure"
    )
    parser.add_argument("--lock", metavar="FILE", help="exactly what this lock file names; no index is read")
    parser.add_argument("--no-unify", action="store_true", help="resolve each SPEC alone")
    parser.add_argument(
        "--dry-run", action="store_true", help="resolve, say what would be fetched, fetch nothing"
    )
    add_requirements(parser)
    add_mirrors(parser)
    add_host(parser)
    add_output(parser)


def execute(args: argparse.Namespace) -> int:
    """Resolve, fetch, verify; print one line a package."""
    with reporter_for(args) as reporter, client_from(args, reporter=reporter) as client:
        if args.lock:
            _print(_fetch_locked(args, client), args)
            return 0
        answer = client.resolve(
            *args.spec,
            host=host_from(args, client),
            unify=not args.no_unify,
            requirements=requirements_from(args),
            prereleases=args.pre,
        )
        if answer.status in ("ok", "incomplete"):
            for root in answer.roots:
                say(explain.one_line(root), args)
        if args.dry_run:
            return _dry_run(answer, args)
        receipt = client.fetch(resolution=answer, to=args.to, deps=not args.no_deps)
    _print(receipt, args)
    return 0


def _fetch_locked(args: argparse.Namespace, client: Client) -> Receipt:
    from ..errors import UsageError
    from .locking import read_lock

    if args.spec or args.dry_run or args.no_deps:
        raise UsageError(
            "fetch --lock FILE takes no SPEC, --dry-run or --no-deps: the lock file says what is fetched"
        )
    return client.fetch_locked(read_lock(args.lock), host=host_from(args, client), to=args.to)


def _print(receipt: Receipt, args: argparse.Namespace) -> None:
    if args.json:
        document(receipt.to_dict())
    else:
        for item in receipt.items:
            line(f"{item.name}@{item.version}  /{item.hash}  {item.origin}  {item.path}")
    for warning in receipt.warnings:
        say(f"warning: {warning.message}")
    size = sum(item.size for item in receipt.items)
    say(
        f"{len(receipt.items)} packages verified, {size} bytes; {receipt.network_bytes} bytes over the network",
        args,
    )


def _dry_run(answer: Resolution, args: argparse.Namespace) -> int:
    if args.json:
        document(answer.to_dict())
    else:
        for artifact in answer.closure or [root.chosen for root in answer.roots if root.chosen]:
            line(f"{artifact.name}@{artifact.version}  /{artifact.hash}  {','.join(artifact.mirrors)}")
    for text in explain.missing_lines(answer):
        say(text)
    return answer.exit_code
