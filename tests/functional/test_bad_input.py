"""Bad input gives a clear error with its exit code, and never a traceback."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.functional.conftest import DEBIAN, MIRROR, PAGE, Done

Cli = Callable[..., Done]


@pytest.mark.parametrize(
    ("text", "column"), [("zlib@", 4), ("zlib +a ~a", 8), ("zlib;x", 5), ("hdf5 %[foo=1] gcc", 7)]
)
def test_a_bad_spec_shows_a_caret_under_the_column(cli: Cli, text: str, column: int) -> None:
    done = cli("resolve", text, "-m", PAGE)
    assert done.code == 2
    lines = done.err.splitlines()
    at = lines.index(f"  {text}")
    assert lines[at + 1].index("^") - 2 == column
    document = cli("resolve", text, "-m", PAGE, "--json").json
    assert (document["schema"], document["exit"], document["code"]) == (
        "cachefetch/error/1",
        2,
        "spec-syntax",
    )
    assert document["context"]["column"] == column


def test_an_unknown_package_suggests_near_names(cli: Cli) -> None:
    done = cli("resolve", "py-multidct", "-m", PAGE, *DEBIAN)
    assert done.code == 3
    assert "did you mean py-multidict?" in done.err
    done = cli("resolve", "multidct", "-m", MIRROR, *DEBIAN, "--json")
    assert done.code == 3
    assert "py-multidict" in done.json["roots"][0]["suggestions"]


def html(path: Path) -> Path:
    path.mkdir()
    (path / "index.html").write_text("<html><body>hello</body></html>")
    return path / "index.html"


def make_corrupt(path: Path) -> Path:
    (path / "v3/manifests/index").mkdir(parents=True)
    (path / "v3/manifests/index/index.manifest.json").write_text('{"version": 3, "data"')
    return path


def make_no_index(path: Path) -> Path:
    (path / "v3/manifests/spec").mkdir(parents=True)
    return path


def make_newer(path: Path) -> Path:
    (path / "v3/manifests/index").mkdir(parents=True)
    record = {
        "contentLength": 2,
        "mediaType": "application/vnd.spack.db.v99+json",
        "compression": "none",
        "checksumAlgorithm": "sha256",
        "checksum": "0" * 64,
    }
    manifest = {"version": 3, "data": [record]}
    (path / "v3/manifests/index/index.manifest.json").write_text(json.dumps(manifest))
    return path


@pytest.mark.parametrize(
    ("make", "state"),
    [
        (lambda path: path / "missing", "unreachable"),
        (html, "not-a-cache"),
        (lambda path: html(path).parent, "not-a-cache"),
        (make_corrupt, "corrupt"),
        (make_no_index, "no-index"),
        (make_newer, "too-new"),
    ],
)
def test_a_mirror_that_is_none_is_named_with_its_state(
    cli: Cli, tmp_path: Path, make: Callable[[Path], Path], state: str
) -> None:
    where = str(make(tmp_path / "m"))
    done = cli("resolve", "zlib", "-m", where, *DEBIAN)
    assert done.code == 8
    assert f"{where} is {state}" in done.err
    document = cli("resolve", "zlib", "-m", where, *DEBIAN, "--json").json
    assert document["exit"] == 8
    assert document["context"]["mirrors"][0]["state"] == state


def test_one_bad_mirror_does_not_hide_the_others(cli: Cli, tmp_path: Path) -> None:
    done = cli("resolve", "py-multidict", "-m", str(tmp_path / "no"), "-m", MIRROR, *DEBIAN)
    assert done.code == 0
    assert "no: unreachable" in done.err


@pytest.mark.parametrize(
    "words",
    [
        ["reslove", "zlib"],
        ["resolve", "zlib", "--no-such-flag"],
        ["resolve"],
        ["resolve", "", "-m", PAGE],
        ["resolve", "zlib"],
        ["resolve", "zlib", "--unsigned"],
        ["resolve", "zlib", "-m", PAGE, "--libc", "2.35"],
        ["resolve", "zlib", "-m", PAGE, "--target", "pentium"],
        ["resolve", "zlib", "-m", PAGE, "--platform", "plan9"],
        ["resolve", "zlib", "-m", PAGE, "--compiler", "gcc"],
        ["resolve", "zlib", "-m", PAGE, "--host", "/no/such/file"],
        ["key", "trust"],
        ["key", "trust", "/no/such/file"],
        ["key", "untrust", "ABC"],
        [],
    ],
)
def test_usage_errors_are_exit_2_and_say_what_to_do(cli: Cli, words: list[str]) -> None:
    done = cli(*words)
    assert done.code == 2
    assert done.err or "usage:" in done.out
    if words:
        document = cli(*words, "--json").json
        assert (document["schema"], document["exit"]) == ("cachefetch/error/1", 2)


@pytest.mark.parametrize(
    "text",
    [
        "[mirrors.a]\nsigned = 'none'",
        "[mirrors.a]\nurl = 'x'\nsigned = 'maybe'",
        "[mirrors.a]\nurl = 'x'\nkeys = ['12']",
        "[index]\nmax_age = 'soon'",
        "[index]\nage = 3",
        "[nonsense]\na = 1",
        "not toml",
    ],
)
def test_a_bad_configuration_names_the_file(cli: Cli, tmp_path: Path, text: str) -> None:
    path = tmp_path / "config" / "cachefetch" / "config.toml"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    done = cli("resolve", "zlib", "-m", PAGE)
    assert done.code == 2
    assert "config.toml" in done.err


def test_a_configured_mirror_is_used_by_default_and_by_name(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "config" / "cachefetch" / "config.toml"
    path.parent.mkdir(parents=True)
    path.write_text(f'[mirrors.example]\nurl = "{MIRROR}"\n')
    for words in ([], ["-m", "example"]):
        done = cli("resolve", "py-multidict@6.1.0", *words, *DEBIAN, "--json")
        assert done.code == 0
        assert done.json["roots"][0]["chosen"]["mirrors"] == ["example"]
