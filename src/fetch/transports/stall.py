"""When a transfer is so slow that it counts as dead. Pure; time is passed in."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..limits import Limits


class StallGuard:
    """Watches a stream: fewer than `bytes_per_s` over a whole window of `window_s` seconds is a stall.

    A read time-out alone does not see a server that sends one byte a minute.
    """

    def __init__(self, window_s: float, bytes_per_s: int, clock: Callable[[], float]) -> None:
        self.window_s = window_s
        self.bytes_per_s = bytes_per_s
        self._clock = clock
        self._since = clock()
        self._received = 0

    @classmethod
    def of(cls, limits: Limits, clock: Callable[[], float]) -> StallGuard:
        """Return a guard that starts now."""
        return cls(limits.stall_s, limits.stall_bytes_per_s, clock)

    def stalled(self, received: int) -> bool:
        """Count `received` bytes; True when the window that just ended was too slow."""
        self._received += received
        elapsed = self._clock() - self._since
        if elapsed < self.window_s:
            return False
        too_slow = self._received < self.bytes_per_s * elapsed
        self._since += elapsed
        self._received = 0
        return too_slow
