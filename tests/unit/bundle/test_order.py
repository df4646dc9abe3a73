"""What others need is packed first."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from cachefetch.fetch.bundle.order import dependencies_first

#: Node -> those of smaller number that it needs: there are no cycles.
graphs = st.lists(st.sets(st.integers(0, 30), max_size=4), min_size=1, max_size=30).map(
    lambda found: {str(n): {str(one) for one in needs if one < n} for n, needs in enumerate(found)}
)


def reached(graph: dict[str, set[str]], node: str) -> set[str]:
    below = {deep for one in graph.get(node, ()) for deep in reached(graph, one)}
    return {*graph.get(node, ()), *below}


@given(graphs, st.data())
def test_each_comes_after_all_that_it_needs(graph: dict[str, set[str]], data: st.DataObject) -> None:
    hashes = data.draw(st.permutations(sorted(graph)).map(lambda all_: all_[: len(all_) * 2 // 3 + 1]))
    ordered = dependencies_first(hashes, lambda node: graph.get(node, ()))
    assert sorted(ordered) == sorted(hashes)
    for number, node in enumerate(ordered):
        assert reached(graph, node) & set(hashes) <= set(ordered[:number])
    assert ordered == dependencies_first(hashes, lambda node: sorted(graph.get(node, ()), reverse=True))


def test_what_needs_nothing_stays_in_order_and_a_circle_ends() -> None:
    assert dependencies_first(["c", "a", "b"], lambda _: ()) == ["c", "a", "b"]
    assert sorted(dependencies_first(["a", "b"], {"a": ["b"], "b": ["a"]}.__getitem__)) == ["a", "b"]


def test_a_closure_stands_together() -> None:
    needs = {"top": ["low"], "low": [], "other": [], "user": ["other"]}
    assert dependencies_first(["other", "top", "user", "low"], needs.__getitem__) == [
        "other",
        "low",
        "top",
        "user",
    ]


def test_a_long_chain_needs_no_deep_stack() -> None:
    chain = [f"{number:05}" for number in range(20_000)]
    following = dict(pairwise(chain))
    ordered = dependencies_first(chain, lambda one: [following[one]] if one in following else [])
    assert ordered == chain[::-1]
