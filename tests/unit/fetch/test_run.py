"""A fetch that begins without an event loop: how far it goes there, and what it leaves behind when it is stopped."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import anyio
import pytest
from tests.faults.mirror import Package, unsigned, write_package
from tests.faults.run import QUICK, Naps, Recorder, fetch, final_files, leftovers
from tests.faults.server import Fault, FaultServer

from cachefetch.errors import PolicyError, StoreError
from cachefetch.fetch.aio import at_once
from cachefetch.fetch.events import Finished, Planned, Waiting
from cachefetch.fetch.execute import new_run
from cachefetch.fetch.limits import Limits
from cachefetch.fetch.model import Receipt
from cachefetch.fetch.run import Run
from cachefetch.fetch.store.cas import Store
from cachefetch.fetch.transports import Transports

#: Who waits for a server that says nothing waits longer than a test may take.
PATIENT = replace(QUICK, stall_s=60.0)
AT_ONCE_S = 20

WAYS = {"small": PATIENT, "streams": replace(PATIENT, small_bytes=0)}


@pytest.fixture
def packages(tmp_path: Path) -> list[Package]:
    return [write_package(str(tmp_path / "mirror"), f"p{n}", 150_000 + n) for n in range(3)]


@pytest.fixture
def hosts(tmp_path: Path, packages: list[Package]) -> Iterator[list[FaultServer]]:
    """The same mirror at three hosts."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(FaultServer(str(tmp_path / "mirror"))) for _ in packages]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


class Early:
    """Fetches without an event loop, package by package from a host of its own."""

    def __init__(self, packages: list[Package], hosts: list[FaultServer], store: Store) -> None:
        self.wanted = [
            package.wanted(unsigned(f"m{n}", host.url))
            for n, (package, host) in enumerate(zip(packages, hosts, strict=True))
        ]
        self.store, self.reporter = store, Recorder()

    def __call__(
        self, limits: Limits = QUICK, accept: Callable[[object], None] = lambda _: None
    ) -> Receipt | Run:
        self.transports = Transports(limits)
        run = new_run(
            self.wanted,
            store=self.store,
            transports=self.transports,
            limits=limits,
            reporter=self.reporter,
            clockwork=Naps().clockwork(),
            accept=accept,
        )
        return run.begin() or run

    def finish(self, run: Run) -> Receipt:
        async def rest() -> Receipt:
            try:
                return await run.finish()
            finally:
                await self.transports.aclose()

        return anyio.run(rest)


@pytest.fixture
def early(packages: list[Package], hosts: list[FaultServer], store: Store) -> Iterator[Early]:
    made = Early(packages, hosts, store)
    yield made
    at_once(made.transports.aclose())


def assert_free(store: Store, packages: list[Package]) -> None:
    """Nobody has a lock: neither of a payload nor of what is present."""
    for package in packages:
        lock = store.try_lock(package.sha256)
        assert lock is not None, f"{package.name} is locked"
        lock.release()
    store.alone().release()


@pytest.mark.parametrize("way", WAYS)
def test_several_hosts_go_on_side_by_side_to_the_receipt(
    early: Early, hosts: list[FaultServer], packages: list[Package], store: Store, way: str
) -> None:
    receipt = early(WAYS[way])
    assert isinstance(receipt, Receipt)
    assert [item.mirror for item in receipt.items] == ["m0", "m1", "m2"]
    assert all(host.count(package.blob) == 1 for host, package in zip(hosts, packages, strict=True))
    assert early.reporter.events[-1] == Finished(0, 3, receipt.network_bytes)
    assert_free(store, packages)


@pytest.mark.parametrize("way", WAYS)
def test_an_error_of_the_store_ends_the_other_hosts_at_once(
    early: Early, hosts: list[FaultServer], packages: list[Package], store: Store, way: str
) -> None:
    for n in (0, 2):
        hosts[n].script("/" + packages[n].blob, Fault(stall_after=1000))
    in_the_way = Path(store.path(packages[1].sha256)).parent
    in_the_way.parent.mkdir(parents=True, exist_ok=True)
    in_the_way.write_bytes(b"")
    begun = time.monotonic()
    with pytest.raises(StoreError, match=in_the_way.name):
        early(WAYS[way])
    assert time.monotonic() - begun < AT_ONCE_S
    assert_free(store, packages)


@pytest.mark.parametrize("way", WAYS)
def test_ctrl_c_ends_all_hosts_and_keeps_what_came(
    early: Early, hosts: list[FaultServer], packages: list[Package], store: Store, way: str
) -> None:
    for n in (1, 2):
        hosts[n].script("/" + packages[n].blob, Fault(stall_after=100_000))

    def interrupt() -> None:
        ends = time.monotonic() + AT_ONCE_S
        while time.monotonic() < ends and not (
            all(host.count(package.blob) for host, package in zip(hosts, packages, strict=True))
            and store.has(packages[0].sha256)
        ):
            time.sleep(0.01)
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    presses = threading.Thread(target=interrupt)
    presses.start()
    begun = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            early(WAYS[way])
    finally:
        presses.join()
        signal.signal(signal.SIGINT, before)
    assert time.monotonic() - begun < AT_ONCE_S
    assert_free(store, packages)
    assert packages[0].sha256 in final_files(store.root)
    again = fetch(early.wanted, store.root)
    assert [item.origin for item in again.items] == ["store", "network", "network"]
    assert leftovers(store.root) == []


def test_what_the_caller_does_not_accept_ends_it_before_any_payload(
    early: Early, hosts: list[FaultServer], packages: list[Package], store: Store
) -> None:
    def refuse(_: object) -> None:
        raise PolicyError("not what the lock file names")

    with pytest.raises(PolicyError, match="not what the lock file names"):
        early(accept=refuse)
    assert sum(host.count(package.blob) for host in hosts for package in packages) == 0
    assert_free(store, packages)


def test_a_deadline_needs_a_loop_from_the_start(early: Early, hosts: list[FaultServer]) -> None:
    run = early(replace(QUICK, deadline_s=60.0))
    assert isinstance(run, Run)
    assert not any(host.requests for host in hosts)
    assert len(early.finish(run).items) == 3


def test_while_somebody_removes_things_nothing_begins(
    early: Early, hosts: list[FaultServer], packages: list[Package], store: Store
) -> None:
    removing = store.alone()
    run = early()
    assert isinstance(run, Run)
    assert not any(host.requests for host in hosts)
    ends = threading.Timer(0.2, removing.release)
    ends.start()
    assert len(early.finish(run).items) == 3
    ends.join()
    assert_free(store, packages)


def test_what_one_host_fails_at_goes_on_in_the_loop_and_is_planned_once(
    early: Early, hosts: list[FaultServer], packages: list[Package], store: Store
) -> None:
    hosts[1].script("/" + packages[1].blob, Fault(status=500))
    run = early()
    assert isinstance(run, Run)
    assert set(final_files(store.root)) >= {packages[0].sha256, packages[2].sha256}
    assert len(early.finish(run).items) == 3
    assert [host.count(package.blob) for host, package in zip(hosts, packages, strict=True)] == [1, 2, 1]
    assert all(host.count(package.manifest) == 1 for host, package in zip(hosts, packages, strict=True))
    assert len(early.reporter.of(Planned)) == 1
    assert_free(store, packages)


def test_a_run_that_is_not_finished_is_closed(
    early: Early, hosts: list[FaultServer], packages: list[Package], store: Store
) -> None:
    hosts[1].script("/" + packages[1].blob, Fault(status=500))
    run = early()
    assert isinstance(run, Run)
    with pytest.raises(StoreError):
        store.alone()
    run.close()
    run.close()
    assert_free(store, packages)


def test_what_another_process_has_a_lock_of_is_waited_for_and_told_once(
    early: Early, packages: list[Package], store: Store
) -> None:
    lock = store.try_lock(packages[1].sha256)
    assert lock is not None
    ends = threading.Timer(0.3, lock.release)
    ends.start()
    receipt = early()
    ends.join()
    assert isinstance(receipt, Receipt)
    assert [event.transfer for event in early.reporter.of(Waiting)] == [2]
