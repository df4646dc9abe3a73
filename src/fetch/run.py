"""One fetch from its beginning to its receipt.

It begins without an event loop, which takes longer to load than hundreds of small packages to fetch: the quick ways
(`quick`, `streams`) need threads only. What they leave (an error, a redirect, a lock that a failed try must wait for,
a deadline) is done in the loop, by the same steps, which go on where they were (docs/decisions/0012).
"""

from __future__ import annotations

import time
from functools import partial

from ..errors import CachefetchError, NetworkError
from . import aio, present
from .adopt import adopt as take_in
from .events import Finished, Planned, Waiting
from .failures import SOURCE_ERRORS, for_run, unique
from .layouts import V2
from .metadata import prove
from .model import Caveat, Item, Receipt
from .payload import deliver
from .plan import plan, room_needed
from .quick import deliver_quickly, prove_quickly
from .streams import deliver_large, deliver_streams
from .verify.policy import NOT_POSSIBLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
    from typing import TypeVar

    from .model import VerifiedPackage, Wanted
    from .payload import Delivered
    from .plan import FetchPlan
    from .present import Present
    from .session import Session
    from .store.cas import Store, Stored
    from .store.lease import Lease
    from .store.locks import Lock

    T = TypeVar("T")
    R = TypeVar("R")


class LoopNeeded(Exception):
    """The rest of the work needs an event loop."""


class Run:
    """A fetch, and how far it is: `begin` it where there is no event loop, and `finish` it in one if that is needed.

    Args:
        session: of this run alone.
        wanted, to, adopt, accept: as for `new_run`.
    """

    def __init__(
        self,
        session: Session,
        wanted: Sequence[Wanted],
        to: str | None,
        adopt: str | None,
        accept: Callable[[Sequence[Present | VerifiedPackage]], None] = lambda _: None,
    ) -> None:
        self.session = session
        self._wanted, self._to, self._adopt, self._accept = tuple(wanted), to, adopt, accept
        #: Keeps what is present (`cache gc`) until the receipt names it.
        self._using: Lock | Lease | None = None
        self._known: list[Present | None] = []
        self._absent: list[Wanted] = []
        self._proofs: dict[int, VerifiedPackage] = {}
        self._packages: tuple[VerifiedPackage, ...] | None = None  # once all are proven
        self._delivered: dict[int, Delivered] = {}
        self._adopted: tuple[Caveat, ...] = ()
        self._done: set[str] = set()

    def begin(self) -> Receipt | None:
        """Go as far as it goes without an event loop: to the receipt, or None when `finish` has to go on.

        Raises:
            CachefetchError, StoreError: as `finish`. The run is over then.
        """
        if self.session.limits.deadline_s:
            return None
        self.session.in_loop = False
        try:
            if not self._look():
                return None
            receipt = aio.at_once(self._work())
        except LoopNeeded:
            return None
        except BaseException:
            self.close()
            raise
        finally:
            self.session.in_loop = True
            self.session.drain()
        self.close()
        return receipt

    async def finish(self) -> Receipt:
        """Go on to the receipt, from the beginning or from where `begin` stopped.

        Raises:
            CachefetchError: as `prove_items` before the first payload byte; later the most serious failure of the
                packages that could not be delivered (the others are stored all the same).
            StoreError: no space (seen before the first payload byte where it can be), no permission.
        """
        try:
            while self._using is None and not await self.session.blocking(self._look):
                await self.session.clockwork.sleep(self.session.limits.lock_poll_s)
            return await in_time(self.session, self._work)
        finally:
            self.close()

    def close(self) -> None:
        """Let others remove what this run found or brought. May be called again."""
        using, self._using = self._using, None
        if using is not None:
            using.release()

    def _look(self) -> bool:
        """See what is present, and keep it; False when somebody is removing things now."""
        store = self.session.store
        self._using = store.try_use()
        if self._using is None:
            return False
        self._known = present.look(store, self._wanted)
        self._absent = [one for one, here in zip(self._wanted, self._known, strict=True) if here is None]
        return True

    async def _work(self) -> Receipt:
        session = self.session
        store = session.store
        here = [one for one in self._known if one is not None]
        if not self._absent:
            self._accept(here)
            return await session.blocking(partial(present.receipt, store, here, self._to, session.reporter))
        try:
            await self._once("tell", self._tell)
            packages = await self._prove()
            self._accept([*here, *packages])
            await self._once("adopt", partial(self._take_in, packages))
            await self._once("plan", partial(self._plan, packages))
            delivered = await self._deliver(packages)
            items = await session.blocking(lambda: [_item(session, one, self._to) for one in delivered])
            proven = [one.package for one in delivered]
            await session.blocking(partial(present.note, store, self._absent, proven))
        finally:
            store.notes.flush()
        got = iter(items)
        items = [next(got) if one is None else present.item(store, one, self._to) for one in self._known]
        warnings = self._adopted + unique([warning for one in delivered for warning in _warnings(one)])
        session.emit(Finished(0, len(items), session.meter.network_bytes))
        return Receipt(tuple(items), session.meter.network_bytes, warnings)

    async def _once(self, step: str, work: Callable[[], Awaitable[None]]) -> None:
        """Do a step that was not done before the loop."""
        if step not in self._done:
            await work()
            self._done.add(step)

    async def _tell(self) -> None:
        here = [one for one in self._known if one is not None]
        present.tell(self.session.reporter, here, len(self._absent) + 1)

    async def _prove(self) -> tuple[VerifiedPackage, ...]:
        async def quickly() -> None:
            await self._quickly(self._proofs, partial(prove_quickly, self.session, self._absent))

        await self._once("prove", quickly)
        if self._packages is None:
            self._packages = await _prove_rest(self.session, self._absent, self._proofs)
        return self._packages

    async def _take_in(self, packages: Sequence[VerifiedPackage]) -> None:
        """Adopt what other tools fetched."""
        if self._adopt is not None:
            made = await self.session.blocking(partial(plan_now, self.session, packages))
            adopted = partial(take_in, self.session.store, made, self._adopt)
            self._adopted = await self.session.blocking(adopted)

    async def _plan(self, packages: Sequence[VerifiedPackage]) -> None:
        """Plan, tell it, and refuse what does not fit on the disk before the first payload byte."""
        session, here = self.session, [one for one in self._known if one is not None]
        made = await session.blocking(partial(plan_now, session, packages))
        session.emit(Planned(0, len(made.steps) + len(here), made.reused + len(here), made.get_bytes))
        sizes = {one.sha256: one.size for one in here}
        await session.blocking(partial(_require_space, session.store, made, self._to, sizes))

    async def _deliver(self, packages: Sequence[VerifiedPackage]) -> list[Delivered]:
        session = self.session

        def waiting(number: int) -> None:
            session.emit(Waiting(number + 1, str(packages[number].wanted)))

        def keep_room() -> None:
            for number, one in enumerate(packages):
                if number in self._delivered:
                    session.room.settled(one.tarball.sha256)
                elif one.layout != V2:
                    session.room.expect(one.tarball.sha256, one.tarball.size)

        async def quickly() -> None:
            for bring in (deliver_quickly, deliver_streams, deliver_large):
                keep_room()
                await self._quickly(self._delivered, partial(bring, session, packages), waiting)

        async def patiently(number: int, one: VerifiedPackage) -> Delivered:
            try:
                return await deliver(session, number, one)
            finally:
                session.room.settled(one.tarball.sha256)

        await self._once("deliver", quickly)
        keep_room()
        return await _each(session, packages, self._delivered, patiently, _wanted)

    async def _quickly(
        self,
        results: dict[int, R],
        bring: Callable[[Collection[int]], Awaitable[dict[int, R]]],
        waiting: Callable[[int], None] = lambda _: None,
    ) -> None:
        """Go a quick way; where there is no loop yet, again for what other processes were at: `waiting` tells that."""
        session = self.session
        todo: Collection[int] = {n for n in range(len(self._absent)) if n not in results}
        busy: dict[int, str] = {}
        told: set[int] = set()
        wait_s = session.limits.lock_poll_s
        while todo:
            session.busy.clear()
            results |= await bring(todo)
            if session.in_loop or session.met:
                return
            busy |= session.busy
            for number in busy.keys() - told:
                waiting(number)
                told.add(number)
            todo = ()
            while busy and not todo:
                _rest(wait_s * (0.5 + session.clockwork.random()))
                wait_s = min(2 * wait_s, session.limits.lock_poll_cap_s)
                todo = [number for number, key in busy.items() if self._is_free(key)]
            for number in todo:
                del busy[number]

    def _is_free(self, key: str) -> bool:
        """Return True when no other process has a lock, or its blob is there: a try of each package would cost more."""
        if len(key) == 64 and self.session.store.has(key):
            return True
        lock = self.session.store.try_lock(key)
        if lock is not None:
            lock.release()
        return lock is not None


def _rest(seconds: float) -> None:
    """Wait where there is no loop: many that look often would keep the processors from the one that fetches."""
    time.sleep(seconds)


async def prove_all(session: Session, wanted: Sequence[Wanted]) -> tuple[VerifiedPackage, ...]:
    """Prove packages in parallel.

    Raises:
        TrustError, IntegrityError, MirrorError: see `prove_items`.
    """
    found = await prove_quickly(session, wanted)
    return await _prove_rest(session, wanted, found)


async def _prove_rest(
    session: Session, wanted: Sequence[Wanted], found: dict[int, VerifiedPackage]
) -> tuple[VerifiedPackage, ...]:
    proofs = await _each(
        session, wanted, found, lambda number, one: prove(session, one, number), lambda one: one
    )
    session.met.clear()
    return tuple(proofs)


async def in_time(session: Session, work: Callable[[], Awaitable[T]]) -> T:
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


def plan_now(session: Session, packages: Sequence[VerifiedPackage]) -> FetchPlan:
    """Return what fetching proven packages would get and reuse."""
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
    session: Session,
    things: Sequence[T],
    results: dict[int, R],
    work: Callable[[int, T], Awaitable[R]],
    wanted: Callable[[T], Wanted],
) -> list[R]:
    """Work on all things without a result; one mirror's failure stops no other, a full disk all.

    Raises:
        LoopNeeded: some have no result, and there is no event loop.
    """
    if len(results) == len(things):
        return [results[i] for i in range(len(things))]
    if not session.in_loop:
        raise LoopNeeded
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
