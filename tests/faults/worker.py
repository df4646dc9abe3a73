"""A process of its own that fetches: ``python -m tests.faults.worker STORE URL NAME:VERSION:HASH...``

With NO_LOCKS in the environment all locks fail; SITE names a read-only layer; HELPER_FROM is the number of packages
from which on a second process takes half of them; with EVENTS stderr tells all events and the start of that process.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import sys

import anyio
from tests.faults.mirror import unsigned

from cachefetch.errors import CachefetchError
from cachefetch.fetch.aio import at_once
from cachefetch.fetch.events import Event, Reporter, Waiting
from cachefetch.fetch.execute import new_run
from cachefetch.fetch.limits import Limits
from cachefetch.fetch.model import Wanted
from cachefetch.fetch.store.cas import Store
from cachefetch.fetch.transports import Transports


class _Waits(Reporter):
    """Says on stderr that this process waits for another one, or all there is to say."""

    def on_event(self, event: Event) -> None:
        if "EVENTS" in os.environ:
            print(type(event).__name__, event.transfer, file=sys.stderr, flush=True)
            return
        if isinstance(event, Waiting):
            print("waits", event.spec, file=sys.stderr, flush=True)


def without_locks() -> None:
    """Make every lock of the system fail, as on a file system that has none."""

    def fail(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    fcntl.fcntl = fail  # type: ignore[assignment]
    fcntl.flock = fail


def main(store: str, url: str, packages: list[str]) -> int:
    source = unsigned("m", url)
    parts = [text.split(":") for text in packages]
    wanted = [Wanted(name, version, hash_, (source,)) for name, version, hash_ in parts]
    # Small chunks, so that a killed run leaves something to continue.
    limits = Limits(chunk_bytes=1 << 16, helper_packages=int(os.environ.get("HELPER_FROM", "256")))
    site = [os.environ["SITE"]] if "SITE" in os.environ else []
    transports = Transports(limits)
    try:
        run = new_run(
            wanted,
            store=Store(store, site=site),
            transports=transports,
            limits=limits,
            reporter=_Waits(),
        )
        receipt = run.begin() or anyio.run(run.finish)
    except CachefetchError as error:
        print(json.dumps(error.to_dict()))
        return error.exit_code
    finally:
        at_once(transports.aclose())
    print(json.dumps(receipt.to_dict()))
    return 0


if __name__ == "__main__":
    if "NO_LOCKS" in os.environ:
        without_locks()
    if "EVENTS" in os.environ:
        os.register_at_fork(after_in_parent=lambda: print("helper", file=sys.stderr, flush=True))
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
