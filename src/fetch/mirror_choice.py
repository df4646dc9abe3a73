"""Which mirror is asked first, and which is left alone for a while. Pure: time is passed in.

A circuit breaker for each host: after `breaker_failures` failures in a row, or one time-out (no connection, no answer,
or too few bytes in time), the host is *open*: who has another mirror takes that one. After `breaker_rest_s` it may be
tried again, after ten times as long when it was a time-out.
A package without another mirror keeps trying, as `retry` says; when such a series ends without any connection, the
host is given up, so that a dead mirror costs its time-outs once a run and not once a package.
"""

from __future__ import annotations

from ..errors import IntegrityError, NetworkError, TrustError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeVar

    from ..errors import CachefetchError
    from .limits import Limits

    T = TypeVar("T")


#: A host that says nothing rests so much longer: each look at it costs a time-out.
_SILENT_RESTS = 10


class _Host:
    def __init__(self) -> None:
        self.failures = 0
        self.opened: float | None = None
        self.last: CachefetchError | None = None
        self.given_up = False
        self.silent = False  # the last failure was one of patience, which costs as long as one waits


class Health:
    """What this run knows about its hosts and mirrors. Used by the tasks of one event loop."""

    def __init__(self, limits: Limits, clock: Callable[[], float]) -> None:
        self._limits, self._clock = limits, clock
        self._hosts: dict[str, _Host] = {}
        self._suspects: set[str] = set()

    def ordered(self, sources: Sequence[T], host: Callable[[T], str], mirror: Callable[[T], str]) -> list[T]:
        """Return `sources` as configured, but those that served wrong bytes last, and open hosts after them."""
        if not self._suspects and all(state.opened is None for state in self._hosts.values()):
            return list(sources)
        return sorted(sources, key=lambda one: (self.is_open(host(one)), mirror(one) in self._suspects))

    def is_open(self, host: str) -> bool:
        """Return True when `host` should be left alone now. After its rest one more failure opens it again."""
        state = self._hosts.get(host)
        if state is None or state.opened is None:
            return False
        rest_s = self._limits.breaker_rest_s * (_SILENT_RESTS if state.silent else 1)
        return self._clock() - state.opened < rest_s

    def given_up(self, host: str) -> bool:
        """Return True when `host` is not asked even where there is no other mirror."""
        state = self._hosts.get(host)
        if state is None or state.opened is None or not state.given_up:
            return False
        return self._clock() - state.opened < self._limits.breaker_rest_s

    def skipped(self, host: str) -> NetworkError:
        """Return the error for not asking an open host."""
        state = self._hosts[host]
        said = state.last.message if state.last else "no connection"
        return NetworkError(
            f"{host} is left alone after {state.failures} failures in a row, the last: {said}",
            hint=state.last.hint if state.last else "",
            context={"reason": "breaker", "host": host},
        )

    def succeeded(self, host: str) -> None:
        """An answer came from `host`."""
        self._hosts.pop(host, None)

    def failed(self, host: str, error: CachefetchError, *, last: bool = False) -> None:
        """Note an error of `host`; `last` says that it will not be asked again for this object.

        Only network errors count: a 404 or a wrong digest is an answer of a living host.
        """
        if not isinstance(error, NetworkError):
            self.succeeded(host)
            return
        state = self._hosts.setdefault(host, _Host())
        state.failures += 1
        state.last = error
        unreachable = error.context.get("reason") == "connect"
        state.silent = bool(error.context.get("silent")) or (unreachable and "in time" in error.message)
        if not self.is_open(host) and (state.silent or state.failures >= self._limits.breaker_failures):
            state.opened, state.given_up = self._clock(), False
        if last and unreachable:
            state.opened, state.given_up = self._clock(), True

    def suspected(self, mirror: str) -> bool:
        """Return True when `mirror` served what it must not."""
        return mirror in self._suspects

    def suspect(self, mirror: str, error: CachefetchError) -> None:
        """Note that `mirror` served what it must not: it is asked last from now on."""
        if isinstance(error, IntegrityError | TrustError):
            self._suspects.add(mirror)
