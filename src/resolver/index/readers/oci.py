"""OCI registries: the index is the one layer of the image tagged ``index.spack`` (docs/formats.md, "OCI").

Requests are written as ``oci://HOST/v2/NAME/manifests/TAG``; the transport turns them into https (``oci+http://``
into http) and does the registry's token flow.
"""

from __future__ import annotations

import json
import re

from ....errors import FormatError, NotFoundError
from . import INDEX_LIMIT, OCI_SCHEMES, Get, Reading, failed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from . import Known, Reader

INDEX_TAG = "index.spack"
_NAME = re.compile(r"[a-z0-9][a-z0-9._/-]*")
#: Repositories of a registry that are named where the one asked for is not there.
_SHOWN = 5
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")


def api_base(location: str) -> str:
    """Return the address of a repository's API, ``oci://HOST/v2/NAME``, for a reference as Spack writes it.

    A reference without a domain is Docker Hub's; a tag at its end is dropped (Spack 1.1, docs/formats.md).

    Raises:
        FormatError: no repository name.
    """
    scheme, _, rest = location.partition("://")
    userinfo, at, rest = rest.rpartition("@")
    first, slash, name = rest.partition("/")
    if not slash or not ("." in first or ":" in first or first == "localhost" or first != first.lower()):
        first, name = "index.docker.io", rest if slash else f"library/{rest}"
    name = name.strip("/").lower()
    head, _, last = name.rpartition("/")
    name = f"{head}/{last.partition(':')[0]}".lstrip("/")
    if not name or name == "library/" or "?" in name:
        raise FormatError(
            f"{scheme}://{rest} names no repository",
            hint=f"{scheme}://HOST/NAME, such as oci://ghcr.io/org/cache",
        )
    return f"{scheme}://{userinfo}{at}{first}/v2/{name}"


def read(location: str, known: Known | None = None) -> Reader:
    """Read the index image of the repository at `location`, or say that `known` is still current."""
    if not location.startswith(OCI_SCHEMES):
        return Reading("", "not-a-cache")
    base = api_base(location)
    answer = yield Get(f"{base}/manifests/{INDEX_TAG}", etag=known.etag if known else None)
    if answer.status == 304 and known:
        return Reading("oci", "fresh", etag=known.etag, index_sha256=known.sha256, unchanged=True)
    if isinstance(answer.error, NotFoundError):
        return (yield from _without_index(base))
    if answer.error:
        return failed("oci", answer.error)
    try:
        digest, size = _index_layer(answer.body)
    except FormatError as error:
        return Reading("oci", "corrupt", error.message)
    if known and known.sha256 == digest:
        return Reading("oci", "fresh", etag=answer.etag, index_sha256=digest, unchanged=True)
    limit = INDEX_LIMIT if size is None else min(size, INDEX_LIMIT)
    blob = yield Get(f"{base}/blobs/sha256:{digest}", limit=limit, spool=True)
    if isinstance(blob.error, NotFoundError):
        return Reading("oci", "corrupt", f"the index image names the blob {digest}, which is not there")
    if blob.error:
        return failed("oci", blob.error)
    return Reading(
        "oci", "fresh", index_path=blob.path, index_sha256=digest, index_size=size, etag=answer.etag
    )


def _without_index(base: str) -> Reader:
    """Say what is there in place of an index image: a repository, a registry without it, or neither."""
    tags = yield Get(f"{base}/tags/list")
    if tags.status == 200:
        return Reading("oci", "no-index", f"a registry repository without the image {INDEX_TAG}")
    if tags.error and not isinstance(tags.error, NotFoundError):
        return failed("oci", tags.error)
    api, _, name = base.partition("/v2/")
    host = api.rpartition("://")[2].rpartition("@")[2]
    ping = yield Get(f"{api}/v2/")
    if isinstance(ping.error, NotFoundError):
        return Reading("", "not-a-cache", f"{host} answers, and is no container registry")
    if ping.error:
        return failed("oci", ping.error)
    known = _repositories((yield Get(f"{api}/v2/_catalog")).body)
    more = f"; it has {', '.join(known[:_SHOWN])}" + (", ..." if len(known) > _SHOWN else "") if known else ""
    detail = f"{host} is a container registry and has no repository {name}{more}"
    return Reading("", "not-a-cache", detail)


def _repositories(body: bytes) -> list[str]:
    """Return the repositories that a registry tells; most public ones tell none."""
    try:
        names = json.loads(body)["repositories"]
        return [name for name in names if isinstance(name, str) and _NAME.fullmatch(name)]
    except (ValueError, LookupError, TypeError, RecursionError):
        return []


def _index_layer(body: bytes) -> tuple[str, int | None]:
    """Return digest (hex) and size of the image's only layer, which is the plain ``index.json``."""
    try:
        layer = json.loads(body)["layers"][-1]
        match = _DIGEST.fullmatch(layer["digest"])
        size = layer.get("size")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        match, size = None, None
    if match is None:
        raise FormatError(f"the manifest of {INDEX_TAG} names no layer with a sha256 digest")
    return match[1], size if type(size) is int and size >= 0 else None
