"""Opening files that others may have made: a FIFO or a device in the place of a file must not stop us for ever."""

from __future__ import annotations

import errno
import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from io import BufferedReader

#: Said of what exists and is no file; the error has `errno.EINVAL`.
NOT_REGULAR = "not a regular file"
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK


def open_descriptor(path: str) -> int:
    """Open a regular file for reading and return its descriptor; never waits for the other end of a FIFO.

    Raises:
        OSError: as `os.open`; IsADirectoryError for a directory; EINVAL for a FIFO, socket or device.
    """
    return open_and_stat(path)[0]


def open_and_stat(path: str) -> tuple[int, os.stat_result]:
    """Return descriptor and state; see `open_descriptor`."""
    descriptor = os.open(path, _FLAGS)
    info = os.fstat(descriptor)
    mode = info.st_mode
    if stat.S_ISREG(mode):
        return descriptor, info
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    raise OSError(errno.EINVAL, NOT_REGULAR, path)


def open_regular(path: str) -> BufferedReader:
    """Open a regular file for reading bytes; errors as for `open_descriptor`."""
    return os.fdopen(open_descriptor(path), "rb")
