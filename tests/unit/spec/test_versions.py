"""Version order, ranges and classes: the rules of docs/semantics.md row by row."""

from __future__ import annotations

import itertools

import pytest

from cachefetch.errors import SpecSyntaxError
from cachefetch.resolver.spec.versions import parse_version, parse_versions, version_class

MEETS = """
1.2.3 1.2 yes | 1.2.3 =1.2 no | 1.2 =1.2 yes | 1.2 =1.2.0 no | 1.2.0 =1.2 no | 1.2.0 1.2 yes | 1.2 1.2.0 no
1.2 1.2.0: no | 1.2.0 1.2: yes | 1.20 1.2 no | 1.5.9 1:1.5 yes | 1.6 :1.5 no | 1.2rc1 1.2 no | 1.2rc1 1.2: no
1.2rc1 :1.2 yes | 1.2rc1 :1.1 yes | 1.2rc1 1.2rc1 yes | 1.2rc1 1.2rc no | 1.2rc1 1.2beta: yes | 1.2 1.2rc1: yes
1.2.0rc1 1.2 yes | 1.2.0rc1 1.2: yes | 1.2.0rc1 :1.1 no | 1.2.0rc1 1.2.0 no | 3.13.0rc2 3.13 yes
3.13.0rc2 :3.12 no | 7rc1 6 yes | 7.0rc1 6:6 no | 1.0b2 1.0 yes | 1.0b2 :0.9 no | 1.0b2 1.0: yes | 2.0.0a1 2: yes
develop 1.2: yes | develop :1.2 no | main develop no | develop main: yes | main 6: yes | develop.1 develop yes
1.develop 1 yes | 1.develop 1.2: yes | 1.develop :1 yes | 1.2.post1 1.2 yes | 1.2.post1 =1.2 no | 1.2.dev0 1.2 yes
1.2-custom 1.2 yes | 1.2 1.1,1.3 no | 1.2 1.1:1.3 yes | 1.5 1.4,1.5 yes | 1.7.1.1 1.0:1.5,=1.7.1 no
1.7.1 1.0:1.5,=1.7.1 yes | 6.1.0 6:6.0 no | 6.1.0 :6 yes | 6.1.0.post1 6.1.0 yes | 6.1.0.1 :6.1.0 yes
3.10 3.9: yes | 3.10 3.1 no | 2.10 2.1:2.9 no | 13.2.0 13.2.0:13 yes | 20240101 2024 no | 2024a 2024 yes | 3 3:2 no
git.main=1.2 1.2 yes | git.main=1.2 =1.2 no | git.main=1.2 git.other=1.2 no | git.main=1.2 git.main=1.2 yes
git.main=1.2 git.main yes | git.main=1.2 git.other no | git.other=1.2 git.main=1.2 no
"""
ROWS = [row.split() for line in MEETS.strip().splitlines() for row in line.split("|")]


@pytest.mark.parametrize(("version", "constraint", "answer"), ROWS)
def test_a_concrete_version_meets_a_constraint(version: str, constraint: str, answer: str) -> None:
    assert parse_versions(constraint).contains(parse_version(version)) == (answer == "yes")


@pytest.mark.parametrize(
    "ascending",
    [
        "1.2 1.2.a 1.2.1",
        "9 9c 9e 9.1",
        "v1.2 1.2",
        "1.2alpha 1.2alpha0 1.2beta 1.2rc2 1.2rc10 1.2 1.2.dev0",
        "1.2.post1 1.2.1",
        "1.2rc1 1.2.0rc1",
        "9999.9 stable nightly trunk head master main develop develop.1",
        "1.develop 2 2.0 2.0.develop",
        "1.2 1.2.0 1.2.0.0",
        "1.2final 1.2final3",
        "A a",
        "1.2 git.main=1.2 1.2.0",
    ],
)
def test_the_order_of_versions(ascending: str) -> None:
    versions = [parse_version(text) for text in ascending.split()]
    assert sorted(versions) == versions
    assert all(low < high for low, high in itertools.pairwise(versions))


@pytest.mark.parametrize(
    ("one", "other"),
    [("1-2", "1.2"), ("1_2", "1.2"), ("1y0", "1.y.0"), ("2024.01.05", "2024.1.5"), ("1.2final", "1.2")],
)
def test_separators_and_leading_zeros_do_not_count(one: str, other: str) -> None:
    assert parse_version(one) == parse_version(other)
    assert str(parse_version(one)) == one


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("1,2", "1:2"),
        ("1:2,2:3", "1:3"),
        ("1.2:1.3,1.3.5", "1.2:1.3"),
        ("=1.2,1.2", "1.2"),
        ("=1.2,=1.3", "=1.2,=1.3"),
        ("2,1", "1:2"),
        ("1.2:1.2", "1.2"),
        ("3:2", "3:2"),
        ("@:", ":"),
        ("1.2 , 1.3", "1.2:1.3"),
    ],
)
def test_lists_are_merged_and_printed(text: str, printed: str) -> None:
    assert str(parse_versions(text)) == printed


@pytest.mark.parametrize("text", ["4:2", "2:1.9", "1:2:3", "1.2+cuda", "=1.0:1.2", "1!2", "1 2", "é"])
def test_bad_constraints_are_refused(text: str) -> None:
    with pytest.raises(SpecSyntaxError) as caught:
        parse_versions(text)
    assert caught.value.hint


def test_an_empty_range_is_known_as_such() -> None:
    assert parse_versions("3:2").is_empty
    assert not parse_versions("2:3").is_empty
    assert parse_versions(":").is_any


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("=1.2", True),
        ("git.main=1.2", True),
        ("1.2rc1", True),
        (":1.2rc1", True),
        ("1.2", False),
        ("1.2:", False),
    ],
)
def test_a_constraint_that_names_a_version_or_a_prerelease(text: str, answer: bool) -> None:
    assert parse_versions(text).names_version is answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("1.2", 0),
        ("1.2.post1", 0),
        ("1.2b2", 0),
        ("1.2rc1", 1),
        ("1.2alpha", 1),
        ("develop", 2),
        ("1.main", 2),
        ("git.main=1.2", 2),
    ],
)
def test_the_class_of_a_version(text: str, answer: int) -> None:
    assert version_class(parse_version(text)) == answer


def test_a_number_too_long_to_convert_is_refused() -> None:
    with pytest.raises(SpecSyntaxError, match="5000 digits"):
        parse_version("9" * 5000)
