"""Reading a large plain archive with the help of a second process.

Hashing and searching take as long as parsing and writing. Threads share the interpreter's lock, which the one who
writes has to take back after each system call; so the helper is a process, with the bytes in memory that both see: what
is written is what was hashed. All decisions and all writing stay here. Whatever happens to the helper, the caller can
begin again without it (docs/decisions/0010-extract-helper.md).
"""

from __future__ import annotations

import contextlib
import mmap
import os
import subprocess
import sys
from collections import deque

from .expand import packing_of
from .reader import (
    ABOVE,
    COUNT,
    DEPTH,
    DEPTHS,
    ENDED,
    FILLED,
    FOUND,
    PLACE,
    PLACES,
    PLACES_AND_FREE,
    SLOT,
    SLOTS,
    read,
    receive,
    send,
    work,
)
from .source import Source

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import IO

    from .model import ExtractLimits
    from .source import Piece

#: Bytes. With less the start of the helper costs more than it saves.
ENOUGH = 64 << 20


class HelperGone(Exception):
    """The helper did not start, or ended too early: nothing is known of the archive."""


def worthwhile(file: IO[bytes], size: int) -> bool:
    """Tell whether a helper saves time: for large archives that are not compressed, where there are two processors."""
    if size < ENOUGH or not hasattr(os, "memfd_create") or processors() < 2:
        return False
    return packing_of(os.pread(file.fileno(), 8, 0)) == "none"


def processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


class Beside(Source):
    """The bytes of a plain archive, read, hashed and searched by a helper process. Use as a context manager."""

    def __init__(
        self, file: IO[bytes], limits: ExtractLimits, size: int, check: Callable[[], None] = lambda: None
    ) -> None:
        super().__init__(file.name, limits, size, check)
        self._archive = file.fileno()
        self._expanded = 0
        self._slot = -1
        self._answers: deque[tuple[int, bytes]] = deque()
        self._ended = b""
        self._above: tuple[bytes, ...] = ()
        self._begins = False
        self._places = bytearray()

    def __enter__(self) -> Beside:
        with contextlib.ExitStack() as stack:
            memory = os.memfd_create("cachefetch-extract")
            try:
                os.ftruncate(memory, SLOTS * SLOT)
                self._shared = stack.enter_context(mmap.mmap(memory, SLOTS * SLOT))
                counts = self._read_first()
                self._process = _start(self._archive, memory, counts)
            except (OSError, ValueError) as error:
                raise HelperGone from error  # no memory to share, no interpreter to start, or no process left
            finally:
                os.close(memory)
            stack.callback(_end, self._process)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def begin_file(self, above: tuple[bytes, ...]) -> None:
        """See `Source`."""
        self._end_file()
        if above != self._above:
            self._ask(PLACES)
            self._above = above
            self._send(ABOVE, b"\0".join(above))
        self._begins = True

    def search(self, piece: Piece) -> None:
        """See `Source`."""
        self._places += PLACE.pack(piece[1], piece[2], self._begins)
        self._begins = False

    def depths(self) -> list[int]:
        """See `Source`."""
        self._end_file()
        self._ask(PLACES)
        self._send(DEPTHS)
        while True:
            kind, body = self._receive()
            if kind == FOUND:
                return [depth for (depth,) in DEPTH.iter_unpack(body)]
            self._answers.append((kind, body))

    def _end_file(self) -> None:
        """Tell also of a file without content."""
        if self._begins:
            self.search((b"", 0, 0))

    def _next(self) -> Piece | None:
        if self._ended:
            return None
        if self._slot >= 0:
            self._ask(PLACES_AND_FREE)
        kind, body = self._answers.popleft() if self._answers else self._receive()
        if kind == ENDED:
            self._ended = body
            return None
        (count,) = COUNT.unpack(body)
        self._expanded += count
        if self._expanded > self._most:
            raise self._bomb()
        self._slot = (self._slot + 1) % SLOTS
        return self._shared, self._slot * SLOT, self._slot * SLOT + count

    def _result(self) -> tuple[int, str, bool]:
        (stored,) = COUNT.unpack_from(self._ended)
        return stored, self._ended[COUNT.size :].hex(), False

    def _read_first(self) -> list[int]:
        """Fill the slots, so that there is something to do until the helper has started; return how full they are."""
        with memoryview(self._shared) as room:
            slots = [room[start : start + SLOT] for start in range(0, SLOTS * SLOT, SLOT)]
            counts = [count for slot in slots if (count := read(self._archive, slot))]
            del slots
        self._answers.extend((FILLED, COUNT.pack(count)) for count in counts)
        return counts

    def _ask(self, kind: int) -> None:
        """Have the helper search what came together."""
        self._send(kind, bytes(self._places))
        self._places.clear()

    def _send(self, kind: int, body: bytes = b"") -> None:
        assert self._process.stdin is not None
        try:
            send(self._process.stdin, kind, body)
        except OSError as error:
            raise HelperGone from error

    def _receive(self) -> tuple[int, bytes]:
        assert self._process.stdout is not None
        try:
            return receive(self._process.stdout)
        except (OSError, EOFError) as error:
            raise HelperGone from error


def _start(archive: int, memory: int, counts: list[int]) -> subprocess.Popen[bytes]:
    # The path as it is here, whatever made it so: nothing of the environment or of `site` is read again.
    module = work.__module__
    call = f"from {module} import work; work({archive}, {memory}, {counts})"
    code = f"import sys; sys.path[:] = {sys.path!r}; {call}"
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        pass_fds=[archive, memory],
        process_group=0,  # Ctrl-C is for us, who then end it
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(OSError):
            if pipe is not None:
                pipe.close()  # what it has not taken cannot be sent any more
