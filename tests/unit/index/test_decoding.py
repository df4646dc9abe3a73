"""What a query decodes: the candidates, the closures of those that fit, and nothing of the others."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from cachefetch.answers import resolve
from cachefetch.resolver.explain import explain
from cachefetch.resolver.index.query import Specs
from cachefetch.resolver.index.readers.nodes import node_from_dict
from cachefetch.resolver.index.store import IndexStore
from cachefetch.resolver.model import Host, Libc, Node
from cachefetch.resolver.rules.context import Policy
from cachefetch.sources import Sources

HOST = Host("linux", "debian12", "zen3", Libc("glibc", "2.36", "/usr"))
BUILDS, FITTING = 40, 4


def hash_of(*parts: object) -> str:
    return base64.b32encode(hashlib.sha1(repr(parts).encode()).digest()).decode().lower()


def spec(name: str, version: str, target: str, below: list[dict[str, Any]], at: int) -> dict[str, Any]:
    edges = [
        {"name": c["name"], "hash": c["hash"], "parameters": {"deptypes": ["link"], "virtuals": []}}
        for c in below
    ]
    return {
        "name": name, "version": version, "hash": hash_of(name, at), "namespace": "builtin", "package_hash": "x",
        "arch": {"platform": "linux", "platform_os": "debian12", "target": target},
        "parameters": {"build_system": "generic", "shared": True},
        "dependencies": edges, "annotations": {"original_specfile_version": 5},
    }  # fmt: skip


def index() -> tuple[dict[str, dict[str, Any]], set[str]]:
    """Return specs by hash, and the hashes of all that belongs to builds that fit; every build has its own closure."""
    specs: dict[str, dict[str, Any]] = {}
    wanted: set[str] = set()
    for at in range(BUILDS):
        target = "x86_64_v3" if at < FITTING else "skylake_avx512"
        low = spec("low", f"1.{at}", target, [], at)
        high = spec("high", f"2.{at}", target, [low], at)
        big = spec("big", "3.0", target, [high, low], at)
        specs.update((each["hash"], each) for each in (low, high, big))
        wanted |= {each["hash"] for each in (low, high, big)} if at < FITTING else {big["hash"]}
    return specs, wanted


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("indent", [None, 1])
def test_only_survivors_are_decoded_with_their_closures(
    tmp_path: Path, full: bool, indent: int | None
) -> None:
    specs, wanted = index()
    installs = {h: {"spec": s, "ref_count": 1, "in_buildcache": True} for h, s in specs.items()}
    body = tmp_path / "index.json"
    body.write_text(json.dumps({"database": {"version": "8", "installs": installs}}, indent=indent))
    store = IndexStore(str(tmp_path / "store"))
    stored = store.ingest(str(body), "m", str(body), local=True, meta={"kind": "bare"}, sha256=None)
    decoded: list[str] = []

    def noted(data: Any, **named: Any) -> Node:
        decoded.append(named["hash"])
        return node_from_dict(data, **named)

    with mock.patch("cachefetch.resolver.index.store.node_from_dict", noted):
        sources = Sources(Specs([stored]), (), (), False)
        answer = resolve(["big"], sources, HOST, policy=Policy(), local_host=False, full=full)
        explain(answer, everything=True)
    stored.close()
    (root,) = answer.roots
    assert (root.candidates, len(root.rejected)) == (BUILDS, BUILDS - FITTING)
    assert sorted(decoded) == sorted(wanted)  # each once


def test_the_usual_variants_are_those_of_all_builds_of_that_version(tmp_path: Path) -> None:
    """K9 must see the builds of a dependency that no candidate uses, and may leave other versions undecoded."""
    installs: dict[str, Any] = {}
    for at, shared in enumerate((True, False, False, False, True)):
        low = spec("low", "1.0" if at < 4 else "1.1", "x86_64_v3", [], at)
        low["parameters"]["shared"] = shared
        nodes = [low] if at > 1 else [low, spec("big", "3.0", "x86_64_v3", [low], at)]
        installs.update((n["hash"], {"spec": n, "ref_count": 1, "in_buildcache": True}) for n in nodes)
    body = tmp_path / "index.json"
    body.write_text(json.dumps({"database": {"version": "8", "installs": installs}}))
    store = IndexStore(str(tmp_path / "store"))
    stored = store.ingest(str(body), "m", str(body), local=True, meta={"kind": "bare"}, sha256=None)
    decoded: list[str] = []

    def noted(data: Any, **named: Any) -> Node:
        decoded.append(named["hash"])
        return node_from_dict(data, **named)

    with mock.patch("cachefetch.resolver.index.store.node_from_dict", noted):
        (root,) = resolve(
            ["big"], Sources(Specs([stored]), (), (), False), HOST, policy=Policy(), local_host=False
        ).roots
    stored.close()
    assert root.chosen is not None
    assert (root.chosen.hash, root.decided_by) == (hash_of("big", 1), ("K9",))
    assert hash_of("low", 4) not in decoded
