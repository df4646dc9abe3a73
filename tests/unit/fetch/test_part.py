"""Bytes of a part are the same on both ways to the disk: through the page cache, and past it."""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
import random
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from cachefetch.fetch.resume import PartInfo
from cachefetch.fetch.store import part as part_module
from cachefetch.fetch.store.cas import Store
from cachefetch.fetch.store.part import PartWriter

SIZE = (8 << 20) + 12345
DATA = random.Random(7).randbytes(SIZE)
SHA = hashlib.sha256(DATA).hexdigest()
INFO = PartInfo("http://mirror/blob", '"v"', SHA, SIZE)


def digest_of(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()  # what differs would be too long to show


def on_a_disk(path: Path) -> bool:
    return os.major(path.stat().st_dev) != 0


def goes_direct(part: PartWriter) -> bool:
    return bool(fcntl.fcntl(part._handle, fcntl.F_GETFL) & os.O_DIRECT)


def pieces(sizes: list[int], *, aligned: bool) -> Iterator[memoryview]:
    """Yield DATA in pieces of these sizes, the last one again and again."""
    at, number = 0, 0
    while at < SIZE:
        size = min(sizes[min(number, len(sizes) - 1)], SIZE - at)
        memory = memoryview(mmap.mmap(-1, size)) if aligned else memoryview(bytearray(size + 1))[1:]
        memory[:] = DATA[at : at + size]
        yield memory
        at, number = at + size, number + 1


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("sizes", [[1 << 20], [4096], [1000, 1 << 20], [1 << 20, 77, 1 << 20], [SIZE]])
def test_the_same_bytes_on_every_way(tmp_path: Path, sizes: list[int], aligned: bool) -> None:
    store = Store(str(tmp_path / "store"))
    lock = store.try_lock(SHA)
    assert lock is not None
    part = store.open_part(lock, SHA, SIZE)
    part.begin(INFO)
    for piece in pieces(sizes, aligned=aligned):
        part.write(piece)
    part.commit_if_right()
    lock.release()
    assert part.done
    assert digest_of(store.path(SHA)) == SHA


def test_large_blobs_go_past_the_cache_until_a_piece_does_not_fit(tmp_path: Path) -> None:
    if not on_a_disk(tmp_path):
        pytest.skip("the temporary directory is on no disk of this machine")
    store = Store(str(tmp_path / "store"))
    lock = store.try_lock(SHA)
    assert lock is not None
    part = store.open_part(lock, SHA, SIZE)
    part.begin(INFO)
    assert goes_direct(part)
    first, second = islice(pieces([1 << 20, 99], aligned=True), 2)
    part.write(first)
    assert goes_direct(part)
    part.write(second)
    assert not goes_direct(part)
    part.leave()
    lock.release()
    begun = DATA[: (1 << 20) + 99]
    assert digest_of(store._partial(SHA, "part")) == hashlib.sha256(begun).hexdigest()


def test_small_blobs_stay_in_the_cache(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))
    lock = store.try_lock(SHA)
    assert lock is not None
    part = store.open_part(lock, SHA, part_module._DIRECT_BYTES - 1)
    part.begin(INFO)
    assert not goes_direct(part)
    part.leave()
    lock.release()


def test_ranges_in_any_order(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))
    lock = store.try_lock(SHA)
    assert lock is not None
    part = store.open_part(lock, SHA, SIZE)
    part.begin_ranges(PartInfo("u", None, SHA, SIZE, 0))
    size = 1 << 20
    starts = list(range(0, SIZE, size))
    for start, memory in sorted(zip(starts, pieces([size], aligned=True), strict=True), reverse=True):
        part.write_at(start, memory)
    for start in starts:
        part.advance(memoryview(DATA)[start : start + size])
    part.commit_if_right()
    lock.release()
    assert part.done
    assert digest_of(store.path(SHA)) == SHA
