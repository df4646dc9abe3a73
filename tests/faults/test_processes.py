"""Processes that are killed, that crowd one store, and that meet a full disk."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
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


def test_when_the_one_ahead_is_killed_those_that_wait_go_on_where_it_was(tmp_path: Path) -> None:
    root, store = str(tmp_path / "mirror"), tmp_path / "store"
    packages = [write_package(root, f"p{i}", 1_500_000 + i) for i in range(4)]
    with FaultServer(root, rate=500_000) as server:
        first = start(store, server.url, packages)
        while server.sent < 1_000_000 and first.poll() is None:
            time.sleep(0.002)
        others = [start(store, server.url, packages) for _ in range(3)]
        for other in others:
            assert other.stderr is not None
            assert "waits" in other.stderr.readline()
        before = len(server.requests)
        assert before == 3 * len(packages), "others have asked for something"
        first.kill()
        first.communicate()
        killed = time.monotonic()
        documents = [finish(other) for other in others]
        assert time.monotonic() - killed < 60
        again = server.requests[before:]
    assert len(again) == len(packages)
    assert all("range" in request.headers for request in again)
    origins = [item["from"] for document in documents for item in document["items"]]  # type: ignore[attr-defined]
    assert origins.count("network") == len(packages)
    assert {package.sha256 for package in packages} <= right(store)
    assert leftovers(store) == []


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


SIZE = 64 << 20


@dataclass
class Disk:
    """A file system of 64 MiB at `point`; where none could be mounted, `why`, and only files can be limited."""

    point: Path
    why: str = ""

    def fill(self, leave: int = 0) -> None:
        """Let somebody else's file take what is free, but for so many bytes."""
        with open(self.point / "other", "ab", buffering=0) as other, suppress(OSError):
            while True:
                other.write(bytes(1 << 16))
        if leave:
            os.truncate(self.point / "other", max(0, (self.point / "other").stat().st_size - leave))

    def free(self) -> None:
        """Take that file away."""
        (self.point / "other").unlink()


@pytest.fixture
def any_disk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Disk]:
    point = tmp_path / "small"
    point.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(point)]
    done = subprocess.run(mount, capture_output=True, text=True)
    if done.returncode:
        why = f"no tmpfs of 64 MiB can be mounted ({done.stderr.strip()}): RLIMIT_FSIZE takes its place"
        with capsys.disabled():
            print(f"\n{why}")
        yield Disk(point, why)
        return
    yield Disk(point)
    subprocess.run(["umount", str(point)], check=True)


@pytest.fixture
def small_disk(any_disk: Disk) -> Disk:
    if any_disk.why:
        pytest.skip(any_disk.why)
    return any_disk


def test_too_little_space_is_refused_before_the_first_byte(small_disk: Disk, tmp_path: Path) -> None:
    root = str(tmp_path / "mirror")
    package = write_package(root, "big", SIZE + 1_000_000)
    with FaultServer(root) as server:
        with pytest.raises(StoreError) as caught:
            fetch([package.wanted(unsigned("m", server.url))], small_disk.point / "store")
        assert server.count(package.blob) == 0
    error = caught.value
    assert error.exit_code == 10
    assert error.context["needed_bytes"] == SIZE + 1_000_000
    assert 0 < error.context["free_bytes"] < SIZE
    assert str(small_disk.point) in error.message
    # The same where the copies go that `to` asks for.
    with pytest.raises(StoreError) as caught:
        fetch([package.wanted(unsigned("m", root))], tmp_path / "store", to=str(small_disk.point / "out"))
    assert str(small_disk.point) in caught.value.message
    assert package.sha256 not in final_files(tmp_path / "store")


def right(store: Path) -> set[str]:
    """Return the digests of the visible files, which must be those of their bytes."""
    found = final_files(store)
    assert all(hashlib.sha256(data).hexdigest() == digest for digest, data in found.items())
    return set(found)


def test_a_disk_that_fills_up_at_any_point(any_disk: Disk, tmp_path: Path) -> None:
    """Large payloads in ranges, others in streams, small ones the quick way: each is cut off somewhere."""
    root, chance = str(tmp_path / "mirror"), random.Random(5)
    packages = [write_package(root, f"big{i}", 9_000_000 + i) for i in range(3)]
    packages += [write_package(root, f"small{i}", 60_000 + i) for i in range(150)]
    total = sum(len(package.payload) for package in packages)
    store = any_disk.point / "store"
    with FaultServer(root, rate=20_000_000) as server:
        for number in range(6):
            if any_disk.why:
                blocks = int(chance.choice([40_000, 1_000_000, 8_000_000]) / 512)
                process = start(
                    store, server.url, packages, ["sh", "-c", f'ulimit -f {blocks}; exec "$@"', "sh"]
                )
            else:
                process, sent = start(store, server.url, packages), server.sent
                moment = (
                    sent + (number + chance.random()) * total / 8
                )  # so the disk is full before all is sent
                while server.sent < moment and process.poll() is None:
                    time.sleep(0.002)
                any_disk.fill()
            out, err = process.communicate(timeout=120)
            assert process.returncode == 10, (number, out, err)
            assert json.loads(out)["context"]["reason"] == "disk-full", out
            right(store)
            if not any_disk.why:
                any_disk.free()
            if number < 5:  # the last one is continued
                shutil.rmtree(store)
        fetch([package.wanted(unsigned("m", server.url)) for package in packages], store)
    assert {package.sha256 for package in packages} <= right(store)
    assert leftovers(store) == []


@pytest.mark.parametrize("leave", [0, 4 << 10, 16 << 10, 40 << 10, 100 << 10, 200 << 10, 400 << 10, 1 << 20])
def test_a_full_disk_is_a_clear_error_of_every_command(small_disk: Disk, tmp_path: Path, leave: int) -> None:
    """The index, its sidecar, kept answers and notes are written there too; nothing half is believed afterwards."""
    mirror, key = ROOT / "examples/mirror", ROOT / "examples/mirror.pub.asc"
    words = [
        sys.executable,
        "-m",
        "cachefetch",
        "fetch",
        "py-multidict",
        "-m",
        str(mirror),
        "--key",
        str(key),
    ]
    host = ["--platform", "linux", "--os", "debian12", "--target", "x86_64_v3", "--libc", "glibc@2.36"]
    environ = {
        **os.environ,
        "PYTHONPATH": str(ROOT / ".dev"),
        "XDG_CACHE_HOME": str(small_disk.point),
        "XDG_CONFIG_HOME": str(tmp_path),
    }

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run([*words, *host], env=environ, capture_output=True, text=True, timeout=60)

    small_disk.fill(leave)
    done = run()
    assert done.returncode in (0, 10), done.stderr
    assert "Traceback" not in done.stderr
    assert done.returncode == 0 or str(small_disk.point) in done.stderr
    small_disk.free()
    again = run()
    assert again.returncode == 0, again.stderr
    right(small_disk.point / "cachefetch/store")
    assert leftovers(small_disk.point / "cachefetch/store") == []


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
