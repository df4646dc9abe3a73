"""Proof, from its spec blob, that a manifest is about the wanted package. Pure: bytes in, values out.

A manifest holds neither name nor hash: Spack 1.1 installs a validly signed manifest of another package that
was put under the wanted file name. The spec blob named in the same manifest says what it is
(docs/security.md).
"""

from __future__ import annotations

import hashlib
import json
import zlib

from ...errors import BindingError, DigestError, FormatError, TruncatedError
from ...resolver.index.readers.nodes import node_from_dict
from ...values import frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, NoReturn

    from ...resolver.index.readers.manifest import BlobRef
    from ...resolver.model import Node

#: Bytes, stored and expanded. Large packages have some 100 KB stored; metadata that shrinks 70-fold is real.
MAX_SPEC_BLOB_SIZE = 16 << 20
MAX_SPEC_TEXT_SIZE = 64 << 20
#: Newest specfile version that we read (Spack 1.3).
NEWEST_SPECFILE = 6
_GZIP = b"\x1f\x8b"
_ELSEWHERE = "the mirror is damaged or was changed: get the file from another mirror and tell its owner"


@frozen
class SpecDocument:
    """A spec blob: `nodes` with the root first, `raw` the parsed JSON, `format` its ``_meta.version``.

    `dag_hash_confirmed` is True when the root's DAG hash is the digest of the root's own text: then no field
    of it and no hash of a child was changed. False proves nothing: nodes that were upgraded from older
    formats keep their old hash (Spack 1.1, docs/formats.md).
    """

    nodes: tuple[Node, ...]
    raw: Mapping[str, Any]
    format: int
    dag_hash_confirmed: bool

    @property
    def root(self) -> Node:
        """The node that the blob is about."""
        return self.nodes[0]


def check_blob(data: bytes, ref: BlobRef, *, what: str) -> None:
    """Check a whole blob in memory against what its manifest promises.

    Raises:
        TruncatedError: another length.
        DigestError: another sha256.
    """
    context = {"file": what, "sha256": ref.sha256}
    if len(data) != ref.size:
        raise TruncatedError(
            f"{what} has {len(data)} bytes, its manifest promises {ref.size}",
            hint=_ELSEWHERE,
            context=context,
        )
    found = hashlib.sha256(data).hexdigest()
    if found != ref.sha256:
        raise DigestError(
            f"{what} has sha256 {found}, its manifest promises {ref.sha256}",
            hint=_ELSEWHERE,
            context={**context, "found": found},
        )


def read_spec_blob(data: bytes, ref: BlobRef, *, what: str) -> SpecDocument:
    """Check and parse a spec blob, gzip or plain.

    Args:
        data: the blob as stored.
        ref: what the (verified) manifest says about it.
        what: mirror and file, for messages.

    Raises:
        TruncatedError, DigestError: not the promised bytes.
        FormatError: expands beyond the limit, not JSON, no nodes, or a specfile version we do not know (then
            context["reason"] is "too-new" and context["version"] the number).
    """
    check_blob(data, ref, what=what)
    return parse_spec(data, what=what)


def read_root_entry(data: bytes, ref: BlobRef, *, what: str) -> tuple[Mapping[str, Any], int]:
    """Check a spec blob; return its root node as it is written and the specfile version.

    The other nodes are not looked at. Errors as for `read_spec_blob`.
    """
    check_blob(data, ref, what=what)
    _, entries, version = _entries(data, what)
    return entries[0], version


def root_node(entry: Mapping[str, Any], version: int, *, what: str) -> Node:
    """Return the node that `read_root_entry` found. Raises FormatError."""
    return _node(entry, version, what)


def parse_spec(data: bytes, *, what: str) -> SpecDocument:
    """Parse spec metadata whose bytes were proven; errors as for `read_spec_blob`."""
    raw, entries, version = _entries(data, what)
    nodes = tuple(_node(entry, version, what) for entry in entries)
    return SpecDocument(nodes, raw, version, is_own_hash(entries[0]))


def _entries(data: bytes, what: str) -> tuple[Mapping[str, Any], list[Mapping[str, Any]], int]:
    """Return the document, its nodes as they are written, and its specfile version."""
    if len(data) > MAX_SPEC_BLOB_SIZE:
        _refuse(what, f"has {len(data)} bytes, more than the limit of {MAX_SPEC_BLOB_SIZE}")
    raw = _load(_expand(data, what), what)
    spec = raw.get("spec") if isinstance(raw, dict) else None
    entries: Any
    if isinstance(spec, list):  # specfile 1: a list of {name: node}, no _meta
        version, entries = 1, spec
    elif isinstance(spec, dict):
        version, entries = _specfile(spec, what), spec.get("nodes")
    else:
        _refuse(what, 'has no "spec"')
    if not isinstance(entries, list) or not entries or not all(isinstance(e, dict) for e in entries):
        _refuse(what, "has no list of nodes")
    return raw, entries, version


def check_binding(document: SpecDocument, *, name: str, version: str, hash: str, what: str) -> None:
    """Require that a spec blob, and with it the manifest that names it, is about the wanted package.

    Raises:
        BindingError: root hash, name or version differ; the message says what it is instead.
    """
    root = document.root
    if (root.hash, root.name, root.version) == (hash, name, version):
        return
    is_ = {"name": root.name, "version": root.version, "hash": root.hash}
    raise BindingError(
        f"{what} is the manifest of {root.name}@{root.version}/{root.hash}, not of {name}@{version}/{hash}",
        hint=f"its signature may be good, but it is for another package; {_ELSEWHERE}",
        context={"file": what, "want": {"name": name, "version": version, "hash": hash}, "have": is_},
    )


def is_own_hash(node: Mapping[str, Any]) -> bool:
    """Tell whether a node's recorded DAG hash is the hash of the rest of it, in file order.

    SHA-1 over the compact JSON without the key "hash", base32, lower-case; a spliced node ends in the last 7
    characters of its build spec's hash (Spack 1.1, docs/formats.md).
    """
    recorded = node.get("hash")
    text = json.dumps({k: v for k, v in node.items() if k != "hash"}, separators=(",", ":"))
    digest = hashlib.sha1(text.encode(), usedforsecurity=False).digest()
    found = _base32(digest)
    build_spec = node.get("build_spec")
    if isinstance(build_spec, dict) and isinstance(build_spec.get("hash"), str):
        found = found[:-7] + build_spec["hash"][-7:]
    return recorded == found


def _base32(digest: bytes) -> str:
    """Return 20 bytes in lower-case base32, in a fifth of the time of `base64.b32encode`."""
    number = int.from_bytes(digest, "big")
    return "".join([_PAIRS[number >> shift & 1023] for shift in range(150, -1, -10)])


_LETTERS = "abcdefghijklmnopqrstuvwxyz234567"
_PAIRS = [one + other for one in _LETTERS for other in _LETTERS]


def check_index_node(document: SpecDocument, indexed: Node, *, what: str) -> None:
    """Require that the root of a spec blob is the node that the index describes under its hash.

    The choice was made from what the index says, so the binary must be that.

    Raises:
        BindingError: a field differs; the message names all that do.
    """
    found = differences(document.root, indexed)
    if not found:
        return
    root = document.root
    raise BindingError(
        f"{root.name}@{root.version}/{root.hash}: the index describes another build than {what}, which differs in "
        f"{', '.join(found)}",
        hint=f"the index is damaged or was changed, or the binary was exchanged; {_ELSEWHERE}",
        context={"file": what, "reason": "index-node", "fields": list(found)},
    )


def differences(node: Node, indexed: Node) -> tuple[str, ...]:
    """Return the names of the fields in which a node differs from the index's node of the same hash.

    Annotations, target details and the order of edges do not count: Spack rewrites them between versions, and adds
    virtuals to edges of formats that have none (Spack 1.1, docs/formats.md). Of a node that is not recorded in full
    (`partial`) only what is recorded counts.
    """
    compared = _IDENTITY if indexed.partial or node.partial else _IDENTITY + _BUILD
    found = [name for name in compared if getattr(node, name) != getattr(indexed, name)]
    if not (indexed.partial or node.partial):
        pairs = ((name, getattr(node, name), getattr(indexed, name)) for name in _OPTIONAL)
        found += [name for name, mine, other in pairs if mine and other and mine != other]
        virtuals = min(node.format, indexed.format) >= _FIRST_WITH_VIRTUALS
        if _edges(node, virtuals=virtuals) != _edges(indexed, virtuals=virtuals):
            found.append("edges")
    return tuple(found)


_IDENTITY = ("hash", "name", "version", "platform", "os", "target")
_BUILD = ("variants", "flags", "external", "build_spec")
#: Not recorded by every format: compared where both have it.
_OPTIONAL = ("namespace", "compiler", "provided")
#: Specfile versions below record no virtuals.
_FIRST_WITH_VIRTUALS = 4


def _edges(node: Node, *, virtuals: bool) -> set[tuple[str, str, frozenset[str], frozenset[str]]]:
    return {
        (e.hash, e.name, frozenset(e.types), frozenset(e.virtuals if virtuals else ())) for e in node.edges
    }


def _expand(data: bytes, what: str) -> bytes:
    """Gunzip when the bytes say gzip, whatever the manifest calls it, up to the limit."""
    if not data.startswith(_GZIP):
        return data
    reader = zlib.decompressobj(wbits=31)
    try:
        text = reader.decompress(data, MAX_SPEC_TEXT_SIZE + 1)
    except zlib.error as error:
        _refuse(what, f"is damaged gzip data ({error})", error)
    if len(text) > MAX_SPEC_TEXT_SIZE:
        _refuse(what, f"expands beyond the limit of {MAX_SPEC_TEXT_SIZE} bytes")
    if not reader.eof or reader.unused_data:
        _refuse(what, "is not exactly one gzip stream")
    return text


def _load(text: bytes, what: str) -> Any:
    try:
        return json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        _refuse(what, f"is not JSON ({str(error)[:120]})", error)


def _specfile(spec: Mapping[str, Any], what: str) -> int:
    meta = spec.get("_meta")
    version = meta.get("version") if isinstance(meta, dict) else None
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        _refuse(what, "has no _meta.version")
    if version > NEWEST_SPECFILE:
        raise FormatError(
            f"{what} has specfile version {version}; this cachefetch reads up to {NEWEST_SPECFILE}",
            hint="a newer Spack wrote it: update cachefetch",
            context={"file": what, "reason": "too-new", "version": version},
        )
    return version


def _node(entry: Mapping[str, Any], specfile: int, what: str) -> Node:
    try:
        return node_from_dict(entry, specfile=specfile)
    except FormatError as error:
        raise FormatError(
            f"{what}: {error.message}", hint=error.hint or _ELSEWHERE, context={**error.context, "file": what}
        ) from error


def _refuse(what: str, problem: str, cause: BaseException | None = None) -> NoReturn:
    raise FormatError(f"{what} {problem}", hint=_ELSEWHERE, context={"file": what}) from cause
