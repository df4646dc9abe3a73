"""cache.spack.io pages of several eras, real and damaged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cachefetch.errors import FormatError
from cachefetch.resolver.index.readers.page import is_page, parse_page

PAGES = Path(__file__).parents[2] / "data" / "pages"


@pytest.mark.parametrize("path", sorted(PAGES.glob("*.md")), ids=lambda path: path.name)
def test_real_pages_give_every_binary_they_count(path: Path) -> None:
    data = path.read_bytes()
    meta = json.loads(next(line for line in data.decode().splitlines() if line.startswith("meta: "))[6:])
    records, broken = parse_page(data, what=path.name)
    assert broken == ()
    assert len(records) == meta["num_specs"]
    nodes = [record.node for record in records]
    assert {node.version for node in nodes} == set(meta["versions"])
    assert {node.os for node in nodes} == set(meta["oss"])
    assert {node.target for node in nodes} == set(meta["targets"])
    assert {stack for record in records for stack in record.stacks} == set(meta["stacks"])
    compilers = {"none" if n.compiler is None else "@".join(n.compiler) for n in nodes}
    assert compilers == {text.replace("@=", "@") for text in meta["compilers"]}
    assert all(node.partial and not node.edges for node in nodes)


def test_variants_are_read_from_display_strings() -> None:
    records, _ = parse_page((PAGES / "rocblas-2025-03-30.specs.md").read_bytes(), what="rocblas")
    variants = records[0].node.variants
    assert variants["amdgpu_target"] == ("gfx90a",)
    assert variants["asan"] is False
    assert variants["tensile"] is True
    assert variants["build_type"] == "Release"


def page(details: str, title: str = "zlib") -> bytes:
    return f'---\ntitle: "{title}"\nlayout: cache\nspec_details: {details}\n---'.encode()


ENTRY = {
    "hash": "a" * 32,
    "versions": ["1.3"],
    "platform": "linux",
    "os": "rhel8",
    "target": "x86_64",
    "compiler": "gcc@=8.5.0",
    "variants": ["+pic"],
    "stacks": ["root"],
}


def test_an_entry_that_cannot_be_read_is_counted_and_skipped() -> None:
    entries = [ENTRY, {**ENTRY, "hash": "short"}, {**ENTRY, "versions": []}, {**ENTRY, "os": None}, 7]
    entries += [
        {**ENTRY, "versions": ["../../1"]},
        {**ENTRY, "compiler": "gcc@1/2"},
        {**ENTRY, "name": "../x"},
    ]
    records, broken = parse_page(page(json.dumps(entries)), what="page")
    assert (len(records), len(broken)) == (1, 7)


def test_the_same_hash_twice_is_one_record_with_all_stacks() -> None:
    records, _ = parse_page(page(json.dumps([ENTRY, {**ENTRY, "stacks": ["e4s"]}])), what="page")
    assert [record.stacks for record in records] == [("root", "e4s")]


def test_windows_line_ends_and_a_byte_order_mark_do_not_matter() -> None:
    data = b"\xef\xbb\xbf" + page(json.dumps([ENTRY])).replace(b"\n", b"\r\n")
    assert is_page(data)
    assert len(parse_page(data, what="page")[0]) == 1


@pytest.mark.parametrize(
    ("data", "state"),
    [
        (page("[")[:-4], "corrupt"),
        (page("[{]"), "corrupt"),
        (page("{}"), "corrupt"),
        (page(json.dumps([ENTRY]))[:-40], "corrupt"),
        (b"---\n\xff\xfe\n---", "corrupt"),
        (b'---\ntitle: "x"\nspec_files:\n- "x@1": spec-0.json\n---', "too-old"),
        (b'---\ntitle: "A blog"\n---\ntext', "not-a-cache"),
    ],
)
def test_damage_is_named(data: bytes, state: str) -> None:
    with pytest.raises(FormatError, match=r"specs\.md") as caught:
        parse_page(data, what="specs.md")
    assert caught.value.context.get("state", "corrupt") == state
