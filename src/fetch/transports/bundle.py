"""Mirrors that are bundles (``bundle://PATH``): their files are read where they lie in the volumes."""

from __future__ import annotations

import re

from ...errors import CachefetchError, FormatError, NetworkError, NotFoundError
from . import Head, Reply

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from ..bundle.format import Entry
    from ..bundle.read import Bundle
    from . import Sink
    from .errand import Errand
    from .threads import Abort

#: What stands behind the path of a bundle: a file of the mirror in it.
_INSIDE = re.compile(r"bundle://(.*?)/((?:v3|blobs)/.*)", re.S)


class BundleTransport:
    """Reads bundles, in worker threads: a removable medium is slow. Each bundle is opened once."""

    network = False

    def __init__(self) -> None:
        self._opened: dict[str, Bundle] = {}

    async def get(self, url: str, *, etag: str | None = None, limit: int) -> Reply:
        """Read a file whole; the validator is its digest."""
        from anyio import to_thread

        bundle, entry = await to_thread.run_sync(self._entry, url)
        found = f'"{entry.file.sha256}"'
        if etag == found:
            return Reply(304, b"", found, None)
        if entry.file.size > limit:
            raise FormatError(
                f"{url} has more than the {limit} bytes that such a document may have", context={"path": url}
            )
        return Reply(200, await to_thread.run_sync(_read, bundle, entry), found, None)

    async def receive(
        self, url: str, sink: Sink, *, offset: int = 0, validator: str | None = None, last: int | None = None
    ) -> None:
        """Stream a file from `offset`, or from 0 when `validator` does not hold any more."""
        from .threads import run_abortable

        await run_abortable(lambda abort: self._receive(abort, url, sink, offset, validator, last))

    def _receive(
        self, abort: Abort, url: str, sink: Sink, offset: int, validator: str | None, last: int | None
    ) -> None:
        from .threads import Aborted

        bundle, entry = self._entry(url)
        etag = f'"{entry.file.sha256}"'
        start = offset if offset <= entry.file.size and validator in (None, etag) else 0
        sink.begin(Head(entry.file.size, start, etag))
        at = start
        chunks = bundle.chunks(entry, start)
        try:
            while data := _next(chunks, url):
                if abort.set:
                    raise Aborted
                sink.write(memoryview(data))
                at += len(data)
                if last is not None and at > last:
                    break
        finally:
            chunks.close()
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
        """Run errands one after the other, as they lie on the medium."""
        from .errand import run_in_order

        run_in_order(
            errands,
            abort,
            lambda ask: self._receive(abort, ask.url, ask.sink, ask.offset, ask.validator, ask.last),
        )

    async def aclose(self) -> None:
        """Forget the bundles."""
        self._opened.clear()

    def _entry(self, url: str) -> tuple[Bundle, Entry]:
        inside = _INSIDE.fullmatch(url)
        if inside is None:
            raise NotFoundError(f"{url} is a bundle, no file of one", context={"path": url})
        bundle = self._bundle(inside[1])
        return bundle, bundle.require(inside[2])

    def _bundle(self, path: str) -> Bundle:
        if path not in self._opened:
            from ..bundle.read import open_bundle

            self._opened[path] = open_bundle(path)
        return self._opened[path]


def _read(bundle: Bundle, entry: Entry) -> bytes:
    chunks, parts = bundle.chunks(entry), []
    while data := _next(chunks, entry.file.path):
        parts.append(data)
    return b"".join(parts)


def _next(chunks: Generator[bytes, None, None], url: str) -> bytes:
    try:
        return next(chunks, b"")
    except CachefetchError:
        raise
    except OSError as error:
        raise NetworkError(
            f"{url} cannot be read: {error.strerror}", hint="copy the volume again", context={"path": url}
        ) from error
