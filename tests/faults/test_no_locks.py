"""Commands on file systems without any locks: a preloaded library refuses flock and fcntl, for SQLite too."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = Path(__file__).parent / "no_locks.c"
MIRROR, KEY = ROOT / "examples/mirror", ROOT / "examples/mirror.pub.asc"
COMPILER = shutil.which("cc")
HOST = ("--platform", "linux", "--os", "debian12", "--target", "x86_64_v3", "--libc", "glibc@2.36")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the library that refuses all locks."""
    if COMPILER is None:
        pytest.skip("the library that refuses locks needs a C compiler")
    path = tmp_path_factory.mktemp("library") / "no_locks.so"
    subprocess.run([COMPILER, "-shared", "-fPIC", "-o", path, SOURCE, "-ldl"], check=True)
    return path


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS])
def test_list_fetch_and_sync_need_no_locks(library: Path, tmp_path: Path, code: int) -> None:
    refusing = {"LD_PRELOAD": str(library), "LOCK_ERRNO": str(code)}
    own = {"PYTHONPATH": str(ROOT / ".dev"), "XDG_CACHE_HOME": str(tmp_path / "cache")}

    def run(*words: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "cachefetch", *map(str, words)],
            env={**os.environ, **own, **refusing},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    probe = subprocess.run(
        [sys.executable, "-c", f"import fcntl; fcntl.flock(open({str(SOURCE)!r}), fcntl.LOCK_SH)"],
        env={**os.environ, **refusing},
        capture_output=True,
        check=False,
    )
    assert probe.returncode, "the library refuses no locks"
    for _ in range(2):  # filled, then read
        done = run("list", "-m", MIRROR)
        assert done.returncode == 0, done.stderr
    done = run("fetch", "py-multidict", "-m", MIRROR, "--key", KEY, *HOST)
    assert done.returncode == 0, done.stderr
    for words in (("--all",), ("--all",), ("--all", "--check")):
        done = run("sync", *words, "--from", MIRROR, "--key", KEY, "--to", tmp_path / "copy", "--json")
        assert done.returncode == 0, done.stderr
        assert "cannot be read" not in done.stderr
        assert json.loads(done.stdout)
    assert not list((tmp_path / "copy/.cachefetch").glob("*.lease"))
    done = run("verify", tmp_path / "copy", "--key", KEY)
    assert done.returncode == 0, done.stderr


def test_a_second_sync_is_kept_away_without_locks(library: Path, tmp_path: Path) -> None:
    """The lease of a living process, here this one, stands for its lock."""
    own = tmp_path / "copy/.cachefetch"
    own.mkdir(parents=True)
    (own / "lock.lease").write_text(json.dumps({"host": os.uname().nodename, "pid": os.getpid()}))
    words = ["sync", "--all", "--from", str(MIRROR), "--key", str(KEY), "--to", str(tmp_path / "copy")]
    done = subprocess.run(
        [sys.executable, "-m", "cachefetch", *words],
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT / ".dev"),
            "LD_PRELOAD": str(library),
            "LOCK_ERRNO": str(errno.ENOLCK),
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 10
    assert "another sync works on" in done.stderr
    assert (own / "lock.lease").exists()
