"""Work in threads: the first error, an abort or Ctrl-C ends all of it, and nothing runs on after that."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from cachefetch.errors import StoreError
from cachefetch.fetch.transports.threads import Abort, Aborted, Crew, run_watched

PATIENCE_S = 30


@pytest.fixture(autouse=True)
def _nothing_runs_on() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    wait_for(lambda: set(threading.enumerate()) <= before)


@pytest.fixture
def ctrl_c() -> Iterator[Callable[[], None]]:
    """Let Ctrl-C interrupt the tests' own thread, also where a shell's background job ignores it; return it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield lambda: os.kill(os.getpid(), signal.SIGINT)
    signal.signal(signal.SIGINT, before)


def until_aborted(begun: threading.Event | None = None) -> Callable[[Abort], None]:
    """Return work that ends with its abort only."""

    def work(abort: Abort) -> None:
        if begun is not None:
            begun.set()
        wait_for(lambda: abort.set)
        raise Aborted

    return work


def wait_for(true: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < end
        time.sleep(0.001)


# --- Crew -------------------------------------------------------------------------------------------------------------


def together(
    *works: Callable[[Abort], object], abort: Abort | None = None, then: Callable[[], object] = lambda: None
) -> Crew:
    """Run each work in a thread of its own, and `then` in this one."""
    with Crew(abort or Abort()) as crew:
        for work in works:
            crew.start(work)  # type: ignore[arg-type]  # what it returns is nobody's
        then()
    return crew


def test_a_crew_is_left_when_all_have_ended() -> None:
    done: list[int] = []

    def slow(_: Abort) -> None:
        time.sleep(0.05)
        done.append(2)

    with Crew(Abort()) as crew:
        crew.start(lambda _: done.append(1), 3)
        crew.start(slow)
    assert done == [1, 1, 1, 2]
    assert crew.ending.is_set()


def test_the_error_of_one_ends_the_others() -> None:
    begun = threading.Event()

    def full(_: Abort) -> None:
        assert begun.wait(PATIENCE_S)
        raise StoreError("the disk is full")

    with pytest.raises(StoreError, match="the disk is full"):
        together(until_aborted(begun), until_aborted(), full)


def test_an_error_ends_what_is_started_after_it() -> None:
    def full(_: Abort) -> None:
        raise StoreError("the disk is full")

    def run() -> None:
        with Crew(Abort()) as crew:
            crew.start(full)
            assert crew.ending.wait(PATIENCE_S)
            crew.start(until_aborted(), 2)

    with pytest.raises(StoreError, match="the disk is full"):
        run()


def test_the_first_error_is_the_one_that_is_raised() -> None:
    def first(_: Abort) -> None:
        raise StoreError("first")

    def second(abort: Abort) -> None:
        wait_for(lambda: abort.set)
        raise StoreError("second")

    with pytest.raises(StoreError, match="first"):
        together(second, second, first)


def test_an_abort_from_outside_ends_all_and_wakes_who_waits() -> None:
    abort, asleep, woken = Abort(), threading.Barrier(3), list[bool]()

    def work(own: Abort) -> None:
        wake = threading.Event()
        own.on_abort(wake.set)
        asleep.wait(PATIENCE_S)
        woken.append(wake.wait(PATIENCE_S))
        own.check()

    def fire() -> None:
        asleep.wait(PATIENCE_S)
        abort.fire()

    with pytest.raises(Aborted):
        together(work, work, abort=abort, then=fire)
    assert woken == [True, True]


def test_an_abort_that_came_before_the_threads_ends_them() -> None:
    abort = Abort()
    abort.fire()
    with pytest.raises(Aborted):
        together(until_aborted(), until_aborted(), abort=abort)


def test_an_abort_reaches_a_crew_within_a_crew() -> None:
    abort, begun = Abort(), threading.Event()

    def host(own: Abort) -> None:
        together(until_aborted(begun), until_aborted(), abort=own)

    def fire() -> None:
        assert begun.wait(PATIENCE_S)
        abort.fire()

    with pytest.raises(Aborted):
        together(host, host, abort=abort, then=fire)


def test_a_crew_that_was_left_hears_of_no_abort() -> None:
    abort, own = Abort(), list[Abort]()
    together(own.append, abort=abort)
    abort.fire()
    assert not own[0].set


def test_an_error_of_who_starts_the_threads_ends_them_and_is_raised() -> None:
    begun = threading.Event()

    def fail() -> None:
        assert begun.wait(PATIENCE_S)
        raise KeyError("ours")

    with pytest.raises(KeyError, match="ours"):
        together(until_aborted(begun), until_aborted(), then=fail)


class Threads:
    """A system that gives so many threads and no more."""

    def __init__(self, most: int) -> None:
        self.left, self._start = most, threading.Thread.start

    def start(self, thread: threading.Thread) -> None:
        if not self.left:
            raise RuntimeError("can't start new thread")
        self.left -= 1
        self._start(thread)


def give(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    system = Threads(most)
    monkeypatch.setattr(threading.Thread, "start", lambda thread: system.start(thread))


def test_where_the_system_gives_few_threads_those_do_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    give(monkeypatch, 2)
    done, both = list[int](), threading.Barrier(2)
    with Crew(Abort()) as crew:
        crew.start(lambda _: done.append(both.wait(PATIENCE_S)), 6)
        crew.start(lambda _: done.append(2), 6)
    assert sorted(done) == [0, 1]


def test_where_the_system_gives_no_thread_the_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    give(monkeypatch, 0)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        together(until_aborted())


# --- run_watched ------------------------------------------------------------------------------------------------------


def test_what_works_is_looked_at_and_its_result_returned() -> None:
    looks = list[threading.Thread]()

    def work(abort: Abort) -> str:
        wait_for(lambda: len(looks) > 3)
        return "done"

    assert run_watched(work, lambda: looks.append(threading.current_thread()), 0.001) == "done"
    assert set(looks) == {threading.current_thread()}


def test_an_error_of_the_work_is_raised_by_who_waits() -> None:
    def work(abort: Abort) -> None:
        raise StoreError("the disk is full")

    with pytest.raises(StoreError, match="the disk is full"):
        run_watched(work, lambda: None, 0.001)


def test_an_error_of_the_look_aborts_the_work_and_waits_for_its_end() -> None:
    ended = list[int]()

    def work(abort: Abort) -> None:
        wait_for(lambda: abort.set)
        time.sleep(0.05)  # cleans up
        ended.append(1)
        raise Aborted

    def look() -> None:
        raise ValueError("of the reporter")

    with pytest.raises(ValueError, match="of the reporter"):
        run_watched(work, look, 0.001)
    assert ended == [1]


@pytest.mark.parametrize("looks_before", [0, 1])
def test_ctrl_c_aborts_the_work_and_waits_for_its_end(ctrl_c: Callable[[], None], looks_before: int) -> None:
    """At the start of the thread, and while its end is waited for."""
    looks, ended = list[None](), list[int]()

    def work(abort: Abort) -> None:
        wait_for(lambda: len(looks) >= looks_before)
        ctrl_c()
        wait_for(lambda: abort.set)
        time.sleep(0.1)  # cleans up
        ended.append(1)
        raise Aborted

    with pytest.raises(KeyboardInterrupt):
        run_watched(work, lambda: looks.append(None), 0.02)
    assert ended == [1]


def test_ctrl_c_ends_a_crew_in_the_work(ctrl_c: Callable[[], None]) -> None:
    looks, ended = list[None](), list[int]()

    def one(abort: Abort) -> None:
        wait_for(lambda: abort.set)
        time.sleep(0.1)
        ended.append(1)

    def work(abort: Abort) -> None:
        with Crew(abort) as crew:
            crew.start(one, 3)
            wait_for(lambda: looks)
            ctrl_c()

    with pytest.raises(KeyboardInterrupt):
        run_watched(work, lambda: looks.append(None), 0.02)
    assert ended == [1, 1, 1]


def test_where_no_thread_can_be_had_the_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    give(monkeypatch, 0)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        run_watched(lambda _: None, lambda: None, 0.02)
