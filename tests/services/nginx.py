"""A real nginx on a port of its own, below a temporary prefix."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from typing import Self

import pytest

_CONFIG = """
worker_processes 1;
daemon off;
pid {prefix}/nginx.pid;
error_log {prefix}/error.log warn;
events {{ worker_connections 256; }}
http {{
    access_log {prefix}/access.log;
    client_body_temp_path {prefix}/body;
    proxy_temp_path {prefix}/proxy;
    fastcgi_temp_path {prefix}/fastcgi;
    uwsgi_temp_path {prefix}/uwsgi;
    scgi_temp_path {prefix}/scgi;
    default_type application/octet-stream;
    sendfile on;
    {http}
    server {{
        listen 127.0.0.1:{port} {listen};
        root {root};
        {server}
    }}
}}
"""


def find() -> str:
    """Return the path of nginx, or skip the test with a reason."""
    path = shutil.which("nginx") or next((p for p in ("/usr/sbin/nginx",) if os.path.exists(p)), None)
    if path is None:
        pytest.skip("nginx is not installed (apt-get install nginx-light)")
    return path


class Nginx:
    """Serves `root`; a context manager.

    Args:
        prefix: an empty directory for its files.
        root: what it serves.
        tls: (certificate file, key file) for https.
        http, server: further lines of the configuration in these blocks.
        http2: offer HTTP/2 too; for https.
    """

    def __init__(
        self,
        prefix: str,
        root: str,
        *,
        tls: tuple[str, str] | None = None,
        http: str = "",
        server: str = "",
        http2: bool = False,
    ) -> None:
        self._program = find()
        self._prefix = prefix
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        if tls:
            server += f"\nssl_certificate {tls[0]};\nssl_certificate_key {tls[1]};"
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        os.makedirs(prefix, exist_ok=True)
        text = _CONFIG.format(
            prefix=prefix,
            root=root,
            port=self.port,
            listen=("ssl http2" if http2 else "ssl") if tls else "",
            http=http,
            server=server,
        )
        with open(os.path.join(prefix, "nginx.conf"), "w") as file:
            # The workers of a master that root starts are another user, who may not read a private directory.
            file.write(("user root;\n" if os.getuid() == 0 else "") + text)

    def __enter__(self) -> Self:
        config = os.path.join(self._prefix, "nginx.conf")
        command = [self._program, "-p", self._prefix, "-c", config, "-e", f"{self._prefix}/error.log"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return self
            if self._process.poll() is not None:
                break
            time.sleep(0.02)
        self.__exit__()
        with open(os.path.join(self._prefix, "error.log")) as file:
            pytest.fail(f"nginx did not start: {file.read()[-500:]}")

    def __exit__(self, *error: object) -> None:
        self._process.terminate()
        self._process.wait(10)

    def requests(self) -> list[str]:
        """Return the request lines so far, such as ``GET /v3/... HTTP/1.1`` and status, in order."""
        with open(os.path.join(self._prefix, "access.log")) as file:
            return [line.split('"', 1)[1] for line in file]
