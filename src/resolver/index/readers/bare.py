"""A bare ``index.json``, as `spack buildcache update-index` writes it, used where it lies."""

from __future__ import annotations

from ....errors import NotFoundError
from . import Get, Reading, failed
from .v3 import INDEX_LIMIT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from . import Known, Reader


def read(location: str, known: Known | None = None) -> Reader:  # noqa: ARG001 -- the registry's signature; the store compares size and time of the file
    """Read the index file at `location`; a Reading without kind when it is something else."""
    if not location.endswith(".json"):
        return Reading("", "not-a-cache")
    answer = yield Get(location, limit=INDEX_LIMIT, spool=True)
    if isinstance(answer.error, NotFoundError):
        return Reading("", "unreachable")
    if answer.error:
        return failed("bare", answer.error)
    if answer.path is None:
        return Reading("", "not-a-cache")
    return Reading("bare", "fresh", index_path=answer.path, index_local=answer.local, etag=answer.etag)
