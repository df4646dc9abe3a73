"""What the sources offer, proven, and what the destination has."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import anyio
from anyio import to_thread

from ...errors import CachefetchError, LockChangedError
from ...resolver.index.readers.manifest import spec_stem
from ..failures import SOURCE_ERRORS
from ..metadata import prove
from ..quick import prove_quickly
from ..verify.binding import SpecDocument
from .plan import is_complete, meets_policy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import (
        AsyncIterator,
        Awaitable,
        Callable,
        Container,
        Iterable,
        Iterator,
        Mapping,
        Sequence,
    )
    from typing import TypeVar

    from ..model import VerifiedPackage, Wanted
    from ..session import Session
    from .destination import Destination
    from .journal import Journal, Row
    from .plan import Listing

    T = TypeVar("T")
    R = TypeVar("R")


#: Packages of one quick run: whole spec documents are in memory until it ends, and a kill loses its manifests.
_PORTION = 500
#: Bytes of spec documents that wait in memory for the end of the plan.
_HELD = 32 << 20


def stem_of(wanted: Wanted) -> str:
    """Return ``NAME-VERSION-HASH`` of a package."""
    return spec_stem(wanted.name, wanted.version, wanted.hash)


def split_known(
    wanted: Sequence[Wanted],
    journal: Journal,
    listing: Listing,
    *,
    check: bool,
    doubtful: Container[str] = (),
) -> tuple[list[Row], list[Wanted]]:
    """Split a selection into what is recorded as complete at the destination, and what has to be proven.

    With `check` nothing is taken from the journal; packages whose hash is `doubtful` never are.
    """
    known: list[Row] = []
    rest: list[Wanted] = []
    for one in wanted:
        stem = stem_of(one)
        row = None if check or one.hash in doubtful else journal.rows.get(stem)
        if (
            row is not None
            and stem in listing.manifests
            and is_complete(row, listing.blobs)
            and any(meets_policy(row, source) for source in one.sources)
        ):
            known.append(row)
        else:
            rest.append(one)
    return known, rest


async def prove_selection(
    session: Session,
    destination: Destination,
    wanted: Sequence[Wanted],
    pins: Mapping[str, str],
    require_room: Callable[[Iterable[VerifiedPackage]], None],
) -> tuple[dict[int, VerifiedPackage], dict[int, CachefetchError]]:
    """Prove packages, from the destination's own manifests first.

    What goes well goes the quick way (`quick`), some hundred packages at a time. Spec documents are held until
    `release`, so that a plan that does not fit has written nothing. With too many of them to hold they are stored on
    the way, each time after `require_room` found room for all packages so far.

    Returns:
        Packages and errors by position in `wanted`. The documents are dropped: thousands would fill the memory.
    """

    def settled(found: VerifiedPackage) -> VerifiedPackage:
        package = found.wanted
        if pins.get(package.hash) not in (None, found.tarball.sha256):
            raise LockChangedError(
                f"{package}: the mirrors promise sha256 {found.tarball.sha256}, the lock file {pins[package.hash]}",
                hint="if the change is wanted, write the lock file again",
                context={"hash": package.hash},
            )
        found = destination.adopt(found)
        root = SpecDocument(found.document.nodes[:1], {}, found.document.format, False)
        return replace(found, read=root)

    async def one(number: int, package: Wanted) -> VerifiedPackage:
        found = quick.pop(number, None)
        if found is None:
            try:
                found = await prove(session, package, number + 1)
            except SOURCE_ERRORS:
                if not destination.believe(stem_of(package)):
                    raise
                found = await prove(session, package, number + 1)  # no mirror has another one: ours counts
        return await to_thread.run_sync(settled, found)

    packages: dict[int, VerifiedPackage] = {}
    errors: dict[int, CachefetchError] = {}
    for first, portion in portions(wanted):
        destination.hold()
        async with gathered(destination):
            quick = await prove_quickly(session, portion)
            found, failed = await each(portion, one, 2 * session.limits.metadata_in_flight)
        session.met.clear()
        packages.update((first + number, package) for number, package in found.items())
        errors.update((first + number, error) for number, error in failed.items())
        if destination.held_bytes > _HELD:
            await to_thread.run_sync(require_room, packages.values())
            await released(destination)
    return packages, errors


async def released(destination: Destination) -> None:
    """Write the documents that the destination holds."""
    async with gathered(destination):
        await to_thread.run_sync(destination.release)


@contextlib.asynccontextmanager
async def gathered(destination: Destination) -> AsyncIterator[None]:
    """Give names to what is written meanwhile many at a time, the last at the end; see `Destination.gather`."""
    destination.gather()
    try:
        yield
        await to_thread.run_sync(destination.settle)
    finally:
        destination.drop()


def portions(things: Sequence[T]) -> Iterator[tuple[int, Sequence[T]]]:
    """Yield parts of `things` that one quick run may take, each with the position of its first."""
    for first in range(0, len(things), _PORTION):
        yield first, things[first : first + _PORTION]


async def each(
    things: Sequence[T], work: Callable[[int, T], Awaitable[R]], workers: int
) -> tuple[dict[int, R], dict[int, CachefetchError]]:
    """Work on all things with a number of workers; one thing's failure does not stop the others, a full disk does.

    Raises:
        StoreError, UsageError: what the other things would meet too.
    """
    results: dict[int, R] = {}
    errors: dict[int, CachefetchError] = {}
    fatal: list[CachefetchError] = []
    waiting = iter(enumerate(things))

    async def worker() -> None:
        for number, thing in waiting:
            try:
                results[number] = await work(number, thing)
            except SOURCE_ERRORS as error:
                errors[number] = error
            except CachefetchError as error:
                fatal.append(error)
                group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        for _ in range(min(workers, len(things))):
            group.start_soon(worker)
    if fatal:
        raise fatal[0]
    return results, errors


async def unnamed(
    destination: Destination, listing: Listing, named: Iterable[str], anew: Container[str] = ()
) -> tuple[dict[str, int], dict[str, str]]:
    """Return the blobs that no manifest of the destination names, and its damaged manifests; see `Destination.unnamed`.

    Args:
        destination: a mirror.
        listing: its files.
        named: digests that are known to be named, by manifests that are not written yet.
        anew: paths of the manifests that will be written anew: what they name now does not count.
    """
    return await to_thread.run_sync(destination.unnamed, listing, set(named), anew)
