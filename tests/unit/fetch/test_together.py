"""Small files that get their names together: none before it is on the disk, none after a failure."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from cachefetch.errors import StoreError
from cachefetch.fetch.store import batch
from cachefetch.fetch.store.batch import Together

pytestmark = pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="there are no files without names here")


def never(path: str, data: bytes) -> None:
    raise AssertionError(path)


def test_files_have_no_name_before_all_are_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    together, synced = Together(never), []

    def sync(descriptors: Sequence[int]) -> None:
        assert not list(tmp_path.rglob("file*"))
        synced.append(len(descriptors))

    monkeypatch.setattr(together, "_sync", sync)
    for number in range(batch._SMALL + 10):
        assert together.add(str(tmp_path / "deep" / f"file{number}"), b"%d" % number)
    assert synced == [batch._SMALL]  # so many descriptors are open at most
    together._sync = lambda descriptors: synced.append(len(descriptors))  # type: ignore[assignment]
    together.settle()
    assert synced == [batch._SMALL, 10]
    for number in range(batch._SMALL + 10):
        path = tmp_path / "deep" / f"file{number}"
        assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"%d" % number, 0o444)


def test_nothing_is_named_when_the_disk_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    together = Together(never)

    def fail(descriptors: Sequence[int]) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(together, "_sync", fail)
    assert together.add(str(tmp_path / "file"), b"x")
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(StoreError):
        together.settle()
    assert len(os.listdir("/proc/self/fd")) == before - 1
    together.settle()
    assert not (tmp_path / "file").exists()


def test_what_is_there_is_for_the_caller(tmp_path: Path) -> None:
    together = Together(never)
    (tmp_path / "file").write_bytes(b"old")
    assert not together.add(str(tmp_path / "file"), b"new")
    together.settle()
    assert (tmp_path / "file").read_bytes() == b"old"


def test_a_name_that_is_taken_meanwhile_is_written_again(tmp_path: Path) -> None:
    again = []
    together = Together(lambda path, data: again.append((path, data)))
    assert together.add(str(tmp_path / "file"), b"new")
    (tmp_path / "file").write_bytes(b"old")
    together.settle()
    assert again == [(str(tmp_path / "file"), b"new")]


def test_one_can_be_taken_back(tmp_path: Path) -> None:
    together = Together(never)
    for name in ("one", "two"):
        assert together.add(str(tmp_path / name), b"x")
    together.take_back(str(tmp_path / "one"))
    together.take_back(str(tmp_path / "three"))
    together.settle()
    assert [path.name for path in tmp_path.iterdir()] == ["two"]


def test_what_is_dropped_never_was(tmp_path: Path) -> None:
    together = Together(never)
    assert together.add(str(tmp_path / "file"), b"x")
    together.drop()
    together.settle()
    assert list(tmp_path.iterdir()) == []
