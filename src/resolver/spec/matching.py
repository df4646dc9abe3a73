"""Does a concrete node meet a spec, and if not, why: the matcher that agrees with Spack's `satisfies`.

`mismatches` yields every constraint that fails, in the order of the gates; `satisfies` stops at the first.
Source: Spack 1.1 `spec.py` (`_satisfies`), docs/semantics.md ("Matching"). Where Spack has a defect that the
documentation lists (`platform=*` skips the other fields, `%clang` on old nodes), the sensible thing is done.
"""

from __future__ import annotations

from ...errors import UsageError
from ...values import changed
from .. import targets
from ..model import LANGUAGES, Mismatch
from .values import MODERN_COMPILERS
from .versions import ANY, parse_version

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..model import Dag, Edge, Node
    from .values import Dependency, Spec, Variant

#: Package names of compilers, as Spack 1.x names them. On an old node `%NAME` of these asks its annotation.
COMPILERS = frozenset(MODERN_COMPILERS.values()) | frozenset(
    ("gcc", "apple-clang", "aocc", "cce", "nvhpc", "xl", "xl_r", "fj", "nag", "msvc", "pgi", "dpcpp", "cray")
)

_PAGE_HAS_NO_EDGES = "dependencies are not recorded on a cache page"
_PAGE_HAS_NO_FLAGS = "flags are not recorded on a cache page"


def modern_compiler(name: str) -> str:
    """Return the package name of a compiler: `clang` is `llvm`, `oneapi` is `intel-oneapi-compilers`, ..."""
    return MODERN_COMPILERS.get(name, name)


def display_compiler(node: Node, dag: Dag) -> tuple[str, str] | None:
    """Return (modern name, version) of the compiler that built a node, None where none is recorded.

    The provider of c counts, else that of cxx, else of fortran, else the compiler recorded on the node itself.
    The version is "" where no source has the compiler's node.
    """
    for language in LANGUAGES:
        for edge in node.edges:
            if language in edge.virtuals:
                child = dag.get(edge.hash)
                return (child.name, child.version) if child else (edge.name, "")
    return (modern_compiler(node.compiler[0]), node.compiler[1]) if node.compiler else None


def satisfies(node: Node, spec: Spec, dag: Dag) -> bool:
    """Return whether the node, with its dependencies in `dag`, meets every constraint of the spec.

    Raises:
        UsageError: a target range of the spec has a bound that is no known target.
    """
    return next(mismatches(node, spec, dag), None) is None


def mismatches(node: Node, spec: Spec, dag: Dag) -> Iterator[Mismatch]:
    """Yield every constraint that the node does not meet, in the order of the gates (docs/semantics.md).

    Args:
        node: the concrete node.
        spec: the constraints.
        dag: looks up the dependencies of the node.

    Raises:
        UsageError: a target range of the spec has a bound that is no known target.
    """
    yield from _node_mismatches(node, spec, dag)
    if spec.edges:
        yield from _edge_mismatches(node, spec, dag)


def _node_mismatches(node: Node, spec: Spec, dag: Dag) -> Iterator[Mismatch]:
    """Yield what fails on the node itself; `dag` is walked for propagated variants only."""
    if spec.name and spec.name != node.name and spec.name not in _provided(node):
        yield Mismatch("name", node.name, spec.name)
    if spec.hash and not node.hash.startswith(spec.hash):
        yield Mismatch("hash", f"/{node.hash[:7]}", f"/{spec.hash}")
    if spec.namespace and node.namespace and spec.namespace != node.namespace:
        yield Mismatch("namespace", node.namespace, spec.namespace)
    if spec.requirement is not None or not spec.versions.is_any:
        yield from _version_mismatches(node, spec, dag)
    for variant in spec.variants.values():
        if variant.propagate:
            yield from _propagated_mismatches(node, variant, dag)
        else:
            yield from _variant_mismatches(node, variant)
    if spec.flags:
        yield from _flag_mismatches(node, spec)
    if spec.platform or spec.os or spec.target:
        yield from _place_mismatches(node, spec)


def _provided(node: Node) -> list[str]:
    """Return the names of the virtuals that the node says it provides (specfile 6: `libgfortran@5`)."""
    return [text.partition("@")[0] for text in node.provided]


# -- version ---------------------------------------------------------------------------------------------------


def _version_mismatches(node: Node, spec: Spec, dag: Dag) -> Iterator[Mismatch]:
    if spec.requirement is not None:
        if spec.requirement.applies_to(node, dag) and not spec.requirement.contains(node.version):
            yield Mismatch("version", node.version, str(spec.requirement))
        return
    versions = spec.versions
    if spec.name and spec.name in _provided(node):  # the version of a virtual, not of the provider
        yield from _virtual_version(node, spec)
        return
    version = parse_version(node.version)
    if versions.contains(version):
        return
    code = "version"
    exact = versions.exact
    if exact is not None:
        release, wanted = version.key[0], exact.key[0]
        code = "version-exact" if release[: len(wanted)] == wanted and not exact.is_git else "version"
    elif version.is_prerelease and versions.contains(parse_version(version.up_to(len(version.key[0])))):
        code = "version-prerelease"
    yield Mismatch(code, node.version, f"@{versions}")


def _virtual_version(node: Node, spec: Spec) -> Iterator[Mismatch]:
    """The version of a virtual is known only where the node records what it provides."""
    for text in node.provided:
        name, _, version = text.partition("@")
        if name == spec.name and version and spec.versions.contains(parse_version(version)):
            return
    yield Mismatch("virtual-version", f"{node.name} as {spec.name}", f"{spec.name}@{spec.versions}")


# -- variants and flags ----------------------------------------------------------------------------------------


def _variant_mismatches(node: Node, wanted: Variant) -> Iterator[Mismatch]:
    have = node.variants.get(wanted.name)
    if have is None:
        yield Mismatch("variant-absent", ", ".join(sorted(node.variants)) or "none", str(wanted))
    elif not _variant_fits(node, have, wanted):
        is_superset = wanted.exact and _has_values(have, wanted)
        yield Mismatch(
            "variant-exact" if is_superset else "variant", _variant_text(wanted.name, have), str(wanted)
        )


def _variant_fits(node: Node, have: bool | str | tuple[str, ...], wanted: Variant) -> bool:
    if isinstance(wanted.value, bool):
        return have is wanted.value
    if not wanted.value:  # `x=*`: the variant exists
        return True
    if isinstance(have, bool):
        return False
    values = (have,) if isinstance(have, str) else have
    if wanted.exact:
        return tuple(sorted(set(values))) == wanted.value
    if wanted.name == "patches":
        return all(any(_patch_fits(node, value, prefix) for value in values) for prefix in wanted.value)
    return all(value in values for value in wanted.value)


def _patch_fits(node: Node, value: str, prefix: str) -> bool:
    """Patches are asked for by a prefix of their sha256; a cache page records only a prefix itself."""
    return value.startswith(prefix) or (node.partial and prefix.startswith(value))


def _has_values(have: bool | str | tuple[str, ...], wanted: Variant) -> bool:
    if isinstance(have, bool) or isinstance(wanted.value, bool):
        return False
    return set(wanted.value) <= set((have,) if isinstance(have, str) else have)


def _variant_text(name: str, have: bool | str | tuple[str, ...]) -> str:
    if isinstance(have, bool):
        return ("+" if have else "~") + name
    return f"{name}={have if isinstance(have, str) else ','.join(have)}"


def _propagated_mismatches(node: Node, wanted: Variant, dag: Dag) -> Iterator[Mismatch]:
    """`++x` asks every node of the whole DAG that has the variant."""
    for each in _whole_dag(node, dag):
        have = each.variants.get(wanted.name)
        if have is not None and not _variant_fits(each, have, wanted):
            yield Mismatch("variant", f"{each.name} {_variant_text(wanted.name, have)}", str(wanted))
            return


def _whole_dag(node: Node, dag: Dag) -> Iterator[Node]:
    seen = {node.hash}
    waiting = [node]
    while waiting:
        current = waiting.pop()
        yield current
        for edge in current.edges:
            if edge.hash not in seen:
                seen.add(edge.hash)
                child = dag.get(edge.hash)
                if child is not None:
                    waiting.append(child)


def _flag_mismatches(node: Node, spec: Spec) -> Iterator[Mismatch]:
    for flags in spec.flags:
        if node.partial:
            yield Mismatch("flags", _PAGE_HAS_NO_FLAGS, str(flags))
            continue
        recorded = node.flags.get(flags.name, ())
        words = {word for text in recorded for word in text.split()}
        if not words.issuperset(flags.words):
            have = f"{flags.name}='{' '.join(recorded)}'" if recorded else f"no {flags.name}"
            yield Mismatch("flags", have, str(flags))


# -- platform, operating system, target ------------------------------------------------------------------------


def _place_mismatches(node: Node, spec: Spec) -> Iterator[Mismatch]:
    """Yield the fields that differ; `*` only asks that the field is set (per field, unlike Spack)."""
    if spec.os and spec.os != node.os and not (spec.os == "*" and node.os):
        yield Mismatch("query-os", node.os, f"os={spec.os}")
    if spec.target and not target_fits(node.target, spec.target):
        yield Mismatch("query-target", node.target, f"target={spec.target}")
    if spec.platform and spec.platform != node.platform and not (spec.platform == "*" and node.platform):
        yield Mismatch("query-platform", node.platform, f"platform={spec.platform}")


def target_fits(target: str, wanted: str) -> bool:
    """Return whether a concrete target meets ``target=WANTED``: names, ranges over the partial order, a list.

    Raises:
        UsageError: the bound of a range is no known target.
    """
    if wanted == "*":
        return bool(target)
    fits = False
    for item in wanted.split(","):
        low, colon, high = item.partition(":")
        if not colon:
            fits = fits or item == target
            continue
        _check_bounds(low, high, wanted)
        above = not low or targets.is_within(low, target)
        fits = fits or (above and (not high or targets.is_within(target, high)))
    return fits


def _check_bounds(low: str, high: str, wanted: str) -> None:
    for bound in (low, high):
        if bound and not targets.is_known(bound):
            raise UsageError(
                f"`{bound}` in target={wanted} is not a known target, so it cannot bound a range",
                hint="known names are those of archspec, for example x86_64_v3, zen4, neoverse_v2",
                context={"target": bound},
            )


# -- dependencies ----------------------------------------------------------------------------------------------


def _edge_mismatches(node: Node, spec: Spec, dag: Dag) -> Iterator[Mismatch]:
    reachable: tuple[Edge, ...] | None = None
    for wanted in spec.edges:
        if wanted.when is not None and not satisfies(node, wanted.when, dag):
            continue
        if wanted.direct:
            failed = _direct(node, wanted, dag)
        else:
            if reachable is None:
                reachable = visible_edges(node, dag)
            failed = _transitive(node, wanted, reachable, dag)
        if failed is not None:
            yield failed


def visible_edges(node: Node, dag: Dag) -> tuple[Edge, ...]:
    """Return the edges that ``^`` sees: all link and run edges from the root down, and the root's build edges."""
    found = [edge for edge in node.edges if edge.in_closure or "build" in edge.types]
    waiting = [edge for edge in found if edge.in_closure]
    seen = {edge.hash for edge in waiting}
    for edge in waiting:  # grows while it is walked: breadth first
        child = dag.get(edge.hash)
        if child is None:
            continue
        for below in child.edges:
            if below.in_closure:
                found.append(below)
                if below.hash not in seen:
                    seen.add(below.hash)
                    waiting.append(below)
    return tuple(found)


def _child_fits(edge: Edge, wanted: Spec, dag: Dag) -> bool:
    """Return whether the child of an edge meets a constraint, by its name or by a virtual on the edge."""
    child = dag.get(edge.hash)
    if child is None:  # only the edge is known: its name, virtuals and hash
        return _is_bare(wanted) and edge.hash.startswith(wanted.hash)
    if wanted.name and wanted.name != child.name:
        # A label says that the child is a provider, nothing about the version of the virtual.
        if not wanted.versions.is_any and next(_virtual_version(child, wanted), None) is not None:
            return False
        wanted = changed(wanted, name="", versions=ANY)
    if next(_node_mismatches(child, wanted, dag), None) is not None:
        return False
    return not wanted.edges or next(_edge_mismatches(child, wanted, dag), None) is None


def _is_bare(spec: Spec) -> bool:
    place = spec.platform or spec.os or spec.target
    return spec.versions.is_any and not (spec.variants or spec.flags or place or spec.edges or spec.namespace)


def _named(edge: Edge, name: str) -> bool:
    return not name or edge.name == name or name in edge.virtuals


def _direct(node: Node, wanted: Dependency, dag: Dag) -> Mismatch | None:
    """Return why the node has no direct dependency as asked with ``%``, None if it has one."""
    child = wanted.spec
    is_compiler = child.name in COMPILERS or not child.name
    if is_compiler and node.format < 5 and node.compiler and _annotation_fits(node.compiler, child):
        return None
    if node.partial:
        return _partial_mismatch(node, wanted, is_compiler=child.name in COMPILERS)
    # Languages are not recorded below format 5: `%fortran=gcc` asks the annotation only, as `%gcc` does.
    if not (child.name in COMPILERS and node.format < 5):
        candidates = [edge for edge in node.edges if _named(edge, child.name)]
        labelled = [e for e in candidates if not wanted.virtuals or set(wanted.virtuals) & set(e.virtuals)]
        typed = [edge for edge in labelled if set(wanted.deptypes) <= set(edge.types)]
        if any(_child_fits(edge, child, dag) for edge in typed):
            return None
        if candidates and not labelled and child.name in COMPILERS:
            provided = ",".join(sorted({v for edge in candidates for v in edge.virtuals})) or "no language"
            return Mismatch("compiler-lang", f"{child.name} provides {provided}", str(wanted))
        if typed and child.name not in COMPILERS:
            return _dependency_mismatch(typed, wanted, dag)
    return _absent_direct(node, wanted, dag)


def _annotation_fits(compiler: tuple[str, str], child: Spec) -> bool:
    """Return whether the compiler recorded on a node, nothing but a name and a version, meets a constraint."""
    if child.name and child.name != modern_compiler(compiler[0]):
        return False
    if (
        child.variants
        or child.flags
        or child.platform
        or child.os
        or child.target
        or child.hash
        or child.edges
    ):
        return False
    return child.versions.is_any or child.versions.contains(parse_version(compiler[1]))


def _partial_mismatch(node: Node, wanted: Dependency, *, is_compiler: bool) -> Mismatch | None:
    """A page records one compiler and no dependencies, whatever the format of its nodes."""
    if not is_compiler:
        return Mismatch("dependency-missing", _PAGE_HAS_NO_EDGES, str(wanted))
    if node.compiler is None:
        return Mismatch("no-compiler", "no compiled code", str(wanted))
    if _annotation_fits(node.compiler, wanted.spec):
        return None
    name, version = modern_compiler(node.compiler[0]), node.compiler[1]
    return Mismatch("compiler", f"{name}@{version}", str(wanted))


def _absent_direct(node: Node, wanted: Dependency, dag: Dag) -> Mismatch:
    asks_compiler = wanted.spec.name in COMPILERS or bool(set(wanted.virtuals) & set(LANGUAGES))
    if not asks_compiler:
        asked = wanted.spec.name or "that"
        return Mismatch("dependency-missing", f"no direct dependency {asked}", str(wanted))
    own = display_compiler(node, dag)
    if own is None:
        return Mismatch("no-compiler", "no compiled code", str(wanted))
    return Mismatch("compiler", "@".join(part for part in own if part), str(wanted))


def _transitive(node: Node, wanted: Dependency, reachable: tuple[Edge, ...], dag: Dag) -> Mismatch | None:
    """Return why no dependency is as asked with ``^``, None if there is one."""
    if node.partial:
        return Mismatch("dependency-missing", _PAGE_HAS_NO_EDGES, str(wanted))
    candidates = [edge for edge in reachable if _named(edge, wanted.spec.name)]
    if not candidates:
        return _missing(reachable, wanted, dag)
    for virtual in wanted.virtuals:
        if not any(virtual in edge.virtuals for edge in candidates):
            return _missing(reachable, wanted, dag)
    if any(_child_fits(edge, wanted.spec, dag) for edge in candidates):
        return None
    return _dependency_mismatch(candidates, wanted, dag)


def _missing(reachable: tuple[Edge, ...], wanted: Dependency, dag: Dag) -> Mismatch:
    """Say what is absent, and which other package provides the virtual that was asked for."""
    have = f"no {wanted.spec.name or 'such dependency'}"
    for virtual in wanted.virtuals:
        edge = next((edge for edge in reachable if virtual in edge.virtuals), None)
        if edge is not None:
            have += f"; {_edge_text(edge, dag)} for {virtual}"
    return Mismatch("dependency-missing", have, str(wanted))


def _edge_text(edge: Edge, dag: Dag) -> str:
    child = dag.get(edge.hash)
    return f"{child.name}@{child.version}" if child else edge.name


def _dependency_mismatch(candidates: list[Edge], wanted: Dependency, dag: Dag) -> Mismatch:
    """Return how the first candidate differs."""
    edge = candidates[0]
    child = dag.get(edge.hash)
    if child is None:
        return Mismatch("dependency", f"{edge.name}: no source records /{edge.hash[:7]}", str(wanted))
    spec = wanted.spec
    if spec.name and spec.name != child.name:
        if not spec.versions.is_any and next(_virtual_version(child, spec), None) is not None:
            return Mismatch("virtual-version", f"{child.name}@{child.version}", str(wanted))
        spec = changed(spec, name="", versions=ANY)
    first = next(mismatches(child, spec, dag), None)
    detail = "" if first is None or first.code.startswith("version") else f" with {first.have}"
    return Mismatch("dependency", f"{child.name}@{child.version}{detail}", str(wanted))
