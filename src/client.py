"""AsyncClient: the one implementation of all that a client does.

`base` has the steps that need no network. This module runs them in an async loop, and fetches.
"""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager, suppress
from functools import partial

from .answers import (
    with_documents,
    with_missing,
)
from .base import Base, answer_local, is_local, not_both, read_head, resolution_error
from .config import Mirror, is_registry
from .errors import (
    CachefetchError,
    FormatError,
    HostError,
    MissingError,
    NetworkError,
    NoMatchError,
    NotFoundError,
    NoUsableMirrorError,
    PolicyError,
    UsageError,
)
from .pins import Pin, closure_nodes
from .resolver.index.readers import METADATA_LIMIT, SNIFF_SIZE, Answer
from .sources import Pause
from .values import frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
    from types import TracebackType
    from typing import Any, Self, TypeVar

    import anyio

    from .bundling import ExportReport, ImportReport
    from .fetch.bundle.check import BundleReport
    from .fetch.extract import Extraction
    from .fetch.keys import Published
    from .fetch.limits import Limits
    from .fetch.mirror.check import VerifyReport
    from .fetch.mirror.plan import SyncReport
    from .fetch.model import Receipt, Source, VerifiedPackage, Wanted
    from .fetch.network import Network
    from .fetch.plan import FetchPlan
    from .fetch.present import Present
    from .fetch.store.cas import Store
    from .fetch.transports import Transport, Transports
    from .lockfile import Lock, Locked, LockedPolicy
    from .resolver.host.overrides import HostOverrides
    from .resolver.index.readers import Get
    from .resolver.index.writer import Lookup
    from .resolver.model import Host, Node
    from .resolver.resolution import Artifact, Listing, MirrorState, Resolution, Shown
    from .sources import Sources, Steps
    from .syncing import Selection

    T = TypeVar("T")


class AsyncClient(Base):
    """Resolve and fetch, as coroutines.

    Args:
        mirrors: URLs, paths, pages or names of configured mirrors, or `Mirror` values; () for all configured ones.
        keys: files with public keys that are trusted for `mirrors`.
        unsigned: `mirrors` need no signature. Configured mirrors keep their policy unless they are named here.
        offline: open no socket; directories and the local store may be read.
        refresh: ask every mirror, however fresh the local index is.
        stack: keep only candidates of this stack, where the source knows stacks.
        require_fresh: refuse a mirror whose index is an older one again, or could not be checked.
        max_index_age: seconds; refuse a mirror whose index has not changed for longer. None for no limit.
        config: settings; None reads the configuration files and the environment.
        limits: time-outs and sizes of transfers; None for the defaults.
        reporter: gets an event for everything that happens to a transfer.

    Use it as ``async with``. Errors: subclasses of `CachefetchError`, `errors.py` has the tree.
    """

    _transports: Transports | None = None
    _turn: anyio.Lock | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close connections and the local index."""
        self._close_sources()
        transports, self._transports = self._transports, None
        if transports is not None:
            await transports.aclose()

    async def host(self, overrides: HostOverrides | None = None) -> Host:
        """Detect this machine; `overrides` replace single facts."""
        from anyio import to_thread

        return await to_thread.run_sync(self._detect, overrides)

    async def resolve(
        self,
        *specs: str,
        host: Host | None = None,
        unify: bool = True,
        requirements: Sequence[str] = (),
        prereleases: bool = False,
        others: Sequence[Host] = (),
        full: bool = True,
    ) -> Resolution:
        """Choose the best binary for each spec.

        Args:
            specs: as typed for Spack, ``hdf5@1.14+mpi %gcc``; or ``/hash``; or a Python requirement,
                ``multidict>=6,<7``.
            host: machine that the binaries must run on; None for this one.
            unify: choose so that no package is needed in two builds, or report a conflict.
            requirements: Python requirements, such as the lines of a requirements file.
            prereleases: requirements admit pre-releases that they do not mention.
            others: further hosts on which the same binaries must run; `host` is then the first of them.
            full: say all that explains the answer: the value of every key, and what differs in the runners-up.

        Returns:
            The answer; look at `status`. Nothing fitting is an answer, not an exception.

        Raises:
            SpecSyntaxError, NoUsableMirrorError, StoreError.
        """
        return await self._alone(
            lambda: self._noted_steps(
                self._resolve_steps(specs, host, unify, requirements, prereleases, others, full)
            )
        )

    async def lock(self, resolution: Resolution) -> bytes:
        """Return the lock file for an answer: its choices with the digests of all manifests, which are proven first.

        Raises:
            ResolutionError: the answer is not ok.
            IntegrityError, TrustError, MirrorError, StoreError: see `errors.py`.
        """
        from .lockfile import write

        answer, packages = await self._locked_packages(resolution)
        sources = await self._alone(self._open_steps)
        return write(answer, packages, _policies_of(sources.deliver))

    async def resolve_locked(self, lock: Lock, *, host: Host | None = None) -> Resolution:
        """Return the answer that a lock file holds, or refuse.

        The locked hashes must still fit the host and be in the mirrors (else the answer's status says so), and every
        manifest must promise the locked blobs.

        Raises:
            LockChangedError: a blob or the closure is not the locked one.
            PolicyError: a mirror's signature policy is weaker than the locked one.
        """
        from .lockfile import made_elsewhere
        from .values import changed

        self._hold_policies(lock.policies)
        answer = await self._alone(
            lambda: self._resolve_steps(tuple(lock.roots), host, False, (), False, pinned=lock.roots)
        )
        if answer.status != "ok":
            return answer
        answer, packages = await self._locked_packages(answer)
        _refuse(lock, packages)
        if note := made_elsewhere(lock, answer.host):
            first, *others = answer.roots
            answer = changed(answer, roots=(changed(first, notes=(*first.notes, note)), *others))
        return answer

    async def fetch_locked(
        self, lock: Lock, *, host: Host | None = None, to: str | None = None, adopt: str | None = None
    ) -> Receipt:
        """Fetch and verify exactly what a lock file names; no index is read.

        Args:
            lock: from `Lock.read`.
            host: the machine that the binaries must run on; None for this one.
            to, adopt: as for `fetch`.

        Raises:
            HostError: the host may not be able to run what was locked.
            LockChangedError: a mirror promises other blobs than the locked ones; nothing is fetched.
            PolicyError: a mirror's signature policy is weaker than the locked one.
            IntegrityError, TrustError, MirrorError, StoreError: see `errors.py`.
        """
        from anyio import to_thread

        from .fetch.execute import fetch_items

        facts = host if host is not None else await self.host()
        here = None if adopt is not None else await to_thread.run_sync(self._locked_here, lock, facts, to)
        if here is not None:
            return here
        _require_directory(to)
        _require_adoptable(adopt)
        engine = self._engine()
        wanted = await self._locked_wanted(lock, facts, engine)
        receipt = await fetch_items(wanted, to=to, adopt=adopt, **engine)
        return self._with_lock_note(receipt, lock, facts)

    async def plan_locked(self, lock: Lock, *, host: Host | None = None) -> FetchPlan:
        """Return what `fetch_locked` would get and reuse; arguments and errors as there."""
        from .fetch.execute import plan_items

        facts, engine = host if host is not None else await self.host(), self._engine()
        return await plan_items(await self._locked_wanted(lock, facts, engine), **engine)

    async def _locked_wanted(self, lock: Lock, facts: Host, engine: dict[str, Any]) -> tuple[Wanted, ...]:
        """Return what a lock file names, once its manifests are proven to promise the locked blobs."""
        self._require_lock(lock, facts)
        wanted, packages = await self._named([(p.name, p.version, p.hash) for p in lock.packages], engine)
        _refuse(lock, tuple(map(_locked, packages)))
        return wanted

    def _require_lock(self, lock: Lock, facts: Host) -> None:
        """Refuse weaker policies than those of a lock file, and a host that may not run what it names."""
        from .lockfile import host_changes

        self._hold_policies(lock.policies)
        if found := host_changes(lock, facts):
            raise HostError(
                f"the lock file is for another host: {'; '.join(found)}",
                hint="resolve again for this host, or name the host that it is for with --host FILE",
            )

    def _with_lock_note(self, receipt: Receipt, lock: Lock, facts: Host) -> Receipt:
        from .lockfile import made_elsewhere

        note = made_elsewhere(lock, facts)
        return receipt.with_warnings("other-host", (note,)) if note else receipt

    def _locked_here(self, lock: Lock, facts: Host, to: str | None) -> Receipt | None:
        """Refuse what a lock file does not allow; return the receipt when all of it is present. Opens no network."""
        from .lockfile import Locked

        self._require_lock(lock, facts)
        _require_directory(to)

        def check(here: Sequence[Present]) -> None:
            pairs = ((one, one.wanted) for one in here)
            found = (
                Locked(w.name, w.version, w.hash, one.sha256, one.size, one.spec_sha256, one.spec_size)
                for one, w in pairs
            )
            _refuse(lock, tuple(found))

        wanted = self._wanted_by_name([(p.name, p.version, p.hash) for p in lock.packages])
        receipt = self._receipt_if_present(wanted, to, check)
        return receipt and self._with_lock_note(receipt, lock, facts)

    def _chosen_here(
        self, answer: Resolution, sources: Sources, deps: bool, to: str | None
    ) -> Receipt | None:
        """Return the receipt when all that an answer chose is present. Opens no network."""
        _require_directory(to)
        if answer.status != "ok" or (deps and not all(root.closure_known for root in answer.roots)):
            return None
        found = self._receipt_if_present(self._wanted_of(answer, sources, self._delivery(sources), deps), to)
        return found and self._with_caveats(found)

    def _pinned_here(self, pins: tuple[Pin, ...], to: str | None) -> Receipt | None:
        """Return the receipt when the pinned packages are present. Opens no network."""
        _require_directory(to)
        wanted = self._wanted_by_name([(pin.name, pin.version, pin.hash) for pin in pins])
        found = self._receipt_if_present(wanted, to)
        return found and self._with_caveats(found)

    def _receipt_if_present(
        self,
        wanted: tuple[Wanted, ...],
        to: str | None,
        check: Callable[[Sequence[Present]], None] = lambda _: None,
    ) -> Receipt | None:
        from .fetch.events import Reporter
        from .fetch.present import look, receipt

        store = self._store()
        found = look(store, wanted)
        here = [one for one in found if one is not None]
        if len(here) < len(found):
            return None
        check(here)
        return receipt(store, here, to, self._reporter or Reporter())

    def _hold_policies(self, locked: Sequence[LockedPolicy]) -> None:
        """Refuse mirrors that would be trusted more easily than when the lock was made."""
        from .lockfile import weaker_than

        if found := weaker_than(locked, _policies_of(m for m in self.mirrors() if not _is_list(m))):
            raise PolicyError(
                f"the lock file was made with stricter signature policies: {'; '.join(found)}",
                hint="use the policies of the lock, or make it again with the policies of today",
                context={"mirrors": list(found)},
            )

    async def _locked_packages(self, answer: Resolution) -> tuple[Resolution, tuple[Locked, ...]]:
        """Prove the manifests of the closure; return the answer with a known closure, and the digests."""
        if answer.status != "ok":
            raise resolution_error(answer)
        from .fetch.execute import prove_items

        sources = await self._alone(self._open_steps)
        delivery = self._delivery(sources)
        engine = self._engine()
        if not all(root.closure_known for root in answer.roots):
            answer, nodes = await self._learn_closure(answer, sources, delivery, engine)
        else:
            nodes = ()
        known = {node.hash: node for node in nodes}
        wanted = [_wanted(artifact, sources, delivery, known) for artifact in answer.closure]
        return answer, tuple(map(_locked, await prove_items(wanted, **engine)))

    async def list(
        self, spec: str | None = None, *, externals: bool = False, host: Host | None = None
    ) -> Listing:
        """Return what the mirrors hold.

        Args:
            spec: only specs that satisfy this constraint, which may be anonymous; None for all.
            externals: also nodes that the builds took from their machines, which no mirror holds.
            host: say of each binary why it cannot run on this machine (`Listing.unusable`).

        Raises:
            SpecSyntaxError, NoUsableMirrorError, StoreError.
        """
        return await self._alone(lambda: self._list_steps(spec, externals, host))

    async def show(self, spec: str, *, host: Host | None = None) -> Shown:
        """Return all that is known of one binary: its node, its closure, and where it can be had.

        Args:
            spec: what names exactly one binary, usually ``/hash``.
            host: machine that `usable` is said for; None for this one.

        Raises:
            UsageError: more than one binary satisfies `spec`, or it names several; NoMatchError: none does.
            SpecSyntaxError, NoUsableMirrorError, StoreError.
        """
        return await self._alone(lambda: self._show_steps(spec, host))

    async def update(self) -> tuple[MirrorState, ...]:
        """Read the mirrors, as far as this client has not, and return the state of each."""
        return (await self._alone(self._open_steps)).states

    async def _alone(self, work: Callable[[], Steps[T]]) -> T:
        """Run a step function; of several tasks the first one reads the mirrors, and the others wait for it."""
        if self._sources is not None:
            return await self._drive(self._healed(work))
        import anyio

        if self._turn is None:
            self._turn = anyio.Lock()
        async with self._turn:
            return await self._drive(self._healed(work))

    async def published_keys(self) -> dict[str, tuple[Published, ...]]:
        """Return the public keys that each mirror publishes, by its name. Nothing is trusted by that.

        Raises:
            UsageError: no mirror is given or configured.
            NotFoundError, IntegrityError, MirrorError: a mirror has no keys, or they cannot be read.
        """
        return await self._drive(self._key_steps())

    async def fetch(
        self,
        *specs: str,
        resolution: Resolution | None = None,
        host: Host | None = None,
        to: str | None = None,
        adopt: str | None = None,
        deps: bool = True,
        unify: bool = True,
        requirements: Sequence[str] = (),
        prereleases: bool = False,
    ) -> Receipt:
        """Fetch and verify the chosen binaries with their link and run closure.

        Args:
            specs: what to resolve first; leave out when `resolution` is given. When all are ``NAME@=VERSION/HASH``
                with full hashes, nothing is resolved and no index is read.
            resolution: an answer from `resolve` of this client.
            host: as for `resolve`.
            to: directory that gets ``NAME-VERSION-HASH.spack`` for every package; None leaves them in the store.
            adopt: directory with payloads that other tools fetched by a plan; they are verified and taken over.
                It must exist.
            deps: False fetches the roots alone.
            unify, requirements, prereleases: as for `resolve`.

        Raises:
            UsageError: `specs` or `requirements`, and a `resolution` too.
            ResolutionError: nothing fits, or the closure is not complete; `.resolution` has the reasons.
            IntegrityError, TrustError, MirrorError, StoreError: see `errors.py`.
        """
        from .fetch.execute import fetch_items

        _require_directory(to)
        _require_adoptable(adopt)
        engine = self._engine()
        ask = partial(
            self.resolve, host=host, unify=unify, requirements=requirements, prereleases=prereleases
        )
        request = await self._request(await self._asked(specs, requirements, resolution, ask), deps, engine)
        with request.missing_explained():
            receipt = await fetch_items(request.wanted, to=to, adopt=adopt, **engine)
        return self._with_caveats(receipt)

    async def plan(
        self,
        *specs: str,
        resolution: Resolution | None = None,
        host: Host | None = None,
        deps: bool = True,
        unify: bool = True,
        requirements: Sequence[str] = (),
        prereleases: bool = False,
    ) -> FetchPlan:
        """Return what `fetch` would get and reuse, with every manifest verified; arguments and errors as there."""
        from .fetch.execute import plan_items

        engine = self._engine()
        ask = partial(
            self.resolve, host=host, unify=unify, requirements=requirements, prereleases=prereleases
        )
        request = await self._request(await self._asked(specs, requirements, resolution, ask), deps, engine)
        with request.missing_explained():
            return await plan_items(request.wanted, **engine)

    async def _asked(
        self,
        specs: tuple[str, ...],
        requirements: Sequence[str],
        resolution: Resolution | None,
        resolve: Callable[..., Awaitable[Resolution]],
    ) -> Resolution | tuple[Pin, ...]:
        """Return what a fetch starts from: the given answer, the pins that the specs are, or a new answer."""
        if resolution is not None:
            not_both(specs, requirements)
            return resolution
        pins = () if requirements else self.pins(*specs)
        return pins or await resolve(*specs)

    async def _request(
        self, asked: Resolution | tuple[Pin, ...], deps: bool, engine: dict[str, Any]
    ) -> _Request:
        """Return what to fetch: from the names alone where they say enough, else from a resolution."""
        if isinstance(asked, tuple):
            return await self._pinned(asked, deps, engine)
        answer = asked
        if answer.status != "ok" and (deps or answer.status != "incomplete"):
            raise resolution_error(answer)
        sources = await self._alone(lambda: self._behind(answer))
        delivery = self._delivery(sources)
        nodes: Sequence[Node] = [n for a in answer.closure if (n := sources.specs.get(a.hash))]
        learned: Sequence[Node] = ()
        if deps and not all(root.closure_known for root in answer.roots):
            answer, learned = await self._learn_closure(answer, sources, delivery, engine)
        wanted = self._wanted_of(answer, sources, delivery, deps, {node.hash: node for node in learned})
        return _Request(wanted, answer, tuple(learned or nodes))

    def _wanted_of(
        self,
        answer: Resolution,
        sources: Sources,
        delivery: dict[str, Source],
        deps: bool,
        learned: Mapping[str, Node] | None = None,
    ) -> tuple[Wanted, ...]:
        """Return what to fetch for an answer: its closure, or the roots alone."""
        artifacts = answer.closure if deps else [root.chosen for root in answer.roots if root.chosen]
        return tuple(_wanted(artifact, sources, delivery, learned) for artifact in artifacts)

    async def extract(
        self, spec: str, to: str, *, host: Host | None = None, portable: bool = False
    ) -> Extraction:
        """Fetch and verify one package, without its dependencies, and unpack it into the new directory `to`.

        Args:
            spec: as for `resolve`; or ``/hash``, which is taken for whatever host it was built.
            to: must not exist, or be empty. It gets what the package's prefix held.
            host: as for `resolve`.
            portable: refuse names that differ only in case or Unicode form.

        Raises:
            ResolutionError, TrustError, MirrorError, StoreError: as for `fetch`.
            ArchiveError: the package is damaged or would write elsewhere; nothing is left of it.
            UsageError: `to` exists; or the hash fits no binary, or several.
        """
        from .fetch.execute import fetch_items
        from .fetch.extract import Extraction, extract_tarball, require_absent
        from .fetch.transports.threads import run_abortable

        target = require_absent(to)
        artifact = await self._drive(self._artifact_steps(spec, host))
        sources = await self._drive(self._open_steps())
        delivery = self._delivery(sources)
        wanted = _wanted(artifact, sources, delivery)
        with _splice_explained(wanted):
            receipt = await fetch_items([wanted], **self._engine())
        receipt = self._with_caveats(receipt)
        item = receipt.items[0]
        unpack = partial(
            extract_tarball, item.path, target, sha256=item.sha256, size=item.size, portable=portable
        )
        contents = await run_abortable(lambda abort: unpack(check=abort.check))
        return Extraction(target, item, contents, receipt.network_bytes, receipt.warnings)

    async def _pinned(self, pins: tuple[Pin, ...], deps: bool, engine: dict[str, Any]) -> _Request:
        """Return the pinned packages and, from their verified spec documents, their closure."""
        roots, proven = await self._named([(pin.name, pin.version, pin.hash) for pin in pins], engine)
        if not deps:
            return _Request(roots, None, ())
        documents = [package.document.nodes for package in proven]
        known = {node.hash: node for nodes in documents for node in nodes}
        nodes = closure_nodes(documents)
        mirrors = roots[0].sources
        wanted = (_wanted_node(node.name, node.version, node.hash, mirrors, known.get) for node in nodes)
        return _Request(tuple(wanted), None, nodes)

    async def _named(
        self, names: Sequence[tuple[str, str, str]], engine: dict[str, Any]
    ) -> tuple[tuple[Wanted, ...], tuple[VerifiedPackage, ...]]:
        """Prove packages that are named in full, at whatever mirror has them.

        No index is read, but where nobody has them: there may be a mirror of layout 2, where a package's file names
        are made of more than name, version and hash; or a mirror may have the hash under another name.

        Raises:
            NoMatchError: a mirror has one of the hashes, as another version or package.
            MissingError: no mirror has one of them.
        """
        from .fetch.execute import prove_items

        wanted = self._wanted_by_name(names)
        mirrors = wanted[0].sources if wanted else ()
        try:
            return wanted, await prove_items(wanted, **engine)
        except MissingError as error:
            if all(source.layout == "oci" for source in mirrors):
                raise
            try:
                sources = await self._alone(self._open_steps)
            except NoUsableMirrorError:
                raise error from None
            if other := _other_names(names, sources):
                raise other from error
            if "v2" not in sources.layouts().values():
                raise
        mirrors = tuple(self._delivery(sources).values())
        wanted = tuple(_wanted_node(*name, mirrors, sources.specs.get) for name in names)
        return wanted, await prove_items(wanted, **engine)

    def _wanted_by_name(self, names: Sequence[tuple[str, str, str]]) -> tuple[Wanted, ...]:
        """Return what to fetch for packages that are named in full, at whatever mirror has them."""
        from .fetch.model import Wanted

        deliver = tuple(m for m in self.mirrors() if not _is_list(m))
        mirrors = tuple(self._sources_of(deliver).values())
        return tuple(Wanted(*name, mirrors) for name in names)

    async def _learn_closure(
        self, answer: Resolution, sources: Sources, delivery: dict[str, Source], engine: dict[str, Any]
    ) -> tuple[Resolution, Sequence[Node]]:
        """Return the answer with the closure that the verified spec blobs of a page's choices tell, and its nodes.

        Raises:
            ResolutionError: the mirror does not have a chosen hash (exit 4).
        """
        from .fetch.execute import fetch_metadata

        documents = []
        for root in answer.roots:
            assert root.chosen
            try:
                package = await fetch_metadata(_wanted(root.chosen, sources, delivery), **engine)
            except NotFoundError as error:
                lacking = with_missing(answer, [(root.chosen.name, root.chosen.hash)], [])
                raise resolution_error(lacking, error) from error
            documents.append(package.document.nodes)
        nodes = [node for document in documents for node in document]
        return with_documents(answer, documents, tuple(delivery)), nodes

    async def sync(
        self, selection: Selection, to: str, *, shard: tuple[int, int] | None = None, **how: bool
    ) -> SyncReport:
        """Copy binaries with their closure into a mirror directory that stock Spack reads.

        Args:
            selection: which; see `Selection`.
            to: the directory, made when missing.
            shard: (I, N): copy only the part of worker I of N, and leave keys and index to a later run.
            how: ``dry_run`` plans only, ``check`` hashes what is there again, ``prune`` removes blobs that no manifest
                names, ``publish`` copies nothing and writes keys and index, ``wait`` waits for another sync.

        Returns:
            The report; look at `status`. Packages that could not be copied are problems, not an exception.

        Raises:
            SpecSyntaxError, UsageError: the selection, or a destination of another layout.
            NoUsableMirrorError, StoreError; TrustError, IntegrityError, MirrorError: nothing could be proven.
        """
        return await self._sync(selection, to, shard=shard, **how)

    async def _sync(self, selection: Selection, to: str, **how: Any) -> SyncReport:
        from dataclasses import replace

        from . import syncing

        selection.check()
        for policies in selection.policies:
            self._hold_policies(policies)
        o = self.options
        if self._sources is None:  # asked afresh, once, however young the local index is
            self._sources = await self._alone(
                lambda: self._judged_steps(self.mirrors(), refresh=not o.offline)
            )
        if self._sources.pages:
            selection, how["adjust"] = syncing.through_lists(selection, self._sources, o.policy)
            lists, mirrors = self._sources, self._sources.deliver
            self._sources_of(mirrors)  # says what to do when there is none
            self._sources = await self._alone(lambda: self._judged_steps(mirrors, refresh=not o.offline))
            lists.specs.close()
        delivery = self._delivery(self._sources)
        report = await syncing.sync(selection, to, self._sources, delivery, o.policy, self._engine(), **how)
        return replace(report, warnings=(*report.warnings, *self._warnings()))

    async def bundle_export(
        self,
        selection: Selection,
        to: str,
        *,
        volume_size: int | None = None,
        since: str = "",
        sign_key: str = "",
        staging: str = "",
        convert: bool = False,
    ) -> ExportReport:
        """Write a bundle for removable media.

        Args:
            selection: as for `sync`. All of one mirror directory is packed as it is; anything else is synced into
                `staging` first.
            to: file that ends in ``.bundle``, or directory that gets one.
            volume_size: most bytes of a volume; None for a single volume.
            since: path of a receipt of `bundle_import`: only what its mirror lacks is written.
            sign_key: path of a secret OpenPGP key that signs the bundle, or "".
            staging: directory that is kept for the next export; "" for one beside `to` that is removed.
            convert: pack packages of layout 2 too, as unsigned ones of layout 3, which a bundle holds.

        Raises:
            UsageError, FormatError, ConfigError: an argument cannot be used.
            CachefetchError: with the code "no-candidate", no binary of the mirrors satisfies the selection.
            StoreError, DigestError, and what `sync` raises.
        """
        from anyio import to_thread

        from . import bundling

        pack = partial(
            bundling.export_directory, to=to, volume_size=volume_size, since=since, sign_key=sign_key
        )
        mirrors = self.mirrors()
        whole = selection.is_everything() and len(mirrors) == 1
        if whole and not staging and bundling.is_mirror_directory(mirrors[0].location):
            await self._alone(lambda: self._freshness_steps(mirrors[0]))
            return await to_thread.run_sync(partial(pack, mirrors[0].location, warnings=self._warnings()))
        async with bundling.staging_directory(staging, to) as place:
            report = await self._sync(selection, place, convert=convert, carried=True)
            if report.status == "no-candidate":
                message = "; ".join(problem.message for problem in report.problems)
                error = CachefetchError(message, hint="`cachefetch list` shows what the mirrors hold")
                error.code, error.exit_code = "no-candidate", 3
                raise error
            return await to_thread.run_sync(
                partial(pack, place, problems=report.problems, warnings=report.warnings)
            )

    async def bundle_import(self, to: str, *, receipt: str = "") -> tuple[ImportReport, ...]:
        """Bring the bundles that are this client's mirrors into a mirror directory, those that others continue first.

        Volumes may come in any order, in several calls, and twice. Where a file is named it alone is taken, of a
        directory every volume. What is lost is a problem of the report. A package is listed in the index once all
        that it needs has come.

        Args:
            to: the directory, made when missing.
            receipt: file that gets the receipt, besides ``TO/.cachefetch/receipt.json``.

        Raises:
            NotFoundError, FormatError: a location holds no bundle.
            TrustError: the bundle is signed, and not by a trusted key.
            UsageError, StoreError, and what `sync` raises.
        """
        from anyio import to_thread

        from . import bundling, syncing

        everything = syncing.Selection(everything=True)
        to = syncing.absolute_directory(to)
        found, broken = await to_thread.run_sync(bundling.to_import, self.mirrors())
        reports = []
        for number, (mirror, bundle) in enumerate(found, 1):
            inner = AsyncClient(
                [mirror], config=self.options.config, limits=self._limits, reporter=self._reporter
            )
            async with inner:
                reports.append(
                    await bundling.import_bundle(
                        bundle,
                        to,
                        inner._policies((mirror,))[mirror.name],
                        partial(inner._sync, everything),
                        receipt=receipt,
                        further=broken if number == len(found) else (),
                    )
                )
        return tuple(reports)

    async def bundle_verify(self) -> tuple[BundleReport, ...]:
        """Audit the bundles that are this client's mirrors: volumes, signature, digests, and the bytes around them.

        Of a file the volumes beside it are audited too. Files that should be volumes and cannot be read are in a
        report of their own, whose `id` is "".

        Raises:
            NotFoundError, FormatError: a location holds nothing of a bundle.
            TrustError: a bundle is signed, and not by a trusted key.
        """
        from anyio import to_thread

        from . import bundling

        found, unreadable = await to_thread.run_sync(bundling.bundles_in, self.mirrors())
        audits = [(bundle, self._policies((mirror,))[mirror.name]) for mirror, bundle in found]
        return await to_thread.run_sync(bundling.verify_bundles, audits, unreadable)

    async def verify(self, *, repair: bool = False) -> VerifyReport:
        """Audit the first mirror of this client: manifests, signatures, blobs, bindings, keys, index, closure.

        Args:
            repair: fetch what is damaged again from the other mirrors; the first one must be a directory.

        Raises:
            MirrorError: it is no mirror. UsageError, StoreError: it cannot be repaired.
            FreshnessError: its index is not as fresh as this client asks.
        """
        from dataclasses import replace

        from . import syncing

        if not self.mirrors():
            raise UsageError("no mirror to verify is named", hint="cachefetch verify DIRECTORY|URL")
        delivery = self._policies(self.mirrors())
        await self._alone(lambda: self._freshness_steps(self.mirrors()[0]))
        with ExitStack() as opened:
            report = await syncing.verify(
                [*delivery.values()],
                self._engine(),
                repair=repair,
                open_others=lambda: self._lookup_in_others(opened),
            )
        return replace(report, warnings=(*self._warnings(), *report.warnings))

    async def _lookup_in_others(self, opened: ExitStack) -> Lookup:
        """Return how nodes are found in the indexes of all mirrors but the first, until `opened` closes them."""
        others = self.mirrors()[1:]
        try:
            sources = await self._alone(lambda: self._judged_steps(others, refresh=not self.options.offline))
        except NoUsableMirrorError:  # no index: its packages are found by name
            return lambda _: None
        opened.callback(sources.specs.close)
        return sources.specs.raw

    def _delivery(self, sources: Sources) -> dict[str, Source]:
        """Return the mirrors that deliver what `sources` list, with their policy and keys, by name."""
        return self._sources_of(sources.deliver, sources.layouts())

    def _sources_of(
        self, mirrors: Sequence[Mirror], layouts: Mapping[str, str] | None = None
    ) -> dict[str, Source]:
        """Return mirrors as the fetch engine takes them, with their policy and keys, by name."""
        if not mirrors:
            raise UsageError(
                "a cache page, lock file or bare index lists binaries but does not hold them",
                hint="name the mirror that delivers them too: -m PAGE.md -m https://MIRROR",
            )
        return self._policies(mirrors, layouts)

    def _policies(
        self, mirrors: Sequence[Mirror], layouts: Mapping[str, str] | None = None
    ) -> dict[str, Source]:
        """Return mirrors with their signature policy and the keys that are trusted for them, by name.

        Raises:
            ConfigError: signatures are required of a registry, where there are none.
        """
        from .fetch.keys import load_files, load_trusted
        from .fetch.model import Source
        from .fetch.verify.policy import SignaturePolicy

        trusted = load_trusted(os.path.join(self.options.config.config_dir, "keys"))
        self._key_problems = trusted.problems
        return {
            m.name: Source(
                m.name,
                m.location,
                SignaturePolicy(m.signed, frozenset(m.pinned)),
                trusted | load_files(m.key_files) if m.key_files else trusted,
                _layout(m, layouts or {}),
            )
            for m in mirrors
        }

    def _engine(self) -> dict[str, Any]:
        """Return what the calls of the fetch engine need; one meter counts the bytes of one command."""
        from .fetch.events import Reporter
        from .fetch.limits import DEFAULT_LIMITS
        from .fetch.model import Meter
        from .fetch.transports import Transports

        limits = self._limits or DEFAULT_LIMITS
        if self._transports is None:
            self._transports = Transports(limits, offline=self.options.offline, network=self._network())
        return {
            "store": self._store(),
            "limits": limits,
            "transports": self._transports,
            "reporter": self._reporter or Reporter(),
            "offline": self.options.offline,
            "meter": Meter(),
        }

    def _store(self) -> Store:
        from .fetch.store.cas import Store

        config = self.options.config
        return Store(config.store_dir, site=config.site, own=config.notes_dir)

    def network_problems(self) -> tuple[str, ...]:
        """Say what of the certificates, files and variables that the configuration names cannot be used."""
        return self._network().problems()

    def _network(self) -> Network:
        """Return the certificates and credentials of the configuration."""
        from .fetch.network import Credential, Network

        settings = dict(self.options.config.network)
        found = settings.pop("credentials", {})
        credentials = {host: Credential(**names) for host, names in found.items()}
        return Network(**settings, credentials=credentials)

    async def _drive(self, steps: Steps[T]) -> T:
        """Run a step function."""
        try:
            batch = next(steps)
            while True:
                if isinstance(batch, Pause):
                    import anyio

                    await anyio.sleep(batch.seconds)
                    batch = steps.send(())
                else:
                    batch = steps.send(await self._answers(batch))
        except StopIteration as stop:
            result: T = stop.value
            return result

    async def _answers(self, batch: tuple[Get, ...]) -> tuple[Answer, ...]:
        """Answer a batch of requests side by side."""
        import anyio

        answers: list[Answer] = [Answer(0)] * len(batch)

        async def one(number: int, get: Get) -> None:
            if is_local(get.url):
                answers[number] = await anyio.to_thread.run_sync(answer_local, get)
            else:
                answers[number] = await self._ask(get)

        async with anyio.create_task_group() as group:
            for number, get in enumerate(batch):
                group.start_soon(one, number, get)
        return tuple(answers)

    async def _ask(self, get: Get) -> Answer:
        """Answer one request over the network, with retries."""
        from .fetch.retry import Clockwork, attempts

        engine = self._engine()
        try:
            transport = engine["transports"].for_url(get.url)
            async for attempt in attempts(engine["limits"], Clockwork(), patient=False):
                with attempt:
                    return (
                        await self._spool(transport, get)
                        if get.spool
                        else await _read(transport, get, engine["limits"])
                    )
        except CachefetchError as error:
            return Answer(0, error=error)
        raise AssertionError("the loop of attempts returns or raises")

    async def _spool(self, transport: Transport, get: Get) -> Answer:
        """Stream a large document to disk; what is left of a failed try is removed."""
        from .fetch.spool import Spool
        from .fetch.transports import redact

        if get.etag and (await self._unchanged(transport, get)):
            return Answer(304, etag=get.etag)
        path = self._indexes().spool_path()
        sink = Spool(path, get.url, get.limit)
        try:
            await transport.receive(get.url, sink)
            if sink.expected is not None and sink.size != sink.expected:
                raise NetworkError(f"{redact(get.url)} ended after {sink.size} of {sink.expected} bytes")
        except BaseException:
            sink.close()
            if os.access(path, os.F_OK):
                os.unlink(path)
            raise
        if get.sniff and get.sniff not in read_head(path, SNIFF_SIZE):
            text = read_head(path, METADATA_LIMIT)
            os.unlink(path)
            return Answer(200, body=text, etag=sink.etag)
        return Answer(200, path=path, etag=sink.etag)

    async def _unchanged(self, transport: Transport, get: Get) -> bool:
        """Ask whether a large document still has its ETag; the first bytes of another one end the question."""
        try:
            return (await transport.get(get.url, etag=get.etag, limit=0)).status == 304
        except FormatError:  # longer than nothing: it is there, and another one
            return False


def _require_directory(path: str | None) -> None:
    if path is not None and os.path.exists(path) and not os.path.isdir(path):
        raise UsageError(
            f"{path} is not a directory", hint="the packages go into a directory, which is made when missing"
        )


def _require_adoptable(path: str | None) -> None:
    if path is not None and not os.path.isdir(path):
        raise UsageError(
            f"there is no directory {path} to take payloads from",
            hint="name the directory into which the other tool fetched what `fetch --plan` wrote down",
        )


def _other_names(names: Sequence[tuple[str, str, str]], sources: Sources) -> NoMatchError | None:
    """Return the error for hashes that the mirrors have under another name or version, None where there is none."""
    for name, version, hash_ in names:
        record = sources.specs.record(hash_)
        if (
            record is None
            or not record.has_binary
            or (record.node.name, record.node.version) == (name, version)
        ):
            continue
        held = f"{record.node.name}@{record.node.version}"
        return NoMatchError(
            f"{name}@{version}/{hash_[:7]}: {', '.join(record.mirrors)} has {held} under this hash",
            hint=f"cachefetch fetch {record.node.name}@={record.node.version}/{hash_}",
            context={"want": {"name": name, "version": version, "hash": hash_}, "have": held},
        )
    return None


@frozen
class _Request:
    """What to fetch; the answer it comes from (None when hashes were given), and the nodes of its closure."""

    wanted: tuple[Wanted, ...]
    answer: Resolution | None
    nodes: tuple[Node, ...]

    @contextmanager
    def missing_explained(self) -> Iterator[None]:
        """Turn "no mirror has it" into the answer's own error, which names who needs what (exit 4)."""
        try:
            yield
        except MissingError as error:
            if self.answer is None:
                raise
            lacking = with_missing(self.answer, error.missing, self.nodes)
            raise resolution_error(lacking, error) from error


@contextmanager
def _splice_explained(wanted: Wanted) -> Iterator[None]:
    """Say of a spliced package that no mirror has, although an index lists it, what there is instead."""
    try:
        yield
    except MissingError as error:
        if wanted.node is None or not wanted.node.build_spec:
            raise
        from .resolver.explain import spliced_text

        build = wanted.node.build_spec
        raise MissingError(
            f"{error.message}; {wanted.name}/{wanted.hash[:7]} is {spliced_text(build)}",
            error.missing,
            hint=f"`cachefetch extract /{build} DIR`",
            context=error.context,
        ) from error


async def _read(transport: Transport, get: Get, limits: Limits) -> Answer:
    """Read a document whole; it must be there in time, however its bytes drip. What may be large has longer."""
    from anyio import fail_after

    from .fetch.transports.status import broken

    try:
        with fail_after(limits.document_s if get.limit <= METADATA_LIMIT else limits.page_s):
            reply = await transport.get(get.url, etag=get.etag, limit=get.limit)
    except TimeoutError:
        raise broken(get.url, "not whole in time") from None
    return Answer(reply.status, body=reply.body, etag=reply.etag)


def _wanted(
    artifact: Artifact,
    sources: Sources,
    delivery: dict[str, Source],
    learned: Mapping[str, Node] | None = None,
) -> Wanted:
    """Return the fetch request: the mirrors that list the hash; behind a page, all that deliver.

    `learned` are nodes of verified spec documents, for what the page says less about.
    """
    names = [name for name in artifact.mirrors if name in delivery]
    if sources.pages:  # the list's own mirrors first, then those named beside it
        names += [name for name in delivery if name not in sources.placed and name not in names]
    mirrors = tuple(delivery[name] for name in names)
    better = learned or {}
    return _wanted_node(
        artifact.name,
        artifact.version,
        artifact.hash,
        mirrors,
        lambda hash_: better.get(hash_) or sources.specs.get(hash_),
    )


def _wanted_node(
    name: str, version: str, hash: str, mirrors: tuple[Source, ...], get: Callable[[str], Node | None]
) -> Wanted:
    """Return the fetch request for a package whose node `get` may know."""
    from .fetch.model import Wanted
    from .resolver.index.readers.places import recorded_compiler

    node, compiler = get(hash), None
    if node is not None and any(source.layout in ("", "v2") for source in mirrors):
        with suppress(FormatError):  # its compiler is not recorded; only names in layout 2 need it
            compiler = recorded_compiler(node, get)
    return Wanted(name, version, hash, mirrors, node, compiler)


def _layout(mirror: Mirror, layouts: Mapping[str, str]) -> str:
    """Return the layout of a mirror as the fetch engine takes it, "" when nobody looked."""
    from .config import check_policy

    check_policy(mirror.location, mirror.signed, mirror.pinned, f"mirror {mirror.name}")
    return "oci" if is_registry(mirror.location) else layouts.get(mirror.name, "")


def _is_list(mirror: Mirror) -> bool:
    """Return True for what lists binaries and holds none, by its name."""
    return mirror.location.endswith((".md", ".json"))


def _policies_of(mirrors: Iterable[Mirror]) -> tuple[LockedPolicy, ...]:
    from .fetch.transports import redact
    from .lockfile import LockedPolicy

    return tuple(
        LockedPolicy(redact(m.name), redact(m.location), m.signed, tuple(sorted(m.pinned))) for m in mirrors
    )


def _locked(package: VerifiedPackage) -> Locked:
    from .lockfile import Locked

    tarball, spec = package.tarball, package.spec
    wanted = package.wanted
    return Locked(
        wanted.name, wanted.version, wanted.hash, tarball.sha256, tarball.size, spec.sha256, spec.size
    )


def _refuse(lock: Lock, packages: tuple[Locked, ...]) -> None:
    from .errors import LockChangedError
    from .lockfile import changes

    if found := changes(lock, packages):
        raise LockChangedError(
            f"the mirrors do not hold what the lock file promises: {'; '.join(found[:5])}",
            hint="if the change is wanted, write the lock file again: `cachefetch resolve SPEC... --lock FILE`",
            context={"changes": list(found)},
        )
