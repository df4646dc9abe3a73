"""A strict reader of tar archives (ustar, pax, GNU long names): bytes in, members out. Writes nothing.

Python's own reader stops silently at a damaged header and takes headers of any size into memory. This one refuses
what two readers could understand differently, and everything that Spack's writer never makes (docs/security.md).
"""

from __future__ import annotations

import os

from ...errors import ArchiveError
from ...values import frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BLOCK = 512
FILE, HARD_LINK, SYMLINK, DIRECTORY = "file", "hard link", "symlink", "directory"
_KINDS = {b"0": FILE, b"\0": FILE, b"1": HARD_LINK, b"2": SYMLINK, b"5": DIRECTORY}
_SPECIAL = {b"3": "character device", b"4": "block device", b"6": "FIFO"}
_PAX, _PAX_GLOBAL, _LONG_NAME, _LONG_LINK = b"x", b"g", b"L", b"K"
_EXTRA = {_PAX: "pax", _PAX_GLOBAL: "pax", _LONG_NAME: "path", _LONG_LINK: "linkpath"}
_USTAR = (b"ustar\x0000", b"ustar  \x00")  # POSIX, GNU
#: Bytes. An extension header holds one name or a few short records.
MAX_EXTENSION = 1 << 20
#: Characters of a name or link target: what a Linux system call takes.
MAX_PATH = 4000
_MAX_MTIME = 1 << 34  # seconds, the year 2514
_ZEROS = bytes(BLOCK)


@frozen
class Member:
    """One entry. `name` is as written, `size` bytes follow (files only), `mtime` is in nanoseconds."""

    name: str
    kind: str
    mode: int
    size: int
    mtime: int
    target: str


def members(read: Callable[[int], bytes]) -> Iterator[Member]:
    """Yield the members; after a file the caller must have read its `size` bytes and the padding.

    Args:
        read: returns exactly so many bytes, or raises ArchiveError when the archive ends before.

    Raises:
        ArchiveError: damaged, or of a kind that no Spack package has; ``context["reason"]`` says which.
    """
    extra: dict[str, bytes] = {}
    while True:
        block = read(BLOCK)
        if block == _ZEROS:
            if extra:
                raise ArchiveError("damaged", "ends after an extension header")
            return
        kind = _checked(block)
        if kind in _EXTRA:
            _extend(extra, kind, _number(block[124:136], "size"), read)
            continue
        yield _member(block, kind, extra)
        extra = {}


def padding(size: int) -> int:
    """Return how many bytes fill the last block of `size` bytes."""
    return -size % BLOCK


def _checked(block: bytes) -> bytes:
    """Return the type of a header block whose check sum is right."""
    if sum(block) - sum(block[148:156]) + 8 * 0x20 != _number(block[148:156], "check sum"):
        raise ArchiveError("damaged", "has a header with a wrong check sum")
    if block[257:265] not in _USTAR:
        raise ArchiveError("unsupported", "has a header that is neither ustar, pax nor GNU tar")
    return block[156:157]


def _extend(extra: dict[str, bytes], kind: bytes, size: int, read: Callable[[int], bytes]) -> None:
    """Read an extension header into `extra`: what it says about the next member."""
    if size > MAX_EXTENSION:
        raise ArchiveError("limit", f"has an extension header of {size} bytes")
    body = read(size + padding(size))[:size]
    if kind in (_LONG_NAME, _LONG_LINK):
        found = {_EXTRA[kind]: body.rstrip(b"\0")}
    else:
        found = _records(body)
        if kind == _PAX_GLOBAL:
            if found.keys() & {"path", "linkpath", "size"}:
                raise ArchiveError("unsupported", "gives one name or size to all its members")
            return
    if found.keys() & extra.keys():
        raise ArchiveError("duplicate", "has two extension headers for one member")
    extra.update(found)


def _records(body: bytes) -> dict[str, bytes]:
    """Parse pax records: ``LENGTH KEY=VALUE\\n``, the length of the whole record in decimal."""
    found: dict[str, bytes] = {}
    at = 0
    while at < len(body):
        space = body.find(b" ", at, at + 12)
        digits = body[at:space] if space > 0 else b""
        end = at + int(digits) if digits.isdigit() else at
        key, equals, value = body[space + 1 : end - 1].partition(b"=")
        if end <= space + 1 or end > len(body) or body[end - 1 : end] != b"\n" or not equals:
            raise ArchiveError("damaged", "has a damaged pax header")
        name = key.decode("utf-8", "replace")
        if name.startswith("GNU.sparse"):
            raise ArchiveError("unsupported", "has a sparse file")
        if name in found:
            raise ArchiveError("duplicate", "has a pax record twice for one member")
        found[name] = value
        at = end
    return found


def _member(block: bytes, code: bytes, extra: dict[str, bytes]) -> Member:
    raw = extra.get("path")
    if raw is None:
        raw = block[:100].split(b"\0", 1)[0]
        prefix = block[345:500].split(b"\0", 1)[0] if block[257:265] == _USTAR[0] else b""
        raw = prefix + b"/" + raw if prefix else raw
    target = extra.get("linkpath", block[157:257].split(b"\0", 1)[0])
    name = os.fsdecode(raw)
    if b"\0" in raw or b"\0" in target or len(raw) > MAX_PATH or len(target) > MAX_PATH:
        raise ArchiveError("bad-name", "has a name with a zero byte or beyond the length of a path", name)
    if code in _SPECIAL:
        raise ArchiveError("special-file", f"has a {_SPECIAL[code]}", name)
    if code not in _KINDS:
        raise ArchiveError("unsupported", f"has a member of the unknown type {code!r}", name)
    kind = _KINDS[code]
    size = _decimal(extra["size"], name) if "size" in extra else _number(block[124:136], "size")
    if kind != FILE and size:
        raise ArchiveError("unsupported", f"has a {kind} with content", name)
    mode = _number(block[100:108], "mode")
    return Member(name, kind, mode, size, _mtime(block, extra, name), os.fsdecode(target))


def _number(field: bytes, what: str) -> int:
    """Read a number field: octal digits, or binary behind a first byte of 0x80 (GNU)."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.rstrip(b" \0").lstrip(b" ")
    if digits.strip(b"01234567"):
        raise ArchiveError("damaged", f"has a header with a damaged {what}")
    return int(digits or b"0", 8)


def _decimal(value: bytes, name: str) -> int:
    if not value.isdigit() or len(value) > 20:
        raise ArchiveError("damaged", "has a damaged size", name)
    return int(value)


def _mtime(block: bytes, extra: dict[str, bytes], name: str) -> int:
    """Return the time of change in nanoseconds."""
    if "mtime" not in extra:
        seconds, fraction = _number(block[136:148], "time"), b""
    else:
        whole, _, fraction = extra["mtime"].partition(b".")
        if not whole.isdigit() or fraction.strip(b"0123456789"):
            raise ArchiveError("damaged", "has a damaged time", name)
        seconds = int(whole[:20])
    if seconds > _MAX_MTIME:
        raise ArchiveError("damaged", "has a time beyond the year 2500", name)
    return seconds * 1_000_000_000 + int(fraction[:9].ljust(9, b"0"))
