"""Packages of layout 2 mirrors and of a real registry: fetched, verified and unpacked like those of layout 3."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.functional.conftest import DEBIAN, FIXTURES, Done
from tests.services.nginx import Nginx
from tests.services.registry import Registry
from tests.tools import archive
from tests.tools.archive import directory, entry
from tests.tools.mirrors import (
    SPEC,
    TARBALL,
    dag_hash,
    manifest_path,
    manifest_text,
    put_blob,
    record,
    write_index,
)
from tests.unit.test_extract import gnu_tar, snapshot

from cachefetch import Client
from cachefetch.config import Config, Mirror
from cachefetch.errors import ConfigError

Cli = Callable[..., Done]
KEY = str(FIXTURES / "keys/cachefetch-test.pub.asc")
FINGERPRINT = (FIXTURES / "keys/fingerprint.txt").read_text().strip()
SIGNED, UNSIGNED, REGISTRY = "v2-signed", "v2-unsigned", "oci-registry"
STATES = {SIGNED: "good", UNSIGNED: "none", REGISTRY: "not-possible"}
COUNTS = {SIGNED: 55, UNSIGNED: 72, REGISTRY: 47}


def expected(mirror: str) -> list[dict[str, Any]]:
    found = json.loads((FIXTURES / mirror / "EXPECTED.json").read_text())["specs"]
    return [spec for spec in found if spec["artifact"]]


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    base = tmp_path_factory.mktemp("registry")
    shutil.copytree(FIXTURES / REGISTRY, base / "storage")
    with Registry(str(base / "server"), str(base / "storage")) as running:
        yield running.url("cache")


def config(tmp_path: Path, *mirrors: Mirror) -> Config:
    return Config(mirrors=mirrors, cache_dir=str(tmp_path / "cache"), config_dir=str(tmp_path / "config"))


@pytest.fixture
def mirror(request: pytest.FixtureRequest) -> Mirror:
    name: str = request.param
    if name == REGISTRY:
        return Mirror("m", request.getfixturevalue("registry"), "none")
    policy = "required" if name == SIGNED else "if-present"
    return Mirror("m", str(FIXTURES / name), policy, (FINGERPRINT,) if name == SIGNED else (), (KEY,))


@pytest.mark.parametrize(("mirror", "name"), [(n, n) for n in COUNTS], indirect=["mirror"], ids=list(COUNTS))
def test_every_package_is_what_spack_pushed_and_what_gnu_tar_unpacks(
    tmp_path: Path, mirror: Mirror, name: str
) -> None:
    confirmed = 0
    with Client(config=config(tmp_path, mirror)) as client:
        for number, spec in enumerate(specs := expected(name)):
            done = client.extract(f"/{spec['hash']}", str(tmp_path / "out" / spec["hash"]))
            assert (done.item.sha256, done.item.size) == (
                spec["artifact"]["tarball_sha256"],
                spec["artifact"]["tarball_size"],
            )
            assert (done.item.signature, done.item.origin) == (STATES[name], "network")
            assert done.item.key == (FINGERPRINT if name == SIGNED else None)
            confirmed += done.item.dag_hash
            if number % 5 == 0:  # all of them: tests/unit/test_extract.py
                theirs = gnu_tar(Path(done.item.path), tmp_path / f"theirs{number}")
                assert snapshot(Path(done.path)) == snapshot(theirs / done.contents.prefix.lstrip("/"))
    assert len(specs) == COUNTS[name]
    assert confirmed == COUNTS[name]  # each was written by the Spack that pushed it


def words_for(name: str, url: str) -> tuple[str, ...]:
    return ("-m", url, *(("--key", KEY) if name == SIGNED else ("--unsigned",) if name == UNSIGNED else ()))


@pytest.mark.parametrize("name", COUNTS)
def test_a_closure_over_the_network_and_again_without(
    cli: Cli, tmp_path: Path, name: str, request: pytest.FixtureRequest
) -> None:
    """From a real server the first time, from the store the second, with the same documents."""
    with Nginx(str(tmp_path / "nginx"), str(FIXTURES / name)) as server:
        url = request.getfixturevalue("registry") if name == REGISTRY else server.url
        words = ("fetch", "hdf5", *DEBIAN, *words_for(name, url), "--json")
        done = cli(*words, "--to", tmp_path / "to")
        assert done.code == 0, done.err
        first = done.json
        asked = len(server.requests())
        offline = cli(*words, "--offline").json
        again = cli(*words).json
        assert len(server.requests()) in (asked, asked + 1)  # the index may be asked whether it is the same
    artifacts = {spec["hash"]: spec["artifact"] for spec in expected(name)}
    for item in first["items"]:
        assert item["sha256"] == artifacts[item["hash"]]["tarball_sha256"]
        assert item["verified"]["dag_hash"] is True
        assert item["verified"]["signature"] == {UNSIGNED: "not-required"}.get(name, STATES[name])
        assert Path(item["path"]).stat().st_size == item["size"]
    for other in (offline, again):
        assert {item["from"] for item in other["items"]} == {"store"}
        assert [item["verified"] for item in other["items"]] == [i["verified"] for i in first["items"]]
    assert {item["from"] for item in first["items"]} == {"network"}
    assert first["network_bytes"] > sum(item["size"] for item in first["items"])


def test_a_registry_is_said_to_hold_no_signatures(cli: Cli, registry: str, tmp_path: Path) -> None:
    """On stderr and in the documents, once; and nobody can require what cannot be."""
    done = cli("fetch", "hdf5", *DEBIAN, "-m", registry, "--json")
    notes = [warning for warning in done.json["warnings"] if warning["code"] == "no-signatures"]
    assert len(notes) == 1
    assert notes[0]["mirror"] == registry
    assert done.err.count("holds no signatures") == 1
    for words in (("--signed", "required"), ("--signed", "if-present"), ("--pin", FINGERPRINT)):
        done = cli("mirror", "add", "hub", registry, *words)
        assert done.code == 2
        assert "holds no signatures" in done.err
    assert cli("mirror", "add", "hub", registry).code == 0
    assert cli("mirror", "list", "--json").json["mirrors"][0]["signed"] == "none"
    path = tmp_path / "config/cachefetch/config.toml"
    path.write_text(path.read_text() + 'signed = "required"\n')
    assert cli("fetch", "hdf5", *DEBIAN).code == 2
    strict = Mirror("m", registry, "required")
    with Client(config=config(tmp_path, strict)) as client, pytest.raises(ConfigError, match="no signatures"):
        client.extract(f"/{expected(REGISTRY)[0]['hash']}", str(tmp_path / "x"))


@pytest.mark.parametrize("name", COUNTS)
def test_pins_and_lock_files(cli: Cli, tmp_path: Path, name: str, request: pytest.FixtureRequest) -> None:
    url = request.getfixturevalue("registry") if name == REGISTRY else str(FIXTURES / name)
    words = words_for(name, url)
    lock = tmp_path / "cachefetch.lock"
    assert cli("resolve", "hdf5", *DEBIAN, *words, "--lock", lock).code == 0
    shutil.rmtree(tmp_path / "cache")
    done = cli("fetch", "--lock", lock, *DEBIAN, *words, "--json")
    assert done.code == 0, done.err
    locked = {package["hash"]: package["sha256"] for package in json.loads(lock.read_text())["packages"]}
    assert {item["hash"]: item["sha256"] for item in done.json["items"]} == locked
    shutil.rmtree(tmp_path / "cache")
    root = next(item for item in done.json["items"] if item["name"] == "hdf5")
    pin = f"hdf5@={root['version']}/{root['hash']}"
    done = cli("fetch", pin, *words, "--json")
    assert done.code == 0, done.err
    assert {item["hash"] for item in done.json["items"]} == set(locked)
    unknown = cli("fetch", f"hdf5@={root['version']}/{'a' * 32}", *words, "--json")
    assert (unknown.code, unknown.json["code"]) == (8, "not-found")


def test_a_plan_names_what_other_tools_can_get(cli: Cli, tmp_path: Path, registry: str) -> None:
    for url in (str(FIXTURES / UNSIGNED), registry):
        words = ("fetch", "zlib", *DEBIAN, "-m", url, *(("--unsigned",) if url != registry else ()))
        done = cli(*words, "--dry-run", "--json")
        items = done.json["items"]
        assert items, done.err
        for item in items:
            assert item["urls"][0].startswith("http://" if url == registry else "file:///")
            if url != registry:
                assert Path(item["urls"][0].removeprefix("file://")).stat().st_size == item["size"]


def test_cache_gc_keeps_what_a_lock_file_names(cli: Cli, tmp_path: Path, registry: str) -> None:
    for name, url in ((SIGNED, str(FIXTURES / SIGNED)), (REGISTRY, registry)):
        lock = tmp_path / f"{name}.lock"
        words = words_for(name, url)
        assert cli("resolve", "hdf5", *DEBIAN, *words, "--lock", lock).code == 0
        assert cli("fetch", "--lock", lock, *DEBIAN, *words).code == 0
        assert cli("fetch", "version-zoo", *DEBIAN, *words, "--no-deps").code == 0
        before = cli("cache", "info", "--json").json["blobs"]
        assert cli("cache", "gc", "--keep", lock, "--yes").code == 0
        assert 0 < cli("cache", "info", "--json").json["blobs"] < before
        done = cli("fetch", "--lock", lock, *DEBIAN, *words, "--offline", "--json")
        assert done.code == 0, done.err
        assert {item["from"] for item in done.json["items"]} == {"store"}


def test_a_page_beside_a_layout_2_mirror(cli: Cli, tmp_path: Path) -> None:
    """Nobody looked at the mirror, and the page tells the names of layout 2: what layout 3 lacks is found there."""
    entries = [
        {
            "hash": spec["hash"],
            "compiler": spec["annotated_compiler"],
            "versions": [spec["version"]],
            "platform": spec["platform"],
            "os": spec["os"],
            "target": spec["target"],
            "variants": [],
            "stacks": ["root"],
            "size": "-",
        }
        for spec in expected(SIGNED)
        if spec["name"] == "hdf5"
    ]
    page = tmp_path / "hdf5.md"
    page.write_text(
        '---\ntitle: "hdf5"\nlayout: cache\ncategories: [package, develop]\n'
        f"meta: {json.dumps({'versions': ['1.14.5']})}\nspec_details: {json.dumps(entries)}\n---"
    )
    words = ("fetch", "hdf5", *DEBIAN, "-m", page, "-m", FIXTURES / SIGNED, "--key", KEY, "--json")
    done = cli(*words)
    assert done.code == 0, done.err
    names = {item["name"] for item in done.json["items"]}
    assert {"hdf5", "zlib", "openmpi"} <= names  # the closure is that of the verified spec file
    assert {item["verified"]["signature"] for item in done.json["items"]} == {"good"}


def test_layout_1_of_spack_0_18_to_0_21(cli: Cli, tmp_path: Path) -> None:
    """Specfile 3, database 6, an archive with one top directory."""
    node = {
        "name": "demo",
        "version": "1.0",
        "arch": {"platform": "linux", "platform_os": "debian12", "target": "x86_64"},
        "compiler": {"name": "gcc", "version": "12.2.0"},
        "namespace": "builtin",
        "parameters": {"build_system": "generic", "cflags": []},
        "package_hash": "x" * 52 + "====",
        "dependencies": [{"name": "zlib", "hash": "z" * 32, "type": ["build"]}],
    }
    node["hash"] = dag_hash(node)
    top = f"demo-1.0-{node['hash']}"
    tarball = archive.stored(
        archive.archive(
            [
                directory(top),
                entry(f"{top}/tool", b"#!/opt/store/linux-x86_64/bash/bin/sh\n", mode=0o755),
                directory(f"{top}/.spack"),
                entry(
                    f"{top}/.spack/binary_distribution",
                    f"{{buildpath: /opt/store, relative_prefix: linux-x86_64/{top}, prefix_to_hash: {{}}}}\n".encode(),
                ),
            ]
        )
    )
    stem = f"linux-debian12-x86_64-gcc-12.2.0-demo-1.0-{node['hash']}"
    place = tmp_path / "m/build_cache/linux-debian12-x86_64/gcc-12.2.0/demo-1.0"
    place.mkdir(parents=True)
    (place / f"{stem}.spack").write_bytes(tarball)
    document = {
        "spec": {"_meta": {"version": 3}, "nodes": [node]},
        "buildcache_layout_version": 1,
        "buildinfo": {"relative_prefix": f"linux-x86_64/{top}", "relative_rpaths": False},
        "binary_cache_checksum": {"hash_algorithm": "sha256", "hash": hashlib.sha256(tarball).hexdigest()},
    }
    (tmp_path / f"m/build_cache/{stem}.spec.json").write_text(json.dumps(document))
    installs = {node["hash"]: {"spec": node, "ref_count": 0, "in_buildcache": True}}
    (tmp_path / "m/build_cache/index.json").write_text(
        json.dumps({"database": {"version": "6", "installs": installs}})
    )
    done = cli("extract", f"/{node['hash']}", tmp_path / "out", "-m", tmp_path / "m", "--unsigned", "--json")
    assert done.code == 0, done.err
    assert done.json["build_prefix"] == f"/opt/store/linux-x86_64/{top}"
    assert (done.json["build_root"], done.json["holding_build_root"]) == ("/opt/store", 1)
    assert (tmp_path / "out/tool").stat().st_mode & 0o777 == 0o755


def test_mirrors_of_different_layouts_stand_in_for_each_other(cli: Cli, tmp_path: Path) -> None:
    """The same build in layout 2 and 3: the payload that one lacks comes from the other, whatever its name there."""
    spec = next(spec for spec in expected(SIGNED) if spec["name"] == "zlib")
    two = Path(shutil.copytree(FIXTURES / SIGNED, tmp_path / "two"))
    three = tmp_path / "three"
    payload = (two / spec["artifact"]["tarball"]).read_bytes()
    index = json.loads((two / "build_cache/index.json").read_text())["database"]["installs"]
    node = index[spec["hash"]]["spec"]
    blob = gzip.compress(
        json.dumps({"spec": {"_meta": {"version": 4}, "nodes": [node]}}, separators=(",", ":")).encode()
    )
    for data in (payload, blob):
        put_blob(three, data)
    path = manifest_path(three, node)
    path.parent.mkdir(parents=True)
    path.write_bytes(manifest_text(record(payload, TARBALL), record(blob, SPEC)))
    modern = {key: value for key, value in node.items() if key != "compiler"}
    compiler = node["compiler"]
    notes = {"original_specfile_version": 4, "compiler": f"{compiler['name']}@={compiler['version']}"}
    write_index(three, {**modern, "annotations": notes})
    (two / spec["artifact"]["tarball"]).unlink()
    both = ("-m", two, "-m", three, "--unsigned", "--json")
    done = cli("extract", f"/{spec['hash']}", tmp_path / "out", *both)
    assert done.code == 0, done.err
    assert done.json["sha256"] == spec["artifact"]["tarball_sha256"]
    assert done.json["mirror"] == str(three)
    shutil.rmtree(tmp_path / "cache")
    assert cli("extract", f"/{spec['hash']}", tmp_path / "no", "-m", two, "--unsigned").code == 8
    put = three / "blobs/sha256" / done.json["sha256"][:2] / done.json["sha256"]
    (two / spec["artifact"]["tarball"]).write_bytes(payload)
    put.unlink()
    done = cli(
        "extract", f"/{spec['hash']}", tmp_path / "again", "-m", three, "-m", two, "--unsigned", "--json"
    )
    assert (done.code, done.json["mirror"]) == (0, str(two)), done.err
