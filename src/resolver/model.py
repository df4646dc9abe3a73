"""The resolver's values: concrete nodes, hosts and the frozen answer. No I/O, no behaviour beyond `to_dict`.

Words are Spack's: a *node* is one concrete spec, its *edges* name children by DAG hash, a *record* is a node
as a mirror's index lists it. Sources of the rules: docs/semantics.md and docs/formats.md.
"""

from __future__ import annotations

from ..values import frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any, Protocol

    #: bool variant, single value, or multi-valued variant (sorted tuple).
    VariantValue = bool | str | tuple[str, ...]

    class Dag(Protocol):
        """Look-up of nodes by DAG hash; what the matcher and the closure walk over."""

        def get(self, hash: str, /) -> Node | None:
            """Return the node with that full DAG hash, or None when no source records it."""

        def record(self, hash: str, /) -> Record | None:
            """Return the record with that full DAG hash, or None."""

        def prefetch(self, hashes: Iterable[str], /) -> None:
            """Get ready to be asked for these hashes; a look-up of many may be cheaper than many look-ups."""


#: Virtuals on the edge to a compiler, in the order of preference for display (Spack 1.x, docs/semantics.md).
LANGUAGES = ("c", "cxx", "fortran")


@frozen
class Edge:
    """A dependency: child `hash` and `name`, `types` of build, link, run, test, and `virtuals` it provides."""

    hash: str
    name: str
    types: tuple[str, ...] = ()
    virtuals: tuple[str, ...] = ()

    @property
    def in_closure(self) -> bool:
        """True for link and run edges, which a binary needs at run time."""
        return "link" in self.types or "run" in self.types


@frozen
class Node:
    """One concrete spec.

    `format` is the specfile version that the node was first written in (1 to 6). `partial` is True where
    the source records the node's own attributes only (a cache.spack.io page): no edges, no flags, and
    abbreviated patch hashes. `compiler` is the one recorded by formats below 5 and by pages, as
    (name, version) with the name as recorded; format 5 and later express compilers as edges.
    `target_features` is set where the node embeds a microarchitecture object, for names our table lacks; so are
    `target_vendor`, `target_parents` (names) and `target_generation` (of POWER; 0 where there is none).
    `external` is the recorded prefix ("" when external without one), None for an ordinary node.
    """

    hash: str
    name: str
    version: str
    platform: str
    os: str
    target: str
    namespace: str = ""
    variants: Mapping[str, VariantValue] = {}
    flags: Mapping[str, tuple[str, ...]] = {}
    edges: tuple[Edge, ...] = ()
    compiler: tuple[str, str] | None = None
    format: int = 5
    external: str | None = None
    build_spec: str | None = None
    provided: tuple[str, ...] = ()
    target_features: tuple[str, ...] | None = None
    target_vendor: str = ""
    target_parents: tuple[str, ...] = ()
    target_generation: int = 0
    partial: bool = False

    def closure_edges(self) -> tuple[Edge, ...]:
        """Return the link and run edges."""
        return tuple(edge for edge in self.edges if edge.in_closure)


@frozen
class Record:
    """A node as sources list it: `has_binary` if any mirror holds the binary, `mirrors` (names) which ones.

    `stacks` are the labels a cache.spack.io page gives (empty where the source knows none).
    """

    node: Node
    has_binary: bool
    mirrors: tuple[str, ...] = ()
    stacks: tuple[str, ...] = ()


@frozen
class Libc:
    """A C library: `kind` is "glibc" or "musl", `prefix` None matches any prefix, `inferred` from an OS label."""

    kind: str
    version: str
    prefix: str | None = None
    inferred: bool = False

    def __str__(self) -> str:
        """Return the form that ``--libc`` accepts: ``glibc@2.35:/usr``."""
        return f"{self.kind}@{self.version}" + (f":{self.prefix}" if self.prefix else "")

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object of design 3."""
        return {"kind": self.kind, "version": self.version, "prefix": self.prefix}


@frozen
class Compiler:
    """A compiler by its modern package name (gcc, llvm, apple-clang, ...) and version."""

    name: str
    version: str

    def __str__(self) -> str:
        """Return ``gcc@13.2.0``."""
        return f"{self.name}@{self.version}"


@frozen
class Host:
    """Facts about the machine that the binaries must run on, each with its source in `sources`.

    `compilers` are sorted by preference (the first is the host compiler of key K7). `overridden` names the facts
    given by the user (flags or a host file) in place of detected ones: "platform", "os", "target", "libc",
    "compilers".
    """

    platform: str
    os: str
    target: str
    libc: Libc | None = None
    compilers: tuple[Compiler, ...] = ()
    sources: Mapping[str, str] = {}
    overridden: frozenset[str] = frozenset()

    def to_dict(self) -> dict[str, Any]:
        """Return the `host` object of the JSON documents."""
        return {
            "platform": self.platform,
            "os": self.os,
            "target": self.target,
            "libc": self.libc.to_dict() if self.libc else None,
            "compilers": [{"name": c.name, "version": c.version} for c in self.compilers],
            "sources": dict(self.sources),
        }


@frozen
class Mismatch:
    """One reason why a node does not meet a constraint: a reason code (`explain.MESSAGES`), have and need."""

    code: str
    have: str
    need: str
