"""Payloads of a middle size over several connections: one thread each, and the general way for what goes wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import anyio
from tests.faults.mirror import unsigned, write_package
from tests.faults.run import QUICK, Recorder, fetch, final_files, leftovers
from tests.faults.server import Fault, FaultServer

from cachefetch.fetch.events import Progress, Retrying, Started, Stored
from cachefetch.fetch.execute import new_run
from cachefetch.fetch.store.cas import Store
from cachefetch.fetch.transports import Transports

SIZE = 700_000


def test_one_in_three_goes_wrong_and_all_arrive_right(tmp_path: Path) -> None:
    root, store = str(tmp_path / "mirror"), str(tmp_path / "store")
    packages = [write_package(root, f"p{number}", SIZE + number) for number in range(30)]
    faults = [Fault(status=503), Fault(cut_after=300_000), Fault(reset_after=10_000), Fault(no_length=True)]
    with FaultServer(root) as server:
        for number, package in enumerate(packages[::3]):
            server.script("/" + package.blob, faults[number % len(faults)])
        receipt = fetch([p.wanted(unsigned("a", server.url)) for p in packages], store)
        asked = sum(server.count(p.sha256) for p in packages)
    assert len(receipt.items) == 30
    assert {p.sha256 for p in packages} <= set(final_files(store))
    assert asked <= 30 * 1.4
    assert leftovers(store) == []


def test_the_second_mirror_has_what_the_first_one_spoils(tmp_path: Path) -> None:
    root, store = str(tmp_path / "mirror"), str(tmp_path / "store")
    packages = [write_package(root, f"p{number}", SIZE) for number in range(6)]
    with FaultServer(root) as bad, FaultServer(root) as good:
        for package in packages:
            bad.script("/" + package.blob, Fault(corrupt_at=5, times=0))
        sources = (unsigned("bad", bad.url), unsigned("good", good.url))
        receipt = fetch([p.wanted(*sources) for p in packages], store)
    assert {item.mirror for item in receipt.items} == {"good"}
    assert {(warning.mirror, warning.code) for warning in receipt.warnings} == {("bad", "digest-mismatch")}
    assert leftovers(store) == []


def test_events_tell_of_each_payload_once(tmp_path: Path) -> None:
    root, store = str(tmp_path / "mirror"), str(tmp_path / "store")
    packages = [write_package(root, f"p{number}", SIZE) for number in range(8)]
    seen = Recorder()
    with FaultServer(root) as server:
        server.script("/" + packages[0].blob, Fault(delay=0.3))
        fetch([p.wanted(unsigned("a", server.url)) for p in packages], store, reporter=seen)
    assert sorted(event.transfer for event in seen.events if isinstance(event, Started)) == list(range(1, 9))
    assert sorted(event.transfer for event in seen.events if isinstance(event, Stored)) == list(range(1, 9))
    assert not [event for event in seen.events if isinstance(event, Retrying)]
    assert all(event.done <= SIZE for event in seen.events if isinstance(event, Progress))


def test_a_cancelled_run_leaves_parts_that_the_next_one_continues(tmp_path: Path) -> None:
    root, store = str(tmp_path / "mirror"), str(tmp_path / "store")
    packages = [write_package(root, f"p{number}", SIZE) for number in range(4)]
    with FaultServer(root) as server:
        for package in packages:
            server.script("/" + package.blob, Fault(stall_after=400_000))
        wanted = [package.wanted(unsigned("a", server.url)) for package in packages]

        async def cancelled() -> None:
            transports = Transports(QUICK)
            with anyio.move_on_after(0.7):
                limits = replace(QUICK, stall_s=30)
                run = new_run(wanted, store=Store(store), transports=transports, limits=limits)
                await run.finish()
            await transports.aclose()

        anyio.run(cancelled)
        assert not {package.sha256 for package in packages} & set(final_files(store))
        fetch(wanted, store)
        ranges = {r.path: r.headers.get("range") for r in server.requests}
    assert {p.sha256 for p in packages} <= set(final_files(store))
    assert all(ranges["/" + package.blob] for package in packages)
    assert leftovers(store) == []
