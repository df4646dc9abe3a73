"""`frozen` values behave as frozen dataclasses do."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import pytest

from cachefetch.errors import ConfigError
from cachefetch.fetch.verify.policy import SignaturePolicy
from cachefetch.resolver.model import Edge, Host, Libc
from cachefetch.values import changed, frozen


def test_arguments_and_defaults() -> None:
    assert Edge("h", name="zlib") == Edge("h", "zlib", (), ())
    with pytest.raises(TypeError, match="name"):
        Edge("h")  # type: ignore[call-arg]  # the point of the test
    with pytest.raises(TypeError, match="unknown"):
        Edge("h", "zlib", unknown=1)  # type: ignore[call-arg]  # the point of the test


def test_equality_and_hash_are_by_value_and_type() -> None:
    assert {Edge("h", "a"), Edge("h", "a"), Edge("h", "b")} == {Edge("h", "a"), Edge("h", "b")}
    other: object = ("h", "a", (), ())
    assert Edge("h", "a") != other


def test_values_cannot_change() -> None:
    edge = Edge("h", "a")
    with pytest.raises(AttributeError, match="frozen"):
        edge.name = "b"  # type: ignore[misc]  # the point of the test
    with pytest.raises(AttributeError, match="frozen"):
        del edge.name
    with pytest.raises(AttributeError):
        edge.other = 1  # type: ignore[attr-defined]  # the point of the test
    assert changed(edge, name="b") == Edge("h", "b")


def test_repr_matching_copies_and_pickles() -> None:
    libc = Libc("glibc", "2.36", "/usr")
    assert repr(libc) == "Libc(kind='glibc', version='2.36', prefix='/usr', inferred=False)"
    match libc:
        case Libc(kind, version):
            assert (kind, version) == ("glibc", "2.36")
    assert pickle.loads(pickle.dumps(libc)) == copy.deepcopy(libc) == libc


def test_dataclass_functions_work() -> None:
    libc = Libc("glibc", "2.36")
    assert dataclasses.is_dataclass(libc)
    assert [field.name for field in dataclasses.fields(libc)] == ["kind", "version", "prefix", "inferred"]
    assert dataclasses.replace(libc, version="2.39") == Libc("glibc", "2.39")
    assert dataclasses.asdict(libc) == {"kind": "glibc", "version": "2.36", "prefix": None, "inferred": False}


def test_dataclass_functions_work_with_a_shared_mapping_as_default() -> None:
    host = Host("linux", "debian12", "zen3")
    assert dataclasses.replace(host, os="rhel8") == Host("linux", "rhel8", "zen3")


def test_a_value_may_check_itself_when_it_is_made() -> None:
    assert SignaturePolicy("none").mode == "none"
    with pytest.raises(ConfigError, match="no such"):
        SignaturePolicy("no such")


def pair() -> type:
    """Return a class of which there is no instance yet."""

    @frozen
    class Pair:
        left: int
        right: int = 2

        def __post_init__(self) -> None:
            if self.left < 0:
                raise ValueError("below zero")

    return Pair


def test_the_first_values_of_a_class_are_as_all_later_ones() -> None:
    made = pair()
    for number in range(100):  # at some number an __init__ of its own is compiled
        for one in (
            made(number),
            made(left=number),
            made(number, 2),
            made(number, right=2),
            made(right=2, left=number),
        ):
            assert (one.left, one.right) == (number, 2)


@pytest.mark.parametrize("before", [0, 100])
@pytest.mark.parametrize(
    ("args", "kwargs", "words"),
    [
        ((), {}, "missing 1 required positional argument: 'left'"),
        ((), {"right": 1}, "missing 1 required positional argument: 'left'"),
        ((1, 2, 3), {}, "takes from 2 to 3 positional arguments but 4 were given"),
        ((1,), {"left": 1}, "multiple values for argument 'left'"),
        ((1,), {"other": 1}, "unexpected keyword argument 'other'"),
    ],
)
def test_wrong_arguments_are_refused_from_the_first_value_on(
    before: int, args: tuple[int, ...], kwargs: dict[str, int], words: str
) -> None:
    made = pair()
    for number in range(before):
        made(number)
    with pytest.raises(TypeError, match=words):
        made(*args, **kwargs)
    assert made(1).right == 2
    with pytest.raises(ValueError, match="below zero"):
        made(-1)
