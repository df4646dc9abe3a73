"""One fetch from its beginning to its receipt.

It begins without an event loop, which takes longer to load than hundreds of small packages to fetch, and goes on in one
if it has to (docs/decisions/0012). What is needed to see that all is present, or to wait for another process that
fetches the same (`same`), is loaded with this module; the rest (`work`) when there is something to do.
"""

from __future__ import annotations

from ..errors import CachefetchError, NetworkError
from ..values import frozen
from . import aio, present
from .aio import LoopNeeded
from .same import wait_for_same

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from typing import TypeVar

    from .model import Receipt, VerifiedPackage, Wanted
    from .present import Present
    from .session import Session
    from .store.lease import Lease
    from .store.locks import Lock
    from .work import Work

    T = TypeVar("T")


@frozen
class Request:
    """What a run is asked for, see `new_run`; `keys` are those of the notes about `wanted`, in its order."""

    wanted: tuple[Wanted, ...]
    keys: tuple[str, ...]
    to: str | None
    adopt: str | None
    accept: Callable[[Sequence[Present | VerifiedPackage]], None]


class Run:
    """A fetch, and how far it is: `begin` it where there is no event loop, and `finish` it in one if that is needed.

    Args:
        session: of this run alone.
        request: what is asked for.
    """

    def __init__(self, session: Session, request: Request) -> None:
        self.session = session
        self._request = request
        #: Keeps what is present (`cache gc`) until the receipt names it.
        self._using: Lock | Lease | None = None
        #: Makes those wait that ask the same.
        self._ahead: Lock | Lease | None = None
        self._known: list[Present | None] = []
        self._work: Work | None = None

    def begin(self) -> Receipt | None:
        """Go as far as it goes without an event loop: to the receipt, or None when `finish` has to go on.

        Raises:
            CachefetchError, StoreError: as `finish`. The run is over then.
        """
        if self.session.limits.deadline_s:
            return None
        self.session.in_loop = False
        try:
            if not self._look():
                return None
            receipt = aio.at_once(self._receipt())
        except LoopNeeded:
            return None
        except BaseException:
            self.close()
            raise
        finally:
            self.session.in_loop = True
            self.session.drain()
        self.close()
        return receipt

    async def finish(self) -> Receipt:
        """Go on to the receipt, from the beginning or from where `begin` stopped.

        Raises:
            CachefetchError: as `prove_items` before the first payload byte; later the most serious failure of the
                packages that could not be delivered (the others are stored all the same).
            StoreError: no space (seen before the first payload byte where it can be), no permission.
        """
        try:
            while self._using is None and not await self.session.blocking(self._look):
                await self.session.rest(self.session.limits.lock_poll_s)
            return await in_time(self.session, self._receipt)
        finally:
            self.close()

    def close(self) -> None:
        """Let others remove what this run found or brought, and go on who waits for it. May be called again."""
        held, self._ahead, self._using = (self._ahead, self._using), None, None
        for lock in held:
            if lock is not None:
                lock.release()

    def _look(self) -> bool:
        """See what is present, and keep it; False when somebody is removing things now."""
        self._using = self.session.store.try_use()
        if self._using is None:
            return False
        self._see()
        return True

    def _see(self) -> None:
        self._known = present.look(self.session.store, self._request.wanted, self._request.keys)

    async def _receipt(self) -> Receipt:
        session, request = self.session, self._request
        if self._work is None and None in self._known:
            self._ahead = await wait_for_same(session, request, self._known)
            if self._ahead is None or await session.blocking(session.store.notes.refresh):
                await session.blocking(self._see)
        here = [one for one in self._known if one is not None]
        if len(here) == len(self._known):
            request.accept(here)
            return await session.blocking(
                lambda: present.receipt(session.store, here, request.to, session.reporter)
            )
        if self._work is None:
            from .work import Work

            self._work = Work(session, request, self._known)
        return await self._work.receipt()


async def in_time(session: Session, work: Callable[[], Awaitable[T]]) -> T:
    """Do `work` before the deadline, and hand over the events of its worker threads meanwhile."""
    limit = session.limits.deadline_s or None
    error: CachefetchError | None = None
    with aio.move_on_after(limit):
        async with aio.create_task_group() as group:
            group.start_soon(session.keep_draining)
            try:
                return await work()
            except CachefetchError as failed:  # raised outside of the group, which would wrap it
                error = failed
            finally:
                group.cancel_scope.cancel()
                session.drain()
    if error is not None:
        raise error
    raise NetworkError(
        f"not done within {limit:g} s (--deadline)",
        hint="run the command again: what is here is kept, and what was under way is continued",
        context={"reason": "deadline", "deadline_s": limit},
    )
