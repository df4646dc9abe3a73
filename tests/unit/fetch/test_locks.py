"""Locks of a store: between objects, threads and processes; gone with the process that held them."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cachefetch.errors import StoreError
from cachefetch.fetch.store import locks
from cachefetch.fetch.store.cas import Store

HOLD = """
import sys
from cachefetch.fetch.store.cas import Store
lock = Store(sys.argv[1]).try_lock("key")
print(lock is not None, flush=True)
sys.stdin.read()
"""


@pytest.fixture(params=["bytes", "flock"])
def root(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "flock":
        monkeypatch.setattr(locks, "_SET", None)
    return str(tmp_path / "store")


def test_one_holder_in_one_object_and_in_two(root: str) -> None:
    one, other = Store(root), Store(root)
    lock = one.try_lock("key")
    assert lock
    assert one.try_lock("key") is None
    assert other.try_lock("key") is None
    second = one.try_lock("another")
    assert second
    lock.release()
    lock.release()
    assert other.try_lock("another") is None, "releasing one lock keeps the others"
    third = other.try_lock("key")
    assert third
    third.release()
    second.release()


def test_many_share_and_one_is_alone(root: str) -> None:
    one, other = Store(root), Store(root)
    using = [one.try_use(), one.try_use(), other.try_use()]
    assert None not in using
    for lock in using:
        with pytest.raises(StoreError, match="another process uses the store"):
            other.alone()
        assert lock
        lock.release()
    with other.alone():
        assert one.try_use() is None
        assert other.try_use() is None
    again = one.try_use()
    assert again
    again.release()


def test_threads_exclude_each_other(root: str) -> None:
    store, inside, most = Store(root), [0], [0]

    def work() -> None:
        for _ in range(50):
            lock = store.try_lock("key")
            if lock:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                inside[0] -= 1
                lock.release()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    root = str(tmp_path / "store")
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, root],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"PYTHONPATH": str(Path(__file__).parents[3] / ".dev")},
        text=True,
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "True\n"
        assert Store(root).try_lock("key") is None
        process.kill()
    lock = Store(root).try_lock("key")
    assert lock
    lock.release()
    assert not (tmp_path / "store" / "partial").exists(), "a lock leaves no file of its own"
