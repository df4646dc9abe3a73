"""`cachefetch list` against what `spack buildcache list` prints for the same mirror and query."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from tests.functional.conftest import FIXTURES, MIRROR, ROOT, Done

import cachefetch

Cli = Callable[..., Done]
UNSIGNED = str(FIXTURES / "v3-unsigned")
QUERIES = json.loads((ROOT / "tests/data/oracles/buildcache_list.json").read_bytes())["queries"]
EXTERNAL = {
    spec["hash"]
    for spec in json.loads((FIXTURES / "v3-unsigned" / "EXPECTED.json").read_bytes())["specs"]
    if spec["external"]
}


def test_every_query_gives_exactly_the_set_of_spack() -> None:
    with cachefetch.Client([UNSIGNED]) as client:
        for case in QUERIES:
            with_externals = {a.hash for a in client.list(case["query"], externals=True).specs}
            assert with_externals == set(case["list"]), case["query"]
            without = {a.hash for a in client.list(case["query"]).specs}
            assert without == set(case["list"]) - EXTERNAL, case["query"]
    assert len(QUERIES) > 100


@pytest.mark.parametrize("query", ["target=aarch64:", "/ki", "py-multidict %clang", "+shared"])
def test_the_command_prints_that_set(cli: Cli, query: str) -> None:
    case = next((case for case in QUERIES if case["query"] == query), None)
    done = cli("list", query, "-m", UNSIGNED, "--externals", "--json")
    found = {spec["hash"] for spec in done.json["specs"]}
    assert done.json["schema"] == "cachefetch/list/1"
    assert found
    if case is not None:
        assert found == set(case["list"])


def test_without_a_query_everything_is_listed(cli: Cli) -> None:
    assert len(cli("list", "-m", MIRROR).out.splitlines()) == 18
    done = cli("list", "-m", UNSIGNED, "--json")
    assert len(done.json["specs"]) == 414
    assert done.json["mirrors"][0]["state"] == "fresh"


def test_nothing_listed_is_exit_3_and_shows_the_state(cli: Cli) -> None:
    done = cli("list", "no-such-package", "-m", MIRROR)
    assert done.code == 3
    assert "fresh, 18 specs" in done.err


@pytest.mark.parametrize("query", ["zlib@", "zlib openssl"])
def test_a_bad_query_is_a_usage_error(cli: Cli, query: str) -> None:
    assert cli("list", query, "-m", MIRROR).code == 2
