"""Client: `AsyncClient` for synchronous programs.

It runs the steps of `base` in a plain loop that reads local mirrors itself, and opens the network only for the first
request that needs it. What is async only, such as fetching, it calls through a portal.
"""

from __future__ import annotations

import threading
import time
from functools import partial

from .base import Base, answer_local, is_local, not_both
from .errors import CachefetchError, MissingError
from .portal import Portal
from .sources import Pause

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType
    from typing import Any, Self, TypeVar

    from .bundling import ExportReport, ImportReport
    from .client import AsyncClient
    from .fetch.bundle.check import BundleReport
    from .fetch.extract import Extraction
    from .fetch.keys import Published
    from .fetch.mirror.check import VerifyReport
    from .fetch.mirror.plan import SyncReport
    from .fetch.model import Receipt
    from .fetch.plan import FetchPlan
    from .lockfile import Lock
    from .pins import Pin
    from .resolver.host.overrides import HostOverrides
    from .resolver.model import Host
    from .resolver.resolution import Listing, MirrorState, Resolution, Shown
    from .sources import Steps
    from .syncing import Selection

    T = TypeVar("T")


class Client(Base):
    """`AsyncClient` for synchronous programs: same arguments, same methods, same results.

    Works inside a running event loop too (a notebook). Use it as ``with``, or call `close`.
    """

    def _begin(self) -> None:
        self._portal = Portal()
        self._made: AsyncClient | None = None
        self._making = threading.Lock()

    @property
    def _async(self) -> AsyncClient:
        """The client that does what is async only, made when it is first needed: most answers come without it."""
        with self._making:
            if self._made is None:
                from .client import AsyncClient

                o = self.options
                self._made = AsyncClient(
                    o.mirrors,
                    offline=o.offline,
                    refresh=o.refresh,
                    stack=o.policy.stack,
                    require_fresh=o.require_fresh,
                    max_index_age=o.max_index_age,
                    config=o.config,
                    limits=self._limits,
                    reporter=self._reporter,
                )
            return self._made

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close connections and the local index, and stop the portal."""
        if self._made is not None:
            if self._made._sources is self._sources:
                self._made._sources = None  # the same object as ours
            self._made._close_sources()
        self._close_sources()
        try:
            if self._made is not None and self._portal.started:
                self._portal.call(self._made.aclose)
            elif self._made is not None and self._made._transports is not None:
                from .fetch.aio import at_once

                at_once(self._made.aclose())  # what was used without a loop closes without one
        finally:
            self._portal.close()

    def host(self, overrides: HostOverrides | None = None) -> Host:
        """See `AsyncClient.host`."""
        return self._detect(overrides)

    def resolve(
        self,
        *specs: str,
        host: Host | None = None,
        unify: bool = True,
        requirements: Sequence[str] = (),
        prereleases: bool = False,
        others: Sequence[Host] = (),
        full: bool = True,
    ) -> Resolution:
        """See `AsyncClient.resolve`."""
        return self._run(
            self._healed(
                lambda: self._noted_steps(
                    self._resolve_steps(specs, host, unify, requirements, prereleases, others, full)
                )
            )
        )

    def lock(self, resolution: Resolution) -> bytes:
        """See `AsyncClient.lock`."""
        self._async._sources = self._sources
        return self._portal.call(partial(self._async.lock, resolution))

    def resolve_locked(self, lock: Lock, *, host: Host | None = None) -> Resolution:
        """See `AsyncClient.resolve_locked`."""
        return self._portal.call(partial(self._async.resolve_locked, lock, host=host))

    def fetch_locked(
        self, lock: Lock, *, host: Host | None = None, to: str | None = None, adopt: str | None = None
    ) -> Receipt:
        """See `AsyncClient.fetch_locked`."""
        host = host if host is not None else self.host()
        from .fetch.model import Receipt

        early = self._async._locked_early(lock, host, to, adopt)
        if isinstance(early, Receipt):
            return early
        try:
            return self._portal.call(partial(self._async._finish_locked, early, lock, host, to, adopt))
        finally:
            early.close()

    def plan_locked(self, lock: Lock, *, host: Host | None = None) -> FetchPlan:
        """See `AsyncClient.plan_locked`."""
        return self._portal.call(partial(self._async.plan_locked, lock, host=host))

    def list(self, spec: str | None = None, *, externals: bool = False, host: Host | None = None) -> Listing:
        """See `AsyncClient.list`."""
        return self._run(self._healed(lambda: self._list_steps(spec, externals, host)))

    def show(self, spec: str, *, host: Host | None = None) -> Shown:
        """See `AsyncClient.show`."""
        return self._run(self._healed(lambda: self._show_steps(spec, host)))

    def update(self) -> tuple[MirrorState, ...]:
        """See `AsyncClient.update`."""
        return self._run(self._healed(self._open_steps)).states

    def fetch(
        self,
        *specs: str,
        resolution: Resolution | None = None,
        host: Host | None = None,
        to: str | None = None,
        adopt: str | None = None,
        deps: bool = True,
        unify: bool = True,
        requirements: Sequence[str] = (),
        prereleases: bool = False,
    ) -> Receipt:
        """See `AsyncClient.fetch`."""
        ask = partial(
            self.resolve, host=host, unify=unify, requirements=requirements, prereleases=prereleases
        )
        while True:
            left, answer = self._resolved(specs, requirements, resolution, ask)
            work = partial(
                self._async.fetch, *left, resolution=answer, host=host, to=to, adopt=adopt, deps=deps
            )
            try:
                early = self._early(left, answer, deps, to, adopt)
                return self._portal.call(work) if early is None else early
            except CachefetchError as error:
                if resolution is not None or not self.reconsider(error):
                    raise

    def plan(
        self,
        *specs: str,
        resolution: Resolution | None = None,
        host: Host | None = None,
        deps: bool = True,
        unify: bool = True,
        requirements: Sequence[str] = (),
        prereleases: bool = False,
    ) -> FetchPlan:
        """See `AsyncClient.plan`."""
        ask = partial(
            self.resolve, host=host, unify=unify, requirements=requirements, prereleases=prereleases
        )
        specs, answer = self._resolved(specs, requirements, resolution, ask)
        return self._portal.call(partial(self._async.plan, *specs, resolution=answer, host=host, deps=deps))

    def _early(
        self,
        specs: tuple[str, ...],
        answer: Resolution | None,
        deps: bool,
        to: str | None,
        adopt: str | None,
    ) -> Receipt | None:
        """Fetch without an event loop as far as that goes, which is mostly to the end; None when nothing was begun."""
        if answer is None:
            return None if deps else self._pinned(self.pins(*specs), to, adopt)
        if answer.status != "ok":
            return None
        from .fetch.model import Receipt

        begun = self._async._chosen_early(answer, self._run(self._behind(answer)), deps, to, adopt)
        if begun is None or isinstance(begun, Receipt):
            return begun
        try:
            return self._portal.call(partial(self._async._finish, begun))
        finally:
            begun.run.close()

    def _pinned(self, pins: tuple[Pin, ...], to: str | None, adopt: str | None) -> Receipt | None:
        """Fetch what is named in full; None when no mirror has it under the names of layout 3."""
        from .fetch.model import Receipt

        early = self._async._pinned_early(pins, to, adopt)
        if isinstance(early, Receipt):
            return early
        try:
            return self._portal.call(partial(self._async._finish_pinned, early))
        except MissingError:
            return None
        finally:
            early.close()

    def _resolved(
        self,
        specs: tuple[str, ...],
        requirements: Sequence[str],
        resolution: Resolution | None,
        ask: Callable[..., Resolution],
    ) -> tuple[tuple[str, ...], Resolution | None]:
        """Resolve here, without the network if that can be, unless the specs name all there is to know."""
        if resolution is not None:
            not_both(specs, requirements)
        elif requirements or not self.pins(*specs):
            specs, resolution = (), ask(*specs)
        self._share()
        return specs, resolution

    def extract(self, spec: str, to: str, *, host: Host | None = None, portable: bool = False) -> Extraction:
        """See `AsyncClient.extract`."""
        self._run(self._open_steps())
        self._share()
        return self._portal.call(partial(self._async.extract, spec, to, host=host, portable=portable))

    def _share(self) -> None:
        """Give what this client has read to the other one, which needs no second reading then."""
        self._async._sources, self._async._known = self._sources, self._known
        self._async.rollbacks, self._async.forgotten = self.rollbacks, self.forgotten

    def published_keys(self) -> dict[str, tuple[Published, ...]]:
        """See `AsyncClient.published_keys`."""
        return self._run(self._key_steps())

    def sync(
        self, selection: Selection, to: str, *, shard: tuple[int, int] | None = None, **how: bool
    ) -> SyncReport:
        """See `AsyncClient.sync`."""
        return self._portal.call(partial(self._async.sync, selection, to, shard=shard, **how))

    def bundle_export(
        self,
        selection: Selection,
        to: str,
        *,
        volume_size: int | None = None,
        since: str = "",
        sign_key: str = "",
        staging: str = "",
        convert: bool = False,
    ) -> ExportReport:
        """See `AsyncClient.bundle_export`."""
        work = partial(
            self._async.bundle_export,
            selection,
            to,
            volume_size=volume_size,
            since=since,
            sign_key=sign_key,
            staging=staging,
            convert=convert,
        )
        return self._portal.call(work)

    def bundle_import(self, to: str, *, receipt: str = "") -> tuple[ImportReport, ...]:
        """See `AsyncClient.bundle_import`."""
        return self._portal.call(partial(self._async.bundle_import, to, receipt=receipt))

    def network_problems(self) -> tuple[str, ...]:
        """See `AsyncClient.network_problems`."""
        return self._async.network_problems()

    def bundle_verify(self) -> tuple[BundleReport, ...]:
        """See `AsyncClient.bundle_verify`."""
        return self._portal.call(self._async.bundle_verify)

    def verify(self, *, repair: bool = False) -> VerifyReport:
        """See `AsyncClient.verify`."""
        return self._portal.call(partial(self._async.verify, repair=repair))

    def _run(self, steps: Steps[T]) -> T:
        """Run a step function; the network starts with the first request that is not for a local file."""
        try:
            batch = next(steps)
            while True:
                if isinstance(batch, Pause):
                    time.sleep(batch.seconds)
                    batch = steps.send(())
                elif all(is_local(get.url) for get in batch):
                    batch = steps.send(tuple(answer_local(get) for get in batch))
                else:
                    batch = steps.send(self._portal.call(partial(self._async._answers, batch)))
        except StopIteration as stop:
            result: T = stop.value
            return result


def resolve_sync(*specs: str, host: Host | None = None, unify: bool = True, **client: Any) -> Resolution:
    """Resolve once: ``resolve_sync("zlib", mirrors=["/mirror"])``. Further arguments are those of `Client`."""
    with Client(**client) as one:
        return one.resolve(*specs, host=host, unify=unify)


def fetch_sync(
    *specs: str,
    host: Host | None = None,
    to: str | None = None,
    deps: bool = True,
    unify: bool = True,
    **client: Any,
) -> Receipt:
    """Resolve, fetch and verify once. Further arguments are those of `Client`."""
    with Client(**client) as one:
        return one.fetch(*specs, host=host, to=to, deps=deps, unify=unify)
