"""Spliced nodes: Spack relocates them from another binary; we fetch what is there and say what is not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.functional.conftest import DEBIAN, Done
from tests.tools import archive
from tests.tools.mirrors import (
    INDEX,
    dag_hash,
    make_node,
    manifest_text,
    put_blob,
    record,
    write_index,
    write_package,
)

Cli = Callable[..., Done]


def spliced_from(node: dict[str, Any]) -> dict[str, Any]:
    """Return a node that Spack made of `node` by a splice."""
    rest = {key: value for key, value in node.items() if key != "hash"}
    made = {**rest, "build_spec": {"name": node["name"], "hash": node["hash"]}}
    return {**made, "hash": dag_hash(made)[:-7] + node["hash"][-7:]}


BUILT = make_node("top")
SPLICED = spliced_from(BUILT)
USER = make_node("user")
USER["dependencies"] = [
    {"name": "top", "hash": SPLICED["hash"], "parameters": {"deptypes": ["link"], "virtuals": []}}
]
USER["hash"] = dag_hash({key: value for key, value in USER.items() if key != "hash"})


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    """Return a mirror with the build spec and a package that needs the spliced node, which has no binary."""
    root = tmp_path / "m"
    for node in (BUILT, USER):
        write_package(root, node, archive.stored(archive.good()))
    index(root, binary=False)
    return root


def index(root: Path, *, binary: bool) -> None:
    write_index(root, BUILT, SPLICED, USER)
    path = root / "v3/manifests/index/index.manifest.json"
    digest = json.loads(path.read_text())["data"][0]["checksum"]
    document = json.loads((root / "blobs/sha256" / digest[:2] / digest).read_text())
    document["database"]["installs"][SPLICED["hash"]]["in_buildcache"] = binary
    data = json.dumps(document).encode()
    entry = {**record(data, INDEX, put_blob(root, data)), "compression": "none"}
    path.write_bytes(manifest_text(entry))


@pytest.mark.parametrize("binary", [False, True], ids=["without a binary", "said to have one"])
def test_what_there_is_instead_is_named(cli: Cli, mirror: Path, binary: bool) -> None:
    index(mirror, binary=binary)
    words = ("-m", mirror, "--unsigned", *DEBIAN)
    done = cli("fetch", f"/{SPLICED['hash']}", *words)
    assert done.code == (4 if binary else 3)
    told = (
        f"spliced: Spack relocates it from the binary of its build spec, which is fetched as /{BUILT['hash']}"
    )
    assert told in done.err
    assert cli("fetch", f"/{BUILT['hash']}", *words).code == 0
    done = cli("fetch", "user", *words)
    assert done.code == 4
    assert "needed by user@1.0" in done.err
    assert told in done.err
    done = cli("resolve", "user", *words, "--json")
    if not binary:
        assert done.json["missing"][0]["build_spec"] == BUILT["hash"]


@pytest.mark.parametrize("binary", [False, True], ids=["without a binary", "said to have one"])
def test_show_and_extract_name_it_too(cli: Cli, mirror: Path, tmp_path: Path, binary: bool) -> None:
    index(mirror, binary=binary)
    words = ("-m", mirror, "--unsigned")
    done = cli("extract", f"/{SPLICED['hash'][:9]}", tmp_path / "out", *words)
    assert done.code == (8 if binary else 2)
    assert "spliced: Spack relocates it from the binary of its build spec, which is fetched as /" in done.err
    assert f"hint: `cachefetch extract /{BUILT['hash']} DIR`" in done.err
    assert cli("extract", f"/{BUILT['hash']}", tmp_path / "out", *words).code == 0
    done = cli("show", f"/{SPLICED['hash']}", *words[:2])
    assert done.code == (0 if binary else 3)
    assert f"/{BUILT['hash']}" in done.out + done.err
    assert "Spack relocates it from the binary of its build spec" in done.out + done.err
    done = cli("show", f"/{USER['hash']}", *words[:2])
    assert done.code == 0
    assert ("it is spliced: Spack relocates it" in done.out) is not binary


def test_a_binary_under_its_own_hash_is_bound_to_it(
    cli: Cli, mirror: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The build spec's binary under the spliced name is refused: its document says another hash."""
    write_package(mirror, SPLICED, archive.stored(archive.good()))
    index(mirror, binary=True)
    words = ("-m", mirror, "--unsigned", *DEBIAN)
    assert cli("fetch", f"/{SPLICED['hash']}", *words).code == 0
    manifests = mirror / "v3/manifests/spec/top"
    own, other = (next(manifests.glob(f"*{node['hash']}*")).read_bytes() for node in (SPLICED, BUILT))
    next(manifests.glob(f"*{SPLICED['hash']}*")).write_bytes(other)
    assert own != other
    monkeypatch.setenv("CACHEFETCH_CACHE_DIR", str(mirror.parent / "fresh"))
    done = cli("fetch", f"/{SPLICED['hash']}", *words, "--json")
    assert (done.code, done.json["code"]) == (6, "binding-mismatch")
