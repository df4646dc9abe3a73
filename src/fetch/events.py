"""What a fetch tells while it runs: small frozen events, and the reporter that gets them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Event:
    """Base of all events. `transfer` numbers the package within its run, from 1; 0 is the whole run."""

    transfer: int


@dataclass(frozen=True, slots=True)
class Planned(Event):
    """All metadata is proven: how many packages, how many of them are in the store, bytes still to get."""

    packages: int
    reused: int
    get_bytes: int


@dataclass(frozen=True, slots=True)
class Started(Event):
    """The payload of `spec` begins to come from `mirror`, at byte `offset` of `size`."""

    spec: str
    mirror: str
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Progress(Event):
    """`done` of `size` bytes are here. Not for every chunk, see `Limits.progress_interval_s`."""

    done: int
    size: int


@dataclass(frozen=True, slots=True)
class Retrying(Event):
    """Try number `attempt` failed for `reason`; the next one follows after `wait_s` seconds."""

    attempt: int
    wait_s: float
    reason: str


@dataclass(frozen=True, slots=True)
class Waiting(Event):
    """Another process fetches the payload of `spec`; this one waits for it."""

    spec: str


@dataclass(frozen=True, slots=True)
class Verified(Event):
    """The metadata of `spec` is proven: `signature` is "good", "none" or "not-required", `key` a fingerprint."""

    spec: str
    signature: str
    key: str | None


@dataclass(frozen=True, slots=True)
class Stored(Event):
    """The payload of `spec` has the promised length and digest and is at `path`."""

    spec: str
    path: str


@dataclass(frozen=True, slots=True)
class Reused(Event):
    """The payload of `spec` was in the store at `path`, with the right digest."""

    spec: str
    path: str


@dataclass(frozen=True, slots=True)
class Warned(Event):
    """Something of `mirror` was wrong and did not stop the fetch."""

    code: str
    message: str
    mirror: str


@dataclass(frozen=True, slots=True)
class Finished(Event):
    """The run is over: number of packages on disk, bytes of bodies that came through sockets."""

    packages: int
    network_bytes: int


class Reporter:
    """Gets every event of a run, in the thread of the event loop; override `on_event`. It must be quick."""

    def on_event(self, event: Event) -> None:
        """Do nothing."""
