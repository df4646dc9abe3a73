"""Turn a package of layout 2, or of a registry, into one of layout 3. Pure: a proven document in, bytes out.

The tarball stays as it is. The spec document loses what layout 3 has in the manifest (``binary_cache_checksum``) or
only a registry has (image configuration) and keeps its nodes, also those of an older specfile version; it gets
``archive_size``, as ``spack buildcache migrate`` writes it (docs/formats.md, "Layout v3"). The manifest is a new text,
so it has no signature: the converted mirror is unsigned.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from dataclasses import dataclass

from ...resolver.index.readers.manifest import BlobRef

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

#: Spack 1.1 takes exactly these texts (docs/formats.md).
TARBALL_MEDIA_TYPE = "application/vnd.spack.install.v2.tar+gzip"
SPEC_MEDIA_TYPE = "application/vnd.spack.spec.v5+json"
#: A marker that layout 3 keeps from the layout before.
_LAYOUT_VERSION = 2


@dataclass(frozen=True, slots=True)
class Converted:
    """A package of layout 3: the spec blob and what its manifest says of it, and the manifest."""

    blob: bytes
    spec: BlobRef
    manifest: bytes


def convert(document: Mapping[str, Any], tarball: BlobRef) -> Converted:
    """Return the spec blob and the manifest for a package.

    Args:
        document: the spec file of layout 2, or the config of an image, as parsed JSON; proven.
        tarball: digest and size of the tarball as stored.
    """
    text = json.dumps(
        {
            "spec": document["spec"],
            "buildcache_layout_version": _LAYOUT_VERSION,
            "archive_size": tarball.size,
        },
        separators=(",", ":"),
    )
    blob = gzip.compress(text.encode(), 6, mtime=0)
    spec = BlobRef(SPEC_MEDIA_TYPE, hashlib.sha256(blob).hexdigest(), len(blob), "gzip")
    payload = BlobRef(TARBALL_MEDIA_TYPE, tarball.sha256, tarball.size, "gzip")
    records = [
        {
            "contentLength": ref.size,
            "mediaType": ref.media_type,
            "compression": ref.compression,
            "checksumAlgorithm": "sha256",
            "checksum": ref.sha256,
        }
        for ref in (payload, spec)
    ]
    manifest = json.dumps({"version": 3, "data": records}, indent=0, separators=(",", ":")).encode()
    return Converted(blob, spec, manifest)
