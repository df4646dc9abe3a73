"""Readers of mirror formats: pure generators that yield requests, are sent answers, and return a Reading.

A reader never opens a file or socket. `client` drives it: over plain file reads for local mirrors, over
transports for the others. Each format is one module with `read(location, known)`, and one line in FORMATS.
Formats and their sources: docs/formats.md.
"""

from __future__ import annotations

from ....values import frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator

    from ....errors import CachefetchError
    from ...model import Record

    #: What a reader is: yields a Get, is sent the Answer, returns the Reading.
    Reader = Generator["Get", "Answer", "Reading"]

#: Largest document that a reader takes into memory, bytes. Indexes are spooled to disk instead.
METADATA_LIMIT = 16 << 20
PAGE_LIMIT = 256 << 20


@frozen
class Get:
    """A request: the absolute `url` or path; `spool` asks for a file on disk in place of bytes in memory."""

    url: str
    etag: str | None = None
    limit: int = METADATA_LIMIT
    spool: bool = False


@frozen
class Answer:
    """The driver's answer.

    `status` is 200, 304, or 0 where `error` says why there is nothing. A local directory answers 200 with
    `names`, its entries. `path` is the file of a spooled body; `local` when that file belongs to the mirror
    itself and must be left where it is.
    """

    status: int
    body: bytes = b""
    path: str | None = None
    local: bool = False
    etag: str | None = None
    names: tuple[str, ...] | None = None
    error: CachefetchError | None = None


@frozen
class Known:
    """What the local store already has of a mirror's index: its sha256 and the ETag it came with."""

    sha256: str
    etag: str | None = None


@frozen
class Reading:
    """What a location turned out to be.

    `kind` names the format ("v3", "page", "index", ...) or is "" when nothing was recognised; `state` is a word
    of docs/formats.md "mirror states"; `records` is the content where it is small enough to be read at
    once (pages); `index_path`, `index_sha256` and `index_size` tell where a whole index lies otherwise.
    `unchanged` means: what the store has is still right.
    """

    kind: str
    state: str
    detail: str = ""
    records: tuple[Record, ...] = ()
    broken: int = 0
    index_path: str | None = None
    index_local: bool = False
    index_sha256: str | None = None
    index_size: int | None = None
    etag: str | None = None
    unchanged: bool = False


#: Reader modules by kind, in the order in which a location is tried. The value is the module's name here.
FORMATS: tuple[str, ...] = ("v3", "page", "bare", "pages")


def join(location: str, path: str) -> str:
    """Return `path` below the mirror at `location` (a URL or a directory); slashes are normalised."""
    return f"{location.rstrip('/')}/{path}" if path else location


def failed(kind: str, error: CachefetchError) -> Reading:
    """Return the Reading for a location that could not be read, with the state that fits the error."""
    from .... import errors

    if isinstance(error, errors.AccessError):
        word = "forbidden" if error.context.get("status") == 403 else "unauthorized"
        if error.context.get("status") not in (401, 403):
            word = "forbidden"
    elif isinstance(error, errors.IntegrityError):
        word = "corrupt"
    else:
        word = "unreachable"
    return Reading(kind, word, error.message)
