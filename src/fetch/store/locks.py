"""Exclusive locks on the keys of a store, which the kernel drops with their process.

Each key is one byte of the file ``locks``, at a place that the digest of the key gives: taking one is one system call,
nothing is made or removed, and a killed process leaves nothing behind. The locks belong to the open file (Linux,
``F_OFD_SETLK``); where there are none, each key has a file of its own under `flock`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import struct
import threading
from functools import partial

from . import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

#: What a file system without locks answers.
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}
_FLOCK = struct.Struct("hhqqi4x")  # struct flock of 64-bit Linux
_SET = getattr(fcntl, "F_OFD_SETLK", None) if struct.calcsize("P") == 8 else None


class Lock:
    """A lock that is held until `release`."""

    def __init__(self, undo: Callable[[], None] | None) -> None:
        self._undo = undo

    def release(self) -> None:
        """Unlock. Nothing happens the second time."""
        undo, self._undo = self._undo, None
        if undo is not None:
            undo()

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()


class Locks:
    """The locks of one store: `path` is the file that they are bytes of, `own_file` gives a file for a single key."""

    def __init__(self, path: str, own_file: Callable[[str], str]) -> None:
        self._path, self._own_file = path, own_file
        self._descriptor = -1
        self._held: set[int] = set()  # of this object: the kernel tells only open files from each other
        self._mutex = threading.Lock()

    def try_lock(self, key: str) -> Lock | None:
        """Return the lock of `key`, None when someone else has it.

        Raises:
            OSError: the file cannot be made, or (`NO_LOCKS`) the file system has no locks.
        """
        if _SET is None:
            return _try_flock(self._own_file(key))
        place = _place(key)
        with self._mutex:
            if place in self._held:
                return None
            if self._descriptor < 0:
                self._descriptor = files.open_for_writing(self._path)
            try:
                self._set(fcntl.F_WRLCK, place)
            except OSError as error:
                self._close_if_unused()
                if error.errno in (errno.EAGAIN, errno.EACCES):
                    return None
                raise
            self._held.add(place)
        return Lock(partial(self._release, place))

    def try_share(self, key: str) -> Lock | None:
        """Return a lock of `key` that many may have at a time, None when someone has it alone; errors as `try_lock`."""
        if _SET is None:
            return _try_flock(self._own_file(key), shared=True)
        descriptor = files.open_for_writing(self._path)  # of its own: the kernel counts the holders
        try:
            fcntl.fcntl(descriptor, _SET, _FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, _place(key), 1, 0))
        except OSError as error:
            os.close(descriptor)
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return None
            raise
        return Lock(partial(os.close, descriptor))

    def _release(self, place: int) -> None:
        with self._mutex:
            self._held.discard(place)
            if not self._close_if_unused():
                self._set(fcntl.F_UNLCK, place)

    def _set(self, kind: int, place: int) -> None:
        assert _SET is not None
        fcntl.fcntl(self._descriptor, _SET, _FLOCK.pack(kind, os.SEEK_SET, place, 1, 0))

    def _close_if_unused(self) -> bool:
        if self._held:
            return False
        os.close(self._descriptor)  # with it goes the last lock
        self._descriptor = -1
        return True


def _place(key: str) -> int:
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") >> 2


def _try_flock(path: str, *, shared: bool = False) -> Lock | None:
    while True:
        descriptor = files.open_for_writing(path)
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            if files.same_file(descriptor, path):
                undo = partial(os.close, descriptor) if shared else partial(_unlock, path, descriptor)
                return Lock(undo)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException as error:
            os.close(descriptor)
            if isinstance(error, OSError) and error.errno in NO_LOCKS:
                os.unlink(path)
            raise
        os.close(descriptor)  # its last holder removed this lock file meanwhile


def _unlock(path: str, descriptor: int) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)  # while it is held: who waits sees another inode and opens again
    os.close(descriptor)
