"""Agreement with real Spack's recorded answers: tests/conformance.py within pytest."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from tests import conformance

if TYPE_CHECKING:
    from pathlib import Path

ORACLES = conformance.HERE / "data" / "oracles"


@pytest.fixture(scope="module")
def report() -> conformance.Report:
    return conformance.compare_all(ORACLES)


@pytest.mark.parametrize("section", sorted(conformance.SECTIONS))
def test_no_unexplained_disagreement(report: conformance.Report, section: str) -> None:
    found = [entry for entry in report.disagreements if entry["section"] == section]
    assert found[:5] == []
    counts = report.sections[section]
    assert counts.total > 0
    assert counts.agree + counts.known + len(counts.apart) == counts.total
    assert counts.known <= counts.allowed


def test_every_known_difference_is_a_rule_with_a_reason(report: conformance.Report) -> None:
    assert report.passes
    for rule in conformance.rules():
        assert rule.section in conformance.SECTIONS
        assert len(rule.reason) > 40


def test_what_stands_apart_is_the_system_and_one_refusal(report: conformance.Report) -> None:
    answers, gates = report.sections["reuse.answers"], report.sections["reuse.gates"]
    assert [(len(s.apart), s.total - s.agree - s.known) for s in (answers, gates)] == [(9, 9), (1, 1)]
    reasons = Counter(entry["reason"].partition(":")[0] for entry in answers.apart)
    assert reasons.pop("K4a") == 2
    assert reasons.pop("K4b") == 6
    assert [text.partition(" a ")[0] for text in reasons] == ["Spack refuses"]
    assert all(len(e["reason"]) > 40 for s in report.sections.values() for e in s.apart)


def test_a_changed_answer_is_reported_and_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = json.loads((ORACLES / "versions.json").read_bytes())
    document["order"][0][2] = "gt" if document["order"][0][2] != "gt" else "lt"
    (tmp_path / "versions.json").write_text(json.dumps({"order": document["order"]}))
    assert conformance.main(["--oracles", str(tmp_path), "--json"]) == 1
    printed = json.loads(capsys.readouterr().out)
    total = len(document["order"])
    assert printed["sections"] == {
        "versions.order": {"agree": total - 1, "total": total, "known": 0, "apart": 0}
    }
    assert [entry["section"] for entry in printed["disagreements"]] == ["versions.order"]
    assert "versions.sorted" in printed["skipped"]
    assert "parse" in printed["skipped"]


def test_too_many_known_differences_fail(tmp_path: Path) -> None:
    document = json.loads((ORACLES / "parse.json").read_bytes())
    lone = next(case for case in document["parse"] if case["input"] == "^")
    (tmp_path / "parse.json").write_text(json.dumps({"parse": [lone] * 2}))
    assert conformance.compare_all(tmp_path).passes
    (tmp_path / "parse.json").write_text(json.dumps({"parse": [lone] * 3}))
    assert not conformance.compare_all(tmp_path).passes


def test_one_file_alone_gives_the_lines_of_the_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(ORACLES / "versions.json", tmp_path)
    assert conformance.main(["--oracles", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("versions.satisfies: ") and " of " in line for line in lines)
    assert "satisfies: skipped, no such file" in lines
