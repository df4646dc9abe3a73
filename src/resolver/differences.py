"""In what two builds of one package differ, nearest the root first (pure)."""

from __future__ import annotations

from .resolution import Difference
from .spec.matching import display_compiler

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .model import Dag, Node


def differences(best: Node, other: Node, dag: Dag) -> tuple[Difference, ...]:
    """Return the visible differences along the link and run edges, breadth first.

    () means that the two differ only in what is not visible there: build dependencies, the recipe, or the build
    environment. Pages record no edges: only the nodes themselves are compared.
    """
    found = list(_attributes(best, other, dag))
    mine, theirs = _below(best, dag), _below(other, dag)
    for name in dict.fromkeys((*mine, *theirs)):
        one, two = mine.get(name), theirs.get(name)
        if one is None or two is None:
            found.append(Difference(name, "dependency", _present(two), _present(one)))
        elif one.hash != two.hash:
            found += _attributes(one, two, dag)
    return tuple(found)


def _present(node: Node | None) -> str:
    return node.version if node else "absent"


def _below(root: Node, dag: Dag) -> dict[str, Node]:
    """Return the closure without the root by package name, nearest first."""
    found: dict[str, Node] = {}
    waiting, seen = [root], {root.hash}
    for node in waiting:  # grows while it is walked: breadth first
        for edge in node.closure_edges():
            child = dag.get(edge.hash)
            if child is not None and edge.hash not in seen:
                seen.add(edge.hash)
                waiting.append(child)
                found.setdefault(child.name, child)
    return found


def _attributes(best: Node, other: Node, dag: Dag) -> Iterator[Difference]:
    name = other.name
    pairs: list[tuple[str, object, object]] = [
        ("version", other.version, best.version),
        ("namespace", other.namespace, best.namespace),
        ("platform", other.platform, best.platform),
        ("os", other.os, best.os),
        ("target", other.target, best.target),
        ("compiler", _compiler(other, dag), _compiler(best, dag)),
        ("prefix", other.external, best.external),
        ("specfile", other.format, best.format),
        ("spliced from", other.build_spec, best.build_spec),
    ]
    pairs += [
        (f"variant {variant}", other.variants.get(variant), best.variants.get(variant))
        for variant in sorted({*other.variants, *best.variants})
    ]
    pairs += [(f, other.flags.get(f), best.flags.get(f)) for f in sorted({*other.flags, *best.flags})]
    for what, have, kept in pairs:
        if have != kept:
            yield Difference(name, what, _text(have), _text(kept))


def _compiler(node: Node, dag: Dag) -> str | None:
    own = display_compiler(node, dag)
    return f"{own[0]}@{own[1]}" if own else None


def _text(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ",".join(value) if isinstance(value, tuple) else str(value)
