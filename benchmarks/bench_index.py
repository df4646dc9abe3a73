"""Index budgets P1 to P4: filling, refreshing and asking the local index, beside json.load and plain hashing.

    python benchmarks/bench_index.py [--rounds 5] [--specs 10000] [--json] [INDEX.json ...]

Every figure is the median of whole processes; all commands of an index run interleaved, the short ones five times a
round, so that load of the machine meets them alike. Peak memory is that of the process (ru_maxrss, at least that of
this script). Without INDEX.json an index of ``--specs`` synthetic specs is written first. "Not asked yet" is a filled
index and a new question, "asked before" the same question again (src/recall.py). Budgets:
docs/decisions/0003-index-store.md.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

HOST = ["--platform", "linux", "--os", "ubuntu22.04", "--target", "x86_64_v3", "--libc", "glibc@2.35"]
HASH = """
import hashlib, sys
digest = hashlib.sha256()
with open(sys.argv[1], "rb") as file:
    while chunk := file.read(1 << 20):
        digest.update(chunk)
"""
#: These take seconds on large indexes.
LONG = ("hash", "json.load", "resolve, empty store")
#: How often the others run in each round.
SHORT_RUNS = 5
LOAD = "import json, sys\nwith open(sys.argv[1], 'rb') as file:\n    json.load(file)"


@dataclass(frozen=True)
class Run:
    """One way to use an index: its command, and what must happen before each run."""

    command: list[str]
    before: Callable[[], None] = lambda: None


def synthetic(path: str, count: int) -> None:
    """Write an index of `count` specs, about 2 KB each, as Spack 1.1 writes it: a real DAG, from one seed."""
    chance = random.Random(count)
    names = [f"pkg-{number:04d}" for number in range(max(10, count // 30))]
    hashes: list[str] = []
    with open(path, "w") as file:
        file.write('{"database":{"version":"8","installs":{')
        for number in range(count):
            hash_ = base64.b32encode(hashlib.sha1(f"{count}-{number}".encode()).digest()).decode().lower()
            picked = chance.sample(range(len(hashes)), min(10, len(hashes)))
            edges = [
                {
                    "name": names[at % len(names)],
                    "hash": hashes[at],
                    "parameters": {"deptypes": ["link"] if each < 4 else ["build"], "virtuals": []},
                }
                for each, at in enumerate(picked)
            ]
            spec = {
                "name": names[number % len(names)],
                "version": f"1.{number // len(names)}",
                "arch": {"platform": "linux", "platform_os": "ubuntu22.04", "target": "x86_64_v3"},
                "namespace": "builtin",
                "parameters": {"build_system": "cmake", "shared": True, "cflags": [], "note": "x" * 300},
                "package_hash": hash_ + "====",
                "dependencies": edges,
                "annotations": {"original_specfile_version": 5},
                "hash": hash_,
            }
            record = {"spec": spec, "ref_count": 1, "in_buildcache": True}
            file.write(("," if number else "") + f'"{hash_}":' + json.dumps(record, separators=(",", ":")))
            hashes.append(hash_)
        file.write("}}}")


def as_mirror(index: str, place: str) -> str:
    """Make a v3 mirror of an index file (a link to it, no copy)."""
    with open(index, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    blob = os.path.join(place, "blobs/sha256", digest[:2], digest)
    manifest = os.path.join(place, "v3/manifests/index/index.manifest.json")
    for path in (blob, manifest):
        os.makedirs(os.path.dirname(path), exist_ok=True)
    os.symlink(os.path.abspath(index), blob)
    record = {
        "contentLength": os.path.getsize(index),
        "mediaType": "application/vnd.spack.db.v8+json",
        "compression": "none",
        "checksumAlgorithm": "sha256",
        "checksum": digest,
    }
    with open(manifest, "w") as file:
        json.dump({"version": 3, "data": [record]}, file)
    return place


def some_spec(index: str) -> tuple[str, str]:
    """Return NAME@VERSION and the hash of a record near the beginning of the index, without loading all of it.

    In synthetic indexes dependencies stand before what needs them: so the closure has about a hundred nodes, as that of
    real packages, and not half of the index.
    """
    with open(index, "rb") as file:
        file.seek(os.path.getsize(index) // 50)
        text = file.read(1 << 20).decode("utf-8", "replace")
    at = text.index('":{"spec":{"name":"', 40)
    record, _ = json.JSONDecoder().raw_decode(text, at + 2)
    return f"{record['spec']['name']}@{record['spec']['version']}", text[at - 32 : at]


def runs(index: str, scratch: str) -> dict[str, Run]:
    """Return the commands to measure on one index."""
    script = os.path.join(os.path.dirname(sys.executable), "cachefetch")
    tool = [script] if os.path.exists(script) else [sys.executable, "-m", "cachefetch"]
    place = ["-m", as_mirror(index, os.path.join(scratch, "mirror"))]
    spec, hash_ = some_spec(index)
    cache = os.path.join(scratch, "cache", "cachefetch", "index")

    def cold() -> None:
        shutil.rmtree(cache, ignore_errors=True)

    def forget() -> None:
        shutil.rmtree(os.path.join(cache, "answers"), ignore_errors=True)

    return {
        "bare": Run([sys.executable, "-c", "pass"]),
        "hash": Run([sys.executable, "-c", HASH, index]),
        "json.load": Run([sys.executable, "-c", LOAD, index]),
        "resolve, empty store": Run([*tool, "resolve", spec, *place, *HOST, "--no-unify"], cold),
        "resolve, not asked yet": Run(
            [*tool, "resolve", spec, *place, *HOST, "--no-unify", "--explain"], forget
        ),
        "resolve, asked before": Run([*tool, "resolve", spec, *place, *HOST, "--no-unify", "--explain"]),
        "refresh, unchanged": Run([*tool, "index", "update", *place]),
        "list NAME": Run([*tool, "list", spec.partition("@")[0], *place, *HOST]),
        "show /HASH": Run([*tool, "show", f"/{hash_}", *place, *HOST]),
    }


def once(run: Run, environ: dict[str, str]) -> tuple[float, float, int]:
    """Return seconds, peak MiB and exit code of one process."""
    run.before()
    start = time.perf_counter()
    pid = os.posix_spawn(
        run.command[0],
        run.command,
        environ,
        file_actions=[(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_WRONLY, 0) for fd in (1, 2)],
    )
    _, status, usage = os.wait4(pid, 0)
    return time.perf_counter() - start, usage.ru_maxrss / 1024, os.waitstatus_to_exitcode(status)


def measure(index: str, rounds: int) -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as scratch:
        environ = {
            **os.environ,
            "XDG_CACHE_HOME": os.path.join(scratch, "cache"),
            "XDG_CONFIG_HOME": os.path.join(scratch, "config"),
        }
        environ.pop("PYTHONDONTWRITEBYTECODE", None)  # installed packages have their byte code
        table = runs(index, scratch)
        found: dict[str, list[tuple[float, float, int]]] = {name: [] for name in table}
        for number in range(rounds + 1):
            # The short ones more often, and close together: they are compared with each other.
            for name in (*LONG, *(name for _ in range(SHORT_RUNS) for name in table if name not in LONG)):
                one = once(table[name], environ)
                if number:  # the first round fills caches
                    found[name].append(one)
    size = os.path.getsize(index)
    medians = {name: statistics.median(seconds for seconds, _, _ in each) for name, each in found.items()}
    for name, each in found.items():
        yield {
            "what": name,
            "s": round(medians[name], 4),
            "x_bare": round(medians[name] / medians["bare"], 2),
            "x_hash": round(medians[name] / medians["hash"], 2),
            "x_json_load": round(medians[name] / medians["json.load"], 4),
            "mb_per_s": round(size / medians[name] / 1e6, 1),
            "peak_mib": round(max(peak for _, peak, _ in each), 1),
            "peak_of_file": round(max(peak for _, peak, _ in each) * (1 << 20) / size, 3),
            "exit": max(code for _, _, code in each),
        }


def _line(row: dict[str, Any]) -> str:
    return (
        f"  {row['what']:22} {row['s'] * 1000:9.1f} ms {row['x_bare']:8.2f}x bare {row['x_hash']:7.2f}x hash "
        f"{1 / row['x_json_load']:8.1f}x faster than json.load  {row['peak_mib']:7.1f} MiB  exit {row['exit']}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("index", nargs="*", metavar="INDEX.json")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--specs", type=int, default=10_000)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        indexes = list(args.index)
        if not indexes:
            indexes = [os.path.join(scratch, f"synthetic-{args.specs}.json")]
            synthetic(indexes[0], args.specs)
        for index in indexes:
            rows = list(measure(index, args.rounds))
            size = os.path.getsize(index)
            if args.json:
                name = os.path.basename(index)
                print(json.dumps({"index": name, "bytes": size, "rounds": args.rounds, "rows": rows}))
                continue
            print(
                f"{os.path.basename(index)}: {size / 1e6:.1f} MB, median of {args.rounds} interleaved rounds"
            )
            for row in rows:
                print(_line(row))
    return 0


if __name__ == "__main__":
    sys.exit(main())
