"""Layout v2: ``build_cache/index.json`` with its digest in ``index.json.hash`` (docs/formats.md, "Layout v2")."""

from __future__ import annotations

import re

from ....errors import NotFoundError
from . import DATABASE_MARK, INDEX_LIMIT, Get, Reading, failed, join

TYPE_CHECKING = False
if TYPE_CHECKING:
    from . import Known, Reader

INDEX = "build_cache/index.json"
HASH = "build_cache/index.json.hash"
KEYS = "build_cache/_pgp/index.json"
_SHA256 = re.compile(rb"[0-9a-f]{64}")


def read(location: str, known: Known | None = None) -> Reader:
    """Read the index of the v2 mirror at `location`, or say that `known` is still current.

    The small hash file is asked first. It is uploaded apart from the index, so the two may differ for a while: a
    difference is reported and no error (Spack 1.1 tolerates it, docs/formats.md).
    """
    hashed = yield Get(join(location, HASH))
    match = _SHA256.match(hashed.body) if hashed.status == 200 else None
    promised = match[0].decode() if match else ""
    if known and promised == known.sha256:
        return Reading("v2", "fresh", etag=known.etag, index_sha256=promised, unchanged=True)
    etag = known.etag if known else None
    answer = yield Get(join(location, INDEX), etag, INDEX_LIMIT, spool=True, sniff=DATABASE_MARK)
    if answer.status == 304 and known:
        return Reading("v2", "fresh", etag=known.etag, index_sha256=known.sha256, unchanged=True)
    if isinstance(answer.error, NotFoundError):
        if promised:
            return Reading("v2", "corrupt", f"{HASH} is there, {INDEX} is not")
        return (yield from _without_index(location))
    if answer.error:
        return failed("v2", answer.error)
    if answer.path is None:
        if answer.body.lstrip()[:1] == b"<":
            return Reading("", "not-a-cache")
        return Reading("v2", "corrupt", f"{INDEX} is not a Spack index")
    return Reading(
        "v2",
        "fresh",
        index_path=answer.path,
        index_local=answer.local,
        etag=answer.etag,
        index_promised=promised,
    )


def _without_index(location: str) -> Reader:
    """Tell a v2 mirror that has no index from something that is no v2 mirror."""
    detail = "a v2 mirror without an index; run `spack buildcache update-index` on it"
    if "://" not in location:
        listing = yield Get(join(location, "build_cache"))
        return Reading("v2", "no-index", detail) if listing.names is not None else Reading("", "not-a-cache")
    keys = yield Get(join(location, KEYS))
    if keys.status == 200 and b'"keys"' in keys.body:
        return Reading("v2", "no-index", detail)
    return Reading("", "not-a-cache")
