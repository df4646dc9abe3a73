"""When to try again, and after how long. The policy is pure; tenacity drives the attempts."""

from __future__ import annotations

import os
import time

from ..errors import CachefetchError, NetworkError
from ..values import frozen
from . import aio

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import tenacity

    from .limits import Limits


def _random() -> float:
    return int.from_bytes(os.urandom(4)) / (1 << 32)  # the import of `random` takes longer than most waits


async def _sleep(seconds: float) -> None:
    await aio.sleep(seconds)


@frozen
class Clockwork:
    """Time and chance, passed in so that tests need not wait.

    Attributes:
        monotonic: seconds, only differences count.
        now: Unix time in seconds; keys expire by it.
        sleep: waits that many seconds.
        random: a number in [0, 1).
    """

    monotonic: Callable[[], float] = time.monotonic
    now: Callable[[], float] = time.time
    sleep: Callable[[float], Awaitable[None]] = _sleep
    random: Callable[[], float] = _random


def retryable(error: BaseException, limits: Limits) -> bool:
    """Return True for a failure that may go away on the same mirror.

    Only NetworkError can: connection, time-out, 408, 425, 429, 5xx. Never 400, 401, 403, 404, 410, TLS, nor a wrong
    digest, binding or signature. A server that asks for more patience than `retry_after_cap_s` is given up.
    """
    if not isinstance(error, NetworkError):
        return False
    return error.retry_after is None or error.retry_after <= limits.retry_after_cap_s


def wait_s(error: BaseException, attempt: int, limits: Limits, chance: float) -> float:
    """Return the seconds to wait after try number `attempt` (from 1) failed with `error`.

    Full jitter: `chance` in [0, 1) times base * 2^(attempt-1), at most `backoff_cap_s`. The server's Retry-After
    is a floor, with a tenth of jitter on top so that many clients do not come back at once.
    """
    throttled = isinstance(error, NetworkError) and error.throttled
    base = limits.throttled_backoff_s if throttled else limits.backoff_s
    wait = chance * min(limits.backoff_cap_s, base * 2.0 ** min(attempt - 1, 30))
    floor = error.retry_after if isinstance(error, NetworkError) else None
    return wait if floor is None else max(wait, floor + chance * floor / 10)


def attempts(
    limits: Limits,
    clockwork: Clockwork,
    on_retry: Callable[[int, float, CachefetchError], None] | None = None,
    give_up: Callable[[], bool] = lambda: False,
    *,
    patient: bool = True,
) -> tenacity.AsyncRetrying:
    """Return the loop of attempts: ``async for attempt in attempts(...): with attempt: ...``.

    The last error is raised as it is. `on_retry` hears the number of the failed try, the wait and the error.
    `give_up` is asked before every further try. Unless `patient`, a server that says nothing is asked no more than
    `silent_attempts` times.
    """
    import tenacity  # as slow to load as the event loop, and what goes well needs it not

    def wait(state: tenacity.RetryCallState) -> float:
        return wait_s(_error(state), state.attempt_number, limits, clockwork.random())

    def before_sleep(state: tenacity.RetryCallState) -> None:
        error = _error(state)
        assert isinstance(error, CachefetchError)
        if on_retry is not None:
            on_retry(state.attempt_number, state.upcoming_sleep, error)

    def stop(state: tenacity.RetryCallState) -> bool:
        silent = not patient and bool(getattr(_error(state), "context", {}).get("silent"))
        return state.attempt_number >= (limits.silent_attempts if silent else limits.attempts)

    return tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception(lambda error: retryable(error, limits) and not give_up()),
        stop=stop,
        wait=wait,
        sleep=clockwork.sleep,
        before_sleep=before_sleep,
        reraise=True,
    )


def _error(state: tenacity.RetryCallState) -> BaseException:
    error = state.outcome.exception() if state.outcome else None
    assert error is not None
    return error
