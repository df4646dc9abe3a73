"""Repair a mirror directory: fetch what an audit found damaged, and nothing else."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from anyio import to_thread

from ...errors import FormatError
from ...resolver.index.readers.nodes import node_from_dict
from ...resolver.index.readers.places import recorded_compiler
from ..layouts import V2
from ..model import Source, Wanted
from .build_cache import BuildCache, read_build_cache_index
from .check import wanted_repairs
from .check_build_cache import is_build_cache
from .destination import Destination, list_manifests, locked
from .execute import How, Sync, nodes_of_document, read_own_index
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
    from .check import VerifyReport

    Found = tuple[Mapping[str, Any], int]


async def repair_mirror(
    session_for: Callable[[Store], Session],
    report: VerifyReport,
    target: Source,
    others: Sequence[Source],
) -> int:
    """Fetch the damaged packages from `others`, and write keys and index again; return the number of packages.

    What is right stays: only the damaged file is fetched. The index keeps listing what it listed. A mirror of layout 2
    is repaired from others of layout 2; a package that its index does not describe cannot be found there, and stays as
    it is.

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
            nodes, _ = (
                read_build_cache_index(destination)
                if isinstance(destination, BuildCache)
                else read_own_index(destination)
            )
            damaged = wanted_repairs(report)
            wanted = tuple(
                _described(damaged, tuple(others), nodes)
                if old
                else (Wanted(name, version, hash_, tuple(others)) for name, version, hash_ in damaged)
            )
            journal.drop([stem_of(one) for one in wanted])
            for one in wanted:
                destination.expect(stem_of(one), one)
            lookup = nodes.get if old else _lookup(report, destination, nodes)
            job = Job(wanted, tuple(others), {}, (), lookup)
            done = await Sync(session_for(destination), destination, journal, job, How()).run()
        finally:
            await to_thread.run_sync(journal.close)
    return done.done["packages"]


def _described(
    damaged: Iterable[tuple[str, str, str]], others: tuple[Source, ...], nodes: Mapping[str, Found]
) -> Iterator[Wanted]:
    """Yield packages of layout 2 with their nodes, which their paths are made of."""

    def node_of(hash_: str) -> Node | None:
        raw, specfile = nodes.get(hash_, ({}, 0))
        return node_from_dict(raw, hash=hash_, specfile=specfile) if raw else None

    for name, version, hash_ in damaged:
        with suppress(FormatError):
            node = node_of(hash_)
            if node is not None:
                yield Wanted(name, version, hash_, others, node, recorded_compiler(node, node_of))


def _lookup(report: VerifyReport, to: Destination, nodes: Mapping[str, Found]) -> Lookup:
    """Return the node of a DAG hash: of a package that the index describes wrongly from its own spec document."""
    wrong = {problem.hash for problem in report.problems if problem.path == to.index_path}
    manifests = {stem[-32:]: path for stem, path in list_manifests(to.mirror).items()} if wrong else {}

    def find(hash_: str) -> Found | None:
        if hash_ in wrong and hash_ in manifests:
            return nodes_of_document(to, manifests[hash_]).get(hash_) or nodes.get(hash_)
        return nodes.get(hash_)

    return find
