"""``cachefetch resolve``: choose the best binary, and say why."""

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
from .report import document, line, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from ..resolver.resolution import Artifact, Resolution, Root


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("spec", nargs="*", metavar="SPEC", help="as for Spack: hdf5@1.14+mpi %%gcc; or /hash")
    parser.add_argument(
        "--explain",
        nargs="?",
        const="near",
        choices=("near", "all"),
        help="say why, at length (=all: every candidate)",
    )
    parser.add_argument("--all", action="store_true", help="print every candidate that fits, best first")
    parser.add_argument("--no-unify", action="store_true", help="answer each SPEC alone")
    add_requirements(parser)
    add_mirrors(parser)
    add_host(parser)
    add_output(parser)


def execute(args: argparse.Namespace) -> int:
    """Resolve and print one line a root."""
    with client_from(args) as client:
        answer = client.resolve(
            *args.spec,
            host=host_from(args, client),
            unify=not args.no_unify,
            requirements=requirements_from(args),
            prereleases=args.pre,
        )
    if args.json:
        document(answer.to_dict())
    else:
        for root in answer.roots:
            _print_root(root, args)
    if args.explain:
        say(explain.explain(answer, everything=args.explain == "all"))
    else:
        _remarks(answer, args)
    return answer.exit_code


def _print_root(root: Root, args: argparse.Namespace) -> None:
    if root.chosen:
        line(_shown(root.chosen))
        if args.all:
            for other in root.others:
                line(_shown(other.artifact))


def _shown(artifact: Artifact) -> str:
    return f"{explain.artifact_line(artifact)}  {','.join(artifact.mirrors)}"


def _remarks(answer: Resolution, args: argparse.Namespace) -> None:
    """Say on stderr why, in a line a root, and what is wrong."""
    for root in answer.roots:
        for note in root.notes:
            say(f"note: {note}", args)
        if root.chosen is None:
            for text in explain.no_candidate_lines(answer, root):
                say(text)
        else:
            say(explain.one_line(root), args)
    for text in explain.missing_lines(answer) + [f"conflict: {text}" for text in answer.conflicts]:
        say(text)
    if answer.status == "incomplete":
        say(explain.next_complete(answer), args)
    if args.verbose:
        for state in answer.mirrors:
            say(explain.mirror_line(state), args)
    else:
        for state in answer.mirrors:
            if not state.usable and state.state != "not-read":
                say(f"warning: {explain.mirror_line(state)}", args)
