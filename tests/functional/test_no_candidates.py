"""Why there is not even one candidate is said, and virtuals know every provider of the indexes."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.functional.conftest import DEBIAN, FIXTURES, Done

Cli = Callable[..., Done]
MIRROR = str(FIXTURES / "v3-unsigned")


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("no-such-thing", "no package no-such-thing in 1 index"),
        ("foo/apj", "no package foo in 1 index"),
        ("/zzzzz", "/zzzzz matches no binary in 1 index"),
        ("glibc", "known only as externals of the builds: no mirror holds them"),
    ],
)
def test_no_candidate_at_all_has_a_reason(query: str, reason: str, cli: Cli) -> None:
    done = cli("resolve", query, "-m", MIRROR, *DEBIAN)
    assert done.code == 3
    assert done.err.startswith(f"no binary of {query}: ")
    assert done.err.count(reason) == 1
    assert reason in cli("resolve", query, "-m", MIRROR, *DEBIAN, "--explain").err
    (root,) = cli("resolve", query, "-m", MIRROR, *DEBIAN, "--json").json["roots"]
    assert reason in root["notes"][-1]
    assert root["suggestions"] == []


def test_a_near_name_is_suggested_once(cli: Cli) -> None:
    done = cli("resolve", "zlbi", "-m", MIRROR, *DEBIAN)
    assert "did you mean zlib?" in done.err


def test_a_virtual_takes_a_provider_that_only_the_index_names(cli: Cli, tmp_path: Path) -> None:
    manifest = json.loads((FIXTURES / "v3-unsigned/v3/manifests/index/index.manifest.json").read_text())
    digest = next(e["checksum"] for e in manifest["data"] if "spack.db" in e["mediaType"])
    data = (FIXTURES / "v3-unsigned/blobs/sha256" / digest[:2] / digest).read_bytes()
    text = (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode()
    assert '"name":"mpich"' in text
    index = tmp_path / "index.json"
    index.write_text(text.replace('"name":"mpich"', '"name":"mvapich2"').replace("openmpi", "someother"))
    done = cli("resolve", "mpi", "-m", index, *DEBIAN, "--json")
    assert done.code == 0
    assert done.json["roots"][0]["chosen"]["name"] in ("mvapich2", "someother")
    assert (
        cli("resolve", "mpi@3", "-m", index, *DEBIAN, "--json")
        .json["roots"][0]["funnel"]
        .get("virtual-version")
    )
