"""Directories that killed extractions left are removed by the next one, those of living processes never."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cachefetch.fetch.store.lease import STALE_S
from cachefetch.fetch.unpack.staging import PREFIX, staging_directory


def left_behind(parent: Path, *, host: str = "", pid: int = 0, age: float = 0, lease: bool = True) -> Path:
    """Make what a process leaves that is killed: by default one of this machine that is gone."""
    path = parent / f"{PREFIX}dead"
    (path / "tree" / "prefix").mkdir(parents=True)
    (path / "tree" / "prefix" / "file").write_bytes(b"x")
    (path / "tree" / "prefix").chmod(0o500)
    (path / "lock").touch()
    if not pid:
        with subprocess.Popen([sys.executable, "-c", ""]) as gone:
            pid = gone.pid
    if lease:
        (path / "lease").write_text(json.dumps({"host": host or os.uname().nodename, "pid": pid}))
        os.utime(path / "lease", (time.time() - age,) * 2)
    os.utime(path, (time.time() - age,) * 2)
    return path


def sweep(parent: Path) -> None:
    with staging_directory(str(parent)) as staging:
        assert os.listdir(staging) == []


def test_of_a_dead_process_it_goes(tmp_path: Path) -> None:
    left = left_behind(tmp_path)
    sweep(tmp_path)
    assert not left.exists()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("age", "stays"), [(0, True), (STALE_S + 5, False)])
def test_of_another_machine_it_goes_when_the_lease_is_not_renewed(
    tmp_path: Path, age: float, *, stays: bool
) -> None:
    left = left_behind(tmp_path, host="elsewhere.invalid", age=age)
    sweep(tmp_path)
    assert left.exists() == stays


@pytest.mark.parametrize(("age", "stays"), [(3600, True), (90_000, False)])
def test_without_a_lease_it_may_be_new(tmp_path: Path, age: float, *, stays: bool) -> None:
    left = left_behind(tmp_path, lease=False, age=age)
    sweep(tmp_path)
    assert left.exists() == stays


def test_a_lock_that_is_held_counts_more_than_an_old_lease(tmp_path: Path) -> None:
    """A process that was stopped for a while does not renew."""
    left = left_behind(tmp_path, pid=os.getpid(), age=10 * STALE_S)
    with (left / "lock").open("wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        sweep(tmp_path)
        assert left.exists()
    sweep(tmp_path)
    assert not left.exists()


def test_living_ones_do_not_see_each_other(tmp_path: Path) -> None:
    with staging_directory(str(tmp_path)) as one:
        Path(one, "file").write_bytes(b"x")
        with staging_directory(str(tmp_path)) as other:
            assert one != other
        assert Path(one, "file").exists()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("age", "stays"), [(0, True), (STALE_S + 5, False)])
def test_without_locks_the_lease_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, age: float, *, stays: bool
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    left = left_behind(tmp_path, pid=os.getpid(), age=age)
    sweep(tmp_path)
    assert left.exists() == stays


def test_what_is_no_such_directory_stays(tmp_path: Path) -> None:
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "kept").touch()
    (tmp_path / f"{PREFIX}link").symlink_to("else")
    (tmp_path / f"{PREFIX}file").touch()
    for path in (tmp_path / f"{PREFIX}file", tmp_path / "else"):
        os.utime(path, (1, 1))
    sweep(tmp_path)
    assert (tmp_path / "else" / "kept").exists()
    assert (tmp_path / f"{PREFIX}link").is_symlink()
    assert (tmp_path / f"{PREFIX}file").exists()
