"""TLS with large reads, against a real server of the `ssl` module."""

from __future__ import annotations

import contextlib
import random
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator

import pytest
import trustme

from cachefetch.fetch.transports.tls import TlsStream

DATA = random.Random(3).randbytes(3_000_000)
AUTHORITY = trustme.CA()


@contextlib.contextmanager
def serving(talk: Callable[[ssl.SSLSocket], None]) -> Iterator[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    AUTHORITY.issue_cert("localhost").configure_cert(context)
    listener = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        with contextlib.suppress(OSError):
            plain, _ = listener.accept()
            with context.wrap_socket(plain, server_side=True) as secure:
                talk(secure)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        listener.close()
        thread.join()


def connected(port: int, host: str = "localhost") -> tuple[socket.socket, TlsStream]:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    plain = socket.create_connection(("127.0.0.1", port), timeout=5)
    try:
        return plain, TlsStream(plain, context, host)
    except BaseException:
        plain.close()
        raise


def everything(stream: TlsStream, size: int) -> bytes:
    found, view = bytearray(), memoryview(bytearray(size))
    while got := stream.recv_into(view):
        found += view[:got]
    return bytes(found)


@pytest.mark.parametrize("size", [1, 1000, 1 << 14, 1 << 20])
def test_what_is_sent_comes(size: int) -> None:
    def talk(secure: ssl.SSLSocket) -> None:
        assert secure.recv(100) == b"give"
        secure.sendall(DATA[: size * 200])
        secure.unwrap()

    with serving(talk) as port:
        plain, stream = connected(port)
        with plain:
            stream.sendall(b"give")
            assert everything(stream, size) == DATA[: size * 200]


def test_an_end_without_farewell_is_an_end() -> None:
    def talk(secure: ssl.SSLSocket) -> None:
        secure.sendall(b"begun")
        socket.socket.shutdown(secure, socket.SHUT_WR)

    with serving(talk) as port:
        plain, stream = connected(port)
        with plain:
            assert everything(stream, 100) == b"begun"


def test_what_waits_is_seen() -> None:
    with serving(lambda secure: secure.sendall(b"x" * 50)) as port:
        plain, stream = connected(port)
        with plain:
            assert stream.recv(10) == b"x" * 10
            assert stream.pending()


def test_a_quiet_server_is_told_as_the_kernel_tells_it() -> None:
    over = threading.Event()

    def talk(secure: ssl.SSLSocket) -> None:
        secure.recv(1)
        over.wait(5)

    with serving(talk) as port:
        plain, stream = connected(port)
        with plain:
            stream.sendall(b"x")
            plain.settimeout(None)
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 50_000))
            with pytest.raises(BlockingIOError):
                stream.recv(1)
            over.set()


def test_another_name_is_refused() -> None:
    def never(secure: ssl.SSLSocket) -> None:
        raise AssertionError("the handshake must fail")

    with serving(never) as port, pytest.raises(ssl.SSLCertVerificationError, match="elsewhere"):
        connected(port, "elsewhere.example")
