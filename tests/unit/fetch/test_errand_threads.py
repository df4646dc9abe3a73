"""Errands in threads: a few while they work, many while they wait, and the end of all with the first mistake."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from cachefetch.errors import StoreError
from cachefetch.fetch.transports.errand import Ask, HandedBack, asked, run_in_threads
from cachefetch.fetch.transports.threads import Abort, Aborted


class Most:
    """Counts how many are inside at the same time."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self.now -= 1


async def one(done: list[int], number: int) -> None:
    await asked(Ask(f"u{number}", None))  # type: ignore[arg-type]  # nothing is received
    done.append(number)


def errands(done: list[int], count: int) -> Iterator[Any]:
    return (one(done, number) for number in range(count))


def test_those_that_wait_become_more() -> None:
    inside, done = Most(), list[int]()

    def receive(abort: Abort, ask: Ask) -> None:
        with inside:
            time.sleep(0.05)

    run_in_threads(Abort(), errands(done, 150), 16, receive)
    assert sorted(done) == list(range(150))
    assert inside.most == 16


@pytest.mark.parametrize(
    ("share", "threads"), [(0.0, 16), (0.55, 16), (0.65, 6), (1.0, 6), (2.0, 6)], ids=lambda one: str(one)
)
def test_those_that_work_stay_few(share: float, threads: int) -> None:
    """Work is counted in shares of one processor; what this machine has to spare is nothing to a test."""
    inside, done, looks = Most(), list[int](), itertools.count()

    def receive(abort: Abort, ask: Ask) -> None:
        with inside:
            time.sleep(0.05)

    run_in_threads(Abort(), errands(done, 150), 16, receive, used_s=lambda: next(looks) * share * 0.1)
    assert len(done) == 150
    assert inside.most == threads


def test_what_an_errand_does_not_catch_ends_all() -> None:
    done: list[int] = []

    def receive(abort: Abort, ask: Ask) -> None:
        if ask.url == "u5":
            raise StoreError("full", hint="", context={})
        while not abort.set:
            if len(done) < 5:
                return
            time.sleep(0.01)
        raise Aborted

    with pytest.raises(StoreError, match="full"):
        run_in_threads(Abort(), errands(done, 1000), 8, receive)
    assert len(done) < 1000


def test_what_is_handed_back_reaches_the_errand() -> None:
    seen: list[str] = []

    async def errand() -> None:
        try:
            await asked(Ask("u", None))  # type: ignore[arg-type]  # nothing is received
        except HandedBack:
            seen.append("back")

    def receive(abort: Abort, ask: Ask) -> None:
        raise HandedBack

    run_in_threads(Abort(), iter([errand(), errand()]), 4, receive)
    assert seen == ["back", "back"]
