"""Many small payloads stored together: whole, synced before they have a name, with their locks held until then."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from tests.faults.run import leftovers

from cachefetch.errors import StoreError
from cachefetch.fetch.store import batch, files
from cachefetch.fetch.store.batch import Batches, Syncer
from cachefetch.fetch.store.cas import Store


@pytest.fixture(params=["unnamed", "renamed"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store, also on a system that cannot give a name to a file without one."""
    if request.param == "renamed":
        monkeypatch.setattr(files, "_ANONYMOUS", 0)
    return Store(str(tmp_path / "store"))


def payloads(number: int) -> dict[str, bytes]:
    made = (b"%d" % one * 1000 for one in range(number))
    return {hashlib.sha256(data).hexdigest(): data for data in made}


def add(batches: Batches, store: Store, sha256: str, data: bytes, done: list[str]) -> None:
    lock = store.try_lock(sha256)
    assert lock is not None
    batches.add(lock, sha256, data, done.append)


def test_all_are_stored_whole_noted_and_unlocked(store: Store) -> None:
    batches, done, made = Batches(store), list[str](), payloads(300)
    for sha256, data in made.items():
        add(batches, store, sha256, data, done)
    batches.finish()
    batches.check()
    assert sorted(done) == sorted(store.path(sha256) for sha256 in made)
    other = Store(store.root)
    other.notes.refresh()
    for sha256, data in made.items():
        path = Path(store.path(sha256))
        assert path.read_bytes() == data
        assert path.stat().st_mode & 0o222 == 0
        state = other.blob_state(sha256)
        assert state is not None
        assert other.noted(sha256, state[1])
        lock = other.try_lock(sha256)
        assert lock is not None
        lock.release()
    assert leftovers(store.root) == []


def test_nothing_has_a_name_before_it_was_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []
    named = [0]

    class Watched(Syncer):
        def __call__(self, descriptors: list[int]) -> None:  # type: ignore[override]  # a list is what it gets
            now = sum(len(names) for _, _, names in os.walk(tmp_path / "store" / "sha256"))
            seen.append((now, named[0]))
            super().__call__(descriptors)
            named[0] += len(descriptors)

    monkeypatch.setattr(batch, "Syncer", Watched)
    store = Store(str(tmp_path / "store"))
    batches, done = Batches(store), list[str]()
    for sha256, data in payloads(200).items():
        add(batches, store, sha256, data, done)
    batches.finish()
    assert seen
    assert all(now <= synced for now, synced in seen)
    assert named[0] == len(done) == 200


def test_few_payloads_do_not_wait_for_more(store: Store) -> None:
    came = threading.Event()
    batches = Batches(store)
    ((sha256, data),) = payloads(1).items()
    lock = store.try_lock(sha256)
    assert lock is not None
    batches.add(lock, sha256, data, lambda _: came.set())
    assert came.wait(20)
    batches.finish()


def test_a_disk_that_cannot_be_synced_gives_no_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(Syncer):
        def __call__(self, _: object) -> None:
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(batch, "Syncer", Broken)
    store = Store(str(tmp_path / "store"))
    batches, done, made = Batches(store), list[str](), payloads(10)
    for sha256, data in made.items():
        add(batches, store, sha256, data, done)
    batches.finish()
    with pytest.raises(StoreError, match="Input/output error"):
        batches.check()
    assert done == []
    assert not any(os.path.exists(store.path(sha256)) for sha256 in made)
    for sha256 in made:
        lock = store.try_lock(sha256)
        assert lock is not None
        lock.release()
    (sha256, data), *_ = made.items()
    lock = store.try_lock(sha256)
    assert lock is not None
    with pytest.raises(StoreError):
        batches.add(lock, sha256, data, done.append)
    assert store.try_lock(sha256) is not None


def test_a_damaged_file_under_the_name_is_replaced(store: Store) -> None:
    ((sha256, data),) = payloads(1).items()
    path = Path(store.path(sha256))
    path.parent.mkdir(parents=True)
    path.write_bytes(b"damaged")
    batches, done = Batches(store), list[str]()
    add(batches, store, sha256, data, done)
    batches.finish()
    batches.check()
    assert path.read_bytes() == data
    assert done == [str(path)]


def test_files_are_synced_together_where_the_system_can(tmp_path: Path) -> None:
    sync = Syncer()
    descriptors = [os.open(tmp_path / str(n), os.O_RDWR | os.O_CREAT, 0o600) for n in range(10)]
    sync(descriptors)
    for descriptor in descriptors:
        os.close(descriptor)
    with pytest.raises(OSError, match="Bad file descriptor"):
        sync(descriptors)


def test_few_open_files_are_enough(tmp_path: Path) -> None:
    program = """
import resource, sys
from pathlib import Path
from tests.unit.fetch.test_batch import Batches, Store, add, payloads
batches, done, made = Batches(store := Store(sys.argv[1])), [], payloads(200)
for digest, data in made.items():
    add(batches, store, digest, data, done)
batches.finish()
batches.check()
assert len(done) == len(made)
"""
    limited = [
        "sh",
        "-c",
        'ulimit -n 64; exec "$@"',
        "sh",
        sys.executable,
        "-c",
        program,
        str(tmp_path / "store"),
    ]
    root = Path(__file__).parents[3]
    env = {**os.environ, "PYTHONPATH": f"{root / '.dev'}{os.pathsep}{root}"}
    found = subprocess.run(limited, env=env, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr


def test_an_interrupted_finish_stores_all_before_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()

    class Slow(Syncer):
        def __call__(self, descriptors: object) -> None:
            assert go_on.wait(30)

    monkeypatch.setattr(batch, "Syncer", Slow)
    store = Store(str(tmp_path / "store"))
    batches, done, made = Batches(store), list[str](), payloads(3)
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        for sha256, data in made.items():
            add(batches, store, sha256, data, done)
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        threading.Timer(1, go_on.set).start()
        with pytest.raises(KeyboardInterrupt):
            batches.finish()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        go_on.set()
    assert len(done) == len(made)
