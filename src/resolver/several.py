"""Several roots as one set: what `unify` decides, in terms of candidates, and the words for a conflict (pure)."""

from __future__ import annotations

from ..values import frozen
from . import rank
from .closure import closure_of, label
from .relax import without_each
from .rules.context import Context
from .unify import Option, Unified, unify

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .model import Dag, Record

#: Packages of which several versions may be loaded together (Spack 1.1, docs/semantics.md).
EXEMPT = ("gcc-runtime", "intel-oneapi-runtime", "compiler-wrapper")
#: Work of the search for each condition that might be dropped: a hint is not worth more.
_HINT_WORK = 200_000


@frozen
class Together:
    """`picks` has the hash for each root by its number; else `conflicts` says in words why there is no common set.

    `relax` names single conditions without which there would be one: (query, condition).
    """

    picks: dict[int, str]
    conflicts: tuple[str, ...] = ()
    relax: tuple[tuple[str, str], ...] = ()


def together(found: Sequence[rank.Evaluation]) -> Together:
    """Return the candidates of all roots that go together best. Roots without a candidate are left out."""
    numbers = [n for n, evaluation in enumerate(found) if evaluation.pool.accepted]
    if len(numbers) < 2:
        return Together({})
    roots = [found[n] for n in numbers]
    options = [_options(evaluation) for evaluation in roots]
    result = unify(options, lambda at, only: rank.vectors(roots[at], only))
    if result.picks:
        return Together(dict(zip(numbers, result.picks, strict=True)))
    queries = [_query(roots[at]) for at in result.clash]
    if result.exhausted:
        names = ", ".join(sorted(queries))
        text = f"{names}: too many combinations; narrow them down, for example with ^python@VERSION"
        return Together({}, (text,))
    lines = tuple(_clash_lines(result, queries, found[0].contexts[0].dag))
    return Together({}, lines, tuple(sorted(_relaxations(roots, options, result))))


def _query(evaluation: rank.Evaluation) -> str:
    return str(evaluation.contexts[0].spec)


def _options(evaluation: rank.Evaluation) -> list[Option]:
    """Return the candidates of a root, best first."""
    return [_option(record, evaluation.contexts[0]) for record in rank.ordered(evaluation)]


def _option(record: Record, context: Context) -> Option:
    nodes = (record.node, *context.dependencies(record.node))
    return Option(record.node.hash, {node.name: node.hash for node in nodes if node.name not in EXEMPT})


def _clash_lines(result: Unified, queries: Sequence[str], dag: Dag) -> Iterator[str]:
    """Word a clash: the roots, the package, and the builds that each of them can use."""
    for name, offers in _causes_first(result, dag)[:3]:
        parts = []
        for query, offer in sorted(zip(queries, offers, strict=True)):
            builds = [hash_ for hash_ in offer if hash_]
            labels = [label(node) for hash_ in builds[:3] if (node := dag.get(hash_))]
            more = f" and {len(builds) - 3} more" if len(builds) > 3 else ""
            text = " or ".join(labels) + more
            if labels and len(builds) == len(offer):
                parts.append(f"{query} can only use {text}")
            elif labels:
                parts.append(f"{query} can use {text} or do without it")
        yield f"{name}: " + "; ".join(parts)


def _causes_first(result: Unified, dag: Dag) -> list[tuple[str, tuple[tuple[str, ...], ...]]]:
    """Return the packages of a clash, those first that need no other of them: others differ because they do."""
    names = {name for name, _ in result.packages}

    def below(entry: tuple[str, tuple[tuple[str, ...], ...]]) -> int:
        name, offers = entry
        node = next((node for offer in offers for hash_ in offer[:1] if (node := dag.get(hash_))), None)
        found = {record.node.name for record in closure_of(node, dag).records} if node else set()
        return len(found & names - {name})

    return sorted(result.packages, key=lambda entry: (below(entry), entry[0]))


def _relaxations(
    roots: Sequence[rank.Evaluation], options: Sequence[Sequence[Option]], result: Unified
) -> Iterator[tuple[str, str]]:
    """Yield each single condition of a clashing root without which all roots have a common set."""
    for at in result.clash:
        evaluation = roots[at]
        for text, spec in without_each(evaluation.contexts[0].spec):
            contexts = tuple(context.asking(spec) for context in evaluation.contexts)
            wider = rank.evaluate(contexts, evaluation.candidates, evaluation.pool.usual)
            if not wider.pool.accepted:
                continue
            trial = [*options[:at], _options(wider), *options[at + 1 :]]
            numbered = [wider if n == at else root for n, root in enumerate(roots)]
            again = unify(trial, lambda n, only: rank.vectors(numbered[n], only), limit=_HINT_WORK)  # noqa: B023 -- used within this turn only
            if again.picks:
                yield _query(evaluation), text
