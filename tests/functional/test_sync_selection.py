"""What `cachefetch sync` copies: lock files, environments, stacks of a page."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.functional.conftest import DEBIAN, KEY, MIRROR, Done
from tests.functional.test_sync import SIGNED, files, index_of, sync

Cli = Callable[..., Done]


def held(mirror: Path) -> set[str]:
    return {hash_ for hash_, record in index_of(mirror).items() if record["in_buildcache"]}


@pytest.fixture
def lock(cli: Cli, tmp_path: Path) -> Path:
    """Return the lock file of one root for one host."""
    path = tmp_path / "cachefetch.lock"
    done = cli("resolve", "py-multidict@6.1.0", "-m", MIRROR, "--key", KEY, *DEBIAN, "--lock", path)
    assert done.code == 0, done.err
    return path


def environment(mirror: Path, roots: list[str], included: Any = None) -> dict[str, Any]:
    """Return a spack.lock whose nodes are those of an index."""
    nodes = {hash_: record["spec"] for hash_, record in index_of(mirror).items()}
    return {
        "_meta": {"file-type": "spack-lockfile", "lockfile-version": 6, "specfile-version": 5},
        "spack": {"version": "1.1.0", "type": "release"},
        "roots": [{"hash": hash_, "spec": nodes[hash_]["name"]} for hash_ in roots],
        "concrete_specs": nodes,
        **({"include_concrete": {"/elsewhere": included}} if included else {}),
    }


def test_a_lock_file_copies_exactly_what_it_names(cli: Cli, tmp_path: Path, lock: Path) -> None:
    names = {package["hash"] for package in json.loads(lock.read_text())["packages"]}
    plan = sync(cli, lock, "--dry-run", to=tmp_path / "to").json["plan"]
    done = sync(cli, lock, to=tmp_path / "to")
    assert done.code == 0, done.err
    assert done.json["plan"] == plan
    assert held(tmp_path / "to") == names
    assert sync(cli, lock, to=tmp_path / "to").json["done"]["copied_blobs"] == 0
    carried = cli("fetch", "--lock", lock, "-m", tmp_path / "to", "--key", KEY, *DEBIAN[:0], "--offline")
    assert carried.code in (0, 2), carried.err  # 2: this machine is not the locked host


def test_another_tarball_than_the_locked_one_is_a_problem(cli: Cli, tmp_path: Path, lock: Path) -> None:
    document = json.loads(lock.read_text())
    changed = next(package for package in document["packages"] if package["name"] == "zlib")
    changed["sha256"] = "0" * 64
    lock.write_text(json.dumps(document))
    done = sync(cli, lock, to=tmp_path / "to")
    assert done.code == 9, done.err
    (problem,) = done.json["problems"]
    assert (problem["name"], problem["what"]) == ("zlib", "lock-changed")
    assert changed["hash"] not in held(tmp_path / "to")
    assert problem["needed_by"]


def test_an_environment_copies_its_roots_with_closure(cli: Cli, tmp_path: Path) -> None:
    index = index_of(SIGNED)
    hdf5, zoo = (
        sorted(h for h, r in index.items() if r["spec"]["name"] == name and r["in_buildcache"])
        for name in ("hdf5", "version-zoo")
    )
    path = tmp_path / "spack.lock"
    path.write_text(json.dumps(environment(SIGNED, hdf5[:1], environment(SIGNED, zoo[:1]))))
    done = sync(cli, path, source=SIGNED, to=tmp_path / "to")
    assert done.code == 0, done.err
    by_hash = sync(cli, f"/{hdf5[0]}", f"/{zoo[0]}", source=SIGNED, to=tmp_path / "direct")
    assert by_hash.code == 0, by_hash.err
    assert files(tmp_path / "to") == files(tmp_path / "direct")
    both = sync(cli, path, f"/{hdf5[1]}", source=SIGNED, to=tmp_path / "more")
    assert held(tmp_path / "more") > held(tmp_path / "to")
    assert both.code == 0


def test_what_the_mirrors_lack_of_a_lock_file_is_named(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "spack.lock"
    hash_ = next(h for h, r in index_of(SIGNED).items() if r["spec"]["name"] == "hdf5" and r["in_buildcache"])
    path.write_text(json.dumps(environment(SIGNED, [hash_])))
    done = sync(cli, path, "openssl", to=tmp_path / "to")  # the small mirror has no hdf5
    assert done.code == 9
    assert [(p["hash"], p["name"], p["what"]) for p in done.json["problems"]] == [
        (hash_, "hdf5", "not-found")
    ]


@pytest.mark.parametrize(
    "text", ["{}", "no json", '{"schema": "cachefetch/lock/1"}', '{"roots": [], "concrete_specs": 1}']
)
def test_what_is_no_lock_file_is_refused(cli: Cli, tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.lock"
    path.write_text(text)
    done = sync(cli, path, to=tmp_path / "to")
    assert (done.code, done.json["code"]) == (6, "bad-format")
    missing = sync(cli, tmp_path / "nowhere.lock", to=tmp_path / "to")
    assert (missing.code, missing.json["code"]) == (2, "usage")


def test_a_page_chooses_and_the_mirror_beside_it_delivers(
    cli: Cli, tmp_path: Path, example_page: Path
) -> None:
    to = tmp_path / "to"
    words = ("--from", example_page, "--from", MIRROR, "--key", KEY, "--to", to, "--json")
    done = cli("sync", "--all", *words)
    assert done.code == 0, done.err
    assert sync(cli, "py-multidict", to=tmp_path / "direct").code == 0
    assert files(to) == files(tmp_path / "direct")
    alone = cli("sync", "--all", "--from", example_page, "--to", tmp_path / "no", "--json")
    assert alone.code == 2
    none = cli("sync", "--all", "--stack", "no-such-stack", *words[:-2], tmp_path / "none", "--json")
    assert none.code in (3, 2)


def test_a_stack_of_a_page_is_copied(cli: Cli, tmp_path: Path, example_page: Path) -> None:
    text = example_page.read_text()
    example_page.write_text(
        text.replace('"stacks": ["root", "tutorial"], "target"', '"stacks": ["gpu"], "target"', 1)
    )
    chosen = {text.partition('"hash": "')[2][:32]}
    done = cli(
        "sync", "--all", "--stack", "gpu", "--from", example_page, "--from", MIRROR, "--key", KEY,
        "--to", tmp_path / "to", "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    multidicts = {
        h for h in held(tmp_path / "to") if index_of(tmp_path / "to")[h]["spec"]["name"] == "py-multidict"
    }
    assert multidicts == chosen
