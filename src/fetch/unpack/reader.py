"""The helper process of `beside`: reads an archive into memory that both share, hashes it, and searches its files.

It writes nothing but answers, decides nothing, and ends with the pipe. It imports little, so that it starts soon.

Frames go both ways: kind and length, then so many bytes.
"""

from __future__ import annotations

import hashlib
import itertools
import mmap
import os
import struct
import sys
import threading
from queue import SimpleQueue

from .search import Search

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import IO

#: Bytes of a slot of the shared memory, and how many there are: so far is read ahead.
SLOT, SLOTS = 2 << 20, 8
#: To the helper: what to search for, zero bytes between; where to search (`PLACE`, many); the same, and the oldest
#: slot may be filled again; a question for the depths.
ABOVE, PLACES, PLACES_AND_FREE, DEPTHS = 1, 2, 3, 4
#: From the helper: so many bytes are in the next slot (`COUNT`); all was read (`COUNT`, digest); `DEPTH` of each file.
FILLED, ENDED, FOUND = 5, 6, 7
PLACE = struct.Struct("<IIB")
COUNT, DEPTH = struct.Struct("<Q"), struct.Struct("<H")
_FRAME = struct.Struct("<BI")


def send(pipe: IO[bytes], kind: int, body: bytes = b"") -> None:
    """Send one frame. Raises OSError when nobody reads."""
    pipe.write(_FRAME.pack(kind, len(body)) + body)
    pipe.flush()


def receive(pipe: IO[bytes]) -> tuple[int, bytes]:
    """Return kind and body of the next frame. Raises EOFError when there is none."""
    head = pipe.read(_FRAME.size)
    if len(head) < _FRAME.size:
        raise EOFError
    kind, size = _FRAME.unpack(head)
    body = pipe.read(size)
    if len(body) < size:
        raise EOFError
    return kind, body


def work(archive: int, memory: int, counts: Sequence[int]) -> None:
    """Be the helper.

    Args:
        archive, memory: descriptors.
        counts: bytes in the slots that are filled already.
    """
    shared = mmap.mmap(memory, SLOTS * SLOT)
    filled, searches = _filled(archive, shared, counts), _Searches(shared)
    asked, answers = sys.stdin.buffer, sys.stdout.buffer
    for _ in range(SLOTS - len(counts)):
        send(answers, *next(filled))
    while True:
        try:
            kind, body = receive(asked)
        except EOFError:
            return
        if kind == ABOVE:
            searches.above = tuple(body.split(b"\0"))
        elif kind == DEPTHS:
            send(answers, FOUND, searches.depths())
        else:
            searches.look(body)
            if kind == PLACES_AND_FREE:
                send(answers, *next(filled))


def _filled(archive: int, shared: mmap.mmap, counts: Sequence[int]) -> Iterator[tuple[int, bytes]]:
    """Fill the next slot with each step, and yield what there is to say about it; at the end again and again.

    A slot is announced before it is hashed: its files can be written meanwhile. It is filled again after that.
    """
    with memoryview(shared) as room:
        hashing = _Hashing()
        for number, count in enumerate(counts):
            hashing.add(room[number * SLOT : number * SLOT + count])
        for number in itertools.count(len(counts)):
            if number >= SLOTS:
                hashing.wait()
            start = number % SLOTS * SLOT
            count = read(archive, room[start : start + SLOT])
            if not count:
                break
            hashing.add(room[start : start + count])
            yield FILLED, COUNT.pack(count)
        end = hashing.end()
        while True:
            yield ENDED, end


class _Hashing:
    """A thread that hashes slots in order; it needs the interpreter between them only."""

    def __init__(self) -> None:
        self._waiting: SimpleQueue[memoryview | None] = SimpleQueue()
        self._done: SimpleQueue[bool] = SimpleQueue()
        self._digest, self._stored, self._all = hashlib.sha256(), 0, False
        threading.Thread(target=self._work, daemon=True).start()

    def add(self, data: memoryview) -> None:
        """Have `data` hashed; it may not change before `wait` has returned for it."""
        self._waiting.put(data)

    def wait(self) -> None:
        """Wait for the oldest data that was not waited for."""
        if not self._done.get():
            raise EOFError

    def end(self) -> bytes:
        """Return how many bytes there were, and their digest."""
        self._waiting.put(None)
        while self._done.get():
            pass
        if not self._all:
            raise EOFError
        return COUNT.pack(self._stored) + self._digest.digest()

    def _work(self) -> None:
        try:
            while (data := self._waiting.get()) is not None:
                self._digest.update(data)
                self._stored += len(data)
                self._done.put(True)
            self._all = True
        finally:
            self._done.put(False)


def read(archive: int, room: memoryview) -> int:
    """Fill `room`, less at the end of the archive; return how many bytes there are."""
    count = 0
    while count < len(room) and (more := os.readv(archive, [room[count:]])):
        count += more
    return count


class _Memory:
    """The shared memory, searched by the C library: twice as fast as `bytes.find`, and others run meanwhile."""

    def __init__(self, shared: mmap.mmap) -> None:
        import ctypes  # here, since whoever starts the helper imports this module too

        self._shared = shared
        self._size = len(shared)
        self._base = ctypes.addressof(ctypes.c_char.from_buffer(shared))
        self._memmem = ctypes.CDLL(None).memmem
        self._memmem.restype = ctypes.c_void_p
        self._memmem.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t)

    def __getitem__(self, place: slice) -> bytes:
        return self._shared[place]

    def find(self, needle: bytes, start: int, end: int) -> int:
        """Return where `needle` is between two places of the memory, -1 if it is not."""
        if not 0 <= start <= end <= self._size:
            raise IndexError(start, end)
        found: int | None = self._memmem(self._base + start, end - start, needle, len(needle))
        return -1 if found is None else found - self._base


class _Searches:
    """The searches of all files, one after the other."""

    def __init__(self, shared: mmap.mmap) -> None:
        self.above: tuple[bytes, ...] = ()
        self._shared = _Memory(shared)
        self._depths: list[int] = []
        self._search = Search(())

    def look(self, places: bytes) -> None:
        """Search some places of the shared memory."""
        for start, end, begins in PLACE.iter_unpack(places):
            if begins:
                self._depths.append(self._search.depth)
                self._search = Search(self.above)
            self._search.feed(self._shared, start, end)

    def depths(self) -> bytes:
        """Return what was found in each file."""
        return b"".join(DEPTH.pack(depth) for depth in [*self._depths, self._search.depth][1:])
