"""In what two builds of one package differ, nearest the root first (pure)."""

from __future__ import annotations

from .resolution import Difference
from .spec.matching import display_compiler

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from .model import Dag, Node


class Comparison:
    """Compares other builds of a package with the one that was chosen.

    Args:
        best: the chosen node.
        dag: look-up of nodes.
        below: returns the link and run dependencies of a node, nearest first; externals may come last.
    """

    def __init__(self, best: Node, dag: Dag, below: Callable[[Node], Iterable[Node]]) -> None:
        self._best, self._dag, self._below = best, dag, below
        self._mine = self._by_name(best)
        self._known: dict[tuple[str, str], tuple[Difference, ...]] = {}

    def differences(self, other: Node) -> tuple[Difference, ...]:
        """Return the visible differences along the link and run edges, breadth first.

        () means that the two differ only in what is not visible there: build dependencies, the recipe, or the build
        environment. Pages record no edges: only the nodes themselves are compared.
        """
        mine, theirs = self._mine, self._by_name(other)
        found = list(_attributes(self._best, other, self._dag))
        for name in dict.fromkeys((*mine, *theirs)):
            one, two = mine.get(name), theirs.get(name)
            if one is None or two is None:
                found.append(Difference(name, "dependency", _present(two), _present(one)))
            elif one.hash != two.hash:
                found += self._between(one, two)
        return tuple(found)

    def _by_name(self, root: Node) -> dict[str, Node]:
        found: dict[str, Node] = {}
        for node in self._below(root):
            found.setdefault(node.name, node)
        return found

    def _between(self, one: Node, two: Node) -> tuple[Difference, ...]:
        """Return the differences of two dependencies; other builds have the same ones."""
        key = (one.hash, two.hash)
        if key not in self._known:
            self._known[key] = tuple(_attributes(one, two, self._dag))
        return self._known[key]


def _present(node: Node | None) -> str:
    return node.version if node else "absent"


def _attributes(best: Node, other: Node, dag: Dag) -> Iterator[Difference]:
    name = other.name
    if _plain(best) == _plain(other) and _compiler(best, dag) == _compiler(other, dag):
        return
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


def _plain(node: Node) -> tuple[object, ...]:
    """Return all that `_attributes` compares, but for the compiler."""
    place = (node.platform, node.os, node.target, node.external)
    return (node.version, node.variants, place, node.namespace, node.format, node.build_spec, node.flags)


def _compiler(node: Node, dag: Dag) -> str | None:
    own = display_compiler(node, dag)
    return f"{own[0]}@{own[1]}" if own else None


def _text(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ",".join(value) if isinstance(value, tuple) else str(value)
