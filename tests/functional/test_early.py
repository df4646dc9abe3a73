"""A fetch that goes well needs no event loop; one that does not goes on in one, and nothing is asked for twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.faults.server import Fault, FaultServer
from tests.functional.conftest import DEBIAN, KEY, MIRROR
from tests.test_import_time import PROGRAM

LOOP = {"anyio", "asyncio", "httpx", "httpcore", "tenacity", "concurrent"}


def run(repository: Path, cache: Path, *words: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(repository / ".dev"), "CACHEFETCH_CACHE_DIR": str(cache)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize("way", ["spec", "lock", "name"])
def test_a_fetch_over_http_that_goes_well_loads_no_event_loop(
    repository: Path, tmp_path: Path, way: str
) -> None:
    with FaultServer(MIRROR) as server:
        mirror = ["-m", server.url, "--key", KEY]
        lock = str(tmp_path / "lock")
        run(repository, tmp_path / "a", "resolve", "py-multidict@6.1.0", *mirror, *DEBIAN, "--lock", lock)
        package = json.loads(Path(lock).read_text())["packages"][0]
        named = f"{package['name']}@={package['version']}/{package['hash']}"
        what = {"spec": ["py-multidict@6.1.0"], "lock": ["--lock", lock], "name": [named, "--no-deps"]}[way]
        if way == "spec":
            run(repository, tmp_path / "b", "resolve", *what, *mirror, *DEBIAN)  # reads the index
        done = run(repository, tmp_path / "b", "fetch", *what, *mirror, *DEBIAN, "--json")
    receipt = json.loads(done.stdout)
    assert {item["from"] for item in receipt["items"]} == {"network"}
    loaded = {line for line in done.stderr.split() if line.startswith(tuple(LOOP))}
    assert {name for name in loaded if name.partition(".")[0] in LOOP} == set()


def test_what_fails_at_first_goes_on_in_a_loop_and_nothing_else_is_asked_for_twice(
    repository: Path, tmp_path: Path
) -> None:
    with FaultServer(MIRROR) as server:
        options = ["-m", server.url, "--key", KEY, *DEBIAN]
        lock = tmp_path / "lock"
        run(repository, tmp_path / "a", "resolve", "py-multidict@6.1.0", *options, "--lock", str(lock))
        sha256 = json.loads(lock.read_text())["packages"][1]["sha256"]
        blob = f"/blobs/sha256/{sha256[:2]}/{sha256}"
        run(repository, tmp_path / "b", "resolve", "py-multidict@6.1.0", *options)
        before = len(server.requests)
        server.script(blob, Fault(status=503))
        done = run(repository, tmp_path / "b", "fetch", "py-multidict@6.1.0", *options, "--json")
        asked = [one.path for one in server.requests[before:] if not one.path.endswith("index.manifest.json")]
    assert len(json.loads(done.stdout)["items"]) == 6
    assert "anyio" in done.stderr.split()
    assert sorted(asked) == sorted([*set(asked), blob]), "only what failed comes twice"
