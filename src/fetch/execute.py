"""The fetch engine: prove the metadata of every package, plan, then move the payloads in parallel."""

from __future__ import annotations

from typing import TypeVar, cast

from ..errors import CachefetchError, NetworkError
from . import aio, present
from .adopt import adopt as take_in
from .events import Finished, Planned, Reporter
from .failures import SOURCE_ERRORS, for_run, unique
from .limits import DEFAULT_LIMITS
from .metadata import prove
from .model import Caveat, Item, Meter, Receipt
from .payload import deliver
from .plan import plan, room_needed
from .quick import deliver_quickly, prove_quickly
from .retry import Clockwork
from .session import Session
from .streams import deliver_streams
from .verify.policy import NOT_POSSIBLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

    from .limits import Limits
    from .model import VerifiedPackage, Wanted
    from .payload import Delivered
    from .plan import FetchPlan
    from .present import Present
    from .store.cas import Store, Stored
    from .store.lease import Lease
    from .store.locks import Lock
    from .transports import Transports


T = TypeVar("T")
R = TypeVar("R")


async def fetch_metadata(
    wanted: Wanted,
    *,
    store: Store,
    transports: Transports,
    limits: Limits = DEFAULT_LIMITS,
    reporter: Reporter | None = None,
    offline: bool = False,
    meter: Meter | None = None,
    clockwork: Clockwork | None = None,
) -> VerifiedPackage:
    """Prove one package without its payload; `document` has its nodes, for a closure that no index tells.

    Manifest and spec document are kept in the store, so a later fetch does not ask for them again.

    Args:
        wanted: what, and from which mirrors.
        store: where it is kept.
        transports: how mirrors are read.
        limits: time-outs and numbers.
        reporter: gets the events.
        offline: open no socket; the store and mirrors that are directories are read.
        meter: counts bytes; shared with other steps of the same command if given.
        clockwork: time and chance, for tests.

    Raises:
        TrustError, IntegrityError, MirrorError, StoreError: see `metadata.prove`.
    """
    session = _session(store, transports, limits, reporter, offline, meter, clockwork)
    return await prove(session, wanted)


async def prove_items(
    wanted: Sequence[Wanted],
    *,
    store: Store,
    transports: Transports,
    limits: Limits = DEFAULT_LIMITS,
    reporter: Reporter | None = None,
    offline: bool = False,
    meter: Meter | None = None,
    clockwork: Clockwork | None = None,
) -> tuple[VerifiedPackage, ...]:
    """Prove several packages in parallel without their payload; arguments as for `fetch_metadata`.

    Raises:
        TrustError, IntegrityError, MirrorError: some package has no proof. ``context["missing"]`` names those
            that no mirror has ([{"name", "version", "hash"}]), ``context["failures"]`` all; MissingError when
            absence is all that is wrong.
    """
    session = _session(store, transports, limits, reporter, offline, meter, clockwork)
    return await _prove_all(session, wanted)


async def fetch_items(
    wanted: Sequence[Wanted],
    *,
    store: Store,
    transports: Transports,
    limits: Limits = DEFAULT_LIMITS,
    reporter: Reporter | None = None,
    offline: bool = False,
    to: str | None = None,
    adopt: str | None = None,
    meter: Meter | None = None,
    clockwork: Clockwork | None = None,
) -> Receipt:
    """Fetch and verify packages: all metadata first, then, when all of it is proven, the payloads.

    What the store has is not fetched: it is verified again, or is the very files that were verified before (`present`).
    The other arguments are those of `fetch_metadata`.

    Args:
        to: directory that gets ``NAME-VERSION-HASH.spack`` of every package (hard link, reflink or copy).
        adopt: directory with payloads that other tools fetched; see `adopt.adopt`.

    Raises:
        CachefetchError: as `prove_items` before the first payload byte; later the most serious failure of the
            packages that could not be delivered (the others are stored all the same).
        StoreError: no space (seen before the first payload byte where it can be), no permission.
    """
    session = _session(store, transports, limits, reporter, offline, meter, clockwork)
    using, known = await _look(session, wanted)
    with using:
        return await _fetch(session, wanted, known, to, adopt)


async def _look(session: Session, wanted: Sequence[Wanted]) -> tuple[Lock | Lease, list[Present | None]]:
    """Return what is present, and a lock that keeps it (`cache gc`) until the receipt names it and links are made."""

    def look() -> tuple[Lock | Lease, list[Present | None]] | None:
        using = session.store.try_use()
        if using is None:
            return None
        try:
            return using, present.look(session.store, wanted)
        except BaseException:
            using.release()
            raise

    while (found := await aio.to_thread.run_sync(look)) is None:
        await session.clockwork.sleep(session.limits.lock_poll_s)
    return found


async def _fetch(
    session: Session,
    wanted: Sequence[Wanted],
    known: Sequence[Present | None],
    to: str | None,
    adopt: str | None,
) -> Receipt:
    store = session.store
    if all(known):
        return await aio.to_thread.run_sync(
            present.receipt, store, cast("list[Present]", known), to, session.reporter
        )
    absent = [one for one, here in zip(wanted, known, strict=True) if here is None]
    here = [one for one in known if one is not None]
    present.tell(session.reporter, here, len(absent) + 1)
    adopted: tuple[Caveat, ...] = ()

    async def work() -> tuple[list[Delivered], list[Item]]:
        nonlocal adopted
        packages = await _prove_all(session, absent)
        if adopt is not None:
            made = await aio.to_thread.run_sync(_plan_now, session, packages)
            adopted = await aio.to_thread.run_sync(take_in, session.store, made, adopt)
        await _plan(session, packages, to, here)
        delivered = await _deliver_all(session, packages)
        items = await aio.to_thread.run_sync(lambda: [_item(session, one, to) for one in delivered])
        await aio.to_thread.run_sync(present.note, store, absent, [one.package for one in delivered])
        return delivered, items

    try:
        delivered, items = await _in_time(session, work)
    finally:
        store.notes.flush()
    got = iter(items)
    items = [next(got) if one is None else present.item(store, one, to) for one in known]
    warnings = adopted + unique([warning for one in delivered for warning in _warnings(one)])
    session.emit(Finished(0, len(items), session.meter.network_bytes))
    return Receipt(tuple(items), session.meter.network_bytes, warnings)


async def plan_items(
    wanted: Sequence[Wanted],
    *,
    store: Store,
    transports: Transports,
    limits: Limits = DEFAULT_LIMITS,
    reporter: Reporter | None = None,
    offline: bool = False,
    meter: Meter | None = None,
    clockwork: Clockwork | None = None,
) -> FetchPlan:
    """Prove packages and say what fetching them would get and reuse; arguments and errors as for `prove_items`."""
    session = _session(store, transports, limits, reporter, offline, meter, clockwork)

    async def work() -> FetchPlan:
        packages = await _prove_all(session, wanted)
        return await aio.to_thread.run_sync(_plan_now, session, packages)

    return await _in_time(session, work)


def _session(
    store: Store,
    transports: Transports,
    limits: Limits,
    reporter: Reporter | None,
    offline: bool,
    meter: Meter | None,
    clockwork: Clockwork | None,
) -> Session:
    return Session(
        store,
        transports,
        limits,
        reporter or Reporter(),
        offline=offline,
        meter=meter or Meter(),
        clockwork=clockwork or Clockwork(),
    )


async def _in_time(session: Session, work: Callable[[], Awaitable[T]]) -> T:
    """Do `work` before the deadline, and hand over the events of its worker threads meanwhile."""
    limit = session.limits.deadline_s or None
    error: CachefetchError | None = None
    with aio.move_on_after(limit):
        async with aio.create_task_group() as group:
            group.start_soon(session.keep_draining)
            try:
                return await work()
            except CachefetchError as failed:  # raised outside of the group, which would wrap it
                error = failed
            finally:
                group.cancel_scope.cancel()
                session.drain()
    if error is not None:
        raise error
    raise NetworkError(
        f"not done within {limit:g} s (--deadline)",
        hint="run the command again: what is here is kept, and what was under way is continued",
        context={"reason": "deadline", "deadline_s": limit},
    )


async def _prove_all(session: Session, wanted: Sequence[Wanted]) -> tuple[VerifiedPackage, ...]:
    found = await prove_quickly(session, wanted)
    proofs = await _each(wanted, found, lambda number, one: prove(session, one, number), lambda one: one)
    session.met.clear()
    return tuple(proofs)


async def _deliver_all(session: Session, packages: Sequence[VerifiedPackage]) -> list[Delivered]:
    found = await deliver_quickly(session, packages)
    found |= await deliver_streams(session, packages, found)
    return await _each(packages, found, lambda number, one: deliver(session, number, one), _wanted)


async def _plan(
    session: Session, packages: Sequence[VerifiedPackage], to: str | None, here: Sequence[Present]
) -> None:
    """Plan, tell it, and refuse what does not fit on the disk before the first payload byte."""
    made = await aio.to_thread.run_sync(_plan_now, session, packages)
    session.emit(Planned(0, len(made.steps) + len(here), made.reused + len(here), made.get_bytes))
    sizes = {one.sha256: one.size for one in here}
    await aio.to_thread.run_sync(_require_space, session.store, made, to, sizes)


def _plan_now(session: Session, packages: Sequence[VerifiedPackage]) -> FetchPlan:
    return plan(packages, _inventory(session.store, {package.tarball.sha256 for package in packages}))


def _inventory(store: Store, blobs: Iterable[str]) -> dict[str, Stored]:
    found = ((sha256, store.locate(sha256)) for sha256 in blobs)
    return {sha256: place for sha256, place in found if place is not None}


def _require_space(store: Store, made: FetchPlan, to: str | None, here: Mapping[str, int]) -> None:
    if made.get_bytes:
        getting = [step.package for step in made.steps if step.stored is None]
        missing = {package.tarball.sha256 for package in getting}
        parts = sum(store.part_size(sha256) for sha256 in missing & store.parts())
        store.require_space(max(0, room_needed(getting) - parts))
    if to is not None:
        out = [step.package for step in made.steps if step.package.tarball.sha256 not in here]
        store.require_space_out(to, sum(here.values()) + room_needed(out))


def _wanted(package: VerifiedPackage) -> Wanted:
    return package.wanted


def _warnings(one: Delivered) -> tuple[Caveat, ...]:
    """Return what went wrong, and the note that nobody signed what comes from a registry."""
    if one.package.signature != NOT_POSSIBLE:
        return one.warnings
    mirror = one.package.source.mirror
    message = (
        f"mirror {mirror} is a registry, which holds no signatures: digests and binding were checked, not who "
        "published the binary"
    )
    return (*one.warnings, Caveat("no-signatures", message, mirror))


def _item(session: Session, one: Delivered, to: str | None) -> Item:
    package, wanted, blob = one.package, one.package.wanted, one.package.tarball
    path = one.path if to is None else present.link_out(session.store, wanted, blob.sha256, to)
    return Item(
        wanted.name,
        wanted.version,
        wanted.hash,
        blob.sha256,
        blob.size,
        one.origin,
        one.mirror,
        path,
        package.signature,
        package.key,
        package.document.dag_hash_confirmed,
    )


async def _each(
    things: Sequence[T],
    results: dict[int, R],
    work: Callable[[int, T], Awaitable[R]],
    wanted: Callable[[T], Wanted],
) -> list[R]:
    """Work on all things without a result; one mirror's failure stops no other, a full disk all."""
    errors: dict[int, CachefetchError] = {}
    fatal: list[CachefetchError] = []

    async def run(number: int, thing: T) -> None:
        try:
            results[number] = await work(number + 1, thing)
        except SOURCE_ERRORS as error:
            errors[number] = error
        except CachefetchError as error:  # of the store or the configuration: the others would meet it too
            fatal.append(error)
            group.cancel_scope.cancel()

    async with aio.create_task_group() as group:
        for number, thing in enumerate(things):
            if number not in results:
                group.start_soon(run, number, thing)
    if fatal:
        raise fatal[0]
    if errors:
        raise for_run([(wanted(things[i]), errors[i]) for i in sorted(errors)], len(things))
    return [results[i] for i in range(len(things))]
