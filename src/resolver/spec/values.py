"""What a parsed spec is: names, versions, variants, flags, architecture, hash and edges, and its canonical text.

Values only. Absent texts are "", an absent version constraint is `versions.ANY`.
Source: Spack 1.1 `spec.py` (`format`, `_format_dependencies`), docs/semantics.md ("Canonical text").
"""

from __future__ import annotations

import re

from ...errors import SpecSyntaxError
from ...values import changed, frozen
from .versions import ANY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..model import Host
    from .requirement import Requirement
    from .versions import Versions

FLAG_NAMES = ("cflags", "cppflags", "cxxflags", "fflags", "ldflags", "ldlibs")
DEPTYPES = ("build", "link", "run", "test")

#: Compiler names before Spack 1.0 and the packages that they are now (Spack 1.1 `aliases.py`).
MODERN_COMPILERS = {
    "clang": "llvm",
    "oneapi": "intel-oneapi-compilers",
    "intel": "intel-oneapi-compilers-classic",
    "rocmcc": "llvm-amdgpu",
    "arm": "acfl",
}
_LEGACY_COMPILERS = {modern: legacy for legacy, modern in MODERN_COMPILERS.items()}

#: Names that stand for the host's own operating system or target.
HOST_OS_WORDS = frozenset(("fe", "be", "frontend", "backend", "default_os"))
HOST_TARGET_WORDS = frozenset(("fe", "be", "frontend", "backend", "default_target"))


@frozen
class Variant:
    """A variant constraint: a boolean, or a sorted tuple of values (() = any value, written ``*``).

    `exact` is ``:=``: these values and no others. `propagate` is ``++x`` or ``x==v``.
    """

    name: str
    value: bool | tuple[str, ...]
    exact: bool = False
    propagate: bool = False

    def __str__(self) -> str:
        if isinstance(self.value, bool):
            return ("+" if self.value else "~") * (1 + self.propagate) + self.name
        values = ",".join(self.value) if self.value else "*"
        return f"{self.name}{':' * self.exact}={'=' * self.propagate}{quoted(values)}"


@frozen
class Flags:
    """Compiler flags of one type (``cflags`` ...): words in the order written."""

    name: str
    words: tuple[str, ...]
    propagate: bool = False

    def __str__(self) -> str:
        return f"{self.name}={'=' * self.propagate}{quoted(' '.join(self.words))}"


_NO_VARIANTS: Mapping[str, Variant] = {}


@frozen
class Dependency:
    """An edge to `spec`: direct (``%``) or somewhere in the closure (``^``), with what the edge must carry.

    `virtuals` and `deptypes` are sorted; `when` is the condition; `propagate` is ``%%``.
    """

    spec: Spec
    direct: bool
    virtuals: tuple[str, ...] = ()
    deptypes: tuple[str, ...] = ()
    when: Spec | None = None
    propagate: bool = False

    def __str__(self) -> str:
        sigil = ("%%" if self.propagate else "%") if self.direct else "^"
        name = self.spec.name
        if self.direct:
            name = _LEGACY_COMPILERS.get(name, name)
        attributes = []
        if self.when is not None:
            attributes.append(f"when={_quotes(str(self.when))}")
        if self.virtuals and not name:  # only a name can follow `virtual=`
            attributes.append(f"virtuals={','.join(self.virtuals)}")
        if self.deptypes:
            attributes.append(f"deptypes={','.join(self.deptypes)}")
        if attributes:
            sigil += f"[{' '.join(attributes)}] "
        if self.virtuals and name:
            sigil += f"{','.join(self.virtuals)}="
        star = "*" if _needs_star(self.spec) else ""
        own = sigil + star + self.spec.node_text(name)
        return " ".join([own, *map(str, self.spec.edges)])


@frozen
class Spec:
    """One spec as typed: constraints on a node and on its dependencies. ``str()`` is the canonical text.

    `variants` maps names to `Variant`; `edges` are sorted, direct ones first. `requirement` is set where the
    input was a PEP 508 requirement. `notes` are remarks of the parser for the user, no part of equality.
    """

    name: str = ""
    namespace: str = ""
    versions: Versions = ANY
    variants: Mapping[str, Variant] = _NO_VARIANTS
    flags: tuple[Flags, ...] = ()
    platform: str = ""
    os: str = ""
    target: str = ""
    hash: str = ""
    edges: tuple[Dependency, ...] = ()
    requirement: Requirement | None = None
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return " ".join([text for text in (self.node_text(self.name), *map(str, self.edges)) if text])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Spec) and all(getattr(self, f) == getattr(other, f) for f in _COMPARED)

    def __hash__(self) -> int:
        return hash((self.name, self.hash, self.versions, self.edges))

    def node_text(self, name: str) -> str:
        """Return the canonical text of this node alone, under `name`."""
        booleans = [str(v) for _, v in sorted(self.variants.items()) if isinstance(v.value, bool)]
        valued = [f" {v}" for _, v in sorted(self.variants.items()) if not isinstance(v.value, bool)]
        text = name
        if self.requirement is not None:
            text += f" {self.requirement}"
        elif not self.versions.is_any:
            text += f"@{self.versions}"
        if self.flags:
            text += "".join(f" {flags}" for flags in self.flags) + " "
        text += "".join(booleans) + "".join(valued)
        if self.namespace and not self.name:
            text += f" namespace={quoted(self.namespace)}"
        for key in ("platform", "os", "target"):
            if value := getattr(self, key):
                text += f" {key}={_target_text(value) if key == 'target' else quoted(value)}"
        if self.hash:
            # A bare value would swallow the hash: `os=debian12/abc` (Spack 1.1 prints it so).
            places = self.platform or self.os or self.target or (self.namespace and not self.name)
            exact = self.versions.exact
            ref = exact is not None and exact.is_bare_ref  # may contain slashes
            ends_in_value = bool(valued or self.flags or places or self.requirement or ref)
            text += f"{' ' * ends_in_value}/{self.hash}"
        return text.strip()

    def names_one_version(self) -> bool:
        """Return whether the query names a single version or a pre-release, which waives key K1."""
        if self.requirement is not None:
            return self.requirement.names_version
        return self.versions.names_version

    def bind(self, host: Host) -> Spec:
        """Return the spec with ``os=fe``, ``target=be`` and the like replaced by the host's own values.

        Raises:
            SpecSyntaxError: the node asks for another platform than the host's.
        """
        edges = tuple(changed(edge, spec=edge.spec.bind(host)) for edge in self.edges)
        os = host.os if self.os in HOST_OS_WORDS else self.os
        target = host.target if self.target in HOST_TARGET_WORDS else self.target
        if (os, target) == (self.os, self.target):
            return changed(self, edges=edges)
        if self.platform and self.platform != host.platform:
            text = str(self)
            raise SpecSyntaxError(
                f"the spec asks for platform {self.platform} and for a name that stands for this host's "
                f"({host.platform})",
                text,
                0,
                len(text),
                hint="write the operating system and target by their names",
            )
        return changed(self, edges=edges, os=os, target=target, platform=host.platform)

    def satisfies(self, other: Spec) -> bool:
        """Return whether every concrete spec that meets this one meets `other` too."""
        from .relations import satisfies

        return satisfies(self, other)

    def intersects(self, other: Spec) -> bool:
        """Return whether some concrete spec could meet both."""
        from .relations import intersects

        return intersects(self, other)


#: The fields that make two specs equal: all but the remarks.
_COMPARED = (
    "name",
    "namespace",
    "versions",
    "variants",
    "flags",
    "platform",
    "os",
    "target",
    "hash",
    "edges",
    "requirement",
)


#: What can stand after `=` without quotes.
_BARE = r"[A-Za-z0-9_\-+*.,:=%^~/\\]+"


def quoted(value: str) -> str:
    """Return a value as it can stand after ``=``: bare if plain, else in quotes."""
    return value if re.fullmatch(r"[A-Za-z0-9,/_.-]+", value) else _quotes(value)


def _target_text(value: str) -> str:
    """Return a target as it can stand after ``=``: ranges are not quoted (Spack 1.1)."""
    return value if re.fullmatch(rf"(?!=){_BARE}", value) else _quotes(value)


def _quotes(value: str) -> str:
    if "'" not in value and not value.endswith("\\"):
        return f"'{value}'"
    if value.endswith("\\") and re.fullmatch(_BARE, value):
        return value  # in quotes, a final backslash would hide the closing one
    escaped = value.replace('"', '\\"')
    return f'"{escaped}"'


def _needs_star(spec: Spec) -> bool:
    """Return whether an anonymous dependency needs ``*``, so that its text binds to it again."""
    if spec.name or not spec.versions.is_any:
        return False
    if spec.flags or spec.platform or spec.os or spec.target:
        return True
    return not any(isinstance(variant.value, bool) for variant in spec.variants.values())
