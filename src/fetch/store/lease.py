"""Locks for file systems without `flock` (some network ones): a file that must not exist, renewed while it is held.

`O_CREAT | O_EXCL` is atomic on NFS since version 3. A lease whose holder is gone (its process on this machine, or no
renewal for `STALE_S` elsewhere) is taken away by one of those who want it.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time

from ... import signals

STALE_S = 120.0
_RENEW_S = 20.0


class Lease:
    """An exclusive lease on `path` until `release`; a daemon thread renews it."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._done = threading.Event()
        threading.Thread(target=self._renew, name="cachefetch-lease", daemon=True).start()

    def release(self) -> None:
        """Remove the lease. Nothing happens the second time."""
        if not self._done.is_set():
            self._done.set()
            with contextlib.suppress(OSError):
                os.unlink(self._path)

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    def _renew(self) -> None:
        signals.leave_to_main()
        while not self._done.wait(_RENEW_S):
            with contextlib.suppress(OSError):
                os.utime(self._path)


def try_lease(path: str) -> Lease | None:
    """Return a lease on `path`, None when a living holder has it.

    Raises:
        OSError: the directory cannot be written.
    """
    for _ in range(3):
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644)
        except FileExistsError:
            if not is_stale(path):
                return None
            _take_away(path)
            continue
        with open(descriptor, "w") as file:
            json.dump({"host": os.uname().nodename, "pid": os.getpid()}, file)
        return Lease(path)
    return None


def is_stale(path: str) -> bool:
    """Return True for a lease whose holder is gone; False for a living one, and where there is none."""
    try:
        if time.time() - os.stat(path).st_mtime > STALE_S:
            return True
        with open(path) as file:
            holder = json.load(file)
        if holder["host"] != os.uname().nodename:
            return False
        os.kill(int(holder["pid"]), 0)
    except ProcessLookupError:
        return True
    except (OSError, ValueError, KeyError, TypeError):
        return False  # gone meanwhile, or being written right now
    return False


def _take_away(path: str) -> None:
    """Remove a stale lease. One taker at a time: a second one could remove the lease that the first then gets."""
    guard = f"{path}.taking"
    with contextlib.suppress(OSError):
        os.close(os.open(guard, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644))
        try:
            if is_stale(path):
                os.unlink(path)
        finally:
            os.unlink(guard)
    with contextlib.suppress(OSError):
        if time.time() - os.stat(guard).st_mtime > STALE_S:  # its taker was killed in these few instructions
            os.unlink(guard)
