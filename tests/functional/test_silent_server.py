"""A mirror that accepts connections and never answers costs little; one that is slow, but moves, is used."""

from __future__ import annotations

import contextlib
import shutil
import socket
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.functional.conftest import FIXTURES, PAGE

from cachefetch import Client
from cachefetch.config import Config, Mirror
from cachefetch.errors import NoUsableMirrorError
from cachefetch.fetch.limits import Limits

LIMITS = Limits(first_byte_s=0.2, flush_s=0.1, backoff_s=0.01)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(cache_dir=str(tmp_path / "cache"), config_dir=str(tmp_path / "config"))


class Silent:
    """Accepts every connection, and says nothing; counts them."""

    def __init__(self) -> None:
        self.accepted: list[socket.socket] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                self.accepted.append(self._server.accept()[0])
            except OSError:
                return

    def close(self) -> None:
        self._server.close()
        for connection in self.accepted:
            connection.close()


@pytest.mark.parametrize("path", ["", "/index.json"])
def test_a_silent_mirror_is_asked_twice_and_named(path: str, config: Config) -> None:
    server = Silent()
    good = Mirror("good", str(FIXTURES / "v3-unsigned"), signed="none")
    mirrors = [Mirror("silent", server.url + path), good]
    try:
        with Client(mirrors, config=config, limits=LIMITS) as client:
            answer = client.resolve("zlib")
    finally:
        server.close()
    states = {state.mirror: state for state in answer.mirrors}
    assert states["good"].state == "fresh"
    assert states["silent"].state == "unreachable"
    assert "no answer in time" in states["silent"].detail
    assert len(server.accepted) == LIMITS.silent_attempts


def test_a_silent_mirror_alone_is_an_error_that_says_so(config: Config) -> None:
    server = Silent()
    try:
        with (
            Client([Mirror("silent", server.url)], config=config, limits=LIMITS) as client,
            pytest.raises(NoUsableMirrorError, match=r"silent is unreachable: .*no answer in time"),
        ):
            client.resolve("zlib")
    finally:
        server.close()


class _Dripping(SimpleHTTPRequestHandler):
    """Sends a file byte by byte, so that no single wait is long."""

    asked = 0

    def copyfile(self, source: Any, outputfile: Any) -> None:
        _Dripping.asked += 1
        with contextlib.suppress(ConnectionError):  # the client has given up
            for byte in source.read():
                outputfile.write(bytes([byte]))
                time.sleep(DRIPPED.first_byte_s / 2)

    def log_message(self, *words: object) -> None:
        pass


DRIPPED = Limits(first_byte_s=0.2, document_s=0.6, page_s=0.6, backoff_s=0.01)


@pytest.mark.parametrize("kind", ["mirror", "page"])
def test_a_dripping_mirror_is_asked_twice_and_hides_no_other(
    config: Config, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_Dripping, "asked", 0)
    served, path = (
        (FIXTURES / "v3-unsigned", "") if kind == "mirror" else (Path(PAGE).parent, "/py-multidict.md")
    )
    good = Mirror("good", str(FIXTURES / "v3-unsigned"), signed="none")
    handler = partial(_Dripping, directory=str(served))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            dripping = Mirror("dripping", f"http://127.0.0.1:{server.server_port}{path}", signed="none")
            with Client([dripping, good], config=config, limits=DRIPPED) as client:
                answer = client.resolve("zlib")
        finally:
            server.shutdown()
    states = {state.mirror: state for state in answer.mirrors}
    assert states["good"].state == "fresh"
    assert states["dripping"].state == "unreachable"
    assert "not whole in time" in states["dripping"].detail
    assert _Dripping.asked == DRIPPED.silent_attempts


class _Slow(SimpleHTTPRequestHandler):
    """Sends each file in four pieces, with pauses that are together longer than the patience for the first byte."""

    def copyfile(self, source: Any, outputfile: Any) -> None:
        data = source.read()
        step = len(data) // 4 + 1
        for start in range(0, len(data), step):
            outputfile.write(data[start : start + step])
            time.sleep(LIMITS.first_byte_s / 2)

    def log_message(self, *words: object) -> None:
        pass


def test_a_slow_mirror_that_moves_is_used(config: Config, tmp_path: Path) -> None:
    shutil.copytree(FIXTURES / "v3-unsigned", tmp_path / "mirror")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Slow, directory=str(tmp_path / "mirror"))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            slow = Mirror("slow", f"http://127.0.0.1:{server.server_port}", signed="none")
            with Client([slow], config=config, limits=LIMITS) as client:
                assert client.resolve("zlib").mirrors[0].state == "fresh"
        finally:
            server.shutdown()
