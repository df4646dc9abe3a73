"""Room on the disk for payloads whose size nothing proves."""

from __future__ import annotations

import contextlib

import anyio

from ..errors import StoreError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


class Room:
    """Lets payloads come side by side while they fit on the disk together, and else one after the other.

    In layout 2 only the server tells a size. Two that are no truth must not fill the disk together: that would end the
    run, where each alone is found wrong and removed. Used by the tasks of one event loop.

    Args:
        require_space: raises StoreError when so many bytes do not fit.
    """

    def __init__(self, require_space: Callable[[int], None]) -> None:
        self._require_space = require_space
        self._taken = 0
        self._left = anyio.Event()

    def fits(self, size: int) -> bool:
        """Return True when `size` bytes fit beside what is under way; what that has written counts twice."""
        try:
            self._require_space(self._taken + size)
        except StoreError:
            return False
        return True

    @contextlib.asynccontextmanager
    async def of(self, size: int) -> AsyncIterator[None]:
        """Wait until `size` bytes fit, or nothing else is under way, and hold them until the end."""
        while self._taken and not self.fits(size):
            await self._left.wait()
        self._taken += size
        try:
            yield
        finally:
            self._taken -= size
            self._left.set()
            self._left = anyio.Event()
