"""Small v3 mirrors whose index, manifests and payloads a test may choose; unsigned unless it signs them."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Sign = Callable[[bytes], bytes]


def dag_hash(node: dict[str, Any]) -> str:
    """Return the DAG hash of a node without one."""
    text = json.dumps(node, separators=(",", ":")).encode()
    return base64.b32encode(hashlib.sha1(text).digest()).decode().lower()


def make_node(name: str, version: str = "1.0") -> dict[str, Any]:
    """Return a node for Linux without dependencies."""
    node: dict[str, Any] = {
        "name": name,
        "version": version,
        "arch": {"platform": "linux", "platform_os": "debian12", "target": "x86_64"},
        "namespace": "builtin",
        "parameters": {"build_system": "generic"},
        "package_hash": "x" * 52,
        "annotations": {"original_specfile_version": 5},
    }
    return {**node, "hash": dag_hash(node)}


def put_blob(root: Path, data: bytes) -> str:
    """Store a blob and return its sha256."""
    digest = hashlib.sha256(data).hexdigest()
    path = root / "blobs" / "sha256" / digest[:2] / digest
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return digest


def record(data: bytes, media_type: str, digest: str = "") -> dict[str, Any]:
    """Return a manifest's record of a blob."""
    return {
        "contentLength": len(data),
        "mediaType": media_type,
        "compression": "gzip",
        "checksumAlgorithm": "sha256",
        "checksum": digest or hashlib.sha256(data).hexdigest(),
    }


TARBALL = "application/vnd.spack.install.v2.tar+gzip"
SPEC = "application/vnd.spack.spec.v5+json"
INDEX = "application/vnd.spack.db.v8+json"


def manifest_text(*records: dict[str, Any]) -> bytes:
    """Return a manifest as Spack writes it, a newline behind every token."""
    return json.dumps({"version": 3, "data": list(records)}, indent=0, separators=(",", ":")).encode() + b"\n"


def manifest_path(root: Path, node: dict[str, Any]) -> Path:
    """Return where the manifest of a node lies."""
    stem = f"{node['name']}-{node['version']}-{node['hash']}"
    return root / "v3/manifests/spec" / str(node["name"]) / f"{stem}.spec.manifest.json"


def spec_blob(*nodes: dict[str, Any]) -> bytes:
    """Return a spec blob."""
    document = {"spec": {"_meta": {"version": 5}, "nodes": list(nodes)}, "buildcache_layout_version": 2}
    return gzip.compress(json.dumps(document, separators=(",", ":")).encode(), mtime=0)


def write_package(root: Path, node: dict[str, Any], payload: bytes, sign: Sign = bytes) -> Path:
    """Write tarball, spec blob and manifest of one package; return the manifest's path."""
    blob = spec_blob(node)
    for data in (payload, blob):
        put_blob(root, data)
    path = manifest_path(root, node)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(sign(manifest_text(record(payload, TARBALL), record(blob, SPEC))))
    return path


def write_index(root: Path, *nodes: dict[str, Any]) -> str:
    """Write the index of these packages and return its sha256."""
    installs = {node["hash"]: {"spec": node, "ref_count": 0, "in_buildcache": True} for node in nodes}
    data = json.dumps({"database": {"version": "8", "installs": installs}}, separators=(",", ":")).encode()
    digest = put_blob(root, data)
    path = root / "v3/manifests/index/index.manifest.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(manifest_text({**record(data, INDEX), "compression": "none"}))
    return digest
