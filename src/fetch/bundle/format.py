"""The bundle format: which file stands where in which volume. Pure: names and sizes in, bytes and places out.

A volume is a tar archive of files of a mirror of layout 3, with two more members in front::

    cachefetch-bundle.json    header: digest of the list, number of this volume; clear-signed if a key was given
    cachefetch-files.json     list: every file of the bundle, its digest, and where it stands; the same in each volume
    v3/..., blobs/...         the files; index, keys and layout in every volume, each package in one

So each volume describes the whole bundle, and alone it is a mirror that lacks packages. The same content gives the
same bytes (but for the signature). docs/airgap.md, "The format of a bundle".
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from dataclasses import dataclass

from ...errors import FormatError, UsageError
from ...resolver.index.readers.manifest import blob_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Any

SCHEMA = "cachefetch/bundle/1"
SUFFIX = ".bundle"
HEADER_NAME = "cachefetch-bundle.json"
LIST_NAME = "cachefetch-files.json"
#: What every volume begins with.
MAGIC = HEADER_NAME.encode() + b"\0"
BLOCK = 512
#: Bytes. A header has about 300, signed about 1,200; the list about 130 a file.
MAX_HEADER_SIZE = 1 << 16
MAX_LIST_SIZE = 4 << 30
_END = 2 * BLOCK
#: A file is divided only when it is larger than a volume, and no part but its last is smaller than this.
_SMALLEST_PART = 1 << 16
#: Room that is kept for the header with a signature, its tar header included.
_HEADER_ROOM = 8 * BLOCK
_BLOBS = "blobs/sha256/"


@dataclass(frozen=True, slots=True)
class File:
    """A file to pack: `path` below the mirror, bytes, sha256.

    `package` is the path of the manifest that it belongs to, where its place in the list does not tell: of a package
    that no volume can hold.
    """

    path: str
    size: int
    sha256: str
    package: str = ""


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes of a file in a volume: `volume` from 1, or 0 for all of them; `offset` from the start of the data."""

    volume: int
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of a bundle, in one piece, or in several that follow each other."""

    file: File
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class Contents:
    """What a bundle holds: entries in the order of the volumes, bytes of data of each volume, the baseline.

    `since` is the id of the bundle whose receipt was the baseline, or "".
    """

    entries: tuple[Entry, ...]
    data_sizes: tuple[int, ...]
    since: str = ""

    @property
    def volumes(self) -> int:
        """Number of volumes."""
        return len(self.data_sizes)

    def of_volume(self, volume: int) -> Iterator[tuple[Entry, int, Piece]]:
        """Yield what stands in a volume, in order: the entry, where the piece starts in the file, the piece."""
        for entry in self.entries:
            start = 0
            for piece in entry.pieces:
                if piece.volume in (0, volume):
                    yield entry, start, piece
                start += piece.length


@dataclass(frozen=True, slots=True)
class Header:
    """The header of a volume: `id` is the sha256 of the list, `list_size` its bytes."""

    id: str
    list_size: int
    volume: int
    volumes: int


def member_header(name: str, size: int) -> bytes:
    """Return the tar header of a file: whole blocks, without times, owners and modes that differ."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")


def padding(size: int) -> int:
    """Return how many zero bytes follow a member of `size` bytes."""
    return -size % BLOCK


def piece_name(entry: Entry, start: int) -> str:
    """Return the name of a member: the path, or for one piece of several a name that tells where it belongs."""
    path = entry.file.path
    return path if len(entry.pieces) == 1 else f"{path}.part-{start:020d}"


def lay_out(
    common: Sequence[File], packages: Iterable[Sequence[File]], *, volume_size: int | None, since: str = ""
) -> Contents:
    """Return the contents of a bundle.

    Args:
        common: files that every volume gets.
        packages: the files of each package, which stay together where a volume can hold them.
        volume_size: most bytes of a volume; None for one volume of any size.
        since: id of the bundle that this one continues.

    Raises:
        UsageError: a volume of this size cannot hold even the list and the common files.
    """
    common, groups = list(common), [tuple(group) for group in packages]
    capacity = _capacity(common, groups, volume_size)
    if capacity is not None:
        common, groups = _without_oversized(common, groups, capacity)
        capacity = _capacity(common, groups, volume_size)
    layout = _Layout(common, capacity)
    for group in groups:
        layout.add(group)
    return Contents(tuple(layout.entries), (*layout.full, layout.used), since)


def _without_oversized(
    common: list[File], groups: list[tuple[File, ...]], capacity: int
) -> tuple[list[File], list[tuple[File, ...]]]:
    """Move the small files of each package that no volume can hold into every volume.

    Its largest file alone is then divided, and any volume that comes last completes the package.
    """
    start = sum(_member_size(file) for file in common)
    kept: list[tuple[File, ...]] = []
    for group in sorted(groups, key=lambda one: sum(map(_member_size, one))):
        if sum(map(_member_size, group)) <= capacity - start - _HEADER_ROOM:
            kept.append(group)
            continue
        manifest, largest = group[-1].path, max(group, key=lambda file: file.size)
        marked = [File(file.path, file.size, file.sha256, manifest) for file in group]
        small = [file for file in marked if file.path != largest.path]
        common = [*common, *small]
        start += sum(map(_member_size, small))
        kept.append(tuple(file for file in marked if file.path == largest.path))
    order = {group[-1].path: number for number, group in enumerate(groups)}
    return common, sorted(kept, key=lambda one: order[one[-1].package or one[-1].path])


def _capacity(
    common: Sequence[File], groups: Sequence[Sequence[File]], volume_size: int | None
) -> int | None:
    if volume_size is None:
        return None
    files = [*common, *(file for group in groups for file in group)]
    largest = sum(len(file.path) + len(file.package) + 64 + 3 * 24 + 20 for file in files) + BLOCK
    pieces = sum(file.size // _SMALLEST_PART + 1 for file in files if file.size > volume_size // 2) * 3 * 24
    # The list is not yet written: this is at least its size.
    room = volume_size - _HEADER_ROOM - 2 * BLOCK - largest - pieces - _END
    needed = sum(_member_size(file) for file in common)
    if room - needed < 2 * _SMALLEST_PART:
        least = volume_size - room + needed + 2 * _SMALLEST_PART
        raise UsageError(
            f"a volume of {volume_size} bytes is too small: index and list alone need {least} bytes in each",
            hint="give a larger --volume-size",
        )
    return room


def _member_size(file: File) -> int:
    return len(member_header(file.path, file.size)) + file.size + padding(file.size)


class _Layout:
    """Places files one after the other and opens a new volume when one is full."""

    def __init__(self, common: Sequence[File], capacity: int | None) -> None:
        self.capacity = capacity
        self.entries: list[Entry] = []
        self.full: list[int] = []
        self.used = 0
        for file in common:
            offset = self.used + len(member_header(file.path, file.size))
            self.entries.append(Entry(file, (Piece(0, offset, file.size),)))
            self.used += _member_size(file)
        self.start = self.used

    @property
    def volume(self) -> int:
        return len(self.full) + 1

    def next_volume(self) -> None:
        self.full.append(self.used)
        self.used = self.start

    def add(self, group: Sequence[File]) -> None:
        need = sum(_member_size(file) for file in group)
        if self.capacity is not None and self.capacity - self.used < need <= self.capacity - self.start:
            self.next_volume()
        for file in group:
            self.place(file)

    def place(self, file: File) -> None:
        need = _member_size(file)
        if self.capacity is None or need <= self.capacity - self.used:
            self.whole(file, need)
        elif need <= self.capacity - self.start:
            self.next_volume()
            self.whole(file, need)
        else:
            self.divided(file, self.capacity)

    def whole(self, file: File, need: int) -> None:
        offset = self.used + len(member_header(file.path, file.size))
        self.entries.append(Entry(file, (Piece(self.volume, offset, file.size),)))
        self.used += need

    def divided(self, file: File, capacity: int) -> None:
        pieces: list[Piece] = []
        done = 0
        while done < file.size:
            name = f"{file.path}.part-{done:020d}"
            room = (capacity - self.used - len(member_header(name, file.size))) // BLOCK * BLOCK
            length = min(room, file.size - done)
            if length < min(_SMALLEST_PART, file.size - done):
                self.next_volume()
                continue
            header = len(member_header(name, length))
            pieces.append(Piece(self.volume, self.used + header, length))
            self.used += header + length + padding(length)
            done += length
        self.entries.append(Entry(file, tuple(pieces)))


# --- texts ----------------------------------------------------------------------------------------------------------


def list_text(contents: Contents) -> bytes:
    """Return the list of a bundle; the digest of a blob is in its path and not repeated."""
    files = [
        [
            entry.file.path,
            entry.file.size,
            "" if entry.file.path.startswith(_BLOBS) else entry.file.sha256,
            [[piece.volume, piece.offset, piece.length] for piece in entry.pieces],
            *([entry.file.package] if entry.file.package else []),
        ]
        for entry in contents.entries
    ]
    document = {"schema": SCHEMA, "since": contents.since, "data": list(contents.data_sizes), "files": files}
    return json.dumps(document, separators=(",", ":")).encode()


def read_list(data: bytes, header: Header, *, what: str) -> Contents:
    """Return the contents that a list describes.

    Raises:
        FormatError: not the list that the header names, or one that cannot be meant.
    """
    if len(data) != header.list_size or hashlib.sha256(data).hexdigest() != header.id:
        raise _damaged(what, "its list of files does not have the digest that its header says")
    try:
        document = _object(data, "schema", "since", "data", "files")
        if document["schema"] != SCHEMA:
            raise ValueError(f"it is of the format {_shown(document['schema'])}")
        sizes = tuple(map(_number, _items(document["data"], '"data"')))
        entries = tuple(_entry(raw, len(sizes)) for raw in _items(document["files"], '"files"'))
        since = document["since"]
        if since != "":
            _require_digest(since)
    except ValueError as error:
        raise _damaged(what, f"its list of files cannot be read: {error}") from None
    if len(sizes) != header.volumes:
        raise _damaged(what, "its list and its header tell different numbers of volumes")
    return Contents(entries, sizes, since)


def _entry(raw: Any, volumes: int) -> Entry:
    if not isinstance(raw, list) or len(raw) < 4:
        raise ValueError(f"{_shown(raw)} is no entry of path, size, digest and places")
    path, size, sha256, places, *package = raw
    if (
        not isinstance(path, str)
        or path.startswith("/")
        or {"..", "."} & set(path.split("/"))
        or "\\" in path
    ):
        raise ValueError(f"{_shown(path)} is not a path below a mirror")
    if not path.isprintable():
        raise ValueError(f"{_shown(path)} holds what no path of a mirror does")
    if path.startswith(_BLOBS):
        sha256 = path.rpartition("/")[2]
        _require_digest(sha256)
        if blob_path(sha256) != path:
            raise ValueError(f"{_shown(path)} is not the path of a blob")
    elif not path.startswith("v3/"):
        raise ValueError(f"{_shown(path)} is not a file of a mirror of layout 3")
    _require_digest(sha256)
    pieces = tuple(_piece(path, place) for place in _items(places, f"what tells the places of {path}"))
    if sum(piece.length for piece in pieces) != _number(size) or not pieces:
        raise ValueError(f"the pieces of {path} are not all of it")
    if any(piece.volume > volumes for piece in pieces):
        raise ValueError(f"{path} is in a volume that does not exist")
    if len(package) > 1 or not all(isinstance(one, str) for one in package):
        raise ValueError(f"{path} has more fields than it can have, or one of another type")
    return Entry(File(path, size, sha256, *package), pieces)


def _piece(path: str, place: Any) -> Piece:
    if not isinstance(place, list) or len(place) != 3:
        raise ValueError(f"{_shown(place)} is no place of {path}: volume, offset and length")
    return Piece(*map(_number, place))


def _object(data: bytes, *names: str) -> dict[str, Any]:
    """Return a JSON object that has members of these names. Raises ValueError, whose text says what is wrong."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        raise ValueError("it is not JSON") from None
    if not isinstance(document, dict):
        raise ValueError("it is no JSON object")
    if lacking := [name for name in names if name not in document]:
        raise ValueError(f'it has no "{lacking[0]}"')
    return document


def _items(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{what} is no list")
    return value


def _shown(value: Any) -> str:
    """Return a value as it stands in the document, not too long."""
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _require_digest(value: Any) -> None:
    if not isinstance(value, str):
        raise ValueError(f"{_shown(value)} is no sha256")
    try:
        blob_path(value)
    except FormatError as error:
        raise ValueError(error.message) from None


def _number(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 62:
        raise ValueError(f"{_shown(value)} is not a size")
    return value


def header_text(header: Header) -> bytes:
    """Return the header of a volume, before it is signed: lines, so that a signature can stand around it."""
    document = {
        "schema": SCHEMA,
        "id": header.id,
        "list_size": header.list_size,
        "volume": header.volume,
        "volumes": header.volumes,
    }
    return json.dumps(document, indent=0, separators=(",", ":")).encode() + b"\n"


def read_header(text: bytes, *, what: str) -> Header:
    """Return the header of a volume from its text without signature. Raises FormatError."""
    try:
        document = _object(text, "schema")
        if document["schema"] != SCHEMA:
            raise FormatError(
                f"{what} is a bundle of the format {_shown(document['schema'])}; this cachefetch reads {SCHEMA}",
                hint="update cachefetch",
                context={"file": what},
            )
        document = _object(text, "id", "list_size", "volume", "volumes")
        id_ = document["id"]
        _require_digest(id_)
        size, volume, volumes = (_number(document[key]) for key in ("list_size", "volume", "volumes"))
    except ValueError as error:
        raise _damaged(what, f"its header cannot be read: {error}") from None
    if not 1 <= volume <= volumes or size > MAX_LIST_SIZE:
        raise _damaged(what, "its header tells an impossible number of volumes, or size of the list")
    return Header(id_, size, volume, volumes)


def read_member_header(block: bytes, name: str, *, what: str) -> int:
    """Return the size of the member `name` from its tar header of one block. Raises FormatError."""
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
    except (tarfile.HeaderError, UnicodeError):
        info = None
    if info is None or info.name != name:
        raise FormatError(
            f"{what} is not a volume of a bundle",
            hint="a bundle is what `cachefetch bundle export` writes",
            context={"file": what},
        )
    return info.size


def volume_bytes(contents: Contents, volume: int, data_start: int) -> int:
    """Return the size of the file of a volume whose data starts at `data_start`."""
    return data_start + contents.data_sizes[volume - 1] + _END


def volume_names(name: str, volumes: int) -> list[str]:
    """Return the file names of the volumes of the bundle file `name`."""
    if volumes == 1:
        return [name]
    stem = name.removesuffix(SUFFIX)
    digits = max(3, len(str(volumes)))
    return [f"{stem}.{number:0{digits}d}{SUFFIX}" for number in range(1, volumes + 1)]


def parse_size(text: str) -> int:
    """Return the bytes that ``25G`` or ``4GiB`` means: K, M, G, T are powers of 1000, KiB, MiB, ... of 1024.

    Raises:
        UsageError: something else.
    """
    upper = text.strip().upper()
    number = upper.rstrip("KMGTIB")
    unit = upper[len(number) :]
    powers = {"": 0, "B": 0, "K": 1, "M": 2, "G": 3, "T": 4}
    base = 1024 if unit.endswith("IB") else 1000
    power = powers.get(unit.removesuffix("IB") if base == 1024 else unit.removesuffix("B") or unit)
    try:
        if power is None:
            raise ValueError(unit)
        value = float(number) * base**power
        if not 1 <= value < 1 << 62:
            raise ValueError(text)
    except ValueError:
        raise UsageError(f"{text!r} is not a size", hint="for example 25G, 4GiB or 700M") from None
    return int(value)


def _damaged(what: str, problem: str) -> FormatError:
    return FormatError(
        f"{what} is damaged: {problem}",
        hint="copy the volume again; `cachefetch bundle verify` checks all of it",
        context={"file": what},
    )
