"""Unpacking equals what GNU tar makes; what is unsafe is refused with a code of its own, and leaves nothing."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import json
import lzma
import os
import shutil
import subprocess
import tarfile
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.tools import archive as make
from tests.tools.archive import PREFIX, directory, entry, hard_link, package, stored, symlink

from cachefetch.errors import ArchiveError, CachefetchError, DigestError, TruncatedError, UsageError
from cachefetch.fetch.extract import extract_tarball
from cachefetch.fetch.unpack.model import Contents, ExtractLimits
from cachefetch.fetch.unpack.search import Search, deepest

FIXTURES = Path(__file__).parents[1] / "data" / "fixtures"
GOOD = make.good()


def unpack(
    data: bytes, base: Path, *, limits: ExtractLimits | None = None, portable: bool = False
) -> Contents:
    tarball = base / "package.spack"
    tarball.write_bytes(data)
    sha256 = hashlib.sha256(data).hexdigest()
    target = str(base / "out" / "demo")
    return extract_tarball(
        str(tarball), target, sha256=sha256, size=len(data), limits=limits, portable=portable
    )


def with_helper_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have archives of any size read by a helper process, and fail where it does."""

    def alone(*_: object) -> None:
        raise AssertionError("the helper is gone")

    monkeypatch.setattr("cachefetch.fetch.unpack.beside.ENOUGH", 0)
    monkeypatch.setattr("cachefetch.fetch.unpack.beside.processors", lambda: 2)
    monkeypatch.setattr("cachefetch.fetch.extract.Expanded", alone)


def nothing_left(base: Path) -> bool:
    return not (base / "out").exists() or os.listdir(base / "out") == []


def snapshot(root: Path) -> dict[str, tuple[object, ...]]:
    """Return mode, type, content and, of files, time and links of everything below `root`."""
    found: dict[str, tuple[object, ...]] = {}
    for base, directories, files in os.walk(root):
        for name in directories + files:
            path = Path(base, name)
            info = path.lstat()
            if path.is_symlink():
                facts: tuple[object, ...] = (os.readlink(path), info.st_mtime_ns)
            elif path.is_dir():
                facts = ()  # GNU tar does not restore the time of a directory that gets a member later
            else:
                facts = (path.read_bytes(), info.st_mtime_ns, info.st_nlink)
            found[str(path.relative_to(root))] = (oct(info.st_mode), *facts)
    return found


def gnu_tar(tarball: Path, base: Path) -> Path:
    base.mkdir(parents=True)
    subprocess.run(["tar", "-xpf", str(tarball), "-C", str(base)], check=True)
    return base


# --- faithful


def packages_of_spack() -> list[tuple[str, str, int]]:
    """Return path, digest and size of every tarball in the mirrors that real Spack wrote."""
    found = []
    for name in ("v3-signed", "v3-unsigned", "v2-signed", "v2-unsigned"):
        for spec in json.loads((FIXTURES / name / "EXPECTED.json").read_text())["specs"]:
            if artifact := spec["artifact"]:
                sha256 = artifact["tarball_sha256"]
                path = artifact.get("tarball", f"blobs/sha256/{sha256[:2]}/{sha256}")
                found.append((str(FIXTURES / name / path), sha256, artifact["tarball_size"]))
    return found


def test_every_package_of_spack_equals_what_gnu_tar_makes(tmp_path: Path) -> None:
    if shutil.which("tar") is None:
        pytest.skip("GNU tar is not installed")
    packages = packages_of_spack()
    assert len(packages) == 62 + 414 + 55 + 72
    for path, sha256, size in packages:
        contents = extract_tarball(path, str(tmp_path / "ours"), sha256=sha256, size=size)
        theirs = gnu_tar(Path(path), tmp_path / "theirs")
        found = snapshot(tmp_path / "ours")
        assert found == snapshot(Path(f"{theirs}{contents.prefix}")), path
        counted = contents.files + contents.directories + contents.symlinks + contents.hard_links
        assert counted == len(found)
        assert (tmp_path / "ours/.spack/binary_distribution").is_file()
        shutil.rmtree(tmp_path / "ours")
        shutil.rmtree(theirs)


@pytest.mark.parametrize("pack", [stored, bz2.compress, lzma.compress, bytes])
def test_one_of_everything_in_every_compression(tmp_path: Path, pack: object) -> None:
    assert callable(pack)
    contents = unpack(pack(GOOD), tmp_path)
    out = tmp_path / "out" / "demo"
    (tmp_path / "plain.tar").write_bytes(GOOD)
    assert snapshot(out) == snapshot(gnu_tar(tmp_path / "plain.tar", tmp_path / "gnu") / PREFIX)
    assert (out / "bin/same").samefile(out / "bin/tool")
    assert os.readlink(out / "bin/absolute") == "/opt/store/linux-x86_64/other-2.0-def/bin/x"
    assert (contents.files, contents.directories, contents.symlinks, contents.hard_links) == (8, 4, 3, 1)
    assert contents.prefix == "/" + PREFIX
    assert os.listdir(tmp_path / "out") == ["demo"]


def test_files_that_hold_the_build_root_are_counted(tmp_path: Path) -> None:
    contents = unpack(stored(GOOD), tmp_path)
    # bin/tool, its hard link (one file), and the absolute symlink; .spack is metadata
    assert (contents.root, contents.holding) == ("/opt/store", 2)
    across = b"x" * ((1 << 20) - 5) + b"/opt/store/y"
    data = package(entry("./across", across), entry("./no", b"/opt/stor/e"))
    (tmp_path / "two").mkdir()
    assert unpack(stored(data), tmp_path / "two").holding == 1


@pytest.mark.parametrize(
    ("root", "held"),
    [("/opt", 3), ("/opt/store", 2), ("/opt/store/pad/pad", 1), ("/opt/store/pad/pad/linux/gcc", 0)],
)
def test_the_root_may_be_any_directory_above_the_package(tmp_path: Path, root: str, held: int) -> None:
    """It is told at the end of the archive, after the files that are searched for it."""
    prefix = "opt/store/pad/pad/linux/gcc/demo-1.0-" + "a" * 32
    texts = ("/opt/x", "/opt/store/x", "/opt/store/pad/pad/x")
    entries = [
        directory(prefix),
        *(entry(f"{prefix}/{number}", text.encode()) for number, text in enumerate(texts)),
        entry(f"{prefix}/.spack/binary_distribution", f"{{buildpath: {root}, x: y}}".encode()),
    ]
    contents = unpack(stored(make.archive(entries)), tmp_path)
    assert (contents.root, contents.holding) == (root, held)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_tar_format(tmp_path: Path, form: int) -> None:
    long = "d" * 90
    entries = [
        *make.parents(),
        directory(f"./{long}"),
        entry(f"./{long}/{'f' * 99}", b"1"),
        directory("./.spack"),
        entry("./.spack/binary_distribution", make.BUILDINFO),
    ]
    unpack(stored(make.archive(entries, form)), tmp_path)
    assert (tmp_path / f"out/demo/{long}/{'f' * 99}").read_bytes() == b"1"


def test_old_layouts_without_parents_and_with_one_top_directory(tmp_path: Path) -> None:
    entries = [
        directory("demo-1.0-abc"),
        entry("demo-1.0-abc/bin/tool", b"x"),  # a directory that is not listed gets the mode of GNU tar
        directory("demo-1.0-abc/.spack"),
        entry("demo-1.0-abc/.spack/binary_distribution", b"{}"),
    ]
    contents = unpack(stored(make.archive(entries)), tmp_path)
    assert contents.prefix == contents.root == "/demo-1.0-abc"
    assert (tmp_path / "out/demo/bin").stat().st_mode & 0o777 == 0o755
    entries[1] = entry("demo-1.0-abc/bin/tool", b"#!/opt/store/bin/sh")
    entries[-1] = entry("demo-1.0-abc/.spack/binary_distribution", make.BUILDINFO)
    (tmp_path / "two").mkdir()
    contents = unpack(stored(make.archive(entries)), tmp_path / "two")
    assert (contents.prefix, contents.root) == ("/opt/store/linux-x86_64/demo-1.0-abc", "/opt/store")
    assert contents.holding == 1


def test_the_destination_must_be_new_or_empty(tmp_path: Path) -> None:
    (tmp_path / "out/demo").mkdir(parents=True)
    unpack(stored(GOOD), tmp_path)
    before = snapshot(tmp_path / "out")
    with pytest.raises(UsageError, match="exists"):
        unpack(stored(GOOD), tmp_path)
    assert snapshot(tmp_path / "out") == before
    (tmp_path / "file").write_text("x")
    for taken in ("file", "dangling"):
        if taken == "dangling":
            (tmp_path / taken).symlink_to("nowhere")
        with pytest.raises(UsageError, match=r"is a file|is a symlink to nothing"):
            extract_tarball("/unused", str(tmp_path / taken), sha256="", size=0)


# --- refused


def bomb(size: int) -> bytes:
    return stored(package(entry("./zeros", bytes(size))))


def patched(data: bytes, offset: int, new: bytes) -> bytes:
    """Change a header of an uncompressed tar and make its check sum right again."""
    block = bytearray(data[:512])
    block[offset : offset + len(new)] = new
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + data[512:]


def pax(text: bytes) -> bytes:
    """Return a good package behind a pax header of this text."""
    member = tarfile.TarInfo("x")
    member.type, member.size = tarfile.XHDTYPE, len(text)
    header = member.tobuf(tarfile.USTAR_FORMAT)
    return header + text + bytes(-len(text) % 512) + GOOD


EVIL = b"evil"
HUGE = make.archive(make.parents()).rstrip(b"\0")
HUGE += bytes(-len(HUGE) % 512) + patched(make.archive([entry("f")]), 124, b"77777777777\0")
ATTACKS = {
    "a name with ..": ("parent-reference", package(entry("./../../../../../evil", EVIL))),
    "a name that ends with ..": ("parent-reference", package(directory("./lib/.."))),
    "an absolute name": ("absolute-name", package(entry("/tmp/cachefetch-evil", EVIL))),
    "an absolute directory": ("absolute-name", package(directory("/tmp/cachefetch-evil"))),
    "a symlink, then a file below it": (
        "through-link",
        package(symlink("./d", "/tmp"), entry("./d/cachefetch-evil", EVIL)),
    ),
    "a symlink, then a directory below it": (
        "through-link",
        package(symlink("./d", "."), directory("./d/e")),
    ),
    "a symlink, then a hard link below it": (
        "through-link",
        package(entry("./f", EVIL), symlink("./d", "/tmp"), hard_link("./d/x", "./f")),
    ),
    "a symlink, then a file of its name": (
        "type-change",
        package(symlink("./f", "/tmp/x"), entry("./f", EVIL)),
    ),
    "a file, then a symlink of its name": (
        "type-change",
        package(entry("./f", EVIL), symlink("./f", "/tmp/x")),
    ),
    "a directory, then a symlink of its name": (
        "type-change",
        package(directory("./d"), symlink("./d", "/tmp"), entry("./d/f", EVIL)),
    ),
    "a file, then a directory of its name": ("type-change", package(entry("./f", EVIL), directory("./f"))),
    "a file twice": ("duplicate", package(entry("./f", EVIL), entry("./f", b"other"))),
    "a file below a file": ("through-link", package(entry("./f", EVIL), entry("./f/g", EVIL))),
    "a hard link out": ("hard-link", package(hard_link("./passwd", "/etc/passwd"))),
    "a hard link out with ..": ("hard-link", package(hard_link("./passwd", "../../../etc/passwd"))),
    "a hard link to a later file": ("hard-link", package(hard_link("./a", "./b"), entry("./b", EVIL))),
    "a hard link to itself": ("hard-link", package(hard_link("./a", "./a"))),
    "a hard link to a symlink": (
        "hard-link",
        package(symlink("./s", "/etc/passwd"), hard_link("./a", "./s")),
    ),
    "a hard link to a directory": ("hard-link", package(directory("./d"), hard_link("./a", "./d"))),
    "a relative symlink that leaves": ("symlink", package(symlink("./s", "../../../../etc/passwd"))),
    "a relative symlink that leaves and returns": (
        "symlink",
        package(directory("./lib"), symlink("./lib/s", "../../demo-1.0-abc/lib")),
    ),
    "a relative symlink that leaves through another": (
        "symlink",
        package(
            directory("./a"),
            directory("./a/b"),
            symlink("./a/b/l", "../.."),
            symlink("./a/b/k", "l/../../../x"),
        ),
    ),
    "a relative symlink that leaves through one to the prefix itself": (
        "symlink",
        package(symlink("./k", "l/../x"), symlink("./l", ".")),
    ),
    "a relative symlink that leaves through a chain of others": (
        "symlink",
        package(
            directory("./a"),
            symlink("./a/1", "2"),
            symlink("./a/2", "3/."),
            symlink("./a/3", ".."),
            symlink("./k", "a/1/../x"),
        ),
    ),
    "a relative symlink that leaves where case does not count": (
        "symlink",
        package(directory("./a"), symlink("./a/l", ".."), symlink("./a/k", "L/../x")),
    ),
    "a symlink without target": ("damaged", package(symlink("./s", ""))),
    "a character device": ("special-file", package(entry("./null", kind=tarfile.CHRTYPE))),
    "a block device": ("special-file", package(entry("./sda", kind=tarfile.BLKTYPE))),
    "a FIFO": ("special-file", package(entry("./pipe", kind=tarfile.FIFOTYPE))),
    "an unknown type": ("unsupported", package(entry("./what", kind=b"Z"))),
    "a sparse file": ("unsupported", package(entry("./sparse", kind=tarfile.GNUTYPE_SPARSE))),
    "a setuid file": ("setuid", package(entry("./su", EVIL, mode=0o4755))),
    "a setgid file": ("setuid", package(entry("./sg", EVIL, mode=0o2755))),
    "a setuid directory": ("setuid", package(directory("./d", mode=0o4755))),
    "a file outside the prefix": ("outside-prefix", package(entry("opt/store/evil", EVIL))),
    "a directory outside the prefix": ("outside-prefix", package(directory("etc"))),
    "a prefix beside the prefix": ("outside-prefix", package(directory(PREFIX + "2"))),
    "no buildinfo": ("no-prefix", package(entry("./f", EVIL), last=())),
    "buildinfo as a symlink": (
        "no-prefix",
        package(last=(directory("./.spack"), symlink("./.spack/binary_distribution", "/etc/passwd"))),
    ),
    "a prefix that is not listed": (
        "no-prefix",
        make.archive([entry("a/b/.spack/binary_distribution", b"{}")]),
    ),
    "text that is no tar": ("truncated", b"hello"),
    "a page of text": ("damaged", b"hello " * 200),
    "nothing": ("truncated", b""),
    "cut in a member": ("truncated", GOOD[:9000]),
    "cut before the end mark": ("truncated", GOOD.rstrip(b"\0") + bytes(-len(GOOD.rstrip(b"\0")) % 512)),
    "data behind the end": ("trailing-data", GOOD + b"x"),
    "a second archive behind the end": ("trailing-data", GOOD + GOOD),
    "a wrong check sum": ("damaged", b"q" + GOOD[1:]),
    "another magic": ("unsupported", patched(GOOD, 257, b"cpio\0\0\0\0")),
    "a size that is no number": ("damaged", patched(GOOD, 124, b"12x4")),
    "a directory with content": ("unsupported", patched(GOOD, 124, b"00000001000\0")),
    "a size beyond all": ("bomb", HUGE),
    "a pax header of a wrong length": ("damaged", pax(b"99 path=x\n")),
    "a pax header without value": ("damaged", pax(b"9 path x\n")),
    "a pax header with two names": ("duplicate", pax(b"9 path=a\n9 path=b\n")),
    "a pax header with a zero byte in the name": ("bad-name", pax(b"12 path=a\0b\n")),
    "a sparse file in pax": ("unsupported", pax(b"22 GNU.sparse.major=1\n")),
    "a time beyond all": ("damaged", pax(b"27 mtime=99999999999999999\n")),
    "a name of 300 bytes": ("bad-name", package(entry("./" + "n" * 300, EVIL))),
    "a name of 5000 bytes": ("bad-name", package(entry("./" + "n/" * 2500 + "x", EVIL))),
}


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("how", ["gzip", "plain", "helper"])
def test_attack(tmp_path: Path, name: str, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reason, data = ATTACKS[name]
    if how == "helper":
        with_helper_only(monkeypatch)
    with pytest.raises(ArchiveError) as caught:
        unpack(stored(data) if how == "gzip" else data, tmp_path)
    error = caught.value
    assert (error.reason, error.code, error.exit_code) == (reason, f"archive-{reason}", 6)
    assert "package.spack" in error.message
    assert nothing_left(tmp_path)
    assert not Path("/tmp/cachefetch-evil").exists()


def test_symlinks_that_stay_are_made_whatever_they_go_through(tmp_path: Path) -> None:
    inside = [
        directory("./a"),
        directory("./a/b"),
        symlink("./a/b/up", ".."),
        symlink("./a/b/file", "up/b/../b/f"),
        symlink("./a/b/dangling", "nothing/../f"),
        symlink("./a/b/loop", "loop/../.."),
        symlink("./a/abs", "/opt/elsewhere"),
        symlink("./a/through-abs", "abs/../x"),
        symlink("./a/self", "."),
        entry("./a/b/f", b"text"),
    ]
    unpack(package(*inside), tmp_path)
    made = {path.name: os.readlink(path) for path in tmp_path.rglob("*") if path.is_symlink()}
    assert made["file"] == "up/b/../b/f"
    assert len(made) == 7
    (file,) = [path for path in tmp_path.rglob("file") if path.is_symlink()]
    assert file.read_bytes() == b"text"


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("lib/Tool", "lib/tool"),
        ("lib/stra\u00dfe", "lib/STRASSE"),
        ("lib/\u00e9", "lib/e\u0301"),
        ("Lib", "lib"),
    ],
)
def test_names_that_one_file_system_cannot_hold(tmp_path: Path, one: str, two: str) -> None:
    second = [] if two == "lib" else [entry(f"./{two}", b"2")]
    data = stored(package(directory("./lib"), entry(f"./{one}", b"1"), *second))
    with pytest.raises(ArchiveError) as caught:
        unpack(data, tmp_path, portable=True)
    assert caught.value.code == "archive-collision"
    assert nothing_left(tmp_path)
    unpack(data, tmp_path)  # this file system tells them apart: ncurses and linux-headers have such names


def test_bombs_are_refused_before_they_fill_the_disk(tmp_path: Path) -> None:
    data = bomb(200 << 20)
    tracemalloc.start()
    with pytest.raises(ArchiveError) as caught:
        unpack(data, tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert caught.value.code == "archive-bomb"
    assert nothing_left(tmp_path)
    assert peak < 24 << 20
    unpack(bomb(16 << 20), tmp_path)  # 1000-fold, but small: nobody is hurt


@pytest.mark.parametrize("pack", [bz2.compress, lzma.compress, stored])
def test_bombs_of_every_compression(tmp_path: Path, pack: object) -> None:
    assert callable(pack)
    limits = ExtractLimits(free_bytes=1 << 20)
    with pytest.raises(ArchiveError) as caught:
        unpack(pack(package(entry("./zeros", bytes(8 << 20)))), tmp_path, limits=limits)
    assert caught.value.code == "archive-bomb"
    assert nothing_left(tmp_path)


def test_too_many_members(tmp_path: Path) -> None:
    data = stored(package(*(entry(f"./{n}") for n in range(50))))
    with pytest.raises(ArchiveError) as caught:
        unpack(data, tmp_path, limits=ExtractLimits(members=40))
    assert caught.value.code == "archive-limit"
    assert nothing_left(tmp_path)


def test_a_giant_extension_header_is_not_read(tmp_path: Path) -> None:
    member = tarfile.TarInfo("x")
    member.type, member.size = tarfile.XHDTYPE, 50 << 20
    data = stored(member.tobuf(tarfile.USTAR_FORMAT) + bytes(50 << 20))
    with pytest.raises(ArchiveError) as caught:
        unpack(data, tmp_path)
    assert caught.value.code == "archive-limit"


@pytest.mark.parametrize("tail", [b"x", gzip.compress(b"more"), bytes(100)])
def test_data_behind_the_compressed_stream(tmp_path: Path, tail: bytes) -> None:
    with pytest.raises(ArchiveError) as caught:
        unpack(stored(GOOD) + tail, tmp_path)
    assert caught.value.code == "archive-trailing-data"
    assert nothing_left(tmp_path)


@pytest.mark.parametrize("pack", [stored, bz2.compress, lzma.compress])
def test_a_cut_compressed_stream(tmp_path: Path, pack: object) -> None:
    assert callable(pack)
    with pytest.raises(ArchiveError) as caught:
        unpack(pack(GOOD)[:-20], tmp_path)
    assert caught.value.code in ("archive-truncated", "archive-damaged")
    assert nothing_left(tmp_path)


def test_other_bytes_than_the_manifest_promised(tmp_path: Path) -> None:
    data = stored(GOOD)
    (tmp_path / "p").write_bytes(data)
    sha256 = hashlib.sha256(data).hexdigest()
    with pytest.raises(DigestError):
        extract_tarball(str(tmp_path / "p"), str(tmp_path / "out/x"), sha256="0" * 64, size=len(data))
    with pytest.raises(TruncatedError):
        extract_tarball(str(tmp_path / "p"), str(tmp_path / "out/x"), sha256=sha256, size=len(data) - 1)
    assert nothing_left(tmp_path)


def check_hostile(data: bytes, base: Path) -> None:
    """Whatever the bytes are: unpacked, or refused with one of our errors; nothing outside, nothing half."""
    shutil.rmtree(base, ignore_errors=True)
    base.mkdir()
    try:
        unpack(data, base, limits=ExtractLimits(free_bytes=1 << 20, ratio=20))
        made = ["demo"]
    except CachefetchError:
        made = []
    assert os.listdir(base / "out") == made
    assert sorted(os.listdir(base)) in (["out", "package.spack"], ["package.spack"])


FUZZ = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}


@settings(max_examples=300, **FUZZ)  # type: ignore[arg-type]  # two values of different types
@given(st.data())
def test_no_change_of_the_archive_does_harm(tmp_path: Path, data: st.DataObject) -> None:
    changed = bytearray(GOOD)
    for _ in range(data.draw(st.integers(1, 4))):
        block = data.draw(st.integers(0, len(GOOD) // 512 - 1)) * 512
        where = block + data.draw(st.sampled_from([0, 100, 124, 136, 148, 156, 157, 257, 345, 511]))
        changed[where] = data.draw(st.integers(0, 255))
        if data.draw(st.booleans()):  # a right check sum leads deeper
            header = changed[block : block + 512]
            header[148:156] = b" " * 8
            changed[block + 148 : block + 156] = b"%06o\0 " % sum(header)
    check_hostile(bytes(changed), tmp_path / "fuzz")


@settings(max_examples=100, **FUZZ)  # type: ignore[arg-type]  # two values of different types
@given(st.binary(max_size=2000), st.sampled_from([b"", b"\x1f\x8b\x08", b"BZh9", b"\xfd7zXZ\0"]))
def test_no_bytes_do_harm(tmp_path: Path, data: bytes, start: bytes) -> None:
    check_hostile(start + data, tmp_path / "fuzz")


def test_a_prefix_that_its_owner_may_not_write(tmp_path: Path) -> None:
    entries = make.parents()
    entries[-1] = directory(PREFIX, 0o555)
    last = [directory("./.spack", 0o555), entry("./.spack/binary_distribution", make.BUILDINFO, mode=0o444)]
    unpack(stored(make.archive([*entries, *last])), tmp_path)
    assert (tmp_path / "out/demo").stat().st_mode & 0o777 == 0o555
    assert (tmp_path / "out/demo/.spack").stat().st_mode & 0o777 == 0o555


@given(
    st.lists(st.sampled_from([b"/opt", b"/store", b"/op", b"x", b"/", b"/opt/store/p"]), max_size=12),
    st.data(),
)
def test_a_path_is_found_wherever_the_pieces_of_a_file_end(parts: list[bytes], data: st.DataObject) -> None:
    text = b"".join(parts)
    above = (b"/opt", b"/opt/store", b"/opt/store/p")
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    search = Search(above)
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        search.feed(b"?" + text + b"?", start + 1, end + 1)
    assert search.depth == sum(path in text for path in above)
    assert deepest(above, 0, b"?" + text + b"?", 1, len(text) + 1) == search.depth
