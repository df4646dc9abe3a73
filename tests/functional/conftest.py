"""The command line as users call it, with a private cache and configuration."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cachefetch.cli import run

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
PAGE = str(EXAMPLES / "pages" / "py-multidict.md")
MIRROR = str(EXAMPLES / "mirror")
KEY = str(EXAMPLES / "mirror.pub.asc")
FIXTURES = ROOT / "tests" / "data" / "fixtures"


@dataclass(frozen=True)
class Done:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def cli(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., Done]:
    """Return a function that runs one command in this process."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name in ("CACHE_DIR", "MAX_AGE", "LIBC"):
        monkeypatch.delenv(f"CACHEFETCH_{name}", raising=False)

    def call(*words: str) -> Done:
        capsys.readouterr()
        code = run([str(word) for word in words])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return Done(code, captured.out, captured.err)

    return call


def host(
    platform: str, os: str, target: str, libc: str | None = None, compiler: str | None = None
) -> list[str]:
    """Return the flags for a pretended host."""
    words = ["--platform", platform, "--os", os, "--target", target]
    words += ["--libc", libc] if libc else []
    return words + (["--compiler", compiler] if compiler else [])


DEBIAN = host("linux", "debian12", "x86_64_v3", "glibc@2.36", "gcc@12.2.0")


@pytest.fixture
def small_disk(tmp_path: Path) -> Any:
    """Return a directory on a file system of 400 KiB."""
    where = tmp_path / "small"
    where.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "cachefetch-test", str(where)]
    try:
        done = subprocess.run(mount, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command here")
    if done.returncode:
        pytest.skip("mounting a small tmpfs needs root")
    yield where
    subprocess.run(["umount", str(where)], check=True)
