"""How bytes come from a mirror: one small protocol, one file for each transport.

This module is light: nothing of the network (httpx, anyio, ssl) is imported before a transport is asked for.
"""

from __future__ import annotations

import re
from functools import lru_cache

from ...errors import MirrorError, OfflineError
from ...values import frozen
from ..network import Network

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Protocol

    from ..limits import Limits
    from ..mirror_choice import Health
    from .errand import Errand
    from .threads import Abort

    class Sink(Protocol):
        """Gets the bytes of one object. All calls come one after the other from worker threads, so it may block.

        What it raises ends the transfer, and reaches the caller of `receive` as it is. Where a sink has an attribute
        `urgent` that is True, a server that says nothing is given up after `Limits.first_byte_s`. Where it has a
        method `room`, that gives memory for all bytes that it still wants: a transport may receive them there, and
        gives `write` the views of that memory then.
        """

        def begin(self, head: Head) -> None:
            """Look at what the answer promises, before its first byte."""

        def write(self, data: memoryview) -> None:
            """Take the next bytes; the buffer is used again afterwards."""

        def end(self) -> None:
            """Do what follows the last byte (whether all came is for the sink to know: see `Head.size`)."""

    class Transport(Protocol):
        """Access to the mirrors of one URL scheme.

        Every method raises: NotFoundError (404, 410, no such file), AccessError (401, 403), NetworkError
        (connection, time-out, 429, 5xx; may go away), MirrorError (TLS, bad redirect, other status; will not).
        """

        #: True when bytes come through a socket.
        network: bool

        async def get(self, url: str, *, etag: str | None = None, limit: int) -> Reply:
            """Read a small document whole.

            Args:
                url: file path or URL.
                etag: validator of the copy that the caller has; the answer is status 304 when it still holds.
                limit: bytes; a longer document is a FormatError.
            """

        async def receive(
            self,
            url: str,
            sink: Sink,
            *,
            offset: int = 0,
            validator: str | None = None,
            last: int | None = None,
        ) -> None:
            """Stream an object into `sink` as its bytes stand on the wire, from byte `offset` on if it can be.

            `validator` is the strong ETag of the bytes that the caller has: another one serves from 0, see
            `Head.offset`. `last` is the last byte that is wanted, None for all (then more may come all the same).
            """

        def run_errands(
            self, abort: Abort, url: str, errands: Iterator[Errand], width: int, *, long: bool = False
        ) -> None:
            """Run errands at the origin of `url`, at most `width` side by side, in this thread until all are done.

            Those of bodies that keep a thread busy are `long`: each gets a thread.

            What is not begun when this returns is for the caller to do; a transport without a quick way hands
            every request back.

            Raises:
                Aborted: `abort` came. Whatever an errand does not catch.
            """

        async def aclose(self) -> None:
            """Close connections."""


@frozen
class Head:
    """What an answer promises.

    Attributes:
        size: bytes of the whole object (not only of the part that is served), None when not told.
        offset: where the first byte stands in it; 0 when the server ignored or refused the range.
        etag: strong validator of the object, None when the server gives none.
        encoding: Content-Encoding that the server applied although identity was asked for, or "".
    """

    size: int | None
    offset: int
    etag: str | None
    encoding: str = ""


@frozen
class Reply:
    """A small document: `status` 200 or 304 (then `body` is empty)."""

    status: int
    body: bytes
    etag: str | None
    content_type: str | None


#: Schemes that open no socket.
_LOCAL = ("file", "bundle")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_SECRETS = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*://)(?:[^/?#]*@)?([^?#]*)(\?[^#]*)?(?:#.*)?$", re.S)
#: A "port" that is none: the beginning of a password with an unescaped / ? or #, when an @ follows.
_NO_PORT = re.compile(r"[^/:\[]*:(?!\d{0,5}(?:/|$))")
_HOST = re.compile(r"://(?:[^/?#]*@)?([^/?#]*)")


@lru_cache(64)  # as `is_network`
def scheme_of(url: str) -> str:
    """Return the scheme in lower case; "file" for a plain path."""
    found = _SCHEME.match(url)
    return found[1].lower() if found else "file"


def redact(url: str) -> str:
    """Return `url` without user, password, query and fragment, which may hold secrets; for messages."""
    found = _SECRETS.match(url)
    if not found:
        return url
    rest = url[found.start(2) :]
    if "@" in rest and _NO_PORT.match(found[2]):
        return redact(found[1] + rest.rpartition("@")[2])
    return found[1] + found[2] + ("?..." if found[3] else "")


@lru_cache(64)  # as `is_network`
def host_of(url: str) -> str:
    """Return ``host:port`` as it stands in `url`, "" for a file."""
    found = _HOST.search(url)
    return found[1].lower() if found else ""


def patience_of(sink: Sink | None, limits: Limits) -> float:
    """Return the seconds that a server may take until it begins to answer; without a sink for a small document."""
    urgent = sink is None or getattr(sink, "urgent", False)
    return min(limits.first_byte_s, limits.stall_s) if urgent else limits.stall_s


@lru_cache(64)  # asked several times for each package, of the few mirrors of a run
def is_network(url: str) -> bool:
    """Return True when reading `url` opens a socket."""
    return scheme_of(url) not in _LOCAL


def _file(limits: Limits, network: Network) -> Transport:  # noqa: ARG001 - the shape of all makers
    from .file import FileTransport

    return FileTransport(limits)


def _http(limits: Limits, network: Network) -> Transport:
    from .direct import DirectTransport

    return DirectTransport(limits, network)


def _bundle(limits: Limits, network: Network) -> Transport:  # noqa: ARG001 - the shape of all makers
    from .bundle import BundleTransport

    return BundleTransport()


def _oci(limits: Limits, network: Network) -> Transport:
    from .oci import OciTransport

    return OciTransport(limits, network)


def _s3(limits: Limits, network: Network) -> Transport:  # noqa: ARG001 - the shape of all makers
    from .s3 import S3Transport

    return S3Transport(limits)


#: One line for each scheme.
_SCHEMES: dict[str, Callable[[Limits, Network], Transport]] = {
    "file": _file,
    "http": _http,
    "https": _http,
    "bundle": _bundle,
    "oci": _oci,
    "oci+http": _oci,
    "s3": _s3,
}


class Transports:
    """The transports of one client, each made when first needed; close with `aclose`.

    Args:
        limits: time-outs and sizes.
        offline: refuse every scheme that needs a socket.
        network: certificates and credentials; None for what the environment says.
    """

    def __init__(self, limits: Limits, *, offline: bool = False, network: Network | None = None) -> None:
        self._limits = limits
        self._offline = offline
        self._network = network or Network()
        self._made: dict[Callable[[Limits, Network], Transport], Transport] = {}
        self.health: Health | None = None  # of the hosts; see `Session`

    def for_url(self, url: str) -> Transport:
        """Return the transport for `url`.

        Raises:
            OfflineError: offline, and `url` needs a socket.
            MirrorError: no transport knows the scheme.
        """
        scheme = scheme_of(url)
        make = _SCHEMES.get(scheme)
        if make is None:
            known = ", ".join(sorted(_SCHEMES))
            raise MirrorError(
                f"{redact(url)}: no transport for the scheme {scheme}://",
                hint=f"use a plain path or one of: {known}",
                context={"url": redact(url), "scheme": scheme},
            )
        if self._offline and is_network(url):
            raise OfflineError(
                f"{redact(url)} needs the network, and --offline was given",
                hint="run once without --offline, or name a mirror that is a directory",
                context={"url": redact(url)},
            )
        if make not in self._made:
            self._made[make] = make(self._limits, self._network)
        return self._made[make]

    async def aclose(self) -> None:
        """Close every transport that was made."""
        made = list(self._made.values())
        self._made.clear()
        for transport in made:
            await transport.aclose()


def transport_for(url: str, limits: Limits) -> Transport:
    """Return a new transport for one URL; `Transports` shares them."""
    return Transports(limits).for_url(url)
