"""A server that never answers can be interrupted; one that sends a bomb costs no memory."""

from __future__ import annotations

import gzip
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from tests.functional.conftest import DEBIAN, ROOT, Done

Cli = Callable[..., Done]


@pytest.fixture
def interruptible() -> Iterator[None]:
    """A process that a shell started in the background ignores SIGINT, and so would its children."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_one_interrupt_stops_a_command_that_waits_for_a_silent_server() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        command = [sys.executable, "-m", "cachefetch", "resolve", "zlib", "-m", url, *DEBIAN]
        environment = {**os.environ, "PYTHONPATH": str(ROOT / ".dev")}
        with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) as process:
            connection, _ = server.accept()  # now it waits for an answer
            time.sleep(0.5)
            start = time.monotonic()
            process.send_signal(signal.SIGINT)
            _, told = process.communicate(timeout=30)
            connection.close()
    assert process.returncode == 130
    assert b"Traceback" not in told
    assert time.monotonic() - start < 10


@contextmanager
def serving(body: bytes, encoding: str) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Encoding", encoding)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *words: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("encoding", ["gzip", "gzip, gzip", "br"])
def test_an_encoding_nobody_asked_for_does_not_expand_without_bound(cli: Cli, encoding: str) -> None:
    bomb = gzip.compress(b"\0" * (64 << 20))
    with serving(bomb, encoding) as url:
        done = cli("resolve", "zlib", "-m", url, *DEBIAN)
    assert done.code == 8
    assert "internal error" not in done.err
