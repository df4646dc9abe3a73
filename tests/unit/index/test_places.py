"""Names of files and tags: those that real Spack gave, and the rules that these do not show."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cachefetch.errors import FormatError
from cachefetch.resolver.index.readers.nodes import node_from_dict
from cachefetch.resolver.index.readers.places import (
    build_cache_spec_files,
    build_cache_stem,
    build_cache_tarball,
    image_tag,
    recorded_compiler,
)
from cachefetch.resolver.model import Edge, Node

FIXTURES = Path(__file__).parents[2] / "data" / "fixtures"
HASH = "a" * 32


@pytest.mark.parametrize(("mirror", "count"), [("v2-signed", 55), ("v2-unsigned", 72)])
def test_paths_of_spack(mirror: str, count: int) -> None:
    installs = json.loads((FIXTURES / mirror / "build_cache/index.json").read_text())["database"]["installs"]
    nodes = {hash_: node_from_dict(entry["spec"], hash=hash_) for hash_, entry in installs.items()}
    specs = json.loads((FIXTURES / mirror / "EXPECTED.json").read_text())["specs"]
    artifacts = {spec["hash"]: spec["artifact"] for spec in specs if spec["artifact"]}
    for hash_, artifact in artifacts.items():
        compiler = recorded_compiler(nodes[hash_], nodes.get)
        assert build_cache_tarball(nodes[hash_], compiler) == artifact["tarball"]
        files = build_cache_spec_files(build_cache_stem(nodes[hash_], compiler))
        assert artifact["spec_file"] == files[not artifact["signed"]]
    assert len(artifacts) == count


def node(version: str = "1.0", edges: tuple[Edge, ...] = ()) -> Node:
    return Node(HASH, "noc", version, "linux", "debian12", "x86_64", edges=edges)


def test_compilers_of_format_5_are_dependencies() -> None:
    gcc = Node("g" * 32, "gcc", "13.2.0", "linux", "debian12", "x86_64")
    llvm = Node("l" * 32, "llvm", "18.1.8", "linux", "debian12", "x86_64")
    both = (
        Edge(gcc.hash, "gcc", ("build",), ("fortran",)),
        Edge(llvm.hash, "llvm", ("build",), ("c", "cxx")),
    )
    known = {gcc.hash: gcc, llvm.hash: llvm}
    assert recorded_compiler(node(edges=both), known.get) == ("llvm", "18.1.8")
    assert recorded_compiler(node(edges=both[:1]), known.get) == ("gcc", "13.2.0")
    assert recorded_compiler(node(), known.get) == ("none", "none")
    assert build_cache_tarball(node(), ("none", "none")) == (
        f"build_cache/linux-debian12-x86_64/none-none/noc-1.0/linux-debian12-x86_64-none-none-noc-1.0-{HASH}.spack"
    )
    with pytest.raises(FormatError, match="not recorded"):
        recorded_compiler(node(edges=both), lambda _: None)


def test_unsafe_characters() -> None:
    found = build_cache_stem(node("git.abc=2.0+x"), ("gcc", "../12"))
    assert found == f"linux-debian12-x86_64-gcc-.._12-noc-git.abc_2.0+x-{HASH}"
    assert image_tag("noc", "git.abc=2.0+x", HASH) == f"noc-git.abc_2.0_x-{HASH}.spack"


def test_a_long_tag_is_cut_in_the_middle() -> None:
    tag = image_tag("n" * 200, "1.0", HASH)
    assert len(tag) == 128
    assert tag == "n" * 64 + f"{'n' * 200}-1.0-{HASH}.spack"[-64:]


def test_no_path_can_leave_the_mirror() -> None:
    with pytest.raises(FormatError):
        image_tag("..", "1", HASH)
    with pytest.raises(FormatError):
        build_cache_stem(Node("../x", "a", "1", "l", "o", "t"), ("none", "none"))
    odd = Node(HASH, "a", "../../x", "..", "..", "..")
    assert ".." not in build_cache_tarball(odd, ("..", "..")).split("/")
