"""``cachefetch fetch``: fetch and verify the chosen binaries with their closure."""

from __future__ import annotations

from ..errors import CachefetchError
from ..resolver import explain
from .options import (
    add_host,
    add_mirrors,
    add_output,
    add_requirements,
    client_from,
    host_from,
    local_target,
    requirements_from,
)
from .progress import reporter_for
from .report import document, line, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

    from ..blocking import Client
    from ..fetch.limits import Limits
    from ..fetch.model import Receipt
    from ..fetch.plan import FetchPlan

_FORMATS = ("json", "aria2", "curl", "sha256sum", "metalink")
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    words = "as for `cachefetch resolve`; /hash; or NAME@=VERSION/HASH, which needs no index"
    parser.add_argument("spec", nargs="*", metavar="SPEC", help=words)
    parser.add_argument("--to", metavar="DIR", help="link the packages there as NAME-VERSION-HASH.spack")
    parser.add_argument(
        "--no-deps", action="store_true", help="only the named packages, without their closure"
    )
    parser.add_argument("--lock", metavar="FILE", help="exactly what this lock file names; no index is read")
    parser.add_argument(
        "--env", metavar="FILE", help="all that the environment of this spack.lock needs; no index is read"
    )
    parser.add_argument("--no-unify", action="store_true", help="resolve each SPEC alone")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="prove all metadata, say what would be fetched, fetch no payload",
    )
    add_requirements(parser)
    parser.add_argument(
        "--plan", metavar="FILE", help="write the plan to FILE (- for stdout), fetch no payload"
    )
    parser.add_argument("--format", choices=_FORMATS, help="of --plan: for which tool; json without it")
    parser.add_argument(
        "--adopt", metavar="DIR", help="take payloads from there that other tools fetched, once verified"
    )
    parser.add_argument("--limit-rate", metavar="BYTES", type=_rate, default=0, help="a second: 500k, 20M")
    parser.add_argument("--deadline", metavar="SECONDS", type=_seconds, default=0.0, help="give up after")
    add_mirrors(parser)
    add_host(parser)
    add_output(parser)


def execute(args: argparse.Namespace) -> int:
    """Resolve, fetch, verify; print one line a package."""
    _refuse_useless(args)
    with reporter_for(args) as reporter, client_from(args, reporter=reporter, limits=_limits(args)) as client:
        if args.lock:
            return _locked(args, client)
        while True:
            try:
                return _asked(args, client)
            except CachefetchError as error:
                if not client.reconsider(error):
                    raise
                say(f"warning: {error.message}")


def _asked(args: argparse.Namespace, client: Client) -> int:
    """Resolve and fetch, or plan, what the arguments name."""
    options: dict[str, Any] = {"deps": not args.no_deps}
    specs, misfits = args.spec, ""
    requirements = requirements_from(args)
    if args.env:
        specs, misfits = _environment(args, client)
        options["deps"] = False
    elif requirements or not client.pins(*specs):
        answer = client.resolve(
            *args.spec,
            host=host_from(args, client),
            unify=not args.no_unify,
            requirements=requirements,
            prereleases=args.pre,
        )
        options["resolution"], specs = answer, []
        if answer.status in ("ok", "incomplete"):
            for root in answer.roots:
                say(explain.one_line(root), args)
    if args.dry_run or args.plan:
        if misfits:
            say(f"warning: {misfits}")
        return _show_plan(client.plan(*specs, **options), args)
    receipt = client.fetch(*specs, to=args.to, adopt=args.adopt, **options)
    _print(receipt.with_warnings("other-host", (misfits,)) if misfits else receipt, args)
    return 0


def _refuse_useless(args: argparse.Namespace) -> None:
    """Refuse options that would be without effect: whoever gave them expects one. Raises UsageError."""
    from ..errors import UsageError

    if args.to:
        local_target(args.to, "--to")
    if args.format and not args.plan:
        raise UsageError(
            f"--format {args.format} is of --plan, which is not given",
            hint=f"cachefetch fetch ... --plan FILE --format {args.format}",
        )
    for option, value in (("--to", args.to), ("--adopt", args.adopt)):
        if args.plan and value:
            raise UsageError(
                f"fetch --plan fetches no payload, so {option} {value} has no effect",
                hint=f"write the plan without {option}; give it to the `fetch --adopt DIR` that takes the payloads in"
                if option == "--to"
                else "write the plan first, let the other tool fetch, then `cachefetch fetch SPEC --adopt DIR`",
            )


def _environment(args: argparse.Namespace, client: Client) -> tuple[list[str], str]:
    """Return the names in full of all that an environment needs at run time, and what the host cannot run of it."""
    from ..errors import UsageError
    from ..pins import environment_misfits, environment_pins

    if args.spec or args.no_deps or args.requirement:
        raise UsageError(
            "fetch --env FILE takes no SPEC, -r or --no-deps: the environment says what is fetched"
        )
    try:
        with open(args.env, "rb") as file:
            data = file.read()
    except OSError as error:
        raise UsageError(
            f"cannot read the environment {args.env}: {error.strerror}",
            hint="name the spack.lock that `spack concretize` wrote",
        ) from error
    pins = [str(pin) for pin in environment_pins(data, what=args.env)]
    host, policy = host_from(args, client), client.options.policy
    facts, here = host or client.host(), host is None
    return pins, environment_misfits(data, facts, policy, here=here, what=args.env)


def _locked(args: argparse.Namespace, client: Client) -> int:
    """Fetch what a lock file names, or plan that."""
    from ..errors import UsageError
    from .locking import read_lock

    if args.spec or args.no_deps or args.env or args.requirement:
        raise UsageError(
            "fetch --lock FILE takes no SPEC, -r, --env or --no-deps: the lock file says what is fetched"
        )
    lock, host = read_lock(args.lock), host_from(args, client)
    if args.dry_run or args.plan:
        return _show_plan(client.plan_locked(lock, host=host), args)
    _print(client.fetch_locked(lock, host=host, to=args.to, adopt=args.adopt), args)
    return 0


def _limits(args: argparse.Namespace) -> Limits | None:
    if not args.limit_rate and not args.deadline:
        return None
    from ..fetch.limits import DEFAULT_LIMITS, Limits

    # Small pieces make a slow pace even: a quarter of a second's bytes at most.
    chunk = min(DEFAULT_LIMITS.chunk_bytes, max(4096, args.limit_rate // 4)) if args.limit_rate else 0
    return Limits(
        rate_bytes_per_s=args.limit_rate,
        deadline_s=args.deadline,
        chunk_bytes=chunk or DEFAULT_LIMITS.chunk_bytes,
    )


def _rate(text: str) -> int:
    """Return bytes for ``500k`` or ``20M``; an error that argparse reports for anything else."""
    number = text.rstrip("kKmMgG")
    try:
        value = float(number) * _UNITS[text[len(number) :].lower()]
    except (ValueError, KeyError):
        value = 0
    if not 1 <= value < 1 << 60:  # also for inf and nan
        raise _refused(f"{text!r:.40} is no number of bytes, as 500k, 20M or 1G")
    return int(value)


def _seconds(text: str) -> float:
    """Return a number of seconds above 0; an error that argparse reports for anything else."""
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not 0 < value < 1e9:
        raise _refused(f"{text!r:.40} is no number of seconds above 0")
    return value


def _refused(message: str) -> Exception:
    import argparse

    return argparse.ArgumentTypeError(message)


def _show_plan(plan: FetchPlan, args: argparse.Namespace) -> int:
    from ..fetch import export
    from .locking import write_file

    if args.plan and args.plan != "-":
        write_file(args.plan, export.render(plan, args.format or "json").encode())
    elif args.plan:
        line(export.render(plan, args.format or "json").rstrip("\n"))
        return 0
    if args.json:
        document(export.document(plan))
    elif not args.plan:
        _print_plan(plan)
    get = sum(step.stored is None for step in plan.steps)
    say(
        f"{get} packages to get, {plan.get_bytes} bytes; {plan.reused} in the store, {plan.reuse_bytes} bytes",
        args,
    )
    return 0


def _print_plan(plan: FetchPlan) -> None:
    for step in plan.steps:
        wanted = step.package.wanted
        action = "get" if step.stored is None else "reuse"
        where = ",".join(source.mirror for source in wanted.sources)
        line(
            f"{wanted.name}@{wanted.version}  /{wanted.hash}  {action}  {step.package.tarball.size}  {where}"
        )


def _print(receipt: Receipt, args: argparse.Namespace) -> None:
    if args.json:
        document(receipt.to_dict())
    else:
        for item in receipt.items:
            # The document says "network" of every mirror; of a directory that would be untrue to a reader.
            origin = "mirror" if item.origin == "network" else item.origin
            line(f"{item.name}@{item.version}  /{item.hash}  {origin}  {item.path}")
    for warning in receipt.warnings:
        say(f"warning: {warning.message}")
    size = sum(item.size for item in receipt.items)
    confirmed = sum(item.dag_hash for item in receipt.items)
    say(
        f"{len(receipt.items)} packages verified, {size} bytes; {receipt.network_bytes} bytes over the network; "
        f"{confirmed} DAG hashes computed again and right",
        args,
    )
