"""A sink for a large document that becomes a file, such as an index."""

from __future__ import annotations

import contextlib

from ..errors import FormatError, cannot_write
from .store.files import WRITE_BYTES
from .transports import redact

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from .transports import Head


class Spool:
    """Writes to `path` what comes from `url`, at most `limit` bytes; `close` it after a failure.

    `size` and `expected` are in bytes; `expected` is None when the server does not tell.
    """

    #: Somebody waits for the answer (see `Sink`).
    urgent = True

    def __init__(self, path: str, url: str, limit: int) -> None:
        self.etag: str | None = None
        self.expected: int | None = None
        self.size = 0
        self._path, self._url, self._limit = path, redact(url), limit
        self._file: BinaryIO | None = None

    def begin(self, head: Head) -> None:
        """Make the file."""
        self.etag, self.expected = head.etag, head.size
        with self._errors():
            self._file = open(self._path, "wb")  # noqa: SIM115 - closed by `close`

    def write(self, data: memoryview) -> None:
        """Append; FormatError beyond the limit."""
        self.size += len(data)
        if self.size > self._limit:
            raise FormatError(f"{self._url} is longer than {self._limit} bytes")
        assert self._file is not None, "begin comes first"
        with self._errors():
            for at in range(0, len(data), WRITE_BYTES):
                self._file.write(data[at : at + WRITE_BYTES])

    def end(self) -> None:
        """Close the file."""
        self.close()

    def close(self) -> None:
        """Close the file. Nothing happens the second time."""
        file, self._file = self._file, None
        if file is not None:
            with self._errors():
                file.close()

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            what = f"the index of {self._url} to {self._path}"
            raise cannot_write(what, self._path, error, cache=True) from error
