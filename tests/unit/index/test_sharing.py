"""Several processes and tasks on one local index, damage, kills, and a store that cannot be written."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.faults.server import FaultServer

import cachefetch
from cachefetch.resolver.index.store import IndexStore

ROOT = Path(__file__).parents[3]
FIXTURES = ROOT / "tests/data/fixtures"
HOST = ["--platform", "linux", "--os", "debian12", "--target", "x86_64_v3", "--libc", "glibc@2.36"]
INGESTS = """
import sys
from cachefetch.resolver.index.store import IndexStore
inner = IndexStore.ingest
def ingest(self, *args, **kwargs):
    print("INGEST", file=sys.stderr)
    return inner(self, *args, **kwargs)
IndexStore.ingest = ingest
from cachefetch.__main__ import main
sys.exit(main())
"""


def start(*words: str | Path, prefix: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """Start the command line in a process of its own that says on stderr when it fills the store."""
    return subprocess.Popen(
        [*prefix, sys.executable, "-c", INGESTS, *map(str, words)],
        env={**os.environ, "PYTHONPATH": str(ROOT / ".dev"), "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("over_http", [False, True], ids=["directory", "http"])
def test_sixteen_processes_on_a_cold_store_fill_it_once(over_http: bool, tmp_path: Path) -> None:
    shutil.copytree(FIXTURES / "v3-unsigned", tmp_path / "mirror")
    with FaultServer(str(tmp_path)) as server:
        place = f"{server.url}/mirror" if over_http else str(tmp_path / "mirror")
        running = [start("resolve", "zlib@1.3.1", "-m", place, *HOST) for _ in range(16)]
        done = [(process.communicate(timeout=60), process.returncode) for process in running]
        asked = server.count("/blobs/")
    assert {code for _, code in done} == {0}, [err for (_, err), code in done if code]
    assert len({out for (out, _), _ in done}) == 1
    assert sum(err.count("INGEST") for (_, err), _ in done) == 1
    assert asked == int(over_http)


def test_a_filled_store_can_be_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prefix: tuple[str, ...] = ()
    if os.getuid() == 0:  # root may write everywhere, unless it lacks the capability to
        if shutil.which("setpriv") is None:
            pytest.skip("root can write everywhere, and there is no setpriv to take that away")
        prefix = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")
    cache = tmp_path / "cache"
    monkeypatch.setenv("CACHEFETCH_CACHE_DIR", str(cache))
    shutil.copytree(FIXTURES / "v3-signed", tmp_path / "mirror")
    with FaultServer(str(tmp_path)) as server:
        for place in (f"{server.url}/mirror", str(tmp_path / "mirror")):
            words = ["resolve", "py-multidict", "-m", place, *HOST]
            first = start(*words)
            first.communicate(timeout=30)
            assert first.returncode == 0
            for path in [cache, *cache.rglob("*")]:
                path.chmod(0o555 if path.is_dir() else 0o444)
            for more in ([], ["--refresh"]):
                process = start(*words, *more, prefix=prefix)
                out, err = process.communicate(timeout=30)
                assert process.returncode == 0, err
                assert "INGEST" not in err
                assert "py-multidict" in out
            for path in [cache, *cache.rglob("*")]:
                path.chmod(0o755 if path.is_dir() else 0o644)


def resolve(place: str) -> str:
    with cachefetch.Client([place]) as client:
        listing = client.list("zlib")
    return hashlib.sha256(repr(listing.specs).encode()).hexdigest()


def sidecars() -> list[Path]:
    return sorted(Path(os.environ["XDG_CACHE_HOME"]).rglob("sidecar.sqlite"))


def test_damage_anywhere_in_the_sidecar_is_survived(tmp_path: Path) -> None:
    place = str(FIXTURES / "v3-unsigned")
    expected = resolve(place)
    (sidecar,) = sidecars()
    good = sidecar.read_bytes()
    chance = random.Random(5)
    for _ in range(60):
        bad = bytearray(good)
        at = chance.randrange(len(bad))
        bad[at : at + 200] = chance.randbytes(len(bad[at : at + 200]))
        sidecar.write_bytes(bad)
        resolve(place)  # may lack what the damage hit; no error of SQLite, JSON or the system gets out
    sidecar.write_bytes(good)
    assert resolve(place) == expected
    sidecar.write_bytes(good[: len(good) // 2])
    assert resolve(place) == expected


def test_a_damaged_page_of_the_sidecar_is_noticed_at_use(tmp_path: Path) -> None:
    place = str(FIXTURES / "v3-unsigned")
    expected = resolve(place)
    (sidecar,) = sidecars()
    with sqlite3.connect(sidecar) as db:
        page = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'by_pkg'").fetchone()[0]
        size = db.execute("PRAGMA page_size").fetchone()[0]
    db.close()
    data = bytearray(sidecar.read_bytes())
    data[(page - 1) * size : page * size] = b"\xff" * size
    sidecar.write_bytes(data)
    assert resolve(place) == expected
    assert sidecar.read_bytes() != bytes(data)


def test_a_kill_at_any_moment_leaves_the_old_state_or_the_new(tmp_path: Path) -> None:
    shutil.copytree(FIXTURES / "v3-unsigned", tmp_path / "mirror")
    chance = random.Random(11)
    killed = 0
    with FaultServer(str(tmp_path)) as server:
        url = f"{server.url}/mirror"
        for number in range(12):
            process = start("list", "zlib", "-m", url, "--refresh", *HOST)
            time.sleep(chance.uniform(0.05, 0.5))
            process.send_signal(signal.SIGKILL)
            process.communicate()
            killed += process.returncode == -signal.SIGKILL
            index = IndexStore(str(Path(os.environ["XDG_CACHE_HOME"]) / "cachefetch/index")).load(url, "m")
            if index is not None:
                assert index.check() == (0, True)
                assert index.count() == 414
                index.close()
            if number % 4 == 3:  # another index each few rounds, so that there is something to replace
                for name in ("v3-signed", "v3-unsigned")[number // 4 % 2 :]:
                    shutil.rmtree(tmp_path / "mirror")
                    shutil.copytree(FIXTURES / name, tmp_path / "mirror")
        assert killed
        with cachefetch.Client([url], refresh=True) as client:
            assert client.update()[0].state == "fresh"


def test_secrets_of_a_url_are_not_written_to_the_store(tmp_path: Path) -> None:
    shutil.copytree(FIXTURES / "v3-signed", tmp_path / "mirror")
    with FaultServer(str(tmp_path), user="Basic dXNlcjpzM2NyM3Q=") as server:
        url = f"{server.url}/mirror".replace("://", "://user:s3cr3t@")
        with cachefetch.Client([url]) as client:
            assert client.update()[0].state == "fresh"
    for path in Path(os.environ["XDG_CACHE_HOME"]).rglob("*"):
        assert "s3cr3t" not in str(path)
        assert path.is_dir() or b"s3cr3t" not in path.read_bytes()


def test_a_fresh_remote_index_is_used_without_any_module_of_the_network(tmp_path: Path) -> None:
    shutil.copytree(FIXTURES / "v3-signed", tmp_path / "mirror")
    program = (
        "import sys\nfrom cachefetch.__main__ import main\nstatus = main()\n"
        "print(*sys.modules, file=sys.stderr)\nsys.exit(status)"
    )
    with FaultServer(str(tmp_path)) as server:
        words = ["resolve", "py-multidict", "-m", f"{server.url}/mirror", *HOST]
        for _ in range(2):
            asked = len(server.requests)
            done = subprocess.run(
                [sys.executable, "-c", program, *words],
                env={**os.environ, "PYTHONPATH": str(ROOT / ".dev")},
                capture_output=True,
                text=True,
                check=True,
            )
        assert len(server.requests) == asked
    loaded = set(done.stderr.split())
    assert "cachefetch.resolver.index.store" in loaded
    assert not loaded & {
        "httpx",
        "httpcore",
        "ssl",
        "anyio",
        "asyncio",
        "socket",
        "dataclasses",
        "yaml",
        "fcntl",
    }
