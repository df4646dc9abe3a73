"""Payloads of a middle size: a worker thread for each connection takes one after the other, with no hop in between.

It delivers as `payload` does, with the same sinks, locks and files, but takes one try at one mirror: as in `quick`,
what does not go well is left to the general way, which goes on where this one stopped.
"""

from __future__ import annotations

import contextlib
import threading

from ..errors import CachefetchError, FormatError, IntegrityError
from ..values import changed
from .events import Stored
from .failures import SOURCE_ERRORS, caveats
from .layouts import V2, payload_url
from .payload import Delivered, IntoPart, Payload, ended, wrong_digest
from .quick import run
from .split import NotInRanges, Split
from .transports import host_of
from .transports.errand import Ask, HandedBack, asked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from .model import Source, VerifiedPackage
    from .session import Session
    from .store.part import PartWriter

#: After so many failures in a row no new payload is begun here.
_TROUBLE = 3


async def deliver_streams(
    session: Session, packages: Sequence[VerifiedPackage], todo: Collection[int]
) -> dict[int, Delivered]:
    """Bring payloads that one connection brings well; return them by their number.

    `todo` has the numbers to try; `Session.busy` gets those that another process is at.

    Raises:
        StoreError: no space or no permission.
    """
    limits, streams = session.limits, _Streams(session)
    together, todo = session.fit_together(packages), frozenset(todo)
    made = [
        (source, lambda number=number, one=one, source=source: streams.bring(number, one, source))
        for number, one in enumerate(packages)
        if limits.small_bytes < one.tarball.size < limits.split_bytes and number in todo
        if together or one.layout != V2
        for source in session.in_order([one.source, *one.wanted.sources])[:1]
        if source.network  # a directory may share its bytes
    ]
    if made:
        await run(session, made, min(limits.blob_connections, limits.blobs_per_host, len(made)), long=True)
    session.drain()
    session.meter.network_bytes += streams.received
    return streams.results


async def deliver_large(
    session: Session, packages: Sequence[VerifiedPackage], todo: Collection[int]
) -> dict[int, Delivered]:
    """Bring the one payload that wants several connections (`Split`), as long as there is no event loop.

    Several such, and what an earlier run left of one, are for the loop, which shares the connections among them.

    Raises:
        StoreError: no space or no permission.
    """
    limits, streams = session.limits, _Streams(session)
    large = [number for number in todo if packages[number].tarball.size >= limits.split_bytes]
    connections = min(limits.split_connections, limits.blob_connections, limits.blobs_per_host)
    if session.in_loop or len(large) != 1 or connections < 2 or packages[large[0]].layout == V2:
        return {}
    package = packages[large[0]]
    source = session.in_order([package.source, *package.wanted.sources])[0]
    if source.network:
        payload = Payload(session, large[0] + 1, package, list(package.failures))
        with streams.begun(large[0], payload, source) as part:
            if part is not None:
                await streams.in_ranges(large[0], payload, source, part, connections)
    session.drain()
    session.meter.network_bytes += streams.received
    return streams.results


class _Streams:
    """What the errands of one run brought. They run in threads side by side, and the lock is for what they share."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.results: dict[int, Delivered] = {}
        self.received = 0
        self._begun = session.clockwork.monotonic()
        self._failures = 0
        self._lock = threading.Lock()

    async def bring(self, number: int, package: VerifiedPackage, source: Source) -> None:
        payload = Payload(self.session, number + 1, package, list(package.failures))
        with self.begun(number, payload, source) as part:
            if part is not None:
                await self._receive(number, payload, source, part)

    @contextlib.contextmanager
    def begun(self, number: int, payload: Payload, source: Source) -> Iterator[PartWriter | None]:
        """Lock a payload and open its part; None when it is here, or not for one look."""
        session, package = self.session, payload.package
        blob, lock = package.tarball, None
        found = payload.ready()
        if found is not None:
            self.results[number] = changed(found, warnings=caveats(package.failures))
        elif not (
            self._failures >= _TROUBLE
            or session.health.suspected(source.mirror)
            or session.strained(host_of(source.url))
        ):
            lock = session.try_lock(number, blob.sha256)
        if lock is None:
            yield None
            return
        try:
            if session.store.has(blob.sha256) or session.store.begun(blob.sha256):
                yield None  # brought meanwhile, damaged, or begun
                return
            part = session.store.open_part(lock, blob.sha256, blob.size)
            try:
                yield part
            finally:
                session.under_way.pop(number + 1, None)
                part.leave()
        finally:
            lock.release()

    async def in_ranges(
        self, number: int, payload: Payload, source: Source, part: PartWriter, connections: int
    ) -> None:
        """Bring a payload over several connections, with one try for each range."""
        session = self.session
        try:
            url = payload_url(source, payload.package)
        except FormatError:
            return
        split = Split(session, part, url, lambda: payload.started(part, source.mirror))
        try:
            try:
                errands = [(source, one) for one in split.errands(connections)]
                session.looks.append(split.look)
                await run(session, errands, connections, long=True)
            finally:
                session.looks.clear()
                split.finish()
                self.received += split.received
        except NotInRanges as refused:
            session.whole.add(host_of(url))
            if refused.ranges_lie:
                part.drop()
            return
        if part.done:
            self._stored(number, payload.package, source, part)
        elif isinstance(split.failed, CachefetchError):
            self._failed(number, source, part, split.failed)
        elif part.offset == part.size:  # perhaps answers that do not agree: all of it once more, in one
            session.whole.add(host_of(url))
            part.drop()

    async def _receive(self, number: int, payload: Payload, source: Source, part: PartWriter) -> None:
        package = payload.package
        try:
            url = payload_url(source, package)
        except FormatError:
            return
        sink = IntoPart(payload, part, source, url)
        try:
            await asked(Ask(url, sink))
            if part.offset < part.size:
                raise ended(url, part, sink.encoding)
            if not part.done:
                raise wrong_digest(url, part.digest(), part.sha256, sink.encoding)
        except HandedBack:
            self._failures = _TROUBLE
            return
        except SOURCE_ERRORS as error:
            self._failed(number, source, part, error)
            return
        finally:
            if source.network:
                with self._lock:
                    self.received += sink.received
        self._failures = 0
        self._stored(number, package, source, part)

    def _stored(self, number: int, package: VerifiedPackage, source: Source, part: PartWriter) -> None:
        warnings = caveats(package.failures)
        self.results[number] = Delivered(package, part.path, "network", source.mirror, warnings)
        self.session.post(Stored(number + 1, str(package.wanted), part.path))

    def _failed(self, number: int, source: Source, part: PartWriter, error: CachefetchError) -> None:
        with self._lock:
            self._failures += 1
            self.session.met_quickly(number, source, error, self._begun)
        if isinstance(error, IntegrityError):
            part.drop()
