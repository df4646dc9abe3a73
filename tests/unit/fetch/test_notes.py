"""Notes of what was verified: what counts, who may have written them, and what a damaged file of them does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cachefetch.fetch.store import notes
from cachefetch.fetch.store.notes import LIFE_S, Notes, identity, subject

KEY, OTHER = subject("one"), subject("other")
NOW = 1_800_000_000.0


def notes_in(*places: Path, now: float = NOW) -> Notes:
    return Notes([str(place) for place in places], lambda: now)


def write(place: Path, *fields: str, now: float = NOW, key: str = KEY, until: float | None = None) -> Path:
    """Note `fields` about `key` as another process would; return the file."""
    place.mkdir(exist_ok=True)
    one = notes_in(place, now=now)
    one.put(key, *fields, until=until)
    one.flush()
    return place / "proofs"


def read(place: Path, key: str = KEY, now: float = NOW) -> list[str] | None:
    one = notes_in(place, now=now)
    one.refresh()
    return one.get(key)


def test_a_note_is_read_by_the_next_process(tmp_path: Path) -> None:
    write(tmp_path, "a", "b")
    assert read(tmp_path) == ["a", "b"]
    assert read(tmp_path, OTHER) is None


def test_the_last_note_about_a_thing_counts(tmp_path: Path) -> None:
    write(tmp_path, "old")
    write(tmp_path, "other", key=OTHER)
    write(tmp_path, "new")
    assert read(tmp_path) == ["new"]
    assert read(tmp_path, OTHER) == ["other"]


def test_what_others_note_meanwhile_is_seen_after_refresh(tmp_path: Path) -> None:
    write(tmp_path, "first", key=OTHER)
    running = notes_in(tmp_path)
    running.refresh()
    write(tmp_path, "second")
    assert running.get(KEY) is None
    running.refresh()
    assert (running.get(KEY), running.get(OTHER)) == (["second"], ["first"])


@pytest.mark.parametrize(("later", "counts"), [(0, True), (LIFE_S - 1, True), (LIFE_S, False), (-1, False)])
def test_a_note_counts_for_a_week_and_not_before_it_was_made(
    tmp_path: Path, later: float, counts: bool
) -> None:
    write(tmp_path, "a")
    assert (read(tmp_path, now=NOW + later) is not None) is counts


@pytest.mark.parametrize(("later", "counts"), [(59, True), (60, False)])
def test_a_note_ends_with_the_key_that_it_rests_on(tmp_path: Path, later: float, counts: bool) -> None:
    write(tmp_path, "a", until=NOW + 60)
    assert (read(tmp_path, now=NOW + later) is not None) is counts


def test_another_boot_or_version_counts_for_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "a")
    monkeypatch.setattr(notes, "__version__", "0.0.0")
    assert read(tmp_path) is None
    monkeypatch.undo()
    boot = tmp_path / "boot"
    boot.write_text("another")
    monkeypatch.setattr(notes, "_BOOT", str(boot))
    assert read(tmp_path) is None
    monkeypatch.undo()
    assert read(tmp_path) == ["a"]


def test_a_system_without_a_boot_id_notes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notes, "_BOOT", str(tmp_path / "none"))
    write(tmp_path, "a")
    assert not (tmp_path / "proofs").exists()


def test_every_damaged_byte_makes_a_note_none_and_never_an_error(tmp_path: Path) -> None:
    file = write(tmp_path, "abc", "def")
    data = file.read_bytes()
    for place in range(len(data)):
        for value in (0, 10, 32, data[place] ^ 1, 255):
            if value == data[place]:
                continue
            file.write_bytes(data[:place] + bytes([value]) + data[place + 1 :])
            assert read(tmp_path) is None, place
    for end in range(len(data)):
        file.write_bytes(data[:end])
        assert read(tmp_path) is None, end


def test_a_torn_note_hides_no_other(tmp_path: Path) -> None:
    file = write(tmp_path, "a")
    file.write_bytes(b"\0\xff garbage" + b"x" * 200 + b"\n" + file.read_bytes() + b"1234 torn")
    assert read(tmp_path) == ["a"]


def test_the_beginning_of_a_line_waits_for_its_end(tmp_path: Path) -> None:
    file = write(tmp_path, "a")
    data = file.read_bytes()
    file.write_bytes(data[:50])
    running = notes_in(tmp_path)
    running.refresh()
    assert running.get(KEY) is None
    file.write_bytes(data)
    running.refresh()
    assert running.get(KEY) == ["a"]


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666])
def test_a_file_that_others_may_write_counts_for_nothing(tmp_path: Path, mode: int) -> None:
    file = write(tmp_path, "a")
    file.chmod(mode)
    assert read(tmp_path) is None
    size = file.stat().st_size
    write(tmp_path, "b")
    assert file.stat().st_size == size


@pytest.mark.parametrize("mode", [0o775, 0o777, 0o1777])
def test_a_directory_that_others_may_write_holds_no_notes(tmp_path: Path, mode: int) -> None:
    shared, own = tmp_path / "shared", tmp_path / "mine" / "own"
    write(shared, "forged")
    shared.chmod(mode)
    one = notes_in(shared, own)
    one.refresh()
    assert one.get(KEY) is None
    one.put(KEY, "mine")
    one.flush()
    assert (own.stat().st_mode & 0o777, (own / "proofs").exists()) == (0o700, True)
    one = notes_in(shared, own)
    one.refresh()
    assert one.get(KEY) == ["mine"]


def test_a_symlink_in_its_place_is_not_followed(tmp_path: Path) -> None:
    elsewhere = write(tmp_path / "elsewhere", "a")
    (tmp_path / "proofs").symlink_to(elsewhere)
    assert read(tmp_path) is None
    size = elsewhere.stat().st_size
    write(tmp_path, "b")
    assert elsewhere.stat().st_size == size


def test_a_fifo_in_its_place_stops_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "proofs")
    write(tmp_path, "b")
    assert read(tmp_path) is None


def test_no_place_at_all_is_no_error(tmp_path: Path) -> None:
    one = notes_in(tmp_path / "missing")
    one.put(KEY, "a")
    one.flush()
    one.refresh()
    one.forget()
    assert list(tmp_path.iterdir()) == []


def test_forgetting_removes_all_notes(tmp_path: Path) -> None:
    file = write(tmp_path, "a")
    one = notes_in(tmp_path)
    one.refresh()
    one.forget()
    assert one.get(KEY) is None
    assert not file.exists()


def test_dead_lines_are_dropped_when_there_are_too_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "living", key=OTHER)
    write(tmp_path, "expired", key=subject("third"), until=NOW + 5)
    for number in range(20):
        file = write(tmp_path, f"try{number}")
    before = file.stat().st_size
    monkeypatch.setattr(notes, "_COMPACT", 1000)
    assert read(tmp_path, now=NOW + 10) == ["try19"]
    assert file.stat().st_size < before / 5
    assert read(tmp_path, OTHER) == ["living"]
    assert file.read_bytes().count(b"\n") == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["proofs"]


def test_what_cannot_be_told_apart_is_not_noted(tmp_path: Path) -> None:
    for bad in ("", "a b", "a\nb", "\u00e9"):
        write(tmp_path, "x", bad)
    assert read(tmp_path) is None


def test_identity_changes_with_what_may_change_the_bytes(tmp_path: Path) -> None:
    file = tmp_path / "blob"
    file.write_bytes(b"good")
    file.chmod(0o444)
    info = os.stat(file)
    first = identity(info)
    assert first == identity(os.stat(file))
    file.chmod(0o644)
    file.write_bytes(b"evil")
    file.chmod(0o444)
    os.utime(file, ns=(info.st_atime_ns, info.st_mtime_ns))
    assert (os.stat(file).st_size, os.stat(file).st_mtime_ns) == (info.st_size, info.st_mtime_ns)
    assert identity(os.stat(file)) != first


def test_the_file_of_another_user_or_one_that_others_write_has_no_identity(tmp_path: Path) -> None:
    file = tmp_path / "blob"
    file.write_bytes(b"good")
    file.chmod(0o464)
    assert identity(os.stat(file)) == ""
    file.chmod(0o444)
    assert identity(os.stat(file)) != ""
    assert identity(os.stat(tmp_path)) == ""
    if os.geteuid() == 0:
        os.chown(file, 12345, -1)
        assert identity(os.stat(file)) == ""
