"""A directory that is, or becomes, a mirror of layout 2 (``build_cache/``): copied as it is, signatures and all.

A package is its spec file, signed or not, and its tarball, in the paths that Spack 0.23 gives them. The index is that
of the sources for what is here, in their database version; ``index.json.hash`` follows it (docs/formats.md, "Layout
v2").
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from dataclasses import dataclass

from ...errors import CachefetchError, FormatError, NotFoundError, UsageError
from ...resolver.index.readers import join
from ...resolver.index.readers.nodes import specfile_of_database
from ...resolver.index.readers.places import (
    BUILD_CACHE,
    build_cache_spec_files,
    build_cache_stem,
    build_cache_tarball,
    recorded_compiler,
)
from ...resolver.index.readers.v2 import HASH, INDEX, KEYS
from ...resolver.index.writer import DATABASE_VERSION, index_text, key_index_text, with_closure
from ..failures import SOURCE_ERRORS
from ..keyfiles import MAX_KEY_SIZE
from ..layouts import V2, kept_name
from ..store import files
from ..store.cas import Stored
from ..verify.binding import parse_spec
from ..verify.openpgp import is_signed, split_cleartext
from ..verify.specfile import tarball_digest
from .accepted import refused_database
from .destination import Destination, list_no_files
from .keys import check_key, key_problem, settle
from .plan import Listing, Problem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
    from typing import Any

    from ...resolver.index.writer import Lookup
    from ..model import Caveat, Source, VerifiedPackage, Wanted
    from ..session import Session
    from ..verify.binding import SpecDocument
    from .journal import Row
    from .keys import KeyFailure
    from .plan import Terms

_SIGNED, _UNSIGNED, _TARBALL = ".spec.json.sig", ".spec.json", ".spack"
_KEY_DIRECTORY = KEYS.rpartition("/")[0]
#: Database versions whose nodes are all of one specfile version.
_VERSION_OF = {3: "6", 4: "7"}
#: Of an index without nodes.
_NEWEST = "7"


class BuildCache(Destination):
    """The store below a mirror of layout 2. A blob has the path of the package that was adopted last with it."""

    layout = V2
    index_path = HASH

    def __init__(self, mirror: str, *, dry_run: bool = False) -> None:
        super().__init__(mirror, dry_run=dry_run)
        self._files: dict[str, tuple[str, str]] = {}
        self._tarballs: dict[str, str] = {}
        self._payloads: dict[str, str] = {}
        self._digests: dict[str, str] = {}
        self._short: dict[str, str] = {}
        self._published: dict[str, str] = {}

    def expect(self, stem: str, wanted: Wanted) -> None:
        """Tell where the files of ``NAME-VERSION-HASH`` belong. Its node must be known."""
        if wanted.node is None:
            return
        compiler = wanted.compiler or wanted.node.compiler or ("none", "none")
        full = build_cache_stem(wanted.node, compiler)
        self._files[stem] = build_cache_spec_files(full)
        self._tarballs[stem] = build_cache_tarball(wanted.node, compiler)
        self._short[full] = stem

    def adopt(self, package: VerifiedPackage) -> VerifiedPackage:
        """Note where the tarball of a package belongs."""
        if package.layout != V2:
            raise UsageError(
                f"{package.wanted} is not of layout 2", hint="--convert makes layout 3 of everything"
            )
        stem = kept_name(package.wanted, V2).removesuffix(".v2")
        self._payloads[package.tarball.sha256] = self._tarballs[stem]
        self._digests[stem] = package.tarball.sha256
        return package

    def path(self, sha256: str) -> str:
        """Return where the tarball is or would be."""
        return os.path.join(self.mirror, self._payloads[sha256])

    def locate(self, sha256: str) -> Stored | None:
        """Return where the tarball is; None for one of no package that was adopted."""
        if sha256 not in self._payloads:
            return None
        path = self.path(sha256)
        with files.store_errors(path):
            info = files.stat_or_none(path)
        return Stored(path, info.st_size, "store") if info else None

    def manifest(self, key: str) -> bytes | None:
        """Return the spec file that waits or is published, the signed one first."""
        stem = key.removesuffix(".v2")
        if stem in self._pending or stem not in self._files or stem in self._asked_again:
            return self._pending.get(stem)
        return next((data for path in self._files[stem] if (data := self.read_file(path))), None)

    def put_manifest(self, key: str, data: bytes) -> None:
        """Hold a proven spec file back until `publish`."""
        self._asked_again.discard(key.removesuffix(".v2"))
        self._pending[key.removesuffix(".v2")] = data

    def index_size(self) -> int:
        """Return the size of the index that is there, 0 without one."""
        return files.size_or_none(os.path.join(self.mirror, INDEX)) or 0

    def waiting_sizes(self) -> list[int]:
        """Return nothing: spec files count as blobs."""
        return []

    def publish(self, key: str) -> None:
        """Write the spec file of a package whose tarball is complete; signed and unsigned exclude each other."""
        tarball = os.path.join(self.mirror, self._tarballs[key])
        if files.stat_or_none(tarball) is None:  # two packages with the same bytes
            with files.store_errors(tarball):
                other = self.path(self._digests[key])
                files.link_or_copy(other, tarball, os.path.getsize(other))
        data = self._pending.pop(key, None)
        if data is None:
            return
        signed, unsigned = self._files[key]
        mine, other = (signed, unsigned) if is_signed(data) else (unsigned, signed)
        self._published[key] = mine  # it may wait for its name, see `gather`
        if self.write(mine, data, alone=os.path.lexists(os.path.join(self.mirror, other))):
            self.added[mine] = len(data)
        with files.store_errors(other), contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(self.mirror, other))

    def forget(self, stem: str) -> None:
        """Take the spec file of a package away: it is damaged, and nothing must read it until it is right again."""
        for path in self._files.get(stem, ()):
            with files.store_errors(path), contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(self.mirror, path))

    def listing(self) -> Listing:
        """Return what is there; spec files count as blobs and as manifests."""
        blobs = dict(_walk(self.mirror, BUILD_CACHE))
        manifests: dict[str, str] = {}
        for path in sorted(blobs):  # the signed file of two comes last
            full = path.rpartition("/")[2]
            for suffix in (_SIGNED, _UNSIGNED):
                if full.endswith(suffix):
                    full = full.removesuffix(suffix)
                    manifests[self._short.get(full, full)] = path
        return Listing(blobs, manifests)

    def clear(self) -> None:
        """Remove what stands in the place of a package file and is no file, such as a FIFO."""
        with files.store_errors(self.mirror):
            for path in list_no_files(os.path.join(self.mirror, BUILD_CACHE)):
                if path.endswith((_SIGNED, _UNSIGNED, _TARBALL)):
                    os.unlink(path)

    def names(self, package: VerifiedPackage) -> tuple[tuple[str, int], tuple[str, int]]:
        """Return path and size of a package's tarball and spec file."""
        stem = kept_name(package.wanted, V2).removesuffix(".v2")
        signed, unsigned = self._files[stem]
        spec = self._published.get(stem) or (signed if is_signed(self.manifest(stem) or b"") else unsigned)
        return (self._tarballs[stem], package.tarball.size), (spec, package.spec.size)

    def seal(self) -> str:
        """Return a digest of names and sizes of all files; whoever asks knows the digest of the index."""
        found: list[tuple[str, int | None]] = sorted(_walk(self.mirror, BUILD_CACHE))
        found.append((INDEX, files.size_or_none(os.path.join(self.mirror, INDEX))))
        return hashlib.sha256(json.dumps(found).encode()).hexdigest()

    def tidy(self) -> None:
        """Directories are made for one package each: they go with it (`remove`)."""

    def begin(self) -> None:
        """Layout 2 has no file that tells it."""

    def unnamed(
        self,
        listing: Listing,
        named: set[str],
        anew: Container[str] = (),  # noqa: ARG002 -- a spec file names its tarball by its place
    ) -> tuple[dict[str, int], dict[str, str]]:
        """Return the tarballs without a spec file, path -> size."""
        there = {path.rpartition("/")[2] for path in listing.manifests.values()}
        stems = {name.removesuffix(_SIGNED).removesuffix(_UNSIGNED) for name in there}
        found = {
            path: size
            for path, size in sorted(listing.blobs.items())
            if path.endswith(_TARBALL)
            and path not in named
            and path.rpartition("/")[2].removesuffix(_TARBALL) not in stems
        }
        return found, {}


def _walk(mirror: str, below: str) -> Iterator[tuple[str, int]]:
    """Yield path and size of every package and key file below ``build_cache/``; the index is none."""
    directory = os.path.join(mirror, below)
    with files.store_errors(directory):
        try:
            entries = list(os.scandir(directory))
        except (FileNotFoundError, NotADirectoryError):
            return
        for entry in entries:
            path = f"{below}/{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(mirror, path)
            elif path not in (INDEX, HASH):
                yield path, entry.stat().st_size


# --- index ----------------------------------------------------------------------------------------------------------


def write_build_cache_index(
    to: BuildCache,
    rows: Iterable[Row],
    before: Mapping[str, str],
    lookup: Lookup,
    terms: Terms,
) -> tuple[list[str], set[str]]:
    """Write the index of all that the destination holds, then its digest.

    Arguments and result as for `execute.write_index`.
    """
    nodes, listed = read_build_cache_index(to)
    manifests = {stem[-32:]: path for stem, path in to.listing().manifests.items()}
    held = {row.hash for row in rows if row.hash in manifests}
    damaged: list[str] = []
    for stem, path in before.items():
        hash_ = stem[-32:]
        if hash_ in manifests and hash_ not in held:
            if hash_ in listed:
                held.add(hash_)
            elif found := nodes_of_spec_file(to, path):
                nodes.update(found)
                held.add(hash_)
            else:
                damaged.append(path)
    if manifests and not held and terms.repair:
        return damaged, set()
    used: dict[str, tuple[Mapping[str, Any], int]] = {}

    def find(hash_: str) -> tuple[Mapping[str, Any], int] | None:
        found = lookup(hash_) or nodes.get(hash_)
        if found is None and hash_ in held and hash_ in manifests:
            nodes.update(nodes_of_spec_file(to, manifests[hash_]))
            found = nodes.get(hash_)
        if found is not None:
            used[hash_] = found
        return found

    modern = with_closure(held, find)
    waiting = terms.waiting(held, listed, modern)
    formats = {used[hash_][1] for hash_ in modern}
    version = _VERSION_OF.get(formats.pop()) if len(formats) == 1 else None if formats else _NEWEST
    if version:  # as the sources wrote them: the Spack that reads layout 2 knows no newer form
        modern = {hash_: {**used[hash_][0], "hash": hash_} for hash_ in modern}
    text = index_text(modern, held - waiting, version or DATABASE_VERSION)
    to.write(INDEX, text)
    to.write(HASH, hashlib.sha256(text).hexdigest().encode())
    return damaged, waiting


def read_build_cache_index(to: BuildCache) -> tuple[dict[str, tuple[Mapping[str, Any], int]], set[str]]:
    """Return the nodes of the destination's index and the hashes that it holds; see `execute.read_own_index`."""
    try:
        database = json.loads(to.read_file(INDEX) or b"")["database"]
        if refused_database(database["version"]):  # nothing of layout 2 has such nodes
            return {}, set()
        specfile = specfile_of_database(database["version"])
        installs: dict[str, Any] = database["installs"]
        nodes = {hash_: (record["spec"], specfile) for hash_, record in installs.items()}
        held = {hash_ for hash_, record in installs.items() if record.get("in_buildcache") is True}
    except (ValueError, KeyError, TypeError, AttributeError, CachefetchError, RecursionError):
        return {}, set()
    return nodes, held


def nodes_of_spec_file(to: BuildCache, path: str) -> dict[str, tuple[Mapping[str, Any], int]]:
    """Return the nodes of a spec file, {} when it or its tarball is not right."""
    try:
        document, _ = read_spec_file(to.read_file(path) or b"", path)
        compiler = recorded_compiler(document.root, {node.hash: node for node in document.nodes}.get)
        check_place(document, compiler, path)
    except CachefetchError:
        return {}
    if files.size_or_none(os.path.join(to.mirror, build_cache_tarball(document.root, compiler))) is None:
        return {}
    entries: Any = document.raw["spec"]
    raws = entries if isinstance(entries, list) else entries["nodes"]
    return {node.hash: (raw, document.format) for node, raw in zip(document.nodes, raws, strict=True)}


def read_spec_file(data: bytes, path: str) -> tuple[SpecDocument, str]:
    """Return the document of a spec file, whose signature was checked or is not needed, and the tarball's sha256."""
    text = split_cleartext(data, what=path).text if is_signed(data) else data
    document = parse_spec(text, what=path)
    return document, tarball_digest(document, what=path)


def place_of_spec_file(to: BuildCache, path: str) -> str:
    """Return where a spec file belongs, that may stand elsewhere. Raises FormatError."""
    data = to.read_file(path) or b""
    document, _ = read_spec_file(data, path)
    compiler = recorded_compiler(document.root, {node.hash: node for node in document.nodes}.get)
    signed, unsigned = build_cache_spec_files(build_cache_stem(document.root, compiler))
    return signed if is_signed(data) else unsigned


def check_place(document: SpecDocument, compiler: tuple[str, str], path: str) -> None:
    """Require that a spec file stands where its node says. Raises BindingError."""
    from ...errors import BindingError

    root = document.root
    if path not in build_cache_spec_files(build_cache_stem(root, compiler)):
        raise BindingError(f"{path} is the spec file of {root.name}@{root.version}/{root.hash}")


# --- keys -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PublishedFiles:
    """Keys to publish in layout 2: path -> bytes, the list last; `problems` and `caveats` as for layout 3."""

    found: Mapping[str, bytes]
    problems: tuple[Problem, ...] = ()
    caveats: tuple[Caveat, ...] = ()

    def blobs(self) -> dict[str, int]:
        """Path -> size of all files."""
        return {path: len(data) for path, data in self.found.items()}

    def counts(self, path: str) -> bool:
        """Tell whether a file of `files` is one of `blobs`."""
        return path in self.found

    def files(self) -> list[tuple[str, bytes]]:
        """(path below the mirror, bytes) in the order of writing."""
        return list(self.found.items())


async def read_build_cache_keys(session: Session, sources: Sequence[Source], own: Source) -> PublishedFiles:
    """Return the keys that the mirrors publish, merged; those of the destination stay."""
    keys: dict[str, bytes] = {}
    lists: list[tuple[set[str], bytes]] = []
    problems: list[Problem] = []
    failed: list[KeyFailure] = []
    for source in (*sources, own):
        try:
            data = await session.document(source, join(source.url, KEYS), 1 << 20, 0)
            names = set(json.loads(data)["keys"])
        except NotFoundError:
            continue
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            message = f"{source.mirror}: the key list is damaged: {error}"
            problems.append(Problem("", "key", "bad-format", message))
            continue
        except SOURCE_ERRORS as error:
            problems.append(key_problem(source, error))
            continue
        lists.append((names, data))
        for name in sorted(names - keys.keys()):
            try:
                keys[name] = await _key(session, source, name)
            except SOURCE_ERRORS as error:
                failed.append((source, name, error))
    lost, told = settle(failed, keys)
    problems += lost
    if not keys:
        return PublishedFiles({}, tuple(problems), told)
    found = {f"{_KEY_DIRECTORY}/{name}.pub": keys[name] for name in sorted(keys)}
    same = next((data for names, data in lists if names == keys.keys()), None)
    found[KEYS] = same or key_index_text(keys)
    return PublishedFiles(found, tuple(problems), told)


async def _key(session: Session, source: Source, name: str) -> bytes:
    if not name.isalnum():
        raise FormatError(f"{source.mirror}: {name!r:.80} is not a key fingerprint")
    path = f"{_KEY_DIRECTORY}/{name}.pub"
    data = await session.document(source, join(source.url, path), MAX_KEY_SIZE, 0)
    check_key(data, name, f"{source.mirror}: {path}")
    return data
