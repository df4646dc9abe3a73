"""Where batch systems bound the address space: little is enough, and less is told as what it is."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from tests.functional.conftest import KEY, MIRROR, ROOT

from cachefetch.cli.memory import exhausted

COMMANDS = {
    "fetch": ("fetch", "zlib", "--no-deps", "-m", MIRROR, "--key", KEY, "--json"),
    "extract": ("extract", "/4znr57ewjpwhs3c5cux3abeg2ygubgbl", "OUT", "-m", MIRROR, "--key", KEY, "--json"),
    "sync": ("sync", "--all", "--from", MIRROR, "--key", KEY, "--to", "OUT", "--json"),
    "verify": ("verify", MIRROR, "--key", KEY, "--json"),
}


def run(tmp_path: Path, mib: int, command: str) -> subprocess.CompletedProcess[str]:
    """Run a command with so much address space."""
    words = [str(tmp_path / "out") if word == "OUT" else word for word in COMMANDS[command]]
    return subprocess.run(
        [sys.executable, "-m", "cachefetch", *words],
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT / ".dev"),
            "XDG_CACHE_HOME": str(tmp_path / "cache"),
            "XDG_CONFIG_HOME": str(tmp_path / "config"),
        },
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (mib << 20, mib << 20)),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_200_mib_are_enough(tmp_path: Path, command: str) -> None:
    done = run(tmp_path, 200, command)
    assert done.returncode == 0, done.stderr


def test_too_little_is_told(tmp_path: Path) -> None:
    for mib in (36, 44, 50):  # with less than 30 Python itself may end with a fatal error
        done = run(tmp_path, mib, "sync")
        assert (done.returncode, "internal" in done.stderr) == (10, False), done.stderr
        assert f"it may have {mib} MiB of address space" in done.stderr
        assert "ulimit -v" in done.stderr


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (MemoryError(), "memory"),
        (OSError(12, "Cannot allocate memory"), "memory"),
        (ImportError("libgcc_s.so.1: cannot create shared object descriptor"), "memory"),
        (RuntimeError("can't start new thread"), "threads"),
        (OSError(24, "Too many open files"), "open files"),
        (RuntimeError("generator raised StopIteration"), ""),
        (OSError(2, "No such file"), ""),
        (ImportError("No module named 'x'"), ""),
    ],
)
def test_what_lacks(error: Exception, what: str) -> None:
    try:
        try:
            raise error
        except (MemoryError, OSError, ImportError, RuntimeError):
            raise LookupError("something that came of it") from error
    except LookupError as later:
        for one in (error, later):
            found = exhausted(one)
            assert (found.context["reason"] if found else "") == what
