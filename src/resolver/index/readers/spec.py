"""Stand-alone spec documents, and the spec of a known hash straight from its v3 manifest, without any index.

A document is ``{"spec": {"_meta": {"version": N}, "nodes": [root, ...]}}`` (a list of wrapped nodes in version 1),
plain, gzip or clear-signed (docs/formats.md, "Spec documents"). Signatures are the business of `fetch/verify`: here
a document is an index of one spec, as untrusted as any index.
"""

from __future__ import annotations

import json

from ....errors import FormatError, NotFoundError
from ...model import Record
from . import Get, Reading, failed, join
from .manifest import parse_manifest, spec_manifest_path
from .nodes import node_from_dict

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ...model import Node
    from . import Known, Reader

_SIGNED = b"-----BEGIN PGP SIGNED MESSAGE-----"
_SIGNATURE = b"-----BEGIN PGP SIGNATURE-----"
_GZIP = b"\x1f\x8b"
#: Bytes of a spec document after gunzip; real ones have some 100 KB.
DOCUMENT_LIMIT = 64 << 20


def read(location: str, known: Known | None = None) -> Reader:  # noqa: ARG001 -- the registry's signature; one document has no stored form
    """Read the spec document at `location`; a Reading without kind when it is something else."""
    answer = yield Get(location)
    if isinstance(answer.error, NotFoundError):
        return Reading("", "unreachable")
    if answer.error:
        return failed("spec", answer.error)
    if answer.names is not None:
        return Reading("", "not-a-cache")
    try:
        text = plain_text(answer.body, what=location)
        if not text.lstrip().startswith(b"{") or b'"spec"' not in text[:4096]:
            return Reading("", "not-a-cache")
        nodes = parse_document(text, what=location)
    except FormatError as error:
        return Reading("spec", "corrupt", error.message)
    return Reading("spec", "fresh", records=_records(nodes))


def read_known(location: str, name: str, version: str, hash: str) -> Reader:
    """Read one spec of the v3 mirror at `location` by its manifest: three names in place of an index.

    The records are the root and its dependencies; that the mirror has those too shows when they are fetched.
    """
    path = join(location, spec_manifest_path(name, version, hash))
    answer = yield Get(path)
    if isinstance(answer.error, NotFoundError):
        return Reading("", "not-a-cache", f"no manifest of {name}@{version}/{hash[:7]}")
    if answer.error:
        return failed("v3", answer.error)
    try:
        ref = parse_manifest(plain_text(answer.body, what=path), what=path).spec()
        blob = yield Get(join(location, ref.path), limit=DOCUMENT_LIMIT)
        if blob.error:
            return failed("v3", blob.error)
        _check_digest(blob.body, ref.sha256, path)
        nodes = parse_document(plain_text(blob.body, what=path), what=path)
    except FormatError as error:
        return Reading("v3", "corrupt", error.message)
    root = nodes[0]
    if (root.name, root.version, root.hash) != (name, version, hash):
        return Reading("v3", "corrupt", f"{path} describes {root.name}@{root.version}/{root.hash[:7]}")
    return Reading("v3", "fresh", records=_records(nodes))


def plain_text(data: bytes, *, what: str) -> bytes:
    """Return the JSON text of a document that may be gzip or clear-signed; the signature is not looked at.

    Raises:
        FormatError: does not decompress, is too long, or ends inside its signature block.
    """
    if data[:2] == _GZIP:
        import zlib

        inflate = zlib.decompressobj(31)
        try:
            data = inflate.decompress(data, DOCUMENT_LIMIT)
        except zlib.error as error:
            raise FormatError(f"{what} does not decompress: {error}", context={"file": what}) from None
        if inflate.unconsumed_tail or not inflate.eof:
            raise FormatError(f"{what} is cut off, or too long when decompressed", context={"file": what})
    if not data.startswith(_SIGNED):
        return data
    begin, end = data.find(b"\n\n"), data.rfind(_SIGNATURE)
    if begin < 0:
        begin = data.find(b"\r\n\r\n")
    if begin < 0 or end < begin:
        raise FormatError(f"{what} ends inside its signature block", context={"file": what})
    return data[begin:end].replace(b"\n- -", b"\n-")


def parse_document(data: bytes, *, what: str) -> tuple[Node, ...]:
    """Return the nodes of a spec document, its root first.

    Raises:
        FormatError: not such a document, or a node that cannot be read.
    """
    try:
        spec = json.loads(data)["spec"]
        version: Any = None if isinstance(spec, list) else spec.get("_meta", {}).get("version")
        entries = spec if isinstance(spec, list) else spec["nodes"]
        if not isinstance(entries, list) or not entries:
            raise TypeError("no nodes")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FormatError(f"{what} is not a spec document: {error}", context={"file": what}) from None
    specfile = 1 if isinstance(spec, list) else min(version, 6) if isinstance(version, int) else None
    return tuple(node_from_dict(entry, specfile=specfile) for entry in entries)


def _records(nodes: tuple[Node, ...]) -> tuple[Record, ...]:
    return tuple({node.hash: Record(node, node.external is None) for node in nodes}.values())


def _check_digest(data: bytes, sha256: str, what: str) -> None:
    import hashlib

    if hashlib.sha256(data).hexdigest() != sha256:
        raise FormatError(f"the spec blob of {what} does not have the digest of its manifest")
