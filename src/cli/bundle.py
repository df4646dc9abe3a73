"""``cachefetch bundle export|import|verify``: carry a mirror, or what changed in it, on removable media."""

from __future__ import annotations

from ..errors import UsageError
from .options import add_mirrors, add_output, client_from, local_target
from .progress import reporter_for
from .report import document, line, say
from .sync import add_selection, say_problems, selection_from

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from ..blocking import Client


#: Problems of an import that a later one ends.
_MAY_COME = ("volume-missing", "not-in-bundle", "size-mismatch")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("action", choices=("export", "import", "verify"))
    parser.add_argument(
        "what",
        nargs="*",
        metavar="SPEC|FILE|DIR",
        help="export: specs or lock files as for `sync`, everything without; import, verify: volumes, or "
        "directories for all volumes in them (import takes of a file that volume alone)",
    )
    parser.add_argument("--to", metavar="PATH", help="export: FILE.bundle or a directory; import: the mirror")
    export = parser.add_argument_group("export")
    export.add_argument("--volume-size", metavar="SIZE", help="most bytes of a file: 25G, 4GiB, 700M")
    export.add_argument(
        "--since", metavar="RECEIPT", default="", help="only what the mirror of this receipt lacks"
    )
    export.add_argument(
        "--sign-key", metavar="FILE", default="", help="secret OpenPGP key that signs the bundle"
    )
    export.add_argument(
        "--staging", metavar="DIR", default="", help="keep the copy that is packed here, for the next export"
    )
    export.add_argument(
        "--convert", action="store_true", help="pack packages of layout 2 as unsigned ones of layout 3"
    )
    parser.add_argument("--receipt", metavar="FILE", default="", help="import: write the receipt here too")
    add_selection(parser)
    add_mirrors(parser)
    add_output(parser)


def execute(args: argparse.Namespace) -> int:
    """Do the action."""
    if args.action != "verify" and not args.to:
        raise UsageError(
            f"bundle {args.action} needs --to", hint=f"cachefetch bundle {args.action} ... --to PATH"
        )
    if args.action != "export":
        args.mirror = [*args.what, *args.mirror]
    with reporter_for(args) as reporter, client_from(args, reporter=reporter) as client:
        return {"export": _export, "import": _import, "verify": _verify}[args.action](client, args)


def _export(client: Client, args: argparse.Namespace) -> int:
    from ..fetch.bundle.format import parse_size

    args.spec = args.what
    args.all = args.all or not args.what
    report = client.bundle_export(
        selection_from(args, client),
        local_target(args.to, "--to"),
        volume_size=parse_size(args.volume_size) if args.volume_size else None,
        since=args.since,
        sign_key=args.sign_key,
        staging=args.staging,
        convert=args.convert,
    )
    if args.json:
        document(report.to_dict())
    else:
        for path in report.volumes:
            line(path)
    say_problems(report.problems)
    for warning in report.warnings:
        say(f"warning: {warning}")
    signed = ", signed" if report.signed else ""
    left = f"; {report.left} packages are there already" if report.since else ""
    say(f"bundle {report.bundle[:12]}: {report.packages} packages, {report.bytes} bytes{signed}{left}", args)
    return report.exit_code


def _import(client: Client, args: argparse.Namespace) -> int:
    reports = client.bundle_import(args.to, receipt=args.receipt)
    for report in reports:
        if args.json:
            document(report.to_dict())
        else:
            done = report.sync.done
            line(
                f"bundle {report.bundle[:12]}: {len(report.present)} of {report.volumes} volumes; "
                f"{done['packages']} packages, {done['copied_blobs']} blobs, {done['copied_bytes']} bytes copied"
            )
        say_problems(report.sync.problems)
        if any(problem.what in _MAY_COME for problem in report.sync.problems):
            say("what needs a package that has not come yet is kept, and listed once that has come", args)
        for warning in report.sync.warnings:
            say(f"warning: {warning}")
        say(f"receipt: {report.receipt}", args)
    return max(report.exit_code for report in reports)


def _verify(client: Client, args: argparse.Namespace) -> int:
    reports = client.bundle_verify()
    for report in reports:
        if args.json:
            document(report.to_dict())
        else:
            for problem in report.problems:
                line(f"{problem.what}  {problem.name}  {problem.message}")
        if not report.id:
            say("files of no bundle that could be told: copy them again", args)
            continue
        say(
            f"bundle {report.id[:12]}: {len(report.volumes)} of {report.of} volumes, {report.packages} packages, "
            f"{report.files} files, {report.bytes} bytes; signature: {report.signature}; "
            f"{len(report.problems)} problems",
            args,
        )
    return max(report.exit_code for report in reports)
