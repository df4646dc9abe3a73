"""Small mirrors of layout 3, written for one test; unsigned, with payloads of any size."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass

from cachefetch.fetch.model import Source, Wanted
from cachefetch.fetch.verify.openpgp import Keyring
from cachefetch.fetch.verify.policy import SignaturePolicy


@dataclass(frozen=True)
class Package:
    """What stands in the mirror: identity, payload digest and bytes, and the paths of the three files."""

    name: str
    version: str
    hash: str
    sha256: str
    payload: bytes
    manifest: str
    blob: str
    spec_blob: str

    def wanted(self, *sources: Source) -> Wanted:
        return Wanted(self.name, self.version, self.hash, sources)


def write_package(
    root: str,
    name: str,
    size: int,
    *,
    version: str = "1.0",
    seed: int = 0,
    deps: Sequence[str] = (),
    payload: bytes = b"",
) -> Package:
    """Write one package: `payload`, or `size` pseudo-random bytes; `deps` are DAG hashes of link dependencies."""
    chance, piece = random.Random(f"{name}{seed}"), 64 << 20  # randbytes has a limit below 1 GiB
    payload = payload or b"".join(chance.randbytes(min(piece, size - done)) for done in range(0, size, piece))
    dag = base64.b32encode(hashlib.sha1(f"{name}-{version}".encode()).digest()).decode().lower()
    node = {
        "name": name,
        "version": version,
        "arch": {"platform": "linux", "platform_os": "debian12", "target": "x86_64"},
        "namespace": "builtin",
        "parameters": {"build_system": "generic"},
        "dependencies": [
            {"name": "dep", "hash": dep, "parameters": {"deptypes": ["link"], "virtuals": []}} for dep in deps
        ],
        "hash": dag,
    }
    document = json.dumps({"spec": {"_meta": {"version": 5}, "nodes": [node]}}).encode()
    spec, blob = _blob(root, gzip.compress(document, mtime=0)), _blob(root, payload)
    records = [
        _record(root, blob, "application/vnd.spack.install.v2.tar+gzip"),
        _record(root, spec, "application/vnd.spack.spec.v5+json"),
    ]
    manifest = f"v3/manifests/spec/{name}/{name}-{version}-{dag}.spec.manifest.json"
    _write(os.path.join(root, manifest), json.dumps({"version": 3, "data": records}).encode())
    return Package(name, version, dag, hashlib.sha256(payload).hexdigest(), payload, manifest, blob, spec)


def unsigned(name: str, url: str) -> Source:
    """Return a source whose mirror needs no signature."""
    return Source(name, url, SignaturePolicy("none"), Keyring())


def _blob(root: str, data: bytes) -> str:
    digest = hashlib.sha256(data).hexdigest()
    path = f"blobs/sha256/{digest[:2]}/{digest}"
    _write(os.path.join(root, path), data)
    return path


def _record(root: str, path: str, media_type: str) -> dict[str, str | int]:
    return {
        "contentLength": os.path.getsize(os.path.join(root, path)),
        "mediaType": media_type,
        "compression": "gzip",
        "checksumAlgorithm": "sha256",
        "checksum": path.rpartition("/")[2],
    }


def _write(path: str, data: bytes) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(data)
