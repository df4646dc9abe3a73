"""Reading an archive: a cursor over pieces that somebody brings, within limits, to the end that was promised."""

from __future__ import annotations

from ...errors import ArchiveError, DigestError, TruncatedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import mmap
    from collections.abc import Callable, Iterator

    from .model import ExtractLimits

    #: Bytes from the second to the third of the first; not a copy, so that it can be searched as it is.
    Piece = tuple[bytes | mmap.mmap, int, int]


class Source:
    """The bytes of an archive, in order. A subclass brings the pieces, hashes them and searches files."""

    def __init__(
        self, path: str, limits: ExtractLimits, size: int, check: Callable[[], None] = lambda: None
    ) -> None:
        self.limits = limits
        self.packing = "none"  # or how the archive is compressed, once its first bytes were read
        self._check = check
        self._path = path
        self._size = size
        self._most = max(limits.free_bytes, limits.ratio * size)
        self._data: bytes | mmap.mmap = b""
        self._at = self._end = 0

    # --- what a subclass brings

    def _next(self) -> Piece | None:
        """Return the next piece, None at the end; the one before is not needed any more."""
        raise NotImplementedError

    def _result(self) -> tuple[int, str, bool]:
        """Return how many bytes are stored, their sha256, and whether any follow the compressed stream."""
        raise NotImplementedError

    def begin_file(self, above: tuple[bytes, ...]) -> None:
        """Say that the pieces which are searched from here on are those of the next file.

        Args:
            above: the directories to search for (`directories_above`); the same for all files.
        """
        raise NotImplementedError

    def search(self, piece: Piece) -> None:
        """Search the next piece of the file, which `pieces` or `whole` just returned."""
        raise NotImplementedError

    def depths(self) -> list[int]:
        """Return of each file, in order, how many of the directories above it holds."""
        raise NotImplementedError

    # --- what reads

    def announce(self, size: int) -> None:
        """Refuse a member of `size` bytes before the first of them is written, if it cannot be within limits."""
        if size > self._most:
            raise self._bomb()

    def pieces(self, size: int) -> Iterator[Piece]:
        """Yield exactly `size` bytes, in large pieces."""
        while size:
            if self._at == self._end and not self._fill():
                raise ArchiveError("truncated", "ends in the middle of a member")
            end = min(self._at + size, self._end)
            piece = (self._data, self._at, end)
            size -= end - self._at
            self._at = end
            yield piece

    def whole(self, size: int) -> Piece | None:
        """Return exactly `size` bytes if they are at hand in one piece; None, and nothing is taken, if not."""
        start, end = self._at, self._at + size
        if end > self._end:
            return None
        self._at = end
        return self._data, start, end

    def read(self, size: int) -> bytes:
        """Return exactly `size` bytes."""
        end = self._at + size
        if end <= self._end:
            piece = self._data[self._at : end]
            self._at = end
            return piece
        return b"".join([data[start:stop] for data, start, stop in self.pieces(size)])

    def finish(self, sha256: str) -> None:
        """Require that nothing but zeros follows, and that the stored bytes are the promised ones."""
        while self._at < self._end or self._fill():
            if self._data[self._at : self._end].strip(b"\0"):
                raise ArchiveError("trailing-data", "has data behind its end")
            self._at = self._end
        stored, found, behind = self._result()
        if behind:
            raise ArchiveError("trailing-data", "has data behind its compressed stream")
        if stored != self._size:
            raise TruncatedError(f"{self._path} has {stored} bytes, not the promised {self._size}")
        if found != sha256:
            raise DigestError(
                f"{self._path} has sha256 {found}, its manifest promises {sha256}",
                hint="it changed in the store: run the command again",
                context={"expected": sha256, "found": found},
            )

    def _fill(self) -> bool:
        """Take the next piece, if it is still wanted; False at the end."""
        self._check()
        piece = self._next()
        self._data, self._at, self._end = piece or (b"", 0, 0)
        return piece is not None

    def _bomb(self) -> ArchiveError:
        return ArchiveError(
            "bomb", f"expands beyond {self._most} bytes, {self.limits.ratio} times what is stored"
        )
