"""``cachefetch show /HASH``: one binary, its closure, and where it can be had."""

from __future__ import annotations

from ..resolver import explain
from .options import add_host, add_mirrors, add_output, client_from, host_from, warn_of_rollbacks
from .report import document, line, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from ..resolver.resolution import Shown


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "spec",
        nargs="+",
        metavar="/HASH",
        help="what names one binary, not several; a part of its hash is enough",
    )
    add_mirrors(parser)
    add_host(parser)
    add_output(parser)


def execute(args: argparse.Namespace) -> int:
    """Print everything that is known."""
    with client_from(args) as client:
        found = client.show(" ".join(args.spec), host=host_from(args, client))
        warn_of_rollbacks(client)
    for note in found.notes:
        say(f"warning: {note}")
    if args.json:
        document(found.to_dict())
        return 0
    _print(found)
    for state in found.mirrors:
        if args.verbose or not state.usable:
            say(explain.mirror_line(state), args)
    return 0


def _print(found: Shown) -> None:
    artifact, node = found.artifact, found.node
    line(explain.artifact_line(artifact))
    line(f"  mirrors    {', '.join(artifact.mirrors) or 'none: no mirror holds the binary'}")
    if found.stacks:
        line(f"  stacks     {', '.join(found.stacks)}")
    line(f"  namespace  {node.namespace or '-'}, specfile {node.format}")
    line(f"  variants   {explain.variants_text(node) or '-'}")
    if artifact.libc:
        line(f"  libc       {artifact.libc}" + (" (inferred)" if artifact.libc.inferred else ""))
    if node.external is not None:
        line(f"  external   {node.external or 'without a prefix'}")
    if node.build_spec:
        line(f"  spliced    Spack relocates it from the binary of its build spec /{node.build_spec}")
    for text in [f"unusable   {explain.reason_text(problem)}" for problem in found.problems] or [
        "usable     on this host"
    ]:
        line(f"  {text}")
    _print_closure(found)


def _print_closure(found: Shown) -> None:
    for other in found.closure:
        line(f"  needs      {explain.artifact_line(other)}  {','.join(other.mirrors)}")
    for text in found.host_provides:
        line(f"  from host  {text}")
    for lack in found.missing:
        if lack.hash != found.artifact.hash:
            line(
                f"  missing    {lack.name}  /{lack.hash}  needed by {', '.join(lack.needed_by)}"
                + (f"; it is {explain.spliced_text(lack.build_spec)}" if lack.build_spec else "")
            )
    if not found.closure_known:
        line("  closure    unknown: a cache page records no dependencies")
    for edge in found.build:
        line(
            f"  built with {edge.name}  /{edge.hash}"
            + (f"  as {','.join(edge.virtuals)}" if edge.virtuals else "")
        )
