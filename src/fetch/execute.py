"""The fetch engine: prove the metadata of every package, plan, then move the payloads in parallel (`run`).

What proves and moves is loaded by whoever has to do it: many a run finds everything here, or waits for another one.
"""

from __future__ import annotations

from functools import partial

from . import present
from .events import Reporter
from .limits import DEFAULT_LIMITS
from .model import Meter
from .present import keys_of
from .retry import Clockwork
from .run import Request, Run, in_time
from .session import Session

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .limits import Limits
    from .model import VerifiedPackage, Wanted
    from .plan import FetchPlan
    from .present import Present
    from .store.cas import Store
    from .transports import Transports


async def fetch_metadata(
    wanted: Wanted,
    *,
    store: Store,
    transports: Transports,
    limits: Limits = DEFAULT_LIMITS,
    reporter: Reporter | None = None,
    offline: bool = False,
    meter: Meter | None = None,
    clockwork: Clockwork | None = None,
) -> VerifiedPackage:
    """Prove one package without its payload; `document` has its nodes, for a closure that no index tells.

    Manifest and spec document are kept in the store, so a later fetch does not ask for them again.

    Args:
        wanted: what, and from which mirrors.
        store: where it is kept.
        transports: how mirrors are read.
        limits: time-outs and numbers.
        reporter: gets the events.
        offline: open no socket; the store and mirrors that are directories are read.
        meter: counts bytes; shared with other steps of the same command if given.
        clockwork: time and chance, for tests.

    Raises:
        TrustError, IntegrityError, MirrorError, StoreError: see `metadata.prove`.
    """
    from .metadata import prove

    session = _session(store, transports, limits, reporter, offline, meter, clockwork)
    return await prove(session, wanted)


async def prove_items(
    wanted: Sequence[Wanted],
    *,
    store: Store,
    transports: Transports,
    limits: Limits = DEFAULT_LIMITS,
    reporter: Reporter | None = None,
    offline: bool = False,
    meter: Meter | None = None,
    clockwork: Clockwork | None = None,
) -> tuple[VerifiedPackage, ...]:
    """Prove several packages in parallel without their payload; arguments as for `fetch_metadata`.

    Raises:
        TrustError, IntegrityError, MirrorError: some package has no proof. ``context["missing"]`` names those
            that no mirror has ([{"name", "version", "hash"}]), ``context["failures"]`` all; MissingError when
            absence is all that is wrong.
    """
    from .work import prove_all

    session = _session(store, transports, limits, reporter, offline, meter, clockwork)
    return await prove_all(session, wanted)


def new_run(
    wanted: Sequence[Wanted],
    *,
    store: Store,
    transports: Transports,
    limits: Limits = DEFAULT_LIMITS,
    reporter: Reporter | None = None,
    offline: bool = False,
    to: str | None = None,
    adopt: str | None = None,
    meter: Meter | None = None,
    clockwork: Clockwork | None = None,
    accept: Callable[[Sequence[Present | VerifiedPackage]], None] = lambda _: None,
) -> Run:
    """Return a fetch that has not begun: all metadata first, then, when all of it is proven, the payloads.

    What the store has is not fetched: it is verified again, or is the very files that were verified before (`present`).
    `Run.finish` does it in an event loop. Where there is none, `Run.begin` does before that what goes well, which is
    mostly all: asyncio and anyio take as long to load as hundreds of small packages to fetch (docs/decisions/0012).
    The other arguments are those of `fetch_metadata`.

    Args:
        to: directory that gets ``NAME-VERSION-HASH.spack`` of every package (hard link, reflink or copy).
        adopt: directory with payloads that other tools fetched; see `adopt.adopt`.
        accept: raises when what is present or proven is not what the caller expects; asked before any payload moves.
    """
    session = _session(store, transports, limits, reporter, offline, meter, clockwork)
    return Run(session, Request(tuple(wanted), keys_of(wanted), to, adopt, accept))


async def plan_items(
    wanted: Sequence[Wanted],
    *,
    store: Store,
    transports: Transports,
    limits: Limits = DEFAULT_LIMITS,
    reporter: Reporter | None = None,
    offline: bool = False,
    meter: Meter | None = None,
    clockwork: Clockwork | None = None,
) -> FetchPlan:
    """Prove packages and say what fetching them would get and reuse; arguments and errors as for `prove_items`."""
    from .work import plan_now, prove_all

    session = _session(store, transports, limits, reporter, offline, meter, clockwork)

    async def work() -> FetchPlan:
        packages = await prove_all(session, wanted)
        noted = list(zip(present.keys_of(wanted), wanted, packages, strict=True))
        await session.blocking(partial(present.note, session.store, noted))  # a fetch will follow
        return await session.blocking(partial(plan_now, session, packages))

    return await in_time(session, work)


def _session(
    store: Store,
    transports: Transports,
    limits: Limits,
    reporter: Reporter | None,
    offline: bool,
    meter: Meter | None,
    clockwork: Clockwork | None,
) -> Session:
    return Session(
        store,
        transports,
        limits,
        reporter or Reporter(),
        offline=offline,
        meter=meter or Meter(),
        clockwork=clockwork or Clockwork(),
    )
