"""Lock files: written with proven digests, reproduced exactly or refused with what changed."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.functional.conftest import KEY, MIRROR, Done, host
from tests.services.nginx import Nginx

from cachefetch.errors import FormatError
from cachefetch.lockfile import Lock, LockedPolicy, weaker
from cachefetch.resolver.model import Host
from cachefetch.resolver.saved import read_resolution

HOST = host("linux", "debian12", "x86_64_v3", "glibc@2.36:/usr", "gcc@12.2.0")
FACTS = Host("linux", "debian12", "x86_64")


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    """A copy of the example mirror that may be damaged."""
    return Path(shutil.copytree(MIRROR, tmp_path / "mirror"))


@pytest.fixture
def locked(cli: Callable[..., Done], mirror: Path, tmp_path: Path) -> tuple[list[str], Path]:
    """The mirror options and a lock file for py-multidict."""
    options = ["-m", str(mirror), "--key", KEY]
    path = tmp_path / "cachefetch.lock"
    done = cli("resolve", "py-multidict", *options, *HOST, "--lock", str(path))
    assert done.code == 0, done.err
    return options, path


def test_resolve_reproduces_the_lock(cli: Callable[..., Done], locked: tuple[list[str], Path]) -> None:
    options, path = locked
    first = json.loads(path.read_bytes())
    done = cli("resolve", "--locked", "--lock", str(path), *options, *HOST, "--json")
    assert done.code == 0
    assert done.json["roots"][0]["chosen"]["hash"] == first["roots"][0]["hash"]
    assert {e["hash"] for e in done.json["closure"]} == {p["hash"] for p in first["packages"]}
    again = path.with_suffix(".again")
    assert cli("resolve", "py-multidict", *options, *HOST, "--lock", str(again)).code == 0
    assert again.read_bytes() == path.read_bytes()


def test_other_specs_are_refused(cli: Callable[..., Done], locked: tuple[list[str], Path]) -> None:
    options, path = locked
    done = cli("resolve", "zlib", "--locked", "--lock", str(path), *options, *HOST)
    assert done.code == 2
    assert "was made for py-multidict, not for zlib" in done.err


def test_fetch_takes_what_is_locked_without_an_index(
    cli: Callable[..., Done], locked: tuple[list[str], Path], mirror: Path, tmp_path: Path
) -> None:
    options, path = locked
    shutil.rmtree(mirror / "v3" / "manifests" / "index")
    done = cli("fetch", "--lock", str(path), *options, *HOST, "--json", "--to", str(tmp_path / "to"))
    assert done.code == 0, done.err
    promised = {p["hash"]: p["sha256"] for p in json.loads(path.read_bytes())["packages"]}
    assert {item["hash"]: item["sha256"] for item in done.json["items"]} == promised


def test_another_host_is_refused(cli: Callable[..., Done], locked: tuple[list[str], Path]) -> None:
    options, path = locked
    old = host("linux", "rhel8", "x86_64_v2", "glibc@2.28:/usr")
    done = cli("fetch", "--lock", str(path), *options, *old)
    assert done.code == 2
    assert "target x86_64_v2, locked for x86_64_v3" in done.err
    assert "libc glibc@2.28:/usr, locked for glibc@2.36:/usr" in done.err
    done = cli("resolve", "--locked", "--lock", str(path), *options, *old, "--json")
    assert done.code == 3


FITTING = host("linux", "ubuntu24.04", "zen4", "glibc@2.39:/usr", "gcc@13.2.0")


def test_another_host_that_fits_is_said(cli: Callable[..., Done], locked: tuple[list[str], Path]) -> None:
    options, path = locked
    note = "the lock file was made for another host, linux debian12 x86_64_v3 glibc@2.36:/usr gcc@12.2.0; this one, "
    for words in (["resolve", "--locked"], ["fetch"], ["fetch"]):  # the second time all of it is here
        done = cli(*words, "--lock", str(path), *options, *FITTING)
        assert done.code == 0, done.err
        assert f"{note}linux ubuntu24.04 zen4 (x86_64_v4) glibc@2.39:/usr gcc@13.2.0, can run" in done.err
        assert note not in cli(*words, "--lock", str(path), *options, *HOST).err
    found = cli("fetch", "--lock", str(path), *options, *FITTING, "--json").json["warnings"]
    assert [warning["code"] for warning in found] == ["other-host"]


def test_a_lock_is_planned_and_carried_out_by_another_tool(
    cli: Callable[..., Done], locked: tuple[list[str], Path], mirror: Path, tmp_path: Path
) -> None:
    options, path = locked
    words = ["fetch", "--lock", str(path), *HOST]
    shutil.rmtree(mirror / "v3" / "manifests" / "index")
    out, plan = tmp_path / "carried", tmp_path / "list"
    out.mkdir()
    with Nginx(str(tmp_path / "nginx"), str(mirror)) as nginx:
        options = ["-m", nginx.url, "--key", KEY]
        before = cli(*words, *options, "--dry-run", "--json").json
        assert {i["hash"] for i in before["items"]} == {
            p["hash"] for p in json.loads(path.read_text())["packages"]
        }
        assert cli(*words, *options, "--plan", str(plan), "--format", "curl").code == 0
        subprocess.run(["curl", "-sf", "-K", str(plan)], cwd=out, check=True)
        done = cli(*words, *options, "--adopt", str(out), "--offline", "--json")
    assert done.code == 0, done.err
    assert (done.json["network_bytes"], {item["from"] for item in done.json["items"]}) == (0, {"store"})
    assert not list(out.glob("*.part"))


def test_a_plan_of_a_lock_holds_its_promises_too(
    cli: Callable[..., Done], locked: tuple[list[str], Path]
) -> None:
    options, path = locked
    document = json.loads(path.read_bytes())
    document["packages"][0]["sha256"] = "0" * 64
    path.write_text(json.dumps(document))
    for more in (["--dry-run"], ["--plan", "-"], ["--adopt", "."]):
        assert cli("fetch", "--lock", str(path), *options, *HOST, *more).code == 6
    old = host("linux", "rhel8", "x86_64_v2", "glibc@2.28:/usr")
    assert cli("fetch", "--lock", str(path), *options, *old, "--dry-run").code == 2


@pytest.mark.parametrize("command", [["fetch"], ["resolve", "--locked"]])
def test_another_digest_is_refused(
    cli: Callable[..., Done], locked: tuple[list[str], Path], command: list[str]
) -> None:
    options, path = locked
    document = json.loads(path.read_bytes())
    document["packages"][0]["sha256"] = "0" * 64
    path.write_text(json.dumps(document))
    done = cli(*command, "--lock", str(path), *options, *HOST, "--json")
    assert done.code == 6
    assert done.json["code"] == "lock-changed"
    name = document["packages"][0]["name"]
    assert [text.partition("@")[0] for text in done.json["context"]["changes"]] == [name]


def test_a_hash_that_is_gone_is_told(cli: Callable[..., Done], locked: tuple[list[str], Path]) -> None:
    options, path = locked
    document = json.loads(path.read_bytes())
    gone = document["roots"][0]["hash"]
    for entry in (*document["roots"], *document["packages"]):
        if entry["hash"] == gone:
            entry["hash"] = "z" * 32
    path.write_text(json.dumps(document))
    done = cli("resolve", "--locked", "--lock", str(path), *options, *HOST)
    assert done.code == 3
    assert "the lock file names /zzzzzzz, which no mirror holds any more" in done.err


@pytest.mark.parametrize("damage", ["", "[]", '{"schema": "cachefetch/lock/1"}', '{"schema": "x"}'])
def test_what_is_no_lock_file_is_named(damage: str) -> None:
    with pytest.raises(FormatError, match=r"some\.lock"):
        Lock.read(damage.encode(), what="some.lock")


def test_a_damaged_package_is_refused(locked: tuple[list[str], Path]) -> None:
    document: dict[str, Any] = json.loads(locked[1].read_bytes())
    del document["packages"][0]["size"]
    with pytest.raises(FormatError, match="no usable lock file"):
        Lock.read(json.dumps(document).encode(), what="x")


def put(document: Any, path: str, value: object) -> bytes:
    """Return the document with a value replaced; the parts of `path` are keys, or numbers of list entries."""
    *upper, last = [int(part) if part.isdecimal() else part for part in path.split(".")]
    inner = document
    for part in upper:
        inner = inner[part]
    inner[last] = value
    return json.dumps(document).encode()


WRONG = [None, 7, {"a": 1}, [[1]], float("nan")]


@pytest.mark.parametrize(
    "path",
    ["packages.0.sha256", "packages.0.hash", "packages.0.size", "roots.0.query", "host.target", "mirrors.0"],
)
def test_a_field_of_another_type_makes_a_lock_file_unusable(
    cli: Callable[..., Done], locked: tuple[list[str], Path], path: str
) -> None:
    text = locked[1].read_bytes()
    for value in WRONG if "size" not in path else [None, "7", True, 7.5]:
        with pytest.raises(FormatError, match="is no usable lock file"):
            Lock.read(put(json.loads(text), path, value), what="x")
    locked[1].write_bytes(put(json.loads(text), path, None))
    done = cli("resolve", "py-multidict", *locked[0], *HOST, "--locked", "--lock", str(locked[1]))
    assert done.code == 6
    assert "is no usable lock file" in done.err


@pytest.mark.parametrize(
    "path",
    [
        "host.target", "host.libc.version", "roots.0.decided_by.0", "roots.0.rejected.0.hash",
        "roots.0.rejected.0.reason", "roots.0.rejected.0.also.0", "roots.0.others.0.hash", "roots.0.query",
        "roots.0.chosen.mirrors.0", "roots.0.key_texts.K1", "mirrors.0.age_s", "mirrors.0.mirror", "closure.0.hash",
    ],
)  # fmt: skip
def test_a_field_of_another_type_makes_a_saved_answer_damaged(
    cli: Callable[..., Done], tmp_path: Path, path: str
) -> None:
    saved = cli("resolve", "py-multidict", "-m", MIRROR, "--key", KEY, *HOST, "--json").out
    file = tmp_path / "answer.json"
    file.write_text(saved)
    assert cli("explain", str(file)).code == 0
    wrong = [[1], {"a": 1}, float("inf")] if path.endswith("age_s") else WRONG
    for value in wrong:
        with pytest.raises(FormatError, match="is damaged"):
            read_resolution(put(json.loads(saved), path, value), what="x")
    file.write_bytes(put(json.loads(saved), path, wrong[0]))
    done = cli("explain", str(file))
    assert done.code == 6
    assert "is damaged" in done.err


def test_nothing_is_written_for_no_answer(cli: Callable[..., Done], tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    assert cli("resolve", "py-multidict@99", "-m", MIRROR, "--key", KEY, *HOST, "--lock", str(path)).code == 3
    assert not path.exists()


def test_a_weaker_policy_than_the_locked_one_is_refused(
    cli: Callable[..., Done], locked: tuple[list[str], Path], mirror: Path, tmp_path: Path
) -> None:
    _, path = locked
    assert json.loads(path.read_bytes())["policies"] == [
        {"mirror": str(mirror), "url": str(mirror), "signed": "required", "keys": []}
    ]
    weak = ["--lock", str(path), "-m", str(mirror), "--unsigned", *HOST, "--json"]
    for words in (["fetch", *weak], ["resolve", "--locked", *weak]):
        done = cli(*words)
        assert (done.code, done.json["code"]) == (7, "policy-weaker")
        assert "locked with required" in done.json["message"]
    copy = shutil.copytree(
        mirror, tmp_path / "copy"
    )  # a mirror that the lock does not name is held to it too
    elsewhere = ["fetch", "--lock", str(path), "-m", str(copy), *HOST]
    assert cli(*elsewhere, "--unsigned").code == 7
    assert cli(*elsewhere, "--key", KEY).code == 0


def policy(signed: str, *keys: str, url: str = "u") -> LockedPolicy:
    return LockedPolicy("m", url, signed, keys)


@pytest.mark.parametrize(
    ("was", "now", "refused"),
    [
        (policy("required"), policy("required"), False),
        (policy("required"), policy("if-present"), True),
        (policy("required"), policy("none"), True),
        (policy("if-present"), policy("none"), True),
        (policy("if-present"), policy("required"), False),
        (policy("none"), policy("none"), False),
        (policy("required", "A", "B"), policy("required", "B"), False),
        (policy("required", "A"), policy("required", "A", "B"), True),
        (policy("required", "A"), policy("required"), True),
        (policy("required"), policy("required", "A"), False),
        (policy("required", "A", url="x"), policy("required"), False),
        (policy("if-present", url="x"), policy("none"), True),
    ],
)
def test_what_is_weaker(was: LockedPolicy, now: LockedPolicy, refused: bool) -> None:
    lock = Lock({}, FACTS, (), (), {}, (was,))
    assert bool(weaker(lock, [now])) is refused


def test_an_old_lock_file_without_policies_is_read(
    cli: Callable[..., Done], locked: tuple[list[str], Path], mirror: Path
) -> None:
    _, path = locked
    document = json.loads(path.read_bytes())
    del document["policies"]
    path.write_text(json.dumps(document))
    assert cli("fetch", "--lock", str(path), "-m", str(mirror), "--unsigned", *HOST).code == 0
    document["policies"] = [{"mirror": "m", "url": "u", "signed": "never", "keys": []}]
    path.write_text(json.dumps(document))
    assert cli("fetch", "--lock", str(path), "-m", str(mirror), "--unsigned", *HOST).code == 6


def test_sync_refuses_a_policy_weaker_than_the_lock(
    cli: Callable[..., Done], locked: tuple[list[str], Path], mirror: Path, tmp_path: Path
) -> None:
    options, path = locked
    done = cli("sync", path, "--from", mirror, "--unsigned", "--to", tmp_path / "to", "--json")
    assert (done.code, done.json["code"]) == (7, "policy-weaker")
    assert not (tmp_path / "to").exists()
    assert cli("sync", path, *options, "--to", tmp_path / "to").code == 0
