"""`cachefetch sync` and `verify` of layout 2: copied as it is, signatures, keys and names."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.faults.server import Fault, FaultServer
from tests.functional.conftest import DEBIAN, FIXTURES, Done
from tests.functional.test_sync import files
from tests.tools.mirrors import make_node, write_index, write_package

Cli = Callable[..., Done]
V2_KEY = str(FIXTURES / "keys/cachefetch-test.pub.asc")
POLICY = {"v2-signed": ("--key", V2_KEY), "v2-unsigned": ("--unsigned",)}
INDEX = ("build_cache/index.json", "build_cache/index.json.hash")
both = pytest.mark.parametrize("fixture", list(POLICY))


def sync(cli: Cli, *words: object, fixture: str, to: Path, source: object = None) -> Done:
    return cli("sync", *words, "--from", source or FIXTURES / fixture, *POLICY[fixture], "--to", to, "--json")


def audited(cli: Cli, mirror: object, fixture: str) -> Any:
    return cli("verify", mirror, *POLICY[fixture], "--json").json


def installs(mirror: Path) -> Any:
    data = (mirror / INDEX[0]).read_bytes()
    assert (mirror / INDEX[1]).read_text() == hashlib.sha256(data).hexdigest()
    database = json.loads(data)["database"]
    assert database["version"] == "7"  # what the Spack that writes layout 2 reads
    return database["installs"]


@both
def test_all_is_copied_as_it_is(cli: Cli, tmp_path: Path, fixture: str) -> None:
    to, source = tmp_path / "to", FIXTURES / fixture
    done = sync(cli, "--all", fixture=fixture, to=to)
    assert done.code == 0, done.err
    made, theirs = files(to), files(source)
    assert made.keys() == theirs.keys()
    assert {name for name in made if made[name] != theirs[name]} == set(INDEX)  # the order of the records
    expected = json.loads((source / "EXPECTED.json").read_text())
    assert installs(to) == json.loads((source / INDEX[0]).read_text())["database"]["installs"]
    assert len(installs(to)) == expected["nodes"]
    for spec in expected["specs"]:
        if artifact := spec["artifact"]:
            assert (to / artifact["spec_file"]).exists()
            assert (
                hashlib.sha256((to / artifact["tarball"]).read_bytes()).hexdigest()
                == artifact["tarball_sha256"]
            )
    report = audited(cli, to, fixture)
    assert (report["problems"], report["manifests"]) == ([], expected["artifacts"])
    assert report["notes"] == {"unindexed": 0, "dangling": 0, "unnamed_blobs": 0}
    assert done.json["done"]["copied_bytes"] == done.json["plan"]["copy_bytes"]


@both
def test_a_root_comes_with_its_closure_and_is_fetched_without_network(
    cli: Cli, tmp_path: Path, fixture: str
) -> None:
    to = tmp_path / "to"
    plan = sync(cli, "hdf5@1.14.5", "--dry-run", fixture=fixture, to=to)
    assert not to.exists()
    done = sync(cli, "hdf5@1.14.5", fixture=fixture, to=to)
    assert done.code == 0, done.err
    assert done.json["plan"] == plan.json["plan"]
    records = installs(to)
    for record in records.values():
        assert {edge["hash"] for edge in record["spec"].get("dependencies", [])} <= records.keys()
    held = {hash_ for hash_, record in records.items() if record["in_buildcache"]}
    assert 0 < len(held) < len(records)
    assert audited(cli, to, fixture)["problems"] == []
    fetched = cli("fetch", "hdf5@1.14.5", "-m", to, *POLICY[fixture], "--offline", *DEBIAN, "--json")
    assert fetched.code == 0, fetched.err
    assert {item["hash"] for item in fetched.json["items"]} <= held


def test_a_second_run_asks_once_and_copies_nothing(cli: Cli, tmp_path: Path) -> None:
    to = tmp_path / "to"
    with FaultServer(str(FIXTURES / "v2-unsigned")) as server:
        first = sync(cli, "zlib", fixture="v2-unsigned", to=to, source=server.url)
        assert first.code == 0, first.err
        before, asked = files(to), len(server.requests)
        again = sync(cli, "zlib", fixture="v2-unsigned", to=to, source=server.url)
        assert (again.code, again.json["done"]["copied_blobs"]) == (0, 0)
        assert (
            len(server.requests) - asked <= 3
        )  # layout 3 is asked for first, twice: the mirror may have been migrated
        assert files(to) == before
        report = audited(cli, server.url, "v2-unsigned")
        assert report["problems"] == []
    more = sync(cli, "--all", fixture="v2-unsigned", to=to)
    assert more.json["plan"]["present"] > 0
    direct = tmp_path / "direct"
    assert sync(cli, "--all", fixture="v2-unsigned", to=direct).code == 0
    assert files(to) == files(direct)


@both
def test_a_run_that_asks_for_more_proves_only_that(cli: Cli, tmp_path: Path, fixture: str) -> None:
    to = tmp_path / "to"
    assert sync(cli, "py-multidict", fixture=fixture, to=to).code == 0
    done = sync(cli, "py-multidict", "version-zoo", fixture=fixture, to=to)
    assert done.code == 0, done.err
    assert done.json["done"]["copied_blobs"] == 2 * done.json["done"]["packages"] > 0  # nothing twice


@pytest.mark.parametrize("damage", ["missing", "wrong"])
def test_a_damaged_tarball_stops_nothing_else(cli: Cli, tmp_path: Path, damage: str) -> None:
    source, to = shutil.copytree(FIXTURES / "v2-signed", tmp_path / "source"), tmp_path / "to"
    path = next(source.glob("build_cache/*/*/chain-35-*/*.spack"))
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    done = sync(cli, "--all", fixture="v2-signed", to=to, source=source)
    assert done.code == 9, done.err
    (problem,) = done.json["problems"]
    assert problem["name"] == "chain-35"
    assert [label.partition("@")[0] for label in problem["needed_by"]] == ["chain-34"]
    again = cli(
        "sync",
        "--all",
        "--from",
        source,
        "--from",
        FIXTURES / "v2-signed",
        *POLICY["v2-signed"],
        "--to",
        to,
        "-q",
    )
    assert again.code == 0, again.err
    assert audited(cli, to, "v2-signed")["problems"] == []


def test_the_audit_finds_what_is_wrong(cli: Cli, tmp_path: Path) -> None:
    mirror = shutil.copytree(FIXTURES / "v2-signed", tmp_path / "mirror")
    assert audited(cli, mirror, "v2-signed")["problems"] == []
    tarballs = sorted(mirror.glob("build_cache/*/*/chain-3?-*/*.spack"))
    tarballs[0].unlink()
    tarballs[1].write_bytes(tarballs[1].read_bytes() + b"x")
    specs = sorted(mirror.glob("build_cache/*chain-3[5-9]*.spec.json.sig"))
    specs[0].write_text(specs[0].read_text().replace("chain-3", "chain-4", 1))
    shutil.copy(specs[2], specs[1])  # a good signature, of another package
    specs[3].unlink()
    (mirror / INDEX[1]).write_text("0" * 64)
    key = next(mirror.glob("build_cache/_pgp/*.pub"))
    key.write_text("no key")
    found = audited(cli, mirror, "v2-signed")
    codes = sorted(problem["what"] for problem in found["problems"])
    assert codes == sorted(
        [
            "not-found",  # the tarball
            "digest-mismatch",  # the tarball that grew
            "signature-invalid",
            "binding-mismatch",
            "not-found",  # the spec file that the index lists
            "digest-mismatch",  # index.json.hash
            "bad-format",  # the key
        ]
    )
    assert cli("verify", mirror, *POLICY["v2-signed"], "-q").code == 9


def test_damage_is_repaired_from_another_mirror(cli: Cli, tmp_path: Path) -> None:
    mirror = shutil.copytree(FIXTURES / "v2-signed", tmp_path / "mirror")
    before = {path: data for path, data in files(mirror).items() if path not in INDEX}
    tarballs = sorted(mirror.glob("build_cache/*/*/chain-3?-*/*.spack"))
    tarballs[0].unlink()
    tarballs[1].write_bytes(tarballs[1].read_bytes() + b"x")
    specs = sorted(mirror.glob("build_cache/*chain-3[5-9]*.spec.json.sig"))
    specs[0].write_text(specs[0].read_text().replace("chain-3", "chain-4", 1))
    specs[3].unlink()
    (mirror / INDEX[1]).write_text("0" * 64)
    next(mirror.glob("build_cache/_pgp/*.pub")).write_text("no key")
    with FaultServer(str(FIXTURES / "v2-signed")) as server:
        words = ("--repair", "--from", server.url, "--json")
        repair = cli("verify", mirror, *POLICY["v2-signed"], *words)
    assert repair.code == 0, repair.out + repair.err
    assert repair.json["repaired"] == 4
    assert {path: data for path, data in files(mirror).items() if path not in INDEX} == before
    assert len(installs(mirror)) == len(installs(FIXTURES / "v2-signed"))


def test_workers_give_the_same_bytes_as_one(cli: Cli, tmp_path: Path) -> None:
    one, many = tmp_path / "one", tmp_path / "many"
    assert sync(cli, "--all", fixture="v2-unsigned", to=one).code == 0
    for part in ("2/3", "1/3", "3/3"):
        assert sync(cli, "--all", "--shard", part, fixture="v2-unsigned", to=many).code == 0
    assert sync(cli, "--all", "--publish", fixture="v2-unsigned", to=many).code == 0
    assert files(many) == files(one)


def test_a_destination_of_another_layout_is_refused(cli: Cli, tmp_path: Path) -> None:
    to = tmp_path / "to"
    assert sync(cli, "zlib", fixture="v2-unsigned", to=to).code == 0
    converted = sync(cli, "zlib", "--convert", fixture="v2-unsigned", to=to)
    assert (converted.code, converted.json["code"]) == (2, "usage")
    assert "layout 2" in converted.json["message"]
    other = tmp_path / "other"
    assert sync(cli, "zlib", "--convert", fixture="v2-unsigned", to=other).code == 0
    kept = sync(cli, "zlib", fixture="v2-unsigned", to=other)
    assert kept.code == 2
    assert "--convert" in kept.json["hint"]


def test_what_no_spec_file_names_is_pruned(cli: Cli, tmp_path: Path) -> None:
    to = tmp_path / "to"
    assert sync(cli, "zlib", fixture="v2-unsigned", to=to).code == 0
    before = files(to)
    tarball = next(to.glob("build_cache/*/*/zlib-*/*.spack"))
    stray = tarball.with_name(tarball.name.replace("zlib", "stray"))
    shutil.copy(tarball, stray)
    done = sync(cli, "zlib", "--prune", fixture="v2-unsigned", to=to)
    assert (done.json["done"]["pruned"], stray.exists()) == (1, False)
    assert files(to) == before


def test_sizes_that_fit_alone_but_not_together_are_faults_of_their_packages(
    cli: Cli, tmp_path: Path, small_disk: Path
) -> None:
    """Nothing proves a size in layout 2: two files that are not what they should be do not end the whole run."""
    source = shutil.copytree(FIXTURES / "v2-unsigned", tmp_path / "source")
    small = sorted(source.rglob("*.spack"), key=lambda path: (path.stat().st_size, path.name))[:3]
    for path in small[:2]:
        with path.open("r+b") as file:
            file.truncate(300_000)
    hashes = [path.stem.rpartition("-")[2] for path in small]
    chosen = [f"/{hash_}" for hash_ in hashes]
    done = sync(cli, *chosen, fixture="v2-unsigned", to=small_disk / "to", source=source)
    assert done.code == 9, done.err
    assert {(p["hash"], p["what"]) for p in done.json["problems"] if p["hash"] in hashes} == {
        (hash_, "digest-mismatch") for hash_ in hashes[:2]
    }
    assert len(list((small_disk / "to").rglob("*.spack"))) >= 1


def test_a_fetch_too_lets_wrong_sizes_come_one_after_the_other(
    cli: Cli, tmp_path: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)
    monkeypatch.setenv("CACHEFETCH_CACHE_DIR", str(small_disk / "cache"))
    source = shutil.copytree(FIXTURES / "v2-unsigned", tmp_path / "source")
    small = sorted(source.rglob("*.spack"), key=lambda path: (path.stat().st_size, path.name))[:2]
    for path in small:
        with path.open("r+b") as file:
            file.truncate(2_200_000)
    chosen = [f"/{path.stem.rpartition('-')[2]}" for path in small]
    with FaultServer(str(source)) as server:
        done = cli("fetch", *chosen, "-m", server.url, "--unsigned", *DEBIAN, "--no-deps", "--json")
    assert done.json["code"] == "digest-mismatch", done.err


def test_what_only_a_server_tells_leaves_the_room_of_what_a_manifest_promises(
    cli: Cli, tmp_path: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mirror of layout 3 beside one of layout 2 whose sizes are no truth: all fit, but not together."""
    subprocess.run(["mount", "-o", "remount,size=4500k", str(small_disk)], check=True)
    monkeypatch.setenv("CACHEFETCH_CACHE_DIR", str(small_disk / "cache"))
    node, payload = make_node("proven"), random.Random(3).randbytes(1_900_000)
    write_package(tmp_path / "three", node, payload)
    write_index(tmp_path / "three", node)
    source = shutil.copytree(FIXTURES / "v2-unsigned", tmp_path / "two")
    wrong = sorted(source.rglob("*.spack"), key=lambda path: (path.stat().st_size, path.name))[:3]
    for path in wrong:
        with path.open("r+b") as file:
            file.truncate(1_500_000)
    chosen = [f"/{path.stem.rpartition('-')[2]}" for path in wrong]
    with (
        FaultServer(str(source), rate=1_000_000) as two,
        FaultServer(str(tmp_path / "three"), rate=1_900_000) as three,
    ):
        blob = next(
            path for path in (tmp_path / "three" / "blobs").rglob("*") if path.stat().st_size == 1_900_000
        )
        three.script(
            f"/{blob.relative_to(tmp_path / 'three')}", Fault(cut_after=1000)
        )  # so it is not the first
        words = ("-m", three.url, "-m", two.url, "--unsigned", *DEBIAN, "--no-deps", "--json")
        done = cli("fetch", f"/{node['hash']}", *chosen, *words)
    assert done.json["code"] == "digest-mismatch", done.out
    stored = [path.stat().st_size for path in small_disk.rglob("sha256/*/*")]
    assert 1_900_000 in stored
