"""Attacks on whole mirrors through the command line: each is refused with its own code, and leaves nothing.

The attacks on archives alone are in tests/unit/test_extract.py, those on signatures alone in tests/unit/verify.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.functional.conftest import FIXTURES, KEY, Done
from tests.tools import archive
from tests.tools.archive import directory, entry, hard_link, package, stored, symlink
from tests.tools.mirrors import (
    SPEC,
    TARBALL,
    make_node,
    manifest_path,
    manifest_text,
    put_blob,
    record,
    spec_blob,
    write_index,
    write_package,
)

Cli = Callable[..., Done]
SIGNED = FIXTURES / "v3-signed"
SPECS = [spec for spec in json.loads((SIGNED / "EXPECTED.json").read_text())["specs"] if spec["artifact"]]
WANTED = next(spec for spec in SPECS if spec["name"] == "zlib")
OTHER = next(spec for spec in SPECS if spec["name"] == "python")
NODE = make_node("demo")
EVIL = b"evil"


class Attack:
    """A copy of the signed mirror, as far as the wanted package needs it, to be changed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for spec in (WANTED, OTHER):
            for path in (
                spec["artifact"]["manifest"],
                self.blob(spec, "tarball"),
                self.blob(spec, "spec_blob"),
            ):
                self.copy(str(path))
        for path in (SIGNED / "v3/manifests/index").rglob("*"):
            if path.is_file():
                self.copy(str(path.relative_to(SIGNED)))
                digest = json.loads(path.read_text())["data"][0]["checksum"]
                self.copy(f"blobs/sha256/{digest[:2]}/{digest}")

    @staticmethod
    def blob(spec: dict[str, dict[str, str]], kind: str) -> Path:
        digest = spec["artifact"][f"{kind}_sha256"]
        return Path("blobs/sha256", digest[:2], digest)

    def copy(self, path: str) -> None:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(SIGNED / path, target)

    @property
    def manifest(self) -> Path:
        return self.root / str(WANTED["artifact"]["manifest"])

    def change(self, path: Path, change: Callable[[bytes], bytes]) -> None:
        path.write_bytes(change(path.read_bytes()))


def flip(at: float) -> Callable[[bytes], bytes]:
    """Return a change of one bit at this fraction of a file."""

    def change(data: bytes) -> bytes:
        where = int(len(data) * at)
        return data[:where] + bytes([data[where] ^ 1]) + data[where + 1 :]

    return change


def on_manifest(change: Callable[[bytes], bytes]) -> Callable[[Attack], None]:
    return lambda attack: attack.change(attack.manifest, change)


def on_blob(kind: str, change: Callable[[bytes], bytes]) -> Callable[[Attack], None]:
    return lambda attack: attack.change(attack.root / attack.blob(WANTED, kind), change)


def payload(data: bytes) -> bytes:
    """Return the text inside a signature."""
    return data[data.index(b"\n\n") + 2 : data.index(b"-----BEGIN PGP SIGNATURE")]


def swap_manifest(attack: Attack) -> None:
    shutil.copyfile(attack.root / OTHER["artifact"]["manifest"], attack.manifest)


def swap_tarballs(attack: Attack) -> None:
    shutil.copyfile(attack.root / attack.blob(OTHER, "tarball"), attack.root / attack.blob(WANTED, "tarball"))


def sign_of(other: bytes) -> Callable[[bytes], bytes]:
    """Return a change that puts the signature of another document below the text."""
    mark = b"-----BEGIN PGP SIGNATURE"
    return lambda data: data[: data.index(mark)] + other[other.index(mark) :]


OTHER_MANIFEST = (SIGNED / OTHER["artifact"]["manifest"]).read_bytes()
BEGIN = b"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\n"

#: name -> (exit, code, what is done to the mirror). The key is trusted and a signature is required.
ON_SIGNED: dict[str, tuple[int, str, Callable[[Attack], None]]] = {
    "manifest, a bit of the text": (7, "signature-invalid", on_manifest(flip(0.2))),
    "manifest, a bit of the signature": (7, "signature-invalid", on_manifest(flip(0.8))),
    "manifest, signature stripped": (7, "signature-missing", on_manifest(payload)),
    "manifest, first line damaged": (7, "signature-missing", on_manifest(flip(0.0))),
    "manifest, text before": (7, "signature-missing", on_manifest(lambda d: b"x\n" + d)),
    "manifest, JSON before": (7, "signature-missing", on_manifest(lambda d: payload(OTHER_MANIFEST) + d)),
    "manifest, text after": (7, "signature-invalid", on_manifest(lambda d: d + b"x\n")),
    "manifest, two blocks": (7, "signature-invalid", on_manifest(lambda d: d + d)),
    "manifest, another block after": (7, "signature-invalid", on_manifest(lambda d: d + OTHER_MANIFEST)),
    "manifest, another block inside": (
        7,
        "signature-invalid",
        on_manifest(lambda d: BEGIN + OTHER_MANIFEST + d),
    ),
    "manifest, signature of another": (7, "signature-invalid", on_manifest(sign_of(OTHER_MANIFEST))),
    "manifest, trailing space": (
        7,
        "signature-invalid",
        on_manifest(lambda d: d.replace(b"{\n", b"{ \n", 1)),
    ),
    "manifest, carriage returns": (7, "signature-invalid", on_manifest(lambda d: d.replace(b"\n", b"\r\n"))),
    "manifest, Hash: line changed": (
        7,
        "signature-invalid",
        on_manifest(lambda d: d.replace(b"SHA512", b"SHA256", 1)),
    ),
    "manifest, header before the text": (
        7,
        "signature-invalid",
        on_manifest(lambda d: d.replace(b"Hash: SHA512\n", b"Hash: SHA512\nComment: x\n", 1)),
    ),
    "manifest, cut": (7, "signature-invalid", on_manifest(lambda d: d[: len(d) // 2])),
    "manifest, empty": (7, "signature-missing", on_manifest(lambda d: b"")),
    "manifest, a size changed": (
        7,
        "signature-invalid",
        on_manifest(lambda d: d.replace(b'Length":', b'Length":1', 1)),
    ),
    "manifest of another package, validly signed": (6, "binding-mismatch", swap_manifest),
    "tarball, a bit at the start": (6, "digest-mismatch", on_blob("tarball", flip(0.0))),
    "tarball, a bit in the middle": (6, "digest-mismatch", on_blob("tarball", flip(0.5))),
    "tarball, a bit at the end": (6, "digest-mismatch", on_blob("tarball", flip(0.999))),
    "tarball, too long": (6, "size-mismatch", on_blob("tarball", lambda d: d + b"x")),
    "tarball, too short": (6, "size-mismatch", on_blob("tarball", lambda d: d[:-1])),
    "tarball, empty": (6, "size-mismatch", on_blob("tarball", lambda d: b"")),
    "tarball of another package": (6, "size-mismatch", swap_tarballs),
    "tarball packed anew": (
        6,
        "size-mismatch",
        on_blob("tarball", lambda d: gzip.compress(gzip.decompress(d), 1)),
    ),
    "spec blob, a bit": (6, "digest-mismatch", on_blob("spec_blob", flip(0.5))),
    "spec blob, too long": (6, "size-mismatch", on_blob("spec_blob", lambda d: d + b"x")),
    "spec blob, too short": (6, "size-mismatch", on_blob("spec_blob", lambda d: d[:-1])),
}


def left(root: Path) -> list[str]:
    """Return payloads and unpacked files below the cache and the destinations."""
    found = [str(path) for place in ("out", "to") for path in (root / place).rglob("*")]
    digest = WANTED["artifact"]["tarball_sha256"]
    return found + [str(path) for path in (root / "cache").rglob(f"*{digest}*")]


@pytest.mark.parametrize("name", ON_SIGNED)
def test_attack_on_a_signed_mirror(cli: Cli, tmp_path: Path, name: str) -> None:
    code, word, change = ON_SIGNED[name]
    attack = Attack(tmp_path / "mirror")
    change(attack)
    trusted = ("-m", attack.root, "--key", KEY, "--json")
    done = cli("extract", f"/{WANTED['hash']}", tmp_path / "out/zlib", *trusted)
    assert (done.code, done.json["exit"], done.json["code"]) == (code, code, word), done.err
    done = cli("fetch", f"/{WANTED['hash']}", "--no-deps", "--to", tmp_path / "to", *trusted, *LINUX)
    assert (done.code, done.json["code"]) == (code, word)
    assert left(tmp_path) == []


LINUX = ["--platform", "linux", "--os", WANTED["os"], "--target", WANTED["target"], "--libc", "glibc@2.99"]


def test_without_an_attack_it_is_delivered(cli: Cli, tmp_path: Path) -> None:
    attack = Attack(tmp_path / "mirror")
    done = cli("extract", f"/{WANTED['hash']}", tmp_path / "out/zlib", "-m", attack.root, "--key", KEY)
    assert done.code == 0, done.err
    assert left(tmp_path)


# --- where nobody signs, digests and binding still hold


def unsigned(root: Path, *records: dict[str, object]) -> None:
    write_index(root, NODE)
    path = manifest_path(root, NODE)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(manifest_text(*records))


def with_payload(data: bytes) -> Callable[[Path], None]:
    def make(root: Path) -> None:
        write_package(root, NODE, stored(data))
        write_index(root, NODE)

    return make


def with_records(*change: tuple[int, str, object]) -> Callable[[Path], None]:
    """Return a mirror whose manifest records are changed: (record, key, value)."""

    def make(root: Path) -> None:
        tarball, spec = stored(archive.good()), spec_blob(NODE)
        for data in (tarball, spec):
            put_blob(root, data)
        records: list[dict[str, object]] = [record(tarball, TARBALL), record(spec, SPEC)]
        for number, key, value in change:
            records[number][key] = value
        unsigned(root, *records)

    return make


def with_spec(blob: bytes) -> Callable[[Path], None]:
    """Return a mirror whose spec blob is this."""

    def make(root: Path) -> None:
        tarball = stored(archive.good())
        for data in (tarball, blob):
            put_blob(root, data)
        unsigned(root, record(tarball, TARBALL), record(blob, SPEC))

    return make


def with_manifest(text: bytes) -> Callable[[Path], None]:
    def make(root: Path) -> None:
        with_payload(archive.good())(root)
        manifest_path(root, NODE).write_bytes(text)

    return make


RENAMED = {**make_node("other"), "hash": NODE["hash"]}
ON_UNSIGNED: dict[str, tuple[int, str, Callable[[Path], None]]] = {
    "manifest that names a blob with ../": (
        6,
        "bad-format",
        with_records((0, "checksum", "../../../../etc/passwd")),
    ),
    "manifest that names an absolute blob": (6, "bad-format", with_records((0, "checksum", "/etc/passwd"))),
    "manifest with an upper-case digest": (6, "bad-format", with_records((0, "checksum", "A" * 64))),
    "manifest with a weak digest": (6, "bad-format", with_records((0, "checksumAlgorithm", "md5"))),
    "manifest with a negative size": (6, "bad-format", with_records((0, "contentLength", -1))),
    "manifest with a size that is too large": (
        6,
        "size-mismatch",
        with_records((0, "contentLength", 1 << 20)),
    ),
    "manifest with a giant spec blob": (6, "bad-format", with_records((1, "contentLength", 1 << 40))),
    "manifest without tarball": (6, "bad-format", with_records((0, "mediaType", "text/plain"))),
    "manifest without spec": (6, "bad-format", with_records((1, "mediaType", "text/plain"))),
    "manifest of two megabytes": (6, "bad-format", with_manifest(b" " * (2 << 20))),
    "manifest with deep nesting": (6, "bad-format", with_manifest(b"[" * 100_000)),
    "manifest as gzip bomb": (6, "bad-format", with_manifest(gzip.compress(bytes(100 << 20)))),
    "manifest with a key twice": (6, "bad-format", with_manifest(b'{"version":3,"version":3,"data":[]}')),
    "manifest of another version": (6, "bad-format", with_manifest(b'{"version":4,"data":[]}')),
    "manifest that is no text": (6, "bad-format", with_manifest(b"\xff\xfe\0")),
    "spec blob of another package": (6, "binding-mismatch", with_spec(spec_blob(make_node("other")))),
    "spec blob of another version": (6, "binding-mismatch", with_spec(spec_blob(make_node("demo", "2.0")))),
    "spec blob with the hash alone right": (6, "binding-mismatch", with_spec(spec_blob(RENAMED))),
    "spec blob with the package second": (
        6,
        "binding-mismatch",
        with_spec(spec_blob(make_node("other"), NODE)),
    ),
    "spec blob as gzip bomb": (6, "bad-format", with_spec(gzip.compress(bytes(100 << 20)))),
    "spec blob with data behind": (6, "bad-format", with_spec(spec_blob(NODE) + b"x")),
    "spec blob that is no JSON": (6, "bad-format", with_spec(gzip.compress(b"{"))),
    "spec blob without nodes": (6, "bad-format", with_spec(spec_blob())),
    "tarball with ..": (
        6,
        "archive-parent-reference",
        with_payload(package(entry("./../../../../../evil", EVIL))),
    ),
    "tarball with an absolute name": (
        6,
        "archive-absolute-name",
        with_payload(package(entry("/tmp/evil", EVIL))),
    ),
    "tarball with symlink, then write": (
        6,
        "archive-through-link",
        with_payload(package(symlink("./d", "/tmp"), entry("./d/evil", EVIL))),
    ),
    "tarball with a hard link out": (
        6,
        "archive-hard-link",
        with_payload(package(hard_link("./a", "/etc/passwd"))),
    ),
    "tarball with a symlink out": (
        6,
        "archive-symlink",
        with_payload(package(symlink("./a", "../../../../x"))),
    ),
    "tarball with a device": (6, "archive-special-file", with_payload(package(entry("./n", kind=b"3")))),
    "tarball with a FIFO": (6, "archive-special-file", with_payload(package(entry("./n", kind=b"6")))),
    "tarball with a setuid file": (
        6,
        "archive-setuid",
        with_payload(package(entry("./su", EVIL, mode=0o4755))),
    ),
    "tarball with a type change": (
        6,
        "archive-type-change",
        with_payload(package(symlink("./f", "/tmp/x"), entry("./f", EVIL))),
    ),
    "tarball with a file twice": (6, "archive-duplicate", with_payload(package(entry("./f"), entry("./f")))),
    "tarball with a file outside": (6, "archive-outside-prefix", with_payload(package(entry("etc/x", EVIL)))),
    "tarball with colliding names": (
        6,
        "archive-collision",
        with_payload(package(directory("./Lib"), directory("./lib"))),
    ),
    "tarball with Unicode collision": (
        6,
        "archive-collision",
        with_payload(package(entry("./\u00e9"), entry("./e\u0301"))),
    ),
    "tarball as bomb": (6, "archive-bomb", with_payload(package(entry("./zeros", bytes(100 << 20))))),
    "tarball that is no package": (6, "archive-no-prefix", with_payload(package(last=()))),
    "tarball that is cut": (6, "archive-truncated", with_payload(archive.good()[:9000])),
    "tarball that is no tar": (6, "archive-damaged", with_payload(b"x" * 4096)),
    "tarball with two archives": (6, "archive-trailing-data", with_payload(package() * 2)),
}


@pytest.mark.parametrize("name", ON_UNSIGNED)
def test_attack_on_an_unsigned_mirror(cli: Cli, tmp_path: Path, name: str) -> None:
    code, word, make = ON_UNSIGNED[name]
    make(tmp_path / "mirror")
    words = ("-m", tmp_path / "mirror", "--unsigned", "--json", "--portable")
    done = cli("extract", f"/{NODE['hash']}", tmp_path / "out/demo", *words)
    assert (done.code, done.json["code"]) == (code, word), done.err
    assert list((tmp_path / "out").rglob("*")) == []
    assert [p for p in (tmp_path / "cache").rglob("partial/*") if p.stat().st_size] == []


def test_there_are_enough_attacks() -> None:
    assert len(ON_SIGNED) + len(ON_UNSIGNED) >= 60


def test_mix_and_match_between_mirrors(cli: Cli, tmp_path: Path) -> None:
    """A mirror without signatures next to a signed one cannot deliver in its place, and is named."""
    attack = Attack(tmp_path / "signed")
    attack.change(attack.manifest, payload)
    good = tmp_path / "good"
    Attack(good)
    words = ("-m", attack.root, "-m", good, "--key", KEY, "--json")
    done = cli("fetch", f"/{WANTED['hash']}", "--no-deps", *words, *LINUX)
    assert done.code == 0, done.err
    assert [(w["code"], w["mirror"]) for w in done.json["warnings"]] == [
        ("signature-missing", str(attack.root))
    ]
    assert done.json["items"][0]["verified"]["signature"] == "good"
    config = tmp_path / "config/cachefetch"
    config.mkdir(parents=True)
    (config / "config.toml").write_text(
        f'[mirrors.open]\nurl = "{attack.root}"\nsigned = "none"\n'
        f'[mirrors.strict]\nurl = "{good}"\nkeys = ["{"A" * 40}"]\nkey_files = ["{KEY}"]\n'
    )
    shutil.rmtree(tmp_path / "cache")
    done = cli("fetch", f"/{WANTED['hash']}", "--no-deps", "-m", "strict", "--json", *LINUX)
    assert (done.code, done.json["code"], done.json["context"]["reason"]) == (
        7,
        "key-not-trusted",
        "not-pinned",
    )
    done = cli("fetch", f"/{WANTED['hash']}", "--no-deps", "-m", "open", "--json", *LINUX)
    assert (done.code, done.json["items"][0]["verified"]["signature"]) == (0, "not-required")


def test_policies_in_the_configuration(cli: Cli, tmp_path: Path) -> None:
    """`required` is the default, `if-present` takes unsigned but never badly signed, and there is no global switch."""
    attack = Attack(tmp_path / "mirror")
    config = tmp_path / "config/cachefetch"
    config.mkdir(parents=True)

    def fetch(signed: str) -> Done:
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)
        (config / "config.toml").write_text(
            f'[mirrors.m]\nurl = "{attack.root}"\n{signed}key_files = ["{KEY}"]\n'
        )
        return cli("fetch", f"/{WANTED['hash']}", "--no-deps", "--json", *LINUX)

    assert fetch("").json["items"][0]["verified"]["signature"] == "good"
    attack.change(attack.manifest, flip(0.3))
    assert fetch('signed = "if-present"\n').code == 7
    attack.change(attack.manifest, lambda data: payload(flip(0.3)(data)))
    assert fetch("").json["code"] == "signature-missing"
    assert fetch('signed = "if-present"\n').json["items"][0]["verified"]["signature"] == "none"
    assert fetch('signed = "none"\n').json["items"][0]["verified"]["signature"] == "not-required"
    for bad in ('signed = "never"\n', "signed = false\n", 'keys = ["12345678"]\n'):
        assert fetch(bad).code == 2
    (config / "config.toml").write_text('signed = "none"\n')
    assert cli("list").code == 2
    assert cli("fetch", "zlib", "--unsigned").code == 2
    assert os.environ.get("CACHEFETCH_UNSIGNED") is None
