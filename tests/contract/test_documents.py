"""Documents that list binaries: pages of every era, lock files, spec documents, the catalogue, known hashes."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.faults.server import FaultServer
from tests.functional.conftest import DEBIAN, FIXTURES, Done

import cachefetch
from cachefetch.resolver.index.readers import Place
from cachefetch.resolver.index.readers.catalogue import mirror_of, parse_catalogue, places_for
from cachefetch.resolver.index.readers.lock import SPECFILE_OF_LOCK, parse_lock
from cachefetch.resolver.index.readers.oci import api_base
from cachefetch.resolver.index.readers.page import release_of
from cachefetch.resolver.resolution import Listing

MIRROR = FIXTURES / "v3-unsigned"


def installs(name: str) -> dict[str, Any]:
    if (FIXTURES / name / "build_cache").exists():
        body = FIXTURES / name / "build_cache/index.json"
    else:
        manifest = json.loads((FIXTURES / name / "v3/manifests/index/index.manifest.json").read_bytes())
        digest = manifest["data"][0]["checksum"]
        body = FIXTURES / name / "blobs/sha256" / digest[:2] / digest
    found: dict[str, Any] = json.loads(body.read_bytes())["database"]["installs"]
    return found


def listed(*mirrors: Path | str) -> Listing:
    with cachefetch.Client([str(mirror) for mirror in mirrors]) as client:
        return client.list(externals=True)


# Pages. Eras d, e and f are real pages in tests/data/pages; these are the others, after the table of docs/formats.md.


def old_node(hash_: str) -> dict[str, Any]:
    """A spec-N.json document of specfile 2: the root node alone."""
    node = {
        "name": "zlib",
        "version": "1.2.11",
        "arch": {"platform": "linux", "platform_os": "rhel7", "target": "x86_64"},
        "compiler": {"name": "gcc", "version": "7.5.0"},
        "namespace": "builtin",
        "parameters": {"optimize": True, "pic": True, "cflags": []},
        "dependencies": [{"name": "pkgconf", "hash": "b" * 32, "type": ["build"]}],
        "hash": hash_,
    }
    return {"spec": {"_meta": {"version": 2}, "nodes": [node]}}


PAGE_A = """---
title: "zlib"
category: package
meta: {"versions": ["1.2.11"], "compilers": ["gcc@7.5.0"]}
spec_files:
 - "zlib@1.2.11%gcc@7.5.0+optimize+pic arch=linux-rhel7-x86_64": spec-0.json
 - "zlib@1.2.11%gcc@7.5.0+optimize+pic arch=linux-rhel7-x86_64": spec-1.json
---"""
PAGE_C = """---
title: "zlib"
categories: [package, develop]
spec_files:
- spec-0.json
- spec-1.json
spec_names:
- zlib@1.2.11%gcc@7.5.0
- zlib@1.2.11%gcc@7.5.0
---"""


@pytest.mark.parametrize("text", [PAGE_A, PAGE_C], ids=["era a", "eras b and c"])
def test_old_pages_are_read_through_the_documents_beside_them(text: str, tmp_path: Path) -> None:
    (tmp_path / "specs.md").write_text(text)
    for number, letter in enumerate("ac"):
        (tmp_path / f"spec-{number}.json").write_text(json.dumps(old_node(letter * 32)))
    found = listed(tmp_path / "specs.md")
    assert [a.hash for a in found.specs] == ["a" * 32, "c" * 32]
    assert {(a.version, a.os, a.compiler) for a in found.specs} == {("1.2.11", "rhel7", "gcc@7.5.0")}
    assert all(node.partial and not node.edges for node in found.nodes)


def test_an_old_page_without_its_documents_is_too_old(tmp_path: Path) -> None:
    (tmp_path / "specs.md").write_text(PAGE_C)
    with pytest.raises(cachefetch.MirrorError) as caught:
        listed(tmp_path / "specs.md")
    assert caught.value.context["mirrors"][0]["state"] == "too-old"


@pytest.mark.parametrize("wrap", [list, lambda entries: {"specs": entries}], ids=["list", "object"])
def test_the_data_files_that_followed_the_pages_are_read(wrap: Callable[[Any], Any], tmp_path: Path) -> None:
    entry = {
        "hash": "d" * 32,
        "version": "6.1.0",
        "variants": ["build_system=python_pip"],
        "platform": "linux",
        "os": "ubuntu22.04",
        "target": "x86_64_v3",
        "dependencies": [{"label": "python", "link": "/python"}],
        "stacks": ["e4s", "root"],
        "compiler": "python-venv",
    }
    place = tmp_path / "py-multidict"
    place.mkdir()
    (place / "specs_data.json").write_text(json.dumps(wrap([entry, {"hash": 7}])))
    found = listed(place / "specs_data.json")
    (artifact,) = found.specs
    assert (artifact.name, artifact.version, artifact.compiler) == ("py-multidict", "6.1.0", None)
    assert "1 unreadable" in found.mirrors[0].detail


def test_the_release_of_a_page_is_its_second_category() -> None:
    assert (
        release_of(b'---\ntitle: "x"\ncategories: [package, develop-2025-07-13]\n---') == "develop-2025-07-13"
    )
    assert release_of(b"---\ncategory: package\n---") == ""


# spack.lock


def lock_file(version: int, concrete: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "_meta": {"file-type": "spack-lockfile", "lockfile-version": version},
        "roots": [{"hash": next(iter(concrete)), "spec": "x"}],
        "concrete_specs": concrete,
        **more,
    }


@pytest.mark.parametrize("version", sorted(SPECFILE_OF_LOCK))
def test_lock_files_of_every_version_give_their_specs(version: int, tmp_path: Path) -> None:
    source = installs("v2-unsigned" if version <= 5 else "v3-signed")
    concrete = {hash_: record["spec"] for hash_, record in source.items()}
    first, *rest = concrete
    document = lock_file(
        version,
        {first: concrete[first]},
        include_concrete={"/other": lock_file(version, {hash_: concrete[hash_] for hash_ in rest})},
    )
    (tmp_path / "spack.lock").write_text(json.dumps(document))
    found = listed(tmp_path / "spack.lock")
    assert {artifact.hash for artifact in found.specs} == set(source)
    external = {h for h, record in source.items() if "external" in record["spec"]}
    assert {a.hash for a in found.specs if not a.mirrors} == external


@pytest.mark.parametrize(("version", "state"), [(3, "too-old"), (9, "too-new")])
def test_other_lock_files_are_refused_by_version(version: int, state: str, tmp_path: Path) -> None:
    (tmp_path / "spack.lock").write_text(json.dumps(lock_file(version, {"a" * 32: {}})))
    with pytest.raises(cachefetch.MirrorError, match=f"lockfile version {version}") as caught:
        listed(tmp_path / "spack.lock")
    assert caught.value.context["mirrors"][0]["state"] == state


def test_a_broken_spec_in_a_lock_file_is_counted() -> None:
    records, broken = parse_lock(json.dumps(lock_file(6, {"a" * 32: {"name": 7}})).encode(), what="x")
    assert (records, len(broken)) == ((), 1)


def test_a_lock_file_is_fetched_from_the_mirror_beside_it(tmp_path: Path, cli: Callable[..., Done]) -> None:
    source = installs("v3-unsigned")
    hash_ = next(
        h for h, r in sorted(source.items()) if r["spec"]["name"] == "py-idna" and _on(r, "debian12")
    )
    (tmp_path / "spack.lock").write_text(
        json.dumps(lock_file(6, {h: record["spec"] for h, record in source.items()}))
    )
    places = ["-m", tmp_path / "spack.lock", "-m", MIRROR, "--unsigned"]
    done = cli("fetch", f"/{hash_}", *places, *DEBIAN, "--to", tmp_path / "out", "--json")
    assert done.code == 0, done.err
    assert hash_ in {item["hash"] for item in done.json["items"]}


def _on(record: dict[str, Any], os: str) -> bool:
    arch = record["spec"]["arch"]
    return bool(arch["platform_os"] == os and arch["target"] == "x86_64_v3")


# Spec documents


@pytest.mark.parametrize("fixture", ["v2-unsigned", "v2-signed"])
def test_spec_documents_of_a_v2_mirror_are_read_signed_or_not(fixture: str) -> None:
    path = sorted((FIXTURES / fixture / "build_cache").glob("*py-multidict*.spec.json*"))[0]
    (root,) = [a for a in listed(path).specs if a.name == "py-multidict"]
    assert root.hash in path.name
    expected = installs(fixture)[root.hash]["spec"]
    assert root.version == expected["version"]


def test_a_compressed_spec_document_is_read_and_a_cut_one_refused(tmp_path: Path) -> None:
    data = gzip.compress(json.dumps(old_node("e" * 32)).encode())
    (tmp_path / "a.spec.json").write_bytes(data)
    assert [a.hash for a in listed(tmp_path / "a.spec.json").specs] == ["e" * 32]
    (tmp_path / "b.spec.json").write_bytes(data[:-9])
    with pytest.raises(cachefetch.MirrorError, match="cut off"):
        listed(tmp_path / "b.spec.json")


# A known hash


@pytest.mark.parametrize("fixture", ["v3-unsigned", "v3-signed"])
def test_a_known_hash_needs_no_index(fixture: str, tmp_path: Path, cli: Callable[..., Done]) -> None:
    expected = json.loads((FIXTURES / fixture / "EXPECTED.json").read_bytes())["specs"]
    spec = next(
        s
        for s in expected
        if s["name"] == "py-multidict" and s["os"] == "debian12" and s["target"] == "x86_64_v3"
    )
    query = f"{spec['name']}@={spec['version']}/{spec['hash']}"
    shutil.copytree(FIXTURES / fixture, tmp_path / "mirror")
    with FaultServer(str(tmp_path)) as server:
        direct = cli("resolve", query, "-m", f"{server.url}/mirror", *DEBIAN, "--json")
        assert server.count("/index/") == 0
        assert len(server.requests) == 2
    through_index = cli("resolve", f"/{spec['hash']}", "-m", tmp_path / "mirror", *DEBIAN, "--json")
    assert direct.json["roots"][0]["chosen"]["hash"] == spec["hash"]
    assert _hashes(direct.json) == _hashes(through_index.json)


def test_a_known_hash_that_is_not_there_is_looked_for_in_the_index(cli: Callable[..., Done]) -> None:
    done = cli("resolve", f"zlib@=1.3.1/{'a' * 32}", "-m", MIRROR, *DEBIAN, "--json")
    assert done.code == 3
    assert done.json["mirrors"][0]["state"] == "fresh"


def test_a_manifest_of_another_package_under_the_name_is_not_taken(tmp_path: Path) -> None:
    shutil.copytree(FIXTURES / "v3-unsigned", tmp_path / "mirror")
    specs = json.loads((FIXTURES / "v3-unsigned/EXPECTED.json").read_bytes())["specs"]
    zlib, other = (next(s for s in specs if s["name"] == name) for name in ("zlib", "py-idna"))
    place = tmp_path / "mirror"
    shutil.copy(place / other["artifact"]["manifest"], place / zlib["artifact"]["manifest"])
    with cachefetch.Client([str(place)]) as client:
        answer = client.resolve(f"zlib@={zlib['version']}/{zlib['hash']}")
    assert answer.mirrors[0].state == "fresh"  # the index was asked instead
    assert answer.roots[0].candidates > 1


def _hashes(document: Any) -> set[str]:
    return {entry["hash"] for entry in document["closure"]}


# The catalogue

CATALOGUE = {
    "develop": [
        {"label": "e4s", "url": "s3://spack-binaries/develop/e4s/blobs/sha256/cd/cd34"},
        {"label": "root", "url": "s3://spack-binaries//develop/blobs/sha256/ab/ab12"},
        {"label": "odd", "url": "s3://spack-binaries/develop/odd"},
    ],
    "v0.23.0": [{"label": "root", "url": "https://x.example.org/v0.23.0/build_cache/index.json"}],
}


def test_the_catalogue_names_mirrors_root_first() -> None:
    places = parse_catalogue(json.dumps(CATALOGUE).encode(), what="x")
    assert places == (
        Place("develop", "root", "https://binaries.spack.io/develop"),
        Place("develop", "e4s", "https://binaries.spack.io/develop/e4s"),
        Place("v0.23.0", "root", "https://x.example.org/v0.23.0"),
    )
    assert [p.label for p in places_for(places, "develop", ("e4s", "root"))] == ["root", "e4s"]
    assert mirror_of("https://x.example.org/else") == ""


def test_a_page_entry_is_fetched_from_the_mirror_of_its_stack(
    tmp_path: Path, cli: Callable[..., Done]
) -> None:
    specs = json.loads((MIRROR / "EXPECTED.json").read_bytes())["specs"]
    spec = next(
        s for s in specs if s["name"] == "py-idna" and s["os"] == "debian12" and s["target"] == "x86_64_v3"
    )
    entry = {
        "compiler": "none",
        "hash": spec["hash"],
        "os": spec["os"],
        "platform": "linux",
        "stacks": ["e4s"],
        "target": spec["target"],
        "variants": [],
        "versions": [spec["version"]],
    }
    page = f'---\ntitle: "py-idna"\ncategories: [package, develop]\nspec_details: {json.dumps([entry])}\n---'
    (tmp_path / "specs.md").write_text(page)
    shutil.copytree(MIRROR, tmp_path / "site/develop/e4s")
    with FaultServer(str(tmp_path / "site")) as server:
        url = f"{server.url}/develop"
        catalogue = {
            "develop": [
                {"label": "root", "url": f"{url}/blobs/sha256/ab/ab"},
                {"label": "e4s", "url": f"{url}/e4s/blobs/sha256/ab/ab"},
            ]
        }
        (tmp_path / "cache_spack_io_index.json").write_text(json.dumps(catalogue))
        places = ["-m", tmp_path / "specs.md", "-m", tmp_path / "cache_spack_io_index.json", "--unsigned"]
        done = cli("fetch", "py-idna", *places, *DEBIAN, "--to", tmp_path / "out", "--json")
        assert done.code == 0, done.err
        # The page places its entry in e4s alone; only of the dependencies it does not speak.
        assert not server.count(
            f"/develop/v3/manifests/spec/py-idna/py-idna-{spec['version']}-{spec['hash']}"
        )
    assert {item["mirror"] for item in done.json["items"]} == {"develop/e4s"}


# References of registries


@pytest.mark.parametrize(
    ("reference", "base"),
    [
        ("oci://ghcr.io/Acme/Cache", "oci://ghcr.io/v2/acme/cache"),
        ("oci://ghcr.io/acme/cache:tag", "oci://ghcr.io/v2/acme/cache"),
        ("oci+http://localhost:5000/cache", "oci+http://localhost:5000/v2/cache"),
        ("oci://user:pw@ghcr.io/a/b", "oci://user:pw@ghcr.io/v2/a/b"),
        ("oci://acme/cache", "oci://index.docker.io/v2/acme/cache"),
        ("oci://cache", "oci://index.docker.io/v2/library/cache"),
    ],
)
def test_references_are_read_as_spack_does(reference: str, base: str) -> None:
    assert api_base(reference) == base
