"""One large payload over several connections: ranges are written where they belong and hashed in order behind them.

One stream cannot use two cores, and on a long way that loses packets several streams are faster than one. The part
file counts up to where it is hashed (`PartInfo.have`), so a killed run continues there. The first thing that goes
wrong ends all ranges, and the next try goes on from the same place.
"""

from __future__ import annotations

import os
import threading

import anyio
from anyio import to_thread

from ..errors import CachefetchError, NetworkError
from .resume import PartInfo
from .transports import redact

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .session import Session
    from .store.cas import PartWriter
    from .transports import Head, Transport


_FLUSH_BYTES = 64 << 20


class NotInRanges(Exception):
    """The server does not serve the ranges that it is asked for: one stream has to do."""


class Split:
    """The rest of `part` in ranges from `url`.

    Attributes:
        received: bytes of bodies that came.
    """

    def __init__(self, session: Session, part: PartWriter, url: str, started: Callable[[], None]) -> None:
        self.session, self.part, self.url, self.started = session, part, url, started
        self.received = 0
        self.etag: str | None = None
        self.asked = False  # the first answer is here: the server serves ranges
        self._size = session.limits.range_bytes
        self._starts = iter(range(part.offset, part.size, self._size))
        self._ends: set[int] = set()  # of ranges that are complete and not hashed yet, by their start
        self._state, self._hashing = threading.Lock(), threading.Lock()

    async def run(self, transport: Transport, connections: int) -> None:
        """Receive all ranges over so many connections, and make the payload visible if it is right.

        Raises:
            NotInRanges: one stream has to bring the rest.
            CachefetchError: of the first range that failed; what is hashed stays.
        """
        failed: list[CachefetchError | NotInRanges] = []

        async def worker(start: int | None) -> None:
            try:
                while start is not None:
                    await self._range(transport, start)
                    start = next(self._starts, None)
            except (CachefetchError, NotInRanges) as error:
                failed.append(error)
                group.cancel_scope.cancel()

        try:
            first = next(self._starts)
            await self._range(transport, first)  # it shows whether the server can, and its validator
            async with anyio.create_task_group() as group:
                group.start_soon(self._flush_behind)
                async with anyio.create_task_group() as workers:
                    for _ in range(connections):
                        workers.start_soon(worker, next(self._starts, None))
                group.cancel_scope.cancel()
        finally:
            self.part.end_ranges()
        if failed:
            raise failed[0]

    async def _flush_behind(self) -> None:
        """Let the disk work while bytes come: the sync at the end has less left to wait for."""
        flushed = self.part.offset
        while True:
            await anyio.sleep(0.1)
            if self.part.offset - flushed >= _FLUSH_BYTES:
                flushed = self.part.offset
                await to_thread.run_sync(self._flush)

    def _flush(self) -> None:
        with self._hashing:  # a commit would close the file meanwhile
            copy = self.part.duplicate()
        if copy is not None:
            try:
                os.fdatasync(copy)
            except OSError:
                pass  # the sync at the end says it
            finally:
                os.close(copy)

    async def _range(self, transport: Transport, start: int) -> None:
        last = min(start + self._size, self.part.size) - 1
        sink = _Range(self, start, last)
        await transport.receive(self.url, sink, offset=start, validator=self.etag, last=last)
        if sink.at != last + 1:
            raise NetworkError(
                f"{redact(self.url)}: the range from {start} ended after {sink.at - start} bytes",
                hint="try again",
                context={"url": redact(self.url)},
            )

    def begin(self, start: int, head: Head) -> None:
        """Look at the answer to a range, the first one above all."""
        part = self.part
        if not self.asked:
            if head.size != part.size or head.offset != start or head.encoding:
                raise NotInRanges
            self.asked, self.etag = True, head.etag
            part.begin_ranges(PartInfo(redact(self.url), head.etag, part.sha256, part.size, part.offset))
            self.started()
        elif head.offset != start or head.size != part.size or head.etag != self.etag:
            raise NetworkError(
                f"{redact(self.url)} changed while it was read",
                hint="try again",
                context={"url": redact(self.url)},
            )

    def complete(self, start: int) -> None:
        """Note a range; hash what now follows without a gap, unless another thread is at it (it will see this one)."""
        with self._state:
            self._ends.add(start)
        while self._front_is_complete() and self._hashing.acquire(blocking=False):
            try:
                while self._front_is_complete():
                    start = self.part.offset
                    self.part.advance(min(start + self._size, self.part.size))
                    with self._state:
                        self._ends.discard(start)
            finally:
                self._hashing.release()
        if self.part.offset == self.part.size:
            self._commit()

    def _front_is_complete(self) -> bool:
        with self._state:
            return self.part.offset in self._ends

    def _commit(self) -> None:
        with self._hashing:
            if not self.part.done:
                self.part.commit_if_right()


class _Range:
    """The sink of one range."""

    def __init__(self, split: Split, start: int, last: int) -> None:
        self._split, self._start, self._last = split, start, last
        self.at = start

    def begin(self, head: Head) -> None:
        """Make sure that it is the range, of the object."""
        self._split.begin(self._start, head)

    def write(self, data: memoryview) -> None:
        """Write where the bytes belong, at the pace that is allowed."""
        split = self._split
        split.session.pace.spend(len(data))
        if self.at + len(data) > self._last + 1:
            raise NotInRanges  # it ignores the end
        split.part.write_at(self.at, data)
        self.at += len(data)
        with split._state:
            split.received += len(data)

    def end(self) -> None:
        """Hash it, if its turn has come."""
        if self.at == self._last + 1:
            self._split.complete(self._start)
