"""Every case of tests/cases/resolve: the choice, the keys that decided, the reasons, whatever the order of things."""

from __future__ import annotations

import random
from typing import Any

import pytest
from tests.unit.rules.cases import answer, load_all

from cachefetch.resolver.explain import MESSAGES, WORDS, conflict_lines, explain, no_candidate_lines
from cachefetch.resolver.resolution import REASONS, Resolution

ALL = load_all()
#: The traps of the reference, by row; the field `pitfalls` of a case names the rows that it shows.
PITFALLS = {
    1: "a version is a range", 2: "no zero padding", 3: "upper bounds hold pre-releases", 4: "lists and empty ranges",
    5: "PEP 440 pre-releases", 6: "develop is above all numbers", 7: "at least these values", 8: "absent variants",
    9: "variants after %", 10: "no compiled code", 11: "old compiler names", 12: "any of, all of",
    13: "build dependencies further down", 14: "platform=*", 15: "os=a,b", 16: "arch= of two parts",
    17: "exact targets", 18: "targets are a partial order", 19: "generic hosts", 20: "labels of systems",
    21: "prefix of the libc", 22: "newest libc of the closure", 23: "externals have no binary",
    24: "pruned dependencies",
    25: "Python requirements and namespaces", 26: "one hash in several mirrors", 27: "runtimes float", 28: "dashes",
    29: "macOS facts", 30: "Windows builds",
}  # fmt: skip
WORKED = 48


@pytest.fixture(params=ALL, ids=[case["name"] for case in ALL])
def case(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """One case; `prefixes` are what exists on its host."""
    found: dict[str, Any] = request.param
    monkeypatch.setattr("cachefetch.answers.os.path.exists", lambda path: path in found.get("prefixes", ()))
    return found


def plain(resolution: Resolution) -> dict[str, Any]:
    """Return the document without what the order of mirrors and roots may change: the lists of mirrors."""
    document = resolution.to_dict()
    document["roots"].sort(key=lambda root: root["query"])
    document["closure"] = sorted((entry["name"], entry["hash"]) for entry in document["closure"])
    document["missing"].sort(key=lambda entry: entry["hash"])
    for entry in document["missing"]:
        entry["needed_by"].sort()
    for root in document["roots"]:
        if root["chosen"]:
            root["chosen"]["mirrors"].sort()
    return document


def test_case(case: dict[str, Any]) -> None:
    found, ids = answer(case)
    want = case["want"]
    assert want.keys() <= {
        "choice", "status", "decided_by", "others", "rejected", "relax", "host_provides", "missing", "notes",
        "conflict", "conflict_relax", "order", "suggestions", "explain", "nearest", "message",
    }  # fmt: skip
    chosen = [ids[root.chosen.hash] if root.chosen else None for root in found.roots]
    if found.status == "conflict":
        chosen = [None for _ in found.roots]
    assert chosen == (want["choice"] if isinstance(want["choice"], list) else [want["choice"]])
    ok = "ok" if all(chosen) else "no-candidate"
    assert found.status == want.get("status", ok)
    others = {ids[o.artifact.hash]: o.worse_by for root in found.roots for o in root.others}
    rejected = {ids[r.artifact.hash]: r.reason for root in found.roots for r in root.rejected}
    assert {**others, **want.get("others", {})} == others
    assert {**rejected, **want.get("rejected", {})} == rejected
    first = found.roots[0]
    if "message" in want:
        assert want["message"] in "\n".join(no_candidate_lines(found, first))
    if "decided_by" in want:
        assert list(first.decided_by) == want["decided_by"]
    if "order" in want:
        assert [ids[o.artifact.hash] for o in first.others] == want["order"]
    if "relax" in want:
        assert [list(pair) for pair in first.relax] == want["relax"]
    if "host_provides" in want:
        assert list(found.host_provides) == want["host_provides"]
    if "missing" in want:
        assert {m.name: list(m.needed_by) for m in found.missing} == want["missing"]
    if "suggestions" in want:
        assert list(first.suggestions) == want["suggestions"]
    if "nearest" in want:
        assert [ids[r.artifact.hash] for r in first.rejected] == want["nearest"]
    if "conflict_relax" in want:
        assert [list(pair) for pair in found.conflict_relax] == want["conflict_relax"]
    for words, texts in (
        ("notes", first.notes),
        ("conflict", conflict_lines(found)),
        ("explain", (explain(found),)),
    ):
        assert want.get(words, "") in "\n".join(texts)


def test_sums_and_reasons(case: dict[str, Any]) -> None:
    found, _ = answer(case)
    for root in found.roots:
        assert root.candidates == (root.chosen is not None) + len(root.others) + len(root.rejected)
        assert sum(root.funnel().values()) == len(root.rejected)
        assert {rejection.reason for rejection in root.rejected} <= set(MESSAGES)
        if root.chosen:
            assert root.keys["K16"] == root.chosen.hash
            assert list(root.keys) == list(root.key_texts)
    assert explain(found, everything=True)


def test_order_changes_nothing(case: dict[str, Any]) -> None:
    first = plain(answer(case)[0])
    for seed in range(3):
        again, _ = answer(case, order=-1, queries=case["query"][::-1], permute=random.Random(seed).shuffle)
        assert plain(again) == first


def test_every_reason_has_words_for_people() -> None:
    assert set(MESSAGES) == set(WORDS) == set(REASONS)


def test_there_are_enough_cases() -> None:
    assert len(ALL) >= 120
    assert len({case["name"] for case in ALL}) == len(ALL)


def test_every_row_of_the_reference_has_a_case() -> None:
    shown = {row for case in ALL for row in case.get("pitfalls", ())}
    assert shown == set(PITFALLS) == set(range(1, 31))
    worked = [case["name"].removeprefix("worked: ") for case in ALL if case["name"].startswith("worked: ")]
    assert worked == [f"{number:02}" for number in range(1, WORKED + 1)]
