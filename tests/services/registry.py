"""A real docker-registry over a storage folder, on a port of its own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from typing import Self

import pytest

_CONFIG = """
version: 0.1
log: {{level: warn}}
storage:
  filesystem: {{rootdirectory: {root}}}
  maintenance: {{uploadpurging: {{enabled: false}}}}
http: {{addr: "127.0.0.1:{port}"}}
{more}
"""


class Registry:
    """Serves `root`; a context manager.

    Args:
        prefix: an empty directory for its configuration.
        root: the storage folder (has ``docker/registry/v2``); the server may write to it.
        more: further sections of the configuration, such as ``auth``.
    """

    def __init__(self, prefix: str, root: str, more: str = "") -> None:
        program = shutil.which("docker-registry")
        if program is None:
            pytest.skip("docker-registry is not installed (apt-get install docker-registry)")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        os.makedirs(prefix, exist_ok=True)
        config = os.path.join(prefix, "config.yml")
        with open(config, "w") as file:
            file.write(_CONFIG.format(root=root, port=self.port, more=more))
        self._log = os.path.join(prefix, "log")
        self._command = [program, "serve", config]

    def __enter__(self) -> Self:
        with open(self._log, "w") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        for _ in range(250):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return self
            if self._process.poll() is not None:
                break
            time.sleep(0.02)
        self.__exit__()
        with open(self._log) as log:
            pytest.fail(f"docker-registry did not start: {log.read()[-500:]}")

    def __exit__(self, *error: object) -> None:
        self._process.terminate()
        self._process.wait(10)

    def url(self, name: str) -> str:
        """Return the reference of a repository as Spack writes it."""
        return f"oci+http://127.0.0.1:{self.port}/{name}"
