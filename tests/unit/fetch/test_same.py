"""Runs that ask the same: one goes ahead, the others wait, and do the work themselves when nothing comes of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import anyio
import pytest
from tests.faults.mirror import Package, unsigned, write_package
from tests.faults.run import QUICK, Recorder, fetch, leftovers
from tests.faults.server import Fault, FaultServer

from cachefetch.errors import CachefetchError, StoreError
from cachefetch.fetch import same
from cachefetch.fetch.aio import at_once
from cachefetch.fetch.events import Waiting
from cachefetch.fetch.execute import new_run
from cachefetch.fetch.limits import Limits
from cachefetch.fetch.model import Receipt
from cachefetch.fetch.store.cas import Store
from cachefetch.fetch.store.lease import Lease
from cachefetch.fetch.store.locks import Lock
from cachefetch.fetch.transports import Transports
from cachefetch.fetch.verify.policy import SignaturePolicy

SOON_S = 20
#: A test that waits for this waits for nothing.
PATIENT = replace(QUICK, same_patience_s=10 * SOON_S, stall_s=60.0)


@pytest.fixture
def packages(tmp_path: Path) -> list[Package]:
    return [write_package(str(tmp_path / "mirror"), f"p{n}", 400_000 if n else 1000) for n in range(3)]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FaultServer]:
    with FaultServer(str(tmp_path / "mirror")) as made:
        yield made


class Asking:
    """A run in a thread, as of a process of its own: with its own store, without an event loop or (`loop`) in one."""

    def __init__(
        self, store: Path, url: str, packages: list[Package], limits: Limits = PATIENT, *, loop: bool = False
    ) -> None:
        self.reporter = Recorder()
        self.transports = Transports(limits)
        self.run = new_run(
            [package.wanted(unsigned("m", url)) for package in packages],
            store=Store(str(store)),
            transports=self.transports,
            limits=limits,
            reporter=self.reporter,
        )
        self.receipt: Receipt | None = None
        self.error: CachefetchError | None = None
        self._loop = loop
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()

    def _ask(self) -> None:
        try:
            if not self._loop:
                self.receipt = self.run.begin()
            if self.receipt is None:
                self.receipt = anyio.run(self.run.finish)
        except CachefetchError as error:
            self.error = error
        at_once(self.transports.aclose())

    def waits(self) -> bool:
        return bool(self.reporter.of(Waiting))

    def result(self) -> Receipt | None:
        self._thread.join(SOON_S)
        assert not self._thread.is_alive()
        return self.receipt


def until(true: Callable[[], bool]) -> None:
    ends = time.monotonic() + SOON_S
    while not true():
        assert time.monotonic() < ends
        time.sleep(0.01)


def origins(receipt: Receipt | None) -> list[str]:
    assert receipt is not None
    return [item.origin for item in receipt.items]


@pytest.mark.parametrize("loop", [False, True])
def test_who_asks_the_same_waits_without_any_work(
    tmp_path: Path, server: FaultServer, packages: list[Package], loop: bool
) -> None:
    server.rate = 400_000
    first = Asking(tmp_path / "store", server.url, packages)
    until(lambda: server.count(packages[2].blob) == 1)
    others = [Asking(tmp_path / "store", server.url, packages, loop=loop) for _ in range(3)]
    until(lambda: all(other.waits() for other in others))
    assert not any(other.receipt for other in others)
    assert origins(first.result()) == ["network"] * 3
    for other in others:
        assert origins(other.result()) == ["store"] * 3
        assert other.run._work is None
    assert len(server.requests) == 3 * len(packages)
    assert leftovers(tmp_path / "store") == []


def test_when_the_one_ahead_fails_who_waited_goes_on(
    tmp_path: Path, server: FaultServer, packages: list[Package]
) -> None:
    server.script("/" + packages[1].manifest, Fault(status=403, delay=2.0))
    first = Asking(tmp_path / "store", server.url, packages)
    until(lambda: server.count(packages[1].manifest) == 1)
    other = Asking(tmp_path / "store", server.url, packages)
    until(other.waits)
    assert first.result() is None
    assert first.error is not None
    assert origins(other.result()) == ["network"] * 3
    assert server.count(packages[0].manifest) == server.count(packages[2].manifest) == 1


def held(store: Path, url: str, packages: list[Package], limits: Limits) -> Lock | Lease:
    """Return the lock of a request, as a stopped process has it that got no further."""
    wanted = [package.wanted(unsigned("m", url)) for package in packages]
    run = new_run(wanted, store=Store(str(store)), transports=Transports(limits), limits=limits)
    lock = run.session.store.try_lock(same._name(limits, run._request))
    assert lock is not None
    return lock


def test_who_asks_the_same_does_not_wait_for_one_that_gets_nowhere(
    tmp_path: Path, server: FaultServer, packages: list[Package]
) -> None:
    limits = replace(QUICK, same_patience_s=0.3)
    lock = held(tmp_path / "store", server.url, packages, limits)
    others = [Asking(tmp_path / "store", server.url, packages, limits, loop=loop) for loop in (False, True)]
    found = [origin for other in others for origin in origins(other.result())]
    assert found.count("network") == len(packages)
    assert all(other.waits() for other in others)
    assert len(server.requests) == 3 * len(packages)
    lock.release()


def test_who_asks_the_same_waits_as_long_as_more_comes(
    tmp_path: Path, server: FaultServer, packages: list[Package]
) -> None:
    server.rate = 160_000
    limits = replace(QUICK, same_patience_s=1.0)
    first = Asking(tmp_path / "store", server.url, packages, limits)
    until(lambda: server.count(packages[2].blob) == 1)
    begun = time.monotonic()
    other = Asking(tmp_path / "store", server.url, packages, limits)
    assert origins(other.result()) == ["store"] * 3
    assert time.monotonic() - begun > 2 * limits.same_patience_s
    assert other.run._work is None
    assert origins(first.result()) == ["network"] * 3


@pytest.mark.parametrize("what", ["speed", "packages", "trust"])
def test_who_asks_something_else_does_not_wait(
    tmp_path: Path, server: FaultServer, packages: list[Package], what: str
) -> None:
    lock = held(tmp_path / "store", server.url, packages, PATIENT)
    limits = replace(PATIENT, rate_bytes_per_s=1 << 30) if what == "speed" else PATIENT
    policy = SignaturePolicy("if-present" if what == "trust" else "none")
    source = replace(unsigned("m", server.url), policy=policy)
    wanted = [package.wanted(source) for package in packages[what == "packages" :]]
    assert origins(fetch(wanted, tmp_path / "store", limits=limits)) == ["network"] * len(wanted)
    lock.release()


def test_a_store_that_cannot_be_locked_says_so_once_it_is_written(
    tmp_path: Path, packages: list[Package]
) -> None:
    (tmp_path / "store").write_bytes(b"")
    with pytest.raises(StoreError, match="store"):
        fetch([packages[0].wanted(unsigned("m", str(tmp_path / "mirror")))], tmp_path / "store")
