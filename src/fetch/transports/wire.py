"""HTTP/1.1 GET over a blocking socket: as little as a static server needs, and nothing of it taken on trust.

It is about four times faster than a general client on large bodies (docs/decisions/0007-thin-transport.md). What it
does not speak (chunked or encoded bodies, other versions of HTTP) is an `Unspoken`: the caller then asks a general
client. Every call here blocks, so it runs in worker threads.
"""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import time

from ...values import frozen
from .names import look_up
from .threads import Abort, Aborted

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator, Mapping

    from .tls import TlsStream
else:
    from . import late_ssl as ssl

#: A longer head of an answer is refused.
HEAD_BYTES = 1 << 16
#: So many answers with a status of 1xx before the one that counts.
_INTERIM = 16
_STATUS = re.compile(rb"HTTP/1\.([01]) ([0-9]{3})(?: ([^\r\n]{0,200}))?\r\n")
_USUAL = re.compile(
    rb"HTTP/1\.1 200 [^\r\n]{0,200}\r\n(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\x00-\x08\x0a-\x1f]*\r\n)+"
)
_CONTROL = re.compile(r"[\x00-\x1f]")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class Unspoken(Exception):
    """The answer needs more of HTTP than this module has."""


class BadAnswer(Exception):
    """What came is no HTTP, or contradicts itself."""


@frozen
class Origin:
    """Where a connection leads: `scheme` http or https, `host` without brackets, `port`."""

    scheme: str
    host: str
    port: int


@frozen
class Answer:
    """Status line and headers (names in lower case; values that come twice are joined by a comma)."""

    version: int
    status: int
    reason: str
    headers: Mapping[str, str]

    @property
    def plain(self) -> bool:
        """True when the body stands on the wire as it is: neither chunked nor encoded."""
        encoding = self.headers.get("content-encoding", "").strip().lower()
        return "transfer-encoding" not in self.headers and encoding in ("", "identity")

    def length(self) -> int | None:
        """Return the bytes of the body, None when only its own end tells.

        Raises:
            BadAnswer: Content-Length is no number, or comes twice with different values.
        """
        if self.status in (204, 304):
            return 0
        text = self.headers.get("content-length")
        if text is None or "transfer-encoding" in self.headers:
            return None
        values = {value.strip() for value in text.split(",")}
        value = values.pop()
        if values or not re.fullmatch(r"[0-9]{1,19}", value):
            raise BadAnswer(f"Content-Length is {text!r:.60}")
        return int(value)

    @property
    def keeps(self) -> bool:
        """True when the server will answer further requests on the connection."""
        return self.version == 1 and "close" not in self.headers.get("connection", "").lower()


class Connection:
    """One connection, used by one thread at a time."""

    def __init__(
        self,
        origin: Origin,
        tls: ssl.SSLContext | None,
        connect_timeout_s: float,
        tick_s: float,
        abort: Abort,
    ) -> None:
        self.origin = origin
        self.fresh = True  # no answer was read from it yet
        self.left: int | None = 0  # bytes of the body that were not read, None when only its end tells
        self._keeps = False
        self._tick_s = tick_s
        self._rest = b""  # body bytes that came with the head
        plain = _connect(origin, connect_timeout_s, abort)
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._tls: TlsStream | None = None
            if tls is not None:
                from .tls import TlsStream

                self._tls = TlsStream(plain, tls, origin.host)
            # A blocking socket with a kernel time-out: MSG_WAITALL does not work with Python's own time-outs.
            plain.settimeout(None)
            value = struct.pack("ll", int(tick_s), int(tick_s % 1 * 1e6))
            for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
                plain.setsockopt(socket.SOL_SOCKET, option, value)
        except BaseException:
            plain.close()
            raise
        self._socket = plain

    def close(self) -> None:
        """Close the socket."""
        with contextlib.suppress(OSError):
            self._socket.close()

    def wake(self) -> None:
        """Make a read that another thread is blocked in return; the connection is of no use then."""
        _shut(self._socket)

    def idle(self) -> bool:
        """Return True when nothing came since the last answer: bytes or an end here mean that it is over."""
        if self._tls is not None:
            return not self._tls.pending()  # an end shows at the next request, which is then made again
        try:
            self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def send(self, target: str, headers: Mapping[str, str]) -> None:
        """Send a GET.

        Raises:
            ValueError: a target or value that would end its line (a validator may come from a shared store).
        """
        (self._tls or self._socket).sendall(request_bytes(target, headers))

    def answer(self, abort: Abort, patience_s: float) -> Answer:
        """Read status line and headers.

        Raises:
            TimeoutError: nothing came for `patience_s`.
            ConnectionError: the connection ended; `fresh` says whether it ever gave an answer.
        """
        data, waited, interim = b"", 0.0, 0
        while True:
            try:
                more = (self._tls or self._socket).recv(1 << 14)
            except (BlockingIOError, TimeoutError):
                if abort.set:
                    raise Aborted from None
                waited += self._tick_s
                if waited >= patience_s:
                    raise TimeoutError from None
                continue
            if not more:
                raise Aborted if abort.set else ConnectionError("the server closed the connection")
            data += more
            end = data.find(b"\r\n\r\n")
            while end >= 0:
                found = parse_head(data[: end + 2])
                data = data[end + 4 :]
                if found.status >= 200:
                    self._rest, self.fresh = data, False
                    self.left, self._keeps = found.length(), found.keeps
                    return found
                interim += 1
                if interim > _INTERIM:
                    raise BadAnswer(f"more than {_INTERIM} answers that an answer will follow")
                end = data.find(b"\r\n\r\n")  # 1xx: the answer itself follows
            if len(data) > HEAD_BYTES:
                raise BadAnswer(f"headers of more than {HEAD_BYTES} bytes")

    def body(self, abort: Abort, most: int, room: memoryview) -> Iterator[memoryview]:
        """Yield the body in pieces of at most `most` bytes, an empty one after a quiet tick.

        They lie one after the other in `room`; where that ends they begin again, so a piece is valid until the next
        one only. The end of the connection ends the iteration early; `left` says so.
        """
        unknown = self.left is None
        left = (1 << 62) if self.left is None else self.left
        begin, fill, since = 0, 0, time.monotonic()
        while left:
            if abort.set:
                raise Aborted
            end = min(len(room), begin + most, begin + fill + left)
            got = self._into(room[begin + fill : end])
            fill, left = fill + max(got, 0), left - max(got, 0)
            now = time.monotonic()
            if got <= 0 or begin + fill == end or now - since >= self._tick_s:
                if fill or got:
                    self.left = None if unknown else left
                    yield room[begin : begin + fill]
                begin, fill, since = (begin + fill) % len(room), 0, now
            if not got:
                return

    def _into(self, view: memoryview) -> int:
        """Fill `view` as far as bytes come within a tick; 0 is the end of the connection, -1 a quiet tick."""
        if self._rest:
            piece, self._rest = self._rest[: len(view)], self._rest[len(view) :]
            view[: len(piece)] = piece
            return len(piece)
        try:
            if self._tls is not None:
                return self._tls.recv_into(view)
            return self._socket.recv_into(view, 0, socket.MSG_WAITALL)
        except (BlockingIOError, TimeoutError):
            return -1

    def reusable(self) -> bool:
        """Return True when the last body was read to its end, and only that, and the server keeps the connection."""
        return self._keeps and self.left == 0 and not self._rest


def request_bytes(target: str, headers: Mapping[str, str]) -> bytes:
    """Return a GET request.

    Raises:
        ValueError: a target or value that would end its line (a validator may come from a shared store).
    """
    lines = [f"GET {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    if any(_CONTROL.search(line) for line in lines):
        raise ValueError("a control character in the request")
    return "\r\n".join(lines).encode("latin-1")


def _connect(origin: Origin, timeout_s: float, abort: Abort) -> socket.socket:
    """Connect to the first address that answers; each gets an equal share of the time that is left."""
    ends = time.monotonic() + timeout_s
    found = look_up(origin.host, origin.port, timeout_s, abort)
    for number, (family, kind, protocol, _, address) in enumerate(found):
        if abort.set:
            raise Aborted
        made = socket.socket(family, kind, protocol)
        try:
            abort.on_abort(lambda made=made: _shut(made))  # type: ignore[misc]  # binds the loop's value
            made.settimeout(max(0.01, (ends - time.monotonic()) / (len(found) - number)))
            made.connect(address)
        except BaseException as error:
            abort.on_abort(None)
            made.close()
            if isinstance(error, OSError) and number + 1 < len(found):
                continue
            if abort.set:
                raise Aborted from None
            raise
        return made
    raise OSError("the name has no address")


def _shut(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)


def usual_head(data: bytes) -> tuple[int, str | None] | None:
    """Return the bytes of the body and the ETag of the usual answer: 200, plain, of one length, connection kept.

    None for any other, which `parse_head` is for; it takes ten times as long.
    """
    lower = data.lower()
    unusual = b"close" in lower or b"\r\ntransfer-encoding:" in lower or b"\r\ncontent-encoding:" in lower
    if unusual or not _USUAL.fullmatch(data):
        return None
    length, etag = _field(lower, lower, b"\r\ncontent-length:"), _field(lower, data, b"\r\netag:")
    if length is None or etag is None or not length.isdigit() or len(length) > 18:
        return None
    return int(length), etag.decode("latin-1") or None


def _field(lower: bytes, data: bytes, name: bytes) -> bytes | None:
    """Return the value of a header, b"" when it is not there, None when it is there twice."""
    at = lower.find(name)
    if at < 0:
        return b""
    start = at + len(name)
    return None if lower.find(name, start) >= 0 else data[start : data.index(b"\r\n", start)].strip()


def parse_head(data: bytes) -> Answer:
    """Parse a status line and headers, each with its line end.

    Raises:
        BadAnswer: not HTTP, or a header that two readers could read in two ways.
        Unspoken: another version of HTTP.
    """
    found = _STATUS.match(data)
    if not found:
        raise Unspoken if data.startswith(b"HTTP/") else BadAnswer("the answer is no HTTP")
    headers: dict[str, str] = {}
    for line in data[found.end() :].decode("latin-1").split("\r\n")[:-1]:
        name, colon, value = line.partition(":")
        if not colon or not _NAME.fullmatch(name):
            raise BadAnswer(f"header line {line!r:.60}")
        name, value = name.lower(), value.strip()
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return Answer(int(found[1]), int(found[2]), (found[3] or b"").decode("latin-1"), headers)
