"""Fetching: the steps between an answer, a lock file or a name and the engine: what is here already, what to fetch."""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress

from .answers import (
    with_documents,
    with_missing,
)
from .base import not_both, resolution_error
from .config import Mirror
from .driver import Driver
from .errors import (
    FormatError,
    HostError,
    MissingError,
    NoMatchError,
    NotFoundError,
    NoUsableMirrorError,
    PolicyError,
    UsageError,
)
from .pins import Pin, closure_nodes
from .values import frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
    from typing import Any

    from .fetch.model import Receipt, Source, VerifiedPackage, Wanted
    from .fetch.present import Present
    from .fetch.run import Run
    from .lockfile import Lock, Locked, LockedPolicy
    from .resolver.model import Host, Node
    from .resolver.resolution import Artifact, Resolution
    from .sources import Sources


class Fetching(Driver):
    """Says what to fetch for an answer, pins or a lock file, and what of it is here. Fetches metadata only."""

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
        return tuple(wanted_of_artifact(artifact, sources, delivery, learned) for artifact in artifacts)

    def _chosen_early(
        self, answer: Resolution, sources: Sources, deps: bool, to: str | None, adopt: str | None
    ) -> Receipt | Begun | None:
        """Fetch what an answer chose as far as it goes without an event loop; `_finish` does the rest.

        None when what to fetch is not known before the network was asked.
        """
        from .fetch.model import Receipt

        if answer.status != "ok" or (deps and not all(root.closure_known for root in answer.roots)):
            return None
        nodes = tuple(n for a in answer.closure if (n := sources.specs.get(a.hash)))
        wanted = self._wanted_of(answer, sources, self._delivery(sources), deps)
        found = self._early(wanted, to, adopt)
        if isinstance(found, Receipt):
            return self._with_caveats(found)
        return Begun(found, _Request(wanted, answer, nodes))

    async def _finish(self, begun: Begun) -> Receipt:
        """Go on in an event loop with what was begun without one."""
        with begun.request.missing_explained():
            return self._with_caveats(await begun.run.finish())

    def _pinned_early(self, pins: tuple[Pin, ...], to: str | None, adopt: str | None) -> Receipt | Run:
        """Fetch the pinned packages as far as it goes without an event loop."""
        from .fetch.model import Receipt

        names = [(pin.name, pin.version, pin.hash) for pin in pins]
        found = self._early(self._wanted_by_name(names), to, adopt)
        return self._with_caveats(found) if isinstance(found, Receipt) else found

    async def _finish_pinned(self, run: Run) -> Receipt:
        return self._with_caveats(await run.finish())

    def _locked_early(self, lock: Lock, facts: Host, to: str | None, adopt: str | None) -> Receipt | Run:
        """Refuse what a lock file does not allow; fetch the rest as far as it goes without an event loop."""
        from .fetch.model import Receipt

        self._require_lock(lock, facts)
        found = self._early(self._wanted_of_lock(lock), to, adopt, as_locked(lock))
        return self._with_lock_note(found, lock, facts) if isinstance(found, Receipt) else found

    async def _finish_locked(
        self, run: Run, lock: Lock, facts: Host, to: str | None, adopt: str | None
    ) -> Receipt:
        """Go on in an event loop, and under the names that an index has where those of layout 3 are not there."""
        from .fetch.execute import new_run

        try:
            receipt = await run.finish()
        except MissingError:
            engine = self._engine()
            wanted = await self._locked_wanted(lock, facts, engine)
            receipt = await new_run(wanted, to=to, adopt=adopt, **engine).finish()
        return self._with_lock_note(receipt, lock, facts)

    def _wanted_of_lock(self, lock: Lock) -> tuple[Wanted, ...]:
        return self._wanted_by_name([(p.name, p.version, p.hash) for p in lock.packages])

    def _early(
        self,
        wanted: tuple[Wanted, ...],
        to: str | None,
        adopt: str | None,
        accept: Callable[[Sequence[Present | VerifiedPackage]], None] = lambda _: None,
    ) -> Receipt | Run:
        from .fetch.execute import new_run

        require_directory(to)
        require_adoptable(adopt)
        run = new_run(wanted, to=to, adopt=adopt, accept=accept, **self._engine())
        return run.begin() or run

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
                package = await fetch_metadata(wanted_of_artifact(root.chosen, sources, delivery), **engine)
            except NotFoundError as error:
                lacking = with_missing(answer, [(root.chosen.name, root.chosen.hash)], [])
                raise resolution_error(lacking, error) from error
            documents.append(package.document.nodes)
        nodes = [node for document in documents for node in document]
        return with_documents(answer, documents, tuple(delivery)), nodes

    async def _locked_wanted(self, lock: Lock, facts: Host, engine: dict[str, Any]) -> tuple[Wanted, ...]:
        """Return what a lock file names, once its manifests are proven to promise the locked blobs."""
        self._require_lock(lock, facts)
        wanted, packages = await self._named([(p.name, p.version, p.hash) for p in lock.packages], engine)
        refuse_changes(lock, tuple(map(_locked, packages)))
        return wanted

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
        wanted = [wanted_of_artifact(artifact, sources, delivery, known) for artifact in answer.closure]
        return answer, tuple(map(_locked, await prove_items(wanted, **engine)))

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

    def _hold_policies(self, locked: Sequence[LockedPolicy]) -> None:
        """Refuse mirrors that would be trusted more easily than when the lock was made."""
        from .lockfile import weaker_than

        if found := weaker_than(locked, policies_of(m for m in self.mirrors() if not _is_list(m))):
            raise PolicyError(
                f"the lock file was made with stricter signature policies: {'; '.join(found)}",
                hint="use the policies of the lock, or make it again with the policies of today",
                context={"mirrors": list(found)},
            )


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


@frozen
class Begun:
    """A fetch that began without an event loop, and what it was asked for."""

    run: Run
    request: _Request


@contextmanager
def splice_explained(wanted: Wanted) -> Iterator[None]:
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


def require_directory(path: str | None) -> None:
    """Refuse a place for packages that is a file. Raises UsageError."""
    if path is not None and os.path.exists(path) and not os.path.isdir(path):
        raise UsageError(
            f"{path} is not a directory", hint="the packages go into a directory, which is made when missing"
        )


def require_adoptable(path: str | None) -> None:
    """Refuse to take payloads from no directory. Raises UsageError."""
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


def wanted_of_artifact(
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


def _is_list(mirror: Mirror) -> bool:
    """Return True for what lists binaries and holds none, by its name."""
    return mirror.location.endswith((".md", ".json"))


def policies_of(mirrors: Iterable[Mirror]) -> tuple[LockedPolicy, ...]:
    """Return the signature policies of mirrors as a lock file holds them."""
    from .fetch.transports import redact
    from .lockfile import LockedPolicy

    return tuple(
        LockedPolicy(redact(m.name), redact(m.location), m.signed, tuple(sorted(m.pinned))) for m in mirrors
    )


def _locked(package: Present | VerifiedPackage) -> Locked:
    from .fetch.present import Present
    from .lockfile import Locked

    if isinstance(package, Present):
        digests = (package.sha256, package.size, package.spec_sha256, package.spec_size)
    else:
        tarball, spec = package.tarball, package.spec
        digests = (tarball.sha256, tarball.size, spec.sha256, spec.size)
    wanted = package.wanted
    return Locked(wanted.name, wanted.version, wanted.hash, *digests)


def as_locked(lock: Lock) -> Callable[[Sequence[Present | VerifiedPackage]], None]:
    """Return what refuses packages that are not those of a lock file."""
    return lambda them: refuse_changes(lock, tuple(map(_locked, them)))


def refuse_changes(lock: Lock, packages: tuple[Locked, ...]) -> None:
    """Refuse packages that are not those of a lock file. Raises LockChangedError."""
    from .errors import LockChangedError
    from .lockfile import changes

    if found := changes(lock, packages):
        raise LockChangedError(
            f"the mirrors do not hold what the lock file promises: {'; '.join(found[:5])}",
            hint="if the change is wanted, write the lock file again: `cachefetch resolve SPEC... --lock FILE`",
            context={"changes": list(found)},
        )
