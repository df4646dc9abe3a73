"""Additive increase, multiplicative decrease."""

from __future__ import annotations

from cachefetch.fetch.transports.width import Width


def test_starts_at_most_and_never_passes_it() -> None:
    width = Width(16)
    for _ in range(100):
        width.succeeded()
    assert width.value == 16


def test_one_failure_halves_and_those_sent_before_it_do_not_count() -> None:
    width = Width(16)
    for _ in range(16):  # all that were under way
        width.failed()
    assert width.value == 8
    width.failed()
    assert width.value == 4


def test_never_below_one() -> None:
    width = Width(4)
    for _ in range(100):
        width.failed()
    assert width.value == 1


def test_grows_by_one_for_a_round_of_answers() -> None:
    width = Width(16)
    width.failed()
    for _ in range(8):
        width.succeeded()
    assert width.value == 8  # not quite: each answer adds less than an eighth
    width.succeeded()
    assert width.value == 9
