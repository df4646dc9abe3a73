"""http and https through httpx, behind our own small interface so that it can be exchanged in this file."""

from __future__ import annotations

import re
import ssl
import time
from contextlib import asynccontextmanager, contextmanager

import httpx

from ...errors import AccessError, CachefetchError, FormatError, MirrorError, NetworkError, NotFoundError
from . import Reply, redact
from .ranges import content_range, retry_after, strong_etag
from .stall import StallGuard

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from ..limits import Limits

_RETRY_LATER = "the mirror or the network may recover: try again, or add a second mirror"
_LATER_STATUS = {408, 425, 429}
_THROTTLED = {429, 503}
_OK = {200, 206, 304}
_RANGE_REFUSED = 416


class HttpTransport:
    """One connection pool for all http and https mirrors of a client.

    Proxies come from the usual environment variables (HTTP_PROXY, HTTPS_PROXY, NO_PROXY), certificates from
    SSL_CERT_FILE or the bundled list. Credentials in the URL are sent to that host only: httpx drops
    Authorization when a redirect leads to another host, and a redirect from https to http is refused.
    """

    network = True

    def __init__(self, limits: Limits, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._clock = clock
        self._client: httpx.AsyncClient | None = None

    async def get(self, url: str, *, etag: str | None = None, limit: int) -> Reply:
        """GET a small document; a Content-Encoding is undone (the limit is for the decoded bytes)."""
        headers = {"If-None-Match": etag} if etag else {}
        async with self._stream(url, headers) as response:
            _check_status(response, url)
            if response.status_code == 304:
                return Reply(304, b"", etag, None)
            body = await self._read(response, url, limit)
            found = response.headers
            return Reply(200, body, found.get("etag"), found.get("content-type"))

    @asynccontextmanager
    async def open(
        self, url: str, *, offset: int = 0, validator: str | None = None
    ) -> AsyncIterator[HttpBody]:
        """GET an object with Range and If-Range; a range that the server cannot serve starts at 0."""
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        if offset and validator:
            headers["If-Range"] = validator
        async with self._stream(url, headers) as response:
            if response.status_code != _RANGE_REFUSED or not offset:
                yield self._body(response, url, offset)
                return
        async with self._stream(url, {}) as response:  # 416: the part is of no use to this server
            yield self._body(response, url, 0)

    async def aclose(self) -> None:
        """Close the pool."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    def _body(self, response: httpx.Response, url: str, asked: int) -> HttpBody:
        _check_status(response, url)
        return HttpBody(response, url, asked, StallGuard.of(self._limits, self._clock))

    @asynccontextmanager
    async def _stream(self, url: str, headers: dict[str, str]) -> AsyncIterator[httpx.Response]:
        # Only errors of opening are translated here: an error of the caller's own block must pass untouched.
        client = self._open_client()
        with _translated(url):
            request = client.build_request("GET", url, headers=headers)
            response = await client.send(request, stream=True)
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
                _check_stall(guard, len(chunk), url)
        return bytes(body)

    def _open_client(self) -> httpx.AsyncClient:
        if self._client is None:
            limits = self._limits
            most = limits.metadata_in_flight + limits.blob_connections
            self._client = httpx.AsyncClient(
                follow_redirects=True,
                max_redirects=limits.redirects,
                timeout=httpx.Timeout(limits.stall_s, connect=limits.connect_timeout_s, pool=None),
                limits=httpx.Limits(max_connections=most, max_keepalive_connections=most),
                headers={"Accept-Encoding": "identity", "User-Agent": "cachefetch"},
                event_hooks={"response": [_refuse_downgrade]},
            )
        return self._client


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


class HttpBody:
    """A response that is being read; see `transports.Body`."""

    def __init__(self, response: httpx.Response, url: str, asked: int, guard: StallGuard) -> None:
        self._response, self._url, self._guard = response, url, guard
        headers = response.headers
        self.etag = strong_etag(headers.get("etag"))
        encoding = headers.get("content-encoding", "").strip().lower()
        self.encoding = "" if encoding == "identity" else encoding
        self.offset = 0
        self.size: int | None = None
        if response.status_code == 206:
            self.offset, self.size = self._served(headers.get("content-range"), asked)
        elif (length := headers.get("content-length", "")).isdigit() and not self.encoding:
            self.size = int(length)

    def _served(self, header: str | None, asked: int) -> tuple[int, int | None]:
        found = content_range(header)
        if found is None or found[0] != asked:
            raise NetworkError(
                f"{redact(self._url)}: asked for bytes from {asked} on, the server sent range {header!r:.80}",
                hint=_RETRY_LATER,
                context={"url": redact(self._url), "reason": "wrong-range"},
            )
        return found

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the raw bytes; a Content-Encoding is not undone, because digests are of the stored bytes."""
        with _translated(self._url):
            async for chunk in self._response.aiter_raw():
                _check_stall(self._guard, len(chunk), self._url)
                yield chunk


def _check_stall(guard: StallGuard, received: int, url: str) -> None:
    if guard.stalled(received):
        raise NetworkError(
            f"{redact(url)}: less than {guard.bytes_per_s} bytes a second for {guard.window_s:g} s",
            hint=_RETRY_LATER,
            context={"url": redact(url), "reason": "stalled"},
        )


async def _refuse_downgrade(response: httpx.Response) -> None:
    if not response.has_redirect_location or response.url.scheme != "https":
        return
    target = response.url.join(response.headers["location"])
    if target.scheme != "https":
        raise MirrorError(
            f"{redact(str(response.url))} redirects from https to {target.scheme}, which is refused",
            hint="tell the owner of the mirror, or name the final URL yourself if you accept it",
            context={"url": redact(str(response.url)), "reason": "downgrade"},
        )


def _check_status(response: httpx.Response, url: str) -> None:
    """Raise our error for a status that carries no object."""
    status = response.status_code
    if status in _OK:
        return
    shown = redact(url)
    context = {"url": shown, "status": status}
    if status in (404, 410):
        raise NotFoundError(f"{shown} does not exist (HTTP {status})", hint="", context=context)
    if status in (401, 403):
        raise AccessError(
            f"{shown}: access denied (HTTP {status})",
            hint="give user and password in the mirror URL; some object stores also answer 403 for what is absent",
            context=context,
        )
    if status in _LATER_STATUS or status >= 500:
        raise NetworkError(
            f"{shown}: HTTP {status} {response.reason_phrase}".rstrip(),
            hint=_RETRY_LATER,
            context=context,
            retry_after=retry_after(response.headers.get("retry-after"), time.time()),
            throttled=status in _THROTTLED,
        )
    raise MirrorError(f"{shown}: unexpected HTTP {status}", hint="check the mirror URL", context=context)


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
    detail = _detail(error)
    tls = _tls_cause(error)
    if tls is not None:
        return MirrorError(
            f"{shown}: TLS failed: {_first_line(tls)}",
            hint="set SSL_CERT_FILE to the CA of this mirror, and check the date of this machine",
            context={"url": shown, "reason": "tls"},
        )
    for kind, what, may_recover in _TABLE:
        if isinstance(error, kind):
            message = f"{shown}: {what}{detail}"
            if may_recover:
                return NetworkError(message, hint=_RETRY_LATER, context={"url": shown})
            return MirrorError(message, hint="check the mirror URL", context={"url": shown})
    raise AssertionError("the table ends with Exception")  # pragma: no cover


def _detail(error: Exception) -> str:
    text = _first_line(error)
    return f" ({text})" if text else ""


_URL = re.compile(r"[a-z]+://\S+", re.I)


def _first_line(error: BaseException) -> str:
    line = str(error).split("\n", 1)[0][:200]
    return _URL.sub(lambda found: redact(found[0]), line)


def _tls_cause(error: BaseException) -> ssl.SSLError | None:
    """Return the failed verification or handshake below `error`; a cut TLS connection is no such failure."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ssl.SSLError):
            return None if isinstance(seen, ssl.SSLEOFError | ssl.SSLZeroReturnError) else seen
        seen = seen.__cause__ or seen.__context__
    return None
