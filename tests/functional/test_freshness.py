"""Rollback and freeze: what a mirror's index was before counts, in the command line and the library."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.functional.conftest import DEBIAN, Done
from tests.tools import archive
from tests.tools.mirrors import make_node, write_index, write_package

from cachefetch import Client
from cachefetch.errors import FreshnessError
from cachefetch.resolver.index.writer import LAYOUT

Cli = Callable[..., Done]
OLD, NEW = make_node("demo", "1.0"), make_node("demo", "2.0")


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    root = tmp_path / "mirror"
    for node in (OLD, NEW):
        write_package(root, node, archive.stored(archive.good()))
    write_index(root, OLD)
    return root


def words(mirror: Path, *more: str) -> list[str]:
    return ["-m", str(mirror), "--unsigned", *more]


def test_a_newer_index_is_no_rollback(cli: Cli, mirror: Path) -> None:
    assert cli("resolve", "demo", *words(mirror), *DEBIAN).code == 0
    write_index(mirror, OLD, NEW)
    done = cli("resolve", "demo", *words(mirror, "--require-fresh"), *DEBIAN)
    assert done.code == 0
    assert "demo@2.0" in done.out
    assert "older" not in done.err


def test_an_older_index_again_is_a_warning_and_an_error_when_asked(cli: Cli, mirror: Path) -> None:
    cli("resolve", "demo", *words(mirror), *DEBIAN)
    write_index(mirror, OLD, NEW)
    cli("resolve", "demo", *words(mirror), *DEBIAN)
    write_index(mirror, OLD)
    for _ in range(2):  # the second time from the local index
        done = cli("resolve", "demo", *words(mirror), *DEBIAN)
        assert done.code == 0
        assert "warning: the index of" in done.err
        assert "older one again" in done.err
    assert "older one again" in cli("list", *words(mirror)).err
    done = cli("fetch", "demo", *words(mirror, "--json"), *DEBIAN)
    assert [w["code"] for w in done.json["warnings"]] == ["rollback"]
    done = cli("fetch", "demo", *words(mirror, "--require-fresh", "--json"), *DEBIAN)
    assert (done.code, done.json["code"]) == (7, "rollback")
    assert "seen.json" in done.json["hint"]
    write_index(mirror, NEW)
    assert cli("resolve", "demo", *words(mirror, "--require-fresh"), *DEBIAN).code == 0


def test_memory_outlives_a_damaged_local_index(cli: Cli, mirror: Path, tmp_path: Path) -> None:
    cli("resolve", "demo", *words(mirror), *DEBIAN)
    write_index(mirror, OLD, NEW)
    cli("resolve", "demo", *words(mirror), *DEBIAN)
    for sidecar in (tmp_path / "cache").rglob("sidecar.sqlite"):
        sidecar.write_bytes(b"damaged")
    write_index(mirror, OLD)
    done = cli("resolve", "demo", *words(mirror, "--require-fresh"), *DEBIAN)
    assert done.code == 7


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b'{"indexes": [["abc", 1, 1.0]]}',
        b'{"indexes": [[1, 2]]}',
        b'{"indexes": [["%s", 1, NaN]]}' % (b"0" * 64),
        b'{"indexes": [["%s", 1e999, 1]]}' % (b"0" * 64),
    ],
)
def test_a_damaged_memory_is_told_and_kept(cli: Cli, mirror: Path, tmp_path: Path, damage: bytes) -> None:
    cli("resolve", "demo", *words(mirror), *DEBIAN)
    (memory,) = (tmp_path / "cache").rglob("seen.json")
    memory.write_bytes(damage)
    aside = memory.with_name("seen.json.damaged")
    for option in (["--require-fresh"], ["--max-index-age", "9d"]):
        done = cli("resolve", "demo", *words(mirror, *option, "--json"), *DEBIAN)
        assert (done.code, done.json["code"]) == (7, "history-damaged")
        assert str(aside) in done.json["hint"]
        assert aside.read_bytes() == damage
    for _ in range(2):  # until the user has removed it
        done = cli("resolve", "demo", *words(mirror), *DEBIAN)
        assert done.code == 0
        assert "warning: what was seen of the index of" in done.err
        assert str(aside) in done.err
    assert str(aside) in cli("list", *words(mirror)).err
    done = cli("fetch", "demo", *words(mirror, "--json"), *DEBIAN)
    assert [w["code"] for w in done.json["warnings"]] == ["history-damaged"]
    aside.unlink()
    done = cli("resolve", "demo", *words(mirror, "--require-fresh"), *DEBIAN)
    assert (done.code, "warning" in done.err) == (0, False)


def test_a_frozen_index_is_refused_after_the_given_age(cli: Cli, mirror: Path, tmp_path: Path) -> None:
    assert cli("resolve", "demo", *words(mirror, "--max-index-age", "7d"), *DEBIAN).code == 0
    (memory,) = (tmp_path / "cache").rglob("seen.json")
    document = json.loads(memory.read_text())
    document["indexes"][0][2] -= 8 * 86400
    memory.write_text(json.dumps(document))
    done = cli("resolve", "demo", *words(mirror, "--max-index-age", "7d", "--json"), *DEBIAN)
    assert (done.code, done.json["code"]) == (7, "index-too-old")
    assert done.json["context"]["age_s"] >= 8 * 86400
    assert cli("resolve", "demo", *words(mirror, "--max-index-age", "9d"), *DEBIAN).code == 0
    write_index(mirror, OLD, NEW)
    assert cli("resolve", "demo", *words(mirror, "--max-index-age", "60"), *DEBIAN).code == 0


@pytest.mark.parametrize("age", ["x", "-1", "nan", "5w", ""])
def test_an_age_that_is_none(cli: Cli, mirror: Path, age: str) -> None:
    assert cli("resolve", "demo", *words(mirror, f"--max-index-age={age}"), *DEBIAN).code == 2


def test_the_library_and_two_mirrors(cli: Cli, mirror: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(mirror, other)
    both = [str(mirror), str(other)]
    with Client(both, unsigned=True) as client:
        client.update()
    write_index(mirror, OLD, NEW)  # each mirror has a history of its own
    with Client(both, unsigned=True, require_fresh=True) as client:
        client.update()
    write_index(mirror, OLD)
    with Client(both, unsigned=True) as client:
        client.update()
        assert [name for name, _ in client.rollbacks] == [str(mirror)]
    with Client(both, unsigned=True, require_fresh=True) as client, pytest.raises(FreshnessError) as caught:
        client.update()
    assert caught.value.context["mirror"] == str(mirror)


def test_a_lock_file_wins_over_any_index(cli: Cli, mirror: Path, tmp_path: Path) -> None:
    """What is locked is fetched from a mirror whose index was rolled back: its digests decide, no index is read."""
    lock = tmp_path / "cachefetch.lock"
    assert cli("resolve", "demo", *words(mirror), *DEBIAN).code == 0
    write_index(mirror, OLD, NEW)
    assert cli("resolve", "demo", *words(mirror), *DEBIAN, "--lock", lock).code == 0
    write_index(mirror, OLD)
    assert cli("resolve", "demo", *words(mirror, "--require-fresh"), *DEBIAN).code == 7
    done = cli("fetch", "--lock", lock, *words(mirror, "--require-fresh", "--json"), *DEBIAN)
    assert done.code == 0, done.err
    assert [item["hash"] for item in done.json["items"]] == [NEW["hash"]]
    assert done.json["warnings"] == []
    write_package(mirror, NEW, archive.stored(archive.good() + bytes(10240)))  # rebuilt: other digests
    shutil.rmtree(tmp_path / "cache/cachefetch/store")
    done = cli("fetch", "--lock", lock, *words(mirror, "--json"), *DEBIAN)
    assert (done.code, done.json["code"]) == (6, "lock-changed")


def test_sync_verify_and_export_judge_the_index_too(cli: Cli, mirror: Path, tmp_path: Path) -> None:
    (mirror / "v3/layout.json").write_bytes(LAYOUT)
    commands = {
        "sync": ["sync", "--all", "--to", tmp_path / "to", "-m", mirror],
        "verify": ["verify", mirror],
        "export": ["bundle", "export", "--to", tmp_path / "one.bundle", "-m", mirror],
        "staged": ["bundle", "export", "demo", "--to", tmp_path / "two.bundle", "-m", mirror],
    }
    for name, command in commands.items():
        done = cli(*command, "--unsigned", "--require-fresh", "--max-index-age", "1h", "--json")
        assert (done.code, done.json["warnings"]) == (0, []), name
    before = sorted(tmp_path.rglob("to/**"))
    for path in tmp_path.glob("*.bundle"):
        path.unlink()
    write_index(mirror, OLD, NEW)
    cli("list", *words(mirror))
    write_index(mirror, OLD)
    for name, command in commands.items():
        done = cli(*command, "--unsigned", "--require-fresh", "--json")
        assert (done.code, done.json["code"]) == (7, "rollback"), name
        done = cli(*command, "--unsigned", "--max-index-age", "0", "--json")
        assert (done.code, done.json["code"]) == (7, "index-too-old"), name
    assert sorted(tmp_path.rglob("to/**")) == before
    assert not list(tmp_path.glob("*.bundle*"))
    for name, command in commands.items():
        done = cli(*command, "--unsigned", "--json")
        assert done.code == 0, name
        assert any("older one again" in text for text in done.json["warnings"]), name
        assert "warning: " in cli(*command, "--unsigned").err, name
