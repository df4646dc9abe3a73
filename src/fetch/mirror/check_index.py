"""The audit of the indexes of a mirror: what they are, which binaries they list, what these lack."""

from __future__ import annotations

import os

from anyio import to_thread

from ...errors import CachefetchError, DigestError, FormatError, NotFoundError, TruncatedError
from ...resolver.index.readers.manifest import INDEX_MANIFEST, parse_manifest, spec_manifest_path
from .accepted import index_of, refused_database, refused_index, remarks_on, remarks_on_blob
from .destination import OWN, list_other_manifests
from .inspection import Inspection
from .plan import Problem
from .records import Records

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...resolver.model import Node

INDEX_LIMIT = 8 << 30
_VIEWS = INDEX_MANIFEST.rpartition("/")[0]


class IndexAudit(Inspection):
    """The part of an audit that is about indexes."""

    index_path = INDEX_MANIFEST

    async def _index(self) -> bool:
        """Read the index; False when there is none."""
        try:
            data = await self._document(INDEX_MANIFEST)
        except NotFoundError:
            if not await to_thread.run_sync(self._is_mirror):
                raise
            self.notes["no_index"] = 1
            return False
        except FormatError as error:
            self._index_problem(INDEX_MANIFEST, error.code, error.message)
            return False
        found = await self._read_index(INDEX_MANIFEST, data)
        if found is None:
            return False
        self.records = found
        return True

    async def _views(self) -> None:
        """Read the named indexes, which a directory shows."""
        assert self.local is not None
        for path in await to_thread.run_sync(list_other_manifests, self.local):
            if path.startswith(_VIEWS) and path != INDEX_MANIFEST:
                try:
                    await self._read_index(path, await self._document(path))
                except CachefetchError as error:
                    self._problem("", "index", error.code, error.message, path)

    async def _read_index(self, path: str, data: bytes) -> Records | None:
        """Return the records of the index whose manifest is `data`; None when it is damaged, which is reported."""
        try:
            manifest = parse_manifest(data, what=path)
            ref = index_of(manifest)
            body = await self._blob(ref, INDEX_LIMIT)
            self.named[ref.sha256] = ref.size
            records = await to_thread.run_sync(Records, body)
            for other in manifest.blobs:  # for other versions of Spack
                self.named[other.sha256] = other.size
                if other is not ref:
                    await self._hash_remote(other)
        except (FormatError, DigestError, TruncatedError, NotFoundError) as error:
            self._index_problem(path, error.code, error.message)
            return None
        if refused := refused_index(manifest):
            self._index_problem(path, FormatError.code, f"{path} {refused}")
        self._judge_version(path, records.version)
        self.odd.remark(path, [*remarks_on(manifest), *remarks_on_blob(ref, body[:2])])
        return records

    def _judge_version(self, path: str, version: str) -> None:
        if refused := refused_database(version):
            self._index_problem(path, FormatError.code, refused)

    def _index_problem(self, path: str, code: str, message: str) -> None:
        self.index_good = self.index_good and path != self.index_path
        self.problems.append(Problem("", "index", code, message, (), path))

    def _is_mirror(self) -> bool:
        """Tell whether a directory without an index is a mirror, maybe one of which nothing is published yet."""
        return self.local is not None and any(
            os.path.isdir(os.path.join(self.local, name)) for name in ("v3", OWN)
        )

    def _entries(self, present: set[str]) -> None:
        """Compare the index with the manifests that are there."""
        for hash_ in sorted(self.held - present):
            node = self.records.node(hash_)
            assert node is not None, "a record that cannot be read is not held"
            try:
                path = self._path_of(node)
            except FormatError as error:  # a record that no mirror can hold
                self.absent.append(None)
                self._problem(hash_, node.name, error.code, error.message)
                continue
            self.absent.append((node.name, node.version, hash_))
            self._problem(hash_, node.name, "not-found", f"{path} does not exist, the index lists it", path)
        self.notes["unindexed"] = len(present - self.held)

    def _closure(self) -> None:
        """Every link and run dependency of what is held must be held, or external; other edges must be records."""
        damaged = {one.hash for one in self.found.odd if not one.record}
        dangling = 0
        for hash_, target in sorted(self.found.targets.items()):
            is_record = hash_ in self.records and hash_ not in damaged
            dangling += 0 if is_record else target.edges
            if target.in_closure and hash_ not in self.held and hash_ not in self.external:
                message = f"the mirror does not hold {target.name}/{hash_[:7]}"
                self._problem(hash_, target.name, "incomplete", message)
                node = self.records.node(hash_)
                self.absent.append((node.name, node.version, hash_) if node else None)
        self.notes["dangling"] = dangling

    def _path_of(self, node: Node) -> str:
        return spec_manifest_path(node.name, node.version, node.hash)
