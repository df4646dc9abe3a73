"""SIGTERM ends a command as Ctrl-C does: cleaned up, what came is kept, exit 143.

What SIGKILL left goes with the next run.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.faults.mirror import write_package
from tests.faults.server import FaultServer
from tests.functional.conftest import KEY, MIRROR, ROOT
from tests.tools import archive
from tests.tools.mirrors import make_node, write_index
from tests.tools.mirrors import write_package as write_tarball

from cachefetch.fetch.unpack.staging import PREFIX, staging_directory


def start(tmp_path: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "cachefetch", *words],
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT / ".dev"),
            "XDG_CACHE_HOME": str(tmp_path / "cache"),
            "XDG_CONFIG_HOME": str(tmp_path / "config"),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def signalled(
    process: subprocess.Popen[str], when: Callable[[], object], number: int = signal.SIGTERM
) -> tuple[int, str]:
    """Send a signal as soon as `when` is true; return the exit code and what stands on stderr."""
    with process:
        end = time.monotonic() + 60
        while process.poll() is None and not when() and time.monotonic() < end:
            time.sleep(0.001)
        process.send_signal(number)
        _, told = process.communicate(timeout=60)
    return process.returncode, told


@pytest.fixture(params=["helper", "gzip"])
def large(tmp_path: Path, request: pytest.FixtureRequest) -> list[str]:
    """A package that takes a while to unpack, with or without the helper; return the command but for DIR."""
    node = make_node("demo")
    block = os.urandom(14_000)  # many files, so that the signal comes long before the last one
    members = archive.package(*(archive.entry(f"./f{number:05}", block) for number in range(6000)))
    write_tarball(tmp_path / "m", node, members if request.param == "helper" else archive.stored(members))
    write_index(tmp_path / "m", node)
    return ["extract", f"/{node['hash']}", "-m", str(tmp_path / "m"), "--unsigned"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_extract_leaves_nothing(tmp_path: Path, large: list[str], number: signal.Signals) -> None:
    out = tmp_path / "out"
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    try:
        process = start(tmp_path, *large, str(out / "demo"))
    finally:
        signal.signal(signal.SIGINT, before)
    code, told = signalled(process, lambda: list(out.glob(f"{PREFIX}*/tree/*")), number)
    assert (code, told.splitlines()[-1]) == (
        (143, "terminated") if number == signal.SIGTERM else (130, "interrupted")
    )
    assert os.listdir(out) == []


def require_deaf_threads(process: subprocess.Popen[str], begun: Callable[[], object]) -> None:
    """Require that only the main thread gets signals: if another one took it, nobody would wake the main thread."""
    both = 1 << signal.SIGINT - 1 | 1 << signal.SIGTERM - 1
    blocked: dict[int, int] = {}

    def seen() -> bool:
        if begun():
            for task in Path(f"/proc/{process.pid}/task").iterdir():
                text = (task / "status").read_text()
                blocked[int(task.name)] = both & int(text.split("SigBlk:")[1].split()[0], 16)
        return bool(blocked)

    signalled(process, seen)
    assert blocked.pop(process.pid) == 0
    assert set(blocked.values()) == {both}


def test_threads_of_extract_get_no_signal(tmp_path: Path, large: list[str]) -> None:
    process = start(tmp_path, *large, str(tmp_path / "demo"))
    require_deaf_threads(process, lambda: list(tmp_path.glob(f"{PREFIX}*/tree/*")))


@pytest.mark.parametrize("size", [1 << 20, 70 << 20])
def test_threads_of_fetch_get_no_signal(tmp_path: Path, size: int) -> None:
    package = write_package(str(tmp_path / "m"), "big", size)
    words = ["fetch", f"big@=1.0/{package.hash}", "--no-deps", "--unsigned", "-m"]
    with FaultServer(str(tmp_path / "m"), rate=500_000) as server:
        require_deaf_threads(start(tmp_path, *words, server.url), lambda: server.sent > 100_000)


def test_threads_of_sync_get_no_signal(tmp_path: Path) -> None:
    words = ["sync", "--all", "--key", KEY, "--to", str(tmp_path / "dest"), "--from"]
    with FaultServer(MIRROR, rate=30_000) as server:
        require_deaf_threads(start(tmp_path, *words, server.url), lambda: server.sent > 60_000)


def test_what_a_kill_left_goes_with_the_next_extract(tmp_path: Path, large: list[str]) -> None:
    out = tmp_path / "out"
    process = start(tmp_path, *large, str(out / "demo"))
    code, _ = signalled(process, lambda: list(out.glob(f"{PREFIX}*/tree/*")), signal.SIGKILL)
    assert code == -signal.SIGKILL
    assert len(list(out.glob(f"{PREFIX}*"))) == 1
    with staging_directory(str(out)) as living, start(tmp_path, *large, str(out / "demo")) as process:
        assert process.wait(timeout=60) == 0
        assert sorted(os.listdir(out)) == [os.path.basename(os.path.dirname(living)), "demo"]
    assert os.listdir(out) == ["demo"]


def test_fetch_keeps_what_came(tmp_path: Path) -> None:
    package = write_package(str(tmp_path / "m"), "big", 70 << 20)
    words = ["fetch", f"big@=1.0/{package.hash}", "--no-deps", "--unsigned", "--json", "-m"]
    with FaultServer(str(tmp_path / "m"), rate=4_000_000) as server:
        code, told = signalled(start(tmp_path, *words, server.url), lambda: server.sent > 20_000_000)
        assert (code, told.splitlines()[-1]) == (143, "terminated")
        (part,) = (tmp_path / "cache").rglob("*.part")
        came = part.stat()
        assert 0 < came.st_size < 60 << 20
        assert came.st_blocks * 512 <= came.st_size + (1 << 20), (
            "the place of what did not come is free again"
        )
        server.rate, before = 0, len(server.requests)
        with start(tmp_path, *words, server.url) as process:
            done = json.loads(process.communicate(timeout=60)[0])
        assert done["items"][0]["sha256"] == package.sha256
        asked = [
            r.headers.get("range", "bytes=0-") for r in server.requests[before:] if package.blob in r.path
        ]
        assert min(int(text.split("=")[1].split("-")[0]) for text in asked) == came.st_size


def test_sync_goes_on_with_the_rest(tmp_path: Path) -> None:
    words = ["sync", "--all", "--key", KEY, "--to", str(tmp_path / "dest"), "--json", "--from"]
    with FaultServer(MIRROR, rate=30_000) as server:
        here = (tmp_path / "dest" / "blobs").rglob
        code, told = signalled(
            start(tmp_path, *words, server.url), lambda: sum(path.is_file() for path in here("*")) > 5
        )
        assert (code, told.splitlines()[-1]) == (143, "terminated")
        server.rate = 0
        before = len(server.requests)
        with start(tmp_path, *words, server.url) as process:
            assert process.wait(timeout=60) == 0
        again = sum("/blobs/" in request.path for request in server.requests[before:])
        assert 0 < again < sum(path.is_file() for path in Path(MIRROR, "blobs").rglob("*")) - 5
    with start(tmp_path, "verify", str(tmp_path / "dest"), "--key", KEY) as process:
        assert process.wait(timeout=60) == 0


def test_a_second_sigterm_does_not_stop_the_cleaning_up(tmp_path: Path, large: list[str]) -> None:
    out = tmp_path / "out"
    with start(tmp_path, *large, str(out / "demo")) as process:
        while process.poll() is None and not list(out.glob(f"{PREFIX}*/tree/*")):
            pass
        for _ in range(20):
            process.send_signal(signal.SIGTERM)
            time.sleep(0.002)
        process.communicate(timeout=60)
    assert process.returncode == 143
    assert os.listdir(out) == []


def test_where_sigterm_is_ignored_it_stays_so(tmp_path: Path, large: list[str]) -> None:
    out = tmp_path / "out"
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        process = start(tmp_path, *large, str(out / "demo"))
    finally:
        signal.signal(signal.SIGTERM, before)
    code, _ = signalled(process, lambda: list(out.glob(f"{PREFIX}*/tree/*")))
    assert code == 0
    assert os.listdir(out) == ["demo"]
