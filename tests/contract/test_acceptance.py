"""Destinations of a sync against what Spack 1.1 accepts, as a reader tells that agrees with its own answers."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.functional.conftest import FIXTURES, Done
from tests.functional.conftest import cli as cli_fixture
from tests.tools.acceptance import INDEX_TYPE, TARBALL_TYPE, Reader, Refused

Cli = Callable[..., Done]
cli = cli_fixture
ORACLE = {
    case["case"]: case
    for case in json.loads((FIXTURES.parent / "oracles/acceptance.json").read_text())["cases"]
    if case["list"]
}
KEY = str(FIXTURES / "keys/cachefetch-test.pub.asc")
INDEX = "v3/manifests/index/index.manifest.json"


class Edit:
    """A mirror of three packages, to be changed by hand."""

    def __init__(self, root: Path, hash_: str) -> None:
        self.root, self.hash = root, hash_

    def specs(self) -> list[Path]:
        return sorted(self.root.glob("v3/manifests/spec/*/*.json"))

    def each_spec(self, change: Callable[[Any], object], **dump: Any) -> None:
        for path in self.specs():
            document = json.loads(path.read_text())
            change(document)
            path.chmod(0o644)
            path.write_text(json.dumps(document, **dump))

    def manifest(self, change: Callable[[Any], object]) -> None:
        path = self.root / INDEX
        document = json.loads(path.read_text())
        change(document)
        path.chmod(0o644)
        path.write_text(json.dumps(document))

    def put(self, data: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        path = self.root / "blobs/sha256" / digest[:2] / digest
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return {"checksum": digest, "contentLength": len(data)}

    def index(self, change: Callable[[Any], object], pack: Callable[[bytes], bytes] = bytes) -> None:
        document = json.loads(self.blob(json.loads((self.root / INDEX).read_text())["data"][0]).read_bytes())
        change(document)
        entry = self.put(pack(json.dumps(document).encode()))
        self.manifest(lambda m: m["data"][0].update(entry))

    def records(self, change: Callable[[Any], object]) -> None:
        self.index(lambda d: [change(record) for record in d["database"]["installs"].values()])

    def keep(self, wanted: Callable[[str, Any], bool]) -> None:
        def change(document: Any) -> None:
            found = document["database"]["installs"]
            document["database"]["installs"] = {h: r for h, r in found.items() if wanted(h, r)}

        self.index(change)

    def blob(self, entry: Any) -> Path:
        digest = str(entry["checksum"])
        return self.root / "blobs/sha256" / digest[:2] / digest

    def blobs(self, media: str, change: Callable[[Path], object]) -> None:
        for path in self.specs():
            for entry in json.loads(path.read_text())["data"]:
                if media in entry["mediaType"]:
                    self.blob(entry).chmod(0o644)
                    change(self.blob(entry))


def spoil(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


def plain_specs(edit: Edit) -> None:
    def change(document: Any) -> None:
        entry = document["data"][1]
        entry.update(edit.put(gzip.decompress(edit.blob(entry).read_bytes())), compression="none")

    edit.each_spec(change)


def drop_dependencies(edit: Edit) -> None:
    for path in edit.specs():
        if edit.hash not in path.name:
            path.unlink()


def reached(edit: Edit) -> set[str]:
    """Return what the root links and runs with."""
    found = Reader.open(edit.root).records
    seen: set[str] = set()
    waiting = [edit.hash]
    while waiting:
        one = waiting.pop()
        if one not in seen:
            seen.add(one)
            deps = found[one]["spec"].get("dependencies", ())
            waiting += [e["hash"] for e in deps if {"link", "run"} & set(e["parameters"]["deptypes"])]
    return seen


def bare(edit: Edit) -> None:
    (edit.root / "v3/layout.json").unlink()
    edit.blobs(".spec.", Path.unlink)


def only_run(edit: Edit) -> None:
    run = reached(edit)
    edit.keep(lambda hash_, record: hash_ in run or "external" in record["spec"])


def nothing(edit: Edit) -> None:
    """Leave the mirror as it is."""


EXTRA = {"hello": 1}
CHANGES: dict[str, Callable[[Edit], object]] = {
    "minimal-subset": nothing,
    "no-layout-json": lambda e: (e.root / "v3/layout.json").unlink(),
    "no-index": lambda e: (e.root / INDEX).unlink(),
    "index-gzip": lambda e: e.index(lambda d: None, gzip.compress),
    "index-only-run-deps": only_run,
    "index-no-externals-dangling": lambda e: e.keep(lambda h, _: any(h in p.name for p in e.specs())),
    "index-root-only-dangling": lambda e: e.keep(lambda h, _: h == e.hash),
    "in_buildcache-false": lambda e: e.records(lambda r: r.update(in_buildcache=False)),
    "no-in_buildcache-key": lambda e: e.records(lambda r: r.pop("in_buildcache")),
    "no-ref_count-key": lambda e: e.records(lambda r: r.pop("ref_count")),
    "in_buildcache-all-true-externals-too": lambda e: e.records(lambda r: r.update(in_buildcache=True)),
    "pretty-printed-manifests": lambda e: e.each_spec(lambda d: None, indent=4),
    "spec-blob-uncompressed": plain_specs,
    "extra-top-level-key-in-index": lambda e: e.index(lambda d: d.update(EXTRA)),
    "extra-key-in-database": lambda e: e.index(lambda d: d["database"].update(EXTRA)),
    "db-version-7": lambda e: e.index(lambda d: d["database"].update(version="7")),
    "db-version-9": lambda e: e.index(lambda d: d["database"].update(version="9")),
    "index-mediatype-v7": lambda e: e.manifest(
        lambda m: m["data"][0].update(mediaType=INDEX_TYPE.replace("v8", "v7"))
    ),
    "index-mediatype-bogus": lambda e: e.manifest(
        lambda m: m["data"][0].update(mediaType="application/json")
    ),
    "index-manifest-version-4": lambda e: e.manifest(lambda m: m.update(version=4)),
    "index-manifest-no-version": lambda e: e.manifest(lambda m: m.pop("version")),
    "index-manifest-wrong-length": lambda e: e.manifest(lambda m: m["data"][0].update(contentLength=1)),
    "index-manifest-wrong-checksum": lambda e: e.manifest(lambda m: m["data"][0].update(checksum="0" * 64)),
    "index-manifest-extra-keys": lambda e: e.manifest(
        lambda m: (m.update(EXTRA), m["data"][0].update(EXTRA))
    ),
    "manifest-tarball-wrong-length": lambda e: e.each_spec(lambda d: d["data"][0].update(contentLength=1)),
    "manifest-no-contentLength": lambda e: e.each_spec(
        lambda d: [one.pop("contentLength") for one in d["data"]]
    ),
    "manifest-extra-keys": lambda e: e.each_spec(lambda d: d.update(EXTRA)),
    "manifest-swapped-order": lambda e: e.each_spec(lambda d: d["data"].reverse()),
    "tarball-corrupted": lambda e: e.blobs(".install.", spoil),
    "spec-blob-corrupted": lambda e: e.blobs(".spec.", spoil),
    "spec-blob-missing": lambda e: e.blobs(".spec.", Path.unlink),
    "tarball-missing": lambda e: e.blobs(".install.", Path.unlink),
    "only-root-no-deps": drop_dependencies,
    "bare-8-files": bare,
    "spec-entry-dropped-from-manifest": lambda e: e.each_spec(
        lambda d: d.update(data=[one for one in d["data"] if one["mediaType"] == TARBALL_TYPE])
    ),
    "node-extra-key": lambda e: e.records(lambda r: r.update(EXTRA)),
    "manifest-version-4": lambda e: e.each_spec(lambda d: d.update(version=4)),
    "index-blob-corrupted-in-place": lambda e: spoil_index(e),
}


def spoil_index(edit: Edit) -> None:
    path = edit.blob(json.loads((edit.root / INDEX).read_text())["data"][0])
    path.chmod(0o644)
    path.write_bytes(path.read_bytes().replace(b"openssl", b"opensst", 1))


@pytest.fixture(scope="module")
def minimal(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return the subset that the oracle's cases start from, made by a sync: three packages, seven nodes."""
    from cachefetch import Client
    from cachefetch.syncing import Selection

    nodes = json.loads((FIXTURES / "v3-unsigned/EXPECTED.json").read_text())["specs"]
    for node in nodes:
        if node["name"] != "openssl" or node["os"] != "debian12":
            continue
        to = tmp_path_factory.mktemp("minimal") / "to"
        with pytest.MonkeyPatch.context() as patch:  # not the user's own cache and configuration
            for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
                patch.setenv(name, str(to.parent / name))
            with Client([str(FIXTURES / "v3-unsigned")], unsigned=True) as client:
                client.sync(Selection(specs=(f"/{node['hash']}",)), str(to))
        if len(Reader.open(to).records) == 7:
            shutil.rmtree(to / ".cachefetch")
            edit = Edit(to, node["hash"])
            # The oracle's index kept the flags of its source, where build dependencies are held too.
            edit.records(lambda r: r.update(in_buildcache="external" not in r["spec"]))
            return to, node["hash"]
    pytest.fail("no openssl with a closure of seven nodes")


def test_every_case_is_here() -> None:
    assert CHANGES.keys() == ORACLE.keys()


@pytest.mark.parametrize("case", list(ORACLE))
def test_the_reader_answers_as_spack_did(tmp_path: Path, minimal: tuple[Path, str], case: str) -> None:
    source, hash_ = minimal
    mirror = shutil.copytree(source, tmp_path / "mirror")
    CHANGES[case](Edit(mirror, hash_))
    try:
        reader = Reader.open(mirror)
        specs, failed = len(reader.listed()), False
        installs = reader.installs(hash_)
    except Refused:
        specs, failed, installs = 0, True, False
    wanted = ORACLE[case]
    assert (specs, failed) == (wanted["list"]["specs"], wanted["list"]["exit"] != 0)
    assert installs == wanted["install"]["by_hash"]
    dangling = not failed and bool(Reader.open(mirror).dangling())
    assert dangling == ("Missing dependency" in (wanted["message"] or ""))


@pytest.mark.parametrize(
    ("fixture", "what"),
    [
        *(
            (fixture, what)
            for fixture in ("v3-signed", "v2-signed", "v2-unsigned")
            for what in ("--all", "hdf5")
        ),
        ("v3-unsigned", "hdf5"),
        pytest.param("v3-unsigned", "--all", marks=pytest.mark.long),
    ],
)
def test_spack_accepts_what_a_sync_writes(cli: Cli, tmp_path: Path, fixture: str, what: str) -> None:
    to = tmp_path / "to"
    policy = ("--key", KEY) if fixture.endswith("-signed") else ("--unsigned",)
    done = cli("sync", what, "--from", FIXTURES / fixture, *policy, "--convert", "--to", to, "-q")
    assert done.code == 0, done.err
    reader = Reader.open(to)
    assert reader.dangling() == set()
    held = {hash_ for hash_, record in reader.records.items() if record["in_buildcache"]}
    assert all(reader.installs(hash_) for hash_ in held)
    assert all(set(record) == {"spec", "ref_count", "in_buildcache"} for record in reader.records.values())
    there = {path.name[:-19][-32:] for path in to.glob("v3/manifests/spec/*/*.json")}
    assert held == there
    externals = {h for h, record in reader.records.items() if "external" in record["spec"]}
    assert reader.listed() == held | externals
    if what == "--all":
        expected = json.loads((FIXTURES / fixture / "EXPECTED.json").read_text())
        assert held == {
            spec["hash"] for spec in expected["specs"] if spec["in_buildcache"] and spec["artifact"]
        }
    assert json.loads((to / "v3/layout.json").read_text()) == {"signing": "gpg"}
