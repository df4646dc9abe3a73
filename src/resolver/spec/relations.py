"""How two specs relate without a concrete node: one narrower than the other, compatible, or both at once.

Source: Spack 1.1 `spec.py` (`satisfies`, `intersects`, `constrain`), docs/semantics.md ("Two specs").
"""

from __future__ import annotations

from ...values import changed
from .. import targets
from .values import Dependency, Flags, Spec, Variant

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


def satisfies(spec: Spec, other: Spec) -> bool:
    """Return whether every concrete spec that meets `spec` meets `other` too, as Spack 1.1 answers it.

    Two answers are wider than that sentence, as in Spack: an anonymous spec is not asked for its name, and
    target ranges need to overlap only.
    """
    if not _node_satisfies(spec, other):
        return False
    return all(_edge_satisfied(spec, other.name, edge) for edge in other.edges)


def _node_satisfies(spec: Spec, other: Spec) -> bool:
    if other.name and spec.name and spec.name != other.name:
        return False
    if other.namespace and spec.namespace and spec.namespace != other.namespace:
        return False
    if not spec.hash.startswith(other.hash) or not spec.versions.satisfies(other.versions):
        return False
    if not all(_variant_satisfies(spec.variants, variant) for variant in other.variants.values()):
        return False
    words = {flags.name: set(flags.words) for flags in spec.flags}
    if not all(
        set(flags.words) <= words.get(flags.name, set()) for flags in other.flags if not flags.propagate
    ):
        return False
    for mine, theirs in ((spec.platform, other.platform), (spec.os, other.os)):
        if theirs and mine != theirs and not (theirs == "*" and mine):
            return False
    return not other.target or bool(spec.target and _targets_meet(spec.target, other.target))


def _variant_satisfies(variants: Mapping[str, Variant], wanted: Variant) -> bool:
    if wanted.propagate:  # met by every node without that variant
        mine = variants.get(wanted.name)
        return mine is None or _values_satisfy(mine, wanted)
    mine = variants.get(wanted.name)
    return mine is not None and not mine.propagate and _values_satisfy(mine, wanted)


def _values_satisfy(mine: Variant, wanted: Variant) -> bool:
    if isinstance(wanted.value, bool) or isinstance(mine.value, bool):
        return wanted.value == () or mine.value == wanted.value
    if wanted.exact:
        return mine.exact and mine.value == wanted.value
    return set(wanted.value) <= set(mine.value)


def _edge_satisfied(spec: Spec, parent: str, wanted: Dependency) -> bool:
    if wanted.when is not None and not intersects(spec, wanted.when):
        return True
    if wanted.direct and parent and parent != spec.name:
        return False  # the package whose direct dependency is asked for does not occur (Spack 1.1)
    found = spec.edges if wanted.direct else tuple(_all_edges(spec))
    for mine in found:
        if wanted.direct and not mine.direct:
            continue
        if not set(wanted.virtuals) <= set(mine.virtuals) or not set(wanted.deptypes) <= set(mine.deptypes):
            continue
        # `^mpi` is met by an edge that provides the virtual mpi.
        named = wanted.spec.name in mine.virtuals and wanted.spec.versions.is_any
        child = changed(wanted.spec, name="") if named else wanted.spec
        if satisfies(mine.spec, child):
            return True
    return False


def _all_edges(spec: Spec) -> list[Dependency]:
    return [found for edge in spec.edges for found in (edge, *_all_edges(edge.spec))]


def intersects(spec: Spec, other: Spec) -> bool:
    """Return whether some concrete spec could meet both."""
    if not _nodes_intersect(spec, other):
        return False
    mine = {edge.spec.name: edge for edge in spec.edges if edge.spec.name}
    pairs = ((mine.get(edge.spec.name), edge) for edge in other.edges)
    return all(
        old is None
        or old.direct != new.direct
        or old.virtuals != new.virtuals
        or intersects(old.spec, new.spec)
        for old, new in pairs
    )


def _nodes_intersect(spec: Spec, other: Spec) -> bool:
    try:
        merge_nodes(spec, other)
    except ValueError:
        return False
    return True


def merge_nodes(spec: Spec, other: Spec) -> Spec:
    """Return the node that meets both, without regard to edges.

    Raises:
        ValueError: no node can meet both; the message says in what they differ.
    """
    variants = dict(spec.variants)
    for name, variant in other.variants.items():
        variants[name] = _merge_variant(variants[name], variant) if name in variants else variant
    if not spec.versions.intersects(other.versions):
        raise ValueError(f"no version is in both @{spec.versions} and @{other.versions}")
    if not (spec.hash.startswith(other.hash) or other.hash.startswith(spec.hash)):
        raise ValueError(f"/{spec.hash} and /{other.hash} are different hashes")
    same = spec.versions == other.versions  # keeps an empty range as it is written
    return changed(
        spec,
        name=_merge_text("name", spec.name, other.name),
        namespace=_merge_text("namespace", spec.namespace, other.namespace),
        versions=spec.versions if same else spec.versions.intersection(other.versions),
        variants=variants,
        flags=_merge_flags(spec.flags, other.flags),
        platform=_merge_text("platform", spec.platform, other.platform),
        os=_merge_text("os", spec.os, other.os),
        target=_merge_target(spec.target, other.target),
        hash=max(spec.hash, other.hash, key=len),
    )


def _merge_text(what: str, mine: str, theirs: str) -> str:
    if not mine or not theirs or mine == theirs:
        return mine or theirs
    if "*" in (mine, theirs) and what != "name":
        return theirs if mine == "*" else mine
    raise ValueError(f"{what} is {mine} in one and {theirs} in the other")


def _merge_variant(mine: Variant, theirs: Variant) -> Variant:
    conflict = ValueError(f"{mine} and {theirs} exclude each other")
    propagate = mine.propagate and theirs.propagate
    if theirs.value == () or mine.value == ():
        return changed(mine if theirs.value == () else theirs, propagate=propagate)
    if isinstance(mine.value, bool) or isinstance(theirs.value, bool):
        if mine.value is not theirs.value:
            raise conflict
        return changed(mine, propagate=propagate)
    values = tuple(sorted({*mine.value, *theirs.value}))
    if (mine.exact and values != mine.value) or (theirs.exact and values != theirs.value):
        raise conflict
    return Variant(mine.name, values, mine.exact or theirs.exact, propagate)


def _merge_flags(mine: tuple[Flags, ...], theirs: tuple[Flags, ...]) -> tuple[Flags, ...]:
    found: dict[tuple[str, bool], tuple[str, ...]] = {}
    for flags in mine + theirs:
        old = found.get((flags.name, flags.propagate), ())
        found[flags.name, flags.propagate] = old + tuple(word for word in flags.words if word not in old)
    return tuple(Flags(name, words, propagate) for (name, propagate), words in sorted(found.items()))


def _merge_target(mine: str, theirs: str) -> str:
    if not mine or not theirs or mine == theirs:
        return mine or theirs
    if target_satisfies(mine, theirs):
        return mine
    if target_satisfies(theirs, mine):
        return theirs
    if found := _targets_meet(mine, theirs):
        return found
    raise ValueError(f"target is {mine} in one and {theirs} in the other")


def _targets_meet(mine: str, theirs: str) -> str:
    """Return the targets that both allow, "" if there are none."""
    if "*" in (mine, theirs):
        return theirs if mine == "*" else mine
    items = [_meet_targets(a, b) for a in mine.split(",") for b in theirs.split(",")]
    return ",".join(sorted({item for item in items if item}))


def _meet_targets(mine: str, theirs: str) -> str:
    """Return the item (name or range) that lies in both, "" if none is known."""
    if ":" not in mine or ":" not in theirs:
        name, bounds = (theirs, mine) if ":" in mine else (mine, theirs)
        return name if target_satisfies(name, bounds) else ""
    low = _tighter([mine.partition(":")[0], theirs.partition(":")[0]])
    high = _tighter([mine.partition(":")[2], theirs.partition(":")[2]], upper=True)
    if low is None or high is None or (low and high and not targets.is_within(low, high)):
        return ""
    return f"{low}:{high}"


def _tighter(bounds: list[str], *, upper: bool = False) -> str | None:
    given = [bound for bound in bounds if bound]
    if len(given) < 2:
        return given[0] if given else ""
    first, second = given
    if targets.is_within(first, second):
        return first if upper else second
    if targets.is_within(second, first):
        return second if upper else first
    return None


def target_satisfies(mine: str, theirs: str) -> bool:
    """Return whether every target that `mine` allows is allowed by `theirs` (names, ranges, lists, ``*``)."""
    if theirs == "*":
        return True
    return all(any(_target_within(a, b) for b in theirs.split(",")) for a in mine.split(","))


def _target_within(mine: str, theirs: str) -> bool:
    if ":" not in theirs:
        return mine == theirs
    low, _, high = theirs.partition(":")
    my_low, colon, my_high = mine.partition(":")
    if not colon:
        my_high = my_low
    low_fits = not low or (bool(my_low) and targets.is_within(low, my_low))
    high_fits = not high or (bool(my_high) and targets.is_within(my_high, high))
    return low_fits and high_fits


def merge_edges(mine: tuple[Dependency, ...], theirs: tuple[Dependency, ...]) -> tuple[Dependency, ...]:
    """Return both lists of edges as one, sorted; edges to one name and of one kind become one edge.

    Raises:
        ValueError: two edges to one name exclude each other; the message names both.
    """
    found = list(mine)
    for edge in theirs:
        place = next((i for i, old in enumerate(found) if _same_kind(old, edge)), None)
        if place is None:
            found.append(edge)
        else:
            found[place] = _merge_edge(found[place], edge)
    return tuple(sorted(found, key=lambda edge: (not edge.direct, edge.spec.name, str(edge))))


def _same_kind(old: Dependency, new: Dependency) -> bool:
    return bool(new.spec.name) and (old.spec.name, old.direct, old.deptypes, old.when) == (
        new.spec.name,
        new.direct,
        new.deptypes,
        new.when,
    )


def _merge_edge(old: Dependency, new: Dependency) -> Dependency:
    try:
        node = merge_nodes(old.spec, new.spec)
    except ValueError as error:
        raise ValueError(f"a package cannot depend on both {old.spec} and {new.spec}: {error}") from None
    spec = changed(node, edges=merge_edges(old.spec.edges, new.spec.edges))
    virtuals = tuple(sorted({*old.virtuals, *new.virtuals}))
    return changed(old, spec=spec, virtuals=virtuals, propagate=old.propagate or new.propagate)
