"""The content-addressed store: verified blobs under their sha256, manifests byte for byte.

::

    sha256/ab/<64 hex>               a blob whose digest was checked; never partial
    manifests/NAME-VERSION-HASH      a spec manifest as the mirror sent it, with its signature
    partial/<key>.part .json         work in progress; only the holder of the key's lock touches it
    locks                            its bytes are the locks of the keys (`locks`)
    proofs                           notes of what was verified (`notes`)

A payload gets its final name after fsync, under a lock of its own. The directory is not synced: a name that a
power cut loses costs one more fetch, never a wrong file. Manifests and spec documents are not synced at all: whoever
reads one checks its signature and digest again, and what a power cut damaged is fetched anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from functools import partial

from ...errors import DigestError, StoreError
from ...regular import open_regular
from ...values import frozen
from . import files
from .lease import Lease, try_lease
from .locks import NO_LOCKS, Lock, Locks
from .notes import Notes, identity
from .part import PartWriter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_SHA256 = re.compile(r"[0-9a-f]{64}")
_KEY = re.compile(r"[A-Za-z0-9_+][A-Za-z0-9_+.-]{0,239}")
_CHUNK = 1 << 20
#: The key of the lock that fetches share, and whoever removes what they may want has alone.
_EVERYTHING = "everything"


@frozen
class Stored:
    """A stored blob: its path, its size in bytes, and `origin`: "store", or "site" for a read-only layer."""

    path: str
    size: int
    origin: str


class Store:
    """A store in directory `root` (made when first written), over read-only layers `site` of the same shape.

    `locks` is the file for the locks, None for the usual one in `root`. `own` is a directory of this user for `notes`
    where others may write `root`, None for no notes then.

    `identities` says which files were read or written last, and found to be right, by sha256 or manifest key.
    """

    #: False: what is not a payload survives a crash of the process, but not of the machine.
    sync_documents = False
    #: True: what was verified is noted.
    keeps_notes = True

    def __init__(
        self, root: str, *, site: Sequence[str] = (), locks: str | None = None, own: str | None = None
    ) -> None:
        self.root = os.path.abspath(root)
        places = (self.root,) if own is None else (self.root, own)
        self.notes = Notes(places if self.keeps_notes else ())
        self.identities: dict[str, str] = {}
        self._leases = False  # True once the file system turned out to have no locks
        self._lock_file = locks or os.path.join(self.root, "locks")
        self.separate()
        self._layers = ((self.root, "store"), *((os.path.abspath(path), "site") for path in site))

    def separate(self) -> None:
        """Take locks of one's own: for a new process that is a copy of another one, which keeps those it has."""
        self._locks = Locks(self._lock_file, partial(self._partial, kind="lock"))

    def path(self, sha256: str) -> str:
        """Return where the blob is or would be in the writable layer."""
        return self._blob(self.root, sha256)

    def has(self, sha256: str) -> bool:
        """Return True when some layer has the blob."""
        return self.locate(sha256) is not None

    def locate(self, sha256: str) -> Stored | None:
        """Return where the blob is, the writable layer first. Its bytes are not read; see `verify`."""
        for root, origin in self._layers:
            path = self._blob(root, sha256)
            with files.store_errors(path):
                info = files.stat_or_none(path)
            if info is not None:
                return Stored(path, info.st_size, origin)
        return None

    def verify(self, stored: Stored, sha256: str) -> bool:
        """Tell whether a stored blob has its digest: by the note about this very file, else recomputed."""
        with files.store_errors(stored.path), open_regular(stored.path) as file:
            before = os.fstat(file.fileno())  # a change while it is hashed gives the file another identity
            state = identity(before)
            if stored.size > _CHUNK and not self.noted(sha256, state):
                self.notes.refresh()  # another process may have noted it just now
            if self.noted(sha256, state):
                return True
            if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                return False
            self.note(sha256, before)
            return True

    def noted(self, sha256: str, state: str) -> bool:
        """Return True when a note says that the file of this `identity` has this digest."""
        return self.notes.get(sha256) == [state]

    def note(self, sha256: str, info: os.stat_result) -> None:
        """Note that a file has this digest; `Notes.flush` writes it."""
        found = self.identities[sha256] = identity(info)
        if not self.noted(sha256, found):
            self.notes.put(sha256, found)

    def verify_path(self, path: str, sha256: str) -> bool:
        """Recompute the digest of a file of the store."""
        with files.store_errors(path), open_regular(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == sha256

    def read(self, sha256: str, size: int) -> bytes | None:
        """Return a small blob of at most `size` bytes whole, None when absent or damaged."""
        stored = self.locate(sha256)
        if stored is None or stored.size > size:
            return None
        with files.store_errors(stored.path), open_regular(stored.path) as file:
            info = os.fstat(file.fileno())
            data = file.read(size + 1)
        if hashlib.sha256(data).hexdigest() != sha256:
            return None
        self.identities[sha256] = identity(info)
        return data

    def discard(self, sha256: str) -> None:
        """Remove a damaged blob from the writable layer."""
        path = self.path(sha256)
        with files.store_errors(path), contextlib.suppress(FileNotFoundError):
            os.unlink(path)

    def put_bytes(self, data: bytes, sha256: str) -> str:
        """Store a small blob whose digest is `sha256`, and return its path.

        Raises:
            DigestError: `data` has another digest; nothing is stored.
            StoreError: no space or no permission.
        """
        found = hashlib.sha256(data).hexdigest()
        if found != sha256:
            raise DigestError(
                f"refused to store bytes of digest {found} under {sha256}",
                context={"expected": sha256, "found": found},
            )
        path = self.path(sha256)
        self.identities[sha256] = identity(self._write(f"put-{sha256}", path, data))
        return path

    def put_payload(self, lock: Lock | Lease, sha256: str, data: bytes | bytearray) -> str:  # noqa: ARG002 - proves that it is held
        """Store a payload that fits into memory durably, and return its path. Its digest was checked.

        Raises:
            StoreError: no space or no permission.
        """
        path = self.path(sha256)
        with files.store_errors(path):
            info = files.write_new(path, data, sync=True)
            if info is None:
                info = files.write_atomic(self._partial(sha256, "part"), path, data)
        self.note(sha256, info)
        return path

    def manifest(self, key: str) -> bytes | None:
        """Return the stored manifest of ``NAME-VERSION-HASH``, the writable layer first, or None."""
        for root, _ in self._layers:
            path = self._manifest(root, key)
            with files.store_errors(path):
                found = files.read_and_stat(path)
            if found is not None:
                self.identities[key] = identity(found[1])
                return found[0]
        return None

    def blob_state(self, sha256: str) -> tuple[Stored, str] | None:
        """Return where a blob is and its `identity`, None when no layer has it. Nothing is read."""
        for root, origin in self._layers:
            path = self._blob(root, sha256)
            info = files.state_or_none(path)
            if info is not None:
                return Stored(path, info.st_size, origin), identity(info)
        return None

    def manifest_state(self, key: str) -> str:
        """Return the `identity` of the stored manifest of ``NAME-VERSION-HASH``, "" when there is none."""
        infos = (files.state_or_none(self._manifest(root, key)) for root, _ in self._layers)
        return next((identity(info) for info in infos if info is not None), "")

    def put_manifest(self, key: str, data: bytes) -> None:
        """Keep a verified manifest byte for byte under ``NAME-VERSION-HASH``."""
        if self.manifest(key) != data:
            path = self._manifest(self.root, key)
            self.identities[key] = identity(self._write(f"manifest-{key}", path, data))

    def try_lock(self, key: str) -> Lock | Lease | None:
        """Return the lock of `key` (a sha256 for a payload), None when someone else has it.

        Where the file system has no locks, it is a lease file (`lease`).

        Raises:
            StoreError: the store cannot be written.
        """
        if not self._leases:
            with files.store_errors(self._lock_file):
                try:
                    return self._locks.try_lock(key)
                except OSError as error:
                    if error.errno not in NO_LOCKS:
                        raise
            self._leases = True
        path = self._partial(key, "lease")
        with files.store_errors(path):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            return try_lease(path)

    def try_use(self) -> Lock | Lease | None:
        """Return a lock that keeps `alone` away, None while another process is alone.

        It keeps nobody away where the file system has no locks, or where this user may not write.
        """
        try:
            return self._locks.try_share(_EVERYTHING)
        except OSError:  # who has to write meets it again
            return Lock(None)

    def alone(self) -> Lock | Lease:
        """Return a lock of the whole store.

        Raises:
            StoreError: another process uses the store, or it cannot be written.
        """
        lock = self.try_lock(_EVERYTHING)
        if lock is None:
            raise StoreError(
                f"another process uses the store {self.root}; nothing was removed",
                hint="run the command again when no `cachefetch fetch` is under way",
                context={"path": self.root, "reason": "in-use"},
            )
        return lock

    def open_part(self, lock: Lock | Lease, sha256: str, size: int) -> PartWriter:  # noqa: ARG002 - proves that it is held
        """Open the part file of a blob of `size` bytes, with what an earlier run left of it (re-hashed).

        Raises:
            StoreError: too little free space for the rest, or the store cannot be written.
        """
        paths = (self._partial(sha256, "part"), self._partial(sha256, "json"), self.path(sha256))
        with self._told_of_parts(sha256):
            part = PartWriter.open(paths, sha256, size)
        part.on_commit = self._committed
        return part

    def begun(self, sha256: str) -> bool:
        """Return True when an earlier run left a part of a blob, be it an empty one."""
        return files.size_or_none(self._partial(sha256, "part")) is not None

    def part_size(self, sha256: str) -> int:
        """Return how many bytes of a blob an earlier run left."""
        return files.size_or_none(self._partial(sha256, "part")) or 0

    def part_state(self, sha256: str) -> str:
        """Return what changes as a blob comes in: the `identity` of its part, or else of the blob; "" for neither."""
        info = files.state_or_none(self._partial(sha256, "part")) or files.state_or_none(self.path(sha256))
        return "" if info is None else identity(info)

    def parts(self) -> set[str]:
        """Return the digests of the blobs that earlier runs left parts of."""
        try:
            names = os.listdir(os.path.join(self.root, "partial"))
        except OSError:
            return set()
        return {name.removesuffix(".part") for name in names if name.endswith(".part")}

    def require_space(self, size: int) -> None:
        """Raise StoreError when `size` bytes do not fit into the file system of the store."""
        with self._told_of_parts(), files.store_errors(self.root):
            files.require_space(self.root, size)

    @contextlib.contextmanager
    def _told_of_parts(self, own: str = "") -> Iterator[None]:
        """Say of a full disk how much of it parts of earlier runs take, but for that of the blob `own`."""
        try:
            yield
        except StoreError as error:
            taken = sum(self.part_size(sha256) for sha256 in self.parts() - {own})
            if error.context.get("reason") == "disk-full" and taken:
                error.context["partial_bytes"] = taken
                error.hint = (
                    f"{os.path.join(self.root, 'partial')} has {taken} bytes of payloads that were begun: fetch them "
                    "to the end, or remove what is older than an hour with `cachefetch cache gc --yes`; or "
                    f"{error.hint}"
                )
            raise

    def require_space_out(self, directory: str, size: int) -> None:
        """Raise StoreError when links to `directory` will be copies of `size` bytes together that do not fit."""
        with files.store_errors(directory):
            if not files.same_device(self.root, directory):
                files.require_space(os.path.abspath(directory), size)

    def link_out(self, sha256: str, destination: str) -> None:
        """Make `destination` a hard link, a reflink or (last) a copy of the blob, atomically."""
        stored = self.locate(sha256)
        if stored is None:
            raise StoreError(
                f"blob {sha256} is not in the store {self.root} any more",
                hint="run the command again",
                context={"path": self.path(sha256)},
            )
        with files.store_errors(destination), open_regular(stored.path) as file:
            known = self.noted(sha256, identity(os.fstat(file.fileno())))
            files.link_or_copy(stored.path, destination, stored.size)
            if known:  # a new link changes the identity of the file, not its bytes
                self.note(sha256, os.fstat(file.fileno()))

    def _committed(self, sha256: str, info: os.stat_result) -> None:
        self.note(sha256, info)
        self.notes.flush()  # others may wait for this blob: they need not hash it again

    def _write(self, key: str, path: str, data: bytes) -> os.stat_result:
        """Write a small file unless it is there as it should be; return the state of that file."""
        with files.store_errors(path):
            if info := files.write_new(path, data, sync=self.sync_documents):
                return info
            there = files.read_and_stat(path)
            if there is not None and there[0] == data:
                return there[1]
        with self._wait_lock(key), files.store_errors(path):
            files.require_space(path, len(data))
            return files.write_atomic(self._partial(key, "part"), path, data, sync=self.sync_documents)

    @contextlib.contextmanager
    def _wait_lock(self, key: str) -> Iterator[None]:
        # Held for the time of one small write, so polling is enough; payload locks are awaited by the engine.
        import time

        while (lock := self.try_lock(key)) is None:
            time.sleep(0.005)
        try:
            yield
        finally:
            lock.release()

    def _partial(self, key: str, kind: str) -> str:
        if not _KEY.fullmatch(key):
            raise ValueError(f"{key!r} is not a key of the store")
        return os.path.join(self.root, "partial", f"{key}.{kind}")

    @staticmethod
    def _blob(root: str, sha256: str) -> str:
        if not _SHA256.fullmatch(sha256):
            raise ValueError(f"{sha256!r} is not a sha256 digest")
        return f"{root}/sha256/{sha256[:2]}/{sha256}"

    @staticmethod
    def _manifest(root: str, key: str) -> str:
        if not _KEY.fullmatch(key):
            raise ValueError(f"{key!r} is not NAME-VERSION-HASH")
        return f"{root}/manifests/{key}"
