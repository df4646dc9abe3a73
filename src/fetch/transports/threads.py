"""Blocking work in a worker thread that a cancelled task can stop."""

from __future__ import annotations

import threading
from typing import TypeVar

import anyio
from anyio import get_cancelled_exc_class, to_thread

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class Abort:
    """Tells the blocking code in a thread to stop: it asks `set` between pieces, and may leave a callback."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._callback: Callable[[], None] | None = None
        self._lock = threading.Lock()

    @property
    def set(self) -> bool:
        """True once the caller wants no more."""
        return self._event.is_set()

    def check(self) -> None:
        """Raise `Aborted` once the caller wants no more."""
        if self.set:
            raise Aborted

    def on_abort(self, callback: Callable[[], None] | None) -> None:
        """Call `callback` (which wakes up a blocked read) when the abort comes, or now if it came; None forgets."""
        with self._lock:
            self._callback = callback
            late = self._event.is_set()
        if late and callback is not None:
            callback()

    def fire(self) -> None:
        """Stop the work."""
        with self._lock:
            self._event.set()
            callback = self._callback
        if callback is not None:
            callback()


class Aborted(Exception):
    """The work stopped because its task was cancelled."""


async def run_abortable(work: Callable[[Abort], T], limiter: anyio.CapacityLimiter | None = None) -> T:
    """Run `work` in a worker thread; when the task is cancelled, abort it and wait until it has stopped.

    A plain worker thread would go on writing after its task is gone, or hold the cancellation back until the
    transfer ends. `work` gets an `Abort` and raises `Aborted` when it sees it fire.
    """
    abort, finished, gate = Abort(), threading.Event(), threading.Lock()
    started = False

    def run() -> T:
        nonlocal started
        with gate:
            if abort.set:
                raise Aborted
            started = True
        try:
            return work(abort)
        finally:
            finished.set()

    try:
        return await to_thread.run_sync(run, abandon_on_cancel=True, limiter=limiter)
    except get_cancelled_exc_class():
        with gate:
            abort.fire()
        if started:
            with anyio.CancelScope(shield=True):
                await to_thread.run_sync(finished.wait)
        raise
