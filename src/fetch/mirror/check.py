"""The audit of a mirror: every manifest, signature, blob, binding, key, index entry and closure.

A directory is listed and hashed, by several processes when it has many packages; of a URL, which cannot be listed, the
index says what must be there. Damage is a problem; what only takes space or waits for an index (a blob that nothing
names, a manifest that the index does not list yet) is a note.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field

from anyio import to_thread

from ...errors import AccessError, CachefetchError, FormatError, NotFoundError, UsageError
from ...regular import open_regular
from ...resolver.index.readers import join
from ...resolver.index.readers.manifest import INDEX_MANIFEST, LAYOUT_PATH, parse_manifest
from ...resolver.index.readers.v2 import HASH as V2_HASH
from ...resolver.index.readers.v2 import INDEX as V2_INDEX
from ...resolver.index.writer import needed_by_nodes, with_closure
from ..transports import scheme_of
from ..transports.threads import Aborted, run_abortable
from .accepted import refused_layout
from .check_index import IndexAudit
from .check_keys import KeyAudit
from .described import Documents
from .destination import Destination, blob_names, list_manifests, list_other_manifests, list_strays
from .examine import Checked, Examiner, Rules, told
from .inventory import each
from .plan import Problem
from .workers import ENOUGH, cores, examine_in_processes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from ...resolver.model import Node
    from ..model import Source
    from ..session import Session
    from ..transports.threads import Abort
    from .described import Found as Described
    from .examine import Item, Wrong

    #: Name, version and DAG hash of a package.
    Identity = tuple[str, str, str]

#: Code of the problem that a manifest in the place of nothing is.
MISPLACED = "misplaced"


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What an audit found: `problems` is the damage, `notes` counts what is harmless; `bytes` were hashed.

    `damaged` are the packages to repair, as (name, version, hash); of `supposed` ones only the name of a file tells,
    path -> (name, version, hash), in layout 2 with the hash alone. `index` is False when the index is damaged.
    After a repair `repaired` counts its packages, and `mended` the problems that are gone, those of the index too.
    """

    manifests: int
    blobs: int
    bytes: int
    problems: tuple[Problem, ...]
    notes: Mapping[str, int]
    damaged: tuple[Identity, ...] = ()
    supposed: Mapping[str, Identity] = field(default_factory=dict)
    index: bool = True
    repaired: int = 0
    mended: int = 0
    warnings: tuple[str, ...] = ()

    @property
    def status(self) -> str:
        """Return "ok" or "damaged"."""
        return "damaged" if self.problems else "ok"

    @property
    def describes_itself(self) -> bool:
        """True when index and documents tell name, version and node of all that is damaged."""
        return self.index and not self.supposed and "no_index" not in self.notes

    @property
    def lacks_index(self) -> bool:
        """True when packages are there and no index, be it lost or not written yet."""
        return bool(self.manifests and "no_index" in self.notes)

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


class Audit(IndexAudit, KeyAudit):
    """One audit of a mirror of layout 3."""

    #: What the names of the manifests end in, behind the hash.
    suffixes: tuple[str, ...] = (".spec.manifest.json",)

    async def run(self) -> VerifyReport:
        """Do it."""
        has_index = await self._index()
        paths = await self._paths(has_index)
        if paths and not has_index and self.index_good:
            self.warnings += await self._without_index(paths)
        there = {self._hash_in(path): path for path in paths}
        await self._examine(self._items(paths, there))
        self._judge()
        if has_index:
            self._entries(set(there))
            self._closure()
        await self._keys(has_index)
        await self._layout()
        if self.local is not None:
            await self._views()
            await to_thread.run_sync(self._strays)
            self._orphans(paths)
        # A record without a manifest is of a package that is `absent`, or of none: an external node, say.
        packages = [one for one in self.found.odd if one.wrong and one.path]
        identities = [self._identity(one) for one in packages] + self.absent
        return VerifyReport(
            len(paths),
            len(self.named),
            sum(self.named.values()),
            tuple(self.problems),
            self.notes,
            tuple(found for found in identities if found),
            self._supposed(packages),
            self.index_good,
            warnings=(*self.warnings, *self._remarks()),
        )

    async def _without_index(self, paths: Sequence[str]) -> list[str]:
        """Say that there is no index, and what the packages lack by their own documents: a lost index told of it."""
        found = ["the mirror has no index: Spack shows nothing of what it holds; `--repair` writes one"]
        if self.local is not None and (lacking := await to_thread.run_sync(self._lacking, paths)):
            found.append(f"what is here needs, and the mirror does not hold: {', '.join(lacking)}")
        return found

    def _lacking(self, paths: Sequence[str]) -> list[str]:
        """Return what the packages of a directory need to link or run and is neither there nor external."""
        manifests = {self._hash_in(path): path for path in paths}
        nodes = with_closure(manifests, Documents(manifests, self._nodes_in).find)
        needed = needed_by_nodes(manifests, nodes)
        rest = (hash_ for hash_ in needed - manifests.keys() if not nodes.get(hash_, {}).get("external"))
        return sorted(f"{nodes.get(hash_, {}).get('name', '')}/{hash_[:7]}" for hash_ in rest)

    def _nodes_in(self, path: str) -> Mapping[str, Described]:
        """Return the nodes in the document of a package of a directory."""
        from .execute import nodes_of_document

        assert self.local is not None
        return nodes_of_document(Destination(self.local), path)

    def _remarks(self) -> list[str]:
        """Return what is odd, a sentence for each kind."""
        self.odd.add(self.found)
        found = [f"{path}: {text}{_more(number)}" for text, (number, path) in self.odd.remarks.items()]
        return sorted(found)

    def _judge(self) -> None:
        """Report what was found about packages and index records, and settle what the mirror holds."""
        found = self.found
        found.odd.sort(key=lambda one: (one.path, one.hash))
        self.named.update(found.named)
        self.external = {one.hash for one in found.odd if one.external}
        unusable = self.external | {one.hash for one in found.odd if not one.record}
        self.held = {hash_ for hash_ in self.records if self.records.is_binary(hash_)} - unusable
        for one in found.odd:
            if one.wrong:
                self._report(one)

    # --- packages --------------------------------------------------------------------------------------------------

    async def _paths(self, has_index: bool) -> list[str]:
        if self.local is not None:
            return sorted((await to_thread.run_sync(list_manifests, self.local)).values())
        if not has_index:
            return []
        return self._listed_paths()

    def _listed_paths(self) -> list[str]:
        """Return where the binaries of the index should be; `_entries` tells of those that can be nowhere."""
        paths = []
        for node in self._binaries():
            with suppress(FormatError):
                paths.append(self._path_of(node))
        return sorted(paths)

    def _binaries(self) -> list[Node]:
        """Return the nodes that the index lists as here; one that cannot be read is reported in its place."""
        nodes = [self.records.node(hash_) for hash_ in self.records if self.records.is_binary(hash_)]
        return [node for node in nodes if node is not None and node.external is None]

    def _hash_in(self, path: str) -> str:
        """Return the DAG hash in the name of a manifest."""
        for suffix in self.suffixes:
            path = path.removesuffix(suffix)
        return path[-32:]

    def _items(self, paths: Sequence[str], there: Mapping[str, str]) -> list[Item]:
        """Return what is to be looked at: the packages with their index records, then the other records."""
        records = self.records
        hashes = [self._hash_in(path) for path in paths]
        items = [
            (path, hash_, records.text(hash_), records.is_binary(hash_))
            for path, hash_ in zip(paths, hashes, strict=True)
        ]
        return items + [
            ("", hash_, records.text(hash_), records.is_binary(hash_))
            for hash_ in records
            if hash_ not in there
        ]

    async def _examine(self, items: Sequence[Item]) -> None:
        if self.local is not None:
            await run_abortable(lambda abort: self._local(abort, items))
            return
        examiner = self._examiner()
        for item in items:
            if not item[0]:
                examiner.examine(item)
        remote = [item for item in items if item[0]]
        _, errors = await each(
            remote,
            lambda number, item: self._remote(examiner, number, item),
            self.session.limits.blob_connections,
        )
        for number, error in errors.items():
            path, hash_, text, binary = remote[number]
            examiner.examine(("", hash_, text, binary))
            examiner.found.odd.append(Checked(path, hash_, None, (told(error, path),)))
        self.found = examiner.found

    def _examiner(self) -> Examiner:
        source, limits = self.source, self.session.limits
        rules = Rules(
            self.local or "",
            source.policy,
            source.mirror,
            self.session.clockwork.now(),
            limits.manifest_bytes,
            limits.spec_blob_bytes,
            self.index_path,
            self.records.specfile,
        )
        return Examiner(rules, source.keyring)

    def _local(self, abort: Abort, items: Sequence[Item]) -> None:
        """Look at packages of a directory: many in several processes, few here, their large blobs in threads."""
        examiner = self._examiner()
        if len(items) >= ENOUGH and cores() > 1:
            examine_in_processes(examiner, self.source.keyring, items, abort)
        else:
            with ThreadPoolExecutor(cores()) as pool:
                try:
                    started = []
                    for item in items:
                        if abort.set:
                            raise Aborted
                        started.append(examiner.examine(item, pool))
                    for one in started:
                        if one is not None:
                            one.result()
                except BaseException:
                    pool.shutdown(wait=True, cancel_futures=True)
                    raise
        self.found = examiner.found

    async def _remote(self, examiner: Examiner, number: int, item: Item) -> None:
        path, limits = item[0], self.session.limits
        data = await self.session.document(
            self.source, join(self.source.url, path), limits.manifest_bytes, number + 1
        )
        spec, tarball = examiner.refs(data, path)
        wrong: list[Wrong] = []
        blob = None
        try:
            blob = await self._blob(spec, limits.spec_blob_bytes)
        except CachefetchError as error:
            wrong.append(told(error, spec.path))
        try:
            await self._hash_remote(tarball)
        except CachefetchError as error:
            wrong.append(told(error, tarball.path))
        examiner.conclude_remote(item, spec, tarball, blob, wrong)

    def _report(self, one: Checked) -> None:
        name = self.records.name(one.hash)
        if not name and one.path:
            name = (one.identity or self._named_in(one.path))[0]
        for path, code, message in one.wrong:
            self._problem(one.hash, name if one.record else "index", code, message, path)

    def _identity(self, one: Checked) -> Identity | None:
        """Return (name, version, hash) of a damaged package: the index knows, where the document does not.

        A document in its place is bound to that; of a manifest in another place the index knows better.
        """
        if one.identity is not None and one.identity[2] == one.hash:
            return one.identity
        node = self.records.node(one.hash)
        if node is not None:
            return node.name, node.version, node.hash
        return one.identity

    def _supposed(self, packages: Iterable[Checked]) -> dict[str, Identity]:
        """Return what the file names say of damaged packages that neither index nor their own document tells of."""
        found = {}
        for one in packages:
            identity = self._identity(one)
            if identity is None or identity[2] != one.hash:
                found[one.path] = self._named_in(one.path)
        return found

    def _named_in(self, path: str) -> Identity:
        """Return name, version and hash in the path of a manifest."""
        name, hash_ = path.split("/")[-2], self._hash_in(path)
        stem = path.rpartition("/")[2].removesuffix(self.suffixes[0])
        return name, stem[len(name) + 1 : -len(hash_) - 1], hash_

    # --- layout and leftovers --------------------------------------------------------------------------------------

    async def _layout(self) -> None:
        """Check the file that tells the layout; at a URL it may be absent, as nothing needs it to read."""
        try:
            if refused := refused_layout(await self._document(LAYOUT_PATH)):
                self._problem("", "layout", "bad-format", f"{LAYOUT_PATH} {refused}", LAYOUT_PATH)
        except (NotFoundError, AccessError, FormatError) as error:
            if isinstance(error, FormatError) or await to_thread.run_sync(self._is_published):
                self._problem("", "layout", error.code, error.message, LAYOUT_PATH)

    def _is_published(self) -> bool:
        return self.local is not None and os.path.isdir(os.path.join(self.local, "v3/manifests"))

    def _strays(self) -> None:
        """Report what stands where nothing looks for it."""
        assert self.local is not None
        for path in list_strays(self.local):
            if path.endswith(self.suffixes):
                message = f"{path} is a manifest in a place where nothing looks for it"
                self._problem("", path.rpartition("/")[2], MISPLACED, message, path)
            else:
                self.odd.remark(path, ["this is not a file of a mirror"])

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
        self.notes["unnamed_blobs"] = sum(name not in self.named for name in blob_names(self.local))


def _more(number: int) -> str:
    return f" (and {number - 1} more)" if number > 1 else ""
