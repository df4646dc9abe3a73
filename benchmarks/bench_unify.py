"""P17: unify 50 roots over an index of 100k specs, and rank 5,000 candidates of one name; seconds after start-up.

The index is made here, in memory: every root needs one of several builds of shared libraries, in which the best builds
of the roots alone do not agree.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), ".dev"))

from cachefetch.answers import resolve
from cachefetch.resolver.explain import explain
from cachefetch.resolver.index.query import Specs
from cachefetch.resolver.model import Edge, Host, Node, Record
from cachefetch.resolver.rules.context import Policy
from cachefetch.sources import Sources

HOST = Host("linux", "ubuntu24.04", "zen4")
BUDGET = 1.0


class Memory:
    """A source with look-up by name, as the stored index has."""

    def __init__(self, nodes: list[Node]) -> None:
        self.mirror = "memory"
        self.meta: dict[str, str] = {}
        self.skipped: dict[str, str] = {}
        self._by_hash = {node.hash: Record(node, True, ("memory",)) for node in nodes}
        self._by_name: dict[str, list[Record]] = {}
        for record in self._by_hash.values():
            self._by_name.setdefault(record.node.name, []).append(record)

    def close(self) -> None:
        pass

    def raw(self, hash: str) -> tuple[Mapping[str, Any], int] | None:
        raise LookupError(hash)

    def count(self) -> int:
        return len(self._by_hash)

    def names(self) -> list[str]:
        return list(self._by_name)

    def named(self, name: str) -> list[Record]:
        return self._by_name.get(name, [])

    def hashes_at(self, name: str, version: str) -> list[str]:
        return [record.node.hash for record in self.named(name) if record.node.version == version]

    def with_prefix(self, prefix: str) -> list[Record]:
        return [record for hash_, record in self._by_hash.items() if hash_.startswith(prefix)]

    def everything(self) -> list[Record]:
        return list(self._by_hash.values())

    def record(self, hash: str) -> Record | None:
        return self._by_hash.get(hash)

    def records(self, hashes: Sequence[str]) -> list[Record]:
        return [self._by_hash[hash_] for hash_ in hashes if hash_ in self._by_hash]


def node(name: str, version: str, at: int, children: list[Node]) -> Node:
    edges = tuple(Edge(child.hash, child.name, ("link", "run")) for child in children)
    hash_ = f"{name}x{at}x".ljust(32, "a")
    return Node(hash_, name, version, "linux", "ubuntu24.04", "x86_64_v3", edges=edges)


def index(size: int, roots: int) -> list[Node]:
    """Return specs: 30 shared libraries in 20 builds each; every root in several builds over consistent stacks."""
    chance = random.Random(1)
    stacks = [[node(f"lib{n}", f"1.{s}", s, []) for n in range(30)] for s in range(20)]
    nodes = [lib for stack in stacks for lib in stack]
    for root in range(roots):
        # Stack 7 is complete; of the others each root lacks some, so the newest of each differ.
        held = sorted({7, *chance.sample(range(20), 9)})
        nodes += [node(f"root{root}", "2.0", at, chance.sample(stacks[at], 15)) for at in held]
    big = [node("big", "1.0", at, [stacks[at % 20][n] for n in range(at % 30)]) for at in range(5000)]
    filler = [
        node(f"fill{at % 3000}", f"1.{at // 3000}", at, []) for at in range(size - len(nodes) - len(big))
    ]
    return nodes + big + filler


def timed(queries: list[str], sources: Sources) -> tuple[float, str]:
    start = time.perf_counter()
    answer = resolve(queries, sources, HOST, policy=Policy(), local_host=False)
    explain(answer)
    return time.perf_counter() - start, answer.status


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", type=int, default=100_000)
    parser.add_argument("--roots", type=int, default=50)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    source = Memory(index(args.size, args.roots))
    rows = {}
    for name, queries, budget in (
        (f"unify {args.roots} roots", [f"root{n}" for n in range(args.roots)], BUDGET),
        ("rank 5000 candidates", ["big"], None),
    ):
        seconds, status = timed(queries, Sources(Specs([source]), (), (), False))
        rows[name] = {"seconds": round(seconds, 3), "status": status, "budget": budget}
    if args.json:
        print(json.dumps({"specs": source.count(), "rows": rows}))
    else:
        for name, row in rows.items():
            print(f"{name:24} {row['seconds']:7.3f} s  {row['status']}  budget {row['budget'] or '-'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
