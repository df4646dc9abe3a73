"""Driver: the steps of `base` in an async loop, over the network, and what the fetch engine needs."""

from __future__ import annotations

import os

from .base import Base, answer_local, is_local, read_head
from .config import Mirror, is_registry
from .errors import (
    CachefetchError,
    FormatError,
    NetworkError,
    UsageError,
)
from .resolver.index.readers import METADATA_LIMIT, SNIFF_SIZE, Answer
from .sources import Pause

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, TypeVar

    import anyio

    from .fetch.limits import Limits
    from .fetch.model import Source
    from .fetch.network import Network
    from .fetch.store.cas import Store
    from .fetch.transports import Transport, Transports
    from .resolver.index.readers import Get
    from .sources import Sources, Steps

    T = TypeVar("T")


class Driver(Base):
    """Answers the requests that steps yield, and makes the engine that fetches."""

    _transports: Transports | None = None
    _turn: anyio.Lock | None = None

    async def _alone(self, work: Callable[[], Steps[T]]) -> T:
        """Run a step function; of several tasks the first one reads the mirrors, and the others wait for it."""
        if self._sources is not None:
            return await self._drive(self._healed(work))
        import anyio

        if self._turn is None:
            self._turn = anyio.Lock()
        async with self._turn:
            return await self._drive(self._healed(work))

    def _delivery(self, sources: Sources) -> dict[str, Source]:
        """Return the mirrors that deliver what `sources` list, with their policy and keys, by name."""
        return self._sources_of(sources.deliver, sources.layouts())

    def _sources_of(
        self, mirrors: Sequence[Mirror], layouts: Mapping[str, str] | None = None
    ) -> dict[str, Source]:
        """Return mirrors as the fetch engine takes them, with their policy and keys, by name."""
        if not mirrors:
            raise UsageError(
                "a cache page, lock file or bare index lists binaries but does not hold them",
                hint="name the mirror that delivers them too: -m PAGE.md -m https://MIRROR",
            )
        return self._policies(mirrors, layouts)

    def _policies(
        self, mirrors: Sequence[Mirror], layouts: Mapping[str, str] | None = None
    ) -> dict[str, Source]:
        """Return mirrors with their signature policy and the keys that are trusted for them, by name.

        Raises:
            ConfigError: signatures are required of a registry, where there are none.
        """
        from .fetch.keys import load_files, load_trusted
        from .fetch.model import Source
        from .fetch.verify.policy import SignaturePolicy

        trusted = load_trusted(os.path.join(self.options.config.config_dir, "keys"))
        self._key_problems = trusted.problems
        return {
            m.name: Source(
                m.name,
                m.location,
                SignaturePolicy(m.signed, frozenset(m.pinned)),
                trusted | load_files(m.key_files) if m.key_files else trusted,
                _layout(m, layouts or {}),
            )
            for m in mirrors
        }

    def _engine(self) -> dict[str, Any]:
        """Return what the calls of the fetch engine need; one meter counts the bytes of one command."""
        from .fetch.events import Reporter
        from .fetch.limits import DEFAULT_LIMITS
        from .fetch.model import Meter
        from .fetch.transports import Transports

        limits = self._limits or DEFAULT_LIMITS
        if self._transports is None:
            self._transports = Transports(limits, offline=self.options.offline, network=self._network())
        self._transports.health = None  # of hosts that were down: they may be back for this command
        return {
            "store": self._store(),
            "limits": limits,
            "transports": self._transports,
            "reporter": self._reporter or Reporter(),
            "offline": self.options.offline,
            "meter": Meter(),
        }

    def _store(self) -> Store:
        from .fetch.store.cas import Store

        config = self.options.config
        return Store(config.store_dir, site=config.site, own=config.notes_dir)

    def network_problems(self) -> tuple[str, ...]:
        """Say what of the certificates, files and variables that the configuration names cannot be used."""
        return self._network().problems()

    def _network(self) -> Network:
        """Return the certificates and credentials of the configuration."""
        from .fetch.network import Credential, Network

        settings = dict(self.options.config.network)
        found = settings.pop("credentials", {})
        credentials = {host: Credential(**names) for host, names in found.items()}
        return Network(**settings, credentials=credentials)

    async def _drive(self, steps: Steps[T]) -> T:
        """Run a step function."""
        try:
            batch = next(steps)
            while True:
                if isinstance(batch, Pause):
                    import anyio

                    await anyio.sleep(batch.seconds)
                    batch = steps.send(())
                else:
                    batch = steps.send(await self._answers(batch))
        except StopIteration as stop:
            result: T = stop.value
            return result

    async def _answers(self, batch: tuple[Get, ...]) -> tuple[Answer, ...]:
        """Answer a batch of requests side by side."""
        import anyio

        answers: list[Answer] = [Answer(0)] * len(batch)

        async def one(number: int, get: Get) -> None:
            if is_local(get.url):
                answers[number] = await anyio.to_thread.run_sync(answer_local, get)
            else:
                answers[number] = await self._ask(get)

        async with anyio.create_task_group() as group:
            for number, get in enumerate(batch):
                group.start_soon(one, number, get)
        return tuple(answers)

    async def _ask(self, get: Get) -> Answer:
        """Answer one request over the network, with retries."""
        from .fetch.retry import Clockwork, attempts

        engine = self._engine()
        try:
            transport = engine["transports"].for_url(get.url)
            async for attempt in attempts(engine["limits"], Clockwork(), patient=False):
                with attempt:
                    return (
                        await self._spool(transport, get)
                        if get.spool
                        else await _read(transport, get, engine["limits"])
                    )
        except CachefetchError as error:
            return Answer(0, error=error)
        raise AssertionError("the loop of attempts returns or raises")

    async def _spool(self, transport: Transport, get: Get) -> Answer:
        """Stream a large document to disk; what is left of a failed try is removed."""
        from .fetch.spool import Spool
        from .fetch.transports import redact

        if get.etag and (await self._unchanged(transport, get)):
            return Answer(304, etag=get.etag)
        path = self._indexes().spool_path()
        sink = Spool(path, get.url, get.limit)
        try:
            await transport.receive(get.url, sink)
            if sink.expected is not None and sink.size != sink.expected:
                raise NetworkError(f"{redact(get.url)} ended after {sink.size} of {sink.expected} bytes")
        except BaseException:
            sink.close()
            if os.access(path, os.F_OK):
                os.unlink(path)
            raise
        if get.sniff and get.sniff not in read_head(path, SNIFF_SIZE):
            text = read_head(path, METADATA_LIMIT)
            os.unlink(path)
            return Answer(200, body=text, etag=sink.etag)
        return Answer(200, path=path, etag=sink.etag)

    async def _unchanged(self, transport: Transport, get: Get) -> bool:
        """Ask whether a large document still has its ETag; the first bytes of another one end the question."""
        try:
            return (await transport.get(get.url, etag=get.etag, limit=0)).status == 304
        except FormatError:  # longer than nothing: it is there, and another one
            return False


async def _read(transport: Transport, get: Get, limits: Limits) -> Answer:
    """Read a document whole; it must be there in time, however its bytes drip. What may be large has longer."""
    from anyio import fail_after

    from .fetch.transports.status import broken

    try:
        with fail_after(limits.document_s if get.limit <= METADATA_LIMIT else limits.page_s):
            reply = await transport.get(get.url, etag=get.etag, limit=get.limit)
    except TimeoutError:
        raise broken(get.url, "not whole in time") from None
    return Answer(reply.status, body=reply.body, etag=reply.etag)


def _layout(mirror: Mirror, layouts: Mapping[str, str]) -> str:
    """Return the layout of a mirror as the fetch engine takes it, "" when nobody looked."""
    from .config import check_policy

    check_policy(mirror.location, mirror.signed, mirror.pinned, f"mirror {mirror.name}")
    return "oci" if is_registry(mirror.location) else layouts.get(mirror.name, "")
