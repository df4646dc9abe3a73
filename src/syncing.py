"""Sync and verify, above the fetch layer: what is selected, from which mirrors, and when nothing has changed."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import closing, suppress

from .answers import parse_constraint, parse_queries, resolve
from .errors import FormatError, UsageError
from .resolver.spec.matching import satisfies
from .values import frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
    from typing import Any

    from .fetch.limits import Limits
    from .fetch.mirror.check import VerifyReport
    from .fetch.mirror.destination import Destination
    from .fetch.mirror.execute import How
    from .fetch.mirror.journal import Journal
    from .fetch.mirror.plan import Job, Problem, SyncReport
    from .fetch.model import Source
    from .fetch.session import Session
    from .fetch.store.cas import Store
    from .lockfile import LockedPolicy
    from .resolver.index.query import Specs
    from .resolver.index.writer import Lookup
    from .resolver.model import Host, Record
    from .resolver.rules.context import Policy
    from .resolver.spec.values import Spec
    from .sources import Sources

    #: Changes what a sync is asked for, knowing what the journal has.
    Adjust = Callable[[Job, Journal], Job]

#: Most repairs of a mirror in one run: the second mends what a damaged index hid, the third what that was needed for.
_ROUNDS = 3
#: What a sync did that had nothing to do.
NOTHING_DONE = {"copied_blobs": 0, "copied_bytes": 0, "packages": 0, "pruned": 0, "network_bytes": 0}


@frozen
class Selection:
    """What to copy.

    `specs` as for `resolve`; `locked` are (name, DAG hash, sha256 of the tarball or "") of lock files; `everything`
    in place of both; `include` and `exclude` are constraints on the roots
    (a root must meet one of `include`, none of `exclude`); `targets` and `systems` (OS labels) likewise; with
    `hosts` only what `resolve` chooses for each of them is copied. `policies` are those of each lock file: a mirror
    with a weaker one is refused.
    """

    specs: tuple[str, ...] = ()
    locked: tuple[tuple[str, str, str], ...] = ()
    everything: bool = False
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    systems: tuple[str, ...] = ()
    hosts: tuple[Host, ...] = ()
    policies: tuple[tuple[LockedPolicy, ...], ...] = ()

    def check(self) -> None:
        """Refuse what cannot be meant. Raises UsageError, SpecSyntaxError."""
        named = bool(self.specs or self.locked)
        if named == self.everything:
            raise UsageError(
                "name what to copy: specs, lock files, or --all for everything"
                if not named
                else "--all needs no spec",
                hint="cachefetch sync hdf5+mpi --from MIRROR --to DIR",
            )
        if self.specs:
            parse_queries(self.specs)
        _constraints(self)

    def is_everything(self) -> bool:
        """Return True when nothing is left out."""
        return self == Selection(everything=True)

    def text(self) -> str:
        """Return a text that is equal for equal selections."""
        hosts = [host.to_dict() for host in self.hosts]
        rest = [
            self.specs,
            self.locked,
            self.everything,
            self.include,
            self.exclude,
            self.targets,
            self.systems,
        ]
        return json.dumps([*rest, hosts], sort_keys=True)


def select(selection: Selection, sources: Sources, policy: Policy) -> tuple[list[Record], list[Problem]]:
    """Return the root records, and a problem for each spec that nothing satisfies."""
    from .fetch.mirror.plan import Problem

    specs = sources.specs
    include, exclude, machines = _constraints(selection)
    found: dict[str, Record] = {}
    problems: list[Problem] = []
    queries: Sequence[Spec | None] = (
        [None]
        if selection.everything
        else parse_queries(selection.specs, specs=specs)
        if selection.specs
        else []
    )

    def one_of(constraints: Sequence[Spec]) -> Callable[[Record], bool]:
        return lambda record: any(satisfies(record.node, c, specs) for c in constraints)

    filters: list[tuple[str, Callable[[Record], bool]]] = []
    for words, constraints in (
        (_words("--include", selection.include), include),
        (_words("--target", selection.targets), machines[0]),
        (_words("--os", selection.systems), machines[1]),
    ):
        if constraints:
            filters.append((words, one_of(constraints)))
    if exclude:
        excluded = one_of(exclude)
        filters.append((_words("--exclude", selection.exclude), lambda record: not excluded(record)))
    if policy.stack:
        filters.append(
            (f"--stack {policy.stack}", lambda record: not record.stacks or policy.stack in record.stacks)
        )

    def fits(record: Record) -> bool:
        return all(keep(record) for _, keep in filters)

    for name, hash_, _ in selection.locked:
        locked = specs.record(hash_)
        if locked is None or not locked.has_binary:
            message = f"no mirror has {name}/{hash_[:7]} of the lock file"
            problems.append(Problem(hash_, name, "not-found", message))
        elif fits(locked):
            found[hash_] = locked
    for query in queries:
        candidates = list(_roots(query, selection, sources, policy))
        roots = [record for record in candidates if fits(record)]
        if not roots:
            what = str(query) if query else "any package"
            problems.append(Problem("", what, "no-candidate", _nothing_left(what, candidates, filters)))
        found.update((record.node.hash, record) for record in roots)
    return list(found.values()), problems


def _words(option: str, values: Iterable[str]) -> str:
    return " ".join(f"{option} {value}" for value in values)


def _nothing_left(
    what: str, candidates: Sequence[Record], filters: Sequence[tuple[str, Callable[[Record], bool]]]
) -> str:
    """Say why no root is left: the first filter that leaves nothing of what those before it left."""
    left = list(candidates)
    for words, keep in filters:
        before, left = len(left), [record for record in left if keep(record)]
        if before and not left:
            binaries = f"{before} {'binary' if before == 1 else 'binaries'}"
            return f"{words} leaves nothing of {binaries} that satisfy {what}"
    return f"no binary of the mirrors satisfies {what}"


def through_lists(selection: Selection, lists: Sources, policy: Policy) -> tuple[Selection, Adjust]:
    """Return the selection by hashes of what cache pages list, and what adds the problems of that to the job.

    Pages record no dependencies: the mirrors beside them know the closure.
    """
    from dataclasses import replace

    roots, problems = select(selection, lists, policy)

    def adjust(job: Job, journal: Journal) -> Job:  # noqa: ARG001 -- the signature of `Adjust`
        return replace(job, missing=(*problems, *job.missing))

    return Selection(locked=tuple((root.node.name, root.node.hash, "") for root in roots)), adjust


def _constraints(selection: Selection) -> tuple[list[Spec], list[Spec], tuple[list[Spec], list[Spec]]]:
    def parsed(texts: Iterable[str]) -> list[Spec]:
        return [spec for text in texts if (spec := parse_constraint(text))]

    machines = (
        parsed(f"target={t}" for t in selection.targets),
        parsed(f"os={o}" for o in selection.systems),
    )
    return parsed(selection.include), parsed(selection.exclude), machines


def _roots(query: Spec | None, selection: Selection, sources: Sources, policy: Policy) -> Iterable[Record]:
    specs = sources.specs
    if query is not None and selection.hosts:
        for host in selection.hosts:
            answer = resolve([str(query)], sources, host, policy=policy, unify=False, local_host=False)
            for root in answer.roots:
                record = specs.record(root.chosen.hash) if root.chosen else None
                if record is not None:
                    yield record
        return
    if query is None:
        records: Iterable[Record] = specs.everything()
    else:
        records = specs.named(query.name) if query.name else specs.with_prefix(query.hash or "")
    for record in records:
        if record.has_binary and (query is None or satisfies(record.node, query, specs)):
            yield record


def closure(
    roots: Iterable[Record], specs: Specs, *, strict: bool
) -> tuple[list[Record], dict[str, tuple[str, ...]], list[Problem]]:
    """Return the records to copy, who needs each (labels by DAG hash), and the nodes that no mirror has.

    Args:
        roots: with a binary.
        specs: all specs.
        strict: nodes without a binary are problems; False for ``--all``, which copies what there is.
    """
    from .fetch.mirror.plan import Problem
    from .resolver.closure import label

    records: dict[str, Record] = {}
    needed: dict[str, dict[str, None]] = {}
    absent: dict[str, str] = {}
    queue = [(record.node.hash, record.node.name) for record in roots]
    seen = {hash_ for hash_, _ in queue}
    while queue:
        hash_, name = queue.pop()
        record = specs.record(hash_)
        if record is not None and record.node.external is not None:
            continue
        if record is None or not record.has_binary:
            absent[hash_] = name
        if record is None:
            continue
        if record.has_binary:
            records[hash_] = record
        children = [(edge.hash, edge.name) for edge in record.node.closure_edges()]
        if record.node.build_spec:  # a spliced node's binary is that of its build spec
            children.append((record.node.build_spec, name))
        for child in children:
            needed.setdefault(child[0], {})[label(record.node)] = None
            if child[0] not in seen:
                seen.add(child[0])
                queue.append(child)
    parents = {hash_: tuple(sorted(labels)) for hash_, labels in needed.items()}
    problems = [
        Problem(
            hash_,
            name,
            "not-found",
            f"no mirror has the binary of {name}/{hash_[:7]}",
            parents.get(hash_, ()),
        )
        for hash_, name in sorted(absent.items(), key=lambda item: (item[1], item[0]))
    ]
    ordered = sorted(records.values(), key=lambda r: (r.node.name, r.node.version, r.node.hash))
    return ordered, parents, problems if strict else []


def make_job(selection: Selection, sources: Sources, policy: Policy, delivery: dict[str, Source]) -> Job:
    """Return what the fetch layer needs for a sync."""
    from .fetch.mirror.plan import Job, Problem
    from .fetch.model import Wanted
    from .resolver.index.readers.manifest import spec_stem

    roots, problems = select(selection, sources, policy)
    layouts = {name: source.layout for name, source in delivery.items()}
    records, needed_by, missing = closure(roots, sources.specs, strict=True)
    wanted = []
    for record in records:
        node = record.node
        try:
            spec_stem(node.name, node.version, node.hash)
        except FormatError as error:  # an index may say anything: what no mirror can hold stops nothing else
            problems.append(
                Problem(node.hash, node.name, "bad-format", error.message, needed_by.get(node.hash, ()))
            )
            continue
        places = tuple(delivery[name] for name in record.mirrors if name in delivery)
        compiler = _compiler(record, sources, layouts)
        wanted.append(Wanted(node.name, node.version, node.hash, places, node, compiler))
    pins = {hash_: sha256 for _, hash_, sha256 in selection.locked if sha256}
    unique = {(problem.hash, problem.what): problem for problem in (*missing, *problems)}
    hashes = {one.hash for one in wanted}
    return Job(
        tuple(wanted),
        tuple(delivery.values()),
        needed_by,
        tuple(unique.values()),
        sources.specs.raw,
        pins,
        disputed=frozenset(hashes & sources.specs.disputes.keys()),
        notes=sources.specs.dispute_notes(hashes),
        doubted=sources.specs.doubted,
    )


def _compiler(record: Record, sources: Sources, layouts: Mapping[str, str]) -> tuple[str, str] | None:
    """Return the compiler in the names of layout 2; None where it is not needed, or not recorded."""
    from .resolver.index.readers.places import recorded_compiler

    if all(layouts.get(name) != "v2" for name in record.mirrors):
        return None
    with suppress(FormatError):
        return recorded_compiler(record.node, sources.specs.get)
    return None


def destination_layout(sources: Iterable[Source], *, convert: bool) -> str:
    """Return the layout that a destination of these sources has: "v2" for layout 2 kept, else "v3".

    Raises:
        UsageError: layout 2 beside others without `convert`.
    """
    layouts = {source.layout for source in sources}
    if "v2" not in layouts or convert:
        return "v3"
    if layouts != {"v2"}:
        raise UsageError(
            "mirrors of layout 2 and of other layouts cannot go into one destination as they are",
            hint="--convert makes all of it layout 3, unsigned where the source is of layout 2",
        )
    return "v2"


def state_key(
    selection: Selection, sources: Sources, delivery: dict[str, Source], version: str, variant: str = ""
) -> str:
    """Return a digest of all that decides what a sync would do: selection, mirrors, their indexes and policies.

    `variant` stands for what else does: the volumes of a bundle that are here.
    """
    facts = [
        [
            source.mirror,
            source.url,
            sources.specs.digest(source.mirror),
            source.policy.mode,
            sorted(source.policy.pinned),
            sorted(source.keyring.fingerprints),
        ]
        for source in delivery.values()
    ]
    return hashlib.sha256(json.dumps([version, variant, selection.text(), facts]).encode()).hexdigest()


def unchanged(key: str, journal: Journal, destination: Destination) -> SyncReport | None:
    """Return the report of a sync that has nothing to do, None when that is not certain.

    Certain is: the last run was the same, from the same indexes, without a problem, and names and sizes of all files
    are as it left them.
    """
    from .fetch.mirror.plan import SyncPlan, SyncReport

    try:
        last = json.loads(journal.meta("last") or "{}")
    except (ValueError, RecursionError):
        return None
    index = destination.read_file(destination.index_path)
    if last.get("key") != key or index is None or last.get("index") != hashlib.sha256(index).hexdigest():
        return None
    if last.get("seal") != destination.seal():
        return None
    return SyncReport("ok", SyncPlan({}, last["present"], {}), dict(NOTHING_DONE), ())


def remember(key: str, report: SyncReport, journal: Journal, destination: Destination) -> None:
    """Note a sync that ended well, for `unchanged`.

    Every package of it is complete; what else is there is sealed with it, and a run that finds anything changed looks
    at each file.
    """
    index = destination.read_file(destination.index_path)
    if report.status == "ok" and index is not None:
        fact = {
            "key": key,
            "index": hashlib.sha256(index).hexdigest(),
            "present": report.plan.present + len(report.plan.copy),
            "seal": destination.seal(),
        }
        journal.remember("last", json.dumps(fact))


def locked_in(data: bytes, what: str) -> tuple[tuple[str, str, str], ...]:
    """Return (name, DAG hash, sha256 of the tarball or "") of what a lock file names.

    Of `cachefetch.lock` all packages with their digests, of an environment's ``spack.lock`` its roots.

    Raises:
        FormatError: neither of them.
    """
    from .lockfile import SCHEMA, Lock
    from .resolver.index.readers.lock import is_lock, lock_roots

    if is_lock(data):
        return tuple((name, hash_, "") for name, hash_ in lock_roots(data, what=what))
    if SCHEMA.encode() in data:
        return tuple((one.name, one.hash, one.sha256) for one in Lock.read(data, what=what).packages)
    raise FormatError(
        f"{what} is no lock file",
        hint="`cachefetch resolve SPEC... --lock FILE` and Spack's environments write lock files",
        context={"file": what},
    )


def policies_in(data: bytes, what: str) -> tuple[LockedPolicy, ...]:
    """Return the signature policies of a lock file; those of Spack have none."""
    from .lockfile import SCHEMA, Lock
    from .resolver.index.readers.lock import is_lock

    if is_lock(data) or SCHEMA.encode() not in data:
        return ()
    return Lock.read(data, what=what).policies


def shard_numbers(text: str) -> tuple[int, int]:
    """Return (I, N) of ``I/N``. Raises UsageError."""
    first, _, second = text.partition("/")
    if first.isdecimal() and second.isdecimal() and 1 <= int(first) <= int(second):
        return int(first), int(second)
    raise UsageError(f"--shard {text!r} is not I/N", hint="for example 1/4 to 4/4 for four workers")


def _hold_apart(directory: str, sources: Iterable[Source], *, carried: bool) -> None:
    """Refuse a destination that is a source, lies in one, or holds one: Spack reads a mirror with all below it.

    Bundles are no such mirrors: what is unpacked may lie beside them. What is staged for a bundle (`carried`) goes.

    Raises:
        UsageError: it is, and which of them.
    """
    from .fetch.transports.file import local_path

    here = os.path.realpath(directory)
    for source in sources:
        if source.network:
            continue
        there = os.path.realpath(local_path(source.url))
        if here == there:
            raise UsageError(
                f"{directory} is the source and the destination",
                hint="to audit or repair a mirror use `cachefetch verify`",
            )
        mirror = any(os.path.isdir(os.path.join(there, name)) for name in ("v3", "build_cache"))
        outer = os.path.commonpath([here, there])
        if mirror and not carried and outer in (here, there):
            inner = "lies in the source" if outer == there else "holds the source"
            raise UsageError(
                f"the destination {directory} {inner} {there}: whoever lists the one meets the other, too",
                hint="name a directory beside it",
            )


def absolute_directory(text: str) -> str:
    """Return the path that ``--to`` means."""
    from .config import absolute

    return absolute(os.path.expanduser(text))


async def sync(
    selection: Selection,
    to: str,
    sources: Sources,
    delivery: dict[str, Source],
    policy: Policy,
    engine: dict[str, Any],
    *,
    shard: tuple[int, int] | None = None,
    dry_run: bool = False,
    check: bool = False,
    prune: bool = False,
    publish: bool = False,
    wait: bool = False,
    convert: bool = False,
    carried: bool = False,
    adjust: Adjust | None = None,
    variant: str = "",
) -> SyncReport:
    """Sync once; arguments as for `AsyncClient.sync`, with the open sources and the parts of the fetch engine.

    With `carried` the destination is for a bundle, which has layout 3. `adjust` changes the job, knowing what the
    journal has; `variant` as for `state_key`.
    """
    from . import __version__
    from .fetch.mirror.build_cache import BuildCache
    from .fetch.mirror.destination import Destination, check_destination, locked
    from .fetch.mirror.execute import How
    from .fetch.mirror.journal import Journal
    from .fetch.mirror.plan import SyncPlan, SyncReport

    layout = destination_layout(delivery.values(), convert=convert)
    if carried and layout == "v2":
        raise UsageError(
            "a bundle holds layout 3, the mirror has layout 2", hint="--convert makes unsigned layout 3"
        )
    to = absolute_directory(to)
    check_destination(to, layout)
    _hold_apart(to, delivery.values(), carried=carried)
    destination = (BuildCache if layout == "v2" else Destination)(to, dry_run=dry_run)
    how = How(dry_run=dry_run, check=check, prune=prune, finish=shard is None, copy=not publish)
    key = state_key(selection, sources, delivery, __version__, variant)
    name = f"journal-{shard[0]}-of-{shard[1]}" if shard else "journal"
    if dry_run:
        journal = Journal(destination.own, write=False)
        job = _job(selection, sources, policy, delivery, journal, adjust)
        return await _run(job, engine, destination, journal, how, shard)
    waiting: Job | None = None
    if not destination.is_ours():  # a spec that nothing satisfies makes no directory
        waiting = _job(selection, sources, policy, delivery, Journal(destination.own, write=False), adjust)
        if _is_nothing(waiting):
            return SyncReport("no-candidate", SyncPlan({}, 0, {}), dict(NOTHING_DONE), waiting.missing)
    with (
        locked(destination, shared=shard is not None, wait=wait),
        closing(Journal(destination.own, name)) as journal,
    ):
        if not (check or prune or shard or publish):
            same = unchanged(key, journal, destination)
            if same is not None:
                return same
        job = waiting or _job(selection, sources, policy, delivery, journal, adjust)
        report = await _run(job, engine, destination, journal, how, shard)
        if shard is None:
            remember(key, report, journal, destination)
        return report


def _job(
    selection: Selection,
    sources: Sources,
    policy: Policy,
    delivery: dict[str, Source],
    journal: Journal,
    adjust: Adjust | None,
) -> Job:
    from dataclasses import replace

    from .fetch.mirror.plan import Problem

    job = make_job(selection, sources, policy, delivery)
    if adjust:
        job = adjust(job, journal)
    unusable = tuple(
        Problem("", state.mirror, state.state, f"mirror {state.mirror} is {state.state}: {state.detail}")
        for state in sources.states
        if not state.usable
    )

    def otherwise(hashes: frozenset[str]) -> Job | None:
        if not sources.specs.discredit(hashes):
            return None
        return _job(selection, sources, policy, delivery, journal, adjust)

    return replace(job, missing=(*unusable, *job.missing), otherwise=otherwise)


def _is_nothing(job: Job) -> bool:
    """Tell whether nothing satisfies what was asked for."""
    return not job.wanted and any(problem.what == "no-candidate" for problem in job.missing)


async def _run(
    job: Job,
    engine: dict[str, Any],
    destination: Destination,
    journal: Journal,
    how: How,
    shard: tuple[int, int] | None,
) -> SyncReport:
    from dataclasses import replace

    from .fetch.mirror.execute import Sync

    nothing = _is_nothing(job)
    if shard:
        job = _part_of(job, shard)
        engine = {**engine, "limits": _divided(engine["limits"], shard[1])}
    report = await Sync(_session(engine, destination), destination, journal, job, how).run()
    return replace(report, status="no-candidate") if nothing else report


def _part_of(job: Job, shard: tuple[int, int]) -> Job:
    """Return the part of a job that one worker has."""
    from dataclasses import replace

    from .fetch.mirror.plan import shard_of

    def otherwise(hashes: frozenset[str]) -> Job | None:
        other = job.otherwise(hashes)
        return other and _part_of(other, shard)

    mine = shard_of(job.wanted, *shard, lambda text: hashlib.sha256(text.encode()).digest())
    return replace(job, wanted=tuple(mine), otherwise=otherwise)


def _refuse_itself(target: Source, others: Iterable[Source]) -> None:
    """Refuse to repair a directory from itself. Raises UsageError."""
    from .fetch.transports.file import local_path

    here = os.path.realpath(local_path(target.url))
    if any(not one.network and os.path.realpath(local_path(one.url)) == here for one in others):
        raise UsageError(
            f"{target.mirror} cannot be repaired from itself", hint="name another mirror with --from"
        )


async def verify(
    delivery: list[Source],
    engine: dict[str, Any],
    *,
    repair: bool,
    open_others: Callable[[], Awaitable[Lookup]],
) -> VerifyReport:
    """Audit the first of the mirrors; with `repair` fetch what is damaged from the others, and audit again.

    What a damaged index hid shows when it is right: then it is repaired too. One that is lost is written again, without
    other mirrors as the documents tell. `open_others` reads the indexes of the
    others and returns how their nodes are found; it is called when the mirror itself does not tell what is damaged.
    """
    from .fetch.mirror.check import verify_mirror

    target, others = delivery[0], delivery[1:]
    session = _session(engine, engine["store"])
    report = await verify_mirror(session, target)
    if not repair or not (report.problems or report.lacks_index):
        return report
    if target.network or (report.problems and not others):
        raise UsageError(
            "--repair works on a directory and needs a mirror to fetch from",
            hint="cachefetch verify DIRECTORY --repair --from MIRROR",
        )
    from .fetch.mirror.repair import repair_mirror

    _refuse_itself(target, others)
    lookup: Lookup | None = None
    first, rounds = report, []
    gone: dict[str, Problem] = {}
    for _ in range(_ROUNDS):
        before = report
        if others and lookup is None and not before.describes_itself:
            lookup = await open_others()
        done = await repair_mirror(lambda store: _session(engine, store), before, target, others, lookup)
        report = await verify_mirror(session, target)
        rounds.append(done)
        seen = {problem.hash for problem in before.problems}
        gone = {hash_: problem for hash_, problem in gone.items() if hash_ not in seen}
        gone.update((problem.hash, problem) for problem in done.problems if problem.hash)
        if not others or _kinds(report) <= _kinds(before):
            break
    return _repaired(first, rounds, gone, report)


def _kinds(report: VerifyReport) -> set[tuple[str, str, str]]:
    """Return what is wrong, without what is said about it."""
    return {(problem.hash, problem.what, problem.path) for problem in report.problems}


def _repaired(
    first: VerifyReport, rounds: Sequence[SyncReport], gone: Mapping[str, Problem], after: VerifyReport
) -> VerifyReport:
    """Return the last audit of a repair, with what was done.

    A package that is `gone` from manifests and index is told once more: nothing shows that it was there.
    """
    from dataclasses import replace

    told = {problem.hash for problem in after.problems}
    warnings = dict.fromkeys(text for done in rounds for text in done.warnings)
    return replace(
        after,
        repaired=sum(done.done["packages"] for done in rounds),
        mended=max(0, len(first.problems) - len(after.problems)),
        problems=(*after.problems, *(problem for hash_, problem in gone.items() if hash_ not in told)),
        warnings=(*after.warnings, *warnings),
    )


def _session(engine: dict[str, Any], store: Store) -> Session:
    from .fetch.retry import Clockwork
    from .fetch.session import Session

    return Session(
        store,
        engine["transports"],
        engine["limits"],
        engine["reporter"],
        offline=engine["offline"],
        meter=engine["meter"],
        clockwork=Clockwork(),
    )


def _divided(limits: Limits, workers: int) -> Limits:
    """Return the part of the connections that one of several workers may use."""
    from dataclasses import replace

    return replace(
        limits,
        metadata_in_flight=max(1, limits.metadata_in_flight // workers),
        blob_connections=max(1, limits.blob_connections // workers),
        blobs_per_host=max(1, limits.blobs_per_host // workers),
    )
