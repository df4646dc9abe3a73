"""``cachefetch key``: what is trusted, from where, and that nothing is trusted by itself."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pysequoia
import pytest
from tests.functional.conftest import DEBIAN, FIXTURES, KEY, MIRROR, Done
from tests.tools.mirrors import manifest_text, put_blob, record

Cli = Callable[..., Done]
FPR = "782919F9DB28EF14FA36F2A892DFACD7F6EA048A"
OTHER = "A" * 40
ZLIB = "/4znr57ewjpwhs3c5cux3abeg2ygubgbl"


def test_trust_list_untrust(cli: Cli) -> None:
    assert cli("key", "list").out == ""
    done = cli("key", "trust", KEY)
    assert done.code == 0
    for part in (FPR, "cachefetch-test@example.invalid", "made 20", "does not expire"):
        assert part in done.out
    assert cli("key", "list", "--json").json["keys"][0]["fingerprint"] == FPR
    assert cli("fetch", "zlib", "-m", MIRROR, *DEBIAN).code == 0
    assert cli("key", "untrust", FPR.lower()).code == 0
    assert cli("fetch", "zlib", "-m", MIRROR, *DEBIAN).code == 7
    assert cli("key", "untrust", FPR).code == 2
    assert cli("key", "untrust", FPR[-8:]).code == 2


def test_trust_only_the_named_key(cli: Cli) -> None:
    done = cli("key", "trust", KEY, "--fingerprint", OTHER)
    assert done.code == 2
    assert "is not there" in done.err
    assert cli("key", "list").out == ""
    assert cli("key", "trust", KEY, "--fingerprint", FPR).code == 0
    assert FPR in cli("key", "list").out


def test_trust_a_directory_of_keys_as_spack_has_it(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "gpg").mkdir()
    done = cli("key", "trust", tmp_path / "gpg")
    assert done.code == 2
    assert "no public key file" in done.err
    shutil.copy(KEY, tmp_path / "gpg/site.key")
    (tmp_path / "gpg/README").write_text("no key")
    assert cli("key", "trust", tmp_path / "gpg").code == 0
    assert FPR in cli("key", "list").out


@pytest.mark.parametrize("mirror", [MIRROR, FIXTURES / "v3-signed", FIXTURES / "v2-signed"])
def test_fetch_shows_and_trusts_nothing_by_itself(cli: Cli, mirror: str) -> None:
    done = cli("key", "fetch", "-m", mirror, "--json")
    assert done.code == 0, done.err
    assert [(key["fingerprint"], key["trusted"]) for key in done.json["keys"]] == [(FPR, False)]
    assert "no key was trusted" in done.err
    assert cli("key", "list").out == ""
    done = cli("key", "fetch", "-m", mirror, "--fingerprint", OTHER)
    assert done.code == 2
    assert cli("key", "list").out == ""
    done = cli("key", "fetch", "-m", mirror, "--fingerprint", FPR)
    assert done.code == 0
    assert FPR in cli("key", "list").out
    assert cli("fetch", "zlib", "-m", MIRROR, *DEBIAN).code == 0


def test_fetch_from_a_mirror_without_keys(cli: Cli) -> None:
    done = cli("key", "fetch", "-m", FIXTURES / "v3-unsigned", "--json")
    assert (done.code, done.json["code"]) == (8, "not-found")
    assert "publishes no keys" in done.err


@pytest.mark.parametrize("what", ["another key", "no key", "changed key", "a path", "no list", "many"])
def test_fetch_from_a_mirror_that_lies(cli: Cli, tmp_path: Path, what: str) -> None:
    mirror = tmp_path / "m"
    shutil.copytree(MIRROR, mirror)
    keys = mirror / "v3/manifests/key"
    names: dict[str, list[str]] = {"another key": [OTHER], "a path": ["../../../etc/passwd"]}
    blob: object = {name: {} for name in names.get(what, [FPR])}
    if what == "no list":
        blob = None
    if what == "many":
        blob = {f"{number:040X}": {} for number in range(1001)}
    data = json.dumps({"keys": blob}).encode()
    put_blob(mirror, data)
    (keys / "keys.manifest.json").write_bytes(
        manifest_text(record(data, "application/vnd.spack.keyindex.v1+json"))
    )
    key = Path(KEY).read_bytes()
    if what == "another key":
        shutil.copy(keys / f"{FPR}.key.manifest.json", keys / f"{OTHER}.key.manifest.json")
    elif what in ("no key", "changed key"):
        text = b"no key" if what == "no key" else key
        digest = put_blob(mirror, text)
        if what == "changed key":
            (mirror / "blobs/sha256" / digest[:2] / digest).chmod(0o644)
            (mirror / "blobs/sha256" / digest[:2] / digest).write_bytes(key.replace(b"a", b"b", 1))
        (keys / f"{FPR}.key.manifest.json").write_bytes(
            manifest_text(record(text, "application/pgp-keys", digest))
        )
    done = cli("key", "fetch", "-m", mirror, "--fingerprint", FPR, "--json")
    assert done.code in (2, 6)
    assert cli("key", "list").out == ""


#: Colours, a window title, a carriage return, a line of its own, C1 codes and letters that turn the reading direction.
HARMFUL = "a\x1b[31m\x1b]0;title\x07\rb\nc\x9b2J\u202eevil\u2066x"


def harmless(*texts: str) -> None:
    for text in texts:
        for letter in text.replace("\n", ""):
            assert letter.isprintable(), repr(letter)


def test_a_user_id_cannot_speak_to_the_terminal(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "key.asc").write_bytes(bytes(pysequoia.Tsk.generate(HARMFUL).extract_certificate()))
    for words in (("key", "trust", tmp_path / "key.asc"), ("key", "list"), ("key", "list", "--json")):
        done = cli(*words)
        assert done.code == 0, done.err
        harmless(done.out, done.err)
        assert "evil" in done.out
        assert len(done.out.splitlines()) == 1
    fingerprint = cli("key", "list", "--json").json["keys"][0]["fingerprint"]
    harmless(cli("key", "untrust", fingerprint).out)


def test_the_keys_of_a_mirror_cannot_speak_to_the_terminal(cli: Cli, tmp_path: Path) -> None:
    key = bytes(pysequoia.Tsk.generate(HARMFUL).extract_certificate())
    (tmp_path / "key.asc").write_bytes(key)
    fingerprint = pysequoia.Cert.from_bytes(key).fingerprint.upper()
    keys = tmp_path / "m/build_cache/_pgp"
    keys.mkdir(parents=True)
    (keys / "index.json").write_text(json.dumps({"keys": {fingerprint: {}}}))
    (keys / f"{fingerprint}.pub").write_bytes(key)
    done = cli("key", "fetch", "-m", tmp_path / "m")
    assert "evil" in done.out + done.err
    harmless(done.out, done.err)


def test_commands_that_use_no_key_name_damaged_key_files(cli: Cli, tmp_path: Path) -> None:
    """Every answer that is asked for anew or recalled; a good key is never named."""
    cli("key", "trust", KEY)
    ask = ("resolve", "zlib", "-m", MIRROR, *DEBIAN)
    assert cli(*ask, "--json").json["roots"][0]["notes"] == []
    keys = tmp_path / "config/cachefetch/keys"
    good = (keys / f"{FPR}.asc").read_bytes()
    bad = {
        "zz.asc": good,
        f"{OTHER}.asc": b"",
        f"{'B' * 40}.asc": good[: len(good) // 2],
        f"{'C' * 40}.asc": good.replace(b"PUBLIC KEY", b"PRIVATE KEY"),
    }
    for name, data in bad.items():
        (keys / name).write_bytes(data)
    (keys / f"{'D' * 40}.asc").symlink_to("nowhere")
    expected = sorted([*bad, f"{'D' * 40}.asc"])
    for _ in range(2):
        done = cli(*ask, "--json")
        assert done.code == 0
        notes = done.json["roots"][0]["notes"]
        assert [Path(note.split()[2]).name for note in notes] == expected
        assert all("key trust" in note for note in notes)
    assert cli("list", "-m", MIRROR, "--json").json["notes"] == notes
    assert cli("show", ZLIB, "-m", MIRROR, "--json").json["notes"] == notes
    for words in (ask, ("list", "-m", MIRROR), ("show", ZLIB, "-m", MIRROR)):
        done = cli(*words)
        assert all(note in done.err for note in notes), words
        assert FPR not in done.err


def test_a_damaged_key_file_is_named(cli: Cli, tmp_path: Path) -> None:
    cli("key", "trust", KEY)
    bad = tmp_path / "config/cachefetch/keys/zz.asc"
    bad.write_text("garbage")
    other = bad.with_name(f"{OTHER}.asc")
    shutil.copy(KEY, other)
    for words in (["key", "list"], ["verify", MIRROR], ["fetch", "zlib", "-m", MIRROR, *DEBIAN]):
        done = cli(*words, "--json")
        assert done.code == 0, done.err
        for path in (bad, other):
            assert any(str(path) in str(warning) for warning in done.json["warnings"]), words
            assert str(path) in cli(*words).err, words
    assert FPR in cli("key", "list").out
