"""A second process for half of many small packages (docs/decisions/0014-fetch-helper.md).

What is small costs the interpreter's time, and threads share its lock. The helper is a copy of this process (`fork`)
that goes the same quick way with the other half of the packages, to the same store, under the same locks, and tells
here what it proved or stored, and what it met. What has no result is still to be done, and the caller does it. The
helper may be killed at any time, as any fetch.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import threading
import time

from ..values import changed, frozen
from . import aio
from .events import Reporter
from .model import Meter
from .unpack.beside import processors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine, Sequence
    from typing import Any, TypeVar

    from ..errors import CachefetchError
    from .events import Event
    from .limits import Limits
    from .model import Wanted
    from .session import Session

    R = TypeVar("R")

_PIPE = 1 << 20  # bytes that wait for us without making the helper wait
_LENGTH = 8
_PDEATHSIG = 1  # PR_SET_PDEATHSIG
#: For so long the system may count a thread that has ended, on a busy machine, and how often to look.
_ENDING_S, _TICK_S = 0.2, 0.001


@frozen
class _Told:
    """What the helper tells at its end: packed results by number, what it met and who was busy (as `Session.met` and
    `Session.busy` have it), and the bytes that it received."""

    results: tuple[tuple[int, Any], ...]
    met: tuple[tuple[tuple[int, str], CachefetchError], ...]
    busy: tuple[tuple[int, str], ...]
    received: int


async def in_halves(
    session: Session,
    wanted: Sequence[Wanted],
    todo: Sequence[int],
    bring: Callable[[Collection[int]], Coroutine[Any, Any, dict[int, R]]],
    pack: Callable[[R], Any],
    unpack: Callable[[int, Any], R],
) -> dict[int, R]:
    """Return what ``bring(todo)`` does, done by two processes where that is quicker and possible.

    Args:
        wanted: all requests.
        todo: the numbers of those that this is about.
        bring: gives results by their number; those without trouble only.
        pack: makes plain values of a result, None of one that has to be made here.
        unpack: makes the result of them again, given its number.

    Raises:
        Whatever `bring` raises here; the helper has ended then.
    """
    ours, its = todo[::2], todo[1::2]
    helper = _start(session, its, bring, pack) if _possible(session) else None
    if helper is None:
        return await bring(todo)
    limits = session.limits
    session.limits = _half(limits)
    session.looks.append(helper.look)
    try:
        results = await bring(ours)
        told = helper.finish()
    finally:
        session.limits = limits
        session.looks.remove(helper.look)
        helper.end()
    if told is None:  # it was killed: what it stored is there, the rest is to be done
        return results | await bring(its)
    session.meter.network_bytes += told.received
    session.busy |= dict(told.busy)
    for (transfer, mirror), error in told.met:
        source = next(one for one in wanted[transfer - 1].sources if one.mirror == mirror)
        session.met_quickly(transfer - 1, source, error)
    return results | {number: unpack(number, fields) for number, fields in told.results}


def _half(limits: Limits) -> Limits:
    """Return limits for one of two processes that share the connections."""
    return changed(
        limits,
        metadata_in_flight=limits.metadata_in_flight // 2,
        blob_connections=limits.blob_connections // 2,
        blobs_per_host=limits.blobs_per_host // 2,
    )


def _possible(session: Session) -> bool:
    """Tell whether this process may be copied: it has no other thread, whose locks would never be free again."""
    limits = session.limits
    least = min(limits.metadata_in_flight, limits.blob_connections, limits.blobs_per_host)
    return least > 1 and not limits.rate_bytes_per_s and processors() > 1 and _alone()


def _alone() -> bool:
    """Tell whether no other thread is here; for one that was joined the system needs a moment more."""
    ends = time.monotonic() + _ENDING_S
    while threading.active_count() == 1 and _threads() > 1 and time.monotonic() < ends:
        time.sleep(_TICK_S)
    return threading.active_count() == 1 and _threads() == 1


def _threads() -> int:
    """Return how many threads this process has, those of libraries too; 0 where the system does not tell."""
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return 0


def _start(
    session: Session,
    todo: Sequence[int],
    bring: Callable[[Collection[int]], Coroutine[Any, Any, dict[int, R]]],
    pack: Callable[[R], Any],
) -> _Helper | None:
    """Start a helper for `todo`; None where the system does not let us."""
    try:
        die_with = _die_with_parent()
        ours, its = os.pipe()
    except (OSError, AttributeError):
        return None
    session.drain()  # or the helper would tell it again
    parent = os.getpid()
    try:
        process = os.fork()
    except OSError:  # the system gives no process: one does it all
        os.close(ours)
        os.close(its)
        return None
    if process:
        os.close(its)
        return _Helper(session, process, ours)
    try:  # nothing of what the caller does at its end may be done here, whatever happens
        os.close(ours)
        die_with(parent)
        _help(session, its, todo, bring, pack)
        os._exit(0)
    finally:
        os._exit(1)


def _die_with_parent() -> Callable[[int], None]:
    """Return what makes a process end with its parent. Raises OSError, AttributeError where that cannot be."""
    import ctypes

    prctl = ctypes.CDLL(None).prctl

    def die_with(parent: int) -> None:
        if prctl(_PDEATHSIG, signal.SIGKILL) or os.getppid() != parent:
            os._exit(1)

    return die_with


def _help(
    session: Session,
    pipe: int,
    todo: Sequence[int],
    bring: Callable[[Collection[int]], Coroutine[Any, Any, dict[int, R]]],
    pack: Callable[[R], Any],
) -> None:
    """Be the helper."""
    os.setpgid(0, 0)  # Ctrl-C is for the caller, who then ends us
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, signal.SIG_DFL)
    session.store.separate()
    session.limits = _half(session.limits)
    session.meter = Meter()
    session.met.clear()
    session.busy.clear()
    with open(pipe, "wb") as file:
        session.reporter = _Teller(file, silent=type(session.reporter) is Reporter)
        found = aio.at_once(bring(todo))
        packed = [(number, pack(one)) for number, one in found.items()]
        results = tuple([pair for pair in packed if pair[1] is not None])
        met, busy = tuple(session.met.items()), tuple(session.busy.items())
        _send(file, _Told(results, met, busy, session.meter.network_bytes))


class _Teller(Reporter):
    """Hands events of the helper over."""

    def __init__(self, file: Any, *, silent: bool) -> None:
        self._file, self._silent = file, silent

    def on_event(self, event: Event) -> None:
        if not self._silent:
            _send(self._file, event)


def _send(file: Any, value: Any) -> None:
    data = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    file.write(len(data).to_bytes(_LENGTH, "big") + data)
    file.flush()


class _Helper:
    """The helper, seen from the caller."""

    def __init__(self, session: Session, process: int, pipe: int) -> None:
        self._session, self._process, self._pipe = session, process, pipe
        self._data = bytearray()
        self._told: _Told | None = None
        self._open = True
        os.set_blocking(pipe, False)
        with contextlib.suppress(OSError):
            import fcntl

            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE)

    def look(self) -> None:
        """Take what came."""
        while self._open:
            try:
                more = os.read(self._pipe, _PIPE)
            except BlockingIOError:
                return
            self._open = bool(more)
            self._data += more
            self._take()

    def finish(self) -> _Told | None:
        """Wait for the end; return what the helper told, None if it failed or was killed."""
        os.set_blocking(self._pipe, True)
        self.look()
        return self._told

    def end(self) -> None:
        """End the helper, if it has not ended; its locks are free then."""
        with contextlib.suppress(OSError):
            os.kill(self._process, signal.SIGKILL)
        with contextlib.suppress(OSError):
            os.waitpid(self._process, 0)
        os.close(self._pipe)

    def _take(self) -> None:
        while len(self._data) >= _LENGTH:
            end = _LENGTH + int.from_bytes(self._data[:_LENGTH], "big")
            if len(self._data) < end:
                return
            value = pickle.loads(self._data[_LENGTH:end])  # noqa: S301 - written by this very program
            del self._data[:end]
            if isinstance(value, _Told):
                self._told = value
            else:
                self._session.emit(value)
