"""The bytes of an archive, expanded within limits and hashed, ahead of whoever reads them."""

from __future__ import annotations

import contextlib
import hashlib
import queue
import threading
import zlib

from ...errors import ArchiveError
from .search import Search
from .source import Source

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import IO, Any, Protocol

    from .model import ExtractLimits
    from .source import Piece

    class _Decompressor(Protocol):
        @property
        def eof(self) -> bool: ...
        @property
        def unused_data(self) -> bytes: ...
        @property
        def needs_input(self) -> bool: ...
        def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


_CHUNK = 1 << 20
_READ = 512 << 10
#: What Python's `tarfile`, and so Spack, opens.
_MARKS = {"gzip": b"\x1f\x8b", "bzip2": b"BZh", "xz": b"\xfd7zXZ\0"}
_ZSTD = b"\x28\xb5\x2f\xfd"
#: Pieces of at most _CHUNK bytes that are expanded ahead of what is written.
_AHEAD = 8


class Expanded(Source):
    """The bytes of an archive, expanded within limits by a thread of its own, hashed as they are stored.

    Reading, hashing and expanding take as long as writing the files, so they go on beside it. The queue between them
    is short: memory stays bounded whatever the archive holds. Use as a context manager, which ends the thread.
    """

    def __init__(
        self, file: IO[bytes], limits: ExtractLimits, size: int, check: Callable[[], None] = lambda: None
    ) -> None:
        super().__init__(file.name, limits, size, check)
        self._file = file
        self._hash = hashlib.sha256()
        self._stored = 0
        self._queue: queue.Queue[bytes | BaseException | None] = queue.Queue(_AHEAD)
        self._ended = False
        self._stopped = threading.Event()
        self._behind = False  # True when something follows the compressed stream
        self._search = Search(())
        self._depths: list[int] = []
        self._thread = threading.Thread(target=self._work, name="cachefetch-expand", daemon=True)

    def __enter__(self) -> Expanded:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stopped.set()
        while self._thread.is_alive():
            with contextlib.suppress(queue.Empty):
                self._queue.get(timeout=0.02)  # who waits for room sees that it is to stop
        self._thread.join()

    def begin_file(self, above: tuple[bytes, ...]) -> None:
        """See `Source`."""
        self._depths.append(self._search.depth)
        self._search = Search(above)

    def search(self, piece: Piece) -> None:
        """See `Source`."""
        self._search.feed(*piece)

    def depths(self) -> list[int]:
        """See `Source`."""
        return [*self._depths, self._search.depth][1:]

    def _next(self) -> Piece | None:
        found = None if self._ended else self._queue.get()
        if isinstance(found, BaseException):
            self._ended = True
            raise found
        self._ended = found is None
        return None if found is None else (found, 0, len(found))

    def _result(self) -> tuple[int, str, bool]:
        return self._stored, self._hash.hexdigest(), self._behind

    # --- in the thread --------------------------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            for piece in self._expand():
                self._put(piece)
            self._put(None)
        except _Stopped:
            pass
        except BaseException as error:  # noqa: BLE001 -- raised again by whoever reads
            with contextlib.suppress(_Stopped):
                self._put(error)

    def _put(self, item: bytes | BaseException | None) -> None:
        while not self._stopped.is_set():
            try:
                self._queue.put(item, timeout=1)
            except queue.Full:
                continue
            return
        raise _Stopped

    def _expand(self) -> Iterator[bytes]:
        pending = self._raw()
        self.packing = packing_of(pending)
        reader = _decompressor(self.packing)
        expanded = 0
        while not reader.eof:
            if reader.needs_input and not pending:
                pending = self._raw()
                if not pending and isinstance(reader, _Plain):
                    return
                if not pending:
                    raise ArchiveError("truncated", "ends in the middle of its compressed stream")
            data, pending = pending, b""
            try:
                piece = reader.decompress(data, _CHUNK)
            except MemoryError:
                raise
            except Exception as error:
                # Each library has errors of its own (zlib.error, OSError, LZMAError, isal's); all mean the same.
                raise ArchiveError("damaged", f"is damaged compressed data ({str(error)[:80]})") from error
            expanded += len(piece)
            if expanded > self._most:
                raise self._bomb()
            if piece:
                yield piece
        self._behind = bool(pending or reader.unused_data or self._raw())

    def _raw(self) -> bytes:
        data = self._file.read(_READ)
        self._hash.update(data)
        self._stored += len(data)
        return data


class _Stopped(Exception):
    """Nobody wants the rest of the archive."""


class _Gunzip:
    """zlib's decompressor with the interface of bz2's and lzma's."""

    def __init__(self) -> None:
        self._reader = _zlib().decompressobj(wbits=31)
        self._tail = b""
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return bool(self._reader.eof)

    @property
    def unused_data(self) -> bytes:
        return bytes(self._reader.unused_data)

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        piece: bytes = self._reader.decompress(self._tail + data if self._tail else data, max_length)
        self._tail = self._reader.unconsumed_tail
        self.needs_input = not self._tail and len(piece) < max_length
        return piece


class _Plain:
    """A tar that is not compressed."""

    eof = False
    unused_data = b""
    needs_input = True

    def decompress(self, data: bytes, max_length: int, /) -> bytes:  # noqa: ARG002 -- the interface of the others
        return data


def _zlib() -> Any:
    """Return isal's zlib where it is installed (3.9 times as fast), Python's else."""
    from importlib import import_module

    try:
        return import_module("isal.isal_zlib")
    except ImportError:
        return zlib


def packing_of(start: bytes) -> str:
    """Tell by the first bytes how an archive is compressed: the manifest's word is not trusted (docs/formats.md).

    Raises:
        ArchiveError: it is zstd, which is not read.
    """
    if start.startswith(_ZSTD):
        raise ArchiveError("unsupported", "is compressed with zstd, not with gzip as Spack writes")
    return next((name for name, mark in _MARKS.items() if start.startswith(mark)), "none")


def _decompressor(packing: str) -> _Decompressor:
    if packing == "gzip":
        return _Gunzip()
    if packing == "bzip2":
        import bz2

        return bz2.BZ2Decompressor()
    if packing == "xz":
        import lzma

        return lzma.LZMADecompressor(memlimit=256 << 20)
    return _Plain()
