"""Choose one candidate for one request: gates, then keys in order, each shortening the list of the best (pure)."""

from __future__ import annotations

from ..values import frozen
from .differences import Comparison
from .nearness import nearest_first
from .resolution import HOST_REASONS, Artifact, Other, Rejection, Root
from .rules.context import Context
from .rules.gates import CLOSURE_GATES, OWN_GATES, libc_of
from .rules.keys import KEYS, Pool, Usual
from .spec.matching import display_compiler
from .spec.versions import parse_version, version_class

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any

    from .closure import Closure
    from .model import Dag, Mismatch, Record
    from .rules.keys import Measure

#: Keys that ask the host; for several hosts their values are added.
HOST_KEYS = frozenset(("K4a", "K6", "K7"))
#: Keys behind which two builds look alike; their losers are compared node by node to find twins.
_TWIN_KEYS = frozenset(("K15b", "K16"))
#: How many of the others are compared with the choice node by node.
_COMPARED = 5


@frozen
class Evaluation:
    """What the gates said: `pool` holds the accepted candidates with a complete closure, if there are any.

    `contexts` has one entry a host, the first is the one that texts speak of. `incomplete` are accepted but lack
    closure nodes (K0); they compete only when nothing is complete, so that they never change a rank.
    """

    contexts: tuple[Context, ...]
    pool: Pool
    incomplete: tuple[Record, ...]
    rejected: tuple[Rejection, ...]
    relax: tuple[tuple[str, int], ...]
    candidates: tuple[Record, ...]
    memo: dict[str, Shortened]

    @property
    def count(self) -> int:
        """Number of candidates."""
        return len(self.candidates)

    def measures(self) -> list[tuple[str, str, Callable[[], Measure]]]:
        """Return each key's code, its word, and how to build its measure for the pool."""
        pools = [self.pool]
        pools += [Pool(context, self.pool.accepted, self.pool.usual) for context in self.contexts[1:]]
        return [
            (code, word, _summed(build, pools) if code in HOST_KEYS else _single(build, self.pool))
            for code, word, build in KEYS
        ]


@frozen
class Shortened:
    """How the pool was shortened to `best`: the keys that decided, the values and texts of the best in each key.

    `dropped` has, for each key that dropped any, its code and word and the (value, text, record) of the losers.
    """

    best: Record
    dropped: tuple[tuple[str, str, tuple[tuple[Any, str, Record], ...]], ...]
    decided: tuple[str, ...]
    keys: Mapping[str, Any]
    texts: Mapping[str, str]


def choose(
    context: Context,
    candidates: Sequence[Record],
    versioned: Callable[[str, str], Sequence[Record]],
    *,
    notes: tuple[str, ...] = (),
) -> Root:
    """Choose the best of `candidates` for the request in `context`.

    Args:
        context: request, host, specs.
        candidates: records of the requested package (or hash prefix) that have a binary.
        versioned: all records of a package name and version, for the usual values of variants (K3, K9).
        notes: what the parser understood differently from what it may have looked like.

    Returns:
        The frozen answer: the choice, all others with the key in which they lose, all rejections.
    """
    return root_of(evaluate((context,), candidates, Usual(versioned)), notes=notes)


def evaluate(contexts: tuple[Context, ...], candidates: Sequence[Record], usual: Usual) -> Evaluation:
    """Run the gates of every host over the candidates; a candidate must pass on all of them."""
    first = contexts[0]
    if first.spec.hash:
        fits = tuple(r.node.hash for r in candidates if r.node.hash.startswith(first.spec.hash))
        for context in contexts:
            context.ambiguous = fits if len(fits) > 1 else ()
    own = [[own_problems(record, context) for context in contexts] for record in candidates]
    first.walk_all([r.node for r, found in zip(candidates, own, strict=True) if not any(found)])
    accepted: list[Record] = []
    failed: list[tuple[Record, list[Mismatch]]] = []
    for record, judged in zip(candidates, own, strict=True):
        found = [p for context, o in zip(contexts, judged, strict=True) for p in o or _below(record, context)]
        failed.append((record, found)) if found else accepted.append(record)
    rejected = tuple(
        _rejection(record, found, first) for record, found in nearest_first(failed, contexts, usual)
    )
    incomplete = [r for r in accepted if _lacking(r, first)]
    whole = [r for r in accepted if not _lacking(r, first)]
    return Evaluation(
        contexts,
        Pool(first, tuple(whole or incomplete), usual),
        tuple(incomplete) if whole else (),
        rejected,
        () if accepted else _relaxations(failed, contexts),
        tuple(candidates),
        {},
    )


def root_of(
    evaluation: Evaluation, *, notes: tuple[str, ...] = (), pick: str = "", full: bool = True
) -> Root:
    """Return the answer for one request.

    Args:
        evaluation: from `evaluate`.
        notes: remarks of the parser.
        pick: a hash of the pool that several roots agreed on (unify); "" for the best by the keys.
        full: give the value of every key, also of those that could not decide any more, and the differences of the
            runners-up.
    """
    context = evaluation.contexts[0]
    ranking = _shorten(evaluation, pick=pick, full=full) if evaluation.pool.accepted else None
    best = ranking.best if ranking else None
    return Root(
        query=str(context.spec),
        candidates=evaluation.count,
        chosen=artifact(best, context.dag) if best else None,
        decided_by=ranking.decided if ranking else (),
        keys=ranking.keys if ranking else {},
        key_texts=ranking.texts if ranking else {},
        others=_runners_up(ranking, evaluation, full=full) if ranking else (),
        rejected=evaluation.rejected,
        relax=evaluation.relax,
        notes=notes + (_remarks(best, context) if best else ()),
        closure_known=best is None or not best.node.partial,
    )


def ordered(evaluation: Evaluation) -> list[Record]:
    """Return the pool, best first."""
    if not evaluation.pool.accepted:
        return []
    ranking = _shorten(evaluation, pick="", full=False)
    return [ranking.best, *(record for group in reversed(ranking.dropped) for _, _, record in group[2])]


def vectors(evaluation: Evaluation, only: frozenset[str]) -> dict[str, tuple[int, ...]]:
    """Return the key vector of the candidates `only`: one whole number a key, so that vectors of roots can be added.

    K11, K14 and K16 are no numbers: their place in the sorted list of these candidates stands for them.
    """
    records = [record for record in evaluation.pool.accepted if record.node.hash in only]
    evaluation.pool.compared = records
    found: dict[str, list[int]] = {hash_: [] for hash_ in only}
    for _, _, build in evaluation.measures():
        measure = build()
        values = {record.node.hash: measure(record)[0] for record in records}
        if not all(isinstance(value, int) for value in values.values()):
            values = _places(values)
        for hash_, numbers in found.items():
            numbers.append(values[hash_])
    return {hash_: tuple(numbers) for hash_, numbers in found.items()}


def _places(values: Mapping[str, Any]) -> dict[str, int]:
    """Return the place of each value among the distinct ones, smallest first."""
    found: dict[str, int] = {}
    last: Any = None
    at = -1
    for value, hash_ in sorted((value, hash_) for hash_, value in values.items()):
        at, last = (at, last) if value == last else (at + 1, value)
        found[hash_] = at
    return found


def artifact(record: Record, dag: Dag) -> Artifact:
    """Return what is shown and fetched of a record."""
    node = record.node
    own = display_compiler(node, dag)
    return Artifact(
        name=node.name,
        version=node.version,
        hash=node.hash,
        platform=node.platform,
        os=node.os,
        target=node.target,
        compiler=f"{own[0]}@{own[1]}" if own else None,
        libc=libc_of(node, dag),
        mirrors=record.mirrors,
    )


def closure_of_choice(context: Context, root: Root) -> Closure | None:
    """Return the closure of the chosen candidate; None when there is none or it is unknown (pages)."""
    if root.chosen is None or not root.closure_known:
        return None
    node = context.dag.get(root.chosen.hash)
    return context.closure(node) if node else None


def own_problems(record: Record, context: Context) -> tuple[Mismatch, ...]:
    """Return the reasons against a candidate that its own attributes give; its closure is not looked at."""
    return tuple(problem for gate in OWN_GATES for problem in gate(record, context))


def _single(build: Callable[[Pool], Measure], pool: Pool) -> Callable[[], Measure]:
    return lambda: build(pool)


def _summed(build: Callable[[Pool], Measure], pools: Sequence[Pool]) -> Callable[[], Measure]:
    def make() -> Measure:
        measures = [build(pool) for pool in pools]

        def measure(record: Record) -> tuple[Any, str]:
            found = [one(record) for one in measures]
            return (sum(value for value, _ in found), found[0][1])

        return measure

    return make


def _lacking(record: Record, context: Context) -> int:
    """Return how many closure nodes are in no mirror; 0 for pages, which do not tell."""
    return 0 if record.node.partial else len(context.closure(record.node).missing)


def problems(record: Record, context: Context) -> list[Mismatch]:
    """Return every reason against a candidate; closure gates are asked only when its own attributes fit."""
    return list(own_problems(record, context)) or _below(record, context)


def _below(record: Record, context: Context) -> list[Mismatch]:
    """Return the reasons that the closure gives."""
    return [problem for gate in CLOSURE_GATES for problem in gate(record, context)]


def _rejection(record: Record, found: list[Mismatch], context: Context) -> Rejection:
    first = found[0]
    also = tuple(dict.fromkeys(problem.code for problem in found[1:]))
    return Rejection(artifact(record, context.dag), first.code, first.have, first.need, also)


def _shorten(evaluation: Evaluation, *, pick: str, full: bool) -> Shortened:
    """Shorten the pool, which is not empty, key by key; with `pick`, the keys are compared with that candidate's."""
    memo, pool = evaluation.memo, evaluation.pool
    if not full and "" in memo and pick in ("", memo[""].best.node.hash):
        return memo[""]
    survivors = list(pool.accepted)
    decided: list[str] = []
    keys: dict[str, Any] = {}
    texts: dict[str, str] = {}
    dropped: list[tuple[str, str, tuple[tuple[Any, str, Record], ...]]] = []
    picked = next((record for record in survivors if record.node.hash == pick), None)
    for code, word, build in evaluation.measures():
        if len(survivors) == 1 and not full and keys:
            break  # the rest cannot decide
        pool.compared = survivors
        measure = build()
        values: list[tuple[Any, str, Record]] = [(*measure(record), record) for record in survivors]
        best = measure(picked)[0] if picked else min(value for value, _, _ in values)
        keys[code] = best
        texts[code] = next(text for value, text, _ in values if value == best)
        losers = sorted((v for v in values if v[0] != best), key=lambda v: (v[0], v[2].node.hash))
        if losers:
            decided += ["unify"] if any(value < best for value, _, _ in losers) else []
            decided += [code] if any(value > best for value, _, _ in losers) else []
            dropped.append((code, word, tuple(losers)))
            survivors = [record for value, _, record in values if value == best]
    if evaluation.incomplete:
        decided.insert(0, "K0")
    found = Shortened(picked or survivors[0], tuple(dropped), tuple(dict.fromkeys(decided)), keys, texts)
    if not full and not picked:
        memo[""] = found
    return found


def _runners_up(ranking: Shortened, evaluation: Evaluation, *, full: bool) -> tuple[Other, ...]:
    """Return the candidates that were not chosen, best first: who was dropped by a later key was equal for longer."""
    pool = evaluation.pool
    found = [
        _loser(value, code, word, ranking.keys[code], ranking.texts[code], pool)
        for code, word, group in reversed(ranking.dropped)
        for value in group
    ]
    found += [_incomplete(record, pool) for record in evaluation.incomplete]
    return _compared(ranking.best, found, pool.context) if full else tuple(found)


def _loser(value: tuple[Any, str, Record], code: str, word: str, best: Any, text: str, pool: Pool) -> Other:
    own, have, record = value
    if own < best:  # better by the keys, and still not chosen: the other roots cannot live with it
        code, have, text = "unify", f"{word} {have}", f"{word} {text}"
    return Other(artifact(record, pool.context.dag), code, have, text, _lacking(record, pool.context))


def _incomplete(record: Record, pool: Pool) -> Other:
    missing = pool.context.closure(record.node).missing
    names = ", ".join(f"{node.name}/{node.hash[:7]}" for node in missing[:3])
    have = f"{len(missing)} closure nodes are in no mirror: {names}"
    return Other(artifact(record, pool.context.dag), "K0", have, "complete", len(missing))


def _compared(best: Record, others: Sequence[Other], context: Context) -> tuple[Other, ...]:
    """Add what differs along the DAG to the nearest others, and to all that look alike."""
    found, dag = [], context.dag
    against = Comparison(best.node, dag, context.below)
    for number, other in enumerate(others):
        record = dag.record(other.artifact.hash)
        if record is not None and (number < _COMPARED or other.worse_by in _TWIN_KEYS):
            other = other.with_differences(against.differences(record.node))
        found.append(other)
    return tuple(found)


def _remarks(best: Record, context: Context) -> tuple[str, ...]:
    """Say what may surprise about the choice."""
    node, notes = best.node, []
    version = parse_version(node.version)
    kind = version_class(version)
    if kind == 2:
        notes.append(f"{node.version} is no release: it sorts above every number, so any @N: includes it")
    elif kind == 1:
        notes.append(f"{node.version} is a pre-release")
    asked = "" if context.spec.requirement or context.spec.versions.is_any else str(context.spec.versions)
    if asked not in ("", node.version) and not {":", ",", "="}.intersection(asked):
        notes.append(f"@{asked} is a range that includes {node.version}; @={asked} means {asked} alone")
    if context.prefix_exists is None and not node.partial:
        others = [
            n for n in context.closure(node).externals if n.external and n.name not in ("glibc", "musl")
        ]
        if others:
            texts = ", ".join(f"{n.name}@{n.version} at {n.external}" for n in others)
            notes.append(f"not looked for, as the answer is for another host: {texts}")
    return tuple(notes)


def _relaxations(
    failed: Iterable[tuple[Record, list[Mismatch]]], contexts: tuple[Context, ...]
) -> tuple[tuple[str, int], ...]:
    """For each single condition, how many candidates would be left if only that were dropped; most first.

    A condition of the request is named by its text, one of the host by its reason code. A candidate counts only if
    its closure passes too.
    """
    counts: dict[str, int] = {}
    for record, found in failed:
        names = {_condition(problem) for problem in found}
        if len(names) != 1:
            continue
        name = names.pop()
        rest = {_condition(p) for c in contexts for p in _below(record, c)}
        if not _lacking(record, contexts[0]) and (found[0].code == name or rest <= {name}):
            counts[name] = counts.get(name, 0) + 1
    return tuple(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _condition(problem: Mismatch) -> str:
    return problem.code if problem.code in HOST_REASONS else problem.need
