"""The closure of a node: itself and everything reachable by link or run edges (pure)."""

from __future__ import annotations

from ..values import frozen
from .resolution import Missing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from .model import Dag, Node, Record

    #: By hash: the record, and the names of its link and run children by their hashes.
    Memo = dict[str, tuple[Record | None, dict[str, str]]]

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


def closure_of(root: Node, dag: Dag, memo: Memo | None = None) -> Closure:
    """Walk the link and run edges of `root`; each hash once, so cycles in bad data end.

    Args:
        root: the node to begin with.
        dag: look-up of nodes; a level of the walk is announced to it before it is looked up.
        memo: what other walks over the same `dag` found, extended here: candidates share most of their nodes.
    """
    memo = {} if memo is None else memo
    records: list[Record] = []
    externals: list[Node] = []
    missing: dict[str, str] = {}
    walked: list[Node] = []
    level = {root.hash: root.name}
    seen = dict(level)
    while level:
        _look_up(level, dag, memo)
        below: dict[str, str] = {}
        for hash_, name in level.items():
            record, links = memo[hash_]
            if record is not None and record.node.external is not None:
                externals.append(record.node)
                continue
            if record is None or not record.has_binary:
                missing[hash_] = name
            else:
                records.append(record)
            if record is not None:
                walked.append(record.node)
            for child in links:
                if child not in seen:
                    seen[child] = below[child] = links[child]
        level = below
    return Closure(root, tuple(records), tuple(externals), _lacking(missing, walked))


def walk(roots: Sequence[Node], dag: Dag, memo: Memo) -> None:
    """Fill the memo with the closures of several roots: one look-up of many nodes for each level of all of them."""
    level = {root.hash for root in roots}
    seen = set(level)
    while level:
        _look_up(level, dag, memo)
        level = {child for hash_ in level for child in memo[hash_][1]} - seen
        seen |= level


def _look_up(hashes: Collection[str], dag: Dag, memo: Memo) -> None:
    if unknown := [hash_ for hash_ in hashes if hash_ not in memo]:
        dag.prefetch(unknown)
        memo.update((hash_, _step(dag.record(hash_))) for hash_ in unknown)


def _step(record: Record | None) -> tuple[Record | None, dict[str, str]]:
    """Return a record with where a walk goes on from it: name by hash, in the order of its edges."""
    links: dict[str, str] = {}
    if record is not None and record.node.external is None:
        for edge in record.node.edges:
            types = edge.types
            if "link" in types or "run" in types:  # `Edge.in_closure`, without a call for each of thousands
                links.setdefault(edge.hash, edge.name)
    return record, links


def _lacking(missing: Mapping[str, str], walked: Sequence[Node]) -> tuple[Missing, ...]:
    """Name what is missing with the nodes that need it, in the order of the walk."""
    if not missing:
        return ()
    parents: dict[str, list[str]] = {hash_: [] for hash_ in missing}
    for node in walked:
        for edge in node.closure_edges():
            if edge.hash in parents:
                parents[edge.hash].append(label(node))
    spliced = {node.hash: node.build_spec for node in walked if node.hash in missing}
    return tuple(
        Missing(name, hash_, tuple(dict.fromkeys(parents[hash_])), spliced.get(hash_))
        for hash_, name in sorted(missing.items(), key=lambda item: (item[1], item[0]))
    )


def label(node: Node) -> str:
    """Return ``name@version/1234567`` for messages."""
    return f"{node.name}@{node.version}/{node.hash[:7]}"
