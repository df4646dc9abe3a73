"""A bare ``index.json``, as `spack buildcache update-index` writes it, used where it lies."""

from __future__ import annotations

from ....errors import NotFoundError
from . import DATABASE_MARK, INDEX_LIMIT, Get, Reading, failed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from . import Known, Reader


def read(location: str, known: Known | None = None) -> Reader:
    """Read the index file at `location`; a Reading without kind when it is something else."""
    answer = yield Get(location, known.etag if known else None, INDEX_LIMIT, spool=True, sniff=DATABASE_MARK)
    if answer.status == 304 and known:
        return Reading("bare", "fresh", etag=known.etag, index_sha256=known.sha256, unchanged=True)
    if isinstance(answer.error, NotFoundError):
        return Reading("", "unreachable")
    if answer.error:
        return failed("bare", answer.error)
    if answer.path is None:
        return Reading("", "not-a-cache")
    return Reading("bare", "fresh", index_path=answer.path, index_local=answer.local, etag=answer.etag)
