"""Each broken mirror has its own state and says why; beside a good one the request still succeeds."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import socket
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
import pytest
from tests.faults.server import Fault, FaultServer
from tests.functional.conftest import DEBIAN, FIXTURES, Done

import cachefetch
from cachefetch.errors import NoUsableMirrorError
from cachefetch.fetch.limits import DEFAULT_LIMITS

#: No test waits for the patience that real networks need.
QUICK = replace(DEFAULT_LIMITS, attempts=2, backoff_s=0.01, stall_s=0.4, connect_timeout_s=1.0)
GOOD = str(FIXTURES / "v3-unsigned")
INDEX = "v3/manifests/index/index.manifest.json"


def v3_mirror(place: Path, body: bytes, *, media: str = "db.v8+json", sha256: str | None = None) -> Path:
    """Write a v3 mirror with just an index."""
    digest = sha256 or hashlib.sha256(body).hexdigest()
    record = {
        "contentLength": len(body),
        "mediaType": f"application/vnd.spack.{media}",
        "compression": "none",
        "checksumAlgorithm": "sha256",
        "checksum": digest,
    }
    blob = place / "blobs/sha256" / digest[:2] / digest
    for path, data in ((place / INDEX, json.dumps({"version": 3, "data": [record]}).encode()), (blob, body)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (place / "v3/layout.json").write_text('{"signing": "gpg"}')
    return place


def real_index() -> bytes:
    return (FIXTURES / "v2-signed/build_cache/index.json").read_bytes()


def database(version: str) -> bytes:
    document = json.loads(real_index())
    document["database"]["version"] = version
    return json.dumps(document, separators=(",", ":")).encode()


def _none(place: Path) -> None:
    (place / "v3").mkdir(parents=True)
    (place / "v3/layout.json").write_text('{"signing": "gpg"}')


def _html(place: Path) -> None:
    place.mkdir(parents=True, exist_ok=True)
    (place / "index.html").write_text("<html>hello</html>")


def _cut(place: Path) -> None:
    v3_mirror(place, real_index()[:-100], sha256=hashlib.sha256(real_index()).hexdigest())


#: name: (how the mirror is made, its state, a part of the detail)
MADE: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "none": (_none, "no-index", "update-index"),
    "empty": (
        lambda p: v3_mirror(p, b'{"database":{"version":"8","installs":{}}}'),
        "empty",
        "",
    ),
    "html": (_html, "not-a-cache", "neither v3/ nor build_cache/"),
    "corrupt json": (
        lambda p: v3_mirror(p, real_index()[:-100]),
        "corrupt",
        "not a Spack index",
    ),
    "truncated": (_cut, "corrupt", "its manifest promises"),
    "wrong sha256": (lambda p: v3_mirror(p, real_index(), sha256="0" * 64), "corrupt", "hashes to"),
    "v2 only": (lambda p: shutil.copytree(FIXTURES / "v2-signed", p), "fresh", ""),
    "database 5": (lambda p: v3_mirror(p, database("5"), media="db.v8+json"), "too-old", "'5'"),
    "database 10": (lambda p: v3_mirror(p, database("10")), "too-new", "'10'"),
    "only newer media types": (lambda p: v3_mirror(p, database("10"), media="db.v10+json"), "too-new", "10"),
}
#: name: (how the server answers everything, state, a part of the detail)
ANSWERS: dict[str, tuple[Fault, str, str]] = {
    "401": (Fault(status=401, times=0), "unauthorized", "401"),
    "403": (Fault(status=403, times=0), "forbidden", "403"),
    "hanging": (Fault(delay=30, times=0), "unreachable", "time"),
    "redirect loop": (Fault(location="/again", times=0), "unreachable", "redirects"),
    "5xx": (Fault(status=502, times=0), "unreachable", "502"),
}


def states(*mirrors: str) -> list[Any]:
    with cachefetch.Client(mirrors, limits=QUICK) as client:
        try:
            return [state.to_dict() for state in client.update()]
        except NoUsableMirrorError as error:
            found: list[Any] = error.context["mirrors"]
            return found


@pytest.mark.parametrize("over_http", [False, True], ids=["directory", "http"])
@pytest.mark.parametrize("case", MADE)
def test_what_a_mirror_is_shows_in_its_state(case: str, over_http: bool, tmp_path: Path) -> None:
    make, state, detail = MADE[case]
    make(tmp_path / "mirror")
    with FaultServer(str(tmp_path)) as server:
        location = f"{server.url}/mirror" if over_http else str(tmp_path / "mirror")
        (found,) = states(location)
    assert found["state"] == state
    assert detail in found["detail"] or (case == "html" and not over_http)


@pytest.mark.parametrize("case", ANSWERS)
def test_how_a_server_answers_shows_in_the_state(case: str, tmp_path: Path) -> None:
    fault, state, detail = ANSWERS[case]
    with FaultServer(str(tmp_path)) as server:
        server.script("*", fault)
        (found,) = states(f"{server.url}/mirror")
        server.closing.set()
    assert found["state"] == state
    assert detail in found["detail"]


def test_a_refused_connection_is_unreachable() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
    (found,) = states(url)
    assert found["state"] == "unreachable"
    assert url in found["detail"]


@pytest.mark.parametrize("case", MADE)
def test_beside_a_good_mirror_the_request_succeeds(
    case: str, tmp_path: Path, cli: Callable[..., Done]
) -> None:
    make, state, _ = MADE[case]
    make(tmp_path / "mirror")
    done = cli("resolve", "zlib", "-m", GOOD, "-m", tmp_path / "mirror", *DEBIAN, "--json")
    assert done.code == 0, done.err
    assert done.json["mirrors"][1]["state"] == state


def test_a_mirror_that_goes_away_is_served_from_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CACHEFETCH_MAX_AGE", "0")
    shutil.copytree(FIXTURES / "v3-signed", tmp_path / "mirror")
    with FaultServer(str(tmp_path)) as server:
        url = f"{server.url}/mirror"
        assert states(url)[0]["state"] == "fresh"
    (found,) = states(url)
    assert (found["state"], found["specs"]) == ("stale-ok", 62)
    assert "no connection" in found["detail"]


@pytest.mark.parametrize("fixture", ["v3-signed", "v2-signed"])
def test_an_unchanged_index_costs_less_than_a_kilobyte(
    fixture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CACHEFETCH_MAX_AGE", "0")
    shutil.copytree(FIXTURES / fixture, tmp_path / "mirror")
    with FaultServer(str(tmp_path)) as server, Relay(server.url) as relay:
        assert states(f"{relay.url}/mirror")[0]["state"] == "fresh"
        before, relay.moved = len(server.requests), 0
        assert states(f"{relay.url}/mirror")[0]["state"] == "fresh"
        assert 0 < relay.moved < 1024
        again = [request.path for request in server.requests[before:]]
    moved = {"v3-signed": [f"/mirror/{INDEX}"], "v2-signed": ["/mirror/build_cache/index.json.hash"]}[fixture]
    assert [path for path in again if (tmp_path / path.lstrip("/")).exists()] == moved
    if fixture == "v3-signed":
        assert server.requests[before].headers["if-none-match"]


class Relay:
    """Passes bytes between a client and a server, and counts them in both directions."""

    def __init__(self, url: str) -> None:
        self._to = urlsplit(url)
        self.moved = 0

    def __enter__(self) -> Relay:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        """Serve one connection after the other, each until one side ends it."""
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                with near, socket.create_connection((self._to.hostname or "", self._to.port or 80)) as far:
                    copies = [
                        threading.Thread(target=self._copy, args=pair) for pair in ((near, far), (far, near))
                    ]
                    for copy in copies:
                        copy.start()
                    for copy in copies:
                        copy.join()

    def _copy(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(65536):
                self.moved += len(data)
                other.sendall(data)
        with contextlib.suppress(OSError):  # also after a reset, or the other direction would wait for ever
            other.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("made", ["none", "html"])
def test_a_server_without_an_index_is_not_asked_again_for_a_minute(made: str, tmp_path: Path) -> None:
    make, state, _ = MADE[made]
    make(tmp_path / "mirror")
    with FaultServer(str(tmp_path)) as server:
        url = f"{server.url}/mirror"
        (first,) = states(url)
        asked = len(server.requests)
        (again,) = states(url)
        assert (first["state"], again["state"], again["detail"]) == (state, state, first["detail"])
        assert len(server.requests) == asked
        with (
            cachefetch.Client([url], limits=QUICK, refresh=True) as client,
            pytest.raises(NoUsableMirrorError),
        ):
            client.update()
        assert len(server.requests) == 2 * asked
        v3_mirror(tmp_path / "mirror", real_index())  # and an index that comes is found
        with cachefetch.Client([url], limits=QUICK, refresh=True) as client:
            assert client.update()[0].state == "fresh"
        assert states(url)[0]["state"] == "fresh"


def test_sixteen_tasks_ask_a_server_without_an_index_once(tmp_path: Path) -> None:
    _none(tmp_path / "mirror")

    async def run(url: str) -> list[str]:
        found: list[str] = []

        async def one() -> None:
            async with cachefetch.AsyncClient([url, GOOD]) as client:
                found.append((await client.update())[0].state)

        async with anyio.create_task_group() as group:
            for _ in range(16):
                group.start_soon(one)
        return found

    with FaultServer(str(tmp_path)) as server:
        assert anyio.run(run, f"{server.url}/mirror") == ["no-index"] * 16
        assert server.count(INDEX) == 1


def test_an_empty_directory_is_a_mirror_with_nothing_in_it(tmp_path: Path, cli: Callable[..., Done]) -> None:
    (tmp_path / "empty").mkdir()
    done = cli("resolve", "zlib", "-m", tmp_path / "empty", *DEBIAN, "--json")
    assert (done.code, done.json["status"]) == (3, "no-candidate")
    assert done.json["mirrors"][0]["state"] == "empty"


def test_a_store_that_cannot_be_written_is_no_fault_of_the_mirror(
    tmp_path: Path, cli: Callable[..., Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(FIXTURES / "v3-signed", tmp_path / "mirror")
    (tmp_path / "file").write_text("no directory")
    monkeypatch.setenv("CACHEFETCH_CACHE_DIR", str(tmp_path / "file" / "cache"))
    with FaultServer(str(tmp_path)) as server:
        done = cli("resolve", "zlib", "-m", f"{server.url}/mirror", *DEBIAN, "--json")
    assert (done.code, done.json["schema"]) == (10, "cachefetch/error/1")
    assert str(tmp_path / "file") in done.json["message"]
    assert "CACHEFETCH_CACHE_DIR" in done.json["hint"]


def test_a_v2_index_whose_hash_file_lags_is_read_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CACHEFETCH_MAX_AGE", "0")
    shutil.copytree(FIXTURES / "v2-signed", tmp_path / "mirror")
    (tmp_path / "mirror/build_cache/index.json.hash").write_text("0" * 64)
    with FaultServer(str(tmp_path)) as server:
        for _ in range(2):
            (found,) = states(f"{server.url}/mirror")
            assert (found["state"], found["specs"]) == ("fresh", 55)
            assert "index.json.hash" in found["detail"]
        asked = [request for request in server.requests if request.path.endswith("/index.json")]
    assert len(asked) == 2
    assert "if-none-match" in asked[1].headers


def test_a_migrated_mirror_is_read_in_its_new_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CACHEFETCH_MAX_AGE", "0")
    shutil.copytree(FIXTURES / "v2-signed", tmp_path / "mirror")
    with FaultServer(str(tmp_path)) as server:
        assert states(f"{server.url}/mirror")[0]["kind"] == "v2"
        shutil.copytree(FIXTURES / "v3-signed", tmp_path / "mirror", dirs_exist_ok=True)
        (found,) = states(f"{server.url}/mirror")
    assert (found["kind"], found["specs"]) == ("v3", 62)


def test_sixteen_concurrent_resolves_ask_for_one_index(tmp_path: Path) -> None:
    shutil.copytree(FIXTURES / "v3-unsigned", tmp_path / "mirror")

    async def run(url: str) -> list[str]:
        async with cachefetch.AsyncClient([url]) as client:
            host = await client.host()
            answers: list[str] = []

            async def one() -> None:
                answers.append((await client.resolve("zlib", host=host)).status)

            async with anyio.create_task_group() as group:
                for _ in range(16):
                    group.start_soon(one)
            return answers

    with FaultServer(str(tmp_path)) as server:
        answers = anyio.run(run, f"{server.url}/mirror")
        assert server.count("index.manifest.json") == 1
        assert server.count("/blobs/") == 1
    assert len(answers) == 16


BROKEN: dict[str, Callable[[dict[str, Any], str], None]] = {
    "unknown node format": lambda i, h: i[h]["spec"].update(annotations={"original_specfile_version": 99}),
    "version is a number": lambda i, h: i[h]["spec"].update(version=1.5),
    "dependency without a hash": lambda i, h: i[h]["spec"].update(
        dependencies=[{"name": "zlib", "parameters": {"deptypes": ["link"], "virtuals": []}}]
    ),
    "no spec": lambda i, h: i[h].pop("spec"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_record_is_skipped_and_counted(case: str, tmp_path: Path, cli: Callable[..., Done]) -> None:
    document = json.loads(real_index())
    installs = document["database"]["installs"]
    victim = next(hash_ for hash_, r in sorted(installs.items()) if r["spec"]["name"] == "py-multidict")
    BROKEN[case](installs, victim)
    v3_mirror(tmp_path / "mirror", json.dumps(document, separators=(",", ":")).encode())
    done = cli("list", "--json", "-m", tmp_path / "mirror")
    whole = cli("list", "--json", "-m", FIXTURES / "v2-signed")
    assert {s["hash"] for s in whole.json["specs"]} - {s["hash"] for s in done.json["specs"]} == {victim}
    assert "1 unreadable records skipped" in done.json["mirrors"][0]["detail"]


def test_a_cycle_and_a_duplicate_do_no_harm(tmp_path: Path, cli: Callable[..., Done]) -> None:
    text = real_index().decode()
    document = json.loads(text)
    installs = document["database"]["installs"]
    zlib = next(h for h, r in installs.items() if r["spec"]["name"] == "zlib" and r["in_buildcache"])
    edge = {"name": "zlib", "hash": zlib, "parameters": {"deptypes": ["link"], "virtuals": []}}
    installs[zlib]["spec"].setdefault("dependencies", []).append(edge)
    text = json.dumps(document, separators=(",", ":"))
    record = json.dumps(installs[zlib], separators=(",", ":"))
    text = text.replace('"installs":{', f'"installs":{{"{zlib}":{record},', 1)
    v3_mirror(tmp_path / "mirror", text.encode())
    done = cli("list", "--json", "-m", tmp_path / "mirror")
    assert len(done.json["specs"]) == 55
    assert cli("show", f"/{zlib}", "-m", tmp_path / "mirror").code == 0


def test_a_second_index_cannot_describe_a_binary_as_one_that_fits(
    cli: Callable[..., Done], tmp_path: Path
) -> None:
    hash_ = "hkxr7ts5yajkxftpjduah3ktcuc7ad3l"
    document = json.loads(_blob_of(GOOD))
    record = document["database"]["installs"][hash_]
    record["spec"].pop("dependencies")
    record["spec"]["arch"]["platform_os"] = "rhel8"
    liar = tmp_path / "index.json"
    liar.write_text(json.dumps({"database": {"version": "8", "installs": {hash_: record}}}))
    old = ("--platform", "linux", "--os", "rhel8", "--target", "haswell", "--libc", "glibc@2.28:/usr")
    for mirrors in (("-m", GOOD, "-m", str(liar)), ("-m", str(liar), "-m", GOOD)):
        done = cli("resolve", f"zlib/{hash_}", *mirrors, *old, "--json")
        assert done.code == 3
        root = json.loads(done.out)["roots"][0]
        assert {rejection["reason"] for rejection in root["rejected"] if rejection["hash"] == hash_} == {
            "libc"
        }
        (note,) = root["notes"]
        assert "disagree about zlib/hkxr7ts (dependencies, os)" in note
        assert f"{liar} does not" in note
        listed = json.loads(cli("list", f"/{hash_}", *mirrors, "--json").out)
        assert listed["notes"] == [note]
        assert [spec["mirrors"] for spec in listed["specs"]] == [[GOOD]]


def _blob_of(mirror: str) -> bytes:
    sha256: str = json.loads((Path(mirror) / INDEX).read_bytes())["data"][0]["checksum"]
    return (Path(mirror) / "blobs/sha256" / sha256[:2] / sha256).read_bytes()


@pytest.mark.parametrize(
    ("version", "key", "name"),
    [("9" * 6000, "a" * 32, "x"), ("8", "\\ud800", "x"), ("8", "a" * 32, "\\ud800")],
)
def test_a_hostile_index_beside_a_good_one_ends_nothing(
    cli: Callable[..., Done], tmp_path: Path, version: str, key: str, name: str
) -> None:
    bad = tmp_path / "index.json"
    record = f'{{"spec": {{"name": "{name}"}}, "in_buildcache": true}}'
    bad.write_text(f'{{"database": {{"version": "{version}", "installs": {{"{key}": {record}}}}}}}')
    done = cli("resolve", "py-multidict", "-m", GOOD, "-m", str(bad), *DEBIAN)
    assert done.code == 0, done.err
    assert done.out.startswith("py-multidict@")


def test_a_file_of_zero_bytes_is_a_write_that_was_cut_off(cli: Callable[..., Done], tmp_path: Path) -> None:
    (tmp_path / "index.json").touch()
    both = cli("resolve", "py-multidict", "-m", GOOD, "-m", str(tmp_path / "index.json"), *DEBIAN, "--json")
    assert both.code == 0
    assert [state["state"] for state in json.loads(both.out)["mirrors"]] == ["fresh", "corrupt"]
    assert cli("resolve", "py-multidict", "-m", str(tmp_path / "index.json"), *DEBIAN).code == 8


@pytest.mark.parametrize("character", ["\x7f", "\x1b", "\u2028"])
def test_a_record_with_a_control_character_is_left_out_and_told(
    cli: Callable[..., Done], tmp_path: Path, character: str
) -> None:
    """It would act on a terminal, or end a line there; DEL alone may stand in JSON as it is."""
    hash_ = "hkxr7ts5yajkxftpjduah3ktcuc7ad3l"
    document = json.loads(_blob_of(GOOD))
    installs = document["database"]["installs"]
    installs[hash_]["spec"]["parameters"]["note"] = f"a{character}b"
    path = tmp_path / "index.json"
    path.write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
    done = cli("list", "zlib", "-m", str(path), "--json")
    assert hash_ not in {spec["hash"] for spec in done.json["specs"]}
    (state,) = done.json["mirrors"]
    assert "printable" in state["detail"]
