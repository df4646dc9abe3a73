"""No accepted candidate breaks a gate, and no rejected one is without fault: 10,000 random (host, request, candidate).

The gates are computed a second time here, from the JSON that Spack wrote and from archspec, by plain means: nothing of
the matcher, the rules, the decoded nodes or the generated target table is used. Requests are those whose meaning is
simple enough to be said in a line.
"""

from __future__ import annotations

import copy
import os
import random
import re
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import archspec.cpu
import pytest
from archspec.cpu.detect import COMPATIBILITY_CHECKS
from tests.tools.indexes import FIXTURES, page_records, raw_index, raw_page, records

from cachefetch.answers import resolve
from cachefetch.resolver.index.query import PageSource, Specs
from cachefetch.resolver.index.readers.nodes import node_from_dict
from cachefetch.resolver.model import Compiler, Host, Libc, Record
from cachefetch.resolver.rules.context import Policy
from cachefetch.sources import Sources

PAIRS = 10_000
SYSTEMS = [
    ("linux", "ubuntu24.04"), ("linux", "ubuntu22.04"), ("linux", "debian12"), ("linux", "rhel8"),
    ("linux", "fedora40"), ("darwin", "tahoe"), ("darwin", "sequoia"), ("darwin", "monterey"),
    ("windows", "windows10.0.19045"),
]  # fmt: skip
LIBCS = [
    ("glibc", "2.17", "/usr"), ("glibc", "2.28", "/usr"), ("glibc", "2.35", "/usr"), ("glibc", "2.36", "/usr"),
    ("glibc", "2.39", "/usr"), ("glibc", "2.100", "/usr"), ("glibc", "2.39", "/nix/store/x"), ("glibc", "2.39", None),
    ("musl", "1.2.4", "/"), None,
]  # fmt: skip
CPUS = ("zen2", "zen3", "zen4", "icelake", "skylake_avx512", "sapphirerapids", "x86_64_v4", "x86_64_v3", "x86_64_v2",
        "haswell", "x86_64", "neoverse_n1", "neoverse_v2", "m1", "m2", "aarch64", "power9le")  # fmt: skip
#: Newest first; what was built on a release runs on it and on newer ones.
MACOS = ["tahoe", "sequoia", "sonoma", "ventura", "monterey", "bigsur", "catalina"]
#: The libc of the labels on the page.
PAGE_LIBC = {"ubuntu22.04": "2.35", "ubuntu24.04": "2.39"}
SOURCES = ("page", "v3-unsigned spoiled", "v2-unsigned spoiled", *FIXTURES)
#: Targets that no table has: (name, vendor, features, parents, generation).
UNKNOWN = [
    ("x86_64_w3", "generic", ["sse2", "avx2"], ["x86_64_v2"], 0), ("zen9", "AuthenticAMD", ["avx512f"], ["zen4"], 0),
    ("arrowlake9", "GenuineIntel", ["avx2"], ["alderlake"], 0), ("armv9.3a", "generic", [], ["armv9.2a"], 0),
    ("cortex_x9", "ARM", ["asimd", "fp"], ["neoverse_n1"], 0), ("m9", "Apple", ["asimd"], ["m1"], 0),
    ("power8plus", "IBM", [], ["power8le"], 9), ("power11le", "IBM", [], ["power10le"], 11),
    ("loongarch64", "generic", [], [], 0), ("zen8", "AuthenticAMD", ["sse2"], ["zen7"], 0),
]  # fmt: skip
SPECFILE = {"7": 4, "8": 5}


@dataclass(frozen=True)
class Ask:
    """A request in words that need no parser: all conditions must hold."""

    name: str
    version: str = ""
    variant: tuple[str, bool] | None = None
    os: str = ""
    target: str = ""
    compiler: str = ""
    depends: str = ""

    def text(self) -> str:
        found = self.name + (f"@{self.version}" if self.version else "")
        if self.variant:
            found += ("+" if self.variant[1] else "~") + self.variant[0]
        found += f" os={self.os}" if self.os else ""
        found += f" target={self.target}" if self.target else ""
        found += f" %{self.compiler}" if self.compiler else ""
        return found + (f" ^{self.depends}" if self.depends else "")


@dataclass
class Tally:
    """How often what happened; the test must have seen all of it."""

    pairs: int = 0
    accepted: int = 0
    faults: Counter[str] = field(default_factory=Counter)


def numbers(version: str) -> list[int] | None:
    return [int(part) for part in version.split(".")] if re.fullmatch(r"\d+(\.\d+)*", version) else None


@cache
def runs_on(target: str, host: str) -> bool:
    known = archspec.cpu.TARGETS
    return target == host or target in {each.name for each in known[host].ancestors}


def target_runs(recorded: str | dict[str, Any], host: Host) -> bool:
    """Ask archspec's own check of the family about a target that it does not know."""
    name, known = recorded["name"] if isinstance(recorded, dict) else recorded, archspec.cpu.TARGETS
    if name in known or not isinstance(recorded, dict):
        return runs_on(name, host.target)
    if not recorded["parents"] or any(parent not in known for parent in recorded["parents"]):
        return False
    target = archspec.cpu.Microarchitecture(
        name, [known[each] for each in recorded["parents"]], recorded["vendor"], set(recorded["features"]), {},
        generation=recorded["generation"],
    )  # fmt: skip
    here = known[host.target]
    if target.family != here.family or (host.platform == "darwin" and str(here.family) == "aarch64"):
        return False
    if str(here.family) == "ppc64le":  # archspec's check asks the machine that runs it
        return bool(target.generation <= here.generation)
    return bool(COMPATIBILITY_CHECKS[str(here.family)](here, target))


class RawIndex:
    """One index as Spack wrote it; says what speaks against a record."""

    def __init__(self, rows: dict[str, dict[str, Any]], version: str) -> None:
        self.rows, self.specfile = rows, SPECFILE[version]

    def names(self) -> list[str]:
        return sorted({row["spec"]["name"] for row in self.rows.values() if self.has_binary(row)})

    @staticmethod
    def has_binary(row: dict[str, Any]) -> bool:
        return bool(row.get("in_buildcache")) and not row["spec"].get("external")

    def spec(self, hash_: str) -> dict[str, Any]:
        found: dict[str, Any] = self.rows[hash_]["spec"]
        return found

    def version_of(self, hash_: str) -> str:
        return str(self.spec(hash_)["version"])

    def needs(self, hash_: str) -> list[dict[str, Any]]:
        """Return the link and run dependencies of one node that the index describes."""
        found = [d for d in self.spec(hash_).get("dependencies", []) if {"link", "run"} & set(types(d))]
        return [d for d in found if d["hash"] in self.rows]

    def below(self, hash_: str) -> list[str]:
        """Return the hashes of the link and run closure; externals end a path."""
        seen = [hash_]
        for each in seen:
            if not self.spec(each).get("external"):
                seen += [d["hash"] for d in self.needs(each) if d["hash"] not in seen]
        return list(dict.fromkeys(seen))

    def format(self, hash_: str) -> int:
        noted = self.spec(hash_).get("annotations", {}).get("original_specfile_version")
        return int(noted or self.specfile)

    def faults(self, hash_: str, ask: Ask, host: Host, *, here: bool) -> set[str]:
        closure = self.below(hash_)
        built = [h for h in closure if self.has_binary(self.rows[h])]
        outside = [self.spec(h) for h in closure if self.spec(h).get("external")]
        found = self.asked(hash_, ask, closure)
        root = self.spec(hash_)
        if root["arch"]["platform"] != host.platform:
            found.add("platform")
        if any(not target_runs(self.spec(h)["arch"]["target"], host) for h in built):
            found.add("target")
        for h in built:
            found |= self.system(h, host)
        if any("dev_path" in self.spec(h)["parameters"] for h in built):
            found.add("dev")
        if here:
            prefixes = [s["external"]["path"] for s in outside if s["name"] not in ("glibc", "musl")]
            if any(path and not os.path.exists(path) for path in prefixes):
                found.add("external")
        for h in built:
            found |= self.runtime(h, host)
        return found

    def runtime(self, hash_: str, host: Host) -> set[str]:
        """Return what speaks against one node by the runtime library or libc that its own closure lacks."""
        spec, names = self.spec(hash_), {self.spec(h)["name"] for h in self.below(hash_)}
        if self.format(hash_) >= 5:
            for compiler, library in (
                ("gcc", "gcc-runtime"),
                ("intel-oneapi-compilers", "intel-oneapi-runtime"),
            ):
                uses = [set(virtuals(d)) for d in spec.get("dependencies", []) if d["name"] == compiler]
                if any({"c", "cxx", "fortran"} & each for each in uses) and library not in names:
                    return {"runtime"}
        elif host.os != spec["arch"]["platform_os"] and not names & {"glibc", "musl", "gcc-runtime"}:
            return {"legacy"} if spec["arch"]["platform"] == "linux" else set()
        return set()

    def asked(self, hash_: str, ask: Ask, closure: list[str]) -> set[str]:
        root, found = self.spec(hash_), set()
        if ask.version:
            wanted = numbers(ask.version) or []
            have = numbers(root["version"]) or []
            if have[: len(wanted)] != wanted:
                found.add("version")
        if ask.variant and root["parameters"].get(ask.variant[0]) is not ask.variant[1]:
            found.add("variant")
        if ask.os and root["arch"]["platform_os"] != ask.os:
            found.add("query-os")
        if ask.target and target_of(root) != ask.target:
            found.add("query-target")
        if ask.compiler and ask.compiler not in self.compilers(hash_):
            found.add("compiler")
        if ask.depends:
            builds = [d["name"] for d in root.get("dependencies", []) if "build" in types(d)]
            if ask.depends not in [self.spec(h)["name"] for h in closure[1:]] + builds:
                found.add("dependency")
        return found

    def compilers(self, hash_: str) -> list[str]:
        root = self.spec(hash_)
        if self.format(hash_) < 5:
            noted = str(root.get("annotations", {}).get("compiler", "")).partition("@")[0]
            return [noted or root.get("compiler", {}).get("name", "")]
        return [d["name"] for d in root.get("dependencies", [])]

    def system(self, hash_: str, host: Host) -> set[str]:
        """Return what speaks against one node on Linux (C library) or elsewhere (OS)."""
        spec = self.spec(hash_)
        system = spec["arch"]["platform_os"]
        if spec["arch"]["platform"] != host.platform:
            return {"os"}
        if spec["arch"]["platform"] != "linux":
            chain = system in MACOS and host.os in MACOS and MACOS.index(system) >= MACOS.index(host.os)
            return set() if system == host.os or chain else {"os"}
        found = set()
        for d in self.needs(hash_):
            if d["name"] not in ("glibc", "musl"):
                continue
            library = self.spec(d["hash"])
            if host.libc is None:
                if system != host.os:
                    found.add("libc-unknown")
            elif library["name"] != host.libc.kind:
                found.add("libc-kind")
            elif host.libc.prefix and library["external"]["path"] != host.libc.prefix:
                found.add("libc-prefix")
            elif (numbers(library["version"]) or []) > (numbers(host.libc.version) or []):
                found.add("libc")
        return found


@cache
def spoiled(name: str) -> dict[str, dict[str, Any]]:
    """Return a fixture with what it lacks: externals that are here or absent, dev builds, lost runtimes and libc."""
    chance, rows = random.Random(7), copy.deepcopy(raw_index(name)[0])
    for row in rows.values():
        spec, at = row["spec"], chance.randrange(24)
        if at == 0 and spec["name"] in ("zlib", "hwloc", "python", "openmpi", "mpich", "zlib-ng"):
            path = chance.choice(["/usr", "/opt/absent/here"])
            spec["external"] = {"path": path, "module": None, "extra_attributes": {}}
            spec["dependencies"], row["in_buildcache"] = [], False
        elif at == 1:
            spec["parameters"]["dev_path"] = "/home/me/src"
        elif at == 2:
            spec["dependencies"] = [d for d in spec.get("dependencies", []) if d["name"] != "gcc-runtime"]
        elif at == 3:
            spec["dependencies"] = [
                d for d in spec.get("dependencies", []) if not {"link", "run"} & set(types(d))
            ]
        elif at == 4:
            words = ("name", "vendor", "features", "parents", "generation")
            spec["arch"]["target"] = dict(zip(words, chance.choice(UNKNOWN), strict=True))
    return rows


def source_of(name: str) -> tuple[RawIndex | RawPage, Specs]:
    """Return a source twice: raw for the second computation, and as the resolver sees it."""
    if name == "page":
        return RawPage(), Specs([PageSource(name, page_records())])
    name, _, spoil = name.partition(" ")
    if not spoil:
        return RawIndex(*raw_index(name)), Specs([PageSource(name, records(name))])
    rows, version = spoiled(name), raw_index(name)[1]
    nodes = [
        Record(node_from_dict(row["spec"], hash=h, specfile=SPECFILE[version]), row["in_buildcache"])
        for h, row in rows.items()
    ]
    return RawIndex(rows, version), Specs([PageSource(name, nodes)])


class RawPage:
    """The 61-build page as it stands: own attributes, no closure."""

    def __init__(self) -> None:
        self.rows = raw_page()

    def names(self) -> list[str]:
        return ["py-multidict"]

    def version_of(self, hash_: str) -> str:
        return str(self.rows[hash_]["versions"][0])

    def faults(self, hash_: str, ask: Ask, host: Host, *, here: bool) -> set[str]:
        return self.asked(hash_, ask) | self.of_host(self.rows[hash_], host)

    def asked(self, hash_: str, ask: Ask) -> set[str]:
        row, found = self.rows[hash_], set()
        if ask.version and not (row["versions"][0] + ".").startswith(ask.version + "."):
            found.add("version")
        if ask.variant:  # the page has no boolean variant
            found.add("variant")
        if ask.depends:  # and no dependencies
            found.add("dependency")
        if ask.os and row["os"] != ask.os:
            found.add("query-os")
        if ask.target and row["target"] != ask.target:
            found.add("query-target")
        if ask.compiler and row["compiler"].partition("@")[0] != ask.compiler:
            found.add("compiler")
        return found

    @staticmethod
    def of_host(row: dict[str, Any], host: Host) -> set[str]:
        found = set()
        if row["platform"] != host.platform:
            found.add("platform")
        if not runs_on(row["target"], host.target):
            found.add("target")
        if row["platform"] == "darwin":
            if host.os not in MACOS or MACOS.index(row["os"]) < MACOS.index(host.os):
                found.add("os")
        elif host.libc is None:
            if row["os"] != host.os:
                found.add("libc-unknown")
        elif host.libc.kind != "glibc":
            found.add("libc-kind")
        elif (numbers(PAGE_LIBC[row["os"]]) or []) > (numbers(host.libc.version) or []):
            found.add("libc")
        return found


def types(dependency: dict[str, Any]) -> list[str]:
    found: list[str] = dependency.get("parameters", dependency).get("deptypes", dependency.get("type", []))
    return found


def virtuals(dependency: dict[str, Any]) -> list[str]:
    found: list[str] = dependency.get("parameters", {}).get("virtuals", [])
    return found


def target_of(spec: dict[str, Any]) -> str:
    target = spec["arch"]["target"]
    return str(target["name"] if isinstance(target, dict) else target)


def random_host(chance: random.Random) -> Host:
    platform, system = chance.choice(SYSTEMS)
    libc = chance.choice(LIBCS) if platform == "linux" else None
    compilers = (Compiler("gcc", "13.2.0"),) if chance.random() < 0.5 else ()
    return Host(platform, system, chance.choice(CPUS), Libc(*libc) if libc else None, compilers)


def random_ask(chance: random.Random, raw: RawIndex | RawPage) -> Ask:
    name = chance.choice(raw.names())
    kind = chance.randrange(8)
    own = [h for h in raw.rows if isinstance(raw, RawPage) or raw.spec(h)["name"] == name]
    one = chance.choice(own)
    if kind == 0 and numbers(raw.version_of(one)):
        parts = raw.version_of(one).split(".")
        return Ask(name, version=".".join(parts[: chance.randint(1, len(parts))]))
    if kind == 1 and isinstance(raw, RawIndex):
        switches = [(k, v) for k, v in raw.spec(one)["parameters"].items() if isinstance(v, bool)]
        if switches:
            variant, value = chance.choice(switches)
            return Ask(name, variant=(variant, value is (chance.random() < 0.7)))
    if kind == 2:
        return Ask(name, os=chance.choice([system for _, system in SYSTEMS]))
    if kind == 3:
        return Ask(name, target=chance.choice(CPUS))
    if kind == 4:
        return Ask(name, compiler="gcc")
    if kind == 5:
        return Ask(name, depends=chance.choice(["zlib", "python", "cmake", "gcc-runtime", "openmpi"]))
    return Ask(name)


def check(source: str, wanted: int, seed: int) -> Tally:
    """Ask until `wanted` candidates were judged, and compare every verdict with the second computation."""
    chance, tally = random.Random(f"{source} {seed}"), Tally()
    raw, specs = source_of(source)
    while tally.pairs < wanted:
        host, ask, here = random_host(chance), random_ask(chance, raw), chance.random() < 0.5
        sources = Sources(specs, (), (), False)
        root = resolve([ask.text()], sources, host, policy=Policy(), local_host=here, full=False).roots[0]
        taken = {other.artifact.hash for other in root.others} | (
            {root.chosen.hash} if root.chosen else set()
        )
        refused = {rejection.artifact.hash for rejection in root.rejected}
        assert not taken & refused
        for hash_ in taken | refused:
            if ask.version and numbers(raw.version_of(hash_)) is None:
                continue  # `develop` in a range: the order of versions has its own tests
            faults = raw.faults(hash_, ask, host, here=here)
            assert bool(faults) == (hash_ in refused), (host, ask.text(), hash_, faults)
            tally.pairs += 1
            tally.accepted += hash_ in taken
            tally.faults.update(faults)
    return tally


@pytest.mark.parametrize("source", SOURCES)
def test_verdicts_agree_with_a_second_computation(source: str) -> None:
    large = source in ("page", "v3-unsigned", "v3-unsigned spoiled")
    tally = check(source, PAIRS if large else PAIRS // 5, seed=3)
    assert tally.accepted > (300 if large else 20)
    assert {"platform", "target", "compiler"} <= set(tally.faults)
    if source == "v3-unsigned spoiled":
        assert {"libc", "libc-kind", "libc-prefix", "libc-unknown", "os", "external", "dev", "runtime", "version",
                "variant", "query-os", "query-target", "dependency"} <= set(tally.faults)  # fmt: skip
    if source == "v2-unsigned spoiled":
        assert "legacy" in tally.faults


@pytest.mark.long
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("seed", range(5))
def test_more_pairs_of_each_source(source: str, seed: int) -> None:
    assert check(source, 2 * PAIRS, seed=10 + seed).accepted > 200
