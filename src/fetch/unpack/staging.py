"""The private directory that a package is unpacked to, and those that killed processes left behind.

A living one is known by a lease, which its process renews, and by a lock, which ends with its process: it is removed
only when neither holds any more, so that no clock and no file system without locks costs somebody else's work.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import stat
import tempfile
import time

from ..store import lease
from ..store.files import store_errors
from ..store.locks import NO_LOCKS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

PREFIX = ".cachefetch-extract-"
_LEASE, _LOCK, _TREE = "lease", "lock", "tree"
#: Seconds. A directory without a lease is being made, or its process was killed while it was.
_NEW_S = 86400.0


@contextlib.contextmanager
def staging_directory(parent: str) -> Iterator[str]:
    """Yield a new private directory below `parent`, which is removed at the end with all that is left in it.

    Those that killed processes of this user left in `parent` are removed first.

    Raises:
        StoreError: none can be made.
    """
    with store_errors(parent):
        os.makedirs(parent, exist_ok=True)
        _sweep(parent)
        path = tempfile.mkdtemp(prefix=PREFIX, dir=parent)
    try:
        with _held(path):
            tree = os.path.join(path, _TREE)
            os.mkdir(tree, 0o700)
            yield tree
    finally:
        _remove(path)


@contextlib.contextmanager
def _held(path: str) -> Iterator[None]:
    """Show others that the process of a directory lives."""
    renewed = lease.try_lease(os.path.join(path, _LEASE))
    assert renewed is not None, "the directory is new"
    with renewed, open(os.path.join(path, _LOCK), "wb") as file:
        with contextlib.suppress(OSError):  # a file system without locks: the lease is all there is
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def _sweep(parent: str) -> None:
    found = []
    with contextlib.suppress(OSError), os.scandir(parent) as entries:
        found = [entry.path for entry in entries if entry.name.startswith(PREFIX)]
    for path in found:
        with contextlib.suppress(OSError):  # gone meanwhile
            info = os.lstat(path)
            ours = stat.S_ISDIR(info.st_mode) and info.st_uid == os.geteuid()
            if ours and _expired(path, info.st_mtime):
                _remove_if_free(path)


def _expired(path: str, changed: float) -> bool:
    """Tell whether the lease of a directory is not renewed any more."""
    held = os.path.join(path, _LEASE)
    return lease.is_stale(held) if os.path.lexists(held) else time.time() - changed > _NEW_S


def _remove_if_free(path: str) -> None:
    try:
        descriptor = os.open(os.path.join(path, _LOCK), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        _remove(path)
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _remove(path)
    except OSError as error:
        if error.errno in NO_LOCKS:
            _remove(path)
        elif error.errno not in (errno.EAGAIN, errno.EACCES):
            raise
    finally:
        os.close(descriptor)


def _remove(path: str) -> None:
    """Remove what is left, also directories that their owner may not write."""
    for directory, _, _ in os.walk(path):
        with contextlib.suppress(OSError):
            os.chmod(directory, 0o700)
    shutil.rmtree(path, ignore_errors=True)
