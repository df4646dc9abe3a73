"""Room on the disk for payloads whose size nothing proves."""

from __future__ import annotations

import contextlib

from ..errors import StoreError
from . import aio

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


class Room:
    """Lets payloads come side by side while they fit on the disk together, and else one after the other.

    In layout 2 only the server tells a size. Two that are no truth must not fill the disk together, nor take the place
    of what a manifest promises (`expect`): that would end the run, where each alone is found wrong and removed. Used by
    the tasks of one event loop.

    Args:
        require_space: raises StoreError when so many bytes do not fit.
    """

    def __init__(self, require_space: Callable[[int], None]) -> None:
        self._require_space = require_space
        self._taken = 0
        self._expected: dict[str, int] = {}
        self._left: aio.Event | None = None  # made by who waits first

    def expect(self, sha256: str, size: int) -> None:
        """Keep room for a payload of proven size that is still to come."""
        self._expected[sha256] = size

    def settled(self, sha256: str) -> None:
        """Let go of the room that was kept: the payload is here, or will not come."""
        if self._expected.pop(sha256, 0):
            self._wake()

    def fits(self, size: int) -> bool:
        """Return True when `size` bytes fit beside what is under way; what that has written counts twice."""
        try:
            self._require_space(self._taken + sum(self._expected.values()) + size)
        except StoreError:
            return False
        return True

    @contextlib.asynccontextmanager
    async def of(self, size: int) -> AsyncIterator[None]:
        """Wait until `size` bytes fit, or nothing else is to come, and hold them until the end."""
        while (self._taken or self._expected) and not self.fits(size):
            self._left = self._left or aio.Event()
            await self._left.wait()
        self._taken += size
        try:
            yield
        finally:
            self._taken -= size
            self._wake()

    def _wake(self) -> None:
        left, self._left = self._left, None
        if left is not None:
            left.set()
