"""The example programs run as a user runs them, and fetch what Spack says the packages are."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ASYNC = "installer_async.py"
SYNC = "installer_sync.py"
SPEC = "py-multidict@6.1.0"
CHOSEN = "apj2lpnqrk5oorjxeuf6boihnnx6wy4n"  # the build of examples/mirror for debian12, x86_64_v3


def run(repository: Path, script: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the example outside of its directory, with the package of this checkout."""
    return subprocess.run(
        [sys.executable, str(repository / "examples" / script), *map(str, words)],
        cwd=os.environ["HOME"],
        env={**os.environ, "PYTHONPATH": str(repository / ".dev")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def digests_of_closure(fixture_mirrors: Path, root: str) -> dict[str, str]:
    """Return the sha256 of every tarball in the link/run closure by file name, from Spack's own reading."""
    expected = json.loads((fixture_mirrors / "v3-signed/EXPECTED.json").read_text())
    by_hash = {spec["hash"]: spec for spec in expected["specs"]}
    found: dict[str, str] = {}
    waiting = [root]
    while waiting:
        spec = by_hash[waiting.pop()]
        if spec["external"]:
            continue
        name = f"{spec['name']}-{spec['version']}-{spec['hash']}.spack"
        found[name] = spec["artifact"]["tarball_sha256"]
        waiting += [d["hash"] for d in spec["dependencies"] if {"link", "run"} & set(d["types"])]
    return found


def digests_in(directory: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in directory.iterdir()}


@pytest.mark.parametrize("script", [ASYNC, SYNC])
def test_example_fetches_the_closure(
    repository: Path, fixture_mirrors: Path, tmp_path: Path, script: str
) -> None:
    done = run(repository, script, SPEC, "--to", tmp_path / "out", "--for-nodes")
    assert (done.returncode, done.stderr) == (0, "")
    assert CHOSEN[:7] in done.stdout
    expected = digests_of_closure(fixture_mirrors, CHOSEN)
    assert len(expected) == 6
    assert digests_in(tmp_path / "out") == expected


def test_async_example_prints_events(repository: Path, tmp_path: Path) -> None:
    done = run(repository, ASYNC, SPEC, "--to", tmp_path / "out", "--for-nodes")
    assert "6 packages, 0 here already" in done.stdout
    assert done.stdout.count("verified ") == 6
    again = run(repository, ASYNC, SPEC, "--to", tmp_path / "out2", "--for-nodes")
    assert "6 packages, 6 here already, 0 bytes to get" in again.stdout


@pytest.mark.parametrize("script", [ASYNC, SYNC])
@pytest.mark.parametrize(
    ("spec", "exit_code", "told"),
    [("py-multidict@", 2, "py-multidict@"), ("py-multidict@9", 3, "py-multidict@9")],
)
def test_example_ends_with_the_exit_code_of_the_error(
    repository: Path, tmp_path: Path, script: str, spec: str, exit_code: int, told: str
) -> None:
    done = run(repository, script, spec, "--to", tmp_path / "out", "--for-nodes")
    assert done.returncode == exit_code, done.stderr
    assert told in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_async_example_refuses_an_unknown_key_and_installs_nothing(repository: Path, tmp_path: Path) -> None:
    done = run(repository, ASYNC, SPEC, "--to", tmp_path / "out", "--for-nodes", "--key", "")
    assert done.returncode == 7, done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("out/*"))


def test_async_example_names_a_mirror_that_is_not_there(repository: Path, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    done = run(repository, ASYNC, SPEC, "--to", tmp_path / "out", "--for-nodes", "--mirror", nowhere)
    assert done.returncode == 8, done.stderr
    assert "nowhere" in done.stderr
