"""Readers of mirror formats: pure generators that yield requests, are sent answers, and return a Reading.

A reader never opens a file or socket. `client` drives it: over plain file reads for local mirrors, over
transports for the others. Each format is one module with `read(location, known)`, and one line in FORMATS.
Formats and their sources: docs/formats.md.
"""

from __future__ import annotations

from ....values import frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from ....errors import CachefetchError
    from ...model import Record

    #: What a reader is: yields a Get, is sent the Answer, returns the Reading.
    Reader = Generator["Get", "Answer", "Reading"]

#: Largest document that a reader takes into memory, bytes. Indexes are spooled to disk instead.
METADATA_LIMIT = 16 << 20
PAGE_LIMIT = 256 << 20
#: Above any index that a cache holds today (1.1 million specs, 3 KB each), bytes.
INDEX_LIMIT = 8 << 30
SNIFF_SIZE = 4096
#: Names that tell what a document is, and schemes that tell what a location is.
CATALOGUE_FILE = "cache_spack_io_index.json"
PAGE_DATA_FILE = "specs_data.json"
BUNDLE_SCHEME = "bundle://"
OCI_SCHEMES = ("oci://", "oci+http://")
#: What every Spack index begins with, whatever the order of its keys (docs/formats.md, "The index").
DATABASE_MARK = b'"database"'


@frozen
class Get:
    """A request: the absolute `url` or path; `spool` asks for a file on disk in place of bytes in memory.

    With `sniff` the document is spooled only if these bytes stand in its first 4096 (SNIFF_SIZE); another document
    is answered in memory as far as METADATA_LIMIT goes, so that a reader can say what it is.
    """

    url: str
    etag: str | None = None
    limit: int = METADATA_LIMIT
    spool: bool = False
    sniff: bytes = b""


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
class Place:
    """A mirror that a catalogue names: a release (`ref`), the label of a stack in it, and the mirror's URL."""

    ref: str
    label: str
    url: str


@frozen
class Reading:
    """What a location turned out to be.

    `kind` names the format ("v3", "page", "index", ...) or is "" when nothing was recognised; `state` is a word
    of docs/formats.md "mirror states"; `records` is the content where it is small enough to be read at
    once (pages); `index_path`, `index_sha256` and `index_size` tell where a whole index lies otherwise.
    `unchanged` means: what the store has is still right. `index_sha256` is the digest that the index must have,
    `index_promised` one that stands beside it and may lag behind (v2). `places` are the mirrors that a catalogue
    names, `release` is the one that a page belongs to.
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
    index_promised: str = ""
    places: tuple[Place, ...] = ()
    release: str = ""


#: Reader modules by kind, one file each. A whole mirror is tried in this order; detect.py narrows it by the name.
FORMATS: tuple[str, ...] = ("v3", "v2", "oci", "bundle", "page", "pages", "bare", "lock", "spec", "catalogue")
#: Kinds that list binaries and hold none: another mirror delivers what they name.
LISTS: tuple[str, ...] = ("page", "pages", "lock", "spec")


def join(location: str, path: str) -> str:
    """Return `path` below the mirror at `location`, a URL or a directory.

    The query of a URL stays at its end: it is what a signed URL is signed with (and never printed).
    """
    head, mark, query = location.partition("?") if _has_query(location) else (location, "", "")
    return f"{head.rstrip('/')}/{path}{mark}{query}" if path else location


def name_of(location: str) -> str:
    """Return the last part of a location, without the query of a URL: what it is called."""
    return (location.partition("?")[0] if _has_query(location) else location).rpartition("/")[2]


def _has_query(location: str) -> bool:
    return "://" in location and not location.startswith(("file://", BUNDLE_SCHEME))


def skipped_text(what: str, reasons: Sequence[str]) -> str:
    """Return the detail of a mirror with parts that cannot be read, "" when there are none."""
    more = f": {reasons[0]}" if reasons else ""
    return f"{len(reasons)} unreadable {what} skipped{more}" if reasons else ""


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
