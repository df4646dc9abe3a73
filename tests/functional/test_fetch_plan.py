"""Plans: what `fetch --dry-run` and `--plan` say, tools that carry them out, `--adopt`; pins without an index."""

from __future__ import annotations

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
from tests.functional.conftest import DEBIAN, KEY, MIRROR, Done

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


@pytest.mark.parametrize("words", [["--limit-rate", "fast"], ["--limit-rate", "0"], ["--deadline", "-1"]])
def test_bad_numbers_are_usage_errors(cli: Cli, words: list[str]) -> None:
    done = fetch(cli, *words)
    assert done.code == 2
    assert words[0] in done.err
