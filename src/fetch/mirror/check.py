"""The audit of a mirror: every manifest, signature, blob, binding, key, index entry and closure.

A directory is listed and hashed in worker threads; of a URL, which cannot be listed, the index says what must be
there. Damage is a problem; what only takes space or waits for an index (a blob that nothing names, a manifest that
the index does not list yet) is a note.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

from anyio import to_thread

from ...errors import (
    AccessError,
    BindingError,
    CachefetchError,
    DigestError,
    FormatError,
    NotFoundError,
    TruncatedError,
    UsageError,
)
from ...regular import open_descriptor, open_regular
from ...resolver.index.readers import join
from ...resolver.index.readers.manifest import (
    INDEX_MANIFEST,
    KEY_INDEX_MANIFEST,
    LAYOUT_PATH,
    key_manifest_path,
    parse_manifest,
    spec_manifest_path,
)
from ...resolver.index.readers.nodes import node_from_dict, specfile_of_database
from ...resolver.index.readers.v2 import HASH as V2_HASH
from ...resolver.index.readers.v2 import INDEX as V2_INDEX
from ..transports import scheme_of
from ..transports.file import local_path
from ..transports.threads import Aborted, run_abortable
from ..verify.binding import read_spec_root
from ..verify.openpgp import Keyring
from ..verify.policy import apply
from .destination import OWN, list_blobs, list_manifests, list_other_manifests
from .inventory import each
from .plan import Problem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from ...resolver.index.readers.manifest import BlobRef
    from ...resolver.model import Node
    from ..model import Source
    from ..session import Session
    from ..transports import Head
    from ..transports.threads import Abort

#: Bytes. Hashing a larger blob is worth a change of threads.
LARGE = 256 << 10
INDEX_LIMIT = 8 << 30


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What an audit found: `problems` is the damage, `notes` counts what is harmless; `bytes` were hashed.

    `damaged` are the packages to repair, as (name, version, hash); `index` is False when the index is damaged.
    After a repair `repaired` counts its packages, and `mended` the problems that are gone, those of the index too.
    """

    manifests: int
    blobs: int
    bytes: int
    problems: tuple[Problem, ...]
    notes: Mapping[str, int]
    damaged: tuple[tuple[str, str, str], ...] = ()
    index: bool = True
    repaired: int = 0
    mended: int = 0
    warnings: tuple[str, ...] = ()

    @property
    def status(self) -> str:
        """Return "ok" or "damaged"."""
        return "damaged" if self.problems else "ok"

    @property
    def exit_code(self) -> int:
        """0, or 9 when there is damage."""
        return 9 if self.problems else 0

    def to_dict(self) -> dict[str, Any]:
        """Return the ``cachefetch/verify/1`` document (docs/schemas/verify-1.json)."""
        return {
            "schema": "cachefetch/verify/1",
            "status": self.status,
            "manifests": self.manifests,
            "blobs": self.blobs,
            "bytes": self.bytes,
            "problems": [problem.to_dict() for problem in self.problems],
            "notes": dict(self.notes),
            "repaired": self.repaired,
            "warnings": list(self.warnings),
        }


@dataclass(frozen=True, slots=True)
class Checked:
    """One manifest: its path, the package that it is about as far as known, blobs (sha256 -> size), errors."""

    path: str
    identity: tuple[str, str, str] | None
    blobs: Mapping[str, int]
    errors: tuple[tuple[str, CachefetchError], ...]


async def verify_mirror(session: Session, source: Source) -> VerifyReport:
    """Audit the mirror of `source` under its policy.

    Raises:
        MirrorError: there is no such mirror, or the network failed for good.
    """
    return await (await _audit(session, source)).run()


async def _audit(session: Session, source: Source) -> Audit:
    """Return the audit for the layout that the mirror has."""
    from .check_build_cache import BuildCacheAudit, is_build_cache

    layout = source.layout
    if layout == "oci":
        raise UsageError(
            f"{source.mirror} is a registry, which checks its digests itself",
            hint="`cachefetch sync --all --from REGISTRY --to DIR` proves every package on its way",
        )
    if not layout and scheme_of(source.url) == "file":
        layout = "v2" if await to_thread.run_sync(is_build_cache, source.url) else "v3"
    if not layout:
        layout = "v3"
        for path, found in ((INDEX_MANIFEST, "v3"), (V2_HASH, "v2"), (V2_INDEX, "v2")):
            with suppress(NotFoundError, FormatError):
                await session.document(source, join(source.url, path), 1 << 20, 0)
                layout = found
                break
    return BuildCacheAudit(session, source) if layout == "v2" else Audit(session, source)


class Audit:
    """One audit of a mirror of layout 3."""

    #: What the names of the manifests end in, behind the hash.
    suffixes: tuple[str, ...] = (".spec.manifest.json",)
    index_path = INDEX_MANIFEST

    def __init__(self, session: Session, source: Source) -> None:
        self.session, self.source = session, source
        self.local = local_path(source.url) if scheme_of(source.url) == "file" else None
        self.problems: list[Problem] = []
        self.notes: dict[str, int] = {}
        self.named: dict[str, int] = {}
        self.nodes: dict[str, Node] = {}
        self.held: set[str] = set()
        self.index_good = True
        self.absent: list[tuple[str, str, str] | None] = []

    async def run(self) -> VerifyReport:
        """Do it."""
        has_index = await self._index()
        paths = await self._paths(has_index)
        checked = await self._packages(paths)
        for one in checked:
            self.named.update(one.blobs)
        damaged = [one for one in checked if one.errors]
        for one in damaged:
            self._report(one)
        if has_index:
            self._entries({self._hash_in(path) for path in paths})
            self._closure()
        await self._keys()
        await self._layout()
        if self.local is not None:
            self._orphans(paths)
        identities = [self._identity(one) for one in damaged] + self.absent
        return VerifyReport(
            len(paths),
            len(self.named),
            sum(self.named.values()),
            tuple(self.problems),
            self.notes,
            tuple(found for found in identities if found),
            self.index_good,
        )

    # --- the index -------------------------------------------------------------------------------------------------

    async def _index(self) -> bool:
        """Read the index; False when there is none."""
        try:
            data = await self._document(INDEX_MANIFEST)
        except NotFoundError:
            if not await to_thread.run_sync(self._is_mirror):
                raise
            self.notes["no_index"] = 1
            return False
        try:
            ref = parse_manifest(data, what=INDEX_MANIFEST).index()
            body = await self._blob(ref, INDEX_LIMIT)
            self.named[ref.sha256] = ref.size
            await to_thread.run_sync(self._read_index, body)
        except (FormatError, DigestError, TruncatedError, NotFoundError) as error:
            self.index_good = False
            self.problems.append(Problem("", "index", error.code, error.message, (), INDEX_MANIFEST))
            return False
        return True

    def _is_mirror(self) -> bool:
        """Tell whether a directory without an index is a mirror, maybe one of which nothing is published yet."""
        return self.local is not None and any(
            os.path.isdir(os.path.join(self.local, name)) for name in ("v3", OWN)
        )

    def _read_index(self, body: bytes) -> None:
        try:
            database = json.loads(body)["database"]
            specfile = specfile_of_database(database["version"])
            installs = list(database["installs"].items())
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise FormatError(f"the index is not a Spack database: {error!r:.100}") from None
        for hash_, record in installs:
            try:
                node = node_from_dict(record["spec"], hash=hash_, specfile=specfile)
            except (CachefetchError, KeyError, TypeError) as error:
                self.problems.append(
                    Problem(hash_, "index", "bad-format", f"index record: {error}", (), self.index_path)
                )
                continue
            self.nodes[hash_] = node
            if record.get("in_buildcache") is True and node.external is None:
                self.held.add(hash_)

    def _entries(self, present: set[str]) -> None:
        """Compare the index with the manifests that are there."""
        for hash_ in sorted(self.held - present):
            node = self.nodes[hash_]
            path = self._path_of(node)
            self.absent.append((node.name, node.version, hash_))
            self._problem(hash_, node.name, "not-found", f"{path} does not exist, the index lists it", path)
        self.notes["unindexed"] = len(present - self.held)

    def _closure(self) -> None:
        """Every link and run dependency of what is held must be held, or external; other edges must be records."""
        dangling = 0
        lacking: set[str] = set()
        for hash_ in self.held:
            for edge in self.nodes[hash_].edges:
                node = self.nodes.get(edge.hash)
                dangling += node is None
                absent = node is None or (edge.hash not in self.held and node.external is None)
                if edge.in_closure and absent and edge.hash not in lacking:
                    lacking.add(edge.hash)
                    message = f"the mirror does not hold {edge.name}/{edge.hash[:7]}"
                    self._problem(edge.hash, edge.name, "incomplete", message)
                    self.absent.append((node.name, node.version, edge.hash) if node else None)
        self.notes["dangling"] = dangling

    # --- packages --------------------------------------------------------------------------------------------------

    async def _paths(self, has_index: bool) -> list[str]:
        if self.local is not None:
            return sorted((await to_thread.run_sync(list_manifests, self.local)).values())
        if not has_index:
            return []
        nodes = [self.nodes[hash_] for hash_ in self.held]
        return sorted(map(self._path_of, nodes))

    def _path_of(self, node: Node) -> str:
        return spec_manifest_path(node.name, node.version, node.hash)

    def _hash_in(self, path: str) -> str:
        """Return the DAG hash in the name of a manifest."""
        for suffix in self.suffixes:
            path = path.removesuffix(suffix)
        return path[-32:]

    async def _packages(self, paths: Sequence[str]) -> list[Checked]:
        if self.local is None:
            found, errors = await each(paths, self._remote, self.session.limits.blob_connections)
            for number, error in errors.items():
                found[number] = Checked(paths[number], None, {}, ((paths[number], error),))
            return [found[number] for number in sorted(found)]
        return await run_abortable(lambda abort: self._local(abort, paths))

    def _local(self, abort: Abort, paths: Sequence[str]) -> list[Checked]:
        """Check packages of a directory: the small work in this thread, the hashing of large blobs beside it.

        Small files are bound by Python: more threads would only hand its lock to and fro.
        """
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            try:
                started = []
                for path in paths:
                    if abort.set:
                        raise Aborted
                    started.append(self._one_local(path, pool))
                return [one.result() if isinstance(one, Future) else one for one in started]
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise

    def _one_local(self, path: str, pool: ThreadPoolExecutor) -> Checked | Future[Checked]:
        errors: list[tuple[str, CachefetchError]] = []
        identity = None
        try:
            data = read_up_to(f"{self.local}/{path}", self.session.limits.manifest_bytes)
            spec, tarball = self._refs(data, path)
        except (OSError, CachefetchError) as error:
            return Checked(path, None, {}, ((path, ours(error, path)),))
        try:
            blob = read_up_to(f"{self.local}/{spec.path}", self.session.limits.spec_blob_bytes)
            identity = _bound(blob, spec, path)
        except BindingError as error:
            errors.append((path, error))
        except (OSError, CachefetchError) as error:
            errors.append((spec.path, ours(error, spec.path)))
        blobs = {spec.sha256: spec.size, tarball.sha256: tarball.size}

        def finish() -> Checked:
            try:
                size, digest = hash_file(f"{self.local}/{tarball.path}", tarball.size)
                _compare(digest, size, tarball)
            except (OSError, CachefetchError) as error:
                errors.append((tarball.path, ours(error, tarball.path)))
            return Checked(path, identity, blobs, tuple(errors))

        return pool.submit(finish) if tarball.size > LARGE else finish()

    async def _remote(self, number: int, path: str) -> Checked:
        errors: list[tuple[str, CachefetchError]] = []
        identity = None
        data = await self.session.document(
            self.source, join(self.source.url, path), self.session.limits.manifest_bytes, number + 1
        )
        spec, tarball = self._refs(data, path)
        try:
            identity = _bound(await self._blob(spec, self.session.limits.spec_blob_bytes), spec, path)
        except CachefetchError as error:
            errors.append((spec.path, error))
        try:
            await self._hash_remote(tarball)
        except CachefetchError as error:
            errors.append((tarball.path, error))
        return Checked(path, identity, {spec.sha256: spec.size, tarball.sha256: tarball.size}, tuple(errors))

    def _refs(self, data: bytes, path: str) -> tuple[BlobRef, BlobRef]:
        """Return spec and tarball of a manifest that meets the policy."""
        source, now = self.source, self.session.clockwork.now()
        what = path.rpartition("/")[2]
        manifest = apply(
            source.policy, data, source.keyring, what=what, now=now, mirror=source.mirror
        ).manifest
        return manifest.spec(), manifest.tarball()

    def _report(self, one: Checked) -> None:
        hash_ = self._hash_in(one.path)
        node = self.nodes.get(hash_)
        name = node.name if node else one.identity[0] if one.identity else one.path.split("/")[-2]
        for path, error in one.errors:
            self._problem(hash_, name, error.code, error.message, path)

    def _identity(self, one: Checked) -> tuple[str, str, str] | None:
        """Return (name, version, hash) of a damaged package: the index knows, where the document does not."""
        hash_ = self._hash_in(one.path)
        node = self.nodes.get(hash_)
        if node is not None:
            return node.name, node.version, node.hash
        return one.identity

    def _problem(self, hash_: str, name: str, what: str, message: str, path: str = "") -> None:
        self.problems.append(Problem(hash_, name, what, message, self._needed_by(hash_), path))

    def _needed_by(self, hash_: str) -> tuple[str, ...]:
        nodes = (self.nodes[held] for held in self.held)
        users = [n for n in nodes if any(e.hash == hash_ and e.in_closure for e in n.edges)]
        return tuple(sorted(f"{n.name}@{n.version}/{n.hash[:7]}" for n in users))

    # --- keys and leftovers ----------------------------------------------------------------------------------------

    async def _keys(self) -> None:
        try:
            data = await self._document(KEY_INDEX_MANIFEST)
        except NotFoundError:
            return
        try:
            ref = parse_manifest(data, what=KEY_INDEX_MANIFEST).key_index()
            self.named[ref.sha256] = ref.size
            names = list(json.loads(await self._blob(ref, 1 << 20))["keys"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            self._problem("", "key", "bad-format", f"the key list is damaged: {error}", KEY_INDEX_MANIFEST)
            return
        except CachefetchError as error:
            self._problem("", "key", error.code, error.message, KEY_INDEX_MANIFEST)
            return
        for name in names:
            await self._key(str(name))

    async def _key(self, fingerprint: str) -> None:
        path = KEY_INDEX_MANIFEST
        try:
            path = key_manifest_path(fingerprint)
            ref = parse_manifest(await self._document(path), what=path).key()
            self.named[ref.sha256] = ref.size
            ring = Keyring.from_bytes(await self._blob(ref, 4 << 20), what=path)
            if fingerprint.upper() not in ring.fingerprints:
                raise BindingError(f"{path} holds another key than its name says")
        except CachefetchError as error:
            self._problem("", "key", error.code, error.message, path)

    async def _layout(self) -> None:
        """Check the file that tells the layout; at a URL it may be absent, as nothing needs it to read."""
        try:
            document = json.loads(await self._document(LAYOUT_PATH))
            if not isinstance(document, dict) or not isinstance(document.get("signing"), str):
                raise ValueError("it does not tell how manifests are signed")
        except (ValueError, RecursionError) as error:
            self._problem("", "layout", "bad-format", f"{LAYOUT_PATH} is damaged: {error}", LAYOUT_PATH)
        except (NotFoundError, AccessError, FormatError) as error:
            if isinstance(error, FormatError) or await to_thread.run_sync(self._is_published):
                self._problem("", "layout", error.code, error.message, LAYOUT_PATH)

    def _is_published(self) -> bool:
        return self.local is not None and os.path.isdir(os.path.join(self.local, "v3/manifests"))

    def _orphans(self, paths: Sequence[str]) -> None:  # noqa: ARG002 -- layout 2 needs them
        """Count the blobs that nothing names; those of views and of unlisted keys are named."""
        assert self.local is not None
        for path in list_other_manifests(self.local):
            try:
                with open_regular(os.path.join(self.local, path)) as file:
                    refs = parse_manifest(file.read(), what=path).blobs
            except (OSError, CachefetchError):
                continue  # reported where it is needed
            self.named.update({ref.sha256: ref.size for ref in refs})
        there = list_blobs(self.local)
        self.notes["unnamed_blobs"] = len(there.keys() - self.named.keys())

    # --- reading ---------------------------------------------------------------------------------------------------

    async def _document(self, path: str, limit: int = 1 << 20) -> bytes:
        return await self.session.document(self.source, join(self.source.url, path), limit, 0)

    async def _blob(self, ref: BlobRef, limit: int) -> bytes:
        if ref.size > limit:
            raise FormatError(f"{ref.path} has {ref.size} bytes, more than the limit of {limit}")
        data = await self.session.blob(self.source, join(self.source.url, ref.path), ref.size, 0)
        _compare(hashlib.sha256(data).hexdigest(), len(data), ref)
        return data

    async def _hash_remote(self, ref: BlobRef) -> None:
        found = await self._hash(join(self.source.url, ref.path))
        _compare(found.digest.hexdigest(), found.size, ref)

    async def _hash(self, url: str) -> _Hashing:
        """Hash a large blob without keeping it."""
        transport = self.session.transport(self.source, url)

        async def read() -> _Hashing:
            sink = _Hashing()
            try:
                async with self.session.host_slots(url):
                    await transport.receive(url, sink)
            finally:
                if transport.network:
                    self.session.meter.network_bytes += sink.size
            return sink

        return await self.session.patiently(read, url, 0)


class _Hashing:
    """A sink that keeps nothing but digest and size."""

    def __init__(self) -> None:
        self.digest, self.size = hashlib.sha256(), 0

    def begin(self, head: Head) -> None:
        """Nothing is expected of an answer: what comes is compared at the end."""

    def write(self, data: memoryview) -> None:
        """Hash the next bytes."""
        self.digest.update(data)
        self.size += len(data)

    def end(self) -> None:
        """Nothing is left to do."""


class _Buffer(threading.local):
    """A buffer for each worker thread: a new one for each small file costs more than hashing it."""

    def __init__(self) -> None:
        self.view = memoryview(bytearray(1 << 20))


_BUFFER = _Buffer()


def hash_file(path: str, size: int | None = None) -> tuple[int, str]:
    """Return size and sha256 of a file; one that has not `size` bytes is not read, and has the digest of nothing."""
    descriptor = open_descriptor(path)
    try:
        found, digest = os.fstat(descriptor).st_size, hashlib.sha256()
        if size in (None, found):
            view, left = _BUFFER.view, found
            while left > 0 and (got := os.readv(descriptor, [view])):
                digest.update(view[:got])
                left -= got
    finally:
        os.close(descriptor)
    return found, digest.hexdigest()


def read_up_to(path: str, limit: int) -> bytes:
    """Return a small file, or as much of it as shows that it is too large."""
    descriptor = open_descriptor(path)
    try:
        view = _BUFFER.view
        got = os.readv(descriptor, [view])
        if got < len(view):  # the usual case, in one call
            return bytes(view[: min(got, limit + 1)])
        parts, left = [bytes(view[:got])], limit + 1 - got
        while left > 0 and (data := os.read(descriptor, min(left, 1 << 20))):
            parts.append(data)
            left -= len(data)
        return b"".join(parts)
    finally:
        os.close(descriptor)


def _compare(digest: str, size: int, ref: BlobRef) -> None:
    context = {"file": ref.path}
    if size != ref.size:
        raise TruncatedError(
            f"{ref.path} has {size} bytes, its manifest promises {ref.size}", context=context
        )
    if digest != ref.sha256:
        raise DigestError(f"{ref.path} has sha256 {digest}", context=context)


def _bound(data: bytes, ref: BlobRef, path: str) -> tuple[str, str, str]:
    """Return (name, version, hash) of a spec document, whose manifest must stand where they say."""
    root = read_spec_root(data, ref, what=ref.path)
    if spec_manifest_path(root.name, root.version, root.hash) != path:
        raise BindingError(f"{path} is the manifest of {root.name}@{root.version}/{root.hash}")
    return root.name, root.version, root.hash


def ours(error: Exception, path: str) -> CachefetchError:
    """Return our error for what went wrong with a file."""
    if isinstance(error, CachefetchError):
        return error
    if isinstance(error, FileNotFoundError):
        return NotFoundError(f"{path} does not exist")
    assert isinstance(error, OSError)
    return NotFoundError(f"{path} cannot be read: {error.strerror}")


def wanted_repairs(report: VerifyReport) -> Iterable[tuple[str, str, str]]:
    """Return (name, version, hash) of the packages to fetch again, each once."""
    return sorted(set(report.damaged))
