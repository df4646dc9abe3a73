"""The engine over the mirror that real Spack signed: from a directory and from a real nginx."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import anyio
import pytest
import trustme
from tests.faults.run import QUICK, Naps, Recorder, fetch, final_files, leftovers
from tests.services.nginx import Nginx

from cachefetch.errors import (
    AccessError,
    BindingError,
    DigestError,
    KeyNotTrustedError,
    MirrorError,
    SignatureInvalidError,
    SignatureMissingError,
    TruncatedError,
)
from cachefetch.fetch.events import Finished, Stored, Verified
from cachefetch.fetch.limits import DEFAULT_LIMITS
from cachefetch.fetch.model import Source, Wanted
from cachefetch.fetch.verify.openpgp import Keyring
from cachefetch.fetch.verify.policy import SignaturePolicy

FIXTURES = Path(__file__).parent.parent / "data" / "fixtures"
SIGNED = FIXTURES / "v3-signed"
UNSIGNED = FIXTURES / "v3-unsigned"


def expected(mirror: Path) -> list[dict[str, object]]:
    document = json.loads((mirror / "EXPECTED.json").read_text())
    return [spec for spec in document["specs"] if spec["artifact"]]


@pytest.fixture(scope="module")
def keyring() -> Keyring:
    path = FIXTURES / "keys" / "cachefetch-test.pub.asc"
    return Keyring.from_bytes(path.read_bytes(), what="test key")


def signed(url: str | Path, keyring: Keyring) -> Source:
    return Source("lab", str(url), SignaturePolicy(), keyring)


def all_of(mirror: Path, source: Source) -> list[Wanted]:
    return [Wanted(str(s["name"]), str(s["version"]), str(s["hash"]), (source,)) for s in expected(mirror)]


def check(items: list[dict[str, object]], mirror: Path, signature: str) -> None:
    by_hash = {str(spec["hash"]): spec["artifact"] for spec in expected(mirror)}
    assert len(items) == len(by_hash)
    for item in items:
        artifact = by_hash[str(item["hash"])]
        assert isinstance(artifact, dict)
        assert (item["sha256"], item["size"]) == (artifact["tarball_sha256"], artifact["tarball_size"])
        data = Path(str(item["path"])).read_bytes()
        assert hashlib.sha256(data).hexdigest() == item["sha256"]
        verified = item["verified"]
        assert isinstance(verified, dict)
        assert verified["signature"] == signature


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[Nginx]:
    with Nginx(str(tmp_path / "nginx"), str(SIGNED)) as server:
        yield server


def test_every_signed_binary_from_a_directory(tmp_path: Path, keyring: Keyring) -> None:
    recorder = Recorder()
    receipt = fetch(all_of(SIGNED, signed(SIGNED, keyring)), tmp_path / "store", reporter=recorder)
    document = receipt.to_dict()
    check(document["items"], SIGNED, "good")
    assert document["network_bytes"] == 0
    assert {item["from"] for item in document["items"]} == {"network"}
    assert len(recorder.of(Verified)) == len(recorder.of(Stored)) == len(receipt.items)
    assert recorder.of(Finished)[0].packages == len(receipt.items)
    assert leftovers(tmp_path / "store") == []


def test_every_unsigned_binary_when_the_policy_allows(tmp_path: Path) -> None:
    source = Source("open", str(UNSIGNED), SignaturePolicy("none"), Keyring())
    receipt = fetch(all_of(UNSIGNED, source), tmp_path / "store")
    check(receipt.to_dict()["items"], UNSIGNED, "not-required")


@pytest.mark.service
def test_every_signed_binary_from_nginx_then_nothing_then_offline(
    tmp_path: Path, keyring: Keyring, nginx: Nginx
) -> None:
    wanted = all_of(SIGNED, signed(nginx.url, keyring))
    first = fetch(wanted, tmp_path / "store", to=str(tmp_path / "out")).to_dict()
    check(first["items"], SIGNED, "good")
    assert first["network_bytes"] >= sum(item["size"] for item in first["items"])
    asked = len(nginx.requests())
    assert asked == 3 * len(wanted)
    for offline in (False, True):
        again = fetch(wanted, tmp_path / "store", to=str(tmp_path / "out"), offline=offline).to_dict()
        assert again["network_bytes"] == 0
        assert {item["from"] for item in again["items"]} == {"store"}
        assert [i["verified"] for i in again["items"]] == [i["verified"] for i in first["items"]]
    assert len(nginx.requests()) == asked
    names = sorted(os.listdir(tmp_path / "out"))
    assert names == sorted(f"{w.name}-{w.version}-{w.hash}.spack" for w in wanted)


@pytest.mark.service
def test_manifests_are_kept_byte_for_byte(tmp_path: Path, keyring: Keyring, nginx: Nginx) -> None:
    fetch(all_of(SIGNED, signed(nginx.url, keyring)), tmp_path / "store")
    for spec in expected(SIGNED):
        stem = f"{spec['name']}-{spec['version']}-{spec['hash']}"
        kept = (tmp_path / "store" / "manifests" / stem).read_bytes()
        assert kept == (SIGNED / f"v3/manifests/spec/{spec['name']}/{stem}.spec.manifest.json").read_bytes()


@pytest.mark.service
def test_a_part_is_continued_from_nginx(tmp_path: Path, keyring: Keyring, nginx: Nginx) -> None:
    biggest = max(expected(SIGNED), key=lambda spec: spec["artifact"]["tarball_size"])  # type: ignore[index]  # JSON
    artifact = biggest["artifact"]
    assert isinstance(artifact, dict)
    sha256, size = artifact["tarball_sha256"], artifact["tarball_size"]
    partial = tmp_path / "store" / "partial"
    partial.mkdir(parents=True)
    data = (SIGNED / "blobs" / "sha256" / sha256[:2] / sha256).read_bytes()
    (partial / f"{sha256}.part").write_bytes(data[:1000])
    info = {"url": "elsewhere", "etag": None, "sha256": sha256, "size": size}
    (partial / f"{sha256}.json").write_text(json.dumps(info))
    wanted = Wanted(
        str(biggest["name"]), str(biggest["version"]), str(biggest["hash"]), (signed(nginx.url, keyring),)
    )
    fetch([wanted], tmp_path / "store")
    assert final_files(tmp_path / "store")[sha256] == data
    (line,) = [line for line in nginx.requests() if sha256 in line]
    assert line.split()[3:5] == ["206", str(size - 1000)]


@pytest.mark.service
def test_basic_auth_of_the_url(tmp_path: Path, keyring: Keyring) -> None:
    (tmp_path / "users").write_text("ann:{PLAIN}s3cret/@\n")
    guard = f'auth_basic "lab"; auth_basic_user_file {tmp_path}/users;'
    with Nginx(str(tmp_path / "nginx"), str(SIGNED), server=guard) as server:
        url = server.url.replace("://", "://ann:s3cret%2F%40@")
        wanted = all_of(SIGNED, signed(url, keyring))[:2]
        assert len(fetch(wanted, tmp_path / "store").items) == 2
        with pytest.raises(AccessError) as caught:
            fetch(
                all_of(SIGNED, signed(server.url.replace("://", "://ann:wr0ng@"), keyring))[:1],
                tmp_path / "b",
            )
        assert "wr0ng" not in json.dumps(caught.value.to_dict())


@pytest.mark.service
def test_tls_with_a_known_and_an_unknown_authority(
    tmp_path: Path, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    pem = str(tmp_path / "server.pem")
    with Nginx(str(tmp_path / "nginx"), str(SIGNED), tls=(pem, pem)) as server:
        wanted = all_of(SIGNED, signed(server.url, keyring))[:3]
        with pytest.raises(MirrorError, match="TLS") as caught:
            fetch(wanted, tmp_path / "store")
        assert caught.value.code == "mirror"
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        assert len(fetch(wanted, tmp_path / "store").items) == 3


@pytest.mark.service
def test_a_server_that_prefers_http2(
    tmp_path: Path, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    pem = str(tmp_path / "server.pem")
    with Nginx(str(tmp_path / "nginx"), str(SIGNED), tls=(pem, pem), http2=True) as server:
        wanted = all_of(SIGNED, signed(server.url, keyring))
        assert len(fetch(wanted, tmp_path / "store").items) == len(wanted)
        assert len(server.requests()) == 3 * len(wanted)


@pytest.mark.service
def test_a_server_that_limits_requests(tmp_path: Path, keyring: Keyring) -> None:
    zone = "limit_req_zone $server_addr zone=all:1m rate=50r/s; limit_req_status 429;"
    with Nginx(
        str(tmp_path / "nginx"), str(SIGNED), http=zone, server="limit_req zone=all burst=2;"
    ) as server:
        wanted = all_of(SIGNED, signed(server.url, keyring))
        receipt = fetch(wanted, tmp_path / "store", limits=replace(QUICK, attempts=60), naps=Naps())
        assert len(receipt.items) == len(wanted)
        refused = [line for line in server.requests() if " 429 " in line]
        assert refused, "the limit was never met"


class Waits(Naps):
    """Waits that take as long as they say."""

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)


@pytest.mark.service
def test_a_server_that_limits_requests_refuses_few_of_them(tmp_path: Path, keyring: Keyring) -> None:
    zone = "limit_req_zone $server_addr zone=all:1m rate=60r/s; limit_req_status 429;"
    with Nginx(
        str(tmp_path / "nginx"), str(SIGNED), http=zone, server="limit_req zone=all burst=2 nodelay;"
    ) as server:
        wanted = all_of(SIGNED, signed(server.url, keyring))[:40]
        assert len(fetch(wanted, tmp_path / "store", limits=DEFAULT_LIMITS, naps=Waits()).items) == len(
            wanted
        )
        requests = server.requests()
    refused = sum(" 429 " in line for line in requests)
    assert 0 < refused < 0.5 * (len(requests) - refused)


# --- the six ways to be wrong ------------------------------------------------------------------------------------


class Copy:
    """A writable copy of the signed mirror and one package of it."""

    def __init__(self, root: Path, keyring: Keyring) -> None:
        self.root, self.keyring = root, keyring
        shutil.copytree(SIGNED, root)
        self.spec, self.other = expected(SIGNED)[:2]

    @property
    def artifact(self) -> dict[str, str]:
        found = self.spec["artifact"]
        assert isinstance(found, dict)
        return found

    def manifest(self, spec: dict[str, object]) -> Path:
        artifact = spec["artifact"]
        assert isinstance(artifact, dict)
        return self.root / str(artifact["manifest"])

    def blob(self, kind: str) -> Path:
        digest = self.artifact[f"{kind}_sha256"]
        return self.root / "blobs" / "sha256" / digest[:2] / digest

    def wanted(self, keyring: Keyring | None = None) -> list[Wanted]:
        source = signed(self.root, self.keyring if keyring is None else keyring)
        return [Wanted(str(self.spec["name"]), str(self.spec["version"]), str(self.spec["hash"]), (source,))]


@pytest.fixture
def copy(tmp_path: Path, keyring: Keyring) -> Copy:
    return Copy(tmp_path / "copy", keyring)


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def tamper(copy: Copy, way: str) -> None:
    if way in ("tarball", "spec_blob"):
        flip(copy.blob(way), 100)
    elif way == "signed text":
        path = copy.manifest(copy.spec)
        path.write_bytes(path.read_bytes().replace(b'"contentLength":', b'"contentLength":1', 1))
    elif way == "swapped":
        shutil.copy(copy.manifest(copy.other), copy.manifest(copy.spec))
    elif way == "truncated":
        path = copy.blob("tarball")
        path.write_bytes(path.read_bytes()[:-1])
    elif way == "unsigned":
        text = copy.manifest(copy.spec).read_bytes()
        copy.manifest(copy.spec).write_bytes(text[text.index(b"{") : text.rindex(b"}") + 1])
    else:
        raise AssertionError(way)


@pytest.mark.parametrize(
    ("way", "kind", "code"),
    [
        ("tarball", DigestError, 6),
        ("spec_blob", DigestError, 6),
        ("signed text", SignatureInvalidError, 7),
        ("swapped", BindingError, 6),
        ("truncated", TruncatedError, 6),
        ("unsigned", SignatureMissingError, 7),
    ],
)
def test_tampering_is_refused_and_named(
    way: str, kind: type[Exception], code: int, copy: Copy, tmp_path: Path
) -> None:
    tamper(copy, way)
    with pytest.raises(kind) as caught:
        fetch(copy.wanted(), tmp_path / "store")
    error = caught.value
    assert getattr(error, "exit_code", None) == code
    assert "mirror lab" in str(error)
    assert str(copy.spec["name"]) in str(error)
    assert copy.artifact["tarball_sha256"] not in final_files(tmp_path / "store")


def test_another_key_is_refused(copy: Copy, tmp_path: Path) -> None:
    with pytest.raises(KeyNotTrustedError) as caught:
        fetch(copy.wanted(Keyring()), tmp_path / "store")
    assert caught.value.exit_code == 7
    assert "--key" in caught.value.hint
    assert final_files(tmp_path / "store") == {}


@pytest.mark.parametrize("way", ["tarball", "spec_blob", "signed text", "swapped", "truncated", "unsigned"])
def test_a_good_mirror_behind_a_tampered_one_serves_and_the_receipt_warns(
    way: str, copy: Copy, tmp_path: Path, keyring: Keyring
) -> None:
    tamper(copy, way)
    (wanted,) = copy.wanted()
    good = Source("good", str(SIGNED), SignaturePolicy(), keyring)
    both = Wanted(wanted.name, wanted.version, wanted.hash, (*wanted.sources, good))
    receipt = fetch([both], tmp_path / "store")
    assert receipt.items[0].mirror == "good"
    assert [warning.mirror for warning in receipt.warnings] == ["lab"]
    assert receipt.items[0].signature == "good"
