"""What the steps of one run share: store, transports, limits, counters; and reading small documents."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from functools import cached_property

from ..errors import CachefetchError, NetworkError, OfflineError, TruncatedError
from . import aio
from .events import Progress, Retrying
from .layouts import V2
from .manners import Manners, asks_for_patience
from .mirror_choice import Health
from .model import Failure
from .pace import Pace
from .retry import attempts, retryable
from .room import Room
from .transports import host_of, redact
from .transports.threads import run_abortable, run_watched
from .transports.width import Width

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
    from contextlib import AbstractAsyncContextManager
    from typing import Any, TypeVar

    from .events import Event, Reporter
    from .limits import Limits
    from .model import Meter, Source, VerifiedPackage
    from .retry import Clockwork
    from .store.cas import Store
    from .store.lease import Lease
    from .store.locks import Lock
    from .store.part import PartWriter
    from .transports import Head, Transport, Transports
    from .transports.threads import Abort

    T = TypeVar("T")
    P = TypeVar("P")


class Session:
    """One run, used by the tasks of one event loop; or, before there is one, by a thread that waits (`run`)."""

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
        #: False as long as there is no event loop.
        self.in_loop = True
        self.store, self.transports, self.limits = store, transports, limits
        self.offline, self.meter, self.clockwork = offline, meter, clockwork
        self._host_slots: dict[str, aio.CapacityLimiter] = {}
        self._widths: dict[str, Width] = {}
        self._manners: dict[str, Manners] = {}  # of hosts that refused requests
        self._narrow: dict[str, aio.CapacityLimiter] = {}  # of the same
        self.reporter = reporter
        self.pace = Pace(limits.rate_bytes_per_s)
        self.room = Room(store.require_space)
        if transports.health is None:  # what one step of a command learned about hosts the next one knows
            transports.health = Health(limits, clockwork.monotonic)
        self.health = transports.health
        self.under_way: dict[int, PartWriter] = {}
        self.looks: list[Callable[[], None]] = []  # called now and then while a thread without a loop waits
        #: (transfer, mirror) -> what the quick way met there; see `quick`.
        self.met: dict[tuple[int, str], CachefetchError] = {}
        #: Number -> lock of packages that another process was at when a quick way came to them.
        self.busy: dict[int, str] = {}
        self.whole: set[str] = set()  # hosts that do not serve ranges
        self._told: dict[int, int] = {}
        self._posted: deque[Event] = deque()

    @cached_property
    def metadata_slots(self) -> aio.CapacityLimiter:
        """The limiter of packages that are proven side by side."""
        return aio.CapacityLimiter(self.limits.metadata_in_flight)

    @cached_property
    def blob_slots(self) -> aio.CapacityLimiter:
        """The limiter of payload connections."""
        return aio.CapacityLimiter(self.limits.blob_connections)

    def try_lock(self, number: int, key: str) -> Lock | Lease | None:
        """Return the store's lock of `key`; None, noted in `busy`, when another process has it."""
        lock = self.store.try_lock(key)
        if lock is None:
            self.busy[number] = key
        return lock

    def emit(self, event: Event) -> None:
        """Hand an event to the reporter."""
        self.reporter.on_event(event)

    def host_slots(self, url: str) -> aio.CapacityLimiter:
        """Return the limiter of payload connections to one host; all directories count as one."""
        return self._host_slots.setdefault(host_of(url), aio.CapacityLimiter(self.limits.blobs_per_host))

    def _adapt(self, host: str, error: CachefetchError | None) -> None:
        """Give a host fewer payload connections when it asks for patience, and slowly more again."""
        limiter = self._host_slots.get(host)
        if limiter is None or not (error is None or isinstance(error, NetworkError)):
            return
        width = self._widths.setdefault(host, Width(self.limits.blobs_per_host))
        if error is None:
            width.succeeded()
        elif error.throttled or "in time" in error.message:
            width.failed()
        if limiter.total_tokens != width.value:
            limiter.total_tokens = width.value

    def strained(self, host: str) -> bool:
        """Return True for a host that asked for patience, until it has answered for a while."""
        manners = self._manners.get(host)
        return manners is not None and manners.strained(self.clockwork.monotonic())

    def crowded(self, host: str, requests: int) -> bool:
        """Return True when so many requests at the same time are more than a host that refused some should get."""
        manners = self._manners.get(host)
        return manners is not None and requests > manners.width

    def met_quickly(
        self, number: int, source: Source, error: CachefetchError, sent: float | None = None
    ) -> None:
        """Note what a quick way met for package `number`: it counts as its first try there."""
        host = host_of(source.url)
        self.met[number + 1, source.mirror] = error
        self.refused(host, error, sent)
        self.health.suspect(source.mirror, error)
        if error.context.get("silent"):  # nobody else shall wait for that host as long
            self.health.failed(host, error)

    def refused(self, host: str, error: CachefetchError, sent: float | None = None) -> None:
        """Note an error of a request that was sent at `sent` (None: right now), if it asks for patience."""
        if not (host and isinstance(error, NetworkError) and asks_for_patience(error)):
            return
        now, pause = self.clockwork.monotonic(), error.retry_after
        if pause is not None and pause > self.limits.retry_after_cap_s:
            return  # it is given up
        manners = self._manners.setdefault(host, Manners(self.limits.metadata_in_flight))
        manners.refused(now if sent is None else sent, now, pause)

    @contextlib.asynccontextmanager
    async def politely(self, host: str) -> AsyncIterator[None]:
        """Ask a host once it is its turn; note what it says."""
        manners = self._manners.get(host)
        if manners is None:
            slots: AbstractAsyncContextManager[Any] = contextlib.nullcontext()
        else:
            slots = self._narrow.setdefault(host, aio.CapacityLimiter(self.limits.metadata_in_flight))
        async with slots:
            await self.turn(host)
            sent = self.clockwork.monotonic()
            try:
                yield
            except CachefetchError as error:
                self.refused(host, error, sent)
                raise
            else:
                if manners is not None:
                    manners.answered()
            finally:
                self._set_width(host)

    async def turn(self, host: str) -> None:
        """Wait until a host that asked for patience may be asked again."""
        manners = self._manners.get(host)
        if manners is not None and (wait_s := manners.turn(self.clockwork.monotonic())) > 0:
            await self.clockwork.sleep(wait_s)

    def _set_width(self, host: str) -> None:
        limiter, manners = self._narrow.get(host), self._manners.get(host)
        if limiter is not None and manners is not None and limiter.total_tokens != manners.width:
            limiter.total_tokens = manners.width

    def fit_together(self, packages: Sequence[VerifiedPackage]) -> bool:
        """Tell whether all payloads whose size only a server tells fit; else they come one after the other (`Room`)."""
        told = {one.tarball.sha256: one.tarball.size for one in packages if one.layout == V2}
        return not told or self.room.fits(sum(told.values()))

    @contextlib.contextmanager
    def more_slots(self, url: str, wanted: int) -> Iterator[int]:
        """Take more payload connections to a host, up to `wanted` that nobody uses or waits for; yield how many."""
        limiters, taken = (self.blob_slots, self.host_slots(url)), []
        free = min(one.available_tokens for one in limiters)
        waiting = any(one.statistics().tasks_waiting for one in limiters)
        try:
            for _ in range(0 if waiting else int(min(wanted, free))):
                borrower = object()
                for one in limiters:
                    one.acquire_on_behalf_of_nowait(borrower)
                taken.append(borrower)
            yield len(taken)
        finally:
            for borrower in taken:
                for one in limiters:
                    one.release_on_behalf_of(borrower)

    async def in_thread(self, work: Callable[[Abort], T]) -> T:
        """Do blocking work in a thread; when this task is cancelled, or Ctrl-C comes, it is aborted first."""
        if self.in_loop:
            return await run_abortable(work)

        def look() -> None:
            for one in self.looks:
                one()
            self.drain()

        return run_watched(work, look, self.limits.progress_interval_s)

    async def to_the_end(self, work: Callable[[], None]) -> None:
        """Do blocking work that must not be left half done."""
        if not self.in_loop:
            work()
            return
        with aio.CancelScope(shield=True):
            await aio.to_thread.run_sync(work)

    async def rest(self, seconds: float) -> None:
        """Wait, with an event loop or without."""
        if self.in_loop:
            await self.clockwork.sleep(seconds)
        else:
            time.sleep(seconds)  # noqa: ASYNC251 - there is no loop that could do something else

    async def blocking(self, work: Callable[[], T]) -> T:
        """Do blocking work on the store that soon ends."""
        return await aio.to_thread.run_sync(work) if self.in_loop else work()

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

    def post(self, event: Event) -> None:
        """Keep an event of a worker thread until the loop gets to it (`drain`)."""
        self._posted.append(event)

    def drain(self) -> None:
        """Hand over what worker threads posted, and how far the transfers under way are."""
        while self._posted:
            self.emit(self._posted.popleft())
        for transfer, part in list(self.under_way.items()):  # threads begin and end them meanwhile
            if part.offset != self._told.get(transfer):
                self._told[transfer] = part.offset
                self.emit(Progress(transfer, part.offset, part.size))

    async def keep_draining(self) -> None:
        """Hand over events until cancelled."""
        while True:
            await aio.sleep(self.limits.progress_interval_s)
            self.drain()

    def in_order(self, sources: Sequence[Source]) -> list[Source]:
        """Return `sources` in the order to ask them now."""
        return self.health.ordered(sources, lambda one: host_of(one.url), lambda one: one.mirror)

    def met_for_good(self, transfer: int, sources: Sequence[Source]) -> list[Failure]:
        """Return, once, what the quick way met at `sources` and what no further try would change."""
        found = [(one.mirror, self.met.get((transfer, one.mirror))) for one in sources]
        final = [Failure(name, error) for name, error in found if error and not retryable(error, self.limits)]
        for failure in final:
            del self.met[transfer, failure.mirror]
        return final

    def met_rest(self, transfer: int, sources: Sequence[Source]) -> list[Failure]:
        """Return, once, what the quick way met at `sources` that nobody asked again, because another one delivered."""
        found = [(one.mirror, self.met.pop((transfer, one.mirror), None)) for one in sources]
        return [Failure(name, error) for name, error in found if error]

    async def patiently(
        self,
        work: Callable[[], Awaitable[T]],
        url: str,
        transfer: int,
        *,
        alternatives: bool = False,
        mirror: str = "",
    ) -> T:
        """Run `work` with retries. What the quick way met at `mirror` counts as the first of them.

        With `alternatives` (other mirrors to ask) the retries end when the host of `url` is open, and a host that
        is open already is not asked at all.

        Raises:
            CachefetchError: the last error of `work`.
        """
        host = host_of(url)

        def on_retry(attempt: int, wait_s: float, error: CachefetchError) -> None:
            self.emit(Retrying(transfer, attempt, wait_s, error.message))

        def give_up() -> bool:
            return alternatives and self.health.is_open(host)

        met = self.met.pop((transfer, mirror), None)
        if met is None and host and (self.health.given_up(host) or give_up()):
            raise self.health.skipped(host)
        async for attempt in attempts(self.limits, self.clockwork, on_retry, give_up):
            with attempt:
                try:
                    if met is not None:
                        first, met = met, None
                        raise first
                    async with self.politely(host):
                        result = await work()
                except CachefetchError as error:
                    number = attempt.retry_state.attempt_number
                    final = number >= self.limits.attempts or not retryable(error, self.limits)
                    self.health.failed(host, error, last=final)
                    self._adapt(host, error)
                    raise
                self.health.succeeded(host)
                self._adapt(host, None)
                return result
        raise AssertionError("the last attempt returns or raises")  # pragma: no cover

    async def alone(
        self,
        slots: aio.CapacityLimiter,
        key: str,
        *,
        ready: Callable[[], T | None],
        prepare: Callable[[Lock | Lease], P],
        work: Callable[[P], Awaitable[T]],
        waiting: Callable[[], None],
    ) -> T:
        """Return what `ready` finds, or run `work` in a slot and under the store's lock of `key`.

        `ready` and `prepare` run in a worker thread, together with taking the lock: every hop costs. While another
        task or process has the lock the slot is given back, so that other work goes on; `waiting` is called once
        then.
        """

        def take() -> tuple[T | None, Lock | Lease | None, P | None]:
            if (found := ready()) is not None:
                return found, None, None
            lock = self.store.try_lock(key)
            if lock is None:
                return None, None, None
            try:
                found = ready()  # whoever had the lock before may have brought it
                prepared = None if found is not None else prepare(lock)
            except BaseException:
                lock.release()
                raise
            if found is not None:
                lock.release()
                return found, None, None
            return None, lock, prepared

        told, wait_s = False, self.limits.lock_poll_s
        while True:
            async with slots:
                found, lock, prepared = await aio.to_thread.run_sync(take)
                if lock is not None:
                    try:
                        return await work(prepared)  # type: ignore[arg-type]  # `prepare` ran when there is a lock
                    finally:
                        lock.release()
            if found is not None:
                return found
            if not told:
                told = True
                waiting()
            # Many processes that look often at what one of them fetches would keep the processors from that one.
            await self.clockwork.sleep(wait_s * (0.5 + self.clockwork.random()))
            wait_s = min(2 * wait_s, self.limits.lock_poll_cap_s)

    async def document(
        self, source: Source, url: str, limit: int, transfer: int, *, alternatives: bool = False
    ) -> bytes:
        """Read a small text of a mirror, with retries."""
        transport = self.transport(source, url)

        async def read() -> bytes:
            body = (await transport.get(url, limit=limit)).body
            if transport.network:
                self.meter.network_bytes += len(body)
            return body

        return await self.patiently(read, url, transfer, alternatives=alternatives, mirror=source.mirror)

    async def blob(
        self, source: Source, url: str, size: int, transfer: int, *, alternatives: bool = False
    ) -> bytes:
        """Read a small blob of `size` bytes as it is stored, with retries; more bytes are a TruncatedError."""
        transport = self.transport(source, url)

        async def read() -> bytes:
            sink = Small(url, size)
            try:
                await transport.receive(url, sink)
            finally:
                if transport.network:
                    self.meter.network_bytes += len(sink.data)
            return bytes(sink.data)

        return await self.patiently(read, url, transfer, alternatives=alternatives, mirror=source.mirror)


class Small:
    """A sink in memory for an object of a known size."""

    def __init__(self, url: str, size: int) -> None:
        self.data = bytearray()
        self.etag: str | None = None
        self._url, self._size = url, size
        self._encoding = ""

    def begin(self, head: Head) -> None:
        """Remember validator and encoding."""
        self.etag, self._encoding = head.etag, head.encoding

    def write(self, data: memoryview) -> None:
        """Append; TruncatedError when more comes than was promised."""
        self.data += data
        if len(self.data) > self._size:
            raise longer(self._url, self._size, self._encoding)

    def end(self) -> None:
        """The digest shows whether all came."""


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
