"""Answers made from open mirrors: resolve and list. Pure apart from look-ups in the local index."""

from __future__ import annotations

import os
import re

from .errors import NoMatchError, SpecSyntaxError, UsageError
from .resolver import closure as closures
from .resolver import rank
from .resolver.index.query import PageSource, Specs
from .resolver.model import Record
from .resolver.resolution import Coverage, Listing, Missing, Resolution, Root, Shown
from .resolver.rules.context import Context, Policy
from .resolver.rules.keys import Usual
from .resolver.spec.matching import satisfies
from .resolver.spec.parser import parse, parse_many
from .resolver.spec.versions import parse_version
from .values import changed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from .resolver.closure import Closure
    from .resolver.model import Host, Node
    from .resolver.spec.values import Spec
    from .sources import Sources

_HASH_LENGTH = 32
#: A hash or the beginning of one, long enough to mean it.
_HASH = re.compile(r"[a-z2-7]{4,32}")
#: What can be asked for as a package.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")


def resolve(
    queries: Sequence[str],
    sources: Sources,
    host: Host,
    *,
    policy: Policy,
    unify: bool = True,
    local_host: bool = True,
    exists: Callable[[str], bool] = os.path.exists,
    others: Sequence[Host] = (),
    pinned: Mapping[str, str] | None = None,
    full: bool = True,
    requirements: Sequence[str] = (),
    prereleases: bool = False,
) -> Resolution:
    """Choose a binary for each query; pure apart from look-ups in the local index.

    Args:
        queries: specs as typed; one text may hold several roots.
        sources: from `open_sources`.
        host: the machine that the binaries must run on.
        policy: settings of acceptance.
        unify: choose so that no package is there twice, or report a conflict.
        local_host: `host` is this machine as it is, so prefixes of externals can be tested.
        exists: tells whether such a prefix is there.
        others: further hosts on which the same binaries must run.
        pinned: the only hash that may be chosen, by canonical query (a lock file); None for all.
        full: say all that explains the answer: the value of every key, and what differs in the runners-up.
        requirements: Python requirements, resolved with the queries.
        prereleases: requirements admit pre-releases.

    Raises:
        SpecSyntaxError: a query does not parse.
    """
    specs = parse_queries(queries, requirements, specs=sources.specs, host=host, prereleases=prereleases)
    found_here = exists if local_host and not host.overridden and not others else None
    usual = Usual(sources.specs.versioned)
    known: dict[str, bool] = {}
    first = Context(parse(""), host, sources.specs, policy, found_here)
    machines = (first, *(first.on(other) for other in others))
    found: dict[str, rank.Evaluation] = {}
    for spec in specs:
        query = str(spec)
        if query in found:
            continue
        contexts = tuple(machine.asking(spec) for machine in machines)
        candidates, known[query] = _candidates(contexts[0], sources.specs)
        if not spec.name and len({record.node.name for record in candidates}) > 1:
            raise _not_one(spec, candidates, sources)  # which package is meant, nobody can tell
        if spec.requirement is not None:
            _admit(contexts, candidates)
        if pinned is not None:
            candidates = [record for record in candidates if record.node.hash == pinned.get(query)]
        found[query] = rank.evaluate(contexts, candidates, usual)
    picks, conflicts, relax = _unified(list(found.values())) if unify and len(found) > 1 else ({}, (), ())
    roots: list[Root] = []
    for number, (query, evaluation) in enumerate(found.items()):
        context = evaluation.contexts[0]
        notes = context.spec.notes + _disputes(evaluation, sources.specs)
        root = rank.root_of(evaluation, notes=notes, pick=picks.get(number, ""), full=full)
        if pinned is not None and not evaluation.count:
            gone = f"the lock file names /{pinned.get(query, '')[:7]}, which no mirror holds any more"
            root = changed(root, notes=(*root.notes, gone))
        elif not evaluation.count:
            near = () if known[query] else _near_names(context.spec.name, sources.specs)
            why = _why_none(context, sources.specs)
            root = changed(root, suggestions=near, notes=(*root.notes, why))
        roots.append(root)
    closures_ = [rank.closure_of_choice(e.contexts[0], r) for e, r in zip(found.values(), roots, strict=True)]
    answer = _assemble(roots, closures_, sources, host, conflicts)
    if answer.status == "conflict":
        answer = changed(answer, conflict_relax=relax)
    return changed(answer, coverage=_coverage(list(found.values()), roots)) if others else answer


def parse_queries(
    queries: Sequence[str],
    requirements: Sequence[str] = (),
    *,
    specs: Specs | None = None,
    host: Host | None = None,
    prereleases: bool = False,
) -> list[Spec]:
    """Return the roots of all texts.

    Args:
        queries: specs, or Python requirements (``multidict>=6,<7``), as typed.
        requirements: texts that are requirements in any case, from a requirements file.
        specs: the packages that are known, to find Spack's name of a Python project; None before any mirror is open.
        host: for ``os=fe`` and the like; None leaves them as they are.
        prereleases: requirements admit pre-releases.

    Raises:
        SpecSyntaxError: a text does not parse, names no package or hash, or there is nothing.
    """
    known = (
        frozenset(specs.names()).__contains__
        if specs and (requirements or _any_requirement(queries))
        else None
    )
    roots = [
        spec
        for text in queries
        for spec in _parse_query(text, known=known, prereleases=prereleases, host=host)
    ]
    roots += [_parse_requirement(text, known, prereleases) for text in requirements]
    if specs is not None:
        roots = [_python_name(spec, specs) for spec in roots]
    if not roots:
        raise SpecSyntaxError("the request is empty, expected a spec such as zlib@1.3", " ".join(queries), 0)
    for spec in roots:
        if not spec.name and not spec.hash:
            raise SpecSyntaxError(
                "the request names no package",
                str(spec) or " ".join(queries),
                0,
                hint="begin with a package name or /hash",
            )
    return roots


def _any_requirement(queries: Sequence[str]) -> bool:
    return any(sign in text for text in queries for sign in "<>!~;[=:")


def _parse_query(
    text: str, *, known: Callable[[str], bool] | None, prereleases: bool, host: Host | None
) -> tuple[Spec, ...]:
    """Parse one text; the module for requirements is loaded only for what may be one (start-up, P4)."""
    if not _any_requirement((text,)):
        return parse_many(text, host=host)
    from .resolver.spec.requirement import parse_query

    return parse_query(text, known=known, prereleases=prereleases, host=host)


def _parse_requirement(text: str, known: Callable[[str], bool] | None, prereleases: bool) -> Spec:
    from .resolver.spec.requirement import parse_requirement

    return parse_requirement(text, known=known, prereleases=prereleases)


def _python_name(spec: Spec, specs: Specs) -> Spec:
    """Take a bare name that no mirror knows for that of a Python project, where there is one (docs/semantics.md).

    So also ``ruamel.yaml``, which as a spec is the package yaml in the namespace ruamel.
    """
    if str(spec) != spec.name or specs.named(spec.name):
        return spec
    text = f"{spec.namespace}.{spec.name}" if spec.namespace else spec.name
    if not specs.named(f"py-{text.lower().replace('.', '-').replace('_', '-')}"):
        return spec
    return _parse_requirement(text, lambda name: bool(specs.named(name)), False)


def parse_constraint(text: str | None, specs: Specs | None = None) -> Spec | None:
    """Return one spec, which may be anonymous (``target=aarch64:``, ``/ab``), or a Python requirement; None for none.

    `specs` tells Spack's name of a Python project; without it the text is only checked. Raises SpecSyntaxError.
    """
    if not text or not text.strip():
        return None
    known = frozenset(specs.names()).__contains__ if specs and _any_requirement((text,)) else None
    if _any_requirement((text,)):
        from .resolver.spec.requirement import looks_like_requirement

        if looks_like_requirement(text):
            return _parse_requirement(text, known, False)
    spec = parse(text)
    return _python_name(spec, specs) if specs else spec


def known_hashes(queries: Sequence[Spec]) -> tuple[tuple[str, str, str], ...]:
    """Return (name, version, DAG hash) of each query when every one says exactly these three, else ()."""
    found = []
    for query in queries:
        version = str(query.versions).removeprefix("=")
        one = not query.versions.is_any and query.requirement is None and not set(":,") & set(version)
        if not (query.name and one and len(query.hash) == _HASH_LENGTH):
            return ()
        found.append((query.name, version, query.hash))
    return tuple(found)


def shown(query: Spec, sources: Sources, host: Host, *, policy: Policy) -> Shown:
    """Return all that is known of the one binary that `query` names.

    Raises:
        UsageError: more than one satisfies it; NoMatchError: none does.
    """
    specs = sources.specs
    context = Context(query, host, specs, policy)
    records, _ = _candidates(context, specs)
    found = [record for record in records if satisfies(record.node, query, specs)]
    if len(found) != 1:
        raise _not_one(query, found, sources)
    record = found[0]
    closure = context.closure(record.node)
    artifacts = tuple(rank.artifact(r, specs) for r in closure.records if r.node.hash != record.node.hash)
    return Shown(
        artifact=rank.artifact(record, specs),
        node=record.node,
        problems=tuple(rank.problems(record, context)),
        stacks=record.stacks,
        closure=artifacts,
        closure_known=not record.node.partial,
        build=tuple(edge for edge in record.node.edges if not edge.in_closure),
        host_provides=tuple(sorted(_provided(n.name, n.version, n.external) for n in closure.externals)),
        missing=closure.missing,
        mirrors=sources.current_states(),
    )


def _not_one(query: Spec, found: Sequence[Record], sources: Sources) -> UsageError:
    if found:
        hashes = ", ".join(f"{record.node.name}/{record.node.hash[:12]}" for record in found[:5])
        more = f" and {len(found) - 5} more" if len(found) > 5 else ""
        return UsageError(
            f"{len(found)} binaries satisfy {query}: {hashes}{more}", hint="name one by more of its hash"
        )
    if spliced := spliced_without_binary(query, sources.specs):
        return NoMatchError(spliced[0], hint=f"`cachefetch show /{spliced[1]}`")
    states = "; ".join(f"{state.mirror} is {state.state}" for state in sources.states)
    near = () if sources.specs.named(query.name) else _near_names(query.name, sources.specs)
    if _is_hash(query.name, sources.specs):
        near = (f"the hash /{query.name}",)
    hint = f"did you mean {' or '.join(near)}?" if near else "see `cachefetch list`"
    return NoMatchError(f"no binary satisfies {query} ({states})", hint=hint)


def listing(
    spec: Spec | None,
    sources: Sources,
    *,
    externals: bool = False,
    host: Host | None = None,
    policy: Policy | None = None,
) -> Listing:
    """Return the specs that satisfy the constraint `spec` (None: all), sorted by name, version and hash.

    Args:
        spec: from `parse_constraint`.
        sources: from `open_sources`.
        externals: also nodes that no mirror holds because the build took them from its machine.
        host: a machine to judge every spec for, by its own attributes; None for no judgement.
        policy: settings of acceptance, for `host`; what is in other stacks than its stack is left out.
    """
    specs = sources.specs
    records: Iterable[Record]
    near: tuple[str, ...] = ()
    if spec and spec.name:
        records = specs.named(spec.name)
        near = () if records else _near_names(spec.name, specs)
    elif spec and spec.hash and not spec.edges:
        records = specs.with_prefix(spec.hash)
    else:
        records = specs.everything()
    if spec and spec.requirement is not None:
        spec = changed(spec, requirement=spec.requirement.admitting([r.node.version for r in records]))
    wanted = [
        record
        for record in records
        if (record.has_binary or (externals and record.node.external is not None))
        and (spec is None or satisfies(record.node, spec, specs))
        and not (policy and policy.stack and record.stacks and policy.stack not in record.stacks)
    ]
    wanted.sort(key=lambda r: (r.node.name, parse_version(r.node.version), r.node.hash))
    unusable = {}
    if host is not None:
        context = Context(parse(""), host, specs, policy)
        unusable = {r.node.hash: p[0] for r in wanted if (p := rank.own_problems(r, context))}
    artifacts = tuple(rank.artifact(record, specs) for record in wanted)
    nodes = tuple(record.node for record in wanted)
    notes = (spec.notes if spec else ()) + specs.dispute_notes(record.node.hash for record in wanted)
    return Listing(artifacts, sources.current_states(), unusable, nodes, host, notes, near)


def _disputes(evaluation: rank.Evaluation, specs: Specs) -> tuple[str, ...]:
    """Return what the mirrors disagree about among the candidates and in the closures that were walked."""
    if not specs.disputes:
        return ()
    hashes: set[str] = set()
    for record in evaluation.candidates:
        closure = evaluation.contexts[0].known_closure(record.node)
        hashes.update((record.node.hash, *(node.hash for node in (closure.nodes() if closure else ()))))
    return specs.dispute_notes(hashes)


def _unified(
    found: Sequence[rank.Evaluation],
) -> tuple[dict[int, str], tuple[str, ...], tuple[tuple[str, str], ...]]:
    """Return the hash for each root by number, why there is no common set, and what would give one."""
    from .resolver.several import together

    result = together(found)
    return result.picks, result.conflicts, result.relax


def _coverage(found: Sequence[rank.Evaluation], roots: Sequence[Root]) -> tuple[Coverage, ...]:
    """Return, host by host, how many candidates fit there and whether the choice does."""
    rows = []
    for number, context in enumerate(found[0].contexts):
        fits = []
        for evaluation, root in zip(found, roots, strict=True):
            c = evaluation.contexts[number]
            count = sum(1 for record in evaluation.candidates if not rank.problems(record, c))
            fits.append((root.query, count, root.chosen is not None))
        rows.append(Coverage(context.host, tuple(fits)))
    return tuple(rows)


def _candidates(context: Context, specs: Specs) -> tuple[list[Record], bool]:
    """Return the records with a binary that the query may mean, and whether the package is known at all.

    A name that no package has may be a virtual: then its usual providers are meant, and all packages that the indexes
    label as such. Only then the indexes are searched for it.
    """
    spec = context.spec
    records = specs.named(spec.name) if spec.name else specs.with_prefix(spec.hash or "")
    if not records and spec.name:
        context.labelled[spec.name] = _labelled(spec.name, specs)
        names = context.providers(spec.name)
        records = [record for name in names for record in specs.named(name)]
    return [record for record in records if record.has_binary], bool(records)


def _labelled(virtual: str, specs: Specs) -> tuple[str, ...]:
    """Return the packages that provide `virtual` in the indexes: by their edges, or by themselves."""
    found: set[str] = set()
    for source in specs.sources:
        for record in source.labelling(virtual):
            found.update(edge.name for edge in record.node.edges if virtual in edge.virtuals)
            if virtual in record.node.provided:
                found.add(record.node.name)
    return tuple(sorted(found))


def _is_hash(name: str | None, specs: Specs) -> bool:
    """Tell whether what was read as a package name is a hash without its slash, or the beginning of one."""
    return bool(name and _HASH.fullmatch(name) and specs.with_prefix(name) and not specs.named(name))


def _why_none(context: Context, specs: Specs) -> str:
    """Say why there is not even one candidate: unknown, or known and held by no mirror."""
    spec, indexes = context.spec, len(specs.sources)
    where = f"in {indexes} {'index' if indexes == 1 else 'indexes'}"
    if spec.name:
        names = (spec.name, *context.providers(spec.name))
        known = [record.node for name in names for record in specs.named(name)]
    else:
        known = [record.node for record in specs.with_prefix(spec.hash or "")]
    if not known and spec.name:
        meant = "; did you mean the hash " if _is_hash(spec.name, specs) else ""
        return f"no package {spec.name} {where}" + (meant and f"{meant}/{spec.name}?")
    if not known:
        return f"/{spec.hash} matches no binary {where}"
    labels = sorted({f"{node.name}@{node.version}" for node in known})
    shown = ", ".join(labels[:3]) + (f" and {len(labels) - 3} more" if len(labels) > 3 else "")
    one = len(labels) == 1
    if all(node.external is not None for node in known):
        what = "an external" if one else "externals"
    else:
        what = "a dependency" if one else "dependencies"
    if spliced := spliced_without_binary(spec, specs):
        return spliced[0]
    text = f"{shown} {'is' if one else 'are'} known only as {what} of the builds: no mirror holds "
    return text + ("it" if one else "them")


def spliced_without_binary(spec: Spec, specs: Specs) -> tuple[str, str] | None:
    """Say that a hash is of a spliced node, which may have no binary, and return the hash of its build spec too."""
    found = [] if spec.name or not spec.hash else [record.node for record in specs.with_prefix(spec.hash)]
    if len(found) != 1 or not (build := found[0].build_spec):
        return None
    from .resolver.explain import spliced_text

    node = found[0]
    return f"{node.name}@{node.version}/{node.hash[:7]} is {spliced_text(build)}", build


def _admit(contexts: Sequence[Context], candidates: Sequence[Record]) -> None:
    """Let a Python requirement admit pre-releases when no final version of the candidates meets it (PEP 440)."""
    versions = [record.node.version for record in candidates]
    for context in contexts:
        if context.spec.requirement is not None:
            context.spec = changed(context.spec, requirement=context.spec.requirement.admitting(versions))


def _near_names(name: str, specs: Specs) -> tuple[str, ...]:
    """Return up to three known names that resemble an unknown one."""
    if not name:
        return ()
    from difflib import get_close_matches

    names = list(specs.names())
    known = {each.lower(): each for each in names}  # all of Spack's names are in lower case, or nearly so
    near = [known[each] for each in get_close_matches(name.lower(), list(known), 3, 0.6)]
    if f"py-{name}" in names:
        near = [f"py-{name}", *near]
    usable = [each for each in near if each != name and _NAME.fullmatch(each)]
    return tuple(dict.fromkeys(usable))[:3]


def _assemble(
    roots: list[Root],
    found: list[Closure | None],
    sources: Sources,
    host: Host,
    conflicts: tuple[str, ...],
) -> Resolution:
    """Put the answers for all roots together."""
    records: dict[str, Record] = {}
    externals: dict[str, str] = {}
    missing: dict[str, Missing] = {}
    for closure in found:
        if closure is not None:
            records.update((record.node.hash, record) for record in closure.records)
            externals.update((n.hash, _provided(n.name, n.version, n.external)) for n in closure.externals)
            missing.update((node.hash, node) for node in closure.missing)
    if any(root.chosen is None for root in roots):
        status = "no-candidate"
    elif conflicts:
        status = "conflict"
    else:
        status = "incomplete" if missing else "ok"
    complete = all(root.chosen for root in roots)
    return Resolution(
        status=status,
        host=host,
        mirrors=sources.current_states(),
        roots=tuple(roots),
        closure=tuple(rank.artifact(record, sources.specs) for record in records.values())
        if complete
        else (),
        host_provides=tuple(sorted(set(externals.values()))) if complete else (),
        missing=tuple(missing.values()) if complete else (),
        conflicts=conflicts if status == "conflict" else (),
    )


def _provided(name: str, version: str, prefix: str | None) -> str:
    return f"{name}@{version}" + (f" at {prefix}" if prefix else "")


def with_missing(answer: Resolution, missing: Sequence[tuple[str, str]], nodes: Sequence[Node]) -> Resolution:
    """Return the answer as incomplete: nodes, as (name, hash), that the mirrors turned out not to have.

    `nodes` is the closure as far as it is known; the parents are found in it.
    """
    parents: dict[str, list[str]] = {}
    for node in nodes:
        for edge in node.closure_edges():
            parents.setdefault(edge.hash, []).append(closures.label(node))
    spliced = {node.hash: node.build_spec for node in nodes}
    found = tuple(
        Missing(name, hash_, tuple(parents.get(hash_, ())), spliced.get(hash_)) for name, hash_ in missing
    )
    return changed(answer, status="incomplete", missing=found)


def with_documents(
    answer: Resolution, documents: Sequence[Sequence[Node]], mirrors: tuple[str, ...]
) -> Resolution:
    """Return the answer with the closure that became known from verified spec documents (root first).

    Args:
        answer: choices made from cache pages, which record no dependencies.
        documents: the nodes of one spec document for each root.
        mirrors: names of the mirrors that may hold the nodes; whether they do shows when they are asked.
    """
    nodes = {node.hash: node for document in documents for node in document}
    specs = Specs([PageSource("", (Record(node, node.external is None) for node in nodes.values()))])
    found = [closures.closure_of(document[0], specs) for document in documents]
    records = {r.node.hash: changed(r, mirrors=mirrors) for closure in found for r in closure.records}
    external = {_provided(n.name, n.version, n.external) for closure in found for n in closure.externals}
    return changed(
        answer,
        roots=tuple(changed(root, closure_known=True) for root in answer.roots),
        closure=tuple(rank.artifact(record, specs) for record in records.values()),
        host_provides=tuple(sorted(external)),
    )
