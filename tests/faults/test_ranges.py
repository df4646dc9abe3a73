"""Large payloads in ranges: right bytes from every server, continued where they were hashed."""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.faults.mirror import Package, unsigned, write_package
from tests.faults.run import QUICK, Recorder, fetch, final_files, leftovers
from tests.faults.server import Fault, FaultServer

from cachefetch.errors import CachefetchError, DigestError, NetworkError
from cachefetch.fetch.aio import at_once
from cachefetch.fetch.events import Event, Progress, Reporter, Retrying
from cachefetch.fetch.execute import new_run
from cachefetch.fetch.resume import PartInfo, read_info
from cachefetch.fetch.store.cas import Store
from cachefetch.fetch.transports import Transports

SIZE = 1_000_000
RANGE = 100_000
LIMITS = replace(QUICK, small_bytes=0, split_bytes=400_000, range_bytes=RANGE)
#: What a deadline holds is all done in the event loop.
IN_LOOP = replace(LIMITS, deadline_s=300)


@pytest.fixture
def package(tmp_path: Path) -> Package:
    return write_package(str(tmp_path / "mirror"), "large", SIZE)


@pytest.fixture
def server(tmp_path: Path, package: Package) -> Iterator[FaultServer]:
    with FaultServer(str(tmp_path / "mirror")) as started:
        yield started


def asked(server: FaultServer, package: Package) -> list[str | None]:
    return [r.headers.get("range") for r in server.requests if r.path == "/" + package.blob]


def test_ranges_over_several_connections(server: FaultServer, package: Package, tmp_path: Path) -> None:
    receipt = fetch([package.wanted(unsigned("m", server.url))], tmp_path / "store", limits=LIMITS)
    assert final_files(tmp_path / "store")[package.sha256] == package.payload
    expected = {f"bytes={at}-{at + RANGE - 1}" for at in range(0, SIZE, RANGE)}
    assert sorted(asked(server, package), key=str) == sorted(expected)
    etags = [r.headers.get("if-range") for r in server.requests if r.path == "/" + package.blob]
    assert etags[0] is None
    assert all(etags[1:])
    assert 1 < server.most_at_once <= LIMITS.split_connections
    assert receipt.network_bytes > SIZE
    assert leftovers(tmp_path / "store") == []


FAULTS = {
    "cut": [Fault(), Fault(cut_after=30_000)],
    "reset": [Fault(), Fault(), Fault(reset_after=30_000)],
    "503": [Fault(), Fault(), Fault(), Fault(status=503)],
    "429 at first": [Fault(status=429)],
    "stall": [Fault(), Fault(stall_after=30_000)],
    "wrong range": [Fault(), Fault(), Fault(range_shift=7)],
    "changed": [Fault(), Fault(), Fault(etag='"other"')],
    "ranges end": [Fault(), Fault(), Fault(ignore_range=True)],
    "416": [Fault(), Fault(), Fault(status=416)],
    "ranges have no end": [Fault(ignore_end=True)],
    "ranges have no end later": [Fault(), Fault(), Fault(ignore_end=True)],
    "no ranges": [Fault(ignore_range=True)],
    "no length": [Fault(no_length=True)],
    "wrong ranges, always": [Fault(range_shift=7, times=0)],
    "several servers that do not agree": [Fault(etag=f'"{number}"') for number in range(50)],
    "less than was asked for, always": [Fault(range_most=10_000, times=0)],
}


@pytest.mark.parametrize("name", FAULTS)
def test_right_in_spite_of(name: str, server: FaultServer, package: Package, tmp_path: Path) -> None:
    server.script("/" + package.blob, *FAULTS[name])
    receipt = fetch([package.wanted(unsigned("m", server.url))], tmp_path / "store", limits=LIMITS)
    assert final_files(tmp_path / "store")[package.sha256] == package.payload
    assert not receipt.warnings
    assert leftovers(tmp_path / "store") == []


def test_no_ranges_while_other_payloads_wait(server: FaultServer, tmp_path: Path, package: Package) -> None:
    other = write_package(str(tmp_path / "mirror"), "other", SIZE)
    wanted = [one.wanted(unsigned("m", server.url)) for one in (package, other)]
    fetch(wanted, tmp_path / "store", limits=replace(LIMITS, blob_connections=2))
    assert asked(server, package) + asked(server, other) == [None, None]


def test_many_failures_between_answers_end_nothing(
    server: FaultServer, package: Package, tmp_path: Path
) -> None:
    script = [
        Fault(),
        Fault(),
        Fault(),
        Fault(),
        Fault(),
        Fault(status=503),
    ] * 8  # more than tries of a payload
    server.script("/" + package.blob, *script)
    fetch(
        [package.wanted(unsigned("m", server.url))],
        tmp_path / "store",
        limits=replace(LIMITS, range_bytes=20_000),
    )
    assert final_files(tmp_path / "store")[package.sha256] == package.payload
    assert len([one for one in server.requests if one.path == "/" + package.blob]) <= 70


def mappings() -> int:
    """Return how many pieces of shared memory without a name this process has: what `mmap` gives."""
    return Path("/proc/self/maps").read_text().count("/dev/zero (deleted)")


@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="Linux alone tells")
def test_the_memory_of_ranges_goes_with_them(tmp_path: Path) -> None:
    package = write_package(str(tmp_path / "mirror"), "large", 8 << 20)
    limits, before = replace(LIMITS, range_bytes=1 << 20), mappings()
    with FaultServer(str(tmp_path / "mirror")) as bad:
        bad.script("/" + package.blob, Fault(), Fault(), Fault(status=403, times=0))
        gc.disable()  # as in the commands
        try:
            with pytest.raises(CachefetchError) as caught:
                fetch([package.wanted(unsigned("bad", bad.url))], tmp_path / "store", limits=limits)
            assert mappings() == before, caught.value  # which is kept, as the engine keeps its failures
        finally:
            gc.enable()


def test_wrong_bytes_are_refused(server: FaultServer, package: Package, tmp_path: Path) -> None:
    server.script("/" + package.blob, Fault(corrupt_at=555_555, times=0))
    with pytest.raises(DigestError):
        fetch([package.wanted(unsigned("m", server.url))], tmp_path / "store", limits=LIMITS)
    assert package.sha256 not in final_files(tmp_path / "store")
    assert leftovers(tmp_path / "store") == []


def test_continues_where_it_was_hashed(server: FaultServer, package: Package, tmp_path: Path) -> None:
    store = tmp_path / "store"
    server.script("/" + package.blob, Fault(), Fault(), Fault(), *[Fault(reset_after=10)] * 7)
    with pytest.raises(NetworkError):
        fetch([package.wanted(unsigned("m", server.url))], store, limits=replace(LIMITS, attempts=1))
    have = os.path.getsize(store / "partial" / f"{package.sha256}.part")
    assert have >= RANGE
    before = len(server.requests)
    fetch([package.wanted(unsigned("m", server.url))], store, limits=LIMITS)
    offsets = [int((r.headers["range"]).split("=")[1].split("-")[0]) for r in server.requests[before:]]
    assert min(offsets) == have
    assert final_files(store)[package.sha256] == package.payload


def test_a_cut_range_goes_on_where_it_was_cut(server: FaultServer, package: Package, tmp_path: Path) -> None:
    server.script("/" + package.blob, Fault(cut_after=60_000, times=0))
    fetch([package.wanted(unsigned("m", server.url))], tmp_path / "store", limits=IN_LOOP)
    assert final_files(tmp_path / "store")[package.sha256] == package.payload
    ends = {at + RANGE - 1 for at in range(0, SIZE, RANGE)}
    expected = {f"bytes={at}-{at + RANGE - 1}" for at in range(0, SIZE, RANGE)}
    expected |= {f"bytes={end + 1 - RANGE + 60_000}-{end}" for end in ends}
    assert sorted(asked(server, package), key=str) == sorted(expected)


def test_wrong_bytes_from_several_answers_are_asked_for_once_more_in_one(
    server: FaultServer, package: Package, tmp_path: Path
) -> None:
    """One answer had a wrong byte and was cut; no other has, so the mirror is right by now."""
    server.script("/" + package.blob, Fault(corrupt_at=500, cut_after=30_000))
    receipt = fetch([package.wanted(unsigned("m", server.url))], tmp_path / "store", limits=LIMITS)
    assert final_files(tmp_path / "store")[package.sha256] == package.payload
    assert asked(server, package)[-1] is None
    assert receipt.warnings == ()


def test_a_payload_that_is_wrong_in_ranges_and_whole_is_refused(
    server: FaultServer, package: Package, tmp_path: Path
) -> None:
    server.script("/" + package.blob, Fault(corrupt_at=500, times=0))
    with pytest.raises(DigestError):
        fetch([package.wanted(unsigned("m", server.url))], tmp_path / "store", limits=LIMITS)
    assert asked(server, package).count(None) == 1
    assert leftovers(tmp_path / "store") == []


def test_the_first_range_counts_as_it_comes(server: FaultServer, package: Package, tmp_path: Path) -> None:
    store = tmp_path / "store"
    server.script("/" + package.blob, Fault(stall_after=70_000))
    slow = replace(LIMITS, range_bytes=400_000, stall_s=30, flush_s=0.1, chunk_bytes=10_000, deadline_s=1.5)
    with pytest.raises(NetworkError, match="--deadline"):
        fetch([package.wanted(unsigned("m", server.url))], store, limits=slow)
    assert os.path.getsize(store / "partial" / f"{package.sha256}.part") == 70_000
    before = len(server.requests)
    fetch([package.wanted(unsigned("m", server.url))], store, limits=LIMITS)
    offsets = [int((r.headers["range"]).split("=")[1].split("-")[0]) for r in server.requests[before:]]
    assert min(offsets) == 70_000
    assert final_files(store)[package.sha256] == package.payload


def test_what_came_counts_while_it_comes(server: FaultServer, package: Package, tmp_path: Path) -> None:
    server.script("/" + package.blob, Fault(stall_after=70_000, times=0))
    slow = replace(LIMITS, range_bytes=400_000, stall_s=30, flush_s=0.1, chunk_bytes=10_000)
    part = tmp_path / "store" / "partial" / f"{package.sha256}.part"
    killed: list[PartInfo | None] = []

    class Looks(Reporter):
        def on_event(self, event: Event) -> None:
            if isinstance(event, Progress) and event.done >= 70_000:
                killed.append(read_info(part.with_suffix(".json").read_bytes()))  # what a SIGKILL would leave
                raise KeyboardInterrupt

    with pytest.raises(BaseException):  # noqa: B017, PT011 - the interrupt, or a group of it
        fetch([package.wanted(unsigned("m", server.url))], tmp_path / "store", limits=slow, reporter=Looks())
    assert killed
    assert killed[0]
    assert killed[0].have == 70_000


def test_bytes_behind_the_hashed_ones_do_not_count_after_a_kill(
    server: FaultServer, package: Package, tmp_path: Path
) -> None:
    partial = tmp_path / "store" / "partial"
    partial.mkdir(parents=True)
    garbage = package.payload[: 3 * RANGE] + bytes(2 * RANGE)  # holes where ranges were under way
    (partial / f"{package.sha256}.part").write_bytes(garbage)
    info = PartInfo(f"{server.url}/{package.blob}", None, package.sha256, SIZE, 3 * RANGE)
    assert read_info(info.encode()) == info
    (partial / f"{package.sha256}.json").write_bytes(info.encode())
    fetch([package.wanted(unsigned("m", server.url))], tmp_path / "store", limits=LIMITS)
    assert f"bytes={3 * RANGE}-{4 * RANGE - 1}" in asked(server, package)
    assert "bytes=0" not in str(asked(server, package))
    assert final_files(tmp_path / "store")[package.sha256] == package.payload


@pytest.mark.parametrize("have", ["many", -1, True, 2.5])
def test_a_sidecar_with_a_wrong_count_is_not_used(have: object) -> None:
    info = json.loads(PartInfo("u", None, "0" * 64, 10).encode())
    assert read_info(json.dumps({**info, "have": have}).encode()) is None


def test_one_mirror_starts_and_another_goes_on(tmp_path: Path, server: FaultServer, package: Package) -> None:
    server.script("/" + package.blob, Fault(), Fault(), Fault(), Fault(status=404, times=0))
    with FaultServer(str(tmp_path / "mirror")) as second:
        sources = unsigned("first", server.url), unsigned("second", second.url)
        receipt = fetch([package.wanted(*sources)], tmp_path / "store", limits=LIMITS)
        assert receipt.items[0].mirror == "second"
        assert len(asked(second, package)) < SIZE // RANGE
    assert final_files(tmp_path / "store")[package.sha256] == package.payload


def test_an_error_of_the_store_ends_it(server: FaultServer, package: Package, tmp_path: Path) -> None:
    (tmp_path / "store" / "sha256").mkdir(parents=True)
    (tmp_path / "store" / "sha256" / package.sha256[:2]).write_text("a file stands in the way")
    with pytest.raises(CachefetchError) as caught:
        fetch([package.wanted(unsigned("m", server.url))], tmp_path / "store", limits=LIMITS)
    assert caught.value.exit_code == 10


def test_one_large_payload_comes_in_ranges_without_an_event_loop(
    server: FaultServer, package: Package, tmp_path: Path
) -> None:
    transports = Transports(LIMITS)
    wanted = [package.wanted(unsigned("m", server.url))]
    run = new_run(wanted, store=Store(str(tmp_path / "store")), transports=transports, limits=LIMITS)
    assert run.begin() is not None
    at_once(transports.aclose())
    assert final_files(tmp_path / "store")[package.sha256] == package.payload
    assert set(asked(server, package)) == {f"bytes={at}-{at + RANGE - 1}" for at in range(0, SIZE, RANGE)}
    assert leftovers(tmp_path / "store") == []


@pytest.mark.parametrize("where", [0, 1, 4])
def test_ranges_that_end_before_the_loop_lose_nothing_that_came_in_order(
    where: int, server: FaultServer, package: Package, tmp_path: Path
) -> None:
    server.script("/" + package.blob, *[Fault()] * where, Fault(status=503))
    recorder = Recorder()
    fetch([package.wanted(unsigned("m", server.url))], tmp_path / "store", limits=LIMITS, reporter=recorder)
    assert final_files(tmp_path / "store")[package.sha256] == package.payload
    assert len(asked(server, package)) <= SIZE // RANGE + 1 + LIMITS.split_connections
    assert [event.attempt for event in recorder.of(Retrying)] == [1], "it counts as the first try"
