"""Unpack a package: safe, and byte for byte and mode for mode what GNU tar makes of it, with the prefix stripped.

Everything is written below a new private directory beside the destination. Its package directory gets the final name
when the whole archive was read, its digest is right and every member was good; otherwise nothing stays.
Where the prefix is: docs/formats.md, from Spack 1.1. What is refused, and why: docs/security.md.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from dataclasses import dataclass

from ..errors import ArchiveError, StoreError, UsageError, cannot_write
from .store.files import store_errors
from .unpack.beside import Beside, HelperGone, worthwhile
from .unpack.expand import Expanded
from .unpack.model import Contents, ExtractLimits
from .unpack.staging import staging_directory
from .unpack.tar import FILE, members, padding
from .unpack.tree import Tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .model import Caveat, Item
    from .unpack.source import Source


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


def packing_caveat(item: Item, contents: Contents) -> Caveat | None:
    """Return the warning about a package that is not compressed as Spack's are, None for one that is."""
    from .model import Caveat

    if contents.packing in ("gzip", "none"):
        return None
    message = (
        f"the payload of {item.name}@{item.version}/{item.hash[:7]} is compressed with {contents.packing}: "
        "Spack writes gzip, and no media type of a manifest means anything else; another tool made it"
    )
    return Caveat("unusual-compression", message, item.mirror)


def extract_tarball(
    tarball: str,
    destination: str,
    *,
    sha256: str,
    size: int,
    limits: ExtractLimits | None = None,
    portable: bool = False,
    check: Callable[[], None] = lambda: None,
    commit: Callable[[], None] = lambda: None,
) -> Contents:
    """Unpack a package tarball into the new directory `destination`.

    Args:
        tarball: path of the ``.spack`` file; gzip, bzip2, xz or plain tar.
        destination: must not exist, or be an empty directory.
        sha256, size: what the verified manifest promises; checked on the bytes that are unpacked.
        limits: None for the defaults.
        portable: also refuse names that differ only in case or Unicode form. Always so where the file system
            of `destination` does not tell them apart.
        check: called between pieces; what it raises ends the work, and nothing stays.
        commit: the same, called before the tree gets its name.

    Raises:
        UsageError: `destination` exists.
        ArchiveError: an unsafe or damaged archive; ``context["reason"]``, ``context["member"]``.
        TruncatedError, DigestError: other bytes than promised.
        StoreError: no space, no permission.
    """
    target = require_absent(destination)
    limits = limits or ExtractLimits()
    try:
        with open(tarball, "rb") as file:
            if worthwhile(file, size):
                with contextlib.suppress(HelperGone):
                    return _extract(Beside(file, limits, size, check), target, sha256, portable, commit)
                file.seek(0)
            return _extract(Expanded(file, limits, size, check), target, sha256, portable, commit)
    except ArchiveError as error:
        error.name_file(tarball)
        raise
    except OSError as error:
        with store_errors(target):
            raise error
        raise AssertionError("store_errors raises") from error


def _extract(
    archive: Beside | Expanded, target: str, sha256: str, portable: bool, commit: Callable[[], None]
) -> Contents:
    with staging_directory(os.path.dirname(target)) as staging:
        tree = Tree(staging, portable=portable or _folds_case(staging))
        try:
            with archive as source:
                contents = _unpack(source, tree)
                source.finish(sha256)
            _move(tree, target, commit)
        finally:
            tree.close()
        return contents


def require_absent(destination: str) -> str:
    """Return the absolute path of a directory that can be made.

    Raises:
        UsageError: it exists and is not empty, is no directory, or its name is too long.
        StoreError: it may not be read, or nothing may be made there.
    """
    target = os.path.abspath(destination)
    problem, hint = (
        "",
        "a package is unpacked into a new directory: name one that does not exist, or an empty one",
    )
    try:
        if os.listdir(target):
            problem = f"{target} exists"
    except FileNotFoundError:
        if os.path.lexists(target):
            problem = f"{target} is a symlink to nothing"
    except NotADirectoryError:
        problem = f"{_first_file(target)} is a file, not a directory"
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise cannot_write(target, target, error) from error
        problem, hint = f"{target}: the name is too long for this file system", "name a shorter directory"
    if problem:
        raise UsageError(problem, hint=hint, context={"path": target})
    _require_writable(os.path.dirname(target))
    return target


def _first_file(path: str) -> str:
    """Return the part of `path` that is no directory."""
    while not os.path.lexists(path):
        path = os.path.dirname(path)
    return path


def _require_writable(parent: str) -> None:
    """Refuse early what could not be written later, after everything was fetched. Raises StoreError."""
    while not os.path.exists(parent):
        parent = os.path.dirname(parent)
    if os.access(parent, os.W_OK | os.X_OK):
        return
    reason = errno.EROFS if os.statvfs(parent).f_flag & os.ST_RDONLY else errno.EACCES
    raise cannot_write(parent, parent, OSError(reason, os.strerror(reason)))


def _unpack(source: Source, tree: Tree) -> Contents:
    for count, member in enumerate(members(source.read), 1):
        if count > source.limits.members:
            raise ArchiveError("limit", f"has more than {source.limits.members} members", member.name)
        if member.kind == FILE:
            source.announce(member.size)
            tree.add_file(member, source)
            source.read(padding(member.size))
        else:
            tree.add(member)
    return tree.finish(source)


def _folds_case(directory: str) -> bool:
    """Tell whether the file system takes names that differ in case for one."""
    probe = os.path.join(directory, "CacheFetch")
    os.mkdir(probe, 0o700)
    folds = os.path.lexists(os.path.join(directory, "cachefetch"))
    os.rmdir(probe)
    return folds


def _move(tree: Tree, target: str, commit: Callable[[], None]) -> None:
    """Give the finished package its final name. Renaming needs a directory that its owner may write."""
    mode, mtime = tree.prefix_facts()
    source = os.path.join(tree.root, tree.prefix)
    os.chmod(source, mode | stat.S_IRWXU)
    commit()
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
