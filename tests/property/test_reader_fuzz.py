"""Readers of what mirrors send: whatever the bytes, one of our errors or a value; no hang, bounded memory.

`make test` runs some ten inputs each, `make fuzz-readers SECONDS=60` as many as that time allows, in rounds with a seed
of their own (FUZZ_SEED sets the first). The tar reader that writes is in tests/unit/test_extract.py, clear-signed
documents are in tests/unit/verify/test_openpgp.py too.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import random
import signal
import time
import tracemalloc
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st
from tests.tools import archive

from cachefetch.errors import ArchiveError, CachefetchError, NotFoundError
from cachefetch.fetch.keys import published
from cachefetch.fetch.resume import read_info
from cachefetch.fetch.unpack.tar import FILE, members, padding
from cachefetch.fetch.verify import freshness
from cachefetch.fetch.verify.binding import parse_spec, read_spec_blob
from cachefetch.fetch.verify.image import parse_image, read_config
from cachefetch.fetch.verify.openpgp import Keyring, split_cleartext, verify_cleartext
from cachefetch.fetch.verify.policy import SignaturePolicy
from cachefetch.fetch.verify.specfile import verify_spec_file
from cachefetch.lockfile import Lock
from cachefetch.resolver.index.readers import Answer, oci
from cachefetch.resolver.index.readers.catalogue import parse_catalogue
from cachefetch.resolver.index.readers.lock import parse_lock
from cachefetch.resolver.index.readers.manifest import BlobRef, parse_manifest
from cachefetch.resolver.index.readers.page import is_page, parse_data, parse_page, release_of
from cachefetch.resolver.index.readers.spec import parse_document
from cachefetch.resolver.index.splitter import split_any

FIXTURES = Path(__file__).parents[1] / "data" / "fixtures"
PUBLIC = (FIXTURES / "keys/cachefetch-test.pub.asc").read_bytes()
KEYRING = Keyring.from_bytes(PUBLIC, what="key")
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


def tar(data: bytes) -> object:
    """Read all members of an archive, as unpacking does, without writing any."""
    source = io.BytesIO(data)

    def read(size: int) -> bytes:
        found = source.read(size)
        if len(found) < size:
            raise ArchiveError("truncated", "ends in the middle of a member")
        return found

    found = []
    for member in members(read):
        end = source.seek(member.size + padding(member.size), os.SEEK_CUR) if member.kind == FILE else 0
        if end > len(data):
            raise ArchiveError("truncated", "ends in the middle of a member")
        found.append(member)
    return found


def tar_with_right_sums(data: bytes) -> object:
    """The same, with the check sum of every block made right: a fuzzer does not hit one by chance."""
    changed = bytearray(data)
    for at in range(0, len(data) - 511, 512):
        if data[at + 257 : at + 262] == b"ustar":
            changed[at + 148 : at + 156] = b" " * 8
            changed[at + 148 : at + 156] = b"%06o\0 " % sum(changed[at : at + 512])
    return tar(bytes(changed))


def image_config(data: bytes) -> object:
    ref = BlobRef("x", hashlib.sha256(data).hexdigest(), len(data), "")
    image = parse_image(IMAGE, what="f")
    return read_config(data, type(image)(ref, image.tarball), name="a", version="1", hash="a", what="f")


def page(data: bytes) -> object:
    return (is_page(data), release_of(data), parse_page(data, what="f"))


def answered(steps: Generator[object, Answer, object], data: bytes) -> object:
    """Give a reader the same bytes for whatever it asks, as far as it asks a few times."""
    try:
        next(steps)
        for _ in range(8):
            steps.send(Answer(200, body=data))
    except StopIteration as stop:
        return stop.value
    return None


def key_index(data: bytes) -> object:
    """Read the key list of a layout 2 mirror; each key in it is the test key."""
    steps = published("/m")
    try:
        next(steps)
        steps.send((Answer(0, error=NotFoundError("no layout 3")),))
        asked = steps.send((Answer(200, body=data),))
        steps.send(tuple(Answer(200, body=PUBLIC) for _ in asked))
    except StopIteration as stop:
        return stop.value
    return None


def index_image(data: bytes) -> object:
    return answered(oci.read("oci://localhost/cache"), data)


OCI = FIXTURES / "oci-registry/docker/registry/v2"


def stored_image(place: Path) -> bytes:
    digest = (place / "current/link").read_text().removeprefix("sha256:")
    return (OCI / "blobs/sha256" / digest[:2] / digest / "data").read_bytes()


IMAGE = stored_image(min(OCI.glob("repositories/cache/_manifests/tags/zlib-*")))
INDEX_IMAGE = stored_image(OCI / "repositories/cache/_manifests/tags/index.spack")
CONFIG_SHA256 = json.loads(IMAGE)["config"]["digest"].removeprefix("sha256:")
CONFIG = (OCI / "blobs/sha256" / CONFIG_SHA256[:2] / CONFIG_SHA256 / "data").read_bytes()
NODES = json.loads(SPEC)["spec"]["nodes"]
SPACK_LOCK = {
    "_meta": {"file-type": "spack-lockfile", "lockfile-version": 6, "specfile-version": 5},
    "roots": [{"hash": NODES[0]["hash"], "spec": NODES[0]["name"]}],
    "concrete_specs": {node["hash"]: node for node in NODES},
}
ENTRY = {
    "hash": "a" * 32,
    "compiler": "gcc@=12.2.0",
    "versions": ["1.0"],
    "version": "1.0",
    "os": "debian12",
    "platform": "linux",
    "target": "x86_64",
    "variants": ["build_system=generic", "~guile"],
    "stacks": ["root"],
    "size": "-",
}
PAGE = "\n".join(
    (
        "---",
        'title: "gmake"',
        "layout: cache",
        "categories: [package, develop]",
        f"meta: {json.dumps({'versions': ['1.0'], 'compilers': ['gcc@12.2.0']})}",
        f"spec_details: {json.dumps([ENTRY])}",
        "---",
    )
).encode()
KEY_INDEX: dict[str, dict[str, dict[str, str]]] = {
    "keys": {fingerprint: {} for fingerprint in KEYRING.fingerprints}
}
LOCK = {
    "schema": "cachefetch/lock/1",
    "host": {
        "platform": "linux",
        "os": "debian12",
        "target": "x86_64",
        "libc": None,
        "compilers": [],
        "sources": {},
    },
    "roots": [{"query": "a", "hash": "a" * 32, "decided_by": []}],
    "packages": [
        {
            "name": "a",
            "version": "1",
            "hash": "a" * 32,
            "sha256": "0" * 64,
            "size": 1,
            "spec_sha256": "0" * 64,
            "spec_size": 1,
        }
    ],
    "mirrors": ["m"],
}
CATALOGUE = {"v1.0": [{"label": "stack", "url": "https://h.invalid/v1.0/stack/blobs/sha256/aa/aa"}]}


def document(value: object) -> bytes:
    return json.dumps(value).encode()


READERS: dict[str, tuple[Callable[[bytes], object], bytes]] = {
    "manifest": (partial(parse_manifest, what="f"), TEXT),
    "clearsign": (partial(verify_cleartext, keyring=KEYRING, what="f", now=2e9), MANIFEST),
    "spec": (partial(parse_spec, what="f"), SPEC),
    "spec blob": (spec_blob, SPEC),
    "spec file of layout 2": (spec_file, SPEC_FILE),
    "spec document": (partial(parse_document, what="f"), SPEC),
    "index": (partial(split_any, what="f"), INDEX),
    "index image": (index_image, INDEX_IMAGE),
    "image": (partial(parse_image, what="f"), IMAGE),
    "image config": (image_config, CONFIG),
    "key": (partial(Keyring.from_bytes, what="f"), PUBLIC),
    "key index": (key_index, document(KEY_INDEX)),
    "page": (page, PAGE),
    "page data": (partial(parse_data, what="f"), document({"name": "gmake", "specs": [ENTRY]})),
    "catalogue": (partial(parse_catalogue, what="f"), document(CATALOGUE)),
    "spack.lock": (partial(parse_lock, what="f"), document(SPACK_LOCK)),
    "lock file": (partial(Lock.read, what="f"), document(LOCK)),
    "tar": (tar, archive.good()),
    "tar with right check sums": (tar_with_right_sums, archive.good()),
    "memory of indexes": (freshness.decode, freshness.encode((freshness.Seen("0" * 64, 1, 2.0),))),
    "state of a part": (read_info, b'{"url": "u", "etag": "e", "sha256": "%s", "size": 1}' % (b"0" * 64)),
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


class Hang(Exception):
    """A reader takes longer than any input is worth."""


@contextmanager
def watched(seconds: int) -> Iterator[None]:
    def hang(number: int, frame: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, hang)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def tried(reader: Callable[[bytes], object], data: bytes) -> None:
    """Read; only our own errors may come out."""
    if tracemalloc.is_tracing():
        tracemalloc.reset_peak()
    try:
        with watched(30):
            reader(data)
    except CachefetchError as error:
        outcome = error.message
    else:
        outcome = "read"
    assert outcome
    if tracemalloc.is_tracing():
        assert tracemalloc.get_traced_memory()[1] < LIMIT


def fuzz(name: str, number: int, traced: bool) -> None:
    reader, original = READERS[name]

    @seed(number)
    @given(st.data())
    def change(data: st.DataObject) -> None:
        document = original
        for _ in range(data.draw(st.integers(1, 4))):
            start = data.draw(st.integers(0, len(document)))
            length = data.draw(st.integers(0, 30))
            new = data.draw(st.one_of(st.sampled_from(TOKENS), st.binary(max_size=8)))
            document = document[:start] + new + document[start + length :]
        tried(reader, document)

    @seed(number)
    @given(st.binary(max_size=300))
    def anything(data: bytes) -> None:
        tried(reader, data)

    if traced:
        tracemalloc.start()
    try:
        change()
        anything()
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", READERS)
def test_readers(name: str) -> None:
    if name not in REFUSED:
        READERS[name][0](READERS[name][1])
    with_count(15, name, 1, traced=True)


#: Readers that refuse their own example, which is about another package than the one that they are asked for.
REFUSED = ("spec file of layout 2", "image config")


@pytest.mark.long
def test_readers_for_a_time() -> None:
    """All readers in turn until FUZZ_SECONDS are over; the seed of a round that fails is in its output."""
    until = time.monotonic() + float(os.environ.get("FUZZ_SECONDS", "60"))
    number = int(os.environ.get("FUZZ_SEED", "0")) or random.SystemRandom().randrange(1 << 30)
    rounds = 0
    while time.monotonic() < until:
        for name in READERS:
            print(f"FUZZ_SEED={number} {name}")
            with_count(60, name, number, traced=rounds % 4 == 0)  # costs four times the time
            if time.monotonic() > until:
                break
        rounds += 1
        number += 1
    assert rounds


def with_count(count: int, name: str, number: int, *, traced: bool) -> None:
    settings.register_profile("fuzz", max_examples=count, deadline=None, database=None)
    before = settings.get_current_profile_name()
    settings.load_profile("fuzz")
    try:
        fuzz(name, number, traced)
    finally:
        settings.load_profile(before)
