"""AsyncClient: the one implementation of all that a client does.

`base` has the steps that need no network, `driver` runs them in an async loop, `fetching` has those of a fetch.
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial

from .errors import (
    CachefetchError,
    NoUsableMirrorError,
    UsageError,
)
from .fetching import (
    Fetching,
    as_locked,
    policies_of,
    refuse_changes,
    require_adoptable,
    require_directory,
    splice_explained,
    wanted_of_artifact,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Any, Self

    from .bundling import ExportReport, ImportReport
    from .config import Mirror
    from .fetch.bundle.check import BundleReport
    from .fetch.extract import Extraction
    from .fetch.keys import Published
    from .fetch.mirror.check import VerifyReport
    from .fetch.mirror.plan import SyncReport
    from .fetch.model import Receipt, Source
    from .fetch.plan import FetchPlan
    from .lockfile import Lock
    from .resolver.host.overrides import HostOverrides
    from .resolver.index.writer import Lookup
    from .resolver.model import Host
    from .resolver.resolution import Listing, MirrorState, Resolution, Shown
    from .syncing import Selection


class AsyncClient(Fetching):
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
        return write(answer, packages, policies_of(sources.deliver))

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
        refuse_changes(lock, packages)
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
        from .fetch.execute import new_run

        facts = host if host is not None else await self.host()
        self._require_lock(lock, facts)
        require_directory(to)
        require_adoptable(adopt)
        run = new_run(
            self._wanted_of_lock(lock), to=to, adopt=adopt, accept=as_locked(lock), **self._engine()
        )
        return await self._finish_locked(run, lock, facts, to, adopt)

    async def plan_locked(self, lock: Lock, *, host: Host | None = None) -> FetchPlan:
        """Return what `fetch_locked` would get and reuse; arguments and errors as there."""
        from .fetch.execute import plan_items

        facts, engine = host if host is not None else await self.host(), self._engine()
        return await plan_items(await self._locked_wanted(lock, facts, engine), **engine)

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
        from .fetch.execute import new_run

        require_directory(to)
        require_adoptable(adopt)
        engine = self._engine()
        ask = partial(
            self.resolve, host=host, unify=unify, requirements=requirements, prereleases=prereleases
        )
        while True:
            asked = await self._asked(specs, requirements, resolution, ask)
            try:
                request = await self._request(asked, deps, engine)
                with request.missing_explained():
                    receipt = await new_run(request.wanted, to=to, adopt=adopt, **engine).finish()
            except CachefetchError as error:
                if resolution is None and self.reconsider(error):
                    continue
                raise
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
        from .fetch.execute import new_run
        from .fetch.extract import Extraction, extract_tarball, packing_caveat, require_absent
        from .fetch.transports.threads import run_abortable

        target = require_absent(to)
        while True:
            artifact = await self._drive(self._artifact_steps(spec, host))
            sources = await self._drive(self._open_steps())
            wanted = wanted_of_artifact(artifact, sources, self._delivery(sources))
            try:
                with splice_explained(wanted):
                    receipt = await new_run([wanted], **self._engine()).finish()
            except CachefetchError as error:
                if self.reconsider(error):
                    continue
                raise
            break
        receipt = self._with_caveats(receipt)
        item = receipt.items[0]
        unpack = partial(
            extract_tarball, item.path, target, sha256=item.sha256, size=item.size, portable=portable
        )
        contents = await run_abortable(lambda abort: unpack(check=abort.check, commit=abort.commit))
        odd = packing_caveat(item, contents)
        warnings = (*receipt.warnings, *([odd] if odd else []))
        return Extraction(target, item, contents, receipt.network_bytes, warnings)

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

        def source_of(mirror: Mirror) -> Source:
            return self._policies((mirror,))[mirror.name]

        found, broken = await to_thread.run_sync(bundling.to_import, self.mirrors(), source_of)
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
