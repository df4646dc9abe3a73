"""A server program of this machine, on a port of its own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Self

import pytest


def find(name: str, package: str) -> str:
    """Return the path of a program, or skip the test and say how to install it."""
    # Debian keeps servers in /usr/sbin, which is not in every PATH; packages of PyPI stand beside the interpreter.
    places = os.pathsep.join(
        [os.path.dirname(sys.executable), os.environ.get("PATH", ""), "/usr/sbin", "/sbin"]
    )
    path = shutil.which(name, path=places)
    if path is None:
        pytest.skip(f"{name} is not installed ({package})")
    return path


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """Runs `command`, which listens on `port`, as a context manager; its output goes to the file `log`."""

    def __init__(
        self,
        command: Sequence[str],
        port: int,
        log: str,
        environment: Mapping[str, str] | None = None,
        *,
        host: str = "127.0.0.1",
    ) -> None:
        self.port = port
        self._host = host
        self._command = command
        self._log = log
        self._environment = {**os.environ, **(environment or {})}

    def __enter__(self) -> Self:
        with open(self._log, "a") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, env=self._environment)
        for _ in range(500):
            with socket.socket(socket.AF_INET6 if ":" in self._host else socket.AF_INET) as probe:
                if probe.connect_ex((self._host, self.port)) == 0:
                    return self
            if self._process.poll() is not None:
                break
            time.sleep(0.02)
        self.__exit__()
        with open(self._log) as log:
            pytest.fail(f"{self._command[0]} did not start: {log.read()[-500:]}")

    def __exit__(self, *error: object) -> None:
        self._process.terminate()
        self._process.wait(10)
