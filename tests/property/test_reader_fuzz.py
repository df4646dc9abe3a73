"""Readers of what mirrors send: whatever the bytes, one of our errors or a value; no hang, bounded memory.

`make test` runs some hundred inputs each, `make test-long` some ten thousand. The tar reader is in
tests/unit/test_extract.py, clear-signed documents are in tests/unit/verify/test_openpgp.py too.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cachefetch.errors import CachefetchError
from cachefetch.fetch.verify.binding import parse_spec, read_spec_blob
from cachefetch.fetch.verify.openpgp import Keyring, split_cleartext, verify_cleartext
from cachefetch.fetch.verify.policy import SignaturePolicy
from cachefetch.fetch.verify.specfile import verify_spec_file
from cachefetch.resolver.index.readers.manifest import BlobRef, parse_manifest
from cachefetch.resolver.index.splitter import split_any

FIXTURES = Path(__file__).parents[1] / "data" / "fixtures"
KEYRING = Keyring.from_bytes((FIXTURES / "keys/cachefetch-test.pub.asc").read_bytes(), what="key")
MANIFEST = min((FIXTURES / "v3-signed/v3/manifests/spec").rglob("*.json")).read_bytes()
TEXT = split_cleartext(MANIFEST, what="m").text
SPEC_FILE = min((FIXTURES / "v2-signed").rglob("*.spec.json.sig")).read_bytes()
INDEX = (FIXTURES / "v2-signed/build_cache/index.json").read_bytes()
BLOB_SHA256 = next(r["checksum"] for r in json.loads(TEXT)["data"] if ".spec." in r["mediaType"])
SPEC = gzip.decompress((FIXTURES / "v3-signed/blobs/sha256" / BLOB_SHA256[:2] / BLOB_SHA256).read_bytes())
LIMIT = 64 << 20  # bytes of memory for an input of some kilobytes


def spec_blob(data: bytes) -> object:
    blob = gzip.compress(data, 1)
    ref = BlobRef("x", hashlib.sha256(blob).hexdigest(), len(blob), "gzip")
    return read_spec_blob(blob, ref, what="f")


def spec_file(data: bytes) -> object:
    return verify_spec_file(
        SignaturePolicy("none"), data, KEYRING, name="a", version="1", hash="a", what="f", now=2e9
    )


READERS: dict[str, tuple[Callable[[bytes], object], bytes]] = {
    "manifest": (partial(parse_manifest, what="f"), TEXT),
    "clearsign": (partial(verify_cleartext, keyring=KEYRING, what="f", now=2e9), MANIFEST),
    "spec": (partial(parse_spec, what="f"), SPEC),
    "spec blob": (spec_blob, SPEC),
    "spec file of layout 2": (spec_file, SPEC_FILE),
    "index": (partial(split_any, what="f"), INDEX),
    "key": (partial(Keyring.from_bytes, what="f"), (FIXTURES / "keys/cachefetch-test.pub.asc").read_bytes()),
}
TOKENS = [
    b"",
    b"\0",
    b"{",
    b"}",
    b"[",
    b"]",
    b'"',
    b"null",
    b"-1",
    b"1e999",
    b"\\ud800",
    b"\xff",
    b"[" * 3000,
    b"9" * 5000,
]


def tried(reader: Callable[[bytes], object], data: bytes) -> None:
    """Read; only our own errors may come out."""
    tracemalloc.reset_peak()
    try:
        reader(data)
    except CachefetchError as error:
        outcome = error.message
    else:
        outcome = "read"
    assert outcome
    assert tracemalloc.get_traced_memory()[1] < LIMIT


def fuzz(name: str) -> None:
    reader, original = READERS[name]

    @given(st.data())
    def change(data: st.DataObject) -> None:
        document = original
        for _ in range(data.draw(st.integers(1, 4))):
            start = data.draw(st.integers(0, len(document)))
            length = data.draw(st.integers(0, 30))
            new = data.draw(st.one_of(st.sampled_from(TOKENS), st.binary(max_size=8)))
            document = document[:start] + new + document[start + length :]
        tried(reader, document)

    @given(st.binary(max_size=300))
    def anything(data: bytes) -> None:
        tried(reader, data)

    tracemalloc.start()
    try:
        change()
        anything()
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", READERS)
def test_readers(name: str) -> None:
    with_count(60, name)


@pytest.mark.long
@pytest.mark.parametrize("name", READERS)
def test_readers_long(name: str) -> None:
    with_count(3000, name)


def with_count(count: int, name: str) -> None:
    settings.register_profile("fuzz", max_examples=count, deadline=None)
    before = settings.get_current_profile_name()
    settings.load_profile("fuzz")
    try:
        fuzz(name)
    finally:
        settings.load_profile(before)
