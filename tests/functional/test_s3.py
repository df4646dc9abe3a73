"""Mirrors in S3 buckets, on a real S3 server."""

from __future__ import annotations

import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from urllib.parse import quote

import anyio
import pytest
from tests.functional.conftest import DEBIAN, KEY, MIRROR, Done
from tests.services import s3
from tests.services.nginx import Nginx

from cachefetch import Client
from cachefetch.config import Mirror
from cachefetch.errors import AccessError, FormatError, MirrorError, NetworkError, NotFoundError
from cachefetch.fetch.limits import Limits
from cachefetch.fetch.transports import Head
from cachefetch.fetch.transports.s3 import S3Transport
from cachefetch.fetch.transports.threads import Abort

BIG = os.urandom(3 << 20)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[s3.S3]:
    root = tmp_path_factory.mktemp("s3")
    shutil.copytree(MIRROR, root / "bucket" / "cache")
    (root / "bucket" / "big file").write_bytes(BIG)
    with s3.S3(str(root), str(tmp_path_factory.mktemp("log") / "log")) as running:
        yield running


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch, server: s3.S3) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.SECRET)


def test_fetch_from_a_bucket(cli: Callable[..., Done], tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = cli(
        "fetch", "py-multidict", "-m", "s3://bucket/cache", "--key", KEY, "--to", str(out), *DEBIAN, "--json"
    )
    assert done.code == 0
    by_directory = cli("fetch", "py-multidict", "-m", MIRROR, "--key", KEY, *DEBIAN, "--json")
    assert {(i["hash"], i["sha256"]) for i in done.json["items"]} == {
        (i["hash"], i["sha256"]) for i in by_directory.json["items"]
    }
    assert len(list(out.iterdir())) == len(done.json["items"]) > 1


def test_an_unchanged_index_is_not_sent_again(cli: Callable[..., Done]) -> None:
    cli("resolve", "zlib", "-m", "s3://bucket/cache", *DEBIAN)
    done = cli("resolve", "zlib", "-m", "s3://bucket/cache", "--refresh", *DEBIAN, "--json")
    assert done.code == 0
    assert done.json["mirrors"][0]["state"] == "fresh"


def test_keys_in_the_url_reach_no_output(
    cli: Callable[..., Done], server: s3.S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    secret = quote(s3.SECRET, safe="")
    good = f"s3://{s3.KEY}:{secret}@bucket/cache?endpoint={server.url}"
    bad = f"s3://{s3.KEY}:wrong{secret}@bucket/cache?endpoint={server.url}"
    anonymous = f"s3://bucket/cache?endpoint={server.url}"
    for url, code in ((bad, 8), (anonymous, 8), (good, 0)):
        done = cli("resolve", "zlib", "-m", url, "-v", *DEBIAN)
        assert done.code == code
        assert secret not in done.out + done.err
        assert s3.SECRET not in done.out + done.err


def test_buckets_of_the_same_name_on_two_servers_are_two_mirrors() -> None:
    one, two = (Mirror("m", f"s3://u:p@bucket/x?endpoint=http://{host}") for host in ("a", "b"))
    assert one.key != two.key
    assert "p@" not in one.key.replace("s3://bucket", "")


@pytest.mark.parametrize("where", ["s3://bucket/none", "s3://nobucket/x"])
def test_what_is_not_there_is_said(cli: Callable[..., Done], where: str) -> None:
    done = cli("resolve", "zlib", "-m", where, *DEBIAN)
    assert done.code == 8
    assert f"{where} is not-a-cache" in done.err


class Collect:
    def __init__(self) -> None:
        self.head: Head | None = None
        self.data = bytearray()
        self.ended = False

    def begin(self, head: Head) -> None:
        self.head = head

    def write(self, data: memoryview) -> None:
        self.data += data

    def end(self) -> None:
        self.ended = True


def receive(url: str, **how: object) -> Collect:
    sink = Collect()

    async def main() -> None:
        await S3Transport(Limits()).receive(url, sink, **how)  # type: ignore[arg-type]  # the cases are of the table

    anyio.run(main)
    return sink


URL = "s3://bucket/big file"


@pytest.fixture
def ranges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The same object on a server that knows ranges as S3 does; rclone sends the whole object with status 200."""
    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    (tmp_path / "root" / "bucket").mkdir(parents=True)
    (tmp_path / "root" / "bucket" / "big file").write_bytes(BIG)
    with Nginx(str(tmp_path / "nginx"), str(tmp_path / "root")) as server:
        yield f"{URL}?endpoint={server.url}"


def test_an_object_is_resumed_where_it_is_still_the_same(ranges: str) -> None:
    whole = receive(ranges)
    assert (bytes(whole.data), whole.ended) == (BIG, True)
    assert whole.head is not None
    assert (whole.head.size, whole.head.offset) == (len(BIG), 0)
    rest = receive(ranges, offset=1 << 20, validator=whole.head.etag)
    assert rest.head == Head(len(BIG), 1 << 20, whole.head.etag)
    assert bytes(rest.data) == BIG[1 << 20 :]
    part = receive(ranges, offset=10, last=19)
    assert bytes(part.data) == BIG[10:20]


def test_another_object_by_now_is_sent_from_its_begin(ranges: str) -> None:
    found = receive(ranges, offset=1 << 20, validator='"another"')
    assert found.head is not None
    assert found.head.offset == 0
    assert bytes(found.data) == BIG


def test_a_server_without_ranges_sends_all() -> None:
    found = receive(URL, offset=1 << 20)
    assert found.head is not None
    assert found.head.offset == 0
    assert bytes(found.data) == BIG


class Server:
    """Accepts connections and sends `head` to each, then a byte of a body every `every_s` seconds, or nothing more."""

    def __init__(self, head: bytes, every_s: float) -> None:
        self.accepted = 0
        self._head, self._every_s, self._closed = head, every_s, threading.Event()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"s3://bucket/x?endpoint=http://127.0.0.1:{self._server.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._server.close()

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            self.accepted += 1
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            if self._head:
                connection.recv(65536)
                connection.sendall(self._head)
            while not self._closed.wait(self._every_s):
                if self._head:
                    connection.sendall(b"x")


HEAD = (
    b'HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\nETag: "x"\r\n'
    b"Last-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n\r\n"
)
IMPATIENT = Limits(
    connect_timeout_s=0.2, first_byte_s=0.3, stall_s=0.5, stall_bytes_per_s=1024, attempts=5, backoff_s=0.01
)


@pytest.mark.parametrize(
    ("head", "words"), [(b"", "no answer in time"), (HEAD, "less than 1024 bytes a second for 0.5 s")]
)
@pytest.mark.parametrize("how", ["get", "receive"])
def test_a_server_that_is_silent_or_drips_is_given_up_in_time(head: bytes, words: str, how: str) -> None:
    async def main(url: str) -> None:
        transport = S3Transport(IMPATIENT)
        if how == "get":
            await transport.get(url, limit=1 << 30)
        else:
            await transport.receive(url, Collect())

    with Server(head, 0.05) as server, pytest.raises(NetworkError, match=words):
        anyio.run(main, server.url)


@pytest.fixture
def full() -> Iterator[str]:
    """Yield the URL of a server whose queue is full: nobody gets an answer to the first packet."""
    with ExitStack() as sockets:
        address = sockets.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0)).getsockname()
        for _ in range(4):
            one = sockets.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(address)
        yield f"s3://bucket/x?endpoint=http://127.0.0.1:{address[1]}"


def test_a_server_that_takes_no_connection_is_given_up_in_time(full: str) -> None:
    with pytest.raises(NetworkError, match="no connection in time") as caught:
        anyio.run(partial(S3Transport(IMPATIENT).get, full, limit=1))
    assert caught.value.context["silent"]


def test_the_wait_for_a_connection_counts_from_the_request(full: str) -> None:
    # on a busy machine the request was under way before somebody waited for it, and the reason was lost
    with S3Transport(IMPATIENT)._ask(full, {}, Abort(), None) as pump:
        time.sleep(IMPATIENT.connect_timeout_s / 2)
        with pytest.raises(NetworkError, match="no connection in time"):
            pump.head()


def test_what_came_before_a_stall_is_kept() -> None:
    sink = Collect()

    async def main(url: str) -> None:
        await S3Transport(IMPATIENT).receive(url, sink)

    with Server(HEAD + b"y" * 50_000, 10) as server, pytest.raises(NetworkError):
        anyio.run(main, server.url)
    assert len(sink.data) >= 32_768
    assert not sink.ended


def test_a_cancelled_transfer_from_a_silent_server_ends_at_once() -> None:
    async def main(url: str) -> bool:
        with anyio.move_on_after(0.2) as scope:
            await S3Transport(Limits(first_byte_s=30)).get(url, limit=1)
        return scope.cancelled_caught

    with Server(b"", 10) as server:
        assert anyio.run(main, server.url)


def test_a_silent_bucket_is_asked_twice_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with Server(b"", 10) as server:
        mirrors = [Mirror("silent", server.url, signed="none"), Mirror("good", MIRROR, signed="none")]
        with Client(mirrors, limits=IMPATIENT) as client:
            states = {state.mirror: state for state in client.resolve("zlib").mirrors}
        assert server.accepted == IMPATIENT.silent_attempts
    assert states["good"].state == "fresh"
    assert states["silent"].state == "unreachable"
    assert "no answer in time" in states["silent"].detail


def get(url: str, limit: int = 1 << 30) -> bytes:
    async def main() -> bytes:
        return (await S3Transport(Limits(connect_timeout_s=2)).get(url, limit=limit)).body

    return anyio.run(main)


def test_errors_are_ours(server: s3.S3, monkeypatch: pytest.MonkeyPatch) -> None:
    assert get(URL) == BIG
    with pytest.raises(FormatError, match="more than the 100 bytes"):
        get(URL, limit=100)
    with pytest.raises(NotFoundError):
        get("s3://bucket/none")
    with pytest.raises(AccessError, match="access denied"):
        get(f"s3://{s3.KEY}:wrong@bucket/none")
    with pytest.raises(NetworkError):
        get("s3://bucket/x?endpoint=http://127.0.0.1:1")
    with pytest.raises(MirrorError, match="no S3 URL"):
        get("s3://")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(MirrorError, match="400"):  # rclone's answer to a request without a signature
        get(URL)
