"""`cachefetch verify`: every kind of damage is found and named, and repaired from another mirror."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.faults.server import FaultServer
from tests.functional.conftest import FIXTURES, KEY, MIRROR, Done

Cli = Callable[..., Done]
INDEX = "v3/manifests/index/index.manifest.json"


def verify(cli: Cli, mirror: object, *words: object) -> Done:
    return cli("verify", mirror, "--key", KEY, *words, "--json")


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    return shutil.copytree(MIRROR, tmp_path / "mirror")


def manifest_of(mirror: Path, name: str) -> Path:
    return sorted(mirror.glob(f"v3/manifests/spec/{name}/*.json"))[0]


def entries_of(mirror: Path, path: Path) -> list[dict[str, Any]]:
    text = path.read_text()
    found: list[dict[str, Any]] = json.loads(text[text.index("{") : text.rindex("}") + 1])["data"]
    return found


def blob_of(mirror: Path, path: Path, kind: str) -> Path:
    digest: str = next(e["checksum"] for e in entries_of(mirror, path) if kind in e["mediaType"])
    return mirror / "blobs/sha256" / digest[:2] / digest


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    path.write_bytes(bytes(data))


def flip_tarball(mirror: Path) -> None:
    flip(blob_of(mirror, manifest_of(mirror, "zlib"), ".install."))


def cut_tarball(mirror: Path) -> None:
    path = blob_of(mirror, manifest_of(mirror, "zlib"), ".install.")
    path.write_bytes(path.read_bytes()[:-1])


def drop_tarball(mirror: Path) -> None:
    blob_of(mirror, manifest_of(mirror, "zlib"), ".install.").unlink()


def flip_spec(mirror: Path) -> None:
    flip(blob_of(mirror, manifest_of(mirror, "zlib"), ".spec."))


def strip_signature(mirror: Path) -> None:
    path = manifest_of(mirror, "zlib")
    text = path.read_text()
    path.write_text(text[text.index("{") : text.rindex("}") + 1])


def change_signed_text(mirror: Path) -> None:
    path = manifest_of(mirror, "zlib")
    path.write_text(path.read_text().replace('"version":3', '"version": 3'))


def swap_manifests(mirror: Path) -> None:
    shutil.copyfile(manifest_of(mirror, "openssl"), manifest_of(mirror, "zlib"))


def drop_manifest(mirror: Path) -> None:
    manifest_of(mirror, "zlib").unlink()


def cut_manifest(mirror: Path) -> None:
    path = manifest_of(mirror, "zlib")
    path.write_bytes(path.read_bytes()[:300])


def index_blob(mirror: Path) -> Path:
    return blob_of(mirror, mirror / INDEX, ".db.")


def flip_index(mirror: Path) -> None:
    flip(index_blob(mirror))


def drop_index_blob(mirror: Path) -> None:
    index_blob(mirror).unlink()


def gzip_index(mirror: Path) -> None:
    path = index_blob(mirror)
    path.write_bytes(gzip.compress(path.read_bytes()))


def misdescribe(mirror: Path) -> None:
    """Let the index, whose digests are right, describe another build of a zlib than is there."""
    path = index_blob(mirror)
    index = json.loads(path.read_text())
    for record in index["database"]["installs"].values():
        if record["spec"]["name"] == "zlib":
            record["spec"]["parameters"]["shared"] = "none"
            break
    publish_index(mirror, json.dumps(index, separators=(",", ":")).encode())


def damage_record(mirror: Path) -> None:
    data = index_blob(mirror).read_bytes()
    at = data.index(b'"name":"zlib","version":"') + len(b'"name":"zlib","version":"')
    publish_index(mirror, data[:at] + b"/" + data[at:])


def publish_index(mirror: Path, data: bytes) -> None:
    old, digest = index_blob(mirror), hashlib.sha256(data).hexdigest()
    (mirror / "blobs/sha256" / digest[:2]).mkdir(exist_ok=True)
    (mirror / "blobs/sha256" / digest[:2] / digest).write_bytes(data)
    manifest = json.loads((mirror / INDEX).read_text())
    manifest["data"][0].update(checksum=digest, contentLength=len(data))
    (mirror / INDEX).write_text(json.dumps(manifest))
    old.unlink()


def drop_key(mirror: Path) -> None:
    next(mirror.glob("v3/manifests/key/*.key.manifest.json")).unlink()


def flip_key(mirror: Path) -> None:
    path = next(mirror.glob("v3/manifests/key/*.key.manifest.json"))
    flip(blob_of(mirror, path, "pgp-keys"))


def damage_layout(mirror: Path) -> None:
    (mirror / "v3/layout.json").write_text("x")


def drop_layout(mirror: Path) -> None:
    (mirror / "v3/layout.json").unlink()


DAMAGE: dict[Callable[[Path], None], tuple[str, set[str]]] = {
    flip_tarball: ("zlib", {"digest-mismatch"}),
    cut_tarball: ("zlib", {"size-mismatch"}),
    drop_tarball: ("zlib", {"not-found"}),
    flip_spec: ("zlib", {"digest-mismatch"}),
    strip_signature: ("zlib", {"signature-missing"}),
    change_signed_text: ("zlib", {"signature-invalid"}),
    swap_manifests: ("zlib", {"binding-mismatch"}),
    drop_manifest: ("zlib", {"not-found"}),
    cut_manifest: ("zlib", {"signature-invalid"}),
    flip_index: ("index", {"digest-mismatch"}),
    drop_index_blob: ("index", {"not-found"}),
    gzip_index: ("index", {"size-mismatch"}),
    misdescribe: ("zlib", {"binding-mismatch"}),
    drop_key: ("key", {"not-found"}),
    flip_key: ("key", {"digest-mismatch"}),
    damage_layout: ("layout", {"bad-format"}),
    drop_layout: ("layout", {"not-found"}),
}
cases = pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)


def test_an_intact_mirror_is_clean(cli: Cli, mirror: Path) -> None:
    done = verify(cli, mirror)
    assert done.code == 0, done.err
    assert done.json == {
        "schema": "cachefetch/verify/1",
        "status": "ok",
        "manifests": 18,
        "blobs": 39,
        "bytes": sum(p.stat().st_size for p in (mirror / "blobs").rglob("*") if p.is_file()),
        "problems": [],
        "notes": {"unindexed": 0, "dangling": 0, "unnamed_blobs": 0},
        "repaired": 0,
        "warnings": [],
    }


@pytest.mark.parametrize("fixture", ["v3-signed", "v3-unsigned"])
def test_mirrors_of_spack_are_clean(cli: Cli, fixture: str) -> None:
    policy = ("--key", KEY) if fixture == "v3-signed" else ("--unsigned",)
    report = cli("verify", FIXTURES / fixture, *policy, "--json").json
    expected = json.loads((FIXTURES / fixture / "EXPECTED.json").read_text())
    assert (report["status"], report["manifests"]) == ("ok", expected["artifacts"])


@cases
def test_damage_is_found_and_named(cli: Cli, mirror: Path, damage: Callable[[Path], None]) -> None:
    damage(mirror)
    name, codes = DAMAGE[damage]
    done = verify(cli, mirror)
    assert done.code == 9, done.err
    assert done.json["status"] == "damaged"
    assert {p["name"] for p in done.json["problems"]} == {name}
    assert {p["what"] for p in done.json["problems"]} == codes
    if name == "zlib":
        assert done.json["problems"][0]["needed_by"]


@cases
def test_damage_is_repaired_from_another_mirror(
    cli: Cli, mirror: Path, damage: Callable[[Path], None]
) -> None:
    damage(mirror)
    done = verify(cli, mirror, "--repair", "--from", MIRROR)
    assert done.code == 0, done.out + done.err
    assert done.json["repaired"] == (1 if DAMAGE[damage][0] == "zlib" else 0)
    original = {p.relative_to(MIRROR): p.read_bytes() for p in Path(MIRROR).rglob("*") if p.is_file()}
    for path, data in original.items():
        # The index is written anew in our order of records; everything else is as it was.
        if path.name != "index.manifest.json" and path.name != index_blob(Path(MIRROR)).name:
            assert (mirror / path).read_bytes() == data, path
    held = json.loads(index_blob(mirror).read_bytes())["database"]["installs"]
    assert held == json.loads(index_blob(Path(MIRROR)).read_bytes())["database"]["installs"]


def test_an_index_record_that_cannot_be_read_is_named_and_written_anew(cli: Cli, mirror: Path) -> None:
    damage_record(mirror)
    done = verify(cli, mirror)
    assert {(p["name"], p["what"]) for p in done.json["problems"]} >= {("index", "bad-format")}
    done = verify(cli, mirror, "--repair", "--from", MIRROR)
    assert done.code == 0, done.out


def test_repair_fetches_only_what_is_damaged(cli: Cli, mirror: Path) -> None:
    flip_tarball(mirror)
    wanted = blob_of(mirror, manifest_of(mirror, "zlib"), ".install.").name
    with FaultServer(MIRROR) as server:
        done = verify(cli, mirror, "--repair", "--from", server.url)
        assert done.code == 0, done.err
        blobs = [r.path.rpartition("/")[2] for r in server.requests if "/blobs/" in r.path]
    keys = {p.name for p in (mirror / "blobs").rglob("*") if p.is_file() and p.stat().st_size < 1800}
    assert [blob for blob in blobs if blob not in keys or blob == wanted] == [wanted]


def test_a_url_is_verified_through_its_index(cli: Cli, mirror: Path) -> None:
    with FaultServer(str(mirror)) as server:
        assert verify(cli, server.url).code == 0
        flip_tarball(mirror)
        drop_key(mirror)
        done = verify(cli, server.url)
    assert done.code == 9
    assert {(p["name"], p["what"]) for p in done.json["problems"]} == {
        ("zlib", "digest-mismatch"),
        ("key", "not-found"),
    }


def test_a_closure_that_is_not_complete_is_damage(cli: Cli, mirror: Path) -> None:
    path = index_blob(mirror)
    index = json.loads(path.read_text())
    for record in index["database"]["installs"].values():
        if record["spec"]["name"] == "python-venv":
            record["in_buildcache"] = False
    data = json.dumps(index, separators=(",", ":")).encode()
    digest = hashlib.sha256(data).hexdigest()
    (mirror / "blobs/sha256" / digest[:2]).mkdir(exist_ok=True)
    (mirror / "blobs/sha256" / digest[:2] / digest).write_bytes(data)
    manifest = json.loads((mirror / INDEX).read_text())
    manifest["data"][0].update(checksum=digest, contentLength=len(data))
    (mirror / INDEX).write_text(json.dumps(manifest))
    report = verify(cli, mirror).json
    assert {(p["name"], p["what"]) for p in report["problems"]} == {("python-venv", "incomplete")}
    assert report["notes"]["unindexed"] == 3
    assert report["notes"]["unnamed_blobs"] == 1  # the index of before


def test_keys_are_needed_where_signatures_are(cli: Cli, mirror: Path) -> None:
    done = cli("verify", mirror, "--json")
    assert done.code == 9
    assert {p["what"] for p in done.json["problems"]} == {"key-not-trusted"}
    assert cli("verify", mirror, "--unsigned").code == 0


def test_what_is_no_mirror_is_exit_8(cli: Cli, tmp_path: Path) -> None:
    assert verify(cli, tmp_path / "nothing").code == 8
    (tmp_path / "empty").mkdir()
    assert verify(cli, tmp_path / "empty").code == 8


def test_a_destination_without_any_package_yet_is_a_valid_empty_mirror(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "to/.cachefetch").mkdir(parents=True)  # all that a sync had made when it was killed
    (tmp_path / "to/blobs").mkdir()
    done = verify(cli, tmp_path / "to")
    assert (done.code, done.json["notes"]) == (0, {"no_index": 1, "unnamed_blobs": 0})


def test_repair_needs_a_source(cli: Cli, mirror: Path) -> None:
    flip_tarball(mirror)
    assert verify(cli, mirror, "--repair").code == 2
    assert verify(cli, mirror, "--from", MIRROR).code == 2


@pytest.mark.parametrize(("where", "code"), [("manifest", "bad-format"), ("spec", "size-mismatch")])
def test_an_oversize_document_is_one_problem_with_one_code(
    cli: Cli, mirror: Path, tmp_path: Path, where: str, code: str
) -> None:
    """`verify`, `fetch` and `sync` call it the same: nobody reads it to the end, so nobody knows more of it."""
    path = manifest_of(mirror, "zlib")
    hash_ = path.name.split(".spec.")[0].rpartition("-")[2]
    if where == "manifest":
        path.write_bytes(path.read_bytes().replace(b"-----END", b" " * (2 << 20) + b"\n-----END"))
    else:
        blob = blob_of(mirror, path, ".spec.")
        blob.write_bytes(blob.read_bytes() + bytes(17 << 20))
    done = verify(cli, mirror)
    assert (done.code, {p["what"] for p in done.json["problems"]}) == (9, {code})
    done = cli("fetch", f"/{hash_}", "--no-deps", "-m", mirror, "--key", KEY, "--json")
    assert (done.code, done.json["code"]) == (6, code)
    done = cli("sync", f"/{hash_}", "--from", mirror, "--key", KEY, "--to", tmp_path / "to", "--json")
    assert {p["what"] for p in done.json["problems"]} == {code}
