"""Reading what one mirror says about one package: small documents, blobs, and the size of a file."""

from __future__ import annotations

from contextlib import suppress

from ..errors import FormatError
from . import aio
from .transports import redact

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .model import Source
    from .session import Session
    from .transports import Head


class Asking:
    """A mirror that is asked in a session, for transfer number `transfer`; `alternatives`: see `Session.patiently`."""

    def __init__(self, session: Session, source: Source, transfer: int, alternatives: bool) -> None:
        self.session, self.source, self.transfer = session, source, transfer
        self.alternatives = alternatives

    async def run(self, work: Callable[..., None], *args: object) -> None:
        """Do blocking work on the store."""
        await aio.to_thread.run_sync(work, *args)

    async def document(self, url: str, limit: int) -> bytes:
        """Read a small text of at most `limit` bytes."""
        return await self.session.document(
            self.source, url, limit, self.transfer, alternatives=self.alternatives
        )

    async def blob(self, url: str, sha256: str, size: int) -> bytes:
        """Return a small blob from the store, else from the mirror; its digest is for the caller to check."""
        kept = self.session.store.read(sha256, size)  # small, and hardly ever there: not worth a hop
        if kept is not None:
            return kept
        return await self.session.blob(self.source, url, size, self.transfer, alternatives=self.alternatives)

    async def size(self, url: str) -> int:
        """Ask for the size of a file, in bytes: of its first byte the server says how many there are.

        Raises:
            FormatError: the server does not tell.
        """
        transport = self.session.transport(self.source, url)

        async def read() -> int | None:
            sink = _Size()
            with suppress(_Enough):
                await transport.receive(url, sink, last=0)
            return sink.size

        found = await self.session.patiently(read, url, self.transfer, alternatives=self.alternatives)
        if found is None:
            raise FormatError(
                f"{redact(url)}: the server does not tell how long it is",
                hint="the server must send Content-Length; ask its owner",
                context={"url": redact(url)},
            )
        return found


class _Enough(Exception):
    """The server sends more than the byte that was asked for."""


class _Size:
    """A sink that wants to know the size only."""

    def __init__(self) -> None:
        self.size: int | None = None
        self._received = 0

    def begin(self, head: Head) -> None:
        self.size = head.size

    def write(self, data: memoryview) -> None:
        self._received += len(data)
        if self._received > 1:
            raise _Enough

    def end(self) -> None:
        """Nothing follows."""
