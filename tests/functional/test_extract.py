"""``cachefetch extract``: a verified package becomes a directory, or nothing at all."""

from __future__ import annotations

import bz2
import contextlib
import lzma
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.functional.conftest import DEBIAN, KEY, MIRROR, ROOT, Done
from tests.tools import archive
from tests.tools.archive import entry, package, stored
from tests.tools.mirrors import make_node, write_index, write_package

from cachefetch import Client
from cachefetch.errors import StoreError
from cachefetch.fetch.extract import require_absent

Cli = Callable[..., Done]
ZLIB = "/4znr57ewjpwhs3c5cux3abeg2ygubgbl"
DARWIN = "/nnqipaqhiabpiv7hytlh2kggfa3ijry6"
TRUSTED = ("-m", MIRROR, "--key", KEY)


def test_a_hash(cli: Cli, tmp_path: Path) -> None:
    done = cli("extract", ZLIB, tmp_path / "zlib", *TRUSTED, "--json")
    assert done.code == 0, done.err
    document = done.json
    assert document["schema"] == "cachefetch/extract/1"
    assert document["path"] == str(tmp_path / "zlib")
    assert document["verified"] == {
        "digest": True,
        "binding": True,
        "signature": "good",
        "key": "782919F9DB28EF14FA36F2A892DFACD7F6EA048A",
        "dag_hash": True,
    }
    assert document["relocated"] is False
    assert document["build_prefix"].startswith(document["build_root"] + "/")
    assert document["holding_build_root"] > 0
    root = document["build_root"].encode()
    holding = [
        path
        for path in (tmp_path / "zlib").rglob("*")
        if ".spack" not in path.parts
        and (
            (path.is_symlink() and os.readlink(path).encode().startswith(root))
            or (not path.is_symlink() and path.is_file() and root in path.read_bytes())
        )
    ]
    assert document["holding_build_root"] == len(holding)
    assert "not relocated" in done.err
    assert str(len(holding)) in done.err


def test_a_hash_needs_no_fitting_host_and_a_spec_does(cli: Cli, tmp_path: Path) -> None:
    done = cli("extract", DARWIN, tmp_path / "darwin", *TRUSTED)
    assert done.code == 0
    assert done.out.split()[:2] == ["zlib@1.3.1", DARWIN]
    assert cli("extract", "zlib", tmp_path / "spec", *TRUSTED, *DEBIAN).code == 0
    assert (tmp_path / "spec/lib").is_dir()
    assert cli("extract", "zlib@99", tmp_path / "none", *TRUSTED, *DEBIAN).code == 3
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("text", ["/a", "/zzzzzzz"])
def test_a_hash_that_means_none_or_many(cli: Cli, tmp_path: Path, text: str) -> None:
    done = cli("extract", text, tmp_path / "x", *TRUSTED)
    assert done.code == 2
    assert not (tmp_path / "x").exists()


def test_an_existing_directory_is_not_touched(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x/mine").write_text("mine")
    done = cli("extract", ZLIB, tmp_path / "x", *TRUSTED, "--json")
    assert (done.code, done.json["code"]) == (2, "usage")
    assert os.listdir(tmp_path / "x") == ["mine"]


def test_a_name_that_is_too_long_says_so(cli: Cli, tmp_path: Path) -> None:
    done = cli("extract", ZLIB, tmp_path / ("x" * 300), *TRUSTED, "--json")
    assert (done.code, done.json["code"]) == (2, "usage")
    assert "too long" in done.json["message"]
    assert "exists" not in done.err


def test_without_key_nothing_is_unpacked(cli: Cli, tmp_path: Path) -> None:
    assert cli("extract", ZLIB, tmp_path / "x", "-m", MIRROR).code == 7
    assert not (tmp_path / "x").exists()


def test_from_the_store_offline_and_behind_a_page(cli: Cli, tmp_path: Path, example_page: Path) -> None:
    assert cli("extract", ZLIB, tmp_path / "one", *TRUSTED).code == 0
    done = cli("extract", ZLIB, tmp_path / "two", *TRUSTED, "--offline", "--json")
    assert (done.code, done.json["from"]) == (0, "store")
    page = cli("list", "-m", example_page).out.splitlines()[0].split()[1]
    done = cli("extract", page, tmp_path / "page", "-m", example_page, *TRUSTED, "--json")
    assert (done.code, done.json["name"]) == (0, "py-multidict"), done.err


def test_a_signed_but_unsafe_package_leaves_nothing(cli: Cli, tmp_path: Path) -> None:
    node = make_node("demo")
    write_package(tmp_path / "m", node, stored(package(entry("./../../../../../evil", b"x"))))
    write_index(tmp_path / "m", node)
    done = cli(
        "extract", f"/{node['hash']}", tmp_path / "out/x", "-m", tmp_path / "m", "--unsigned", "--json"
    )
    assert (done.code, done.json["code"]) == (6, "archive-parent-reference")
    assert done.json["context"]["member"].endswith("/evil")
    assert os.listdir(tmp_path / "out") == []
    assert not list(tmp_path.rglob("evil"))


@pytest.mark.parametrize(
    ("pack", "name"), [(lzma.compress, "xz"), (bz2.compress, "bzip2"), (stored, ""), (bytes, "")]
)
def test_what_spack_does_not_write_is_warned_of(
    cli: Cli, tmp_path: Path, pack: Callable[[bytes], bytes], name: str
) -> None:
    node = make_node("demo")
    write_package(tmp_path / "m", node, pack(archive.good()))
    write_index(tmp_path / "m", node)
    words = ("extract", f"/{node['hash']}", "-m", tmp_path / "m", "--unsigned")
    done = cli(*words, tmp_path / "text")
    assert done.code == 0
    assert (
        f"warning: the payload of demo@1.0/{node['hash'][:7]} is compressed with {name}" in done.err
    ) == bool(name)
    done = cli(*words, tmp_path / "json", "--json")
    assert [one["code"] for one in done.json["warnings"]] == (["unusual-compression"] if name else [])


@pytest.mark.parametrize("size", [100, 80 << 20])
def test_zstd_is_refused_by_name(cli: Cli, tmp_path: Path, size: int) -> None:
    node = make_node("demo")
    write_package(tmp_path / "m", node, b"\x28\xb5\x2f\xfd" + bytes(size))
    write_index(tmp_path / "m", node)
    done = cli(
        "extract", f"/{node['hash']}", tmp_path / "out" / "x", "-m", tmp_path / "m", "--unsigned", "--json"
    )
    assert (done.code, done.json["code"]) == (6, "archive-unsupported")
    assert "zstd" in done.json["message"]
    assert not list(tmp_path.glob("out/*"))


def test_the_library(tmp_path: Path) -> None:
    with Client([MIRROR], keys=[KEY]) as client:
        done = client.extract(ZLIB, str(tmp_path / "zlib"))
        assert done.contents.files == sum(
            1 for path in (tmp_path / "zlib").rglob("*") if path.is_file() and not path.is_symlink()
        )


def test_a_kill_leaves_nothing_under_the_final_name(tmp_path: Path) -> None:
    """Killed in the middle of writing: the destination does not exist, and a second run makes it."""
    node = make_node("demo")
    many = (entry(f"./f{number:05}", os.urandom(2000)) for number in range(8000))
    write_package(tmp_path / "m", node, stored(archive.package(*many)))
    write_index(tmp_path / "m", node)
    command = [sys.executable, "-m", "cachefetch", "extract", f"/{node['hash']}", str(tmp_path / "out/demo")]
    command += ["-m", str(tmp_path / "m"), "--unsigned"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / ".dev")}
    for _ in range(10):  # a busy machine may let the process finish between two looks at the directory
        with subprocess.Popen(
            command, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        ) as process:
            while process.poll() is None and not list((tmp_path / "out").glob(".cachefetch-extract-*")):
                pass
            process.kill()
        if process.returncode == -signal.SIGKILL:
            break
        shutil.rmtree(tmp_path / "out")
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "out/demo").exists()
    subprocess.run(command, env=environment, check=True, capture_output=True)
    assert len(os.listdir(tmp_path / "out/demo")) == 8001


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="the helper is for Linux")
def test_a_kill_ends_the_helper_too(tmp_path: Path) -> None:
    """A large plain package is read by a helper process: killing the command leaves neither it nor a final name."""
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one processor needs no helper")
    node = make_node("demo")
    block = os.urandom(40_000)
    write_package(
        tmp_path / "m", node, archive.package(*(entry(f"./f{number:05}", block) for number in range(4000)))
    )
    write_index(tmp_path / "m", node)
    command = [sys.executable, "-m", "cachefetch", "extract", f"/{node['hash']}", str(tmp_path / "out/demo")]
    command += ["-m", str(tmp_path / "m"), "--unsigned"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / ".dev")}
    with subprocess.Popen(
        command, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    ) as process:
        helpers: list[int] = []
        while process.poll() is None and not helpers:
            helpers = helpers_of(process.pid)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert len(helpers) == 1
    end = time.monotonic() + 20
    while is_running(helpers[0]) and time.monotonic() < end:
        time.sleep(0.01)
    assert not is_running(helpers[0])
    assert not (tmp_path / "out/demo").exists()
    subprocess.run(command, env=environment, check=True, capture_output=True)
    assert len(os.listdir(tmp_path / "out/demo")) == 4001


def helpers_of(pid: int) -> list[int]:
    """Return the child processes, of whatever thread, that read an archive."""
    found = []
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(child) for child in children.read_text().split()]
    return [child for child in found if b"unpack.reader" in command_of(child)]


def command_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("as_json", [True, False], ids=["json", "text"])
def test_names_in_an_archive_cannot_speak_to_the_terminal(cli: Cli, tmp_path: Path, as_json: bool) -> None:
    node = make_node("demo")
    names = ("./../../../\x1b[31mevil\r\x9b", "./x\x07\u202e\nhint: evil", "./x\udcff")
    for number, name in enumerate(names):
        mirror = tmp_path / f"m{number}"
        write_package(mirror, node, stored(package(entry(name, b"x", kind=b"6"))))
        write_index(mirror, node)
        words = ("extract", f"/{node['hash']}", tmp_path / "x", "-m", mirror, "--unsigned")
        done = cli(*words, *(("--json",) if as_json else ()))
        assert done.code == 6
        assert not any(text.startswith("hint: evil") for text in done.err.splitlines())
        for letter in (done.out + done.err).replace("\n", ""):
            assert letter.isprintable(), repr(letter)


@pytest.mark.parametrize("spec", [ZLIB[1:], ZLIB[1:8]])
@pytest.mark.parametrize("command", ["extract", "fetch", "resolve", "show"])
def test_a_hash_without_slash_is_recognised(cli: Cli, tmp_path: Path, command: str, spec: str) -> None:
    directory = [tmp_path / "x"] if command == "extract" else []
    done = cli(command, spec, *directory, *TRUSTED)
    assert done.code == 3
    assert f"did you mean the hash /{spec}?" in done.err
    assert "did you mean the hash" not in cli(command, "zlibx", *directory, *TRUSTED).err


def test_a_place_below_a_file(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for place in ("file", "file/x", "file/x/y"):
        done = cli("extract", ZLIB, tmp_path / place, *TRUSTED, "--json")
        assert (done.code, done.json["code"]) == (2, "usage")
        assert done.json["message"] == f"{tmp_path / 'file'} is a file, not a directory"
    (tmp_path / "link").symlink_to("nowhere")
    done = cli("extract", ZLIB, tmp_path / "link", *TRUSTED, "--json")
    assert (done.code, "is a symlink to nothing" in done.json["message"]) == (2, True)


@pytest.mark.parametrize("place", ["closed", "closed/x", "closed/x/y", "readable/x", "readable/x/y"])
def test_a_place_without_permission(tmp_path: Path, place: str) -> None:
    """It is said before anything is fetched, and it is not called a place that exists."""
    if os.getuid() != 0:
        pytest.skip("only root can become somebody else")
    with tempfile.TemporaryDirectory() as base:  # below no directory of this user, as tmp_path is
        os.chmod(base, 0o755)
        for name, mode in (("closed", 0o700), ("readable", 0o755)):
            Path(base, name).mkdir()
            Path(base, name).chmod(mode)
        target = str(Path(base, place))
        os.setresuid(65534, 65534, 0)
        try:
            with pytest.raises(StoreError, match="Permission denied") as caught:
                require_absent(target)
        finally:
            os.setresuid(0, 0, 0)
        assert caught.value.exit_code == 10
        assert "exists" not in caught.value.message
        assert "make the directory writable" in caught.value.hint


def test_a_place_on_a_read_only_file_system(cli: Cli, tmp_path: Path) -> None:
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "none", tmp_path], check=False).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        done = cli("extract", ZLIB, tmp_path / "x", *TRUSTED, "--json")
    finally:
        subprocess.run(["umount", tmp_path], check=True)
    assert (done.code, done.json["code"]) == (10, "store")
    assert "Read-only file system" in done.json["message"]
    assert "stored" not in done.err
