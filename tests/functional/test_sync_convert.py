"""`cachefetch sync` from layout 2 and from registries: what Spack said of the source holds at the destination."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.functional.conftest import DEBIAN, FIXTURES, MIRROR, Done
from tests.functional.test_sync import files, index_of
from tests.services.registry import Registry

Cli = Callable[..., Done]
V2_KEY = str(FIXTURES / "keys/cachefetch-test.pub.asc")
POLICY = {"v2-signed": ("--key", V2_KEY), "v2-unsigned": ("--unsigned",), "oci-registry": ("--unsigned",)}


@pytest.fixture
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Return the location of a fixture; the registry is served by a real one."""
    if request.param != "oci-registry":
        yield request.param, str(FIXTURES / request.param)
        return
    root = shutil.copytree(FIXTURES / "oci-registry", tmp_path / "registry")
    with Registry(str(tmp_path / "prefix"), str(root)) as registry:
        yield request.param, f"oci+http://127.0.0.1:{registry.port}/cache"


def expected_of(fixture: str) -> Any:
    return json.loads((FIXTURES / fixture / "EXPECTED.json").read_text())


def manifest_of(mirror: Path, hash_: str) -> Any:
    (path,) = mirror.glob(f"v3/manifests/spec/*/*-{hash_}.spec.manifest.json")
    return json.loads(path.read_text())


@pytest.mark.parametrize("source", list(POLICY), indirect=True)
def test_all_is_converted_to_layout_3(cli: Cli, tmp_path: Path, source: tuple[str, str]) -> None:
    fixture, location = source
    to, expected = tmp_path / "to", expected_of(fixture)
    done = cli("sync", "--all", "--from", location, *POLICY[fixture], "--convert", "--to", to, "--json")
    assert done.code == 0, done.err
    audit = cli("verify", to, "--unsigned", "--json").json
    assert (audit["status"], audit["notes"]) == ("ok", {"unindexed": 0, "dangling": 0, "unnamed_blobs": 0})
    installs = index_of(to)
    assert len(installs) == expected["nodes"]
    assert sum(record["in_buildcache"] for record in installs.values()) == expected["artifacts"]
    for spec in expected["specs"]:
        node = installs[spec["hash"]]["spec"]
        assert (node["name"], node["version"]) == (spec["name"], spec["version"])
        assert "compiler" not in node  # one such node makes Spack refuse the whole index
        assert (node.get("annotations") or {}).get("compiler") == spec["annotated_compiler"]
        deps = [
            (edge["hash"], edge["parameters"]["deptypes"], edge["parameters"]["virtuals"])
            for edge in node.get("dependencies", [])
        ]
        wanted = [(d["hash"], d["types"], d["virtuals"]) for d in spec["dependencies"]]
        assert sorted((h, sorted(t), sorted(v)) for h, t, v in deps) == sorted(
            (h, sorted(t), sorted(v)) for h, t, v in wanted
        )
        if not spec["artifact"]:
            continue
        tarball, document = manifest_of(to, spec["hash"])["data"]
        assert tarball["mediaType"] == "application/vnd.spack.install.v2.tar+gzip"
        assert tarball["checksum"] == spec["artifact"]["tarball_sha256"]
        assert tarball["contentLength"] == spec["artifact"]["tarball_size"]
        assert document["mediaType"] == "application/vnd.spack.spec.v5+json"
    assert not (to / "v3/manifests/key").exists()
    assert done.json["done"]["copied_bytes"] == done.json["plan"]["copy_bytes"]


@pytest.mark.parametrize("source", list(POLICY), indirect=True)
def test_a_converted_root_is_fetched_without_network(
    cli: Cli, tmp_path: Path, source: tuple[str, str]
) -> None:
    fixture, location = source
    to = tmp_path / "to"
    words = ("hdf5@1.14.5", "--from", location, *POLICY[fixture], "--convert", "--to", to, "--json")
    plan = cli("sync", *words, "--dry-run").json["plan"]
    assert not to.exists()
    done = cli("sync", *words)
    assert done.code == 0, done.err
    assert done.json["plan"] == plan
    assert done.json["done"]["copied_bytes"] == plan["copy_bytes"]
    assert cli("verify", to, "--unsigned", "--json").json["problems"] == []
    before = files(to)
    again = cli("sync", *words)
    assert again.json["done"]["copied_blobs"] == 0
    assert files(to) == before
    fetched = cli("fetch", "hdf5@1.14.5", "-m", to, "--unsigned", "--offline", *DEBIAN, "--json")
    assert fetched.code == 0, fetched.err
    tarballs = {
        s["hash"]: s["artifact"]["tarball_sha256"] for s in expected_of(fixture)["specs"] if s["artifact"]
    }
    for item in fetched.json["items"]:
        assert item["sha256"] == tarballs[item["hash"]]
        assert hashlib.sha256(Path(item["path"]).read_bytes()).hexdigest() == item["sha256"]


def test_layouts_are_not_mixed_without_being_asked(cli: Cli, tmp_path: Path) -> None:
    words = ("--from", MIRROR, "--from", FIXTURES / "v2-unsigned", "--unsigned", "--to", tmp_path / "to")
    done = cli("sync", "zlib", *words, "--json")
    assert (done.code, done.json["code"]) == (2, "usage")
    assert "--convert" in done.json["hint"]
    both = cli("sync", "zlib", *words, "--convert", "--json")
    assert both.code == 0, both.err
    assert cli("verify", tmp_path / "to", "--unsigned", "--json").json["problems"] == []


@pytest.mark.parametrize("damage", ["missing", "wrong"])
def test_a_damaged_tarball_of_layout_2_stops_nothing_else(cli: Cli, tmp_path: Path, damage: str) -> None:
    mirror, to = shutil.copytree(FIXTURES / "v2-unsigned", tmp_path / "source"), tmp_path / "to"
    path = next(mirror.glob("build_cache/*/*/chain-35-*/*.spack"))
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    words = ("--all", "--unsigned", "--convert", "--to", to, "--json")
    done = cli("sync", *words, "--from", mirror)
    assert done.code == 9, done.err
    (problem,) = done.json["problems"]
    assert (problem["name"], problem["needed_by"]) == ("chain-35", [problem["needed_by"][0]])
    assert problem["needed_by"][0].startswith("chain-34")
    again = cli("sync", *words, "--from", mirror, "--from", FIXTURES / "v2-unsigned")
    assert again.code == 0, again.err
    assert cli("verify", to, "--unsigned", "--json").json["problems"] == []
