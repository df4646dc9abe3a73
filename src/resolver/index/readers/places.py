"""Where a package lies in a mirror of layout 2 and in a registry: names only, pure.

Layout 3 is in `manifest`. Rules: Spack 0.23 ``binary_distribution`` and Spack 1.1 ``url_buildcache``, ``oci``;
docs/formats.md ("Layout v2", "OCI").
"""

from __future__ import annotations

import re

from ....errors import FormatError
from ...model import LANGUAGES
from .manifest import spec_stem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ...model import Node

BUILD_CACHE = "build_cache"
_UNSAFE = re.compile(r"[^A-Za-z0-9_+.-]")
_UNSAFE_IN_TAG = re.compile(r"[^A-Za-z0-9_.-]")
_LONGEST_TAG = 128
_NO_COMPILER = ("none", "none")


def recorded_compiler(node: Node, get: Callable[[str], Node | None]) -> tuple[str, str]:
    """Return name and version of the compiler in a node's layout 2 paths, ("none", "none") for a node without one.

    Below specfile 5 it is recorded on the node; since then it is the dependency that provides c, else cxx, else
    fortran, under its package name.

    Args:
        node: the package.
        get: looks a node up by its DAG hash.

    Raises:
        FormatError: the node names a compiler that `get` does not know.
    """
    if node.compiler is not None:
        return node.compiler
    for language in LANGUAGES:
        for edge in node.edges:
            if language in edge.virtuals:
                compiler = get(edge.hash)
                if compiler is None:
                    raise FormatError(
                        f"{node.name}/{node.hash[:7]}: its compiler {edge.name}/{edge.hash[:7]} is not recorded",
                        hint="a path of layout 2 has the compiler's version in it: rebuild the mirror's index",
                        context={"name": node.name, "hash": node.hash},
                    )
                return compiler.name, compiler.version
    return _NO_COMPILER


def build_cache_stem(node: Node, compiler: tuple[str, str]) -> str:
    """Return ``ARCH-CNAME-CVER-NAME-VER-HASH`` of a node: the stem of its file names in layout 2.

    Raises:
        FormatError: its hash is no full DAG hash, or its name could leave the directory.
    """
    own = spec_stem(node.name, node.version, node.hash)
    return f"{_architecture(node)}-{_safe(compiler[0])}-{_safe(compiler[1])}-{own}"


def build_cache_spec_files(stem: str) -> tuple[str, str]:
    """Return the paths of the signed and of the unsigned spec file, relative to the mirror URL."""
    return f"{BUILD_CACHE}/{stem}.spec.json.sig", f"{BUILD_CACHE}/{stem}.spec.json"


def build_cache_tarball(node: Node, compiler: tuple[str, str]) -> str:
    """Return the path of the tarball of a node in layout 2, relative to the mirror URL.

    Raises:
        FormatError: as `build_cache_stem`.
    """
    stem = build_cache_stem(node, compiler)
    package = f"{_safe(node.name)}-{_safe(node.version)}"
    toolchain = f"{_safe(compiler[0])}-{_safe(compiler[1])}"
    return f"{BUILD_CACHE}/{_architecture(node)}/{toolchain}/{package}/{stem}.spack"


def image_tag(name: str, version: str, hash: str) -> str:
    """Return the tag of a package's image.

    Unlike in URL layouts "+" is replaced too, and of more than 128 characters the first and the last 64 count.

    Raises:
        FormatError: `hash` is no full DAG hash, or `name` is no package name.
    """
    tag = _UNSAFE_IN_TAG.sub("_", f"{spec_stem(name, version, hash, is_file=False)}.spack")
    half = _LONGEST_TAG // 2
    return tag if len(tag) <= _LONGEST_TAG else tag[:half] + tag[-half:]


def _architecture(node: Node) -> str:
    return _safe(f"{node.platform}-{node.os}-{node.target}")


def _safe(text: str) -> str:
    return _UNSAFE.sub("_", text)
