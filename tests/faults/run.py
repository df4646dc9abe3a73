"""Running the engine in tests: no waiting, no network setting of this machine, every event kept."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import TypeVar

import anyio

from cachefetch.fetch.aio import at_once
from cachefetch.fetch.events import Event, Reporter
from cachefetch.fetch.execute import new_run
from cachefetch.fetch.limits import Limits
from cachefetch.fetch.model import Receipt, Wanted
from cachefetch.fetch.retry import Clockwork
from cachefetch.fetch.run import Run
from cachefetch.fetch.store.cas import Store
from cachefetch.fetch.transports import Transports

#: Time-outs of tests: long enough for a loaded machine, short enough to wait for.
QUICK = Limits(connect_timeout_s=5, stall_s=1.0, chunk_bytes=1 << 16, lock_poll_s=0.02)


E = TypeVar("E", bound=Event)


class Recorder(Reporter):
    def __init__(self) -> None:
        self.events: list[Event] = []

    def on_event(self, event: Event) -> None:
        self.events.append(event)

    def of(self, kind: type[E]) -> list[E]:
        return [event for event in self.events if isinstance(event, kind)]


class Naps:
    """Time that passes at once; remembers how long each wait would have been."""

    def __init__(self) -> None:
        self.taken: list[float] = []
        self._ahead = 0.0

    async def sleep(self, seconds: float) -> None:
        self.taken.append(seconds)
        short = min(seconds, 0.02)
        self._ahead += seconds - short
        await anyio.sleep(short)

    def clockwork(self) -> Clockwork:
        return Clockwork(
            monotonic=lambda: time.monotonic() + self._ahead, sleep=self.sleep, random=lambda: 0.5
        )


def fetch(
    wanted: Sequence[Wanted],
    store: str | os.PathLike[str],
    *,
    limits: Limits = QUICK,
    reporter: Reporter | None = None,
    naps: Naps | None = None,
    clockwork: Clockwork | None = None,
    offline: bool = False,
    to: str | None = None,
) -> Receipt:
    """Fetch as `Client` does: begin without an event loop, and finish in one what that leaves.

    `clockwork` takes the place of `naps`, where time has to pass as it does.
    """
    transports = Transports(limits, offline=offline)
    found: Receipt | Run | None = None
    try:
        run = new_run(
            wanted,
            store=Store(os.fspath(store)),
            transports=transports,
            limits=limits,
            reporter=reporter,
            offline=offline,
            to=to,
            clockwork=clockwork or (naps or Naps()).clockwork(),
        )
        found = run.begin() or run
    finally:
        if not isinstance(found, Run):
            at_once(transports.aclose())
    if isinstance(found, Receipt):
        return found

    async def rest(run: Run) -> Receipt:
        try:
            return await run.finish()
        finally:
            await transports.aclose()

    return anyio.run(rest, found)


def final_files(store: str | os.PathLike[str]) -> dict[str, bytes]:
    """Return every blob that is visible under its digest."""
    found = {}
    for directory, _, names in os.walk(os.path.join(store, "sha256")):
        for name in names:
            with open(os.path.join(directory, name), "rb") as file:
                found[name] = file.read()
    return found


def leftovers(store: str | os.PathLike[str]) -> list[str]:
    """Return what work in progress left behind."""
    partial = os.path.join(store, "partial")
    return sorted(os.listdir(partial)) if os.path.isdir(partial) else []
