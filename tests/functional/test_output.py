"""What reaches stdout, stderr and the terminal, when these are closed, full, ASCII, or the input is odd."""

from __future__ import annotations

import argparse
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.functional.conftest import DEBIAN, ROOT

from cachefetch import cli
from cachefetch.cli import report
from cachefetch.errors import FormatError, NetworkError, SpecSyntaxError


def run(command: str, **extra: str) -> subprocess.CompletedProcess[bytes]:
    """Run `command` in a shell; in it, ``$CF`` is the command line of this tree."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT / ".dev"),
        "CF": f"{sys.executable} -m cachefetch",
        **extra,
    }
    return subprocess.run(
        ["sh", "-c", command], env=environment, capture_output=True, check=False, timeout=60
    )


@pytest.fixture
def resolve(example_mirror: Path) -> str:
    return f"$CF resolve zlib -m {example_mirror} {' '.join(DEBIAN)}"


@pytest.mark.parametrize("json", ["", "--json"])
@pytest.mark.parametrize("where", [">/dev/full", ">&-"])
def test_an_answer_that_cannot_be_written_is_exit_10(resolve: str, where: str, json: str) -> None:
    done = run(f"{resolve} {json} {where}")
    assert done.returncode == 10
    assert b"cannot write the answer" in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("where", ["2>/dev/full", "2>&-"])
def test_remarks_that_cannot_be_written_change_nothing(resolve: str, where: str) -> None:
    assert run(f"{resolve} {where}").returncode == 0
    assert run(f"{resolve} not-there {where}").returncode == 3


def test_a_reader_that_leaves_is_exit_141(resolve: str) -> None:
    done = run(f"{{ {resolve}; echo $? >&2; }} | true")
    assert done.stderr.split() == [b"141"]


def test_an_ascii_terminal_gets_escapes_in_place_of_an_error(tmp_path: Path, example_mirror: Path) -> None:
    place = tmp_path / "mirror-\N{SNOWMAN}"
    place.symlink_to(example_mirror)
    command = f"$CF resolve nothing -m '{place}' {' '.join(DEBIAN)}"
    done = run(command, PYTHONIOENCODING="ascii")
    assert done.returncode == 3
    assert b"mirror-\\u2603" in done.stdout + done.stderr


def test_nothing_that_a_terminal_obeys_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    evil = "zlib\x1b[2J\x07\x9b1m\u202e\ud800 ok\tyes"
    report.line(evil)
    report.say(evil)
    report.report_error(FormatError(evil, hint=evil), as_json=False, verbose=False)
    shown = capsys.readouterr()
    for text in (shown.out, shown.err):
        assert "zlib\\x1b[2J\\x07\\x9b1m\\u202e\\ud800 ok\tyes" in text
        assert all(c in "\n\t" or c.isprintable() for c in text)


def test_an_error_of_ours_in_a_group_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    group = ExceptionGroup("", [ExceptionGroup("", [ValueError("x"), NetworkError("the cable is cut")])])
    assert report.report_error(group, as_json=False, verbose=False) == 8
    assert "the cable is cut" in capsys.readouterr().err


def test_a_long_input_is_cut_around_the_caret() -> None:
    text = "a" * 500 + "@:" + "b" * 500
    shown, marks = SpecSyntaxError("no", text, 500, 2).caret().split("\n")
    assert len(shown) < 140
    assert shown[marks.index("^") :].startswith("@:")
    assert marks.count("^") == 2
    assert SpecSyntaxError("no", "", 0).caret() == ""
    assert len(SpecSyntaxError("no", text, 0, 1000).caret().split("\n")[1]) < 140


def flags_with_values() -> set[str]:
    found: set[str] = set()
    for module, _ in cli.COMMANDS.values():
        parser = argparse.ArgumentParser()
        importlib.import_module(f"cachefetch.cli.{module}").configure(parser)
        for action in parser._actions:
            if action.nargs != 0:
                found.update(action.option_strings)
    return found & cli.FLAGS


def test_the_options_that_may_stand_before_the_command_take_no_value() -> None:
    assert flags_with_values() == set()


def test_a_command_word_as_a_value_before_the_command(tmp_path: Path) -> None:
    done = run("$CF -m host resolve zlib")
    assert done.returncode == 8
    assert b"host" in done.stderr
    assert b"no file or directory" in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        "resolve zlib -m ''",
        "fetch zlib --to ''",
        "resolve zlib --host=''",
        "bundle export --to x.bundle --since ''",
        "bundle export --to x.bundle --sign-key=",
        "verify ''",
        "extract zlib ''",
        "bundle import a.bundle '' --to x",
    ],
)
def test_an_empty_value_is_refused(words: str) -> None:
    done = run(f"$CF {words}")
    assert done.returncode == 2
    assert b"empty value" in done.stderr


@pytest.mark.parametrize(
    "url",
    [
        "http://h:99999/x",
        "http:///x",
        "http://a b/x",
        "http://[::1/x",
        "https://user:s3cret@h:abc/",
        "oci://h:0/x",
    ],
)
def test_a_url_that_nothing_could_open_is_a_usage_error(url: str) -> None:
    done = run(f"$CF resolve zlib -m '{url}'")
    assert done.returncode == 2
    assert b"the mirror URL" in done.stderr
    assert b"s3cret" not in done.stderr
