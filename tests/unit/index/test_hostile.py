"""What a mirror, a crash or a disk may do to the local index, and that it is noticed."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import cachefetch
from cachefetch.config import absolute
from cachefetch.errors import FormatError, NotFoundError, StoreError, UsageError
from cachefetch.resolver.index.readers import Answer, detect, join, name_of
from cachefetch.resolver.index.readers.nodes import node_from_dict
from cachefetch.resolver.index.readers.page import parse_page
from cachefetch.resolver.index.store import IndexStore, StoredIndex

FIXTURES = Path(__file__).parents[2] / "data" / "fixtures"
MIRROR = FIXTURES / "v3-unsigned"
MANIFEST = json.loads((MIRROR / "v3/manifests/index/index.manifest.json").read_bytes())["data"][0]
BLOB = MIRROR / "blobs/sha256" / MANIFEST["checksum"][:2] / MANIFEST["checksum"]
NODE = {
    "name": "zlib",
    "version": "1.3.1",
    "arch": {"platform": "linux", "platform_os": "debian12", "target": "x86_64_v3"},
    "namespace": "builtin",
    "parameters": {"build_system": "makefile", "shared": True, "cflags": []},
    "dependencies": [
        {"name": "gmake", "hash": "b" * 32, "parameters": {"deptypes": ["build"], "virtuals": []}}
    ],
}


def ingest(store: IndexStore, body: Path, *, local: bool = True) -> StoredIndex:
    return store.ingest(str(body), "site", str(body), local=local, meta={"kind": "bare"}, sha256=None)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "../../x"),
        ("name", "a\x1b[31m"),
        ("name", "a\nb"),
        ("name", "-rf"),
        ("version", "1.0\x07"),
        ("version", "../1"),
        ("namespace", "a\x1b]0;x\x07"),
        ("arch", {"platform": "linux\n", "platform_os": "debian12", "target": "x86_64"}),
        ("arch", {"platform": "linux", "platform_os": "../x", "target": "x86_64"}),
        ("arch", {"platform": "linux", "platform_os": "debian12", "target": "x86 64"}),
        ("arch", {"platform": "linux", "platform_os": "debian12", "target": {"name": "a/b"}}),
        ("parameters", {"shared\x1b": True}),
        ("parameters", {"x": ["a", "b\u202e"]}),
        ("external", {"path": "/usr\n/x", "module": None}),
        ("dependencies", [{"name": "gmake", "hash": "../../x", "parameters": {"deptypes": ["build"]}}]),
        ("dependencies", [{"name": "gmake", "hash": "é" * 32, "parameters": {"deptypes": ["build"]}}]),
    ],
)
def test_a_node_with_a_text_that_could_do_harm_is_refused(field: str, value: object) -> None:
    assert node_from_dict(NODE, hash="a" * 32).name == "zlib"
    with pytest.raises(FormatError):
        node_from_dict({**NODE, field: value}, hash="a" * 32)


@pytest.mark.parametrize("hash_", ["../../x", "a\x1b", "a/b", "ä" * 32, "a b"])
def test_a_hash_is_letters_and_digits(hash_: str) -> None:
    with pytest.raises(FormatError, match="hash"):
        node_from_dict(NODE, hash=hash_)


@pytest.mark.parametrize(("key", "name"), [("\\ud800", "zlib"), ("c" * 32, "\\ud800")])
def test_a_record_whose_texts_cannot_be_stored_is_skipped_alone(tmp_path: Path, key: str, name: str) -> None:
    record = json.dumps({"spec": NODE, "in_buildcache": True})
    bad = record.replace('"zlib"', f'"{name}"', 1)
    body = tmp_path / "index.json"
    body.write_text(
        f'{{"database": {{"version": "8", "installs": {{"{"a" * 32}": {record}, "{key}": {bad}}}}}}}'
    )
    index = ingest(IndexStore(str(tmp_path / "store")), body)
    assert [record.node.hash for record in index.everything()] == ["a" * 32]
    assert index.meta["broken"] == "1"
    assert len(index.skipped) == 1


def test_records_left_out_at_ingestion_and_at_decoding_are_counted_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    records: dict[str, object] = {c * 32: {"spec": NODE, "ref_count": 0, "in_buildcache": True} for c in "ab"}
    records["c" * 32] = {"spec": None}
    records["d" * 32] = {"spec": {**NODE, "arch": 7}, "ref_count": 0, "in_buildcache": True}
    body = tmp_path / "index.json"
    body.write_text(json.dumps({"database": {"version": "8", "installs": records}}))
    for _ in range(2):  # read anew, then from the store
        with cachefetch.Client([str(body)], unsigned=True) as client:
            assert client.update()[0].detail.startswith("1 unreadable records skipped: /ccccccc: TypeError")
            listed = client.list()
        assert [spec.hash for spec in listed.specs] == ["a" * 32, "b" * 32]
        assert listed.mirrors[0].detail.startswith("2 unreadable records skipped: /ccccccc: TypeError")


def test_what_spack_noted_about_an_external_may_have_any_text() -> None:
    external = {"path": "/usr", "module": None, "extra_attributes": {"environment": {"set": {"A": "1\n2"}}}}
    assert node_from_dict({**NODE, "external": external}, hash="a" * 32).external == "/usr"


def test_a_page_entry_with_such_a_text_is_skipped_with_the_reason() -> None:
    entry = {
        "hash": "a" * 32,
        "versions": ["1.0"],
        "platform": "linux",
        "os": "ubuntu22.04",
        "target": "x86_64_v3",
        "compiler": "gcc@=12.3.0",
        "variants": ["+shared"],
        "stacks": ["e4s"],
    }
    bad = [
        {**entry, "os": "x\x1b[0m"},
        {**entry, "platform": "../x"},
        {**entry, "target": "a\nb"},
        {**entry, "stacks": ["\x1b"]},
        {**entry, "variants": ["+a\x07"]},
    ]
    text = f"---\ntitle: zlib\nspec_details: {json.dumps([entry, *bad])}\n---\n"
    records, broken = parse_page(text.encode(), what="specs.md")
    assert (len(records), len(broken)) == (1, len(bad))
    assert all(broken)


def test_an_index_record_with_an_escape_sequence_is_skipped_with_the_reason(tmp_path: Path) -> None:
    good = {**NODE, "hash": "a" * 32}
    bad = {**NODE, "hash": "c" * 32, "parameters": {"x": "\x1b[2J"}}
    installs = {node["hash"]: {"spec": node, "ref_count": 0, "in_buildcache": True} for node in (good, bad)}
    body = tmp_path / "index.json"
    body.write_text(json.dumps({"database": {"version": "8", "installs": installs}}, separators=(",", ":")))
    with cachefetch.Client([str(body)], unsigned=True) as client:
        listed = client.list()
    assert [spec.hash for spec in listed.specs] == ["a" * 32]
    assert "1 unreadable records skipped: /ccccccc: field with a text that" in listed.mirrors[0].detail
    assert listed.mirrors[0].detail.isprintable()


@pytest.mark.parametrize("value", ["[" * 50_000 + "]" * 50_000, "9" * 5000])
@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
def test_a_record_that_no_decoder_takes_is_skipped_alone_however_the_index_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str, separators: tuple[str, str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    records = {c * 32: {"spec": NODE, "ref_count": 0, "in_buildcache": True} for c in "ab"}
    records["c" * 32] = {**records["a" * 32], "spec": {**NODE, "annotations": "?"}}
    text = json.dumps({"database": {"version": "8", "installs": records}}, separators=separators)
    body = tmp_path / "index.json"
    body.write_text(text.replace('"?"', value))
    with cachefetch.Client([str(body)], unsigned=True) as client:
        listed = client.list()
    assert [spec.hash for spec in listed.specs] == ["a" * 32, "b" * 32]
    assert listed.mirrors[0].detail.startswith("1 unreadable records skipped: /ccccccc: ")


def test_hashes_in_upper_case_are_those_in_lower_case(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    edge = {"name": "gmake", "hash": "B" * 32, "parameters": {"deptypes": ["link"], "virtuals": []}}
    nodes = {"A": {**NODE, "dependencies": [edge]}, "B": {**NODE, "name": "gmake", "dependencies": []}}
    installs = {c * 32: {"spec": n, "ref_count": 0, "in_buildcache": True} for c, n in nodes.items()}
    body = tmp_path / "index.json"
    body.write_text(json.dumps({"database": {"version": "8", "installs": installs}}, separators=(",", ":")))
    with cachefetch.Client([str(body)], unsigned=True) as client:
        shown = client.show("/" + "A" * 9)
    assert shown.artifact.hash == "a" * 32
    assert [node.hash for node in shown.closure] == ["b" * 32]


def test_rows_that_were_lost_are_noticed_and_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with cachefetch.Client([str(MIRROR)], unsigned=True) as client:
        whole = len(client.list().specs)
    (sidecar,) = tmp_path.glob("cachefetch/index/*/sidecar.sqlite")
    with sqlite3.connect(sidecar) as db:
        db.execute("DELETE FROM spec WHERE hash > 'h'")
    db.close()
    with cachefetch.Client([str(MIRROR)], unsigned=True) as client:
        assert len(client.list().specs) == whole


SHIFTS = {
    "offset": "UPDATE spec SET off = off + 7",
    "one record for another": "UPDATE spec SET (off, len) = (SELECT off, len FROM spec s WHERE s.hash < spec.hash "
    "ORDER BY s.hash DESC)",
    "hash": "UPDATE spec SET hash = 'x' || substr(hash, 2)",
    "length": "UPDATE spec SET len = len - 40",
    "beyond the end": "UPDATE spec SET off = off + 1000000000",
    "huge": "UPDATE spec SET len = 1152921504606846976",
}


def shift(cache: Path, sql: str) -> Path:
    """Change the rows of the only sidecar below `cache`, and nothing else that could be noticed."""
    (sidecar,) = cache.glob("cachefetch/index/*/sidecar.sqlite")
    before = sidecar.stat().st_mtime_ns
    with sqlite3.connect(sidecar) as db:
        db.execute(sql)
    db.close()
    os.utime(sidecar, ns=(before, before))
    return sidecar


@pytest.mark.parametrize("what", SHIFTS)
def test_a_sidecar_that_says_records_are_elsewhere_heals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with cachefetch.Client([str(MIRROR)], unsigned=True) as client:
        whole = client.list().specs
    shift(tmp_path, SHIFTS[what])
    with cachefetch.Client([str(MIRROR)], unsigned=True) as client:
        assert client.list().specs == whole
        assert not client.list().mirrors[0].detail


def test_a_sidecar_that_cannot_be_healed_is_an_error_and_the_next_run_heals_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with cachefetch.Client([str(MIRROR)], unsigned=True) as client:
        whole = client.list().specs
    real = IndexStore.ingest

    def spoiled(self: IndexStore, *args: Any, **options: Any) -> StoredIndex:
        real(self, *args, **options).close()
        sidecar = shift(tmp_path, SHIFTS["offset"])
        return StoredIndex(str(sidecar), "site")

    shift(tmp_path, SHIFTS["offset"])
    with monkeypatch.context() as patch, cachefetch.Client([str(MIRROR)], unsigned=True) as client:
        patch.setattr(IndexStore, "ingest", spoiled)
        with pytest.raises(
            StoreError, match=r"the local index of site is damaged: there is no record of .* at byte"
        ):
            client.list()
    with cachefetch.Client([str(MIRROR)], unsigned=True) as client:
        assert client.list().specs == whole


@pytest.mark.parametrize("harm", ["rows", "bytes"])
def test_a_check_finds_damage_and_the_next_update_mends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    body = tmp_path / "index.json"
    shutil.copy(BLOB, body)
    with cachefetch.Client([str(body)], unsigned=True) as client:
        client.update()
        assert not client.indexes(check=True)[0].damaged
        if harm == "rows":
            shift(tmp_path, SHIFTS["offset"])
        else:
            before = body.stat().st_mtime_ns
            with open(body, "r+b") as file:
                file.seek(2000)
                file.write(b"\0")
            os.utime(body, ns=(before, before))
        assert client.indexes(check=True)[0].damaged
        if harm == "bytes":
            shutil.copy(BLOB, body)
    with cachefetch.Client([str(body)], unsigned=True) as client:
        client.update()
        assert not client.indexes(check=True)[0].damaged


def test_downloads_of_killed_processes_go_with_the_next_index(tmp_path: Path) -> None:
    store = IndexStore(str(tmp_path))
    own = store.spool_path()
    dead = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True
    )
    left = own.replace(f"-{os.getpid()}-", f"-{dead.stdout.decode().strip()}-")
    elsewhere = os.path.join(os.path.dirname(own), f"download-00000000-{dead.stdout.decode().strip()}-1")
    for path in (own, left, elsewhere):
        Path(path).write_bytes(b"half")
    ingest(store, BLOB)
    assert sorted(os.listdir(tmp_path / "incoming")) == sorted(map(os.path.basename, (own, elsewhere)))


def test_downloads_that_were_killed_go_with_the_next_download(tmp_path: Path) -> None:
    store = IndexStore(str(tmp_path))
    here = os.path.dirname(store.spool_path())
    young, old = (os.path.join(here, f"download-00000000-1-{number}") for number in (1, 2))
    for path in (young, old):
        Path(path).write_bytes(b"half")
    os.utime(old, (0, 0))
    store.spool_path()
    assert os.listdir(here) == [os.path.basename(young)]


def test_a_path_need_not_be_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    place = os.fsdecode(os.fsencode(tmp_path) + b"/mirror-\xff\xe9")
    shutil.copytree(MIRROR, place)
    for _ in range(2):  # from the mirror, then from the store
        with cachefetch.Client([place], unsigned=True) as client:
            assert client.list("zlib").specs


@pytest.mark.parametrize(
    ("location", "url"),
    [
        ("https://h/m?sig=a%2Fb", "https://h/m/v3/x?sig=a%2Fb"),
        ("https://h/m/?a=1&b=2", "https://h/m/v3/x?a=1&b=2"),
        ("/data/what?", "/data/what?/v3/x"),
        ("bundle:///data/b?.tar", "bundle:///data/b?.tar/v3/x"),
    ],
)
def test_the_query_of_a_url_stays_at_its_end(location: str, url: str) -> None:
    assert join(location, "v3/x") == url


def test_every_request_to_a_signed_url_is_signed() -> None:
    asked = []
    reader = detect.read("https://h/m?sig=1")
    try:
        get = next(reader)
        while True:
            asked.append(get.url)
            get = reader.send(Answer(0, error=NotFoundError("no")))
    except StopIteration as stop:
        reading = stop.value
    assert len(asked) > 3
    assert all(url.endswith("?sig=1") and url.count("?") == 1 for url in asked)
    assert "sig=1" not in reading.detail
    assert name_of("https://h/specs.md?sig=1/2") == "specs.md"


def test_a_fragment_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match="fragment"):
        absolute("https://user:secret@h/m#v3")


def test_no_more_of_an_index_is_taken_than_its_manifest_promises() -> None:
    reader = detect.read("https://h/m")
    next(reader)
    body = json.dumps({"version": 3, "data": [{**MANIFEST, "contentLength": 4321}]}).encode()
    get = reader.send(Answer(200, body=body))
    assert (get.spool, get.limit) == (True, 4321)
