"""The fast splitter and the full decode give the same rows, or the fast one says that it does not know the text."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cachefetch.errors import FormatError
from cachefetch.resolver.index.splitter import Splitter, Unexpected, split, split_any

HASH = "abcdefghijklmnopqrstuvwxyz234567"


def index_of(count: int, *, seed: int = 1) -> dict[str, Any]:
    random_ = random.Random(seed)
    installs = {}
    for number in range(count):
        key = "".join(random_.choices(HASH, k=32))
        spec = {
            "name": f"pkg-{number % 7}",
            "version": str(number),
            "arch": {"target": {"name": "zen4"}},
            "hash": key,
        }
        installs[key] = {"spec": spec, "ref_count": number, "in_buildcache": number % 3 != 0}
    return {"database": {"version": "8", "installs": installs}}


def compact(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def chunks(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


@given(st.integers(1, 40), st.integers(1, 5000))
def test_any_chunk_size_gives_the_rows_of_the_full_decode(count: int, size: int) -> None:
    data = compact(index_of(count))
    version, rows = split(chunks(data, size))
    assert (version, [tuple(row) for row in rows], {}) == split_any(data, what="test")


def test_offsets_point_at_the_record() -> None:
    document = index_of(9)
    data = compact(document)
    for key, name, offset, length, binary in split([data])[1]:
        record = json.loads(data[offset : offset + length])
        assert record == document["database"]["installs"][key]
        assert (name, binary) == (record["spec"]["name"], record["in_buildcache"])


def _reordered(document: dict[str, Any]) -> Any:
    installs = document["database"]["installs"]
    return {
        "database": {"installs": {k: dict(reversed(r.items())) for k, r in installs.items()}, "version": "8"}
    }


VARIATIONS = {
    "pretty": lambda d: json.dumps(d, indent=2).encode(),
    "spaces": lambda d: json.dumps(d).encode(),
    "reordered": lambda d: compact(_reordered(d)),
    "extra top-level key": lambda d: compact({"note": 'a ":{"spec": in a text', **d}),
    "byte-order mark": lambda d: b"\xef\xbb\xbf" + compact(d),
    "umlauts before the records": lambda d: json.dumps({"note": "grün", **d}, ensure_ascii=False).encode(),
    "trailing data": lambda d: compact(d) + b"\n{}",
    "escaped names": lambda d: compact(d).replace(b'"pkg-1"', b'"pkg\\u002d1"'),
}


@pytest.mark.parametrize("variation", VARIATIONS)
def test_other_texts_of_the_same_index_take_the_checking_path_with_the_same_result(variation: str) -> None:
    document = index_of(8)
    expected = {(row[0], row[1], row[4]) for row in split([compact(document)])[1]}
    data = VARIATIONS[variation](document)
    with pytest.raises(Unexpected):
        split([data])
    version, rows, broken = split_any(data, what="test")
    assert (version, broken) == ("8", {})
    assert {(row[0], row[1], row[4]) for row in rows} == expected
    for key, _, offset, length, _ in rows:
        assert json.loads(data[offset : offset + length]) == document["database"]["installs"][key]


def test_empty_index_has_no_rows() -> None:
    data = compact({"database": {"version": "8", "installs": {}}})
    with pytest.raises(Unexpected):
        split([data])
    assert split_any(data, what="test") == ("8", [], {})


def test_broken_records_are_counted_not_fatal() -> None:
    document = index_of(4)
    document["database"]["installs"]["x" * 32] = {"spec": None}
    _, rows, broken = split_any(compact(document), what="test")
    assert len(rows) == 4
    assert list(broken) == ["x" * 32]
    assert broken["x" * 32].startswith("TypeError")


@pytest.mark.parametrize(
    "value", ["[" * 20_000 + "]" * 20_000, '{"a":' * 20_000 + '"]}"' + "}" * 20_000, "7" * 5000]
)
@pytest.mark.parametrize("place", ["inside", "beside"])
def test_a_value_that_json_refuses_spoils_no_other_record(value: str, place: str) -> None:
    document = index_of(5)
    first = next(iter(document["database"]["installs"].values()))
    (first["spec"] if place == "inside" else document["database"])["more"] = "?"
    compacted, pretty = (
        text.replace(b'"?"', value.encode()) for text in (compact(document), json.dumps(document).encode())
    )
    version, rows, broken = split_any(pretty, what="test")
    assert (version, broken) == ("8", {})
    assert [(row[0], row[1], row[4]) for row in rows] == [
        (row[0], row[1], row[4]) for row in split_any(compacted, what="test")[1]
    ]
    if place == "inside":
        assert [tuple(row) for row in split([compacted])[1]] == split_any(compacted, what="test")[1]
    good = [json.loads(pretty[row[2] : row[2] + row[3]])["spec"]["hash"] for row in rows[place == "inside" :]]
    assert good == list(document["database"]["installs"])[place == "inside" :]


def test_the_last_of_several_members_with_one_key_counts() -> None:
    record = b'{"spec":{"name":"%s"},"in_buildcache":true}'
    installs = b'"%s":%s,"%s":null,"%s":%s' % (
        b"a" * 32,
        record % b"one",
        b"b" * 32,
        b"A" * 32,
        record % b"two",
    )
    data = b'{"database":{},"database":{"version":"7","version":"8","installs":{%s}}}' % installs
    version, rows, broken = split_any(data, what="test")
    assert (version, [row[:2] for row in rows], len(broken)) == ("8", [("a" * 32, "two")], 1)


#: Shapes that the fast path does not know, of a text that is as Spack writes it.
ODD = {
    "byte-order mark": lambda text: b"\xef\xbb\xbf" + text,
    "trailing data": lambda text: text + b"\n{}",
    "more at the top": lambda text: b'{"note":"gr\xc3\xbcn",' + text[1:],
    "spaces": lambda text: text.replace(b'},"ref_count":', b'} , "ref_count" : ').replace(
        b'":{"spec', b'": {"spec'
    ),
    "version behind": lambda text: text.replace(b'"version":"8","inst', b'"inst')[:-2] + b',"version":"8"}}',
}


#: What makes no JSON of a record. A "}" too many may make other JSON of the whole, which is then what it says.
HARM = (b"{{", b'"', b"\\", b",", b"[", b"]", b"nul", b"\x01")


@pytest.mark.parametrize("odd", ODD)
@settings(max_examples=60)
@given(st.data())
def test_a_spoiled_record_is_skipped_and_counted_whatever_the_shape_of_the_rest(
    odd: str, data: st.DataObject
) -> None:
    """Both paths read the same other records, and the record that no longer is JSON is known to be broken."""
    document = index_of(6)
    key = data.draw(st.sampled_from(list(document["database"]["installs"])))
    text = compact(document)
    begin = text.index(b'"arch":', text.index(key.encode() + b'":{"spec"'))
    end = text.index(b'},"ref_count"', begin)
    at = data.draw(st.integers(begin, end - 1))
    spoiled = text[:at] + data.draw(st.sampled_from(HARM)) + text[at:]
    fast = {}
    for hash_, _, offset, length, _ in split([spoiled])[1]:
        try:
            fast[hash_] = json.loads(spoiled[offset : offset + length])
        except ValueError:
            assert hash_ == key
    changed = ODD[odd](spoiled)
    version, rows, broken = split_any(changed, what="test")
    slow = {row[0]: json.loads(changed[row[2] : row[2] + row[3]]) for row in rows}
    assert version == "8"
    assert slow == fast
    assert list(broken) == ([] if key in fast else [key])


def test_text_that_may_have_lost_several_records_is_no_index() -> None:
    text = compact(index_of(4))
    second = text.index(b'":{"spec"', text.index(b'":{"spec"') + 9)
    first_tail = text.index(b'},"ref_count"')
    for spoiled in (text[:first_tail] + text[first_tail + 9 :], text[: first_tail - 9] + text[second - 9 :]):
        with pytest.raises(FormatError):
            split_any(spoiled + b"\n{}", what="test")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b'{"database":{"version":"8","installs":{}}',
        b'{"database":{"version":"8","installs":{"a" {}}}}',
        b'{"database":{"version":"8","installs":{"a":{} "b":{}}}}',
        b'{"database":{"version":"8","installs":{"a":' + b"[" * 20_000,
        b'{"database":{"version":"8"}}',
        b"{",
        b"[]",
        b"<html>",
        b'{"database":{}}',
        b"\xff\xfe",
        b'{"database":{"version":"8","installs":[]}}',
    ],
)
def test_what_is_no_index_is_refused_by_name(data: bytes) -> None:
    with pytest.raises(FormatError, match="the index of site"):
        split_any(data, what="the index of site")


@settings(max_examples=200)
@given(st.data())
def test_damage_is_never_read_as_other_records(data: st.DataObject) -> None:
    """A cut or changed byte gives an error, or rows whose text still is what the full decode reads."""
    original = compact(index_of(5))
    at = data.draw(st.integers(0, len(original) - 1))
    changed = original[:at] + bytes([data.draw(st.integers(32, 126))]) + original[at + 1 :]
    try:
        _, rows = split([changed])
    except (Unexpected, UnicodeDecodeError):
        return
    try:
        _, full, _ = split_any(changed, what="test")
    except FormatError:
        return  # the record itself is no JSON: found out when it is decoded, or by the digest
    assert {tuple(row) for row in rows} >= set(full) or {row[0] for row in rows} == {row[0] for row in full}


def test_memory_holds_one_record_only() -> None:
    splitter = Splitter()
    data = compact(index_of(2000))
    longest = 0
    for chunk in chunks(data, 4096):
        list(splitter.feed(chunk))
        longest = max(longest, len(splitter._buffer))
    list(splitter.close())
    assert longest < 8192


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("behind", [b'"arch":{', b'"target":'])
def test_a_record_that_two_braces_end_early_spoils_no_other(odd: str, behind: bytes) -> None:
    document = index_of(6)
    key = list(document["database"]["installs"])[2]
    text = compact(document)
    at = text.index(behind, text.index(key.encode() + b'":{"spec"')) + len(behind)
    changed = ODD[odd](text[:at] + b"}}" + text[at:])
    version, rows, broken = split_any(changed, what="test")
    assert (version, list(broken)) == ("8", [key])
    assert {row[0] for row in rows} == set(document["database"]["installs"]) - {key}
