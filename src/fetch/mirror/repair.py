"""Repair a mirror directory: put right what stands wrongly, fetch what an audit found damaged, and nothing else."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace

from anyio import to_thread

from ...errors import CachefetchError, FormatError
from ...resolver.index.readers.manifest import (
    INDEX_MANIFEST,
    KEY_INDEX_MANIFEST,
    LAYOUT_PATH,
    spec_manifest_path,
)
from ...resolver.index.readers.nodes import node_from_dict
from ...resolver.index.readers.places import recorded_compiler
from ...resolver.index.readers.v2 import INDEX
from ..layouts import V2
from ..model import Source, Wanted
from ..store import files
from .build_cache import BuildCache, nodes_of_spec_file, place_of_spec_file, read_build_cache_index
from .check import MISPLACED
from .check_build_cache import is_build_cache
from .destination import SHA256_LENGTH, Destination, locked
from .execute import How, Sync, nodes_of_document, place_of, read_document, read_own_index
from .inventory import stem_of
from .journal import Journal
from .plan import Job

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from typing import Any

    from ...resolver.index.writer import Lookup
    from ...resolver.model import Node
    from ..session import Session
    from ..store.cas import Store
    from .check import Identity, VerifyReport
    from .plan import SyncReport

    Found = tuple[Mapping[str, Any], int]

#: Codes of problems that a file in a wrong place, or with the content of another one, has.
_ELSEWHERE = (MISPLACED, "binding-mismatch")
_MANIFESTS = (".spec.manifest.json", ".spec.json", ".spec.json.sig")


async def repair_mirror(
    session_for: Callable[[Store], Session],
    report: VerifyReport,
    target: Source,
    others: Sequence[Source],
    lookup: Lookup | None = None,
) -> SyncReport:
    """Put manifests where they belong, fetch the damaged packages from `others`, and write keys and index again.

    What is right stays: only the damaged file is fetched. The index keeps listing what it listed and is there. What
    stands in the way is moved to ``.cachefetch/displaced``. A mirror of layout 2 is repaired from others of layout 2.
    Where nothing could be had, and the index would be empty, the damaged one stays.

    Args:
        session_for: makes the session that writes into the mirror.
        report: what an audit of it found.
        target: the mirror.
        others: where to fetch.
        lookup: their nodes, for what the mirror's own index and documents do not tell any more.

    Returns:
        What was done: the packages that are right now, what could not be had, what mirrors did wrong.

    Raises:
        StoreError: the mirror cannot be written, or a sync works on it.
    """
    old = is_build_cache(target.url)
    destination = (BuildCache if old else Destination)(target.url)
    if old:
        others = tuple(replace(source, layout=V2) for source in others)
    with locked(destination):
        journal = Journal(destination.own)
        try:
            await to_thread.run_sync(_put_right, destination, report)
            nodes = _Nodes(destination, report, lookup)
            wanted = tuple(
                _wanted(_suspects(report, destination, nodes), tuple(others), nodes, described=old)
            )
            journal.drop([stem_of(one) for one in wanted])
            for one in wanted:
                destination.expect(stem_of(one), one)
            await to_thread.run_sync(_clear_the_way, destination, _written(wanted, old=old))
            job = Job(wanted, tuple(others), {}, (), nodes.find)
            how = How(tolerant=True)
            return await Sync(session_for(destination), destination, journal, job, how).run()
        finally:
            await to_thread.run_sync(journal.close)


def _suspects(report: VerifyReport, to: Destination, nodes: _Nodes) -> list[Identity]:
    """Return the packages to fetch again, each once.

    What only the name of a file tells of counts when an index knows that hash, or when the file still stands there:
    one that belonged elsewhere was moved.
    """
    found = {identity[2]: identity for identity in report.damaged}
    for path, identity in report.supposed.items():
        node = nodes.node_or_none(identity[2])
        if node is not None and node.external is None:
            found.setdefault(node.hash, (node.name, node.version, node.hash))
        elif not isinstance(to, BuildCache) and _stands(to, path, identity):
            found.setdefault(identity[2], identity)
    return sorted(found.values())


def _stands(to: Destination, path: str, identity: Identity) -> bool:
    """Tell whether something stands at `path`, and the manifest of this package belongs there."""
    with suppress(FormatError):
        return spec_manifest_path(*identity) == path and os.path.lexists(os.path.join(to.mirror, path))
    return False


def _wanted(
    suspects: Iterable[Identity], others: tuple[Source, ...], nodes: _Nodes, *, described: bool
) -> Iterator[Wanted]:
    """Yield the packages to fetch; those of layout 2 with their nodes, which their paths are made of."""
    for name, version, hash_ in suspects:
        if not described:
            yield Wanted(name, version, hash_, others)
            continue
        with suppress(FormatError):
            node = nodes.node(hash_)
            if node is not None:
                compiler = recorded_compiler(node, nodes.node)
                yield Wanted(node.name, node.version, hash_, others, node, compiler)


class _Nodes:
    """The nodes of the packages: those of the index, of the packages' own documents where that is wrong, of others."""

    def __init__(self, to: Destination, report: VerifyReport, lookup: Lookup | None) -> None:
        self._to, self._lookup = to, lookup or (lambda _: None)
        self._wrong = {problem.hash for problem in report.problems if problem.path in (INDEX_MANIFEST, INDEX)}
        reading = read_build_cache_index(to) if isinstance(to, BuildCache) else read_own_index(to)
        self._listed = reading[0]
        self._documents: dict[str, Found] | None = None

    def find(self, hash_: str) -> Found | None:
        """Return a node as it is written, and its specfile version."""
        if hash_ in self._listed and hash_ not in self._wrong:
            return self._listed[hash_]
        if hash_ in self._wrong and (found := self._all().get(hash_)):
            return found
        return self._listed.get(hash_) or self._lookup(hash_)

    def node(self, hash_: str) -> Node | None:
        """Return a node. Raises FormatError."""
        found = self.find(hash_)
        return node_from_dict(found[0], hash=hash_, specfile=found[1]) if found else None

    def node_or_none(self, hash_: str) -> Node | None:
        """Return a node, None when it is not known or damaged."""
        with suppress(FormatError):
            return self.node(hash_)
        return None

    def _all(self) -> dict[str, Found]:
        """Return the nodes of all documents, a package's own before what others say of it; read once."""
        if self._documents is None:
            self._documents = {}
            to = self._to
            for stem, path in to.listing().manifests.items():
                made = (
                    nodes_of_spec_file(to, path)
                    if isinstance(to, BuildCache)
                    else nodes_of_document(to, path)
                )
                for hash_, found in made.items():
                    if hash_ == stem[-32:]:
                        self._documents[hash_] = found
                    else:
                        self._documents.setdefault(hash_, found)
        return self._documents


# --- places ---------------------------------------------------------------------------------------------------------


def _put_right(to: Destination, report: VerifyReport) -> None:
    """Move what stands in the place of a file or folder, and manifests that stand elsewhere than where they belong."""
    paths = {problem.path for problem in report.problems if problem.path}
    _clear_the_way(to, sorted(paths))
    for path in sorted(paths.union(_blob_directories(to))):
        place = os.path.join(to.mirror, path)
        if os.path.lexists(place) and not os.path.isfile(place):
            to.displace(path)
    for problem in report.problems:
        if problem.what in _ELSEWHERE and problem.path.endswith(_MANIFESTS):
            _to_its_place(to, problem.path)


def _written(wanted: Iterable[Wanted], *, old: bool) -> list[str]:
    """Return the files that a repair of layout 3 writes in folders that no problem may have named."""
    if old:
        return []
    found = [INDEX_MANIFEST, KEY_INDEX_MANIFEST, LAYOUT_PATH]
    for one in wanted:
        with suppress(FormatError):
            found.append(spec_manifest_path(one.name, one.version, one.hash))
    return found


def _clear_the_way(to: Destination, paths: Iterable[str]) -> None:
    """Move what stands in the place of a folder of one of these files, and is none."""
    for path in paths:
        parts = path.split("/")
        for end in range(1, len(parts)):
            folder = "/".join(parts[:end])
            place = os.path.join(to.mirror, folder)
            if os.path.lexists(place) and not os.path.isdir(place):
                to.displace(folder)


def _blob_directories(to: Destination) -> list[str]:
    """Return the directories in the place of a blob: of some, such as the index, no problem has the path."""
    base = os.path.join(to.mirror, "blobs", "sha256")
    found = [os.path.join(place, name) for place, names, _ in os.walk(base) for name in names]
    return [
        os.path.relpath(path, to.mirror) for path in found if len(os.path.basename(path)) == SHA256_LENGTH
    ]


def _to_its_place(to: Destination, path: str) -> None:
    """Move a manifest to where it belongs, out of the mirror when there is another one, or nobody can read it."""
    place = os.path.join(to.mirror, path)
    if not os.path.isfile(place):
        return
    try:
        right = (
            place_of_spec_file(to, path)
            if isinstance(to, BuildCache)
            else place_of(read_document(to, path)[0])
        )
    except CachefetchError:
        right = ""
    if right == path:
        return
    target = os.path.join(to.mirror, right)
    if not right or os.path.lexists(target):
        to.displace(path)
        return
    with files.store_errors(path):
        files.rename(place, target)
