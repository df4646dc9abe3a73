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

#: Work (looks at what one root has left) after which the search says that there are too many combinations. Counted,
#: not timed, so that every machine gives the same answer: a few seconds.
MAX_WORK = 3_000_000


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

    `packages` are the names on which the clash rests, with the hashes that each root of the group can offer
    ("" at the end: some candidate of it does without the package).
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
    limit: int = MAX_WORK,
) -> Unified:
    """Choose one option for each root so that no package is needed in two builds.

    Args:
        roots: the options of each root, best first; none is empty.
        vectors: returns the key vectors of some options of the root with that number, by hash.
        limit: how much work the search may do, see `MAX_WORK`.
    """
    first = [options[0] for options in roots]
    if _compatible_all(first):
        return Unified(tuple(option.hash for option in first))
    kept = _arc_consistent(_contested(roots))
    if kept is None:
        return _clash(roots, limit)
    picks: dict[int, str] = {}
    for group in _groups(kept):
        found = _search([kept[n] for n in group], lambda at, only: vectors(group[at], only), limit)  # noqa: B023 -- used within this turn only
        if found is None:
            return Unified(clash=tuple(group), exhausted=True)
        if not found:
            return _clash(roots, limit)
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
    """Return the options of all roots with only the packages in several builds that several roots need."""
    builds: dict[str, set[str]] = {}
    users: dict[str, set[int]] = {}
    for number, each in enumerate(roots):
        for option in each:
            for name, hash_ in option.packages.items():
                builds.setdefault(name, set()).add(hash_)
                users.setdefault(name, set()).add(number)
    several = {name for name, hashes in builds.items() if len(hashes) > 1 and len(users[name]) > 1}
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
    """Return the best consistent hashes, () when there are none, None when the limit was reached.

    Best first over states: what each root may still take, as bits of a number, the best option lowest. A state is
    split in two: its narrowest root takes its best option, or never does.
    """
    if len(roots) == 1:
        return (roots[0][0].hash,)
    table = [vectors(n, frozenset(o.hash for o in options)) for n, options in enumerate(roots)]
    slim = [_dominant(options, table[n]) for n, options in enumerate(roots)]
    costs = _packed(slim, table)
    fits = _Fits(slim)
    full = tuple((1 << len(options)) - 1 for options in slim)
    serial = 0
    heap = [(sum(cost[0] for cost in costs), 0, serial, full, frozenset(range(len(slim))))]
    found: list[tuple[str, ...]] = []
    best: int | None = None
    while heap and (best is None or heap[0][0] == best):
        bound, depth, _, left, open_ = heappop(heap)
        fits.work += len(slim)
        if fits.work > limit:
            return None
        if not open_:
            best = bound
            found.append(tuple(slim[n][_lowest(bits)].hash for n, bits in enumerate(left)))
            continue
        number = min(open_, key=lambda n: (left[n].bit_count(), slim[n][_lowest(left[n])].hash))
        place = _lowest(left[number])
        taken = fits.after(left, number, place, open_)
        if taken is not None:
            total = sum(cost[_lowest(bits)] for cost, bits in zip(costs, taken, strict=True))
            serial += 1
            heappush(heap, (total, depth - 1, serial, taken, open_ - {number}))
        if rest := left[number] & ~(1 << place):
            total = bound - costs[number][place] + costs[number][_lowest(rest)]
            serial += 1
            heappush(heap, (total, depth, serial, (*left[:number], rest, *left[number + 1 :]), open_))
    return min(found, key=sorted) if found else ()


class _Fits:
    """Which options of each root go with an option of another; counts the `work` that this takes."""

    def __init__(self, roots: Sequence[Sequence[Option]]) -> None:
        self._roots = roots
        self._masks = [_masks(options) for options in roots]
        self._known: dict[tuple[int, int, int], int] = {}
        self.work = 0

    def mask(self, number: int, place: int, other: int) -> int:
        """Return the options of root `other`, as bits, that go with option `place` of root `number`."""
        key = (number, place, other)
        found = self._known.get(key)
        if found is None:
            found, masks = (1 << len(self._roots[other])) - 1, self._masks[other]
            packages = self._roots[number][place].packages
            self.work += len(packages)
            for name, hash_ in packages.items():
                if name in masks:
                    without, builds = masks[name]
                    found &= without | builds.get(hash_, 0)
            self._known[key] = found
        return found

    def after(
        self, left: tuple[int, ...], number: int, place: int, open_: frozenset[int]
    ) -> tuple[int, ...] | None:
        """Return what is left to each root once root `number` takes option `place`; None when one has nothing."""
        now = list(left)
        now[number] = 1 << place
        self.work += len(open_)
        for other in open_:
            if other != number:
                now[other] &= self.mask(number, place, other)
                if not now[other]:
                    return None
        return tuple(now)


def _masks(options: Sequence[Option]) -> dict[str, tuple[int, dict[str, int]]]:
    """Return by package: the options without it, as bits, and those with each build."""
    found: dict[str, tuple[int, dict[str, int]]] = {}
    every = (1 << len(options)) - 1
    for place, option in enumerate(options):
        for name, hash_ in option.packages.items():
            without, builds = found.get(name, (every, {}))
            builds[hash_] = builds.get(hash_, 0) | 1 << place
            found[name] = without & ~(1 << place), builds
    return found


def _lowest(bits: int) -> int:
    """Return the place of the lowest bit that is set."""
    return (bits & -bits).bit_length() - 1


def _packed(slim: list[list[Option]], table: list[Mapping[str, Vector]]) -> list[list[int]]:
    """Return the vectors as whole numbers: they compare and add up as the vectors do, key by key."""
    used = [table[n][option.hash] for n, options in enumerate(slim) for option in options]
    least = [min(column) for column in zip(*used, strict=True)]
    widths = [
        ((max(column) - low) * len(slim)).bit_length()
        for column, low in zip(zip(*used, strict=True), least, strict=True)
    ]

    def number(vector: Vector) -> int:
        packed = 0
        for value, low, width in zip(vector, least, widths, strict=True):
            packed = packed << width | (value - low)
        return packed

    return [[number(table[n][option.hash]) for option in options] for n, options in enumerate(slim)]


def _dominant(options: list[Option], vectors: Mapping[str, Vector]) -> list[Option]:
    """Of options that need the same contested builds only the best can win; best first."""
    best: dict[frozenset[tuple[str, str]], Option] = {}
    for option in sorted(options, key=lambda o: (vectors[o.hash], o.hash)):
        best.setdefault(frozenset(option.packages.items()), option)
    return list(best.values())


def _clash(roots: Sequence[Sequence[Option]], limit: int) -> Unified:
    """Return the smallest group of roots that cannot live together; pairs and triples are looked for."""
    slim = [_distinct(options) for options in _contested(roots)]
    fits = _Fits(slim)
    for size in (2, 3):
        for group in combinations(range(len(roots)), size):
            left = tuple((1 << len(options)) - 1 for options in slim)
            if not _live_together(fits, left, frozenset(group), limit):
                return Unified(clash=group, packages=_reasons([roots[number] for number in group]))
    return Unified(clash=tuple(range(len(roots))), packages=_reasons(roots))


def _distinct(options: Sequence[Option]) -> list[Option]:
    """Return one option for each set of contested builds."""
    return list({frozenset(option.packages.items()): option for option in options}.values())


def _live_together(fits: _Fits, left: tuple[int, ...], open_: frozenset[int], limit: int) -> bool:
    """Return False when the open roots have no common set; True also when the limit was reached."""
    if not open_:
        return True
    number = min(open_, key=lambda n: (left[n].bit_count(), n))
    bits = left[number]
    while bits and fits.work <= limit:
        place = _lowest(bits)
        bits &= bits - 1
        now = fits.after(left, number, place, open_)
        if now is not None and _live_together(fits, now, open_ - {number}, limit):
            return True
    return bool(bits)


def _offer(name: str, options: Sequence[Option]) -> tuple[str, ...]:
    """Return the builds of a package that a root can use, and "" at the end when some option needs none."""
    builds = tuple(sorted({o.packages[name] for o in options if name in o.packages}))
    return (*builds, "") if builds and any(name not in o.packages for o in options) else builds


def _reasons(roots: Sequence[Sequence[Option]]) -> tuple[tuple[str, tuple[tuple[str, ...], ...]], ...]:
    """Return the packages in which the roots of a clash offer different builds; those without any in common first."""
    shared = {n for options in roots for o in options for n in o.packages}
    found = []
    for name in sorted(shared):
        offers = [_offer(name, each) for each in roots]
        sets = [set(offer) - {""} for offer in offers if offer]
        if len(sets) > 1 and len(set().union(*sets)) > 1:
            found.append((bool(set.intersection(*sets)), name, tuple(offers)))
    apart = [(name, offers) for common, name, offers in found if not common]
    return tuple(apart or [(name, offers) for _, name, offers in found])
