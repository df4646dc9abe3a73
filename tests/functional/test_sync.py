"""`cachefetch sync`: what it writes is a valid, complete mirror, whatever happens on the way."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.faults.server import Fault, FaultServer
from tests.functional.conftest import DEBIAN, EXAMPLES, FIXTURES, KEY, MIRROR, ROOT, Done
from tests.functional.test_verify_formats import change_index

Cli = Callable[..., Done]
SIGNED = FIXTURES / "v3-signed"
UNSIGNED = FIXTURES / "v3-unsigned"
FINGERPRINT = "782919F9DB28EF14FA36F2A892DFACD7F6EA048A"
QUERY = "py-multidict@6.1.0"


def sync(cli: Cli, *words: object, source: object = MIRROR, to: object, key: str = KEY) -> Done:
    return cli("sync", *words, "--from", source, "--key", key, "--to", to, "--json")


def files(mirror: Path) -> dict[str, bytes]:
    """Return the files of a mirror without our own directory."""
    return {
        str(path.relative_to(mirror)): path.read_bytes()
        for path in sorted(mirror.rglob("*"))
        if path.is_file() and ".cachefetch" not in path.parts and path.name != "EXPECTED.json"
    }


def index_of(mirror: Path) -> dict[str, Any]:
    manifest = json.loads((mirror / "v3/manifests/index/index.manifest.json").read_text())
    entry = manifest["data"][0]
    data = (mirror / "blobs/sha256" / entry["checksum"][:2] / entry["checksum"]).read_bytes()
    assert (hashlib.sha256(data).hexdigest(), len(data)) == (entry["checksum"], entry["contentLength"])
    assert entry["mediaType"] == "application/vnd.spack.db.v8+json"
    assert entry["compression"] == "none"
    installs: dict[str, Any] = json.loads(data)["database"]["installs"]
    assert json.loads(data)["database"]["version"] == "8"
    return installs


def verified(cli: Cli, mirror: Path, *words: str) -> Any:
    done = cli("verify", mirror, *(words or ("--key", KEY)), "--json")
    return done.json


def tarball_of(mirror: Path, name: str) -> tuple[Path, str]:
    """Return the tarball blob and the DAG hash of a package of that name."""
    manifest = sorted(mirror.glob(f"v3/manifests/spec/{name}/*.json"))[0]
    text = manifest.read_text()
    data = json.loads(text[text.index("{") : text.rindex("}") + 1])["data"]
    digest = next(entry["checksum"] for entry in data if ".install." in entry["mediaType"])
    hash_ = manifest.name.removesuffix(".spec.manifest.json").rpartition("-")[2]
    return mirror / "blobs/sha256" / digest[:2] / digest, hash_


def test_a_root_comes_with_its_closure_keys_layout_and_index(cli: Cli, tmp_path: Path) -> None:
    to = tmp_path / "to"
    done = sync(cli, QUERY, source=SIGNED, to=to)
    assert done.code == 0, done.err
    assert (done.json["schema"], done.json["status"], done.json["problems"]) == (
        "cachefetch/sync/1",
        "ok",
        [],
    )
    made, source = files(to), files(SIGNED)
    own = {name for name in made if source.get(name) != made[name]}
    digest = json.loads(made["v3/manifests/index/index.manifest.json"])["data"][0]["checksum"]
    # Everything but the index is the source's, byte for byte: signatures survive.
    assert own == {"v3/manifests/index/index.manifest.json", f"blobs/sha256/{digest[:2]}/{digest}"}
    assert f"v3/manifests/key/{FINGERPRINT}.key.manifest.json" in made
    assert {"v3/manifests/key/keys.manifest.json", "v3/layout.json"} <= made.keys()
    report = verified(cli, to)
    assert (report["status"], report["problems"]) == ("ok", [])
    assert report["notes"] == {"unindexed": 0, "dangling": 0, "unnamed_blobs": 0}


@pytest.mark.parametrize("fixture", ["v3-signed", "v3-unsigned"])
def test_all_holds_what_spack_said_of_the_source(cli: Cli, tmp_path: Path, fixture: str) -> None:
    to, source = tmp_path / "to", FIXTURES / fixture
    policy = ("--key", KEY) if fixture == "v3-signed" else ("--unsigned",)
    assert cli("sync", "--all", "--from", source, *policy, "--to", to, "-q").code == 0
    made, expected = index_of(to), json.loads((source / "EXPECTED.json").read_text())
    assert len(made) == expected["nodes"]
    assert sum(record["in_buildcache"] for record in made.values()) == expected["artifacts"]
    theirs = index_of(source)
    assert made == theirs  # nodes, ref_counts and flags as Spack wrote them; only the order differs
    assert {record["hash"] for record in expected["specs"]} == set(made)
    for spec in expected["specs"]:
        if spec["artifact"]:
            name = spec["artifact"]["manifest"]
            assert (to / name).read_bytes() == (source / name).read_bytes()
    assert verified(cli, to, *policy)["status"] == "ok"


def test_the_index_is_closed_and_marks_what_is_there(cli: Cli, tmp_path: Path) -> None:
    to = tmp_path / "to"
    assert sync(cli, "zlib", source=SIGNED, to=to).code == 0
    installs = index_of(to)
    for hash_, record in installs.items():
        assert set(record) == {
            "spec",
            "ref_count",
            "in_buildcache",
        }  # another key makes Spack refuse the index
        assert {edge["hash"] for edge in record["spec"].get("dependencies", [])} <= installs.keys()
        users = [
            r for r in installs.values() if hash_ in {e["hash"] for e in r["spec"].get("dependencies", [])}
        ]
        assert record["ref_count"] == len(users)
    held = {hash_ for hash_, record in installs.items() if record["in_buildcache"]}
    there = {path.name[:-19][-32:] for path in to.glob("v3/manifests/spec/*/*.json")}
    assert held == there
    assert len(installs) > len(held)


def test_fetch_offline_works_from_the_destination(cli: Cli, tmp_path: Path) -> None:
    to = tmp_path / "to"
    assert sync(cli, QUERY, to=to).code == 0
    done = cli("fetch", QUERY, "-m", to, "--key", KEY, "--offline", *DEBIAN, "--json")
    assert done.code == 0, done.err
    direct = cli("fetch", QUERY, "-m", MIRROR, "--key", KEY, *DEBIAN, "--json")
    assert [i["sha256"] for i in done.json["items"]] == [i["sha256"] for i in direct.json["items"]]


def test_dry_run_writes_nothing_and_its_bytes_are_the_real_ones(cli: Cli, tmp_path: Path) -> None:
    to = tmp_path / "to"
    plan = sync(cli, QUERY, "--dry-run", to=to).json
    assert not to.exists()
    real = sync(cli, QUERY, to=to).json
    assert plan["plan"] == real["plan"]
    assert real["done"]["copied_bytes"] == plan["plan"]["copy_bytes"] > 0
    assert real["done"]["copied_blobs"] == plan["plan"]["copy_blobs"]
    copied = sum(path.stat().st_size for path in (to / "blobs").rglob("*") if path.is_file())
    entry = json.loads((to / "v3/manifests/index/index.manifest.json").read_text())["data"][0]
    assert copied - entry["contentLength"] == plan["plan"]["copy_bytes"]


def test_a_second_run_is_one_conditional_request(cli: Cli, tmp_path: Path) -> None:
    to = tmp_path / "to"
    with FaultServer(MIRROR) as server:
        first = sync(cli, QUERY, source=server.url, to=to)
        assert first.code == 0, first.err
        before, asked = files(to), len(server.requests)
        second = sync(cli, QUERY, source=server.url, to=to)
        assert second.code == 0, second.err
        assert len(server.requests) - asked == 1
    assert second.json["plan"]["copy_bytes"] == 0
    assert second.json["plan"]["present"] == first.json["plan"]["copy_blobs"]
    assert files(to) == before


def test_more_specs_move_only_what_is_missing(cli: Cli, tmp_path: Path) -> None:
    one, both = tmp_path / "one", tmp_path / "both"
    first = sync(cli, "zlib", source=SIGNED, to=one).json
    second = sync(cli, QUERY, source=SIGNED, to=one).json
    assert second["plan"]["present"] > 0
    direct = sync(cli, "zlib", QUERY, source=SIGNED, to=both).json
    total = first["done"]["copied_bytes"] + second["done"]["copied_bytes"]
    assert total == direct["done"]["copied_bytes"]
    assert files(one) == files(both)  # the way to it leaves no trace


def test_a_blob_that_went_missing_or_changed_size_comes_again(cli: Cli, tmp_path: Path) -> None:
    to = tmp_path / "to"
    assert sync(cli, QUERY, to=to).code == 0
    before = files(to)
    blob, _ = tarball_of(to, "zlib")
    blob.unlink()
    done = sync(cli, QUERY, to=to)
    assert (done.code, done.json["plan"]["copy_blobs"]) == (0, 1)
    assert files(to) == before


def test_a_manifest_that_went_missing_comes_again(cli: Cli, tmp_path: Path) -> None:
    to = tmp_path / "to"
    assert sync(cli, "--all", to=to).code == 0
    before = files(to)
    next(to.glob("v3/manifests/spec/zlib/*.json")).unlink()
    assert sync(cli, "gcc-runtime", to=to).code == 0
    names = [r["spec"]["name"] for r in index_of(to).values() if r["in_buildcache"]]
    assert names.count("zlib") == 2  # the index never lists what is not there
    assert sync(cli, "--all", to=to).json["plan"]["copy_blobs"] == 0
    assert files(to) == before


def test_a_mirror_is_not_synced_to_itself(cli: Cli, tmp_path: Path) -> None:
    mirror = shutil.copytree(MIRROR, tmp_path / "mirror")
    assert sync(cli, "--all", source=mirror, to=mirror).code == 2


def test_check_hashes_again_and_replaces_what_changed_in_place(cli: Cli, tmp_path: Path) -> None:
    to = tmp_path / "to"
    assert sync(cli, QUERY, to=to).code == 0
    before = files(to)
    blob, _ = tarball_of(to, "zlib")
    data = bytearray(blob.read_bytes())
    data[-9] ^= 1
    blob.chmod(0o644)
    blob.write_bytes(bytes(data))
    assert sync(cli, QUERY, to=to).json["done"]["copied_blobs"] == 0  # trusted by size and journal
    assert sync(cli, QUERY, "--check", to=to).json["done"]["copied_blobs"] == 1
    assert files(to) == before


@pytest.mark.parametrize("fixture", ["v3-unsigned", "v2-unsigned"])
def test_check_replaces_a_fifo_in_the_place_of_a_package_file(cli: Cli, tmp_path: Path, fixture: str) -> None:
    to = tmp_path / "to"
    words = ("sync", "zlib", "--from", FIXTURES / fixture, "--unsigned", "--to", to, "--json")
    assert cli(*words).code == 0
    before = files(to)
    tarballs = [path for path in sorted(to.rglob("*.spack")) if path.is_file()]
    blob = tarballs[0] if tarballs else tarball_of(to, "zlib")[0]
    blob.unlink()
    os.mkfifo(blob)
    done = cli(*words, "--check")
    assert done.code == 0, done.err
    assert files(to) == before


def push_again(mirror: Path, name: str) -> Path:
    """Give a package of an unsigned mirror another tarball, as a second build under the same hash has; return it."""
    path = sorted(mirror.glob(f"v3/manifests/spec/{name}/*.json"))[-1]
    manifest = json.loads(path.read_text())
    entry = next(entry for entry in manifest["data"] if ".install." in entry["mediaType"])
    old = mirror / "blobs/sha256" / entry["checksum"][:2] / entry["checksum"]
    data = old.read_bytes() + b"again"
    digest = hashlib.sha256(data).hexdigest()
    entry.update(checksum=digest, contentLength=len(data))
    new = mirror / "blobs/sha256" / digest[:2] / digest
    new.parent.mkdir(exist_ok=True)
    new.write_bytes(data)
    path.write_text(json.dumps(manifest))
    old.unlink()
    return new


def test_check_brings_a_binary_that_was_pushed_again_under_its_hash(cli: Cli, tmp_path: Path) -> None:
    source = shutil.copytree(UNSIGNED, tmp_path / "source")
    to = tmp_path / "to"
    words = ("sync", "zlib@1.3.1", "--from", source, "--unsigned", "--to", to, "--json")
    assert cli(*words).code == 0
    new = push_again(source, "zlib")
    assert cli(*words).json["done"]["copied_blobs"] == 0  # what is there is trusted
    done = cli(*words, "--check")
    assert (done.code, done.json["done"]["copied_blobs"]) == (0, 1), done.err
    assert (to / new.relative_to(source)).read_bytes() == new.read_bytes()
    assert verified(cli, to, "--unsigned")["notes"]["unnamed_blobs"] == 1  # for --prune


def test_check_keeps_what_the_source_has_lost(cli: Cli, tmp_path: Path) -> None:
    source = shutil.copytree(UNSIGNED, tmp_path / "source")
    to = tmp_path / "to"
    words = ("sync", "zlib@1.3.1", "--from", source, "--unsigned", "--to", to, "--json")
    assert cli(*words).code == 0
    before = files(to)
    sorted(source.glob("v3/manifests/spec/zlib/*.json"))[-1].unlink()
    done = cli(*words, "--check")
    assert done.code == 0, done.err
    assert files(to) == before


def waits(record: dict[str, Any], to: Path) -> bool:
    hash_ = record["spec"]["hash"]
    there = list(to.glob(f"v3/manifests/spec/*/*{hash_}*")) or list(
        to.glob(f"build_cache/*{hash_}.spec.json*")
    )
    return bool(there) and not record["in_buildcache"]


@pytest.mark.parametrize("layout", ["v3", "v2"])
def test_what_waits_is_not_listed_by_a_run_that_asks_for_something_else(
    cli: Cli, tmp_path: Path, layout: str
) -> None:
    good = FIXTURES / f"{layout}-signed"
    source, to, direct = shutil.copytree(good, tmp_path / "source"), tmp_path / "to", tmp_path / "direct"
    if layout == "v3":
        (lost,) = {tarball_of(source, "openssl")[0]}
    else:
        lost = sorted(source.rglob("*-openssl-*.spack"))[0]
    lost.unlink()
    assert sync(cli, "--all", source=source, to=to).code == 9
    assert sync(cli, "version-zoo", source=source, to=to).code == 0
    assert cli("verify", to, "--key", KEY).code == 0
    if layout == "v3":
        assert any(waits(record, to) for record in index_of(to).values())
    again = sync(cli, "--all", source=good, to=to)
    assert (again.code, again.json["done"]["packages"]) == (0, 1), again.err
    assert sync(cli, "--all", source=good, to=direct).code == 0
    assert files(to) == files(direct)


def test_what_no_source_ever_had_does_not_hide_what_needs_it(cli: Cli, tmp_path: Path) -> None:
    source, to = shutil.copytree(MIRROR, tmp_path / "source"), tmp_path / "to"
    _, hash_ = tarball_of(source, "openssl")
    change_index(source, lambda database: database["installs"][hash_].update(in_buildcache=False))
    done = sync(cli, "--all", source=source, to=to)
    assert (done.code, [p["hash"] for p in done.json["problems"]]) == (9, [hash_])
    assert sum(record["in_buildcache"] for record in index_of(to).values()) == 17
    assert sync(cli, "zlib", source=source, to=to).code == 0
    assert sum(record["in_buildcache"] for record in index_of(to).values()) == 17


@pytest.mark.parametrize("damage", ["missing", "wrong"])
def test_a_bad_source_blob_stops_nothing_else_and_says_who_needs_it(
    cli: Cli, tmp_path: Path, damage: str
) -> None:
    source, to = shutil.copytree(MIRROR, tmp_path / "source"), tmp_path / "to"
    blob, hash_ = tarball_of(source, "openssl")
    if damage == "missing":
        blob.unlink()
    else:
        data = blob.read_bytes()
        blob.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    done = sync(cli, "--all", source=source, to=to)
    assert done.code == 9, done.err
    assert done.json["status"] == "partial"
    problem = done.json["problems"][0]
    what = "not-found" if damage == "missing" else "digest-mismatch"
    assert (problem["hash"], problem["name"], problem["what"]) == (hash_, "openssl", what)
    assert any(user.startswith("python@") for user in problem["needed_by"])
    records = index_of(to)
    assert not records[hash_]["in_buildcache"]
    # python needs it, and two packages need python: they are here, and listed when what they need is.
    waiting = {record["spec"]["name"] for record in records.values() if waits(record, to)}
    assert waiting == {"python", "python-venv", "py-multidict"}
    assert sum(record["in_buildcache"] for record in records.values()) == 14
    assert "in the index until what they need is" in done.err
    assert [stem.rpartition("-")[0].rpartition("-")[0] for stem in done.json["waiting"]] == [
        "py-multidict",
        "python",
        "python-venv",
    ]
    assert all(f"waits: {stem}" not in done.err for stem in done.json["waiting"])
    told = cli("sync", "--all", "--from", source, "--key", KEY, "--to", to, "-v")
    assert all(f"waits: {stem}" in told.err for stem in done.json["waiting"])
    assert cli("verify", to, "--key", KEY).code == 0
    again = cli("sync", "--all", "--from", source, "--from", MIRROR, "--key", KEY, "--to", to, "--json")
    assert again.code == 0, again.err
    assert again.json["done"]["copied_blobs"] == 1
    assert verified(cli, to)["status"] == "ok"


def test_an_unsigned_package_is_left_out_where_signatures_are_needed(cli: Cli, tmp_path: Path) -> None:
    source, to = shutil.copytree(MIRROR, tmp_path / "source"), tmp_path / "to"
    manifest = next(source.glob("v3/manifests/spec/zlib/*.json"))
    text = manifest.read_text()
    manifest.write_text(text[text.index("{") : text.rindex("}") + 1])
    done = sync(cli, "--all", source=source, to=to)
    assert done.code == 9
    assert [p["what"] for p in done.json["problems"]] == ["signature-missing"]
    assert not (to / manifest.relative_to(source)).exists()


def test_without_a_key_nothing_is_copied_and_the_error_is_trust(cli: Cli, tmp_path: Path) -> None:
    done = cli("sync", QUERY, "--from", MIRROR, "--to", tmp_path / "to")
    assert done.code == 7
    assert "--key" in done.err
    assert not list((tmp_path / "to").glob("v3/**/*.json"))


def test_a_stricter_policy_looks_again_at_what_is_there(cli: Cli, tmp_path: Path) -> None:
    to = tmp_path / "to"
    assert cli("sync", "zlib", "--from", SIGNED, "--unsigned", "--to", to).code == 0
    manifest = next(to.glob("v3/manifests/spec/zlib/*.json"))
    text = manifest.read_text()
    manifest.chmod(0o644)
    manifest.write_text(text[text.index("{") : text.rindex("}") + 1])
    assert sync(cli, "zlib", source=SIGNED, to=to).code == 0
    assert manifest.read_text() == text


def test_specs_that_nothing_satisfies(cli: Cli, tmp_path: Path) -> None:
    done = sync(cli, "zlib@99", to=tmp_path / "to")
    assert (done.code, done.json["status"]) == (3, "no-candidate")
    done = sync(cli, "zlib@99", "openssl", to=tmp_path / "to")
    assert (done.code, done.json["problems"][0]["what"]) == (9, "no-candidate")


def test_include_exclude_target_and_os_choose_the_roots(cli: Cli, tmp_path: Path) -> None:
    def roots(number: int, *words: str) -> list[tuple[str, str, str]]:
        to = tmp_path / str(number)
        assert sync(cli, *words, to=to).code == 0
        found = [r["spec"] for r in index_of(to).values() if r["in_buildcache"]]
        return [
            (s["version"], s["arch"]["platform_os"], str(s["arch"]["target"]))
            for s in found
            if s["name"] == "py-multidict"
        ]

    every = roots(1, "py-multidict")
    assert len(every) == 4
    assert {v for v, _, _ in roots(2, "py-multidict", "--exclude", "@6.0.4")} == {"6.1.0"}
    assert {v for v, _, _ in roots(3, "py-multidict", "--include", "@6.0.4")} == {"6.0.4"}
    assert {o for _, o, _ in roots(4, "py-multidict", "--os", "ubuntu24.04,sequoia")} == {
        "ubuntu24.04",
        "sequoia",
    }
    assert {t for _, _, t in roots(5, "py-multidict", "--target", "aarch64")} == {"aarch64"}
    assert {t for _, _, t in roots(6, "--all", "--include", "py-multidict", "--target", ":x86_64_v3")} == {
        "x86_64_v3"
    }


def test_a_host_file_copies_only_what_resolve_chooses(cli: Cli, tmp_path: Path) -> None:
    described = cli("host", *DEBIAN, "--json")
    (tmp_path / "node.json").write_text(described.out)
    to = tmp_path / "to"
    assert sync(cli, "py-multidict", "--host", str(tmp_path / "node.json"), to=to).code == 0
    held = [r["spec"]["hash"] for r in index_of(to).values() if r["in_buildcache"]]
    chosen = cli("resolve", "py-multidict", "-m", MIRROR, *DEBIAN, "--json").json
    assert sorted(held) == sorted(node["hash"] for node in chosen["closure"])


def test_prune_removes_only_what_no_manifest_names(cli: Cli, tmp_path: Path) -> None:
    to = tmp_path / "to"
    assert sync(cli, QUERY, to=to).code == 0
    before = files(to)
    stray = hashlib.sha256(b"stray").hexdigest()
    (to / "blobs/sha256" / stray[:2]).mkdir(exist_ok=True)
    (to / "blobs/sha256" / stray[:2] / stray).write_bytes(b"stray")
    dry = sync(cli, QUERY, "--prune", "--dry-run", to=to).json
    assert dry["plan"]["prune"] == 1
    assert (to / "blobs/sha256" / stray[:2] / stray).exists()
    done = sync(cli, QUERY, "--prune", to=to).json
    assert (done["plan"]["prune"], done["done"]["pruned"]) == (1, 1)
    assert files(to) == before


def test_prune_leaves_what_lies_behind_a_link(cli: Cli, tmp_path: Path) -> None:
    to, pool = tmp_path / "to", tmp_path / "pool"
    assert sync(cli, QUERY, to=to).code == 0
    used = {path.name for path in (to / "blobs/sha256").iterdir()}
    prefix = next(name for name in (f"{number:02x}" for number in range(256)) if name not in used)
    pool.mkdir()
    foreign = pool / (prefix + "0" * 62)
    foreign.write_bytes(b"of another mirror")
    (to / "blobs/sha256" / prefix).symlink_to(pool)
    done = sync(cli, QUERY, "--prune", to=to).json
    assert (done["plan"]["prune"], done["done"]["pruned"]) == (0, 0)
    assert foreign.read_bytes() == b"of another mirror"


def test_prune_removes_the_blobs_of_a_package_that_was_removed(cli: Cli, tmp_path: Path) -> None:
    to, direct = tmp_path / "to", tmp_path / "direct"
    assert sync(cli, "hdf5", source=SIGNED, to=to).code == 0
    shutil.rmtree(to / "v3/manifests/spec/hdf5")
    other = to / "blobs/sha256/zz/readme.txt"  # no blob, and so nobody's to remove or count
    other.parent.mkdir()
    other.write_text("hi")
    dry = sync(cli, "zlib", "--prune", "--dry-run", source=SIGNED, to=to).json["plan"]["prune"]
    done = sync(cli, "zlib", "--prune", source=SIGNED, to=to)
    assert (done.code, done.json["done"]["pruned"], done.json["plan"]["prune"]) == (0, dry, dry)
    assert dry > 0
    assert other.exists()
    report = verified(cli, to)
    assert (report["problems"], report["notes"]["unnamed_blobs"]) == ([], 0)
    assert sync(cli, "zlib", "--prune", source=SIGNED, to=to).json["done"]["pruned"] == 0
    other.unlink()
    assert sync(cli, "hdf5", source=SIGNED, to=to).code == 0
    assert sync(cli, "hdf5", source=SIGNED, to=direct).code == 0
    held = {path for path in files(direct) if "index" not in path}
    assert held - files(to).keys() <= {f"blobs/sha256/{d[:2]}/{d}" for d in [index_digest(direct)]}


def index_digest(mirror: Path) -> str:
    manifest = json.loads((mirror / "v3/manifests/index/index.manifest.json").read_text())
    return str(manifest["data"][0]["checksum"])


def test_a_damaged_manifest_of_the_destination_is_told(cli: Cli, tmp_path: Path) -> None:
    to = tmp_path / "to"
    assert sync(cli, "hdf5", source=SIGNED, to=to).code == 0
    damaged = sorted(to.glob("v3/manifests/spec/hdf5/*.json"))[0]
    damaged.write_text("garbage")
    before = blob_sizes(to).keys() - {index_digest(to)}
    path = str(damaged.relative_to(to))
    for words in (("--prune",), ("--prune", "--dry-run")):
        done = sync(cli, "zlib", *words, source=SIGNED, to=to)
        told = [(p["name"], p["what"], p["path"]) for p in done.json["problems"]]
        assert (done.code, told) == (9, [("hdf5", "damaged", path)])
        assert "nothing is pruned" in done.err
    assert before <= blob_sizes(to).keys()
    shutil.rmtree(to / ".cachefetch")  # neither journal nor index knows it: it cannot be listed
    shutil.rmtree(to / "v3/manifests/index")
    done = sync(cli, "zlib", source=SIGNED, to=to)
    assert (done.code, [p["path"] for p in done.json["problems"]]) == (9, [path])
    assert sync(cli, "hdf5", source=SIGNED, to=to).code == 0  # brings it again
    assert verified(cli, to)["problems"] == []


@pytest.mark.parametrize("text", ["x", None])
def test_a_damaged_layout_file_is_written_again(cli: Cli, tmp_path: Path, text: str | None) -> None:
    to = tmp_path / "to"
    assert sync(cli, "zlib", to=to).code == 0
    before = files(to)
    layout = to / "v3/layout.json"
    layout.unlink() if text is None else layout.write_text(text)
    done = sync(cli, "zlib", to=to)
    assert (done.code, done.json["done"]["copied_blobs"]) == (0, 0)
    assert files(to) == before


def test_the_layout_is_told_before_the_first_package(cli: Cli, tmp_path: Path) -> None:
    to = tmp_path / "to"
    assert sync(cli, "--all", "--shard", "1/1", source=SIGNED, to=to).code == 0  # packages, no index
    assert (to / "v3/layout.json").read_bytes() == (SIGNED / "v3/layout.json").read_bytes()
    assert verified(cli, to)["problems"] == []


def test_a_spec_that_nothing_satisfies_makes_no_directory(cli: Cli, tmp_path: Path) -> None:
    assert sync(cli, "nothere", to=tmp_path / "to").code == 3
    words = ("nothere", "--from", MIRROR, "--key", KEY, "--to", tmp_path / "x.bundle")
    done = cli("bundle", "export", *words, "--json")
    assert (done.code, done.json["code"]) == (3, "no-candidate")
    assert "nothere" in done.err
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(("to", "x."))] == []


def test_a_shard_of_nothing_makes_no_directory(cli: Cli, tmp_path: Path) -> None:
    done = sync(cli, "nothere", "--shard", "1/2", to=tmp_path / "to")
    assert (done.code, done.json["status"]) == (3, "no-candidate")
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--target", "nosuch"), "--target nosuch"),
        (("--os", "nosuch", "--target", "x86_64_v3"), "--os nosuch"),
        (("--include", "@0.1"), "--include @0.1"),
        (("--exclude", "zlib"), "--exclude zlib"),
    ],
)
def test_the_filter_that_leaves_nothing_is_named(
    cli: Cli, tmp_path: Path, words: tuple[str, ...], named: str
) -> None:
    done = sync(cli, "zlib", *words, to=tmp_path / "to")
    assert done.code == 3
    assert f"{named} leaves nothing of " in done.err


def test_two_mirrors_with_one_key_each_publish_both(cli: Cli, tmp_path: Path) -> None:
    unsigned = tmp_path / "to"
    assert cli("sync", "zlib", "--from", UNSIGNED, "--unsigned", "--to", unsigned, "-q").code == 0
    assert not (unsigned / "v3/manifests/key").exists()
    assert sync(cli, "zlib", source=SIGNED, to=unsigned).code == 0
    assert (unsigned / "v3/manifests/key/keys.manifest.json").exists()
    assert verified(cli, unsigned, "--unsigned")["status"] == "ok"


# --- destinations that must not be touched ----------------------------------------------------------------------------


def test_a_destination_of_another_layout_is_refused(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "v2/build_cache").mkdir(parents=True)
    done = sync(cli, "zlib", to=tmp_path / "v2")
    assert (done.code, done.json["schema"]) == (2, "cachefetch/error/1")
    assert "layout 2" in done.err
    (tmp_path / "home").mkdir()
    (tmp_path / "home/thesis.tex").write_text("x")
    assert sync(cli, "zlib", to=tmp_path / "home").code == 2
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["thesis.tex"]
    assert sync(cli, "zlib", to="https://mirror.example.org/x").code == 2


def test_specs_and_all_exclude_each_other(cli: Cli, tmp_path: Path) -> None:
    assert sync(cli, to=tmp_path / "to").code == 2
    assert sync(cli, "zlib", "--all", to=tmp_path / "to").code == 2


def environment(tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT / ".dev"), "XDG_CACHE_HOME": str(tmp_path / "cache")}


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "cachefetch", *map(str, words)]


def test_a_second_sync_to_one_destination_is_refused_by_name(cli: Cli, tmp_path: Path) -> None:
    to = tmp_path / "to"
    slow = Fault(delay=4)
    with FaultServer(MIRROR) as server:
        blob, _ = tarball_of(Path(MIRROR), "python")
        server.script(f"/{blob.relative_to(MIRROR)}", slow)
        words = command("sync", QUERY, "--from", server.url, "--key", KEY, "--to", to, "-q")
        first = subprocess.Popen(words, env=environment(tmp_path), stdout=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + 20
            while not server.count(blob.name) and time.monotonic() < deadline:
                time.sleep(0.02)
            done = sync(cli, "zlib", to=to)
            assert done.code == 10
            assert done.json["code"] == "destination-busy"
            assert f"process {first.pid} on " in done.err
        finally:
            first.kill()
            first.wait()
    assert sync(cli, "zlib", to=to).code == 0  # the kernel drops the lock of a dead process


def test_a_second_sync_waits_when_it_is_told_to(cli: Cli, tmp_path: Path) -> None:
    to = tmp_path / "to"
    (to / ".cachefetch").mkdir(parents=True)
    with (to / ".cachefetch/lock").open("w") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        words = command("sync", "zlib", "--from", MIRROR, "--key", KEY, "--to", to, "--wait", "-q")
        second = subprocess.Popen(words, env=environment(tmp_path), stdout=subprocess.DEVNULL)
        with pytest.raises(subprocess.TimeoutExpired):
            second.wait(1.5)
        assert not (to / "v3").exists()
    assert second.wait(60) == 0
    assert verified(cli, to)["status"] == "ok"


# --- kills ---------------------------------------------------------------------------------------------------------


def blob_sizes(mirror: Path) -> dict[str, int]:
    return {p.name: p.stat().st_size for p in (mirror / "blobs").rglob("*") if p.is_file()}


@pytest.mark.parametrize("kills", [4, pytest.param(50, marks=pytest.mark.long)])
def test_killed_at_any_point_the_destination_is_a_valid_smaller_mirror(
    cli: Cli, tmp_path: Path, kills: int
) -> None:
    chance = random.Random(kills)
    direct = tmp_path / "direct"
    words = command("sync", "--all", "--from", SIGNED, "--key", KEY, "-q", "--to")
    started = time.monotonic()
    subprocess.run([*words, str(direct)], env=environment(tmp_path), check=True, stdout=subprocess.DEVNULL)
    whole = time.monotonic() - started
    manifest = json.loads((direct / "v3/manifests/index/index.manifest.json").read_text())
    index_digest = manifest["data"][0]["checksum"]
    struck = 0
    for number in range(kills):
        to = tmp_path / f"to{number}"
        run = subprocess.Popen([*words, str(to)], env=environment(tmp_path), stdout=subprocess.DEVNULL)
        started = time.monotonic()
        try:
            run.wait(chance.uniform(0.3, 1.0) * whole)
            whole = min(whole, time.monotonic() - started)  # what the first run found cold
        except subprocess.TimeoutExpired:
            run.send_signal(signal.SIGKILL)
            struck += run.wait() == -signal.SIGKILL
        if (to / ".cachefetch").exists():
            report = verified(cli, to)
            assert (report["status"], report["problems"]) == ("ok", []), f"kill {number}"
        rest = blob_sizes(direct).keys() - blob_sizes(to).keys() - {index_digest}
        done = sync(cli, "--all", source=SIGNED, to=to)
        assert done.code == 0, done.err
        assert done.json["done"]["copied_bytes"] == sum(blob_sizes(direct)[digest] for digest in rest)
        assert files(to) == files(direct)
        shutil.rmtree(to)
    assert struck >= kills // 3


def test_four_shards_as_processes_give_the_same_bytes_as_one(cli: Cli, tmp_path: Path) -> None:
    one, four = tmp_path / "one", tmp_path / "four"
    assert sync(cli, "--all", source=SIGNED, to=one).code == 0
    words = command("sync", "--all", "--from", SIGNED, "--key", KEY, "--to", four, "-q", "--shard")
    workers = [
        subprocess.Popen([*words, f"{number}/4"], env=environment(tmp_path), stdout=subprocess.DEVNULL)
        for number in range(1, 5)
    ]
    assert [worker.wait() for worker in workers] == [0, 0, 0, 0]
    assert not (four / "v3/manifests/index").exists()
    published = sync(cli, "--all", "--publish", source=SIGNED, to=four)
    assert published.code == 0, published.err
    assert published.json["plan"]["present"] == 124
    assert files(four) == files(one)
    assert verified(cli, four)["status"] == "ok"


def test_publish_names_what_a_shard_left_out(cli: Cli, tmp_path: Path) -> None:
    to = tmp_path / "to"
    assert sync(cli, "--all", "--shard", "1/2", source=SIGNED, to=to).code == 0
    done = sync(cli, "--all", "--publish", source=SIGNED, to=to)
    assert done.code == 9
    assert {problem["what"] for problem in done.json["problems"]} == {"not-found"}
    assert "no worker has copied it" in done.err


def test_publish_copies_nothing_of_packages(cli: Cli, tmp_path: Path) -> None:
    to = tmp_path / "to"
    assert sync(cli, "--all", "--shard", "1/2", source=SIGNED, to=to).code == 0
    before = blob_sizes(to)
    with FaultServer(str(SIGNED)) as server:
        done = sync(cli, "--all", "--publish", source=server.url, to=to)
        asked = [request.path for request in server.requests]
    assert done.code == 9
    assert not [path for path in asked if path.startswith("/v3/manifests/spec/")]
    own = {index_digest(to)} | {
        entry["checksum"]
        for path in to.glob("v3/manifests/key/*.json")
        for entry in json.loads(path.read_text())["data"]
    }
    assert blob_sizes(to).keys() - own == before.keys()
    assert verified(cli, to)["notes"]["unnamed_blobs"] == 0


def test_publish_removes_what_its_plan_says(cli: Cli, tmp_path: Path) -> None:
    to = tmp_path / "to"
    for shard in ("1/2", "2/2"):
        assert sync(cli, "--all", "--shard", shard, source=SIGNED, to=to).code == 0
    blob, _ = tarball_of(to, "zlib")
    blob.unlink()  # published, and damaged since
    for path in to.glob("v3/manifests/spec/openssl/*.json"):
        path.unlink()  # as if its worker had been killed between payload and manifest
    lost = len(list(SIGNED.glob("v3/manifests/spec/openssl/*.json")))
    words = ("--all", "--publish", "--prune")
    dry = sync(cli, *words, "--dry-run", source=SIGNED, to=to)
    done = sync(cli, *words, source=SIGNED, to=to)
    assert (dry.code, done.code) == (9, 9)
    assert dry.json["plan"] == done.json["plan"]
    assert done.json["done"]["pruned"] == done.json["plan"]["prune"] == 2 * lost + 1
    assert done.json["done"]["copied_blobs"] == done.json["plan"]["copy_blobs"]
    assert dry.json["problems"] == done.json["problems"]
    assert verified(cli, to)["notes"]["unnamed_blobs"] == 0


def test_prune_with_check_plans_what_it_does(cli: Cli, tmp_path: Path) -> None:
    source = shutil.copytree(UNSIGNED, tmp_path / "source")
    to = tmp_path / "to"
    words = ("sync", "zlib@1.3.1", "--from", source, "--unsigned", "--to", to, "--json")
    assert cli(*words).code == 0
    push_again(source, "zlib")
    dry = cli(*words, "--check", "--prune", "--dry-run").json["plan"]
    done = cli(*words, "--check", "--prune").json
    assert (dry["prune"], done["plan"], done["done"]["pruned"]) == (1, dry, 1)


@pytest.mark.parametrize("fixture", ["v3-signed", "v2-signed"])
def test_no_empty_directory_stays_after_pruning(cli: Cli, tmp_path: Path, fixture: str) -> None:
    to = tmp_path / "to"
    assert sync(cli, "--all", source=FIXTURES / fixture, to=to).code == 0
    for path in [*to.glob("v3/manifests/spec/*/*"), *to.glob("build_cache/*.spec.json*")]:
        if "/zlib" not in str(path) and "-zlib-" not in path.name and "gcc-runtime" not in path.name:
            path.unlink()
    assert sync(cli, "zlib", "--prune", source=FIXTURES / fixture, to=to).code == 0
    left = [path for path in to.glob("b*/**/*") if path.is_dir() and not list(path.iterdir())]
    assert left == []


def test_the_example_directory_is_untouched() -> None:
    assert not (EXAMPLES / "mirror" / ".cachefetch").exists()


def test_a_full_disk_leaves_a_valid_mirror_and_the_rerun_copies_the_rest(
    cli: Cli, tmp_path: Path, small_disk: Path
) -> None:
    to = small_disk / "to"
    assert sync(cli, "version-zoo", source=SIGNED, to=to).code == 0
    before = files(to)
    done = sync(cli, "--all", source=SIGNED, to=to)
    assert done.code == 10, done.err
    assert done.json["schema"] == "cachefetch/error/1"
    assert "space" in done.err
    assert files(to) == before  # refused before the first byte
    assert verified(cli, to)["problems"] == []
    context, hint = done.json["context"], done.json["hint"]
    lack = context["needed_bytes"] - context["free_bytes"]
    assert f"free {lack} bytes and run the same command again" in hint
    disk = os.statvfs(small_disk)
    size = disk.f_blocks * disk.f_frsize + lack
    subprocess.run(["mount", "-o", f"remount,size={size}", str(small_disk)], check=True)
    assert sync(cli, "--all", source=SIGNED, to=to).code == 0
    direct = tmp_path / "direct"
    assert sync(cli, "--all", source=SIGNED, to=direct).code == 0
    assert files(to) == files(direct)


@pytest.mark.parametrize("fixture", ["v3-signed", "v2-signed"])
def test_a_disk_that_fills_up_on_the_way_says_how_much_to_free(
    cli: Cli, tmp_path: Path, small_disk: Path, fixture: str
) -> None:
    """Somebody else writes there after the plan was found to fit."""
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    to, direct, source = small_disk / "to", tmp_path / "direct", FIXTURES / fixture
    assert sync(cli, "--all", source=source, to=direct).code == 0
    late = sorted(direct.rglob("*.spack")) or [tarball_of(direct, "openssl")[0]]

    def fill() -> None:
        with contextlib.suppress(OSError), (small_disk / "filler").open("wb") as file:
            file.write(bytes(21 << 20))

    with FaultServer(str(source)) as server:
        server.script(f"/{late[0].relative_to(direct)}", *[Fault(delay=4, times=0)])
        timer = threading.Timer(2.5, fill)
        timer.start()
        done = sync(cli, "--all", source=server.url, to=to)
        timer.join()
    assert done.code == 10, done.err
    assert re.search(r"free [1-9][0-9]+ bytes and run the same command again", done.json["hint"]), done.out
    assert verified(cli, to)["problems"] == []
    (small_disk / "filler").unlink()
    assert sync(cli, "--all", source=source, to=to).code == 0
    assert files(to) == files(direct)


def test_a_cut_network_is_a_problem_and_the_rerun_copies_the_rest(cli: Cli, tmp_path: Path) -> None:
    to = tmp_path / "to"
    blob, hash_ = tarball_of(Path(MIRROR), "python")
    with FaultServer(MIRROR) as server:
        server.script(f"/{blob.relative_to(MIRROR)}", Fault(status=404, times=0))
        done = sync(cli, "--all", source=server.url, to=to)
        assert (done.code, [p["hash"] for p in done.json["problems"]]) == (9, [hash_])
    with FaultServer(MIRROR) as server:
        done = sync(cli, "--all", source=server.url, to=to)
        assert done.code == 0, done.err
        assert done.json["done"]["copied_blobs"] == 1
    assert verified(cli, to)["status"] == "ok"


def test_a_lost_or_damaged_journal_costs_hashing_and_nothing_else(cli: Cli, tmp_path: Path) -> None:
    to = tmp_path / "to"
    assert sync(cli, "--all", to=to).code == 0
    before = files(to)
    (to / ".cachefetch/journal.sqlite").write_bytes(b"not a database, and long enough to be read as one" * 99)
    done = sync(cli, "--all", to=to)
    assert done.code == 0, done.err
    assert done.json["done"]["copied_blobs"] == 0
    assert "hashed again" in done.json["warnings"][0]
    shutil.rmtree(to / ".cachefetch")
    assert sync(cli, "zlib", to=to).code == 0
    assert files(to) == before  # what the index listed stays listed


def test_the_slurm_script_copies_in_parts_and_publishes(cli: Cli, tmp_path: Path) -> None:
    script = str(EXAMPLES / "slurm_sync.sh")
    to = tmp_path / "to"
    facts = {"SOURCE": MIRROR, "KEY": KEY, "DEST": str(to), "CACHEFETCH": f"{sys.executable} -m cachefetch"}
    env = {**environment(tmp_path), **facts, "PARTS": "2"}
    for more in ({"PART": "1"}, {"PART": "2"}, {"PUBLISH": "yes"}):
        subprocess.run(["sh", script], env={**env, **more}, check=True, capture_output=True)
    assert verified(cli, to)["status"] == "ok"
    assert sum(record["in_buildcache"] for record in index_of(to).values()) == 18


@pytest.mark.parametrize("command_name", ["sync", "verify"])
def test_the_documents_have_what_their_schemas_ask(cli: Cli, tmp_path: Path, command_name: str) -> None:
    schema = json.loads((ROOT / f"docs/schemas/{command_name}-1.json").read_text())
    source = shutil.copytree(MIRROR, tmp_path / "source")
    tarball_of(source, "zlib")[0].unlink()
    if command_name == "sync":
        document = sync(cli, "--all", source=source, to=tmp_path / "to").json
    else:
        document = verified(cli, source)
    assert document["schema"] == schema["properties"]["schema"]["const"]
    assert set(document) == set(schema["required"]) == set(schema["properties"])
    assert document["status"] in schema["properties"]["status"]["enum"]
    problem = schema["$defs"]["problem"]
    assert document["problems"]
    for found in document["problems"]:
        assert set(found) == set(problem["required"])
    if command_name == "sync":
        for part in ("plan", "done"):
            assert set(document[part]) == set(schema["properties"][part]["required"])


@pytest.mark.parametrize(("name", "hash_"), [("n" * 300, "g" * 31 + "2"), ("odd", "abc"), ("odd", "0" * 32)])
def test_a_record_that_no_mirror_can_hold_stops_no_other(
    cli: Cli, tmp_path: Path, name: str, hash_: str
) -> None:
    """Indexes are not signed: one record in them may say anything."""
    source, to = tmp_path / "source", tmp_path / "to"
    shutil.copytree(MIRROR, source)
    manifest = source / "v3/manifests/index/index.manifest.json"
    installs = index_of(source)
    record = json.loads(json.dumps(next(r for r in installs.values() if r["in_buildcache"])))
    record["spec"].update(name=name, hash=hash_)
    text = json.dumps({"database": {"version": "8", "installs": {**installs, hash_: record}}}).encode()
    digest = hashlib.sha256(text).hexdigest()
    (source / "blobs/sha256" / digest[:2]).mkdir(exist_ok=True)
    (source / "blobs/sha256" / digest[:2] / digest).write_bytes(text)
    document = json.loads(manifest.read_text())
    document["data"][0].update(checksum=digest, contentLength=len(text))
    manifest.write_text(json.dumps(document))

    done = sync(cli, "--all", source=source, to=to)
    assert done.code == 9, done.err
    assert [(p["hash"], p["what"]) for p in done.json["problems"]] == [(hash_, "bad-format")]
    held = {r["spec"]["hash"] for r in index_of(to).values() if r["in_buildcache"]}
    assert held == {key for key, r in installs.items() if r["in_buildcache"]}
    assert verified(cli, to)["problems"] == []
    audit = cli("verify", source, "--key", KEY, "--json")
    assert audit.code == 9, audit.err
    assert [(p["hash"], p["what"]) for p in audit.json["problems"]] == [(hash_, "bad-format")]
    assert cli("fetch", name, "-m", source, "--key", KEY).code == 6


@pytest.mark.parametrize("fixture", ["v3-signed", "v2-signed"])
def test_the_next_run_brings_lost_keys_and_their_list_again(cli: Cli, tmp_path: Path, fixture: str) -> None:
    to, source = tmp_path / "to", FIXTURES / fixture
    assert sync(cli, "zlib", source=source, to=to).code == 0
    before = files(to)
    of_keys = [path for path in before if "/key/" in path or "_pgp" in path]
    assert len(of_keys) == 2
    for path in of_keys:
        (to / path).unlink()
        assert sync(cli, "zlib", source=source, to=to).code == 0
        assert files(to) == before, path


def test_the_next_run_brings_a_lost_index_of_layout_2_again(cli: Cli, tmp_path: Path) -> None:
    to, source = tmp_path / "to", FIXTURES / "v2-signed"
    assert sync(cli, "zlib", source=source, to=to).code == 0
    before = files(to)
    (to / "build_cache/index.json").unlink()
    assert sync(cli, "zlib", source=source, to=to).code == 0
    assert files(to) == before


@pytest.mark.parametrize("fixture", ["v3-signed", "v2-signed"])
def test_a_destination_in_its_source_or_around_it_is_refused(cli: Cli, tmp_path: Path, fixture: str) -> None:
    source = shutil.copytree(FIXTURES / fixture, tmp_path / "source")
    for place in (source / "sub", source / "blobs/more"):
        for spelling in (source, source.as_uri()):
            done = sync(cli, "zlib", source=spelling, to=place)
            assert (done.code, "lies in the source" in done.json["message"]) == (2, True)
            assert not place.exists()
    around = tmp_path / "around"
    assert sync(cli, "zlib", source=source, to=around).code == 0
    moved = around / "sub"
    shutil.move(source, moved)
    done = sync(cli, "zlib", source=moved, to=around)
    assert (done.code, "holds the source" in done.json["message"]) == (2, True)
    link = tmp_path / "link"
    link.symlink_to(moved)
    assert sync(cli, "zlib", source=moved, to=link / "deeper").code == 2
    assert sync(cli, "zlib", source=moved, to=tmp_path / "sub").code == 0  # beside it, with the same name


def test_a_file_system_without_inodes_is_told_as_that(cli: Cli, small_disk: Path) -> None:
    """Bytes are free: to free some more would not help."""
    subprocess.run(["mount", "-o", "remount,size=20m,nr_inodes=60", str(small_disk)], check=True)
    done = sync(cli, "--all", to=small_disk / "to")
    assert done.code == 10, done.err
    assert "free inodes" in done.err
    assert "bytes and run" not in done.err
    subprocess.run(["mount", "-o", "remount,nr_inodes=6000", str(small_disk)], check=True)
    assert sync(cli, "--all", to=small_disk / "to").code == 0
