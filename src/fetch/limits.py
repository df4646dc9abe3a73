"""Every number that bounds the fetch engine, in one value."""

from __future__ import annotations

from ..values import frozen


@frozen
class Limits:
    """Limits of one run; the unit ends the name (``_s`` seconds, ``_bytes`` bytes), the others are counts.

    Attributes:
        metadata_in_flight: manifests and spec blobs asked for at the same time. Mirrors bear 64, but the general
            way (httpx) needs more CPU a request the more connections it pools.
        blob_connections: payload blobs streamed at the same time.
        blobs_per_host: the same, for one host and port.
        connect_timeout_s: for TCP and TLS together.
        first_byte_s: a server that says nothing for so long about a document or an index is given up,
        document_s: so is one that has not sent a whole small document of an index after so long,
        page_s: or a whole cache page or spack.lock, which may have megabytes;
        silent_attempts: after so many tries where an index is asked for.
        stall_s: a transfer that brings less than `stall_bytes_per_s` for so long is given up (and retried).
        stall_bytes_per_s: see `stall_s`, bytes a second.
        attempts: tries of one request on one mirror, the first included.
        backoff_s: base of the exponential back-off.
        throttled_backoff_s: the same after 429 and 503.
        backoff_cap_s: no back-off is longer.
        retry_after_cap_s: a server that asks for more patience than this is given up for this run.
        redirects: length of a chain of redirects.
        manifest_bytes: a larger manifest is refused.
        spec_blob_bytes: a larger compressed spec document is refused.
        small_bytes: payloads up to this size go the quick way, one thread for many (`quick`).
        helper_packages: from so many packages on a second process does half of them (`helper`).
        split_bytes: what is left of a payload comes in ranges when it is at least this much,
        range_bytes: of this size,
        split_connections: over so many connections, where the host's are not in use.
        chunk_bytes: payload is hashed and written in pieces of this size,
        flush_s: or, on a slow link, of what came in so many seconds: a killed process loses no more than that.
        progress_interval_s: shortest time between two progress events of one transfer.
        breaker_failures: after so many failures in a row a host is left alone where there is another,
        breaker_rest_s: for so long.
        rate_bytes_per_s: payload bytes a second of all transfers together; 0 for no limit.
        deadline_s: the whole fetch is given up after so many seconds; 0 for never.
        lock_poll_s: a blob that another process fetches right now is looked at again after so long, then after twice
            as long each time, a random half more or less,
        lock_poll_cap_s: but no longer.
        same_patience_s: who waits for another process that fetches the very same packages does the work itself when
            nothing came for so long.
    """

    metadata_in_flight: int = 16
    blob_connections: int = 16
    blobs_per_host: int = 8
    connect_timeout_s: float = 10.0
    first_byte_s: float = 10.0
    document_s: float = 15.0
    page_s: float = 60.0
    silent_attempts: int = 2
    stall_s: float = 60.0
    stall_bytes_per_s: int = 1024
    attempts: int = 5
    backoff_s: float = 0.2
    throttled_backoff_s: float = 5.0
    backoff_cap_s: float = 60.0
    retry_after_cap_s: float = 600.0
    redirects: int = 5
    manifest_bytes: int = 1 << 20
    spec_blob_bytes: int = 16 << 20
    small_bytes: int = 256 << 10
    helper_packages: int = 256
    split_bytes: int = 64 << 20
    range_bytes: int = 4 << 20
    split_connections: int = 6
    chunk_bytes: int = 2 << 20
    flush_s: float = 1.0
    progress_interval_s: float = 0.1
    breaker_failures: int = 5
    breaker_rest_s: float = 30.0
    rate_bytes_per_s: int = 0
    deadline_s: float = 0.0
    lock_poll_s: float = 0.1
    lock_poll_cap_s: float = 1.0
    same_patience_s: float = 5.0


DEFAULT_LIMITS = Limits()
