"""The bridge from synchronous callers to the one asynchronous implementation."""

from __future__ import annotations

from _thread import allocate_lock  # `threading` would cost 1 ms at every start (P4)

from . import signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import TypeVar
    from weakref import finalize

    from anyio.from_thread import BlockingPortal

    T = TypeVar("T")


#: More than an event loop takes to start: who was interrupted waits no longer for that.
_START_S = 30.0


class Portal:
    """An event loop in a thread of its own, started by the first call and kept until `close`.

    It works inside a running loop too (a notebook), because it never uses the caller's.
    """

    def __init__(self) -> None:
        self._starting = allocate_lock()
        self._portal: BlockingPortal | None = None
        self._stop: finalize[..., Portal] | None = None

    @property
    def started(self) -> bool:
        """True once a call was made."""
        return self._portal is not None

    def call(self, function: Callable[[], Awaitable[T]]) -> T:
        """Run the coroutine function in the portal's loop and return its result, or raise its exception."""
        future = self._started().start_task_soon(function)
        try:
            return future.result()
        except BaseException:
            # Ctrl-C reaches the waiting thread only: without this the work would go on, and `close` wait for it.
            future.cancel()
            raise

    def _started(self) -> BlockingPortal:
        """Return the portal; of several threads that need it first, one starts it."""
        with self._starting:
            if self._portal is None:
                self._start()
            assert self._portal is not None
            return self._portal

    def _start(self) -> None:
        """Start the portal in a thread of its own, where no Ctrl-C comes: halfway it could neither run nor stop."""
        import threading
        import weakref

        from anyio.from_thread import start_blocking_portal

        manager = start_blocking_portal()
        errors: list[BaseException] = []
        done = threading.Event()

        def start() -> None:
            signals.leave_to_main()  # the loop's thread and its workers, too
            try:
                portal = manager.__enter__()
                # One that is forgotten must stop before the interpreter ends its thread, or the exit would hang.
                self._stop = weakref.finalize(self, manager.__exit__, None, None, None)
                self._portal = portal
            except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits
                errors.append(error)
            finally:
                done.set()

        try:
            threading.Thread(target=start).start()
        except RuntimeError:  # the system gives no thread
            raise
        except BaseException as interruption:  # noqa: BLE001 - raised again when there is something to stop
            errors.append(interruption)
        while not done.is_set():
            try:
                if done.wait(_START_S) or errors:
                    break
            except BaseException as interruption:  # noqa: BLE001 - as above
                errors.append(interruption)
        if errors:
            raise errors[0]

    def close(self) -> None:
        """Stop the loop and its thread."""
        with self._starting:
            stop, self._portal, self._stop = self._stop, None, None
        if stop is not None:
            stop()
