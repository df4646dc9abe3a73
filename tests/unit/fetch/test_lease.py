"""Leases: the locks of a store whose file system has no flock."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cachefetch.fetch.store import locks
from cachefetch.fetch.store.cas import Store
from cachefetch.fetch.store.lease import STALE_S, Lease, try_lease


def test_only_one_holds_it_until_it_is_released(tmp_path: Path) -> None:
    path = str(tmp_path / "x.lease")
    first = try_lease(path)
    assert first
    assert try_lease(path) is None
    first.release()
    first.release()
    second = try_lease(path)
    assert second
    second.release()
    assert list(tmp_path.iterdir()) == []


def write(path: Path, **holder: object) -> None:
    path.write_text(json.dumps(holder))


def dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait()
    return process.pid


def test_a_lease_of_a_dead_process_of_this_machine_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "x.lease"
    write(path, host=os.uname().nodename, pid=dead_process())
    lease = try_lease(str(path))
    assert lease
    lease.release()


def test_a_lease_of_another_machine_holds_until_it_is_not_renewed(tmp_path: Path) -> None:
    path = tmp_path / "x.lease"
    write(path, host="another", pid=1)
    assert try_lease(str(path)) is None
    old = time.time() - STALE_S - 1
    os.utime(path, (old, old))
    lease = try_lease(str(path))
    assert lease
    lease.release()


def test_a_stale_lease_has_one_taker(tmp_path: Path) -> None:
    path = tmp_path / "x.lease"
    for _ in range(20):
        write(path, host="another", pid=1)
        os.utime(path, (1, 1))
        found: list[Lease] = []
        start = threading.Barrier(8)

        def take(start: threading.Barrier = start, found: list[Lease] = found) -> None:
            start.wait()
            lease = try_lease(str(path))
            if lease:
                found.append(lease)

        threads = [threading.Thread(target=take) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 1
        found[0].release()


@pytest.mark.parametrize("kind", ["bytes", "flock"])
def test_a_store_without_locks_uses_leases(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    monkeypatch.setattr(fcntl, "fcntl", no_locks)
    if kind == "flock":
        monkeypatch.setattr(locks, "_SET", None)
    one, other = Store(str(tmp_path)), Store(str(tmp_path))
    lock = one.try_lock("key")
    assert isinstance(lock, Lease)
    assert other.try_lock("key") is None
    lock.release()
    again = other.try_lock("key")
    assert again
    again.release()
    assert list((tmp_path / "partial").iterdir()) == []
