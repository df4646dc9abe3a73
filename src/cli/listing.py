"""``cachefetch list``: what the mirrors hold."""

from __future__ import annotations

from ..resolver import explain
from .options import add_host, add_mirrors, add_output, client_from, host_from, warn_of_rollbacks
from .report import document, line, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from ..resolver.model import Node
    from ..resolver.resolution import Artifact, Listing


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "spec",
        nargs="*",
        metavar="SPEC",
        help="only specs that satisfy this constraint or Python requirement",
    )
    parser.add_argument(
        "--externals", action="store_true", help="also nodes that the build took from its machine"
    )
    parser.add_argument("--usable", action="store_true", help="only what this host can run")
    group = parser.add_argument_group("columns and grouping, as `spack find` has them")
    group.add_argument("-g", "--group", action="store_true", help="group by architecture and compiler")
    group.add_argument("-l", "--long", action="store_true", help="short hashes")
    group.add_argument("-L", "--very-long", action="store_true", help="whole hashes")
    group.add_argument("-N", "--namespaces", action="store_true", help="namespace before the name")
    group.add_argument("--variants", action="store_true", help="variants behind the version")
    group.add_argument("--names", action="store_true", help="package names alone, each once")
    add_mirrors(parser)
    add_host(parser)
    add_output(parser)


def execute(args: argparse.Namespace) -> int:
    """Print one line a spec, sorted by name, version and hash."""
    with client_from(args) as client:
        host = host_from(args, client) or client.host()
        found = client.list(" ".join(args.spec) or None, externals=args.externals, host=host)
        warn_of_rollbacks(client)
    if args.usable:
        found = found.only_usable()
    if args.json:
        document(found.to_dict())
    else:
        for text in _lines(found, args):
            line(text)
        marked = f", {len(found.unusable)} not for this host" if found.unusable else ""
        say(f"{len(found.specs)} specs{marked}", args)
    for note in found.notes:
        say(f"note: {note}", args)
    if found.suggestions:
        say(f"did you mean {' or '.join(found.suggestions)}?", args)
    for state in found.mirrors:
        if args.verbose or not found.specs or not state.usable:
            say(explain.mirror_line(state), args)
    return 0 if found.specs else 3


def _lines(found: Listing, args: argparse.Namespace) -> Iterator[str]:
    if args.names:
        yield from dict.fromkeys(artifact.name for artifact in found.specs)
        return
    pairs = list(zip(found.specs, found.nodes, strict=True))
    short = args.group or args.long or args.very_long or args.namespaces or args.variants
    if not short:
        for artifact, _ in pairs:
            yield f"{explain.artifact_line(artifact)}  {','.join(artifact.mirrors)}".rstrip() + _mark(
                found, artifact
            )
        return
    groups: dict[str, list[str]] = {}
    for artifact, node in pairs:
        title = f"{artifact.platform}-{artifact.os}-{artifact.target} / {artifact.compiler or 'no compiler'}"
        groups.setdefault(title if args.group else "", []).append(
            _short(artifact, node, args) + _mark(found, artifact)
        )
    for title in sorted(groups):
        if title:
            yield f"-- {title} {'-' * max(3, 70 - len(title))}"
        yield from groups[title]


def _short(artifact: Artifact, node: Node, args: argparse.Namespace) -> str:
    """Return ``hash namespace.name@version variants`` with the columns that were asked for."""
    hash_ = f"{artifact.hash} " if args.very_long else f"{artifact.hash[:7]} " if args.long else ""
    namespace = f"{node.namespace}." if args.namespaces and node.namespace else ""
    variants = f" {explain.variants_text(node)}" if args.variants else ""
    return f"{hash_}{namespace}{artifact.name}@{artifact.version}{variants}".rstrip()


def _mark(found: Listing, artifact: Artifact) -> str:
    """Return why this host cannot run a spec, or ""."""
    problem = found.unusable.get(artifact.hash)
    return f"  ! {explain.reason_text(problem)}" if problem else ""
