"""Make ``examples/mirror`` (a small signed mirror) and ``examples/mirror.pub.asc`` from a larger mirror.

Usage::

    python tools/make_example_mirror.py --fixtures tests/data/fixtures/v3-signed --to examples

The binaries of the roots below and of their link/run closure are copied byte for byte: blobs, signed spec
manifests, key manifests and ``layout.json``. Only the index is written anew, with the records of everything
that was copied, closed over all dependency types (Spack warns about dangling dependencies, docs/formats.md).
``in_buildcache`` is true for what was copied only. The same input always gives the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
from typing import Any

# The package of this checkout, whether it is installed or not.
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, ".dev"))

from cachefetch.resolver.index.writer import INDEX_MEDIA_TYPE, index_text, manifest_text

#: Full DAG hashes: py-multidict 6.1.0 for three hosts, and 6.0.4 for the first of them.
ROOTS = (
    "apj2lpnqrk5oorjxeuf6boihnnx6wy4n",  # 6.1.0, debian12, x86_64_v3
    "z6rk5cuju3ru457wj6ubkrfe4uoihgdo",  # 6.1.0, ubuntu24.04, aarch64
    "35dh3lmukwanvob3xhowo5wyvnzwjkxf",  # 6.1.0, sequoia, aarch64
    "grpkdlnkqr5pot3gnfhlchjzlydluno6",  # 6.0.4, debian12, x86_64_v3
)
INDEX_MANIFEST = "v3/manifests/index/index.manifest.json"
KEY_DIRECTORY = "v3/manifests/key"
KEY_LIST = "keys.manifest.json"
ALL_TYPES = frozenset({"build", "link", "run", "test"})
RUN_TYPES = frozenset({"link", "run"})

Installs = dict[str, dict[str, Any]]


def read(path: str) -> bytes:
    """Return the content of the file."""
    with open(path, "rb") as file:
        return file.read()


def write(path: str, content: bytes) -> None:
    """Write the file and the directories above it."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(content)


def manifest_of(content: bytes) -> dict[str, Any]:
    """Return the JSON of a manifest, from inside the signed message where there is one."""
    start = content.index(b"\n\n") + 2 if content.startswith(b"-----BEGIN PGP SIGNED MESSAGE-----") else 0
    manifest: dict[str, Any] = json.JSONDecoder().raw_decode(content[start:].decode())[0]
    return manifest


def blob_path(digest: str) -> str:
    """Return where a mirror keeps the blob with that sha256 (hexadecimal digits)."""
    return f"blobs/sha256/{digest[:2]}/{digest}"


def manifest_path(node: dict[str, Any]) -> str:
    """Return where a mirror keeps the spec manifest of the node (the names here need no escaping)."""
    name, version, dag_hash = node["name"], node["version"], node["hash"]
    return f"v3/manifests/spec/{name}/{name}-{version}-{dag_hash}.spec.manifest.json"


def copy_blobs(source: str, target: str, manifest: bytes) -> None:
    """Copy every blob that the manifest names; refuse one whose digest is wrong."""
    for entry in manifest_of(manifest)["data"]:
        content = read(os.path.join(source, blob_path(entry["checksum"])))
        if hashlib.sha256(content).hexdigest() != entry["checksum"]:
            raise SystemExit(f"{source}: blob {entry['checksum']} has another digest than its name")
        write(os.path.join(target, blob_path(entry["checksum"])), content)


def copy_with_blobs(source: str, target: str, path: str) -> None:
    """Copy the manifest at `path` and its blobs."""
    manifest = read(os.path.join(source, path))
    copy_blobs(source, target, manifest)
    write(os.path.join(target, path), manifest)


def read_index(source: str) -> Installs:
    """Return the install records of the mirror's index, by DAG hash."""
    digest = manifest_of(read(os.path.join(source, INDEX_MANIFEST)))["data"][0]["checksum"]
    installs: Installs = json.loads(read(os.path.join(source, blob_path(digest))))["database"]["installs"]
    return installs


def children(record: dict[str, Any], types: frozenset[str]) -> list[str]:
    """Return the DAG hashes of the dependencies that have one of the types, in recorded order."""
    edges = record["spec"].get("dependencies", [])
    return [edge["hash"] for edge in edges if types.intersection(edge["parameters"]["deptypes"])]


def closure(installs: Installs, roots: tuple[str, ...] | set[str], types: frozenset[str]) -> set[str]:
    """Return the roots and all that they reach through dependencies of the types."""
    found: set[str] = set()
    waiting = list(roots)
    while waiting:
        dag_hash = waiting.pop()
        if dag_hash not in found:
            found.add(dag_hash)
            waiting.extend(children(installs[dag_hash], types))
    return found


def make_index(installs: Installs, copied: set[str]) -> bytes:
    """Return the index of what was `copied`: the records in the order of the source, as one line of JSON."""
    kept = closure(installs, copied, ALL_TYPES)
    return index_text({hash_: r["spec"] for hash_, r in installs.items() if hash_ in kept}, copied)


def write_index(target: str, index: bytes) -> None:
    """Write the index as a blob, and the manifest that names it in Spack's own formatting."""
    digest = hashlib.sha256(index).hexdigest()
    write(os.path.join(target, blob_path(digest)), index)
    write(os.path.join(target, INDEX_MANIFEST), manifest_text(INDEX_MEDIA_TYPE, digest, len(index)))


def copy_keys(source: str, target: str) -> bytes:
    """Copy the key list and the keys; return the one public key (ASCII armour)."""
    names = sorted(os.listdir(os.path.join(source, KEY_DIRECTORY)))
    for name in names:
        copy_with_blobs(source, target, f"{KEY_DIRECTORY}/{name}")
    keys = [name for name in names if name != KEY_LIST]
    if len(keys) != 1:
        raise SystemExit(f"{source}: one published key expected, found {len(keys)}")
    digest = manifest_of(read(os.path.join(source, KEY_DIRECTORY, keys[0])))["data"][0]["checksum"]
    return read(os.path.join(source, blob_path(digest)))


def make_mirror(source: str, to: str) -> int:
    """Write ``TO/mirror`` anew and ``TO/mirror.pub.asc``; return the number of binaries."""
    target = os.path.join(to, "mirror")
    shutil.rmtree(target, ignore_errors=True)
    installs = read_index(source)
    needed = closure(installs, ROOTS, RUN_TYPES)
    copied = {dag_hash for dag_hash in needed if "external" not in installs[dag_hash]["spec"]}
    for dag_hash in sorted(copied):
        copy_with_blobs(source, target, manifest_path(installs[dag_hash]["spec"]))
    write(os.path.join(to, "mirror.pub.asc"), copy_keys(source, target))
    write(os.path.join(target, "v3/layout.json"), read(os.path.join(source, "v3/layout.json")))
    write_index(target, make_index(installs, copied))
    return len(copied)


def main() -> int:
    """Read the command line, make the mirror, say what was made."""
    parser = argparse.ArgumentParser(description="Make the example mirror and its public key.")
    parser.add_argument("--fixtures", required=True, metavar="DIR", help="the signed v3 mirror to take from")
    parser.add_argument("--to", required=True, metavar="DIR", help="writes DIR/mirror and DIR/mirror.pub.asc")
    arguments = parser.parse_args()
    count = make_mirror(arguments.fixtures, arguments.to)
    sys.stdout.write(f"{os.path.join(arguments.to, 'mirror')}: {count} binaries\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
