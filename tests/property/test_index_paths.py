"""However an index is written down, the store holds the same specs: the fast splitter and the full decode agree."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cachefetch.resolver.index.splitter import Unexpected, split, split_any
from cachefetch.resolver.index.store import IndexStore

ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
NAMES = st.from_regex(r"[a-z0-9_][a-z0-9_-]{0,11}", fullmatch=True)
HASHES = st.text(ALPHABET, min_size=32, max_size=32)
#: What json.loads refuses in one record: its text stands for a marked string, because json.dumps refuses it too.
UNREADABLE = {
    "deep": "[" * 20_000 + "]" * 20_000,
    "digits": "1" * 5000,
    "deep object": '{"a":' * 20_000 + "1" + "}" * 20_000,
}
#: Texts that could deceive a splitter: they hold the marks that it looks for, quotes and characters of several bytes.
TEXTS = st.sampled_from(
    ["", "grün", '":{"spec":', '},"ref_count":1,"in_buildcache":true}', "\\", '"', "a\nb", "\u2028"]
)


@st.composite
def records(draw: st.DrawFn) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "name": draw(NAMES),
        "version": draw(st.sampled_from(["1.0", "2", "main", "git.abc=1.2"])),
        "arch": {
            "platform": "linux",
            "platform_os": "debian12",
            "target": draw(st.sampled_from(["x86_64", "zen4"])),
        },
        "parameters": {"note": draw(TEXTS), "list": draw(st.lists(TEXTS, max_size=2))},
    }
    if draw(st.booleans()):
        inner = {draw(HASHES): {"spec": {"name": "inner"}, "ref_count": 1, "in_buildcache": True}}
        spec["external"] = {"path": "/usr", "module": None, "extra_attributes": inner}
    if draw(st.integers(0, 4)) == 0:
        spec["parameters"]["unreadable"] = f"<{draw(st.sampled_from(sorted(UNREADABLE)))}>"
    return {"spec": spec, "ref_count": draw(st.integers(0, 9)), "in_buildcache": draw(st.booleans())}


def shuffled(value: Any, order: int) -> Any:
    """Return the same JSON value with the keys of every object rotated."""
    if isinstance(value, dict):
        keys = list(value)
        cut = order % len(keys) if keys else 0
        return {key: shuffled(value[key], order) for key in keys[cut:] + keys[:cut]}
    return [shuffled(item, order) for item in value] if isinstance(value, list) else value


@st.composite
def writings(draw: st.DrawFn) -> tuple[dict[str, Any], bytes]:
    """An index, and one way to write it down."""
    installs = draw(st.dictionaries(HASHES, records(), min_size=0, max_size=6))
    upper = draw(st.booleans())
    installs = {hash_.upper() if upper else hash_: record for hash_, record in installs.items()}
    document = {"database": {"version": "8", "installs": installs}}
    text = json.dumps(
        shuffled(document, draw(st.integers(0, 3))),
        indent=draw(st.sampled_from([None, 1])),
        separators=draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,", " :")])),
        ensure_ascii=draw(st.booleans()),
    )
    for mark, value in UNREADABLE.items():
        text = text.replace(f'"<{mark}>"', value)
    head = draw(st.sampled_from(["", "\ufeff", " \n"]))
    tail = draw(st.sampled_from(["", "\n", '\n{"more": 1}', " garbage"]))
    return document, (head + text + tail).encode()


@given(writings())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_the_fast_path_gives_what_the_full_decode_gives_or_steps_aside(
    case: tuple[dict[str, Any], bytes],
) -> None:
    _, data = case
    version, rows, broken = split_any(data, what="test")
    assert not broken
    try:
        fast = split([data[at : at + 97] for at in range(0, len(data), 97)])
    except (Unexpected, UnicodeDecodeError):
        return
    assert (fast[0], sorted(tuple(row) for row in fast[1])) == (version, sorted(tuple(row) for row in rows))


def _is_readable(spec: dict[str, Any]) -> bool:
    """Tell whether a record is read: one with a control character, or that json.loads refuses, is skipped."""
    if "unreadable" in spec["parameters"]:
        return False
    return all(text.isprintable() for text in (spec["parameters"]["note"], *spec["parameters"]["list"]))


@given(writings())
@settings(max_examples=75, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_the_store_holds_the_same_specs_however_the_index_is_written(
    case: tuple[dict[str, Any], bytes],
) -> None:
    document, data = case
    with tempfile.TemporaryDirectory() as scratch:
        body = Path(scratch) / "index.json"
        body.write_bytes(data)
        store = IndexStore(f"{scratch}/store")
        index = store.ingest(str(body), "m", str(body), local=True, meta={"kind": "bare"}, sha256=None)
        held = {record.node.hash: record for record in index.everything()}
        skipped = set(index.skipped)
        index.close()
    installs = {hash_.lower(): record for hash_, record in document["database"]["installs"].items()}
    assert set(held) == {hash_ for hash_, record in installs.items() if _is_readable(record["spec"])}
    assert skipped == installs.keys() - held.keys()
    for hash_, record in held.items():
        spec = installs[hash_]["spec"]
        assert (record.node.name, record.node.version) == (spec["name"], spec["version"])
        assert record.node.variants["note"] == spec["parameters"]["note"]
        assert record.has_binary == (installs[hash_]["in_buildcache"] and "external" not in spec)
