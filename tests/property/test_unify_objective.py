"""Sets for pairs of roots on real specs: against brute force, and against the objective that counts shared nodes once.

docs/decisions/0006-unify-objective.md: the plain sum of the roots' key vectors is taken. Every pair is tried by hand
for both objectives; they choose the same sets on the largest fixture. `make test` runs a share of the hosts.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from tests import conformance_reuse
from tests.tools.indexes import records

from cachefetch.answers import resolve
from cachefetch.resolver import rank
from cachefetch.resolver.index.query import PageSource, Specs
from cachefetch.resolver.model import Host, Node, Record
from cachefetch.resolver.rules.context import Context, Policy
from cachefetch.resolver.rules.keys import KEYS, Pool, Usual
from cachefetch.resolver.spec.parser import parse
from cachefetch.sources import Sources

NAMES = ("py-multidict", "py-multidict@6.0.4", "py-yarl", "hdf5", "hdf5+mpi", "openmpi", "mpich", "cmake", "zlib",
         "mixed-lang", "python", "py-pip", "py-setuptools", "hwloc", "zlib-ng")  # fmt: skip
EXEMPT = ("gcc-runtime", "intel-oneapi-runtime", "compiler-wrapper")
CODES = [code for code, _, _ in KEYS]
SPECS = Specs([PageSource("m", records("v3-unsigned"))])


def hosts() -> list[Host]:
    path = conformance_reuse.HERE / "data" / "oracles" / "reuse.json"
    return [conformance_reuse.host_of(entry["host"]) for entry in json.loads(path.read_bytes())["hosts"]]


def evaluated(name: str, host: Host) -> rank.Evaluation:
    spec = parse(name)
    candidates = [record for record in SPECS.named(spec.name) if record.has_binary]
    return rank.evaluate((Context(spec, host, SPECS, Policy()),), candidates, Usual(SPECS.versioned))


def whole(record: Record, evaluation: rank.Evaluation) -> tuple[Node, ...]:
    return (record.node, *evaluation.contexts[0].dependencies(record.node))


def sets(found: Sequence[rank.Evaluation]) -> Iterator[tuple[Record, ...]]:
    """Yield every combination in which no package is there twice."""
    for combination in itertools.product(*(evaluation.pool.accepted for evaluation in found)):
        taken: dict[str, str] = {}
        nodes = [n for r, e in zip(combination, found, strict=True) for n in whole(r, e)]
        if all(taken.setdefault(n.name, n.hash) == n.hash for n in nodes if n.name not in EXEMPT):
            yield combination


def once(
    combination: Sequence[Record], found: Sequence[rank.Evaluation], total: list[int], joint: Pool
) -> list[int]:
    """Return the sum with the nodes that both roots share counted once in K8 to K10, K12 and K15."""
    nodes = {n.hash: n for r, e in zip(combination, found, strict=True) for n in whole(r, e)}
    below = [n for h, n in nodes.items() if h not in {r.node.hash for r in combination}]
    context = joint.context
    used = {(v, e.name) for n in nodes.values() for e in n.closure_edges() for v in e.virtuals}
    orders = [(context.providers(virtual), name) for virtual, name in used]
    ranks = joint.dependency_ranks
    counted: dict[str, Any] = {
        "K8": sum(o.index(name) if name in o else len(o) for o, name in orders if o),
        "K9": sum(sum(n.variants.get(v) != u for v, u in joint.usual.variants(n).items()) for n in below),
        "K10": sum(ranks.get((n.name, n.version), 0) for n in below),
        "K12": sum(
            n.target != nodes[e.hash].target
            for n in nodes.values()
            for e in n.closure_edges()
            if e.hash in nodes
        ),
        "K15": len(nodes),
    }
    return [counted.get(code, value) for code, value in zip(CODES, total, strict=True)]


def check(host: Host) -> tuple[int, int]:
    """Try every pair; return how many have a set and how many have none."""
    known = {name: evaluated(name, host) for name in NAMES}
    fits = clashes = 0
    for pair in itertools.combinations(NAMES, 2):
        found = [known[name] for name in pair]
        if parse(pair[0]).name == parse(pair[1]).name or not all(e.pool.accepted for e in found):
            continue
        answer = resolve(list(pair), Sources(SPECS, (), (), False), host, policy=Policy(), local_host=False)
        vectors = [rank.vectors(e, frozenset(record.node.hash for record in e.pool.accepted)) for e in found]
        joint = Pool(
            found[0].contexts[0], (*found[0].pool.accepted, *found[1].pool.accepted), found[0].pool.usual
        )
        plain, shared = [], []
        for combination in sets(found):
            hashes = [record.node.hash for record in combination]
            columns = zip(*(v[h] for v, h in zip(vectors, hashes, strict=True)), strict=True)
            total = [sum(column) for column in columns]
            plain.append((total, sorted(hashes), hashes))
            shared.append((once(combination, found, total, joint), sorted(hashes), hashes))
        if answer.status == "conflict":
            assert not plain, pair
            clashes += 1
            continue
        ours = [root.chosen.hash for root in answer.roots if root.chosen]
        assert ours == min(plain)[2], pair
        assert ours == min(shared)[2], pair
        fits += 1
    return fits, clashes


def test_pairs_on_some_hosts() -> None:
    counts = [check(host) for host in hosts()[1:16:7]]
    assert sum(fits for fits, _ in counts) > 50
    assert sum(clashes for _, clashes in counts) > 0


@pytest.mark.long
@pytest.mark.parametrize("number", range(16))
def test_pairs_on_every_host(number: int) -> None:
    assert check(hosts()[number])[0] > 0
