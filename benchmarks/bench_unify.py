"""P17: choose 50 roots as one set from a stored index of 100k specs; seconds after start-up, nothing decoded before.

    python benchmarks/bench_unify.py [--size 100000] [--roots 50] [--rounds 3] [--json]

Every root has ten builds over ten of twenty stacks of 30 shared libraries, and needs 15 of them. "agree": the best
builds of all roots use the same stack. "search": only one stack is there for every root, and it is the best of none.
"conflict": two roots have no stack in common, which must be found out and told.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import statistics
import sys
import tempfile
import time
from typing import Any

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), ".dev"))

from benchmarks.bench_rank import edge, hash_of, spec, stored

from cachefetch.answers import resolve
from cachefetch.resolver.explain import explain
from cachefetch.resolver.index.query import Specs
from cachefetch.resolver.index.store import StoredIndex
from cachefetch.resolver.model import Host
from cachefetch.resolver.rules.context import Policy
from cachefetch.sources import Sources

HOST = Host("linux", "ubuntu24.04", "zen4")
PLACE = ("linux", "ubuntu24.04", "x86_64_v3")
STACKS, LIBRARIES, BUILDS, NEEDED = 20, 30, 10, 15
BUDGET_S = 1.0
CASES = ("agree", "search", "conflict")


def made(name: str, version: str, at: int, below: list[dict[str, Any]]) -> dict[str, Any]:
    found = {**spec(name, version, PLACE, at), "hash": hash_of(name, at)}
    return {**found, "dependencies": [edge(child, ["link", "run"]) for child in below]}


def index(size: int, roots: int) -> dict[str, dict[str, Any]]:
    """Return specs by hash: stacks of libraries, the roots of each case over them, and others up to `size`."""
    chance = random.Random(1)
    stacks = [[made(f"lib{n}", f"1.{s}", s, []) for n in range(LIBRARIES)] for s in range(STACKS)]
    specs = [library for stack in stacks for library in stack]
    for case in CASES:
        for root in range(roots):
            common = STACKS - 1 if case == "agree" else 7
            held = sorted({common, *chance.sample([s for s in range(STACKS) if s != common], BUILDS - 1)})
            if case == "conflict" and root < 2:
                held = list(range(root, STACKS, 2))
            specs += [
                made(
                    f"{case}{root}", "2.0", at, chance.sample(stacks[at], NEEDED) if root > 1 else stacks[at]
                )
                for at in held
            ]
    specs += [made(f"fill{at % 3000}", f"1.{at // 3000}", at, []) for at in range(size - len(specs))]
    return {each["hash"]: each for each in specs}


def once(queries: list[str], index: StoredIndex) -> tuple[float, float, str]:
    start, cpu = time.perf_counter(), time.process_time()
    answer = resolve(queries, Sources(Specs([index]), (), (), False), HOST, policy=Policy(), local_host=False)
    explain(answer)
    return time.perf_counter() - start, time.process_time() - cpu, answer.status


def main() -> int:
    gc.set_threshold(100_000, 20, 20)  # as the command line does
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", type=int, default=100_000)
    parser.add_argument("--roots", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    rows = {}
    with tempfile.TemporaryDirectory() as scratch:
        held = stored(index(args.size, args.roots), scratch)
        for case in CASES:
            queries = [f"{case}{n}" for n in range(args.roots)]
            runs = [once(queries, held) for _ in range(args.rounds)]
            seconds = round(statistics.median(run[0] for run in runs), 3)
            cpu = round(statistics.median(run[1] for run in runs), 3)
            rows[case] = {"seconds": seconds, "cpu": cpu, "status": runs[0][2], "budget": BUDGET_S}
        held.close()
    if args.json:
        print(json.dumps({"specs": args.size, "roots": args.roots, "rows": rows}))
    else:
        for name, row in rows.items():
            print(
                f"{args.roots} roots, {name:9} {row['seconds']:6.3f} s, {row['cpu']:6.3f} s CPU, "
                f"{row['status']}, budget {BUDGET_S} s"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
