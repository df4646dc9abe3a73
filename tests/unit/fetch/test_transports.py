"""Transports: URLs without secrets, the table of errors, ranges, and nothing of the network before it is needed."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import anyio
import httpx
import pytest
import trustme
from tests.faults.server import Fault, FaultServer

from cachefetch.errors import (
    AccessError,
    CachefetchError,
    FormatError,
    MirrorError,
    NetworkError,
    NotFoundError,
    OfflineError,
)
from cachefetch.fetch.limits import Limits
from cachefetch.fetch.transports import (
    Head,
    Transports,
    host_of,
    is_network,
    redact,
    scheme_of,
    transport_for,
)
from cachefetch.fetch.transports.direct import DirectTransport
from cachefetch.fetch.transports.file import local_path, read_local
from cachefetch.fetch.transports.http import translate
from cachefetch.resolver.index.readers import join

LIMITS = Limits(stall_s=1, connect_timeout_s=5, chunk_bytes=1000)
DATA = bytes(range(256)) * 40
T = TypeVar("T")
if TYPE_CHECKING:  # it exists for type checkers only, because typing costs start-up time
    from cachefetch.fetch.transports import Transport


@pytest.fixture
def root(tmp_path: Path) -> str:
    (tmp_path / "x").write_bytes(DATA)
    return str(tmp_path)


@pytest.fixture
def server(root: str) -> Iterator[FaultServer]:
    with FaultServer(root) as started:
        yield started


@pytest.fixture(params=["direct", "httpx"])
def client(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a test with sockets of our own, and with httpx alone."""
    if request.param == "httpx":
        monkeypatch.setattr(DirectTransport, "_speaks", lambda self, url: False)
    return str(request.param)


@asynccontextmanager
async def opened(url: str, limits: Limits) -> AsyncIterator[Transport]:
    transport = transport_for(url, limits)
    try:
        yield transport
    finally:
        await transport.aclose()


def use(url: str, work: Callable[[Transport], Awaitable[T]], limits: Limits = LIMITS) -> T:
    async def main() -> T:
        async with opened(url, limits) as transport:
            return await work(transport)

    return anyio.run(main)


def get(url: str, limit: int = 1 << 20) -> bytes:
    async def work(transport: Transport) -> bytes:
        return (await transport.get(url, limit=limit)).body

    return use(url, work)


class Collect:
    """A sink that keeps all, and where each call came from."""

    def __init__(self) -> None:
        self.head: Head | None = None
        self.data = b""
        self.threads: set[int] = set()
        self.ended = False

    def begin(self, head: Head) -> None:
        self.head = head
        self.threads.add(threading.get_ident())

    def write(self, data: memoryview) -> None:
        self.data += data
        self.threads.add(threading.get_ident())

    def end(self) -> None:
        self.ended = True


def stream(url: str, offset: int = 0, validator: str | None = None) -> tuple[int, int | None, bytes]:
    async def work(transport: Transport) -> tuple[int, int | None, bytes]:
        sink = Collect()
        await transport.receive(url, sink, offset=offset, validator=validator)
        assert sink.head
        assert sink.ended
        assert threading.get_ident() not in sink.threads
        return sink.head.offset, sink.head.size, sink.data

    return use(url, work)


# --- URLs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://host/a", "https://host/a"),
        ("https://user:pw@host:8/a/b", "https://host:8/a/b"),
        ("https://user:p@w@host/a", "https://host/a"),
        ("https://token@host", "https://host"),
        ("https://host/a?X-Amz-Signature=secret&b=1", "https://host/a?..."),
        ("https://host/a#secret", "https://host/a"),
        ("https://u:p@host?sig=1#f", "https://host?..."),
        ("https://host/a@b", "https://host/a@b"),
        ("/plain/path?with=mark", "/plain/path?with=mark"),
        ("file:///a/b", "file:///a/b"),
    ],
)
def test_redact(url: str, shown: str) -> None:
    assert redact(url) == shown


@pytest.mark.parametrize(
    ("base", "url"),
    [
        ("https://h/m", "https://h/m/v3/x"),
        ("https://h/m/", "https://h/m/v3/x"),
        ("https://h/m?sig=a/b", "https://h/m/v3/x?sig=a/b"),
        ("/dir/what?", "/dir/what?/v3/x"),
        ("file:///dir/", "file:///dir/v3/x"),
    ],
)
def test_join(base: str, url: str) -> None:
    assert join(base, "v3/x") == url


def test_scheme_and_host() -> None:
    assert [scheme_of(u) for u in ("/a", "a/b", "C:/x", "FILE:///a", "https://h")] == ["file"] * 4 + ["https"]
    assert [host_of(u) for u in ("https://u:p@H:1/x", "/a", "http://h?q")] == ["h:1", "", "h"]
    assert [is_network(u) for u in ("http://h", "/a", "file:///a")] == [True, False, False]


def test_unknown_scheme_says_which_are_known() -> None:
    with pytest.raises(MirrorError, match="gopher") as caught:
        transport_for("gopher://u:secret@h/x", LIMITS)
    assert "https" in caught.value.hint
    assert "secret" not in str(caught.value.to_dict())


def test_offline_makes_no_network_transport(root: str) -> None:
    transports = Transports(LIMITS, offline=True)
    assert transports.for_url(root) is transports.for_url("file:///x")
    with pytest.raises(OfflineError):
        transports.for_url("https://h/x")


def test_one_pool_for_http_and_https() -> None:
    transports = Transports(LIMITS)
    assert transports.for_url("http://a") is transports.for_url("https://b")


def test_nothing_of_the_network_is_imported_for_a_directory(root: str, repository: Path) -> None:
    program = (
        "import sys\n"
        "from cachefetch.fetch.transports import Transports, redact\n"
        "from cachefetch.fetch.transports.file import FileTransport, read_local\n"
        f"assert read_local({os.path.join(root, 'x')!r}, 1 << 20)\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(repository / ".dev")},
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(done.stdout.split())
    assert "re" in loaded
    assert not loaded & {
        "httpx",
        "httpcore",
        "anyio",
        "asyncio",
        "ssl",
        "socket",
        "tenacity",
        "typing",
        "pathlib",
    }


# --- files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("/a/b", "/a/b"),
        ("rel/b", "rel/b"),
        ("file:///a/b", "/a/b"),
        ("file://localhost/a", "/a"),
        ("file:///a%20b", "/a b"),
        ("/a%20b", "/a%20b"),
    ],
)
def test_local_path(url: str, path: str) -> None:
    assert local_path(url) == path


@pytest.mark.parametrize("url", ["file://host/a", "/a\0b", "file:///a%00b"])
def test_no_local_path(url: str) -> None:
    with pytest.raises(MirrorError):
        local_path(url)


def test_read_local(root: str) -> None:
    assert read_local(f"{root}/x", len(DATA)) == DATA
    assert read_local(f"file://{root}/x", len(DATA)) == DATA
    with pytest.raises(FormatError, match="more than"):
        read_local(f"{root}/x", len(DATA) - 1)
    for absent in (f"{root}/no", f"{root}/x/y", root, f"{root}/{'n' * 300}"):
        with pytest.raises(NotFoundError):
            read_local(absent, 10)


def test_a_pipe_is_no_mirror_file(root: str) -> None:
    os.mkfifo(f"{root}/pipe")
    with pytest.raises(NotFoundError, match="regular"):
        read_local(f"{root}/pipe", 10)


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_an_unreadable_file(root: str) -> None:
    os.chmod(f"{root}/x", 0)
    with pytest.raises(AccessError):
        read_local(f"{root}/x", 10)


def test_file_transport(root: str) -> None:
    url = f"{root}/x"
    assert get(url) == DATA
    assert stream(url) == (0, len(DATA), DATA)
    assert stream(url, 5000) == (5000, len(DATA), DATA[5000:])
    assert stream(url, 5000, '"another"') == (0, len(DATA), DATA)
    assert stream(url, len(DATA) + 1) == (0, len(DATA), DATA)
    with pytest.raises(NotFoundError):
        stream(f"{root}/no")


@pytest.mark.parametrize("network", [False, True])
def test_an_unchanged_document_is_not_sent_again(network: bool, root: str, server: FaultServer) -> None:
    url = f"{server.url if network else root}/x"

    async def work(transport: Transport) -> list[int]:
        first = await transport.get(url, limit=1 << 20)
        second = await transport.get(url, etag=first.etag, limit=1 << 20)
        await anyio.Path(f"{root}/x").write_bytes(DATA + b"more")
        third = await transport.get(url, etag=first.etag, limit=1 << 20)
        assert (first.body, second.body, third.body) == (DATA, b"", DATA + b"more")
        return [first.status, second.status, third.status]

    assert use(url, work) == [200, 304, 200]


# --- http --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, MirrorError),
        (401, AccessError),
        (403, AccessError),
        (404, NotFoundError),
        (408, NetworkError),
        (410, NotFoundError),
        (418, MirrorError),
        (425, NetworkError),
        (429, NetworkError),
        (500, NetworkError),
        (502, NetworkError),
        (503, NetworkError),
        (599, NetworkError),
        (204, MirrorError),
    ],
)
@pytest.mark.usefixtures("client")
def test_status(status: int, kind: type[CachefetchError], server: FaultServer) -> None:
    server.script("/x", Fault(status=status, headers=(("Retry-After", "9"),)))
    with pytest.raises(kind) as caught:
        get(f"{server.url}/x?token=secret")
    assert type(caught.value) is kind
    assert caught.value.context["status"] == status
    assert "secret" not in str(caught.value.to_dict())
    if isinstance(caught.value, NetworkError):
        assert caught.value.retry_after == 9
        assert caught.value.throttled == (status in (429, 503))


@pytest.mark.usefixtures("client")
def test_http_ranges(server: FaultServer) -> None:
    url = f"{server.url}/x"
    assert stream(url) == (0, len(DATA), DATA)
    assert stream(url, 5000) == (5000, len(DATA), DATA[5000:])
    assert stream(url, 5000, '"another"') == (0, len(DATA), DATA)
    assert stream(url, len(DATA)) == (0, len(DATA), DATA)  # 416, then from the start
    server.script("/x", Fault(range_shift=1))
    with pytest.raises(NetworkError, match="range"):
        stream(url, 5000)


@pytest.mark.usefixtures("client")
def test_identity_is_asked_for_and_documents_are_decoded(server: FaultServer) -> None:
    assert get(f"{server.url}/x") == DATA
    assert server.requests[0].headers["accept-encoding"] == "identity"
    server.script("/x", Fault(gzip=True))
    assert get(f"{server.url}/x") == DATA


@pytest.mark.usefixtures("client")
def test_a_document_beyond_its_limit_is_refused(server: FaultServer) -> None:
    assert get(f"{server.url}/x", limit=len(DATA)) == DATA
    with pytest.raises(FormatError):
        get(f"{server.url}/x", limit=len(DATA) - 1)
    with FaultServer(server.root) as bomb:
        Path(server.root, "zeros").write_bytes(bytes(1 << 22))
        bomb.script("/zeros", Fault(gzip=True))
        with pytest.raises(FormatError):
            get(f"{bomb.url}/zeros", limit=1 << 20)


@pytest.mark.usefixtures("client")
def test_credentials_are_sent_but_not_to_another_host(server: FaultServer) -> None:
    with FaultServer(server.root, user="Basic YW5uOnM6Ly9AIA==") as guarded:
        url = guarded.url.replace("://", "://ann:s%3A%2F%2F%40%20@")
        assert get(f"{url}/x") == DATA
        guarded.script("/x", Fault(location="/x?again"))
        assert get(f"{url}/x") == DATA
        assert "authorization" in guarded.requests[-1].headers
        other = server.url.replace("127.0.0.1", "localhost")
        assert other != server.url
    with FaultServer(server.root) as first:
        first.script("/x", Fault(location=f"{other}/x"))
        assert get(first.url.replace("://", "://ann:pw@") + "/x") == DATA
        assert "authorization" in first.requests[-1].headers
        assert "authorization" not in server.requests[-1].headers


@pytest.mark.usefixtures("client")
def test_a_redirect_to_another_kind_of_url_is_refused(server: FaultServer) -> None:
    server.script("/x", Fault(location="file:///etc/passwd"))
    with pytest.raises(MirrorError) as caught:
        get(f"{server.url}/x")
    assert type(caught.value) is MirrorError


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    return trustme.CA()


def tls_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.mark.usefixtures("client")
def test_tls(
    root: str, server: FaultServer, authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FaultServer(root, tls=tls_context(authority)) as secure:
        with pytest.raises(MirrorError, match="TLS failed") as caught:
            get(f"{secure.url}/x")
        assert type(caught.value) is MirrorError
        assert "SSL_CERT_FILE" in caught.value.hint
        authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        assert get(f"{secure.url}/x") == DATA
        with pytest.raises(MirrorError, match="TLS failed"):
            get(f"{secure.url.replace('127.0.0.1', 'localhost')}/x")
        secure.script("/x", Fault(location=f"{server.url}/x"))
        with pytest.raises(MirrorError, match="from https to http"):
            get(f"{secure.url}/x")
        assert server.count("/x") == 0


@pytest.mark.usefixtures("client")
def test_plain_http_on_a_tls_port_is_no_tls_failure(server: FaultServer) -> None:
    with pytest.raises(MirrorError) as caught:
        get(server.url.replace("http:", "https:") + "/x")
    assert "TLS failed" in caught.value.message


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (Fault(stall_after=0), "no answer in time"),
        (Fault(cut_after=5), "the connection broke"),
        (Fault(reset_after=5), "the connection broke"),
        (Fault(drip=0.2), "bytes a second"),
    ],
)
@pytest.mark.usefixtures("client")
def test_broken_documents_may_be_retried(fault: Fault, text: str, server: FaultServer) -> None:
    server.script("/x", fault)
    with pytest.raises(NetworkError, match=text):
        get(f"{server.url}/x")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (httpx.ConnectTimeout("t"), NetworkError),
        (httpx.ReadTimeout("t"), NetworkError),
        (httpx.ConnectError("Name or service not known"), NetworkError),
        (httpx.ReadError(""), NetworkError),
        (httpx.RemoteProtocolError("peer closed"), NetworkError),
        (httpx.ProxyError("403"), NetworkError),
        (httpx.TooManyRedirects("20"), MirrorError),
        (httpx.UnsupportedProtocol("ftp://"), MirrorError),
        (httpx.InvalidURL("bad"), MirrorError),
        (httpx.DecodingError("gzip"), MirrorError),
        (ssl.SSLCertVerificationError("expired"), MirrorError),
        (ssl.SSLEOFError("cut"), MirrorError),
    ],
)
def test_table_of_foreign_errors(error: Exception, kind: type[MirrorError]) -> None:
    made = translate(error, "https://u:secret@h/x?key=secret")
    assert type(made) is kind
    assert "https://h/x?..." in made.message
    assert "secret" not in str(made.to_dict())
    assert made.hint


def test_secrets_in_the_text_of_foreign_errors_are_removed() -> None:
    made = translate(httpx.ConnectError("cannot reach https://u:secret@proxy/x?a=secret\nsecret"), "http://h")
    assert "secret" not in made.message
