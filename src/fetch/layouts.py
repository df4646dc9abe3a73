"""Where a package lies in each layout of mirrors. Pure: names and URLs only.

A mirror of layout 3 has a manifest, a spec blob and a tarball; one of layout 2 a spec file, which is manifest and
document at once, and a tarball; a registry has an image whose config is the document and whose last layer is the
tarball (docs/formats.md).
"""

from __future__ import annotations

import re

from ..errors import NotFoundError
from ..resolver.index.readers import join
from ..resolver.index.readers.manifest import blob_path, spec_manifest_path, spec_stem
from ..resolver.index.readers.oci import api_base
from ..resolver.index.readers.places import (
    build_cache_spec_files,
    build_cache_stem,
    build_cache_tarball,
    image_tag,
    recorded_compiler,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .model import Source, VerifiedPackage, Wanted

#: Layouts of a `Source`. UNKNOWN is layout 3, else 2 where the wanted node is known.
V3, V2, OCI, UNKNOWN = "v3", "v2", "oci", ""
#: What a stored document of a layout is called: ``NAME-VERSION-HASH`` and this.
SUFFIXES = {V3: "", V2: ".v2", OCI: ".oci"}
_KEPT = re.compile(r".*-([a-z2-7]{32})(\.v2|\.oci)?")
_OCI_SCHEME = re.compile(r"oci(\+http)?://")


def manifest_url(source: Source, wanted: Wanted) -> str:
    """Return the URL of the manifest of a package in a mirror of layout 3."""
    return join(source.url, spec_manifest_path(wanted.name, wanted.version, wanted.hash))


def spec_file_urls(source: Source, wanted: Wanted) -> tuple[str, str]:
    """Return the URLs of the signed and of the unsigned spec file of a package in a mirror of layout 2.

    Raises:
        NotFoundError: the node is not known; its architecture and compiler are part of the names.
        FormatError: the node cannot have such a name.
    """
    if wanted.node is None:
        raise NotFoundError(
            f"mirror {source.mirror} has layout 2, where only the index tells what lies where, and that does not "
            f"list {wanted}",
            hint="`cachefetch list` shows what the mirrors hold",
            context={"mirror": source.mirror, "reason": "layout-2"},
        )
    compiler = wanted.compiler or wanted.node.compiler or ("none", "none")
    signed, unsigned = build_cache_spec_files(build_cache_stem(wanted.node, compiler))
    return join(source.url, signed), join(source.url, unsigned)


def image_url(source: Source, wanted: Wanted) -> str:
    """Return the URL of the image manifest of a package in a registry."""
    tag = image_tag(wanted.name, wanted.version, wanted.hash)
    return f"{api_base(source.url)}/manifests/{tag}"


def blob_url(source: Source, sha256: str) -> str:
    """Return the URL of a blob in a mirror of layout 3 or in a registry."""
    if source.layout == OCI:
        return f"{api_base(source.url)}/blobs/sha256:{sha256}"
    return join(source.url, blob_path(sha256))


def payload_url(source: Source, package: VerifiedPackage) -> str:
    """Return where `source` has the tarball of a package that was proven from any mirror.

    Raises:
        FormatError: layout 2, and the compiler is recorded nowhere.
    """
    layout = package.layout if source is package.source else source.layout
    if layout != V2:
        return blob_url(source, package.tarball.sha256)
    document = package.document
    nodes = {node.hash: node for node in document.nodes}
    compiler = package.wanted.compiler or recorded_compiler(document.root, nodes.get)
    return join(source.url, build_cache_tarball(document.root, compiler))


def plain_url(url: str) -> str:
    """Return a URL of a registry as other tools take it, any other URL as it is."""
    return _OCI_SCHEME.sub(lambda found: "http://" if found[1] else "https://", url, count=1)


def kept_name(wanted: Wanted, layout: str) -> str:
    """Return the name under which the store keeps the document of a package."""
    return spec_stem(wanted.name, wanted.version, wanted.hash) + SUFFIXES[layout]


def parse_kept_name(name: str) -> tuple[str, str] | None:
    """Return DAG hash and layout of a document in the store, None for another file."""
    found = _KEPT.fullmatch(name)
    return (found[1], found[2][1:] if found[2] else V3) if found else None
