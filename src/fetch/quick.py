"""The quick way: what is small and goes well is done in one worker thread, many packages side by side.

It proves and delivers as `metadata` and `payload` do, with the same checks, locks and files, but takes one try: what
does not go well (an error, a redirect, a lock that another process holds, a part of an earlier run) is left to them,
and the error that it met counts there as the first try. docs/decisions/0007-thin-transport.md has the reasons.
"""

from __future__ import annotations

import contextlib
import hashlib
from functools import partial

from ..errors import FormatError
from ..resolver.index.readers.manifest import BlobRef
from ..values import changed
from .asking import Asking
from .events import Started, Stored, Verified
from .failures import SOURCE_ERRORS, caveats
from .layouts import V2, V3, kept_name, payload_url
from .metadata import from_mirror, lock_key, stored
from .model import VerifiedPackage
from .payload import Delivered, Payload, wrong_digest, wrong_size
from .resume import PartInfo
from .session import Small
from .store.batch import Batches
from .transports import host_of, redact, scheme_of
from .transports.errand import Ask, HandedBack, asked, run_without_requests
from .transports.threads import Crew

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Sequence
    from typing import Any, TypeVar

    from .model import Source, Wanted
    from .session import Session
    from .store.cas import Store
    from .store.lease import Lease
    from .store.locks import Lock
    from .transports import Head, Transport
    from .transports.errand import Errand
    from .transports.threads import Abort

    R = TypeVar("R")


async def prove_quickly(
    session: Session, wanted: Sequence[Wanted], todo: Collection[int] | None = None
) -> dict[int, VerifiedPackage]:
    """Prove what can be proven without trouble, from the store or the first mirror; return it by its number.

    `todo` has the numbers to try, None for all; `Session.busy` gets those that another process is at.

    Raises:
        StoreError: the store cannot be used.
    """
    proofs = _Proofs(session)
    todo = range(len(wanted)) if todo is None else frozenset(todo)
    made = [
        (source, lambda number=number, one=one, source=source: proofs.prove(number, one, source))
        for number, one in enumerate(wanted)
        if number in todo
        for source in session.in_order(one.sources)[:1]
    ]
    try:
        await run(session, made, session.limits.metadata_in_flight)
    finally:
        session.drain()
    session.meter.network_bytes += proofs.received
    return proofs.results


async def deliver_quickly(
    session: Session, packages: Sequence[VerifiedPackage], todo: Collection[int] | None = None
) -> dict[int, Delivered]:
    """Bring the small payloads that can be brought without trouble; return them by their number.

    `todo` as for `prove_quickly`.

    Raises:
        StoreError: no space or no permission.
    """
    limits = session.limits
    if limits.rate_bytes_per_s:  # to keep the pace is to sleep, and one thread for all cannot
        return {}
    todo = range(len(packages)) if todo is None else frozenset(todo)
    async with _storing(session) as batches:
        payloads = _Payloads(session, batches)
        made = [
            (source, lambda number=number, one=one, source=source: payloads.bring(number, one, source))
            for number, one in enumerate(packages)
            if one.tarball.size <= limits.small_bytes and number in todo
            for source in session.in_order([one.source, *one.wanted.sources])[:1]
        ]
        await run(session, made, min(limits.blob_connections, limits.blobs_per_host))
    session.meter.network_bytes += payloads.received
    return payloads.results


async def prove_in_halves(
    session: Session, wanted: Sequence[Wanted], todo: Sequence[int]
) -> dict[int, VerifiedPackage]:
    """Do as `prove_quickly`, many packages in two processes: the documents that the other one reads stay there."""
    store = session.store
    # It takes the document to tell where a mirror of layout 2 has the payload.
    if any(source.layout == V2 for one in wanted for source in one.sources):
        return await prove_quickly(session, wanted, todo)

    def pack(one: VerifiedPackage) -> tuple[object, ...] | None:
        if one.layout == V2 or one.failures:
            return None
        rank = next(n for n, source in enumerate(one.wanted.sources) if source is one.source)
        identities = (store.identities.get(kept_name(one.wanted, V3)), store.identities.get(one.spec.sha256))
        refs = [(ref.media_type, ref.sha256, ref.size, ref.compression) for ref in (one.tarball, one.spec)]
        rest = (one.signature, one.key, one.stored, (), one.layout, one.expires, one.dag_hash)
        return identities, refs, rank, rest

    def unpack(number: int, fields: Any) -> VerifiedPackage:
        (manifest, document), (tarball, spec), rank, rest = fields
        one = wanted[number]
        if manifest and document:
            store.identities[kept_name(one, V3)], store.identities[spec[1]] = manifest, document
        return VerifiedPackage(one, BlobRef(*tarball), BlobRef(*spec), None, one.sources[rank], *rest)

    return await _in_halves(session, wanted, todo, partial(prove_quickly, session, wanted), pack, unpack)


async def deliver_in_halves(
    session: Session, packages: Sequence[VerifiedPackage], todo: Sequence[int]
) -> dict[int, Delivered]:
    """Do as `deliver_quickly`, many packages in two processes."""
    most = session.limits.small_bytes
    small = [number for number in todo if packages[number].tarball.size <= most]

    def pack(one: Delivered) -> tuple[object, ...] | None:
        return None if one.warnings else (one.path, one.origin, one.mirror, ())

    def unpack(number: int, fields: Any) -> Delivered:
        return Delivered(packages[number], *fields)

    asked_for = [one.wanted for one in packages]
    bring = partial(deliver_quickly, session, packages)
    return await _in_halves(session, asked_for, small, bring, pack, unpack)


async def _in_halves(
    session: Session,
    wanted: Sequence[Wanted],
    todo: Sequence[int],
    bring: Callable[[Collection[int]], Coroutine[Any, Any, dict[int, R]]],
    pack: Callable[[R], Any],
    unpack: Callable[[int, Any], R],
) -> dict[int, R]:
    """Do what is much with a helper, see `helper.in_halves`."""
    if session.in_loop or len(todo) < session.limits.helper_packages:
        return await bring(todo)
    from .helper import in_halves

    return await in_halves(session, wanted, todo, bring, pack, unpack)


@contextlib.asynccontextmanager
async def _storing(session: Session) -> AsyncIterator[Batches]:
    """Give batches that are stored at the end, also of a cancelled run."""
    batches = Batches(session.store)
    try:
        yield batches
    finally:
        await session.to_the_end(batches.finish)
        session.drain()
    batches.check()


async def run(
    session: Session, made: Sequence[tuple[Source, Callable[[], Errand]]], width: int, *, long: bool = False
) -> None:
    """Run errands in worker threads, those at one host together; see `Transport.run_errands`."""
    hosts: dict[tuple[str, str], list[tuple[Source, Callable[[], Errand]]]] = {}
    for source, make in made:
        hosts.setdefault((scheme_of(source.url), host_of(source.url)), []).append((source, make))

    def one(some: list[tuple[Source, Callable[[], Errand]]], abort: Abort) -> None:
        source = some[0][0]
        errands = (make() for _, make in some)
        try:
            transport = _transport(session, source)
            if transport is None:
                run_without_requests(errands)
            else:
                share = max(1, width // len(hosts))
                transport.run_errands(abort, source.url, errands, share, long=long)
        except SOURCE_ERRORS:
            pass  # of the URL or the certificates: the general way says it for each package

    def all_hosts(abort: Abort) -> None:
        first, *others = hosts.values()
        if not others:
            one(first, abort)
            return
        with Crew(abort) as crew:
            for some in hosts.values():
                crew.start(partial(one, some))

    if hosts:
        await session.in_thread(all_hosts)


def _transport(session: Session, source: Source) -> Transport | None:
    """Return the transport, None where only the store may be asked."""
    host = host_of(source.url)
    if session.health.given_up(host) or session.health.is_open(host) or session.strained(host):
        return None
    if session.offline and source.network:
        return None
    return session.transport(source, source.url)


class _Quick(Asking):
    """Asks in an errand: one try, no hop into another thread."""

    def __init__(self, session: Session, source: Source, transfer: int, count: Callable[[int], None]) -> None:
        super().__init__(session, source, transfer, alternatives=False)
        self.count = count

    async def run(self, work: Callable[..., None], *args: object) -> None:
        # Right here: small files, which are not synced. Another thread costs more than it takes over.
        work(*args)

    async def document(self, url: str, limit: int) -> bytes:
        return await self._get(_Text(url, limit), url)

    async def blob(self, url: str, sha256: str, size: int) -> bytes:
        kept = self.session.store.read(sha256, size)
        return kept if kept is not None else await self._get(Small(url, size), url)

    async def size(self, url: str) -> int:  # noqa: ARG002 - as `Asking`; rare enough for the general way
        raise HandedBack

    async def _get(self, sink: Small, url: str) -> bytes:
        try:
            await asked(Ask(url, sink))
        finally:
            if self.source.network:
                self.count(len(sink.data))
        return bytes(sink.data)


class _Text(Small):
    """A small document of unknown size."""

    def write(self, data: memoryview) -> None:
        self.data += data
        if len(self.data) > self._size:
            raise FormatError(
                f"{redact(self._url)} has more than the {self._size} bytes that such a document may have",
                hint="the mirror is damaged or not a Spack build cache",
                context={"url": redact(self._url), "limit": self._size},
            )


class _Proofs:
    """What the errands of one run proved."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.results: dict[int, VerifiedPackage] = {}
        self.received = 0
        self._begun = session.clockwork.monotonic()

    async def prove(self, number: int, wanted: Wanted, source: Source) -> None:
        session = self.session
        found = stored(session, wanted, [])
        if found is not None:
            self._found(number, wanted, found)
            return
        lock = None
        if not (session.health.suspected(source.mirror) or session.strained(host_of(source.url))):
            lock = session.try_lock(number, lock_key(wanted))
        if lock is None:
            return
        try:
            # Whoever had the lock before may have brought it.
            found = stored(session, wanted, []) or await self._from(number, wanted, source)
            if found is not None:
                self._found(number, wanted, found)
        finally:
            lock.release()

    async def _from(self, number: int, wanted: Wanted, source: Source) -> VerifiedPackage | None:
        session = self.session
        try:
            return await from_mirror(_Quick(session, source, number + 1, self._count), wanted)
        except HandedBack:
            return None
        except SOURCE_ERRORS as error:
            session.met_quickly(number, source, error, self._begun)
            return None

    def _found(self, number: int, wanted: Wanted, found: VerifiedPackage) -> None:
        self.results[number] = found
        self.session.post(Verified(number + 1, str(wanted), found.signature, found.key))

    def _count(self, size: int) -> None:
        self.received += size


class _Payloads:
    """What the errands of one run brought."""

    def __init__(self, session: Session, batches: Batches) -> None:
        self.session, self.batches = session, batches
        self.results: dict[int, Delivered] = {}
        self.received = 0
        self._begun = session.clockwork.monotonic()

    async def bring(self, number: int, package: VerifiedPackage, source: Source) -> None:
        session, blob = self.session, package.tarball
        payload = Payload(session, number + 1, package, list(package.failures))
        found = payload.ready()
        if found is not None:
            self.results[number] = changed(found, warnings=caveats(package.failures))
            return
        lock = None
        if not (session.health.suspected(source.mirror) or session.strained(host_of(source.url))):
            lock = session.try_lock(number, blob.sha256)
        if lock is None:
            return
        try:
            if session.store.has(blob.sha256) or session.store.begun(blob.sha256):
                return  # brought meanwhile, damaged, or begun: not for one look
            data = await self._get(number, package, source, lock)
            if data is not None:
                writing, lock = lock, None
                self.batches.add(writing, blob.sha256, data, partial(self._stored, number, package, source))
        finally:
            if lock is not None:
                lock.release()

    async def _get(
        self, number: int, package: VerifiedPackage, source: Source, lock: Lock | Lease
    ) -> bytearray | None:
        session, blob = self.session, package.tarball
        try:
            url = payload_url(source, package)
        except FormatError:
            return None
        sink = _Blob(self, number, package, source, url)
        try:
            await asked(Ask(url, sink))
            found = hashlib.sha256(sink.data).hexdigest()
            if found != blob.sha256:
                raise wrong_digest(url, found, blob.sha256)
        except HandedBack:
            return None
        except SOURCE_ERRORS as error:
            session.met_quickly(number, source, error, self._begun)
            if 0 < len(sink.data) < blob.size:
                _leave_part(session.store, lock, package, sink, url)
            return None
        finally:
            if source.network:
                self.received += len(sink.data)
        return sink.data

    def _stored(self, number: int, package: VerifiedPackage, source: Source, path: str) -> None:
        self.results[number] = Delivered(package, path, "network", source.mirror, caveats(package.failures))
        self.session.post(Stored(number + 1, str(package.wanted), path))


class _Blob(Small):
    """A sink for a payload, which says that it begins."""

    def __init__(
        self, payloads: _Payloads, number: int, package: VerifiedPackage, source: Source, url: str
    ) -> None:
        super().__init__(url, package.tarball.size)
        self._start = Started(number + 1, str(package.wanted), source.mirror, 0, package.tarball.size)
        self._post = payloads.session.post

    def begin(self, head: Head) -> None:
        super().begin(head)
        if head.size is not None and head.size != self._size:
            raise wrong_size(self._url, head.size, self._size)
        self._post(self._start)


def _leave_part(store: Store, lock: Lock | Lease, package: VerifiedPackage, sink: Small, url: str) -> None:
    """Keep what came before the cut for the next try."""
    blob = package.tarball
    part = store.open_part(lock, blob.sha256, blob.size)
    try:
        part.begin(PartInfo(redact(url), sink.etag, blob.sha256, blob.size))
        part.write(sink.data)
    finally:
        part.leave()
