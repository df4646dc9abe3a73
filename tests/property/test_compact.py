"""The pattern that decodes the common form of a record gives what the parser gives, or steps aside."""

from __future__ import annotations

import copy
import json
import pickle
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tools.indexes import FIXTURES, raw_index

from cachefetch.errors import FormatError
from cachefetch.resolver.index.readers.compact import compact_record
from cachefetch.resolver.index.readers.nodes import node_from_dict, specfile_of_database
from cachefetch.resolver.model import Node

#: What a byte of a record is replaced by or what is put before it: signs with a meaning in JSON, and odd characters.
SIGNS = [
    b'"',
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b" ",
    b"\n",
    b"\x00",
    b"\x7f",
    b"\xc3\xa9",
    b"=",
    b"@",
    b"",
]


def texts() -> list[tuple[str, bytes, int]]:
    """Return (hash, text as Spack writes it, specfile version) of every record of the fixtures."""
    found = []
    for name in FIXTURES:
        installs, version = raw_index(name)
        for hash_, row in installs.items():
            text = json.dumps(row, separators=(",", ":")).encode()
            found.append((hash_, text, specfile_of_database(version)))
    return found


TEXTS = texts()


def by_parser(text: bytes, hash_: str, specfile: int) -> tuple[Node, bool] | None:
    """Return what the parser makes of a record, None when it refuses it."""
    try:
        data = json.loads(text)
        node = node_from_dict(data["spec"], hash=hash_, specfile=specfile)
    except (ValueError, KeyError, TypeError, FormatError):
        return None
    return node, data.get("in_buildcache") is True


def test_real_records_are_read_alike_and_most_by_the_pattern() -> None:
    taken = 0
    for hash_, text, specfile in TEXTS:
        found = compact_record(text, hash_, specfile)
        if found is not None:
            taken += 1
            assert found == by_parser(text, hash_, specfile)
            assert repr(found) == repr(by_parser(text, hash_, specfile))
    assert taken > 0.8 * len(TEXTS)


@given(st.sampled_from(TEXTS), st.randoms(use_true_random=False), st.integers(1, 3))
@settings(max_examples=2000, deadline=None)
def test_what_the_pattern_takes_of_a_changed_record_the_parser_takes_too(
    record: tuple[str, bytes, int], chance: random.Random, changes: int
) -> None:
    hash_, text, specfile = record
    for _ in range(changes):
        at = chance.randrange(len(text))
        text = text[:at] + chance.choice(SIGNS) + text[at + chance.choice((0, 1)) :]
    found = compact_record(text, hash_, specfile)
    assert found is None or found == by_parser(text, hash_, specfile)


def _values(spec: Any, chance: random.Random) -> Any:
    """Return a value of another kind, or an odd one of the same."""
    odd = [
        None,
        0,
        1.5,
        True,
        "",
        "true",
        "a@b",
        "=1",
        "x" * 70,
        "9" * 5000,
        [],
        ["b", "a"],
        [1],
        {},
        {"a": "b"},
    ]
    return copy.deepcopy(chance.choice([*odd, spec]))


@given(st.sampled_from(TEXTS), st.randoms(use_true_random=False))
@settings(max_examples=2000, deadline=None)
def test_values_of_another_kind_are_left_to_the_parser(
    record: tuple[str, bytes, int], chance: random.Random
) -> None:
    hash_, text, specfile = record
    data = json.loads(text)
    place = data
    while True:
        key = chance.choice(list(place) if isinstance(place, dict) else range(len(place)))
        inner = place[key]
        if isinstance(inner, (dict, list)) and inner and chance.random() < 0.8:
            place = inner
            continue
        place[key] = _values(inner, chance)
        break
    text = json.dumps(data, separators=(",", ":")).encode()
    found = compact_record(text, hash_, specfile)
    assert found is None or found == by_parser(text, hash_, specfile)


@pytest.mark.parametrize("part", ["variants", "flags"])
def test_lazy_parameters_are_the_mapping_that_the_parser_makes(part: str) -> None:
    row = b'"parameters":{"a":true,"b":"x","c":["z","y"],"d":"False","cflags":["-O2"],"ldlibs":[]}'
    head = b'{"spec":{"name":"n","version":"1","arch":{"platform":"linux","platform_os":"o","target":"t"},'
    text = head + b'"namespace":"",' + row + b',"hash":"h"},"ref_count":0,"in_buildcache":true}'
    first, again, whole = compact_record(text, "h", 5), compact_record(text, "h", 5), by_parser(text, "h", 5)
    assert first
    assert again
    assert whole
    lazy, other, plain = (getattr(each[0], part) for each in (first, again, whole))
    assert lazy == other
    assert lazy == plain
    assert plain == lazy
    assert (sorted(lazy.items()), len(lazy), repr(lazy)) == (sorted(plain.items()), len(plain), repr(plain))
    assert {name: name in lazy for name in "abcx"} == {name: name in plain for name in "abcx"}
    assert lazy.get("c") == plain.get("c")
    assert pickle.loads(pickle.dumps(lazy)) == plain
    assert lazy != {"a": False}
