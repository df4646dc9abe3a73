"""What the steps of one run share: store, transports, limits, counters; and reading small documents."""

from __future__ import annotations

from typing import TypeVar

import anyio
from anyio import to_thread

from ..errors import OfflineError, TruncatedError
from .events import Retrying
from .retry import attempts
from .transports import host_of, redact

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    import tenacity

    from ..errors import CachefetchError
    from .events import Event, Reporter
    from .limits import Limits
    from .model import Meter, Source
    from .retry import Clockwork
    from .store.cas import Lock, Store
    from .transports import Body, Transport, Transports


T = TypeVar("T")


class Session:
    """One run. Made inside the event loop, used by its tasks only."""

    def __init__(
        self,
        store: Store,
        transports: Transports,
        limits: Limits,
        reporter: Reporter,
        *,
        offline: bool,
        meter: Meter,
        clockwork: Clockwork,
    ) -> None:
        self.store, self.transports, self.limits = store, transports, limits
        self.offline, self.meter, self.clockwork = offline, meter, clockwork
        self.metadata_slots = anyio.CapacityLimiter(limits.metadata_in_flight)
        self.blob_slots = anyio.CapacityLimiter(limits.blob_connections)
        self._host_slots: dict[str, anyio.CapacityLimiter] = {}
        self._reporter = reporter

    def emit(self, event: Event) -> None:
        """Hand an event to the reporter."""
        self._reporter.on_event(event)

    def host_slots(self, url: str) -> anyio.CapacityLimiter:
        """Return the limiter of payload connections to one host; all directories count as one."""
        return self._host_slots.setdefault(host_of(url), anyio.CapacityLimiter(self.limits.blobs_per_host))

    def transport(self, source: Source, url: str) -> Transport:
        """Return the transport for a URL of `source`.

        Raises:
            OfflineError: offline, and the mirror needs a socket.
        """
        if self.offline and source.network:
            raise OfflineError(
                f"not in the store, and mirror {source.mirror} needs the network (--offline)",
                hint="run once without --offline, or name a mirror that is a directory",
                context={"mirror": source.mirror, "url": redact(url)},
            )
        return self.transports.for_url(url)

    def attempts(self, transfer: int) -> tenacity.AsyncRetrying:
        """Return the loop of attempts of one request."""

        def on_retry(attempt: int, wait_s: float, error: CachefetchError) -> None:
            self.emit(Retrying(transfer, attempt, wait_s, error.message))

        return attempts(self.limits, self.clockwork, on_retry)

    async def alone(
        self,
        slots: anyio.CapacityLimiter,
        key: str,
        work: Callable[[Lock], Awaitable[T]],
        *,
        ready: Callable[[], Awaitable[T | None]],
        waiting: Callable[[], None],
    ) -> T:
        """Run `work` in a slot and under the store's lock of `key`, or return what `ready` finds meanwhile.

        While another task or process has the lock the slot is given back, so that other work goes on; `waiting` is
        called once then.
        """
        told = False
        while True:
            async with slots:
                lock = await to_thread.run_sync(self.store.try_lock, key)
                if lock is not None:
                    with lock:
                        return await work(lock)
            if not told:
                told = True
                waiting()
            await self.clockwork.sleep(self.limits.lock_poll_s)
            found = await ready()
            if found is not None:
                return found

    async def metered(self, transport: Transport, body: Body) -> AsyncGenerator[bytes, None]:
        """Yield the chunks of a body and count them."""
        async for chunk in body.chunks():
            if transport.network:
                self.meter.network_bytes += len(chunk)
            yield chunk

    async def document(self, source: Source, url: str, limit: int, transfer: int) -> bytes:
        """Read a small text of a mirror, with retries."""
        transport = self.transport(source, url)

        async def read() -> bytes:
            body = (await transport.get(url, limit=limit)).body
            if transport.network:
                self.meter.network_bytes += len(body)
            return body

        return await self._retried(read, transfer)

    async def blob(self, source: Source, url: str, size: int, transfer: int) -> bytes:
        """Read a small blob of `size` bytes as it is stored, with retries; more bytes are a TruncatedError."""
        transport = self.transport(source, url)

        async def read() -> bytes:
            data = bytearray()
            async with transport.open(url) as body:
                async for chunk in self.metered(transport, body):
                    data += chunk
                    if len(data) > size:
                        raise longer(url, size, body.encoding)
            return bytes(data)

        return await self._retried(read, transfer)

    async def _retried(self, read: Callable[[], Awaitable[bytes]], transfer: int) -> bytes:
        async for attempt in self.attempts(transfer):
            with attempt:
                return await read()
        raise AssertionError("the last attempt returns or raises")  # pragma: no cover


def longer(url: str, size: int, encoding: str) -> TruncatedError:
    """Return the error for a body that goes on after its promised end."""
    return TruncatedError(
        f"{redact(url)} has more bytes than the {size} that its manifest promises{encoding_note(encoding)}",
        hint="the mirror is damaged; another mirror may be right",
        context={"url": redact(url), "expected": size},
    )


def encoding_note(encoding: str) -> str:
    """Return what to add to a message about wrong bytes when the server encoded them."""
    return f" (the server encoded the body as {encoding!r:.30} without being asked)" if encoding else ""
