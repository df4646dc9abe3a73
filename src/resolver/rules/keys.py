"""Keys K0 to K16: which of the accepted candidates is best (pure). Smaller wins, the first difference decides.

A key is built once for the pool of accepted candidates and then gives each candidate a comparable value and
a text. Ranks are dense and count accepted candidates only, so adding an unusable binary changes nothing. The
order of KEYS is the order of preference. Rules and reasons: docs/semantics.md, "Total order".
"""

from __future__ import annotations

import re
from functools import cache, cached_property

from .. import targets
from ..closure import LIBC_NAMES
from ..host.libc_table import inferred_libc
from ..spec.matching import display_compiler, modern_compiler
from ..spec.versions import parse_version, version_class
from .gates import MACOS, distribution, libc_of
from .python_order import pep440_order

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Sequence
    from typing import Any

    from ..model import Node, Record, VariantValue
    from ..spec.versions import Version
    from .context import Context

    #: Comparable value and the text shown for it.
    Value = tuple[Any, str]
    Measure = Callable[[Record], Value]

_INTERPRETERS = {"py-": "python", "perl-": "perl", "r-": "r", "lua-": "lua", "ruby-": "ruby"}
_RUNTIMES = ("gcc-runtime", "intel-oneapi-runtime")
_UNRANKED = frozenset((*_RUNTIMES, *LIBC_NAMES))
_PEP440_PRE = re.compile(
    r"\d(\.\d+)*[._-]?(a|b|c|rc|alpha|beta|pre|preview)[._-]?\d*([._-]?dev\d*)?$|[._-]?dev\d*$"
)


class Usual:
    """The usual variants of each package and version among all specs of the sources (K3, K9), found once.

    Args:
        versioned: returns every record of a package name and version, by hash.
    """

    def __init__(self, versioned: Callable[[str, str], Sequence[Record]]) -> None:
        self._versioned = versioned
        self._values: dict[tuple[str, str], dict[str, VariantValue | None]] = {}

    def variants(self, node: Node) -> dict[str, VariantValue | None]:
        """Return the most frequent value of each variant among the specs of that package and version."""
        key = (node.name, node.version)
        if key not in self._values:
            found = [record.node for record in self._versioned(node.name, node.version)]
            peers = [peer for peer in found if peer.external is None] or [node]
            names = sorted({name for peer in peers for name in peer.variants})
            self._values[key] = {n: _most_frequent(peer.variants.get(n) for peer in peers) for n in names}
        return self._values[key]


class Pool:
    """The candidates that compete, and what several keys need to know about all of them.

    Args:
        context: request, host, specs.
        accepted: the candidates; ranks count these and no others.
        usual: the usual variants of every package in the sources (K3, K9).
    """

    def __init__(self, context: Context, accepted: tuple[Record, ...], usual: Usual) -> None:
        self.context, self.accepted, self.usual = context, accepted, usual
        #: Those that the keys before could not tell apart; K9 need not look at what all of them share.
        self.compared: Sequence[Record] = accepted
        self._ranked: dict[str, tuple[tuple[str, str], ...]] = {}

    def dependencies(self, record: Record) -> tuple[Node, ...]:
        """Return the link and run closure without the root and without externals."""
        return self.context.dependencies(record.node)

    def ranked(self, record: Record) -> tuple[tuple[str, str], ...]:
        """Return (name, version) of the dependencies whose versions count: no runtimes, no libc."""
        found = self._ranked.get(record.node.hash)
        if found is None:
            nodes = self.context.dependencies(record.node)
            found = tuple([(node.name, node.version) for node in nodes if node.name not in _UNRANKED])
            self._ranked[record.node.hash] = found
        return found

    @cached_property
    def dependency_ranks(self) -> dict[tuple[str, str], int]:
        """The rank of each dependency's version among those of its package; pre-releases and infinity versions last."""
        groups: dict[str, set[str]] = {}
        for pair in {pair for record in self.accepted for pair in self.ranked(record)}:
            groups.setdefault(pair[0], set()).add(pair[1])
        ranks: dict[tuple[str, str], int] = {}
        for name, texts in groups.items():
            order = {text: _class_then_newest(text) for text in texts}
            place = _ranks(order.values())
            ranks.update(((name, text), place[value]) for text, value in order.items())
        return ranks

    @cached_property
    def root_versions(self) -> dict[tuple[str, str], tuple[int, int]]:
        """K1 and K2 of each (name, version) of a candidate.

        Python packages go by PEP 440 when it can read all of their versions, else all by Spack's order. A virtual root
        has candidates of several packages: versions of each are ranked apart.
        """
        groups: dict[str, set[str]] = {}
        for record in self.accepted:
            groups.setdefault(record.node.name, set()).add(record.node.version)
        waived = self.context.spec.names_one_version()
        found: dict[tuple[str, str], tuple[int, int]] = {}
        for name, texts in groups.items():
            order = _version_order(name, texts, waived)
            place = _ranks(order.values())
            found.update(((name, text), (value[0], place[value])) for text, value in order.items())
        return found


def complete(pool: Pool) -> Measure:
    """K0: a closure that is complete in the mirrors comes before any preference."""

    def measure(record: Record) -> Value:
        missing = 0 if record.node.partial else len(pool.context.closure(record.node).missing)
        return (int(missing > 0), f"{missing} closure nodes missing" if missing else "complete")

    return measure


def version_classes(pool: Pool) -> Measure:
    """K1: final, then pre-release, then development and git versions; waived when the query names such a one."""
    known = pool.root_versions

    def measure(record: Record) -> Value:
        value = known[record.node.name, record.node.version][0]
        return (value, f"{record.node.version} ({('final', 'pre-release', 'development')[value]})")

    return measure


def versions(pool: Pool) -> Measure:
    """K2: newest version."""
    known = pool.root_versions
    return lambda record: (known[record.node.name, record.node.version][1], record.node.version)


def root_variants(pool: Pool) -> Measure:
    """K3: fewest variant values that differ from the usual ones of that version."""
    fixed = frozenset(pool.context.spec.variants)
    return lambda record: _unusual(record.node, pool, fixed)


def os_tier(pool: Pool) -> Measure:
    """K4a: built on the host's OS, then on another release of it, then elsewhere; the worst closure node counts."""
    host = pool.context.host.os

    def measure(record: Record) -> Value:
        systems = {record.node.os, *(node.os for node in pool.dependencies(record))}
        return max((os_distance(os, host), os) for os in systems)

    return measure


def os_distance(os: str, host: str) -> int:
    """Return 0 for the host's OS; on macOS the releases between; else 1 for the same distribution, 2 for others."""
    if os == host:
        return 0
    if os in MACOS and host in MACOS:
        return abs(MACOS.index(os) - MACOS.index(host))
    return 1 if distribution(os) == distribution(host) else 2


def libc(pool: Pool) -> Measure:
    """K4b: the newest libc that the host can serve."""

    judged: dict[str, str | None] = {}

    def newest(record: Record) -> Version | None:
        texts: set[str | None] = set()
        for node in (record.node, *pool.dependencies(record)):
            if node.hash not in judged:
                value = libc_of(node, pool.context.dag)
                judged[node.hash] = value.version if value else None
            texts.add(judged[node.hash])
        known = [parse_version(text) for text in texts if text is not None]
        if not known and (guess := inferred_libc(record.node.os)):
            known = [parse_version(guess.version)]
        return max(known) if known else None

    return _by_newest(pool, newest, lambda value: f"libc {value}" if value else "no libc")


def interpreter(pool: Pool) -> Measure:
    """K5: the newest final interpreter that the root extends (python for ``py-*``, ...)."""
    root = pool.accepted[0].node.name if pool.accepted else ""
    name = next((i for prefix, i in _INTERPRETERS.items() if root.startswith(prefix)), None)

    def version(record: Record) -> tuple[int, _Descending] | None:
        found = [node.version for node in pool.dependencies(record) if node.name == name]
        if not found:
            return None
        best = max(parse_version(text) for text in found)
        return (version_class(best), _Descending(best))

    rank = _ranks(value for record in pool.accepted if (value := version(record)))

    def measure(record: Record) -> Value:
        value = version(record)
        return (rank[value], f"{name} {value[1].version}") if value else (0, "no interpreter recorded")

    return measure


def target(pool: Pool) -> Measure:
    """K6: the target that uses most of the host's CPU."""
    host = pool.context.host.target
    names = [host, *targets.ancestors(host)]
    names += [r.node.target for r in pool.accepted if r.node.target not in names]
    rank = {name: number for number, name in enumerate(sorted(names, key=target_order))}
    return lambda record: (rank[record.node.target], record.node.target)


def compiler_tier(pool: Pool) -> Measure:
    """K7: the host compiler's family and major version, then older, newer, another family; no code is best."""
    host = pool.context.host.compilers[0] if pool.context.host.compilers else None

    def measure(record: Record) -> Value:
        own = display_compiler(record.node, pool.context.dag)
        if own is None:
            return (0, "no compiled code")
        text = f"{own[0]}@{own[1]}"
        if host is None:
            return (0, text)
        if modern_compiler(own[0]) != host.name:
            return (3, text)
        if own[1].split(".")[0] == host.version.split(".")[0]:
            return (0, text)
        return (1 if parse_version(own[1]) < parse_version(host.version) else 2, text)

    return measure


def compiler_version(pool: Pool) -> Measure:
    """K7b: the newest compiler."""

    def version(record: Record) -> Version | None:
        own = display_compiler(record.node, pool.context.dag)
        return parse_version(own[1]) if own else None

    found = {record.node.hash: version(record) for record in pool.accepted}
    rank = _ranks(_newest_first(value) for value in set(found.values()) if value is not None)

    def measure(record: Record) -> Value:
        value = found[record.node.hash]
        if value is None:
            return (0, "no compiled code")
        return (rank[_newest_first(value)], f"compiler {value}")

    return measure


def providers(pool: Pool) -> Measure:
    """K8: the usual providers of virtual packages (mpi, blas, ...)."""

    def measure(record: Record) -> Value:
        used: dict[tuple[str, str], int] = {}
        if record.node.name in (own := pool.context.providers(pool.context.spec.name)):
            used[pool.context.spec.name, record.node.name] = own.index(record.node.name)  # a virtual root
        for node in (record.node, *pool.dependencies(record)):
            for edge in node.closure_edges():
                for virtual in edge.virtuals:
                    if order := pool.context.providers(virtual):
                        at = order.index(edge.name) if edge.name in order else len(order)
                        used[virtual, edge.name] = at
        return (sum(used.values()), ", ".join(f"{name} for {virtual}" for virtual, name in sorted(used)))

    return measure


def dependency_variants(pool: Pool) -> Measure:
    """K9: as K3, for the other closure nodes that are not the same for all."""
    everywhere = _shared_hashes(pool)
    known: dict[str, Value] = {}

    def one(node: Node) -> Value:
        if node.hash not in known:
            known[node.hash] = _unusual(node, pool, frozenset())
        return known[node.hash]

    def measure(record: Record) -> Value:
        # What all of them share cannot decide, and to know its usual variants would take the whole index.
        found = [one(node) for node in pool.dependencies(record) if node.hash not in everywhere]
        return (sum([count for count, _ in found]), ", ".join([text for count, text in found if count]))

    return measure


def dependency_versions(pool: Pool) -> Measure:
    """K10: the newest dependencies, as a sum of ranks."""
    rank = pool.dependency_ranks

    def measure(record: Record) -> Value:
        total = sum([rank[pair] for pair in pool.ranked(record)])
        return (total, f"sum of dependency version ranks {total}")

    return measure


def dependency_vector(pool: Pool) -> Measure:
    """K11: of equal sums, the one that is newer in the first name."""
    rank = pool.dependency_ranks

    def measure(record: Record) -> Value:
        vector = sorted([(name, rank[name, version], version) for name, version in pool.ranked(record)])
        return ([[name, number] for name, number, _ in vector], ", ".join(f"{n}@{v}" for n, _, v in vector))

    return measure


def target_mismatch(pool: Pool) -> Measure:
    """K12: fewest link and run edges whose ends have different targets."""

    def measure(record: Record) -> Value:
        nodes = {node.hash: node for node in (record.node, *pool.dependencies(record))}
        edges = (
            (node, nodes[e.hash]) for node in nodes.values() for e in node.closure_edges() if e.hash in nodes
        )
        count = sum(1 for parent, child in edges if parent.target != child.target)
        return (count, f"{count} edges between different targets")

    return measure


def runtimes(pool: Pool) -> Measure:
    """K13: the newest compiler runtime, which serves all other binaries."""

    def newest(record: Record) -> Version | None:
        found = [parse_version(n.version) for n in pool.dependencies(record) if n.name in _RUNTIMES]
        return max(found) if found else None

    return _by_newest(pool, newest, lambda value: f"runtime {value}" if value else "no runtime")


def spec_age(pool: Pool) -> Measure:  # noqa: ARG001 -- every key has this signature
    """K14: the newest spec format, which records most; then not spliced."""

    def measure(record: Record) -> Value:
        node = record.node
        spliced = node.build_spec is not None
        return (
            [max(0, 5 - node.format), int(spliced)],
            f"specfile {node.format}{', spliced' if spliced else ''}",
        )

    return measure


def closure_size(pool: Pool) -> Measure:
    """K15: the fewest packages to fetch."""

    def measure(record: Record) -> Value:
        count = 1 + len(pool.dependencies(record))
        return (count, f"{count} packages")

    return measure


def stacks(pool: Pool) -> Measure:  # noqa: ARG001 -- every key has this signature
    """K15b: the most stacks that hold the hash (pages only)."""
    return lambda record: (-len(record.stacks), f"in {len(record.stacks)} stacks")


def dag_hash(pool: Pool) -> Measure:  # noqa: ARG001 -- every key has this signature
    """K16: the smallest DAG hash, so that there is always one answer."""
    return lambda record: (record.node.hash, f"/{record.node.hash[:7]}")


#: Code, word for people, key. The order is the order of preference.
KEYS: tuple[tuple[str, str, Callable[[Pool], Measure]], ...] = (
    ("K0", "complete closure", complete),
    ("K1", "version class", version_classes),
    ("K2", "version", versions),
    ("K3", "variants", root_variants),
    ("K4a", "OS", os_tier),
    ("K4b", "libc", libc),
    ("K5", "interpreter", interpreter),
    ("K6", "target", target),
    ("K7", "compiler", compiler_tier),
    ("K7b", "compiler version", compiler_version),
    ("K8", "providers", providers),
    ("K9", "dependency variants", dependency_variants),
    ("K10", "dependency versions", dependency_versions),
    ("K11", "dependency version list", dependency_vector),
    ("K12", "uniform targets", target_mismatch),
    ("K13", "runtime", runtimes),
    ("K14", "spec format", spec_age),
    ("K15", "closure size", closure_size),
    ("K15b", "stacks", stacks),
    ("K16", "hash", dag_hash),
)


class _Descending:
    """A version (or one of PEP 440) in reversed order, so that newest sorts first."""

    __slots__ = ("version",)

    def __init__(self, version: Any) -> None:
        self.version = version

    def __lt__(self, other: _Descending) -> bool:
        return bool(other.version < self.version)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Descending) and bool(self.version == other.version)

    def __hash__(self) -> int:
        return hash(self.version)


def _newest_first(version: Version | None) -> tuple[bool, Any]:
    """Sort key: known versions newest first, unknown last."""
    return (version is None, 0 if version is None else _Descending(version))


def _ranks(values: Iterable[Any]) -> dict[Any, int]:
    """Return dense ranks 0, 1, 2, ... of the distinct values."""
    return {value: number for number, value in enumerate(sorted(set(values)))}


def _by_newest(
    pool: Pool, version: Callable[[Record], Version | None], text: Callable[[Version | None], str]
) -> Measure:
    """Return the rank of a version of each candidate, newest first and unknown last; each is found once."""
    found = {record.node.hash: version(record) for record in pool.accepted}
    rank = _ranks(_newest_first(value) for value in set(found.values()))

    def measure(record: Record) -> Value:
        value = found[record.node.hash]
        return (rank[_newest_first(value)], text(value))

    return measure


def _version_order(name: str, texts: set[str], waived: bool) -> dict[str, tuple[int, Any]]:
    """Return (K1 class, sort key with the newest first) of each version of a package; one class when `waived`."""
    python = pep440_order(texts) if name.startswith("py-") else None
    if python is not None:
        return {
            text: (int(early and not waived), _Descending(value)) for text, (early, value) in python.items()
        }
    found: dict[str, tuple[int, Any]] = {}
    for text in texts:
        version = parse_version(text)
        value = version_class(version)
        if value == 0 and name.startswith("py-") and _PEP440_PRE.search(text):
            value = 1
        found[text] = (0 if waived else value, _Descending(version))
    return found


def _unusual(node: Node, pool: Pool, fixed: frozenset[str]) -> Value:
    """Return how many variant values differ from the most frequent ones among all specs of that version."""
    count, texts = 0, []
    for name, usual in pool.usual.variants(node).items():
        own = node.variants.get(name)
        if name not in fixed and own != usual:
            count += len(set(_values(own)) ^ set(_values(usual))) if isinstance(own, tuple) else 1
            texts.append(_show_variant(name, own))
    return (count, " ".join(texts) or "usual variants")


def _most_frequent(values: Iterable[VariantValue | None]) -> VariantValue | None:
    """Return the most frequent value; of equal ones the first, which is that of the smallest hash."""
    counts: dict[Hashable, int] = {}
    first: dict[Hashable, VariantValue | None] = {}
    for value in values:
        counts[value] = counts.get(value, 0) + 1
        first.setdefault(value, value)
    return first[max(counts, key=lambda value: counts[value])]


def _values(value: VariantValue | None) -> tuple[object, ...]:
    return value if isinstance(value, tuple) else (value,)


def _show_variant(name: str, value: VariantValue | None) -> str:
    if value is None:
        return f"no {name}"
    if isinstance(value, bool):
        return f"{'+' if value else '~'}{name}"
    return f"{name}={','.join(value) if isinstance(value, tuple) else value}"


@cache
def target_order(name: str) -> tuple[Any, ...]:
    """Return the sort key of K6: features first on x86_64, depth first elsewhere; vendor before generic; the name."""
    size, depth = -len(targets.features(name)), -len(targets.ancestors(name))
    first = (size, depth) if targets.family(name) == "x86_64" else (depth, size)
    return (*first, targets.vendor(name) == "generic", name)


@cache
def _class_then_newest(text: str) -> tuple[int, _Descending]:
    version = parse_version(text)
    return (version_class(version), _Descending(version))


def _shared_hashes(pool: Pool) -> frozenset[str]:
    """Return the dependencies that all candidates have which are still compared."""
    sets = [frozenset([node.hash for node in pool.dependencies(record)]) for record in pool.compared]
    return frozenset.intersection(*sets) if sets else frozenset()
