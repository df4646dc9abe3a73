"""What stock Spack takes of a mirror, down to single keys, and what it passes over although no writer makes it. Pure.

Source: answers of Spack 1.1.0 about mirrors with one thing changed (oracles/acceptance.json; docs/sync.md, "What stock
Spack accepts"). What it refuses is a problem of an audit; what it passes over is a remark.
"""

from __future__ import annotations

import json

from ...resolver.index.writer import INDEX_MEDIA_TYPE, KEY_INDEX_MEDIA_TYPE
from .convert import SPEC_MEDIA_TYPE, TARBALL_MEDIA_TYPE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from ...resolver.index.readers.manifest import BlobRef, Manifest

#: An index record with any other key makes Spack refuse the whole index.
RECORD_KEYS = frozenset((
    "spec", "ref_count", "in_buildcache", "path", "installed", "explicit", "installation_time", "deprecated_for",
    "origin",
))  # fmt: skip
#: Versions of the database in an index that Spack 1.1 and 1.2 read.
DATABASES = frozenset(("6", "7", "8"))
#: Of spec documents: Spack 1.0 to 1.2, and 1.3.
_SPEC_MEDIA_TYPES = (SPEC_MEDIA_TYPE, "application/vnd.spack.spec.v6+json")
_COMPRESSIONS = ("gzip", "none")
_GZIP = b"\x1f\x8b"
#: First specfile version whose nodes must not have a compiler of their own.
_NO_COMPILER = 5


def refused_manifest(manifest: Manifest) -> str:
    """Return why Spack refuses a spec manifest, "" when it does not."""
    if any(blob.media_type == TARBALL_MEDIA_TYPE for blob in manifest.blobs):
        return ""
    found = manifest.tarball().media_type
    return f"names its tarball as {found:.80}; Spack takes exactly {TARBALL_MEDIA_TYPE}"


def index_of(manifest: Manifest) -> BlobRef:
    """Return the index that Spack 1.1 reads of several, else the newest. Raises FormatError: there is none."""
    exact = (blob for blob in manifest.blobs if blob.media_type == INDEX_MEDIA_TYPE)
    return next(exact, None) or manifest.index()


def refused_index(manifest: Manifest) -> str:
    """Return why Spack refuses an index manifest, "" when it does not."""
    if any(blob.media_type == INDEX_MEDIA_TYPE for blob in manifest.blobs):
        return ""
    found = manifest.index().media_type
    return f"names its index as {found:.80}; Spack 1.1 and 1.2 take exactly {INDEX_MEDIA_TYPE}"


def refused_key(manifest: Manifest, media_type: str) -> str:
    """Return why Spack cannot use the manifest of a key or of the key list, "" when it can: it takes the first blob."""
    if manifest.blobs and manifest.blobs[0].media_type == media_type:
        return ""
    return f"does not name its {media_type} first, and Spack takes the first"


def refused_key_list(manifest: Manifest) -> str:
    """As `refused_key`, for the list."""
    return refused_key(manifest, KEY_INDEX_MEDIA_TYPE)


def refused_database(version: str) -> str:
    """Return why Spack passes over an index of a database version that we read, "" when it reads it."""
    if version in DATABASES:
        return ""
    return f"the index has database version {version}: Spack before 1.3 reads 6, 7 and 8, and shows nothing of it"


def refused_record(record: Mapping[str, Any], specfile: int) -> str:
    """Return why an index record makes Spack refuse the whole index, "" when it does not."""
    if not record.keys() <= RECORD_KEYS:
        strange = ", ".join(repr(key)[:40] for key in sorted(record.keys() - RECORD_KEYS)[:3])
        return f"it has the key {strange}, for which Spack refuses the whole index"
    node = record["spec"]
    if specfile >= _NO_COMPILER and "compiler" in node and "annotations" not in node:
        return "its node has a compiler and no annotations, for which Spack refuses the whole index"
    return ""


def refused_layout(text: bytes) -> str:
    """Return what is wrong with ``layout.json``, "" when it is as Spack writes it."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        return f"is not JSON: {error}"
    signing = document.get("signing") if isinstance(document, dict) else None
    return "" if signing == "gpg" else f"names the signing {signing!r:.40}; Spack writes 'gpg'"


def remarks_on(manifest: Manifest) -> Iterator[str]:
    """Yield what no writer puts into a manifest, and Spack passes over."""
    if manifest.extra:
        keys = ", ".join(repr(key)[:40] for key in manifest.extra[:3])
        yield f"the manifest has unknown keys ({keys})"
    for blob in manifest.blobs:
        if blob.compression not in _COMPRESSIONS:
            yield f"the manifest names the compression {blob.compression!r:.40}"


def remarks_on_spec(manifest: Manifest) -> Iterator[str]:
    """Yield the same for a spec manifest."""
    yield from remarks_on(manifest)
    found = manifest.spec().media_type
    if found not in _SPEC_MEDIA_TYPES:
        yield f"the manifest names its spec document as {found:.80}, where Spack writes {SPEC_MEDIA_TYPE}"


def remarks_on_blob(ref: BlobRef, head: bytes) -> Iterator[str]:
    """Yield what a manifest says wrongly of a blob that begins with `head` (two bytes or more)."""
    packed = head.startswith(_GZIP)
    if ref.compression in _COMPRESSIONS and packed != (ref.compression == "gzip"):
        kind = "is" if packed else "is not"
        yield f"the manifest names the compression {ref.compression!r} of a blob that {kind} gzip"
