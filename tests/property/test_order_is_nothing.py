"""The order of records, mirrors and roots never changes an answer: 20 hosts, the 61-build page and all fixtures.

`make test` runs a seeded share of the 200 shuffles for each host and source, `make test-long` all of them.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
from tests.tools.indexes import FIXTURES, page_records, records

from cachefetch.answers import resolve
from cachefetch.resolver.host.overrides import parse_libc
from cachefetch.resolver.index.query import PageSource, Specs
from cachefetch.resolver.model import Compiler, Host, Record
from cachefetch.resolver.resolution import Artifact, Resolution
from cachefetch.resolver.rules.context import Policy
from cachefetch.sources import Sources

SYSTEMS = [
    ("linux", "ubuntu24.04", "glibc@2.39:/usr"),
    ("linux", "ubuntu22.04", "glibc@2.35:/usr"),
    ("linux", "debian12", "glibc@2.36:/usr"),
    ("linux", "fedora40", "glibc@2.39:/usr"),
    ("linux", "rhel8", "glibc@2.28:/usr"),
    ("linux", "alpine3", "musl@1.2.4:/"),
    ("linux", "nixos23", "glibc@2.38:/nix/store/x"),
    ("darwin", "sequoia", ""),
    ("darwin", "monterey", ""),
]
CPUS = ("zen4", "icelake", "x86_64_v3", "haswell", "x86_64", "neoverse_v2", "m2", "aarch64")
#: What is asked of each source; roots that share packages where the source has such.
QUERIES = {
    "page": ("py-multidict@6.1.0", "py-multidict %gcc"),
    "v3-unsigned": ("py-yarl", "hdf5+mpi", "zlib"),
    "v3-signed": ("py-multidict", "zlib"),
    "v2-unsigned": ("py-multidict", "zlib"),
    "v2-signed": ("py-multidict", "zlib"),
    "oci-registry": ("py-multidict", "zlib"),
}
SHUFFLES = 200


def hosts() -> list[Host]:
    """Return 20 hosts: every system, with CPUs and compilers by chance."""
    chance = random.Random(20)
    return [host_of(chance, SYSTEMS[number % len(SYSTEMS)]) for number in range(20)]


def host_of(chance: random.Random, system: tuple[str, str, str]) -> Host:
    platform, os, libc = system
    compilers = (Compiler("gcc", "13.2.0"),) if chance.random() < 0.5 else ()
    return Host(platform, os, chance.choice(CPUS), parse_libc(libc) if libc else None, compilers)


class Shuffled(PageSource):
    """A mirror that gives its records in another order each time; those of the first one are used again."""

    def shuffle(self, chance: random.Random) -> None:
        items = list(self._records.items())
        chance.shuffle(items)
        self._records = dict(items)


def answer(mirrors: Sequence[Shuffled], queries: Sequence[str], host: Host) -> Resolution:
    sources = Sources(Specs(mirrors), (), (), False)
    return resolve(queries, sources, host, policy=Policy(), local_host=False)


def _artifact(artifact: Artifact | None) -> Any:
    return artifact and (artifact.name, artifact.version, artifact.hash, artifact.compiler, artifact.libc)


def everything(found: Resolution) -> Any:
    """Return all that an answer says, but for the order of mirrors and roots, which follows what was given."""
    roots = []
    for r in found.roots:
        others = [(_artifact(o.artifact), o.worse_by, o.have, o.best, o.differences) for o in r.others]
        rejected = [(_artifact(x.artifact), x.reason, x.have, x.need, x.also) for x in r.rejected]
        chosen = (_artifact(r.chosen), r.decided_by, list(r.keys.items()), list(r.key_texts.items()))
        roots.append((r.query, r.candidates, chosen, others, rejected, r.relax, r.notes, r.suggestions))
    return (
        found.status,
        sorted(roots, key=lambda root: root[0]),
        sorted(entry.hash for entry in found.closure),
        found.host_provides,
        sorted((m.name, m.hash, sorted(m.needed_by)) for m in found.missing),
        found.conflicts,
        found.conflict_relax,
    )


def check(source: str, count: int, seed: int) -> int:
    """Shuffle `count` times for each host; return how many hosts got a choice."""
    chance = random.Random(f"{source} {seed}")
    whole: tuple[Record, ...] = page_records() if source == "page" else records(source)
    # Two mirrors: one lacks every third record, so that closures lie in both and most hashes in two.
    mirrors = [Shuffled("all", whole), Shuffled("some", [r for n, r in enumerate(whole) if n % 3])]
    chosen = 0
    for host in hosts():
        first = everything(answer(mirrors, QUERIES[source], host))
        chosen += any(root[2][0] for root in first[1])
        for _ in range(count):
            for mirror in mirrors:
                mirror.shuffle(chance)
            chance.shuffle(mirrors)
            queries = chance.sample(QUERIES[source], len(QUERIES[source]))
            assert everything(answer(mirrors, queries, host)) == first, (host, queries)
    return chosen


@pytest.mark.parametrize("source", QUERIES)
def test_a_share_of_the_shuffles_changes_nothing(source: str) -> None:
    assert set(QUERIES) == {"page", *FIXTURES}
    assert check(source, SHUFFLES // 20, seed=1) >= 2


@pytest.mark.long
@pytest.mark.parametrize("source", QUERIES)
def test_two_hundred_shuffles_change_nothing(source: str) -> None:
    assert check(source, SHUFFLES, seed=2) >= 2
