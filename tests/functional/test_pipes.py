"""A FIFO, or a link to itself, in the place of a file ends no command in an endless wait or endless tries."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.functional.conftest import DEBIAN, KEY, MIRROR, Done

Cli = Callable[..., Done]


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    return Path(shutil.copytree(MIRROR, tmp_path / "mirror"))


def put_pipe(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


@pytest.mark.parametrize("which", ["v3/manifests/spec/*/*.json", "blobs/sha256/*/*"])
def test_in_a_mirror(cli: Cli, mirror: Path, tmp_path: Path, which: str) -> None:
    put_pipe(sorted(mirror.glob(which))[0])
    done = cli("verify", mirror, "--key", KEY)
    assert done.code == 9
    assert "not a regular file" in done.out
    assert cli("sync", "--all", "--from", mirror, "--key", KEY, "--to", tmp_path / "to").code == 9


@pytest.mark.parametrize("which", ["v3/manifests/spec/zlib/*.json", "blobs/sha256/*/*"])
def test_links_in_a_circle_are_a_damaged_mirror(cli: Cli, mirror: Path, tmp_path: Path, which: str) -> None:
    """It is no trouble that goes away, so "try again" would be of no use."""
    for path in mirror.glob(which):
        if "blobs" not in which or path.stat().st_size < 30_000:  # all but the index
            path.unlink()
            path.symlink_to(path.name)
    done = cli("fetch", "zlib", "-m", mirror, "--key", KEY, "--to", tmp_path / "to", *DEBIAN)
    assert (done.code, "Too many levels of symbolic links" in done.err) == (4, True), done.err
    alone = cli("fetch", "zlib", "-m", mirror, "--key", KEY, "--to", tmp_path / "to", *DEBIAN, "--no-deps")
    assert "try again" not in done.err + alone.err
    assert cli("verify", mirror, "--key", KEY).code == 9


def test_as_a_manifest_of_the_destination(cli: Cli, mirror: Path) -> None:
    put_pipe(sorted(mirror.glob("v3/manifests/spec/*/*.json"))[0])
    done = cli("sync", "--all", "--from", MIRROR, "--key", KEY, "--to", mirror)
    assert done.code == 10
    assert "not a regular file" in done.err


def test_as_a_bundle(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "x.bundle"
    put_pipe(path)
    for words in (["bundle", "import", path, "--to", tmp_path / "to"], ["bundle", "verify", path]):
        assert cli(*words).code == 8
    assert cli("list", "-m", path).code == 8


def test_in_the_key_directory(cli: Cli, tmp_path: Path) -> None:
    assert cli("key", "trust", KEY).code == 0
    put_pipe(tmp_path / "config/cachefetch/keys/ff.asc")
    assert "782919F9" in cli("key", "list").out
    put_pipe(tmp_path / "site.key")
    assert cli("key", "trust", tmp_path).code == 2
