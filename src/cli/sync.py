"""``cachefetch sync``: copy binaries with their closure into a mirror directory that stock Spack reads."""

from __future__ import annotations

import json
import os

from ..errors import HostError, UsageError
from .options import add_mirrors, add_output, client_from
from .progress import reporter_for
from .report import document, line, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

    from ..blocking import Client
    from ..fetch.mirror.plan import Problem, SyncReport
    from ..resolver.model import Host
    from ..syncing import Selection


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "spec",
        nargs="*",
        metavar="SPEC|LOCK",
        help="every binary that satisfies it, with closure; what a cachefetch.lock or spack.lock names",
    )
    parser.add_argument("--to", metavar="DIR", required=True, help="the destination, made when missing")
    add_selection(parser)
    work = parser.add_argument_group("how")
    work.add_argument("--dry-run", action="store_true", help="print the plan, write nothing")
    work.add_argument(
        "--convert", action="store_true", help="write layout 3, unsigned, also from a mirror of layout 2"
    )
    work.add_argument(
        "--check",
        action="store_true",
        help="hash again what the destination has, and ask the mirrors for every manifest again",
    )
    work.add_argument("--prune", action="store_true", help="remove blobs that no manifest names")
    work.add_argument("--wait", action="store_true", help="wait while another sync works on the destination")
    work.add_argument("--shard", metavar="I/N", help="copy part I of N, without keys and index")
    work.add_argument(
        "--publish", action="store_true", help="after all shards: check, write keys and index, copy nothing"
    )
    add_mirrors(parser)
    add_output(parser)


def add_selection(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what of which mirrors is copied."""
    parser.add_argument("--all", action="store_true", help="everything that the mirrors hold")
    parser.add_argument(
        "--from",
        dest="mirror",
        action="append",
        default=[],
        metavar="WHERE",
        help="the source; the same as -m; repeatable",
    )
    choice = parser.add_argument_group("which of them")
    for flag, text in (
        ("--include", "only roots that satisfy SPEC; repeatable"),
        ("--exclude", "no root that satisfies SPEC; repeatable"),
    ):
        choice.add_argument(flag, action="append", default=[], metavar="SPEC", help=text)
    choice.add_argument(
        "--target",
        action="append",
        default=[],
        metavar="NAMES",
        help="only these targets, a,b or a range x:y",
    )
    choice.add_argument("--os", action="append", default=[], metavar="NAMES", help="only these OS labels")
    choice.add_argument(
        "--host",
        action="append",
        default=[],
        metavar="FILE",
        help="only what `resolve` chooses for this host (`cachefetch host --json`); repeatable",
    )
    choice.add_argument(
        "--per-host", action="store_true", help="only what `resolve` chooses for this machine"
    )


def execute(args: argparse.Namespace) -> int:
    """Sync; print the plan and what was done."""
    from ..syncing import shard_numbers

    if args.shard and args.publish:
        raise UsageError("--publish comes after the shards, not with one")
    if args.prune and args.shard:
        raise UsageError("--prune needs the whole plan", hint="give it with --publish")
    with reporter_for(args) as reporter, client_from(args, reporter=reporter) as client:
        report = client.sync(
            selection_from(args, client),
            args.to,
            shard=shard_numbers(args.shard) if args.shard else None,
            dry_run=args.dry_run,
            check=args.check,
            convert=args.convert,
            prune=args.prune,
            publish=args.publish,
            wait=args.wait,
        )
    _print(report, args)
    return report.exit_code


def selection_from(args: argparse.Namespace, client: Client) -> Selection:
    """Return the selection that the options say. Raises HostError, UsageError."""
    from ..bundling import read_small
    from ..syncing import Selection, locked_in, policies_in

    hosts = [_host(path) for path in args.host]
    if args.per_host:
        hosts.append(client.host())
    files = [word for word in args.spec if _is_lock(word)]
    locks = [(read_small(path, "lock file"), path) for path in files]
    return Selection(
        specs=tuple(word for word in args.spec if word not in files),
        locked=tuple(one for data, path in locks for one in locked_in(data, path)),
        everything=args.all,
        include=tuple(args.include),
        exclude=tuple(args.exclude),
        targets=_names(args.target),
        systems=_names(args.os),
        hosts=tuple(hosts),
        policies=tuple(policies_in(data, path) for data, path in locks),
    )


def _is_lock(word: str) -> bool:
    """Tell a file name from a spec: no spec ends so, and a spec that is a file's name too needs no path."""
    return word.endswith((".lock", ".json")) or ("/" in word[1:] and os.path.isfile(word))


def _names(values: list[str]) -> tuple[str, ...]:
    return tuple(name.strip() for value in values for name in value.split(",") if name.strip())


def _host(path: str) -> Host:
    from ..resolver.host.overrides import host_from_dict

    try:
        with open(path, "rb") as file:
            return host_from_dict(json.loads(file.read()), what=path)
    except OSError as error:
        raise HostError(f"cannot read the host file {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise HostError(
            f"{path} is not JSON: {error}", hint="make it with `cachefetch host --json`"
        ) from None


def _print(report: SyncReport, args: argparse.Namespace) -> None:
    if args.json:
        document(report.to_dict())
    else:
        plan = report.plan
        words = [f"plan: {len(plan.copy)} blobs to copy, {plan.copy_bytes} bytes; {plan.present} present"]
        if args.prune:
            words.append(f"{len(plan.prune)} blobs to remove")
        line("; ".join(words))
        if not report.dry_run:
            done = report.done
            line(
                f"done: {done['copied_blobs']} blobs copied, {done['copied_bytes']} bytes; {done['pruned']} removed"
            )
    say_problems(report.problems)
    for warning in report.warnings:
        say(f"warning: {warning}")
    for stem in report.waiting if args.verbose else ():
        say(f"waits: {stem}")


def say_problems(problems: Iterable[Problem]) -> None:
    """Print a line for each problem on stderr."""
    for problem in problems:
        needed = f"; needed by {', '.join(problem.needed_by)}" if problem.needed_by else ""
        label = f"{problem.name}/{problem.hash[:7]}" if problem.hash else problem.name
        say(f"problem: {label}: {problem.what}: {problem.message}{needed}")
