"""`cachefetch fetch` from the example mirror: complete, verified, repeatable, offline; and six ways to attack it."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pysequoia
import pytest
from tests.faults.server import FaultServer
from tests.functional.conftest import DEBIAN, KEY, MIRROR, Done

Cli = Callable[..., Done]
ROOT_HASH = "apj2lpnqrk5oorjxeuf6boihnnx6wy4n"
QUERY = "py-multidict@6.1.0"


def fetch(cli: Cli, mirror: object, *more: str, key: str = KEY) -> Done:
    return cli("fetch", QUERY, "-m", mirror, "--key", key, *DEBIAN, *more, "--json")


def stored_blobs(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and "sha256" in path.parts]


def test_a_fetch_is_complete_and_verified(cli: Cli, tmp_path: Path) -> None:
    done = fetch(cli, MIRROR, "--to", str(tmp_path / "out"))
    assert done.code == 0, done.err
    document = done.json
    assert (document["schema"], document["status"], document["network_bytes"]) == (
        "cachefetch/fetch/1",
        "ok",
        0,
    )
    names = {item["name"] for item in document["items"]}
    assert {"py-multidict", "python", "gcc-runtime", "python-venv", "zlib", "openssl"} <= names
    assert "glibc" not in names
    for item in document["items"]:
        path = Path(item["path"])
        assert path.name == f"{item['name']}-{item['version']}-{item['hash']}.spack"
        assert hashlib.sha256(path.read_bytes()).hexdigest() == item["sha256"]
        assert path.stat().st_size == item["size"]
        fingerprint = "782919F9DB28EF14FA36F2A892DFACD7F6EA048A"
        assert item["verified"] == {
            "digest": True,
            "binding": True,
            "signature": "good",
            "key": fingerprint,
            "dag_hash": True,
        }


def test_a_second_run_takes_everything_from_the_store(cli: Cli) -> None:
    first = fetch(cli, MIRROR).json
    second = fetch(cli, MIRROR).json
    assert {item["from"] for item in first["items"]} == {"network"}
    assert {item["from"] for item in second["items"]} == {"store"}
    assert [i["verified"] for i in first["items"]] == [i["verified"] for i in second["items"]]
    assert [i["sha256"] for i in first["items"]] == [i["sha256"] for i in second["items"]]


def test_offline_works_from_the_store_when_the_mirror_is_gone(cli: Cli, tmp_path: Path) -> None:
    mirror = shutil.copytree(MIRROR, tmp_path / "mirror")
    assert fetch(cli, mirror).code == 0
    shutil.rmtree(mirror / "blobs")
    shutil.rmtree(mirror / "v3" / "manifests" / "spec")
    shutil.copytree(Path(MIRROR) / "blobs", mirror / "blobs")  # the index blob is read where it lies
    done = fetch(cli, mirror, "--offline")
    assert done.code == 0, done.err


def test_no_deps_fetches_the_root_alone(cli: Cli) -> None:
    items = fetch(cli, MIRROR, "--no-deps").json["items"]
    assert [item["hash"] for item in items] == [ROOT_HASH]


def test_dry_run_fetches_nothing(cli: Cli, tmp_path: Path) -> None:
    done = cli("fetch", QUERY, "-m", MIRROR, "--key", KEY, *DEBIAN, "--dry-run")
    assert done.code == 0
    assert ROOT_HASH in done.out
    payloads = {item["sha256"] for item in fetch(cli, MIRROR, "--dry-run").json["items"]}
    assert payloads
    assert not payloads & {path.name for path in stored_blobs(tmp_path)}


def test_without_a_key_the_error_names_the_ways_to_give_one(cli: Cli, tmp_path: Path) -> None:
    done = cli("fetch", QUERY, "-m", MIRROR, *DEBIAN)
    assert done.code == 7
    assert "--key" in done.err
    assert "cachefetch key trust" in done.err
    assert stored_blobs(tmp_path) == []


def test_a_trusted_key_serves_every_mirror(cli: Cli) -> None:
    assert cli("key", "trust", KEY).code == 0
    assert "782919F9DB28EF14FA36F2A892DFACD7F6EA048A" in cli("key", "list").out
    assert cli("fetch", QUERY, "-m", MIRROR, *DEBIAN).code == 0
    assert cli("key", "untrust", "782919F9DB28EF14FA36F2A892DFACD7F6EA048A").code == 0
    assert cli("fetch", QUERY, "-m", MIRROR, *DEBIAN).code == 7  # what is stored is checked again


def test_an_unsigned_policy_is_said_in_the_receipt(cli: Cli) -> None:
    done = cli("fetch", QUERY, "-m", MIRROR, "--unsigned", *DEBIAN, "--json")
    assert done.code == 0
    assert {item["verified"]["signature"] for item in done.json["items"]} == {"not-required"}


# --- attacks: a copy of the mirror with one thing changed -------------------------------------------------


def manifest_of(mirror: Path, hash_: str = ROOT_HASH) -> Path:
    return next(mirror.glob(f"v3/manifests/spec/*/*-{hash_}.spec.manifest.json"))


def blobs_of(mirror: Path, hash_: str = ROOT_HASH) -> dict[str, Path]:
    text = manifest_of(mirror, hash_).read_text()
    data = json.loads(text[text.index("{") : text.rindex("}") + 1])
    paths = {}
    for record in data["data"]:
        kind = "tarball" if ".install." in record["mediaType"] else "spec"
        paths[kind] = mirror / "blobs" / "sha256" / record["checksum"][:2] / record["checksum"]
    return paths


def flip(path: Path, at: int = -20) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))


def flip_tarball(mirror: Path) -> None:
    flip(blobs_of(mirror)["tarball"])


def flip_spec_blob(mirror: Path) -> None:
    flip(blobs_of(mirror)["spec"])


def flip_signed_text(mirror: Path) -> None:
    path = manifest_of(mirror)
    text = path.read_text()
    at = text.index('"contentLength":') + len('"contentLength":')
    path.write_text(text[:at] + ("2" if text[at] == "1" else "1") + text[at + 1 :])


def swap_manifests(mirror: Path) -> None:
    other = next(p for p in sorted(mirror.glob("v3/manifests/spec/zlib/*.json")))
    shutil.copyfile(other, manifest_of(mirror))


def truncate_tarball(mirror: Path) -> None:
    path = blobs_of(mirror)["tarball"]
    path.write_bytes(path.read_bytes()[:-1])


def grow_tarball(mirror: Path) -> None:
    path = blobs_of(mirror)["tarball"]
    path.write_bytes(path.read_bytes() + b"\0")


def strip_signature(mirror: Path) -> None:
    path = manifest_of(mirror)
    text = path.read_text()
    path.write_text(text[text.index("{") : text.rindex("}") + 1])


def replace_spec_blob(mirror: Path) -> None:
    """Another spec document, valid by itself, under the digest of the right one."""
    path = blobs_of(mirror)["spec"]
    document = json.loads(gzip.decompress(path.read_bytes()))
    document["spec"]["nodes"][0]["version"] = "9"
    path.write_bytes(gzip.compress(json.dumps(document).encode()))


ATTACKS = {
    "flip_tarball": (flip_tarball, 6, "digest-mismatch"),
    "flip_spec_blob": (flip_spec_blob, 6, "digest-mismatch"),
    "flip_signed_text": (flip_signed_text, 7, "signature-invalid"),
    "swap_manifests": (swap_manifests, 6, "binding-mismatch"),
    "truncate_tarball": (truncate_tarball, 6, "size-mismatch"),
    "grow_tarball": (grow_tarball, 6, "size-mismatch"),
    "strip_signature": (strip_signature, 7, "signature-missing"),
    "replace_spec_blob": (replace_spec_blob, 6, None),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_has_its_own_error_and_nothing_is_visible(cli: Cli, tmp_path: Path, name: str) -> None:
    attack, exit_code, code = ATTACKS[name]
    mirror = shutil.copytree(MIRROR, tmp_path / "mirror")
    attack(mirror)
    out = tmp_path / "out"
    done = fetch(cli, mirror, "--to", str(out))
    assert done.code == exit_code, done.err
    assert done.json["schema"] == "cachefetch/error/1"
    if code:
        assert done.json["code"] == code
    assert "py-multidict@6.1.0" in done.json["message"]
    assert done.json["hint"]
    assert not list(out.glob(f"*{ROOT_HASH}*"))
    promised = {path.name for path in blobs_of(shutil.copytree(MIRROR, tmp_path / "clean")).values()}
    for path in stored_blobs(tmp_path):
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
        assert path.name not in promised or attack in (flip_tarball, truncate_tarball, grow_tarball)


def test_another_key_is_refused_by_fingerprint(cli: Cli, tmp_path: Path) -> None:
    other = tmp_path / "other.asc"
    other.write_text(str(pysequoia.Tsk.generate("Somebody Else <else@example.org>").extract_certificate()))
    done = fetch(cli, MIRROR, key=str(other))
    assert done.code == 7
    assert done.json["code"] == "key-not-trusted"
    assert done.json["context"]["reason"] == "unknown"
    assert "782919F9DB28EF14FA36F2A892DFACD7F6EA048A" in done.json["message"]


def test_a_missing_closure_node_stops_the_fetch_before_any_payload(cli: Cli, tmp_path: Path) -> None:
    mirror = shutil.copytree(MIRROR, tmp_path / "mirror")
    victims = list(mirror.glob("v3/manifests/spec/zlib/*.json"))
    assert victims
    for victim in victims:
        victim.unlink()
    done = fetch(cli, mirror)
    assert done.code == 4, done.err
    assert done.json["status"] == "incomplete"
    assert [node["name"] for node in done.json["missing"]] == ["zlib"]
    tarballs = {blobs_of(Path(MIRROR))["tarball"].name}
    assert not tarballs & {path.name for path in stored_blobs(tmp_path)}


def test_an_index_that_lacks_a_closure_node_says_who_needs_it(cli: Cli, tmp_path: Path) -> None:
    mirror = shutil.copytree(MIRROR, tmp_path / "mirror")
    manifest = mirror / "v3/manifests/index/index.manifest.json"
    document = json.loads(manifest.read_text())
    old = mirror / "blobs/sha256" / document["data"][0]["checksum"][:2] / document["data"][0]["checksum"]
    index = json.loads(old.read_text())
    for record in index["database"]["installs"].values():
        if record["spec"]["name"] == "python":
            record["in_buildcache"] = False
    data = json.dumps(index, separators=(",", ":")).encode()
    digest = hashlib.sha256(data).hexdigest()
    document["data"][0].update(checksum=digest, contentLength=len(data))
    (mirror / "blobs/sha256" / digest[:2]).mkdir(exist_ok=True)
    (mirror / "blobs/sha256" / digest[:2] / digest).write_bytes(data)
    manifest.write_text(json.dumps(document))
    done = fetch(cli, mirror)
    assert done.code == 4
    missing = done.json["missing"][0]
    assert missing["name"] == "python"
    assert any(parent.startswith("py-multidict@6.1.0/apj2lpn") for parent in missing["needed_by"])


# --- a page as the spec index, the mirror behind it ----------------------------------------------------------


def test_a_page_and_a_mirror_together(cli: Cli, tmp_path: Path, example_page: Path) -> None:
    mirror = shutil.copytree(MIRROR, tmp_path / "mirror")
    shutil.rmtree(mirror / "v3/manifests/index")  # never read
    done = cli("fetch", QUERY, "-m", example_page, "-m", mirror, "--key", KEY, *DEBIAN, "--json")
    assert done.code == 0, done.err
    assert ROOT_HASH in {item["hash"] for item in done.json["items"]}
    direct = {item["hash"] for item in fetch(cli, MIRROR).json["items"]}
    assert {item["hash"] for item in done.json["items"]} == direct


def test_a_page_whose_choice_the_mirror_lacks_is_exit_4_and_names_the_next(
    cli: Cli, tmp_path: Path, example_page: Path
) -> None:
    mirror = shutil.copytree(MIRROR, tmp_path / "mirror")
    manifest_of(mirror).unlink()
    done = cli("fetch", "py-multidict", "-m", example_page, "-m", mirror, "--key", KEY, *DEBIAN, "--json")
    assert done.code == 4
    assert done.json["missing"][0]["hash"] == ROOT_HASH
    assert "grpkdln" in done.err


def test_a_page_alone_cannot_deliver(cli: Cli, example_page: Path) -> None:
    done = cli("fetch", QUERY, "-m", example_page, "--unsigned", *DEBIAN)
    assert done.code == 2
    assert "-m" in done.err


def test_a_file_in_place_of_the_directory_is_refused_before_anything_is_fetched(
    cli: Callable[..., Done], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("mine")
    done = cli("fetch", "zlib", "-m", MIRROR, "--key", KEY, "--to", str(tmp_path / "file"), *DEBIAN)
    assert done.code == 2
    assert "is not a directory" in done.err
    assert "stored" not in done.err
    assert (tmp_path / "file").read_text() == "mine"


TRAP = """
import socket, sys

def hook(event, args):
    if event == "socket.getaddrinfo" or (event == "socket.__new__" and args[1] in (socket.AF_INET, socket.AF_INET6)):
        sys.stderr.write(f"SOCKET {event} {args}")
        os._exit(99)

import os
sys.addaudithook(hook)
from cachefetch.cli import run
sys.exit(run(sys.argv[1:]))
"""


def test_offline_opens_no_socket(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    environ = {
        **os.environ,
        "PYTHONPATH": str(root / ".dev"),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
    }

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", TRAP, "fetch", "py-multidict@6.1.0", *DEBIAN, "--key", KEY, *words]
        return subprocess.run(command, env=environ, capture_output=True, text=True)

    with FaultServer(MIRROR) as server:
        online = call("-m", server.url)
        assert online.returncode == 99, "the trap does not work"
        assert cli_run(environ, "-m", server.url) == 0
        url = server.url
    done = call("-m", url, "--offline", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["network_bytes"] == 0
    (tmp_path / "cache" / "cachefetch" / "store").rename(tmp_path / "gone")
    lost = call("-m", url, "--offline")
    assert (lost.returncode, "SOCKET" in lost.stderr) == (8, False)


def cli_run(environ: dict[str, str], *words: str) -> int:
    command = [
        sys.executable,
        "-m",
        "cachefetch",
        "fetch",
        "py-multidict@6.1.0",
        *DEBIAN,
        "--key",
        KEY,
        *words,
    ]
    return subprocess.run(command, env=environ, capture_output=True).returncode
