"""Looking at one package of a mirror directory: manifest, signature, spec document, index record, tarball.

This is all that a worker process of an audit imports and does (`workers`), so it is written for many small files.
"""

from __future__ import annotations

import hashlib
import os
import threading
from dataclasses import dataclass, field
from functools import partial

from ...errors import BindingError, CachefetchError, DigestError, FormatError, NotFoundError, TruncatedError
from ...regular import open_and_stat, open_descriptor
from ...resolver.index.readers.manifest import spec_manifest_path
from ...resolver.index.readers.nodes import is_plain, node_from_dict
from ..verify.binding import differences, read_root_entry, root_node
from ..verify.policy import apply
from .accepted import refused_manifest, refused_record, remarks_on_blob, remarks_on_spec
from .records import node_of, record_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from concurrent.futures import Future, ThreadPoolExecutor
    from typing import Any

    from ...resolver.index.readers.manifest import BlobRef
    from ...resolver.model import Node
    from ..verify.openpgp import Keyring
    from ..verify.policy import SignaturePolicy

    #: What to look at: path of the manifest or "", DAG hash, text of the index record or b"", whether that says
    #: that the binary is here.
    Item = tuple[str, str, bytes, bool]
    #: What is wrong with a file: its path, the code of the error, the message.
    Wrong = tuple[str, str, str]

#: Bytes. Hashing a larger blob is worth a change of threads.
LARGE = 256 << 10


@dataclass(frozen=True, slots=True)
class Rules:
    """What an examiner needs beside the keys.

    Attributes:
        root: the directory of the mirror.
        policy: which signatures its manifests need.
        mirror: its name, for messages.
        now: Unix seconds.
        manifest_bytes: most bytes of a manifest,
        spec_bytes: of a spec document.
        index_path: what a damaged index record is reported for.
        specfile: version of the nodes in the index.
    """

    root: str
    policy: SignaturePolicy
    mirror: str
    now: float
    manifest_bytes: int
    spec_bytes: int
    index_path: str
    specfile: int


@dataclass(frozen=True, slots=True)
class Checked:
    """A package, or an index record, of which there is something to tell.

    `path` is that of the manifest, or ""; `identity` name, version and hash as far as the documents say it; `record`
    is False when its index record cannot be read, `external` True when that is one.
    """

    path: str
    hash: str
    identity: tuple[str, str, str] | None
    wrong: tuple[Wrong, ...]
    record: bool = True
    external: bool = False


@dataclass(slots=True)
class Target:
    """What `edges` of held packages point to, with the `name` that they give; `in_closure` by a link or run edge."""

    name: str
    edges: int = 0
    in_closure: bool = False


@dataclass(slots=True)
class Found:
    """What was found.

    Attributes:
        named: sha256 -> size of the blobs that the manifests name.
        odd: what there is something to tell about.
        targets: what the packages that are held depend on, by DAG hash.
        remarks: what is odd and stock Spack passes over -> number of files, and the first one.
    """

    named: dict[str, int] = field(default_factory=dict)
    odd: list[Checked] = field(default_factory=list)
    targets: dict[str, Target] = field(default_factory=dict)
    remarks: dict[str, tuple[int, str]] = field(default_factory=dict)

    def remark(self, path: str, texts: Iterable[str], number: int = 1) -> None:
        """Note what is odd about a file."""
        for text in texts:
            before, first = self.remarks.get(text, (0, path))
            self.remarks[text] = before + number, min(first, path)

    def add(self, other: Found) -> None:
        """Take over what somebody else found."""
        self.named.update(other.named)
        self.odd += other.odd
        for text, (number, path) in other.remarks.items():
            self.remark(path, (text,), number)
        for hash_, target in other.targets.items():
            mine = self.targets.setdefault(hash_, target)
            if mine is not target:
                mine.edges += target.edges
                mine.in_closure = mine.in_closure or target.in_closure


class Examiner:
    """Looks at items one by one; what it finds is added to `found`."""

    def __init__(self, rules: Rules, keyring: Keyring) -> None:
        self.rules, self._keyring = rules, keyring
        self.found = Found()
        self._mutex = threading.Lock()  # of the remarks: large blobs are hashed by other threads

    def examine(self, item: Item, pool: ThreadPoolExecutor | None = None) -> Future[None] | None:
        """Look at a package and its index record. A large tarball is left to `pool` if there is one."""
        path, hash_, text, binary = item
        wrong: list[Wrong] = []
        entry = tarball = None
        if path:
            entry, tarball = self._documents(path, wrong)
        known = self._known(path, hash_, entry, text, binary, wrong)
        if tarball is None:
            self._conclude(known, wrong)
        elif pool is not None and tarball.size > LARGE:
            return pool.submit(self._hash, tarball, known, wrong)
        else:
            self._hash(tarball, known, wrong)
        return None

    def _known(
        self,
        path: str,
        hash_: str,
        entry: tuple[Mapping[str, Any], int, BlobRef] | None,
        text: bytes,
        binary: bool,
        wrong: list[Wrong],
    ) -> Checked:
        """Judge document and index record; count what they need."""
        root, indexed = self._nodes(path, hash_, entry, text, wrong)
        identity = (root.name, root.version, root.hash) if root is not None else None
        external = indexed is not None and indexed.external is not None
        if binary and indexed is not None and not external:
            self._count(indexed)
        return Checked(path, hash_, identity, (), indexed is not None or not text, external)

    def _documents(
        self, path: str, wrong: list[Wrong]
    ) -> tuple[tuple[Mapping[str, Any], int, BlobRef] | None, BlobRef | None]:
        """Return the root of the spec document, as it is written, with its format and place; and the tarball."""
        rules = self.rules
        try:
            data = read_document(f"{rules.root}/{path}", rules.manifest_bytes)
            spec, tarball = self.refs(data, path)
        except (OSError, CachefetchError) as error:
            wrong.append(told(error, path))
            return None, None
        self.found.named[spec.sha256] = spec.size
        self.found.named[tarball.sha256] = tarball.size
        place = spec.path
        try:
            blob = read_up_to(f"{rules.root}/{place}", rules.spec_bytes)
            entry, version = read_root_entry(blob, spec, what=place)
            self.remark(path, remarks_on_blob(spec, blob[:2]))
        except (OSError, CachefetchError) as error:
            wrong.append(told(error, place))
            return None, tarball
        return (entry, version, spec), tarball

    def conclude_remote(
        self, item: Item, spec: BlobRef, tarball: BlobRef, blob: bytes | None, wrong: list[Wrong]
    ) -> None:
        """Look at a package whose files came over the network; `blob` is the spec document, None when it is damaged."""
        path, hash_, text, binary = item
        self.found.named[spec.sha256], self.found.named[tarball.sha256] = spec.size, tarball.size
        entry = None
        if blob is not None:
            try:
                entry = (*read_root_entry(blob, spec, what=spec.path), spec)
                self.remark(path, remarks_on_blob(spec, blob[:2]))
            except CachefetchError as error:
                wrong.append(told(error, spec.path))
        self._conclude(self._known(path, hash_, entry, text, binary, wrong), wrong)

    def refs(self, data: bytes, path: str) -> tuple[BlobRef, BlobRef]:
        """Return spec and tarball of a manifest that meets the policy and that Spack takes.

        Raises:
            TrustError, FormatError.
        """
        rules = self.rules
        manifest = apply(
            rules.policy,
            data,
            self._keyring,
            what=path.rpartition("/")[2],
            now=rules.now,
            mirror=rules.mirror,
        ).manifest
        found = manifest.spec(), manifest.tarball()
        if refused := refused_manifest(manifest):
            raise FormatError(f"{manifest.what} {refused}")
        self.remark(path, remarks_on_spec(manifest))
        return found

    def remark(self, path: str, texts: Iterable[str]) -> None:
        """Note what is odd about a file; any thread may."""
        if found := list(texts):  # hardly ever
            with self._mutex:
                self.found.remark(path, found)

    def _nodes(
        self,
        path: str,
        hash_: str,
        entry: tuple[Mapping[str, Any], int, BlobRef] | None,
        text: bytes,
        wrong: list[Wrong],
    ) -> tuple[Node | None, Node | None]:
        """Return the root of the spec document and the node of the index, compared with each other and the path.

        Where both are the same text, as Spack writes them, it is decoded once.
        """
        record = self._record(text, wrong) if text else None
        if entry is not None and record is not None and entry[1] == self.rules.specfile:
            both = _same(entry[0], hash_, record, entry[1], plain=is_plain(text))
            if both is not None:
                self._bind(both, path, wrong)
                return both, both
        root = indexed = None
        if entry is not None:
            try:
                root = root_node(entry[0], entry[1], what=entry[2].path)
            except FormatError as error:
                wrong.append(told(error, entry[2].path))
            else:
                self._bind(root, path, wrong)
        if record is not None:
            try:
                indexed = node_of(record, hash_, self.rules.specfile)
            except FormatError as error:
                wrong.append((self.rules.index_path, "bad-format", f"index record: {error.message}"))
        if root is not None and indexed is not None and root.hash == hash_:
            self.compare(root, indexed, wrong)
        return root, indexed

    def _record(self, text: bytes, wrong: list[Wrong]) -> dict[str, Any] | None:
        """Return an index record as it is written, None when it is none."""
        try:
            record = record_of(text)
            refused = refused_record(record, self.rules.specfile)
        except FormatError as error:
            record, refused = None, error.message
        if refused:
            wrong.append((self.rules.index_path, "bad-format", f"index record: {refused}"))
        return record

    def _bind(self, root: Node, path: str, wrong: list[Wrong]) -> None:
        """Require that the manifest stands where its spec document says."""
        try:
            if spec_manifest_path(root.name, root.version, root.hash) != path:
                raise BindingError(f"{path} is the manifest of {root.name}@{root.version}/{root.hash}")
        except CachefetchError as error:
            wrong.append(told(error, path))

    def compare(self, root: Node, indexed: Node, wrong: list[Wrong]) -> None:
        """Require that the index describes the binary: what is chosen from it is refused otherwise."""
        fields = differences(root, indexed)
        if fields:
            label = f"{root.name}@{root.version}/{root.hash[:7]}"
            message = f"the index describes another build of {label} than its spec document: {', '.join(fields)} differ"
            wrong.append((self.rules.index_path, BindingError.code, message))

    def _count(self, node: Node) -> None:
        targets = self.found.targets
        for edge in node.edges:
            target = targets.get(edge.hash)
            if target is None:
                target = targets[edge.hash] = Target(edge.name)
            target.edges += 1
            if edge.in_closure:
                target.in_closure = True

    def _hash(self, tarball: BlobRef, known: Checked, wrong: list[Wrong]) -> None:
        place = tarball.path
        try:
            size, digest, head = hash_file(f"{self.rules.root}/{place}", tarball.size)
            compare_blob(digest, size, tarball)
            self.remark(known.path, remarks_on_blob(tarball, head))
        except (OSError, CachefetchError) as error:
            wrong.append(told(error, place))
        self._conclude(known, wrong)

    def _conclude(self, known: Checked, wrong: list[Wrong]) -> None:
        if wrong or known.external or not known.record:
            made = partial(Checked, known.path, known.hash, known.identity)
            self.found.odd.append(made(tuple(wrong), known.record, known.external))


def _same(
    entry: Mapping[str, Any], hash_: str, record: Mapping[str, Any], specfile: int, *, plain: bool
) -> Node | None:
    """Return the node when the index has it as the spec document does, None otherwise or when it is damaged."""
    try:
        if entry.get("hash") == hash_ and record["spec"] == entry:
            return node_from_dict(entry, hash=hash_, specfile=specfile, plain=plain)
    except (RecursionError, FormatError):
        pass  # said by whoever looks at them one by one
    return None


class _Buffer(threading.local):
    """A buffer for each worker thread: a new one for each small file costs more than hashing it."""

    def __init__(self) -> None:
        self.view = memoryview(bytearray(1 << 20))


_BUFFER = _Buffer()


def hash_file(path: str, size: int | None = None) -> tuple[int, str, bytes]:
    """Return size, sha256 and the first two bytes of a file.

    One that has not `size` bytes is not read, and has the digest of nothing.
    """
    descriptor, info = open_and_stat(path)
    try:
        found, digest, head = info.st_size, hashlib.sha256(), b""
        if size in (None, found):
            view, left = _BUFFER.view, found
            while left > 0 and (got := os.readv(descriptor, [view])):
                digest.update(view[:got])
                head = head or bytes(view[: min(got, 2)])
                left -= got
    finally:
        os.close(descriptor)
    return found, digest.hexdigest(), head


def read_document(path: str, limit: int) -> bytes:
    """Return a small file that nothing gives a size to. Raises FormatError when it is too large, as `fetch` does."""
    data = read_up_to(path, limit)
    if len(data) > limit:
        raise FormatError(
            f"{os.path.basename(path)} has more than the {limit} bytes that such a document may have",
            hint="the mirror is damaged or not a Spack build cache",
            context={"path": path, "limit": limit},
        )
    return data


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


def compare_blob(digest: str, size: int, ref: BlobRef) -> None:
    """Require that a blob is what its manifest promises. Raises TruncatedError, DigestError."""
    context = {"file": ref.path}
    if size != ref.size:
        raise TruncatedError(
            f"{ref.path} has {size} bytes, its manifest promises {ref.size}", context=context
        )
    if digest != ref.sha256:
        raise DigestError(f"{ref.path} has sha256 {digest}", context=context)


def told(error: Exception, path: str) -> Wrong:
    """Return what went wrong with a file."""
    known = ours(error, path)
    return path, known.code, known.message


def ours(error: Exception, path: str) -> CachefetchError:
    """Return our error for what went wrong with a file."""
    if isinstance(error, CachefetchError):
        return error
    if isinstance(error, FileNotFoundError):
        return NotFoundError(f"{path} does not exist")
    assert isinstance(error, OSError)
    return NotFoundError(f"{path} cannot be read: {error.strerror}")
