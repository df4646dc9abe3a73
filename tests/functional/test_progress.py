"""The bars of a terminal: what they show, and that many small packages do not make drawing them the work."""

from __future__ import annotations

import io

from rich.console import Console
from rich.progress import Progress as RichProgress

from cachefetch.cli.progress import _Bars
from cachefetch.fetch.events import Progress, Started, Stored
from cachefetch.fetch.limits import DEFAULT_LIMITS

SMALL, LARGE = 20_000, DEFAULT_LIMITS.small_bytes + 1


def test_small_packages_share_a_bar_and_large_ones_have_their_own() -> None:
    drawn = io.StringIO()
    with RichProgress(console=Console(file=drawn, force_terminal=True, width=100, height=40)) as bars:
        reporter = _Bars(bars)
        for number in range(1, 61):
            reporter.on_event(Started(number, f"p{number}@1.0", "m", 0, SMALL))
        reporter.on_event(Started(1, "p1@1.0", "m", 0, SMALL))  # tried again: counted once
        reporter.on_event(Started(61, "big@1.0", "m", 5, LARGE))
        reporter.on_event(Progress(61, 7, LARGE))
        for number in range(1, 31):
            reporter.on_event(Stored(number, f"p{number}@1.0", "path"))
        shown = [(task.description, task.completed, task.total) for task in bars.tasks]
        assert shown == [("small packages", 30 * SMALL, 60 * SMALL), ("big@1.0", 7, LARGE)]
        reporter.on_event(Stored(61, "big@1.0", "path"))
        assert len(bars.tasks) == 1
    assert len(drawn.getvalue()) < 20_000, (
        "a new bar draws all: 60 of them were 200 KB, 600 took half a minute"
    )
