"""An audit in several processes: a package of a few KiB is bound by Python, and threads do not share that.

The workers are new interpreters, not forks: by the time of an audit there are threads, and a fork would copy their
locks. They get their work over pipes, end when these do, and send back what they found. Whatever happens to a worker,
its work is done here.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections import deque

from ..verify.openpgp import Keyring
from .examine import Examiner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from multiprocessing.connection import Connection

    from ..transports.threads import Abort
    from .examine import Found, Item

#: With fewer packages the start of the workers costs more than they save.
ENOUGH = 2000
_FEWEST, _MOST = 16, 256


def cores() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def examine_in_processes(examiner: Examiner, keyring: Keyring, items: Sequence[Item], abort: Abort) -> None:
    """Let a worker for each processor look at `items`; what they find is added to `examiner`.

    Raises:
        Aborted: the caller wants no more.
    """
    from multiprocessing.connection import wait

    from ..transports.threads import Aborted  # with anyio, which a worker does not need

    keys = b"".join(bytes(one.cert) for one in keyring.certificates.values()), keyring.problems
    waiting = _Waiting(items)
    workers: dict[Connection, _Worker] = {}
    try:
        for _ in range(cores()):
            worker = _Worker()
            workers[worker.connection] = worker
            if not worker.give(waiting.take(), (examiner.rules, keys)):
                waiting.put_back(worker.drop())
                del workers[worker.connection]
        while workers:
            for connection in wait(list(workers), timeout=0.2):
                worker = workers[connection]  # type: ignore[index]  # what was waited for, and nothing else
                found = worker.answer()
                if found is not None:
                    examiner.found.add(found)
                if found is None or not worker.give(waiting.take()):
                    waiting.put_back(worker.drop())
                    del workers[worker.connection]
            if abort.set:
                raise Aborted
    finally:
        for worker in workers.values():
            worker.drop()
    for item in waiting.take_all():
        if abort.set:
            raise Aborted
        examiner.examine(item)


class _Waiting:
    """What nobody has looked at yet; portions get smaller towards the end, so that all workers end together."""

    def __init__(self, items: Sequence[Item]) -> None:
        self._items = deque(items)

    def take(self) -> list[Item]:
        portion = max(_FEWEST, min(_MOST, len(self._items) // (4 * cores())))
        return [self._items.popleft() for _ in range(min(portion, len(self._items)))]

    def take_all(self) -> list[Item]:
        found, self._items = list(self._items), deque()
        return found

    def put_back(self, items: Sequence[Item]) -> None:
        self._items.extendleft(items)


class _Worker:
    """A worker process, and the portion that it has."""

    def __init__(self) -> None:
        from multiprocessing.connection import Pipe

        self.connection, theirs = Pipe()
        self._has: list[Item] = []
        self._process: subprocess.Popen[bytes] | None = None
        number = theirs.fileno()
        # The path as it is here, whatever made it so: nothing of the environment or of `site` is read again.
        code = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import work; work({number})"
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", code],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[number],
                process_group=0,  # Ctrl-C is for us, who then end it
            )
        except (OSError, ValueError):
            self.connection.close()  # no interpreter to start, or no process left
        finally:
            theirs.close()

    def give(self, items: list[Item], first: object = None) -> bool:
        """Hand over a portion, before that what all work needs; False when there is no work or no worker."""
        self._has = items
        if not items:
            return False
        try:
            if first is not None:
                self.connection.send(first)
            self.connection.send(items)
        except OSError:
            return False
        return True

    def answer(self) -> Found | None:
        """Return what was found in the portion, None when the worker is gone."""
        try:
            found: Found = self.connection.recv()
        except (OSError, EOFError):
            return None
        self._has = []
        return found

    def drop(self) -> list[Item]:
        """End the worker and return the portion that it did not do."""
        self.connection.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        return self._has


def work(number: int) -> None:
    """Be a worker: look at portions that come over the pipe `number` until it ends."""
    from multiprocessing.connection import Connection

    connection = Connection(number)
    try:
        rules, (keys, problems) = connection.recv()
        keyring = Keyring.from_bytes(keys, what="the trusted keys") if keys else Keyring()
        keyring = Keyring(keyring.certificates, problems)
        gc.freeze()
        while True:
            examiner = Examiner(rules, keyring)
            for item in connection.recv():
                examiner.examine(item)
            connection.send(examiner.found)
    except (OSError, EOFError):
        pass  # whoever asked is gone or has enough
