"""The layout of bundles: every byte has one place, no volume is too large, packages stay together."""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachefetch.errors import FormatError, UsageError
from cachefetch.fetch.bundle.format import (
    Contents,
    File,
    Header,
    header_text,
    lay_out,
    list_text,
    member_header,
    padding,
    parse_size,
    piece_name,
    read_header,
    read_list,
    volume_names,
)

KIB = 1 << 10
VOLUME = 400 * KIB


def blob(number: int, size: int) -> File:
    digest = hashlib.sha256(b"%d" % number).hexdigest()
    return File(f"blobs/sha256/{digest[:2]}/{digest}", size, digest)


def manifest(number: int) -> File:
    digest = hashlib.sha256(b"m%d" % number).hexdigest()
    return File(f"v3/manifests/spec/p/p-1.0-{number:032d}.spec.manifest.json", 700, digest)


def packages(sizes: list[int]) -> list[list[File]]:
    return [[blob(2 * n, 900), blob(2 * n + 1, size), manifest(n)] for n, size in enumerate(sizes)]


COMMON = [blob(-1, 5000), File("v3/manifests/index/index.manifest.json", 300, "0" * 64)]
sizes = st.lists(st.one_of(st.integers(0, 50 * KIB), st.integers(300 * KIB, 2000 * KIB)), max_size=12)


def checked(contents: Contents) -> None:
    """Every file is whole; nothing overlaps; what stands in a volume stands in order, behind its header."""
    for entry in contents.entries:
        assert sum(piece.length for piece in entry.pieces) == entry.file.size
    for volume in range(1, contents.volumes + 1):
        at = 0
        for entry, start, piece in contents.of_volume(volume):
            at += len(member_header(piece_name(entry, start), piece.length))
            assert piece.offset == at
            at += piece.length + padding(piece.length)
        assert at == contents.data_sizes[volume - 1]


@given(sizes)
def test_every_byte_has_its_place(found: list[int]) -> None:
    groups = packages(found)
    contents = lay_out(COMMON, groups, volume_size=VOLUME)
    checked(contents)
    files = sorted(file.path for group in groups for file in group) + sorted(file.path for file in COMMON)
    assert sorted(entry.file.path for entry in contents.entries) == sorted(files)
    head = len(member_header("x", 0)) * 2 + 2048 + len(list_text(contents)) + 512
    assert all(head + size + 1024 <= VOLUME for size in contents.data_sizes)


@given(sizes)
def test_a_package_that_fits_is_in_one_volume(found: list[int]) -> None:
    contents = lay_out(COMMON, packages(found), volume_size=VOLUME)
    of = {entry.file.path: {piece.volume for piece in entry.pieces} for entry in contents.entries}
    for number, size in enumerate(found):
        volumes = set().union(*(of[file.path] for file in packages(found)[number])) - {0}
        if size <= 50 * KIB:
            assert len(volumes) == 1


@given(sizes, st.sampled_from([None, VOLUME]))
def test_the_list_says_all(found: list[int], volume_size: int | None) -> None:
    contents = lay_out(COMMON, packages(found), volume_size=volume_size, since="ab" * 32)
    text = list_text(contents)
    header = Header(hashlib.sha256(text).hexdigest(), len(text), 1, contents.volumes)
    back = read_list(text, header, what="x")
    assert back == contents
    assert read_header(header_text(header), what="x") == header


def test_tar_reads_what_is_laid_out() -> None:
    contents = lay_out(COMMON, packages([3, 70_000]), volume_size=None)
    archive = b"".join(
        member_header(piece_name(entry, start), piece.length)
        + bytes(piece.length)
        + bytes(padding(piece.length))
        for entry, start, piece in contents.of_volume(1)
    )
    with tarfile.open(fileobj=io.BytesIO(archive + bytes(1024))) as tar:
        found = {member.name: member.size for member in tar}
    assert found == {entry.file.path: entry.file.size for entry in contents.entries}


def test_volumes_that_cannot_hold_the_index_are_refused() -> None:
    with pytest.raises(UsageError, match="too small"):
        lay_out([blob(1, 300 * KIB)], packages([5]), volume_size=VOLUME)


@pytest.mark.parametrize(
    "damage",
    [
        b'"v3/manifests/index' + b"!",
        b"../../etc/passwd",
        b"/etc/passwd",
        b"build_cache/x",
    ],
)
def test_a_list_with_other_paths_is_refused(damage: bytes) -> None:
    text = list_text(lay_out(COMMON, [], volume_size=None))
    text = text.replace(b"v3/manifests/index/index.manifest.json", damage.strip(b"!"), 1)
    header = Header(hashlib.sha256(text).hexdigest(), len(text), 1, 1)
    with pytest.raises(FormatError):
        read_list(text, header, what="x")


def test_a_list_that_is_not_the_signed_one_is_refused() -> None:
    text = list_text(lay_out(COMMON, [], volume_size=None))
    with pytest.raises(FormatError, match="digest"):
        read_list(text + b" ", Header(hashlib.sha256(text).hexdigest(), len(text), 1, 1), what="x")


FILE = ["v3/layout.json", 5, "0" * 64, [[0, 512, 5]]]
LISTS: list[object] = [
    None,
    [],
    5,
    {},
    {"schema": 1},
    {"data": 7},
    {"data": None},
    {"data": [None]},
    {"data": [-1]},
    {"data": [True]},
    {"data": [10**30]},
    {"since": None},
    {"since": 5},
    {"since": "abc"},
    {"files": {}},
    {"files": [5]},
    {"files": ["abcd"]},
    {"files": [[]]},
    {"files": [[None, *FILE[1:]]]},
    {"files": [["v3/../x", *FILE[1:]]]},
    {"files": [["v3/\ud800", *FILE[1:]]]},
    {"files": [["v3/a\nb", *FILE[1:]]]},
    {"files": [["blobs/sha256/00/x", *FILE[1:]]]},
    {"files": [[FILE[0], None, *FILE[2:]]]},
    {"files": [[*FILE[:2], None, FILE[3]]]},
    {"files": [[*FILE[:3], None]]},
    {"files": [[*FILE[:3], [5]]]},
    {"files": [[*FILE[:3], [[0, 1]]]]},
    {"files": [[*FILE[:3], [[0, "1", 5]]]]},
    {"files": [[*FILE[:3], []]]},
    {"files": [[*FILE, 5]]},
    {"files": [[*FILE, "a", "b"]]},
]


@pytest.mark.parametrize("change", LISTS, ids=str)
def test_what_is_wrong_with_a_list_is_told_in_a_sentence(change: object) -> None:
    right = {"schema": "cachefetch/bundle/1", "since": "", "data": [2048], "files": [FILE]}
    document = {**right, **change} if isinstance(change, dict) and change else change
    text = json.dumps(document).encode()
    header = Header(hashlib.sha256(text).hexdigest(), len(text), 1, 1)
    with pytest.raises(FormatError) as caught:
        read_list(text, header, what="x.bundle")
    told = caught.value.message
    assert told.startswith("x.bundle is damaged: its list of files cannot be read: ")
    assert not re.search(r"Error\(|None|True|\bindices\b|\bobject is\b|int\b", told), told


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{}",
        b"[]",
        b"5",
        b"null",
        b'{"schema":"other/1"}',
        b"[" * 9999,
        b"\xff",
        *(
            b'{"schema":"cachefetch/bundle/1"%s}' % more
            for more in (b"", b',"id":5', b',"id":null,"list_size":1,"volume":1,"volumes":1')
        ),
    ],
)
def test_a_header_that_is_none_is_refused(text: bytes) -> None:
    with pytest.raises(FormatError) as caught:
        read_header(text, what="x")
    assert not re.search(r"Error\(|None|object is", caught.value.message)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("25G", 25 * 10**9),
        ("4GiB", 4 << 30),
        ("700M", 7 * 10**8),
        ("1.5k", 1500),
        ("17", 17),
        ("1TB", 10**12),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "G", "25X", "-1G", "0", "nan", "1e999", "inf", "5 bananas"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_size(text)


def test_names_of_volumes() -> None:
    assert volume_names("a.bundle", 1) == ["a.bundle"]
    assert volume_names("a.bundle", 2) == ["a.001.bundle", "a.002.bundle"]
