"""One set for several hosts, one set for each, and the explanation of saved answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.functional.conftest import KEY, MIRROR, PAGE, Done, host

HOSTS = {
    "old": host("linux", "ubuntu22.04", "x86_64_v3", "glibc@2.35:/usr"),
    "new": host("linux", "ubuntu24.04", "zen4", "glibc@2.39:/usr"),
    "mac": host("darwin", "sequoia", "m1"),
}


@pytest.fixture
def files(cli: Callable[..., Done], tmp_path: Path) -> dict[str, str]:
    """Host files, as `cachefetch host --json` prints them."""
    found = {}
    for name, flags in HOSTS.items():
        done = cli("host", *flags, "--json")
        assert done.code == 0, done.err
        found[name] = str(tmp_path / f"{name}.json")
        Path(found[name]).write_text(done.out)
    return found


def test_one_set_for_all_hosts(cli: Callable[..., Done], files: dict[str, str]) -> None:
    both = ["--host", files["new"], "--host", files["old"]]
    done = cli("resolve", "py-multidict@6.1.0", "-m", PAGE, *both, "--json")
    assert done.code == 0, done.err
    chosen = done.json["roots"][0]["chosen"]["hash"]
    for name in ("old", "new"):
        alone = cli("resolve", "py-multidict@6.1.0", "-m", PAGE, "--host", files[name], "--json").json[
            "roots"
        ][0]
        fits = {other["hash"] for other in alone["others"]} | {alone["chosen"]["hash"]}
        assert chosen in fits
        row = next(r for r in done.json["coverage"] if r["host"]["os"] == alone_os(files[name]))
        assert row["roots"] == [{"query": "py-multidict@6.1.0", "fits": len(fits), "chosen": True}]
    other_way = cli(
        "resolve", "py-multidict@6.1.0", "-m", PAGE, "--host", files["old"], "--host", files["new"], "--json"
    )
    assert other_way.json["roots"][0]["chosen"]["hash"] == chosen


def alone_os(path: str) -> str:
    return str(json.loads(Path(path).read_text())["os"])


def test_the_table_names_the_host_that_fails(cli: Callable[..., Done], files: dict[str, str]) -> None:
    hosts = ["--host", files["old"], "--host", files["mac"]]
    done = cli("resolve", "py-multidict@6.1.0", "-m", PAGE, *hosts)
    assert done.code == 3
    rows = [line for line in done.err.splitlines() if line.startswith(("linux-", "darwin-"))]
    assert len(rows) == 2
    assert all(" fit" in row and "chosen" not in row for row in rows)


def test_an_answer_for_each_host(cli: Callable[..., Done], files: dict[str, str]) -> None:
    hosts = [word for name in ("old", "new") for word in ("--host", files[name])]
    done = cli("resolve", "py-multidict@6.1.0", "-m", PAGE, *hosts, "--per-host", "--json")
    assert done.code == 0
    assert done.json["schema"] == "cachefetch/fleet/1"
    for entry in done.json["hosts"]:
        alone = cli("resolve", "py-multidict@6.1.0", "-m", PAGE, "--host", entry["file"], "--json")
        assert entry["answer"]["roots"] == alone.json["roots"]
    assert cli("resolve", "py-multidict", "-m", PAGE, "--per-host").code == 2


@pytest.mark.parametrize("query", ["py-multidict@6.1.0", "py-multidict@99", "py-multidct"])
@pytest.mark.parametrize("where", [PAGE, MIRROR])
def test_a_saved_answer_is_explained_without_mirrors(
    cli: Callable[..., Done], files: dict[str, str], tmp_path: Path, query: str, where: str
) -> None:
    first = cli("resolve", query, "-m", where, "--host", files["old"], "--json", "--explain=all")
    saved = tmp_path / "answer.json"
    saved.write_text(first.out)
    done = cli("explain", str(saved), "--json")
    assert done.code == first.code
    assert done.json == first.json
    text = cli("explain", str(saved), "--all")
    assert text.out.replace(" (inferred)", "") in first.err.replace(" (inferred)", "") + "\n"


@pytest.mark.parametrize(
    "text", ["", "{}", '{"schema": "cachefetch/resolve/1"}', '{"schema": "cachefetch/list/1"}']
)
def test_what_is_no_answer_is_refused(cli: Callable[..., Done], tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    done = cli("explain", str(path))
    assert done.code == 6
    assert str(path) in done.err
    assert cli("explain", str(tmp_path / "none.json")).code == 2


def test_key_file_is_not_needed_to_resolve(cli: Callable[..., Done], files: dict[str, str]) -> None:
    with_key = cli("resolve", "py-multidict", "-m", MIRROR, "--key", KEY, "--host", files["old"], "--json")
    without = cli("resolve", "py-multidict", "-m", MIRROR, "--host", files["old"], "--json")
    assert with_key.json["roots"] == without.json["roots"]
