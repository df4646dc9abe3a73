"""The second process of a fetch of many small packages: what it brings, and what becomes of it."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.faults.mirror import Package, unsigned, write_package
from tests.faults.run import QUICK, Recorder, fetch, final_files, leftovers
from tests.faults.server import Fault, FaultServer
from tests.faults.test_processes import finish, start

from cachefetch.fetch import helper
from cachefetch.fetch.events import Started, Stored, Verified
from cachefetch.values import changed


@pytest.fixture
def packages(tmp_path: Path) -> list[Package]:
    return [write_package(str(tmp_path / "mirror"), f"p{i}", 20_000 + i) for i in range(24)]


def with_helper(
    tmp_path: Path, url: str, packages: Sequence[Package], **environ: str
) -> subprocess.Popen[str]:
    return start(tmp_path / "store", url, packages, HELPER_FROM="8", **environ)


def helper_of(process: subprocess.Popen[str]) -> int:
    """Wait for the helper and return its number."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    for _ in range(3000):
        if found := children.read_text().split():
            return int(found[0])
        time.sleep(0.002)
    raise AssertionError("no helper was started")


def wait_until_gone(number: int) -> None:
    for _ in range(500):
        try:
            state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return
        if state == "Z":
            return
        time.sleep(0.01)
    raise AssertionError("the helper outlives its caller")


def require_all(store: Path, packages: Sequence[Package]) -> None:
    found = final_files(store)
    assert {p.sha256 for p in packages} <= set(found)
    assert all(hashlib.sha256(data).hexdigest() == digest for digest, data in found.items())
    assert leftovers(store) == []


def test_two_processes_bring_each_file_once_and_tell_all_of_it(
    tmp_path: Path, packages: list[Package]
) -> None:
    with FaultServer(str(tmp_path / "mirror")) as server:
        process = with_helper(tmp_path, server.url, packages, EVENTS="1")
        out, err = process.communicate(timeout=100)
        assert process.returncode == 0, err
        asked = Counter(request.path.lstrip("/") for request in server.requests)
        assert server.most_at_once <= 16
    lines = Counter(err.split("\n"))
    assert lines["helper"] == 2, "one for the proofs, one for the payloads"
    assert set(asked.values()) == {1}
    assert set(asked) == {path for p in packages for path in (p.manifest, p.spec_blob, p.blob)}
    for kind in (Verified, Started, Stored):
        assert all(lines[f"{kind.__name__} {n}"] == 1 for n in range(1, len(packages) + 1)), kind
    require_all(tmp_path / "store", packages)
    process = with_helper(tmp_path, server.url, packages, EVENTS="1")  # nobody serves any more
    again, err = process.communicate(timeout=100)
    assert process.returncode == 0, err
    assert "helper" not in err
    assert out.count('"from": "network"') == again.count('"from": "store"') == len(packages)


def test_receipt_is_that_of_one_process(tmp_path: Path, packages: list[Package]) -> None:
    with FaultServer(str(tmp_path / "mirror")) as server:
        two = finish(with_helper(tmp_path, server.url, packages))
        one = finish(start(tmp_path / "other", server.url, packages))
    paths = [item.pop("path") for document in (one, two) for item in document["items"]]  # type: ignore[attr-defined]
    assert len(paths) == 2 * len(packages)
    assert two == one


def test_killed_helper_costs_time_only(tmp_path: Path, packages: list[Package]) -> None:
    with FaultServer(str(tmp_path / "mirror"), rate=20_000) as server:
        process = with_helper(tmp_path, server.url, packages)
        os.kill(helper_of(process), signal.SIGKILL)
        document = finish(process)
    assert document["status"] == "ok"
    require_all(tmp_path / "store", packages)


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGINT])
def test_helper_ends_with_its_caller(tmp_path: Path, packages: list[Package], by: signal.Signals) -> None:
    with FaultServer(str(tmp_path / "mirror"), rate=5_000) as server:
        process = with_helper(tmp_path, server.url, packages)
        other = helper_of(process)
        process.send_signal(by)
        process.communicate(timeout=60)
        assert process.returncode != 0
        wait_until_gone(other)
        server.rate = 0
        finish(with_helper(tmp_path, server.url, packages))
    require_all(tmp_path / "store", packages)


def test_trouble_in_both_halves_is_met_by_the_caller(tmp_path: Path, packages: list[Package]) -> None:
    with FaultServer(str(tmp_path / "mirror")) as server:
        for package in packages[4:8]:
            server.script(f"/{package.manifest}", Fault(status=503))
            server.script(f"/{package.blob}", Fault(reset_after=1000))
        document = finish(with_helper(tmp_path, server.url, packages))
        asked = len(server.requests)
    assert asked <= 3 * len(packages) + 12, "what the helper met is the first of the tries"
    assert document["warnings"] == []
    require_all(tmp_path / "store", packages)


@pytest.mark.parametrize("number", [8, 9])
def test_wrong_bytes_are_named_whoever_got_them(tmp_path: Path, packages: list[Package], number: int) -> None:
    with FaultServer(str(tmp_path / "mirror")) as server:
        server.script(f"/{packages[number].blob}", Fault(corrupt_at=7))
        process = with_helper(tmp_path, server.url, packages)
        out, _ = process.communicate(timeout=100)
    assert process.returncode == 6, out
    assert packages[number].hash in out
    require_all(tmp_path / "store", [p for p in packages if p is not packages[number]])


def test_nobody_is_copied_who_has_other_threads(
    tmp_path: Path, packages: list[Package], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fork", lambda: pytest.fail("copied"))
    reporter = Recorder()
    source = unsigned("m", str(tmp_path / "mirror"))
    ends = threading.Event()
    thread = threading.Thread(target=ends.wait)
    thread.start()
    try:
        fetch(
            [p.wanted(source) for p in packages],
            tmp_path / "store",
            limits=changed(QUICK, helper_packages=8),
            reporter=reporter,
        )
    finally:
        ends.set()
        thread.join()
    assert len(reporter.of(Stored)) == len(packages)


@pytest.mark.parametrize(("ends_after", "alone"), [(20, True), (10**6, False)])
def test_a_joined_thread_that_the_system_still_counts_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, ends_after: int, alone: bool
) -> None:
    looks = iter(range(10**6))
    monkeypatch.setattr(helper, "_threads", lambda: 2 if next(looks) < ends_after else 1)
    monkeypatch.setattr(threading, "active_count", lambda: 1)
    monkeypatch.setattr(helper, "_ENDING_S", 30 if alone else 0.05)
    assert helper._alone() is alone
