"""A loopback HTTP server over a directory that misbehaves on command, path by path."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import re
import socket
import ssl
import struct
import threading
import time
from collections import defaultdict, deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


@dataclass(frozen=True)
class Fault:
    """How to answer one request; the defaults are right answers.

    Attributes:
        status: answer with this status and no object.
        headers: further headers.
        location: redirect there (302).
        cut_after: close the connection after so many body bytes.
        reset_after: the same with a TCP reset.
        stall_after: say nothing more after so many body bytes, until the client or the server goes.
        drip: send one byte every so many seconds.
        corrupt_at: flip the byte at this offset of the object.
        length: lie about Content-Length, and send that many bytes if there are more.
        extra: bytes sent behind the object (Content-Length fits them).
        no_length: send neither Content-Length nor chunks; the end is the end of the connection.
        ignore_end: serve everything from the start of the range on.
        ignore_range: answer 200 with the whole object.
        range_most: send no more than so many bytes of a range.
        range_shift: serve (and announce) a range that starts so many bytes later than asked.
        etag: another validator.
        gzip: encode the body.
        delay: seconds before the answer.
        times: for how many requests the fault holds; 0 for ever.
    """

    status: int | None = None
    headers: tuple[tuple[str, str], ...] = ()
    location: str | None = None
    cut_after: int | None = None
    reset_after: int | None = None
    stall_after: int | None = None
    drip: float | None = None
    corrupt_at: int | None = None
    length: int | None = None
    extra: bytes = b""
    no_length: bool = False
    ignore_end: bool = False
    ignore_range: bool = False
    range_most: int | None = None
    range_shift: int = 0
    etag: str | None = None
    gzip: bool = False
    delay: float = 0.0
    times: int = 1


@dataclass(frozen=True)
class Request:
    path: str
    headers: dict[str, str]
    at: float = field(default_factory=time.monotonic)


_FINE = Fault()
_RANGE = re.compile(r"bytes=([0-9]+)-([0-9]*)")


class FaultServer:
    """Serves `root`; use it as a context manager. `script` sets faults, `requests` has what was asked.

    `user` is the Authorization header that every request needs; `rate` limits right answers (bytes a second each).
    """

    def __init__(
        self,
        root: str,
        *,
        tls: ssl.SSLContext | None = None,
        user: str = "",
        rate: float = 0,
        host: str = "127.0.0.1",
    ) -> None:
        self.root = root
        self.rate = rate
        self.user = user
        self.requests: list[Request] = []
        self.most_at_once = 0
        self.sent = 0  # bytes of bodies, roughly: what the system takes is on its way
        self._open = 0
        self._faults: dict[str, deque[Fault]] = defaultdict(deque)
        self._lock = threading.Lock()
        self.closing = threading.Event()
        handler = type("Handler", (_Handler,), {"faults": self})
        kind = _Server6 if ":" in host else _Server
        self._server = kind((host, 0), handler)
        self._host = f"[{host}]" if ":" in host else host
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._scheme = "https" if tls else "http"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"{self._scheme}://{self._host}:{self.port}"

    def script(self, path: str, *faults: Fault) -> None:
        """Answer the next requests of `path` ("*": of any path without faults of its own) with `faults`."""
        with self._lock:
            self._faults[path].extend(faults)

    def count(self, fragment: str) -> int:
        """Return how many requests had `fragment` in their path."""
        with self._lock:
            return sum(fragment in request.path for request in self.requests)

    def reset_at_accept(self, connections: int) -> None:
        """Reset the next so many connections as soon as they are accepted."""
        self._server.resets = connections

    def next_fault(self, path: str) -> Fault:
        with self._lock:
            for key in (path, "*"):
                waiting = self._faults.get(key)
                if waiting:
                    fault = waiting[0]
                    if fault.times == 1:
                        waiting.popleft()
                    elif fault.times > 1:
                        waiting[0] = Fault(**{**vars(fault), "times": fault.times - 1})
                    return fault
        return _FINE

    @contextlib.contextmanager
    def counted(self, request: Request) -> Any:
        with self._lock:
            self.requests.append(request)
            self._open += 1
            self.most_at_once = max(self.most_at_once, self._open)
        try:
            yield
        finally:
            with self._lock:
                self._open -= 1

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    resets = 0

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept; the first `resets` connections are reset at once."""
        connection, address = super().get_request()
        if self.resets:
            self.resets -= 1
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()
            raise OSError("reset at accept")
        return connection, address

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Stay silent: clients of these tests hang up, and fail handshakes, on purpose."""


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    faults: FaultServer

    def log_message(self, format: str, *args: Any) -> None:
        """Stay silent."""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        request = Request(path, {key.lower(): value for key, value in self.headers.items()})
        with self.faults.counted(request):
            fault = self.faults.next_fault(path)
            if fault.delay:
                time.sleep(fault.delay)
            self._answer(path, fault)

    def _answer(self, path: str, fault: Fault) -> None:
        if self.faults.user and self.headers.get("Authorization") != self.faults.user:
            self._short(401, (("WWW-Authenticate", 'Basic realm="test"'),))
        elif fault.location is not None:
            self._short(302, (("Location", fault.location), *fault.headers))
        elif fault.status is not None:
            self._short(fault.status, fault.headers)
        else:
            self._object(path, fault)

    def _short(self, status: int, headers: tuple[tuple[str, str], ...]) -> None:
        body = f"<html>{status}</html>".encode()
        self.send_response(status)
        for key, value in headers:
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _object(self, path: str, fault: Fault) -> None:
        file = os.path.join(self.faults.root, path.lstrip("/"))
        if not os.path.isfile(file):
            self._short(404, ())
            return
        with open(file, "rb") as opened:
            data = bytearray(opened.read())
        etag = fault.etag or f'"{hashlib.sha256(data).hexdigest()[:16]}"'
        if self.headers.get("If-None-Match") == etag:
            self.send_response(304)
            self.send_header("ETag", etag)
            self.end_headers()
            return
        if fault.corrupt_at is not None:
            data[fault.corrupt_at] ^= 0xFF
        self._send(bytes(data), etag, fault)

    def _send(self, data: bytes, etag: str, fault: Fault) -> None:
        asked = self._asked(len(data), etag, fault)
        if asked and asked[0] >= len(data):
            self._short(416, (("Content-Range", f"bytes */{len(data)}"),))
            return
        start, stop = asked or (0, len(data))
        body = data[start:stop] + fault.extra
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}")
        self.send_header("ETag", etag)
        if fault.gzip:
            body = gzip.compress(body)
            self.send_header("Content-Encoding", "gzip")
        for key, value in fault.headers:
            self.send_header(key, value)
        if fault.no_length:
            self.send_header("Connection", "close")
            self.close_connection = True
        else:
            length = len(body) if fault.length is None else fault.length
            body = body[:length]
            self.send_header("Content-Length", str(length))
            self.close_connection = length > len(body)
        self.end_headers()
        self._body(body, fault)

    def _asked(self, size: int, etag: str, fault: Fault) -> tuple[int, int] | None:
        """Return the first byte to serve and the one behind the last, None for the whole object."""
        asked = _RANGE.fullmatch(self.headers.get("Range", ""))
        if not asked or fault.ignore_range:
            return None
        if self.headers.get("If-Range", etag) != etag:
            return None
        stop = int(asked[2]) + 1 if asked[2] and not fault.ignore_end else size
        if fault.range_most is not None:
            stop = min(stop, int(asked[1]) + fault.range_most)
        return int(asked[1]) + fault.range_shift, min(size, stop)

    def _body(self, body: bytes, fault: Fault) -> None:
        if fault.drip is not None:
            for i in range(len(body)):
                self.wfile.write(body[i : i + 1])
                if self.faults.closing.wait(fault.drip):
                    return
        elif fault.stall_after is not None:
            self.wfile.write(body[: fault.stall_after])
            self.close_connection = True
            self.faults.closing.wait(30)
        elif fault.cut_after is not None or fault.reset_after is not None:
            self.wfile.write(body[: fault.cut_after if fault.cut_after is not None else fault.reset_after])
            self.wfile.flush()
            if fault.reset_after is not None:
                time.sleep(0.05)  # let the bytes go out before the reset overtakes them
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
        elif self.faults.rate:
            for start in range(0, len(body), 1 << 15):
                self.wfile.write(body[start : start + (1 << 15)])
                self.faults.sent += len(body[start : start + (1 << 15)])
                time.sleep((1 << 15) / self.faults.rate)
        else:
            self.wfile.write(body)
