"""Start-up budgets P4 to P6: whole cold processes, interleaved with ``python -c pass`` of the same interpreter.

    python benchmarks/bench_startup.py [--rounds 21] [--index INDEX.json] [--json]

Every round runs each command once, so that load of the machine meets all of them alike. Figures are medians and
ratios to the bare interpreter. With ``--index`` (for example 100,000 synthetic specs) `resolve` of one name on that
index is measured too. P6 counts modules: what `resolve` on fresh data imports of the network stack must be none.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
PAGE = os.path.join(ROOT, "examples", "pages", "py-multidict.md")
HOST = ["--platform", "linux", "--os", "ubuntu22.04", "--target", "x86_64_v3", "--libc", "glibc@2.35"]
NETWORK = ("httpx", "httpcore", "ssl", "anyio", "asyncio", "socket")
BUDGETS = {
    "--version": 2.5,
    "--help": 2.5,
    "resolve page": 5.0,
    "resolve page, detected host": 5.0,
    "resolve 100k": 5.0,
}


def commands(index: str | None) -> dict[str, list[str]]:
    script = os.path.join(os.path.dirname(sys.executable), "cachefetch")
    run = [script] if os.path.exists(script) else [sys.executable, "-m", "cachefetch"]
    table = {
        "bare": [sys.executable, "-c", "pass"],
        "--version": [*run, "--version"],
        "--help": [*run, "--help"],
        "resolve page": [*run, "resolve", "py-multidict@6.1.0", "-m", PAGE, *HOST, "--explain"],
        "resolve page, detected host": [*run, "resolve", "py-multidict@6.1.0", "-m", PAGE, "--explain"],
    }
    if index:
        name = _some_name(index)
        table["resolve 100k"] = [*run, "resolve", name, "-m", index, *HOST, "--explain"]
    return table


def _some_name(index: str) -> str:
    """Return the package with the most records, as NAME@VERSION of its newest one."""
    with open(index, "rb") as file:
        installs = json.load(file)["database"]["installs"]
    versions: dict[str, list[str]] = {}
    for record in installs.values():
        if record["in_buildcache"]:
            versions.setdefault(record["spec"]["name"], []).append(record["spec"]["version"])
    name = max(sorted(versions), key=lambda key: len(versions[key]))
    return f"{name}@{max(versions[name])}"


def measure(table: dict[str, list[str]], rounds: int, environ: dict[str, str]) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in table}
    for number in range(rounds + 1):
        for name, command in table.items():
            start = time.perf_counter()
            subprocess.run(
                command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
            )
            if number:  # the first round fills caches
                times[name].append(time.perf_counter() - start)
    return times


def network_modules(command: list[str], environ: dict[str, str]) -> list[str]:
    """Run the command in a process that tells what it imported."""
    code = (
        "import sys\nfrom cachefetch.__main__ import main\n"
        f"sys.argv[1:] = {command[command.index('resolve') :]!r}\nmain()\n"
        "sys.stderr.write('\\nMODULES ' + ' '.join(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True
    )
    modules = done.stderr.rpartition("MODULES ")[2].split()
    return [name for name in NETWORK if name in modules]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--index", help="a bare index.json")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        environ = {**os.environ, "XDG_CACHE_HOME": scratch, "XDG_CONFIG_HOME": scratch}
        environ.pop("PYTHONDONTWRITEBYTECODE", None)  # installed packages have their byte code
        table = commands(args.index and os.path.abspath(args.index))
        times = measure(table, args.rounds, environ)
        p6 = {n: network_modules(c, environ) for n, c in table.items() if n.startswith("resolve")}
    medians = {name: statistics.median(values) for name, values in times.items()}
    rows = {
        name: {
            "ms": round(value * 1000, 1),
            "x_bare": round(value / medians["bare"], 2),
            "budget": BUDGETS.get(name),
        }
        for name, value in medians.items()
    }
    if args.json:
        print(json.dumps({"rounds": args.rounds, "rows": rows, "network_modules": p6}))
        return 0
    print(f"median of {args.rounds} interleaved rounds")
    for name, row in rows.items():
        budget = f"budget {row['budget']}x" if row["budget"] else ""
        print(f"{name:30} {row['ms']:7.1f} ms  {row['x_bare']:5.2f}x bare  {budget}")
    for name, found in p6.items():
        print(f"P6 {name}: {len(found)} network modules {' '.join(found)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
