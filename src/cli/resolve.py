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
    hosts_from,
    requirements_from,
    warn_of_rollbacks,
)
from .report import document, line, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from ..blocking import Client
    from ..resolver.model import Host
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
    parser.add_argument("--lock", metavar="FILE", help="write the answer with all digests to this lock file")
    parser.add_argument(
        "--locked",
        action="store_true",
        help="answer from the lock file (--lock FILE, default cachefetch.lock), or say what changed",
    )
    parser.add_argument("--per-host", action="store_true", help="an answer for each --host, not one for all")
    add_requirements(parser)
    add_mirrors(parser)
    add_host(parser, several=True)
    add_output(parser)


def execute(args: argparse.Namespace) -> int:
    """Resolve and print one line a root."""
    if args.per_host:
        return _per_host(args)
    with client_from(args) as client:
        if args.locked:
            answer = _from_lock(args, client)
        else:
            host, *others = hosts_from(args, client)
            answer = _resolve(client, args, host, [other for other in others if other])
            if args.lock and answer.status == "ok":
                from .locking import write_file

                write_file(args.lock, client.lock(answer))
        warn_of_rollbacks(client)
    _print(answer, args)
    return answer.exit_code


def _resolve(
    client: Client, args: argparse.Namespace, host: Host | None, others: Sequence[Host] = ()
) -> Resolution:
    """Ask the client what the options say."""
    return client.resolve(
        *args.spec,
        host=host,
        unify=not args.no_unify,
        requirements=requirements_from(args),
        prereleases=args.pre,
        others=others,
        full=bool(args.json or args.explain),
    )


def _from_lock(args: argparse.Namespace, client: Client) -> Resolution:
    """Return the locked answer; specs that are given too must be those of the lock file."""
    from ..answers import parse_queries
    from ..errors import UsageError
    from ..lockfile import DEFAULT_NAME
    from .locking import read_lock

    path = args.lock or DEFAULT_NAME
    lock = read_lock(path)
    asked = {str(spec) for spec in parse_queries(args.spec)} if args.spec else set(lock.roots)
    if asked != set(lock.roots):
        raise UsageError(
            f"{path} was made for {', '.join(sorted(lock.roots))}, not for {', '.join(sorted(asked))}",
            hint="leave the specs out, or write a new lock file without --locked",
        )
    return client.resolve_locked(lock, host=host_from(args, client))


def _per_host(args: argparse.Namespace) -> int:
    """Answer for each host alone."""
    from ..errors import UsageError

    if not args.host or args.lock or args.locked:
        raise UsageError("--per-host needs --host FILE, and goes with neither --lock nor --locked")
    answers = []
    with client_from(args) as client:
        for path, host in zip(args.host, hosts_from(args, client), strict=True):
            answers.append((path, _resolve(client, args, host)))
        warn_of_rollbacks(client)
    if args.json:
        entries = [{"file": path, "answer": answer.to_dict()} for path, answer in answers]
        document({"schema": "cachefetch/fleet/1", "hosts": entries})
    for path, answer in answers:
        say(f"{path}:", args)
        if not args.json:
            for root in answer.roots:
                line(f"{path}  {_shown(root.chosen) if root.chosen else 'none for ' + root.query}")
        _explain(answer, args)
    return max(answer.exit_code for _, answer in answers)


def _print(answer: Resolution, args: argparse.Namespace) -> None:
    if args.json:
        document(answer.to_dict())
    else:
        for root in answer.roots if answer.status != "conflict" else ():
            _print_root(root, args)
    _explain(answer, args)


def _explain(answer: Resolution, args: argparse.Namespace) -> None:
    if args.explain:
        say(explain.explain(answer, everything=args.explain == "all"))
    else:
        _remarks(answer, args)


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
    several = len(answer.roots) > 1
    for root in answer.roots:
        # Without any candidate the last note is part of what follows.
        for note in root.notes if root.candidates else root.notes[:-1]:
            say(f"note: {root.query}: {note}" if several else f"note: {note}", args)
        if root.chosen is None:
            for text in explain.no_candidate_lines(answer, root):
                say(text)
        elif not answer.conflicts:
            say(f"{root.query}: {explain.one_line(root)}" if several else explain.one_line(root), args)
    for text in explain.missing_lines(answer) + explain.conflict_lines(answer):
        say(text)
    for text in explain.coverage_lines(answer):
        say(text, args)
    if answer.status == "incomplete":
        say(explain.next_complete(answer), args)
    _states(answer, args)


def _states(answer: Resolution, args: argparse.Namespace) -> None:
    """Say what is known of each mirror, or only of those that could not be used."""
    for state in answer.mirrors:
        if args.verbose:
            say(explain.mirror_line(state), args)
        elif not state.usable and state.state != "not-read":
            say(f"warning: {explain.mirror_line(state)}", args)
