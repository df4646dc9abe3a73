"""Processes that are killed, that crowd one store, and that meet a full disk."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from tests.faults.mirror import Package, unsigned, write_package
from tests.faults.run import fetch, final_files, leftovers
from tests.faults.server import FaultServer

from cachefetch.errors import StoreError

ROOT = Path(__file__).parent.parent.parent


def start(
    store: Path, url: str, packages: Sequence[Package], prefix: Sequence[str] = (), **environ: str
) -> subprocess.Popen[str]:
    names = [f"{p.name}:{p.version}:{p.hash}" for p in packages]
    return subprocess.Popen(
        [*prefix, sys.executable, "-m", "tests.faults.worker", str(store), url, *names],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT / '.dev'}{os.pathsep}{ROOT}", **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> dict[str, object]:
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, (process.returncode, out, err)
    document = json.loads(out)
    assert isinstance(document, dict)
    return document


def kill_and_resume(tmp_path: Path, kills: int, seed: int) -> int:
    """Fetch, killed after a random number of bytes again and again, then to the end; return the number of resumes.

    All kills together come before the last byte, so that each one hits, however fast the machine is.
    """
    root = str(tmp_path / "mirror")
    packages = [write_package(root, f"p{i}", 1_500_000 + i) for i in range(6)]
    packages += [write_package(root, f"small{i}", 20_000 + i) for i in range(20)]
    store, chance = tmp_path / "store", random.Random(seed)
    with FaultServer(root, rate=600_000) as server:
        for _ in range(kills):
            done = set(final_files(store))
            before, sent = len(server.requests), server.sent
            process = start(store, server.url, packages)
            after = sent + chance.uniform(0, 5_000_000 / kills)
            while (server.sent <= after or len(server.requests) == before) and process.poll() is None:
                time.sleep(0.002)
            process.send_signal(signal.SIGKILL)
            process.communicate()
            assert process.returncode == -signal.SIGKILL, "the run was done before its kill"
            for digest, data in final_files(store).items():
                assert hashlib.sha256(data).hexdigest() == digest
            again = [r.path for r in server.requests[before:] if r.path.rpartition("/")[2] in done]
            assert not again, "a finished blob was fetched again"
        finish(start(store, server.url, packages))
        resumed = sum("range" in request.headers for request in server.requests)
    assert {p.sha256 for p in packages} <= set(final_files(store))
    assert leftovers(store) == []
    return resumed


def test_killed_at_five_moments_then_complete(tmp_path: Path) -> None:
    assert kill_and_resume(tmp_path, 5, seed=1), "no transfer was continued"


@pytest.mark.long
def test_killed_at_fifty_moments_then_complete(tmp_path: Path) -> None:
    assert sum(kill_and_resume(tmp_path / str(i), 5, seed=100 + i) for i in range(10)) >= 10


def crowd(tmp_path: Path, processes: int, **environ: str) -> None:
    """Let processes fetch the same packages into one cold store: each file is asked for once."""
    root, store = str(tmp_path / "mirror"), tmp_path / "store"
    packages = [write_package(root, f"p{i}", 1_000 if i % 2 else 400_000 + i) for i in range(12)]
    layered = packages[:4] if "SITE" in environ else []
    if layered:
        fetch([package.wanted(unsigned("m", root)) for package in layered], environ["SITE"])
        before = sorted(Path(environ["SITE"]).rglob("*"))
    with FaultServer(root, rate=4_000_000) as server:
        running = [start(store, server.url, packages, **environ) for _ in range(processes)]
        documents = [finish(process) for process in running]
        for package in packages:
            for path in (package.blob, package.spec_blob, package.manifest):
                assert server.count(path) == (package not in layered), path
    origins = [item["from"] for document in documents for item in document["items"]]  # type: ignore[attr-defined]
    assert origins.count("network") == len(packages) - len(layered)
    assert origins.count("site") == processes * len(layered)
    assert leftovers(store) == []
    if layered:
        assert sorted(Path(environ["SITE"]).rglob("*")) == before


MODES = ["locks", "no locks", "site layer"]


def of_mode(mode: str, tmp_path: Path) -> dict[str, str]:
    return {"locks": {}, "no locks": {"NO_LOCKS": "1"}, "site layer": {"SITE": str(tmp_path / "site")}}[mode]


@pytest.mark.parametrize("mode", MODES)
def test_12_processes_fetch_each_blob_once(tmp_path: Path, mode: str) -> None:
    crowd(tmp_path, 12, **of_mode(mode, tmp_path))


@pytest.mark.long
@pytest.mark.parametrize("mode", MODES)
def test_64_processes_fetch_each_blob_once(tmp_path: Path, mode: str) -> None:
    crowd(tmp_path, 64, **of_mode(mode, tmp_path))


# --- full disk -------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB; skipped where mounting is not allowed."""
    point = tmp_path / "small"
    point.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(point)], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"cannot mount a small tmpfs: {done.stderr.strip()}")
    yield point
    subprocess.run(["umount", str(point)], check=True)


def test_too_little_space_is_refused_before_the_first_byte(small_disk: Path, tmp_path: Path) -> None:
    root = str(tmp_path / "mirror")
    package = write_package(root, "big", 5_000_000)
    with FaultServer(root) as server:
        with pytest.raises(StoreError) as caught:
            fetch([package.wanted(unsigned("m", server.url))], small_disk / "store")
        assert server.count(package.blob) == 0
    error = caught.value
    assert error.exit_code == 10
    assert error.context["needed_bytes"] == 5_000_000
    assert 0 < error.context["free_bytes"] < 4 << 20
    assert str(small_disk) in error.message


def test_disk_that_fills_up_on_the_way(small_disk: Path, tmp_path: Path) -> None:
    root = str(tmp_path / "mirror")
    package = write_package(root, "big", 3_000_000)
    store = small_disk / "store"
    wanted = [package.wanted(unsigned("m", ""))]
    with FaultServer(root, rate=3_000_000) as server:
        wanted = [package.wanted(unsigned("m", server.url))]
        process = start(store, server.url, [package])
        while not server.count(package.blob):
            time.sleep(0.01)
        (small_disk / "other").write_bytes(bytes(2_500_000))  # someone else's file
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 10, out
        error = json.loads(out)
        assert error["context"]["reason"] == "disk-full"
        assert str(small_disk) in error["message"]
        assert package.sha256 not in final_files(store)
        (small_disk / "other").unlink()
        fetch(wanted, store)
    assert final_files(store)[package.sha256] == package.payload
    assert leftovers(store) == []


def test_disk_that_fills_up_among_small_payloads(small_disk: Path, tmp_path: Path) -> None:
    root, store = str(tmp_path / "mirror"), small_disk / "store"
    packages = [write_package(root, f"p{i}", 50_000 + i) for i in range(50)]
    with FaultServer(root, rate=300_000) as server:
        process = start(store, server.url, packages)
        while not server.count(packages[0].blob) and process.poll() is None:
            time.sleep(0.005)
        (small_disk / "other").write_bytes(bytes(2_500_000))
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 10, out
        assert json.loads(out)["context"]["reason"] == "disk-full"
        for digest, data in final_files(store).items():
            assert hashlib.sha256(data).hexdigest() == digest
        (small_disk / "other").unlink()
        fetch([package.wanted(unsigned("m", server.url)) for package in packages], store)
    assert {package.sha256 for package in packages} <= set(final_files(store))
    assert leftovers(store) == []


def test_too_little_space_where_the_copies_go(small_disk: Path, tmp_path: Path) -> None:
    root = str(tmp_path / "mirror")
    package = write_package(root, "big", 5_000_000)
    with pytest.raises(StoreError) as caught:
        fetch([package.wanted(unsigned("m", root))], tmp_path / "store", to=str(small_disk / "out"))
    assert str(small_disk) in caught.value.message
    assert package.sha256 not in final_files(tmp_path / "store")


def test_a_limit_on_file_size_is_a_clear_error(tmp_path: Path) -> None:
    root = str(tmp_path / "mirror")
    package = write_package(root, "big", 3_000_000)

    limited = ["sh", "-c", 'ulimit -f 2000; exec "$@"', "sh"]  # 1 or 2 MB, by the shell's unit
    process = start(tmp_path / "store", root, [package], limited)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 10, (out, err)
    assert json.loads(out)["context"]["reason"] == "disk-full"
    assert final_files(tmp_path / "store").keys() == {package.spec_blob.rpartition("/")[2]}


def test_a_store_that_cannot_be_written(tmp_path: Path) -> None:
    root = str(tmp_path / "mirror")
    package = write_package(root, "demo", 1000)
    (tmp_path / "store").write_text("a file stands where the directory should be")
    with pytest.raises(StoreError) as caught:
        fetch([package.wanted(unsigned("m", root))], tmp_path / "store")
    assert caught.value.exit_code == 10
