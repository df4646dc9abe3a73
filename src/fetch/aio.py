"""anyio for the engine, loaded with its first use: what goes well needs no event loop (docs/decisions/0012)."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any, TypeVar

    T = TypeVar("T")

    from anyio import (
        CancelScope as CancelScope,
    )
    from anyio import (
        CapacityLimiter as CapacityLimiter,
    )
    from anyio import (
        Event as Event,
    )
    from anyio import (
        create_task_group as create_task_group,
    )
    from anyio import (
        get_cancelled_exc_class as get_cancelled_exc_class,
    )
    from anyio import (
        move_on_after as move_on_after,
    )
    from anyio import (
        sleep as sleep,
    )
    from anyio import (
        to_thread as to_thread,
    )
else:

    def __getattr__(name):
        if name.startswith("__"):  # asked by the import itself
            raise AttributeError(name)
        import anyio.to_thread

        found = globals()[name] = getattr(anyio, name)
        return found


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that waits for nothing in an event loop, and return its result."""
    try:
        work.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    work.close()
    raise AssertionError("it waits for something, and there is no event loop")
