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
import errno
import hashlib
import os
import re
from dataclasses import dataclass, replace
from functools import partial

from ...errors import DigestError, StoreError
from ...regular import open_regular
from ..resume import PartInfo, read_info, usable
from . import files
from .lease import Lease, try_lease
from .locks import NO_LOCKS, Lock, Locks
from .notes import Notes, identity

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_SHA256 = re.compile(r"[0-9a-f]{64}")
_KEY = re.compile(r"[A-Za-z0-9_+][A-Za-z0-9_+.-]{0,239}")
_CHUNK = 1 << 20
#: So much at a time, so that it is in the cache of the processor when it is hashed.
_REREAD = 256 << 10
#: After so many bytes the disk is told to begin.
_BEHIND = 4 << 20
#: The key of the lock that fetches share, and whoever removes what they may want has alone.
_EVERYTHING = "everything"


@dataclass(frozen=True, slots=True)
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
        self._locks = Locks(locks or os.path.join(self.root, "locks"), partial(self._partial, kind="lock"))
        self._layers = ((self.root, "store"), *((os.path.abspath(path), "site") for path in site))

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
        path = self._partial(key, "lease")
        with files.store_errors(path):
            if not self._leases:
                try:
                    return self._locks.try_lock(key)
                except OSError as error:
                    if error.errno not in NO_LOCKS:
                        raise
                self._leases = True
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
        part = PartWriter.open(paths, sha256, size)
        part.on_commit = self._committed
        return part

    def part_size(self, sha256: str) -> int:
        """Return how many bytes of a blob an earlier run left."""
        return files.size_or_none(self._partial(sha256, "part")) or 0

    def parts(self) -> set[str]:
        """Return the digests of the blobs that earlier runs left parts of."""
        try:
            names = os.listdir(os.path.join(self.root, "partial"))
        except OSError:
            return set()
        return {name.removesuffix(".part") for name in names if name.endswith(".part")}

    def require_space(self, size: int) -> None:
        """Raise StoreError when `size` bytes do not fit into the file system of the store."""
        with files.store_errors(self.root):
            files.require_space(self.root, size)

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


class PartWriter:
    """A blob that is being received: the part file, its sidecar, and the digest of what it holds.

    Write with `write`, then `commit`. `close` keeps the part for the next run; `drop` removes it.
    """

    def __init__(self, paths: tuple[str, str, str], descriptor: int, sha256: str, size: int) -> None:
        self._part, self._sidecar, self._final = paths
        self._descriptor: int | None = descriptor
        self.sha256, self.size = sha256, size
        self.offset = 0
        self.resumed = False  # True when the bytes come from more than one response
        self.info: PartInfo | None = None
        self.done = False  # True when the blob is visible under its digest
        self.on_commit: Callable[[str, os.stat_result], None] | None = None
        self._kept = False  # True when the sidecar is on disk
        self._stale = False  # True when it is not what it should say
        self._begun = 0  # up to here the disk was told to write
        self._hash = hashlib.sha256()

    @classmethod
    def open(cls, paths: tuple[str, str, str], sha256: str, size: int) -> PartWriter:
        """Open (part, sidecar, final path), re-hash a usable prefix, and check the free space for the rest."""
        part, sidecar, _ = paths
        with files.store_errors(part):
            writer = cls(paths, files.open_for_writing(part), sha256, size)
            try:
                info = read_info(files.read_or_none(sidecar) or b"")
                have = os.fstat(writer._handle).st_size
                if info is not None and info.have is not None and info.have < have:
                    have = info.have
                    os.ftruncate(writer._handle, have)
                if usable(info, have, sha256=sha256, size=size):
                    assert info is not None
                    writer.info, writer._kept = info, True
                    writer._rehash()
                    writer._count_all()
                else:
                    writer._truncate()
                files.require_space(part, size - writer.offset)
            except BaseException:
                writer.close()
                raise
            return writer

    @property
    def path(self) -> str:
        """Where the blob will be."""
        return self._final

    @property
    def _handle(self) -> int:
        assert self._descriptor is not None, "the part is closed"
        return self._descriptor

    def begin(self, info: PartInfo) -> None:
        """Start over with bytes of another response: empty the part, then say where its bytes come from."""
        with files.store_errors(self._part):
            self._forget_sidecar()
            self._truncate()
            self.resumed, self.info = False, info

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append `data`, which must not pass `size`."""
        assert self.offset + len(data) <= self.size, "the caller caps the stream"
        with files.store_errors(self._part):
            if self.offset + len(data) < self.size:
                self._keep_sidecar()  # a blob that comes in one piece needs none
            view, done = memoryview(data), 0
            try:
                while done < len(view):
                    done += os.write(self._handle, view[done : done + files.WRITE_BYTES])
            finally:  # a full disk takes a piece of it
                self._hash.update(view[:done])
                self.offset += done
            self._write_behind()

    def _write_behind(self) -> None:
        if self.offset - self._begun >= _BEHIND:
            files.start_write_back(self._handle, self._begun, self.offset - self._begun)
            self._begun = self.offset

    def share(self, source: str) -> bool:
        """Let an empty part share the bytes of a file; False where the file system cannot, or it has another size.

        Nothing of it counts until `advance` hashed it: by then the source may be another one.
        """
        assert self.offset == 0, "bytes that count would be lost"
        with files.store_errors(self._part):
            try:
                with open_regular(source) as file:
                    shared = os.fstat(file.fileno()).st_size == self.size and files.reflink(
                        file.fileno(), self._handle
                    )
            except OSError:
                return False  # whoever reads it in the usual way says what is wrong with it
            if shared and os.fstat(self._handle).st_size == self.size:
                return True
            self._truncate()
            return False

    def begin_ranges(self, info: PartInfo) -> None:
        """From now on the rest comes by `write_at`, and `info.have` bytes count."""
        with files.store_errors(self._part):
            self.resumed = self.resumed or self.offset > 0
            self.info, self._kept = info, False
            self._keep_sidecar()

    def write_at(self, at: int, data: memoryview) -> None:
        """Write bytes where they belong; threads may do so side by side."""
        assert at + len(data) <= self.size, "the caller caps the stream"
        with files.store_errors(self._part):
            done = 0
            while done < len(data):
                done += os.pwrite(self._handle, data[done : done + files.WRITE_BYTES], at + done)

    def advance(self, to: int) -> None:
        """Hash what `write_at` brought, up to `to`: those bytes count from now on."""
        with files.store_errors(self._part):
            while self.offset < to:
                data = os.pread(self._handle, min(_REREAD, to - self.offset), self.offset)
                if not data:
                    raise OSError(errno.EIO, "the part file lost what was written to it")
                self._hash.update(data)
                self.offset += len(data)
            self._write_behind()
            if self.info is not None and self.offset < self.size:
                self.info, self._kept = replace(self.info, have=self.offset), False
                self._keep_sidecar()

    def end_ranges(self) -> None:
        """Cut off what does not count, so that `write` can go on."""
        if self.done or self._descriptor is None:
            return
        with files.store_errors(self._part):
            os.ftruncate(self._handle, self.offset)
            os.lseek(self._handle, 0, os.SEEK_END)
            self._count_all()

    def matches(self) -> bool:
        """Return True when the part is complete and has the promised digest."""
        return self.offset == self.size and self._hash.hexdigest() == self.sha256

    def digest(self) -> str:
        """Return the hexadecimal sha256 of the bytes so far."""
        return self._hash.hexdigest()

    def commit_if_right(self) -> None:
        """Make the blob visible if it is complete and right; `done` tells."""
        if self.matches():
            self.commit()

    def commit(self) -> str:
        """Make the blob visible under its digest, and return its path. Only for a part that `matches`."""
        assert self.matches(), "unverified bytes never get a final name"
        with files.store_errors(self._final):
            os.fsync(self._handle)
            files.rename(self._part, self._final)
            files.make_read_only(self._handle)
            info = os.fstat(self._handle)
            self.close()
            self._forget_sidecar()
            self.done = True
        if self.on_commit is not None:
            self.on_commit(self.sha256, info)
        return self._final

    def close(self) -> None:
        """Close the file; what is written stays for a later run."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def drop(self) -> None:
        """Empty the part: its bytes are wrong, or of no use to the server."""
        with files.store_errors(self._part):
            self._forget_sidecar()
            self._truncate()
            self.info = None

    def leave(self) -> None:
        """End the work: what was received stays for the next run, an empty part goes."""
        if self.done:
            return
        if self.offset:
            self.close()
        else:
            self.remove()

    def remove(self) -> None:
        """Close and delete the part and its sidecar."""
        self.close()
        for path in (self._sidecar, self._part):
            with files.store_errors(path), contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    def _keep_sidecar(self) -> None:
        if (self._stale or not self._kept) and self.info is not None:
            files.write_atomic(
                self._sidecar + ".new", self._sidecar, self.info.encode(), sync=False, read_only=False
            )
            self._kept, self._stale = True, False

    def _count_all(self) -> None:
        """Let all bytes of the part count again; the sidecar says so before the next one is written."""
        if self.info is not None and self.info.have is not None:
            self.info, self._stale = replace(self.info, have=None), True

    def _forget_sidecar(self) -> None:
        if self._kept:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._sidecar)
            self._kept = False

    def _truncate(self) -> None:
        os.ftruncate(self._handle, 0)
        os.lseek(self._handle, 0, os.SEEK_SET)
        self._hash = hashlib.sha256()
        self.offset = self._begun = 0

    def _rehash(self) -> None:
        os.lseek(self._handle, 0, os.SEEK_SET)
        while data := os.read(self._handle, _CHUNK):
            self._hash.update(data)
            self.offset += len(data)
