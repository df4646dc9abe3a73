"""`cachefetch bundle`: what goes out on one side comes in on the other, whatever happens to the volumes."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pysequoia
import pytest
from tests.functional.conftest import DEBIAN, FIXTURES, KEY, MIRROR, ROOT, Done
from tests.functional.test_sync import SIGNED, files, sync, tarball_of, verified
from tests.tools.mirrors import make_node, write_index, write_package

Cli = Callable[..., Done]
QUERY = "py-multidict@6.1.0"
SIZE = "420K"


def exported(cli: Cli, source: Path | str, to: Path, *words: object) -> Any:
    done = cli("bundle", "export", "--from", source, "--to", to, *words, "--json")
    assert done.code == 0, done.err
    return done.json


def imported(cli: Cli, *words: object, code: int = 0, policy: tuple[str, ...] = ("--key", KEY)) -> Any:
    done = cli("bundle", "import", *words, *policy, "--json")
    assert done.code == code, done.err
    return done.json


@pytest.fixture
def volumes(cli: Cli, tmp_path: Path) -> list[Path]:
    """Return the volumes of all of v3-signed."""
    done = exported(cli, SIGNED, tmp_path / "media/all.bundle", "--volume-size", SIZE)
    paths = [Path(path) for path in done["volumes"]]
    assert len(paths) == 3
    assert all(path.stat().st_size <= 420_000 for path in paths)
    return paths


def test_export_and_import_give_what_a_direct_sync_gives(cli: Cli, tmp_path: Path) -> None:
    assert sync(cli, "--all", source=SIGNED, to=tmp_path / "direct").code == 0
    exported(cli, SIGNED, tmp_path / "all.bundle")
    done = imported(cli, tmp_path / "all.bundle", "--to", tmp_path / "carried")
    assert (done["status"], done["volumes"], done["problems"]) == ("ok", 1, [])
    assert files(tmp_path / "carried") == files(tmp_path / "direct")
    assert verified(cli, tmp_path / "carried")["status"] == "ok"


def test_only_the_difference_is_carried_and_the_result_is_that_of_a_direct_sync(
    cli: Cli, tmp_path: Path
) -> None:
    here, there, direct = tmp_path / "here", tmp_path / "there", tmp_path / "direct"
    assert sync(cli, QUERY, source=SIGNED, to=here).code == 0
    first = exported(cli, here, tmp_path / "first.bundle")
    receipt = tmp_path / "receipt.json"
    imported(cli, tmp_path / "first.bundle", "--to", there, "--receipt", receipt)
    assert files(there) == files(here)
    assert sync(cli, "hdf5", source=SIGNED, to=here).code == 0  # the change
    second = exported(cli, here, tmp_path / "second.bundle", "--since", receipt)
    assert (second["since"], second["left"]) == (first["bundle"], first["packages"])
    names = subprocess.run(
        ["tar", "tf", str(tmp_path / "second.bundle")], check=True, capture_output=True, text=True
    ).stdout.split()
    old = files(there)
    again = [n for n in names if n in old and ("/spec/" in n or n.startswith("blobs/"))]
    assert len(again) <= 2  # the keys, which are in every volume
    done = imported(cli, tmp_path / "second.bundle", "--to", there)
    assert done["done"]["packages"] == second["packages"] > 0
    assert files(there) == files(here)
    assert sync(cli, QUERY, source=SIGNED, to=direct).code == 0
    assert sync(cli, "hdf5", source=SIGNED, to=direct).code == 0
    assert files(there) == files(direct)
    assert verified(cli, there)["status"] == "ok"
    # The index blobs of before were removed, with the directories that they were alone in.
    assert [path for path in (there / "blobs").rglob("*") if path.is_dir() and not any(path.iterdir())] == []


def test_a_bundle_of_what_changed_needs_the_one_before(cli: Cli, tmp_path: Path) -> None:
    here = tmp_path / "here"
    assert sync(cli, "zlib", source=SIGNED, to=here).code == 0
    exported(cli, here, tmp_path / "1.bundle")
    imported(cli, tmp_path / "1.bundle", "--to", tmp_path / "there", "--receipt", tmp_path / "receipt")
    assert sync(cli, QUERY, source=SIGNED, to=here).code == 0
    exported(cli, here, tmp_path / "2.bundle", "--since", tmp_path / "receipt")
    alone = imported(cli, tmp_path / "2.bundle", "--to", tmp_path / "alone", code=9)
    assert verified(cli, tmp_path / "alone")["problems"] == []  # what needs what is lost waits for it
    lost = [p for p in alone["problems"] if p["what"] == "not-in-bundle"]
    assert {p["name"] for p in lost} >= {"zlib"}
    assert "import the bundle" in lost[0]["message"]
    (tmp_path / "media").mkdir()
    for name in ("1.bundle", "2.bundle"):
        shutil.move(tmp_path / name, tmp_path / "media" / name)
    both = cli("bundle", "import", tmp_path / "media", "--key", KEY, "--to", tmp_path / "both")
    assert both.code == 0, both.err  # the first one first, whatever the names
    assert files(tmp_path / "both") == files(here)


@pytest.mark.parametrize("order", ["forward", "backward", "twice"])
def test_volumes_come_in_any_order_and_twice(
    cli: Cli, tmp_path: Path, volumes: list[Path], order: str
) -> None:
    to, desk = tmp_path / "to", tmp_path / "desk"
    sequence = {"forward": volumes, "backward": volumes[::-1], "twice": [*volumes, *volumes]}[order]
    for number, volume in enumerate(sequence):
        desk.mkdir(exist_ok=True)
        shutil.copy(volume, desk / "renamed.bundle")  # one at a time: no other is at hand
        done = cli("bundle", "import", desk / "renamed.bundle", "--key", KEY, "--to", to, "--json")
        assert done.code == (0 if number >= len(volumes) - 1 else 9), done.err
        assert verified(cli, to)["problems"] == []  # a smaller mirror at every moment
        shutil.rmtree(desk)
    assert done.json["problems"] == []
    assert sync(cli, "--all", source=SIGNED, to=tmp_path / "direct").code == 0
    assert files(to) == files(tmp_path / "direct")


def test_a_volume_that_is_named_is_taken_alone_and_those_beside_it_are_told(
    cli: Cli, tmp_path: Path, volumes: list[Path]
) -> None:
    done = imported(cli, volumes[1], "--to", tmp_path / "to", code=9)
    assert done["present"] == [str(volumes[1])]
    told = {p["name"]: (p["what"], p["path"]) for p in done["problems"]}
    assert told == {f"volume {n}": ("volume-missing", str(volumes[n - 1])) for n in (1, 3)}
    assert "name the directory" in done["problems"][0]["message"]
    volumes[2].write_bytes(b"")
    volumes[0].unlink()
    again = imported(cli, volumes[1], "--to", tmp_path / "to", code=9)
    told = {p["name"]: (p["what"], p["path"]) for p in again["problems"]}
    assert told == {"volume 1": ("volume-missing", ""), "volume 3": ("bad-format", str(volumes[2]))}


def test_what_came_is_used_as_soon_as_all_that_it_needs_is_there(
    cli: Cli, tmp_path: Path, volumes: list[Path]
) -> None:
    listed: list[set[str]] = []
    for volume in volumes:
        done = cli("bundle", "import", volume, "--key", KEY, "--to", tmp_path / "to")
        assert ("listed once that has come" in done.err) == (volume != volumes[-1])
        found = cli("list", "-m", tmp_path / "to", "--key", KEY, "--json").json
        listed.append({spec["hash"] for spec in found["specs"]})
        there = len(list((tmp_path / "to").glob("v3/manifests/spec/*/*")))
        assert len(listed[-1]) == there > 0  # what others need was packed first, so nothing waits
    assert listed[0] < listed[1] < listed[2]
    assert len(listed[2]) == 62
    assert len(listed[0]) >= 15
    cli("bundle", "import", volumes[2], "--key", KEY, "--to", tmp_path / "last")
    found = cli("list", "-m", tmp_path / "last", "--key", KEY, "--json").json["specs"]
    assert len(found) < len(list((tmp_path / "last").glob("v3/manifests/spec/*/*")))


def test_a_lost_volume_is_named_with_what_is_in_it(cli: Cli, tmp_path: Path, volumes: list[Path]) -> None:
    volumes[1].unlink()
    audit = cli("bundle", "verify", volumes[0], "--key", KEY, "--json")
    assert audit.code == 9
    (lost,) = audit.json["problems"]
    assert (lost["name"], lost["what"]) == ("volume 2", "volume-missing")
    assert lost["needed_by"]
    done = imported(cli, volumes[0].parent, "--to", tmp_path / "to", code=9)
    (problem,) = [p for p in done["problems"] if p["what"] == "volume-missing"]
    assert problem["needed_by"] == lost["needed_by"]
    assert f"volume 2 of {len(volumes)}" in problem["message"]


def test_a_cut_or_changed_volume_is_named(cli: Cli, tmp_path: Path, volumes: list[Path]) -> None:
    data = volumes[0].read_bytes()
    volumes[0].write_bytes(data[: len(data) // 2])
    (cut,) = cli("bundle", "verify", volumes[1], "--key", KEY, "--json").json["problems"]
    assert (cut["name"], cut["what"], cut["path"]) == ("volume 1", "size-mismatch", str(volumes[0]))
    changed = bytearray(data)
    changed[data.rindex(b"\x1f\x8b\x08") + 40] ^= 1  # in the last tarball
    volumes[0].write_bytes(bytes(changed))
    (wrong,) = cli("bundle", "verify", volumes[1], "--key", KEY, "--json").json["problems"]
    assert (wrong["what"], wrong["path"]) == ("digest-mismatch", str(volumes[0]))
    done = imported(cli, volumes[0].parent, "--to", tmp_path / "to", code=9)
    assert len(done["problems"]) == 1
    assert not (tmp_path / "to/.cachefetch/pieces").exists()


def rewritten(path: Path, change: Callable[[Any], object], *, headers: bool = True) -> None:
    """Change the list of a bundle of one volume as somebody would who makes all digests right again.

    With `headers` the tar headers in front of the files tell the names of the new list too.
    """
    from cachefetch.fetch.bundle import format as bundle
    from cachefetch.fetch.bundle.read import read_volume

    volume, data = read_volume(str(path)), path.read_bytes()
    start, size = volume.data_start, volume.header.list_size
    front = start - size - bundle.padding(size)
    document = json.loads(data[front : front + size])
    body = bytearray(data[start:])
    change(document)
    text = json.dumps(document, separators=(",", ":")).encode()
    for name, length, _, pieces, *_ in document["files"] if headers else ():
        header = bundle.member_header(name, length)
        body[pieces[0][1] - len(header) : pieces[0][1]] = header
    header = bundle.header_text(bundle.Header(hashlib.sha256(text).hexdigest(), len(text), 1, 1))
    parts = [(bundle.HEADER_NAME, header), (bundle.LIST_NAME, text)]
    head = [bundle.member_header(n, len(d)) + d + bytes(bundle.padding(len(d))) for n, d in parts]
    path.write_bytes(b"".join([*head, bytes(body)]))


def _rename(old: str, new: str) -> Callable[[Any], None]:
    def change(document: Any) -> None:
        files = document["files"]
        assert any(old in file[0] for file in files)
        for file in files:
            file[0] = file[0].replace(old, new)

    return change


def _lose(word: str) -> Callable[[Any], None]:
    """Take files out of the list; the bytes stay, so that there is a gap."""

    def change(document: Any) -> None:
        document["files"] = [file for file in document["files"] if word not in file[0]]

    return change


@pytest.mark.parametrize(
    ("change", "headers", "word"),
    [
        (_rename("zlib-1.3.1", "zlib-1.3.2"), True, "zlib@1.3.1"),
        (_rename("spec/zlib/", "spec/zlob/"), True, "zlib@1.3.1"),
        (_rename("zlib-1.3.1", "zlib-1.3.2"), False, "tar header"),
        (_rename("v3/layout.json", "v3/latout.json"), True, "latout.json is no file of a mirror"),
        (_rename("key/7", "key/8"), True, "another key"),
        (_lose("openssl"), True, "wrong place"),
        (_lose("blobs/sha256/0"), True, "is not in the list"),
        (lambda document: document.update(since=5), True, "list of files cannot be read"),
        (lambda document: document.update(since="abc"), True, "list of files cannot be read"),
        (lambda document: document["files"][-1].append(5), True, "more fields"),
        (lambda document: document["files"].append(document["files"][-1]), True, "twice"),
        (lambda document: document["data"].__setitem__(0, document["data"][0] - 512), True, "not whole"),
    ],
)
def test_a_list_that_was_changed_with_all_its_digests_is_found(
    cli: Cli, tmp_path: Path, change: Callable[[Any], object], headers: bool, word: str
) -> None:
    path = tmp_path / "x.bundle"
    exported(cli, MIRROR, path)
    rewritten(path, lambda document: None)
    assert cli("bundle", "verify", path, "--key", KEY, "--json").json["problems"] == []
    rewritten(path, change, headers=headers)
    done = cli("bundle", "verify", path, "--key", KEY, "--json")
    assert (done.code, done.json["status"]) == (9, "damaged"), done.err
    assert word in " ".join(problem["message"] for problem in done.json["problems"])
    assert all("x.bundle" in p["message"] for p in done.json["problems"])
    assert "x.bundle" in cli("bundle", "verify", path, "--key", KEY).out


def test_an_import_judges_a_list_as_an_audit_does(cli: Cli, tmp_path: Path) -> None:
    exported(cli, MIRROR, tmp_path / "x.bundle")
    rewritten(tmp_path / "x.bundle", lambda document: document["files"].append(document["files"][-1]))
    audit = cli("bundle", "verify", tmp_path / "x.bundle", "--key", KEY, "--json").json["problems"]
    done = imported(cli, tmp_path / "x.bundle", "--to", tmp_path / "to", code=9)
    assert {p["message"] for p in done["problems"]} >= {
        p["message"] for p in audit if "twice" in p["message"]
    }
    assert any("twice" in problem["message"] for problem in done["problems"])
    assert done["done"]["packages"] == 18  # all that it holds came
    assert verified(cli, tmp_path / "to")["problems"] == []


@pytest.mark.parametrize("names", [("a", "b"), ("b", "a")], ids=["good first", "good last"])
@pytest.mark.parametrize("word", [b"\x1f\x8b\x08", b'"installs"', b"v3/layout.json\0"])
def test_of_two_copies_of_a_volume_the_right_one_is_taken(
    cli: Cli, tmp_path: Path, names: tuple[str, str], word: bytes
) -> None:
    media = tmp_path / "media"
    good, bad = (media / f"{name}.bundle" for name in names)
    exported(cli, MIRROR, good)
    changed = bytearray(good.read_bytes())
    changed[changed.rindex(word) + 40] ^= 1
    bad.write_bytes(changed)
    audit = cli("bundle", "verify", media, "--key", KEY, "--json")
    assert audit.code == 9
    assert {problem["path"] for problem in audit.json["problems"]} == {str(bad)}
    done = imported(cli, media, "--to", tmp_path / "to")
    assert (done["done"]["packages"], done["problems"]) == (18, [])
    assert verified(cli, tmp_path / "to")["problems"] == []
    assert cli("fetch", QUERY, "-m", media, "--key", KEY, *DEBIAN, "--to", tmp_path / "out").code == 0


def test_two_copies_with_damage_in_different_places_make_one(
    cli: Cli, tmp_path: Path, volumes: list[Path]
) -> None:
    data = volumes[1].read_bytes()
    places = [m.start() + 40 for m in re.finditer(rb"\x1f\x8b\x08", data)]
    for path, place in ((volumes[1], places[3]), (volumes[1].with_name("copy.bundle"), places[-3])):
        changed = bytearray(data)
        changed[place] ^= 1
        path.write_bytes(changed)
    audit = cli("bundle", "verify", volumes[0].parent, "--key", KEY, "--json").json["problems"]
    assert {problem["path"] for problem in audit} == {
        str(volumes[1]),
        str(volumes[1].with_name("copy.bundle")),
    }
    assert imported(cli, volumes[0].parent, "--to", tmp_path / "to")["problems"] == []
    assert verified(cli, tmp_path / "to")["manifests"] == 62


def test_a_copy_that_is_not_whole_is_named_by_an_audit(cli: Cli, tmp_path: Path, volumes: list[Path]) -> None:
    cut = volumes[1].with_name("0.bundle")
    cut.write_bytes(volumes[1].read_bytes()[:-5000])
    (problem,) = cli("bundle", "verify", volumes[0].parent, "--key", KEY, "--json").json["problems"]
    assert (problem["name"], problem["what"], problem["path"]) == ("volume 2", "size-mismatch", str(cut))
    assert imported(cli, volumes[0].parent, "--to", tmp_path / "to")["problems"] == []


def test_the_pieces_of_a_divided_file_are_taken_from_the_right_copies(cli: Cli, tmp_path: Path) -> None:
    node = make_node("big")
    write_package(tmp_path / "source", node, random.Random(5).randbytes(1_000_000))
    write_index(tmp_path / "source", node)
    media = tmp_path / "media"
    done = exported(cli, tmp_path / "source", media / "b.bundle", "--volume-size", "300K", "--unsigned")
    first, second = (Path(path) for path in done["volumes"][:2])
    for path, twin in ((first, media / "a.bundle"), (second, media / "z.bundle")):
        shutil.copy(path, twin)
    for path in (media / "a.bundle", second):
        changed = bytearray(path.read_bytes())
        changed[-100_000] ^= 1
        path.write_bytes(changed)
    words = ("--to", tmp_path / "to")
    assert imported(cli, media, *words, policy=("--unsigned",))["done"]["packages"] == 1
    audit = cli("bundle", "verify", media, "--unsigned", "--json").json["problems"]
    assert str(media / "a.bundle") in {problem["path"] for problem in audit}


def test_each_byte_of_a_volume_counts(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "x.bundle"
    exported(cli, MIRROR, path)
    data = path.read_bytes()
    chance = random.Random(7)
    # The mode in a tar header, the zeros behind a file and behind all, and any other places.
    layout = data.index(b"v3/layout.json\0")
    places = [layout + 103, layout + 512 + 18, layout + 1000, len(data) - 1, len(data) - 1024, 105]
    for place in [*places, *(chance.randrange(len(data)) for _ in range(25))]:
        changed = bytearray(data)
        changed[place] ^= 1
        path.write_bytes(bytes(changed))
        done = cli("bundle", "verify", path, "--key", KEY)
        assert (done.code, "x.bundle" in done.out) == (9, True), f"byte {place}: {done.err}"


def test_a_file_that_cannot_be_told_as_a_volume_is_not_passed_over(cli: Cli, tmp_path: Path) -> None:
    exported(cli, MIRROR, tmp_path / "good.bundle")
    (tmp_path / "cut.bundle").write_bytes((tmp_path / "good.bundle").read_bytes()[:300])
    (tmp_path / "notes.txt").write_text("no volume")
    done = cli("bundle", "verify", tmp_path, "--key", KEY)
    assert (done.code, "cut.bundle" in done.out, "notes.txt" in done.out) == (9, True, False)
    taken = imported(cli, tmp_path, "--to", tmp_path / "to", code=9)
    assert [problem["path"] for problem in taken["problems"]] == [str(tmp_path / "cut.bundle")]
    assert taken["done"]["packages"] == 18
    alone = cli("bundle", "import", tmp_path / "cut.bundle", "--to", tmp_path / "to", "--key", KEY)
    assert (alone.code, "cut.bundle" in alone.err) == (6, True)


@pytest.mark.parametrize("change", [-3000, 512])
def test_a_volume_that_is_not_whole_is_named_when_it_is_alone_too(
    cli: Cli, tmp_path: Path, volumes: list[Path], change: int
) -> None:
    (tmp_path / "one").mkdir()
    alone = tmp_path / "one/2.bundle"
    shutil.copy(volumes[1], alone)
    os.truncate(alone, alone.stat().st_size + change)
    done = imported(cli, alone, "--to", tmp_path / "to", code=9)
    named = {p["name"]: (p["what"], p["path"]) for p in done["problems"]}
    assert named["volume 2"] == ("size-mismatch", str(alone))
    assert named["volume 1"] == named["volume 3"] == ("volume-missing", "")
    assert verified(cli, tmp_path / "to")["problems"] == []  # an empty mirror
    assert cli("list", "-m", alone, "--key", KEY).code == 0  # what every volume holds is whole
    synced = cli("sync", "--all", "--from", alone, "--key", KEY, "--to", tmp_path / "other")
    assert (synced.code, "volume" in synced.err) == (8, True)
    imported(cli, *volumes, "--to", tmp_path / "to")
    again = imported(cli, alone, "--to", tmp_path / "to", code=9)  # not needed any more, and damaged
    assert [p["name"] for p in again["problems"]] == ["volume 2"]


def test_a_volume_cut_in_its_list_does_not_spoil_the_others(
    cli: Cli, tmp_path: Path, volumes: list[Path]
) -> None:
    os.truncate(volumes[0], volumes[0].read_bytes().index(b'"files":') + 100)
    done = imported(cli, volumes[0].parent, "--to", tmp_path / "to", code=9)
    damage = [(p["name"], p["what"]) for p in done["problems"] if p["path"]]
    assert damage == [("volume 1", "size-mismatch")]
    assert done["done"]["packages"] > 0


@pytest.mark.parametrize("length", [0, 100, 700])
def test_a_volume_cut_before_the_end_of_its_header_is_damaged_not_missing(
    cli: Cli, tmp_path: Path, volumes: list[Path], length: int
) -> None:
    os.truncate(volumes[1], length)
    for words in (("verify",), ("import", "--to", tmp_path / "to")):
        done = cli("bundle", words[0], volumes[0].parent, "--key", KEY, *words[1:], "--json")
        assert done.code == 9, done.err
        damage = [(p["name"], p["what"], p["path"]) for p in done.json["problems"] if p["path"]]
        assert damage == [("volume 2", "bad-format", str(volumes[1]))]


def test_a_volume_cut_in_what_every_volume_holds_is_named(cli: Cli, tmp_path: Path) -> None:
    exported(cli, MIRROR, tmp_path / "x.bundle")
    text = (tmp_path / "x.bundle").read_bytes()
    os.truncate(tmp_path / "x.bundle", text.index(b'"installs"') + 100)
    for words in (("list", "-m"), ("bundle", "import", "--to", tmp_path / "to"), ("bundle", "verify")):
        done = cli(*words, tmp_path / "x.bundle", "--key", KEY)
        assert done.code in (6, 8, 9), done.err
        assert "x.bundle" in done.out + done.err


def test_a_file_larger_than_a_volume_is_divided(cli: Cli, tmp_path: Path) -> None:
    source = tmp_path / "source"
    nodes = [make_node("big"), make_node("small")]
    write_package(source, nodes[0], bytes(range(256)) * 4000)
    write_package(source, nodes[1], b"small")
    write_index(source, *nodes)
    done = exported(cli, source, tmp_path / "m/x.bundle", "--unsigned", "--volume-size", "350K")
    paths = [Path(path) for path in done["volumes"]]
    assert len(paths) == 4
    assert cli("sync", "--all", "--from", source, "--unsigned", "--to", tmp_path / "direct", "-q").code == 0
    # All at hand: read across the volumes.
    imported(cli, tmp_path / "m", "--to", tmp_path / "at-once", policy=("--unsigned",))
    assert files(tmp_path / "at-once") == files(tmp_path / "direct")
    # One at a time, the last first.
    for number, path in enumerate(reversed(paths), start=1):
        alone = tmp_path / "alone" / path.name
        alone.parent.mkdir(exist_ok=True)
        shutil.copy(path, alone)
        code = 0 if number == len(paths) else 9
        imported(cli, alone, "--to", tmp_path / "to", code=code, policy=("--unsigned",))
        alone.unlink()
    assert files(tmp_path / "to") == files(tmp_path / "direct")
    assert not list((tmp_path / "to/.cachefetch").glob("pieces/*"))


def test_a_bundle_is_a_mirror_without_unpacking(cli: Cli, tmp_path: Path) -> None:
    exported(cli, MIRROR, tmp_path / "x.bundle")
    for where in (tmp_path / "x.bundle", f"bundle://{tmp_path}/x.bundle", tmp_path):
        direct = cli("resolve", QUERY, "-m", MIRROR, "--key", KEY, *DEBIAN, "--json").json
        found = cli("resolve", QUERY, "-m", where, "--key", KEY, *DEBIAN, "--json")
        assert found.code == 0, found.err
        assert found.json["roots"][0]["chosen"]["hash"] == direct["roots"][0]["chosen"]["hash"]
        assert found.json["mirrors"][0]["kind"] == "bundle"
    done = cli(
        "fetch", QUERY, "-m", tmp_path / "x.bundle", "--key", KEY, *DEBIAN, "--offline",
        "--to", tmp_path / "out", "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert done.json["network_bytes"] == 0
    assert all(item["verified"]["signature"] == "good" for item in done.json["items"])
    listed = cli("list", "-m", tmp_path / "x.bundle", "--key", KEY, "--json").json
    assert len(listed["specs"]) == 18


def test_a_package_of_a_volume_that_is_not_here_says_which(
    cli: Cli, tmp_path: Path, volumes: list[Path]
) -> None:
    for volume in volumes[:-1]:
        volume.unlink()
    done = cli("fetch", "zlib", "-m", volumes[-1], "--key", KEY, *DEBIAN)
    assert done.code == 8
    assert f"volume 1 of {len(volumes)} of the bundle" in done.err


def test_unpacked_with_tar_it_is_a_mirror_too(cli: Cli, tmp_path: Path, volumes: list[Path]) -> None:
    (tmp_path / "out").mkdir()
    for volume in volumes:
        subprocess.run(["tar", "xf", str(volume), "-C", str(tmp_path / "out")], check=True)
    done = cli("verify", tmp_path / "out", "--key", KEY, "--json")
    assert (done.code, done.json["manifests"]) == (0, 62)


def test_the_same_content_gives_the_same_bytes_and_a_cut_export_goes_on(
    cli: Cli, tmp_path: Path, volumes: list[Path]
) -> None:
    before = [path.read_bytes() for path in volumes]
    volumes[-1].unlink()
    again = exported(cli, SIGNED, tmp_path / "media/all.bundle", "--volume-size", SIZE)
    assert again["kept"] == len(volumes) - 1
    assert [path.read_bytes() for path in volumes] == before


def test_a_signed_bundle_needs_the_key_of_its_signer(cli: Cli, tmp_path: Path) -> None:
    secret = pysequoia.Tsk.generate("Courier <courier@example.org>")
    (tmp_path / "secret.pgp").write_bytes(bytes(secret))
    public = tmp_path / "courier.asc"
    public.write_text(str(secret.extract_certificate()))
    done = exported(cli, MIRROR, tmp_path / "x.bundle", "--sign-key", tmp_path / "secret.pgp")
    assert done["signed"]
    good = imported(
        cli, tmp_path / "x.bundle", "--to", tmp_path / "to", policy=("--key", KEY, "--key", str(public))
    )
    assert (good["signature"], good["key"]) == ("good", secret.extract_certificate().fingerprint.upper())
    refused = cli("bundle", "import", tmp_path / "x.bundle", "--key", KEY, "--to", tmp_path / "no")
    assert refused.code == 7
    assert not (tmp_path / "no/v3").exists()
    data = (tmp_path / "x.bundle").read_bytes().replace(b'"volumes":1', b'"volumes":2')
    (tmp_path / "y.bundle").write_bytes(data)
    (tmp_path / "x.bundle").unlink()
    changed = cli("bundle", "verify", tmp_path / "y.bundle", "--key", KEY, "--key", public)
    assert changed.code in (6, 7)


@pytest.mark.parametrize("harm", ["text", "signature", "frame"])
def test_a_volume_whose_signature_is_wrong_is_a_line_of_the_report(
    cli: Cli, tmp_path: Path, harm: str
) -> None:
    """The signed text of a header was changed, or what stands around it: the other volumes and bundles count."""
    secret = pysequoia.Tsk.generate("Courier <courier@example.org>")
    (tmp_path / "secret.pgp").write_bytes(bytes(secret))
    (tmp_path / "courier.asc").write_text(str(secret.extract_certificate()))
    keys = ("--key", KEY, "--key", str(tmp_path / "courier.asc"))
    media = tmp_path / "media"
    words = ("--volume-size", SIZE, "--sign-key", tmp_path / "secret.pgp")
    volumes = [Path(path) for path in exported(cli, SIGNED, media / "all.bundle", *words)["volumes"]]
    wrong = bytearray(volumes[1].read_bytes())
    armour = wrong.index(b"-----BEGIN PGP SIGNATURE-----")
    if harm == "text":
        at = wrong.index(b'"id":"') + 6
        wrong[at] = ord("1") if wrong[at] != ord("1") else ord("2")
    elif harm == "signature":
        at = wrong.index(b"\n\n", armour) + 40
        wrong[at] = ord("A") if wrong[at] != ord("A") else ord("B")
    else:
        wrong[wrong.index(b"\n", armour)] = ord("\r")
    volumes[1].write_bytes(wrong)
    exported(cli, MIRROR, media / "other.bundle")
    audit = cli("bundle", "verify", media, *keys)
    assert (audit.code, "Traceback" in audit.err) == (9, False)
    assert str(volumes[1]) in audit.out
    assert "other.bundle" not in audit.out
    done = cli("bundle", "import", media, *keys, "--to", tmp_path / "to")
    assert done.code == 9, done.err
    assert str(volumes[1]) in done.err
    assert len(list((tmp_path / "to").glob("v3/manifests/spec/*/*"))) > 18
    assert verified(cli, tmp_path / "to")["problems"] == []
    for path in (*volumes[::2], media / "other.bundle"):
        path.unlink()
    assert cli("bundle", "verify", media, *keys).code == 7  # nothing is left that can be believed
    assert cli("bundle", "import", media, *keys, "--to", tmp_path / "to").code == 7


def test_a_selection_is_staged_and_then_carried(cli: Cli, tmp_path: Path) -> None:
    done = cli(
        "bundle", "export", "zlib", "--from", SIGNED, "--key", KEY, "--to", tmp_path / "z.bundle", "--json"
    )
    assert done.code == 0, done.err
    assert [path.name for path in tmp_path.iterdir() if "staging" in path.name] == []
    imported(cli, tmp_path / "z.bundle", "--to", tmp_path / "to")
    assert sync(cli, "zlib", source=SIGNED, to=tmp_path / "direct").code == 0
    assert files(tmp_path / "to") == files(tmp_path / "direct")


def test_layout_2_is_carried_as_layout_3(cli: Cli, tmp_path: Path) -> None:
    words = ("--from", FIXTURES / "v2-unsigned", "--unsigned", "--to", tmp_path / "x.bundle", "--json")
    refused = cli("bundle", "export", *words)
    assert (refused.code, "--convert" in refused.json["hint"]) == (2, True)
    assert cli("bundle", "export", *words, "--convert").code == 0
    done = imported(cli, tmp_path / "x.bundle", "--to", tmp_path / "to", policy=("--unsigned",))
    assert done["done"]["packages"] == 72
    assert verified(cli, tmp_path / "to", "--unsigned")["problems"] == []


def test_an_import_that_was_killed_goes_on(cli: Cli, tmp_path: Path) -> None:
    exported(cli, SIGNED, tmp_path / "x.bundle")
    env = {**os.environ, "PYTHONPATH": str(ROOT / ".dev"), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    words = ["bundle", "import", str(tmp_path / "x.bundle"), "--key", KEY, "--to", str(tmp_path / "to"), "-q"]
    command = [sys.executable, "-m", "cachefetch", *words]
    for pause in (0.3, 0.5, 0.7):
        process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(pause)
        process.kill()
        process.wait()
        if (tmp_path / "to/v3").exists():
            assert verified(cli, tmp_path / "to")["problems"] == []
    imported(cli, tmp_path / "x.bundle", "--to", tmp_path / "to")
    assert sync(cli, "--all", source=SIGNED, to=tmp_path / "direct").code == 0
    assert files(tmp_path / "to") == files(tmp_path / "direct")


def test_an_export_that_was_killed_leaves_whole_volumes_and_goes_on(
    cli: Cli, tmp_path: Path, volumes: list[Path]
) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT / ".dev"), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    to, size = tmp_path / "again" / "all.bundle", ("--volume-size", SIZE)
    words = ["bundle", "export", "--from", str(SIGNED), "--to", str(to), *size, "-q"]
    command = [sys.executable, "-m", "cachefetch", *words]
    for number in (1, 2, 3):
        process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        part = to.with_name(f"all.00{number}.bundle.part")
        while process.poll() is None and not part.exists():
            pass
        process.kill()
        process.wait()
        for volume in to.parent.glob("*.bundle"):
            assert volume.read_bytes() == (volumes[0].parent / volume.name).read_bytes()
    exported(cli, SIGNED, to, *size)
    assert [path.read_bytes() for path in sorted(to.parent.iterdir())] == [v.read_bytes() for v in volumes]


def test_a_full_disk_stops_export_and_import_and_both_go_on(
    cli: Cli, tmp_path: Path, volumes: list[Path], small_disk: Path
) -> None:
    def resize(size: str) -> None:
        subprocess.run(["mount", "-o", f"remount,size={size}", str(small_disk)], check=True)

    resize("900k")
    words = ("--from", SIGNED, "--to", small_disk / "all.bundle", "--volume-size", SIZE, "--json")
    full = cli("bundle", "export", *words)
    assert (full.code, full.json["context"]["reason"], "all.003" in full.err) == (10, "disk-full", True)
    assert sorted(path.name for path in small_disk.iterdir()) == ["all.001.bundle", "all.002.bundle"]
    resize("20m")
    assert cli("bundle", "export", *words).json["kept"] == 2
    assert [path.read_bytes() for path in sorted(small_disk.iterdir())] == [v.read_bytes() for v in volumes]

    to = small_disk / "to"
    resize("1700k")
    full = cli("bundle", "import", volumes[0].parent, "--key", KEY, "--to", to, "--json")
    assert (full.code, full.json["context"]["reason"]) == (10, "disk-full")
    assert verified(cli, to)["problems"] == []
    resize("20m")
    imported(cli, volumes[0].parent, "--to", to)
    assert sync(cli, "--all", source=SIGNED, to=tmp_path / "direct").code == 0
    assert files(to) == files(tmp_path / "direct")


def test_a_damaged_source_blob_is_never_exported(cli: Cli, tmp_path: Path) -> None:
    source = shutil.copytree(MIRROR, tmp_path / "source")
    blob, _ = tarball_of(source, "openssl")
    data = bytearray(blob.read_bytes())
    data[100] ^= 1
    blob.write_bytes(bytes(data))
    done = cli("bundle", "export", "--from", source, "--to", tmp_path / "x.bundle")
    assert done.code == 6, done.err
    assert not list(tmp_path.glob("x.bundle*"))
    blob.unlink()
    done = cli("bundle", "export", "--from", source, "--to", tmp_path / "x.bundle", "--json")
    assert (done.code, [p["what"] for p in done.json["problems"]]) == (9, ["not-found"])


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("import", "nowhere.bundle", "--to", "to"), 8),
        (("import", KEY, "--to", "to"), 6),
        (("import", "--to", "to"), 2),
        (("export", "--from", MIRROR), 2),
        (("export", "--from", MIRROR, "--to", "x.bundle", "--volume-size", "much"), 2),
        (("export", "--from", MIRROR, "--to", "x.bundle", "--volume-size", "9K"), 2),
        (("export", "--from", MIRROR, "--to", "x.bundle", "--since", KEY), 6),
        (("export", "--from", MIRROR, "--to", "x.bundle", "--sign-key", KEY), 2),
        (("verify", MIRROR), 6),
    ],
)
def test_what_cannot_be_meant_is_refused(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], code: int
) -> None:
    monkeypatch.chdir(tmp_path)
    done = cli("bundle", *words, "--json")
    assert (done.code, done.json["schema"]) == (code, "cachefetch/error/1")
    assert done.json["hint"] or code == 8


@pytest.mark.parametrize("action", ["export", "import", "verify"])
def test_the_documents_have_what_their_schemas_ask(cli: Cli, tmp_path: Path, action: str) -> None:
    schema = json.loads((ROOT / f"docs/schemas/bundle-{action}-1.json").read_text())
    made = exported(cli, MIRROR, tmp_path / "x.bundle")
    found = {
        "export": lambda: made,
        "import": lambda: imported(cli, tmp_path / "x.bundle", "--to", tmp_path / "to"),
        "verify": lambda: cli("bundle", "verify", tmp_path / "x.bundle", "--key", KEY, "--json").json,
    }[action]()
    assert found["schema"] == schema["properties"]["schema"]["const"]
    assert set(found) == set(schema["required"]) == set(schema["properties"])
