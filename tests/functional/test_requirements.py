"""Python requirements as queries (PEP 508), on the command line and from a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.functional.conftest import DEBIAN, FIXTURES, MIRROR, Done

Cli = Callable[..., Done]
UNSIGNED = str(FIXTURES / "v3-unsigned")


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("multidict>=6,<7", "6.1.0"),
        ("multidict>=6,<6.1", "6.0.4"),
        ("multidict~=6.0.1", "6.0.4"),
        ("multidict==6.1", "6.1.0"),
        ("multidict", "6.1.0"),
        ("Multidict[speedups]!=6.1.0", "6.0.4"),
        ("multidict<7; python_version >= '3.8'", "6.1.0"),
    ],
)
def test_a_requirement_chooses_by_pep_440(cli: Cli, text: str, version: str) -> None:
    done = cli("resolve", text, "-m", MIRROR, *DEBIAN, "--json")
    assert done.code == 0, done.err
    assert done.json["roots"][0]["chosen"]["name"] == "py-multidict"
    assert done.json["roots"][0]["chosen"]["version"] == version
    assert any("py-multidict" in note for note in done.json["roots"][0]["notes"])


def test_a_requirement_that_nothing_meets_says_which_versions_there_are(cli: Cli) -> None:
    done = cli("resolve", "multidict>=7", "-m", MIRROR, *DEBIAN)
    assert done.code == 3
    assert "6.1.0" in done.err
    assert ">=7" in done.err


@pytest.mark.parametrize("text", ["multidict>=", "multidict @ https://example.org/x.whl", "multidict[>=6"])
def test_a_bad_requirement_is_a_usage_error(cli: Cli, text: str) -> None:
    assert cli("resolve", text, "-m", MIRROR, *DEBIAN).code == 2


def test_a_requirements_file_gives_several_roots(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "requirements.txt"
    path.write_text("# tools\nyarl>=1.9  # http\nmultidict\n\nidna==3.10 --hash=sha256:00\n")
    done = cli("resolve", "-r", str(path), "-m", UNSIGNED, *DEBIAN, "--no-unify", "--json")
    assert done.code == 0, done.err
    assert [root["chosen"]["name"] for root in done.json["roots"]] == ["py-yarl", "py-multidict", "py-idna"]


def test_a_requirements_file_that_is_missing_or_includes_others_is_refused(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "requirements.txt"
    path.write_text("-r other.txt\n")
    assert cli("resolve", "-r", str(path), "-m", MIRROR).code == 2
    assert cli("resolve", "-r", str(tmp_path / "no"), "-m", MIRROR).code == 2
