"""When a failure is tried again, and after how long."""

from __future__ import annotations

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachefetch.errors import (
    AccessError,
    BindingError,
    CachefetchError,
    DigestError,
    MirrorError,
    NetworkError,
    NotFoundError,
    OfflineError,
    SignatureInvalidError,
    StoreError,
    TruncatedError,
)
from cachefetch.fetch.limits import Limits
from cachefetch.fetch.retry import Clockwork, attempts, retryable, wait_s

LIMITS = Limits()


@pytest.mark.parametrize(
    "error",
    [
        AccessError("401"),
        NotFoundError("404"),
        MirrorError("400, TLS, redirects"),
        OfflineError("offline"),
        DigestError("digest"),
        TruncatedError("size"),
        BindingError("binding"),
        SignatureInvalidError("signature"),
        StoreError("disk"),
        ValueError("a bug"),
        NetworkError("patience", retry_after=601),
    ],
)
def test_not_retried(error: Exception) -> None:
    assert not retryable(error, LIMITS)


@pytest.mark.parametrize("error", [NetworkError("x"), NetworkError("x", retry_after=600, throttled=True)])
def test_retried(error: Exception) -> None:
    assert retryable(error, LIMITS)


@pytest.mark.parametrize(
    ("error", "attempt", "chance", "wait"),
    [
        (NetworkError("x"), 1, 0.5, 0.1),
        (NetworkError("x"), 2, 0.5, 0.2),
        (NetworkError("x"), 5, 1.0, 3.2),
        (NetworkError("x"), 100, 1.0, 60.0),
        (NetworkError("x"), 3, 0.0, 0.0),
        (NetworkError("x", throttled=True), 1, 0.5, 2.5),
        (NetworkError("x", throttled=True), 4, 1.0, 40.0),
        (NetworkError("x", throttled=True), 9, 1.0, 60.0),
        (NetworkError("x", retry_after=30.0), 1, 0.0, 30.0),
        (NetworkError("x", retry_after=0.0, throttled=True), 1, 0.5, 2.5),
        (NetworkError("x", retry_after=100.0), 1, 0.5, 105.0),
    ],
)
def test_wait(error: NetworkError, attempt: int, chance: float, wait: float) -> None:
    assert wait_s(error, attempt, LIMITS, chance) == pytest.approx(wait)


@given(
    st.integers(1, 10_000),
    st.floats(0, 1, exclude_max=True),
    st.booleans(),
    st.none() | st.floats(0, 600),
)
def test_wait_is_bounded_and_never_below_the_floor(
    attempt: int, chance: float, throttled: bool, floor: float | None
) -> None:
    wait = wait_s(NetworkError("x", retry_after=floor, throttled=throttled), attempt, LIMITS, chance)
    assert (floor or 0) <= wait <= max(60, (floor or 0) * 1.1)


def run(errors: list[CachefetchError], limits: Limits = LIMITS) -> tuple[str, list[float], list[int]]:
    naps: list[float] = []
    heard: list[int] = []

    async def sleep(seconds: float) -> None:
        naps.append(seconds)

    async def main() -> str:
        waiting = list(errors)
        clockwork = Clockwork(sleep=sleep, random=lambda: 0.5)
        async for attempt in attempts(limits, clockwork, lambda number, wait, error: heard.append(number)):
            with attempt:
                if waiting:
                    raise waiting.pop(0)
                return "done"
        raise AssertionError("not reached")

    try:
        return anyio.run(main), naps, heard
    except CachefetchError as error:
        return error.message, naps, heard


def test_attempts_until_it_works() -> None:
    result, naps, heard = run([NetworkError("a"), NetworkError("b", retry_after=3)])
    assert (result, heard) == ("done", [1, 2])
    assert naps == pytest.approx([0.1, 3.15])


def test_the_last_error_is_raised() -> None:
    result, naps, heard = run([NetworkError(str(i)) for i in range(9)])
    assert (result, len(naps), heard) == ("4", 4, [1, 2, 3, 4])


def test_a_lasting_error_is_raised_at_once() -> None:
    assert run([NetworkError("a"), NotFoundError("gone"), NetworkError("b")])[0] == "gone"
