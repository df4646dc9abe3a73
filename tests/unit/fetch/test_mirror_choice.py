"""The circuit breaker and the order of mirrors, as tables over a clock of our own; the pace of transfers."""

from __future__ import annotations

import pytest

from cachefetch.errors import CachefetchError, DigestError, NetworkError, NotFoundError
from cachefetch.fetch.limits import Limits
from cachefetch.fetch.mirror_choice import Health
from cachefetch.fetch.pace import Pace

LIMITS = Limits(breaker_failures=3, breaker_rest_s=30)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def health(clock: Clock) -> Health:
    return Health(LIMITS, clock)


def refused() -> NetworkError:
    return NetworkError("no connection (refused)", context={"reason": "connect"})


def black_hole() -> NetworkError:
    return NetworkError("http://dead: no connection in time", context={"reason": "connect"})


BROKEN = NetworkError("HTTP 502")
SILENT = NetworkError("http://quiet: no answer in time", context={"silent": True})


@pytest.mark.parametrize(
    ("history", "is_open"),
    [
        ([BROKEN] * 2, False),
        ([BROKEN] * 3, True),
        ([BROKEN, BROKEN, None, BROKEN], False),
        ([BROKEN, BROKEN, NotFoundError("404"), BROKEN], False),
        ([DigestError("wrong")] * 9, False),
        ([black_hole()], True),
        ([SILENT], True),
        ([refused()], False),
        ([refused()] * 3, True),
    ],
)
def test_when_a_host_is_left_alone(
    health: Health, history: list[CachefetchError | None], is_open: bool
) -> None:
    for error in history:
        if error is None:
            health.succeeded("h")
        else:
            health.failed("h", error)
    assert health.is_open("h") is is_open
    assert not health.is_open("other")


def test_after_its_rest_a_host_is_tried_and_one_failure_opens_it_again(health: Health, clock: Clock) -> None:
    for _ in range(3):
        health.failed("h", BROKEN)
    clock.now += 29
    assert health.is_open("h")
    clock.now += 2
    assert not health.is_open("h")
    health.failed("h", BROKEN)
    assert health.is_open("h")
    clock.now += 31
    health.succeeded("h")
    health.failed("h", BROKEN)
    assert not health.is_open("h")


def test_only_a_host_without_any_connection_is_given_up(health: Health, clock: Clock) -> None:
    for _ in range(5):
        health.failed("h", BROKEN, last=True)
    assert not health.given_up("h")
    health.failed("d", black_hole(), last=False)
    assert not health.given_up("d")
    health.failed("d", black_hole(), last=True)
    assert health.given_up("d")
    assert "no connection in time" in health.skipped("d").message
    clock.now += 31
    assert not health.given_up("d")


def test_a_host_that_says_nothing_rests_ten_times_as_long(health: Health, clock: Clock) -> None:
    health.failed("h", SILENT)
    clock.now += 299
    assert health.is_open("h")
    clock.now += 2
    assert not health.is_open("h")


def test_order_of_mirrors(health: Health) -> None:
    def order() -> str:
        return "".join(health.ordered("abcd", lambda one: f"host-{one}", lambda one: one))

    assert order() == "abcd"
    health.suspect("a", DigestError("wrong bytes"))
    health.suspect("d", BROKEN)  # no security matter
    assert order() == "bcda"
    health.failed("host-b", black_hole())
    assert order() == "cdab"
    health.failed("host-a", black_hole())
    assert order() == "cdba"


def test_pace_gives_every_byte_its_time(clock: Clock) -> None:
    naps: list[float] = []

    def sleep(seconds: float) -> None:
        naps.append(round(seconds, 6))
        clock.now += seconds

    pace = Pace(1000, clock=clock, sleep=sleep)
    for _ in range(4):
        pace.spend(250)
    assert sum(naps) == pytest.approx(1.0)
    clock.now += 100  # a quiet time gives no credit
    pace.spend(500)
    assert naps[-1] == 0.5
    Pace(0, clock=clock, sleep=sleep).spend(1 << 40)
    assert len(naps) == 5
