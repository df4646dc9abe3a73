"""Whole mirrors signed by real gpg with keys that must not count: each is refused with its reason, in both layouts."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.functional.conftest import Done
from tests.tools import archive
from tests.tools.mirrors import make_node, write_index, write_package
from tests.unit.verify.conftest import LONG_AGO, Gpg

from cachefetch.resolver.index.readers.nodes import node_from_dict
from cachefetch.resolver.index.readers.places import (
    build_cache_spec_files,
    build_cache_stem,
    build_cache_tarball,
)

Cli = Callable[..., Done]
NODE = make_node("demo")
PAYLOAD = archive.stored(archive.good())


@pytest.fixture(scope="module")
def gpg() -> Iterator[Gpg]:
    if shutil.which("gpg") is None:
        pytest.skip("gpg is not installed")
    # Sockets of the agent need a short path, which pytest's own temporary directories do not have.
    with tempfile.TemporaryDirectory(prefix="cf-keys-", dir="/tmp") as directory:
        made = Gpg(Path(directory))
        for label in ("good", "unknown", "revoked-2", "revoked-3", "second"):
            made.generate(label, "ed25519")
        made.generate("expired", "ed25519", expire="20200201T000000", at="20200101T000000!")
        made.generate("weak", "rsa1024")
        for label, expire, at in (
            ("subkey", "never", None),
            ("subkey-expired", "20200201T000000", "20200101T000000!"),
        ):
            made.generate(label, "ed25519", "cert", at=at)
            made.run("--batch", "--quick-add-key", made.keys[label], "ed25519", "sign", expire, at=at)
        yield made
        subprocess.run(["gpgconf", "--homedir", directory, "--kill", "all"], check=False, capture_output=True)


def later() -> str:
    return time.strftime("%Y%m%dT%H%M%S!", time.gmtime(time.time() + 864000))


Signing = Callable[[Gpg, bytes], bytes]
#: name -> (exit, code, reason, who signs and how). All keys but "unknown" are trusted.
SIGNERS: dict[str, tuple[int, str, str | None, Signing]] = {
    "by an unknown key": (7, "key-not-trusted", "unknown", lambda g, d: g.sign("unknown", data=d)),
    "by a revoked key": (7, "key-not-trusted", "revoked", lambda g, d: g.sign("revoked-N", data=d)),
    "by an expired key": (
        7,
        "key-not-trusted",
        "expired",
        lambda g, d: g.sign("expired", data=d, at=LONG_AGO),
    ),
    "by an expired subkey": (
        7,
        "key-not-trusted",
        "expired",
        lambda g, d: g.sign("subkey-expired", data=d, at=LONG_AGO),
    ),
    "by a weak key": (7, "key-not-trusted", "weak", lambda g, d: g.sign("weak", data=d)),
    "by a key that is not pinned": (
        7,
        "key-not-trusted",
        "not-pinned",
        lambda g, d: g.sign("second", data=d),
    ),
    "by two keys": (7, "signature-invalid", None, lambda g, d: g.sign("good", "second", data=d)),
    "with a weak digest": (
        7,
        "key-not-trusted",
        "weak",
        lambda g, d: g.sign("good", data=d, extra=("--digest-algo", "SHA1")),
    ),
    "in the future": (7, "signature-invalid", None, lambda g, d: g.sign("good", data=d, at=later())),
    "of another text": (
        7,
        "signature-invalid",
        None,
        lambda g, d: g.sign("good", data=d).replace(b"sha256", b"sha255", 1),
    ),
    "well": (0, "", None, lambda g, d: g.sign("good", data=d)),
    "well by a subkey": (0, "", None, lambda g, d: g.sign("subkey", data=d)),
}


def write_layout2(root: Path, sign: Callable[[bytes], bytes]) -> None:
    """Write the package as Spack 0.23 does."""
    node = node_from_dict(NODE)
    tarball = root / build_cache_tarball(node, ("none", "none"))
    tarball.parent.mkdir(parents=True)
    tarball.write_bytes(PAYLOAD)
    checksum = {"hash_algorithm": "sha256", "hash": hashlib.sha256(PAYLOAD).hexdigest()}
    document = {
        "spec": {"_meta": {"version": 5}, "nodes": [NODE]},
        "buildcache_layout_version": 2,
        "binary_cache_checksum": checksum,
    }
    text = json.dumps(document, indent=0, separators=(",", ":")).encode() + b"\n"
    (root / build_cache_spec_files(build_cache_stem(node, ("none", "none")))[0]).write_bytes(sign(text))
    installs = {NODE["hash"]: {"spec": NODE, "ref_count": 0, "in_buildcache": True}}
    (root / "build_cache/index.json").write_text(
        json.dumps({"database": {"version": "8", "installs": installs}}, separators=(",", ":"))
    )


@pytest.mark.parametrize("layout", [2, 3])
@pytest.mark.parametrize("name", SIGNERS)
def test_a_mirror_signed(cli: Cli, tmp_path: Path, gpg: Gpg, name: str, layout: int) -> None:
    code, word, reason, signing = SIGNERS[name]
    root = tmp_path / "mirror"
    gpg.keys["revoked-N"] = gpg.keys[f"revoked-{layout}"]  # a key that was revoked signs no more

    def sign(text: bytes) -> bytes:
        return signing(gpg, text)

    if layout == 3:
        write_package(root, NODE, PAYLOAD, sign)
        write_index(root, NODE)
    else:
        write_layout2(root, sign)
    if name == "by a revoked key":  # the signature is older than the revocation
        gpg.revoke(f"revoked-{layout}")
    trusted = [label for label in gpg.keys if label not in ("unknown", "revoked-N")]
    (tmp_path / "keys.asc").write_bytes(gpg.export(*trusted))
    pins = [gpg.keys[label] for label in trusted if label != "second"]
    configuration = tmp_path / "config/cachefetch"
    configuration.mkdir(parents=True)
    (configuration / "config.toml").write_text(
        f'[mirrors.m]\nurl = "{root}"\nkeys = {json.dumps(pins)}\nkey_files = ["{tmp_path}/keys.asc"]\n'
    )
    done = cli("extract", f"/{NODE['hash']}", tmp_path / "out/demo", "--json")
    assert done.code == code, done.err
    if code:
        assert done.json["code"] == word
        assert done.json["context"].get("reason") == reason
        assert list((tmp_path / "out").rglob("*")) == []
        digest = hashlib.sha256(PAYLOAD).hexdigest()
        assert not [path for path in (tmp_path / "cache").rglob(f"*{digest}*") if path.is_file()]
    else:
        signer = "subkey" if "subkey" in name else "good"
        assert done.json["verified"]["key"] == gpg.keys[signer]
