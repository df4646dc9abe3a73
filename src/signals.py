"""Ctrl-C and SIGTERM: which thread gets them, and whether they come before the work is done or after it.

The kernel may give a signal to any thread that does not block it. Python acts on it in the main thread, which nobody
wakes when another one got it: as long as it waits for a lock an interruption would be without effect. So the other
threads block both.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # no stub; `signal` costs 1 ms at start (P4)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

_INTERRUPTION, _END = "interruption", "end"


class Terminated(KeyboardInterrupt):
    """SIGTERM came: the command ends as by Ctrl-C, with its own exit code."""


class Ending:
    """What came first: an interruption, or the end of the work. It is decided once, and holds for both sides."""

    def __init__(self) -> None:
        # No lock: a signal handler may run between any two instructions of who has it. `setdefault` is one step.
        self._first: dict[str, str] = {}

    def interrupt(self) -> bool:
        """Return True when the work has to stop, False when it was done before."""
        return self._first.setdefault("first", _INTERRUPTION) == _INTERRUPTION

    def complete(self) -> bool:
        """Return True when the work counts as done, False when it was interrupted before."""
        return self._first.setdefault("first", _END) == _END


#: Of the one command of this process. A library's caller has handlers of his own: nothing is decided here.
_ending: Ending | None = None


def complete() -> bool:
    """Return False when this command was interrupted; if not, no interruption ends it any more.

    To be asked before the result gets its name: "interrupted", with a whole result there, would be wrong.
    """
    return _ending is None or _ending.complete()


def take_over() -> None:
    """Let SIGTERM, which batch systems send, end this command as Ctrl-C does; what is ignored stays so."""
    global _ending
    ending = _ending = Ending()

    def end(number: int, _: FrameType | None) -> None:
        if number == _signal.SIGTERM:
            _signal.signal(number, _signal.SIG_IGN)  # a second one must not end the cleaning up
        if ending.interrupt():
            raise Terminated if number == _signal.SIGTERM else KeyboardInterrupt

    usual = {_signal.SIGINT: _signal.default_int_handler, _signal.SIGTERM: _signal.SIG_DFL}
    for number, handler in usual.items():
        if _signal.getsignal(number) == handler:
            _signal.signal(number, end)


def let_go() -> None:
    """Let no signal disturb the end of the interpreter: the exit code is known."""
    for number in (_signal.SIGINT, _signal.SIGTERM):
        _signal.signal(number, _signal.SIG_IGN)


def leave_to_main() -> None:
    """Have this thread, and the threads and processes that it starts, get neither. Never called by the main thread."""
    _signal.pthread_sigmask(_signal.SIG_BLOCK, (_signal.SIGINT, _signal.SIGTERM))
