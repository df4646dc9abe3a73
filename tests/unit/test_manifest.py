from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cachefetch.errors import FormatError
from cachefetch.resolver.index.readers.manifest import (
    INDEX_MANIFEST,
    KEY_INDEX_MANIFEST,
    MAX_MANIFEST_SIZE,
    Manifest,
    blob_path,
    key_manifest_path,
    parse_manifest,
    spec_manifest_path,
    spec_stem,
)

FIXTURES = Path(__file__).parents[1] / "data" / "fixtures"
UNSIGNED = FIXTURES / "v3-unsigned"
MANIFESTS = sorted((UNSIGNED / "v3" / "manifests" / "spec").glob("*/*.json"))
DIGEST = "0123456789abcdef" * 4
HASH = "a2ubvvqnula6zdppckwqrjf3zmsdzpoh"
TARBALL = "application/vnd.spack.install.v2.tar+gzip"
SPEC = "application/vnd.spack.spec.v{}+json"
INDEX = "application/vnd.spack.db.v{}+json"


def record(media_type: str = TARBALL, **changes: Any) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "contentLength": 5,
        "mediaType": media_type,
        "compression": "gzip",
        "checksumAlgorithm": "sha256",
        "checksum": DIGEST,
    }
    entry.update(changes)
    return {key: value for key, value in entry.items() if value is not ...}


def parse(*records: dict[str, Any], **changes: Any) -> Manifest:
    document = {"version": 3, "data": list(records), **changes}
    return parse_manifest(
        json.dumps({k: v for k, v in document.items() if v is not ...}).encode(), what="lab: m"
    )


def test_every_spec_manifest_of_spack_names_blobs_that_exist() -> None:
    assert len(MANIFESTS) == 414
    for path in MANIFESTS:
        manifest = parse_manifest(path.read_bytes(), what=path.name)
        for blob in (manifest.tarball(), manifest.spec()):
            assert (UNSIGNED / blob.path).stat().st_size == blob.size
            assert blob.compression == "gzip"


def test_file_names_of_spack_follow_from_its_index() -> None:
    index = parse_manifest((UNSIGNED / INDEX_MANIFEST).read_bytes(), what="index").index()
    installs = json.loads((UNSIGNED / index.path).read_bytes())["database"]["installs"]
    paths = {
        spec_manifest_path(entry["spec"]["name"], entry["spec"]["version"], dag_hash)
        for dag_hash, entry in installs.items()
        if entry["in_buildcache"]
    }
    assert paths == {str(path.relative_to(UNSIGNED)) for path in MANIFESTS}
    assert any("_1.9.3-" in path for path in paths)  # git.0123...=1.9.3


def test_key_manifests_of_spack() -> None:
    root = FIXTURES / "v3-signed"
    keys = parse_manifest((root / KEY_INDEX_MANIFEST).read_bytes(), what="keys").key_index()
    [fingerprint] = json.loads((root / keys.path).read_bytes())["keys"]
    manifest = parse_manifest((root / key_manifest_path(fingerprint.lower())).read_bytes(), what="key")
    assert (root / manifest.key().path).read_bytes().startswith(b"-----BEGIN PGP PUBLIC KEY BLOCK-----")
    with pytest.raises(FormatError, match="names no public key"):
        parse(record()).key()


def test_newest_known_version_is_taken_whatever_the_order() -> None:
    digests = {v: f"{v:02x}" * 32 for v in (6, 8, 9, 10)}
    records = [record(INDEX.format(v), checksum=digests[v]) for v in (8, 9, 10, 6)]
    assert parse(*records).index().sha256 == digests[9]
    assert parse(*records[:1], *records[2:]).index().sha256 == digests[8]
    assert parse(record(SPEC.format(5)), record(SPEC.format(7))).spec().media_type == SPEC.format(5)
    assert parse(record(SPEC.format(4)), record()).spec().media_type == SPEC.format(4)


def test_first_of_two_equal_records_is_taken_as_spack_does() -> None:
    assert parse(record(checksum="a" * 64), record(checksum="b" * 64)).tarball().sha256 == "a" * 64


@pytest.mark.parametrize(
    ("versions", "reason", "version"),
    [((10, 11), "too-new", 10), ((5,), "too-old", 5), ((5, 10), "too-new", 10)],
)
def test_only_other_versions_are_named(versions: tuple[int, ...], reason: str, version: int) -> None:
    manifest = parse(*(record(INDEX.format(v)) for v in versions))
    with pytest.raises(FormatError, match=f"version {version}") as caught:
        manifest.index()
    assert caught.value.context == {"file": "lab: m", "reason": reason, "version": version}
    assert caught.value.hint


def test_missing_kind_is_named() -> None:
    for manifest in (
        parse(),
        parse(record("application/vnd.spack.db.vX+json")),
        parse(record(KEY_INDEX_MANIFEST)),
    ):
        with pytest.raises(FormatError, match="lab: m names no index") as caught:
            manifest.index()
        assert caught.value.context["reason"] == "missing"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"version": 2}, "manifest version 2"),
        ({"version": 4}, "manifest version 4"),
        ({"version": "3"}, "no integer"),
        ({"version": True}, "no integer"),
        ({"version": 3.0}, "no integer"),
        ({"version": ...}, "no integer"),
        ({"data": ...}, 'no array "data"'),
        ({"data": {}}, 'no array "data"'),
        ({"data": [[]]}, "record 0 of data that is not an object"),
        ({"data": [record(contentLength=...)]}, "contentLength"),
        ({"data": [record(contentLength="5")]}, "contentLength"),
        ({"data": [record(contentLength=True)]}, "contentLength"),
        ({"data": [record(contentLength=-1)]}, "contentLength"),
        ({"data": [record(contentLength=5.0)]}, "contentLength"),
        ({"data": [record(contentLength=1 << 64)]}, "contentLength"),
        ({"data": [record(), record(mediaType=...)]}, '"mediaType" in record 1'),
        ({"data": [record(compression=None)]}, '"compression"'),
        ({"data": [record(checksumAlgorithm=...)]}, '"checksumAlgorithm"'),
        ({"data": [record(checksumAlgorithm="md5")]}, "'md5'"),
        ({"data": [record(checksumAlgorithm="SHA256")]}, "'SHA256'"),
        ({"data": [record(checksum=...)]}, '"checksum"'),
        ({"data": [record(checksum=DIGEST.upper())]}, "not a sha256 digest"),
        ({"data": [record(checksum="../" + DIGEST[3:])]}, "not a sha256 digest"),
        ({"data": [record(checksum=DIGEST + "\n")]}, "not a sha256 digest"),
    ],
)
def test_what_breaks_the_schema_is_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(FormatError) as caught:
        parse(**changes)
    assert says in caught.value.message
    assert caught.value.message.startswith("lab: m ")
    assert caught.value.hint
    assert caught.value.exit_code == 6


def test_extra_keys_are_allowed() -> None:
    assert parse(record(annotations={"x": 1}), note="y").tarball().sha256 == DIGEST


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"<html></html>",
        b"\xff\xfe{}",
        b"[" * 100_000,
        b'{"version":3,"version":3,"data":[]}',
        b'{"version":3,"data":[]} x',
        b'{"version":' + b"9" * 5000 + b',"data":[]}',
        b" " * (MAX_MANIFEST_SIZE + 1),
        b"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\n{}",
    ],
    ids=lambda data: repr(data[:20]),
)
def test_what_is_no_manifest_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError, match="lab: m "):
        parse_manifest(data, what="lab: m")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
KEYS = ["mediaType", "compression", "checksumAlgorithm", "checksum", "contentLength"]


@settings(max_examples=200, deadline=None)
@given(
    st.fixed_dictionaries({"version": st.just(3) | JSON, "data": st.lists(st.sampled_from(KEYS)) | JSON}),
    JSON,
)
def test_any_json_is_read_or_refused(document: dict[str, Any], value: Any) -> None:
    if isinstance(document["data"], list):
        document["data"] = [
            record(**{key: value}) if key in KEYS else key for key in map(str, document["data"])
        ]
    try:
        manifest = parse_manifest(json.dumps(document).encode(), what="m")
    except FormatError:
        return
    assert all(blob.path.startswith("blobs/sha256/") for blob in manifest.blobs)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=30), st.text(max_size=30))
def test_paths_stay_in_their_directory(name: str, version: str) -> None:
    try:
        path = spec_manifest_path(name, version, HASH)
    except FormatError:
        assert not name or name.startswith(".")
        return
    assert path.count("/") == 4
    assert ".." not in path.split("/")
    assert path.isascii()
    assert "/" not in spec_stem(name, version, HASH)


@pytest.mark.parametrize("text", ["", "abc", HASH.upper(), HASH[:-1] + "1", "../" + HASH, HASH + "\n"])
def test_what_is_no_hash_gives_no_path(text: str) -> None:
    with pytest.raises(FormatError):
        spec_manifest_path("zlib", "1.3.1", text)
    with pytest.raises(FormatError):
        blob_path(text)
    with pytest.raises(FormatError):
        key_manifest_path(text)


@pytest.mark.parametrize("name", ["", ".", "..", "../zlib"])
def test_names_that_could_leave_the_directory_are_refused(name: str) -> None:
    with pytest.raises(FormatError, match="not a package name"):
        spec_manifest_path(name, "1", HASH)


def test_plus_survives_and_other_characters_do_not() -> None:
    path = spec_manifest_path("c++", "1+2:a/b=c", HASH)
    assert path == f"v3/manifests/spec/c++/c++-1+2_a_b_c-{HASH}.spec.manifest.json"
