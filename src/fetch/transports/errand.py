"""Errands: chains of requests at one host. One worker thread can run many short ones, or each thread one at a time."""

from __future__ import annotations

import threading
import time
from types import coroutine

from ...errors import CachefetchError
from ...values import frozen
from .threads import Abort, Aborted, Crew

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator, Iterator

    from . import Sink

    #: A coroutine that awaits `asked` and nothing else.
    Errand = Coroutine["Ask", None, None]

#: Threads that `run_in_threads` begins with, the seconds between its looks, and the share of a processor that a thread
#: uses which has enough to do (the rest goes into waiting for the disk, and into the kernel's part of receiving); all
#: together have enough to do with so much of one, since the server may need the others.
_THREADS = 6
_LOOK_S = 0.1
_BUSY = 0.15
_BUSY_TOGETHER = 0.6


@frozen
class Ask:
    """One GET: the object at `url` goes into `sink`, whole or from `offset` to `last`; see `Transport.receive`."""

    url: str
    sink: Sink
    offset: int = 0
    validator: str | None = None
    last: int | None = None


class HandedBack(Exception):
    """The answer needs more than errands can do (a redirect, a proxy, an encoded body): ask again the general way."""


@coroutine
def asked(ask: Ask) -> Generator[Ask, None, None]:
    """Wait in an errand until `ask` is done.

    Raises:
        HandedBack; CachefetchError as `Transport.receive`; whatever the sink raises.
    """
    yield ask


def step(errand: Errand, error: BaseException | None = None) -> Ask | None:
    """Go on with an errand, after `error` if there was one; return its next request, None at its end.

    What the errand does not catch is raised.
    """
    try:
        return errand.send(None) if error is None else errand.throw(error)
    except StopIteration:
        return None


def run_without_requests(errands: Iterator[Errand]) -> None:
    """Run errands as far as they get without any request: what asks is handed back."""
    for errand in errands:
        ask = step(errand)
        while ask is not None:
            ask = step(errand, HandedBack())


def run_in_threads(
    abort: Abort,
    errands: Iterator[Errand],
    width: int,
    receive: Callable[[Abort, Ask], None],
    *,
    used_s: Callable[[], float] = time.process_time,
) -> None:
    """Run errands in threads, each one after the other: for bodies that keep a thread busy.

    It begins with a few: where the processors are what is short, more would wait for each other. As long as those that
    there are wait for the network, each look doubles them, up to `width`. `used_s` tells the seconds that they worked.

    Raises:
        Aborted: the caller wants no more. The first error that an errand does not catch; it ends the others.
    """
    taking = threading.Lock()

    def shared() -> Iterator[Errand]:
        while True:
            with taking:
                errand = next(errands, None)
            if errand is None:
                return
            yield errand

    def work(own: Abort) -> None:
        run_in_order(shared(), own, lambda ask: receive(own, ask))

    with Crew(abort) as crew:
        threads = min(_THREADS, width)
        crew.start(work, threads)
        while threads < width:
            before = used_s()
            if crew.ending.wait(_LOOK_S):
                break
            if used_s() - before < min(_BUSY * threads, _BUSY_TOGETHER) * _LOOK_S:
                more = min(threads, width - threads)
                crew.start(work, more)
                threads += more


def run_in_order(errands: Iterator[Errand], abort: Abort, receive: Callable[[Ask], None]) -> None:
    """Run errands one after the other.

    Raises:
        Aborted: the caller wants no more. What an errand does not catch.
    """
    for errand in errands:
        try:
            ask = step(errand)
            while ask is not None:
                error: BaseException | None = None
                try:
                    receive(ask)
                except (CachefetchError, HandedBack, Aborted) as found:
                    error = found
                ask = step(errand, error)
        finally:
            errand.close()
        if abort.set:
            raise Aborted
