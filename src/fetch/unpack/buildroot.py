"""Where a package was built, and which files hold that path: Spack's metadata in the archive (docs/formats.md)."""

from __future__ import annotations

import os
import re

#: Metadata of Spack in every package, relative to its prefix.
BUILDINFO = ".spack/binary_distribution"
_BUILDPATH = re.compile(rb"""(?:^|[{,\s])buildpath:\s*(['"]?)(/[^,}'"\n]+?)\1\s*[,}\n]""")
_RELATIVE_PREFIX = re.compile(
    rb"""(?:^|[{,\s])relative_prefix:\s*(['"]?)([^/,}'"\n][^,}'"\n]*?)\1\s*[,}\n]"""
)

#: The directory of a package ends with its hash.
_HASHED = re.compile(rb"-[a-z2-7]{32}$")


def built_at(buildinfo: bytes, prefix: str) -> tuple[bytes, bytes]:
    """Return prefix and install root of the build, from the buildinfo; without one, the prefix for both.

    The archives of Spack 0.18 to 0.20 have the last part of the prefix only; the buildinfo has the rest.

    Args:
        buildinfo: content of the file.
        prefix: directory of the package in the archive.
    """
    found, below = _BUILDPATH.search(buildinfo), _RELATIVE_PREFIX.search(buildinfo)
    own = os.fsencode("/" + prefix)
    root = found[2].rstrip(b"/") if found else b""
    if root and below and (full := root + b"/" + below[2]).endswith(own):
        return full, root
    inside = root and (own + b"/").startswith(root + b"/")
    return own, root if inside else own


def directories_above(path: str) -> tuple[bytes, ...]:
    """Return ``/a/b``, ``/a/b/c`` for ``a/b/c/file``: the install root is most likely one of them.

    Without ``/a``, which is in so many texts that searching for it takes long. When the directory of the package
    is known by its hash, they begin three above it: a longer path is found faster.
    """
    parts = os.fsencode(path).split(b"/")
    package = next((number for number, part in enumerate(parts) if _HASHED.search(part)), 0)
    return tuple(b"/" + b"/".join(parts[:end]) for end in range(max(2, package - 2), len(parts)))
