"""File operations of the store: atomic writes, links out, free space; failures of the system become StoreError."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import sys

from ...errors import DENIED, FULL, StoreError
from ...regular import open_regular

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType
    from typing import BinaryIO

#: Blobs are never changed in place, and a hard link outside the store must not invite it. The owner may delete.
READ_ONLY = 0o444
#: Of one system call: the kernel makes page cache in folios of up to that size, and may have to get large ones from the
#: host or by compaction. With 1 MiB copying a blob into the cache cost three times the CPU.
WRITE_BYTES = 256 << 10
_NO_LINK = {
    errno.EXDEV,
    errno.EPERM,
    errno.EACCES,
    errno.EMLINK,
    errno.EOPNOTSUPP,
    errno.ENOSYS,
    errno.EINVAL,
}
#: SYNC_FILE_RANGE_WRITE of <fcntl.h>: begin, and wait for nothing.
_WRITE_BACK = 2
_ANONYMOUS = getattr(os, "O_TMPFILE", 0)
_DIRECT = getattr(os, "O_DIRECT", 0)
#: Answers of file systems (some network ones) and containers that cannot give such a file a name.
_NO_ANONYMOUS = {errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOSYS, errno.EXDEV, errno.EPERM}
#: Linux ioctl to share extents: _IOW(0x94, 9, int) of <linux/fs.h>.
_FICLONE = 0x40049409


class store_errors:  # used as a function is; a generator takes five times as long
    """Turn an OSError into a StoreError that names `path`."""

    __slots__ = ("_hint_for", "_path")

    def __init__(self, path: str, hint_for: Callable[[OSError], str] | None = None) -> None:
        self._path, self._hint_for = path, hint_for

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, OSError):
            raise _store_error(self._path, error, self._hint_for(error) if self._hint_for else "") from error


def _store_error(path: str, error: OSError, hint: str) -> StoreError:
    if error.errno in FULL:
        return _full(path, None, error)
    if not hint and error.errno in DENIED:
        hint = "make its directory writable, or choose another one (of the cache: CACHEFETCH_CACHE_DIR)"
    elif not hint and error.errno in (errno.EMFILE, errno.ENFILE):
        hint = "allow this process more open files (`ulimit -n`), then run the command again"
    elif not hint and error.errno in (errno.EEXIST, errno.ENOTDIR):
        hint = "a file is where a directory must be: remove it, or choose another place"
    return StoreError(
        f"{path}: {error.strerror or error}",
        hint=hint or "check this path and its file system",
        context={"path": path, "errno": errno.errorcode.get(error.errno or 0, "")},
    )


def require_space(path: str, size: int) -> None:
    """Raise StoreError when the file system of `path` (or of its nearest existing parent) lacks `size` bytes."""
    info = os.statvfs(existing_directory(path))
    free = info.f_bavail * info.f_frsize
    if size > free:
        raise _full(path, (size, free), None)


def start_write_back(descriptor: int, offset: int, size: int) -> None:
    """Let the disk begin with bytes that were written, so that a later fsync has less to wait for; only a hint."""
    call = _c_function("sync_file_range", ("c_int", "c_int64", "c_int64", "c_uint"))
    if call is not None:
        call(descriptor, offset, size, _WRITE_BACK)


def set_direct(descriptor: int, *, wanted: bool) -> bool:
    """Let what is written to an open file go past the page cache, or not any more; return True when it does.

    Only on a disk of this machine: what comes from one of the network is read again from the cache, and from nowhere
    nearer.
    """
    if not _DIRECT or (wanted and os.major(os.fstat(descriptor).st_dev) == 0):
        return False
    import fcntl

    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | _DIRECT if wanted else flags & ~_DIRECT)
    except OSError:  # a file system that has no such way
        return False
    return wanted


def reserve(descriptor: int, size: int) -> None:
    """Reserve the place of `size` bytes on the disk, where that costs nothing; only a hint.

    Raises:
        OSError: the disk is too full for them.
    """
    call = _c_function("fallocate", ("c_int", "c_int", "c_int64", "c_int64"))
    if call is not None and call(descriptor, 0, 0, size):
        import ctypes

        if (number := ctypes.get_errno()) in FULL:
            raise OSError(number, os.strerror(number))


@functools.cache
def _c_function(name: str, arguments: tuple[str, ...]) -> Callable[..., int] | None:
    """Return a function of the C library that takes these types of ctypes, None where it has none: Linux alone does."""
    if not sys.platform.startswith("linux"):
        return None
    import ctypes

    try:
        found = getattr(ctypes.CDLL(None, use_errno=True), name)
    except (OSError, AttributeError):
        return None
    found.argtypes = [getattr(ctypes, one) for one in arguments]
    call: Callable[..., int] = found
    return call


def same_device(one: str, other: str) -> bool:
    """Return True when two directories (or their nearest existing parents) are on the same file system."""
    devices = {os.stat(existing_directory(os.path.abspath(path))).st_dev for path in (one, other)}
    return len(devices) == 1


def existing_directory(path: str) -> str:
    """Return `path`, or its nearest parent that is a directory."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def _full(path: str, numbers: tuple[int, int] | None, error: OSError | None) -> StoreError:
    context: dict[str, object] = {"path": path, "reason": "disk-full"}
    reason = error.strerror if error else "too little free space"
    detail = ""
    if numbers:
        context["needed_bytes"], context["free_bytes"] = numbers
        detail = f" ({numbers[0]} bytes needed, {numbers[1]} free)"
    return StoreError(
        f"{path}: {reason}{detail}",
        hint="free some space, or put the destination, or the cache (CACHEFETCH_CACHE_DIR, or cache_dir in the "
        "configuration), on another file system",
        context=context,
    )


def stat_or_none(path: str) -> os.stat_result | None:
    """Return the state of a file, None when it does not exist."""
    try:
        return os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def state_or_none(path: str) -> os.stat_result | None:
    """Return the state of a file, None when it cannot be seen."""
    try:
        return os.stat(path)
    except OSError:
        return None


def size_or_none(path: str) -> int | None:
    """Return the size of a file in bytes, None when it cannot be seen."""
    try:
        return os.stat(path).st_size
    except OSError:
        return None


def read_or_none(path: str) -> bytes | None:
    """Return the bytes of a small file, None when it does not exist."""
    try:
        with open_regular(path) as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None


def read_and_stat(path: str) -> tuple[bytes, os.stat_result] | None:
    """Return the bytes of a small file and the state that their file had before they were read, None without one."""
    try:
        with open_regular(path) as file:
            before = os.fstat(file.fileno())
            return file.read(), before
    except (FileNotFoundError, NotADirectoryError):
        return None


def open_for_writing(path: str) -> int:
    """Open (or make, with its directory) a file for reading and writing; return the descriptor.

    The umask decides who else may continue it: a group that shares a cache has one that lets the group write.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(path, flags, 0o666)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return os.open(path, flags, 0o666)


def make_read_only(descriptor: int) -> None:
    """Take the right to write from a file, and give none: the umask decided who may read it."""
    os.fchmod(descriptor, os.fstat(descriptor).st_mode & READ_ONLY)


def same_file(descriptor: int, path: str) -> bool:
    """Return True when `path` still names the open file."""
    info = stat_or_none(path)
    return info is not None and os.path.samestat(info, os.fstat(descriptor))


def write_atomic(
    temporary: str, path: str, data: bytes | bytearray, *, sync: bool = True, read_only: bool = True
) -> os.stat_result:
    """Write `data` to `temporary`, sync it, rename it to `path`, read-only, and return the state of the file.

    The caller holds the lock of `temporary`.
    """
    descriptor = open_for_writing(temporary)
    try:
        os.ftruncate(descriptor, 0)
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        if sync:
            os.fsync(descriptor)
        rename(temporary, path)
        if read_only:
            make_read_only(
                descriptor
            )  # after the rename: a crash must not leave a part that cannot be opened
        return os.fstat(descriptor)
    finally:
        os.close(descriptor)


def rename(source: str, target: str) -> None:
    """Give `source` the name `target`, whose directory is made when it is missing."""
    try:
        os.replace(source, target)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.replace(source, target)


def write_new(path: str, data: bytes | bytearray, *, sync: bool) -> os.stat_result | None:
    """Make the file `path` at once, read-only, from a file without a name: a crash leaves nothing behind.

    Returns the state of the file; None, and makes nothing, when `path` exists or the system has no such files.
    """
    descriptor = write_unnamed(path, data)
    if descriptor is None:
        return None
    try:
        if sync:
            os.fsync(descriptor)
        return give_name(descriptor, path)
    finally:
        os.close(descriptor)


def write_unnamed(path: str, data: bytes | bytearray, mode: int = READ_ONLY) -> int | None:
    """Write a file that can get the name `path` later, and return its descriptor; None where there are none such."""
    directory = os.path.dirname(path)
    if not _ANONYMOUS:
        return None
    flags = os.O_RDWR | os.O_CLOEXEC | _ANONYMOUS
    try:
        try:
            descriptor = os.open(directory, flags, mode)
        except FileNotFoundError:
            os.makedirs(directory, exist_ok=True)
            descriptor = os.open(directory, flags, mode)
    except OSError as error:
        if error.errno in _NO_ANONYMOUS:
            return None
        raise
    try:
        written = os.write(descriptor, data)
        if written < len(data):
            view = memoryview(data)[written:]
            while view:
                view = view[os.write(descriptor, view) :]
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def give_name(descriptor: int, path: str) -> os.stat_result | None:
    """Give a file without a name the name `path`, and return its state; None when `path` exists, or it cannot be."""
    try:
        # With a directory's descriptor, which an absolute path does not need, it is linkat(2), that can follow.
        os.link(f"/proc/self/fd/{descriptor}", path, src_dir_fd=descriptor, follow_symlinks=True)
    except OSError as error:
        if error.errno in _NO_ANONYMOUS or isinstance(error, FileExistsError | FileNotFoundError):
            return None
        raise
    return os.fstat(descriptor)


def link_or_copy(source: str, destination: str, size: int) -> None:
    """Make `destination` share the bytes of `source`: hard link, else reflink, else a synced copy; atomic."""
    directory = os.path.dirname(os.path.abspath(destination))
    os.makedirs(directory, exist_ok=True)
    info = stat_or_none(destination)
    if info is not None and os.path.samestat(info, os.stat(source)):
        return  # renaming a link over a link to the same file would leave both
    if not _hard_link(source, destination) and not _copy_unnamed(source, destination, size):
        _copy_named(source, destination, size)


def _hard_link(source: str, destination: str) -> bool:
    try:
        try:
            os.link(source, destination)
        except FileExistsError:
            with _replacing(destination) as temporary:
                os.link(source, temporary)
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        return False
    return True


@contextlib.contextmanager
def _replacing(destination: str) -> Iterator[str]:
    """Give a name for a file that then replaces `destination`."""
    temporary = _beside(destination, f"{os.getpid()}.tmp")
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        yield temporary
        os.replace(temporary, destination)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _beside(path: str, suffix: str) -> str:
    return os.path.join(os.path.dirname(os.path.abspath(path)), f".{os.path.basename(path)[:200]}.{suffix}")


def _copy_unnamed(source: str, destination: str, size: int) -> bool:
    """Copy into a file that gets its name at the end: a killed copy leaves nothing. False where there are none such."""
    descriptor = write_unnamed(destination, b"", 0o644)
    if descriptor is None:
        return False
    with open(descriptor, "wb") as write:
        _clone_or_copy(source, write, destination, size)
        if give_name(descriptor, destination) is not None:
            return True
        try:
            with _replacing(destination) as temporary:
                return give_name(descriptor, temporary) is not None
        except FileNotFoundError:  # it cannot have a name here
            return False


def _copy_named(source: str, destination: str, size: int) -> None:
    """Copy into a file with a name that the next copy uses again, should this one be killed."""
    temporary = _beside(destination, "tmp")
    descriptor = _open_alone(temporary)
    if descriptor is not None:
        with open(descriptor, "wb") as write:
            try:
                write.truncate(0)
                _clone_or_copy(source, write, temporary, size)
                os.replace(temporary, destination)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
                raise
        return
    with _replacing(destination) as temporary:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with open(os.open(temporary, flags, 0o644), "wb") as write:
            _clone_or_copy(source, write, temporary, size)


def _open_alone(path: str) -> int | None:
    """Open a file and lock it; None where another process has it, or it cannot be."""
    import fcntl

    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if same_file(descriptor, path):
            return descriptor
    except OSError:
        pass  # the file system may have no locks
    os.close(descriptor)
    return None


def _clone_or_copy(source: str, write: BinaryIO, path: str, size: int) -> None:
    with open(source, "rb") as read:
        if not reflink(read.fileno(), write.fileno()):
            require_space(path, size)
            import shutil  # with its archive formats: only copies need it

            shutil.copyfileobj(read, write, 1 << 20)
        write.flush()
        os.fsync(write.fileno())


def reflink(source: int, target: int) -> bool:
    """Let a file share the bytes of another one, by descriptors; False where the file systems cannot."""
    if not sys.platform.startswith("linux"):
        return False
    import fcntl

    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:
        return False
    return True
