"""Repair a mirror directory: fetch what an audit found damaged, and nothing else."""

from __future__ import annotations

from anyio import to_thread

from ...errors import UsageError
from ..model import Source, Wanted
from .check import wanted_repairs
from .check_build_cache import is_build_cache
from .destination import Destination, list_manifests, locked
from .execute import How, Sync, nodes_of_document, read_own_index
from .inventory import stem_of
from .journal import Journal
from .plan import Job

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from ...resolver.index.writer import Lookup
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

    A manifest and blobs that are right stay: only the damaged file is fetched. The index keeps listing what it
    listed.

    Raises:
        StoreError: the mirror cannot be written, or a sync works on it.
    """
    if is_build_cache(target.url):
        raise UsageError(
            f"{target.url} has layout 2: --repair works on layout 3",
            hint="run its sync again with --check, which fetches what is damaged",
        )
    destination = Destination(target.url)
    wanted = tuple(
        Wanted(name, version, hash_, tuple(others)) for name, version, hash_ in wanted_repairs(report)
    )
    with locked(destination):
        journal = Journal(destination.own)
        try:
            nodes, _ = read_own_index(destination)
            journal.drop([stem_of(one) for one in wanted])
            for one in wanted:
                destination.expect(stem_of(one), one)
            job = Job(wanted, tuple(others), {}, (), _lookup(report, destination, nodes))
            done = await Sync(session_for(destination), destination, journal, job, How()).run()
        finally:
            await to_thread.run_sync(journal.close)
    return done.done["packages"]


def _lookup(report: VerifyReport, to: Destination, nodes: Mapping[str, Found]) -> Lookup:
    """Return the node of a DAG hash: of a package that the index describes wrongly from its own spec document."""
    wrong = {problem.hash for problem in report.problems if problem.path == to.index_path}
    manifests = {stem[-32:]: path for stem, path in list_manifests(to.mirror).items()} if wrong else {}

    def find(hash_: str) -> Found | None:
        if hash_ in wrong and hash_ in manifests:
            return nodes_of_document(to, manifests[hash_]).get(hash_) or nodes.get(hash_)
        return nodes.get(hash_)

    return find
