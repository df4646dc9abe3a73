"""A real nginx on a port of its own, below a temporary prefix."""

from __future__ import annotations

import os

from tests.services.program import Server, find, free_port

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
        listen {address}:{port} {listen};
        root {root};
        {server}
    }}
}}
"""


class Nginx(Server):
    """Serves `root`; a context manager.

    Args:
        prefix: an empty directory for its files.
        root: what it serves.
        tls: (certificate file, key file) for https.
        http, server: further lines of the configuration in these blocks.
        http2: offer HTTP/2 too; for https.
        address: where it listens, an IPv6 address in brackets.
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
        address: str = "127.0.0.1",
    ) -> None:
        program, port = find("nginx", "apt-get install nginx-light"), free_port()
        self._prefix = prefix
        if tls:
            server += f"\nssl_certificate {tls[0]};\nssl_certificate_key {tls[1]};"
        self.url = f"{'https' if tls else 'http'}://{address}:{port}"
        os.makedirs(prefix, exist_ok=True)
        text = _CONFIG.format(
            prefix=prefix,
            root=root,
            port=port,
            address=address,
            listen=("ssl http2" if http2 else "ssl") if tls else "",
            http=http,
            server=server,
        )
        config, log = os.path.join(prefix, "nginx.conf"), os.path.join(prefix, "error.log")
        with open(config, "w") as file:
            # The workers of a master that root starts are another user, who may not read a private directory.
            file.write(("user root;\n" if os.getuid() == 0 else "") + text)
        super().__init__(
            [program, "-p", prefix, "-c", config, "-e", log], port, log, host=address.strip("[]")
        )

    def requests(self) -> list[str]:
        """Return the request lines so far, such as ``GET /v3/... HTTP/1.1`` and status, in order."""
        with open(os.path.join(self._prefix, "access.log")) as file:
            return [line.split('"', 1)[1] for line in file]
