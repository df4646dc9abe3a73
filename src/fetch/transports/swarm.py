"""Many short requests to one host: non-blocking connections, all served by one worker thread.

Threads that make small system calls all day spend most of their time waiting for each other (the interpreter has one
lock): one thread does the same work in a fifth of the time (docs/decisions/0007-thin-transport.md). What is not plain
sailing ends here: an errand gets the error, or `HandedBack`, and whoever sent it goes the general way.
"""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import socket
import time

from ...errors import CachefetchError, NetworkError
from . import Head
from .errand import HandedBack, step
from .names import look_up
from .ranges import strong_etag
from .stall import StallGuard
from .status import REDIRECTS, broken, check_stall, check_status, tls_failed
from .threads import Abort, Aborted
from .width import Width
from .wire import HEAD_BYTES, BadAnswer, Unspoken, parse_head, request_bytes, usual_head

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator
    from typing import Any

    from ..limits import Limits
    from .errand import Ask, Errand
    from .wire import Origin
else:
    from . import late_ssl as ssl

_BUFFER = 1 << 18
#: A path that stands in a request as it stands in a URL.
_PLAIN_PATH = re.compile(r"/[A-Za-z0-9/_.+-]*")
_DRAIN_BYTES = 1 << 16
#: After so many failures of the network without any answer between them the host gets no new errands.
_TROUBLE = 3
_TICK_S = 0.1
#: What may go wrong with a connection, an answer or a sink; anything else is a mistake of ours.
_EXPECTED = (OSError, ValueError, CachefetchError, BadAnswer, Unspoken, HandedBack)


class Swarm:
    """One run over errands that all ask `origin`.

    Args:
        origin: of all requests.
        tls: settings for https, None for http.
        headers: gives request target and headers for a URL.
        limits: time-outs.
        width: connections at most.
        abort: ends the run early.
    """

    def __init__(
        self,
        origin: Origin,
        tls: ssl.SSLContext | None,
        headers: Callable[[str], tuple[Origin, str, dict[str, str]]],
        limits: Limits,
        width: int,
        abort: Abort,
    ) -> None:
        self.origin, self.tls, self.headers, self.limits, self.abort = origin, tls, headers, limits, abort
        self.selector = selectors.DefaultSelector()
        self.addresses: list[tuple[Any, ...]] = []
        self.bytes = bytearray(_BUFFER)
        self.buffer = memoryview(self.bytes)
        self._base, self._tail = "", b""  # what URLs begin with, and what follows the path in their requests
        self._width = Width(width)
        self._lines: set[_Line] = set()  # with an errand
        self._idle: list[_Line] = []
        self._failures = 0

    def run(self, errands: Iterator[Errand]) -> None:
        """Run errands until there are no more, or the host is in trouble (the others are not started then).

        Raises:
            Aborted: the caller wants no more. Whatever an errand does not catch.
        """
        checked = time.monotonic()
        try:
            while True:
                self._fill(errands)
                if not self._lines:
                    return
                for key, _ in self.selector.select(_TICK_S):
                    key.data.ready()
                if self.abort.set:
                    raise Aborted
                now = time.monotonic()
                if now - checked >= _TICK_S:
                    checked = now
                    for line in tuple(self._lines):
                        line.tick(now)
        except _OfErrand as wrapped:
            raise wrapped.error from None
        finally:
            for line in (*self._lines, *self._idle):
                line.close()
                if line.errand is not None:
                    line.errand.close()
            self.selector.close()

    def _fill(self, errands: Iterator[Errand]) -> None:
        """Give errands to lines, as many as may be on the way; many an errand ends without a request."""
        while len(self._lines) < self._width.value and self._failures < _TROUBLE:
            errand = next(errands, None)
            if errand is None:
                return
            if self.abort.set:
                errand.close()
                raise Aborted
            ask = step(errand)
            if ask is not None:
                line = self._idle.pop() if self._idle else _Line(self)
                self._lines.add(line)
                line.take(errand, ask)

    def request(self, url: str) -> bytes:
        """Return the request for a URL.

        Raises:
            HandedBack: it is at another origin.
            ValueError, MirrorError: it is not usable.
        """
        base = self._base
        if base and url.startswith(base) and _PLAIN_PATH.fullmatch(url, len(base)):
            return b"GET %s%s" % (url[len(base) :].encode("ascii"), self._tail)
        origin, target, headers = self.headers(url)
        if origin != self.origin:
            raise HandedBack
        made = request_bytes(target, headers)
        if url.endswith(target) and _PLAIN_PATH.fullmatch(target):
            self._base, self._tail = url[: -len(target)], made[len(f"GET {target}") :]
        return made

    def resolve(self) -> list[tuple[Any, ...]]:
        """Return the addresses of the host, looked up once."""
        if not self.addresses:
            origin, limits = self.origin, self.limits
            self.addresses = look_up(origin.host, origin.port, limits.connect_timeout_s, self.abort)
        return self.addresses

    def succeeded(self) -> None:
        """An answer came."""
        self._failures = 0
        self._width.succeeded()

    def failed(self, error: BaseException) -> None:
        """No answer came, or one that asks for patience, or one that this module does not speak."""
        if isinstance(error, HandedBack):
            self._failures = _TROUBLE
        elif isinstance(error, NetworkError):
            self._failures += 1
            if error.throttled or "in time" in error.message:
                self._width.failed()

    def rest(self, line: _Line, *, usable: bool) -> None:
        """Take a line back whose errand is done."""
        self._lines.discard(line)
        if usable:
            self._idle.append(line)
        else:
            line.close()


class _Line:
    """One connection, and the errand that uses it."""

    def __init__(self, swarm: Swarm) -> None:
        self.swarm = swarm
        self.errand: Errand | None = None
        self._ask: Ask | None = None
        self._socket: socket.socket | None = None
        self._step: Callable[[], None] = self._connected
        self._served = False  # it gave an answer before
        self._addresses: list[tuple[Any, ...]] = []
        self._reset()

    def _reset(self) -> None:
        self._head = b""
        self._left = -1  # bytes of the body to come; -1 before the head is complete
        self._keeps = False  # the server answers further requests on this connection
        self._error: CachefetchError | None = None  # of the status: thrown once its body is read
        self._unsent = b""

    # --- errands ----------------------------------------------------------------------------------------------------

    def take(self, errand: Errand, ask: Ask) -> None:
        """Start an errand."""
        self.errand = errand
        self._begin(ask)

    def _begin(self, ask: Ask) -> None:
        self._ask = ask
        self._reset()
        limits = self.swarm.limits
        now = time.monotonic()
        self._guard = StallGuard.of(limits, time.monotonic)
        self._quiet_since = now
        try:
            if ask.offset or ask.last is not None:
                raise HandedBack  # short requests are for whole objects
            self._unsent = self.swarm.request(ask.url)
            if self._socket is None:
                self._connect(self.swarm.resolve())
            else:
                self._step = self._send
                self._send()
        except _EXPECTED as error:
            self._fail(error)

    def _next(self, error: BaseException | None, *, usable: bool) -> None:
        """Let the errand go on; it may ask again."""
        assert self.errand is not None
        if not usable:
            self.close()
        try:
            ask = step(self.errand, error)
        except _EXPECTED as uncaught:
            self.errand = None
            raise _OfErrand(uncaught) from None
        if ask is not None:
            self._begin(ask)
            return
        self.errand = None
        self.swarm.rest(self, usable=usable)

    def _fail(self, error: BaseException) -> None:
        ours = self._translated(error)
        self.swarm.failed(ours)
        self._next(ours, usable=False)

    def _translated(self, error: BaseException) -> BaseException:
        url = self._ask.url if self._ask else ""
        if isinstance(error, (CachefetchError, HandedBack)):
            return error
        if isinstance(error, (Unspoken, ValueError)) and not isinstance(error, OSError):
            return HandedBack()
        if isinstance(error, ssl.SSLError) and not isinstance(
            error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)
        ):
            return tls_failed(url, error)
        if isinstance(error, (OSError, BadAnswer)):
            connecting = self._step in (self._connected, self._shake) and not self._served
            return broken(url, "no connection" if connecting else "the connection broke", error)
        return error

    # --- the connection ---------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the socket."""
        one, self._socket = self._socket, None
        self._served = False
        if one is not None:
            with contextlib.suppress(KeyError, ValueError):
                self.swarm.selector.unregister(one)
            with contextlib.suppress(OSError):
                one.close()

    def ready(self) -> None:
        """Go on: the socket has something for us."""
        if self.errand is None:  # it rests, and the server said something or went away
            self.close()
            return
        try:
            self._step()
        except BlockingIOError:
            return
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        except _EXPECTED as error:
            self._fail_or_ask_again(error)

    def _fail_or_ask_again(self, error: BaseException) -> None:
        dead = isinstance(error, (ConnectionError, ssl.SSLError)) and self._served and not self._head
        if dead and self._left < 0 and self._ask is not None:
            self.close()  # the server closed it while it was idle: ask again on another one
            self._begin(self._ask)
            return
        if self._step == self._connected and len(self._addresses) > 1 and isinstance(error, OSError):
            self.close()
            try:
                self._connect(self._addresses[1:])
            except OSError as last:
                self._fail(last)
            return
        self._fail(error)

    def tick(self, now: float) -> None:
        """Give up what has been quiet for too long."""
        limits = self.swarm.limits
        connecting = self._step in (self._connected, self._shake)
        patience = limits.connect_timeout_s if connecting else limits.stall_s
        url = self._ask.url if self._ask else ""
        try:
            if now - self._quiet_since >= patience:
                what = "no connection in time" if connecting else "no answer in time"
                raise broken(url, what)
            if not connecting:
                check_stall(self._guard, 0, url)
        except CachefetchError as error:
            self._fail(error)

    def _connect(self, addresses: list[tuple[Any, ...]]) -> None:
        self._addresses = addresses
        family, kind, protocol, _, address = addresses[0]
        self._step = self._connected
        self._socket = made = socket.socket(family, kind, protocol)
        made.setblocking(False)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(BlockingIOError):
            made.connect(address)
        self.swarm.selector.register(made, selectors.EVENT_WRITE, self)

    def _connected(self) -> None:
        assert self._socket is not None
        if code := self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(code, os.strerror(code))
        self.swarm.addresses = self._addresses  # this one answers: the others need not try those before it
        self.swarm.selector.unregister(self._socket)
        if self.swarm.tls is not None:
            self._socket = self.swarm.tls.wrap_socket(
                self._socket, server_hostname=self.swarm.origin.host, do_handshake_on_connect=False
            )
            self._step = self._shake
        else:
            self._step = self._send
        # Writable nearly always: what waits for that would spin, so only reading is waited for after the request.
        self.swarm.selector.register(self._socket, selectors.EVENT_READ, self)
        self._step()

    def _shake(self) -> None:
        assert isinstance(self._socket, ssl.SSLSocket)
        self._socket.do_handshake()
        self._step = self._send
        self._send()

    def _send(self) -> None:
        """Send what is left of the request; a request is short, so one piece is the rule."""
        assert self._socket is not None
        while self._unsent:
            try:
                sent = self._socket.send(self._unsent)
            except (BlockingIOError, ssl.SSLWantWriteError):
                self.swarm.selector.modify(self._socket, selectors.EVENT_READ | selectors.EVENT_WRITE, self)
                return
            self._unsent = self._unsent[sent:]
            if not self._unsent and self.swarm.selector.get_key(self._socket).events != selectors.EVENT_READ:
                self.swarm.selector.modify(self._socket, selectors.EVENT_READ, self)
        self._step = self._read

    # --- the answer -------------------------------------------------------------------------------------------------

    def _read(self) -> None:
        buffer = self.swarm.buffer
        while True:
            assert self._socket is not None
            got = self._socket.recv_into(buffer)
            if not got:
                raise ConnectionError("the server closed the connection")
            self._quiet_since = time.monotonic()
            done = self._bytes(got)
            # TLS may hold more than the socket shows; a full buffer means that there is more.
            if done or not (got == len(buffer) or self.swarm.tls is not None):
                return

    def _bytes(self, got: int) -> bool:
        """Take what came; True when the answer is complete (and the line may be in other hands already)."""
        assert self._ask is not None
        view = self.swarm.buffer[:got]
        if self._left < 0:
            before = len(self._head)
            end = -1 if before else self.swarm.bytes.find(b"\r\n\r\n", 0, got)  # nearly always in one piece
            self._head += bytes(view if end < 0 else view[: end + 4])
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                if len(self._head) > HEAD_BYTES:
                    raise BadAnswer(f"headers of more than {HEAD_BYTES} bytes")
                return False
            view = view[end + 4 - before :]
            self._judge(self._head[: end + 2])
        if len(view) > self._left:
            raise HandedBack  # more than was promised: the general way decides what to make of it
        if view:
            check_stall(self._guard, len(view), self._ask.url)
            self._left -= len(view)
            if self._error is None:
                self._ask.sink.write(view)
        if self._left:
            return False
        self._complete()
        return True

    def _judge(self, head: bytes) -> None:
        """Look at the head: begin the sink, or keep the error of the status until its body is read."""
        assert self._ask is not None
        if (usual := usual_head(head)) is not None:
            self._left, self._keeps = usual[0], True
            self._ask.sink.begin(Head(usual[0], 0, strong_etag(usual[1])))
            return
        answer = parse_head(head)
        length = answer.length()
        if answer.status < 200 or answer.status in REDIRECTS or not answer.plain or length is None:
            raise HandedBack
        self._left, self._keeps = length, answer.keeps
        try:
            check_status(
                answer.status, answer.reason, answer.headers.get("retry-after"), self._ask.url, time.time()
            )
        except CachefetchError as error:
            if length > _DRAIN_BYTES:
                raise
            self._error = error
            return
        if answer.status != 200:
            raise HandedBack
        self._ask.sink.begin(Head(length, 0, strong_etag(answer.headers.get("etag"))))

    def _complete(self) -> None:
        assert self._ask is not None
        usable = self._keeps
        self._served = True
        if self._error is not None:
            if isinstance(self._error, NetworkError):
                self.swarm.failed(self._error)
            else:
                self.swarm.succeeded()
            self._next(self._error, usable=usable)
            return
        self.swarm.succeeded()
        error: BaseException | None = None
        try:
            self._ask.sink.end()
        except _EXPECTED as found:
            error = found
        self._next(error, usable=usable)


class _OfErrand(Exception):
    """What an errand raised, on its way out of the swarm."""

    def __init__(self, error: BaseException) -> None:
        self.error = error
