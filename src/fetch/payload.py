"""Moving one payload: reuse it, wait for whoever fetches it, or receive it from a mirror into the store."""

from __future__ import annotations

from contextlib import nullcontext

from ..errors import DigestError, IntegrityError, MirrorError, NetworkError, NotFoundError, TruncatedError
from ..values import changed, frozen
from . import aio
from .events import Reused, Started, Stored, Waiting, Warned
from .failures import caveats, for_package
from .layouts import V2, payload_url
from .metadata import from_mirrors
from .model import Caveat, Failure
from .resume import PartInfo, continues, start
from .session import encoding_note, longer
from .split import NotInRanges, Split
from .transports import host_of, redact, scheme_of
from .transports.file import local_path
from .transports.threads import Aborted, run_abortable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .model import Source, VerifiedPackage
    from .session import Session
    from .store.cas import Stored as Place
    from .store.lease import Lease
    from .store.locks import Lock
    from .store.part import PartWriter
    from .transports import Head, Transport
    from .transports.threads import Abort


#: Bytes. So much is hashed between two looks whether anybody still wants it.
_PIECE = 16 << 20


@frozen
class _Nothing:
    """No mirror delivered; told apart from "not yet", which is None."""


@frozen
class Delivered:
    """A payload on disk: the proven package it belongs to, its path, origin, the mirror, and warnings."""

    package: VerifiedPackage
    path: str
    origin: str
    mirror: str
    warnings: tuple[Caveat, ...]


async def deliver(session: Session, transfer: int, package: VerifiedPackage) -> Delivered:
    """Bring the payload of a proven package into the store.

    Every mirror may serve the blob, because its digest is proven. When none does, the mirrors after the package's
    own are asked for their manifest: a rebuilt binary has another digest there.

    Raises:
        IntegrityError, TrustError, MirrorError: no mirror delivers; the most serious failure, naming all.
        StoreError: no space or no permission.
    """
    wanted = package.wanted
    failures = list(package.failures)
    while True:
        payload = Payload(session, transfer, package, failures)
        told = package.layout == V2  # nothing proves the size
        async with session.room.of(package.tarball.size) if told else nullcontext():
            delivered = await payload.obtain()
        if delivered is not None:
            return changed(delivered, warnings=(*payload.warnings, *caveats(failures)))
        following = await _another_build(session, package, failures, transfer)
        if following is None:
            raise for_package(wanted, failures)
        package = following


async def _another_build(
    session: Session, package: VerifiedPackage, failures: list[Failure], transfer: int
) -> VerifiedPackage | None:
    """Prove the package anew where it may have another payload than the one that no mirror delivers; None if nowhere.

    These are the mirrors after its own. A proof that was kept may be older than all mirrors, who were not asked for it:
    where one lacks the payload, the package may have been pushed again.
    """
    gone = any(isinstance(failure.error, NotFoundError) for failure in failures)
    rest = package.wanted.sources if package.stored and gone else _sources_after(package)
    while rest:
        found = await from_mirrors(session, changed(package.wanted, sources=rest), failures, transfer)
        if found is None or found.tarball.sha256 != package.tarball.sha256:
            return found
        rest = _sources_after(found)
    return None


def _sources_after(package: VerifiedPackage) -> tuple[Source, ...]:
    sources = package.wanted.sources
    return sources[sources.index(package.source) + 1 :]


class Payload:
    """One blob on its way; `failures` collects what mirrors did wrong, `warnings` what else is worth telling."""

    def __init__(
        self, session: Session, transfer: int, package: VerifiedPackage, failures: list[Failure]
    ) -> None:
        self.session, self.transfer, self.package, self.failures = session, transfer, package, failures
        self.blob = package.tarball
        self.warnings: list[Caveat] = []
        self._told = len(failures)

    async def obtain(self) -> Delivered | None:
        """Return the payload, None when no mirror delivers it."""
        session = self.session
        found = await session.alone(
            session.blob_slots,
            self.blob.sha256,
            ready=self._found,
            prepare=self._open_part,
            work=self._from_sources,
            waiting=lambda: session.emit(Waiting(self.transfer, str(self.package.wanted))),
        )
        return found if isinstance(found, Delivered) else None

    def ready(self) -> Delivered | None:
        """Return the stored blob if its digest is right, recomputed now."""
        store, blob = self.session.store, self.blob
        place = store.locate(blob.sha256)
        if place is None or place.size != blob.size or not store.verify(place, blob.sha256):
            return None
        self.session.post(Reused(self.transfer, str(self.package.wanted), place.path))
        return Delivered(self.package, place.path, place.origin, self.package.source.mirror, ())

    def _found(self) -> Delivered | _Nothing | None:
        return self.ready()

    def _open_part(self, lock: Lock | Lease) -> PartWriter:
        """Open the part; what is stored under the digest now is damaged, and makes room."""
        store, sha256 = self.session.store, self.blob.sha256
        damaged = store.locate(sha256)
        if damaged is not None:
            self._warn_damaged(damaged)
            store.discard(sha256)
        return store.open_part(lock, sha256, self.blob.size)

    def _warn_damaged(self, place: Place) -> None:
        message = f"{place.path} does not have the digest it is stored under; it is fetched again"
        warning = Caveat("store-damaged", message, "")
        self.warnings.append(warning)
        self.session.post(Warned(self.transfer, warning.code, warning.message, warning.mirror))

    async def _from_sources(self, part: PartWriter) -> Delivered | _Nothing:
        """Ask the mirrors one after the other, each continuing what the one before left."""
        session, own = self.session, self.package.source
        others = [source for source in self.package.wanted.sources if source is not own]
        met = session.met_for_good(self.transfer, [own, *others])
        self.failures += met
        failed = {failure.mirror for failure in met}
        sources = [one for one in session.in_order([own, *others]) if one.mirror not in failed]
        try:
            for number, source in enumerate(sources, 1):
                try:
                    path = await self._receive(part, source, alternatives=number < len(sources))
                except (MirrorError, IntegrityError) as error:
                    session.health.suspect(source.mirror, error)
                    self.failures.append(Failure(source.mirror, error))
                    if isinstance(error, IntegrityError):
                        part.drop()
                    continue
                self.failures += session.met_rest(self.transfer, sources)
                for warning in caveats(self.failures[self._told :]):
                    session.emit(Warned(self.transfer, warning.code, warning.message, warning.mirror))
                session.emit(Stored(self.transfer, str(self.package.wanted), path))
                return Delivered(self.package, path, "network", source.mirror, ())
            return _Nothing()
        finally:
            session.under_way.pop(self.transfer, None)
            part.leave()

    async def _receive(self, part: PartWriter, source: Source, *, alternatives: bool) -> str:
        """Receive the blob from one mirror, with retries that continue where the last try stopped."""
        session = self.session
        url = payload_url(source, self.package)
        transport = session.transport(source, url)

        async def attempt() -> None:
            async with session.host_slots(url):
                await self._attempt(part, transport, source, url)

        await session.patiently(attempt, url, self.transfer, alternatives=alternatives, mirror=source.mirror)
        return part.path

    async def _attempt(self, part: PartWriter, transport: Transport, source: Source, url: str) -> None:
        encoding = await self._stream(part, transport, source, url)
        if not part.done and part.resumed:
            # A prefix that a crash or another mirror left may be what is wrong, or answers that do not agree.
            part.drop()
            encoding = await self._stream(part, transport, source, url, whole=True)
        if not part.done:
            raise wrong_digest(url, part.digest(), part.sha256, encoding)

    async def _stream(
        self, part: PartWriter, transport: Transport, source: Source, url: str, *, whole: bool = False
    ) -> str:
        """Bring the rest of the part, `whole` in one answer; return the Content-Encoding that was applied, or ""."""
        if part.offset == part.size:
            part.resumed = True
            await aio.to_thread.run_sync(part.commit_if_right)
            return ""
        if await self._shared(part, source, url):
            return ""
        if not whole and await self._in_ranges(part, transport, source, url):
            return ""
        sink = IntoPart(self, part, source, url)
        asked = sink.asked
        try:
            await transport.receive(url, sink, offset=asked.offset, validator=asked.validator)
        finally:
            if transport.network:
                self.session.meter.network_bytes += sink.received
            self.session.drain()
        if part.offset < part.size:
            raise ended(url, part, sink.encoding)
        return sink.encoding

    async def _shared(self, part: PartWriter, source: Source, url: str) -> bool:
        """Take over the bytes of a file without copying them, where its file system can, and prove what came."""
        if part.offset or scheme_of(url) != "file" or self.session.limits.rate_bytes_per_s:
            return False
        if not await aio.to_thread.run_sync(part.share, local_path(url)):
            return False
        self.started(part, source.mirror)

        def prove(abort: Abort) -> None:
            while part.offset < part.size:
                if abort.set:
                    raise Aborted
                part.prove_shared(min(part.offset + _PIECE, part.size))
            part.commit_if_right()

        await run_abortable(prove)
        self.session.drain()
        return True

    async def _in_ranges(self, part: PartWriter, transport: Transport, source: Source, url: str) -> bool:
        """Bring a large rest over several connections; False when it has to come in one stream."""
        session, limits = self.session, self.session.limits
        rest = part.size - part.offset
        if not transport.network or rest < limits.split_bytes or host_of(url) in session.whole:
            return False
        split = Split(session, part, url, lambda: self.started(part, source.mirror))
        with session.more_slots(url, limits.split_connections - 1) as more:
            if not more:
                return False
            try:
                await split.run(transport, 1 + more)
            except NotInRanges as refused:
                session.whole.add(host_of(url))
                if refused.ranges_lie:
                    part.drop()
                return False
            finally:
                session.meter.network_bytes += split.received
                session.drain()
        return True

    def started(self, part: PartWriter, mirror: str) -> None:
        """Tell that bytes come from `mirror`, and from now on the progress."""
        event = Started(self.transfer, str(self.package.wanted), mirror, part.offset, part.size)
        self.session.post(event)
        self.session.under_way[self.transfer] = part


class IntoPart:
    """The sink that makes a part grow: hashed and written as it comes, never a byte more than promised."""

    def __init__(self, payload: Payload, part: PartWriter, source: Source, url: str) -> None:
        self._payload, self._part, self._mirror, self._url = payload, part, source.mirror, url
        self.asked = start(part.info, part.offset, url)
        self.encoding = ""
        self.received = 0

    def begin(self, head: Head) -> None:
        """Make the part fit the answer: continue it, or start it over."""
        part, url = self._part, self._url
        self.encoding = head.encoding
        if head.size is not None and head.size != part.size:
            raise wrong_size(url, head.size, part.size)
        if self.asked.offset and continues(self.asked, head):
            part.resumed = True
        elif head.offset == 0:
            part.begin(PartInfo(redact(url), head.etag, part.sha256, part.size))
        else:
            part.drop()
            raise NetworkError(
                f"{redact(url)} changed while it was read", hint="try again", context={"url": redact(url)}
            )
        self._payload.started(part, self._mirror)

    def write(self, data: memoryview) -> None:
        """Append, at the pace that is allowed."""
        self._payload.session.pace.spend(len(data))
        self.received += len(data)
        if self._part.offset + len(data) > self._part.size:
            raise longer(self._url, self._part.size, self.encoding)
        self._part.write(data)

    def end(self) -> None:
        """Make the blob visible when it is the right one; this thread is the cheapest place for it."""
        self._part.commit_if_right()


def wrong_size(url: str, found: int, expected: int) -> TruncatedError:
    """Return the error for a payload of another size than its manifest promises."""
    return TruncatedError(
        f"{redact(url)} has {found} bytes; its manifest promises {expected}",
        hint="the mirror is damaged; another mirror may be right",
        context={"url": redact(url), "expected": expected, "found": found},
    )


def ended(url: str, part: PartWriter, encoding: str) -> NetworkError | TruncatedError:
    """Return the error for a payload of which a part is missing; one that was encoded will not come by trying again."""
    if encoding:
        return TruncatedError(
            f"{redact(url)} has {part.offset} bytes; its manifest promises {part.size}{encoding_note(encoding)}",
            hint="the mirror's web server must not encode binaries; another mirror may be right",
            context={"url": redact(url), "expected": part.size, "found": part.offset},
        )
    return NetworkError(
        f"{redact(url)} ended after {part.offset} of {part.size} bytes",
        hint="try again",
        context={"url": redact(url), "expected": part.size, "found": part.offset},
    )


def wrong_digest(url: str, found: str, expected: str, encoding: str = "") -> DigestError:
    """Return the error for a payload that is another one than its manifest promises."""
    return DigestError(
        f"{redact(url)} has sha256 {found}, its manifest promises {expected}{encoding_note(encoding)}",
        hint="the mirror is damaged or was tampered with: tell its owner; another mirror may be right",
        context={"url": redact(url), "expected": expected, "found": found},
    )
