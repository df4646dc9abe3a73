"""The image of one package in a registry: manifest and config blob. Pure: bytes in, values out.

An image has no signature. Its manifest names config and layers by digest; the config blob is the spec document, and
the last layer is the package's own tarball (Spack 1.1, docs/formats.md "OCI").
"""

from __future__ import annotations

import json
import re

from ...errors import BindingError, FormatError
from ...resolver.index.readers.manifest import MAX_MANIFEST_SIZE, BlobRef
from ...values import frozen
from .binding import MAX_SPEC_BLOB_SIZE, check_binding, read_spec_blob

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from .binding import SpecDocument

#: Newest ``buildcache_layout_version`` of a config blob.
NEWEST_LAYOUT = 3
MANIFEST_TYPES = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_LAYER_TYPES = (
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
)
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_MAX_SIZE = (1 << 63) - 1


@frozen
class Image:
    """An image manifest: the `config` blob, which holds the spec, and the `tarball`, its last layer."""

    config: BlobRef
    tarball: BlobRef


def parse_image(data: bytes, *, what: str) -> Image:
    """Parse and check an image manifest.

    Args:
        data: the JSON text as the registry sent it.
        what: registry and tag, for messages.

    Raises:
        FormatError: not the manifest of one image, another digest than sha256, or a tarball that lies elsewhere
            (a foreign layer, with ``urls``).
    """
    document = _load(data, what)
    kind = document.get("mediaType", MANIFEST_TYPES[0])
    if document.get("schemaVersion") != 2 or kind not in MANIFEST_TYPES:
        _refuse(what, f"is not the manifest of one image (mediaType {kind!r:.80})")
    layers = document.get("layers")
    if not isinstance(layers, list) or not layers:
        _refuse(what, "names no layer")
    for layer in layers:
        _blob(layer, what, "a layer")
    if layers[-1].get("mediaType") not in _LAYER_TYPES or "urls" in layers[-1]:
        _refuse(
            what, f"has a last layer that is no tarball of the registry ({layers[-1].get('mediaType')!r:.80})"
        )
    config = _blob(document.get("config"), what, "the config")
    if config.size > MAX_SPEC_BLOB_SIZE:
        _refuse(what, f"promises a config of {config.size} bytes; the limit is {MAX_SPEC_BLOB_SIZE}")
    return Image(config, _blob(layers[-1], what, "a layer"))


def read_config(data: bytes, image: Image, *, name: str, version: str, hash: str, what: str) -> SpecDocument:
    """Check and parse the config blob of an image, which must be about the wanted package.

    Args:
        data: the blob as stored.
        image: what the manifest says.
        name, version, hash: the wanted package.
        what: registry and tag, for messages.

    Raises:
        TruncatedError, DigestError: not the promised bytes.
        BindingError: the image of another package, or a config that names another tarball than the manifest.
        FormatError: not a spec document, or of a newer layout.
    """
    document = read_spec_blob(data, image.config, what=f"config of {what}")
    layout = document.raw.get("buildcache_layout_version", 0)
    if not isinstance(layout, int) or isinstance(layout, bool) or layout < 0:
        _refuse(what, "has no usable buildcache_layout_version")
    if layout > NEWEST_LAYOUT:
        raise FormatError(
            f"{what} has build cache layout {layout}; this cachefetch reads up to {NEWEST_LAYOUT}",
            hint="a newer Spack wrote it: update cachefetch",
            context={"file": what, "reason": "too-new", "version": layout},
        )
    check_binding(document, name=name, version=version, hash=hash, what=what)
    checksum = document.raw.get("binary_cache_checksum")
    found = checksum.get("hash") if isinstance(checksum, dict) else None
    if found != image.tarball.sha256:
        raise BindingError(
            f"{what}: its config is about the tarball {found!s:.80}, its last layer is {image.tarball.sha256}",
            hint="the image is damaged or was changed: get it from another mirror and tell its owner",
            context={"file": what, "expected": str(found)[:80], "found": image.tarball.sha256},
        )
    return document


def _load(data: bytes, what: str) -> dict[str, Any]:
    if len(data) > MAX_MANIFEST_SIZE:
        _refuse(what, f"has {len(data)} bytes, more than the limit of {MAX_MANIFEST_SIZE}")
    try:
        document = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        _refuse(what, f"is not JSON ({str(error)[:120]})", error)
    if not isinstance(document, dict):
        _refuse(what, "is not a JSON object")
    return document


def _blob(entry: Any, what: str, which: str) -> BlobRef:
    if not isinstance(entry, dict) or not isinstance(entry.get("digest"), str):
        _refuse(what, f"has {which} without digest")
    match = _DIGEST.fullmatch(entry["digest"])
    if match is None:
        _refuse(what, f"has {which} with the digest {entry['digest']!r:.90}; only sha256 is accepted")
    size = entry.get("size")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= _MAX_SIZE:
        _refuse(what, f"has {which} without usable size")
    media_type = entry.get("mediaType")
    return BlobRef(media_type if isinstance(media_type, str) else "", match[1], size, "")


def _refuse(what: str, problem: str, cause: BaseException | None = None) -> NoReturn:
    hint = "the registry is damaged, or holds no Spack build cache under that tag; tell its owner"
    raise FormatError(f"{what} {problem}", hint=hint, context={"file": what}) from cause
