"""Sync one destination: inventory, plan, copy, then keys, layout and last the index.

Order of writing: what tells the layout; both blobs of a package, its manifest, its journal row; when all packages
are through: keys, the index blob, the index manifest. So a reader finds a valid mirror at every moment, and a killed
run loses at most the part of a blob that was under way (docs/sync.md).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from anyio import to_thread

from ...errors import CachefetchError, NotFoundError, StoreError
from ...resolver.index.readers.manifest import (
    INDEX_MANIFEST,
    SPEC_MANIFESTS,
    blob_path,
    parse_manifest,
    spec_manifest_path,
)
from ...resolver.index.readers.nodes import specfile_of_database
from ...resolver.index.writer import INDEX_MEDIA_TYPE, index_text, manifest_text, with_closure
from ..events import Finished, Planned
from ..failures import caveats, for_run, texts, unique
from ..model import Caveat, Source
from ..payload import Payload, deliver
from ..quick import deliver_quickly
from ..verify.binding import read_spec_blob
from ..verify.openpgp import Keyring, is_signed, split_cleartext
from ..verify.policy import SignaturePolicy
from .build_cache import BuildCache, nodes_of_spec_file, read_build_cache_keys, write_build_cache_index
from .described import Documents, settled
from .destination import list_manifests
from .inventory import each, gathered, portions, prove_selection, released, split_known, stem_of, unnamed
from .journal import Row
from .keys import Published, read_keys
from .plan import Problem, SyncReport, Terms, make_plan, problem_of
from .space import Space

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from ...resolver.index.readers.manifest import BlobRef
    from ...resolver.index.writer import Lookup
    from ..model import VerifiedPackage, Wanted
    from ..payload import Delivered
    from ..session import Session
    from ..verify.binding import SpecDocument
    from .build_cache import PublishedFiles
    from .destination import Destination
    from .journal import Journal
    from .plan import Job, Listing, SyncPlan


@dataclass(frozen=True, slots=True)
class How:
    """How a sync runs.

    Attributes:
        dry_run: only plan.
        check: hash what is there again, in place of trusting size and journal.
        prune: remove blobs that no manifest names.
        finish: write keys and index at the end; False for a shard worker.
        copy: False copies no package (the last step after shard workers): what is missing is a problem.
        tolerant: that no package can be proven is no error: there is other work, too. The index of before stays when
            there are packages and none of them is right.
    """

    dry_run: bool = False
    check: bool = False
    prune: bool = False
    finish: bool = True
    copy: bool = True
    tolerant: bool = False


class Sync:
    """One run. `session.store` is the destination."""

    def __init__(
        self, session: Session, destination: Destination, journal: Journal, job: Job, how: How
    ) -> None:
        self.session, self.to, self.journal, self.job, self.how = session, destination, journal, job, how
        self.problems: list[Problem] = list(job.missing)
        self.failed: set[str] = set()
        self.caveats: list[Caveat] = []
        self.brought: dict[str, Delivered] = {}
        self.lost: set[str] = set()
        self.damaged: dict[str, Problem] = {}
        self.waiting: tuple[str, ...] = ()
        self.space = Space(destination)
        self.done = {"copied_blobs": 0, "copied_bytes": 0, "packages": 0, "pruned": 0, "network_bytes": 0}

    async def run(self) -> SyncReport:
        """Do it.

        Raises:
            StoreError: the destination is full or cannot be written; what is complete stays complete.
            TrustError, IntegrityError, MirrorError: not one package of the selection could be proven.
        """
        if not self.how.dry_run:
            await to_thread.run_sync(self.to.clear)
        try:
            plan = await self._run()
        except StoreError as error:
            raise self.space.explained(error) from error.__cause__
        self.problems += self.damaged.values()
        status = "partial" if self.problems else "ok"
        self.done["network_bytes"] = self.session.meter.network_bytes
        self.session.emit(Finished(0, self.done["packages"], self.session.meter.network_bytes))
        failures = unique(self.caveats)
        warnings = ((self.journal.problem,) if self.journal.problem else ()) + texts(failures)
        warnings += self._waiting_note() + self.job.notes
        problems = tuple(self.problems)
        return SyncReport(
            status, plan, self.done, problems, warnings, self.how.dry_run, failures, self.waiting
        )

    async def _run(self) -> SyncPlan:
        """Prove, plan and copy; return the plan. What was recorded is written whatever happens."""
        try:
            known, packages, listing = await self._prove()
            if not self.how.copy:
                packages = await to_thread.run_sync(self._brought, packages)
            signers = {row.key for row in known} | {package.key or "" for package in packages}
            published = await self._keys(signers - {""})
            plan = await self._plan(packages, known, published, listing)
            if not self.how.dry_run:
                await to_thread.run_sync(self._require_room, packages, listing.blobs, published.blobs())
                await self._execute(packages, published, listing)
        finally:
            self.journal.flush()
        return plan

    def _require_room(
        self, packages: Iterable[VerifiedPackage], there: Mapping[str, int], small: Mapping[str, int]
    ) -> None:
        """Require room for packages and further blobs, name -> size, beside the blobs that are there.

        Raises:
            StoreError: there is not.
        """
        found = list(packages)
        copy = make_plan(found, (), small, {**there, **self.to.added}, {}, self.to.names).copy
        self.space.require([one for one in found if self.to.names(one)[0][0] in copy], copy)

    def _copied(self, rest: Sequence[Wanted], listing: Listing) -> list[Wanted]:
        """Return what some worker has published; the others are problems."""
        absent = {n: _not_copied(one) for n, one in enumerate(rest) if stem_of(one) not in listing.manifests}
        self._failed(rest, absent)
        return [one for number, one in enumerate(rest) if number not in absent]

    def _brought(self, packages: Sequence[VerifiedPackage]) -> list[VerifiedPackage]:
        """Return the packages whose payload a worker brought whole; the others are problems, and will be taken away."""
        errors: dict[int, CachefetchError] = {}
        for number, package in enumerate(packages):
            found = Payload(self.session, number + 1, package, []).ready()
            if found is None:
                errors[number] = _not_copied(package.wanted)
                self.lost.add(stem_of(package.wanted))
            else:
                self.brought[stem_of(package.wanted)] = found
        self._failed([package.wanted for package in packages], errors)
        return [package for number, package in enumerate(packages) if number not in errors]

    async def _prove(self) -> tuple[list[Row], list[VerifiedPackage], Listing]:
        """Return what is complete, what was proven now, and the files that were there.

        Where the mirrors that describe a package best cannot prove it, the job is made anew as others describe it.
        """
        while True:
            known, rest, listing = await self._inventory()
            found, errors = await prove_selection(
                self.session,
                self.to,
                rest,
                self.job.pins,
                lambda found: self._require_room(found, listing.blobs, {}),  # noqa: B023 -- called before it ends
            )
            other = self.job.otherwise(frozenset(rest[number].hash for number in errors)) if errors else None
            if other is None:
                break
            self.job = other
            self.caveats += [_caveat(rest[number], errors[number]) for number in sorted(errors)]
        if errors and not found and not known and not self.how.tolerant:
            raise for_run([(rest[number], errors[number]) for number in sorted(errors)], len(rest))
        self._failed(rest, errors)
        for number in sorted(found):
            self.caveats += caveats(found[number].failures)
        return known, [found[number] for number in sorted(found)], listing

    async def _inventory(self) -> tuple[list[Row], list[Wanted], Listing]:
        """Return what the journal says is complete, what has to be proven, and the files that are there."""
        self.problems, self.failed = list(self.job.missing), set()
        for one in self.job.wanted:
            self.to.expect(stem_of(one), one)
        listing = await to_thread.run_sync(self.to.listing)
        if self.how.check and self.how.copy:
            self.to.ask_again(stem_of(one) for one in self.job.wanted)
        known, rest = split_known(
            self.job.wanted, self.journal, listing, check=self.how.check, doubtful=self.job.disputed
        )
        return known, rest if self.how.copy else self._copied(rest, listing), listing

    def _failed(self, wanted: Sequence[Wanted], errors: Mapping[int, CachefetchError]) -> None:
        stems = [stem_of(wanted[number]) for number in errors]
        self.failed.update(stem[-32:] for stem in stems)
        if not self.how.dry_run:
            self.journal.drop(stems)
        self.problems += [
            problem_of(wanted[number], errors[number], self.job.needed_by) for number in sorted(errors)
        ]

    async def _keys(self, signers: set[str]) -> Published | PublishedFiles:
        if not self.how.finish:
            return Published({}, None)
        own = Source("the destination", self.to.mirror, SignaturePolicy("none"), Keyring())
        if self.to.layout == "v2":
            in_files = await read_build_cache_keys(self.session, self.job.sources, own)
            self.problems += in_files.problems
            self.caveats += in_files.caveats
            return in_files
        # A converted mirror is unsigned: keys of other layouts sign nothing in it.
        sources = [source for source in self.job.sources if source.layout not in ("v2", "oci")]
        published = await read_keys(self.session, sources, signers, own)
        self.problems += published.problems
        self.caveats += published.caveats
        return published

    async def _plan(
        self,
        packages: Sequence[VerifiedPackage],
        known: Sequence[Row],
        published: Published | PublishedFiles,
        listing: Listing,
    ) -> SyncPlan:
        prune: Mapping[str, int] = {}
        if self.how.prune:
            named = {name for package in packages for name, _ in self.to.names(package)}
            # What the manifests name that are written anew is not named any more.
            stems = {stem_of(package.wanted) for package in packages} | self.lost
            anew = {path for stem, path in listing.manifests.items() if stem in stems}
            anew.update(path for path, _ in published.files())
            prune, damaged = await unnamed(self.to, listing, named | set(published.blobs()), anew)
            if self.how.dry_run:
                self._damaged(damaged)
        plan = make_plan(packages, known, published.blobs(), listing.blobs, prune, self.to.names)
        self.session.emit(Planned(0, len(packages) + len(known), len(known), plan.copy_bytes))
        return plan

    async def _execute(
        self,
        packages: Sequence[VerifiedPackage],
        published: Published | PublishedFiles,
        listing: Listing,
    ) -> None:
        await to_thread.run_sync(self.to.begin)
        await released(self.to)
        for stem in self.lost:
            await to_thread.run_sync(self.to.forget, stem)
        for _, portion in portions(packages):
            errors = await self._bring(portion)
            self._failed([package.wanted for package in portion], errors)
            for number in errors:
                await to_thread.run_sync(self.to.forget, stem_of(portion[number].wanted))
        self.done["copied_blobs"] += len(self.to.added)
        self.done["copied_bytes"] += sum(self.to.added.values())
        if self.how.finish:
            await to_thread.run_sync(self._finish, published, listing)
        if self.how.prune:
            await self._prune()
        if self.how.finish:
            await to_thread.run_sync(self.to.tidy)

    async def _bring(self, packages: Sequence[VerifiedPackage]) -> dict[int, CachefetchError]:
        """Bring payloads, publish manifests, record packages; return the errors by position."""
        here = {number: self.brought.get(stem_of(package.wanted)) for number, package in enumerate(packages)}
        quick = await deliver_quickly(self.session, packages) if self.how.copy else {}
        ready = {number: found for number, found in {**here, **quick}.items() if found is not None}
        async with gathered(self.to):
            rows = await to_thread.run_sync(self._publish_all, ready.values())
        for row, delivered in zip(rows, ready.values(), strict=True):
            self._done(row, delivered)

        async def one(number: int, package: VerifiedPackage) -> None:
            if number not in ready:
                delivered = await deliver(self.session, number + 1, package)
                self._done(await to_thread.run_sync(self._publish, delivered.package), delivered)

        _, errors = await each(packages, one, self.session.limits.blob_connections)
        self.session.met.clear()
        return errors

    def _done(self, row: Row, delivered: Delivered) -> None:
        """Note a package whose manifest is published."""
        self.caveats += delivered.warnings
        if delivered.origin == "network":
            self.done["copied_blobs"] += 1
            self.done["copied_bytes"] += delivered.package.tarball.size
        self.journal.add(row)
        self.done["packages"] += 1

    def _publish_all(self, delivered: Iterable[Delivered]) -> list[Row]:
        return [self._publish(one.package) for one in delivered]

    def _publish(self, delivered: VerifiedPackage) -> Row:
        """Publish the manifest of a package whose blobs are here, and return its row for the journal."""
        package = self.to.adopt(delivered)
        stem = stem_of(package.wanted)
        self.to.publish(stem)
        (tarball, size), (spec, spec_size) = self.to.names(package)
        return Row(stem, tarball, size, spec, spec_size, package.signature, package.key or "")

    def _finish(self, published: Published | PublishedFiles, listing: Listing) -> None:
        for path, data in published.files():
            if self.to.write(path, data) and published.counts(path):
                self.done["copied_blobs"] += 1
                self.done["copied_bytes"] += len(data)
        self.journal.add_all(self.journal.rows.values())
        held = {stem: path for stem, path in listing.manifests.items() if stem[-32:] not in self.failed}
        rows = self.journal.rows.values()
        if isinstance(self.to, BuildCache):
            damaged, waiting = write_build_cache_index(self.to, rows, held, self._lookup(), self._terms())
        else:
            damaged, waiting = write_index(self.to, rows, held, self._lookup(), self._terms())
        self._wait(waiting, listing)
        self._damaged(dict.fromkeys(damaged, "it or what it names is damaged, the index does not list it"))

    def _lookup(self) -> Lookup:
        """Return how the nodes of the index are found."""
        to = self.to
        manifests = {stem[-32:]: path for stem, path in to.listing().manifests.items()}

        def read(path: str) -> Mapping[str, tuple[Mapping[str, Any], int]]:
            return nodes_of_spec_file(to, path) if isinstance(to, BuildCache) else nodes_of_document(to, path)

        return settled(self.job.lookup, self.job.doubted, Documents(manifests, read))

    def _terms(self) -> Terms:
        if self.how.tolerant:
            return Terms(repair=True)
        absent = frozenset(one.hash for one in self.job.missing if one.what == NotFoundError.code)
        return Terms(self.job.awaited | self.failed, absent)

    def _wait(self, hashes: set[str], listing: Listing) -> None:
        """Note which packages the index does not list because of what they need."""
        stems = {stem[-32:]: stem for stem in (*listing.manifests, *self.journal.rows)}
        if not self.job.awaited:  # of a bundle the volumes that are not here are told
            self.waiting = tuple(sorted(stems[hash_] for hash_ in hashes))

    def _waiting_note(self) -> tuple[str, ...]:
        if not self.waiting:
            return ()
        labels = ", ".join(stem[:-25] for stem in self.waiting[:3])
        more = f" and {len(self.waiting) - 3} more" if len(self.waiting) > 3 else ""
        return (f"here, and not in the index until what they need is: {labels}{more}",)

    def _damaged(self, found: Mapping[str, str]) -> None:
        """Note manifests of the destination that are damaged."""
        for path, why in found.items():
            is_spec = path.startswith(f"{SPEC_MANIFESTS}/")
            name = path.split("/")[-2] if is_spec else path.rpartition("/")[2]
            hash_ = path.removesuffix(".spec.manifest.json")[-32:] if is_spec else ""
            prune = "; nothing is pruned" if self.how.prune else ""
            message = (
                f"{path} of the destination: {why}{prune}; run `cachefetch verify --repair`, or remove it"
            )
            self.damaged.setdefault(path, Problem(hash_, name, "damaged", message, (), path))

    async def _prune(self) -> None:
        listing = await to_thread.run_sync(self.to.listing)
        files_to_go, damaged = await unnamed(self.to, listing, ())
        self._damaged(damaged)
        self.journal.pruning(files_to_go.items())
        for path in files_to_go:
            self.done["pruned"] += self.to.remove(path)


def write_index(
    to: Destination,
    rows: Iterable[Row],
    before: Mapping[str, str],
    lookup: Lookup,
    terms: Terms,
) -> tuple[list[str], set[str]]:
    """Write the index of all that the destination holds, blob first.

    Args:
        to: the destination.
        rows: packages that the journal has.
        before: further manifests that are there, ``NAME-VERSION-HASH`` -> path; one that neither journal nor index
            knows counts when its documents are right.
        lookup: the sources' nodes. Of what they do not know the node comes from the index of before, else from the
            package's own spec document.
        terms: what is listed.

    Returns:
        The manifests that are left out as damaged, and the hashes of the packages that wait for others.
    """
    nodes, listed = read_own_index(to)
    manifests = {stem[-32:]: path for stem, path in list_manifests(to.mirror).items()}
    held = {row.hash for row in rows if row.hash in manifests}
    damaged: list[str] = []
    for stem, path in before.items():
        hash_ = stem[-32:]
        if hash_ in held or hash_ in listed:
            held.add(hash_)
        elif found := nodes_of_document(to, path):
            nodes.update(found)
            held.add(hash_)
        else:
            damaged.append(path)
    if manifests and not held and terms.repair:
        return damaged, set()

    def find(hash_: str) -> tuple[Mapping[str, Any], int] | None:
        found = lookup(hash_) or nodes.get(hash_)
        if found is None and hash_ in held and hash_ in manifests:
            nodes.update(nodes_of_document(to, manifests[hash_]))
            found = nodes.get(hash_)
        return found

    closed = with_closure(held, find)
    waiting = terms.waiting(held, listed, closed)
    text = index_text(closed, held - waiting)
    digest = hashlib.sha256(text).hexdigest()
    old = _index_digest(to)
    to.write(blob_path(digest), text)
    to.write(INDEX_MANIFEST, manifest_text(INDEX_MEDIA_TYPE, digest, len(text)))
    if old and old != digest:
        to.remove(blob_path(old))
    return damaged, waiting


def read_own_index(to: Destination) -> tuple[dict[str, tuple[Mapping[str, Any], int]], set[str]]:
    """Return the nodes of the destination's index (DAG hash -> node, specfile) and the hashes that it holds.

    An index that is damaged counts as absent: it is written anew.
    """
    digest = _index_digest(to)
    data = to.read_file(blob_path(digest)) if digest else None
    if data is None or hashlib.sha256(data).hexdigest() != digest:
        return {}, set()
    try:
        database = json.loads(data)["database"]
        specfile = specfile_of_database(database["version"])
        installs: dict[str, Any] = database["installs"]
        nodes = {hash_: (record["spec"], specfile) for hash_, record in installs.items()}
        held = {hash_ for hash_, record in installs.items() if record.get("in_buildcache") is True}
    except (ValueError, KeyError, TypeError, AttributeError, CachefetchError, RecursionError):
        return {}, set()
    return nodes, held


def _index_digest(to: Destination) -> str | None:
    data = to.read_file(INDEX_MANIFEST)
    try:
        return parse_manifest(data, what=INDEX_MANIFEST).index().sha256 if data else None
    except CachefetchError:
        return None


def read_document(to: Destination, path: str) -> tuple[SpecDocument, BlobRef]:
    """Return the spec document of a manifest whose signature does not matter here, and its tarball.

    Raises:
        CachefetchError: manifest or spec document are not right.
    """
    data = to.read_file(path) or b""
    text = split_cleartext(data, what=path).text if is_signed(data) else data
    manifest = parse_manifest(text, what=path)
    ref, tarball = manifest.spec(), manifest.tarball()
    return read_spec_blob(to.read(ref.sha256, ref.size) or b"", ref, what=path), tarball


def place_of(document: SpecDocument) -> str:
    """Return where the manifest of a package belongs. Raises FormatError."""
    root = document.root
    return spec_manifest_path(root.name, root.version, root.hash)


def nodes_of_document(to: Destination, path: str) -> dict[str, tuple[Mapping[str, Any], int]]:
    """Return the nodes of a package's own spec document, {} when manifest or blobs are not right."""
    try:
        document, tarball = read_document(to, path)
    except CachefetchError:
        return {}
    place = to.locate(tarball.sha256)
    if place is None or place.size != tarball.size or place_of(document) != path:
        return {}
    entries: Any = document.raw["spec"]
    raws = entries if isinstance(entries, list) else entries["nodes"]
    return {node.hash: (raw, document.format) for node, raw in zip(document.nodes, raws, strict=True)}


def _caveat(wanted: Wanted, error: CachefetchError) -> Caveat:
    """Return the warning about mirrors that could not prove a package as they describe it."""
    return Caveat(error.code, error.message, " and ".join(source.mirror for source in wanted.sources))


def _not_copied(wanted: Wanted) -> CachefetchError:
    return NotFoundError(
        f"{wanted}: no worker has copied it",
        hint="run the shard that failed again, then --publish",
    )
