"""Time of unpacking a package of 6,700 files against GNU tar (P14). One line per measure; --json for a document.

    python benchmarks/bench_extract.py [--json] [--repeat N] [--case NAME] [--files N] [--disk DIR] [--memory DIR]

The package is made here: many small files, some large ones, text and binaries that hold the build prefix. Every
round runs both, in turn the one and the other first, on the same file system, and before each run all that is still to
be written is (`sync`), or the disk would work for the run before. On a disk, what they wrote is removed at the end of
all rounds, and each run has a directory far from the others (`chattr +T`): ext4 does not give an inode out again for 5
minutes and takes four times the CPU to look for others, which would hide what is measured. The ratio is the median of
the rounds' ratios; its quartiles say how steady the machine was. Both sides do the same work, except that ours also
checks the sha256, strips the prefix and counts the files that hold it. Neither syncs what it wrote. P14: at least 0.75
times the speed of `tar xf` on disk, and 1.3 times `tar xzf` in memory (with the extra `fast`, isal).
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from typing import TYPE_CHECKING

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, ".dev"))

from cachefetch.fetch.extract import extract_tarball  # noqa: E402  # after the path is set

if TYPE_CHECKING:
    from collections.abc import Callable

PREFIX = "opt/store/linux-x86_64_v3/bench-1.0-" + "a" * 32
BUILDINFO = "{buildpath: /opt/store, relative_prefix: x, hash_to_prefix: {}}\n"


def content(number: int, source: random.Random) -> bytes:
    """Return the bytes of one file: half text, half code; one in a hundred has 4 MB."""
    size = 4 << 20 if number % 100 == 0 else source.randrange(200, 60_000)
    words = [f"symbol_{source.randrange(3000)} " for _ in range(200)] + [f"/{PREFIX}/lib "] * (
        number % 3 == 0
    )
    text = " ".join(words).encode()
    block = text + (source.randbytes(len(text) // 2) if number % 2 else b"")
    return (block * (size // len(block) + 1))[:size]


def make(path: str, count: int, mode: str) -> None:
    """Write the package as Spack does: parents first, sorted, metadata last."""
    source = random.Random(1)
    with tarfile.open(path, mode, format=tarfile.PAX_FORMAT) as archive:  # type: ignore[call-overload]  # mode is a variable

        def add(name: str, data: bytes | None) -> None:
            member = tarfile.TarInfo(name)
            member.type, member.mode = (tarfile.DIRTYPE, 0o755) if data is None else (tarfile.REGTYPE, 0o644)
            member.size = len(data or b"")
            archive.addfile(member, io.BytesIO(data or b""))

        parts = PREFIX.split("/")
        for end in range(1, len(parts) + 1):
            add("/".join(parts[:end]), None)
        for directory in range(count // 67):
            add(f"{PREFIX}/d{directory:03}", None)
            for number in range(67):
                add(f"{PREFIX}/d{directory:03}/file{number:03}.dat", content(directory * 67 + number, source))
        add(f"{PREFIX}/.spack", None)
        add(f"{PREFIX}/.spack/binary_distribution", BUILDINFO.encode())


def ours(path: str) -> Callable[[str], None]:
    """Return a measure of ours: unpacks into a directory."""
    with open(path, "rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    size = os.path.getsize(path)
    return lambda base: void(extract_tarball(path, os.path.join(base, "out"), sha256=sha256, size=size))


def void(_: object) -> None:
    """Drop a result."""


def peer(path: str) -> Callable[[str], None]:
    """Return a measure of GNU tar."""

    def run(base: str) -> None:
        os.mkdir(os.path.join(base, "out"))
        subprocess.run(["tar", "-xf", path, "-C", os.path.join(base, "out")], check=True)

    return run


def timed(measure: Callable[[str], None], base: str, keep: bool) -> float:
    """Return the seconds of one run on a quiet disk; making its directory and removing it is not counted."""
    directory = tempfile.mkdtemp(dir=base)
    os.sync()
    start = time.perf_counter()
    measure(directory)
    took = time.perf_counter() - start
    if not keep:
        shutil.rmtree(directory)
    return took


def one_round(
    measures: dict[str, Callable[[str], None]], base: str, number: int, keep: bool
) -> dict[str, float]:
    """Return the seconds of each measure; which is first changes from round to round."""
    order = list(measures) if number % 2 else list(reversed(measures))
    return {name: timed(measures[name], base, keep) for name in order}


def spread(base: str) -> None:
    """Let the directories in `base` be far from each other, where the file system can."""
    if shutil.which("chattr"):
        subprocess.run(["chattr", "+T", base], check=False, stderr=subprocess.DEVNULL)


def run(arguments: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Return seconds and ratio by case."""
    results = {}
    for case, mode, suffix, where in (
        ("disk, tar", "w", "tar", arguments.disk),
        ("memory, tar", "w", "tar", arguments.memory),
        ("memory, tgz", "w:gz", "tgz", arguments.memory),
    ):
        if arguments.case not in case:
            continue
        with tempfile.TemporaryDirectory(prefix="bench-extract-", dir=where) as base:
            path = os.path.join(base, f"package.{suffix}")
            make(path, arguments.files, mode)
            measures = {"ours": ours(path), "tar": peer(path)}
            spread(base)
            keep = where == arguments.disk != arguments.memory
            rounds = [one_round(measures, base, number, keep) for number in range(arguments.repeat + 1)][1:]
            ratios = [times["tar"] / times["ours"] for times in rounds]
            low, middle, high = statistics.quantiles(ratios, n=4)
            medians = {name: statistics.median(times[name] for times in rounds) for name in measures}
            results[case] = {**medians, "ratio": middle, "low": low, "high": high}
    return results


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else "")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--repeat", type=int, default=9)
    parser.add_argument("--case", default="", help="only the cases with this text in their name")
    parser.add_argument("--files", type=int, default=6700)
    parser.add_argument("--disk", default=tempfile.gettempdir())
    shared = "/dev/shm"
    parser.add_argument("--memory", default=shared if os.path.isdir(shared) else tempfile.gettempdir())
    results = run(arguments := parser.parse_args())
    if arguments.json:
        print(json.dumps({"schema": "cachefetch/bench-extract/1", "results": results}))
        return 0
    for case, row in results.items():
        print(
            f"{case:12}  ours {row['ours']:.3f} s  tar {row['tar']:.3f} s  speed {row['ratio']:.2f} x tar "
            f"({row['low']:.2f} to {row['high']:.2f})"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
