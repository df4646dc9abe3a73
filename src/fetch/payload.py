"""Moving one payload: reuse it, wait for whoever fetches it, or receive it from a mirror into the store."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass, replace

from anyio import to_thread

from ..errors import DigestError, IntegrityError, MirrorError, NetworkError, TruncatedError
from .events import Progress, Reused, Started, Stored, Waiting, Warned
from .failures import caveats, for_package
from .metadata import from_mirrors
from .model import Caveat, Failure
from .resume import PartInfo, continues, start
from .session import encoding_note, longer
from .transports import join, redact

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .model import Source, VerifiedPackage
    from .session import Session
    from .store.cas import Lock, PartWriter
    from .store.cas import Stored as Place
    from .transports import Body, Transport


@dataclass(frozen=True, slots=True)
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
        payload = _Payload(session, transfer, package, failures)
        delivered = await payload.obtain()
        if delivered is not None:
            return replace(delivered, warnings=(*payload.warnings, *caveats(failures)))
        rest = _sources_after(package)
        other = replace(wanted, sources=rest)
        following = await from_mirrors(session, other, failures, transfer) if rest else None
        if following is None:
            raise for_package(wanted, failures)
        package = following


def _sources_after(package: VerifiedPackage) -> tuple[Source, ...]:
    sources = package.wanted.sources
    return sources[sources.index(package.source) + 1 :]


class _Payload:
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
        found = await self._ready()
        if found is not None:
            return found
        return await session.alone(
            session.blob_slots,
            self.blob.sha256,
            self._locked,
            ready=self._ready,
            waiting=lambda: session.emit(Waiting(self.transfer, str(self.package.wanted))),
        )

    async def _ready(self) -> Delivered | None:
        place = await self._intact()
        return None if place is None else self._reused(place)

    async def _intact(self) -> Place | None:
        """Return the stored blob if its digest is right, recomputed now."""
        store, blob = self.session.store, self.blob
        place = await to_thread.run_sync(store.locate, blob.sha256)
        if place is None or place.size != blob.size:
            return None
        good = await to_thread.run_sync(store.verify, place, blob.sha256)
        return place if good else None

    def _reused(self, place: Place) -> Delivered:
        self.session.emit(Reused(self.transfer, str(self.package.wanted), place.path))
        return Delivered(self.package, place.path, place.origin, self.package.source.mirror, ())

    async def _locked(self, lock: Lock) -> Delivered | None:
        found = await self._ready()  # whoever had the lock before may have brought it
        if found is not None:
            return found
        damaged = await to_thread.run_sync(self.session.store.locate, self.blob.sha256)
        if damaged is not None:
            self._warn_damaged(damaged)
            await to_thread.run_sync(self.session.store.discard, self.blob.sha256)
        for source in self._sources():
            try:
                path = await self._receive(lock, source)
            except (MirrorError, IntegrityError) as error:
                self.failures.append(Failure(source.mirror, error))
                continue
            for warning in caveats(self.failures[self._told :]):
                self.session.emit(Warned(self.transfer, warning.code, warning.message, warning.mirror))
            self.session.emit(Stored(self.transfer, str(self.package.wanted), path))
            return Delivered(self.package, path, "network", source.mirror, ())
        return None

    def _warn_damaged(self, place: Place) -> None:
        message = f"{place.path} does not have the digest it is stored under; it is fetched again"
        warning = Caveat("store-damaged", message, "")
        self.warnings.append(warning)
        self.session.emit(Warned(self.transfer, warning.code, warning.message, warning.mirror))

    def _sources(self) -> list[Source]:
        own = self.package.source
        return [own, *(source for source in self.package.wanted.sources if source is not own)]

    async def _receive(self, lock: Lock, source: Source) -> str:
        """Receive the blob from one mirror, with retries that continue where the last try stopped."""
        session, blob = self.session, self.blob
        url = join(source.url, blob.path)
        transport = session.transport(source, url)
        part = await to_thread.run_sync(session.store.open_part, lock, blob.sha256, blob.size)
        try:
            async for attempt in session.attempts(self.transfer):
                with attempt:
                    async with session.host_slots(url):
                        await self._attempt(part, transport, source, url)
            return await to_thread.run_sync(part.commit)
        except IntegrityError:
            part.remove()
            raise
        finally:
            if part.offset:
                part.close()  # what is there is continued by the next mirror, or the next run
            else:
                part.remove()

    async def _attempt(self, part: PartWriter, transport: Transport, source: Source, url: str) -> None:
        encoding = await self._stream(part, transport, source, url)
        if not part.matches() and part.resumed:
            part.drop()  # a prefix that a crash or another mirror left may be what is wrong
            encoding = await self._stream(part, transport, source, url)
        if not part.matches():
            raise _wrong_digest(url, part, encoding)

    async def _stream(self, part: PartWriter, transport: Transport, source: Source, url: str) -> str:
        """Bring the rest of the part; return the Content-Encoding that the server applied, or ""."""
        asked = start(part.info, part.offset, url)
        if part.offset == part.size:
            part.resumed = True
            return ""
        async with transport.open(url, offset=asked.offset, validator=asked.validator) as body:
            if body.size is not None and body.size != part.size:
                raise _wrong_size(url, body.size, part.size)
            await self._position(part, body, url)
            event = Started(self.transfer, str(self.package.wanted), source.mirror, part.offset, part.size)
            self.session.emit(event)
            await self._pump(part, transport, body, url)
            if part.offset < part.size:
                raise _ended(url, part)
            return body.encoding

    async def _position(self, part: PartWriter, body: Body, url: str) -> None:
        """Make the part fit the response: continue it, or start it over."""
        asked = start(part.info, part.offset, url)
        if asked.offset and continues(asked, body):
            part.resumed = True
        elif body.offset == 0:
            info = PartInfo(redact(url), body.etag, part.sha256, part.size)
            await to_thread.run_sync(part.begin, info)
        else:
            part.drop()
            raise NetworkError(
                f"{redact(url)} changed while it was read", hint="try again", context={"url": redact(url)}
            )

    async def _pump(self, part: PartWriter, transport: Transport, body: Body, url: str) -> None:
        """Hash and write the stream in large pieces, in worker threads; never a byte more than promised."""
        session, limits = self.session, self.session.limits
        clock = session.clockwork.monotonic
        told = flushed = clock()
        buffer = bytearray()
        try:
            async with aclosing(session.metered(transport, body)) as chunks:
                async for chunk in chunks:
                    if part.offset + len(buffer) + len(chunk) > part.size:
                        raise longer(url, part.size, body.encoding)
                    buffer += chunk
                    now = clock()
                    if len(buffer) >= limits.chunk_bytes or now - flushed >= limits.flush_s:
                        full, buffer, flushed = buffer, bytearray(), now
                        await to_thread.run_sync(part.write, full)
                    if now - told >= limits.progress_interval_s:
                        told = now
                        session.emit(Progress(self.transfer, part.offset + len(buffer), part.size))
        finally:
            part.write(buffer)  # also after a cut or a cancellation: the next try continues here
        session.emit(Progress(self.transfer, part.offset, part.size))


def _wrong_size(url: str, found: int, expected: int) -> TruncatedError:
    return TruncatedError(
        f"{redact(url)} has {found} bytes; its manifest promises {expected}",
        hint="the mirror is damaged; another mirror may be right",
        context={"url": redact(url), "expected": expected, "found": found},
    )


def _ended(url: str, part: PartWriter) -> NetworkError:
    return NetworkError(
        f"{redact(url)} ended after {part.offset} of {part.size} bytes",
        hint="try again",
        context={"url": redact(url), "expected": part.size, "found": part.offset},
    )


def _wrong_digest(url: str, part: PartWriter, encoding: str) -> DigestError:
    encoded = encoding_note(encoding)
    return DigestError(
        f"{redact(url)} has sha256 {part.digest()}, its manifest promises {part.sha256}{encoded}",
        hint="the mirror is damaged or was tampered with: tell its owner; another mirror may be right",
        context={"url": redact(url), "expected": part.sha256, "found": part.digest()},
    )
