"""The index writer: Spack's own bytes where the input is Spack's, and old nodes in a form that Spack 1.1 accepts."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from cachefetch.resolver.index.readers.manifest import parse_manifest
from cachefetch.resolver.index.readers.nodes import node_from_dict
from cachefetch.resolver.index.writer import (
    INDEX_MEDIA_TYPE,
    KEY_INDEX_MEDIA_TYPE,
    index_text,
    key_index_text,
    manifest_text,
    modernised,
    with_closure,
)
from cachefetch.values import changed


def index_of(mirror: Path) -> bytes:
    ref = parse_manifest(
        (mirror / "v3/manifests/index/index.manifest.json").read_bytes(), what="index"
    ).index()
    return (mirror / ref.path).read_bytes()


@pytest.mark.parametrize("fixture", ["v3-signed", "v3-unsigned"])
def test_the_index_of_spack_is_reproduced_byte_for_byte(fixture_mirrors: Path, fixture: str) -> None:
    theirs = index_of(fixture_mirrors / fixture)
    installs = json.loads(theirs)["database"]["installs"]
    held = {hash_ for hash_, record in installs.items() if record["in_buildcache"]}
    assert index_text({hash_: record["spec"] for hash_, record in installs.items()}, held) == theirs


def test_manifests_of_spack_are_reproduced_byte_for_byte(fixture_mirrors: Path) -> None:
    mirror = fixture_mirrors / "v3-signed"
    for path, media, kind in (
        ("v3/manifests/index/index.manifest.json", INDEX_MEDIA_TYPE, "index"),
        ("v3/manifests/key/keys.manifest.json", KEY_INDEX_MEDIA_TYPE, "key_index"),
    ):
        theirs = (mirror / path).read_bytes()
        ref = getattr(parse_manifest(theirs, what=path), kind)()
        assert manifest_text(media, ref.sha256, ref.size) == theirs


def test_the_key_list_of_spack_is_reproduced_byte_for_byte(fixture_mirrors: Path) -> None:
    theirs = key_index_text(["782919F9DB28EF14FA36F2A892DFACD7F6EA048A"])
    path = (fixture_mirrors / "v3-signed/v3/manifests/key/keys.manifest.json").read_bytes()
    assert parse_manifest(path, what="keys").key_index().sha256 == hashlib.sha256(theirs).hexdigest()


def test_old_nodes_keep_their_meaning_and_lose_their_compiler_key(fixture_mirrors: Path) -> None:
    text = (fixture_mirrors / "v2-unsigned/build_cache/index.json").read_text()
    installs: dict[str, Any] = json.loads(text)["database"]["installs"]
    for hash_, record in installs.items():
        old = record["spec"]
        new = modernised(old, hash_, 4)
        assert "compiler" not in new
        assert new["annotations"]["original_specfile_version"] == 4
        if "compiler" in old:
            compiler = old["compiler"]
            assert new["annotations"]["compiler"] == f"{compiler['name']}@={compiler['version']}"
        before = node_from_dict(old, hash=hash_, specfile=4)
        assert node_from_dict(new, hash=hash_, specfile=5) == before
        assert new["hash"] == hash_


OLDER: dict[int, dict[str, Any]] = {
    3: {
        "name": "zlib",
        "version": "1.2.13",
        "arch": {"platform": "linux", "platform_os": "rhel8", "target": "x86_64"},
        "compiler": {"name": "gcc", "version": "8.5.0"},
        "parameters": {"shared": True},
        "dependencies": [{"name": "gmake", "hash": "g" * 32, "type": ["build"]}],
        "hash": "z" * 32,
    },
    2: {
        "name": "zlib",
        "version": "1.2.11",
        "arch": {"platform": "linux", "platform_os": "rhel8", "target": "x86_64"},
        "compiler": {"name": "gcc", "version": "8.5.0"},
        "dependencies": [{"name": "gmake", "build_hash": "g" * 32, "type": ["build"]}],
        "full_hash": "f" * 32,
    },
    1: {
        "zlib": {
            "version": "1.2.11",
            "arch": {"platform": "linux", "platform_os": "rhel8", "target": "ppc64le"},
            "compiler": {"name": "gcc", "version": "8.3.1"},
            "dependencies": {"gmake": {"hash": "g" * 32, "type": ["build"]}},
        }
    },
}


@pytest.mark.parametrize("specfile", sorted(OLDER))
def test_the_oldest_nodes_become_readable(specfile: int) -> None:
    new = modernised(OLDER[specfile], "z" * 32, specfile)
    before = node_from_dict(OLDER[specfile], hash="z" * 32, specfile=specfile)
    assert node_from_dict(new, hash="z" * 32, specfile=5) == changed(before, format=specfile)
    edge = {"name": "gmake", "hash": "g" * 32, "parameters": {"deptypes": ["build"], "virtuals": []}}
    assert new["dependencies"] == [edge]
    assert not {"compiler", "full_hash", "build_hash"} & new.keys()


def test_a_node_of_today_is_not_touched() -> None:
    node = {"name": "a", "version": "1", "annotations": {"original_specfile_version": 5}, "hash": "a" * 32}
    assert modernised(node, "a" * 32, 5) == node
    upgraded = {
        "name": "a",
        "annotations": {"original_specfile_version": 4, "compiler": "gcc@=1"},
        "hash": "a" * 32,
    }
    assert modernised(upgraded, "a" * 32, 4) == upgraded


def test_the_closure_follows_every_edge_and_build_specs_and_skips_what_is_unknown() -> None:
    def node(name: str, *children: str, **more: Any) -> dict[str, Any]:
        edges = [
            {"name": c, "hash": c, "parameters": {"deptypes": ["build"], "virtuals": []}} for c in children
        ]
        return {"name": name, "dependencies": edges, "annotations": {}, "hash": name, **more}

    known = {
        "a": node("a", "b", "unknown", build_spec={"name": "c", "hash": "c"}),
        "b": node("b"),
        "c": node("c"),
    }
    known["broken"] = {"dependencies": "none", "annotations": {}, "hash": "broken"}
    found = with_closure(["a", "broken"], lambda hash_: (known[hash_], 5) if hash_ in known else None)
    assert list(found) == ["a", "b", "c"]
