"""What is in a store, what nobody needs, and what is damaged: `cachefetch cache info|gc|verify`."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass

from ...errors import IntegrityError, StoreError, TrustError
from ...resolver.index.readers.manifest import parse_manifest
from ..layouts import OCI, V2, parse_kept_name
from ..resume import read_info
from ..verify.binding import parse_spec, read_spec_blob
from ..verify.image import parse_image
from ..verify.openpgp import Keyring
from ..verify.policy import SignaturePolicy, check_signature
from ..verify.specfile import tarball_digest
from . import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from typing import Any

    from ...resolver.model import Node
    from .cas import Store

_SHA256 = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9_+][A-Za-z0-9_+.-]{0,239}")  # what a key of the store may be
#: Work in progress that is younger than this may belong to a process that runs now.
_YOUNG_S = 3600.0
_ANY = SignaturePolicy("none")


@dataclass(frozen=True, slots=True)
class Info:
    """Numbers and bytes of blobs, manifests and work in progress; bytes free on the file system.

    `partial_bytes` are those that came; `partial_disk_bytes` is what they take on the disk: the place of a large
    payload is reserved at its start, and a killed process leaves it so.
    """

    root: str
    blobs: int
    blob_bytes: int
    manifests: int
    partial: int
    partial_bytes: int
    free_bytes: int
    partial_disk_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """Return the ``cachefetch/cache-info/1`` document."""
        return {"schema": "cachefetch/cache-info/1", **{name: getattr(self, name) for name in self.__slots__}}


@dataclass(frozen=True, slots=True)
class Garbage:
    """What `gc` removes or would remove: paths below the store, and their bytes; number of manifests that stay."""

    paths: tuple[str, ...]
    size: int
    kept: int


def info(store: Store) -> Info:
    """Count what the writable layer holds."""
    with files.store_errors(store.root):
        blobs = [size for _, _, size in _blobs(store.root)]
        partial = [(_came(path, size), size) for path, size in _files(os.path.join(store.root, "partial"))]
        place = os.statvfs(files.existing_directory(store.root))
        manifests = sum(1 for _ in _files(os.path.join(store.root, "manifests")))
    free = place.f_bavail * place.f_frsize
    came, taken = (sum(sizes) for sizes in zip(*partial, strict=True)) if partial else (0, 0)
    return Info(store.root, len(blobs), sum(blobs), manifests, len(partial), came, free, taken)


def _came(path: str, size: int) -> int:
    """Return how many bytes of a file of work in progress are payload that came, or something else."""
    stem, kind = os.path.splitext(path)
    known = read_info(files.read_or_none(f"{stem}.json") or b"") if kind == ".part" else None
    return size if known is None or known.have is None else min(size, known.have)


def damaged(store: Store, report: Callable[[int], None]) -> list[tuple[str, str]]:
    """Return the paths of blobs that are not what their name says, and what is wrong; `report` hears the bytes of each.

    ``digest``: it has another one. ``unreadable``: it is no file, or the system refuses to read it.
    """
    found = []
    for digest, path, size in _blobs(store.root):
        try:
            wrong = "" if store.verify_path(path, digest) else "digest"
        except StoreError:
            wrong = "unreadable"
        if wrong:
            found.append((path, wrong))
        report(size)
    return found


def garbage(store: Store, keep: Collection[str], *, now: float | None = None) -> Garbage:
    """Return what is not needed for the packages whose DAG hash is in `keep`.

    Blobs that a kept manifest names stay, and so does work in progress of the last hour.

    Raises:
        StoreError: what a kept manifest names is not known, because it cannot be read.
    """
    moment = time.time() if now is None else now
    doomed: list[tuple[str, int]] = []
    needed: set[str] = set()
    kept = 0
    with files.store_errors(store.root):
        for path, size in _files(os.path.join(store.root, "manifests")):
            known = parse_kept_name(os.path.basename(path))
            if known and known[0] in keep:
                kept += 1
                needed |= _digests(path, known[1])
            else:
                doomed.append((path, size))
        doomed += [(path, size) for digest, path, size in _blobs(store.root) if digest not in needed]
        for path, size in _files(os.path.join(store.root, "partial")):
            changed = files.stat_or_none(path)
            if changed is not None and moment - changed.st_mtime > _YOUNG_S:
                doomed.append((path, size))
    return Garbage(tuple(path for path, _ in doomed), sum(size for _, size in doomed), kept)


def remove(store: Store, found: Garbage) -> dict[str, StoreError]:
    """Remove garbage: manifests first, so that none is left without its blobs; return the paths that stay, and why.

    The caller holds `Store.alone`. Where there are no locks but leases, a fetch may want what goes.
    """
    errors = {}
    for path in found.paths:
        try:
            _remove(store, path)
        except StoreError as error:
            errors[path] = error
    return errors


def _remove(store: Store, path: str) -> None:
    name = os.path.basename(path)
    key = name.rpartition(".")[0] if os.path.basename(os.path.dirname(path)) == "partial" else name
    with files.store_errors(path):
        lock = store.try_lock(key if _NAME.fullmatch(key) else "odd")
        if lock is None:
            return
        try:
            if files.stat_or_none(path) is not None and not name.endswith((".lock", ".lease")):
                os.unlink(path)
        finally:
            lock.release()


def hashes_in(text: str) -> frozenset[str]:
    """Return every DAG hash that stands in `text`: a lock file, a spack.lock, or a list of hashes."""
    return frozenset(re.findall(r"(?<![A-Za-z0-9])[a-z2-7]{32}(?![A-Za-z0-9])", text))


def held(store: Store) -> frozenset[str]:
    """Return the DAG hashes of the packages whose manifest the store has."""
    with files.store_errors(store.root):
        names = _names(os.path.join(store.root, "manifests"))
    return frozenset(known[0] for name in names if (known := parse_kept_name(name)))


def with_closure(store: Store, roots: Collection[str]) -> frozenset[str]:
    """Return the DAG hashes of `roots` and of what those of them that the store has need to link and run.

    Raises:
        StoreError: what one of them needs is not known, because its manifest or spec document is missing or damaged.
    """
    found = set(roots)
    with files.store_errors(store.root):
        for path, _ in _files(os.path.join(store.root, "manifests")):
            known = parse_kept_name(os.path.basename(path))
            if known and known[0] in roots:
                found |= _closure(store, path, *known)
    return frozenset(found)


def _closure(store: Store, path: str, root: str, layout: str) -> set[str]:
    try:
        nodes = {node.hash: node for node in _nodes(store, path, layout)}
    except (IntegrityError, TrustError) as error:
        raise _unknown(path, error.message) from error
    found, waiting = {root}, [root]
    while waiting:
        node = nodes.get(waiting.pop())
        new = {edge.hash for edge in node.closure_edges()} - found if node else set()
        found |= new
        waiting += new
    return found


def _unknown(path: str, why: str) -> StoreError:
    known = parse_kept_name(os.path.basename(path))
    return StoreError(
        f"nothing was removed: what {os.path.basename(path)} needs is not known: {why}",
        hint=f"`cachefetch fetch /{known[0] if known else 'HASH'}` gets it again; or leave it out of --keep",
        context={"path": path},
    )


def _nodes(store: Store, path: str, layout: str) -> tuple[Node, ...]:
    """Return the nodes of the spec document that belongs to a stored manifest. Signatures are checked at use."""
    data = files.read_or_none(path) or b""
    if layout == V2:
        return parse_spec(_text(data, path), what=path).nodes
    image = layout == OCI
    ref = (
        parse_image(data, what=path).config if image else parse_manifest(_text(data, path), what=path).spec()
    )
    blob = store.read(ref.sha256, ref.size)
    if blob is None:
        raise IntegrityError(f"its spec document {store.path(ref.sha256)} is missing or damaged")
    return read_spec_blob(blob, ref, what=path).nodes


def _digests(path: str, layout: str) -> set[str]:
    """Return the blobs that a stored manifest names."""
    data = files.read_or_none(path) or b""
    try:
        if layout == V2:
            return {tarball_digest(parse_spec(_text(data, path), what=path), what=path)}
        if layout == OCI:
            image = parse_image(data, what=path)
            return {image.config.sha256, image.tarball.sha256}
        return {blob.sha256 for blob in parse_manifest(_text(data, path), what=path).blobs}
    except (IntegrityError, TrustError) as error:
        raise _unknown(path, error.message) from error


def _text(data: bytes, path: str) -> bytes:
    return check_signature(_ANY, data, Keyring(), what=path, now=0).text


def _blobs(root: str) -> Iterator[tuple[str, str, int]]:
    base = os.path.join(root, "sha256")
    for prefix in _names(base):
        for path, size in _files(os.path.join(base, prefix)):
            name = os.path.basename(path)
            if _SHA256.fullmatch(name):
                yield name, path, size


def _names(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _files(directory: str) -> Iterator[tuple[str, int]]:
    for name in _names(directory):
        path = os.path.join(directory, name)
        found = files.state_or_none(path)
        if found is not None:
            yield path, found.st_size
