"""`cachefetch cache`: what is there, what may go, what is damaged; and site layers below the user's own store."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.faults.run import leftovers
from tests.functional.conftest import DEBIAN, KEY, MIRROR, Done

from cachefetch.errors import StoreError
from cachefetch.fetch.resume import PartInfo
from cachefetch.fetch.store.cas import Store

Cli = Callable[..., Done]
ROOT_HASH = "apj2lpnqrk5oorjxeuf6boihnnx6wy4n"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "cachefetch" / "store"


def fetch(cli: Cli, *more: str) -> Done:
    return cli("fetch", "py-multidict@6.1.0", "-m", MIRROR, "--key", KEY, *DEBIAN, "--json", *more)


def files(store: Path) -> set[Path]:
    """Return all files but those of the locks and of the notes, which always stay."""
    return {path for path in store.rglob("*") if path.is_file() and path.name not in ("locks", "proofs")}


def test_info_counts_what_is_there(cli: Cli, store: Path) -> None:
    assert cli("cache", "info", "--json").json["blobs"] == 0
    items = fetch(cli).json["items"]
    found = cli("cache", "info", "--json").json
    assert found["schema"] == "cachefetch/cache-info/1"
    blobs = [path for path in files(store) if "sha256" in path.parts]
    assert found["blobs"] == len(blobs)
    assert found["blob_bytes"] == sum(path.stat().st_size for path in blobs)
    assert found["manifests"] == len(items)
    assert (found["partial"], found["partial_bytes"]) == (0, 0)
    assert str(store) in cli("cache", "info").out


def test_gc_only_says_what_would_go(cli: Cli, store: Path) -> None:
    fetch(cli)
    before = files(store)
    done = cli("cache", "gc", "--json")
    assert done.code == 0
    assert {Path(path) for path in done.json["paths"]} == before
    assert files(store) == before


def test_gc_keeps_what_a_kept_root_needs(cli: Cli, store: Path, tmp_path: Path) -> None:
    items = fetch(cli).json["items"]
    assert cli("cache", "gc", "--keep", f"/{ROOT_HASH}", "--json").json["paths"] == []
    leaf = next(item for item in items if item["name"] == "zlib")
    (tmp_path / "lock").write_text(f'{{"anything": ["{leaf["hash"]}"]}}')
    done = cli("cache", "gc", "--keep", tmp_path / "lock", "--yes", "--json")
    assert done.json["removed"] is True
    assert 1 <= done.json["kept"] < len(items)
    left = {path.name for path in files(store)}
    assert leaf["sha256"] in left
    gone = next(item for item in items if item["hash"] == ROOT_HASH)
    assert gone["sha256"] not in left
    assert leftovers(store) == []
    assert cli("cache", "verify").code == 0
    assert fetch(cli).code == 0


@pytest.mark.parametrize("damage", ["document", "no document", "manifest"])
def test_gc_removes_nothing_where_it_cannot_know_what_is_needed(cli: Cli, store: Path, damage: str) -> None:
    fetch(cli)
    manifest = next((store / "manifests").glob(f"*-{ROOT_HASH}"))
    what = manifest if damage == "manifest" else next(store.rglob(spec_blob(manifest)))
    os.chmod(what, 0o644)
    what.write_bytes(b"")
    if damage == "no document":
        what.unlink()
    before = files(store)
    done = cli("cache", "gc", "--yes", "--keep", f"/{ROOT_HASH}")
    assert done.code == 10
    assert ROOT_HASH in done.err
    assert "nothing was removed" in done.err
    assert files(store) == before
    assert fetch(cli).code == 0
    assert cli("cache", "gc", "--yes", "--keep", f"/{ROOT_HASH}", "--json").json["paths"] == []


def spec_blob(manifest: Path) -> str:
    """Return the digest of the spec document that a stored manifest names."""
    signed = re.search(r"\{.*\n\}", manifest.read_text(), re.DOTALL)
    assert signed
    blobs = json.loads(signed[0])["data"]
    return str(next(blob["checksum"] for blob in blobs if ".spec." in blob["mediaType"]))


def test_gc_refuses_to_keep_what_the_store_does_not_have(cli: Cli, store: Path, tmp_path: Path) -> None:
    fetch(cli)
    before = files(store)
    done = cli("cache", "gc", "--yes", "--keep", f"/{'a' * 32}")
    assert done.code == 2
    assert "no such package" in done.err
    assert files(store) == before
    (tmp_path / "list").write_text(f"{'a' * 32} {ROOT_HASH}")  # as a spack.lock, which has what builds need
    assert cli("cache", "gc", "--keep", tmp_path / "list", "--json").json["paths"] == []


def test_gc_removes_nothing_beside_a_fetch(cli: Cli, store: Path) -> None:
    fetch(cli)
    before = files(store)
    using = Store(str(store)).try_use()
    assert using is not None
    done = cli("cache", "gc", "--yes")
    assert done.code == 10
    assert "another process uses the store" in done.err
    assert files(store) == before
    using.release()
    assert cli("cache", "gc", "--yes").code == 0
    assert files(store) == set()


def test_odd_entries_stop_neither_gc_nor_verify(cli: Cli, store: Path) -> None:
    fetch(cli)
    odd = [store / "sha256" / "00" / ("0" * 64), store / "manifests" / "a-1", store / "partial" / ".odd.part"]
    for path in odd:
        path.mkdir(parents=True)
        os.utime(path, (1, 1))
    done = cli("cache", "verify", "--json")
    assert done.code == 9
    assert done.json["problems"] == [{"path": str(odd[0]), "what": "unreadable"}]
    done = cli("cache", "gc", "--yes", "--json")
    assert done.code == 10
    assert len(done.json["paths"]) > 0
    assert {one["path"] for one in done.json["failed"]} == {str(path) for path in odd}
    assert files(store) == set()


def test_gc_leaves_young_work_in_progress(cli: Cli, store: Path) -> None:
    fetch(cli)
    (store / "partial").mkdir(exist_ok=True)
    part = store / "partial" / f"{'a' * 64}.part"
    part.write_bytes(b"half")
    assert str(part) not in cli("cache", "gc", "--json").json["paths"]
    os.utime(part, (1, 1))
    assert str(part) in cli("cache", "gc", "--yes", "--json").json["paths"]
    assert not part.exists()


@pytest.mark.parametrize("what", ["/abc", "/no/such/file"])
def test_gc_refuses_what_names_no_package(cli: Cli, what: str) -> None:
    assert cli("cache", "gc", "--keep", what).code == 2


def test_verify_finds_damage_and_a_fetch_repairs_it(cli: Cli) -> None:
    item = fetch(cli).json["items"][0]
    path = Path(item["path"])
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    os.chmod(path, 0o644)
    path.write_bytes(data)
    done = cli("cache", "verify", "--json")
    assert done.code == 9
    assert done.json["problems"] == [{"path": str(path), "what": "digest"}]
    assert [w["code"] for w in fetch(cli).json["warnings"]] == ["store-damaged"]
    assert cli("cache", "verify").code == 0


def test_a_site_layer_is_used_and_never_written(cli: Cli, store: Path, tmp_path: Path) -> None:
    fetch(cli)
    site = tmp_path / "site"
    shutil.move(store, site)
    config = tmp_path / "config" / "cachefetch" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text(f'[store]\nsite = ["{site}"]\n')
    before = {path: path.stat().st_mtime_ns for path in [*site.rglob("*"), site]}
    done = fetch(cli, "--offline")
    assert done.code == 0, done.err
    assert {item["from"] for item in done.json["items"]} == {"site"}
    assert {path: path.stat().st_mtime_ns for path in [*site.rglob("*"), site]} == before
    assert not store.exists() or not [path for path in files(store) if "sha256" in path.parts]


def test_a_site_layer_must_be_an_absolute_path(cli: Cli, tmp_path: Path) -> None:
    config = tmp_path / "config" / "cachefetch" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text('[store]\nsite = ["relative"]\n')
    done = fetch(cli)
    assert done.code == 2
    assert "store.site" in done.err


def test_what_ranges_reserved_is_not_what_came(cli: Cli, tmp_path: Path) -> None:
    """A killed fetch leaves the place of a whole payload taken; a full disk says so."""
    store = tmp_path / "cache" / "cachefetch" / "store"
    (store / "partial").mkdir(parents=True)
    (store / "partial" / f"{'a' * 64}.part").write_bytes(bytes(5_000_000))
    sidecar = PartInfo("http://h.invalid/x", None, "a" * 64, 9_000_000, 1_000_000).encode()
    (store / "partial" / f"{'a' * 64}.json").write_bytes(sidecar)
    (store / "partial" / f"{'b' * 64}.part").write_bytes(bytes(700))
    done = cli("cache", "info", "--json").json
    came = 1_000_000 + 700 + len(sidecar)
    assert (done["partial"], done["partial_bytes"]) == (3, came)
    assert done["partial_disk_bytes"] == came + 4_000_000
    assert f"3 files, {came} bytes, {came + 4_000_000} reserved" in cli("cache", "info").out
    free = done["free_bytes"]
    with pytest.raises(StoreError) as caught:
        Store(str(store)).require_space(2 * free)
    assert caught.value.context["partial_bytes"] == 5_000_700
    assert f"{store}/partial has 5000700 bytes" in caught.value.hint
    assert "cachefetch cache gc" in caught.value.hint
