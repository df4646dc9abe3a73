from __future__ import annotations

import base64
import gzip
import hashlib
import json
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cachefetch.errors import BindingError, DigestError, FormatError, IntegrityError, TruncatedError
from cachefetch.fetch.verify import binding
from cachefetch.fetch.verify.binding import (
    SpecDocument,
    check_binding,
    check_index_node,
    differences,
    is_own_hash,
    read_spec_blob,
)
from cachefetch.fetch.verify.openpgp import Keyring
from cachefetch.fetch.verify.policy import SignaturePolicy, apply
from cachefetch.resolver.index.readers.manifest import (
    INDEX_MANIFEST,
    BlobRef,
    parse_manifest,
    spec_manifest_path,
)
from cachefetch.resolver.index.readers.nodes import node_from_dict
from cachefetch.resolver.model import Node
from cachefetch.values import changed as with_fields

from .conftest import FIXTURES

if TYPE_CHECKING:
    from pathlib import Path

ROOTS = {"v3-signed": 62, "v3-unsigned": 414}
#: Spliced nodes whose `build_spec` Spack's store lost: their hash can no longer be recomputed.
SPLICED: dict[str, set[str]] = {
    "v3-signed": set(),
    "v3-unsigned": {"diamond-top", "diamond-left", "diamond-right"},
}


def ref(data: bytes, **changes: Any) -> BlobRef:
    values = {
        "media_type": "application/vnd.spack.spec.v5+json",
        "sha256": hashlib.sha256(data).hexdigest(),
        "size": len(data),
        "compression": "gzip",
    }
    return BlobRef(**{**values, **changes})


def read(document: Any) -> SpecDocument:
    data = gzip.compress(json.dumps(document).encode())
    return read_spec_blob(data, ref(data), what="lab: spec of zlib")


@cache
def index_nodes(root: Path) -> dict[str, Any]:
    blob = parse_manifest((root / INDEX_MANIFEST).read_bytes(), what="index").index()
    installs = json.loads((root / blob.path).read_bytes())["database"]["installs"]
    return {dag_hash: entry["spec"] for dag_hash, entry in installs.items() if entry["in_buildcache"]}


@cache
def first(root: Path = FIXTURES / "v3-unsigned") -> tuple[bytes, dict[str, Any]]:
    """Return the spec blob of zlib, as stored and parsed."""
    dag_hash, node = next(
        (h, n)
        for h, n in index_nodes(root).items()
        if n["name"] == "zlib" and n["arch"]["target"] == "x86_64_v3"
    )
    path = root / spec_manifest_path("zlib", node["version"], dag_hash)
    data = (root / parse_manifest(path.read_bytes(), what="m").spec().path).read_bytes()
    return data, json.loads(gzip.decompress(data))


@pytest.mark.parametrize("layout", ROOTS)
def test_every_spec_blob_is_bound_to_its_request(layout: str) -> None:
    root = FIXTURES / layout
    nodes = index_nodes(root)
    assert len(nodes) == ROOTS[layout]
    unconfirmed = []
    for dag_hash, node in nodes.items():
        path = root / spec_manifest_path(node["name"], node["version"], dag_hash)
        policy = SignaturePolicy("none")
        manifest = apply(policy, path.read_bytes(), Keyring(), what=path.name, now=0.0).manifest
        document = read_spec_blob((root / manifest.spec().path).read_bytes(), manifest.spec(), what=path.name)
        check_binding(document, name=node["name"], version=node["version"], hash=dag_hash, what=path.name)
        check_index_node(document, node_from_dict(node, hash=dag_hash, specfile=5), what=path.name)
        assert document.format == 5
        children = {edge.hash for edge in document.root.closure_edges()}
        assert children <= {child.hash for child in document.nodes}
        unconfirmed += [] if document.dag_hash_confirmed else [node["name"]]
    assert sorted(unconfirmed) == sorted(SPLICED[layout])


def test_dag_hash_is_not_confirmed_when_a_field_changed() -> None:
    _, document = first()
    node = document["spec"]["nodes"][0]
    assert is_own_hash(node)
    assert not is_own_hash({**node, "version": "9.9"})
    assert not is_own_hash({k: v for k, v in node.items() if k != "hash"})
    assert not is_own_hash(dict(reversed(node.items())))


def test_spliced_node_ends_in_the_hash_of_its_build_spec() -> None:
    node = {"name": "a", "version": "1", "build_spec": {"name": "a", "hash": "b" * 32}}
    text = json.dumps(node, separators=(",", ":")).encode()
    own = base64.b32encode(hashlib.sha1(text).digest()).decode().lower()
    assert is_own_hash({**node, "hash": own[:-7] + "b" * 7})
    assert not is_own_hash({**node, "hash": own})


def test_index_node_matches_despite_target_details_and_annotations() -> None:
    _, document = first()
    raw = document["spec"]["nodes"][0]
    node = node_from_dict(raw)
    target = {"name": raw["arch"]["target"], "features": ["avx"]}
    same = [
        {**raw, "arch": {**raw["arch"], "target": target}},
        {**raw, "annotations": {"original_specfile_version": 5, "x": 1}},
        {**raw, "dependencies": raw["dependencies"][::-1]},
    ]
    for other in same:
        assert differences(node, node_from_dict(other)) == ()


CHANGES: dict[str, tuple[str, Any]] = {
    "version": ("version", "9.9"),
    "platform": ("arch", {"platform": "darwin", "platform_os": "debian12", "target": "x86_64"}),
    "variants": ("parameters", {"build_system": "other"}),
    "namespace": ("namespace", "evil"),
    "edges": ("dependencies", []),
    "external": ("external", {"path": "/usr"}),
    "build_spec": ("build_spec", {"name": "a", "hash": "b" * 32}),
}


@pytest.mark.parametrize("field", CHANGES)
def test_an_index_that_describes_another_build_is_refused(field: str) -> None:
    _, raw = first()
    document = read(raw)
    node = raw["spec"]["nodes"][0]
    key, value = CHANGES[field]
    with pytest.raises(BindingError) as caught:
        check_index_node(document, node_from_dict({**node, key: value}, hash=node["hash"]), what="m")
    assert field in caught.value.context["fields"]
    assert field in caught.value.message


def test_a_page_is_compared_as_far_as_it_goes() -> None:
    _, raw = first()
    root = read(raw).root
    page = Node(root.hash, root.name, root.version, root.platform, root.os, root.target, partial=True)
    assert differences(root, page) == ()
    assert differences(root, with_fields(page, target="zen4")) == ("target",)


def test_manifest_of_another_package_is_refused_and_named() -> None:
    document = read(first()[1])
    root = document.root
    good = {"name": root.name, "version": root.version, "hash": root.hash}
    check_binding(document, **good, what="lab: m")
    for key, other in (("name", "openssl"), ("version", "3.4.0"), ("hash", "a" * 32)):
        with pytest.raises(BindingError) as caught:
            check_binding(document, **{**good, key: other}, what="lab: m")
        assert caught.value.message.startswith(
            f"lab: m is the manifest of zlib@{root.version}/{root.hash}, not of "
        )
        assert other in caught.value.message
        assert caught.value.context["have"] == good
        assert caught.value.exit_code == 6


def test_length_then_digest() -> None:
    data, _ = first()
    good = ref(data)
    assert read_spec_blob(data, good, what="b").root.name == "zlib"
    for changed in (data[:-1], data + b"\0", b""):
        with pytest.raises(
            TruncatedError, match=f"b has {len(changed)} bytes, its manifest promises {len(data)}"
        ):
            read_spec_blob(changed, good, what="b")
    flipped = bytes([*data[:50], data[50] ^ 1, *data[51:]])
    with pytest.raises(DigestError, match=f"its manifest promises {good.sha256}"):
        read_spec_blob(flipped, good, what="b")


def test_plain_and_gzip_are_told_apart_by_their_bytes() -> None:
    data, document = first()
    plain = gzip.decompress(data)
    assert read_spec_blob(plain, ref(plain, compression="gzip"), what="b").raw == document
    assert read_spec_blob(data, ref(data, compression="none"), what="b").raw == document


def test_expansion_stops_at_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    data = gzip.compress(b'{"spec":' + b" " * 5_000_000 + b"1}")
    monkeypatch.setattr(binding, "MAX_SPEC_TEXT_SIZE", 1_000_000)
    with pytest.raises(FormatError, match="expands beyond the limit of 1000000 bytes"):
        read_spec_blob(data, ref(data), what="b")


def test_blob_beyond_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data, _ = first()
    monkeypatch.setattr(binding, "MAX_SPEC_BLOB_SIZE", len(data))
    assert read_spec_blob(data, ref(data), what="b").root.name == "zlib"
    monkeypatch.setattr(binding, "MAX_SPEC_BLOB_SIZE", len(data) - 1)
    with pytest.raises(FormatError, match="more than the limit"):
        read_spec_blob(data, ref(data), what="b")


@pytest.mark.parametrize(
    "data",
    [
        b"\x1f\x8b",
        b"\x1f\x8bgarbage",
        gzip.compress(b"{}")[:-4],
        gzip.compress(b"{}") + b"x",
        gzip.compress(b"{}") * 2,
        gzip.compress(b"\xff"),
        b"",
        b"null",
        b"[" * 200_000,
    ],
    ids=lambda data: repr(data[:20]),
)
def test_what_is_no_spec_blob_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError, match=r"^b "):
        read_spec_blob(data, ref(data), what="b")


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (None, 'no "spec"'),
        ({}, "no _meta.version"),
        ({"_meta": {"version": "5"}, "nodes": []}, "no _meta.version"),
        ({"_meta": {"version": 0}, "nodes": []}, "no _meta.version"),
        ({"_meta": {"version": 5}}, "no list of nodes"),
        ({"_meta": {"version": 5}, "nodes": []}, "no list of nodes"),
        ({"_meta": {"version": 5}, "nodes": ["zlib"]}, "no list of nodes"),
        ({"_meta": {"version": 5}, "nodes": [{"name": "zlib"}]}, "node zlib"),
        ([], "no list of nodes"),
        ([{"a": 1, "b": 2}], "name"),
    ],
)
def test_documents_without_usable_nodes_are_refused(spec: Any, says: str) -> None:
    with pytest.raises(FormatError) as caught:
        read({"spec": spec})
    assert says in caught.value.message
    assert caught.value.message.startswith("lab: spec of zlib")
    assert caught.value.hint


def test_newer_specfile_is_named() -> None:
    with pytest.raises(FormatError, match="specfile version 7") as caught:
        read({"spec": {"_meta": {"version": 7}, "nodes": [{}]}})
    assert (caught.value.context["reason"], caught.value.context["version"]) == ("too-new", 7)


def test_specfile_1_has_a_list_of_named_nodes() -> None:
    _, document = first()
    node = {k: v for k, v in document["spec"]["nodes"][0].items() if k not in ("name", "dependencies")}
    old = read({"spec": [{"zlib": node}]})
    assert (old.format, old.root.name, old.root.hash, old.dag_hash_confirmed) == (
        1,
        "zlib",
        node["hash"],
        False,
    )


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_changed_documents_are_read_or_refused(data: st.DataObject) -> None:
    text = bytearray(gzip.decompress(first()[0]))
    for _ in range(data.draw(st.integers(1, 4))):
        text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))
    try:
        document = read_spec_blob(bytes(text), ref(bytes(text)), what="b")
    except IntegrityError:
        return
    assert document.nodes
