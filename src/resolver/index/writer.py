"""Write an index as Spack 1.1 writes it: nodes in, bytes out. Pure.

The text is that of ``spack buildcache update-index``: one line, compact, database version 8, records of the whole
closure over all dependency types, ``in_buildcache`` true only for what the mirror holds (docs/formats.md, "Index").
Nodes of older formats are rewritten, because one old node makes Spack 1.1 refuse the whole index.
"""

from __future__ import annotations

import json

from ...errors import FormatError
from .readers.nodes import node_from_dict

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping
    from typing import Any

    #: Returns the node with a DAG hash as its source wrote it, and its specfile version; None when unknown.
    Lookup = Callable[[str], "tuple[Mapping[str, Any], int] | None"]

DATABASE_VERSION = "8"
#: The first specfile version whose nodes are written as they are.
_MODERN = 5
#: Types of the edges that a binary needs at run time (`Edge.in_closure`).
_CLOSURE = frozenset({"link", "run"})
#: Spack 1.1 takes exactly these texts (docs/formats.md).
INDEX_MEDIA_TYPE = "application/vnd.spack.db.v8+json"
KEY_INDEX_MEDIA_TYPE = "application/vnd.spack.keyindex.v1+json"
LAYOUT = b'{"signing": "gpg"}'


def with_closure(held: Iterable[str], lookup: Lookup) -> dict[str, dict[str, Any]]:
    """Return the nodes of `held` and of all that they reach by any dependency type or build spec, by DAG hash.

    The order is that of the hashes, so equal content gives equal bytes whatever the way to it was. What `lookup`
    does not know is left out: the edge to it dangles, as in the source.
    """
    found: dict[str, dict[str, Any]] = {}
    seen = set(held)
    waiting = list(seen)
    while waiting:
        hash_ = waiting.pop()
        known = lookup(hash_)
        if known is None:
            continue
        try:
            node = modernised(known[0], hash_, known[1])
            children = reached(node)
        except (FormatError, KeyError, TypeError):
            continue  # broken in the source: skipped there too
        found[hash_] = node
        for child in children:
            if child not in seen:
                seen.add(child)
                waiting.append(child)
    return {hash_: found[hash_] for hash_ in sorted(found)}


def index_text(
    nodes: Mapping[str, Mapping[str, Any]], held: Collection[str], version: str = DATABASE_VERSION
) -> bytes:
    """Return the index of `nodes` (by DAG hash, written in this order).

    Args:
        nodes: closed over dependencies, see `with_closure`; of the form that `version` has.
        held: hashes of the binaries that the mirror holds.
        version: of the database.
    """
    users = dict.fromkeys(nodes, 0)
    for node in nodes.values():
        for child in {edge["hash"] for edge in node.get("dependencies", ())}:
            if child in users:
                users[child] += 1
    installs = {
        hash_: {"spec": node, "ref_count": users[hash_], "in_buildcache": hash_ in held}
        for hash_, node in nodes.items()
    }
    database = {"database": {"version": version, "installs": installs}}
    return json.dumps(database, separators=(",", ":")).encode()


def users_of(hashes: Iterable[str], nodes: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """Return `hashes` and those of the nodes that need one of them to link or run, or another node that does.

    Args:
        hashes: DAG hashes.
        nodes: of the form that `with_closure` gives.
    """
    users: dict[str, list[str]] = {}
    for hash_, raw in nodes.items():
        try:
            node = node_from_dict(raw, hash=hash_, specfile=_MODERN)
        except FormatError:
            continue  # it can be chosen by nobody
        needed = [edge.hash for edge in node.closure_edges()] if node.external is None else []
        for one in [*needed, *([node.build_spec] if node.build_spec else [])]:
            users.setdefault(one, []).append(hash_)
    found, queue = set[str](), list(hashes)
    while queue:
        hash_ = queue.pop()
        if hash_ not in found:
            found.add(hash_)
            queue += users.get(hash_, ())
    return found


def needed_by_nodes(hashes: Iterable[str], nodes: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """Return the hashes that these of `nodes` need to link or run, or were spliced from; external nodes need none.

    Args:
        hashes: DAG hashes.
        nodes: of the form that `with_closure` gives; what is not in it needs nothing.
    """
    found: set[str] = set()
    for hash_ in hashes:
        node = nodes.get(hash_, {})
        if node.get("external"):
            continue
        for edge in node.get("dependencies", ()):
            if not _CLOSURE.isdisjoint(edge["parameters"]["deptypes"]):
                found.add(edge["hash"])
        if node.get("build_spec"):
            found.add(node["build_spec"]["hash"])
    return found


def manifest_text(media_type: str, sha256: str, size: int) -> bytes:
    """Return a manifest of one uncompressed blob in Spack's formatting (one token a line)."""
    entry = {
        "contentLength": size,
        "mediaType": media_type,
        "compression": "none",
        "checksumAlgorithm": "sha256",
        "checksum": sha256,
    }
    return json.dumps({"version": 3, "data": [entry]}, indent=0, separators=(",", ":")).encode()


def key_index_text(fingerprints: Iterable[str]) -> bytes:
    """Return the blob that lists the public keys of a mirror."""
    keys: dict[str, dict[str, str]] = {fingerprint: {} for fingerprint in sorted(fingerprints)}
    return json.dumps({"keys": keys}, separators=(",", ":")).encode()


def reached(node: Mapping[str, Any]) -> list[str]:
    """Return the hashes that a modern node names: dependencies of every type, and its build spec."""
    found = [edge["hash"] for edge in node.get("dependencies", ())]
    build_spec = node.get("build_spec")
    return [*found, build_spec["hash"]] if build_spec else found


def modernised(node: Mapping[str, Any], hash: str, specfile: int) -> dict[str, Any]:
    """Return the node in the form of specfile 5, with `hash` as its DAG hash.

    A node that is of format 5 or later is returned as it is. Of an older one the compiler becomes an annotation and
    the dependencies get ``parameters``; its hash stays, although it is not the digest of the new text (Spack 1.1,
    docs/formats.md).

    Raises:
        FormatError: not a node.
    """
    if specfile >= _MODERN or "annotations" in node:
        return dict(node) if node.get("hash") == hash else {**node, "hash": hash}
    value = node_from_dict(node, hash=hash, specfile=specfile)
    if "name" not in node:  # specfile 1 wraps the node: {"zlib": {...}}
        node = {"name": value.name, **next(iter(node.values()))}
    kept = {key: node[key] for key in node if key not in ("compiler", "hash", "full_hash", "build_hash")}
    if value.edges:
        kept["dependencies"] = [
            {
                "name": edge.name,
                "hash": edge.hash,
                "parameters": {"deptypes": list(edge.types), "virtuals": list(edge.virtuals)},
            }
            for edge in value.edges
        ]
    notes: dict[str, Any] = {"original_specfile_version": specfile}
    if value.compiler:
        notes["compiler"] = "@=".join(value.compiler)
    return {**kept, "annotations": notes, "hash": hash}
