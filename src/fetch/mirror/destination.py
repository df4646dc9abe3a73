"""A directory that is, or becomes, a mirror of layout 3: where a sync writes.

The engine's store has the shape of a mirror's ``blobs/`` directory, so `Destination` is such a store: blobs go
straight to their final place, with the same locks, part files and checks. A manifest is held back until both of its
blobs are there: the mirror is valid at every moment. Everything of our own lies in ``DEST/.cachefetch/``.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import socket
import threading
import time
from dataclasses import replace

from ...errors import CachefetchError, StoreError, UsageError
from ...resolver.index.readers.manifest import (
    INDEX_MANIFEST,
    KEY_INDEX_MANIFEST,
    LAYOUT_PATH,
    SPEC_MANIFESTS,
    parse_manifest,
    spec_manifest_path,
    spec_stem,
)
from ...resolver.index.writer import LAYOUT
from ..store import files
from ..store.batch import Together
from ..store.cas import Store
from ..store.lease import Lease, try_lease
from ..store.locks import NO_LOCKS, Lock
from ..verify.openpgp import is_signed, split_cleartext
from .convert import SPEC_MEDIA_TYPE, convert
from .plan import Listing, by_digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator

    from ..model import VerifiedPackage, Wanted
    from ..store.lease import Lease

OWN = ".cachefetch"
_SUFFIX = ".spec.manifest.json"
_INDEXES = INDEX_MANIFEST.rpartition("/")[0]
#: Where manifests of keys are, and what their names end in, behind the fingerprint.
KEYS = KEY_INDEX_MANIFEST.rpartition("/")[0]
KEY_SUFFIX = ".key.manifest.json"
#: Characters of the name of a blob.
SHA256_LENGTH = 64
#: Seconds between two looks at the lease of another process, where the file system has no locks.
_LEASE_POLL_S = 1.0


class Destination(Store):
    """The store below the mirror `root`.

    Attributes:
        layout: of the mirror.
        index_path: the file that changes with every change of the index.
        mirror: the directory of the mirror.
        added: sha256 -> size of the small blobs that were written, or would be with `dry_run`.
    """

    sync_documents = True  # who reads a mirror may check less than our own store does

    layout = "v3"
    index_path = INDEX_MANIFEST
    keeps_notes = False  # a mirror is for others; the journal remembers what was checked

    def __init__(self, mirror: str, *, dry_run: bool = False) -> None:
        self.mirror = os.path.abspath(mirror)
        self.own = os.path.join(self.mirror, OWN)
        super().__init__(os.path.join(self.mirror, "blobs"), locks=os.path.join(self.own, "locks"))
        self.dry_run = dry_run
        self.added: dict[str, int] = {}
        self._paths: dict[str, str] = {}
        self._pending: dict[str, bytes] = {}
        self._asked_again: set[str] = set()
        self._together: Together | None = None
        self._held: dict[str, bytes] | None = None
        self._mutex = threading.Lock()  # of `held_bytes`: several threads prove
        self.held_bytes = 0

    def hold(self) -> None:
        """From now on keep documents in memory until `release`: nothing is written before the plan is known to fit."""
        if self._held is None and not self.dry_run:
            self._held = {}

    def release(self) -> None:
        """Write the documents that are held, and hold no more. Raises StoreError."""
        held, self._held, self.held_bytes = self._held or {}, None, 0
        for sha256, data in held.items():
            self.put_bytes(data, sha256)

    def read(self, sha256: str, size: int) -> bytes | None:
        """Return a small blob of at most `size` bytes, None when absent or damaged; also one that is held."""
        held = (self._held or {}).get(sha256)
        return held if held is not None and len(held) <= size else super().read(sha256, size)

    def index_size(self) -> int:
        """Return the size of the index that is there, 0 without one."""
        try:
            return parse_manifest(self.read_file(INDEX_MANIFEST) or b"", what=INDEX_MANIFEST).index().size
        except CachefetchError:
            return 0

    def waiting_sizes(self) -> list[int]:
        """Return the sizes of the manifests that `publish` will write."""
        return [len(data) for data in self._pending.values()]

    def gather(self) -> None:
        """From now on give names to the documents and manifests that are written many at a time, until `settle`.

        Each is on the disk before it has its name, as one that is written alone. One that is there is replaced alone.
        """
        self._together = Together(self._alone)

    def settle(self) -> None:
        """Name what waits, and write alone again. Raises StoreError; what has no name then never was there."""
        waiting, self._together = self._together, None
        if waiting is not None:
            try:
                waiting.settle()
            finally:
                waiting.drop()

    def drop(self) -> None:
        """Forget what waits, and write alone again."""
        waiting, self._together = self._together, None
        if waiting is not None:
            waiting.drop()

    def ask_again(self, stems: Iterable[str]) -> None:
        """Hold the manifests of these packages back: a mirror may have others by now."""
        self._asked_again.update(stems)

    def believe(self, stem: str) -> bool:
        """Give the manifest of a package again that `ask_again` held back; False when it was not held back."""
        held = stem in self._asked_again
        self._asked_again.discard(stem)
        return held

    def expect(self, stem: str, wanted: Wanted) -> None:
        """Tell where the manifest of ``NAME-VERSION-HASH`` belongs."""
        path = spec_manifest_path(wanted.name, wanted.version, wanted.hash)
        self._paths[stem] = os.path.join(self.mirror, path)

    def forget(self, stem: str) -> None:
        """Take the manifest of a package away: it is damaged, and nothing must read it until it is right again."""
        with files.store_errors(self.mirror), contextlib.suppress(FileNotFoundError):
            os.unlink(self._paths[stem])

    def remove(self, path: str) -> bool:
        """Remove a file of the mirror, and the directories that are empty then; False when it was not there."""
        with files.store_errors(path):
            try:
                os.unlink(os.path.join(self.mirror, path))
            except FileNotFoundError:
                return False
        with contextlib.suppress(OSError):  # the first that is not empty
            while (path := os.path.dirname(path)) and "/" in path:
                os.rmdir(os.path.join(self.mirror, path))
        return True

    def displace(self, path: str) -> None:
        """Move what stands at a path of the mirror, file or directory, out of the mirror: below ``.cachefetch``."""
        place = os.path.join(self.own, "displaced", path)
        number = 1
        while os.path.lexists(place):
            number += 1
            place = f"{os.path.join(self.own, 'displaced', path)}.{number}"
        with files.store_errors(path):
            os.makedirs(os.path.dirname(place), exist_ok=True)
            os.rename(os.path.join(self.mirror, path), place)

    def tidy(self) -> None:
        """Remove the directories of blobs that are empty. Nobody else may be writing."""
        base = os.path.join(self.mirror, "blobs", "sha256")
        for prefix in _names(base):
            if len(prefix) == 2:
                with contextlib.suppress(OSError):
                    os.rmdir(os.path.join(base, prefix))

    def manifest(self, key: str) -> bytes | None:
        """Return the manifest that waits or is published."""
        if key in self._pending:
            return self._pending[key]
        if key not in self._paths or key in self._asked_again:
            return None  # a document of another layout: it is not kept, see `adopt`
        with files.store_errors(self._paths[key]):
            return files.read_or_none(self._paths[key])

    def put_manifest(self, key: str, data: bytes) -> None:
        """Hold a proven manifest back until `publish`."""
        if key in self._paths:
            self._asked_again.discard(key)
            self._pending[key] = data

    def adopt(self, package: VerifiedPackage) -> VerifiedPackage:
        """Make a package of another layout one of layout 3; one that is, or was made, is returned as it is.

        Its spec blob is stored, its manifest held back until `publish`.
        """
        if package.layout == "v3" or package.spec.media_type == SPEC_MEDIA_TYPE:
            return package
        made = convert(package.document.raw, package.tarball)
        if package.layout == "oci":  # the config of the image came in under its digest
            self.added.pop(package.spec.sha256, None)
            if not self.dry_run:
                self.discard(package.spec.sha256)
        self.put_bytes(made.blob, made.spec.sha256)
        wanted = package.wanted
        self._pending[spec_stem(wanted.name, wanted.version, wanted.hash)] = made.manifest
        return replace(package, spec=made.spec)

    def publish(self, key: str) -> None:
        """Write the manifest of a package whose blobs are complete."""
        self._asked_again.discard(key)
        data = self._pending.pop(key, None)
        if data is not None:
            self.write(self._paths[key], data)

    def discard(self, sha256: str) -> None:
        """Remove a blob, also one that waits for its name."""
        if self._together is not None:
            self._together.take_back(self.path(sha256))
        if self._held is not None:
            self._held.pop(sha256, None)
        super().discard(sha256)

    def put_bytes(self, data: bytes, sha256: str) -> str:
        """Store a small blob; with `dry_run` only note it."""
        if self.dry_run:
            if self.locate(sha256) is None:
                self.added[sha256] = len(data)
            return self.path(sha256)
        path = self.path(sha256)
        if files.size_or_none(path) == len(data):
            if super().read(sha256, len(data)) is not None:
                return path
            self.discard(sha256)  # damaged: the store would keep what has the right size
        if (held := self._held) is not None:  # its digest is compared when it is written
            with self._mutex:
                self.held_bytes += len(data) if sha256 not in held else 0
                held[sha256] = data
            return path
        self.added[sha256] = len(data)
        waiting = self._together
        if waiting is not None and hashlib.sha256(data).hexdigest() == sha256 and waiting.add(path, data):
            return path
        return super().put_bytes(data, sha256)

    def try_lock(self, key: str) -> Lock | Lease | None:
        """Lock a key; with `dry_run` nothing is written, and nothing needs a lock."""
        return Lock(None) if self.dry_run else super().try_lock(key)

    def write(self, path: str, data: bytes, *, alone: bool = False) -> bool:
        """Write a file of the mirror atomically, `alone` at once; False when it was there with the same bytes."""
        path = os.path.join(self.mirror, path)
        with files.store_errors(path):
            if files.read_or_none(path) == data:
                return False
        if alone or self._together is None or not self._together.add(path, data):
            self._alone(path, data)
        return True

    def _alone(self, path: str, data: bytes) -> None:
        with files.store_errors(path):
            files.require_space(path, len(data))
            name = f"write-{os.getpid()}-{threading.get_ident():x}.part"
            files.write_atomic(os.path.join(self.own, "partial", name), path, data)

    def read_file(self, path: str) -> bytes | None:
        """Return a small file of the mirror, None when it is not there."""
        with files.store_errors(path):
            return files.read_or_none(os.path.join(self.mirror, path))

    def listing(self) -> Listing:
        """Return what is there; a directory that does not exist is empty."""
        return Listing(list_blobs(self.mirror), list_manifests(self.mirror))

    def clear(self) -> None:
        """Remove what stands in the place of a blob and is no file, such as a FIFO: nothing could be written there."""
        with files.store_errors(self.mirror):
            for path in list_no_files(os.path.join(self.mirror, "blobs", "sha256")):
                if len(os.path.basename(path)) == SHA256_LENGTH:
                    os.unlink(path)

    def names(self, package: VerifiedPackage) -> tuple[tuple[str, int], tuple[str, int]]:
        """Return name and size of a package's tarball and spec document, as `listing` names them."""
        return by_digest(package)

    def seal(self) -> str:
        """Return a digest of names and sizes of all that `listing` sees, and whether the layout is told."""
        return seal(self.mirror) if self.read_file(LAYOUT_PATH) == LAYOUT else ""

    def is_ours(self) -> bool:
        """Tell whether a sync or import worked here before."""
        return os.path.isdir(self.own)

    def begin(self) -> None:
        """Write what tells the layout, before anything else: a mirror without packages is one too."""
        self.write(LAYOUT_PATH, LAYOUT)

    def unnamed(
        self, listing: Listing, named: set[str], anew: Container[str] = ()
    ) -> tuple[dict[str, int], dict[str, str]]:
        """Return the blobs that no manifest names, path -> size, and the manifests that cannot be read, path -> why.

        `named` are known to be named; manifests `anew` will be others. What a
        damaged manifest names is not known: with one, no blob is unnamed. Nor is one behind a symbolic link: another
        mirror may share it.
        """
        damaged: dict[str, str] = {}
        others = list_other_manifests(self.mirror)
        for path in [*listing.manifests.values(), *others]:
            if path in anew:
                continue
            try:
                data = self.read_file(path) or b""
                text = split_cleartext(data, what=path).text if is_signed(data) else data
                named.update(blob.sha256 for blob in parse_manifest(text, what=path).blobs)
            except CachefetchError as error:
                damaged[path] = error.message
        if damaged:
            return {}, damaged
        found = {
            f"blobs/sha256/{sha256[:2]}/{sha256}": size
            for sha256, size in sorted(listing.blobs.items())
            if sha256 not in named and not self._is_shared(f"blobs/sha256/{sha256[:2]}")
        }
        return found, {}

    def _is_shared(self, directory: str) -> bool:
        """Return True when a directory of the mirror, or one above it there, is a symbolic link."""
        while directory:
            if os.path.islink(os.path.join(self.mirror, directory)):
                return True
            directory = os.path.dirname(directory)
        return False

    def _partial(self, key: str, kind: str) -> str:
        # Beside the journal, not below blobs/: a mirror holds nothing but what Spack would put there.
        return os.path.join(self.own, "partial", os.path.basename(super()._partial(key, kind)))


def check_destination(mirror: str, layout: str = "v3") -> None:
    """Refuse a directory that is something else than a mirror of the layout, or empty.

    Raises:
        UsageError: another layout, or files that are not of a mirror.
    """
    if "://" in mirror:
        raise UsageError(
            f"the destination {mirror} is not a directory",
            hint="sync to a directory, then carry or upload it; a plain path is enough",
        )
    try:
        names = set(os.listdir(mirror))
    except FileNotFoundError:
        return
    except NotADirectoryError as error:
        raise UsageError(
            f"the destination {mirror} is not a directory", hint="name an empty directory, or a mirror"
        ) from error
    except OSError as error:
        raise UsageError(
            f"the destination {mirror} cannot be read: {error.strerror}", hint="check its permissions"
        ) from error
    found = {"v3": "v3", "build_cache": "v2"}
    there = {found[name] for name in names & found.keys()}
    if layout in there or names <= {OWN, "blobs", "lost+found"}:
        return
    if there:
        numbers = {"v3": "3 (v3/)", "v2": "2 (build_cache/)"}
        convert = ", or give --convert" if layout == "v2" else ""
        raise UsageError(
            f"the destination {mirror} is a mirror of layout {numbers[there.pop()]}; "
            f"what is copied there has layout {numbers[layout]}",
            hint=f"name an empty directory{convert}",
        )
    raise UsageError(
        f"the destination {mirror} is not empty and not a mirror: it holds {', '.join(sorted(names)[:3])}",
        hint="name an empty directory, or a mirror",
    )


@contextlib.contextmanager
def locked(destination: Destination, *, shared: bool = False, wait: bool = False) -> Iterator[None]:
    """Hold the destination: one sync alone (exclusive), or several shard workers together (`shared`).

    On a file system without locks a lease file stands for the lock, and shard workers go one after the other.

    Raises:
        StoreError: somebody else has it and `wait` is False; the message names who.
    """
    path = os.path.join(destination.own, "lock")
    with files.store_errors(path):
        descriptor = files.open_for_writing(path)
    lease: Lease | None = None
    try:
        how = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        with files.store_errors(path):
            try:
                fcntl.flock(descriptor, how | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                raise _busy(destination, path) from None
            except OSError as error:
                if error.errno not in NO_LOCKS:
                    raise
                lease = _lease(destination, path, wait=wait)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, _holder(), 0)
        yield
    finally:
        if lease is not None:
            lease.release()
        os.close(descriptor)


def _lease(destination: Destination, path: str, *, wait: bool) -> Lease:
    """Return the lease that stands for the lock at `path`."""
    while (lease := try_lease(f"{path}.lease")) is None:
        if not wait:
            raise _busy(destination, path)
        time.sleep(_LEASE_POLL_S)
    return lease


def _holder() -> bytes:
    facts = {"host": socket.gethostname(), "pid": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
    return json.dumps(facts).encode()


def _busy(destination: Destination, path: str) -> StoreError:
    try:
        who = json.loads(files.read_or_none(path) or b"{}")
        holder = f"process {who['pid']} on {who['host']} since {who['since']}"
    except (ValueError, KeyError, TypeError, RecursionError):
        who, holder = {}, "another process"
    error = StoreError(
        f"another sync works on {destination.mirror}: {holder}",
        hint="wait for it with --wait, or let it finish and run the same command again",
        context={"path": destination.mirror, "holder": who},
    )
    error.code = "destination-busy"
    return error


def list_blobs(mirror: str) -> dict[str, int]:
    """Return sha256 -> size of every blob file, found with one directory scan for each of the 256 prefixes.

    A file whose name or place is not that of a blob is none: it is nobody's to remove.
    """
    found: dict[str, int] = {}
    base = os.path.join(mirror, "blobs", "sha256")
    with files.store_errors(base):
        for prefix in _names(base):
            if len(prefix) == 2:
                with (
                    contextlib.suppress(NotADirectoryError),
                    os.scandir(os.path.join(base, prefix)) as entries,
                ):
                    for entry in entries:
                        if len(entry.name) == SHA256_LENGTH and entry.name.startswith(prefix):
                            found[entry.name] = entry.stat().st_size
    return found


def list_no_files(directory: str) -> list[str]:
    """Return what is neither a file, a directory nor a link, in `directory` and the directories in it."""
    found: list[str] = []
    try:
        entries = list(os.scandir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return found
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            found += list_no_files(entry.path)
        elif not entry.is_symlink() and not entry.is_file():
            found.append(entry.path)
    return found


def blob_names(mirror: str) -> Iterator[str]:
    """Yield the sha256 of every blob file, as `list_blobs` sees them, without looking at the files themselves."""
    base = os.path.join(mirror, "blobs", "sha256")
    with files.store_errors(base):
        for prefix in _names(base):
            if len(prefix) == 2:
                for name in _names(os.path.join(base, prefix)):
                    if len(name) == SHA256_LENGTH and name.startswith(prefix):
                        yield name


def seal(mirror: str) -> str:
    """Return a digest of names and sizes of blobs and of manifests of indexes and keys, and of spec manifests' names.

    The same as `list_blobs` and `list_manifests` see, without an object for each file: 100,000 blobs in 0.3 s.
    """
    digest = hashlib.sha256()
    base = os.path.join(mirror, "blobs", "sha256")
    with files.store_errors(base):
        for prefix in _names(base):
            with contextlib.suppress(NotADirectoryError), os.scandir(os.path.join(base, prefix)) as entries:
                found = sorted([f"{entry.name} {entry.stat().st_size}" for entry in entries])
                digest.update("\n".join([prefix, *found, ""]).encode())
        base = os.path.join(mirror, SPEC_MANIFESTS)
        for name in _names(base):
            digest.update("\n".join([name, *_names(os.path.join(base, name)), ""]).encode())
        for path in list_other_manifests(mirror):
            digest.update(f"{path} {files.size_or_none(os.path.join(mirror, path))}\n".encode())
    return digest.hexdigest()


def list_manifests(mirror: str) -> dict[str, str]:
    """Return ``NAME-VERSION-HASH`` -> path below the mirror of every spec manifest in the folder of its name."""
    found: dict[str, str] = {}
    base = os.path.join(mirror, SPEC_MANIFESTS)
    with files.store_errors(base):
        for name in _names(base):
            for file in _names(os.path.join(base, name)):
                if _is_manifest(name, file):
                    found[file[: -len(_SUFFIX)]] = f"{SPEC_MANIFESTS}/{name}/{file}"
    return found


def _is_manifest(name: str, file: str) -> bool:
    return file.endswith(_SUFFIX) and file.startswith(f"{name}-")


def list_strays(mirror: str) -> list[str]:
    """Return the paths below the mirror of all files in ``v3/`` that are not where a file of a mirror can be."""
    found: list[str] = []
    base = os.path.join(mirror, "v3")
    for directory, _, names in os.walk(base):
        place = "/".join(("v3", *os.path.relpath(directory, base).split(os.sep))).removesuffix("/.")
        parent, _, name = place.rpartition("/")
        if parent == SPEC_MANIFESTS:
            found += [f"{place}/{file}" for file in names if not _is_manifest(name, file)]
        elif place == KEYS:
            known = os.path.basename(KEY_INDEX_MANIFEST)
            found += [f"{place}/{f}" for f in names if f != known and not f.endswith(KEY_SUFFIX)]
        elif f"{place}/".startswith(f"{_INDEXES}/"):
            found += [f"{place}/{file}" for file in names if file != os.path.basename(INDEX_MANIFEST)]
        else:
            found += [f"{place}/{file}" for file in names if f"{place}/{file}" != LAYOUT_PATH]
    return sorted(found)


def list_other_manifests(mirror: str) -> list[str]:
    """Return the paths below the mirror of the index and key manifests, views included."""
    found: list[str] = []
    for base in (_INDEXES, KEYS):
        for directory, _, names in os.walk(os.path.join(mirror, base)):
            found += [
                os.path.relpath(os.path.join(directory, name), mirror)
                for name in names
                if name.endswith(".manifest.json")
            ]
    return sorted(found)


def _names(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return []
