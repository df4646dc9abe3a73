"""Ranking many builds of one package: seconds, and how many records were decoded for it.

    python benchmarks/bench_rank.py [--builds 5000] [--rounds 3] [--json]

An index as Spack 1.1 writes it is made and stored as usual. Each build has a closure of about 40 packages, with
compiler, runtime and C library, from stacks that builds share. Two mixtures: "all fit" has one version and one
system, so that nothing but the closures can decide; "one in five fits" has ten versions for five systems and several
CPUs. "text" is the answer with its explanation as the command line asks for it, "json" has the value of every key and
the document. Seconds are in one process after start-up, from an open index of which nothing is decoded yet.
"""

from __future__ import annotations

import argparse
import base64
import gc
import hashlib
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any
from unittest import mock

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), ".dev"))

from cachefetch.answers import resolve
from cachefetch.resolver.explain import explain
from cachefetch.resolver.index.query import Specs
from cachefetch.resolver.index.store import IndexStore, StoredIndex
from cachefetch.resolver.model import Compiler, Host, Libc
from cachefetch.resolver.rules.context import Policy
from cachefetch.sources import Sources

HOST = Host("linux", "ubuntu24.04", "zen4", Libc("glibc", "2.39", "/usr"), (Compiler("gcc", "13.2.0"),))
LIBRARIES, STACKS, DIRECT = 40, 25, 8
SYSTEMS = (
    ("ubuntu24.04", "2.39"),
    ("ubuntu22.04", "2.35"),
    ("debian13", "2.41"),
    ("alma8", "2.28"),
    ("", ""),
)
CPUS = (
    "x86_64_v3",
    "x86_64_v4",
    "zen4",
    "skylake_avx512",
    "neoverse_v2",
    "icelake",
    "sapphirerapids",
    "zen5",
)


def hash_of(*parts: object) -> str:
    return base64.b32encode(hashlib.sha1(repr(parts).encode()).digest()).decode().lower()


def spec(name: str, version: str, place: tuple[str, str, str], *more: object) -> dict[str, Any]:
    platform, system, target = place
    return {
        "name": name,
        "version": version,
        "arch": {"platform": platform, "platform_os": system, "target": target},
        "namespace": "builtin",
        "parameters": {
            "build_system": "cmake",
            "shared": True,
            "pic": True,
            "api": ["v1", "v2"],
            "cflags": [],
        },
        "package_hash": "x" * 52,
        "dependencies": [],
        "annotations": {"original_specfile_version": 5},
        "hash": hash_of(name, version, place, *more),
    }


def edge(child: dict[str, Any], types: list[str], virtuals: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        "name": child["name"],
        "hash": child["hash"],
        "parameters": {"deptypes": types, "virtuals": list(virtuals)},
    }


class Stacks:
    """Shared libraries in several builds for each system and CPU, made when they are first needed."""

    def __init__(self) -> None:
        self.specs: dict[str, dict[str, Any]] = {}
        self._made: dict[tuple[Any, ...], list[dict[str, Any]]] = {}

    def add(self, made: dict[str, Any]) -> dict[str, Any]:
        return self.specs.setdefault(made["hash"], made)

    def system(self, place: tuple[str, str, str], libc: str, gcc: str) -> list[dict[str, Any]]:
        """Return the edges of compiled code: compiler, runtime and C library."""
        compiler, library = spec("gcc", gcc, place), spec("glibc", libc, place)
        for made in (compiler, library):
            made["external"] = {"path": "/usr", "module": None, "extra_attributes": {}}
        runtime = spec("gcc-runtime", gcc, place)
        runtime["dependencies"] = [edge(library, ["link"], ("libc",))]
        for made in (compiler, library, runtime):
            self.add(made)
        return [
            edge(compiler, ["build"], ("c", "cxx")),
            edge(runtime, ["link"]),
            edge(library, ["link"], ("libc",)),
        ]

    def libraries(self, number: int, place: tuple[str, str, str], libc: str) -> list[dict[str, Any]]:
        """Return the libraries of one stack; each links to some of those before it."""
        if (number, place) not in self._made:
            chance, base = random.Random(number), self.system(place, libc, "13.2.0")
            found: list[dict[str, Any]] = []
            for at in range(LIBRARIES):
                made = spec(f"lib{at:02}", f"1.{chance.randrange(6)}.{chance.randrange(4)}", place, number)
                below = [edge(child, ["link"]) for child in chance.sample(found, min(3, at))]
                made["dependencies"] = base + below
                found.append(self.add(made))
            self._made[number, place] = found
        return self._made[number, place]


def builds(count: int, *, mixed: bool) -> dict[str, dict[str, Any]]:
    """Return the specs of an index by hash: `count` builds of the package ``big`` and what they need."""
    chance, stacks = random.Random(count), Stacks()
    for number in range(count):
        system, libc = SYSTEMS[number % len(SYSTEMS)] if mixed else SYSTEMS[0]
        cpu = chance.choice(CPUS) if mixed else "x86_64_v3"
        place = ("linux", system, cpu) if system else ("darwin", "sequoia", "m1")
        gcc = chance.choice(("11.4.0", "12.3.0", "13.2.0", "14.1.0"))
        made = spec("big", f"2.{number % 10}.0" if mixed else "2.0.0", place, number)
        below = stacks.libraries(number % STACKS, place, libc or "0")
        direct = [below[-1], *chance.sample(below, DIRECT)]
        made["dependencies"] = stacks.system(place, libc or "0", gcc) + [
            edge(c, ["link", "run"]) for c in direct
        ]
        stacks.add(made)
    return stacks.specs


def stored(specs: dict[str, dict[str, Any]], scratch: str) -> StoredIndex:
    body = os.path.join(scratch, "index.json")
    installs = {
        h: {"spec": s, "ref_count": 1, "in_buildcache": "external" not in s} for h, s in specs.items()
    }
    with open(body, "w") as file:
        json.dump({"database": {"version": "8", "installs": installs}}, file, separators=(",", ":"))
    return IndexStore(os.path.join(scratch, "store")).ingest(
        body, "bench", body, local=True, meta={"kind": "bare"}, sha256=None
    )


def once(index: StoredIndex, *, full: bool) -> dict[str, Any]:
    decoded, decode = 0, StoredIndex._decode

    def counted(*arguments: Any) -> Any:
        nonlocal decoded
        decoded += 1
        return decode(*arguments)

    with mock.patch.object(StoredIndex, "_decode", counted):
        start, start_cpu = time.perf_counter(), time.process_time()
        sources = Sources(Specs([index]), (), (), False)
        answer = resolve(["big"], sources, HOST, policy=Policy(), local_host=False, full=full)
        text = json.dumps(answer.to_dict()) if full else explain(answer)
        seconds, cpu = time.perf_counter() - start, time.process_time() - start_cpu
    root = answer.roots[0]
    return {
        "seconds": seconds,
        "cpu": cpu,
        "candidates": root.candidates,
        "fit": root.candidates - len(root.rejected),
        "decoded": decoded,
        "decided_by": list(root.decided_by),
        "bytes": len(text),
    }


def measure(count: int, rounds: int) -> Iterator[dict[str, Any]]:
    for what, mixed in (("all fit", False), ("one in five fits", True)):
        with tempfile.TemporaryDirectory() as scratch:
            specs = builds(count, mixed=mixed)
            index = stored(specs, scratch)
            for mode in ("text", "json"):
                runs = [once(index, full=mode == "json") for _ in range(rounds)]
                middle = {
                    key: round(statistics.median(run[key] for run in runs), 3) for key in ("seconds", "cpu")
                }
                yield {
                    **runs[0],
                    **middle,
                    "what": what,
                    "mode": mode,
                    "specs": len(specs),
                }
            index.close()


def main() -> int:
    gc.set_threshold(100_000, 20, 20)  # as the command line does
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--builds", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    rows = []
    for count in (args.builds // 5, 2 * args.builds // 5, 4 * args.builds // 5, args.builds):
        for row in measure(count, args.rounds):
            rows.append(row)
            if not args.json:
                print(
                    f"{count:6} builds, {row['what']:16} {row['mode']}: {row['seconds']:6.3f} s, "
                    f"{row['cpu']:6.3f} s CPU, "
                    f"{row['fit']} fit, {row['decoded']} of {row['specs']} records decoded, "
                    f"decided by {','.join(row['decided_by'])}"
                )
    if args.json:
        print(json.dumps({"rows": rows}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
