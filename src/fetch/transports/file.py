"""Mirrors that are directories: plain paths and ``file://`` URLs."""

from __future__ import annotations

import errno
import os

from ...errors import AccessError, FormatError, MirrorError, NetworkError, NotFoundError
from ...regular import NOT_REGULAR, open_regular
from . import Head, Reply, redact, scheme_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from ..limits import Limits
    from . import Sink
    from .errand import Errand
    from .threads import Abort

_MISSING = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG}
_REFUSED = {errno.EACCES, errno.EPERM}
#: Something is there, and nobody will ever read it: symbolic links in a circle, a socket, a device that is gone.
_DAMAGED = {errno.ELOOP, errno.ENXIO, errno.ENODEV}
_DAMAGED_HINT = (
    "the mirror is damaged: `cachefetch verify MIRROR` lists what is wrong with it, --repair mends it"
)


def local_path(url: str) -> str:
    """Return the path that a plain path or a ``file://`` URL means.

    Raises:
        MirrorError: a ``file://`` URL of another host, or a path that cannot exist.
    """
    path = url
    if scheme_of(url) == "file" and url[:7].lower() == "file://":
        host, _, rest = url[7:].partition("/")
        if host not in ("", "localhost"):
            shown = redact(url)
            raise MirrorError(
                f"{shown}: a file:// URL names a file of this machine, not of {shown[7:].partition('/')[0]!r}",
                hint=f"three slashes before an absolute path: file:///{shown[7:]}",
                context={"url": shown},
            )
        path = "/" + _unquote(rest)
    if "\0" in path:
        raise MirrorError(f"{path!r} is not a path", hint="remove the NUL character", context={"url": url})
    return path


def read_local(url: str, limit: int) -> bytes:
    """Read a small file whole (synchronous).

    Args:
        url: path or ``file://`` URL.
        limit: bytes; a longer file is a FormatError.

    Raises:
        NotFoundError, AccessError, NetworkError (a read error of the disk or a network file system), FormatError.
    """
    return _read(local_path(url), limit)[0]


class FileTransport:
    """Reads directories, in worker threads: a network file system may be slow."""

    network = False

    def __init__(self, limits: Limits) -> None:
        self._chunk = limits.chunk_bytes

    async def get(self, url: str, *, etag: str | None = None, limit: int) -> Reply:
        """Read a file whole; the validator is its size and modification time."""
        from anyio import to_thread

        path = local_path(url)
        if etag is not None and await to_thread.run_sync(_etag_of, path) == etag:
            return Reply(304, b"", etag, None)
        body, found = await to_thread.run_sync(_read, path, limit)
        return Reply(200, body, found, None)

    async def receive(
        self, url: str, sink: Sink, *, offset: int = 0, validator: str | None = None, last: int | None = None
    ) -> None:
        """Stream a file from `offset`, or from 0 when `validator` does not hold any more."""
        from .threads import run_abortable

        path = local_path(url)
        await run_abortable(lambda abort: self._receive(abort, path, sink, offset, validator, last))

    def _receive(
        self, abort: Abort, path: str, sink: Sink, offset: int, validator: str | None, last: int | None
    ) -> None:
        from .threads import Aborted

        with _open(path) as file:
            info = os.fstat(file.fileno())
            etag = _etag(info)
            start = offset if offset <= info.st_size and validator in (None, etag) else 0
            os.lseek(file.fileno(), start, os.SEEK_SET)
            sink.begin(Head(info.st_size, start, etag))
            left = (1 << 62) if last is None else last + 1 - start
            view = memoryview(bytearray(min(self._chunk, info.st_size - start + 1)))
            while not abort.set and (got := _read_into(file, view[: min(left, len(view))], path)):
                sink.write(view[:got])
                left -= got
            if abort.set:
                raise Aborted
            sink.end()

    def run_errands(
        self,
        abort: Abort,
        url: str,  # noqa: ARG002 - as all
        errands: Iterator[Errand],
        width: int,  # noqa: ARG002 - as all
        *,
        long: bool = False,  # noqa: ARG002 - as all
    ) -> None:
        """Run errands one after the other: a directory does not make one wait."""
        from .errand import run_in_order

        run_in_order(
            errands,
            abort,
            lambda ask: self._receive(
                abort, local_path(ask.url), ask.sink, ask.offset, ask.validator, ask.last
            ),
        )

    async def aclose(self) -> None:
        """Nothing is open."""


def _read_into(file: BinaryIO, view: memoryview, path: str) -> int:
    try:
        return os.readv(file.fileno(), [view])
    except OSError as error:
        raise _translate(error, path) from error


def _read(path: str, limit: int) -> tuple[bytes, str]:
    with _open(path) as file:
        info = os.fstat(file.fileno())
        etag = _etag(info)
        try:
            data = file.read(min(limit, info.st_size) + 1)  # room for all of `limit` would be made before
        except OSError as error:
            raise _translate(error, path) from error
    if len(data) > limit:
        raise FormatError(
            f"{path} has more than the {limit} bytes that such a document may have",
            hint="the mirror is damaged or not a Spack build cache",
            context={"path": path, "limit": limit},
        )
    return data, etag


def _open(path: str) -> BinaryIO:
    try:
        return open_regular(path)
    except OSError as error:
        if error.errno == errno.EISDIR or error.strerror == NOT_REGULAR:
            message = f"{path} is {NOT_REGULAR}"
            raise NotFoundError(message, hint=_DAMAGED_HINT, context={"path": path}) from None
        raise _translate(error, path) from error


def _etag_of(path: str) -> str | None:
    try:
        return _etag(os.stat(path))
    except OSError as error:
        raise _translate(error, path) from error


def _etag(info: os.stat_result) -> str:
    return f'"{info.st_size:x}-{info.st_mtime_ns:x}-{info.st_ctime_ns:x}-{info.st_ino:x}"'


def _translate(error: OSError, path: str) -> MirrorError:
    """Return our error for a failure of the operating system."""
    context = {"path": path}
    if error.errno in _MISSING:
        return NotFoundError(f"{path} does not exist", hint="check the path of the mirror", context=context)
    if error.errno in _DAMAGED:
        message = f"{path} cannot be read: {error.strerror}"
        return NotFoundError(message, hint=_DAMAGED_HINT, context=context)
    if error.errno in _REFUSED:
        return AccessError(
            f"{path}: permission denied", hint="ask its owner for read permission", context=context
        )
    return NetworkError(f"{path} cannot be read: {error.strerror}", hint="try again", context=context)


def _unquote(text: str) -> str:
    if "%" not in text:
        return text
    from urllib.parse import unquote  # 5 ms, and hardly any path has an escape

    return unquote(text)
