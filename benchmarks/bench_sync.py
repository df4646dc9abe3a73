"""Budgets P13 and P15 (sync part): a no-op sync of many blobs, the audit against `openssl dgst`, and the first copy.

Usage::

    python benchmarks/bench_sync.py [--packages 50000] [--large 24] [--small 5000] [--first 10000]
        [--cases audit,first,no-op]

A synthetic mirror of N packages (2 N blobs) is written and synced once; then the no-op run is timed over a bare
start, from a directory and over HTTP with its requests counted, beside `rclone sync --checksum` and `rsync -ac` of
the same tree where they are installed. The audit hashes LARGE blobs of 16 MiB, and
SMALL of 64 KiB. All in one run, medians of three.
The first copy is measured once each, beside programs that copy or download the same files and prove nothing.
"""

from __future__ import annotations

import argparse
import base64
import gzip
import hashlib
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [os.path.join(ROOT, ".dev"), ROOT]

from tests.services.nginx import Nginx  # noqa: E402 - needs the path above

from cachefetch.resolver.index.writer import (  # noqa: E402 - needs the path above
    INDEX_MEDIA_TYPE,
    index_text,
    manifest_text,
)

REPEATS = 3


def blob(root: str, data: bytes) -> str:
    digest = hashlib.sha256(data).hexdigest()
    write(os.path.join(root, "blobs/sha256", digest[:2], digest), data)
    return digest


def write(path: str, data: bytes) -> None:
    try:
        with open(path, "wb") as file:
            file.write(data)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        write(path, data)


def make_mirror(root: str, packages: int, size: int) -> None:
    """Write an unsigned v3 mirror; payloads are random and of `size` bytes."""
    nodes = {}
    generator = random.Random(1)
    for number in range(packages):
        name = f"pkg-{number // 50}"
        hash_ = (
            base64.b32encode(hashlib.sha1(str(number).encode(), usedforsecurity=False).digest())
            .decode()
            .lower()
        )
        node = {
            "name": name,
            "version": f"1.{number}",
            "arch": {"platform": "linux", "platform_os": "debian12", "target": "x86_64_v3"},
            "namespace": "builtin",
            "parameters": {"build_system": "generic", "shared": True, "cflags": []},
            "package_hash": "x" * 52 + "====",
            "annotations": {"original_specfile_version": 5},
            "hash": hash_,
        }
        nodes[hash_] = node
        document = json.dumps({"spec": {"_meta": {"version": 5}, "nodes": [node]}}).encode()
        spec, payload = gzip.compress(document, 1, mtime=0), generator.randbytes(size)
        entries = [
            {
                "contentLength": len(data),
                "mediaType": media,
                "compression": "gzip",
                "checksumAlgorithm": "sha256",
                "checksum": blob(root, data),
            }
            for data, media in (
                (payload, "application/vnd.spack.install.v2.tar+gzip"),
                (spec, "application/vnd.spack.spec.v5+json"),
            )
        ]
        path = f"v3/manifests/spec/{name}/{name}-1.{number}-{hash_}.spec.manifest.json"
        write(os.path.join(root, path), json.dumps({"version": 3, "data": entries}).encode())
    index = index_text(nodes, nodes.keys())
    manifest = manifest_text(INDEX_MEDIA_TYPE, blob(root, index), len(index))
    write(os.path.join(root, "v3/manifests/index/index.manifest.json"), manifest)
    write(os.path.join(root, "v3/layout.json"), b'{"signing": "gpg"}')


class Counting(SimpleHTTPRequestHandler):
    """Serves a directory with ETags and counts the requests."""

    count = 0

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        type(self).count += 1
        super().do_GET()


def seconds(*words: str, env: dict[str, str], codes: tuple[int, ...] = (0,)) -> float:
    started = time.perf_counter()
    done = subprocess.run(words, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
    taken = time.perf_counter() - started
    if done.returncode not in codes:
        raise SystemExit(f"{' '.join(words)}: exit {done.returncode}\n{done.stderr.decode()[-600:]}")
    return taken


def median(*words: str, env: dict[str, str]) -> float:
    return statistics.median(seconds(*words, env=env) for _ in range(REPEATS))


def report(name: str, value: str) -> None:
    sys.stdout.write(f"{name:52} {value}\n")
    sys.stdout.flush()


def no_op(scratch: str, packages: int, env: dict[str, str], program: list[str]) -> None:
    source, to = os.path.join(scratch, "source"), os.path.join(scratch, "to")
    make_mirror(source, packages, 200)
    words = [*program, "sync", "--all", "--unsigned", "-q", "--to", to, "--from"]
    first = seconds(*words, source, env=env)
    report(
        f"first sync of {2 * packages:,} blobs, directory",
        f"{first:.1f} s, {1000 * first / packages:.2f} ms a package",
    )
    bare = median(*program, "--version", env=env)
    taken = median(*words, source, env=env)
    report("bare start", f"{bare:.3f} s")
    report("no-op sync, directory", f"{taken:.3f} s, {taken - bare:.3f} s over start (budget P15: 1 s)")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Counting, directory=source))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    seconds(*words, url, env=env)
    Counting.count = 0
    taken = seconds(*words, url, env=env)
    report("no-op sync, HTTP", f"{taken:.3f} s, {Counting.count} requests (budget P15: 5)")
    server.shutdown()
    copy = os.path.join(scratch, "copy")
    peers = {
        "rclone sync --checksum": ["rclone", "sync", "--checksum", source, copy],
        "rsync -a (size and time only)": ["rsync", "-a", "--delete", source + "/", copy + "/"],
        "rsync -ac": ["rsync", "-ac", "--delete", source + "/", copy + "/"],
    }
    for name, peer in peers.items():
        if shutil.which(peer[0]) is None:
            report(f"no-op {name}", "not installed")
            continue
        seconds(*peer, env=env)
        report(f"no-op {name}", f"{median(*peer, env=env):.3f} s")


def first_sync(scratch: str, packages: int, env: dict[str, str], program: list[str]) -> None:
    """Measure the first copy, which proves, binds and syncs every file, beside programs that copy or download files."""
    source = os.path.join(scratch, "first")
    make_mirror(source, packages, 16 << 10)
    names = [os.path.relpath(os.path.join(d, f), source) for d, _, fs in os.walk(source) for f in fs]
    listing = os.path.join(scratch, "first.txt")
    with Nginx(os.path.join(scratch, "nginx"), source, server="access_log off;") as server:
        lines = [f'url="{server.url}/{name}"\noutput="{name}"\n' for name in names]
        write(listing, "".join(lines).encode())
        sync = [*program, "sync", "--all", "--unsigned", "-q", "--to", "{to}", "--from"]
        curl = [
            "curl",
            "-s",
            "--parallel",
            "--parallel-max",
            "16",
            "--create-dirs",
            "--output-dir",
            "{to}",
            "-K",
        ]
        runs = {
            "cachefetch sync, directory": [*sync, source],
            "rsync -a --fsync": ["rsync", "-a", "--fsync", source + "/", "{to}/"],
            "rclone copy": ["rclone", "copy", "--transfers", "16", source, "{to}"],
            "cachefetch sync, nginx": [*sync, server.url],
            "curl --parallel, nginx": [*curl, listing],
            "rclone copy --files-from, nginx": [
                *("rclone", "copy", "--transfers", "16", "--no-traverse", "--files-from", "{names}"),
                *("--http-url", server.url, ":http:", "{to}"),
            ],
        }
        names_file = os.path.join(scratch, "names.txt")
        write(names_file, "\n".join(names).encode())
        for name, words in runs.items():
            if shutil.which(words[0]) is None:
                report(f"first copy, {name}", "not installed")
                continue
            to = os.path.join(scratch, "first-copy")
            shutil.rmtree(to, ignore_errors=True)
            os.sync()
            places = {"{to}": to, "{to}/": to + "/", "{names}": names_file}
            taken = seconds(*(places.get(word, word) for word in words), env=env)
            each = 1000 * taken / packages
            report(f"first copy of {packages:,}: {name}", f"{taken:.1f} s, {each:.2f} ms a package")


def audit(scratch: str, packages: int, size: int, env: dict[str, str], program: list[str]) -> None:
    mirror = os.path.join(scratch, f"audit-{size}")
    make_mirror(mirror, packages, size)
    names = [os.path.join(d, f) for d, _, fs in os.walk(os.path.join(mirror, "blobs")) for f in fs]
    words = [*program, "verify", mirror, "--unsigned", "-q"]
    seconds(*words, env=env)  # fills the page cache
    bare = median(*program, "--version", env=env)
    for name, run, core in (
        ("verify", words, ""),
        ("verify on one core", words, "0"),
        ("openssl dgst -sha256 on one core", ["openssl", "dgst", "-sha256", *names], "0"),
        ("sha256sum on one core", ["sha256sum", *names], "0"),
    ):
        prefix = ["taskset", "-c", core] if core else []
        taken = median(*prefix, *run, env=env) - (bare if run is words else 0)
        rate = packages * size / taken / (1 << 20)
        report(f"{packages:,} x {size >> 10:,} KiB: {name}", f"{taken:.3f} s, {rate:,.0f} MiB/s")


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure sync and verify.")
    parser.add_argument("--packages", type=int, default=50_000)
    parser.add_argument("--large", type=int, default=24)
    parser.add_argument("--small", type=int, default=5000, help="packages of 64 KiB to audit")
    parser.add_argument("--first", type=int, default=10_000, help="packages of the first copy")
    parser.add_argument("--cases", default="audit,first,no-op", help="which of them")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-sync-") as scratch:
        env = {
            **os.environ,
            "PYTHONPATH": os.path.join(ROOT, ".dev"),
            "XDG_CACHE_HOME": os.path.join(scratch, "cache"),
        }
        env.pop("PYTHONDONTWRITEBYTECODE", None)
        program = [sys.executable, "-m", "cachefetch"]
        cases = arguments.cases.split(",")
        if "audit" in cases:
            audit(scratch, arguments.large, 16 << 20, env, program)
            audit(scratch, arguments.small, 64 << 10, env, program)
        if "first" in cases:
            first_sync(scratch, arguments.first, env, program)
        if "no-op" in cases:
            no_op(scratch, arguments.packages, env, program)


if __name__ == "__main__":
    main()
