"""Progress on stderr: a bar on a terminal (rich, loaded only then), a line for each package elsewhere."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager

from ..fetch import events
from ..fetch.events import Reporter
from ..fetch.limits import DEFAULT_LIMITS
from .report import printable, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    from ..fetch.events import Event


#: Seconds between two drawings of the bars.
_DRAW_S = 0.1


@contextmanager
def reporter_for(args: argparse.Namespace) -> Iterator[Reporter | None]:
    """Yield the reporter that fits where stderr goes; None for ``--quiet``."""
    if args.quiet:
        yield None
    elif sys.stderr is not None and sys.stderr.isatty() and not args.json:
        with _bars() as bars:
            yield bars
    else:
        yield Lines()


class Lines(Reporter):
    """A line for each package that is stored, and for each retry."""

    def on_event(self, event: Event) -> None:
        """Print what a person wants to find in a log."""
        match event:
            case events.Planned():
                words = (
                    f"{event.packages} packages, {event.reused} in the store, {event.get_bytes} bytes to get"
                )
            case events.Stored():
                words = f"stored {event.spec}"
            case events.Retrying():
                words = f"try {event.attempt} failed, next in {event.wait_s:.1f} s: {event.reason}"
            case events.Waiting():
                words = f"another process fetches {event.spec}, waiting for it"
            case _:
                return
        say(words)


class _Bars(Reporter):
    """A bar for each payload under way; one for all that are small, since each new bar draws all bars again.

    They are drawn by events, not by a thread: a process with one could not have a helper (docs/decisions/0014).
    """

    def __init__(self, bars: Bars) -> None:
        self._drawn = 0.0
        self._bars = bars
        self._tasks: dict[int, TaskID] = {}
        self._small: dict[int, int] = {}  # bytes, by transfer
        self._shared: TaskID | None = None
        self._shared_bytes = 0

    def on_event(self, event: Event) -> None:
        """Move the bars, and draw them now and then."""
        self._move(event)
        now = time.monotonic()
        if now - self._drawn >= _DRAW_S:
            self._drawn = now
            self._bars.refresh()

    def _move(self, event: Event) -> None:
        match event:
            case events.Started() if event.size <= DEFAULT_LIMITS.small_bytes:
                if event.transfer not in self._small:
                    self._begin_small(event.transfer, event.size)
            case events.Stored() if event.transfer in self._small and self._shared is not None:
                self._bars.update(self._shared, advance=self._small[event.transfer])
            case events.Started():
                self._tasks[event.transfer] = self._bars.add_task(
                    event.spec, total=event.size, completed=event.offset
                )
            case events.Progress() if event.transfer in self._tasks:
                self._bars.update(self._tasks[event.transfer], completed=event.done)
            case events.Stored() if event.transfer in self._tasks:
                self._bars.remove_task(self._tasks.pop(event.transfer))
            case events.Retrying():
                self._say(f"try {event.attempt} failed: {event.reason}")
            case events.Waiting():
                self._say(f"another process fetches {event.spec}, waiting for it")
            case _:
                return

    def _say(self, words: str) -> None:
        self._bars.console.print(printable(words), markup=False)

    def _begin_small(self, transfer: int, size: int) -> None:
        self._small[transfer] = size
        self._shared_bytes += size
        if self._shared is None:
            self._shared = self._bars.add_task("small packages", total=size)
        else:
            self._bars.update(self._shared, total=self._shared_bytes)


@contextmanager
def _bars() -> Iterator[_Bars]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, auto_refresh=False) as bars:
        yield _Bars(bars)
