"""The closure of a node: itself and everything reachable by link or run edges (pure)."""

from __future__ import annotations

from ..values import frozen
from .resolution import Missing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .model import Dag, Node, Record

#: Virtuals that the host's C library provides; its node is external and never fetched (Spack 1.1).
LIBC_NAMES = ("glibc", "musl")


@frozen
class Closure:
    """The closure of one root, root first, then breadth first in the order of edges.

    `records` have a binary in some mirror; `externals` are provided by the host; `missing` have neither.
    """

    root: Node
    records: tuple[Record, ...]
    externals: tuple[Node, ...]
    missing: tuple[Missing, ...]

    def nodes(self) -> tuple[Node, ...]:
        """All nodes that are described, externals included."""
        return tuple(record.node for record in self.records) + self.externals


def closure_of(root: Node, dag: Dag) -> Closure:
    """Walk the link and run edges of `root`; each hash once, so cycles in bad data end."""
    records: list[Record] = []
    externals: list[Node] = []
    missing: dict[str, tuple[str, list[str]]] = {}
    queue: list[tuple[str, str]] = [(root.hash, root.name)]
    seen = {root.hash}
    parents: dict[str, list[str]] = {}
    while queue:
        hash_, name = queue.pop(0)
        record = dag.record(hash_)
        if record is not None and record.node.external is not None:
            externals.append(record.node)
            continue
        if record is None or not record.has_binary:
            missing[hash_] = (name, parents.setdefault(hash_, []))
        if record is None:
            continue
        if record.has_binary:
            records.append(record)
        for edge in record.node.closure_edges():
            parents.setdefault(edge.hash, []).append(label(record.node))
            if edge.hash not in seen:
                seen.add(edge.hash)
                queue.append((edge.hash, edge.name))
    lacking = tuple(
        Missing(name, hash_, tuple(dict.fromkeys(needed)))
        for hash_, (name, needed) in sorted(missing.items(), key=lambda item: (item[1][0], item[0]))
    )
    return Closure(root, tuple(records), tuple(externals), lacking)


def label(node: Node) -> str:
    """Return ``name@version/1234567`` for messages."""
    return f"{node.name}@{node.version}/{node.hash[:7]}"
