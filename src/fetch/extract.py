"""Unpack a package: safe, and byte for byte and mode for mode what GNU tar makes of it, with the prefix stripped.

Everything is written below a new private directory beside the destination. Its package directory gets the final name
when the whole archive was read, its digest is right and every member was good; otherwise nothing stays.
Where the prefix is: docs/formats.md, from Spack 1.1. What is refused, and why: docs/security.md.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import queue
import re
import shutil
import stat
import tempfile
import threading
import zlib
from dataclasses import dataclass

from ..errors import ArchiveError, DigestError, StoreError, TruncatedError, UsageError
from .store.files import store_errors
from .tar import DIRECTORY, FILE, HARD_LINK, Member, members, padding

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO, Any, Protocol

    from .model import Caveat, Item

    class _Decompressor(Protocol):
        @property
        def eof(self) -> bool: ...
        @property
        def unused_data(self) -> bytes: ...
        @property
        def needs_input(self) -> bool: ...
        def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


BUILDINFO = ".spack/binary_distribution"
#: Of a directory that an archive uses without listing it, as GNU tar makes it.
_IMPLIED_MODE = 0o755
_CHUNK = 1 << 20
_READ = 512 << 10
#: Pieces of at most _CHUNK bytes that are expanded ahead of what is written.
_AHEAD = 8
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_BUILDPATH = re.compile(rb"""(?:^|[{,\s])buildpath:\s*(['"]?)(/[^,}'"\n]+?)\1\s*[,}\n]""")
_RELATIVE_PREFIX = re.compile(
    rb"""(?:^|[{,\s])relative_prefix:\s*(['"]?)([^/,}'"\n][^,}'"\n]*?)\1\s*[,}\n]"""
)


@dataclass(frozen=True, slots=True)
class ExtractLimits:
    """What no real package reaches; the unit ends the name (``_bytes`` bytes), the others are counts.

    Attributes:
        ratio: expanded size over stored size. Metadata of real packages shrinks 70-fold, zeros 1000-fold.
        free_bytes: the ratio counts only beyond so many expanded bytes.
        members: entries of one archive.
        buildinfo_bytes: size of ``.spack/binary_distribution``.
    """

    ratio: int = 200
    free_bytes: int = 64 << 20
    members: int = 5_000_000
    buildinfo_bytes: int = 64 << 20


@dataclass(frozen=True, slots=True)
class Contents:
    """What was unpacked.

    Attributes:
        files, directories, symlinks, hard_links: how many of each, inside the prefix (without itself).
        size: bytes of all files together.
        prefix: where the package was built and still believes to be, an absolute path.
        root: install root of the build; every prefix of the build lies below it.
        holding: files that hold `root`, and symlinks that point below it.
    """

    files: int
    directories: int
    symlinks: int
    hard_links: int
    size: int
    prefix: str
    root: str
    holding: int


@dataclass(frozen=True, slots=True)
class Extraction:
    """A package that was fetched, verified and unpacked into the directory `path`."""

    path: str
    item: Item
    contents: Contents
    network_bytes: int
    warnings: tuple[Caveat, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the ``cachefetch/extract/1`` document (docs/cli.md)."""
        contents = self.contents
        return {
            "schema": "cachefetch/extract/1",
            "status": "ok",
            "network_bytes": self.network_bytes,
            **self.item.to_dict(),
            "path": self.path,
            "files": contents.files,
            "directories": contents.directories,
            "symlinks": contents.symlinks,
            "hard_links": contents.hard_links,
            "bytes": contents.size,
            "relocated": False,
            "build_prefix": contents.prefix,
            "build_root": contents.root,
            "holding_build_root": contents.holding,
            "warnings": [warning.to_dict() for warning in self.warnings],
        }


def extract_tarball(
    tarball: str,
    destination: str,
    *,
    sha256: str,
    size: int,
    limits: ExtractLimits | None = None,
    portable: bool = False,
) -> Contents:
    """Unpack a package tarball into the new directory `destination`.

    Args:
        tarball: path of the ``.spack`` file; gzip, bzip2, xz or plain tar.
        destination: must not exist, or be an empty directory.
        sha256, size: what the verified manifest promises; checked on the bytes that are unpacked.
        limits: None for the defaults.
        portable: also refuse names that differ only in case or Unicode form. Always so where the file system
            of `destination` does not tell them apart.

    Raises:
        UsageError: `destination` exists.
        ArchiveError: an unsafe or damaged archive; ``context["reason"]``, ``context["member"]``.
        TruncatedError, DigestError: other bytes than promised.
        StoreError: no space, no permission.
    """
    target = require_absent(destination)
    parent = os.path.dirname(target)
    with store_errors(parent):
        os.makedirs(parent, exist_ok=True)
        staging = tempfile.mkdtemp(prefix=".cachefetch-extract-", dir=parent)
    try:
        with open(tarball, "rb") as file:
            tree = _Tree(staging, portable=portable or _folds_case(staging))
            try:
                with _Expanded(file, limits or ExtractLimits(), size) as source:
                    contents = _unpack(source, tree)
                    source.finish(sha256)
                _move(tree, target)
            finally:
                tree.close()
        return contents
    except ArchiveError as error:
        error.name_file(tarball)
        raise
    except OSError as error:
        with store_errors(target):
            raise error
        raise AssertionError("store_errors raises") from error
    finally:
        _remove(staging)


def require_absent(destination: str) -> str:
    """Return the absolute path of a directory to make. Raises UsageError when it exists and is not empty."""
    target = os.path.abspath(destination)
    try:
        empty = not os.listdir(target)
    except FileNotFoundError:
        empty = not os.path.lexists(target)
    except OSError:
        empty = False
    if not empty:
        raise UsageError(
            f"{target} exists",
            hint="a package is unpacked into a new directory: name one that does not exist, or an empty one",
            context={"path": target},
        )
    return target


def _unpack(source: _Expanded, tree: _Tree) -> Contents:
    for count, member in enumerate(members(source.read), 1):
        if count > source.limits.members:
            raise ArchiveError("limit", f"has more than {source.limits.members} members", member.name)
        if member.kind == FILE:
            source.announce(member.size)
            tree.add_file(member, source.pieces(member.size))
            source.read(padding(member.size))
        else:
            tree.add(member)
    return tree.finish(source.limits)


@dataclass(frozen=True, slots=True)
class _Piece:
    """A part of the expanded archive: bytes `start` to `end` of `data`. Not a copy: it can be searched as it is."""

    data: bytes
    start: int
    end: int

    def view(self) -> memoryview:
        return memoryview(self.data)[self.start : self.end]


class _Expanded:
    """The bytes of an archive, expanded within limits by a thread of its own, hashed as they are stored.

    Reading, hashing and expanding take as long as writing the files, so they go on beside it. The queue between them
    is short: memory stays bounded whatever the archive holds. Use as a context manager, which ends the thread.
    """

    def __init__(self, file: IO[bytes], limits: ExtractLimits, size: int) -> None:
        self.limits = limits
        self._file = file
        self._size = size
        self._hash = hashlib.sha256()
        self._stored = 0
        self._most = max(limits.free_bytes, limits.ratio * size)
        self._data, self._at = b"", 0
        self._queue: queue.Queue[bytes | BaseException | None] = queue.Queue(_AHEAD)
        self._ended = False
        self._stopped = threading.Event()
        self._behind = False  # True when something follows the compressed stream
        self._thread = threading.Thread(target=self._work, name="cachefetch-expand", daemon=True)

    def __enter__(self) -> _Expanded:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stopped.set()
        while self._thread.is_alive():
            with contextlib.suppress(queue.Empty):
                self._queue.get(timeout=0.02)  # who waits for room sees that it is to stop
        self._thread.join()

    def announce(self, size: int) -> None:
        """Refuse a member of `size` bytes before the first of them is written, if it cannot be within limits."""
        if size > self._most:
            raise self._bomb()

    def pieces(self, size: int) -> Iterator[_Piece]:
        """Yield exactly `size` bytes, in large pieces."""
        while size:
            if self._at == len(self._data) and not self._fill():
                raise ArchiveError("truncated", "ends in the middle of a member")
            end = min(self._at + size, len(self._data))
            piece = _Piece(self._data, self._at, end)
            size -= end - self._at
            self._at = end
            yield piece

    def read(self, size: int) -> bytes:
        """Return exactly `size` bytes."""
        end = self._at + size
        if end <= len(self._data):
            piece = self._data[self._at : end]
            self._at = end
            return piece
        return b"".join(piece.view() for piece in self.pieces(size))

    def finish(self, sha256: str) -> None:
        """Require that nothing but zeros follows, and that the stored bytes are the promised ones."""
        while self._at < len(self._data) or self._fill():
            if self._data[self._at :].strip(b"\0"):
                raise ArchiveError("trailing-data", "has data behind its end")
            self._at = len(self._data)
        if self._behind:
            raise ArchiveError("trailing-data", "has data behind its compressed stream")
        if self._stored != self._size:
            raise TruncatedError(f"{self._file.name} has {self._stored} bytes, not the promised {self._size}")
        if self._hash.hexdigest() != sha256:
            raise DigestError(
                f"{self._file.name} has sha256 {self._hash.hexdigest()}, its manifest promises {sha256}",
                hint="it changed in the store: run the command again",
                context={"expected": sha256, "found": self._hash.hexdigest()},
            )

    def _fill(self) -> bool:
        """Take the next expanded piece; False at the end."""
        found = None if self._ended else self._queue.get()
        if isinstance(found, BaseException):
            self._ended = True
            raise found
        self._ended = found is None
        self._data, self._at = found or b"", 0
        return found is not None

    # --- in the thread --------------------------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            for piece in self._expand():
                self._put(piece)
            self._put(None)
        except _Stopped:
            pass
        except BaseException as error:  # noqa: BLE001 -- raised again by whoever reads
            with contextlib.suppress(_Stopped):
                self._put(error)

    def _put(self, item: bytes | BaseException | None) -> None:
        while not self._stopped.is_set():
            try:
                self._queue.put(item, timeout=1)
            except queue.Full:
                continue
            return
        raise _Stopped

    def _expand(self) -> Iterator[bytes]:
        pending = self._raw()
        reader = _decompressor(pending)
        expanded = 0
        while not reader.eof:
            if reader.needs_input and not pending:
                pending = self._raw()
                if not pending and isinstance(reader, _Plain):
                    return
                if not pending:
                    raise ArchiveError("truncated", "ends in the middle of its compressed stream")
            data, pending = pending, b""
            try:
                piece = reader.decompress(data, _CHUNK)
            except Exception as error:
                # Each library has errors of its own (zlib.error, OSError, LZMAError, isal's); all mean the same.
                raise ArchiveError("damaged", f"is damaged compressed data ({str(error)[:80]})") from error
            expanded += len(piece)
            if expanded > self._most:
                raise self._bomb()
            if piece:
                yield piece
        self._behind = bool(pending or reader.unused_data or self._raw())

    def _raw(self) -> bytes:
        data = self._file.read(_READ)
        self._hash.update(data)
        self._stored += len(data)
        return data

    def _bomb(self) -> ArchiveError:
        return ArchiveError(
            "bomb", f"expands beyond {self._most} bytes, {self.limits.ratio} times what is stored"
        )


class _Stopped(Exception):
    """Nobody wants the rest of the archive."""


class _Gunzip:
    """zlib's decompressor with the interface of bz2's and lzma's."""

    def __init__(self) -> None:
        self._reader = _zlib().decompressobj(wbits=31)
        self._tail = b""
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return bool(self._reader.eof)

    @property
    def unused_data(self) -> bytes:
        return bytes(self._reader.unused_data)

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        piece: bytes = self._reader.decompress(self._tail + data if self._tail else data, max_length)
        self._tail = self._reader.unconsumed_tail
        self.needs_input = not self._tail and len(piece) < max_length
        return piece


class _Plain:
    """A tar that is not compressed."""

    eof = False
    unused_data = b""
    needs_input = True

    def decompress(self, data: bytes, max_length: int, /) -> bytes:  # noqa: ARG002 -- the interface of the others
        return data


def _zlib() -> Any:
    """Return isal's zlib where it is installed (3.9 times as fast), Python's else."""
    from importlib import import_module

    try:
        return import_module("isal.isal_zlib")
    except ImportError:
        return zlib


def _decompressor(start: bytes) -> _Decompressor:
    """Choose by the first bytes: the manifest's word is not trusted (Spack 1.1, docs/formats.md)."""
    if start.startswith(b"\x1f\x8b"):
        return _Gunzip()
    if start.startswith(b"BZh"):
        import bz2

        return bz2.BZ2Decompressor()
    if start.startswith(b"\xfd7zXZ\0"):
        import lzma

        return lzma.LZMADecompressor(memlimit=256 << 20)
    return _Plain()


class _Tree:
    """The private directory that is filled. No name in it is ever followed: each was made here, by this archive."""

    def __init__(self, root: str, *, portable: bool) -> None:
        self.root = root
        self.prefix = ""
        self._descriptor = os.open(root, _OPEN_DIRECTORY)
        self._kinds: dict[str, str] = {"": DIRECTORY}
        self._folded: dict[str, str] | None = {} if portable else None
        self._directories: dict[str, tuple[int, int]] = {}  # mode, time in nanoseconds
        self._implied: list[str] = []
        self._symlinks: list[tuple[str, Member]] = []
        self._size = 0
        self._buildinfo: list[str] = []
        #: Paths of the directories above the first file: "/opt/store", ...; and files that hold one of them.
        self._above: tuple[bytes, ...] = ()
        self._holds: dict[str, int] = {}
        self._kept_bits = _kept_bits(self._descriptor)
        self._parent = ""
        self._parent_descriptor = os.dup(self._descriptor)

    def close(self) -> None:
        """Release the descriptors."""
        os.close(self._parent_descriptor)
        os.close(self._descriptor)

    def add_file(self, member: Member, pieces: Iterator[_Piece]) -> None:
        """Write a file, and note which of the directories above it, if any, it holds the path of."""
        path = self._claim(member)
        if not self._above:
            self._above = _directories_above(path)
        depth, tail = 0, b""
        descriptor = self._create(path, member.mode & self._kept_bits)
        try:
            for piece in pieces:
                depth, tail = _deepest(self._above, depth, piece, tail)
                view = piece.view()
                while view:
                    view = view[os.write(descriptor, view) :]
            if member.mode & ~self._kept_bits:
                os.fchmod(descriptor, member.mode)
            os.utime(descriptor, ns=(member.mtime, member.mtime))
        finally:
            os.close(descriptor)
        self._size += member.size
        if depth:
            self._holds[path] = depth
        if path.endswith("/" + BUILDINFO):
            self._buildinfo.append(path)

    def add(self, member: Member) -> None:
        """Make a directory or hard link; symlinks wait until `finish`, so that nothing can be written through one."""
        path = self._claim(member)
        if member.kind == DIRECTORY:
            self._directories[path] = (member.mode, member.mtime)
        elif member.kind == HARD_LINK:
            self._link(path, member)
        else:
            self._symlinks.append((path, member))

    def finish(self, limits: ExtractLimits) -> Contents:
        """Check the whole, make the symlinks, set the modes of directories."""
        self.prefix = self._find_prefix()
        inside = self.prefix + "/"
        for path, kind in self._kinds.items():
            if path.startswith(inside) or path == self.prefix:
                continue
            if kind != DIRECTORY or not inside.startswith(path + "/" if path else ""):
                raise ArchiveError("outside-prefix", f"has a member outside its prefix {self.prefix!r}", path)
        for path, member in self._symlinks:
            self._symlink(path, member, inside)
        prefix, root = self._built_at(limits)
        holding = self._holding(root)
        for path in self._implied:
            os.chmod(path, _IMPLIED_MODE, dir_fd=self._descriptor)
        for path, (mode, mtime) in reversed(self._directories.items()):
            if path.startswith(inside):
                os.utime(path, ns=(mtime, mtime), dir_fd=self._descriptor)
                os.chmod(path, mode, dir_fd=self._descriptor)
        kinds = [kind for path, kind in self._kinds.items() if path.startswith(inside)]
        return Contents(
            kinds.count(FILE),
            kinds.count(DIRECTORY),
            len(self._symlinks),
            kinds.count(HARD_LINK),
            self._size,
            os.fsdecode(prefix),
            os.fsdecode(root),
            holding,
        )

    def prefix_facts(self) -> tuple[int, int]:
        """Return mode and time (nanoseconds) of the prefix itself."""
        return self._directories[self.prefix]

    def _claim(self, member: Member) -> str:
        """Check the name and mode of a member, note it, and return its path below the root."""
        path = _safe_path(member)
        if member.mode & 0o7000 and member.kind in (FILE, DIRECTORY):
            raise ArchiveError("setuid", f"has a {member.kind} with mode {member.mode:o}", member.name)
        known = self._kinds.get(path)
        if known is not None:
            if known == member.kind == DIRECTORY:
                return path
            reason = "duplicate" if known == member.kind else "type-change"
            raise ArchiveError(reason, f"has {path!r} as {known} and again as {member.kind}", member.name)
        self._require_directory(path.rpartition("/")[0], member)
        self._note(path, member.kind, member)
        if member.kind == DIRECTORY:
            os.mkdir(path, 0o700, dir_fd=self._descriptor)
        return path

    def _note(self, path: str, kind: str, member: Member) -> None:
        self._kinds[path] = kind
        if self._folded is not None and self._folded.setdefault(_fold(path), path) != path:
            other = self._folded[_fold(path)]
            raise ArchiveError("collision", f"has {other!r} and {path!r}, one name here", member.name)

    def _require_directory(self, path: str, member: Member) -> None:
        """Require that `path` is a directory of this archive; one that the archive does not list is made."""
        kind = self._kinds.get(path)
        if kind is None:
            self._require_directory(path.rpartition("/")[0], member)
            self._note(path, DIRECTORY, member)
            os.mkdir(path, 0o700, dir_fd=self._descriptor)
            self._implied.append(path)
        elif kind != DIRECTORY:
            raise ArchiveError("through-link", f"has a member below {path!r}, which is a {kind}", member.name)

    def _create(self, path: str, mode: int) -> int:
        """Create a file, relative to its directory, which stays open for the next one."""
        parent, _, name = path.rpartition("/")
        if parent != self._parent:
            descriptor = os.open(parent or ".", _OPEN_DIRECTORY, dir_fd=self._descriptor)
            os.close(self._parent_descriptor)
            self._parent, self._parent_descriptor = parent, descriptor
        return os.open(name, _NEW_FILE, mode, dir_fd=self._parent_descriptor)

    def _link(self, path: str, member: Member) -> None:
        target = "/".join(part for part in member.target.split("/") if part not in ("", "."))
        if (
            member.target.startswith("/")
            or self._kinds.get(target) not in (FILE, HARD_LINK)
            or target == path
        ):
            what = f"has a hard link to {member.target!r}, which is no file of this archive before it"
            raise ArchiveError("hard-link", what, member.name)
        os.link(target, path, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor, follow_symlinks=False)

    def _symlink(self, path: str, member: Member, inside: str) -> None:
        """Make a symlink, whose target is data: absolute ones point to where the build had its dependencies."""
        if not member.target:
            raise ArchiveError("damaged", "has a symlink without target", member.name)
        if not member.target.startswith("/"):
            reached = os.path.normpath(os.path.join("/", path, "..", member.target))
            climbs = not (reached + "/").startswith("/" + inside) or _climbs(path, member.target, inside)
            if climbs:
                what = f"has a symlink to {member.target!r}, which leaves the package"
                raise ArchiveError("symlink", what, member.name)
        os.symlink(member.target, path, dir_fd=self._descriptor)
        os.utime(path, ns=(member.mtime, member.mtime), dir_fd=self._descriptor, follow_symlinks=False)

    def _find_prefix(self) -> str:
        """Return the package's own directory: the grandparent of the shortest buildinfo (docs/formats.md)."""
        if not self._buildinfo:
            raise ArchiveError("no-prefix", f"is no Spack package: no {BUILDINFO} in it")
        prefix = min(self._buildinfo, key=len).removesuffix("/" + BUILDINFO)
        if prefix not in self._directories:
            raise ArchiveError("no-prefix", "does not list its prefix as a directory", prefix)
        return prefix

    def _built_at(self, limits: ExtractLimits) -> tuple[bytes, bytes]:
        """Return prefix and install root of the build, from the buildinfo; without one, the prefix for both.

        The archives of Spack 0.18 to 0.20 have the last part of the prefix only; the buildinfo has the rest.
        """
        path = f"{self.prefix}/{BUILDINFO}"
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=self._descriptor), "rb") as file:
            data = file.read(limits.buildinfo_bytes)
        prefix = os.fsencode("/" + self.prefix)
        found, below = _BUILDPATH.search(data), _RELATIVE_PREFIX.search(data)
        root = found[2].rstrip(b"/") if found else b""
        if root and below and (full := root + b"/" + below[2]).endswith(prefix):
            return full, root
        inside = root and (prefix + b"/").startswith(root + b"/")
        return prefix, root if inside else prefix

    def _holding(self, root: bytes) -> int:
        """Count the files that hold `root`, and the symlinks that point there. ``.spack`` is metadata: not counted."""
        inside, own = self.prefix + "/", f"{self.prefix}/.spack/"
        text = os.fsdecode(root)
        count = sum(1 for _, member in self._symlinks if member.target.startswith(text))
        files = [
            path
            for path, kind in self._kinds.items()
            if kind == FILE and path.startswith(inside) and not path.startswith(own)
        ]
        if root in self._above:
            least = self._above.index(root) + 1
            return count + sum(self._holds.get(path, 0) >= least for path in files)
        return count + sum(self._file_holds(path, root) for path in files)

    def _file_holds(self, path: str, needle: bytes) -> bool:
        # A file that its owner may not read cannot be searched; packages of Spack have none.
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._descriptor)
        except PermissionError:
            return False
        try:
            rest = b""
            while chunk := os.read(descriptor, _CHUNK):
                if needle in (rest + chunk if rest else chunk):
                    return True
                rest = chunk[-len(needle) :]
            return False
        finally:
            os.close(descriptor)


def _directories_above(path: str) -> tuple[bytes, ...]:
    """Return ``/a/b``, ``/a/b/c`` for ``a/b/c/file``.

    Without ``/a``, which is in so many texts that searching for it takes long, and hardly ever is an install root.
    """
    parts = os.fsencode(path).split(b"/")
    return tuple(b"/" + b"/".join(parts[:end]) for end in range(2, len(parts)))


def _deepest(above: tuple[bytes, ...], depth: int, piece: _Piece, tail: bytes) -> tuple[int, bytes]:
    """Search a piece of a file for the deepest of the directories `above` it; each begins with the one before.

    Args:
        above: their paths.
        depth: how many were found in the pieces before.
        piece: the next bytes of the file.
        tail: the last bytes before it, in which a path may begin.

    Returns:
        The new depth, and the tail for the next piece.
    """
    data, start, end = piece.data, piece.start, piece.end
    while depth < len(above):
        path = above[depth]
        across = tail and path in tail + data[start : min(end, start + len(path))]
        if not across and data.find(path, start, end) < 0:
            break
        depth += 1
    longest = len(above[-1]) if above else 0
    return depth, (tail + data[max(start, end - longest) : end])[-longest:] if longest else b""


def _safe_path(member: Member) -> str:
    """Return the name without empty and ``.`` parts; refuse what could lead anywhere else."""
    name = member.name
    if name.startswith("/"):
        raise ArchiveError("absolute-name", "has a member with an absolute name", name)
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise ArchiveError("parent-reference", "has a member with .. in its name", name)
    if not parts and member.kind != DIRECTORY:
        raise ArchiveError("bad-name", "has a member without name", name)
    if any(len(part) > 63 and len(os.fsencode(part)) > 255 for part in parts):
        raise ArchiveError("bad-name", "has a name of more than 255 bytes", name)
    return "/".join(parts)


def _climbs(path: str, target: str, inside: str) -> bool:
    """Tell whether a relative target leaves the prefix on its way, even if it comes back."""
    depth = path.count("/") - inside.count("/")
    for part in target.split("/"):
        if part == "..":
            depth -= 1
        elif part not in ("", "."):
            depth += 1
        if depth < 0:
            return True
    return False


def _fold(path: str) -> str:
    import unicodedata

    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


def _kept_bits(directory: int) -> int:
    """Return the bits of a mode that the umask leaves to a new file. Asking for the umask itself would change it."""
    probe = "cachefetch-mode"
    descriptor = os.open(probe, _NEW_FILE, 0o777, dir_fd=directory)
    try:
        return stat.S_IMODE(os.fstat(descriptor).st_mode)
    finally:
        os.close(descriptor)
        os.unlink(probe, dir_fd=directory)


def _folds_case(directory: str) -> bool:
    """Tell whether the file system takes names that differ in case for one."""
    probe = os.path.join(directory, "CacheFetch")
    os.mkdir(probe, 0o700)
    folds = os.path.lexists(os.path.join(directory, "cachefetch"))
    os.rmdir(probe)
    return folds


def _move(tree: _Tree, target: str) -> None:
    """Give the finished package its final name. Renaming needs a directory that its owner may write."""
    mode, mtime = tree.prefix_facts()
    source = os.path.join(tree.root, tree.prefix)
    os.chmod(source, mode | stat.S_IRWXU)
    try:
        os.rename(source, target)  # over an empty directory too, never over another one
    except OSError as error:
        raise StoreError(
            f"cannot move the unpacked package to {target}: {error.strerror}",
            hint="somebody made it meanwhile; name another directory",
            context={"path": target},
        ) from error
    os.utime(target, ns=(mtime, mtime))
    if mode & stat.S_IRWXU != stat.S_IRWXU:
        os.chmod(target, mode)


def _remove(staging: str) -> None:
    """Remove what is left, also directories that their owner may not write."""
    for directory, _, _ in os.walk(staging):
        with contextlib.suppress(OSError):
            os.chmod(directory, 0o700)
    shutil.rmtree(staging, ignore_errors=True)
