"""The microarchitecture table: names, their partial order, and which binary runs on which host.

Names and order are archspec's, as Spack uses them (Spack 1.1 `spec.py` and archspec 0.2, docs/host.md).
The table is generated, so that no start pays for the import of archspec.

Names that the table lacks never raise: such a target is its own family, has no ancestors, no features and
the vendor "". So it compares equal to itself only, and `is_known` tells it apart.
"""

from __future__ import annotations

import re
from functools import cache

from ._microarchitectures import ARCHSPEC_VERSION, TABLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

#: Version of archspec that the table was made from.
TABLE_VERSION = ARCHSPEC_VERSION

_EMPTY: frozenset[str] = frozenset()


def names() -> tuple[str, ...]:
    """Return all known target names, in archspec's order."""
    return tuple(TABLE)


def is_known(name: str) -> bool:
    """Return whether the table has this target name."""
    return name in TABLE


def parents(name: str) -> tuple[str, ...]:
    """Return the direct parents, () for a family or an unknown name."""
    row = TABLE.get(name)
    return row[1] if row else ()


@cache
def ancestors(name: str) -> tuple[str, ...]:
    """Return the ancestors without the target itself: parents first, then theirs, as archspec orders them."""
    found = list(parents(name))
    for parent in parents(name):
        found += [ancestor for ancestor in ancestors(parent) if ancestor not in found]
    return tuple(found)


@cache
def family(name: str) -> str:
    """Return the ancestor-or-self without parents (x86_64, aarch64, ...); the name itself when unknown."""
    return next(target for target in (name, *ancestors(name)) if not parents(target))


def generic(name: str) -> str:
    """Return the deepest generic target among the target and its ancestors; the name itself when unknown."""
    generics = [target for target in (name, *ancestors(name)) if vendor(target) == "generic"]
    return max(generics, key=lambda target: len(ancestors(target))) if generics else name


@cache
def features(name: str) -> frozenset[str]:
    """Return the CPU features in archspec's names (`avx512f`); empty where none are listed or unknown."""
    row = TABLE.get(name)
    return frozenset(row[2].split()) if row else _EMPTY


def generation(name: str) -> int:
    """Return the generation of a POWER target (9 for ``power9le``), 0 for every other name."""
    match = re.match(r"power(\d+)", name)
    return int(match[1]) if match else 0


def vendor(name: str) -> str:
    """Return the vendor as archspec writes it (`GenuineIntel`, `generic`), "" for an unknown name."""
    row = TABLE.get(name)
    return row[0] if row else ""


@cache
def _closure(name: str) -> frozenset[str]:
    return frozenset((name, *ancestors(name)))


def is_within(lower: str, upper: str) -> bool:
    """Return whether ``lower <= upper``: {self + ancestors} of `lower` is part of that of `upper`.

    A partial order: a vendor target is never below a generic one (`haswell` is not within `x86_64_v3`).
    Source: Spack 1.1 target ranges, docs/semantics.md.
    """
    return _closure(lower) <= _closure(upper)


def runs_on(target: str, host_target: str) -> bool:
    """Return whether a binary for `target` runs on a host: its own target or one of its ancestors.

    Stricter than CPU features: code for `skylake` is not offered to a `zen4` host (Spack 1.1).
    """
    return target == host_target or target in ancestors(host_target)


def recorded_family(recorded: Iterable[str]) -> str:
    """Return the family that the recorded parents of an unknown target have in common, "" when they tell none."""
    families = {family(parent) if is_known(parent) else "" for parent in recorded}
    return families.pop() if len(families) == 1 else ""
