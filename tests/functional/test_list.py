"""`cachefetch list`: constraints, columns, grouping, and what this host cannot run."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from tests.functional.conftest import DEBIAN, FIXTURES, Done

MIRROR = ["-m", str(FIXTURES / "v3-unsigned")]
EXPECTED = json.loads((FIXTURES / "v3-unsigned/EXPECTED.json").read_bytes())["specs"]


def binaries(name: str) -> dict[str, dict[str, object]]:
    return {s["hash"]: s for s in EXPECTED if s["name"] == name and s["in_buildcache"] and not s["external"]}


@pytest.mark.parametrize("name", ["zlib", "py-multidict", "version-zoo", "gcc"])
def test_every_binary_of_a_package_is_listed_for_any_target(name: str, cli: Callable[..., Done]) -> None:
    done = cli("list", name, *MIRROR, *DEBIAN, "--json")
    assert {s["hash"] for s in done.json["specs"]} == set(binaries(name))
    assert done.code == (0 if binaries(name) else 3)
    assert {(s["hash"], s["target"]) for s in done.json["specs"]} == {
        (hash_, s["target"]) for hash_, s in binaries(name).items()
    }


def test_unusable_ones_stay_visible_and_say_why(cli: Callable[..., Done]) -> None:
    done = cli("list", "zlib", *MIRROR, *DEBIAN)
    assert len(done.out.splitlines()) == len(binaries("zlib"))
    by_reason = [line.partition("  ! ")[2] for line in done.out.splitlines()]
    assert "was built for darwin, this host is linux" in by_reason
    assert "needs glibc 2.39, this host allows glibc <= 2.36" in by_reason
    assert "needs the CPU target x86_64_v4, this host is x86_64_v3" in by_reason
    generic = [line for line in done.out.splitlines() if "linux-debian12-x86_64 " in line]
    assert generic
    assert not any("!" in line for line in generic)


def test_json_has_the_verdict_and_usable_filters_by_it(cli: Callable[..., Done]) -> None:
    everything = cli("list", "zlib", *MIRROR, *DEBIAN, "--json").json["specs"]
    usable = cli("list", "zlib", "--usable", *MIRROR, *DEBIAN, "--json").json["specs"]
    assert {s["hash"] for s in usable} == {s["hash"] for s in everything if s["usable"]}
    assert 0 < len(usable) < len(everything)
    assert all(s["unusable"]["reason"] and s["unusable"]["need"] for s in everything if not s["usable"])


def test_groups_and_columns(cli: Callable[..., Done]) -> None:
    done = cli("list", "-g", "-l", "-N", "--variants", "zlib@1.2.13", *MIRROR, *DEBIAN)
    lines = done.out.splitlines()
    titles = [line for line in lines if line.startswith("-- ")]
    assert any(line.startswith("-- linux-debian12-x86_64_v3 / gcc@12.2.0 ---") for line in titles)
    assert titles == sorted(titles)
    expected = [s for s in binaries("zlib").values() if s["version"] == "1.2.13"]
    assert len(lines) - len(titles) == len(expected)
    for spec in expected:
        (line,) = [line for line in lines if line.startswith(str(spec["hash"])[:7] + " ")]
        assert "builtin.zlib@1.2.13 " in line
        assert f"{'+' if spec['variants']['shared'] else '~'}shared" in line  # type: ignore[index]  # JSON


def test_names_alone(cli: Callable[..., Done]) -> None:
    done = cli("list", "--names", "os=sequoia", *MIRROR, *DEBIAN)
    expected = {
        s["name"] for s in EXPECTED if s["os"] == "sequoia" and s["in_buildcache"] and not s["external"]
    }
    assert set(done.out.split()) == expected
    assert len(done.out.split()) == len(expected)


def test_whole_hashes(cli: Callable[..., Done]) -> None:
    done = cli("list", "-L", "zlib", *MIRROR, *DEBIAN)
    assert {line.split()[0] for line in done.out.splitlines()} == set(binaries("zlib"))


def test_nothing_that_fits_names_the_mirrors(cli: Callable[..., Done]) -> None:
    done = cli("list", "zlib@99", *MIRROR, *DEBIAN)
    assert done.code == 3
    assert "414 specs" in done.err


def test_a_python_requirement_lists_what_it_admits(cli: Callable[..., Done]) -> None:
    for words in (["multidict>=6,<6.1"], ["py-multidict@6.0"], ["multidict>=6", "--json"]):
        done = cli("list", *words, *MIRROR, *DEBIAN)
        assert done.code == 0
    listed = {s["version"] for s in done.json["specs"]}
    assert listed == {s["version"] for s in binaries("py-multidict").values() if str(s["version"]) >= "6"}
    assert cli("list", "multidict", *MIRROR, *DEBIAN).out == cli("list", "py-multidict", *MIRROR, *DEBIAN).out


@pytest.mark.parametrize("typed", ["zlb", "ZLIB", "Zlib@1.3"])
def test_an_unknown_name_has_suggestions(typed: str, cli: Callable[..., Done]) -> None:
    done = cli("list", typed, *MIRROR, *DEBIAN, "--json")
    assert (done.code, done.json["suggestions"][0]) == (3, "zlib")
    assert "did you mean zlib" in cli("list", typed, *MIRROR, *DEBIAN).err
    assert "did you mean zlib" in cli("show", typed, *MIRROR, *DEBIAN).err
    assert "did you mean zlib" in cli("resolve", typed, *MIRROR, *DEBIAN).err


def test_what_the_parser_took_differently_is_said(cli: Callable[..., Done]) -> None:
    done = cli("list", "zlib %gcc arch=x86_64_v3", *MIRROR, *DEBIAN)
    assert "note: `x86_64_v3` is not platform-os-target" in done.err
    assert cli("list", "zlib %gcc arch=x86_64_v3", *MIRROR, *DEBIAN, "--json").json["notes"]


def test_a_hash_prefix_of_several_packages_is_a_question_back(cli: Callable[..., Done]) -> None:
    for command in ("resolve", "fetch", "show"):
        done = cli(command, "/a", *MIRROR, *DEBIAN, "--json")
        assert (done.code, done.json["code"]) == (2, "usage")
        assert (
            "binaries satisfy /a: chain-15/a2nkkiumsj6s, py-setuptools/a4viyxhux2uc" in done.json["message"]
        )
        assert "more of its hash" in done.json["hint"]
