"""One large payload over several connections: ranges are received into memory, written and hashed in order from it.

One stream cannot use two cores, and on a long way that loses packets several streams are faster than one. A range is
not asked for before the one that had its memory is hashed, so that no connection runs ahead of the hash. The part
file counts up to where it is hashed (`PartInfo.have`), so a killed run continues there; what came in order is hashed
every `flush_s`, and when the ranges end for any reason. A range that fails goes on where it was cut, as long as the
mirror brings others meanwhile. Anything else that goes wrong ends all ranges, and the next try goes on from there.
"""

from __future__ import annotations

import mmap
import threading
import time
from functools import partial

from ..errors import CachefetchError
from . import aio
from .failures import SOURCE_ERRORS
from .resume import PartInfo
from .retry import retryable, wait_s
from .transports import host_of, redact
from .transports.errand import Ask, HandedBack, asked
from .transports.threads import Abort, Aborted, run_abortable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .session import Session
    from .store.part import PartWriter
    from .transports import Head, Transport
    from .transports.errand import Errand


#: Seconds between looks at whether the first answer came: short beside a round trip, long beside the look.
_TICK_S = 0.1


class NotInRanges(Exception):
    """The server does not serve the ranges that it is asked for: one stream has to do.

    `ranges_lie`: it sends others or less instead, so that the stream has to begin at the first byte.
    """

    def __init__(self, *, ranges_lie: bool = False) -> None:
        super().__init__()
        self.ranges_lie = ranges_lie


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
        self._host, self._workers = host_of(url), 0
        self._size = session.limits.range_bytes
        self._first = part.offset
        self._starts = iter(range(part.offset, part.size, self._size))
        self._ends: set[int] = set()  # of ranges that are complete, by their start
        self._at: dict[int, int] = {}  # how far each range has come, by its start
        self._state, self._hashing = threading.Lock(), threading.Lock()
        self._hashed = threading.Condition()  # told when memory gets free
        self._memory: list[memoryview] = []  # of ranges, one after the other in turn
        self._flushed = 0.0  # when `look` did it last
        self._stopped = False
        self.failed: CachefetchError | HandedBack | None = None

    async def run(self, transport: Transport, connections: int) -> None:
        """Receive all ranges over so many connections, and make the payload visible if it is right.

        Raises:
            NotInRanges: one stream has to bring the rest.
            CachefetchError: of the first range that failed; what came in order stays.
        """
        self._memory = [_aligned(self._size) for _ in range(connections + 1)]
        failed: list[CachefetchError | NotInRanges] = []
        shown = aio.Event()  # by the first answer: the server can, and its validator is known

        async def worker(start: int | None) -> None:
            self._workers += 1
            try:
                while start is not None:
                    await self._range(transport, start)
                    shown.set()
                    if self._workers > 1 and self.session.crowded(self._host, self._workers):
                        self._workers -= 1
                        return  # the others do the rest
                    start = next(self._starts, None)
            except (CachefetchError, NotInRanges) as error:
                failed.append(error)
                group.cancel_scope.cancel()

        async def keep_up() -> None:
            ticks = 0
            while True:
                await aio.sleep(_TICK_S)
                ticks += 1
                if self.asked:
                    shown.set()
                if ticks * _TICK_S >= self.session.limits.flush_s:
                    ticks = 0
                    await aio.to_thread.run_sync(self._flush)

        try:
            async with aio.create_task_group() as group:
                group.start_soon(keep_up)
                async with aio.create_task_group() as workers:
                    workers.start_soon(worker, next(self._starts))
                    await shown.wait()
                    for _ in range(connections - 1):
                        workers.start_soon(worker, next(self._starts, None))
                group.cancel_scope.cancel()
        finally:
            self.finish()
        for error in failed:
            _forget_frames(error)  # the error may be kept to the end of the run, and their memory with it
        if failed:
            raise failed[0]

    def errands(self, connections: int) -> Iterator[Callable[[], Errand]]:
        """Return errands that receive the ranges without an event loop, one try each; `finish` when they are over.

        Of their threads any may raise NotInRanges; any other failure ends all of them, and is in `failed`.
        """
        self._memory = [_aligned(self._size) for _ in range(connections + 1)]
        self._flushed = time.monotonic()
        return (partial(self._errand, start) for start in self._starts)

    def look(self) -> None:
        """Let what came count now and then; for whoever waits for the errands."""
        now = time.monotonic()
        if now - self._flushed >= self.session.limits.flush_s:
            self._flushed = now
            self._flush()

    def finish(self) -> None:
        """Let what came in order count, cut off the rest, and forget the memory."""
        self._flush()
        self._memory = []
        self.part.end_ranges()

    async def _errand(self, start: int) -> None:
        last, complete = self._end(start) - 1, False
        sink = _Range(self, start, last)
        try:
            if not self._may_begin(start):
                return
            await asked(Ask(self.url, sink, start, self.etag, last))
            complete = sink.at == last + 1
            if not complete:
                raise NotInRanges(ranges_lie=True)  # fewer bytes than asked for, and no error
        except (HandedBack, *SOURCE_ERRORS) as error:
            _forget_frames(error)
            self.failed = self.failed or error
        finally:
            if not complete:
                with self._hashed:
                    self._stopped = True
                    self._hashed.notify_all()

    def _may_begin(self, start: int) -> bool:
        """Wait until the first answer has come and the memory of a range is free; False when the ranges have ended."""
        with self._hashed:
            while not self._stopped and not ((self.asked or start == self._first) and self._free(start)):
                self._hashed.wait(_TICK_S)
            return not self._stopped

    async def _range(self, transport: Transport, start: int) -> None:
        """Receive the range from `start`; when it is cut, the rest of it, as often as one may try."""
        last = self._end(start) - 1
        if not self._free(start):
            await run_abortable(partial(self._await_memory, start))
        sink, session = _Range(self, start, last), self.session
        seen = -1  # bytes of all ranges at the last failure of this one
        for number in range(1, session.limits.attempts + 1):
            before = sink.at
            await session.turn(self._host)
            sent = session.clockwork.monotonic()
            try:
                await transport.receive(self.url, sink, offset=before, validator=self.etag, last=last)
            except CachefetchError as error:
                session.refused(self._host, error, sent)
                if error.context.get("reason") == "wrong-range":
                    raise NotInRanges(ranges_lie=True) from error
                idle = self.received == seen  # no range brought anything since the last failure of this one
                over = sink.at == last + 1 or number == session.limits.attempts
                if over or idle or not retryable(error, session.limits):
                    raise
                seen, self.part.resumed = self.received, True
                if sink.at == before:
                    chance = session.clockwork.random()
                    await session.clockwork.sleep(wait_s(error, number, session.limits, chance))
            else:
                if sink.at <= last:
                    raise NotInRanges(ranges_lie=True)  # fewer bytes than asked for, and no error
            if sink.at == last + 1:
                return

    def begin(self, start: int, head: Head) -> None:
        """Look at the answer to a range, the first one above all."""
        part = self.part
        if not self.asked:
            if head.size != part.size or head.offset != start or head.encoding:
                raise NotInRanges
            self.etag = head.etag
            part.begin_ranges(PartInfo(redact(self.url), head.etag, part.sha256, part.size, part.offset))
            self.started()
            with self._hashed:
                self.asked = True
                self._hashed.notify_all()
        elif head.offset != start or head.size != part.size or head.etag != self.etag:
            raise NotInRanges  # it changed, or several servers with one name do not agree
        else:
            part.resumed = True

    def came(self, start: int, at: int, size: int) -> None:
        """Note how far a range has come."""
        with self._state:
            self._at[start] = at
            self.received += size

    def complete(self, start: int) -> None:
        """Write a range that is complete, and hash it when its turn has come."""
        self.part.write_at(start, self.memory_of(start))
        with self._state:
            self._ends.add(start)
        self._hash(partly=False)

    def _flush(self) -> None:
        """Hash what came in order, and let it count for the next run."""
        self._hash(partly=True)
        with self._hashing:  # else a sidecar could be written behind the commit, which removes it
            self.part.count()
        self._hash(partly=False)  # what was completed meanwhile was left to the holder of the lock

    def _hash(self, *, partly: bool) -> None:
        """Hash what follows without a gap, unless another thread is at it (it will see what is new).

        Whole ranges only, or with `partly` also what a range has brought so far.
        """
        part = self.part
        while self._follows(partly) > part.offset and self._hashing.acquire(blocking=False):
            try:
                while (to := self._follows(partly)) > part.offset:
                    self._advance(to)
            finally:
                self._hashing.release()
        if part.offset == part.size:
            self._commit()

    def _advance(self, to: int) -> None:
        part, at = self.part, self.part.offset
        start = self._start(at)
        data = self.memory_of(start)[at - start : to - start]
        if to < self._end(start):
            part.write_at(at, data)  # a complete range is written by whoever received it
        part.advance(data)
        with self._hashed:
            self._hashed.notify_all()

    def _follows(self, partly: bool) -> int:
        """Return the place up to which bytes may be hashed next, at most to the end of the range that is first now."""
        at = self.part.offset
        if at == self.part.size:
            return at
        start = self._start(at)
        with self._state:
            if start in self._ends:
                return self._end(start)
            # The last byte is for the thread that received it: it may still write from this memory.
            return min(self._at.get(start, at), self._end(start) - 1) if partly else at

    def _start(self, at: int) -> int:
        return at - (at - self._first) % self._size

    def _end(self, start: int) -> int:
        return min(start + self._size, self.part.size)

    def memory_of(self, start: int) -> memoryview:
        """Return the memory of a range."""
        number = (start - self._first) // self._size
        return self._memory[number % len(self._memory)][: self._end(start) - start]

    def _free(self, start: int) -> bool:
        """Return True when the range that had the memory of this one is written and hashed."""
        return self.part.offset >= start - (len(self._memory) - 1) * self._size

    def _await_memory(self, start: int, abort: Abort) -> None:
        with self._hashed:
            while not self._free(start):
                if abort.set:
                    raise Aborted
                self._hashed.wait(_TICK_S)

    def _commit(self) -> None:
        with self._hashing:
            if not self.part.done:
                self.part.commit_if_right()


def _forget_frames(error: BaseException | None) -> None:
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


def _aligned(size: int) -> memoryview:
    """Return memory that may go past the page cache."""
    return memoryview(mmap.mmap(-1, size))


class _Range:
    """The sink of one range."""

    def __init__(self, split: Split, start: int, last: int) -> None:
        self._split, self._start, self._last = split, start, last
        self.at = start

    def room(self) -> memoryview:
        """Return where the bytes that come next belong."""
        return self._split.memory_of(self._start)[self.at - self._start :]

    def begin(self, head: Head) -> None:
        """Make sure that it is the range, of the object."""
        self._split.begin(self.at, head)

    def write(self, data: memoryview) -> None:
        """Take bytes, at the pace that is allowed; those of `room` are where they belong."""
        split = self._split
        split.session.pace.spend(len(data))
        if self.at + len(data) > self._last + 1:
            raise NotInRanges  # it ignores the end
        room = self.room()
        if data.obj is not room.obj:
            room[: len(data)] = data
        self.at += len(data)
        split.came(self._start, self.at, len(data))

    def end(self) -> None:
        """Write and hash it, if its turn has come."""
        if self.at == self._last + 1:
            self._split.complete(self._start)
