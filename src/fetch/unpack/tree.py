"""The directory that an archive is unpacked to: which members may be there, and making them."""

from __future__ import annotations

import os
import stat

from ...errors import ArchiveError
from .buildroot import BUILDINFO, built_at, directories_above
from .model import Contents
from .search import Search
from .tar import DIRECTORY, FILE, HARD_LINK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .source import Piece, Source
    from .tar import Member

#: Of a directory that an archive uses without listing it, as GNU tar makes it.
_IMPLIED_MODE = 0o755
#: Symlinks that a system follows for one path; with more it gives up.
_MOST_LINKS = 40
_CHUNK = 1 << 20
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_BUILDINFO_NAME = BUILDINFO.rpartition("/")[2]


class Tree:
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
        #: Paths of the directories above the first file: "/opt/store", ...; files are searched for them.
        self._above: tuple[bytes, ...] = ()
        self._files: list[str] = []
        self._kept_bits = _kept_bits(self._descriptor)
        self._parent = ""
        self._parent_descriptor = os.dup(self._descriptor)

    def close(self) -> None:
        """Release the descriptors."""
        os.close(self._parent_descriptor)
        os.close(self._descriptor)

    def add_file(self, member: Member, source: Source) -> None:
        """Write a file, and have it searched for the paths of the directories above it."""
        path = self._claim(member)
        if not self._above:
            self._above = directories_above(path)
        parent, _, name = path.rpartition("/")
        self._files.append(path)
        source.begin_file(self._above)
        descriptor = self._create(parent, name, member.mode)
        try:
            for piece in source.pieces(member.size):
                source.search(piece)
                _write(descriptor, piece)
            if member.mode & ~self._kept_bits:
                os.fchmod(descriptor, member.mode)
            os.utime(descriptor, ns=(member.mtime, member.mtime))
        finally:
            os.close(descriptor)
        self._size += member.size
        if name == _BUILDINFO_NAME and path.endswith("/" + BUILDINFO):
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

    def finish(self, source: Source) -> Contents:
        """Check the whole, make the symlinks, set the modes of directories."""
        self.prefix = self._find_prefix()
        inside = self.prefix + "/"
        for path, kind in self._kinds.items():
            if path.startswith(inside) or path == self.prefix:
                continue
            if kind != DIRECTORY or not inside.startswith(path + "/" if path else ""):
                raise ArchiveError("outside-prefix", f"has a member outside its prefix {self.prefix!r}", path)
        links = {_fold(path): member.target for path, member in self._symlinks}
        for path, member in self._symlinks:
            self._symlink(path, member, inside, links)
        buildinfo = self._read(f"{self.prefix}/{BUILDINFO}", source.limits.buildinfo_bytes)
        prefix, root = built_at(buildinfo, self.prefix)
        holding = self._holding(root, source.depths())
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
            source.packing,
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

    def _create(self, parent: str, name: str, mode: int) -> int:
        """Create a file, relative to its directory, which stays open for the next one."""
        if parent != self._parent:
            descriptor = os.open(parent or ".", _OPEN_DIRECTORY, dir_fd=self._descriptor)
            os.close(self._parent_descriptor)
            self._parent, self._parent_descriptor = parent, descriptor
        return os.open(name, _NEW_FILE, mode & self._kept_bits, dir_fd=self._parent_descriptor)

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

    def _symlink(self, path: str, member: Member, inside: str, links: Mapping[str, str]) -> None:
        """Make a symlink, whose target is data: absolute ones point to where the build had its dependencies."""
        if not member.target:
            raise ArchiveError("damaged", "has a symlink without target", member.name)
        if not member.target.startswith("/") and _leaves(path, member.target, inside, links):
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

    def _holding(self, root: bytes, depths: Sequence[int]) -> int:
        """Count the files that hold `root`, and the symlinks that point there. ``.spack`` is metadata: not counted.

        Args:
            root: install root of the build.
            depths: of each file, how many of the directories above the first it holds.
        """
        inside, own = self.prefix + "/", f"{self.prefix}/.spack/"
        text = os.fsdecode(root)
        count = sum(1 for _, member in self._symlinks if member.target.startswith(text))
        files = [
            (path, depth)
            for path, depth in zip(self._files, depths, strict=True)
            if path.startswith(inside) and not path.startswith(own)
        ]
        if root in self._above:
            least = self._above.index(root) + 1
            return count + sum(depth >= least for _, depth in files)
        return count + sum(self._file_holds(path, root) for path, _ in files)

    def _file_holds(self, path: str, needle: bytes) -> bool:
        # A file that its owner may not read cannot be searched; packages of Spack have none.
        try:
            descriptor = os.open(path, _READ_FILE, dir_fd=self._descriptor)
        except PermissionError:
            return False
        try:
            search = Search((needle,))
            while not search.depth and (chunk := os.read(descriptor, _CHUNK)):
                search.feed(chunk, 0, len(chunk))
            return bool(search.depth)
        finally:
            os.close(descriptor)

    def _read(self, path: str, most: int) -> bytes:
        with open(os.open(path, _READ_FILE, dir_fd=self._descriptor), "rb") as file:
            return file.read(min(most, os.fstat(file.fileno()).st_size))


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
    if len(name) > 63 and any(len(part) > 63 and len(os.fsencode(part)) > 255 for part in parts):
        raise ArchiveError("bad-name", "has a name of more than 255 bytes", name)
    return "/".join(parts)


def _leaves(path: str, target: str, inside: str, links: Mapping[str, str]) -> bool:
    """Tell whether a relative target leaves the prefix on its way, even if it comes back.

    Each part is followed as the system would: ``..`` behind another symlink of the archive goes up from where that one
    leads. Behind an absolute one the package is left in any case, which such a link may do.

    Args:
        path: the symlink, below the root of the archive.
        target: where it points.
        inside: the prefix, with a slash at its end.
        links: targets of all symlinks of the archive by their folded paths.
    """
    here = path.removeprefix(inside).split("/")[:-1]
    rest, followed = target.split("/")[::-1], 0
    while rest:
        part = rest.pop()
        if part == "..":
            if not here:
                return True
            here.pop()
        elif part not in ("", "."):
            onward = links.get(_fold(inside + "/".join((*here, part))))
            if onward is None:
                here.append(part)
            elif onward.startswith("/") or followed == _MOST_LINKS:
                return False
            else:
                followed += 1
                rest += onward.split("/")[::-1]
    return False


def _fold(path: str) -> str:
    import unicodedata

    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


def _write(descriptor: int, piece: Piece) -> None:
    data, start, end = piece
    with memoryview(data) as whole:
        while start < end:
            start += os.write(descriptor, whole[start:end])


def _kept_bits(directory: int) -> int:
    """Return the bits of a mode that the umask leaves to a new file. Asking for the umask itself would change it."""
    probe = "cachefetch-mode"
    descriptor = os.open(probe, _NEW_FILE, 0o777, dir_fd=directory)
    try:
        return stat.S_IMODE(os.fstat(descriptor).st_mode)
    finally:
        os.close(descriptor)
        os.unlink(probe, dir_fd=directory)
