"""A real docker-registry over a storage folder, on a port of its own."""

from __future__ import annotations

import os

from tests.services.program import Server, find, free_port

_CONFIG = """
version: 0.1
log: {{level: warn}}
storage:
  filesystem: {{rootdirectory: {root}}}
  maintenance: {{uploadpurging: {{enabled: false}}}}
http: {{addr: "127.0.0.1:{port}"}}
{more}
"""


class Registry(Server):
    """Serves `root`; a context manager.

    Args:
        prefix: an empty directory for its configuration.
        root: the storage folder (has ``docker/registry/v2``); the server may write to it.
        more: further sections of the configuration, such as ``auth``.
    """

    def __init__(self, prefix: str, root: str, more: str = "") -> None:
        program, port = find("docker-registry", "apt-get install docker-registry"), free_port()
        os.makedirs(prefix, exist_ok=True)
        config = os.path.join(prefix, "config.yml")
        with open(config, "w") as file:
            file.write(_CONFIG.format(root=root, port=port, more=more))
        super().__init__([program, "serve", config], port, os.path.join(prefix, "log"))

    def url(self, name: str) -> str:
        """Return the reference of a repository as Spack writes it."""
        return f"oci+http://127.0.0.1:{self.port}/{name}"
