"""Searching files for the directories above a package, piece by piece. The helper process uses it too."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class Searchable(Protocol):
        """Bytes, or memory that behaves like them."""

        def find(self, needle: bytes, start: int, end: int, /) -> int:
            """Return where `needle` is between two places, -1 if it is not."""

        def __getitem__(self, place: slice, /) -> bytes:
            """Return a part as bytes."""


def deepest(above: tuple[bytes, ...], depth: int, data: Searchable, start: int, end: int) -> int:
    """Search ``data[start:end]`` for the deepest of the directories `above`, of which `depth` were found before.

    Each begins with the one before, so it cannot be found earlier: all together are one pass over the data.
    """
    while depth < len(above):
        start = data.find(above[depth], start, end)
        if start < 0:
            break
        depth += 1
    return depth


class Search:
    """The same for a file that comes in pieces: what was found is its `depth`."""

    def __init__(self, above: tuple[bytes, ...]) -> None:
        self.depth = 0
        self._above = above
        self._longest = len(above[-1]) if above else 0
        self._tail = b""

    def feed(self, data: Searchable, start: int, end: int) -> None:
        """Search the next piece, and where it meets the one before."""
        longest = self._longest
        if self._tail:
            across = self._tail + data[start : min(end, start + longest)]
            self.depth = deepest(self._above, self.depth, across, 0, len(across))
        self.depth = deepest(self._above, self.depth, data, start, end)
        if longest:
            self._tail = (self._tail + data[max(start, end - longest) : end])[-longest:]
