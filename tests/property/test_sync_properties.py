"""Laws of the planner and of the index writer."""

from __future__ import annotations

import itertools
import json

from hypothesis import given
from hypothesis import strategies as st

from cachefetch.fetch.mirror.journal import Row
from cachefetch.fetch.mirror.plan import make_plan
from cachefetch.resolver.index.writer import index_text, with_closure

digests = st.text("0123456789abcdef", min_size=64, max_size=64)
blobs = st.dictionaries(digests, st.integers(0, 1 << 40), max_size=20)
names = st.sampled_from("abcdefgh")
graphs = st.dictionaries(names, st.lists(names, max_size=4), max_size=8)


@given(blobs, blobs)
def test_after_a_plan_there_is_nothing_to_copy(needed: dict[str, int], there: dict[str, int]) -> None:
    plan = make_plan([], [], needed, there, {})
    after = {**there, **plan.copy}
    assert make_plan([], [], needed, after, {}).copy == {}
    assert len(plan.copy) + plan.present == len(needed)


@given(blobs)
def test_a_mirror_needs_nothing_from_itself(there: dict[str, int]) -> None:
    pairs = list(there.items())
    rows = [Row(str(n), *one, *two, "good", "") for n, (one, two) in enumerate(itertools.pairwise(pairs))]
    assert make_plan([], rows, there, there, {}).copy == {}


@given(graphs, st.sets(names))
def test_the_index_depends_on_content_not_on_the_way_to_it(
    graph: dict[str, list[str]], held: set[str]
) -> None:
    def node(name: str) -> dict[str, object]:
        edges = [
            {"name": c, "hash": c, "parameters": {"deptypes": ["link"], "virtuals": []}} for c in graph[name]
        ]
        return {"name": name, "dependencies": edges, "annotations": {}, "hash": name}

    held &= graph.keys()
    lookup = {name: (node(name), 5) for name in graph}.get
    one = index_text(with_closure(sorted(held), lookup), held)
    two = index_text(with_closure(sorted(held, reverse=True), lookup), held)
    assert one == two
    installs = json.loads(one)["database"]["installs"]
    assert {hash_ for hash_, record in installs.items() if record["in_buildcache"]} == held
    for record in installs.values():
        for edge in record["spec"]["dependencies"]:
            assert edge["hash"] in installs or edge["hash"] not in graph
