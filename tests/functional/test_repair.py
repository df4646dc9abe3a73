"""`cachefetch verify --repair` puts right whatever stands wrongly, and what it moves away is kept."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.functional.conftest import FIXTURES, KEY, Done
from tests.functional.test_sync import files
from tests.functional.test_verify import INDEX, blob_of, flip, index_blob, manifest_of
from tests.functional.test_verify_formats import change_index, first_record, rewrite

Cli = Callable[..., Done]
SOURCE = {"v3": FIXTURES / "v3-signed", "v2": FIXTURES / "v2-signed"}
HASH_AT = slice(-51, -19)  # in NAME-VERSION-HASH.spec.manifest.json


def copy_of(source: Path, to: Path) -> Path:
    shutil.copytree(source, to)
    for path in [to, *to.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    (to / "EXPECTED.json").unlink()
    return to


def made_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "something").write_text("of somebody")


def made_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def move(path: Path, to: Path) -> None:
    to.parent.mkdir(exist_ok=True)
    path.rename(to)


def zlib(mirror: Path) -> Path:
    return manifest_of(mirror, "zlib")


def another_hash(path: Path) -> Path:
    return path.with_name(path.name.replace(path.name[HASH_AT], "a" * 32))


def no_version(database: Any) -> None:
    """Damage the record of an external node, which has no document of its own."""
    next(r for r in database["installs"].values() if "external" in r["spec"])["spec"]["version"] = {}


def old_spec(mirror: Path) -> Path:
    return sorted(mirror.glob("build_cache/*-zlib-*.spec.json.sig"))[0]


def strange_keys(database: Any) -> None:
    for record in database["installs"].values():
        record["zzz"] = 1


DAMAGE: dict[str, Callable[[Path], object]] = {
    "v3 directory for a tarball": lambda m: made_directory(blob_of(m, zlib(m), ".install.")),
    "v3 fifo for a tarball": lambda m: made_fifo(blob_of(m, zlib(m), ".install.")),
    "v3 directory for a spec document": lambda m: made_directory(blob_of(m, zlib(m), ".spec.")),
    "v3 directory for a manifest": lambda m: made_directory(zlib(m)),
    "v3 directory for the index manifest": lambda m: made_directory(m / INDEX),
    "v3 directory for the index": lambda m: made_directory(index_blob(m)),
    "v3 directory for the layout": lambda m: made_directory(m / "v3/layout.json"),
    "v3 directory for a key": lambda m: made_directory(next(m.glob("v3/manifests/key/*.key.*"))),
    "v3 directory for the list of keys": lambda m: made_directory(m / "v3/manifests/key/keys.manifest.json"),
    "v3 manifest with another version": lambda m: move(
        zlib(m), zlib(m).with_name(zlib(m).name.replace("zlib-", "zlib-9", 1))
    ),
    "v3 manifest with another hash": lambda m: move(zlib(m), another_hash(zlib(m))),
    "v3 manifest in another folder": lambda m: move(zlib(m), m / "v3/manifests/spec/zzz" / zlib(m).name),
    "v3 manifest twice": lambda m: shutil.copy(zlib(m), another_hash(zlib(m))),
    "v3 record with another name": lambda m: change_index(
        m, lambda d: first_record(d)["spec"].update(name="zlibx")
    ),
    "v3 record with another version": lambda m: change_index(
        m, lambda d: first_record(d)["spec"].update(version="9.9")
    ),
    "v3 record with nothing": lambda m: change_index(m, lambda d: first_record(d).update(spec={})),
    "v3 record of an external node": lambda m: change_index(m, no_version),
    "v3 record of every node": lambda m: change_index(m, strange_keys),
    "v2 directory for a spec file": lambda m: made_directory(old_spec(m)),
    "v2 directory for a tarball": lambda m: made_directory(next(m.rglob("*-zlib-*.spack"))),
    "v2 directory for the index": lambda m: made_directory(m / "build_cache/index.json"),
    "v2 directory for the digest of the index": lambda m: made_directory(m / "build_cache/index.json.hash"),
    "v2 directory for a key": lambda m: made_directory(next(m.rglob("*.pub"))),
    "v2 directory for the list of keys": lambda m: made_directory(m / "build_cache/_pgp/index.json"),
    "v2 spec file with another version": lambda m: move(
        old_spec(m), old_spec(m).with_name(old_spec(m).name.replace("-zlib-", "-zlib-9", 1))
    ),
    "v2 spec file in another folder": lambda m: move(old_spec(m), m / "build_cache/sub" / old_spec(m).name),
    "v2 record with another name": lambda m: rewrite(
        m, lambda d: first_record(d)["spec"].update(name="zlibx")
    ),
    "v2 record with another version": lambda m: rewrite(
        m, lambda d: first_record(d)["spec"].update(version="9.9")
    ),
    "v2 record with another variant": lambda m: rewrite(
        m, lambda d: first_record(d)["spec"]["parameters"].update(shared="none")
    ),
    "v2 record with nothing": lambda m: rewrite(m, lambda d: first_record(d).update(spec={})),
}


def content(mirror: Path, layout: str) -> tuple[dict[str, bytes], Any]:
    """Return the files but the index, which is written in an order of our own, and the records."""
    found = files(mirror)
    if layout == "v3":
        text = found.pop(str(index_blob(mirror).relative_to(mirror)))
        del found[INDEX]
        source = SOURCE["v3"]  # the index of before stays where nothing tells that it was one
        found.pop(str(index_blob(source).relative_to(source)), None)
    else:
        text = found.pop("build_cache/index.json")
        del found["build_cache/index.json.hash"]
    return found, json.loads(text)


@pytest.mark.parametrize("damage", DAMAGE)
def test_it_is_repaired(cli: Cli, tmp_path: Path, damage: str) -> None:
    layout = damage[:2]
    mirror = copy_of(SOURCE[layout], tmp_path / "mirror")
    DAMAGE[damage](mirror)
    assert cli("verify", mirror, "--key", KEY, "--json").code == 9
    done = cli("verify", mirror, "--key", KEY, "--repair", "--from", SOURCE[layout], "--json")
    assert (done.code, done.json["problems"]) == (0, []), done.out + done.err
    assert content(mirror, layout) == content(copy_of(SOURCE[layout], tmp_path / "whole"), layout)
    if "directory for" in damage:
        kept = [path.read_text() for path in mirror.rglob(".cachefetch/displaced/**/something")]
        assert kept == ["of somebody"]


def test_a_package_that_nobody_has_is_told_although_the_index_is_right_again(
    cli: Cli, tmp_path: Path
) -> None:
    mirror = copy_of(SOURCE["v3"], tmp_path / "mirror")
    ghost = "c" * 32

    def add(database: Any) -> None:
        record = json.loads(json.dumps(first_record(database)))
        record["spec"].update(name="ghost", hash=ghost)
        database["installs"][ghost] = record

    change_index(mirror, add)
    words = ("verify", mirror, "--key", KEY, "--json")
    done = cli(*words, "--repair", "--from", SOURCE["v3"])
    assert (done.code, done.json["status"]) == (9, "damaged")
    assert [(p["name"], p["hash"], p["what"]) for p in done.json["problems"]] == [
        ("ghost", ghost, "not-found")
    ]
    assert cli(*words).code == 0  # what is there is right


def test_what_one_mirror_did_wrong_is_told_when_another_repairs(cli: Cli, tmp_path: Path) -> None:
    mirror, wrong = (copy_of(SOURCE["v3"], tmp_path / name) for name in ("mirror", "wrong"))
    flip(blob_of(mirror, zlib(mirror), ".install."))
    flip(blob_of(wrong, zlib(wrong), ".install."))
    words = ("verify", mirror, "--key", KEY, "--repair", "--from", wrong)
    done = cli(*words, "--from", SOURCE["v3"], "--json")
    assert done.code == 0, done.out
    assert [text for text in done.json["warnings"] if text.startswith("security (digest-mismatch): mirror ")]


def test_a_mirror_is_not_repaired_from_itself(cli: Cli, tmp_path: Path) -> None:
    mirror = copy_of(SOURCE["v3"], tmp_path / "mirror")
    flip(blob_of(mirror, zlib(mirror), ".install."))
    done = cli("verify", mirror, "--key", KEY, "--repair", "--from", mirror.as_uri(), "--json")
    assert (done.code, "from itself" in done.json["message"]) == (2, True)


def spec_documents(mirror: Path, layout: str) -> list[Path]:
    if layout == "v2":
        return sorted(mirror.glob("build_cache/*.spec.json*"))
    manifests = sorted(mirror.glob("v3/manifests/spec/*/*.json"))
    return [*manifests, *(blob_of(mirror, path, ".spec.") for path in manifests)]


def lose_index(mirror: Path, layout: str, how: str) -> None:
    if layout == "v2":
        (mirror / "build_cache/index.json.hash").unlink()
    path = mirror / (INDEX if layout == "v3" else "build_cache/index.json")
    path.unlink() if how == "lost" else path.write_text(how)


def subset(cli: Cli, layout: str, to: Path) -> Path:
    done = cli("sync", "version-zoo", "zlib", "--from", SOURCE[layout], "--key", KEY, "--to", to, "-q")
    assert done.code == 0, done.err
    shutil.rmtree(to / ".cachefetch")
    for path in to.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return to


@pytest.mark.parametrize("layout", ["v3", "v2"])
@pytest.mark.parametrize("index", ["{}", "", "lost"])
@pytest.mark.parametrize("damage", ["a space more", "empty"])
def test_all_documents_and_the_index_are_repaired_by_one_run(
    cli: Cli, tmp_path: Path, layout: str, index: str, damage: str
) -> None:
    mirror = subset(cli, layout, tmp_path / "mirror")
    whole = files(mirror)
    for path in spec_documents(mirror, layout):
        path.write_bytes(path.read_bytes() + b" " if damage != "empty" else b"")
    lose_index(mirror, layout, index)
    done = cli("verify", mirror, "--key", KEY, "--repair", "--from", SOURCE[layout], "--json")
    assert (done.code, done.json["problems"]) == (0, []), done.out + done.err
    assert files(mirror) == whole
    assert cli("verify", mirror, "--key", KEY).code == 0


@pytest.mark.parametrize("layout", ["v3", "v2"])
@pytest.mark.parametrize("which", ["document", "tarball", "manifest"])
def test_one_package_and_the_index_are_repaired_by_one_run(
    cli: Cli, tmp_path: Path, layout: str, which: str
) -> None:
    mirror = copy_of(SOURCE[layout], tmp_path / "mirror")
    path = zlib(mirror) if layout == "v3" else next(mirror.glob("build_cache/*x86_64_v2-*-zlib-*.sig"))
    if which == "tarball":
        blob = next(mirror.rglob("*-zlib-*.spack")) if layout == "v2" else blob_of(mirror, path, ".install.")
        blob.unlink()
    elif which == "manifest":  # nothing is left of it, but what needs it
        path.unlink()
    else:
        (path if layout == "v2" else blob_of(mirror, path, ".spec.")).write_bytes(b"")
    lose_index(mirror, layout, "{}")
    done = cli("verify", mirror, "--key", KEY, "--repair", "--from", SOURCE[layout], "--json")
    assert (done.code, done.json["problems"]) == (0, []), done.out + done.err
    assert content(mirror, layout) == content(copy_of(SOURCE[layout], tmp_path / "whole"), layout)


def test_swapped_manifests_are_told_apart_by_their_names_when_the_index_is_lost(
    cli: Cli, tmp_path: Path
) -> None:
    mirror = copy_of(SOURCE["v3"], tmp_path / "mirror")
    shutil.copyfile(manifest_of(mirror, "openssl"), zlib(mirror))
    lose_index(mirror, "v3", "{}")
    done = cli("verify", mirror, "--key", KEY, "--repair", "--from", SOURCE["v3"], "--json")
    assert (done.code, done.json["problems"]) == (0, []), done.out + done.err
    assert content(mirror, "v3") == content(copy_of(SOURCE["v3"], tmp_path / "whole"), "v3")


def test_an_index_is_not_replaced_by_an_empty_one_while_nothing_can_be_had(cli: Cli, tmp_path: Path) -> None:
    mirror, other = tmp_path / "mirror", tmp_path / "other"
    for spec, to in (("version-zoo", mirror), ("zlib", other)):
        assert cli("sync", spec, "--from", SOURCE["v3"], "--key", KEY, "--to", to).code == 0
    for path in mirror.glob("v3/manifests/spec/*/*.json"):
        path.chmod(0o644)
        path.write_text("{}")
    before = (mirror / INDEX).read_bytes()
    assert cli("verify", mirror, "--key", KEY, "--repair", "--from", other).code == 9
    assert (mirror / INDEX).read_bytes() == before
    done = cli("verify", mirror, "--key", KEY, "--repair", "--from", SOURCE["v3"], "--json")
    assert (done.code, done.json["problems"]) == (0, []), done.out + done.err


def test_what_a_mirror_without_an_index_has_is_found_by_its_name(cli: Cli, tmp_path: Path) -> None:
    mirror, other = (subset(cli, "v3", tmp_path / name) for name in ("mirror", "other"))
    whole = files(mirror)
    zlib(mirror).write_text("{}")
    lose_index(mirror, "v3", "{}")
    (other / INDEX).unlink()
    done = cli("verify", mirror, "--key", KEY, "--repair", "--from", other, "--json")
    assert (done.code, done.json["problems"]) == (0, []), done.out + done.err
    assert files(mirror) == whole


def test_an_index_of_layout_2_without_packages_has_the_version_of_the_others(
    cli: Cli, tmp_path: Path
) -> None:
    mirror = copy_of(SOURCE["v2"], tmp_path / "mirror")
    for path in mirror.glob("build_cache/*.spec.json*"):
        path.unlink()
    (mirror / "build_cache/index.json").write_text("")
    cli("verify", mirror, "--key", KEY, "--repair", "--from", SOURCE["v2"])
    database = json.loads((mirror / "build_cache/index.json").read_text())["database"]
    assert database == {"version": "7", "installs": {}}


def lose_manifest(mirror: Path) -> None:
    (mirror / INDEX).unlink()


def lose_folder(mirror: Path) -> None:
    shutil.rmtree((mirror / INDEX).parent)


def file_for_folder(mirror: Path) -> None:
    lose_folder(mirror)
    (mirror / INDEX).parent.write_text("of somebody")


@pytest.fixture
def part(cli: Cli, tmp_path: Path) -> Path:
    """A mirror with the closure of one package, as a sync wrote it, copied without what is our own."""
    done = cli("sync", "py-idna", "zlib", "--from", SOURCE["v3"], "--key", KEY, "--to", tmp_path / "part")
    assert done.code == 0, done.err
    shutil.rmtree(tmp_path / "part/.cachefetch")
    return tmp_path / "part"


def needed_zlib(mirror: Path) -> Path:
    """Return the manifest of the zlib that others there need."""
    records = json.loads(index_blob(mirror).read_bytes())["database"]["installs"].values()
    needed = {edge["hash"] for record in records for edge in record["spec"].get("dependencies", ())}
    return next(p for p in mirror.glob("v3/manifests/spec/zlib/*") if p.name[HASH_AT] in needed)


@pytest.mark.parametrize("lose", [lose_manifest, lose_folder, file_for_folder])
def test_a_lost_index_is_written_again_and_what_the_documents_need_comes(
    cli: Cli, part: Path, lose: Callable[[Path], None]
) -> None:
    before = files(part)
    lost = needed_zlib(part)
    lost.unlink()
    lose(part)
    done = cli("verify", part, "--key", KEY, "--json")
    assert (done.code, done.json["problems"], done.json["notes"]["no_index"]) == (0, [], 1)
    assert any(f"zlib/{lost.name[HASH_AT][:7]}" in text for text in done.json["warnings"]), done.out
    done = cli("verify", part, "--key", KEY, "--repair", "--from", SOURCE["v3"], "--json")
    assert (done.code, done.json["problems"], done.json["repaired"]) == (0, [], 1), done.out + done.err
    assert "no_index" not in done.json["notes"]
    assert files(part) == before


def test_a_lost_index_is_written_again_without_another_mirror(cli: Cli, part: Path) -> None:
    before = files(part)
    lose_manifest(part)
    done = cli("verify", part, "--key", KEY, "--repair", "--json")
    assert (done.code, done.json["problems"], done.json["warnings"]) == (0, [], []), done.out + done.err
    assert files(part) == before
    needed_zlib(part).unlink()
    lose_manifest(part)
    done = cli("verify", part, "--key", KEY, "--repair", "--json")
    assert (done.code, {p["what"] for p in done.json["problems"]}) == (9, {"incomplete"}), done.out


def test_a_lost_index_of_what_is_complete_needs_nothing(cli: Cli, part: Path) -> None:
    lose_manifest(part)
    [warning] = cli("verify", part, "--key", KEY, "--json").json["warnings"]
    assert "no index" in warning


@pytest.mark.parametrize("index", ["right", "lost"])
def test_a_file_in_the_place_of_a_folder_of_manifests_is_moved_away(cli: Cli, part: Path, index: str) -> None:
    before = files(part)
    folder = needed_zlib(part).parent
    shutil.rmtree(folder)
    folder.write_text("of somebody")
    if index == "lost":
        lose_manifest(part)
    done = cli("verify", part, "--key", KEY, "--repair", "--from", SOURCE["v3"], "--json")
    needed = {path: data for path, data in before.items() if path in files(part)}
    assert (done.code, done.json["problems"]) == (0, []), done.out + done.err
    assert index == "lost" or needed == before
    assert needed_zlib(part).exists()
    kept = part / ".cachefetch/displaced/v3/manifests/spec/zlib"
    assert kept.read_text() == "of somebody"
