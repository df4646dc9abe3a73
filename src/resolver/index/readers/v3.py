"""Layout v3: an index manifest that names the index blob by sha256 (docs/formats.md, "Layout v3")."""

from __future__ import annotations

from ....errors import FormatError, NotFoundError
from . import INDEX_LIMIT, Get, Reading, failed, join

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator

    from . import Answer, Known, Reader

INDEX_MANIFEST = "v3/manifests/index/index.manifest.json"
_NO_INDEX = "a v3 mirror without an index; run `spack buildcache update-index` on it"


def read(location: str, known: Known | None = None, view: str = "") -> Reader:
    """Read the index of the v3 mirror at `location`, or say that `known` is still current.

    `view` names one of the mirror's named indexes (Spack 1.2); then only that one counts.
    """
    path = f"v3/manifests/index/{view}/index.manifest.json" if view else INDEX_MANIFEST
    answer = yield Get(join(location, path), etag=known.etag if known else None)
    if answer.status == 304 and known:
        return Reading("v3", "fresh", etag=known.etag, index_sha256=known.sha256, unchanged=True)
    if isinstance(answer.error, NotFoundError):
        if view:
            return Reading("v3", "no-index", f"no view {view!r}{(yield from _views(location))}")
        return (yield from _without_index(location))
    if answer.error:
        return failed("v3", answer.error)
    from .manifest import blob_path, parse_manifest  # not needed when the store is current, the usual case

    try:
        ref = parse_manifest(answer.body, what=join(location, path)).index()
    except FormatError as error:
        if answer.body.lstrip()[:1] == b"<":  # a site that answers every address with its front page
            return Reading("", "not-a-cache", error.message)
        reason = error.context.get("reason", "")
        return Reading("v3", reason if reason in ("too-new", "too-old") else "corrupt", error.message)
    if known and known.sha256 == ref.sha256:
        return Reading("v3", "fresh", etag=answer.etag, index_sha256=ref.sha256, unchanged=True)
    url = join(location, blob_path(ref.sha256))
    blob = yield Get(url, limit=min(ref.size, INDEX_LIMIT), spool=True)
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
        return Reading("v3", "no-index", _NO_INDEX + (yield from _views(location)))
    if "://" in location:
        return Reading("", "not-a-cache")
    manifests = yield Get(join(location, "v3/manifests"))
    if manifests.names is not None:
        return Reading("v3", "no-index", _NO_INDEX + (yield from _views(location)))
    return Reading("", "not-a-cache")


def _views(location: str) -> Generator[Get, Answer, str]:
    """Return a remark that names the views of a directory; a URL cannot be listed."""
    if "://" in location:
        return ""
    answer = yield Get(join(location, "v3/manifests/index"))
    views = [name for name in answer.names or () if not name.endswith(".json")]
    return f"; it has the views {', '.join(views)}: give one as view" if views else ""
