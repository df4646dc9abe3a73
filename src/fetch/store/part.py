"""A blob that is being received: its part file, its sidecar, and the digest of what came."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os

from ...regular import open_regular
from ...values import changed
from ..resume import PartInfo, read_info, usable
from . import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_CHUNK = 1 << 20
#: After so many bytes the disk is told to begin.
_BEHIND = 4 << 20
#: Blobs from this size on go past the page cache (docs/decisions/0011-past-the-page-cache.md).
_DIRECT_BYTES = 4 << 20
#: Of place, size and memory of what goes past the page cache; no disk asks for more.
_ALIGNED = 4096


class PartWriter:
    """A blob that is being received: the part file, its sidecar, and the digest of what it holds.

    Write with `write`, then `commit`. `close` keeps the part for the next run; `drop` removes it.
    """

    def __init__(self, paths: tuple[str, str, str], descriptor: int, sha256: str, size: int) -> None:
        self._part, self._sidecar, self._final = paths
        self._descriptor: int | None = descriptor
        self.sha256, self.size = sha256, size
        self.offset = 0
        self.resumed = False  # True when the bytes come from more than one response
        self.info: PartInfo | None = None
        self.done = False  # True when the blob is visible under its digest
        self.on_commit: Callable[[str, os.stat_result], None] | None = None
        self._kept = False  # True when the sidecar is on disk
        self._stale = False  # True when it is not what it should say
        self._begun = 0  # up to here the disk was told to write
        self._direct = False  # True while bytes go past the page cache
        self._hash = hashlib.sha256()

    @classmethod
    def open(cls, paths: tuple[str, str, str], sha256: str, size: int) -> PartWriter:
        """Open (part, sidecar, final path), re-hash a usable prefix, and check the free space for the rest."""
        part, sidecar, _ = paths
        with files.store_errors(part):
            writer = cls(paths, files.open_for_writing(part), sha256, size)
            try:
                info = read_info(files.read_or_none(sidecar) or b"")
                have = os.fstat(writer._handle).st_size
                if info is not None and info.have is not None and info.have < have:
                    have = info.have
                    os.ftruncate(writer._handle, have)
                if usable(info, have, sha256=sha256, size=size):
                    assert info is not None
                    writer.info, writer._kept = info, True
                    writer._rehash()
                    writer._count_all()
                else:
                    writer._truncate()
                files.require_space(part, size - writer.offset)
            except BaseException:
                writer.close()
                raise
            return writer

    @property
    def path(self) -> str:
        """Where the blob will be."""
        return self._final

    @property
    def _handle(self) -> int:
        assert self._descriptor is not None, "the part is closed"
        return self._descriptor

    def begin(self, info: PartInfo) -> None:
        """Start over with bytes of another response: empty the part, then say where its bytes come from."""
        with files.store_errors(self._part):
            self._forget_sidecar()
            self._truncate()
            self._go_direct()
            self.resumed, self.info = False, info

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append `data`, which must not pass `size`."""
        assert self.offset + len(data) <= self.size, "the caller caps the stream"
        with files.store_errors(self._part):
            if self.offset + len(data) < self.size:
                self._keep_sidecar()  # a blob that comes in one piece needs none
            view, done = memoryview(data), 0
            try:
                while done < len(view):
                    done += self._put(view[done:], self.offset + done)
            finally:  # a full disk takes a piece of it
                self._hash.update(view[:done])
                self.offset += done
            self._write_behind()

    def _put(self, view: memoryview, at: int) -> int:
        """Write a piece of `view` at its place, past the page cache where that can be; return its length."""
        if self._direct:
            whole = len(view) - len(view) % _ALIGNED
            if whole and at % _ALIGNED == 0:
                try:
                    return os.pwrite(self._handle, view[:whole], at)
                except OSError as error:
                    if (
                        error.errno != errno.EINVAL
                    ):  # memory that is not aligned, or a disk that asks for more
                        raise
            self._direct = False
            files.set_direct(self._handle, wanted=False)
        return os.pwrite(self._handle, view[: files.WRITE_BYTES], at)

    def _go_direct(self) -> None:
        if self.size >= _DIRECT_BYTES and self.offset % _ALIGNED == 0:
            self._direct = files.set_direct(self._handle, wanted=True)

    def _write_behind(self) -> None:
        if not self._direct and self.offset - self._begun >= _BEHIND:
            files.start_write_back(self._handle, self._begun, self.offset - self._begun)
            self._begun = self.offset

    def share(self, source: str) -> bool:
        """Let an empty part share the bytes of a file; False where the file system cannot, or it has another size.

        Nothing of it counts until `prove_shared` hashed it: by then the source may be another one.
        """
        assert self.offset == 0, "bytes that count would be lost"
        with files.store_errors(self._part):
            try:
                with open_regular(source) as file:
                    shared = os.fstat(file.fileno()).st_size == self.size and files.reflink(
                        file.fileno(), self._handle
                    )
            except OSError:
                return False  # whoever reads it in the usual way says what is wrong with it
            if shared and os.fstat(self._handle).st_size == self.size:
                return True
            self._truncate()
            return False

    def prove_shared(self, to: int) -> None:
        """Hash shared bytes up to `to`: they count from now on."""
        with files.store_errors(self._part):
            while self.offset < to:
                data = os.pread(self._handle, min(files.WRITE_BYTES, to - self.offset), self.offset)
                if not data:
                    raise OSError(errno.EIO, "the part file lost what was shared with it")
                self._hash.update(data)
                self.offset += len(data)

    def begin_ranges(self, info: PartInfo) -> None:
        """From now on the rest comes by `write_at`, and `info.have` bytes count."""
        with files.store_errors(self._part):
            self.resumed = self.resumed or self.offset > 0
            self.info, self._kept = info, False
            self._keep_sidecar()
            self._go_direct()
            if self._direct:  # else each piece that makes the file longer waits for those beside it
                files.reserve(self._handle, self.size)

    def write_at(self, at: int, data: memoryview) -> None:
        """Write bytes where they belong; threads may do so side by side."""
        assert at + len(data) <= self.size, "the caller caps the stream"
        with files.store_errors(self._part):
            done = 0
            while done < len(data):
                done += self._put(data[done:], at + done)

    def advance(self, data: memoryview) -> None:
        """Hash what follows, which `write_at` wrote. One thread at a time; `count` makes those bytes count."""
        self._hash.update(data)
        self.offset += len(data)
        with files.store_errors(self._part):
            self._write_behind()

    def count(self) -> None:
        """Say on the disk how far the part is hashed: there the next run goes on, should this one be killed."""
        if self.info is not None and self.info.have != self.offset < self.size:
            with files.store_errors(self._part):
                self.info, self._kept = changed(self.info, have=self.offset), False
                self._keep_sidecar()

    def end_ranges(self) -> None:
        """Cut off what does not count, so that `write` can go on."""
        if self.done or self._descriptor is None:
            return
        with files.store_errors(self._part):
            os.ftruncate(self._handle, self.offset)
            self._count_all()

    def matches(self) -> bool:
        """Return True when the part is complete and has the promised digest."""
        return self.offset == self.size and self._hash.hexdigest() == self.sha256

    def digest(self) -> str:
        """Return the hexadecimal sha256 of the bytes so far."""
        return self._hash.hexdigest()

    def commit_if_right(self) -> None:
        """Make the blob visible if it is complete and right; `done` tells."""
        if self.matches():
            self.commit()

    def commit(self) -> str:
        """Make the blob visible under its digest, and return its path. Only for a part that `matches`."""
        assert self.matches(), "unverified bytes never get a final name"
        with files.store_errors(self._final):
            os.fsync(self._handle)
            files.rename(self._part, self._final)
            files.make_read_only(self._handle)
            info = os.fstat(self._handle)
            self.close()
            self._forget_sidecar()
            self.done = True
        if self.on_commit is not None:
            self.on_commit(self.sha256, info)
        return self._final

    def close(self) -> None:
        """Close the file; what is written stays for a later run."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def drop(self) -> None:
        """Empty the part: its bytes are wrong, or of no use to the server."""
        with files.store_errors(self._part):
            self._forget_sidecar()
            self._truncate()
            self.info = None

    def leave(self) -> None:
        """End the work: what was received stays for the next run, an empty part goes."""
        if self.done:
            return
        if self.offset:
            self.close()
        else:
            self.remove()

    def remove(self) -> None:
        """Close and delete the part and its sidecar."""
        self.close()
        for path in (self._sidecar, self._part):
            with files.store_errors(path), contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    def _keep_sidecar(self) -> None:
        if (self._stale or not self._kept) and self.info is not None:
            new = self._sidecar + ".new"
            try:
                files.write_atomic(new, self._sidecar, self.info.encode(), sync=False, read_only=False)
            except OSError:
                with contextlib.suppress(OSError):
                    os.unlink(new)
                raise
            self._kept, self._stale = True, False

    def _count_all(self) -> None:
        """Let all bytes of the part count again; the sidecar says so before the next one is written."""
        if self.info is not None and self.info.have is not None:
            self.info, self._stale = changed(self.info, have=None), True

    def _forget_sidecar(self) -> None:
        if self._kept:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._sidecar)
            self._kept = False

    def _truncate(self) -> None:
        os.ftruncate(self._handle, 0)
        self._hash = hashlib.sha256()
        self.offset = self._begun = 0

    def _rehash(self) -> None:
        while data := os.pread(self._handle, _CHUNK, self.offset):
            self._hash.update(data)
            self.offset += len(data)
