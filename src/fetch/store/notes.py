"""Notes of what was verified, so that unchanged files need not be read again (docs/decisions/0008-proof-notes.md).

A note is one line of the file ``proofs``: what was found, for which `identity` of a file. It counts when only this user
(or root) can have written it, on this boot of this machine, by this version, for a week at most. Lines are appended;
what is torn, foreign or old counts as no note. Notes are never needed: any trouble with them means verifying again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import threading
import time
import zlib

from ... import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

#: Seconds for which a note counts.
LIFE_S = 7 * 86400.0
_NAME = "proofs"
_FORMAT = 1
_BOOT = "/proc/sys/kernel/random/boot_id"
#: Bytes: a file with more than this, and more dead lines than living ones, is written anew.
_COMPACT = 1 << 20
_MOST = 256 << 20  # a larger file is not read
_WRITABLE = stat.S_IWGRP | stat.S_IWOTH


def identity(info: os.stat_result) -> str:
    """Return what changes whenever the bytes of a file may have; "" where someone else may change them unseen.

    The time of the last change of the inode (ctime) cannot be set. A file that belongs to another user, or that others
    may write, tells nothing: its owner can keep a mapping of it and change bytes without any trace.
    """
    mine = info.st_uid in (0, os.geteuid()) and not info.st_mode & _WRITABLE and stat.S_ISREG(info.st_mode)
    if not mine:
        return ""
    return f"{info.st_dev}:{info.st_ino}:{info.st_size}:{info.st_mtime_ns}:{info.st_ctime_ns}"


def subject(text: str) -> str:
    """Return the key for something that has no sha256 of its own."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


class Notes:
    """The notes of a store: in the first of the directories `places` that only this user or root can write.

    The last place is made when it is missing (in it nobody else may read, either). Threads may share an object.
    """

    def __init__(self, places: Sequence[str], clock: Callable[[], float] = time.time) -> None:
        self._places, self._clock = places, clock
        self._lines: dict[bytes, bytes] = {}
        self._new: list[bytes] = []
        self._read: tuple[int, int, int] = (0, 0, 0)  # device, inode, and how far it was read
        self._rest = b""  # the beginning of a line whose end was not there yet
        self._scope = _scope()
        self._mutex = threading.Lock()

    def get(self, key: str) -> list[str] | None:
        """Return the fields of the note about `key` (64 hexadecimal characters) that counts now, None without one.

        What other processes noted since `refresh` is not seen.
        """
        line = self._lines.get(key.encode())
        if line is None:
            return None
        try:
            check, body = line.split(b" ", 1)
            if int(check, 16) != zlib.crc32(body):
                return None
            _, _, made, until, *fields = body.decode("ascii").split(" ")
            return fields if float(made) <= self._clock() < float(until) else None
        except ValueError:
            return None

    def until(self, key: str) -> float:
        """Return when the note about `key` ends, Unix seconds; 0 without one."""
        return _ends(self._lines.get(key.encode(), b""))

    def put(self, key: str, *fields: str, until: float | None = None) -> None:
        """Note something about `key`, for `LIFE_S` or to the time `until` (Unix seconds); see `flush`."""
        if not self._scope or not all(fields) or any(" " in field or "\n" in field for field in fields):
            return
        now = self._clock()
        ends = now + LIFE_S if until is None else min(until, now + LIFE_S)
        body = " ".join((self._scope, key, str(int(now)), str(int(ends)), *fields))
        if not body.isascii():
            return
        line = b"%08x %s" % (zlib.crc32(body.encode()), body.encode())
        with self._mutex:
            self._lines[key.encode()] = line
            self._new.append(line)

    def refresh(self) -> bool:
        """Read what was noted since the last time, by any process; False when that is nothing."""
        before = self._read
        if self._scope:
            with self._mutex, contextlib.suppress(OSError):
                self._refresh()
        return self._read != before

    def flush(self) -> None:
        """Write the new notes: all in one piece, so that those of several processes do not mix."""
        if not self._new:
            return
        with self._mutex, contextlib.suppress(OSError):
            lines, self._new = self._new, []
            self._append(b"".join(line + b"\n" for line in lines))

    def forget(self) -> None:
        """Remove all notes, since a file turned out to be damaged that they vouched for."""
        with self._mutex, contextlib.suppress(OSError):
            self._lines.clear()
            self._new.clear()
            directory = self._directory(make=False)
            try:
                os.unlink(_NAME, dir_fd=directory)
            finally:
                os.close(directory)

    def _refresh(self) -> None:
        directory = self._directory(make=False)
        try:
            file = os.open(
                _NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=directory
            )
        finally:
            os.close(directory)
        try:
            info = os.fstat(file)
            if not identity(info) or info.st_size > _MOST:
                return
            device, inode, done = self._read
            if (device, inode) != (info.st_dev, info.st_ino) or info.st_size < done:
                done, self._rest = 0, b""
            data = b""
            while len(data) < info.st_size - done:
                more = os.pread(file, info.st_size - done - len(data), done + len(data))
                if not more:
                    break
                data += more
        finally:
            os.close(file)
        self._read = (info.st_dev, info.st_ino, done + len(data))
        self._take(self._rest + data)

    def _take(self, data: bytes) -> None:
        *lines, self._rest = data.split(b"\n")
        known, dead, start = self._lines, 0, b" " + self._scope.encode() + b" "
        key = slice(8 + len(start), 8 + len(start) + 64)
        for line in lines:
            if line.startswith(start, 8):
                dead += line[key] in known
                known[line[key]] = line
            else:
                dead += 1
        if len(data) > _COMPACT and dead > len(known):
            self._compact()

    def _append(self, data: bytes) -> None:
        directory = self._directory(make=True)
        try:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
            file = os.open(_NAME, flags, 0o644, dir_fd=directory)
        finally:
            os.close(directory)
        try:
            if not identity(os.fstat(file)):
                return
            os.write(file, data)
        finally:
            os.close(file)

    def _compact(self) -> None:
        """Write the living lines into a new file. What others append to the old one meanwhile is lost, no harm."""
        now, name = self._clock(), f"{_NAME}.{os.getpid()}"
        living = [line for line in self._lines.values() if _ends(line) > now]
        directory = self._directory(make=False)
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
            file = os.open(name, flags, 0o644, dir_fd=directory)
            try:
                os.write(file, b"".join(line + b"\n" for line in living))
            finally:
                os.close(file)
            os.rename(name, _NAME, src_dir_fd=directory, dst_dir_fd=directory)
        finally:
            os.close(directory)

    def _directory(self, *, make: bool) -> int:
        """Open the directory of the notes, so that nobody can exchange it between the look and the use.

        Raises:
            OSError: there is none.
        """
        for number, place in enumerate(self._places, 1):
            if make and number > 1 and number == len(self._places):
                os.makedirs(place, mode=0o700, exist_ok=True)
            try:
                directory = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except OSError:
                continue
            info = os.fstat(directory)
            if info.st_uid == os.geteuid() and not info.st_mode & _WRITABLE:
                return directory
            os.close(directory)
        raise FileNotFoundError("no directory is this user's own")


def _scope() -> str:
    """Return what all notes that count have in common; "" on a system that does not tell when it was started."""
    try:
        with open(_BOOT, "rb") as file:
            boot = file.read(64)
    except OSError:
        return ""
    return hashlib.sha256(b"%d %s %s" % (_FORMAT, __version__.encode(), boot)).hexdigest()[:16]


def _ends(line: bytes) -> float:
    try:
        return float(line.split(b" ", 5)[4])
    except (ValueError, IndexError):
        return 0.0
