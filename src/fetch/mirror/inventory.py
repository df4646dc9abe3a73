"""What the sources offer, proven, and what the destination has."""

from __future__ import annotations

from dataclasses import dataclass, replace

import anyio
from anyio import to_thread

from ...errors import CachefetchError
from ...resolver.index.readers.manifest import parse_manifest, spec_stem
from ..failures import SOURCE_ERRORS
from ..metadata import prove
from ..verify.binding import SpecDocument
from ..verify.openpgp import is_signed, split_cleartext
from .destination import list_blobs, list_manifests, list_other_manifests
from .plan import is_complete, meets_policy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
    from typing import TypeVar

    from ..model import VerifiedPackage, Wanted
    from ..session import Session
    from .destination import Destination
    from .journal import Journal, Row

    T = TypeVar("T")
    R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Listing:
    """Files of a mirror directory: blobs (sha256 -> size) and spec manifests (``NAME-VERSION-HASH`` -> path)."""

    blobs: Mapping[str, int]
    manifests: Mapping[str, str]


def list_mirror(mirror: str) -> Listing:
    """List a mirror directory; one that does not exist is empty."""
    return Listing(list_blobs(mirror), list_manifests(mirror))


def stem_of(wanted: Wanted) -> str:
    """Return ``NAME-VERSION-HASH`` of a package."""
    return spec_stem(wanted.name, wanted.version, wanted.hash)


def split_known(
    wanted: Sequence[Wanted], journal: Journal, listing: Listing, *, check: bool
) -> tuple[list[Row], list[Wanted]]:
    """Split a selection into what is recorded as complete at the destination, and what has to be proven.

    With `check` nothing is taken from the journal.
    """
    known: list[Row] = []
    rest: list[Wanted] = []
    for one in wanted:
        stem = stem_of(one)
        row = None if check else journal.rows.get(stem)
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
    session: Session, destination: Destination, wanted: Sequence[Wanted]
) -> tuple[dict[int, VerifiedPackage], dict[int, CachefetchError]]:
    """Prove packages, from the destination's own manifests first; spec documents are stored on the way.

    Returns:
        Packages and errors by position in `wanted`. The documents are dropped: thousands would fill the memory.
    """

    async def one(number: int, package: Wanted) -> VerifiedPackage:
        destination.expect(stem_of(package), package)
        found = await prove(session, package, number + 1)
        found = await to_thread.run_sync(destination.adopt, found)
        root = SpecDocument(found.document.nodes[:1], {}, found.document.format, False)
        return replace(found, document=root)

    return await each(wanted, one, 2 * session.limits.metadata_in_flight)


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


async def unnamed(destination: Destination, listing: Listing, named: Iterable[str]) -> dict[str, int]:
    """Return the blobs that no manifest of the destination names, path -> size.

    Args:
        destination: a mirror.
        listing: its files.
        named: digests that are known to be named, so that their manifests need not be read again.
    """
    return await to_thread.run_sync(_unnamed, destination, listing, set(named))


def _unnamed(destination: Destination, listing: Listing, named: set[str]) -> dict[str, int]:
    others = list_other_manifests(destination.mirror)
    for path in [*listing.manifests.values(), *others]:
        data = destination.read_file(path) or b""
        try:
            text = split_cleartext(data, what=path).text if is_signed(data) else data
            named.update(blob.sha256 for blob in parse_manifest(text, what=path).blobs)
        except CachefetchError:
            return {}  # what a damaged manifest names is not known: nothing is removed until it is repaired
    return {
        f"blobs/sha256/{sha256[:2]}/{sha256}": size
        for sha256, size in sorted(listing.blobs.items())
        if sha256 not in named
    }
