"""The README tells the truth: its commands run as they stand, and print what it shows."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.functional.conftest import ROOT, Done, cli

__all__ = ["cli"]  # the fixture

_BLOCK = re.compile(r"^```\n(\$ cachefetch .*?)^```$", re.M | re.S)


def sessions() -> list[list[tuple[str, str]]]:
    """Return each block of the README as (command, what it shows)."""
    found = []
    for block in _BLOCK.findall((ROOT / "README.md").read_text()):
        steps = re.split(r"^\$ cachefetch ", block.replace("\\\n", " "), flags=re.M)[1:]
        found.append([(step.split("\n", 1)[0], step.split("\n", 1)[1].strip("\n")) for step in steps])
    return found


@pytest.mark.parametrize("session", sessions(), ids=lambda session: session[0][0][:40])
def test_a_command_of_the_readme_prints_what_it_shows(
    session: list[tuple[str, str]],
    cli: Callable[..., Done],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    for command, shown in session:
        done = cli(*shlex.split(command))
        printed = (done.out + done.err).replace(str(tmp_path), "/home/you")
        assert done.code == (3 if "no binary" in shown else 0), done.err
        if command == "host":  # of this machine: only the names of the facts are the same
            shown, printed = (
                "\n".join(line.split()[0] for line in text.splitlines()[:5]) for text in (shown, printed)
            )
        pattern = re.escape(shown).replace(re.escape("\n...\n"), r"\n(?:.*\n)+")
        assert re.fullmatch(rf"(error: )?{pattern}", printed.strip("\n")), printed


def test_the_readme_shows_commands() -> None:
    assert sum(len(session) for session in sessions()) >= 6
