"""The local index on real and damaged files."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from pathlib import Path

import pytest

from cachefetch.errors import FormatError, StoreError
from cachefetch.resolver.index.query import Specs
from cachefetch.resolver.index.store import IndexStore, StoredIndex
from cachefetch.resolver.model import Record

FIXTURES = Path(__file__).parents[2] / "data" / "fixtures"


def index_file(mirror: str) -> Path:
    if (FIXTURES / mirror / "build_cache").exists():
        return FIXTURES / mirror / "build_cache" / "index.json"
    manifest = json.loads((FIXTURES / mirror / "v3/manifests/index/index.manifest.json").read_bytes())
    digest = str(manifest["data"][0]["checksum"])
    return FIXTURES / mirror / "blobs/sha256" / digest[:2] / digest


def ingest(store: IndexStore, body: Path, **options: object) -> StoredIndex:
    arguments = {"local": True, "meta": {"kind": "bare"}, "sha256": None, **options}
    return store.ingest(str(body), "site", str(body), **arguments)  # type: ignore[arg-type]  # options are literal in the tests


@pytest.mark.parametrize("mirror", ["v3-unsigned", "v3-signed", "v2-unsigned", "v2-signed"])
def test_every_record_of_real_mirrors_is_found(tmp_path: Path, mirror: str) -> None:
    expected = json.loads((FIXTURES / mirror / "EXPECTED.json").read_bytes())
    index = ingest(IndexStore(str(tmp_path)), index_file(mirror))
    assert int(index.meta["nodes"]) == expected["nodes"]
    assert index.count() == expected["in_buildcache"]
    for spec in expected["specs"]:
        record = index.record(spec["hash"])
        assert record is not None
        node = record.node
        assert (node.name, node.version, node.os, node.target) == (
            spec["name"],
            spec["version"],
            spec["os"],
            spec["target"],
        )
        assert record.has_binary == (spec["in_buildcache"] and not spec["external"])
        assert {edge.hash for edge in node.edges} == {edge["hash"] for edge in spec["dependencies"]}
    by_name = {name: len(index.named(name)) for name in index.names()}
    assert sum(by_name.values()) == expected["nodes"]
    assert len(list(index.everything())) == expected["nodes"]


def test_a_hash_prefix_finds_all_that_begin_so(tmp_path: Path) -> None:
    index = ingest(IndexStore(str(tmp_path)), index_file("v3-unsigned"))
    everything = {record.node.hash for record in index.everything()}
    for prefix in ("a", "ki", "apj2lpn", "zzzzzz", ""):
        assert {r.node.hash for r in index.with_prefix(prefix)} == {
            h for h in everything if h.startswith(prefix)
        }


def test_an_index_that_changed_is_not_used(tmp_path: Path) -> None:
    body = tmp_path / "index.json"
    shutil.copy(index_file("v3-signed"), body)
    store = IndexStore(str(tmp_path / "store"))
    ingest(store, body)
    assert store.load(str(body), "site") is not None
    body.write_bytes(body.read_bytes() + b" ")
    assert store.load(str(body), "site") is None
    body.unlink()
    assert store.load(str(body), "site") is None


@pytest.mark.parametrize("damage", [b"", b"not a database", None])
def test_a_damaged_sidecar_is_built_anew(tmp_path: Path, damage: bytes | None) -> None:
    store = IndexStore(str(tmp_path))
    body = index_file("v3-signed")
    ingest(store, body).close()
    sidecar = Path(store.directory(str(body))) / "sidecar.sqlite"
    if damage is None:
        with sqlite3.connect(sidecar) as db:
            db.execute("DELETE FROM meta WHERE key = 'schema'")
        db.close()
    else:
        sidecar.write_bytes(damage)
    assert store.load(str(body), "site") is None
    ingest(store, body)
    assert store.load(str(body), "site") is not None


def test_a_wrong_digest_changes_nothing(tmp_path: Path) -> None:
    store = IndexStore(str(tmp_path))
    body = index_file("v3-signed")
    with pytest.raises(FormatError, match=r"the index of site hashes to"):
        ingest(store, body, sha256="0" * 64)
    assert store.load(str(body), "site") is None
    assert body.exists()


@pytest.mark.parametrize(("version", "state"), [("5", "too-old"), ("10", "too-new")])
def test_other_database_versions_are_refused_by_number(tmp_path: Path, version: str, state: str) -> None:
    body = tmp_path / "index.json"
    body.write_text(json.dumps({"database": {"version": version, "installs": {}}}))
    with pytest.raises(FormatError, match=version) as caught:
        ingest(IndexStore(str(tmp_path / "store")), body)
    assert caught.value.context["state"] == state


def test_a_record_that_is_broken_is_skipped_and_the_others_stay(tmp_path: Path) -> None:
    document = json.loads(index_file("v3-signed").read_bytes())
    victim = sorted(document["database"]["installs"])[0]
    document["database"]["installs"][victim]["spec"]["arch"] = 7
    body = tmp_path / "index.json"
    body.write_text(json.dumps(document, separators=(",", ":")))
    index = ingest(IndexStore(str(tmp_path / "store")), body)
    assert index.record(victim) is None
    assert len(list(index.everything())) == len(document["database"]["installs"]) - 1


def test_a_downloaded_index_is_moved_in_and_the_former_one_removed(tmp_path: Path) -> None:
    store = IndexStore(str(tmp_path))
    for mirror in ("v3-signed", "v3-unsigned"):
        spool = store.spool_path()
        shutil.copy(index_file(mirror), spool)
        index = store.ingest("https://m", "m", spool, local=False, meta={"kind": "v3"}, sha256=None)
        assert not os.path.exists(spool)
    names = [name for name in os.listdir(store.directory("https://m")) if name.startswith("index-")]
    assert names == [os.path.basename(index.meta["body"])]


def test_an_unwritable_store_says_so(tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("")
    with pytest.raises(StoreError, match=r"XDG_CACHE_HOME|cannot write"):
        ingest(IndexStore(str(blocker / "store")), index_file("v3-signed"))


def test_several_mirrors_merge_by_hash_with_all_locations(tmp_path: Path) -> None:
    store = IndexStore(str(tmp_path))
    sources = [
        store.ingest(name, name, str(index_file(name)), local=True, meta={"kind": "v3"}, sha256=None)
        for name in ("v3-signed", "v3-unsigned")
    ]
    there, back = Specs(sources), Specs(sources[::-1])
    found = {r.node.hash: set(r.mirrors) for r in there.named("py-multidict")}
    assert found == {r.node.hash: set(r.mirrors) for r in back.named("py-multidict")}
    assert any(mirrors == {"v3-signed", "v3-unsigned"} for mirrors in found.values())
    assert any(mirrors == {"v3-unsigned"} for mirrors in found.values())


GOOD_HASH = "hkxr7ts5yajkxftpjduah3ktcuc7ad3l"


def lying_index(place: Path, **changes: object) -> Path:
    """Write an index that lists one zlib of the real mirror, without dependencies and otherwise changed."""
    record = json.loads(index_file("v3-unsigned").read_bytes())["database"]["installs"][GOOD_HASH]
    record["spec"].pop("dependencies")
    record["spec"].update(changes)
    path = place / "index.json"
    path.write_text(json.dumps({"database": {"version": "8", "installs": {GOOD_HASH: record}}}))
    return path


@pytest.mark.parametrize("changes", [{}, {"name": "another"}, {"version": "9.9"}])
@pytest.mark.parametrize("first_asked", ["named", "record", "prefix"])
def test_of_two_descriptions_of_a_hash_the_fullest_counts_with_its_own_mirrors(
    tmp_path: Path, changes: dict[str, str], first_asked: str
) -> None:
    liar = lying_index(tmp_path, **changes)
    for order in (1, -1):
        store = IndexStore(str(tmp_path / f"store{order}"))
        sources = [
            store.ingest(name, name, str(path), local=True, meta={"kind": "v3"}, sha256=None)
            for name, path in (("good", index_file("v3-unsigned")), ("liar", liar))
        ]
        specs = Specs(sources[::order])
        if first_asked == "named":
            specs.named("zlib")
        elif first_asked == "prefix":
            specs.with_prefix(GOOD_HASH[:5])
        record = specs.record(GOOD_HASH)
        assert record is not None
        assert (record.node.name, record.node.version, record.mirrors) == ("zlib", "1.3.1", ("good",))
        assert record in specs.named("zlib")
        assert specs.named("another") == []
        assert specs.disputes[GOOD_HASH].others == ("liar",)
        assert "dependencies" in specs.disputes[GOOD_HASH].differs
        raw = specs.raw(GOOD_HASH)
        assert raw is not None
        assert "dependencies" in raw[0]
        assert len(specs.disputes) == 1


def test_a_description_that_rules_a_binary_out_does_not_count_beside_one_that_has_it(tmp_path: Path) -> None:
    record = json.loads(index_file("v3-unsigned").read_bytes())["database"]["installs"][GOOD_HASH]
    record["spec"]["external"] = {"path": "/usr", "module": None, "extra_attributes": {}}
    record["spec"]["parameters"]["fuller"] = True
    liar = tmp_path / "index.json"
    liar.write_text(json.dumps({"database": {"version": "8", "installs": {GOOD_HASH: record}}}))
    store = IndexStore(str(tmp_path / "store"))
    sources = [
        store.ingest(name, name, str(path), local=True, meta={"kind": "v3"}, sha256=None)
        for name, path in (("liar", liar), ("good", index_file("v3-unsigned")))
    ]
    for order in (1, -1):
        specs = Specs(sources[::order])
        record = specs.record(GOOD_HASH)
        assert record is not None
        assert (record.has_binary, record.mirrors, record.node.external) == (True, ("good",), None)
        assert specs.disputes[GOOD_HASH].others == ("liar",)


@pytest.mark.parametrize(
    "pair", [("v3-signed", "v3-unsigned"), ("v2-signed", "v2-unsigned"), ("v2-unsigned", "v3-unsigned")]
)
def test_real_mirrors_do_not_contradict_each_other(tmp_path: Path, pair: tuple[str, str]) -> None:
    store = IndexStore(str(tmp_path))
    specs = Specs(
        [
            store.ingest(name, name, str(index_file(name)), local=True, meta={"kind": "v3"}, sha256=None)
            for name in pair
        ]
    )
    assert len(specs.everything()) > 50
    assert specs.disputes == {}


def test_an_empty_directory_in_place_of_the_sidecar_is_replaced(tmp_path: Path) -> None:
    store = IndexStore(str(tmp_path / "store"))
    body = index_file("v3-signed")
    blocker = Path(store.directory(str(body))) / "sidecar.sqlite"
    blocker.mkdir(parents=True)
    assert store.load(str(body), "m") is None
    assert ingest(store, body).count() > 0
    blocker.unlink()
    blocker.mkdir()
    (blocker / "x").touch()
    with pytest.raises(StoreError, match=r"sidecar\.sqlite"):
        ingest(store, body)


@pytest.mark.parametrize("mirror", ["v3-signed", "v3-unsigned", "v2-signed"])
@pytest.mark.parametrize("indent", [None, 1])
def test_providers_of_virtuals_are_found_without_decoding_what_says_nothing_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mirror: str, indent: int | None
) -> None:
    body = tmp_path / "index.json"
    document = json.loads(index_file(mirror).read_bytes())
    body.write_text(json.dumps(document, indent=indent, separators=(",", ":")))
    index = ingest(IndexStore(str(tmp_path / "store")), body)
    expected: dict[str, set[str]] = {"no-such-virtual": set()}
    chosen: list[tuple[str, ...]] = []  # values of variants, which may be called as a virtual is
    for record in index.everything():
        values = [(v,) if isinstance(v, str) else v for v in record.node.variants.values()]
        chosen += [tuple(text for texts in values if not isinstance(texts, bool) for text in texts)]
        for edge in record.node.edges:
            for virtual in edge.virtuals:
                expected.setdefault(virtual, set()).add(edge.name)
    decoded: list[str] = []
    decode = StoredIndex._decode

    def counting(self: StoredIndex, hash: str, offset: int, length: int) -> Record | None:
        decoded.append(hash)
        return decode(self, hash, offset, length)

    monkeypatch.setattr(StoredIndex, "_decode", counting)
    assert "zlib-api" in expected
    for virtual, names in expected.items():
        decoded.clear()
        found = list(index.labelling(virtual))
        assert {e.name for r in found for e in r.node.edges if virtual in e.virtuals} == names
        if indent is None:
            assert len(decoded) <= len(names) + sum(virtual in texts for texts in chosen)
