"""The two sections of reuse.json: what real Spack's solver reuses on 16 hosts, against our choice.

`reuse.gates`: Spack's pick is among the candidates that we accept, or both say none. `reuse.answers`: the same hash.
A difference is known when the oracle itself doubts its answer, when our hash is one of its ties, or when Spack's pick
loses on a key whose order departs from Spack's on purpose (docs/semantics.md, "Total order"). That is computed from
the deciding key of the answer, never from a list of requests.

What is neither, and kept all the same, is counted and listed apart with a reason for each case
(docs/decisions/0005-order-of-choice.md): Spack's pick loses on K4a or K4b, or the solver refuses to be asked.
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cachefetch.answers import resolve
from cachefetch.resolver.closure import closure_of
from cachefetch.resolver.host.overrides import parse_compiler
from cachefetch.resolver.index.query import PageSource, Specs
from cachefetch.resolver.index.readers.nodes import node_from_dict, specfile_of_database
from cachefetch.resolver.model import Host, Libc, Record
from cachefetch.resolver.rules.context import Policy
from cachefetch.sources import Sources

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cachefetch.resolver.resolution import Root

    #: Case, Spack's hash, ours, the reason of a known difference, the reason of one that stands apart.
    Difference = tuple[str, str, str, str, str]

HERE = Path(__file__).resolve().parent
#: The mirror on which the oracle was made.
MIRROR = "v3-unsigned"
#: Keys whose order departs from Spack's on purpose.
DEPARTS = frozenset(("K1", "K3", "K5", "K6", "K7", "K7b", "K9", "K11", "K14", "K15", "K15b", "K16"))
#: The preference of the oracle's package repository (fixtures: zlib before zlib-ng, openmpi before mpich).
PREFERENCES = {"zlib-api": ("zlib", "zlib-ng"), "mpi": ("openmpi", "mpich")}


@cache
def mirror(name: str = MIRROR) -> Sources:
    """Return the specs of a fixture of layout 3, as one source."""
    root = HERE / "data" / "fixtures" / name
    manifest = json.loads((root / "v3/manifests/index/index.manifest.json").read_bytes())
    digest = manifest["data"][0]["checksum"]
    index = json.loads((root / "blobs" / "sha256" / digest[:2] / digest).read_bytes())["database"]
    specfile = specfile_of_database(index["version"])
    records = [
        Record(node_from_dict(row["spec"], hash=hash_, specfile=specfile), bool(row.get("in_buildcache")))
        for hash_, row in index["installs"].items()
    ]
    return Sources(Specs([PageSource(name, records)]), (), (), False)


def host_of(facts: dict[str, Any]) -> Host:
    """Return the pretended host; all of its facts are given, and its compilers stand under /opt/hpc."""
    return Host(
        facts["platform"],
        facts["os"],
        facts["target"],
        Libc("glibc", facts["libc"], "/usr") if facts["libc"] else None,
        tuple(parse_compiler(text) for text in facts["compilers"]),
        overridden=frozenset(("platform", "os", "target", "libc", "compilers")),
    )


@cache
def answers(path: str) -> tuple[tuple[str, dict[str, Any], Root], ...]:
    """Return (case, Spack's answer, our root) for every request on every host."""
    found = []
    for entry in json.loads(path)["hosts"]:
        host = host_of(entry["host"])
        for answer in entry["answers"]:
            ours = resolve([answer["request"]], mirror(), host, policy=Policy(providers=PREFERENCES))
            found.append((f"{entry['host']['name']}: {answer['request']}", answer, ours.roots[0]))
    return tuple(found)


def gates(document: dict[str, Any]) -> Iterator[Difference]:
    """Compare what is accepted: Spack's pick where we accept it too, or none by both."""
    for case, answer, root in answers(json.dumps(document)):
        pick = answer["hash"]
        accepted = _accepted(root)
        fits = pick in accepted or (pick == "none" and not accepted)
        ours = pick if fits else ("none" if not accepted else f"{len(accepted)} accepted, not this one")
        yield case, pick, ours, _doubt(answer), _refusal(answer, accepted)


def choices(document: dict[str, Any]) -> Iterator[Difference]:
    """Compare the choice."""
    for case, answer, root in answers(json.dumps(document)):
        pick = answer["hash"]
        ours = root.chosen.hash if root.chosen else "none"
        known, apart = _doubt(answer), _refusal(answer, _accepted(root))
        if ours in answer.get("tie", ()):
            known = "the oracle lists our hash as a tie"
        lost = next((other.worse_by for other in root.others if other.artifact.hash == pick), "")
        if lost in DEPARTS:
            known = f"Spack's pick loses on {lost}"
        elif lost in ("K4a", "K4b"):
            apart = _of_the_system(lost, pick, ours)
        yield case, pick, ours, known, apart


def _accepted(root: Root) -> set[str]:
    return {other.artifact.hash for other in root.others} | ({root.chosen.hash} if root.chosen else set())


def _doubt(answer: dict[str, Any]) -> str:
    return "the oracle doubts this answer" if answer.get("doubtful") else ""


def _refusal(answer: dict[str, Any], accepted: set[str]) -> str:
    """The solver cannot even be asked for `%gcc@12` where only gcc 13 is configured, though binaries by gcc 12 fit."""
    compiler = re.search(r"Cannot satisfy '(\S+)@", answer.get("message") or "")
    if compiler and f"%{compiler[1]}@" in answer["request"] and accepted:
        return "Spack refuses a compiler version that this host has not; a binary needs none"
    return ""


def _of_the_system(lost: str, pick: str, ours: str) -> str:
    """Say why Spack takes a build for another system than we do."""
    if _provider_places(pick) < _provider_places(ours):
        return f"{lost}: Spack compares providers before the OS; we take the build for the nearest system"
    return f"{lost}: Spack ranks foreign systems by name; we take the newest libc that the host can serve"


def _provider_places(hash: str) -> int:
    """Return the sum of the places in PREFERENCES of the providers that a binary uses."""
    specs = mirror().specs
    node = specs.get(hash)
    assert node is not None
    names = {n.name for n in closure_of(node, specs).nodes()}
    return sum(order.index(name) for order in PREFERENCES.values() for name in order if name in names)
