"""``cachefetch verify``: audit every manifest, signature, blob and index entry of a mirror."""

from __future__ import annotations

from ..errors import UsageError
from .options import add_mirrors, add_output, client_from
from .progress import reporter_for
from .report import document, line, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("where", metavar="DIR|MIRROR", help="directory, URL, or name of a configured mirror")
    parser.add_argument("--repair", action="store_true", help="fetch what is damaged again; needs --from")
    parser.add_argument(
        "--from",
        dest="mirror",
        action="append",
        default=[],
        metavar="WHERE",
        help="where --repair fetches; repeatable",
    )
    add_mirrors(parser)
    add_output(parser)


def execute(args: argparse.Namespace) -> int:
    """Verify, and repair when asked to; print one line for each damage."""
    if args.mirror and not args.repair:
        raise UsageError("--from is for --repair", hint="cachefetch verify DIR --repair --from MIRROR")
    args.mirror = [args.where, *args.mirror]
    with reporter_for(args) as reporter, client_from(args, reporter=reporter) as client:
        report = client.verify(repair=args.repair)
    if args.json:
        document(report.to_dict())
    else:
        for problem in report.problems:
            line(f"{problem.what}  {problem.path or problem.name}  {problem.message}")
    for problem in report.problems:
        if problem.needed_by:
            say(f"{problem.name}/{problem.hash[:7]} is needed by {', '.join(problem.needed_by)}", args)
    for warning in report.warnings:
        say(f"warning: {warning}")
    notes = "".join(f", {count} {what}" for what, count in report.notes.items() if count)
    done = f"{report.repaired} packages repaired"
    if report.mended:
        done = f"{report.mended} repaired, of {report.repaired} packages"
    say(
        f"{report.manifests} manifests, {report.blobs} blobs, {report.bytes} bytes checked; "
        f"{len(report.problems)} problems, {done}{notes}",
        args,
    )
    return report.exit_code
