"""Keys and signatures made by the real gpg, in a home directory that lives as long as the test session."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

FIXTURES = Path(__file__).parents[2] / "data" / "fixtures"
TEXT = b'{\n"version":3,\n"data":[\n]\n}\n'
LONG_AGO = "20200102T000000!"


@dataclass
class Gpg:
    """One gpg home directory."""

    home: Path
    keys: dict[str, str] = field(default_factory=dict)

    def run(self, *args: str, data: bytes = b"", at: str | None = None, check: bool = True) -> bytes:
        command = ["gpg", "--homedir", str(self.home), "--yes", "--quiet", "--no-tty"]
        command += ["--pinentry-mode", "loopback", "--passphrase", ""]
        command += ["--faked-system-time", at] if at else []
        done = subprocess.run([*command, *args], input=data, capture_output=True, check=False)
        assert not check or done.returncode == 0, done.stderr.decode()
        return done.stdout

    def generate(
        self, label: str, algorithm: str, usage: str = "sign", expire: str = "never", at: str | None = None
    ) -> str:
        uid = f"{label} <{label}@example.invalid>"
        self.run("--batch", "--quick-gen-key", uid, algorithm, usage, expire, at=at)
        self.keys[label] = self.fingerprints(uid)[0]
        return self.keys[label]

    def fingerprints(self, uid: str) -> list[str]:
        """Return the fingerprints of the primary key and its subkeys."""
        listing = self.run("--batch", "--with-colons", "--list-keys", f"={uid}").decode()
        return [line.split(":")[9] for line in listing.splitlines() if line.startswith("fpr:")]

    def sign(
        self, *labels: str, data: bytes = TEXT, at: str | None = None, extra: tuple[str, ...] = ()
    ) -> bytes:
        users = [part for label in labels for part in ("--local-user", self.keys[label])]
        return self.run("--batch", *extra, "--clearsign", *users, data=data, at=at)

    def export(self, *labels: str, secret: bool = False) -> bytes:
        command = "--export-secret-keys" if secret else "--export"
        return self.run("--batch", "--armor", command, *(self.keys[label] for label in labels))

    def revoke(self, label: str) -> None:
        ready = (self.home / "openpgp-revocs.d" / f"{self.keys[label]}.rev").read_bytes()
        self.run("--batch", "--import", data=ready.replace(b":-----BEGIN", b"-----BEGIN"))

    def revoke_subkey(self, label: str) -> None:
        answers = b"key 1\nrevkey\ny\n0\n\ny\nsave\n"
        self.run("--command-fd", "0", "--edit-key", self.keys[label], data=answers)

    def verdict(self, document: bytes) -> set[str]:
        """Return the status words of ``gpg --verify``, such as GOODSIG."""
        status = self.run("--batch", "--status-fd", "1", "--verify", "-", data=document, check=False).decode()
        return {line.split()[1] for line in status.splitlines() if line.startswith("[GNUPG:]")}


@dataclass
class Matrix:
    """Signed documents by name, exported keys by name, and the gpg that made them."""

    gpg: Gpg
    documents: dict[str, bytes]
    keys: dict[str, bytes]
    before_revocation: bytes
    before_extension: bytes


@pytest.fixture(scope="session")
def gpg_home() -> Iterator[Gpg]:
    if shutil.which("gpg") is None:
        pytest.skip("gpg is not installed")
    # Sockets of the agent need a short path, which pytest's own temporary directories do not have.
    with tempfile.TemporaryDirectory(prefix="cf-gpg-", dir="/tmp") as directory:
        gpg = Gpg(Path(directory))
        yield gpg
        subprocess.run(["gpgconf", "--homedir", directory, "--kill", "all"], check=False, capture_output=True)


@pytest.fixture(scope="session")
def matrix(gpg_home: Gpg) -> Matrix:
    """Make one document and one key of each kind."""
    gpg = gpg_home
    documents = {}
    gpg.generate("rsa4096", "rsa4096")
    gpg.generate("ed25519", "ed25519")
    gpg.generate("weak-key", "rsa1024")
    gpg.generate("dsa", "dsa2048")
    gpg.generate("rsa2048", "rsa2048")
    gpg.generate("nistp256", "nistp256")
    gpg.generate("expired", "ed25519", expire="20200201T000000", at="20200101T000000!")
    gpg.generate("revoked", "ed25519")
    for label, expire, at in (
        ("subkey", "never", None),
        ("subkey-expired", "20200201T000000", "20200101T000000!"),
        ("subkey-revoked", "never", None),
    ):
        gpg.generate(label, "ed25519", "cert", at=at)
        gpg.run("--batch", "--quick-add-key", gpg.keys[label], "ed25519", "sign", expire, at=at)
    gpg.generate("expiry extended", "ed25519", expire="20200201T000000", at="20200101T000000!")
    for label in gpg.keys:
        documents[label] = gpg.sign(label, at=LONG_AGO if "expir" in label else None)
    documents["unknown"] = documents["ed25519"]
    documents["two signatures"] = gpg.sign("rsa4096", "ed25519")
    documents["weak digest"] = gpg.sign("rsa4096", extra=("--digest-algo", "SHA1"))
    for digest in ("MD5", "RIPEMD160"):
        extra = ("--allow-weak-digest-algos", "--digest-algo", digest)
        documents[digest.lower()] = gpg.sign("rsa4096", extra=extra)
    documents["sha256"] = gpg.sign("rsa4096", extra=("--digest-algo", "SHA256"))
    documents["signature expires"] = gpg.sign("ed25519", extra=("--default-sig-expire", "1d"))
    later = time.strftime("%Y%m%dT%H%M%S!", time.gmtime(time.time() + 864000))
    documents["future"] = gpg.sign("ed25519", at=later)
    documents["tampered"] = documents["rsa4096"].replace(b'"version":3', b'"version":4')
    documents["trailing space"] = documents["rsa4096"].replace(b'"version":3,', b'"version":3, ')
    documents["text before"] = b"x\n" + documents["rsa4096"]
    documents["text after"] = documents["rsa4096"] + b"x\n"
    documents["two blocks"] = documents["rsa4096"] * 2
    documents["hash line"] = documents["rsa4096"].replace(b"Hash: SHA512", b"Hash: SHA256")
    documents["dashes"] = gpg.sign("rsa4096", data=b"-----BEGIN\n- a\nFrom b\nc\n")
    short = gpg.export("expiry extended")
    gpg.run("--batch", "--quick-set-expire", gpg.keys["expiry extended"], "0")
    before = gpg.export("revoked")
    gpg.revoke("revoked")
    gpg.revoke_subkey("subkey-revoked")
    return Matrix(gpg, documents, {label: gpg.export(label) for label in gpg.keys}, before, short)
