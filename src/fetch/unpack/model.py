"""Values of unpacking: what an archive may be at most, and what was in it."""

from __future__ import annotations

from ...values import frozen


@frozen
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


@frozen
class Contents:
    """What was unpacked.

    Attributes:
        files, directories, symlinks, hard_links: how many of each, inside the prefix (without itself).
        size: bytes of all files together.
        prefix: where the package was built and still believes to be, an absolute path.
        root: install root of the build; every prefix of the build lies below it.
        holding: files that hold `root`, and symlinks that point below it.
        packing: how the archive was compressed: "gzip", "bzip2", "xz" or "none".
    """

    files: int
    directories: int
    symlinks: int
    hard_links: int
    size: int
    prefix: str
    root: str
    holding: int
    packing: str
