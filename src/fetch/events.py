"""What a fetch tells while it runs: small frozen events, and the reporter that gets them."""

from __future__ import annotations

from ..values import frozen


class Event:
    """Base of all events. `transfer` numbers the package within its run, from 1; 0 is the whole run."""

    __slots__ = ()
    transfer: int


@frozen
class Planned(Event):
    """All metadata is proven: how many packages, how many of them are in the store, bytes still to get."""

    transfer: int
    packages: int
    reused: int
    get_bytes: int


@frozen
class Started(Event):
    """The payload of `spec` begins to come from `mirror`, at byte `offset` of `size`."""

    transfer: int
    spec: str
    mirror: str
    offset: int
    size: int


@frozen
class Progress(Event):
    """`done` of `size` bytes are here. Not for every chunk, see `Limits.progress_interval_s`."""

    transfer: int
    done: int
    size: int


@frozen
class Retrying(Event):
    """Try number `attempt` failed for `reason`; the next one follows after `wait_s` seconds."""

    transfer: int
    attempt: int
    wait_s: float
    reason: str


@frozen
class Waiting(Event):
    """Another process fetches the payload of `spec`, or what proves it; this one waits for it."""

    transfer: int
    spec: str


@frozen
class Verified(Event):
    """The metadata of `spec` is proven: `signature` is "good", "none" or "not-required", `key` a fingerprint."""

    transfer: int
    spec: str
    signature: str
    key: str | None


@frozen
class Stored(Event):
    """The payload of `spec` has the promised length and digest and is at `path`."""

    transfer: int
    spec: str
    path: str


@frozen
class Reused(Event):
    """The payload of `spec` was in the store at `path`, with the right digest."""

    transfer: int
    spec: str
    path: str


@frozen
class Warned(Event):
    """Something of `mirror` was wrong and did not stop the fetch."""

    transfer: int
    code: str
    message: str
    mirror: str


@frozen
class Finished(Event):
    """The run is over: number of packages on disk, bytes of bodies that came through sockets."""

    transfer: int
    packages: int
    network_bytes: int


class Reporter:
    """Gets every event of a run, in the thread of the event loop; override `on_event`. It must be quick."""

    def on_event(self, event: Event) -> None:
        """Do nothing."""
