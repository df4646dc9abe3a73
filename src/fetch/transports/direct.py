"""http and https over sockets of our own, in worker threads; what that does not speak goes to httpx (`http`).

One hop into a worker thread brings a whole object: connect or reuse a connection, ask, check the head, and hand
piece after piece to the sink. docs/decisions/0007-thin-transport.md has the reasons and the figures.
"""

from __future__ import annotations

import contextlib
import mmap
import threading
import time
from urllib.parse import quote, urljoin, urlsplit

from ...errors import FormatError, MirrorError
from ...values import frozen
from .. import aio
from ..network import proxied
from . import Head, Reply, host_of, patience_of, redact
from .errand import HandedBack, run_in_threads, run_without_requests
from .ranges import content_range, strong_etag
from .stall import StallGuard
from .status import (
    RANGE_REFUSED,
    REDIRECTS,
    broken,
    check_stall,
    check_status,
    refuse_downgrade,
    tls_failed,
    wrong_range,
)
from .swarm import Swarm
from .threads import Abort, Aborted, run_abortable
from .wire import BadAnswer, Connection, Origin, Unspoken

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator

    from ..limits import Limits
    from ..network import Network
    from . import Sink, Transport
    from .errand import Ask, Errand
    from .wire import Answer
else:
    from . import late_ssl as ssl

_DRAIN_BYTES = 1 << 16
_PORTS = {"http": 80, "https": 443}
_URL_SAFE = "/?:@!$&'()*+,;=-._~%[]"


class DirectTransport:
    """Keeps connections to every host it was asked for, and the hosts that are better left to httpx.

    Certificates and credentials: see `Network`. Authorization never follows a redirect to another origin, and a
    redirect from https to http is refused.
    """

    network = True

    def __init__(
        self, limits: Limits, network: Network, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limits, self._network, self._clock = limits, network, clock
        self._idle: dict[Origin, list[Connection]] = {}
        self._lock = threading.Lock()
        self._local = threading.local()
        self._left_to_general: dict[
            str, bool
        ] = {}  # by host: a proxy is set, or an answer was not understood
        self._tls: ssl.SSLContext | None = None
        self._general_made: Transport | None = None
        self._limiter: aio.CapacityLimiter | None = None
        self._closed = False

    async def get(self, url: str, *, etag: str | None = None, limit: int) -> Reply:
        """GET a small document; a Content-Encoding is undone (the limit is for the decoded bytes)."""
        if self._speaks(url):
            with self._unspoken(url):
                return await run_abortable(lambda abort: self._get(abort, url, etag, limit), self._threads())
        return await self._general().get(url, etag=etag, limit=limit)

    async def receive(
        self, url: str, sink: Sink, *, offset: int = 0, validator: str | None = None, last: int | None = None
    ) -> None:
        """GET an object with Range and If-Range; a range that the server cannot serve starts at 0."""
        if self._speaks(url):
            with self._unspoken(url):
                await run_abortable(
                    lambda abort: self._receive(abort, url, sink, offset, validator, last), self._threads()
                )
                return
        await self._general().receive(url, sink, offset=offset, validator=validator, last=last)

    def run_errands(
        self, abort: Abort, url: str, errands: Iterator[Errand], width: int, *, long: bool = False
    ) -> None:
        """Run errands at the origin of `url`, `width` at most side by side; those not begun are left.

        Raises:
            CachefetchError: what an errand does not catch. MirrorError, ConfigError: the URL or certificates.
        """
        if not self._speaks(url):
            run_without_requests(errands)
        elif long:
            run_in_threads(abort, errands, width, self._receive_or_hand_back)
        else:
            self._swarm(abort, url, errands, width)

    async def aclose(self) -> None:
        """Close all connections."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, {}
        for connections in idle.values():
            for connection in connections:
                connection.close()
        general, self._general_made = self._general_made, None
        if general is not None:
            await general.aclose()

    # --- which client ---------------------------------------------------------------------------------------------

    def _speaks(self, url: str) -> bool:
        host = host_of(url)
        if host not in self._left_to_general:
            parts = urlsplit(url)
            self._left_to_general[host] = not parts.hostname or proxied(parts.scheme.lower(), parts.hostname)
        return not self._left_to_general[host]

    @contextlib.contextmanager
    def _unspoken(self, url: str) -> Iterator[None]:
        """Leave a host to httpx once an answer of it was not understood."""
        try:
            yield
        except Unspoken:
            self._left_to_general[host_of(url)] = True

    def _general(self) -> Transport:
        if self._general_made is None:
            from .http import HttpTransport

            self._general_made = HttpTransport(self._limits, self._network, clock=self._clock)
        return self._general_made

    def _threads(self) -> aio.CapacityLimiter:
        if self._limiter is None:
            most = self._limits.metadata_in_flight + self._limits.blob_connections
            self._limiter = aio.CapacityLimiter(most)
        return self._limiter

    # --- in a worker thread ---------------------------------------------------------------------------------------

    def _get(self, abort: Abort, url: str, etag: str | None, limit: int) -> Reply:
        headers = {"If-None-Match": etag} if etag else {}
        with self._exchange(abort, url, headers, patience_of(None, self._limits)) as exchange:
            exchange.check()
            found = exchange.answer.headers
            if exchange.answer.status == 304:
                return Reply(304, b"", etag, None)
            body = bytearray()
            for piece in self._pieces(exchange, abort):
                body += piece
                if len(body) > limit:
                    raise FormatError(
                        f"{redact(url)} has more than the {limit} bytes that such a document may have",
                        hint="the mirror is damaged or not a Spack build cache",
                        context={"url": redact(url), "limit": limit},
                    )
        return Reply(200, bytes(body), found.get("etag"), found.get("content-type"))

    def _receive(
        self, abort: Abort, url: str, sink: Sink, offset: int, validator: str | None, last: int | None
    ) -> None:
        headers = {}
        if offset or last is not None:
            headers["Range"] = f"bytes={offset}-{'' if last is None else last}"
            if validator:
                headers["If-Range"] = validator
        patience_s = patience_of(sink, self._limits)
        with self._exchange(abort, url, headers, patience_s) as exchange:
            if exchange.answer.status != RANGE_REFUSED or not offset:
                exchange.check()
                sink.begin(exchange.head(offset))
                for piece in self._pieces(exchange, abort, _room(sink, exchange.connection.left)):
                    sink.write(piece)
                sink.end()
                return
        self._receive(abort, url, sink, 0, None, None)  # 416: the part is of no use to this server

    def _receive_or_hand_back(self, abort: Abort, ask: Ask) -> None:
        try:
            with self._unspoken(ask.url):
                self._receive(abort, ask.url, ask.sink, ask.offset, ask.validator, ask.last)
                return
        except (ValueError, ssl.SSLError, OSError) as error:
            raise HandedBack from error
        raise HandedBack

    def _swarm(self, abort: Abort, url: str, errands: Iterator[Errand], width: int) -> None:
        with _translated(url):
            origin, _, _ = _request(url)
            secret = self._network.authorization(origin.host, origin.port, _userinfo(url))
            if origin.scheme == "https" and self._tls is None:
                self._tls = self._network.tls_context()
            tls = self._tls if origin.scheme == "https" else None
        extra = {"Authorization": secret} if secret else {}

        def headers(url: str) -> tuple[Origin, str, dict[str, str]]:
            where, target, sent = _request(url)
            return where, target, {**sent, **extra}

        Swarm(origin, tls, headers, self._limits, width, abort).run(errands)

    def _pieces(
        self, exchange: _Exchange, abort: Abort, room: memoryview | None = None
    ) -> Iterator[memoryview]:
        """Yield the body, which lies in `room` if there is one; NetworkError when it ends early or comes too slowly."""
        url, connection = exchange.url, exchange.connection
        guard = StallGuard.of(self._limits, self._clock)
        quiet_since = self._clock()
        body = connection.body(abort, self._limits.chunk_bytes, room or self._buffer())
        while True:
            with _translated(url):
                piece = next(body, None)
            if piece is None:
                break
            if piece:
                yield piece
                quiet_since = self._clock()
            elif self._clock() - quiet_since >= self._limits.stall_s:
                raise broken(url, "no answer in time")
            check_stall(guard, len(piece), url)
        if abort.set:
            raise Aborted
        if connection.left:
            raise broken(url, f"the connection broke ({connection.left} bytes before the end)")

    def _buffer(self) -> memoryview:
        """Return the buffer of this thread: fresh memory for every small blob would cost as much as its bytes.

        It begins with a page: what is in it can go past the page cache.
        """
        if not hasattr(self._local, "buffer"):
            self._local.buffer = memoryview(mmap.mmap(-1, self._limits.chunk_bytes))
        made: memoryview = self._local.buffer
        return made

    @contextlib.contextmanager
    def _exchange(
        self, abort: Abort, url: str, headers: dict[str, str], patience_s: float
    ) -> Iterator[_Exchange]:
        """Ask, follow redirects, and yield the answer; its connection is kept when the body was read to its end.

        The server may take `patience_s` until it begins to answer.
        """
        home = url
        for _ in range(self._limits.redirects + 1):
            exchange = self._ask(abort, url, home, headers, patience_s)
            try:
                answer = exchange.answer
                target = answer.headers.get("location") if answer.status in REDIRECTS else None
                if target is None:
                    if answer.status < 300 and not answer.plain:
                        raise Unspoken
                    yield exchange
                if (
                    answer.status >= 300
                    and exchange.connection.left
                    and exchange.connection.left < _DRAIN_BYTES
                ):
                    for _piece in self._pieces(exchange, abort):
                        pass
            finally:
                abort.on_abort(None)
                self._release(exchange.connection)
            if target is None:
                return
            url = _redirected(url, target)
        raise MirrorError(
            f"{redact(url)}: too many redirects", hint="check the mirror URL", context={"url": redact(url)}
        )

    def _ask(
        self, abort: Abort, url: str, home: str, headers: dict[str, str], patience_s: float
    ) -> _Exchange:
        """Send one request and read the head of its answer, on a kept connection if there is a good one.

        `home` is the URL before all redirects: credentials are sent to its origin only.
        """
        with _translated(url):
            origin, target, sent = _request(url)
            at_home, _, _ = _request(home)
            secret = self._network.authorization(origin.host, origin.port, _userinfo(home))
            if secret and origin == at_home:
                sent["Authorization"] = secret
            sent.update(headers)
            while True:
                connection = self._connection(origin, abort)
                reused = not connection.fresh
                try:
                    abort.on_abort(connection.wake)
                    connection.send(target, sent)
                    answer = connection.answer(abort, patience_s)
                except (ConnectionError, ssl.SSLError):
                    connection.close()
                    if reused and not abort.set:
                        continue  # the server closed it while it was idle: ask again on another one
                    if abort.set:
                        raise Aborted from None
                    raise
                except BaseException:
                    connection.close()
                    raise
                return _Exchange(url, answer, connection)

    def _connection(self, origin: Origin, abort: Abort) -> Connection:
        while True:
            with self._lock:
                idle = self._idle.get(origin)
                kept = idle.pop() if idle else None
                if kept is None and origin.scheme == "https" and self._tls is None:
                    self._tls = self._network.tls_context()
            if kept is None:
                tls = self._tls if origin.scheme == "https" else None
                return _connected(origin, tls, self._limits, abort)
            if kept.idle():
                return kept
            kept.close()

    def _release(self, connection: Connection) -> None:
        if connection.reusable():
            with self._lock:
                if not self._closed:
                    self._idle.setdefault(connection.origin, []).append(connection)
                    return
        connection.close()


@frozen
class _Exchange:
    """An answer whose body is to be read, the connection it comes on, and the URL behind all redirects."""

    url: str
    answer: Answer
    connection: Connection

    def check(self) -> None:
        """Raise our error for a status that carries no object."""
        answer = self.answer
        check_status(answer.status, answer.reason, answer.headers.get("retry-after"), self.url, time.time())

    def head(self, asked: int) -> Head:
        """Return what the answer promises; NetworkError for another range than was asked for."""
        headers = self.answer.headers
        etag = strong_etag(headers.get("etag"))
        if self.answer.status != 206:
            return Head(self.connection.left, 0, etag)
        found = content_range(headers.get("content-range"), self.connection.left)
        if found is None or found[0] != asked:
            raise wrong_range(self.url, asked, headers.get("content-range"))
        return Head(found[1], found[0], etag)


def _room(sink: Sink, coming: int | None) -> memoryview | None:
    """Return the sink's own memory, if it has some and all that comes fits."""
    give = getattr(sink, "room", None)
    room: memoryview | None = give() if give else None
    return room if room is not None and coming is not None and coming <= len(room) else None


def _request(url: str) -> tuple[Origin, str, dict[str, str]]:
    """Return where to connect, what to ask for, and the headers that every request has."""
    parts = urlsplit(url)
    scheme, host = parts.scheme.lower(), parts.hostname
    if scheme not in _PORTS or not host:
        raise MirrorError(
            f"{redact(url)}: a redirect or URL of an unknown scheme",
            hint="check the mirror URL",
            context={"url": redact(url)},
        )
    target = quote((parts.path or "/") + (f"?{parts.query}" if parts.query else ""), safe=_URL_SAFE)
    sent = {
        "Host": parts.netloc.rpartition("@")[2],
        "User-Agent": "cachefetch",
        "Accept": "*/*",
        "Accept-Encoding": "identity",
    }
    return Origin(scheme, host, parts.port or _PORTS[scheme]), target, sent


def _userinfo(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[0]


def _connected(origin: Origin, tls: ssl.SSLContext | None, limits: Limits, abort: Abort) -> Connection:
    url = f"{origin.scheme}://{origin.host}:{origin.port}"
    tick = min(limits.flush_s, limits.stall_s, limits.first_byte_s)
    try:
        return Connection(origin, tls, limits.connect_timeout_s, tick, abort)
    except TimeoutError:
        raise broken(url, "no connection in time") from None
    except ssl.SSLError:
        raise
    except OSError as error:
        raise broken(url, "no connection", error) from error


def _redirected(url: str, target: str) -> str:
    found = urljoin(url, target)
    refuse_downgrade(url, urlsplit(found).scheme.lower())
    return found


@contextlib.contextmanager
def _translated(url: str) -> Iterator[None]:
    """Turn what sockets and TLS raise into our errors."""
    try:
        yield
    except (ssl.SSLEOFError, ssl.SSLZeroReturnError) as error:
        raise broken(url, "the connection broke", error) from error
    except ssl.SSLError as error:
        raise tls_failed(url, error) from error
    except TimeoutError:
        raise broken(url, "no answer in time") from None
    except OSError as error:
        raise broken(url, "the connection broke", error) from error
    except BadAnswer as error:
        raise broken(url, "the connection broke", error) from error
    except ValueError as error:  # of urlsplit: a port that is no number, brackets that do not match
        why = f" ({error})" if redact(url) == url else ""  # it cites what may be part of a password
        raise MirrorError(
            f"{redact(url)}: not a usable URL{why}",
            hint="check the mirror URL",
            context={"url": redact(url)},
        ) from None
