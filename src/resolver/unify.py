"""Several roots as one set: every package in one build over the union of all closures (pure).

The objective is the sum of the roots' key vectors, compared key by key; docs/decisions/0006-unify-objective.md says
why shared nodes are not counted once. So when the best candidates of all roots agree, they are the answer. Otherwise:
drop what another root can never live with (arc consistency), keep of candidates that need the same builds the best,
split into groups of roots that share packages, and search each group best first. The order of roots never matters.
"""

from __future__ import annotations

from heapq import heappop, heappush
from itertools import combinations

from ..values import frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Vector = tuple[int, ...]

#: States that the search may look at before it says that the request is too ambiguous.
MAX_STATES = 200_000


@frozen
class Option:
    """A candidate of a root: its DAG `hash`, and `packages`, name -> DAG hash, of its closure with itself.

    Packages that may be there twice (runtimes, libc, externals) are left out.
    """

    hash: str
    packages: Mapping[str, str]


@frozen
class Unified:
    """What was found: a hash for each root in `picks`, or the smallest group of `clash`ing roots (their numbers).

    `packages` are the names on which the clash rests, with the hashes that each root of the group can offer.
    `exhausted` is True when the search gave up.
    """

    picks: tuple[str, ...] = ()
    clash: tuple[int, ...] = ()
    packages: tuple[tuple[str, tuple[tuple[str, ...], ...]], ...] = ()
    exhausted: bool = False


def unify(
    roots: Sequence[Sequence[Option]],
    vectors: Callable[[int, frozenset[str]], Mapping[str, Vector]],
    *,
    limit: int = MAX_STATES,
) -> Unified:
    """Choose one option for each root so that no package is needed in two builds.

    Args:
        roots: the options of each root, best first; none is empty.
        vectors: returns the key vectors of some options of the root with that number, by hash.
        limit: how many states the search may look at.
    """
    first = [options[0] for options in roots]
    if _compatible_all(first):
        return Unified(tuple(option.hash for option in first))
    kept = _arc_consistent(_contested(roots))
    if kept is None:
        return _clash(roots)
    picks: dict[int, str] = {}
    for group in _groups(kept):
        found = _search([kept[n] for n in group], lambda at, only: vectors(group[at], only), limit)  # noqa: B023 -- used within this turn only
        if found is None:
            return Unified(clash=tuple(group), exhausted=True)
        if not found:
            return _clash(roots)
        picks.update(zip(group, found, strict=True))
    return Unified(tuple(picks[number] for number in range(len(roots))))


def _compatible_all(options: Sequence[Option]) -> bool:
    taken: dict[str, str] = {}
    for option in options:
        for name, hash_ in option.packages.items():
            if taken.setdefault(name, hash_) != hash_:
                return False
    return True


def _contested(roots: Sequence[Sequence[Option]]) -> list[list[Option]]:
    """Return the options of all roots with only those packages that exist in several builds."""
    builds: dict[str, set[str]] = {}
    for each in roots:
        for option in each:
            for name, hash_ in option.packages.items():
                builds.setdefault(name, set()).add(hash_)
    several = {name for name, hashes in builds.items() if len(hashes) > 1}
    return [
        [Option(o.hash, {n: h for n, h in o.packages.items() if n in several}) for o in options]
        for options in roots
    ]


def _arc_consistent(roots: list[list[Option]]) -> list[list[Option]] | None:
    """Drop options whose build of a package is none of those that another root must choose from."""
    changed = True
    while changed:
        changed = False
        for name, allowed in _required(roots).items():
            for number, options in enumerate(roots):
                left = [o for o in options if name not in o.packages or o.packages[name] in allowed]
                if not left:
                    return None
                if len(left) < len(options):
                    roots[number], changed = left, True
    return roots


def _required(roots: list[list[Option]]) -> dict[str, set[str]]:
    """Return, for each package that some root has in every option, the builds that all such roots can offer."""
    required: dict[str, set[str]] = {}
    for options in roots:
        for name in set(options[0].packages).intersection(*(o.packages for o in options[1:])):
            offered = {option.packages[name] for option in options}
            required[name] = required[name] & offered if name in required else offered
    return required


def _groups(roots: list[list[Option]]) -> list[list[int]]:
    """Return the groups of roots that share contested packages, directly or through others."""
    group = list(range(len(roots)))
    owner: dict[str, int] = {}
    for number, options in enumerate(roots):
        for name in {name for option in options for name in option.packages}:
            other = group[owner.setdefault(name, number)]
            mine = group[number]
            group = [other if g == mine else g for g in group]
    return [[n for n in range(len(roots)) if group[n] == g] for g in sorted(set(group))]


def _search(
    roots: list[list[Option]],
    vectors: Callable[[int, frozenset[str]], Mapping[str, Vector]],
    limit: int,
) -> tuple[str, ...] | None:
    """Return the best consistent hashes, () when there are none, None when the limit was reached."""
    if len(roots) == 1:
        return (roots[0][0].hash,)
    table = [vectors(n, frozenset(o.hash for o in options)) for n, options in enumerate(roots)]
    slim = [_dominant(options, table[n]) for n, options in enumerate(roots)]
    order = sorted(range(len(slim)), key=lambda n: (len(slim[n]), slim[n][0].hash))
    zero: Vector = (0,) * len(next(iter(table[0].values())))
    heap: list[tuple[Vector, tuple[str, ...], int, dict[str, str]]] = []
    bound = _bound(zero, order, {}, slim, table)
    if bound is not None:
        heappush(heap, (bound, (), 0, {}))
    states = serial = 0
    complete: list[tuple[str, ...]] = []
    best: Vector | None = None
    while heap and (best is None or heap[0][0] == best):
        _, hashes, _, taken = heappop(heap)
        states += 1
        if states > limit:
            return None
        if len(hashes) == len(order):
            best = _total(zero, hashes, order, table)
            complete.append(hashes)
            continue
        number, spent = order[len(hashes)], _total(zero, hashes, order, table)
        for option in slim[number]:
            if not _fits(option, taken):
                continue
            now = {**taken, **option.packages}
            done = _add(spent, table[number][option.hash])
            bound = _bound(done, order[len(hashes) + 1 :], now, slim, table)
            if bound is not None:
                serial += 1
                heappush(heap, (bound, (*hashes, option.hash), serial, now))
    if not complete:
        return ()
    chosen = min(complete, key=sorted)
    return tuple(chosen[order.index(number)] for number in range(len(roots)))


def _dominant(options: list[Option], vectors: Mapping[str, Vector]) -> list[Option]:
    """Of options that need the same contested builds, apart from the root's own, only the best can win."""
    best: dict[frozenset[tuple[str, str]], Option] = {}
    for option in sorted(options, key=lambda o: vectors[o.hash]):
        best.setdefault(frozenset(option.packages.items()), option)
    return list(best.values())


def _bound(
    spent: Vector,
    rest: Sequence[int],
    taken: dict[str, str],
    roots: list[list[Option]],
    table: list[Mapping[str, Vector]],
) -> Vector | None:
    """Return what a full assignment costs at least; None when some root has no option left.

    Vectors are compared key by key, an order that addition keeps: the sum of the least ones is a lower bound.
    """
    total = spent
    for number in rest:
        fitting = [table[number][o.hash] for o in roots[number] if _fits(o, taken)]
        if not fitting:
            return None
        total = _add(total, min(fitting))
    return total


def _fits(option: Option, taken: Mapping[str, str]) -> bool:
    return all(taken.get(name, hash_) == hash_ for name, hash_ in option.packages.items())


def _add(one: Vector, two: Vector) -> Vector:
    return tuple(a + b for a, b in zip(one, two, strict=True))


def _total(
    zero: Vector, hashes: Sequence[str], order: Sequence[int], table: list[Mapping[str, Vector]]
) -> Vector:
    total = zero
    for number, hash_ in zip(order, hashes, strict=False):
        total = _add(total, table[number][hash_])
    return total


def _clash(roots: Sequence[Sequence[Option]]) -> Unified:
    """Return the smallest group of roots that cannot live together; pairs and triples are looked for."""
    for size in (2, 3):
        for group in combinations(range(len(roots)), size):
            if not _live_together([roots[number] for number in group]):
                return Unified(clash=group, packages=_reasons([roots[number] for number in group]))
    return Unified(clash=tuple(range(len(roots))), packages=_reasons(roots))


def _live_together(roots: Sequence[Sequence[Option]], taken: Mapping[str, str] | None = None) -> bool:
    if not roots:
        return True
    now = taken or {}
    signatures = {frozenset(o.packages.items()): o for o in roots[0] if _fits(o, now)}
    return any(_live_together(roots[1:], {**now, **o.packages}) for o in signatures.values())


def _reasons(roots: Sequence[Sequence[Option]]) -> tuple[tuple[str, tuple[tuple[str, ...], ...]], ...]:
    """Return the packages in which the roots of a clash offer different builds; those without any in common first."""
    shared = {n for options in roots for o in options for n in o.packages}
    found = []
    for name in sorted(shared):
        offers = [tuple(sorted({o.packages[name] for o in each if name in o.packages})) for each in roots]
        sets = [set(offer) for offer in offers if offer]
        if len(sets) > 1 and len(set().union(*sets)) > 1:
            found.append((bool(set.intersection(*sets)), name, tuple(offers)))
    apart = [(name, offers) for common, name, offers in found if not common]
    return tuple(apart or [(name, offers) for _, name, offers in found])
