"""Blocking work in a worker thread that a cancelled task can stop."""

from __future__ import annotations

import threading

from ... import signals
from .. import aio

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

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

    def commit(self) -> None:
        """Raise `Aborted` once the caller wants no more; else the work counts as done from here on, see `signals`."""
        self.check()
        if not signals.complete():
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


class Crew:
    """Threads that work side by side: the first error, or `abort`, ends all. Left when all have ended.

    Raises:
        Aborted: `abort` came. The first error of a work.
    """

    def __init__(self, abort: Abort) -> None:
        self._abort = abort
        self._threads: list[tuple[threading.Thread, Abort]] = []
        self._errors: list[BaseException] = []
        #: One work has ended, or has to.
        self.ending = threading.Event()

    def __enter__(self) -> Crew:
        self._abort.on_abort(self._stop)
        return self

    def start(self, work: Callable[[Abort], None], threads: int = 1) -> None:
        """Run `work` in so many more threads, each with an `Abort` of its own.

        Where the system gives no more threads (`ulimit -u`, `ulimit -v`), those that there are must do.

        Raises:
            RuntimeError: there is none at all.
        """
        for _ in range(threads):
            own = Abort()
            thread = threading.Thread(target=self._run, args=(work, own), daemon=True)
            try:
                thread.start()
            except RuntimeError:
                if not self._threads:
                    raise
                break
            self._threads.append((thread, own))
        if self._errors or self._abort.set:  # it came while a thread was made
            self._stop()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is not None:
            self._stop()
        for thread, _ in self._threads:
            thread.join()
        self._abort.on_abort(None)
        if error is None and self._errors:
            raise self._errors[0]
        if error is None and self._abort.set:
            raise Aborted

    def _stop(self) -> None:
        self.ending.set()
        for _, own in tuple(self._threads):
            own.fire()

    def _run(self, work: Callable[[Abort], None], own: Abort) -> None:
        signals.leave_to_main()
        try:
            work(own)
        except Aborted:
            pass
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits
            self._errors.append(error)
            self._stop()
        finally:
            self.ending.set()


def run_watched(work: Callable[[Abort], T], look: Callable[[], None], every_s: float) -> T:
    """Run `work` in a worker thread without an event loop, and call `look` here every so many seconds.

    What interrupts this thread (Ctrl-C, an error of `look`) aborts the work, and is raised when that has stopped.
    """
    abort, finished = Abort(), threading.Event()
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        signals.leave_to_main()
        try:
            abort.check()
            results.append(work(abort))
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits
            errors.append(error)
        finally:
            finished.set()

    thread = threading.Thread(target=run, daemon=True)
    try:
        thread.start()
        # Not `join`: up to Python 3.12 an interrupted one takes the thread for ended, and the next returns at once.
        while not finished.wait(every_s):
            look()
        thread.join()  # it has told all, and ends: who copies the process next must not find it (`helper`)
    except BaseException:
        abort.fire()
        if thread.is_alive():  # else it was not started, or will see the abort before it begins
            finished.wait()
        raise
    if errors:
        raise errors[0]
    return results[0]


async def run_abortable(work: Callable[[Abort], T], limiter: aio.CapacityLimiter | None = None) -> T:
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
        return await aio.to_thread.run_sync(run, abandon_on_cancel=True, limiter=limiter)
    except aio.get_cancelled_exc_class():
        with gate:
            abort.fire()
        if started:
            with aio.CancelScope(shield=True):
                await aio.to_thread.run_sync(finished.wait)
        raise
