"""Several mirrors as one set of specs, merged by DAG hash with all locations kept (pure)."""

from __future__ import annotations

from ...values import changed
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

    def record(self, hash: str) -> Record | None:
        """The record with that full DAG hash, or None."""
        return self._records.get(hash)

    def records(self, hashes: Sequence[str]) -> list[Record]:
        """The records with those full DAG hashes, as far as there are any."""
        return [self._records[hash_] for hash_ in hashes if hash_ in self._records]

    def raw(self, hash: str) -> None:
        """A page records no nodes as Spack writes them."""


class Specs:
    """All specs of several sources. Also a `Dag`: look-up of nodes by hash, each decoded once.

    Args:
        sources: in any order; the order never changes which record is found, only the order of `mirrors`.
    """

    def __init__(self, sources: Sequence[SpecSource]) -> None:
        self._sources = tuple(sources)
        self._cache: dict[str, Record | None] = {}
        self._named: dict[str, list[Record]] = {}

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
            self._named[name] = self._merge(r for source in self._sources for r in source.named(name))
        return self._named[name]

    def versioned(self, name: str, version: str) -> list[Record]:
        """All records of the package `name` at that version, by hash; records of other versions are not decoded."""
        hashes = sorted({h for source in self._sources for h in source.hashes_at(name, version)})
        self.prefetch(hashes)
        found = [record for hash_ in hashes if (record := self._cache[hash_])]
        return [record for record in found if (record.node.name, record.node.version) == (name, version)]

    def with_prefix(self, prefix: str) -> list[Record]:
        """All records whose DAG hash starts with `prefix`, by hash."""
        return self._merge(record for source in self._sources for record in source.with_prefix(prefix))

    def everything(self) -> list[Record]:
        """All records, by hash."""
        return self._merge(record for source in self._sources for record in source.everything())

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
            self._merge(record for source in self._sources for record in source.records(unknown))
            for hash_ in unknown:
                self._cache.setdefault(hash_, None)

    def raw(self, hash: str, /) -> tuple[Mapping[str, Any], int] | None:
        """Return a node as the first source that has it wrote it, and its specfile version; None when none does."""
        for source in self._sources:
            found = source.raw(hash)
            if found is not None:
                return found
        return None

    def digest(self, mirror: str) -> str:
        """Return the sha256 of the index of the mirror of that name, "" when it has no stored index."""
        found = (source for source in self._sources if source.mirror == mirror)
        return next((source.meta.get("sha256", "") for source in found), "")

    def _merge(self, records: Iterable[Record]) -> list[Record]:
        """Merge by hash, fill the cache, return in the order of hashes.

        Of several descriptions of one hash the fullest counts: an index before a page.
        """
        groups: dict[str, list[Record]] = {}
        for record in records:
            groups.setdefault(record.node.hash, []).append(record)
        merged = []
        for hash_ in sorted(groups):
            record = _merged(groups[hash_])
            self._cache[hash_] = record
            merged.append(record)
        return merged


def _merged(group: list[Record]) -> Record:
    if len(group) == 1:
        return group[0]
    first = group[0].node
    if all(record.node == first for record in group):
        best = group[0]
    else:
        best = min(group, key=lambda record: (record.node.partial, repr(record.node)))
    return Record(
        best.node,
        any(record.has_binary for record in group),
        tuple(dict.fromkeys(name for record in group for name in record.mirrors)),
        tuple(dict.fromkeys(name for record in group for name in record.stacks)),
    )
