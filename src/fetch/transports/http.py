"""http and https through httpx: proxies, chunked and encoded bodies. The others take the short way (`direct`)."""

from __future__ import annotations

import ssl
import time
from contextlib import asynccontextmanager, contextmanager
from urllib.request import getproxies_environment

import httpx
from anyio import fail_after, to_thread

from ...errors import CachefetchError, FormatError, MirrorError
from ..network import proxy_of
from . import Head, Reply, patience_of, redact
from .errand import run_without_requests
from .ranges import content_range, strong_etag
from .stall import StallGuard
from .status import (
    RANGE_REFUSED,
    broken,
    check_stall,
    check_status,
    detail,
    refuse_downgrade,
    tls_failed,
    wrong_range,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from ..limits import Limits
    from ..network import Network
    from . import Sink
    from .errand import Errand
    from .threads import Abort


class HttpTransport:
    """One connection pool for all http and https mirrors of a client.

    Proxies come from the usual environment variables (HTTP_PROXY, HTTPS_PROXY, NO_PROXY); certificates and
    credentials: see `Network`. httpx drops Authorization when a redirect leads to another host, and a redirect from
    https to http is refused.
    """

    network = True

    def __init__(
        self, limits: Limits, network: Network, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limits = limits
        self._network = network
        self._clock = clock
        self._client: httpx.AsyncClient | None = None

    async def get(self, url: str, *, etag: str | None = None, limit: int) -> Reply:
        """GET a small document; a Content-Encoding is undone (the limit is for the decoded bytes)."""
        headers = {"If-None-Match": etag} if etag else {}
        async with self._stream(url, headers, patience_of(None, self._limits)) as response:
            _check_status(response, url)
            if response.status_code == 304:
                return Reply(304, b"", etag, None)
            body = await self._read(response, url, limit)
            found = response.headers
            return Reply(200, body, found.get("etag"), found.get("content-type"))

    async def receive(
        self, url: str, sink: Sink, *, offset: int = 0, validator: str | None = None, last: int | None = None
    ) -> None:
        """GET an object with Range and If-Range; a range that the server cannot serve starts at 0."""
        headers = {}
        if offset or last is not None:
            headers["Range"] = f"bytes={offset}-{'' if last is None else last}"
            if validator:
                headers["If-Range"] = validator
        patience_s = patience_of(sink, self._limits)
        async with self._stream(url, headers, patience_s) as response:
            if response.status_code != RANGE_REFUSED or not offset:
                await self._pour(response, url, offset, sink)
                return
        async with self._stream(url, {}, patience_s) as response:  # 416: the part is of no use to this server
            await self._pour(response, url, 0, sink)

    async def _pour(self, response: httpx.Response, url: str, asked: int, sink: Sink) -> None:
        """Hand the raw bytes on in large pieces; digests are of the stored bytes, so no encoding is undone."""
        _check_status(response, url)
        await to_thread.run_sync(sink.begin, _head(response, url, asked))
        limits, guard = self._limits, StallGuard.of(self._limits, self._clock)
        buffer, flushed = bytearray(), self._clock()
        try:
            with _translated(url):
                async for chunk in response.aiter_raw():
                    check_stall(guard, len(chunk), url)
                    buffer += chunk
                    now = self._clock()
                    if len(buffer) >= limits.chunk_bytes or now - flushed >= limits.flush_s:
                        full, buffer, flushed = buffer, bytearray(), now
                        await to_thread.run_sync(sink.write, memoryview(full))
        finally:
            if buffer:
                sink.write(
                    memoryview(buffer)
                )  # also after a cut or a cancellation: the next try continues here
        await to_thread.run_sync(sink.end)

    def run_errands(
        self,
        abort: Abort,  # noqa: ARG002 - as all
        url: str,  # noqa: ARG002 - as all
        errands: Iterator[Errand],
        width: int,  # noqa: ARG002 - as all
        *,
        long: bool = False,  # noqa: ARG002 - as all
    ) -> None:
        """Hand every request back: httpx has no quick way."""
        run_without_requests(errands)

    async def aclose(self) -> None:
        """Close the pool."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    @asynccontextmanager
    async def _stream(
        self, url: str, headers: dict[str, str], patience_s: float
    ) -> AsyncIterator[httpx.Response]:
        # Only errors of opening are translated here: an error of the caller's own block must pass untouched.
        client = self._open_client(url)
        with _translated(url):
            target = httpx.URL(url)
            port = target.port or (443 if target.scheme == "https" else 80)
            secret = self._network.authorization(target.host, port, target.userinfo.decode())
            if secret:
                headers = {"Authorization": secret, **headers}  # a registry's token stands
            request = client.build_request("GET", target.copy_with(userinfo=b""), headers=headers)
            try:  # httpx's own time-out is for every read, also of the body
                with fail_after(patience_s + self._limits.connect_timeout_s):
                    response = await client.send(request, stream=True)
            except TimeoutError:
                raise broken(url, "no answer in time", via=_via(url)) from None
        try:
            yield response
        finally:
            await response.aclose()

    async def _read(self, response: httpx.Response, url: str, limit: int) -> bytes:
        guard = StallGuard.of(self._limits, self._clock)
        body = bytearray()
        expand = _expander(response, url)
        with _translated(url):
            async for chunk in response.aiter_raw():
                # One byte more than the limit is enough to refuse: a small answer must not expand without bound.
                body += expand(chunk, limit + 1 - len(body)) if expand else chunk
                if len(body) > limit:
                    raise FormatError(
                        f"{redact(url)} has more than the {limit} bytes that such a document may have",
                        hint="the mirror is damaged or not a Spack build cache",
                        context={"url": redact(url), "limit": limit},
                    )
                check_stall(guard, len(chunk), url)
        return bytes(body)

    def _open_client(self, url: str) -> httpx.AsyncClient:
        if self._client is None:
            tls = self._network.tls_context()
            with _proxy_errors(url):
                self._client = self._make_client(tls)
        return self._client

    def _make_client(self, tls: ssl.SSLContext) -> httpx.AsyncClient:
        limits = self._limits
        most = limits.metadata_in_flight + limits.blob_connections
        return httpx.AsyncClient(
            verify=tls,
            follow_redirects=True,
            max_redirects=limits.redirects,
            timeout=httpx.Timeout(limits.stall_s, connect=limits.connect_timeout_s, pool=None),
            limits=httpx.Limits(max_connections=most, max_keepalive_connections=most),
            headers={"Accept-Encoding": "identity", "User-Agent": "cachefetch"},
            event_hooks={"response": [_refuse_downgrade]},
        )


@contextmanager
def _proxy_errors(url: str) -> Iterator[None]:
    """Name the proxies of the environment when no client can be made for them."""
    try:
        yield
    except (ImportError, ValueError, httpx.InvalidURL) as error:
        named = ", ".join(sorted({_shown(p) for name, p in getproxies_environment().items() if name != "no"}))
        lacks = isinstance(error, ImportError)
        raise MirrorError(
            f"{redact(url)}: no connection: cachefetch cannot use the proxy {named or '(none)'}"
            + (": SOCKS needs the Python package socksio, which is not installed" if lacks else ""),
            hint="`pip install socksio`, or unset ALL_PROXY, HTTP_PROXY or HTTPS_PROXY"
            if lacks
            else "correct or unset ALL_PROXY, HTTP_PROXY or HTTPS_PROXY: http://HOST:PORT",
            context={"url": redact(url), "reason": "proxy"},
        ) from None


def _shown(proxy: str) -> str:
    """Return a proxy without its secrets; its scheme may be left out."""
    return redact(proxy if "://" in proxy else f"http://{proxy}")


def _via(url: str) -> str:
    """Return `` through the proxy URL``, or "" where none is used."""
    target = httpx.URL(url)
    proxy = proxy_of(target.scheme, target.host)
    return f" through the proxy {_shown(proxy)}" if proxy else ""


def _expander(response: httpx.Response, url: str) -> Callable[[bytes, int], bytes] | None:
    """Return what undoes the encoding that a server applied to a document although identity was asked for.

    Raises:
        FormatError: another encoding than gzip, or several: no mirror needs them.
    """
    encoding = response.headers.get("content-encoding", "").strip().lower()
    if encoding in ("", "identity"):
        return None
    if encoding not in ("gzip", "x-gzip"):
        raise FormatError(
            f"{redact(url)} came with Content-Encoding {encoding!r:.60} although none was asked for",
            hint="the server must deliver documents as they are stored",
            context={"url": redact(url)},
        )
    import zlib

    stream = zlib.decompressobj(wbits=31)

    def expand(data: bytes, most: int) -> bytes:
        try:
            return stream.decompress(data, most)
        except zlib.error as error:
            raise FormatError(
                f"{redact(url)} came as gzip and cannot be unpacked: {error}",
                hint="the server or something before it is damaged; try again",
                context={"url": redact(url)},
            ) from None

    return expand


def _head(response: httpx.Response, url: str, asked: int) -> Head:
    headers = response.headers
    etag = strong_etag(headers.get("etag"))
    encoding = headers.get("content-encoding", "").strip().lower()
    encoding = "" if encoding == "identity" else encoding
    if response.status_code == 206:
        found = content_range(headers.get("content-range"))
        if found is None or found[0] != asked:
            raise wrong_range(url, asked, headers.get("content-range"))
        return Head(found[1], found[0], etag, encoding)
    length = headers.get("content-length", "")
    return Head(int(length) if length.isdigit() and not encoding else None, 0, etag, encoding)


async def _refuse_downgrade(response: httpx.Response) -> None:
    if response.has_redirect_location:
        target = response.url.join(response.headers["location"])
        refuse_downgrade(str(response.url), target.scheme)


def _check_status(response: httpx.Response, url: str) -> None:
    retry = response.headers.get("retry-after")
    check_status(response.status_code, response.reason_phrase, retry, url, time.time())


@contextmanager
def _translated(url: str) -> Iterator[None]:
    """Turn the errors of httpx (and of ssl below it) into ours."""
    try:
        yield
    except CachefetchError:
        raise
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, ssl.SSLError) as error:
        raise translate(error, url) from error


#: The first entry that fits wins: (httpx class, what happened, may it go away).
_TABLE: tuple[tuple[type[Exception], str, bool], ...] = (
    (httpx.ConnectTimeout, "no connection in time", True),
    (httpx.TimeoutException, "no answer in time", True),
    (httpx.UnsupportedProtocol, "a redirect or URL of an unknown scheme", False),
    (httpx.InvalidURL, "not a usable URL", False),
    (httpx.TooManyRedirects, "too many redirects", False),
    (httpx.ProxyError, "the proxy failed", True),
    (httpx.ConnectError, "no connection", True),
    (httpx.DecodingError, "the body does not decode", False),
    (httpx.TransportError, "the connection broke", True),
    (Exception, "failed", False),
)


def translate(error: Exception, url: str) -> MirrorError:
    """Return our error for an exception of httpx; the first line of its text is shown, without secrets."""
    shown = redact(url)
    tls = _tls_cause(error)
    if tls is not None:
        return tls_failed(url, tls)
    for kind, what, may_recover in _TABLE:
        if isinstance(error, kind):
            if may_recover:
                return broken(url, what, error, via=_via(url))
            message = f"{shown}: {what}{detail(error)}"
            return MirrorError(message, hint="check the mirror URL", context={"url": shown})
    raise AssertionError("the table ends with Exception")  # pragma: no cover


def _tls_cause(error: BaseException) -> ssl.SSLError | None:
    """Return the failed verification or handshake below `error`; a cut TLS connection is no such failure."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ssl.SSLError):
            return None if isinstance(seen, ssl.SSLEOFError | ssl.SSLZeroReturnError) else seen
        seen = seen.__cause__ or seen.__context__
    return None
