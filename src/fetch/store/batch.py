"""Storing many small payloads durably: written without names, synced together, then named.

A file system is synced once for many files (`syncfs`) in place of each file alone: a fifth of the time on ext4. A name
is given when the bytes are on the disk, so that a power cut leaves whole files or none, as with `fsync`.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from resource import RLIM_INFINITY, RLIMIT_NOFILE, getrlimit

from ... import signals
from ...errors import CachefetchError
from ...values import frozen
from . import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .cas import Store
    from .lease import Lease
    from .locks import Lock

#: Files that wait at most: each is an open file, of which there may be a quarter of what the system allows. Half of
#: them are synced together, unless no more come for `_REST_S` seconds.
_MOST = 500
_REST_S = 0.25
#: Documents that wait at most.
_SMALL = 250
#: Fewer files than this are synced one by one,
_FEW = 4
#: and so are all after one call that took so many seconds: it has to write what others left to the system, too.
_SLOW_S = 1.0


@frozen
class _Waiting:
    descriptor: int
    sha256: str
    path: str
    lock: Lock | Lease
    done: Callable[[str], None]


class Batches:
    """Stores payloads in the background. Any thread may `add`; one calls `finish`, after that."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: list[_Waiting] = []
        self._mutex = threading.Lock()
        self._wake, self._room = threading.Event(), threading.Event()
        # Not the thread to `join`: up to Python 3.12 an interrupted one takes it for ended, and the next returns.
        self._ended: threading.Event | None = None
        self._ending = False
        self._errors: list[CachefetchError] = []
        self._sync = Syncer()
        self._most = _most()

    def add(
        self, lock: Lock | Lease, sha256: str, data: bytes | bytearray, done: Callable[[str], None]
    ) -> None:
        """Store a payload whose digest was checked; `done` gets its path, and then `lock` is released.

        Raises:
            StoreError: no space or no permission, for this payload or an earlier one. The lock is released.
        """
        path = self._store.path(sha256)
        try:
            self.check()
            with files.store_errors(path):
                descriptor = files.write_unnamed(path, data)
            if descriptor is None:
                done(self._store.put_payload(lock, sha256, data))
                lock.release()
                return
        except BaseException:
            lock.release()
            raise
        with self._mutex:
            self._waiting.append(_Waiting(descriptor, sha256, path, lock, done))
            number = len(self._waiting)
            first, self._ended = self._ended is None, self._ended or threading.Event()
        if number >= self._most // 2:
            self._wake.set()
        if first:
            self._start(self._ended)
        while number >= self._most:
            self._room.clear()
            with self._mutex:
                number = len(self._waiting)
            if number >= self._most:
                self._room.wait(_REST_S)

    def _start(self, ended: threading.Event) -> None:
        try:
            threading.Thread(target=self._work, args=(ended,), daemon=True).start()
        except BaseException:  # the system gives no more threads
            ended.set()
            raise

    def finish(self) -> None:
        """Wait until all is stored, and end the thread; also when the waiting is interrupted, which is raised then."""
        self._ending = True
        self._wake.set()
        if self._ended is not None:
            try:
                self._ended.wait()
            except BaseException:
                self._ended.wait()
                raise
        self._store.notes.flush()

    def check(self) -> None:
        """Raise the StoreError that stopped the storing, if there is one."""
        if self._errors:
            raise self._errors[0]

    def _work(self, ended: threading.Event) -> None:
        signals.leave_to_main()
        try:
            while self._store_more():
                pass
        finally:
            ended.set()

    def _store_more(self) -> bool:
        """Store what waits, after a while; False when nothing does, and no more will come."""
        ending = self._ending
        if not ending:
            self._wake.wait(_REST_S)
            self._wake.clear()
        with self._mutex:
            batch, self._waiting = self._waiting, []
        self._room.set()
        if batch:
            self._store_all(batch)
        return bool(batch) or not ending

    def _store_all(self, batch: Sequence[_Waiting]) -> None:
        try:
            with files.store_errors(batch[0].path):
                self._sync([one.descriptor for one in batch])
            for one in batch:
                self._name(one)
            self._store.notes.flush()  # before the locks are free: others may wait for these blobs
        except CachefetchError as error:
            self._errors.append(error)
        finally:
            for one in batch:
                os.close(one.descriptor)
                one.lock.release()

    def _name(self, one: _Waiting) -> None:
        with files.store_errors(one.path):
            info = files.give_name(one.descriptor, one.path)
        if info is None:  # a name that exists by now, or a system that cannot give one
            size = os.fstat(one.descriptor).st_size
            self._store.put_payload(one.lock, one.sha256, os.pread(one.descriptor, size, 0))
        else:
            self._store.note(one.sha256, info)
        one.done(one.path)


def _most() -> int:
    """Return how many files may wait."""
    allowed, _ = getrlimit(RLIMIT_NOFILE)
    return _MOST if allowed == RLIM_INFINITY else min(_MOST, max(_FEW, allowed // 4))


class Together:
    """Small files that are written now and named together, once all of them are on the disk. Any thread may add.

    `again` writes a file whose name was taken meanwhile: (path, bytes).
    """

    def __init__(self, again: Callable[[str, bytes], object]) -> None:
        self._again = again
        self._waiting: list[tuple[int, str]] = []
        self._mutex = threading.Lock()
        self._sync = Syncer()

    def add(self, path: str, data: bytes) -> bool:
        """Write a file; False when it has to be written alone: it exists, or no file here can be without a name.

        Raises:
            StoreError: no space or no permission, for this file or an earlier one.
        """
        with files.store_errors(path):
            descriptor = None if os.path.lexists(path) else files.write_unnamed(path, data)
        if descriptor is None:
            return False
        with self._mutex:
            self._waiting.append((descriptor, path))
            full = len(self._waiting) >= _SMALL
        if full:
            self.settle()
        return True

    def settle(self) -> None:
        """Bring what waits to the disk, then name it. Raises StoreError."""
        with self._mutex:
            batch, self._waiting = self._waiting, []
        try:
            if batch:
                with files.store_errors(batch[0][1]):
                    self._sync([descriptor for descriptor, _ in batch])
            for descriptor, path in batch:
                with files.store_errors(path):
                    named = files.give_name(descriptor, path) is not None
                    data = b"" if named else os.pread(descriptor, os.fstat(descriptor).st_size, 0)
                if not named:
                    self._again(path, data)
        finally:
            for descriptor, _ in batch:
                os.close(descriptor)

    def take_back(self, path: str) -> None:
        """Forget a file, if it waits."""
        with self._mutex:
            found = [one for one in self._waiting if one[1] == path]
            self._waiting = [one for one in self._waiting if one[1] != path]
        for descriptor, _ in found:
            os.close(descriptor)

    def drop(self) -> None:
        """Forget what waits: it never had a name."""
        with self._mutex:
            batch, self._waiting = self._waiting, []
        for descriptor, _ in batch:
            os.close(descriptor)


class Syncer:
    """Brings files of one file system to the disk."""

    def __init__(self) -> None:
        self._together = _syncfs()

    def __call__(self, descriptors: Sequence[int]) -> None:
        """Sync the files. Raises OSError."""
        if self._together is None or len(descriptors) < _FEW:
            for descriptor in descriptors:
                os.fsync(descriptor)
            return
        start = time.monotonic()
        self._together(descriptors[0])
        if time.monotonic() - start > _SLOW_S:
            self._together = None


def _syncfs() -> Callable[[int], None] | None:
    """Return ``syncfs``, where it is and tells of errors (Linux 5.8)."""
    system = os.uname()
    with contextlib.suppress(ValueError):
        major, minor = (int(part) for part in system.release.split(".")[:2])
        if system.sysname == "Linux" and (major, minor) >= (5, 8):
            return _from_libc()
    return None


def _from_libc() -> Callable[[int], None] | None:
    import ctypes

    try:
        function = ctypes.CDLL(None, use_errno=True).syncfs
    except (OSError, AttributeError):
        return None

    def syncfs(descriptor: int) -> None:
        if function(descriptor):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    return syncfs
