"""Time of the spec language: parse specs, match nodes, read nodes. One line per measure; --json for a document.

    python benchmarks/bench_spec.py [--json] [--repeat N]

Inputs are the texts and nodes of tests/data/oracles. The ratio compares with a fixed piece of Python (a dictionary
loop), so that runs on different machines can be compared.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from typing import TYPE_CHECKING

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, ".dev"))

from cachefetch.resolver.index.readers.nodes import node_from_dict  # noqa: E402  # after the path is set
from cachefetch.resolver.spec.matching import satisfies  # noqa: E402
from cachefetch.resolver.spec.parser import parse  # noqa: E402
from cachefetch.resolver.spec.versions import parse_version  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from cachefetch.resolver.model import Node, Record

SPECS = 10_000
PAIRS = 100_000
VERSIONS = 100_000
NODES = 10_000


class Nodes:
    """Nodes by hash for the matcher."""

    def __init__(self, nodes: dict[str, Node]) -> None:
        self.nodes = nodes

    def get(self, hash: str, /) -> Node | None:
        return self.nodes.get(hash)

    def record(self, hash: str, /) -> Record | None:
        raise NotImplementedError("the matcher asks for nodes only")

    def prefetch(self, hashes: Iterable[str], /) -> None:
        """All of it is in memory."""


def load() -> Any:
    with open(os.path.join(ROOT, "tests", "data", "oracles", "satisfies.json"), encoding="utf-8") as file:
        return json.load(file)


def cycled(items: list[Any], count: int) -> list[Any]:
    return [items[i % len(items)] for i in range(count)]


def reference() -> None:
    """Do the fixed work that ratios refer to: 1,000,000 dictionary updates."""
    counts: dict[int, int] = {}
    for i in range(1_000_000):
        counts[i & 1023] = i


def measure(work: Callable[[], object], repeat: int) -> float:
    """Return the median time in seconds."""
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def measures() -> list[tuple[str, int, Callable[[], object]]]:
    """Return (name, number of operations, work)."""
    document = load()
    raw = [(hash, data) for hash, data in document["nodes"]["v3"].items()]
    dag = Nodes({hash: node_from_dict(data, hash=hash, specfile=5) for hash, data in raw})
    cases = [(hash, text) for layout, hash, text, _ in document["cases"] if layout == "v3"]
    texts = cycled(sorted({text for _, text in cases}), SPECS)
    specs = {text: parse(text) for _, text in cases}
    pairs = cycled([(dag.nodes[hash], specs[text]) for hash, text in cases], PAIRS)
    versions = sorted({node.version for node in dag.nodes.values()})
    parsed = cycled([parse_version(text) for text in versions], VERSIONS)
    nodes = cycled(raw, NODES)
    return [
        ("parse specs", SPECS, lambda: [parse(text) for text in texts]),
        ("print specs", SPECS, lambda: [str(specs[text]) for text in texts]),
        (
            "match (node, constraint) pairs",
            PAIRS,
            lambda: [satisfies(node, spec, dag) for node, spec in pairs],
        ),
        ("sort versions", VERSIONS, lambda: sorted(parsed)),
        ("read nodes", NODES, lambda: [node_from_dict(data, hash=hash, specfile=5) for hash, data in nodes]),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description="Time of the spec language.")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--repeat", type=int, default=5, help="runs of each measure; the median counts")
    options = parser.parse_args()
    base = measure(reference, options.repeat)
    results = []
    for name, count, work in measures():
        seconds = measure(work, options.repeat)
        results.append(
            {"name": name, "count": count, "seconds": round(seconds, 4), "ratio": round(seconds / base, 2)}
        )
    if options.json:
        print(
            json.dumps(
                {"reference_seconds": round(base, 4), "python": sys.version.split()[0], "results": results}
            )
        )
        return 0
    print(f"reference (1,000,000 dictionary updates): {base * 1000:.1f} ms")
    for result in results:
        each = float(str(result["seconds"])) / int(str(result["count"])) * 1e6
        print(
            f"{result['name']}: {result['count']} in {result['seconds']} s, {each:.1f} us each, "
            f"{result['ratio']} x the reference"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
