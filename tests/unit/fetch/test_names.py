"""Looking up a host: in a thread of its own that nobody has to wait for."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from cachefetch.fetch.transports.names import look_up
from cachefetch.fetch.transports.threads import Abort, Aborted

FOUND = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.7", 80))]


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Let the system look up names only when the event is set; numbers go the usual way."""
    go_on, real = threading.Event(), socket.getaddrinfo
    asked: list[threading.Thread] = []

    def answer(host: str, port: int, **options: Any) -> list[tuple[Any, ...]]:
        if options.get("flags"):
            return real(host, port, **options)
        asked.append(threading.current_thread())
        assert go_on.wait(30)
        if host != "mirror.invalid":
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return list(FOUND)

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    yield go_on
    go_on.set()
    for thread in asked:
        if thread is not threading.current_thread():
            thread.join(30)


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_numbers_are_not_looked_up(no_threads: None, slow: threading.Event, host: str) -> None:
    assert look_up(host, 80, 0.1, Abort())[0][4][:2] == (host, 80)


def test_a_name_is(slow: threading.Event) -> None:
    slow.set()
    assert look_up("mirror.invalid", 80, 30, Abort()) == FOUND


def test_the_error_is_that_of_the_system(slow: threading.Event) -> None:
    slow.set()
    with pytest.raises(socket.gaierror, match="no such name"):
        look_up("other.invalid", 80, 30, Abort())


def test_a_thread_that_takes_too_long_is_left(slow: threading.Event) -> None:
    start = time.monotonic()
    with pytest.raises(TimeoutError):
        look_up("mirror.invalid", 80, 0.3, Abort())
    assert 0.3 <= time.monotonic() - start < 15


def test_and_so_it_is_when_nobody_wants_the_answer_any_more(slow: threading.Event) -> None:
    abort = Abort()
    threading.Timer(0.2, abort.fire).start()
    with pytest.raises(Aborted):
        look_up("mirror.invalid", 80, 30, abort)


@pytest.mark.usefixtures("no_threads")
def test_where_there_is_no_thread_the_caller_does_it(slow: threading.Event) -> None:
    slow.set()
    assert look_up("mirror.invalid", 80, 30, Abort()) == FOUND
    with pytest.raises(socket.gaierror, match="no such name"):
        look_up("other.invalid", 80, 30, Abort())
