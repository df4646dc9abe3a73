"""A limit on the bytes a second of all transfers together."""

from __future__ import annotations

import threading
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Pace:
    """Lets `rate` bytes a second through, 0 for any number. Shared by the worker threads.

    Every piece is given the moment when it may pass; a thread sleeps until then, and TCP slows the sender down.
    """

    def __init__(
        self,
        rate: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._rate, self._clock, self._sleep = rate, clock, sleep
        self._free_at = clock()
        self._lock = threading.Lock()

    def spend(self, size: int) -> None:
        """Wait until `size` more bytes may pass."""
        if not self._rate:
            return
        with self._lock:
            now = self._clock()
            self._free_at = max(self._free_at, now) + size / self._rate
            wait = self._free_at - now
        self._sleep(wait)
