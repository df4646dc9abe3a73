"""The thin HTTP client: what it reads, what it leaves to httpx, reuse of connections, cancellation."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest
from tests.faults.server import Fault, FaultServer

from cachefetch.errors import MirrorError, NetworkError
from cachefetch.fetch.limits import Limits
from cachefetch.fetch.network import Network
from cachefetch.fetch.transports import Head
from cachefetch.fetch.transports.direct import DirectTransport
from cachefetch.fetch.transports.wire import BadAnswer, Unspoken, parse_head

LIMITS = Limits(stall_s=1, connect_timeout_s=5, chunk_bytes=1000)


@pytest.mark.parametrize(
    ("head", "length", "keeps", "plain"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n", 5, True, True),
        (b"HTTP/1.1 200\r\ncontent-length:5\r\nConnection: Close\r\n", 5, False, True),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 5, 5\r\n", 5, False, True),
        (b"HTTP/1.1 200 OK\r\n", None, True, True),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n", 0, True, True),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n", None, True, False),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: GZip\r\nContent-Length: 5\r\n", 5, True, False),
    ],
)
def test_heads(head: bytes, length: int | None, keeps: bool, plain: bool) -> None:
    answer = parse_head(head)
    assert (answer.length(), answer.keeps, answer.plain) == (length, keeps, plain)


@pytest.mark.parametrize(
    "head",
    [
        b"<html>\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n",
        b"HTTP/1.1 200 OK\r\nName : space\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\r\n folded\r\n",
        b"HTTP/1.1 200 OK\r\n: empty\r\n",
    ],
)
def test_what_is_no_http(head: bytes) -> None:
    with pytest.raises(BadAnswer):
        parse_head(head)


@pytest.mark.parametrize("text", ["5, 6", "-1", "+5", "0x5", "", "5 5", "9" * 30])
def test_lengths_that_could_be_read_in_two_ways(text: str) -> None:
    with pytest.raises(BadAnswer):
        parse_head(f"HTTP/1.1 200 OK\r\nContent-Length: {text}\r\n".encode()).length()


def test_another_version_of_http_is_left_to_httpx() -> None:
    with pytest.raises(Unspoken):
        parse_head(b"HTTP/2 200\r\n")


@contextmanager
def canned(answers: Sequence[bytes]) -> Iterator[tuple[str, list[bytes]]]:
    """Serve one fixed answer a connection, in order; yield the URL and the requests."""
    listener = socket.create_server(("127.0.0.1", 0))
    requests: list[bytes] = []

    def serve() -> None:
        for answer in answers:
            connection, _ = listener.accept()
            with connection:
                requests.append(connection.recv(1 << 16))
                connection.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/x", requests
    finally:
        listener.close()


def get(url: str, times: int = 1) -> list[bytes]:
    async def main() -> list[bytes]:
        transport = DirectTransport(LIMITS, Network())
        try:
            return [(await transport.get(url, limit=1 << 20)).body for _ in range(times)]
        finally:
            await transport.aclose()

    return anyio.run(main)


def test_1xx_and_bodies_without_length() -> None:
    interim = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
    with canned([interim + b"HTTP/1.1 200 OK\r\n\r\n" + b"z" * 5000]) as (url, _):
        assert get(url) == [b"z" * 5000]


def test_chunked_bodies_are_left_to_httpx_for_the_rest_of_the_run() -> None:
    chunked = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    )
    with canned([chunked] * 3) as (url, requests):
        assert get(url, 2) == [b"abc", b"abc"]
        assert len(requests) == 3  # one that was not understood, then httpx


def test_contradictions_are_network_errors() -> None:
    for answer in (
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        b"garbage\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 1000 + b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70000,
        b"",
    ):
        with canned([answer]) as (url, _), pytest.raises(NetworkError):
            get(url)


def test_bytes_behind_an_answer_end_the_connection(tmp_path: Path) -> None:
    """They would be read as the answer to the next request."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n"
    with canned([answer + b"abcHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", answer + b"xyz"]) as (
        url,
        _,
    ):
        assert get(url, 2) == [b"abc", b"xyz"]


def test_a_header_cannot_be_put_into_a_request(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"x")
    with FaultServer(str(tmp_path)) as server:
        with pytest.raises(MirrorError):
            get(f"{server.url}/x y\r\nX-Evil: 1")
        assert all("x-evil" not in request.headers for request in server.requests)


def test_connections_are_reused_and_stale_ones_replaced(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"x" * 5000)
    with FaultServer(str(tmp_path)) as server:
        server.script("/x", Fault(), Fault(cut_after=5000))  # the second says keep-alive and closes
        assert get(f"{server.url}/x", 4) == [b"x" * 5000] * 4


def test_a_validator_cannot_bring_a_header_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"x")
    with FaultServer(str(tmp_path)) as server:

        async def main() -> None:
            transport = DirectTransport(LIMITS, Network())
            try:
                await transport.get(f"{server.url}/x", etag='"a"\r\nX-Evil: 1', limit=10)
            finally:
                await transport.aclose()

        with pytest.raises(MirrorError):
            anyio.run(main)
        assert server.requests == []


class Nothing:
    """A sink that throws all away."""

    def __init__(self) -> None:
        self.size = 0

    def begin(self, head: Head) -> None:
        pass

    def write(self, data: memoryview) -> None:
        self.size += len(data)

    def end(self) -> None:
        pass


@pytest.mark.parametrize("fault", [Fault(stall_after=100), Fault(delay=3)])
def test_a_cancelled_transfer_ends_at_once(tmp_path: Path, fault: Fault) -> None:
    (tmp_path / "x").write_bytes(b"x" * 5000)
    with FaultServer(str(tmp_path)) as server:
        server.script("/x", fault)

        async def main() -> float:
            transport = DirectTransport(Limits(stall_s=30), Network())
            start = time.monotonic()
            with anyio.move_on_after(0.3):
                await transport.receive(f"{server.url}/x", Nothing())
            await transport.aclose()
            return time.monotonic() - start

        assert anyio.run(main) < 1.0
