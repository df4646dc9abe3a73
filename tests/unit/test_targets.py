"""The microarchitecture table against archspec itself and against real Spack's answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from cachefetch.resolver import targets

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
ORACLE = os.path.join(ROOT, "tests", "data", "oracles", "microarch.json")
# The oracle's Spack has an older archspec. Its 0.2.7 put cannonlake below x86_64_v4 and dropped a kernel
# flag from zen5; everything else that both know is equal.
NEWER_PARENTS = {"cannonlake"}
NEWER_FEATURES = {"zen5"}
NEWER_PAIR = ("x86_64_v4", "cannonlake")


@pytest.fixture(scope="module")
def oracle() -> dict[str, Any]:
    with open(ORACLE, encoding="utf-8") as file:
        data: dict[str, Any] = json.load(file)
    return data


def test_the_table_equals_the_installed_archspec() -> None:
    from archspec.cpu import TARGETS

    for name in targets.names():
        target = TARGETS[name]
        ours = (
            targets.vendor(name),
            targets.parents(name),
            targets.ancestors(name),
            targets.family(name),
            targets.generic(name),
            targets.features(name),
        )
        theirs = (
            target.vendor,
            tuple(str(t) for t in target.parents),
            tuple(str(t) for t in target.ancestors),
            str(target.family),
            str(target.generic),
            frozenset(target.features),
        )
        assert ours == theirs, name


def test_the_order_equals_the_installed_archspec() -> None:
    from archspec.cpu import TARGETS

    for lower in targets.names():
        for upper in targets.names():
            assert targets.is_within(lower, upper) == (TARGETS[lower] <= TARGETS[upper]), (lower, upper)
            assert targets.runs_on(lower, upper) == (TARGETS[lower] <= TARGETS[upper]), (lower, upper)


def test_the_generated_file_is_current() -> None:
    tool = os.path.join(ROOT, "tools", "generate_targets.py")
    assert subprocess.run([sys.executable, tool, "--check"], check=False, timeout=60).returncode == 0


def test_every_target_of_spack_is_known_and_equal(oracle: dict[str, Any]) -> None:
    assert set(oracle["targets"]) <= set(targets.names())
    different = set()
    for name, want in oracle["targets"].items():
        assert targets.vendor(name) == want["vendor"], name
        assert targets.family(name) == want["family"], name
        if targets.features(name) != set(want["features"]):
            different.add(name)
        if (
            list(targets.parents(name)) != want["parents"]
            or list(targets.ancestors(name)) != want["ancestors"]
        ):
            different.add(name)
        elif name not in NEWER_PARENTS:
            assert targets.generic(name) == want["generic"], name
    assert different == NEWER_PARENTS | NEWER_FEATURES


def test_which_binary_runs_where_equals_spack(oracle: dict[str, Any]) -> None:
    known = list(oracle["targets"])
    pairs = [(target, host) for target in known for host in known]
    different = [
        (target, host)
        for target, host in pairs
        if targets.runs_on(target, host) != (host in oracle["runs_on"][target])
    ]
    print(f"agreement with Spack: {len(pairs) - len(different)} of {len(pairs)}")
    assert len(pairs) == oracle["pairs"]
    assert different == [NEWER_PAIR]


@pytest.mark.parametrize(
    ("lower", "upper", "within"),
    [
        ("x86_64_v3", "x86_64_v4", True),
        ("haswell", "x86_64_v4", False),  # a vendor target is never below a generic one
        ("x86_64_v3", "haswell", True),
        ("zen4", "x86_64_v4", False),
        ("x86_64_v4", "zen4", True),
        ("x86_64_v4", "zen3", False),
        ("skylake", "zen4", False),
        ("zen3", "zen4", True),
        ("armv8.4a", "neoverse_v1", True),
        ("neoverse_v1", "neoverse_v2", False),
        ("m1", "m2", True),
        ("aarch64", "zen4", False),
    ],
)
def test_the_order_of_targets(lower: str, upper: str, within: bool) -> None:
    assert targets.is_within(lower, upper) is within


def test_an_unknown_name_never_raises_and_equals_only_itself() -> None:
    name = "quantum9000"
    assert not targets.is_known(name)
    assert targets.ancestors(name) == ()
    assert targets.parents(name) == ()
    assert targets.family(name) == targets.generic(name) == name
    assert targets.features(name) == frozenset()
    assert targets.vendor(name) == ""
    assert targets.is_within(name, name)
    assert targets.runs_on(name, name)
    assert not targets.is_within(name, "zen4")
    assert not targets.is_within("x86_64", name)
    assert not targets.runs_on(name, "zen4")
    assert not targets.runs_on("x86_64", name)
