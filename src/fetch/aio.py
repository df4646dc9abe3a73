"""anyio for the engine, loaded with its first use: what goes well needs no event loop (docs/decisions/0012)."""

from __future__ import annotations

__all__ = [
    "CancelScope",
    "CapacityLimiter",
    "Event",
    "LoopNeeded",
    "at_once",
    "create_task_group",
    "get_cancelled_exc_class",
    "move_on_after",
    "sleep",
    "to_thread",
]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any, TypeVar

    from anyio import (
        CancelScope,
        CapacityLimiter,
        Event,
        create_task_group,
        get_cancelled_exc_class,
        move_on_after,
        sleep,
        to_thread,
    )

    T = TypeVar("T")
else:

    def __getattr__(name):
        if name.startswith("__"):  # asked by the import itself
            raise AttributeError(name)
        import anyio.to_thread

        found = globals()[name] = getattr(anyio, name)
        return found


class LoopNeeded(Exception):
    """The rest of the work needs an event loop."""


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that waits for nothing in an event loop, and return its result."""
    try:
        work.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    work.close()
    raise AssertionError("it waits for something, and there is no event loop")
