"""Errands: chains of short requests at one host, many of which one worker thread can run side by side."""

from __future__ import annotations

from types import coroutine

from ...errors import CachefetchError
from ...values import frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator, Iterator

    from . import Sink
    from .threads import Abort

    #: A coroutine that awaits `asked` and nothing else.
    Errand = Coroutine["Ask", None, None]


@frozen
class Ask:
    """One GET: the whole object at `url` goes into `sink`."""

    url: str
    sink: Sink


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


def run_in_order(errands: Iterator[Errand], abort: Abort, receive: Callable[[str, Sink], None]) -> None:
    """Run errands one after the other: for transports that do not make one wait.

    Raises:
        Aborted: the caller wants no more. What an errand does not catch.
    """
    from .threads import Aborted  # with anyio, which a local reading needs not before

    for errand in errands:
        try:
            ask = step(errand)
            while ask is not None:
                error: BaseException | None = None
                try:
                    receive(ask.url, ask.sink)
                except (CachefetchError, Aborted) as found:
                    error = found
                ask = step(errand, error)
        finally:
            errand.close()
        if abort.set:
            raise Aborted
