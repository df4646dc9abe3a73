"""Whether a plan fits on the disk of the destination, asked before the first byte, and what to free when it is full."""

from __future__ import annotations

import os

from ...errors import StoreError
from ..store import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ..model import VerifiedPackage
    from .destination import Destination

#: Bytes of a record in an index, in round figures: those of the public mirrors have 1.2 to 2.5 KiB.
_RECORD = 2048
#: Files of a package: tarball, spec document, manifest; as many are written at the end.
_FILES = 3


def room_needed(
    packages: Iterable[VerifiedPackage], small: Iterable[int], parts: Mapping[str, int], block: int
) -> int:
    """Return the bytes that files take on a disk. Pure.

    Args:
        packages: whose tarballs come. In layout 2 nothing proves their sizes: as for `fetch.plan.room_needed` the
            largest of these counts.
        small: sizes of the other files.
        parts: sha256 -> bytes of the tarballs that earlier runs left.
        block: bytes; a file takes a multiple of it.
    """
    proven: dict[str, int] = {}
    told = [0]
    for package in packages:
        if package.layout == "v2":
            told.append(package.tarball.size)
        else:
            proven[package.tarball.sha256] = package.tarball.size
    sizes = [max(0, size - parts.get(sha256, 0)) for sha256, size in proven.items()]
    return sum(-(-size // block) * block for size in (*sizes, *small, max(told)))


class Space:
    """The disk of a destination, and what is still to come there."""

    def __init__(self, to: Destination) -> None:
        self._to = to
        self._packages: Sequence[VerifiedPackage] = ()
        self._copy: Mapping[str, int] = {}
        self._index = 0

    def require(self, packages: Sequence[VerifiedPackage], copy: Mapping[str, int]) -> None:
        """Require room for the tarballs of packages and all else of a plan.

        Args:
            packages: whose tarballs come.
            copy: name -> size of all files to copy; manifests that wait and the index are added.

        Raises:
            StoreError: it does not fit.
        """
        self._packages, self._copy = packages, copy
        if packages:
            self._index = _RECORD * len(packages) + self._to.index_size()
        needed, free, _ = self._numbers({})
        if needed > free:
            error = StoreError(
                f"{self._to.mirror}: too little free space: {needed} bytes needed, {free} free",
                context={
                    "path": self._to.mirror,
                    "reason": "disk-full",
                    "needed_bytes": needed,
                    "free_bytes": free,
                },
            )
            raise self.explained(error)

    def explained(self, error: StoreError) -> StoreError:
        """Return an error, with a hint that says how much to free when the disk is full."""
        if error.context.get("reason") == "disk-full":
            there = self._to.listing().blobs
            needed, free, block = self._numbers(there)
            if needed <= free and (hint := self._inodes(there)):
                error.hint = hint
                return error
            error.hint = (
                f"free {max(needed - free, block)} bytes and run the same command again: what is there is kept; "
                "or name a destination on another file system"
            )
        return error

    def _inodes(self, there: Mapping[str, int]) -> str:
        """Return the hint for a file system that has bytes, and no inodes for what is still to come; else ""."""
        info = os.statvfs(files.existing_directory(self._to.mirror))
        missing = sum(self._to.names(package)[0][0] not in there for package in self._packages)
        needed = _FILES * (missing + 1)
        if not info.f_files or info.f_favail >= needed:  # without a table a file system tells 0
            return ""
        return (
            f"its file system has {info.f_favail} free inodes, at least {needed} are needed (`df -i` shows them): "
            "remove files there and run the same command again: what is there is kept; or name a destination on "
            "another file system"
        )

    def _numbers(self, there: Mapping[str, int]) -> tuple[int, int, int]:
        """Return the bytes that are needed beside what is there, those that are free, and those of a block."""
        info = os.statvfs(files.existing_directory(self._to.mirror))
        tarballs = {self._to.names(package)[0][0] for package in self._packages}
        small = [
            size for name, size in self._copy.items() if name not in tarballs and there.get(name) != size
        ]
        missing = [
            package
            for package in self._packages
            if there.get(self._to.names(package)[0][0]) != package.tarball.size
        ]
        parts = {package.tarball.sha256: self._to.part_size(package.tarball.sha256) for package in missing}
        small += [*self._to.waiting_sizes(), self._index]
        return room_needed(missing, small, parts, info.f_frsize), info.f_bavail * info.f_frsize, info.f_frsize
