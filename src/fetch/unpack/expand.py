"""The bytes of an archive, expanded within limits and hashed, ahead of whoever reads them."""

from __future__ import annotations

import contextlib
import hashlib
import queue
import threading
import zlib

from ...errors import ArchiveError, DigestError, TruncatedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO, Any, Protocol

    from .model import ExtractLimits

    class _Decompressor(Protocol):
        @property
        def eof(self) -> bool: ...
        @property
        def unused_data(self) -> bytes: ...
        @property
        def needs_input(self) -> bool: ...
        def decompress(self, data: bytes, max_length: int, /) -> bytes: ...

    #: Bytes from the second to the third of the first; not a copy, so that it can be searched as it is.
    Piece = tuple[bytes, int, int]


_CHUNK = 1 << 20
_READ = 512 << 10
#: Pieces of at most _CHUNK bytes that are expanded ahead of what is written.
_AHEAD = 8


class Expanded:
    """The bytes of an archive, expanded within limits by a thread of its own, hashed as they are stored.

    Reading, hashing and expanding take as long as writing the files, so they go on beside it. The queue between them
    is short: memory stays bounded whatever the archive holds. Use as a context manager, which ends the thread.
    """

    def __init__(self, file: IO[bytes], limits: ExtractLimits, size: int) -> None:
        self.limits = limits
        self._file = file
        self._size = size
        self._hash = hashlib.sha256()
        self._stored = 0
        self._most = max(limits.free_bytes, limits.ratio * size)
        self._data, self._at = b"", 0
        self._queue: queue.Queue[bytes | BaseException | None] = queue.Queue(_AHEAD)
        self._ended = False
        self._stopped = threading.Event()
        self._behind = False  # True when something follows the compressed stream
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

    def announce(self, size: int) -> None:
        """Refuse a member of `size` bytes before the first of them is written, if it cannot be within limits."""
        if size > self._most:
            raise self._bomb()

    def pieces(self, size: int) -> Iterator[Piece]:
        """Yield exactly `size` bytes, in large pieces."""
        while size:
            if self._at == len(self._data) and not self._fill():
                raise ArchiveError("truncated", "ends in the middle of a member")
            end = min(self._at + size, len(self._data))
            piece = (self._data, self._at, end)
            size -= end - self._at
            self._at = end
            yield piece

    def whole(self, size: int) -> Piece | None:
        """Return exactly `size` bytes if they are at hand in one piece; None, and nothing is taken, if not."""
        start, end = self._at, self._at + size
        if end > len(self._data):
            return None
        self._at = end
        return self._data, start, end

    def read(self, size: int) -> bytes:
        """Return exactly `size` bytes."""
        end = self._at + size
        if end <= len(self._data):
            piece = self._data[self._at : end]
            self._at = end
            return piece
        return b"".join(data[start:stop] for data, start, stop in self.pieces(size))

    def finish(self, sha256: str) -> None:
        """Require that nothing but zeros follows, and that the stored bytes are the promised ones."""
        while self._at < len(self._data) or self._fill():
            if self._data[self._at :].strip(b"\0"):
                raise ArchiveError("trailing-data", "has data behind its end")
            self._at = len(self._data)
        if self._behind:
            raise ArchiveError("trailing-data", "has data behind its compressed stream")
        if self._stored != self._size:
            raise TruncatedError(f"{self._file.name} has {self._stored} bytes, not the promised {self._size}")
        if self._hash.hexdigest() != sha256:
            raise DigestError(
                f"{self._file.name} has sha256 {self._hash.hexdigest()}, its manifest promises {sha256}",
                hint="it changed in the store: run the command again",
                context={"expected": sha256, "found": self._hash.hexdigest()},
            )

    def _fill(self) -> bool:
        """Take the next expanded piece; False at the end."""
        found = None if self._ended else self._queue.get()
        if isinstance(found, BaseException):
            self._ended = True
            raise found
        self._ended = found is None
        self._data, self._at = found or b"", 0
        return found is not None

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
        reader = _decompressor(pending)
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

    def _bomb(self) -> ArchiveError:
        return ArchiveError(
            "bomb", f"expands beyond {self._most} bytes, {self.limits.ratio} times what is stored"
        )


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


def _decompressor(start: bytes) -> _Decompressor:
    """Choose by the first bytes: the manifest's word is not trusted (Spack 1.1, docs/formats.md)."""
    if start.startswith(b"\x1f\x8b"):
        return _Gunzip()
    if start.startswith(b"BZh"):
        import bz2

        return bz2.BZ2Decompressor()
    if start.startswith(b"\xfd7zXZ\0"):
        import lzma

        return lzma.LZMADecompressor(memlimit=256 << 20)
    return _Plain()
