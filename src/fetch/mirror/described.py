"""What the packages of a mirror say of themselves and of what they need: their spec documents, read where needed."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from ...resolver.index.writer import Lookup

    #: A node as it is written, and its specfile version.
    Found = tuple[Mapping[str, Any], int]


class Documents:
    """The nodes in the spec documents of a mirror.

    Args:
        manifests: DAG hash -> path of each package's manifest.
        read: returns the nodes in a package's document by DAG hash, {} when it is not right.
    """

    def __init__(self, manifests: Mapping[str, str], read: Callable[[str], Mapping[str, Found]]) -> None:
        self._manifests, self._read = manifests, read
        self._own: dict[str, Found] = {}
        self._others: dict[str, Found] = {}
        self._unread = sorted(manifests, reverse=True)

    def own(self, hash_: str) -> Found | None:
        """Return the node of a package as its own document has it, None when that is not right or not there."""
        if hash_ not in self._own and hash_ in self._manifests:
            self._take(hash_)
        return self._own.get(hash_)

    def find(self, hash_: str) -> Found | None:
        """Return a node as its own document has it, else as the first of the others that names it."""
        found = self.own(hash_)
        while found is None and (found := self._others.get(hash_)) is None and self._unread:
            self._take(self._unread.pop())
        return found

    def _take(self, package: str) -> None:
        for hash_, found in self._read(self._manifests[package]).items():
            if hash_ == package:
                self._own[hash_] = found
            else:
                self._others.setdefault(hash_, found)


def settled(lookup: Lookup, doubted: Callable[[str], bool], documents: Documents) -> Lookup:
    """Return how nodes are found for an index: as sources write them, or documents what those write differently.

    One of two indexes lies, or was written by another Spack: what was proven with the packages that are there decides.
    """

    def find(hash_: str) -> Found | None:
        return (documents.find(hash_) if doubted(hash_) else None) or lookup(hash_)

    return find
