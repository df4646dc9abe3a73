"""Several mirrors as one set of specs, merged by DAG hash with all locations kept (pure)."""

from __future__ import annotations

from ...values import changed, frozen
from ..model import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any, Protocol

    from ..model import Node

    class SpecSource(Protocol):
        """One mirror's specs: a stored index or a page."""

        mirror: str
        meta: dict[str, str]

        def close(self) -> None: ...  # noqa: D102 -- see StoredIndex
        @property
        def skipped(self) -> Mapping[str, str]: ...  # noqa: D102

        def count(self) -> int: ...  # noqa: D102 -- see StoredIndex
        def names(self) -> Iterable[str]: ...  # noqa: D102
        def named(self, name: str) -> Sequence[Record]: ...  # noqa: D102
        def hashes_at(self, name: str, version: str) -> Iterable[str]: ...  # noqa: D102
        def with_prefix(self, prefix: str) -> Sequence[Record]: ...  # noqa: D102
        def everything(self) -> Iterable[Record]: ...  # noqa: D102
        def labelling(self, virtual: str) -> Iterable[Record]: ...  # noqa: D102
        def record(self, hash: str) -> Record | None: ...  # noqa: D102
        def records(self, hashes: Sequence[str]) -> Iterable[Record]: ...  # noqa: D102
        def raw(self, hash: str) -> tuple[Mapping[str, Any], int] | None: ...  # noqa: D102


class PageSource:
    """The specs of cache pages, in memory.

    Args:
        mirror: the name of the page or directory of pages.
        records: what the reader found.
        mirrors: names of the mirrors that may hold the binaries, for records that name none; () for `mirror`.
    """

    def __init__(self, mirror: str, records: Iterable[Record], mirrors: tuple[str, ...] = ()) -> None:
        self.mirror = mirror
        self.meta: dict[str, str] = {}
        self.skipped: dict[str, str] = {}
        holders = mirrors or (mirror,)
        self._records = {
            r.node.hash: changed(r, mirrors=(r.mirrors or holders) if r.has_binary else ()) for r in records
        }

    def close(self) -> None:
        """Nothing is open."""

    def count(self) -> int:
        """Number of specs that have a binary."""
        return sum(record.has_binary for record in self._records.values())

    def names(self) -> list[str]:
        """All package names, sorted."""
        return sorted({record.node.name for record in self._records.values()})

    def named(self, name: str) -> list[Record]:
        """All records of the package `name`."""
        return [record for record in self._records.values() if record.node.name == name]

    def hashes_at(self, name: str, version: str) -> list[str]:
        """The hashes of the package `name` at that version."""
        return [record.node.hash for record in self.named(name) if record.node.version == version]

    def with_prefix(self, prefix: str) -> list[Record]:
        """All records whose DAG hash starts with `prefix`."""
        return [record for hash_, record in self._records.items() if hash_.startswith(prefix)]

    def everything(self) -> list[Record]:
        """All records."""
        return list(self._records.values())

    def labelling(self, virtual: str) -> list[Record]:  # noqa: ARG002 - what is in memory is looked through anyway
        """All records."""
        return self.everything()

    def record(self, hash: str) -> Record | None:
        """The record with that full DAG hash, or None."""
        return self._records.get(hash)

    def records(self, hashes: Sequence[str]) -> list[Record]:
        """The records with those full DAG hashes, as far as there are any."""
        return [self._records[hash_] for hash_ in hashes if hash_ in self._records]

    def raw(self, hash: str) -> None:
        """A page records no nodes as Spack writes them."""


@frozen
class Dispute:
    """Mirrors that describe one hash differently: who agrees with the description that counts, who does not, in what.

    `kept` and `others` are names of mirrors, `differs` words for attributes; all sorted.
    """

    name: str
    hash: str
    kept: tuple[str, ...]
    others: tuple[str, ...]
    differs: tuple[str, ...]

    def __str__(self) -> str:
        """Return the note for people."""
        kept, others = (" and ".join(names) for names in (self.kept, self.others))
        what = ", ".join(self.differs)
        return (
            f"mirrors disagree about {self.name}/{self.hash[:7]} ({what}): {kept} counts, {others} does not"
        )


class Specs:
    """All specs of several sources. Also a `Dag`: look-up of nodes by hash, each decoded once.

    Args:
        sources: in any order; the order never changes which record is found, only the order of `mirrors`.
    """

    def __init__(self, sources: Sequence[SpecSource]) -> None:
        self._sources = tuple(sources)
        self._cache: dict[str, Record | None] = {}
        self._named: dict[str, list[Record]] = {}
        #: By hash, the disputes that look-ups came upon.
        self.disputes: dict[str, Dispute] = {}
        self._discredited: dict[str, frozenset[str]] = {}

    @property
    def sources(self) -> tuple[SpecSource, ...]:
        """The sources, in the order given."""
        return self._sources

    def close(self) -> None:
        """Release the files of all sources; nothing can be looked up afterwards."""
        for source in self._sources:
            source.close()

    def count(self) -> int:
        """Number of specs with a binary, counted per mirror."""
        return sum(source.count() for source in self._sources)

    def skipped(self) -> dict[str, list[str]]:
        """By mirror, why records that were asked for cannot be read."""
        return {source.mirror: list(source.skipped.values()) for source in self._sources if source.skipped}

    def names(self) -> list[str]:
        """All package names, sorted."""
        return sorted({name for source in self._sources for name in source.names()})

    def named(self, name: str) -> list[Record]:
        """All records of the package `name`, by hash."""
        if name not in self._named:
            found = [(source, source.named(name)) for source in self._sources]
            hashes = {record.node.hash for _, records in found for record in records}
            pairs = [(source.mirror, record) for source, records in found for record in records]
            for source, records in found if len(found) > 1 else ():
                # It may describe the same hash as another package: that must show whatever is asked first.
                rest = hashes.difference(record.node.hash for record in records)
                pairs += [(source.mirror, record) for record in source.records(sorted(rest))]
            self._named[name] = [record for record in self._merge(pairs) if record.node.name == name]
        return self._named[name]

    def versioned(self, name: str, version: str) -> list[Record]:
        """All records of the package `name` at that version, by hash; records of other versions are not decoded."""
        hashes = sorted({h for source in self._sources for h in source.hashes_at(name, version)})
        self.prefetch(hashes)
        found = [record for hash_ in hashes if (record := self._cache[hash_])]
        return [record for record in found if (record.node.name, record.node.version) == (name, version)]

    def with_prefix(self, prefix: str) -> list[Record]:
        """All records whose DAG hash starts with `prefix`, by hash."""
        return self._merge((s.mirror, record) for s in self._sources for record in s.with_prefix(prefix))

    def everything(self) -> list[Record]:
        """All records, by hash."""
        return self._merge((s.mirror, record) for s in self._sources for record in s.everything())

    def get(self, hash: str, /) -> Node | None:
        """Return the node with that full DAG hash, or None."""
        record = self.record(hash)
        return record.node if record else None

    def record(self, hash: str, /) -> Record | None:
        """Return the merged record with that full DAG hash, or None."""
        if hash not in self._cache:
            self.prefetch((hash,))
        return self._cache[hash]

    def prefetch(self, hashes: Iterable[str], /) -> None:
        """Look up all of these that are not known yet, with one question to each source."""
        unknown = [hash_ for hash_ in hashes if hash_ not in self._cache]
        if unknown:
            self._merge((s.mirror, record) for s in self._sources for record in s.records(unknown))
            for hash_ in unknown:
                self._cache.setdefault(hash_, None)

    def raw(self, hash: str, /) -> tuple[Mapping[str, Any], int] | None:
        """Return a node as the first source that has it wrote it, and its specfile version; None when none does.

        Of a source that writes another one than the rest neither a description that does not count is taken, nor one
        that is none: who reads the index that it is written into would refuse it.
        """
        written = self._written(hash)
        if self.record(hash) is None:
            return None
        if all(found == written[0][1] for _, found in written):
            return written[0][1] if written else None
        dispute = self.disputes.get(hash)
        for source, found in written:
            if not (dispute and source.mirror in dispute.others) and source.record(hash) is not None:
                return found
        return None

    def doubted(self, hash: str, /) -> bool:
        """Tell whether the sources write a node differently, be it in what is no part of its description."""
        written = self._written(hash)
        return any(found != written[0][1] for _, found in written)

    def _written(self, hash: str) -> list[tuple[SpecSource, tuple[Mapping[str, Any], int]]]:
        """Return the sources that have a record of that hash, each with the node as it wrote it."""
        return [(source, found) for source in self._sources if (found := source.raw(hash)) is not None]

    def digest(self, mirror: str) -> str:
        """Return the sha256 of the index of the mirror of that name, "" when it has no stored index."""
        found = (source for source in self._sources if source.mirror == mirror)
        return next((source.meta.get("sha256", "") for source in found), "")

    def dispute_notes(self, hashes: Iterable[str]) -> tuple[str, ...]:
        """Return a sentence for each of these hashes that the mirrors describe differently, by hash."""
        return tuple(str(self.disputes[hash_]) for hash_ in sorted(self.disputes.keys() & set(hashes)))

    @property
    def reconsidered(self) -> bool:
        """True once another description than the fullest counts for some hash."""
        return bool(self._discredited)

    def discredit(self, hashes: Iterable[str]) -> bool:
        """Let other descriptions of disputed hashes count from now on; False when there are no others.

        For hashes whose binaries the mirrors that counted could not prove: the index of each may be the one that lies.
        """
        changed_any = False
        for hash_ in self.disputes.keys() & set(hashes):
            dispute = self.disputes[hash_]
            before = self._discredited.get(hash_, frozenset())
            if before.issuperset(dispute.others):
                continue
            self._discredited[hash_] = before.union(dispute.kept)
            del self.disputes[hash_]
            changed_any = True
        if changed_any:  # a description has a name of its own, under which other look-ups found it or not
            self._cache.clear()
            self._named.clear()
        return changed_any

    def _merge(self, records: Iterable[tuple[str, Record]]) -> list[Record]:
        """Merge (mirror, record) by hash, fill the cache, return in the order of hashes."""
        if len(self._sources) == 1:  # a source has one description of a hash
            found = {record.node.hash: record for _, record in records}
            self._cache.update(found)
            return [found[hash_] for hash_ in sorted(found)]
        groups: dict[str, list[tuple[str, Record]]] = {}
        for mirror, record in records:
            groups.setdefault(record.node.hash, []).append((mirror, record))
        merged = []
        for hash_ in sorted(groups):
            record, dispute = _merged(groups[hash_], self._discredited.get(hash_, frozenset()))
            self._cache[hash_] = record
            if dispute:
                self.disputes[hash_] = dispute
            merged.append(record)
        return merged


def _merged(group: list[tuple[str, Record]], discredited: frozenset[str]) -> tuple[Record, Dispute | None]:
    """Merge the descriptions of one hash: the fullest counts, and only who agrees with it is a holder.

    One hash is one node, so of two that differ one is wrong; which one, only the signed document tells. The description
    of a `discredited` mirror counts only where there is no other.
    """
    first = group[0][1]
    if len(group) == 1:
        return first, None
    if all(record.node == first.node for _, record in group):
        best, differing = first, {}
    else:
        trusted = [record for mirror, record in group if mirror not in discredited]
        best = min(trusted or [record for _, record in group], key=_fullest)
        differing = {
            mirror: words for mirror, record in group if (words := _differences(best.node, record.node))
        }
    agreeing = [(mirror, record) for mirror, record in group if mirror not in differing]
    holders = dict.fromkeys(name for _, record in agreeing for name in record.mirrors)
    merged = Record(
        best.node,
        any(record.has_binary for _, record in agreeing),
        tuple(name for name in holders if name not in differing),
        tuple(dict.fromkeys(name for _, record in agreeing for name in record.stacks)),
    )
    if not differing:
        return merged, None
    differs = sorted({word for found in differing.values() for word in found})
    kept = sorted({mirror for mirror, _ in agreeing})
    name, hash_ = best.node.name, best.node.hash
    return merged, Dispute(name, hash_, tuple(kept), tuple(sorted(differing)), tuple(differs))


def _fullest(record: Record) -> tuple[bool, bool, int, int, int, str]:
    """Order descriptions of one hash, the one that counts first, whatever the order of the mirrors.

    One that says that there can be no binary comes last: whoever believed it would ask nobody for the binary.
    """
    node = record.node
    return (
        node.external is not None,
        node.partial,
        -len(node.edges),
        -len(node.variants),
        -node.format,
        repr(node),
    )


def _differences(best: Node, other: Node) -> tuple[str, ...]:
    """Return in which attributes two descriptions of one hash contradict each other.

    A page records less than an index, and old formats less than new ones: what one cannot record is no contradiction.
    """
    if best == other:
        return ()
    found = [name for name in _ALWAYS if getattr(best, name) != getattr(other, name)]
    if best.partial or other.partial:
        return tuple(found)
    found += [name for name in _IN_NODES if getattr(best, name) != getattr(other, name)]
    oldest = min(best.format, other.format)
    if _edge_set(best, oldest) != _edge_set(other, oldest):
        found.append("dependencies")
    for name in ("compiler", "target_features"):
        both = (getattr(best, name), getattr(other, name))
        if both[0] != both[1] and (best.format == other.format or None not in both):
            found.append(name)
    if oldest >= _PROVIDED_SINCE and best.provided != other.provided:
        found.append("provided")
    return tuple(found)


def _edge_set(node: Node, oldest: int) -> frozenset[tuple[object, ...]]:
    """Return the edges without their order; the virtuals only where both formats record them."""
    return frozenset(
        (e.hash, e.name, frozenset(e.types), frozenset(e.virtuals) if oldest >= _VIRTUALS_SINCE else None)
        for e in node.edges
    )


#: Attributes that every source records, and those that all but pages do.
_ALWAYS = ("name", "version", "platform", "os", "target")
_IN_NODES = ("namespace", "variants", "flags", "external", "build_spec")
#: Specfile versions that first recorded the virtuals of edges, and those that a node provides (docs/formats.md).
_VIRTUALS_SINCE = 4
_PROVIDED_SINCE = 6
