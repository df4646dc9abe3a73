"""A copy on a file system with reflinks shares the bytes of its source, and is proven all the same."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.functional.conftest import Done
from tests.tools.mirrors import make_node, write_index, write_package

Cli = Callable[..., Done]
SIZE = 24 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Return a directory on a small file system with reflinks."""
    if shutil.which("mkfs.xfs", path=f"{os.environ['PATH']}:/usr/sbin") is None:
        pytest.skip("there is no mkfs.xfs here")
    image, where = tmp_path / "image", tmp_path / "disk"
    where.mkdir()
    with image.open("wb") as file:
        file.truncate(400 << 20)
    environment = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin"}
    subprocess.run(["mkfs.xfs", "-q", "-m", "reflink=1", str(image)], check=True, env=environment)
    if subprocess.run(["mount", "-o", "loop", image, where], capture_output=True, check=False).returncode:
        pytest.skip("mounting a loop device needs root")
    yield where
    subprocess.run(["umount", str(where)], check=True)


def mirror_on(disk: Path) -> tuple[Path, Path]:
    """Write a mirror of one package with a large tarball; return it and the tarball."""
    mirror, node = disk / "source", make_node("big")
    payload = os.urandom(SIZE)
    write_package(mirror, node, payload)
    write_index(mirror, node)
    digest = hashlib.sha256(payload).hexdigest()
    return mirror, mirror / "blobs/sha256" / digest[:2] / digest


def used(disk: Path) -> int:
    os.sync()
    found = os.statvfs(disk)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


def test_a_large_tarball_is_shared_with_its_source(cli: Cli, disk: Path) -> None:
    mirror, tarball = mirror_on(disk)
    before = used(disk)
    done = cli("sync", "--all", "--from", mirror, "--unsigned", "--to", disk / "to", "--json")
    assert (done.code, done.json["done"]["copied_bytes"] >= SIZE) == (0, True), done.err
    copy = disk / "to" / tarball.relative_to(mirror)
    assert copy.read_bytes() == tarball.read_bytes()
    assert copy.stat().st_ino != tarball.stat().st_ino
    assert used(disk) - before < SIZE // 2
    assert cli("verify", disk / "to", "--unsigned", "-q").code == 0


def test_what_is_shared_is_proven(cli: Cli, disk: Path) -> None:
    mirror, tarball = mirror_on(disk)
    good = tarball.read_bytes()
    tarball.chmod(0o644)
    tarball.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    words = ("sync", "--all", "--from", mirror, "--unsigned", "--to", disk / "to", "--json")
    done = cli(*words)
    assert done.code == 9
    assert [problem["what"] for problem in done.json["problems"]] == ["digest-mismatch"]
    assert not (disk / "to" / tarball.relative_to(mirror)).exists()
    tarball.write_bytes(good)  # the part of before is of no use, and in nobody's way
    assert cli(*words).code == 0
    assert (disk / "to" / tarball.relative_to(mirror)).read_bytes() == good
