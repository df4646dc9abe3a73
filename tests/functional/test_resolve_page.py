"""`cachefetch resolve` on the real page of py-multidict 6.1.0: 61 binaries."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.functional.conftest import PAGE, Done, host

Cli = Callable[..., Done]

ANSWERS = [
    (
        host("linux", "ubuntu24.04", "zen4", "glibc@2.39", "gcc@13.2.0"),
        "",
        "4kfgrlr4jiskm3k7vc2h3zu35agkomjm",
    ),
    (
        host("linux", "ubuntu22.04", "x86_64_v3", "glibc@2.35", "gcc@11.4.0"),
        "",
        "6ock6zkx7ywa45fv5d2vrpm32wcvwiqf",
    ),
    (
        host("linux", "ubuntu22.04", "skylake_avx512", "glibc@2.35"),
        " %oneapi",
        "c3n24nqktcwuh7cnhgu6opje6x2jmz2o",
    ),
    (host("linux", "debian12", "zen3", "glibc@2.36", "gcc@12.2.0"), "", "6ock6zkx7ywa45fv5d2vrpm32wcvwiqf"),
    (
        host("linux", "ubuntu24.04", "neoverse_v2", "glibc@2.39", "gcc@13.2.0"),
        "",
        "5tf55od3lvhv5rmsek3ppo7v4ymoatak",
    ),
    (host("darwin", "sequoia", "m2", None, "apple-clang@16.0.0"), "", "4cwf326ibtsus7gjpbib6c77wlsjfvv6"),
]


def check_counts(document: dict[str, object]) -> None:
    for root in document["roots"]:  # type: ignore[attr-defined]  # a JSON document
        chosen = 1 if root["chosen"] else 0
        assert root["candidates"] == chosen + len(root["others"]) + len(root["rejected"])
        assert sum(root["funnel"].values()) == len(root["rejected"])


@pytest.mark.parametrize(("flags", "more", "hash_"), ANSWERS)
def test_the_best_hash_for_each_host(cli: Cli, flags: list[str], more: str, hash_: str) -> None:
    done = cli("resolve", f"py-multidict@6.1.0{more}", "-m", PAGE, *flags, "--json")
    assert done.code == 0
    root = done.json["roots"][0]
    assert root["chosen"]["hash"] == hash_
    assert root["candidates"] == 61
    assert done.json["status"] == "ok"
    assert done.json["closure_known"] is False
    assert done.json["closure"] == []
    check_counts(done.json)


def test_the_answer_says_that_the_libc_is_inferred(cli: Cli) -> None:
    flags = host("linux", "debian12", "zen3", "glibc@2.36", "gcc@12.2.0")
    done = cli("resolve", "py-multidict@6.1.0", "-m", PAGE, *flags)
    assert done.out.startswith("py-multidict@6.1.0  /6ock6zk")
    assert "linux-ubuntu22.04-x86_64_v3  gcc@11.4.0" in done.out
    assert "inferred" in done.err
    chosen = cli("resolve", "py-multidict@6.1.0", "-m", PAGE, *flags, "--json").json["roots"][0]["chosen"]
    assert chosen["libc"] == {"kind": "glibc", "version": "2.35", "prefix": None, "inferred": True}


def test_nothing_fits_shows_the_funnel_and_the_nearest_miss(cli: Cli) -> None:
    flags = host("linux", "rocky9", "zen3", "glibc@2.34")
    done = cli("resolve", "py-multidict@6.1.0", "-m", PAGE, *flags)
    assert done.code == 3
    assert done.out == ""
    for text in (
        "0 of 61",
        "wrong platform",
        "wrong CPU target",
        "newer libc",
        "nearest: /",
        "glibc <= 2.34",
    ):
        assert text in done.err
    document = cli("resolve", "py-multidict@6.1.0", "-m", PAGE, *flags, "--json").json
    assert document["status"] == "no-candidate"
    assert document["roots"][0]["funnel"] == {"platform": 14, "target": 14, "libc": 33}
    assert {"drop": "libc", "leaves": 33} in document["roots"][0]["relax"]
    check_counts(document)


def test_a_cpu_that_is_too_old_names_both_levels(cli: Cli) -> None:
    flags = host("linux", "ubuntu22.04", "x86_64_v2", "glibc@2.35")
    done = cli("resolve", "py-multidict@6.1.0", "-m", PAGE, *flags, "--json")
    assert done.code == 3
    reasons = [r for r in done.json["roots"][0]["rejected"] if r["reason"] == "target" and "v3" in r["have"]]
    assert reasons
    assert all(r["have"] == "x86_64_v3" and r["need"] == "x86_64_v2" for r in reasons)


def test_recorded_libc_only(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CACHEFETCH_LIBC", "recorded")
    flags = host("linux", "debian12", "zen3", "glibc@2.36", "gcc@12.2.0")
    done = cli("resolve", "py-multidict@6.1.0", "-m", PAGE, *flags, "--json")
    assert done.code == 3
    assert done.json["roots"][0]["funnel"]["libc-unknown"] == 33
    same = host("linux", "ubuntu22.04", "x86_64_v3", "glibc@2.35", "gcc@11.4.0")
    assert cli("resolve", "py-multidict@6.1.0", "-m", PAGE, *same).code == 0


@pytest.mark.parametrize(
    "constraint", ["@6.1.0 %gcc@11.4.0", "@6 os=ubuntu22.04", "@:7 target=x86_64_v3", "platform=linux"]
)
def test_constraints_on_the_candidates_own_attributes(cli: Cli, constraint: str) -> None:
    flags = host("linux", "ubuntu24.04", "zen4", "glibc@2.39")
    done = cli("resolve", f"py-multidict {constraint}", "-m", PAGE, *flags)
    assert done.code == 0


def test_a_hash_prefix_chooses_that_binary(cli: Cli) -> None:
    flags = host("linux", "ubuntu22.04", "x86_64_v3", "glibc@2.35", "gcc@11.4.0")
    done = cli("resolve", "/c3n24nq", "-m", PAGE, *flags)
    assert done.code == 0
    assert "/c3n24nqktcwuh7cnhgu6opje6x2jmz2o" in done.out


def test_stack_keeps_only_that_stack(cli: Cli) -> None:
    flags = host("linux", "ubuntu22.04", "x86_64_v3", "glibc@2.35", "gcc@11.4.0")
    done = cli("resolve", "py-multidict", "-m", PAGE, *flags, "--stack", "e4s-oneapi", "--json")
    assert done.code == 0
    assert done.json["roots"][0]["chosen"]["compiler"].startswith("intel-oneapi-compilers@")


def test_a_list_of_a_stack_has_only_that_stack(cli: Cli) -> None:
    every = cli("list", "-m", PAGE, "--json").json["specs"]
    some = cli("list", "-m", PAGE, "--stack", "e4s-oneapi", "--json").json["specs"]
    assert 0 < len(some) < len(every)
    assert all(spec["compiler"].startswith("intel-oneapi-compilers@") for spec in some)
    assert cli("list", "-m", PAGE, "--stack", "no-such-stack").code == 3


def test_explanations_name_every_key_that_decided(cli: Cli) -> None:
    flags = ANSWERS[0][0]
    decided = cli("resolve", "py-multidict@6.1.0", "-m", PAGE, *flags, "--json").json["roots"][0][
        "decided_by"
    ]
    text = cli("resolve", "py-multidict@6.1.0", "-m", PAGE, *flags, "--explain").err
    assert decided
    for key in decided:
        assert f"  {key} " in text
    everything = cli("resolve", "py-multidict@6.1.0", "-m", PAGE, *flags, "--explain=all").err
    assert everything.count("\n  /") == 60  # all but the chosen one
