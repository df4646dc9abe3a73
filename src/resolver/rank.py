"""Choose one candidate for one request: gates, then keys in order, each shortening the list of the best (pure)."""

from __future__ import annotations

from .resolution import Artifact, Other, Rejection, Root
from .rules.context import Context
from .rules.gates import CLOSURE_GATES, OWN_GATES, libc_of
from .rules.keys import KEYS, Pool
from .spec.matching import display_compiler

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    from .closure import Closure
    from .model import Dag, Mismatch, Record

#: Reasons in the order in which one is named as the first; a code that is not listed comes where its gate stands.
MAX_SUGGESTIONS = 3


def choose(
    context: Context,
    candidates: Sequence[Record],
    named: Callable[[str], Sequence[Record]],
    *,
    notes: tuple[str, ...] = (),
) -> Root:
    """Choose the best of `candidates` for the request in `context`.

    Args:
        context: request, host, specs.
        candidates: records of the requested package (or hash prefix) that have a binary.
        named: all records of a package name, for the reference values of variants (K3, K9).
        notes: what the parser understood differently from what it may have looked like.

    Returns:
        The frozen answer: the choice, all others with the key in which they lose, all rejections.
    """
    accepted: list[Record] = []
    rejected: list[Rejection] = []
    problems: list[list[Mismatch]] = []
    for record in candidates:
        found = _problems(record, context)
        if found:
            rejected.append(_rejection(record, found, context))
            problems.append(found)
        else:
            accepted.append(record)
    pool = Pool(context, tuple(accepted), named)
    best, others, decided, keys = _order(pool)
    return Root(
        query=str(context.spec),
        candidates=len(candidates),
        chosen=artifact(best, context.dag) if best else None,
        decided_by=tuple(decided),
        keys=keys,
        others=tuple(others),
        rejected=tuple(sorted(rejected, key=lambda item: (_nearness(item), item.artifact.hash))),
        relax=_relaxations(problems),
        notes=notes,
        closure_known=best is None or not best.node.partial,
    )


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


def problems(record: Record, context: Context) -> tuple[Mismatch, ...]:
    """Return every reason against a candidate."""
    return tuple(_problems(record, context))


def _problems(record: Record, context: Context) -> list[Mismatch]:
    """Return every reason against a candidate; closure gates are asked only when its own attributes fit."""
    found = list(own_problems(record, context))
    if not found:
        found = [problem for gate in CLOSURE_GATES for problem in gate(record, context)]
    return found


def _rejection(record: Record, found: list[Mismatch], context: Context) -> Rejection:
    first = found[0]
    also = tuple(dict.fromkeys(problem.code for problem in found[1:]))
    return Rejection(artifact(record, context.dag), first.code, first.have, first.need, also)


def _nearness(item: Rejection) -> tuple[int, int]:
    """Fewest failing gates first; of those, the ones that failed late."""
    return (len(item.also), -_GATE_ORDER.get(item.reason, 0))


#: Reasons that the host gives, in the order of the gates; those of the request come before all of them.
_LATE_REASONS = (
    "platform",
    "target",
    "target-unknown",
    "libc-kind",
    "libc-prefix",
    "libc-unknown",
    "libc",
    "os",
    "dev",
    "target-dep",
    "closure",
    "external",
    "runtime",
)
_GATE_ORDER = {code: number for number, code in enumerate(_LATE_REASONS, start=1)}


def _order(pool: Pool) -> tuple[Record | None, list[Other], list[str], dict[str, str]]:
    """Return (best, the others best first, codes of the keys that decided, values of the best by key)."""
    survivors = list(pool.accepted)
    if not survivors:
        return None, [], [], {}
    decided: list[str] = []
    keys: dict[str, str] = {}
    dropped: list[list[Other]] = []
    for code, _, build in KEYS:
        if len(survivors) == 1 and keys:
            break  # the rest cannot decide; not evaluating them saves decoding the whole closure
        measure = build(pool)
        values: list[tuple[Any, str, Record]] = [(*measure(record), record) for record in survivors]
        best = min(value for value, _, _ in values)
        text = next(text for value, text, _ in values if value == best)
        keys[code] = text
        losers = sorted((v for v in values if v[0] != best), key=lambda v: (v[0], v[2].node.hash))
        if losers:
            decided.append(code)
            dropped.append([_other(record, code, have, text, pool) for _, have, record in losers])
            survivors = [record for value, _, record in values if value == best]
    # Who was dropped by a later key was equal to the best for longer.
    return survivors[0], [other for group in reversed(dropped) for other in group], decided, keys


def _other(record: Record, code: str, have: str, best: str, pool: Pool) -> Other:
    missing = 0 if record.node.partial else len(pool.context.closure(record.node).missing)
    return Other(artifact(record, pool.context.dag), code, have, best, missing)


def _relaxations(problems: Iterable[list[Mismatch]]) -> tuple[tuple[str, int], ...]:
    """For each single condition, how many candidates would be left if only that were dropped; most first.

    A condition of the request is named by its text, one of the host by its reason code.
    """
    counts: dict[str, int] = {}
    for found in problems:
        names = {_condition(problem) for problem in found}
        if len(names) == 1:
            name = names.pop()
            counts[name] = counts.get(name, 0) + 1
    return tuple(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _condition(problem: Mismatch) -> str:
    return problem.code if problem.code in _GATE_ORDER else problem.need
