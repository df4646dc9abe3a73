"""`cachefetch show`: a node, its closure, where it can be had."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from tests.functional.conftest import DEBIAN, FIXTURES, PAGE, Done

MIRROR = ["-m", str(FIXTURES / "v3-unsigned")]
EXPECTED = {s["hash"]: s for s in json.loads((FIXTURES / "v3-unsigned/EXPECTED.json").read_bytes())["specs"]}


def closure(hash_: str, seen: dict[str, None] | None = None) -> dict[str, None]:
    """Walk the link and run edges of EXPECTED.json."""
    seen = {} if seen is None else seen
    for edge in EXPECTED[hash_]["dependencies"]:
        if {"link", "run"} & set(edge["types"]) and edge["hash"] not in seen:
            seen[edge["hash"]] = None
            closure(edge["hash"], seen)
    return seen


@pytest.mark.parametrize("name", ["py-yarl", "hdf5", "chain-00"])
def test_the_closure_is_that_of_spack(name: str, cli: Callable[..., Done]) -> None:
    hash_ = next(h for h, s in sorted(EXPECTED.items()) if s["name"] == name and s["os"] == "debian12")
    done = cli("show", f"/{hash_}", *MIRROR, *DEBIAN, "--json")
    assert done.code == 0, done.err
    document = done.json
    wanted = closure(hash_)
    assert {entry["hash"] for entry in document["closure"]} == {
        h for h in wanted if not EXPECTED[h]["external"]
    }
    assert len(document["host_provides"]) == sum(EXPECTED[h]["external"] for h in wanted)
    assert document["spec"]["mirrors"] == [MIRROR[1]]
    assert document["spec"]["variants"] == EXPECTED[hash_]["variants"]
    assert len(document["spec"]["dependencies"]) == len(EXPECTED[hash_]["dependencies"])
    assert document["missing"] == []


def test_text_has_every_part(cli: Callable[..., Done]) -> None:
    hash_ = next(h for h, s in sorted(EXPECTED.items()) if s["name"] == "py-yarl" and s["os"] == "debian12")
    text = cli("show", f"/{hash_[:9]}", *MIRROR, *DEBIAN).out
    for part in (
        hash_,
        "mirrors ",
        "namespace  builtin",
        "variants ",
        "needs      python@",
        "from host  glibc@2.36",
    ):
        assert part in text


def test_a_binary_for_another_machine_says_why_not(cli: Callable[..., Done]) -> None:
    hash_ = next(h for h, s in EXPECTED.items() if s["name"] == "zlib" and s["os"] == "sequoia")
    done = cli("show", f"/{hash_}", *MIRROR, *DEBIAN)
    assert done.code == 0
    assert "unusable   was built for darwin" in done.out


def test_more_than_one_is_a_question_back(cli: Callable[..., Done]) -> None:
    done = cli("show", "zlib", *MIRROR, *DEBIAN)
    assert done.code == 2
    assert "binaries satisfy zlib" in done.err


def test_two_hashes_are_refused(cli: Callable[..., Done]) -> None:
    first, second = sorted(EXPECTED)[:2]
    done = cli("show", f"/{first}", f"/{second}", *MIRROR, *DEBIAN)
    assert (done.code, done.out) == (2, "")
    assert "names more than one binary" in done.err


def test_none_names_the_mirrors(cli: Callable[..., Done]) -> None:
    done = cli("show", "/zzzzzz", *MIRROR, *DEBIAN)
    assert done.code == 3
    assert "is fresh" in done.err


def test_a_page_entry_has_stacks_and_no_closure(cli: Callable[..., Done]) -> None:
    listed = cli("list", "-m", PAGE, "--json", *DEBIAN).json["specs"]
    done = cli("show", f"/{listed[0]['hash']}", "-m", PAGE, *DEBIAN, "--json")
    assert done.json["closure_known"] is False
    assert done.json["spec"]["stacks"]
