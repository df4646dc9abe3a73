from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachefetch.errors import FreshnessError
from cachefetch.fetch.verify.freshness import MAX_SEEN, Seen, decode, encode, judge, require, rollback_message


@given(st.lists(st.sampled_from("abcdef"), max_size=20))
def test_only_the_last_new_one_is_fresh(digests: list[str]) -> None:
    digests = [letter * 64 for letter in digests]
    history: tuple[Seen, ...] = ()
    order: list[str] = []
    for now, digest in enumerate(digests):
        verdict = judge(history, digest, 1, float(now))
        history = verdict.history
        if digest not in order:
            order.append(digest)
        assert (verdict.newer is not None) == (digest != order[-1])
        assert verdict.seen.first == digests.index(digest)
        assert decode(encode(history)) == history
    assert [seen.sha256 for seen in history] == order


@given(st.binary(max_size=200))
def test_a_damaged_memory_is_no_empty_one(data: bytes) -> None:
    assert decode(data) is None
    assert decode(encode(())) == ()


def test_memory_is_bounded() -> None:
    history: tuple[Seen, ...] = ()
    for number in range(MAX_SEEN + 10):
        history = judge(history, str(number), 1, 0.0).history
    assert len(history) == MAX_SEEN
    assert history[-1].sha256 == str(MAX_SEEN + 9)


@pytest.mark.parametrize(
    ("digest", "options", "code"),
    [
        ("a", {"fresh": True}, "rollback"),
        ("b", {"fresh": True, "checked": False}, "index-not-checked"),
        ("b", {"max_age": 5.0}, "index-too-old"),
        ("a", {}, ""),
        ("b", {"fresh": True, "max_age": 100.0}, ""),
        ("b", {"fresh": True, "damaged": "x"}, "history-damaged"),
        ("b", {"max_age": 100.0, "damaged": "x"}, "history-damaged"),
        ("b", {"damaged": "x"}, ""),
    ],
)
def test_what_is_required(digest: str, options: dict[str, object], code: str) -> None:
    history = (Seen("a", 1, 10.0), Seen("b", 1, 20.0))
    verdict = judge(history, digest, 1, 30.0)
    settings = {"checked": True, "fresh": False, "max_age": None, "now": 30.0, "memory": "/x", **options}
    if not code:
        require("m", verdict, **settings)  # type: ignore[arg-type]  # a table of options
        assert bool(rollback_message("m", verdict)) == (digest == "a")
        return
    with pytest.raises(FreshnessError) as caught:
        require("m", verdict, **settings)  # type: ignore[arg-type]  # a table of options
    assert (caught.value.code, caught.value.exit_code) == (code, 7)
    assert caught.value.hint
