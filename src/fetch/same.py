"""Processes that ask the same: one goes ahead, the others wait for what it brings.

Who waits needs no module of the network, proves nothing and looks at one lock: 64 processes that begin together would
otherwise keep the processors from the one that fetches. It is a courtesy, and no guarantee rests on it: when the
one ahead ends (the kernel sees to that when it is killed), or nothing comes of it for a while, those that waited do the
work themselves, each blob under its own lock.
"""

from __future__ import annotations

import hashlib
from collections import deque
from functools import partial

from ..errors import StoreError
from . import present
from .events import Waiting
from .store.locks import Lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from .limits import Limits
    from .present import Present
    from .run import Request
    from .session import Session
    from .store.cas import Store
    from .store.lease import Lease


#: Seconds between two looks at what came; the lock alone is looked at more often.
_LOOK_S = 1.0


async def wait_for_same(
    session: Session, request: Request, known: Sequence[Present | None]
) -> Lock | Lease | None:
    """Return a lock to be held while the work is done, which makes others wait that ask the same.

    Where another run has it, wait until that has brought everything, has ended, or makes no progress; then return None:
    several that waited work side by side.
    """
    store, limits = session.store, session.limits
    name = _name(limits, request)
    lock = await session.blocking(partial(_try_lock, store, name))
    if lock is not None:
        return lock
    other = _Other(store, name, request, known)
    clock, pause_s = session.clockwork.monotonic, limits.lock_poll_s * (0.5 + session.clockwork.random())
    before, since, looked, told = await session.blocking(other.state), clock(), float("-inf"), -1
    while not await session.blocking(other.ended):
        if (now := clock()) - looked >= _LOOK_S:
            if await session.blocking(other.brought_all):
                break
            if (first := other.left[0]) != told:
                session.emit(Waiting(first + 1, str(request.wanted[first])))
            looked, told = now, first
        if now - since >= limits.same_patience_s:
            if (state := await session.blocking(other.state)) == before:
                break
            before, since = state, now
        await session.rest(pause_s)
    return None


def _name(limits: Limits, request: Request) -> str:
    """Return the key of the lock: the same packages with the same trust from the same mirrors at the same speed."""
    urls = sorted({source.url for one in request.wanted for source in one.sources})
    text = "\0".join((repr(limits), *urls, *request.keys))
    return f"same-{hashlib.sha256(text.encode()).hexdigest()}"


def _try_lock(store: Store, name: str) -> Lock | Lease | None:
    try:
        return store.try_lock(name)
    except StoreError:
        return Lock(None)  # who has to write meets it again


class _Other:
    """A run of another process, as far as its traces in the store tell. `left` are the numbers of what is to come."""

    def __init__(self, store: Store, name: str, request: Request, known: Sequence[Present | None]) -> None:
        self._store, self._name, self._request = store, name, request
        self.left = deque(number for number, one in enumerate(known) if one is None)

    def ended(self) -> bool:
        """Return True when its lock is free."""
        lock = _try_lock(self._store, self._name)
        if lock is not None:
            lock.release()
        return lock is not None

    def brought_all(self) -> bool:
        """Return True when all is present, though it may still be at its own copies."""
        self._store.notes.refresh()
        wanted, keys, left = self._request.wanted, self._request.keys, self.left
        while left and present.find(self._store, wanted[left[0]], keys[left[0]]) is not None:
            left.popleft()
        return not left

    def state(self) -> list[str]:
        """Return what changes whenever more comes."""
        wanted, keys = self._request.wanted, self._request.keys
        return [present.trace(self._store, wanted[number], keys[number]) for number in self.left]
