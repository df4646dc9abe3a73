"""How a host is asked that says it is asked too much (429, or 503 with Retry-After). Pure: time is passed in.

A server that counts requests does not care on how many connections they come, and one that asks for a pause means all
of its client. So what one request is told holds for all requests to that host: nobody asks before the pause is over,
then on ever fewer connections, and unless a pause was all that it wanted one after the other, at a distance that
doubles with each refusal and shrinks with each answer.
"""

from __future__ import annotations

from ..errors import NetworkError
from .transports.width import Width

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..errors import CachefetchError

#: Seconds between two requests after the first refusal, at most, and so few that it is not worth waiting.
_FIRST_S, _MOST_S, _LEAST_S = 0.05, 1.0, 0.004
#: What is left of the distance after an answer.
_SHRINK = 0.95


def asks_for_patience(error: CachefetchError) -> bool:
    """Tell whether an error is a refusal for asking too much; a 503 alone may be of any other cause."""
    if not isinstance(error, NetworkError) or not error.throttled:
        return False
    return error.retry_after is not None or error.context.get("status") == 429


class Manners:
    """The distance between requests to one host, and how many may be on their way.

    Args:
        most: requests at the same time as long as nothing is refused.
    """

    def __init__(self, most: int) -> None:
        self._width = Width(most)
        self._distance = 0.0
        self._free = self._changed = float("-inf")
        self._most, self._paused = most, False  # True once a pause was asked for

    @property
    def width(self) -> int:
        """Return how many requests may be on their way."""
        return self._width.value

    def strained(self, now: float) -> bool:
        """Return True during a pause, and until so much was answered that the distance is gone."""
        return self._distance > 0 or now < self._free

    def refused(self, sent: float, now: float, retry_after: float | None) -> None:
        """Note that a request was refused, which was sent at `sent`, before the last refusal or after it (seconds)."""
        self._free = max(self._free, now + (retry_after or 0))
        self._width.failed()
        if sent <= self._changed:
            return  # tells nothing new
        self._changed = now
        if retry_after is None or self._paused:
            self._distance = min(_MOST_S, 2 * self._distance) if self._distance else _FIRST_S
        self._paused = self._paused or retry_after is not None

    def answered(self) -> None:
        """Note an answer."""
        self._width.succeeded()
        self._distance *= _SHRINK
        if self._distance < _LEAST_S:
            self._distance = 0.0
            self._paused = self._paused and self._width.value < self._most

    def turn(self, now: float) -> float:
        """Return the seconds to wait before the next request, which then has its turn."""
        at = max(now, self._free)
        self._free = at + self._distance
        return at - now
