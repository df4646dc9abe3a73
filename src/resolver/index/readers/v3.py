"""Layout v3: an index manifest that names the index blob by sha256 (docs/formats.md, "Layout v3")."""

from __future__ import annotations

from ....errors import FormatError, NotFoundError
from . import Get, Reading, failed, join
from .manifest import INDEX_MANIFEST, blob_path, parse_manifest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from . import Known, Reader

#: Above any index that a cache holds today (1.1 million specs, 3 KB each), bytes.
INDEX_LIMIT = 8 << 30


def read(location: str, known: Known | None = None) -> Reader:
    """Read the index of the v3 mirror at `location`, or say that `known` is still current."""
    answer = yield Get(join(location, INDEX_MANIFEST), etag=known.etag if known else None)
    if answer.status == 304 and known:
        return Reading("v3", "fresh", etag=known.etag, index_sha256=known.sha256, unchanged=True)
    if isinstance(answer.error, NotFoundError):
        return (yield from _without_index(location))
    if answer.error:
        return failed("v3", answer.error)
    try:
        ref = parse_manifest(answer.body, what=join(location, INDEX_MANIFEST)).index()
    except FormatError as error:
        if answer.body.lstrip()[:1] == b"<":  # a site that answers every address with its front page
            return Reading("", "not-a-cache", error.message)
        reason = error.context.get("reason", "")
        return Reading("v3", reason if reason in ("too-new", "too-old") else "corrupt", error.message)
    if known and known.sha256 == ref.sha256:
        return Reading("v3", "fresh", etag=answer.etag, index_sha256=ref.sha256, unchanged=True)
    url = join(location, blob_path(ref.sha256))
    blob = yield Get(url, limit=INDEX_LIMIT, spool=True)
    if isinstance(blob.error, NotFoundError):
        return Reading("v3", "corrupt", f"the index manifest names the blob {ref.sha256}, which is not there")
    if blob.error:
        return failed("v3", blob.error)
    return Reading(
        "v3",
        "fresh",
        index_path=blob.path,
        index_local=blob.local,
        index_sha256=ref.sha256,
        index_size=ref.size,
        etag=answer.etag,
    )


def _without_index(location: str) -> Reader:
    """Tell a v3 mirror that has no index from something that is no v3 mirror."""
    layout = yield Get(join(location, "v3/layout.json"))
    if layout.status == 200 and b"signing" in layout.body:
        return Reading(
            "v3", "no-index", "a v3 mirror without an index; run `spack buildcache update-index` on it"
        )
    if "://" in location:
        return Reading("", "not-a-cache")
    manifests = yield Get(join(location, "v3/manifests"))
    if manifests.names is not None:
        return Reading(
            "v3", "no-index", "a v3 mirror without an index; run `spack buildcache update-index` on it"
        )
    return Reading("", "not-a-cache")
