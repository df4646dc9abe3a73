"""Large plain archives are read by a helper process: the result is the same, whatever happens to the helper."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.tools.archive import archive, directory, entry, package, parents
from tests.unit.test_extract import nothing_left, snapshot, unpack, with_helper_only

from cachefetch.errors import DigestError, StoreError, TruncatedError
from cachefetch.fetch.extract import extract_tarball
from cachefetch.fetch.unpack import beside
from cachefetch.fetch.unpack.reader import SLOT, SLOTS


def large() -> bytes:
    """Return an archive of some 40 MiB: files of all sizes, and the build root across the ends of slots."""
    source, root = random.Random(7), b"/opt/store"
    entries = [directory("./d"), entry("./d/first")]
    at = len(archive(parents())) // 10240 * 10240
    for number in range(120):
        size = source.choice([0, 1, 511, 512, 5000, SLOT // 3, SLOT - 512, SLOT + 7])
        content = bytearray(source.randbytes(4096) * (size // 4096 + 1))[:size]
        if number % 3 == 0 and size > len(root):
            where = source.randrange(size - len(root))
            content[where : where + len(root)] = root
        entries.append(entry(f"./d/f{number:03}", bytes(content)))
        at += size
    # A file that is nothing but the root again and again holds it across every end of a slot in it.
    entries.append(entry("./d/everywhere", root * (3 * SLOT // len(root))))
    return package(*entries, entry("./d/last-empty"))


LARGE = large()


def test_the_result_is_that_of_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(LARGE) > SLOT * SLOTS
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    monkeypatch.setattr("cachefetch.fetch.extract.worthwhile", lambda *_: False)
    alone = unpack(LARGE, tmp_path / "one")
    monkeypatch.setattr("cachefetch.fetch.extract.worthwhile", beside.worthwhile)
    with_helper_only(monkeypatch)
    assert unpack(LARGE, tmp_path / "two") == alone
    assert alone.holding > 20
    assert snapshot(tmp_path / "two/out/demo") == snapshot(tmp_path / "one/out/demo")


@pytest.mark.parametrize("cut", [0, 1, SLOT, SLOT + 1, SLOT * SLOTS, SLOT * SLOTS + 700])
def test_a_file_that_is_shorter_than_promised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: int
) -> None:
    with_helper_only(monkeypatch)
    (tmp_path / "p").write_bytes(LARGE[:cut])
    with pytest.raises((TruncatedError, Exception), match=r"truncated|ends in the middle|has \d+ bytes"):
        extract_tarball(str(tmp_path / "p"), str(tmp_path / "out/x"), sha256="0" * 64, size=len(LARGE))
    assert nothing_left(tmp_path)


def test_other_bytes_than_promised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_helper_only(monkeypatch)
    sha256 = hashlib.sha256(LARGE).hexdigest()
    changed = bytearray(LARGE)
    changed[-SLOT] ^= 1
    (tmp_path / "p").write_bytes(changed)
    with pytest.raises(DigestError):
        extract_tarball(str(tmp_path / "p"), str(tmp_path / "out/x"), sha256=sha256, size=len(LARGE))
    with pytest.raises(TruncatedError):
        extract_tarball(str(tmp_path / "p"), str(tmp_path / "out/x"), sha256=sha256, size=len(LARGE) - 1)
    assert nothing_left(tmp_path)


def killed_after(slots: int) -> Callable[[beside.Beside], object]:
    """Return a `_next` that ends the helper at some slot."""
    real, seen = beside.Beside._next, [0]

    def kill_and_go_on(self: beside.Beside) -> object:
        if seen[0] == slots:
            self._process.kill()
            self._process.wait()
        seen[0] += 1
        return real(self)

    return kill_and_go_on


@pytest.mark.parametrize("slots", [0, 1, SLOTS - 1, SLOTS, len(LARGE) // SLOT, len(LARGE) // SLOT + 1])
def test_a_helper_that_is_killed_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slots: int
) -> None:
    monkeypatch.setattr(beside, "ENOUGH", 0)
    monkeypatch.setattr(beside, "processors", lambda: 2)
    monkeypatch.setattr(beside.Beside, "_next", killed_after(slots))
    contents = unpack(LARGE, tmp_path)
    assert contents.files == 124
    assert os.listdir(tmp_path / "out") == ["demo"]


def test_without_an_interpreter_to_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beside, "ENOUGH", 0)
    monkeypatch.setattr(beside, "processors", lambda: 2)
    monkeypatch.setattr("sys.executable", str(tmp_path / "none"))
    assert unpack(LARGE, tmp_path).files == 124


def test_an_archive_that_is_gone_is_a_store_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        extract_tarball(str(tmp_path / "none"), str(tmp_path / "out/x"), sha256="0" * 64, size=len(LARGE))
