"""In which order packages are packed: what others need comes first. Pure."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence


def dependencies_first(hashes: Sequence[str], needed_by: Callable[[str], Iterable[str]]) -> list[str]:
    """Return DAG hashes, each after those of them that it needs, also through nodes that are not among them.

    Whoever has the first volumes of several then has packages with all that they need. The order depends on nothing but
    the arguments: that of `hashes` where nothing else decides.

    Args:
        hashes: of the packages to be packed.
        needed_by: returns the hashes that a node needs to link or run.
    """
    wanted, seen, ordered = set(hashes), set[str](), list[str]()
    for first in hashes:
        if first in seen:
            continue
        seen.add(first)
        path: list[tuple[str, Iterator[str]]] = [(first, iter(sorted(needed_by(first))))]
        while path:
            hash_, rest = path[-1]
            child = next((one for one in rest if one not in seen), None)
            if child is not None:
                seen.add(child)
                path.append((child, iter(sorted(needed_by(child)))))
                continue
            path.pop()
            if hash_ in wanted:
                ordered.append(hash_)
    return ordered
