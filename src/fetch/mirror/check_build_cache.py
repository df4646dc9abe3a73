"""The audit of a mirror of layout 2: as `check` does for layout 3, with spec files in place of manifests and blobs."""

from __future__ import annotations

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from anyio import to_thread

from ...errors import BindingError, CachefetchError, DigestError, FormatError, NotFoundError
from ...resolver.index.readers import join
from ...resolver.index.readers.manifest import is_fingerprint
from ...resolver.index.readers.places import (
    BUILD_CACHE,
    build_cache_spec_files,
    build_cache_stem,
    build_cache_tarball,
    recorded_compiler,
)
from ...resolver.index.readers.v2 import HASH, INDEX, KEYS
from ..transports.file import local_path
from ..transports.threads import Aborted, run_abortable
from ..verify.binding import MAX_SPEC_BLOB_SIZE, check_index_node, parse_spec
from ..verify.policy import check_signature
from ..verify.specfile import tarball_digest
from .build_cache import BuildCache, check_place, nodes_of_spec_file
from .check import Audit
from .check_index import INDEX_LIMIT
from .examine import LARGE, Checked, hash_file, read_document, told
from .inventory import each
from .keys import check_key
from .plan import Problem
from .records import Records
from .workers import cores

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from concurrent.futures import Future

    from ...resolver.model import Node
    from ..transports.threads import Abort
    from .check import Identity
    from .described import Found
    from .examine import Item, Wrong


_KEY_SUFFIX = ".pub"


class BuildCacheAudit(Audit):
    """One audit of a mirror of layout 2."""

    suffixes = (".spec.json.sig", ".spec.json")
    index_path = INDEX

    async def _index(self) -> bool:
        try:
            body = await self._document(INDEX, INDEX_LIMIT)
        except NotFoundError:
            if not await to_thread.run_sync(self._is_mirror):
                raise
            self.notes["no_index"] = 1
            await self._lost_index()
            return False
        except FormatError as error:
            self._index_problem(INDEX, error.code, error.message)
            return False
        try:
            self.named[INDEX] = len(body)
            self.records = await to_thread.run_sync(Records, body)
        except FormatError as error:
            self._index_problem(INDEX, error.code, error.message)
            return False
        self._judge_version(INDEX, self.records.version)
        await self._index_hash(hashlib.sha256(body).hexdigest())
        return True

    async def _lost_index(self) -> None:
        """Report an index of which only the digest is left; a mirror without both has none yet."""
        with suppress(NotFoundError):
            await self._document(HASH, 1 << 10)
            self._index_problem(INDEX, NotFoundError.code, f"{INDEX} does not exist, {HASH} tells its digest")

    async def _index_hash(self, digest: str) -> None:
        try:
            promised = (await self._document(HASH, 1 << 10)).decode("ascii", "replace").strip()
        except NotFoundError:
            self.odd.remark(HASH, ["it does not exist: Spack reads the whole index each time"])
            return
        except FormatError as error:
            self._index_problem(HASH, error.code, error.message)
            return
        if promised != digest:
            message = f"{HASH} promises sha256 {promised:.64}, {INDEX} has {digest}: one of them is old"
            self.problems.append(Problem("", "index", "digest-mismatch", message, (), HASH))

    def _is_mirror(self) -> bool:
        return self.local is not None and os.path.isdir(os.path.join(self.local, BUILD_CACHE))

    async def _paths(self, has_index: bool) -> list[str]:
        if self.local is not None:
            listing = await to_thread.run_sync(BuildCache(self.local).listing)
            return sorted(listing.manifests.values())
        return self._listed_paths() if has_index else []

    def _nodes_in(self, path: str) -> Mapping[str, Found]:
        assert self.local is not None
        return nodes_of_spec_file(BuildCache(self.local), path)

    def _path_of(self, node: Node) -> str:
        """Return the path of a node's spec file: the signed one where the policy needs it."""
        stem = build_cache_stem(node, recorded_compiler(node, self.records.node))
        return build_cache_spec_files(stem)[self.source.policy.mode == "none"]

    def _named_in(self, path: str) -> Identity:
        """Return the hash in the path of a spec file; name and version in it have no bounds that could be told."""
        hash_ = self._hash_in(path)
        return path.rpartition("/")[2].partition(f"-{hash_}.")[0], "", hash_

    def _read(self, data: bytes, path: str) -> tuple[tuple[str, str, str], str, str]:
        """Return identity, tarball path and its sha256, of a spec file that meets the policy and its place.

        An index record that describes another build is reported.
        """
        source, now = self.source, self.session.clockwork.now()
        text = check_signature(
            source.policy,
            data,
            source.keyring,
            what=path.rpartition("/")[2],
            now=now,
            mirror=source.mirror,
        ).text
        document = parse_spec(text, what=path)
        root = document.root
        nodes = {node.hash: node for node in document.nodes}
        compiler = recorded_compiler(root, lambda hash_: self.records.node(hash_) or nodes.get(hash_))
        check_place(document, compiler, path)
        identity = (root.name, root.version, root.hash)
        indexed = self.records.node(root.hash)
        if indexed is not None:
            try:
                check_index_node(document, indexed, what=path)
            except BindingError as error:
                self._wrong(path, identity, (INDEX, error.code, error.message))
        return identity, build_cache_tarball(root, compiler), tarball_digest(document, what=path)

    async def _examine(self, items: Sequence[Item]) -> None:
        examiner = self._examiner()

        def records() -> None:
            for _, hash_, text, binary in items:
                examiner.examine(("", hash_, text, binary))

        await to_thread.run_sync(records)
        self.found = examiner.found
        paths = [item[0] for item in items if item[0]]
        if self.local is not None:
            await run_abortable(lambda abort: self._all_local(abort, paths))
            return
        _, errors = await each(paths, self._remote_one, self.session.limits.blob_connections)
        for number, error in errors.items():
            self._wrong(paths[number], None, told(error, paths[number]))

    def _all_local(self, abort: Abort, paths: Sequence[str]) -> None:
        with ThreadPoolExecutor(cores()) as pool:
            try:
                started = []
                for path in paths:
                    if abort.set:
                        raise Aborted
                    started.append(self._one_local(path, pool))
                for one in started:
                    if one is not None:
                        one.result()
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise

    def _one_local(self, path: str, pool: ThreadPoolExecutor) -> Future[None] | None:
        try:
            data = read_document(f"{self.local}/{path}", MAX_SPEC_BLOB_SIZE)
            identity, tarball, sha256 = self._read(data, path)
            size = os.path.getsize(f"{self.local}/{tarball}")
        except FileNotFoundError as error:
            lost = str(error.filename).removeprefix(f"{self.local}/")
            self._wrong(path, None, told(error, lost))
            return None
        except (OSError, CachefetchError) as error:
            self._wrong(path, None, told(error, path))
            return None
        self.found.named.update({path: len(data), tarball: size})

        def finish() -> None:
            try:
                _, found, _ = hash_file(f"{self.local}/{tarball}")
                _compare(tarball, found, sha256)
            except (OSError, CachefetchError) as error:
                self._wrong(path, identity, told(error, tarball))

        if size > LARGE:
            return pool.submit(finish)
        finish()
        return None

    def _wrong(self, path: str, identity: tuple[str, str, str] | None, wrong: Wrong) -> None:
        self.found.odd.append(Checked(path, self._hash_in(path), identity, (wrong,)))

    async def _remote_one(self, number: int, path: str) -> None:
        data = await self._spec_file(path, number + 1)
        identity, tarball, sha256 = self._read(data, path)
        self.found.named[path] = len(data)
        try:
            found = await self._hash(join(self.source.url, tarball))
            self.found.named[tarball] = found.size
            _compare(tarball, found.digest.hexdigest(), sha256)
        except CachefetchError as error:
            self._wrong(path, identity, told(error, tarball))

    async def _spec_file(self, path: str, transfer: int) -> bytes:
        """Read a spec file; without a policy the unsigned one may be a signed one."""
        url = join(self.source.url, path)
        try:
            return await self.session.document(self.source, url, MAX_SPEC_BLOB_SIZE, transfer)
        except NotFoundError:
            if not path.endswith(".json"):
                raise
            return await self.session.document(self.source, f"{url}.sig", MAX_SPEC_BLOB_SIZE, transfer)

    async def _keys(self, has_index: bool) -> None:
        there = await self._keys_there()
        try:
            data = await self._document(KEYS)
        except NotFoundError:
            if there and has_index:
                self._no_key_list(KEYS, there)
            return
        except FormatError as error:
            self._problem("", "key", error.code, error.message, KEYS)
            return
        names: list[str] = []
        try:
            self.named[KEYS] = len(data)
            names = sorted(json.loads(data)["keys"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            self._problem("", "key", "bad-format", f"the key list is damaged: {error}", KEYS)
        for name in names:
            await self._key(name)
        for name in sorted(there - {name.upper() for name in names}):
            self.odd.remark(_key_path(name), ["the key is not in the list of keys: Spack does not see it"])
            await self._key(name)

    async def _key(self, fingerprint: str) -> None:
        path = KEYS
        try:
            if not is_fingerprint(fingerprint):
                raise FormatError(f"{KEYS} names {fingerprint!r:.80}, which is not a key fingerprint")
            path = _key_path(fingerprint)
            key = await self._document(path, 4 << 20)
            self.named[path] = len(key)
            check_key(key, fingerprint, path)
        except CachefetchError as error:
            self._problem("", "key", error.code, error.message, path)

    async def _keys_there(self) -> set[str]:
        if self.local is not None:
            names = await to_thread.run_sync(_files_in, os.path.join(self.local, os.path.dirname(KEYS)))
            keys = {name.removesuffix(_KEY_SUFFIX) for name in names if name.endswith(_KEY_SUFFIX)}
            return {key for key in keys if is_fingerprint(key)}
        found = set()
        for fingerprint in self.source.keyring.fingerprints:
            with suppress(CachefetchError):
                await self._document(_key_path(fingerprint))
                found.add(fingerprint)
        return found

    async def _views(self) -> None:
        """Layout 2 has no named indexes."""

    def _strays(self) -> None:
        """Report what is not a file of a mirror; a spec file or tarball in a wrong place was met by its package."""
        assert self.local is not None
        for path in BuildCache(self.local).listing().blobs:
            is_key = path.startswith(f"{os.path.dirname(KEYS)}/")
            if not is_key and not path.endswith((*self.suffixes, ".spack")):
                self.odd.remark(path, ["this is not a file of a mirror"])

    async def _layout(self) -> None:
        """Layout 2 has no file that tells it."""

    def _orphans(self, paths: Sequence[str]) -> None:
        assert self.local is not None
        to = BuildCache(self.local)
        self.notes["unnamed_blobs"] = len(to.unnamed(to.listing(), set(paths))[0])


def _key_path(fingerprint: str) -> str:
    return f"{os.path.dirname(KEYS)}/{fingerprint}{_KEY_SUFFIX}"


def _files_in(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


def is_build_cache(url: str) -> bool:
    """Tell whether a directory is a mirror of layout 2 and not of layout 3."""
    path = local_path(url)
    return os.path.isdir(os.path.join(path, BUILD_CACHE)) and not os.path.isdir(os.path.join(path, "v3"))


def _compare(path: str, found: str, promised: str) -> None:
    if found != promised:
        raise DigestError(
            f"{path} has sha256 {found}, its spec file promises {promised}", context={"file": path}
        )
