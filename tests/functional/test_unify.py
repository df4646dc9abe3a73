"""The search for one set: against brute force, in any order of roots, and within its limit."""

from __future__ import annotations

import itertools
import random

import pytest

from cachefetch.resolver.unify import Option, unify

Vectors = dict[str, tuple[int, ...]]


def problem(seed: int) -> tuple[list[list[Option]], list[Vectors]]:
    """Return random roots with key vectors; small enough for brute force."""
    chance = random.Random(seed)
    roots: list[list[Option]] = []
    vectors: list[Vectors] = []
    for number in range(chance.randint(2, 5)):
        options: list[Option] = []
        table: dict[str, tuple[int, ...]] = {}
        for at in range(chance.randint(1, 5)):
            names = chance.sample("pqrs", chance.randint(0, 3))
            packages = {name: f"{name}{chance.randint(1, 3)}" for name in names}
            hash_ = f"{number}{at}"
            options.append(Option(hash_, {**packages, f"root{number}": hash_}))
            table[hash_] = (chance.randint(0, 2), chance.randint(0, 3), at)
        roots.append(sorted(options, key=lambda option: table[option.hash]))
        vectors.append(table)
    return roots, vectors


def brute(roots: list[list[Option]], vectors: list[Vectors]) -> tuple[str, ...] | None:
    """Try every combination."""
    best: tuple[tuple[int, ...], list[str], tuple[str, ...]] | None = None
    for chosen in itertools.product(*roots):
        taken: dict[str, str] = {}
        if all(taken.setdefault(n, h) == h for option in chosen for n, h in option.packages.items()):
            hashes = tuple(option.hash for option in chosen)
            columns = zip(*(vectors[n][h] for n, h in enumerate(hashes)), strict=True)
            entry = (tuple(map(sum, columns)), sorted(hashes), hashes)
            best = entry if best is None else min(best, entry)
    return best[2] if best else None


@pytest.mark.parametrize("start", range(0, 1000, 100))
def test_as_brute_force(start: int) -> None:
    for seed in range(start, start + 100):
        roots, vectors = problem(seed)
        found = unify(roots, lambda n, only: {h: vectors[n][h] for h in only})  # noqa: B023 -- used within this turn only
        best = brute(roots, vectors)
        assert not found.exhausted
        if best is None:
            assert found.clash
            assert brute([roots[n] for n in found.clash], [vectors[n] for n in found.clash]) is None
            for pair in itertools.combinations(range(len(roots)), len(found.clash) - 1):
                if len(pair) == 2:
                    assert brute([roots[n] for n in pair], [vectors[n] for n in pair]) is not None
        else:
            columns = [tuple(map(sum, zip(*(vectors[n][h] for n, h in enumerate(p)), strict=True)))
                       for p in (found.picks, best)]  # fmt: skip
            assert columns[0] == columns[1]


def test_the_order_of_roots_changes_nothing() -> None:
    for seed in range(200):
        roots, vectors = problem(seed)
        first = unify(roots, lambda n, only: {h: vectors[n][h] for h in only})  # noqa: B023 -- used within this turn only
        order = list(range(len(roots)))
        random.Random(seed).shuffle(order)
        again = unify(
            [roots[n] for n in order],
            lambda n, only: {h: vectors[order[n]][h] for h in only},  # noqa: B023 -- used within this turn only
        )
        assert set(again.picks) == set(first.picks)
        assert bool(again.clash) == bool(first.clash)


def test_the_limit_is_told() -> None:
    roots = [
        [Option(f"{n}{at}", {"p": f"p{at}", f"r{n}": f"{n}{at}"}) for at in ((0, 1) if n else (1, 0))]
        for n in range(3)
    ]
    found = unify(roots, lambda n, only: {h: (n, int(h)) for h in only}, limit=1)
    assert found.exhausted
    assert not found.picks


def test_many_roots_that_share_packages_take_little_work() -> None:
    """Twelve roots of 400 builds over eight pythons and two of five other packages: far below the limit."""
    rng = random.Random(5)
    roots: list[list[Option]] = []
    for root in range(12):
        options = []
        for build in range(400):
            packages = {"python": f"p{rng.randrange(8)}", f"r{root}": f"{root}-{build}"}
            packages |= {f"a{a}": f"a{a}-{rng.randrange(8)}" for a in rng.sample(range(5), 2)}
            options.append(Option(f"{root}-{build}", packages))
        roots.append(options)
    found = unify(roots, lambda n, only: {h: (n, int(h.split("-")[1])) for h in only}, limit=500_000)
    assert not found.exhausted
    assert len(found.picks) == 12


def test_more_roots_than_places_is_a_clash_of_all() -> None:
    roots = [
        [Option(f"{n}-{at}", {f"slot{at}": f"{at}-{n}", f"r{n}": f"{n}-{at}"}) for at in range(5)]
        for n in range(6)
    ]
    found = unify(roots, lambda _, only: {h: (int(h.split("-")[1]),) for h in only})
    assert found.clash == (0, 1, 2, 3, 4, 5)
    assert not found.exhausted
