"""The content-addressed store."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from tests.faults.run import leftovers

from cachefetch.errors import DigestError, StoreError
from cachefetch.fetch.resume import PartInfo
from cachefetch.fetch.store import files, locks
from cachefetch.fetch.store.cas import Store
from cachefetch.fetch.store.part import PartWriter

DATA = bytes(range(256)) * 100
SHA = hashlib.sha256(DATA).hexdigest()
KEY = "zlib-1.3.1-" + "a" * 32
INFO = PartInfo("https://m/x", '"v"', SHA, len(DATA))


@pytest.fixture(params=["linked", "renamed"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store, also on a system that cannot give a name to a file without one."""
    if request.param == "renamed":
        monkeypatch.setattr(files, "_ANONYMOUS", 0)
    return Store(str(tmp_path / "store"))


def part(store: Store, sha256: str = SHA, size: int = len(DATA)) -> PartWriter:
    lock = store.try_lock(sha256)
    assert lock is not None
    with lock:
        return store.open_part(lock, sha256, size)


def test_put_and_read(store: Store) -> None:
    assert not store.has(SHA)
    path = store.put_bytes(DATA, SHA)
    assert path == os.path.join(store.root, "sha256", SHA[:2], SHA) == store.path(SHA)
    assert store.has(SHA)
    assert store.read(SHA, len(DATA)) == DATA
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o444
    assert leftovers(store.root) == []


def test_put_again_does_not_write(store: Store) -> None:
    inode = os.stat(store.put_bytes(DATA, SHA)).st_ino
    assert os.stat(store.put_bytes(DATA, SHA)).st_ino == inode


def test_wrong_digest_is_never_stored(store: Store) -> None:
    with pytest.raises(DigestError):
        store.put_bytes(DATA + b"x", SHA)
    assert not os.path.exists(store.root)


@pytest.mark.parametrize("bad", ["", "ab", "../" + "a" * 61, "A" * 64, "g" * 64, SHA + "\n"])
def test_only_digests_name_blobs(store: Store, bad: str) -> None:
    with pytest.raises(ValueError, match="not a"):
        store.path(bad)


@pytest.mark.parametrize("bad", ["", ".hidden", "a/b", "../x", "a b", "x" * 300])
def test_only_safe_names_name_manifests(store: Store, bad: str) -> None:
    with pytest.raises(ValueError, match="not "):
        store.manifest(bad)


def test_manifests_are_kept_byte_for_byte(store: Store) -> None:
    assert store.manifest(KEY) is None
    for text in (b"-----BEGIN\r\n \x00\xff", b"second"):
        store.put_manifest(KEY, text)
        assert store.manifest(KEY) == text
    assert os.listdir(os.path.join(store.root, "manifests")) == [KEY]


def test_damaged_blob_is_not_read(store: Store) -> None:
    path = store.put_bytes(DATA, SHA)
    os.chmod(path, 0o644)
    with open(path, "r+b") as file:
        file.write(b"x")
    assert store.read(SHA, len(DATA)) is None
    place = store.locate(SHA)
    assert place is not None
    assert not store.verify(place, SHA)
    store.discard(SHA)
    store.discard(SHA)
    assert store.locate(SHA) is None


def test_a_lock_excludes_and_leaves_nothing(store: Store) -> None:
    first = store.try_lock(SHA)
    assert first is not None
    assert store.try_lock(SHA) is None
    other = store.try_lock("0" * 64)
    assert other is not None
    other.release()
    first.release()
    first.release()
    with store.try_lock(SHA) or pytest.fail("still locked"):
        pass
    assert leftovers(store.root) == []


def test_a_lock_whose_file_was_replaced_is_not_taken(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A holder that releases between open and flock removes the file: the lock on it would be nobody's."""
    seen = []
    real = files.same_file

    def first_time_removed(descriptor: int, path: str) -> bool:
        seen.append(path)
        if len(seen) == 1:
            os.unlink(path)
        return real(descriptor, path)

    monkeypatch.setattr(locks, "_SET", None)
    monkeypatch.setattr(files, "same_file", first_time_removed)
    lock = store.try_lock(SHA)
    assert lock is not None
    assert len(seen) == 2
    assert store.try_lock(SHA) is None
    lock.release()


def test_a_part_becomes_visible_only_when_whole_and_right(store: Store) -> None:
    writer = part(store)
    writer.begin(INFO)
    writer.write(DATA[:1000])
    assert not writer.matches()
    with pytest.raises(AssertionError):
        writer.commit()
    writer.write(DATA[1000:])
    assert not store.has(SHA)
    assert writer.matches()
    assert writer.commit() == store.path(SHA)
    assert store.read(SHA, len(DATA)) == DATA
    assert leftovers(store.root) == []


def test_wrong_bytes_never_match(store: Store) -> None:
    writer = part(store)
    writer.begin(INFO)
    writer.write(b"x" * len(DATA))
    assert not writer.matches()
    writer.remove()
    assert leftovers(store.root) == []
    assert not store.has(SHA)


def test_a_part_is_continued_by_the_next_run(store: Store) -> None:
    writer = part(store)
    writer.begin(INFO)
    writer.write(DATA[:1234])
    writer.close()
    assert store.part_size(SHA) == 1234
    writer = part(store)
    assert (writer.offset, writer.info) == (1234, INFO)
    assert writer.digest() == hashlib.sha256(DATA[:1234]).hexdigest()
    writer.write(DATA[1234:])
    writer.commit()
    assert store.has(SHA)


@pytest.mark.parametrize("sidecar", [None, b"", b"{", PartInfo("u", None, "0" * 64, len(DATA)).encode()])
def test_a_part_without_a_fitting_sidecar_starts_over(store: Store, sidecar: bytes | None) -> None:
    writer = part(store)
    writer.begin(INFO)
    writer.write(DATA[:1234])
    writer.close()
    path = os.path.join(store.root, "partial", f"{SHA}.json")
    os.unlink(path)
    if sidecar is not None:
        Path(path).write_bytes(sidecar)
    writer = part(store)
    assert (writer.offset, writer.info) == (0, None)
    writer.close()
    assert store.part_size(SHA) == 0


def test_what_a_full_disk_still_took_counts(store: Store) -> None:
    import resource

    data, room = b"abcd" * 150_000, 300_001  # the limit falls into the second piece of the write
    sha256 = hashlib.sha256(data).hexdigest()
    with store.try_lock(sha256) or pytest.fail("locked") as lock:
        part = store.open_part(lock, sha256, len(data))
        part.begin(PartInfo("u", None, sha256, len(data)))
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
        try:
            with pytest.raises(StoreError, match="too large") as caught:
                part.write(data)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert caught.value.context["reason"] == "disk-full"
        assert part.offset == room
        assert part.digest() == hashlib.sha256(data[:room]).hexdigest()
        part.write(data[room:])
        part.commit()
    assert store.has(sha256)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux alone has the call")
def test_the_kernel_takes_the_hint_to_write_back(tmp_path: Path) -> None:
    call = files._c_function("sync_file_range", ("c_int", "c_int64", "c_int64", "c_uint"))
    assert call is not None
    with open(tmp_path / "file", "wb") as file:
        file.write(b"x" * 8192)
        file.flush()
        assert call(file.fileno(), 0, 8192, files._WRITE_BACK) == 0
        assert call(-1, 0, 8192, files._WRITE_BACK) == -1
        files.start_write_back(-1, 0, 8192)  # only a hint


def test_begin_again_forgets_the_old_bytes(store: Store) -> None:
    writer = part(store)
    writer.begin(INFO)
    writer.write(b"wrong")
    writer.begin(INFO)
    writer.write(DATA)
    assert writer.matches()
    writer.drop()
    assert (writer.offset, writer.info) == (0, None)
    writer.close()


def test_too_little_space_names_path_and_bytes(store: Store) -> None:
    size = 1 << 60
    for refused in (lambda: part(store, size=size), lambda: store.require_space(size)):
        with pytest.raises(StoreError) as caught:
            refused()
        assert caught.value.exit_code == 10
        assert caught.value.context["needed_bytes"] == size
        assert 0 < caught.value.context["free_bytes"] < size
        assert store.root in caught.value.message
        assert str(size) in caught.value.message
    lock = store.try_lock(SHA)
    assert lock is not None
    lock.release()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EIO])
def test_failures_of_the_system_become_store_errors(number: int) -> None:
    with pytest.raises(StoreError) as caught, files.store_errors("/cache/x"):
        raise OSError(number, os.strerror(number))
    assert "/cache/x" in caught.value.message
    assert caught.value.hint
    assert (caught.value.context.get("reason") == "disk-full") == (number in (errno.ENOSPC, errno.EDQUOT))


def test_site_layers_are_read_and_never_written(tmp_path: Path) -> None:
    site = Store(str(tmp_path / "site"))
    site.put_bytes(DATA, SHA)
    site.put_manifest(KEY, b"text")
    before = sorted(os.walk(site.root))
    store = Store(str(tmp_path / "own"), site=[site.root])
    place = store.locate(SHA)
    assert place is not None
    assert (place.origin, place.size) == ("site", len(DATA))
    assert store.manifest(KEY) == b"text"
    store.discard(SHA)
    store.put_manifest(KEY, b"newer")
    assert store.manifest(KEY) == b"newer"
    store.link_out(SHA, str(tmp_path / "out.spack"))
    assert (tmp_path / "out.spack").read_bytes() == DATA
    assert sorted(os.walk(site.root)) == before


def test_link_out_shares_the_bytes_where_it_can(store: Store, tmp_path: Path) -> None:
    path = store.put_bytes(DATA, SHA)
    out = tmp_path / "deep" / "er" / "x.spack"
    for _ in range(2):  # the second time it is there already
        store.link_out(SHA, str(out))
        assert os.path.samefile(out, path)
        assert os.listdir(out.parent) == ["x.spack"]


def test_link_out_replaces_what_is_there(store: Store, tmp_path: Path) -> None:
    store.put_bytes(DATA, SHA)
    out = tmp_path / "x.spack"
    out.write_text("old")
    store.link_out(SHA, str(out))
    assert out.read_bytes() == DATA


def test_link_out_copies_to_another_file_system(store: Store, tmp_path: Path) -> None:
    elsewhere = "/dev/shm"
    if not os.path.isdir(elsewhere) or os.stat(elsewhere).st_dev == os.stat(tmp_path).st_dev:
        pytest.skip("no second file system at /dev/shm")
    store.put_bytes(DATA, SHA)
    out = os.path.join(elsewhere, f"cachefetch-test-{os.getpid()}", "x.spack")
    try:
        store.link_out(SHA, out)
        with open(out, "rb") as file:
            assert file.read() == DATA
        assert os.listdir(os.path.dirname(out)) == ["x.spack"]
    finally:
        os.unlink(out)
        os.rmdir(os.path.dirname(out))


KILLED_COPY = """
import os, shutil, signal, sys
from cachefetch.fetch.store import files
if sys.argv[3] == "named":
    files._ANONYMOUS = 0
if sys.argv[4] == "killed":
    def copy(read, write, size):
        write.write(b"half")
        write.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    shutil.copyfileobj = copy
files.link_or_copy(sys.argv[1], sys.argv[2], 4)
"""


@pytest.mark.parametrize("way", ["unnamed", "named"])
@pytest.mark.parametrize("there", [False, True])
def test_a_killed_copy_leaves_nothing_after_the_next_run(tmp_path: Path, way: str, there: bool) -> None:
    elsewhere = Path("/dev/shm")
    if not elsewhere.is_dir() or elsewhere.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system at /dev/shm")
    source = tmp_path / "blob"
    source.write_bytes(DATA)
    out = elsewhere / f"cachefetch-test-{os.getpid()}"
    out.mkdir()
    try:
        if there:
            (out / "x.spack").write_text("old")
        codes = []
        for end in ("killed", "whole"):
            command = [sys.executable, "-c", KILLED_COPY, str(source), str(out / "x.spack"), way, end]
            codes.append(subprocess.run(command, check=False).returncode)
        assert codes == [-signal.SIGKILL, 0]
        assert [path.name for path in out.iterdir()] == ["x.spack"]
        assert (out / "x.spack").read_bytes() == DATA
    finally:
        shutil.rmtree(out)


def test_link_out_of_what_is_gone(store: Store, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="not in the store"):
        store.link_out(SHA, str(tmp_path / "x"))


def test_link_out_where_nothing_may_be_written(store: Store, tmp_path: Path) -> None:
    store.put_bytes(DATA, SHA)
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError):
        store.link_out(SHA, str(tmp_path / "file" / "x.spack"))


def test_a_symlink_in_the_partial_directory_is_not_followed(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_ANONYMOUS", 0)
    partial = os.path.join(store.root, "partial")
    os.makedirs(partial)
    (tmp_path / "victim").write_text("precious")
    os.symlink(tmp_path / "victim", os.path.join(partial, f"put-{SHA}.part"))
    with pytest.raises(StoreError):
        store.put_bytes(DATA, SHA)
    assert (tmp_path / "victim").read_text() == "precious"


def test_a_cache_that_a_group_shares(store: Store) -> None:
    """With the umask that such a group has, another member can continue, lock and clean up."""
    before = os.umask(0o002)
    try:
        store.put_bytes(DATA, SHA)
        other = hashlib.sha256(b"other").hexdigest()
        lock = store.try_lock(other)
        assert lock
        writer = store.open_part(lock, other, 5)
        writer.begin(PartInfo("u", None, other, 5))
        writer.write(b"oth")
        writer.leave()
        lock.release()
    finally:
        os.umask(before)
    for path in Path(store.root).rglob("*"):
        mode = path.stat().st_mode & 0o777
        if path.is_dir():
            assert mode == 0o775, path
        elif "sha256" in path.parts:
            assert mode == 0o444, path
        elif path.suffix == ".part" or path.name == "locks":
            assert mode == 0o664, path


def test_a_private_umask_keeps_blobs_private(store: Store) -> None:
    before = os.umask(0o077)
    try:
        path = store.put_bytes(DATA, SHA)
    finally:
        os.umask(before)
    assert os.stat(path).st_mode & 0o777 == 0o400
