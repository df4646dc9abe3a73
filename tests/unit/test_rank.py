"""Properties of the whole choice: shuffles change nothing, and no accepted candidate breaks a gate."""

from __future__ import annotations

import json
import random
from functools import cache
from pathlib import Path
from typing import Any

from tests import conformance_reuse

from cachefetch.answers import resolve
from cachefetch.resolver import targets
from cachefetch.resolver.host.overrides import parse_libc
from cachefetch.resolver.index.query import PageSource, Specs
from cachefetch.resolver.index.readers.page import parse_page
from cachefetch.resolver.model import Compiler, Host, Node, Record
from cachefetch.resolver.resolution import Resolution
from cachefetch.resolver.rules.context import Policy
from cachefetch.sources import Sources

DATA = Path(__file__).parents[1] / "data"
PAGE = DATA / "pages" / "py-multidict.specs.md"
SYSTEMS = [
    ("linux", "ubuntu24.04", "glibc@2.39:/usr"),
    ("linux", "ubuntu22.04", "glibc@2.35:/usr"),
    ("linux", "debian12", "glibc@2.36:/usr"),
    ("linux", "rhel8", "glibc@2.28:/usr"),
    ("linux", "alpine3", "musl@1.2.4:/"),
    ("linux", "nixos23", "glibc@2.38:/nix/store/x"),
    ("darwin", "sequoia", ""),
    ("darwin", "monterey", ""),
]
CPUS = ("zen4", "icelake", "x86_64_v3", "haswell", "x86_64", "neoverse_v2", "m2", "aarch64")


def hosts() -> list[Host]:
    """Return 20 hosts."""
    chance = random.Random(20)
    return [_host(chance) for _ in range(20)]


def _host(chance: random.Random) -> Host:
    platform, os, libc = chance.choice(SYSTEMS)
    compilers = (Compiler("gcc", "13.2.0"),) if chance.random() < 0.5 else ()
    return Host(platform, os, chance.choice(CPUS), parse_libc(libc) if libc else None, compilers)


@cache
def records() -> tuple[tuple[Record, ...], tuple[Record, ...]]:
    """Return the page's records and those of the fixture mirror."""
    page, broken = parse_page(PAGE.read_bytes(), what="page")[:2]
    assert not broken
    return tuple(page), tuple(conformance_reuse.mirror().specs.everything())


def answers(sources: list[list[Record]], queries: list[str], host: Host) -> Resolution:
    specs = Specs([PageSource(f"m{n}", each) for n, each in enumerate(sources)])
    return resolve(queries, Sources(specs, (), (), False), host, policy=Policy(), local_host=False)


def plain(answer: Resolution) -> str:
    document: dict[str, Any] = answer.to_dict()
    for root in document["roots"]:
        if root["chosen"]:
            del root["chosen"]["mirrors"]
    document["roots"].sort(key=lambda root: root["query"])
    document["closure"] = sorted(entry["hash"] for entry in document["closure"])
    document["missing"] = sorted(entry["hash"] for entry in document["missing"])
    return json.dumps(document)


def test_two_hundred_shuffles_give_one_answer() -> None:
    chance = random.Random(1)
    page, mirror = records()
    cases = [([page], ["py-multidict"]), ([mirror[::2], mirror], ["py-yarl", "hdf5", "zlib"])]
    for host in hosts():
        for sources, queries in cases:
            first = plain(answers([list(each) for each in sources], queries, host))
            for _ in range(5):
                shuffled = [chance.sample(each, len(each)) for each in sources]
                chance.shuffle(shuffled)
                assert plain(answers(shuffled, chance.sample(queries, len(queries)), host)) == first


def _walk(node: Node, specs: Any) -> list[Node]:
    found, waiting = {}, [node]
    while waiting:
        each = waiting.pop()
        found[each.hash] = each
        waiting += [
            c
            for e in each.edges
            if {"link", "run"} & set(e.types) and (c := specs.get(e.hash)) and c.hash not in found
        ]
    return list(found.values())


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _may_run(node: Node, host: Host, specs: Any) -> bool:
    """The gates once more, written apart from the rules: platform, target, libc, closure."""
    for each in _walk(node, specs):
        if each.external is not None:
            if each.name in ("glibc", "musl") and (host.libc is None or each.name != host.libc.kind):
                return False
            if each.name == "glibc" and host.libc:
                newer = _numbers(each.version) > _numbers(host.libc.version)
                if newer or each.external != host.libc.prefix:
                    return False
            continue
        if each.platform != host.platform or each.target not in (
            host.target,
            *targets.ancestors(host.target),
        ):
            return False
        chain = ("monterey", "ventura", "sonoma", "sequoia")
        if host.platform == "darwin" and chain.index(each.os) > chain.index(host.os):
            return False
    return True


def test_no_false_accept_in_ten_thousand_pairs() -> None:
    chance = random.Random(2)
    _, mirror = records()
    specs = conformance_reuse.mirror().specs
    names = sorted({r.node.name for r in mirror if r.has_binary})
    pairs = accepted = 0
    while pairs < 10_000:
        host, name = _host(chance), chance.choice(names)
        root = resolve([name], conformance_reuse.mirror(), host, policy=Policy(), local_host=False).roots[0]
        pairs += root.candidates
        taken = [other.artifact.hash for other in root.others] + ([root.chosen.hash] if root.chosen else [])
        accepted += len(taken)
        for hash_ in taken:
            node = specs.get(hash_)
            assert node is not None
            assert _may_run(node, host, specs), (host, hash_)
        assert {r.artifact.hash for r in root.rejected}.isdisjoint(taken)
    assert accepted > 500
