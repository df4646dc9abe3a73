"""Fetch budgets P7 to P12, P15 and P16: the engine against curl and aria2c, whole cold processes, interleaved.

    python benchmarks/bench_fetch.py [--cases bulk,small,...] [--rounds 5] [--scale 1.0] [--json]

nginx serves a mirror on loopback; every client gets the same files over the same number of connections: for each
package its manifest, its spec document and its payload. cachefetch checks, hashes, binds and stores them durably
(fsync, rename); curl and aria2c only write them, "curl+sha256sum" reads them again to check them. Every round runs
each client once, so that load of the machine meets all of them alike; the first round only fills caches. Figures are
medians; "x curl" is curl's wall time divided by the client's (more is better). Server and clients share the machine.
The kernel counts a child's memory from its parent on, so no figure can be below that of this script.

In case "payloads" the metadata was proven before (as by `fetch --dry-run`), and every client gets the payloads only. In
case "tls" the engine also runs over httpx as shipped. In case "present" all packages are in the store already; the
same command with nothing to fetch is the start-up that it is compared with.

In case "crowd" 64 processes want the same packages; in "crowd-link" nginx gives each connection 2 MiB/s.

In case "delay" all clients go through a small proxy that holds every byte for half of the round-trip time. It does
not model loss, a narrow link, slow start, or the round trip of setting up a connection.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import queue
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [os.path.join(ROOT, ".dev"), ROOT]

from tests.faults.mirror import Package, write_package  # noqa: E402 - needs the path above
from tests.services.nginx import Nginx  # noqa: E402 - needs the path above

CONNECTIONS = 16
#: False: what earlier rounds brought stays until the end; see `measure`.
USED_DISK = False
#: case -> (packages, payload bytes, over TLS, round-trip seconds)
CASES = {
    "bulk": (64, 16 << 20, False, 0.0),
    "small": (2000, 50 << 10, False, 0.0),
    "payloads": (2000, 50 << 10, False, 0.0),
    "present": (2000, 50 << 10, False, 0.0),
    "one": (1, 1 << 30, False, 0.0),
    "tls": (64, 16 << 20, True, 0.0),
    "delay": (300, 50 << 10, False, 0.05),
}
CHILD = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
from cachefetch.fetch.execute import new_run, plan_items
from cachefetch.fetch.limits import Limits
from cachefetch.fetch.model import Source, Wanted
from cachefetch.fetch.store.cas import Store
from cachefetch.fetch.transports import Transports
from cachefetch.fetch.verify.openpgp import Keyring
from cachefetch.fetch.verify.policy import SignaturePolicy

with open(sys.argv[2]) as file:
    job = json.load(file)
source = Source("bench", job["url"], SignaturePolicy("none"), Keyring())
most = job["connections"]
limits = Limits(metadata_in_flight=most, blob_connections=most, blobs_per_host=most)
transports = Transports(limits)
if job["general"]:
    from cachefetch.fetch.transports.direct import DirectTransport
    DirectTransport._speaks = lambda self, url: False
wanted = [Wanted(*one, (source,)) for one in job["wanted"]]
if job["plan"]:
    import anyio, functools
    anyio.run(functools.partial(plan_items, wanted, store=Store(sys.argv[3]), transports=transports, limits=limits))
    sys.exit()
run = new_run(wanted, store=Store(sys.argv[3]), transports=transports, limits=limits)
receipt = run.begin()
if receipt is None:
    import anyio
    receipt = anyio.run(run.finish)
assert len(receipt.items) == len(wanted)
assert not receipt.warnings
"""


@dataclass(frozen=True)
class Run:
    """One process: wall and CPU seconds, largest resident memory of a process in MiB."""

    wall: float
    cpu: float
    rss: float


@dataclass(frozen=True)
class Job:
    """What every client gets: the packages, where the server is, and a directory for lists and results."""

    packages: list[Package]
    url: str
    scratch: str
    authority: str
    proven: bool = False  # the store has all metadata when a fetch begins

    def files(self) -> list[str]:
        """Return the paths below the mirror of all files to get."""
        if self.proven:
            return [p.blob for p in self.packages]
        return [path for p in self.packages for path in (p.manifest, p.spec_blob, p.blob)]

    def path(self, name: str) -> str:
        return os.path.join(self.scratch, name)


def cachefetch(
    job: Job,
    connections: int = CONNECTIONS,
    *,
    general: bool = False,
    nothing: bool = False,
    plan: bool = False,
) -> list[str]:
    """Return the command of this project's engine; `general`: over httpx; `nothing`: no packages; `plan`: only that."""
    wanted = [] if nothing else [(p.name, p.version, p.hash) for p in job.packages]
    name = job.path(f"job-{connections}-{general}-{nothing}-{plan}.json")
    made = {"url": job.url, "connections": connections, "wanted": wanted, "general": general, "plan": plan}
    with open(name, "w") as file:
        json.dump(made, file)
    return [sys.executable, "-c", CHILD, os.path.join(ROOT, ".dev"), name, job.path("out")]


def curl(job: Job) -> list[str]:
    """Return the command of curl."""
    with open(job.path("curl.txt"), "w") as file:
        for path in job.files():
            file.write(f'url = "{job.url}/{path}"\noutput = "{job.path("out")}/{path}"\n')
    command = ["curl", "--silent", "--fail", "--create-dirs", "--parallel"]
    command += ["--parallel-max", str(CONNECTIONS), "-K", job.path("curl.txt")]
    return [*command, "--cacert", job.authority] if job.authority else command


def curl_then_sha256sum(job: Job) -> list[str]:
    """Return the command that checks what curl brought."""
    with open(job.path("sums.txt"), "w") as file:
        for p in job.packages:
            for path in (p.blob,) if job.proven else (p.spec_blob, p.blob):
                file.write(f"{path.rpartition('/')[2]}  {job.path('out')}/{path}\n")
    return ["sh", "-c", '"$@" && sha256sum --quiet -c ' + job.path("sums.txt"), "sh", *curl(job)]


def aria2c(job: Job) -> list[str]:
    """Return the command of aria2c."""
    with open(job.path("aria2.txt"), "w") as file:
        for path in job.files():
            file.write(f"{job.url}/{path}\n  out={path}\n")
    command = ["aria2c", "-q", "--file-allocation=none", "-x1", "-s1", f"-j{CONNECTIONS}"]
    if len(job.packages) == 1:  # its best for one large file
        command[3:5] = ["-x4", "-s4"]
    command += ["-d", job.path("out"), "-i", job.path("aria2.txt")]
    return [*command, f"--ca-certificate={job.authority}"] if job.authority else command


def measure(command: list[str], job: Job) -> Run:
    """Run one client into an empty directory.

    What an earlier run brought is emptied and moved away, not deleted: ext4 takes no inode that was deleted within the
    last minute, and to search behind thousands of them costs more than all that is measured. With `--used-disk` it is
    deleted, as by the script that the budgets were measured with.
    """
    if USED_DISK:
        shutil.rmtree(job.path("out"), ignore_errors=True)
    elif os.path.exists(job.path("out")):
        old = tempfile.mkdtemp(prefix="old-", dir=job.scratch)
        os.rename(job.path("out"), old)
        for place, _, names in os.walk(old):
            for path in (os.path.join(place, name) for name in names):
                if os.path.getsize(path) > 1 << 20:
                    os.truncate(path, 0)
    os.makedirs(job.path("out"))
    if job.proven and command[0] == sys.executable:
        timed(cachefetch(job, plan=True), job)
    return timed(command, job)


def timed(command: list[str], job: Job) -> Run:
    """Run one client."""
    environ = {**os.environ, "SSL_CERT_FILE": job.authority} if job.authority else dict(os.environ)
    environ.pop("PYTHONDONTWRITEBYTECODE", None)  # installed packages have their byte code
    start = time.perf_counter()
    process = subprocess.Popen(command, env=environ, stderr=subprocess.DEVNULL)  # curl's meter
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command[0]} failed with {process.returncode}")
    return Run(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def check_store(job: Job) -> None:
    """Make sure that the engine's last run brought everything, and the right bytes."""
    for package in job.packages:
        digest = package.sha256
        with open(os.path.join(job.path("out"), "sha256", digest[:2], digest), "rb") as file:
            assert hashlib.file_digest(file, "sha256").hexdigest() == digest


# --- the link with a round trip ---------------------------------------------------------------------------------


@contextlib.contextmanager
def delayed(port: int, one_way: float) -> Iterator[int]:
    """Forward a new port to `port`, every byte `one_way` seconds late; yield the new port."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)

    def accept() -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", port))
            for one, other in ((near, far), (far, near)):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                _pipe(one, other, one_way)

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        listener.close()


def _pipe(source: socket.socket, target: socket.socket, delay: float) -> None:
    waiting: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()

    def read() -> None:
        data = b"x"
        while data:
            try:
                data = source.recv(1 << 16)
            except OSError:
                data = b""
            waiting.put((time.monotonic() + delay, data))

    def write() -> None:
        with contextlib.suppress(OSError):
            while True:
                due, data = waiting.get()
                time.sleep(max(0.0, due - time.monotonic()))
                if not data:
                    target.shutdown(socket.SHUT_WR)
                    return
                target.sendall(data)

    for loop in (read, write):
        threading.Thread(target=loop, daemon=True).start()


# --- cases ----------------------------------------------------------------------------------------------------------


def write_packages(root: str, count: int, size: int) -> list[Package]:
    """Write the mirror; return its packages without their payloads."""
    return [replace(write_package(root, f"p{number}", size), payload=b"") for number in range(count)]


@contextlib.contextmanager
def prepared(case: str, scale: float, scratch: str, link: str = "") -> Iterator[Job]:
    """Write the mirror of a case and serve it."""
    count, size, secure, round_trip = CASES[case]
    count = max(1, int(count * scale))
    root = os.path.join(scratch, "mirror")
    # In another process: a child's largest resident memory starts with the largest that its parent ever had.
    with ProcessPoolExecutor(1, get_context("spawn")) as other:
        packages = other.submit(write_packages, root, count, size).result()
    tls, authority = None, ""
    if secure:
        import trustme

        issuer = trustme.CA()
        issuer.cert_pem.write_to_path(authority := os.path.join(scratch, "ca.pem"))
        made = issuer.issue_cert("127.0.0.1")
        tls = (os.path.join(scratch, "cert.pem"), os.path.join(scratch, "key.pem"))
        made.private_key_and_cert_chain_pem.write_to_path(tls[0])
        made.private_key_pem.write_to_path(tls[1])
    with Nginx(os.path.join(scratch, "nginx"), root, tls=tls, server=f"access_log off; {link}") as server:
        if round_trip:
            with delayed(server.port, round_trip / 2) as port:
                yield Job(packages, f"http://127.0.0.1:{port}", scratch, authority)
        else:
            yield Job(packages, server.url, scratch, authority)


def compare(case: str, rounds: int, scale: float) -> dict[str, Run]:
    """Return the medians of every client."""
    clients: dict[str, Callable[[Job], list[str]]] = {"cachefetch": cachefetch, "curl": curl}
    if case == "tls":
        clients["cachefetch over httpx"] = lambda job: cachefetch(job, general=True)
    if case != "delay":
        clients["curl+sha256sum"] = curl_then_sha256sum
    else:
        clients["cachefetch, 1 connection"] = lambda job: cachefetch(job, 1)
    if shutil.which("aria2c"):
        clients["aria2c"] = aria2c
    results: dict[str, list[Run]] = {name: [] for name in clients}
    with tempfile.TemporaryDirectory() as scratch, prepared(case, scale, scratch) as job:
        if case == "payloads":
            job = replace(job, proven=True)
        commands = {name: make(job) for name, make in clients.items()}
        for number in range(rounds + 1):
            for name, command in commands.items():
                if name == "cachefetch, 1 connection" and number > 1:
                    continue  # takes half a minute, and is only compared with 16 connections
                run = measure(command, job)
                if name == "cachefetch" and number == 0:
                    check_store(job)
                if number or name == "cachefetch, 1 connection":
                    results[name].append(run)
    return {
        name: Run(
            statistics.median(run.wall for run in runs),
            statistics.median(run.cpu for run in runs),
            max(run.rss for run in runs),
        )
        for name, runs in results.items()
    }


def present(rounds: int, scale: float) -> dict[str, float]:
    """P15: all packages are in the store, compared with the same command without packages."""
    with tempfile.TemporaryDirectory() as scratch, prepared("present", scale, scratch) as job:
        command, nothing = cachefetch(job), cachefetch(job, nothing=True)
        measure(command, job)
        runs = [(timed(nothing, job), timed(command, job)) for _ in range(rounds + 1)][1:]
        return {
            "packages": len(job.packages),
            "start_up_s": round(statistics.median(one.wall for one, _ in runs), 3),
            "present_s": round(statistics.median(other.wall for _, other in runs), 3),
            "present_cpu_s": round(statistics.median(other.cpu - one.cpu for one, other in runs), 3),
        }


def crowd(processes: int, scale: float, link: str = "") -> dict[str, float]:
    """P16: many processes fetch the same packages into one cold store, compared with one process.

    `link` is nginx's limit of each connection: on loopback the starts of so many processes are all there is to see.
    """
    with tempfile.TemporaryDirectory() as scratch, prepared("bulk", 0.25 * scale, scratch, link) as job:
        command = cachefetch(job)
        alone = min(measure(command, job).wall for _ in range(2))
        shutil.rmtree(job.path("out"))
        start = time.perf_counter()
        running = [subprocess.Popen(command) for _ in range(processes)]
        assert all(process.wait() == 0 for process in running)
        together = time.perf_counter() - start
    return {"processes": processes, "alone_s": round(alone, 2), "together_s": round(together, 2)}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--cases", default="bulk,small,payloads,one,tls,delay,present,crowd,crowd-link")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="fewer packages, for a quick look")
    parser.add_argument(
        "--used-disk", action="store_true", help="delete what each round brought before the next"
    )
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    global USED_DISK
    USED_DISK = args.used_disk
    report: dict[str, object] = {"rounds": args.rounds, "connections": CONNECTIONS}
    for case in args.cases.split(","):
        alone: dict[str, Callable[[], dict[str, float]]] = {
            "crowd": lambda: crowd(64, args.scale),
            "crowd-link": lambda: crowd(64, args.scale, "limit_rate 2m;"),
            "present": lambda: present(args.rounds, args.scale),
        }
        if case in alone:
            report[case] = alone[case]()
            print(f"{case}: {report[case]}", file=sys.stderr)
            continue
        found = compare(case, args.rounds, args.scale)
        reference = found["curl"]
        rows = {
            name: {
                "wall_s": round(run.wall, 3),
                "x_curl": round(reference.wall / run.wall, 2),
                "cpu_s": round(run.cpu, 2),
                "cpu_x_curl": round(run.cpu / reference.cpu, 2),
                "rss_mib": round(run.rss),
            }
            for name, run in found.items()
        }
        report[case] = rows
        if not args.json:
            print(f"{case}: {CASES[case][0]} x {CASES[case][1]} bytes, median of {args.rounds}")
            for name, row in rows.items():
                print(
                    f"  {name:26} {row['wall_s']:8.3f} s {row['x_curl']:6.2f}x curl"
                    f"   CPU {row['cpu_s']:7.2f} s {row['cpu_x_curl']:5.2f}x   {row['rss_mib']:5d} MiB",
                    flush=True,
                )
    if args.json:
        print(json.dumps(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
