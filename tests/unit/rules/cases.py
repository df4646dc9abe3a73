"""Reads the JSON cases of tests/cases/resolve: request, host and a small index in; choice, order and reasons out.

A file is a list of cases: `name`, `host` (a name of hosts.json or an object), `query` (list), `nodes` (by id),
`mirrors` (optional: list of lists of ids), and `want`. The short form of a node has what matters; the rest is
usual for the host: version 1.0, x86_64_v3, specfile 5. `deps` maps child ids to edge types, `libc` ("glibc@2.39:/usr")
and `compiler` become nodes of their own, as in a real index.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cachefetch.answers import resolve
from cachefetch.resolver.host.overrides import parse_compiler, parse_libc
from cachefetch.resolver.index.query import PageSource, Specs
from cachefetch.resolver.model import Edge, Host, Node, Record
from cachefetch.resolver.resolution import Resolution
from cachefetch.resolver.rules.context import Policy
from cachefetch.sources import Sources

CASES = Path(__file__).parents[2] / "cases" / "resolve"
HOSTS: dict[str, Any] = json.loads((CASES / "hosts.json").read_bytes())
_VIRTUALS = {"openmpi": "mpi", "mpich": "mpi", "zlib-ng": "zlib-api", "zlib": "zlib-api", "openblas": "blas"}


def load_all() -> list[dict[str, Any]]:
    """Return all cases, with the file in their name."""
    found = []
    for path in sorted(CASES.glob("*.json")):
        if path.stem != "hosts":
            found += [
                {**case, "name": f"{path.stem}: {case['name']}"} for case in json.loads(path.read_bytes())
            ]
    return found


def host_of(name: str | dict[str, Any]) -> Host:
    """Return the host; all of its facts are given, so externals are not looked for."""
    facts = HOSTS[name] if isinstance(name, str) else name
    libc = parse_libc(facts["libc"]) if facts.get("libc") else None
    compilers = tuple(parse_compiler(text) for text in facts.get("compilers", ()))
    return Host(facts["platform"], facts["os"], facts["target"], libc, compilers)


def hash_of(id: str) -> str:
    """Return the DAG hash of a node: its id (letters and 2 to 7), filled up."""
    return (id.replace("-", "").replace(".", "").lower() + "2" * 32)[:32]


class Index:
    """The records of a case's short nodes."""

    def __init__(self, nodes: dict[str, dict[str, Any]], host: Host) -> None:
        self.records: dict[str, Record] = {}
        self._short, self._host = nodes, host
        for id, short in nodes.items():
            self._add(id, short)

    def _add(self, id: str, short: dict[str, Any]) -> None:
        edges = [self._edge(child, types) for child, types in short.get("deps", {}).items()]
        platform, os = short.get("platform", self._host.platform), short.get("os", self._host.os)
        if libc := short.get("libc"):
            edges.append(self._system(parse_libc(libc), platform, os))
        annotation = None
        if compiler := short.get("compiler"):
            name, version = compiler.split("@")
            if short.get("format", 5) < 5 or short.get("page"):
                annotation = (name, version)
            else:
                edges += self._compiler(name, version, short.get("languages", ["c", "cxx"]), platform, os)
        node = Node(
            hash=short.get("hash") or hash_of(id),
            name=short["name"],
            version=short.get("version", "1.0"),
            platform=platform,
            os=os,
            target=short.get("target", "x86_64_v3"),
            namespace=short.get("namespace", "builtin"),
            variants={
                k: tuple(v) if isinstance(v, list) else v for k, v in short.get("variants", {}).items()
            },
            flags={k: tuple(v) for k, v in short.get("flags", {}).items()},
            edges=tuple(edges),
            compiler=annotation,
            format=short.get("format", 5),
            external=short.get("external"),
            build_spec=short.get("build_spec"),
            target_features=tuple(short["features"]) if "features" in short else None,
            target_vendor=short.get("vendor", ""),
            target_parents=tuple(short.get("parents", ())),
            target_generation=short.get("generation", 0),
            partial=bool(short.get("page")),
        )
        has_binary = short.get("binary", node.external is None)
        self.records[id] = Record(node, has_binary, (), tuple(short.get("stacks", ())))

    def _edge(self, child: str, types: str | list[str]) -> Edge:
        short = self._short.get(child, {"name": child})
        kinds = (
            ("link", "run")
            if types == ""
            else tuple(types.split(","))
            if isinstance(types, str)
            else tuple(types)
        )
        virtual = _VIRTUALS.get(short["name"])
        return Edge(short.get("hash") or hash_of(child), short["name"], kinds, (virtual,) if virtual else ())

    def _system(self, libc: Any, platform: str, os: str) -> Edge:
        id = f"{libc.kind}{libc.version}{(libc.prefix or '').replace('/', 'x')}".replace(".", "v")
        self.records[id] = Record(
            Node(
                hash_of(id), libc.kind, libc.version, platform, os, "x86_64", external=libc.prefix or "/usr"
            ),
            False,
        )
        return Edge(hash_of(id), libc.kind, ("link",), ("libc",))

    def _compiler(self, name: str, version: str, languages: list[str], platform: str, os: str) -> list[Edge]:
        id = f"{name}{version}x".replace(".", "v")
        self.records[id] = Record(
            Node(hash_of(id), name, version, platform, os, "x86_64", external="/usr"), False
        )
        return [Edge(hash_of(id), name, ("build",), tuple(languages))]


def answer(
    case: dict[str, Any], *, order: int = 1, queries: list[str] | None = None, permute: Any = None
) -> tuple[Resolution, dict[str, str]]:
    """Return the resolution of a case, and the id of each hash.

    Args:
        case: the case.
        order: -1 reverses the mirrors.
        queries: another order of the roots.
        permute: shuffles the list of records in place.
    """
    host = host_of(case["host"])
    index = Index(case["nodes"], host)
    ids = list(index.records)
    if permute:
        permute(ids)
    extra = [id for id in ids if id not in case["nodes"]]
    mirrors = case.get("mirrors") or [list(case["nodes"])]
    sources = [
        PageSource(f"m{n}", [index.records[id] for id in ids if id in only or id in extra])
        for n, only in enumerate(mirrors)
    ]
    specs = Specs(sources[::order])
    others = [host_of(name) for name in case.get("others", ())]
    found = resolve(
        queries or case["query"],
        Sources(specs, (), (), False),
        host,
        policy=Policy(libc=case.get("libc", "inferred"), stack=case.get("stack")),
        unify=case.get("unify", True),
        local_host="prefixes" in case,
        others=others,
    )
    return found, {record.node.hash: id for id, record in index.records.items()}
