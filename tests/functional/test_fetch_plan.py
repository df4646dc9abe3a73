"""Plans: what `fetch --dry-run` and `--plan` say, tools that carry them out, `--adopt`; pins without an index."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import subprocess
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.functional.conftest import DEBIAN, FIXTURES, KEY, MIRROR, Done, host
from tests.services.nginx import Nginx

Cli = Callable[..., Done]
QUERY = "py-multidict@6.1.0"


def fetch(cli: Cli, *more: str, mirror: object = MIRROR) -> Done:
    return cli("fetch", QUERY, "-m", mirror, "--key", KEY, *DEBIAN, *more)


def test_the_plan_is_what_the_fetch_then_does(cli: Cli) -> None:
    before = fetch(cli, "--dry-run", "--json").json
    assert before["schema"] == "cachefetch/plan/1"
    assert {item["action"] for item in before["items"]} == {"get"}
    done = fetch(cli, "--json").json
    assert [i["sha256"] for i in done["items"]] == [i["sha256"] for i in before["items"]]
    assert before["get_bytes"] == sum({i["sha256"]: i["size"] for i in done["items"]}.values())
    after = fetch(cli, "--dry-run", "--json").json
    assert {item["action"] for item in after["items"]} == {"reuse"}
    assert (after["get_bytes"], after["reuse_bytes"]) == (0, before["get_bytes"])
    lines = fetch(cli, "--dry-run").out.splitlines()
    assert len(lines) == len(after["items"])
    assert all(" reuse " in line for line in lines)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_carries_the_plan_out_and_the_store_adopts_it(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "carried"
    out.mkdir()
    assert fetch(cli, "--plan", str(tmp_path / "list"), "--format", "curl").code == 0
    assert fetch(cli, "--plan", str(tmp_path / "sums"), "--format", "sha256sum").code == 0
    subprocess.run(["curl", "-sf", "-K", str(tmp_path / "list")], cwd=out, check=True)
    subprocess.run(["sha256sum", "--quiet", "-c", str(tmp_path / "sums")], cwd=out, check=True)
    done = fetch(cli, "--adopt", str(out), "--offline", "--json")
    assert done.code == 0, done.err
    assert {item["from"] for item in done.json["items"]} == {"store"}
    for item in done.json["items"]:
        assert hashlib.sha256(Path(item["path"]).read_bytes()).hexdigest() == item["sha256"]


@pytest.mark.parametrize("tool", ["curl", "aria2c"])
def test_tools_carry_a_plan_of_a_real_server_out(cli: Cli, tmp_path: Path, tool: str) -> None:
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")
    out, plan = tmp_path / "carried", tmp_path / "list"
    out.mkdir()
    with Nginx(str(tmp_path / "nginx"), str(MIRROR)) as nginx:
        made = fetch(cli, "--plan", str(plan), "--format", tool.rstrip("c"), mirror=nginx.url)
        assert made.code == 0, made.err
        words = ["curl", "-sf", "-K"] if tool == "curl" else ["aria2c", "-q", "-i"]
        subprocess.run([*words, str(plan)], cwd=out, check=True)
        done = fetch(cli, "--adopt", str(out), "--offline", "--json", mirror=nginx.url)
    assert done.code == 0, done.err
    assert (done.json["network_bytes"], {item["from"] for item in done.json["items"]}) == (0, {"store"})


def plan_items(cli: Cli) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = fetch(cli, "--dry-run", "--json").json["items"]
    return found


def test_aria2_and_metalink_name_every_url_size_and_digest(cli: Cli, tmp_path: Path) -> None:
    items = plan_items(cli)
    text = fetch(cli, "--plan", "-", "--format", "aria2").out
    for item in items:
        assert f"{item['urls'][0]}\n  out={item['file']}\n  checksum=sha-256={item['sha256']}\n" in text
    fetch(cli, "--plan", str(tmp_path / "m.meta4"), "--format", "metalink")
    root = ElementTree.parse(tmp_path / "m.meta4").getroot()
    space = "{urn:ietf:params:xml:ns:metalink}"
    found = [
        (f.get("name"), f.findtext(f"{space}size"), f.findtext(f"{space}hash"), f.findtext(f"{space}url"))
        for f in root
    ]
    assert found == [(i["file"], str(i["size"]), i["sha256"], i["urls"][0]) for i in items]


def test_json_plan_in_a_file_is_the_document(cli: Cli, tmp_path: Path) -> None:
    document = fetch(cli, "--plan", str(tmp_path / "plan.json"), "--json").json
    assert json.loads((tmp_path / "plan.json").read_text()) == document


def test_a_plan_that_cannot_be_written(cli: Cli, tmp_path: Path) -> None:
    done = fetch(cli, "--plan", str(tmp_path / "no" / "plan"))
    assert done.code == 10
    assert "plan" in done.err


def test_a_wrong_file_is_not_adopted_but_fetched(cli: Cli, tmp_path: Path) -> None:
    item = plan_items(cli)[0]
    out = tmp_path / "carried"
    out.mkdir()
    (out / item["file"]).write_bytes(bytes(item["size"]))
    (out / plan_items(cli)[1]["file"]).write_bytes(b"short")
    done = fetch(cli, "--adopt", str(out), "--json")
    assert done.code == 0
    assert [w["code"] for w in done.json["warnings"]] == ["adopt", "adopt"]
    good = next(i for i in done.json["items"] if i["sha256"] == item["sha256"])
    assert good["from"] == "network"
    assert hashlib.sha256(Path(good["path"]).read_bytes()).hexdigest() == item["sha256"]


# --- pins -----------------------------------------------------------------------------------------------------------


def test_a_full_name_needs_no_index(cli: Cli, tmp_path: Path) -> None:
    expected = fetch(cli, "--json").json["items"]
    root = expected[0]
    mirror = tmp_path / "mirror"
    shutil.copytree(MIRROR, mirror)
    shutil.rmtree(mirror / "v3" / "manifests" / "index")
    shutil.rmtree(tmp_path / "cache")
    pin = f"{root['name']}@={root['version']}/{root['hash']}"
    done = cli("fetch", pin, "-m", mirror, "--key", KEY, "--json")
    assert done.code == 0, done.err
    assert sorted(i["hash"] for i in done.json["items"]) == sorted(i["hash"] for i in expected)
    alone = cli("fetch", pin, "-m", mirror, "--key", KEY, "--json", "--no-deps").json["items"]
    assert [i["hash"] for i in alone] == [root["hash"]]


def test_a_pin_that_no_mirror_has_is_an_error(cli: Cli) -> None:
    done = cli("fetch", f"zlib@=9.9/{'a' * 32}", "-m", MIRROR, "--key", KEY, "--json")
    assert done.code == 8
    assert done.json["context"]["missing"] == [{"name": "zlib", "version": "9.9", "hash": "a" * 32}]


def test_a_pin_of_another_package_is_refused(cli: Cli, tmp_path: Path) -> None:
    items = plan_items(cli)
    one, other = items[0], items[1]
    mirror = tmp_path / "mirror"
    shutil.copytree(MIRROR, mirror)
    spec = mirror / "v3" / "manifests" / "spec"
    source = next(spec.glob(f"*/*-{other['hash']}.spec.manifest.json"))
    target = next(spec.glob(f"*/*-{one['hash']}.spec.manifest.json"))
    target.write_bytes(source.read_bytes())
    shutil.rmtree(tmp_path / "cache")  # the right manifest was kept there
    pin = f"{one['name']}@={one['version']}/{one['hash']}"
    assert cli("fetch", pin, "-m", mirror, "--key", KEY, "--no-deps").code == 6


def without_index(tmp_path: Path) -> Path:
    mirror = tmp_path / "mirror"
    shutil.copytree(MIRROR, mirror)
    shutil.rmtree(mirror / "v3" / "manifests" / "index")
    return mirror


def test_a_bare_hash_is_looked_up_in_a_directory_without_an_index(cli: Cli, tmp_path: Path) -> None:
    items = plan_items(cli)
    mirror = without_index(tmp_path)
    shutil.rmtree(tmp_path / "cache")
    done = cli("fetch", f"/{items[0]['hash'][:10]}", "-m", mirror, "--key", KEY, "--json")
    assert done.code == 0, done.err
    assert sorted(i["hash"] for i in done.json["items"]) == sorted(i["hash"] for i in items)
    gone = cli("fetch", f"/{'a' * 32}", "-m", mirror, "--key", KEY, "--json")
    assert gone.code == 8
    assert "without an index" in gone.json["message"]


def test_a_hash_that_means_several_is_refused(cli: Cli, tmp_path: Path) -> None:
    mirror = without_index(tmp_path)
    one = next((mirror / "v3" / "manifests" / "spec").glob("zlib/*.spec.manifest.json"))
    stem = one.name.removesuffix(".spec.manifest.json")
    other = one.with_name(f"{stem[:-1]}{'a' if stem[-1] != 'a' else 'b'}.spec.manifest.json")
    shutil.copy(one, other)
    done = cli("fetch", f"/{stem[-32:-2]}", "-m", mirror, "--key", KEY)
    assert done.code == 2
    assert "means 2 binaries" in done.err


def spack_lock(roots: list[str]) -> str:
    """Return the environment that the spec documents of the example mirror would have been installed from."""
    nodes: dict[str, Any] = {}
    for path in (Path(MIRROR) / "v3" / "manifests" / "spec").glob("*/*.spec.manifest.json"):
        text = path.read_text()
        records = json.loads(text[text.index("{") : text.rindex("}") + 1])["data"]
        digest = next(r["checksum"] for r in records if ".spec.v" in r["mediaType"])
        data = (Path(MIRROR) / "blobs" / "sha256" / digest[:2] / digest).read_bytes()
        document = json.loads(gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data)
        nodes.update({node["hash"]: node for node in document["spec"]["nodes"]})
    meta = {"file-type": "spack-lockfile", "lockfile-version": 7, "specfile-version": 5}
    entries = [{"hash": hash_, "spec": "any"} for hash_ in roots]
    return json.dumps({"_meta": meta, "roots": entries, "concrete_specs": nodes})


def test_an_environment_is_fetched_without_an_index(cli: Cli, tmp_path: Path) -> None:
    items = plan_items(cli)
    mirror = without_index(tmp_path)
    shutil.rmtree(tmp_path / "cache")
    (tmp_path / "spack.lock").write_text(spack_lock([items[0]["hash"]]))
    words = ("fetch", "--env", tmp_path / "spack.lock", "-m", mirror, "--key", KEY)
    before = cli(*words, "--dry-run", "--json").json
    assert {item["action"] for item in before["items"]} == {"get"}
    done = cli(*words, "--json")
    assert done.code == 0, done.err
    assert sorted(i["hash"] for i in done.json["items"]) == sorted(i["hash"] for i in items)


def test_an_environment_for_another_host_is_fetched_with_a_warning(cli: Cli, tmp_path: Path) -> None:
    items = plan_items(cli)
    (tmp_path / "spack.lock").write_text(spack_lock([items[0]["hash"]]))
    words = ("fetch", "--env", tmp_path / "spack.lock", "-m", MIRROR, "--key", KEY)
    assert "another host" not in cli(*words, *DEBIAN).err
    old = host("linux", "rhel8", "x86_64_v2", "glibc@2.28:/usr")
    text = (
        "was concretized for another host: linux rhel8 x86_64_v2 glibc@2.28:/usr cannot run 1 of its 1 roots"
    )
    done = cli(*words, *old, "--json")
    assert done.code == 0, done.err
    (warning,) = done.json["warnings"]
    assert warning["code"] == "other-host"
    assert text in warning["message"]
    for more in ([], ["--dry-run"]):
        assert f"warning: {tmp_path}/spack.lock {text}" in cli(*words, *old, *more).err


@pytest.mark.parametrize(
    ("text", "code"),
    [("{}", 6), ('{"_meta": {"lockfile-version": 7}, "roots": [], "concrete_specs": {}}', 2)],
)
def test_an_environment_that_names_nothing_is_refused(cli: Cli, tmp_path: Path, text: str, code: int) -> None:
    (tmp_path / "spack.lock").write_text(text)
    done = cli("fetch", "--env", tmp_path / "spack.lock", "-m", MIRROR, "--key", KEY)
    assert done.code == code
    assert "spack.lock" in done.err
    assert cli("fetch", "--env", tmp_path / "none", "-m", MIRROR, "--key", KEY).code == 2


# --- pace and patience ----------------------------------------------------------------------------------------------


def test_limit_rate_is_kept(cli: Cli) -> None:
    total = fetch(cli, "--dry-run", "--json").json["get_bytes"]
    start = time.monotonic()
    assert fetch(cli, "--limit-rate", str(total // 2)).code == 0
    assert time.monotonic() - start >= 1.5


def test_a_deadline_ends_the_run_and_what_is_here_is_kept(cli: Cli, tmp_path: Path) -> None:
    done = fetch(cli, "--limit-rate", "2k", "--deadline", "0.6", "--json")
    assert done.code == 8
    assert done.json["context"]["reason"] == "deadline"
    assert fetch(cli).code == 0
    partial = tmp_path / "cache" / "cachefetch" / "store" / "partial"
    assert list(partial.iterdir()) == []


@pytest.mark.parametrize(
    "word",
    [
        "--limit-rate=fast",
        "--limit-rate=0",
        "--limit-rate=inf",
        "--limit-rate=1kk",
        "--deadline=-1",
        "--deadline=x",
    ],
)
def test_bad_numbers_are_usage_errors(cli: Cli, word: str) -> None:
    done = fetch(cli, word)
    assert done.code == 2
    assert word.partition("=")[0] in done.err
    assert "invalid _" not in done.err  # the name of a function of ours


def test_a_cache_directory_that_no_path_can_be(cli: Cli, tmp_path: Path) -> None:
    config = tmp_path / "config" / "cachefetch" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text('[store]\ncache_dir = "/tmp/a\\u0000b"\n')
    done = fetch(cli)
    assert done.code == 2
    assert "cache_dir" in done.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--plan", "plan.json", "--to", "out"), "--to out has no effect"),
        (("--plan", "-", "--adopt", "."), "--adopt . has no effect"),
        (("--format", "json"), "--plan, which is not given"),
        (("--dry-run", "--format", "aria2"), "--plan, which is not given"),
        (("--adopt", "nowhere"), "there is no directory nowhere"),
        (("--adopt", KEY), "there is no directory"),
        (("--key", "nokey.asc"), "cannot read the key file nokey.asc"),
    ],
)
def test_options_without_effect_are_refused(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = fetch(cli, *words, "--json")
    assert (done.code, said in done.err) == (2, True), done.err
    assert done.json["hint"] or "key file" in said
    assert not list(tmp_path.glob("plan.json")) + list(tmp_path.glob("out"))


@pytest.mark.parametrize("place", [MIRROR, str(FIXTURES / "v2-signed")])
def test_a_pin_with_another_version_or_name_says_what_the_mirror_has(cli: Cli, place: str) -> None:
    listed = cli("list", "zlib@1.3.1", "-m", place, "--json").json["specs"]
    hash_ = listed[0]["hash"]
    for name, version in (("zlib", "9.9"), ("zlob", "1.3.1")):
        done = cli("fetch", f"{name}@={version}/{hash_}", "-m", place, "--key", KEY, "--json")
        assert (done.code, done.json["code"]) == (3, "no-candidate")
        assert f"{place} has zlib@1.3.1 under this hash" in done.json["message"]
        assert done.json["hint"] == f"cachefetch fetch zlib@=1.3.1/{hash_}"
    assert cli("fetch", f"zlib@=1.3.1/{hash_}", "-m", place, "--key", KEY).code == 0


def test_a_pin_that_no_mirror_has_is_not_found_where_there_is_no_index(cli: Cli, tmp_path: Path) -> None:
    done = cli("fetch", f"zlib@=9.9/{'a' * 32}", "-m", without_index(tmp_path), "--key", KEY, "--json")
    assert (done.code, done.json["code"]) == (8, "not-found")
