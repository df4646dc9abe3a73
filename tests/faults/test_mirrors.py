"""Several bad mirrors, many small faults: done from what is left, with few requests, and the culprit named."""

from __future__ import annotations

import asyncio
import random
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import anyio
import pytest
from tests.faults.mirror import unsigned, write_package
from tests.faults.run import QUICK, Naps, fetch, final_files, leftovers
from tests.faults.server import Fault, FaultServer

from cachefetch.errors import DigestError, LockChangedError, NetworkError, NotFoundError
from cachefetch.fetch.execute import new_run, plan_items
from cachefetch.fetch.model import VerifiedPackage
from cachefetch.fetch.present import Present
from cachefetch.fetch.store.cas import Store
from cachefetch.fetch.transports import Transports
from cachefetch.fetch.transports.direct import DirectTransport
from cachefetch.values import changed


@contextmanager
def black_hole() -> Iterator[str]:
    """Yield the URL of a port where connections neither come about nor are refused: its queue is full."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        fillers = [socket.socket() for _ in range(4)]
        try:
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(address)
            time.sleep(0.05)
            yield f"http://127.0.0.1:{address[1]}"
        finally:
            for filler in fillers:
                filler.close()


@contextmanager
def silence() -> Iterator[tuple[str, list[float]]]:
    """Yield the URL of a server that takes every request and answers none, and the times when they came."""
    came: list[float] = []
    kept: list[socket.socket] = []
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)

    def read(one: socket.socket) -> None:
        with suppress(OSError):
            while one.recv(4096):
                came.append(time.monotonic())

    def accept() -> None:
        with suppress(OSError):
            while True:
                one, _ = listener.accept()
                kept.append(one)
                threading.Thread(target=read, args=(one,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", came
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for one in kept:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


@pytest.mark.parametrize("proven", [False, True])
def test_a_mirror_that_takes_requests_and_never_answers_costs_one_time_out(
    proven: bool, tmp_path: Path
) -> None:
    root = str(tmp_path / "mirror")
    sizes = [20_000] * 20 + [600_000] * 6 + [2_000_000] * 2
    packages = [write_package(root, f"p{i}", size + i) for i, size in enumerate(sizes)]
    limits = replace(QUICK, stall_s=2.0, first_byte_s=2.0, split_bytes=1_000_000, range_bytes=200_000)
    with silence() as (quiet, came), FaultServer(root) as good:
        if proven:  # only the payloads are to be asked for
            one = [p.wanted(unsigned("good", good.url)) for p in packages]
            fetch(one, tmp_path / "store", limits=limits)
            for package in packages:
                (tmp_path / "store" / "sha256" / package.sha256[:2] / package.sha256).unlink()
        sources = (unsigned("quiet", quiet), unsigned("good", good.url))
        receipt = fetch([p.wanted(*sources) for p in packages], tmp_path / "store", limits=limits)
        assert {item.mirror for item in receipt.items} == {"good"}
        assert max(came) - min(came) < limits.stall_s, "all requests that it got came at once"


def test_one_black_hole_one_502_one_with_wrong_bytes_one_good(tmp_path: Path) -> None:
    root = str(tmp_path / "mirror")
    packages = [write_package(root, f"p{i}", 20_000 + i) for i in range(40)]
    limits = replace(QUICK, connect_timeout_s=1.0)
    with (
        black_hole() as dead,
        FaultServer(root) as failing,
        FaultServer(root) as wrong,
        FaultServer(root) as good,
    ):
        failing.script("*", Fault(status=502, times=0))
        for package in packages:
            wrong.script("/" + package.blob, Fault(corrupt_at=100, times=0))
        names = {"dead": dead, "failing": failing.url, "wrong": wrong.url, "good": good.url}
        sources = [unsigned(name, url) for name, url in names.items()]
        start = time.monotonic()
        receipt = fetch([p.wanted(*sources) for p in packages], tmp_path / "store", limits=limits)
        took = time.monotonic() - start
        assert {item.mirror for item in receipt.items} == {"good"}
        assert len(failing.requests) <= 40
        assert sum(wrong.count(p.blob) for p in packages) <= limits.blobs_per_host * 2
    assert {p.sha256 for p in packages} <= set(final_files(tmp_path / "store"))
    culprits = {warning.mirror for warning in receipt.warnings if warning.code == DigestError.code}
    assert culprits == {"wrong"}
    assert {"dead", "failing"} <= {warning.mirror for warning in receipt.warnings}
    assert took < 10, "a dead mirror costs its time-out once, not once a package"


def test_a_dead_mirror_alone_is_given_up_after_one_series_of_tries(tmp_path: Path) -> None:
    root = str(tmp_path / "mirror")
    packages = [write_package(root, f"p{i}", 1000) for i in range(60)]
    limits = replace(QUICK, connect_timeout_s=0.3, metadata_in_flight=4)
    with black_hole() as dead:
        start = time.monotonic()
        with pytest.raises(NetworkError) as caught:
            fetch([p.wanted(unsigned("dead", dead)) for p in packages], tmp_path / "store", limits=limits)
        took = time.monotonic() - start
    assert caught.value.exit_code == 8
    assert len(caught.value.context["failures"]) == 60
    assert took < 8, "60 packages in 15 rounds of 5 tries would take more than 20 s"


@pytest.mark.parametrize("client", ["direct", "httpx"])
def test_200_blobs_through_a_bad_network(
    client: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if client == "httpx":
        monkeypatch.setattr(DirectTransport, "_speaks", lambda self, url: False)
    root, chance = str(tmp_path / "mirror"), random.Random(5)
    packages = [write_package(root, f"p{i}", 200_000) for i in range(200)]
    limits = replace(QUICK, breaker_failures=1000)
    with FaultServer(root) as server:
        resets = 0
        for package in packages:
            dice = chance.random()
            if dice < 0.05:
                server.script("/" + package.blob, Fault(status=503))
            elif dice < 0.10:
                server.script("/" + package.blob, Fault(reset_after=100_000))
                resets += 1
            elif dice < 0.12:
                server.script("/" + package.blob, Fault(status=429, headers=(("Retry-After", "1"),)))
        wanted = [p.wanted(unsigned("m", server.url)) for p in packages]
        receipt = fetch(wanted, tmp_path / "store", limits=limits, naps=Naps())
        asked = [
            request for request in server.requests if any(request.path == f"/{p.blob}" for p in packages)
        ]
        assert len(asked) <= 1.3 * len(packages)
        assert resets > 3
        assert sum("range" in request.headers for request in asked) >= resets // 2
        assert server.most_at_once <= limits.metadata_in_flight
    assert len(receipt.items) == 200
    stored = final_files(tmp_path / "store")
    assert all(stored[p.sha256] == p.payload for p in packages)
    assert leftovers(tmp_path / "store") == []


@pytest.mark.parametrize("helper", [8, 10_000])
def test_package_that_was_pushed_again_is_fetched_though_its_old_manifest_was_kept(
    tmp_path: Path, helper: int
) -> None:
    root, store = str(tmp_path / "mirror"), tmp_path / "store"
    packages = [write_package(root, f"p{i}", 3000 + i) for i in range(24)]
    limits = changed(QUICK, helper_packages=helper)
    with FaultServer(root) as server:
        wanted = [package.wanted(unsigned("m", server.url)) for package in packages]
        planned = plan_items(wanted, store=Store(str(store)), transports=Transports(limits), limits=limits)
        assert len(asyncio.run(planned).steps) == len(packages)
        for number in (4, 7):  # one for each half
            (tmp_path / "mirror" / packages[number].blob).unlink()
            packages[number] = write_package(root, f"p{number}", 4000, seed=2)
        receipt = fetch(wanted, store, limits=limits)
        assert [item.sha256 for item in receipt.items] == [package.sha256 for package in packages]
        (tmp_path / "mirror" / packages[9].blob).unlink()
        Path(Store(str(store)).path(packages[9].sha256)).unlink()
        before = len(server.requests)
        with pytest.raises(NotFoundError):
            fetch(wanted, store, limits=limits)
        assert len(server.requests) - before <= 4, "its manifest says the same: no further try"
    assert leftovers(store) == []


def test_other_build_of_another_mirror_is_not_what_a_caller_accepted(tmp_path: Path) -> None:
    one, other = (write_package(str(tmp_path / name), "p", 3000, seed=seed) for seed, name in enumerate("ab"))
    (tmp_path / "a" / one.blob).unlink()
    seen: list[list[str]] = []

    def accept(them: Sequence[Present | VerifiedPackage]) -> None:
        seen.append([it.sha256 if isinstance(it, Present) else it.tarball.sha256 for it in them])
        if seen[-1] != [one.sha256]:
            raise LockChangedError("another one")

    sources = unsigned("a", str(tmp_path / "a")), unsigned("b", str(tmp_path / "b"))
    transports = Transports(QUICK)
    run = new_run(
        [one.wanted(*sources)],
        store=Store(str(tmp_path / "s")),
        transports=transports,
        limits=QUICK,
        accept=accept,
    )
    with pytest.raises(LockChangedError):
        run.begin() or anyio.run(run.finish)
    assert (seen[0], seen[-1]) == ([one.sha256], [other.sha256])
