"""The engine against mirrors and networks that misbehave: the right bytes, or a clear error and nothing visible."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import anyio
import pytest
from tests.faults.mirror import Package, unsigned, write_package
from tests.faults.run import QUICK, Naps, Recorder, fetch, final_files, leftovers
from tests.faults.server import Fault, FaultServer

from cachefetch.errors import (
    AccessError,
    BindingError,
    CachefetchError,
    DigestError,
    FormatError,
    MirrorError,
    MissingError,
    NetworkError,
    OfflineError,
    SignatureMissingError,
    TruncatedError,
)
from cachefetch.fetch.events import Planned, Retrying, Started
from cachefetch.fetch.execute import new_run
from cachefetch.fetch.limits import Limits
from cachefetch.fetch.model import Source
from cachefetch.fetch.resume import PartInfo
from cachefetch.fetch.retry import Clockwork
from cachefetch.fetch.store.cas import Store
from cachefetch.fetch.transports import Transports
from cachefetch.fetch.verify.openpgp import Keyring
from cachefetch.fetch.verify.policy import SignaturePolicy

SIZE = 300_000


@pytest.fixture
def root(tmp_path: Path) -> str:
    return str(tmp_path / "mirror")


@pytest.fixture
def package(root: str) -> Package:
    return write_package(root, "demo", SIZE)


@pytest.fixture
def server(root: str, package: Package) -> Iterator[FaultServer]:
    with FaultServer(root) as started:
        yield started


@pytest.fixture
def store(tmp_path: Path) -> str:
    return str(tmp_path / "store")


def assert_only_right_files(store: str) -> None:
    for digest, data in final_files(store).items():
        assert hashlib.sha256(data).hexdigest() == digest


RECOVERS = {
    "cut": [Fault(cut_after=100_000)],
    "cut twice": [Fault(cut_after=100_000), Fault(cut_after=50_000)],
    "cut before the first byte": [Fault(cut_after=0)],
    "reset": [Fault(reset_after=100_000)],
    "stall": [Fault(stall_after=100_000)],
    "500": [Fault(status=500)],
    "502": [Fault(status=502)],
    "500 three times": [Fault(status=500)] * 3,
    "503 with Retry-After": [Fault(status=503, headers=(("Retry-After", "7"),))],
    "429": [Fault(status=429)],
    "promises more than it sends": [Fault(cut_after=SIZE - 1)],
    "ends without a length": [Fault(no_length=True, cut_after=1000)],
    "no length at all": [Fault(no_length=True)],
    "wrong range": [Fault(cut_after=100_000), Fault(range_shift=5)],
    "range ignored": [Fault(cut_after=100_000), Fault(ignore_range=True)],
    "validator changed": [Fault(cut_after=100_000, etag='"old"')],
    "416 for a resume": [Fault(cut_after=100_000), Fault(status=416)],
    "redirect": [Fault(location="?again")],
}


#: Payloads up to the limit go the quick way first (`fetch.quick`), larger ones the general way alone.
WAYS = {"quick": replace(QUICK, small_bytes=SIZE), "general": replace(QUICK, small_bytes=0)}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", RECOVERS)
def test_payload_arrives_right_in_spite_of(
    name: str, way: str, server: FaultServer, package: Package, store: str
) -> None:
    server.script("/" + package.blob, *RECOVERS[name])
    receipt = fetch([package.wanted(unsigned("m", server.url))], store, limits=WAYS[way])
    assert final_files(store)[package.sha256] == package.payload
    assert receipt.items[0].origin == "network"
    assert not receipt.warnings
    assert leftovers(store) == []


def test_a_cut_transfer_continues_where_it_stopped(server: FaultServer, package: Package, store: str) -> None:
    server.script("/" + package.blob, Fault(cut_after=200_000))
    recorder = Recorder()
    receipt = fetch([package.wanted(unsigned("m", server.url))], store, reporter=recorder)
    asked = [r.headers for r in server.requests if r.path == "/" + package.blob]
    assert asked[1]["range"] == "bytes=200000-"
    assert asked[1]["if-range"].startswith('"')
    assert [event.offset for event in recorder.of(Started)] == [0, 200_000]
    assert [event.attempt for event in recorder.of(Retrying)] == [1]
    manifest, spec = (
        os.path.getsize(os.path.join(server.root, p)) for p in (package.manifest, package.spec_blob)
    )
    assert receipt.network_bytes == SIZE + manifest + spec


def test_a_part_of_an_earlier_run_is_continued(server: FaultServer, package: Package, store: str) -> None:
    server.script("/" + package.blob, Fault(cut_after=120_000))
    with pytest.raises(NetworkError):
        fetch([package.wanted(unsigned("m", server.url))], store, limits=Limits(stall_s=1, attempts=1))
    assert package.sha256 not in final_files(store)
    assert f"{package.sha256}.part" in leftovers(store)
    before = len(server.requests)
    fetch([package.wanted(unsigned("m", server.url))], store)
    assert [r.headers.get("range") for r in server.requests[before:]] == ["bytes=120000-"]
    assert final_files(store)[package.sha256] == package.payload
    assert leftovers(store) == []


def test_a_damaged_part_is_not_blamed_on_the_mirror(
    server: FaultServer, package: Package, store: str
) -> None:
    partial = os.path.join(store, "partial")
    os.makedirs(partial)
    with open(os.path.join(partial, f"{package.sha256}.part"), "wb") as file:
        file.write(b"\0" * 1000)
    info = PartInfo(f"{server.url}/{package.blob}", None, package.sha256, SIZE)
    with open(os.path.join(partial, f"{package.sha256}.json"), "wb") as file:
        file.write(info.encode())
    receipt = fetch([package.wanted(unsigned("m", server.url))], store)
    assert final_files(store)[package.sha256] == package.payload
    assert not receipt.warnings
    asked = [r.headers.get("range") for r in server.requests if r.path == "/" + package.blob]
    assert asked == ["bytes=1000-", None]


REFUSED: dict[str, tuple[Fault, type[CachefetchError], int]] = {
    "corrupt byte": (Fault(corrupt_at=1234, times=0), DigestError, 6),
    "shorter object": (Fault(length=SIZE - 10, times=0), TruncatedError, 6),
    "longer object": (Fault(extra=b"x", times=0), TruncatedError, 6),
    "longer without length": (Fault(extra=b"x", no_length=True, times=0), TruncatedError, 6),
    "404": (Fault(status=404, times=0), MissingError, 8),
    "410": (Fault(status=410, times=0), MissingError, 8),
    "401": (Fault(status=401, times=0), AccessError, 8),
    "403": (Fault(status=403, times=0), AccessError, 8),
    "400": (Fault(status=400, times=0), MirrorError, 8),
    "redirect loop": (Fault(location="?loop", times=0), MirrorError, 8),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", REFUSED)
def test_not_retried_and_nothing_visible_after(
    name: str, way: str, server: FaultServer, package: Package, store: str
) -> None:
    fault, kind, code = REFUSED[name]
    server.script("/" + package.blob, fault)
    naps = Naps()
    with pytest.raises(kind) as caught:
        fetch([package.wanted(unsigned("lab", server.url))], store, naps=naps, limits=WAYS[way])
    assert caught.value.exit_code == code
    assert "mirror lab" in caught.value.message
    assert "demo@1.0" in caught.value.message
    assert naps.taken == []
    loop = QUICK.redirects + 1 if "loop" in name else 1
    handed_back = way == "quick" and name in ("redirect loop", "longer without length")
    assert server.count(package.blob) == loop + handed_back
    assert package.sha256 not in final_files(store)
    assert leftovers(store) == []


def test_encoded_payload_is_refused_and_the_message_says_why(
    server: FaultServer, package: Package, store: str
) -> None:
    server.script("/" + package.blob, Fault(gzip=True, times=0))
    with pytest.raises((DigestError, TruncatedError), match="encoded the body as 'gzip'"):
        fetch([package.wanted(unsigned("m", server.url))], store)
    assert package.sha256 not in final_files(store)


def test_encoded_payload_that_got_smaller_is_not_asked_for_again(
    server: FaultServer, root: str, store: str
) -> None:
    payload = bytes(SIZE)
    package = write_package(root, "zeros", SIZE, payload=payload)
    server.script("/" + package.blob, Fault(gzip=True, times=0))
    with pytest.raises((DigestError, TruncatedError), match="encoded the body as 'gzip'"):
        fetch([package.wanted(unsigned("m", server.url))], store)
    assert server.count(package.blob) <= 2  # the thin transport hands it over


def test_encoded_manifest_is_read(server: FaultServer, package: Package, store: str) -> None:
    server.script("/" + package.manifest, Fault(gzip=True))
    fetch([package.wanted(unsigned("m", server.url))], store)
    assert final_files(store)[package.sha256] == package.payload


def test_gives_up_after_the_last_attempt(server: FaultServer, package: Package, store: str) -> None:
    server.script("/" + package.blob, Fault(status=503, times=0))
    naps = Naps()
    with pytest.raises(NetworkError, match="503"):
        fetch([package.wanted(unsigned("m", server.url))], store, naps=naps)
    assert server.count(package.blob) == QUICK.attempts
    assert len(naps.taken) == QUICK.attempts - 1
    assert naps.taken == [2.5, 5.0, 10.0, 20.0]  # half of 5 s, doubled each time


def test_a_pause_that_one_request_is_told_holds_for_all(tmp_path: Path) -> None:
    """Nobody asks the host before it is over, on whatever connection."""
    packages = [write_package(str(tmp_path / "mirror"), f"p{n}", 300_000 + n) for n in range(30)]
    with FaultServer(str(tmp_path / "mirror")) as server:
        server.script("/" + packages[3].manifest, Fault(status=429, headers=(("Retry-After", "2"),)))
        wanted = [p.wanted(unsigned("m", server.url)) for p in packages]
        fetch(wanted, tmp_path / "store", limits=Limits(), clockwork=Clockwork())
        told, again = (r.at for r in server.requests if r.path == "/" + packages[3].manifest)
        # What was on its way when the refusal came has a second to arrive.
        meanwhile = [r.path for r in server.requests if told + 1 < r.at < told + 2]
    assert again >= told + 2
    assert meanwhile == []
    assert len(final_files(tmp_path / "store")) == 60


def test_retry_after_is_a_floor(server: FaultServer, package: Package, store: str) -> None:
    server.script("/" + package.manifest, Fault(status=429, headers=(("Retry-After", "33"),)))
    naps = Naps()
    fetch([package.wanted(unsigned("m", server.url))], store, naps=naps)
    assert naps.taken == [pytest.approx(33 * 1.05)]


def test_too_much_patience_is_not_given(server: FaultServer, package: Package, store: str) -> None:
    server.script("/" + package.manifest, Fault(status=503, headers=(("Retry-After", "86400"),), times=0))
    with pytest.raises(NetworkError):
        fetch([package.wanted(unsigned("m", server.url))], store)
    assert server.count(package.manifest) == 1


def test_a_drip_counts_as_a_stall(server: FaultServer, package: Package, store: str) -> None:
    server.script("/" + package.blob, Fault(drip=0.1))
    recorder = Recorder()
    fetch([package.wanted(unsigned("m", server.url))], store, reporter=recorder)
    assert "less than 1024 bytes a second" in recorder.of(Retrying)[0].reason
    assert final_files(store)[package.sha256] == package.payload


@pytest.mark.parametrize("connections", [1, 3])
def test_connections_that_are_reset_at_accept(
    connections: int, server: FaultServer, package: Package, store: str
) -> None:
    server.reset_at_accept(connections)
    recorder = Recorder()
    fetch([package.wanted(unsigned("m", server.url))], store, reporter=recorder)
    assert final_files(store)[package.sha256] == package.payload
    assert len(recorder.of(Retrying)) == connections


def test_a_dead_port_is_a_network_error(package: Package, store: str) -> None:
    with FaultServer(".") as gone:
        url = gone.url
    with pytest.raises(NetworkError) as caught:
        fetch([package.wanted(unsigned("m", url))], store)
    assert "no connection" in caught.value.message


# --- several mirrors -------------------------------------------------------------------------------------------


def test_next_mirror_serves_what_one_has_wrong_and_the_receipt_warns(
    root: str, server: FaultServer, package: Package, store: str
) -> None:
    server.script("/" + package.blob, Fault(corrupt_at=7, times=0))
    receipt = fetch([package.wanted(unsigned("bad", server.url), unsigned("good", root))], store)
    assert receipt.items[0].mirror == "good"
    (warning,) = receipt.to_dict()["warnings"]
    assert (warning["code"], warning["mirror"]) == ("digest-mismatch", "bad")
    assert package.blob in warning["message"]
    assert server.count(package.blob) == 1


def test_absent_in_one_mirror_is_no_warning(
    root: str, server: FaultServer, package: Package, store: str
) -> None:
    server.script("/" + package.manifest, Fault(status=404, times=0))
    receipt = fetch([package.wanted(unsigned("a", server.url), unsigned("b", root))], store)
    assert receipt.items[0].mirror == "b"
    assert not receipt.warnings


def test_rebuilt_binary_of_another_mirror_is_taken_with_its_own_manifest(
    tmp_path: Path, server: FaultServer, package: Package, store: str
) -> None:
    other = write_package(str(tmp_path / "other"), "demo", 5_000, seed=1)
    assert other.hash == package.hash
    assert other.sha256 != package.sha256
    server.script("/" + package.blob, Fault(corrupt_at=7, times=0))
    receipt = fetch(
        [package.wanted(unsigned("bad", server.url), unsigned("rebuilt", str(tmp_path / "other")))], store
    )
    assert receipt.items[0].sha256 == other.sha256
    assert [w.mirror for w in receipt.warnings] == ["bad"]
    assert package.sha256 not in final_files(store)
    again = fetch(
        [package.wanted(unsigned("bad", server.url), unsigned("rebuilt", str(tmp_path / "other")))], store
    )
    assert (again.items[0].origin, again.items[0].sha256) == ("store", other.sha256)


def test_the_most_serious_failure_is_raised_and_names_every_mirror(
    root: str, server: FaultServer, package: Package, store: str
) -> None:
    strict = Source("strict", shutil.copytree(root, root + "-strict"), SignaturePolicy(), Keyring())
    os.unlink(os.path.join(strict.url, package.blob))
    server.script("/" + package.blob, Fault(corrupt_at=7, times=0))
    with pytest.raises(SignatureMissingError) as caught:
        fetch([package.wanted(unsigned("empty", root + "-no"), strict, unsigned("bad", server.url))], store)
    assert caught.value.exit_code == 7
    assert [m["mirror"] for m in caught.value.context["mirrors"]][:2] == ["empty", "strict"]
    assert "mirror bad" in caught.value.message


def test_network_outranks_not_found(root: str, server: FaultServer, package: Package, store: str) -> None:
    server.script("*", Fault(status=500, times=0))
    with pytest.raises(NetworkError):
        fetch([package.wanted(unsigned("no", root + "-no"), unsigned("down", server.url))], store)


# --- documents that lie ----------------------------------------------------------------------------------------


def test_manifest_of_another_package_is_refused(root: str, package: Package, store: str) -> None:
    other = write_package(root, "other", 100)
    shutil.copy(os.path.join(root, other.manifest), os.path.join(root, package.manifest))
    with pytest.raises(BindingError, match=r"other@1\.0") as caught:
        fetch([package.wanted(unsigned("m", root))], store)
    assert caught.value.exit_code == 6
    assert final_files(store) == {}
    assert not os.path.exists(os.path.join(store, "manifests"))


def test_changed_spec_blob_is_refused(server: FaultServer, package: Package, store: str) -> None:
    server.script("/" + package.spec_blob, Fault(corrupt_at=40, times=0))
    with pytest.raises(DigestError):
        fetch([package.wanted(unsigned("m", server.url))], store)
    assert server.count(package.spec_blob) == 1
    assert final_files(store) == {}


def test_html_page_instead_of_a_manifest(root: str, package: Package, store: str) -> None:
    with open(os.path.join(root, package.manifest), "w") as file:
        file.write("<html>Welcome to the login page</html>")
    with pytest.raises(FormatError):
        fetch([package.wanted(unsigned("m", root))], store)


def test_huge_manifest_is_not_read_to_its_end(root: str, package: Package, store: str) -> None:
    with open(os.path.join(root, package.manifest), "wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(FormatError, match=r"limit|more than"):
        fetch([package.wanted(unsigned("m", root))], store)


# --- closures, store, offline ----------------------------------------------------------------------------------


def test_a_missing_package_stops_before_the_first_payload_byte(
    server: FaultServer, package: Package, store: str
) -> None:
    absent = write_package(server.root, "absent", 10)
    os.unlink(os.path.join(server.root, absent.manifest))
    source = unsigned("m", server.url)
    with pytest.raises(MissingError) as caught:
        fetch([package.wanted(source), absent.wanted(source)], store)
    assert caught.value.missing == (("absent", absent.hash),)
    assert server.count(package.blob) == 0
    fetch([package.wanted(source)], store)
    assert server.count(package.manifest) == 1  # what was proven is kept


def test_second_run_moves_nothing_and_says_the_same(
    server: FaultServer, package: Package, store: str
) -> None:
    wanted = [package.wanted(unsigned("m", server.url))]
    first = fetch(wanted, store)
    asked = len(server.requests)
    recorder = Recorder()
    second = fetch(wanted, store, reporter=recorder)
    assert len(server.requests) == asked
    assert second.network_bytes == 0
    assert second.items[0].origin == "store"
    assert second.to_dict()["items"][0]["verified"] == first.to_dict()["items"][0]["verified"]
    (planned,) = recorder.of(Planned)
    assert (planned.packages, planned.reused, planned.get_bytes) == (1, 1, 0)


def test_file_mirror_counts_no_network_bytes(root: str, package: Package, store: str) -> None:
    receipt = fetch([package.wanted(unsigned("m", root))], store)
    assert receipt.network_bytes == 0
    assert receipt.items[0].origin == "network"


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty"])
def test_damaged_stored_blob_is_found_and_fetched_again(
    damage: str, root: str, package: Package, store: str
) -> None:
    wanted = [package.wanted(unsigned("m", root))]
    path = fetch(wanted, store).items[0].path
    os.chmod(path, 0o644)
    data = bytearray(package.payload)
    if damage == "flip":
        data[99] ^= 1
    with open(path, "wb") as file:
        file.write(data if damage == "flip" else data[:5000] if damage == "truncate" else b"")
    receipt = fetch(wanted, store)
    assert [w.code for w in receipt.warnings] == ["store-damaged"]
    assert final_files(store)[package.sha256] == package.payload


def test_offline_works_from_the_store_and_needs_the_same_trust(
    root: str, server: FaultServer, package: Package, store: str
) -> None:
    source = unsigned("m", server.url)
    fetch([package.wanted(source)], store)
    asked = len(server.requests)
    receipt = fetch([package.wanted(source)], store, offline=True)
    assert receipt.items[0].origin == "store"
    strict = Source("m", server.url, SignaturePolicy(), Keyring())
    with pytest.raises(SignatureMissingError):
        fetch([package.wanted(strict)], store, offline=True)
    assert len(server.requests) == asked


@pytest.fixture
def no_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    def trap(*args: object, **options: object) -> None:
        raise AssertionError(f"a connection was tried: {args}")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, trap)
    monkeypatch.setattr(socket, "getaddrinfo", trap)


@pytest.mark.usefixtures("no_connections")
def test_offline_opens_no_connection(root: str, package: Package, store: str) -> None:
    remote = unsigned("remote", "https://example.invalid/cache")
    fetch([package.wanted(remote, unsigned("local", root))], store, offline=True)
    assert fetch([package.wanted(remote)], store, offline=True).items[0].origin == "store"
    with pytest.raises(AssertionError, match="a connection was tried"):
        fetch([package.wanted(remote)], store + "2")  # the trap works


def test_a_cancelled_fetch_leaves_only_what_can_be_continued(root: str, package: Package, store: str) -> None:
    async def main(url: str) -> bool:
        transports = Transports(QUICK)
        with anyio.move_on_after(0.6) as scope:
            wanted = [package.wanted(unsigned("m", url))]
            await new_run(wanted, store=Store(store), transports=transports, limits=QUICK).finish()
        await transports.aclose()
        return scope.cancelled_caught

    with FaultServer(root, rate=200_000) as server:
        assert anyio.run(main, server.url)
        assert leftovers(store) == [f"{package.sha256}.json", f"{package.sha256}.part"]
        assert package.sha256 not in final_files(store)
        server.rate = 0
        fetch([package.wanted(unsigned("m", server.url))], store)
        assert server.requests[-1].headers["range"].startswith("bytes=")
    assert final_files(store)[package.sha256] == package.payload
    assert leftovers(store) == []


def test_offline_names_what_is_missing(server: FaultServer, package: Package, store: str) -> None:
    with pytest.raises(OfflineError, match=r"demo@1\.0") as caught:
        fetch([package.wanted(unsigned("m", server.url))], store, offline=True)
    assert caught.value.exit_code == 8
    assert not server.requests


def test_offline_reads_directories(root: str, package: Package, store: str) -> None:
    receipt = fetch([package.wanted(unsigned("m", root))], store, offline=True)
    assert receipt.items[0].size == SIZE


def test_the_same_package_twice_is_fetched_once(server: FaultServer, package: Package, store: str) -> None:
    wanted = package.wanted(unsigned("m", server.url))
    receipt = fetch([wanted, wanted], store)
    assert len(receipt.items) == 2
    assert server.count(package.blob) == 1


def test_connections_to_one_host_stay_below_the_limit(tmp_path: Path, store: str) -> None:
    root = str(tmp_path / "many")
    packages = [write_package(root, f"p{i}", 20_000) for i in range(30)]
    with FaultServer(root) as server:
        for package in packages:
            server.script("/" + package.blob, Fault(delay=0.03))
        limits = Limits(metadata_in_flight=3, blob_connections=6, blobs_per_host=4, stall_s=5)
        receipt = fetch([p.wanted(unsigned("m", server.url)) for p in packages], store, limits=limits)
        assert 2 <= server.most_at_once <= 4
    assert {i.sha256 for i in receipt.items} == {p.sha256 for p in packages}


def test_other_packages_are_kept_when_one_fails(tmp_path: Path, store: str) -> None:
    root = str(tmp_path / "some")
    packages = [write_package(root, f"p{i}", 20_000) for i in range(5)]
    with open(os.path.join(root, packages[2].blob), "r+b") as file:
        file.write(b"\0\0\0\0\0\0\0\0")
    with pytest.raises(DigestError, match="p2@") as caught:
        fetch([p.wanted(unsigned("m", root)) for p in packages], store)
    assert [f["name"] for f in caught.value.context["failures"]] == ["p2"]
    assert {p.sha256 for p in packages} - set(final_files(store)) == {packages[2].sha256}
    json.dumps(caught.value.to_dict())


def test_links_out_as_name_version_hash(root: str, package: Package, store: str, tmp_path: Path) -> None:
    to = tmp_path / "out"
    receipt = fetch([package.wanted(unsigned("m", root))], store, to=str(to))
    path = to / f"demo-1.0-{package.hash}.spack"
    assert receipt.items[0].path == str(path)
    assert path.read_bytes() == package.payload
    assert os.listdir(to) == [path.name]
    assert_only_right_files(store)
