"""`cachefetch verify` on mirrors whose bytes are whole and whose form is wrong: a problem where Spack refuses it."""

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
from tests.functional.test_verify import INDEX, blob_of, flip, index_blob, manifest_of, publish_index

Cli = Callable[..., Done]
UNSIGNED = FIXTURES / "v3-unsigned"


def change_index(mirror: Path, change: Callable[[Any], object]) -> None:
    document = json.loads(index_blob(mirror).read_bytes())
    change(document["database"])
    publish_index(mirror, json.dumps(document, separators=(",", ":")).encode())


def first_record(database: Any) -> Any:
    return next(record for record in database["installs"].values() if record["spec"]["name"] == "zlib")


def change_manifest(path: Path, change: Callable[[Any], object]) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.chmod(0o644)
    path.write_text(json.dumps(document))


def entry(document: Any, kind: str) -> Any:
    return next(one for one in document["data"] if kind in one["mediaType"])


@pytest.fixture
def signed(tmp_path: Path) -> Path:
    return shutil.copytree(MIRROR, tmp_path / "mirror")


@pytest.fixture
def unsigned(tmp_path: Path, cli: Cli) -> Path:
    to = tmp_path / "unsigned"
    assert cli("sync", "zlib@1.3.1", "--from", UNSIGNED, "--unsigned", "--to", to, "-q").code == 0
    shutil.rmtree(to / ".cachefetch")
    return to


def old_compiler(database: Any) -> None:
    node = first_record(database)["spec"]
    node["compiler"] = {"name": "gcc", "version": "12.2.0"}
    node.pop("annotations", None)


def view_of_another_type(mirror: Path) -> None:
    path = mirror / "v3/manifests/index/mine/index.manifest.json"
    path.parent.mkdir()
    shutil.copy(mirror / INDEX, path)
    change_manifest(path, lambda d: entry(d, ".db.").update(checksum="0" * 64))


INDEX_DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "database version 9": (
        lambda m: change_index(m, lambda d: d.update(version="9")),
        "database version 9",
    ),
    "an unknown key in a record": (
        lambda m: change_index(m, lambda d: first_record(d).update(zzz=1)),
        "'zzz'",
    ),
    "a compiler beside a node of today": (lambda m: change_index(m, old_compiler), "a compiler"),
    "media type v7": (
        lambda m: change_manifest(
            m / INDEX, lambda d: entry(d, ".db.").update(mediaType="application/vnd.spack.db.v7+json")
        ),
        "db.v7+json",
    ),
    "media type v9": (
        lambda m: change_manifest(
            m / INDEX, lambda d: entry(d, ".db.").update(mediaType="application/vnd.spack.db.v9+json")
        ),
        "db.v9+json",
    ),
    "a view without its blob": (view_of_another_type, "does not exist"),
}


@pytest.mark.parametrize("damage", INDEX_DAMAGE)
def test_an_index_that_spack_refuses_is_damage(cli: Cli, signed: Path, damage: str) -> None:
    work, words = INDEX_DAMAGE[damage]
    work(signed)
    done = cli("verify", signed, "--key", KEY, "--json")
    assert done.code == 9, done.out
    [problem] = done.json["problems"]
    assert words in problem["message"]
    assert problem["path"].startswith("v3/manifests/index/") or "blobs/" in problem["message"]


def test_an_index_that_spack_refuses_is_written_anew(cli: Cli, signed: Path) -> None:
    change_index(signed, lambda d: (d.update(version="9"), first_record(d).update(zzz=1)))
    done = cli("verify", signed, "--key", KEY, "--repair", "--from", MIRROR, "--json")
    assert done.code == 0, done.out
    assert json.loads(index_blob(signed).read_bytes()) == json.loads(index_blob(Path(MIRROR)).read_bytes())


def test_of_several_indexes_the_one_for_spack_11_is_audited_and_the_other_hashed(
    cli: Cli, signed: Path
) -> None:
    other = json.loads(index_blob(signed).read_bytes())
    other["database"]["version"] = "9"
    data = json.dumps(other).encode()
    digest = hashlib.sha256(data).hexdigest()
    path = signed / "blobs/sha256" / digest[:2] / digest
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    more = {"checksum": digest, "contentLength": len(data), "mediaType": "application/vnd.spack.db.v9+json"}
    change_manifest(signed / INDEX, lambda d: d["data"].append({**d["data"][0], **more}))
    done = cli("verify", signed, "--key", KEY, "--json")
    assert (done.code, done.json["notes"]["unnamed_blobs"]) == (0, 0), done.out
    flip(path)
    done = cli("verify", signed, "--key", KEY, "--json")
    assert [problem["what"] for problem in done.json["problems"]] == ["digest-mismatch"]


def test_a_tarball_of_a_media_type_that_spack_does_not_take_is_damage(cli: Cli, unsigned: Path) -> None:
    change_manifest(
        manifest_of(unsigned, "zlib"),
        lambda d: entry(d, ".install.").update(mediaType="application/vnd.spack.install.v2.tar+zstd"),
    )
    done = cli("verify", unsigned, "--unsigned", "--json")
    assert done.code == 9
    assert "tar+zstd" in done.json["problems"][0]["message"]


def plain_spec(mirror: Path) -> None:
    """Let a manifest name gzip for a spec document that is not packed."""

    def change(document: Any) -> None:
        one = entry(document, ".spec.")
        data = gzip.decompress(blob_of(mirror, manifest_of(mirror, "zlib"), ".spec.").read_bytes())
        digest = hashlib.sha256(data).hexdigest()
        one.update(checksum=digest, contentLength=len(data))
        path = mirror / "blobs/sha256" / digest[:2] / digest
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)

    change_manifest(manifest_of(mirror, "zlib"), change)


ODD: dict[str, tuple[Callable[[Path], object], str]] = {
    "an unknown key in a blob record": (
        lambda m: change_manifest(manifest_of(m, "zlib"), lambda d: d["data"][0].update(zzz=1)),
        "unknown keys ('zzz')",
    ),
    "an unknown key in the index manifest": (
        lambda m: change_manifest(m / INDEX, lambda d: d.update(zzz=1)),
        "unknown keys ('zzz')",
    ),
    "gzip named over a plain spec document": (
        plain_spec,
        "names the compression 'gzip' of a blob that is not",
    ),
    "gzip named over the index": (
        lambda m: change_manifest(m / INDEX, lambda d: d["data"][0].update(compression="gzip")),
        "names the compression 'gzip' of a blob that is not",
    ),
    "none named over a tarball": (
        lambda m: change_manifest(
            manifest_of(m, "zlib"), lambda d: entry(d, ".install.").update(compression="none")
        ),
        "names the compression 'none' of a blob that is gzip",
    ),
    "a compression that nobody knows": (
        lambda m: change_manifest(manifest_of(m, "zlib"), lambda d: d["data"][0].update(compression="lz4")),
        "names the compression 'lz4'",
    ),
    "an old number in the media type of the spec document": (
        lambda m: change_manifest(
            manifest_of(m, "zlib"),
            lambda d: entry(d, ".spec.").update(mediaType="application/vnd.spack.spec.v4+json"),
        ),
        "spec.v4+json",
    ),
    "a file of nobody": (
        lambda m: (m / "v3/manifests/spec/zlib/README").write_text("x"),
        "v3/manifests/spec/zlib/README: this is not a file of a mirror",
    ),
}


@pytest.mark.parametrize("how", ODD)
def test_what_spack_passes_over_is_told_and_no_damage(cli: Cli, unsigned: Path, how: str) -> None:
    assert cli("verify", unsigned, "--unsigned", "--json").json["warnings"] == []
    work, words = ODD[how]
    work(unsigned)
    done = cli("verify", unsigned, "--unsigned", "--json")
    assert (done.code, done.json["problems"]) == (0, []), done.out
    [warning] = done.json["warnings"]
    assert words in warning
    assert f"warning: {warning}" in done.err


@pytest.mark.parametrize("text", ['{"signing": "maybe"}', "[]", "{}", '{"signing": 3}'])
def test_a_layout_that_does_not_say_gpg_is_damage(cli: Cli, signed: Path, text: str) -> None:
    (signed / "v3/layout.json").write_text(text)
    done = cli("verify", signed, "--key", KEY, "--json")
    assert [(p["name"], p["what"]) for p in done.json["problems"]] == [("layout", "bad-format")]


@pytest.mark.parametrize(
    "place",
    [
        "v3/manifests/spec/aaa/{name}",
        "v3/manifests/spec/zzz/{name}",
        "v3/manifests/spec/{name}",
        "v3/manifests/{name}",
        "v3/manifests/spec/zlib/deeper/{name}",
    ],
)
@pytest.mark.parametrize("moved", [True, False])
def test_a_manifest_in_a_wrong_folder_is_damage(cli: Cli, signed: Path, place: str, moved: bool) -> None:
    right = manifest_of(signed, "zlib")
    wrong = signed / place.format(name=right.name)
    wrong.parent.mkdir(exist_ok=True)
    shutil.copy(right, wrong)
    if moved:
        right.unlink()
    done = cli("verify", signed, "--key", KEY, "--json")
    found = {(p["what"], p["path"]) for p in done.json["problems"]}
    paths = {("misplaced", str(wrong.relative_to(signed)))}
    assert found == paths | ({("not-found", str(right.relative_to(signed)))} if moved else set())


def test_a_lost_list_of_keys_is_damage_when_keys_are_there(cli: Cli, signed: Path) -> None:
    (signed / "v3/manifests/key/keys.manifest.json").unlink()
    for where in ("directory", "url"):
        with FaultServer(str(signed)) as server:
            done = cli("verify", signed if where == "directory" else server.url, "--key", KEY, "--json")
        [problem] = done.json["problems"]
        assert (problem["name"], problem["what"]) == ("key", "not-found")
        assert problem["path"] == "v3/manifests/key/keys.manifest.json"
    done = cli("verify", signed, "--key", KEY, "--repair", "--from", MIRROR, "--json")
    assert done.code == 0, done.out
    (signed / INDEX).unlink()  # as before the first index: Spack lists keys when it writes one
    (signed / "v3/manifests/key/keys.manifest.json").unlink()
    done = cli("verify", signed, "--key", KEY, "--json")
    assert (done.code, done.json["notes"]["no_index"]) == (0, 1)
    assert "no index" in done.json["warnings"][0]


def test_a_key_that_is_not_listed_is_told_and_checked(cli: Cli, signed: Path) -> None:
    path = next(signed.glob("v3/manifests/key/*.key.manifest.json"))
    blob = blob_of(signed, path, "pgp-keys")
    list_blob = blob_of(signed, signed / "v3/manifests/key/keys.manifest.json", "keyindex")
    data = b'{"keys":{}}'
    digest = hashlib.sha256(data).hexdigest()
    list_blob.unlink()
    (signed / "blobs/sha256" / digest[:2]).mkdir(exist_ok=True)
    (signed / "blobs/sha256" / digest[:2] / digest).write_bytes(data)
    change_manifest(
        signed / "v3/manifests/key/keys.manifest.json",
        lambda d: d["data"][0].update(checksum=digest, contentLength=len(data)),
    )
    done = cli("verify", signed, "--key", KEY, "--json")
    assert done.code == 0, done.out
    assert "the key is not in the list of keys" in done.json["warnings"][0]
    flip(blob)
    assert cli("verify", signed, "--key", KEY, "--json").json["problems"][0]["what"] == "digest-mismatch"


def test_a_key_behind_another_record_is_damage(cli: Cli, signed: Path) -> None:
    path = next(signed.glob("v3/manifests/key/*.key.manifest.json"))
    change_manifest(path, lambda d: d["data"].insert(0, {**d["data"][0], "mediaType": "text/plain"}))
    done = cli("verify", signed, "--key", KEY, "--json")
    assert [problem["name"] for problem in done.json["problems"]] == ["key"]


# --- layout 2 -------------------------------------------------------------------------------------------------------


@pytest.fixture
def old(tmp_path: Path) -> Path:
    to = shutil.copytree(FIXTURES / "v2-signed", tmp_path / "v2")
    for path in to.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return to


def rewrite(mirror: Path, change: Callable[[Any], object]) -> None:
    path = mirror / "build_cache/index.json"
    document = json.loads(path.read_bytes())
    change(document["database"])
    data = json.dumps(document).encode()
    path.write_bytes(data)
    (mirror / "build_cache/index.json.hash").write_text(hashlib.sha256(data).hexdigest())


OLD: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "the index is lost and its digest is left": (
        lambda m: (m / "build_cache/index.json").unlink(),
        "index",
        "not-found",
    ),
    "database version 9": (lambda m: rewrite(m, lambda d: d.update(version="9")), "index", "bad-format"),
    "an unknown key in a record": (
        lambda m: rewrite(m, lambda d: first_record(d).update(zzz=1)),
        "zlib",
        "bad-format",
    ),
    "the list of keys is lost": (
        lambda m: (m / "build_cache/_pgp/index.json").unlink(),
        "key",
        "not-found",
    ),
}


@pytest.mark.parametrize("damage", OLD)
def test_damage_of_layout_2_is_found(cli: Cli, old: Path, damage: str) -> None:
    work, name, code = OLD[damage]
    assert cli("verify", old, "--key", KEY, "--json").json["warnings"] == []
    work(old)
    done = cli("verify", old, "--key", KEY, "--json")
    assert done.code == 9, done.out
    assert {(problem["name"], problem["what"]) for problem in done.json["problems"]} >= {(name, code)}


@pytest.mark.parametrize("damage", OLD)
def test_damage_of_layout_2_is_repaired(cli: Cli, old: Path, damage: str) -> None:
    OLD[damage][0](old)
    done = cli("verify", old, "--key", KEY, "--repair", "--from", FIXTURES / "v2-signed", "--json")
    assert (done.code, done.json["problems"]) == (0, []), done.out


def test_a_lost_digest_of_the_index_and_strange_files_are_told(cli: Cli, old: Path) -> None:
    (old / "build_cache/index.json.hash").unlink()
    (old / "build_cache/notes.txt").write_text("x")
    done = cli("verify", old, "--key", KEY, "--json")
    assert done.code == 0, done.out
    assert [text.partition(":")[0] for text in done.json["warnings"]] == [
        "build_cache/index.json.hash",
        "build_cache/notes.txt",
    ]
