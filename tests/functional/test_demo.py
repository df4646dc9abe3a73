"""The script behind `make demo`, on a host where the example mirror fits and on one where it does not."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

FITS = "--platform linux --os debian12 --target zen3 --libc glibc@2.36"
FITS_NOT = "--platform linux --os rocky8 --target x86_64_v3 --libc glibc@2.28"


def demo(repository: Path, tmp_path: Path, host: str) -> subprocess.CompletedProcess[str]:
    """Run the demo with a command that takes `host` for this machine wherever no host is given."""
    command = tmp_path / "cachefetch"
    command.write_text(
        f'#!/bin/sh\ncase "$*" in *--platform*) ;; *) set -- "$@" {host} ;; esac\n'
        f'exec "{sys.executable}" -m cachefetch "$@"\n'
    )
    command.chmod(0o755)
    return subprocess.run(
        ["sh", str(repository / "examples/demo.sh")],
        env={
            **os.environ,
            "PYTHONPATH": str(repository / ".dev"),
            "CACHEFETCH": str(command),
            "DEMO_OUT": str(tmp_path / "out"),
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(("host", "explained"), [(FITS, False), (FITS_NOT, True)])
def test_demo_ends_with_verified_files(
    repository: Path, example_mirror: Path, tmp_path: Path, host: str, explained: bool
) -> None:
    done = demo(repository, tmp_path, host)
    assert done.returncode == 0, done.stdout + done.stderr
    assert ("no binary that runs on this host" in done.stdout) is explained
    files = list((tmp_path / "out").glob("*.spack"))
    assert len(files) == 6
    for path in files:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert (example_mirror / "blobs/sha256" / digest[:2] / digest).is_file()
        assert path.name in done.stdout
    assert "0 bytes over the network" in done.stdout + done.stderr
    assert "  network  " not in done.stdout  # the mirror is a directory


def test_demo_leaves_the_store_of_the_user_alone(repository: Path, tmp_path: Path) -> None:
    done = demo(repository, tmp_path, FITS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(Path(os.environ["HOME"]).iterdir()) == []
    assert (tmp_path / "out/.home/cache").is_dir()


def test_demo_stops_with_the_exit_code_of_a_failure(repository: Path, tmp_path: Path) -> None:
    done = demo(repository, tmp_path, "--platform linux --os debian12 --target '' --libc nonsense")
    assert done.returncode == 2, done.stdout + done.stderr
