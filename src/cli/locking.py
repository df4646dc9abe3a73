"""Reading and writing lock files."""

from __future__ import annotations

import os

from ..errors import UsageError, cannot_write
from ..lockfile import Lock


def read_lock(path: str) -> Lock:
    """Return the lock file at `path`. Raises UsageError when it cannot be read, FormatError when it is none."""
    try:
        with open(path, "rb") as file:
            return Lock.read(file.read(), what=path)
    except OSError as error:
        raise UsageError(
            f"cannot read the lock file {path}: {error.strerror}",
            hint="make it with `cachefetch resolve SPEC... --lock FILE`",
        ) from error


def write_file(path: str, data: bytes) -> None:
    """Write `data` under a temporary name and rename it, so that a reader never sees half a file. Raises StoreError."""
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        with open(temporary, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except OSError as error:
        raise cannot_write(path, path, error) from error
