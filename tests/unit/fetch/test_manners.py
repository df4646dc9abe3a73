"""A host that refuses is asked at a distance, on fewer connections; what answers is asked as ever."""

from __future__ import annotations

import pytest

from cachefetch.errors import MirrorError, NetworkError
from cachefetch.fetch.manners import Manners, asks_for_patience


def test_what_is_never_refused_waits_never() -> None:
    manners = Manners(16)
    for now in range(100):
        assert manners.turn(now) == 0
        manners.answered()
    assert (manners.width, manners.strained(100)) == (16, False)


def test_a_pause_holds_for_all() -> None:
    manners = Manners(16)
    manners.refused(0, 1, 30)
    assert [manners.turn(2), manners.turn(3)] == [29, 28]
    assert manners.strained(30)
    assert not manners.strained(31)
    assert manners.width == 8
    manners.refused(0.5, 2, 10)  # on its way at the first one: tells nothing new, and its pause is shorter
    assert [manners.turn(40), manners.turn(40)] == [0, 0]


def test_who_refuses_after_its_pause_is_asked_at_a_distance() -> None:
    manners = Manners(16)
    manners.refused(0, 1, 3)
    manners.refused(5, 6, 3)
    assert [round(manners.turn(7), 3) for _ in range(3)] == [2, 2.05, 2.1]
    for _ in range(300):
        manners.answered()
    manners.refused(20, 21, 1)  # long after: a pause is all that it wants
    assert [manners.turn(30), manners.turn(30)] == [0, 0]


def test_the_distance_doubles_with_each_refusal_and_goes_with_answers() -> None:
    manners = Manners(16)
    for number in range(1, 30):
        manners.refused(number, number + 0.5, None)
    manners.turn(100)
    assert manners.turn(100) == 1
    for _ in range(200):
        manners.answered()
    assert not manners.strained(200)
    assert manners.turn(200) == manners.turn(200) == 0


def test_repeated_refusals_leave_one_connection() -> None:
    manners = Manners(16)
    widths = []
    for number in range(40):
        manners.refused(number, number + 0.5, None)
        widths.append(manners.width)
    assert widths[0] == 8
    assert widths[-1] == 1
    for _ in range(3):
        manners.answered()
    assert 1 < manners.width < 8


@pytest.mark.parametrize(
    ("error", "asks"),
    [
        (NetworkError("x", throttled=True, context={"status": 429}), True),
        (NetworkError("x", throttled=True, context={"status": 503}, retry_after=1), True),
        (NetworkError("x", throttled=True, context={"status": 503}), False),
        (NetworkError("x", context={"status": 500}, retry_after=1), False),
        (MirrorError("x"), False),
    ],
)
def test_who_asks_for_patience(error: MirrorError, asks: bool) -> None:
    assert asks_for_patience(error) is asks


def test_a_server_that_allows_a_rate_refuses_few() -> None:
    """30 requests a second, whoever asks more often is refused; each takes a hundredth of a second."""
    manners, now, allowed, refused, answered = Manners(16), 0.0, 0.0, 0, 0
    while answered < 600:
        now += manners.turn(now) + 0.001
        if now >= allowed:
            allowed = now + 1 / 30
            manners.answered()
            answered += 1
        else:
            manners.refused(now - 0.001, now, None)
            refused += 1
    assert refused < 0.25 * answered
    assert now < 2.5 * 600 / 30
