"""The work of a fetch: prove what is absent, plan it, bring it. `run` loads this module once there is such work.

The quick ways (`quick`, `streams`) need threads only. What they leave (an error, a redirect, a lock that a failed try
must wait for, a deadline) is done in an event loop, by the same steps, which go on where they were
(docs/decisions/0012).
"""

from __future__ import annotations

from functools import partial

from ..errors import CachefetchError
from . import aio, present
from .adopt import adopt as take_in
from .aio import LoopNeeded
from .events import Finished, Planned, Verified, Waiting
from .failures import SOURCE_ERRORS, for_run, unique
from .layouts import V2
from .metadata import prove
from .model import Caveat, Item, Receipt
from .payload import deliver
from .plan import plan, room_needed
from .quick import deliver_in_halves, prove_in_halves, prove_quickly
from .streams import deliver_large, deliver_streams
from .verify.policy import NOT_POSSIBLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
    from typing import TypeVar

    from .model import VerifiedPackage, Wanted
    from .payload import Delivered
    from .plan import FetchPlan
    from .present import Present
    from .run import Request
    from .session import Session
    from .store.cas import Store, Stored

    T = TypeVar("T")
    R = TypeVar("R")


class Work:
    """The steps of one fetch, and how far they are.

    Args:
        session: of this run alone.
        request: what is asked for.
        known: what is present of it, None for the packages that this work is about.
    """

    def __init__(self, session: Session, request: Request, known: Sequence[Present | None]) -> None:
        self.session, self._request, self._known = session, request, known
        self._here = [one for one in known if one is not None]
        self._absent = [one for one, here in zip(request.wanted, known, strict=True) if here is None]
        self._keys = [key for key, here in zip(request.keys, known, strict=True) if here is None]
        found = (present.proven(session.store, *pair) for pair in zip(self._absent, self._keys, strict=True))
        self._proofs = {number: one for number, one in enumerate(found) if one is not None}
        self._packages: tuple[VerifiedPackage, ...] | None = None  # once all are proven
        self._delivered: dict[int, Delivered] = {}
        self._adopted: tuple[Caveat, ...] = ()
        self._done: set[str] = set()

    async def receipt(self) -> Receipt:
        """Do what is not done yet.

        Raises:
            LoopNeeded: the rest needs an event loop, and there is none. CachefetchError: see `Run.finish`.
        """
        session, store, to = self.session, self.session.store, self._request.to
        try:
            await self._once("tell", self._tell)
            packages = await self._prove()
            self._request.accept([*self._here, *packages])
            await self._once("adopt", partial(self._take_in, packages))
            await self._once("plan", partial(self._plan, packages))
            delivered = await self._deliver(packages)
            if any(one.package is not first for one, first in zip(delivered, packages, strict=True)):
                self._request.accept([*self._here, *(one.package for one in delivered)])
            items = await session.blocking(lambda: [_item(session, one, to) for one in delivered])
            await self._note([one.package for one in delivered], packages)
        finally:
            store.notes.flush()
        got = iter(items)
        items = [next(got) if one is None else present.item(store, one, to) for one in self._known]
        warnings = self._adopted + unique([warning for one in delivered for warning in _warnings(one)])
        session.emit(Finished(0, len(items), session.meter.network_bytes))
        return Receipt(tuple(items), session.meter.network_bytes, warnings)

    async def _once(self, step: str, work: Callable[[], Awaitable[None]]) -> None:
        """Do a step that was not done before the loop."""
        if step not in self._done:
            await work()
            self._done.add(step)

    async def _tell(self) -> None:
        for number, one in self._proofs.items():
            self.session.emit(Verified(number + 1, str(one.wanted), one.signature, one.key))
        present.tell(self.session.reporter, self._here, len(self._absent) + 1)

    async def _prove(self) -> tuple[VerifiedPackage, ...]:
        async def quickly() -> None:
            await self._quickly(self._proofs, partial(prove_in_halves, self.session, self._absent))

        await self._once("prove", quickly)
        if self._packages is None:
            self._packages = await _prove_rest(self.session, self._absent, self._proofs)
            await self._note(self._packages)  # now: who waits for this run sees by it what is to come
        return self._packages

    async def _note(
        self, packages: Sequence[VerifiedPackage], noted: Sequence[VerifiedPackage | None] | None = None
    ) -> None:
        """Note what is proven of the absent packages, but for what is `noted` already."""
        known = noted or [None] * len(packages)
        todo = [
            (key, wanted, package)
            for key, wanted, package, old in zip(self._keys, self._absent, packages, known, strict=True)
            if package is not old
        ]
        await self.session.blocking(partial(present.note, self.session.store, todo))

    async def _take_in(self, packages: Sequence[VerifiedPackage]) -> None:
        """Adopt what other tools fetched."""
        if self._request.adopt is not None:
            made = await self.session.blocking(partial(plan_now, self.session, packages))
            adopted = partial(take_in, self.session.store, made, self._request.adopt)
            self._adopted = await self.session.blocking(adopted)

    async def _plan(self, packages: Sequence[VerifiedPackage]) -> None:
        """Plan, tell it, and refuse what does not fit on the disk before the first payload byte."""
        session, here = self.session, self._here
        made = await session.blocking(partial(plan_now, session, packages))
        session.emit(Planned(0, len(made.steps) + len(here), made.reused + len(here), made.get_bytes))
        sizes = {one.sha256: one.size for one in here}
        await session.blocking(partial(_require_space, session.store, made, self._request.to, sizes))

    async def _deliver(self, packages: Sequence[VerifiedPackage]) -> list[Delivered]:
        session = self.session

        def keep_room() -> None:
            for number, one in enumerate(packages):
                if number in self._delivered:
                    session.room.settled(one.tarball.sha256)
                elif one.layout != V2:
                    session.room.expect(one.tarball.sha256, one.tarball.size)

        async def quickly() -> None:
            for bring in (deliver_in_halves, deliver_streams, deliver_large):
                keep_room()
                await self._quickly(self._delivered, partial(bring, session, packages))

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
        bring: Callable[[Sequence[int]], Awaitable[dict[int, R]]],
    ) -> None:
        """Go a quick way; where there is no loop yet, again for what other processes were at."""
        session = self.session
        todo = [n for n in range(len(self._absent)) if n not in results]
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
                session.emit(Waiting(number + 1, str(self._absent[number])))
                told.add(number)
            todo = []
            while busy and not todo:
                await session.rest(wait_s * (0.5 + session.clockwork.random()))
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
        package.dag_hash,
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
