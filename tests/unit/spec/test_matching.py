"""Matching of one node and its dependencies, every reason code included: docs/semantics.md, "Matching"."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from cachefetch.errors import UsageError
from cachefetch.resolver.model import Edge, Mismatch, Node, Record
from cachefetch.resolver.spec.matching import (
    display_compiler,
    mismatches,
    modern_compiler,
    satisfies,
    target_fits,
)
from cachefetch.resolver.spec.parser import parse
from cachefetch.resolver.spec.requirement import parse_requirement
from cachefetch.values import changed


class Dag:
    """Nodes by hash; the hash of a node in these tests is its name in capitals."""

    def __init__(self, *nodes: Node) -> None:
        self.nodes = {node.hash: node for node in nodes}

    def get(self, hash: str, /) -> Node | None:
        return self.nodes.get(hash)

    def record(self, hash: str, /) -> Record | None:
        raise NotImplementedError("the matcher asks for nodes only")

    def prefetch(self, hashes: Iterable[str], /) -> None:
        """All of it is in memory."""


def make(name: str, version: str = "1.0", *edges: Edge, **fields: object) -> Node:
    values: dict[str, object] = {
        "platform": "linux",
        "os": "debian12",
        "target": "x86_64_v3",
        "namespace": "builtin",
    }
    return Node(hash=name, name=name, version=version, edges=edges, **{**values, **fields})  # type: ignore[arg-type]


def edge(name: str, types: str, virtuals: str = "") -> Edge:
    return Edge(name, name, tuple(types.split(",")), tuple(virtuals.split(",")) if virtuals else ())


MULTIDICT = make(
    "py-multidict",
    "6.1.0",
    edge("python", "build,link,run"),
    edge("py-setuptools", "build"),
    edge("gcc", "build", "c"),
    edge("gcc-runtime", "link"),
    edge("glibc", "link", "libc"),
    variants={"build_system": "python_pip", "ext": True, "tags": ("a", "b"), "patches": ("abcdef0123",)},
    flags={"cflags": ("-O2", "-g")},
)
DAG = Dag(
    MULTIDICT,
    make(
        "python",
        "3.11.9",
        edge("zlib-ng", "link", "zlib-api"),
        edge("gcc", "build", "c,cxx"),
        variants={"ssl": True},
    ),
    make("zlib-ng", "2.2.2", edge("cmake", "build"), variants={"shared": True}),
    make("cmake", "3.27.9"),
    make("py-setuptools", "69.2.0"),
    make("gcc", "13.2.0"),
    make("gcc-runtime", "13.2.0"),
    make("glibc", "2.36", external="/usr"),
)
OLD = changed(
    MULTIDICT,
    hash="old",
    format=4,
    compiler=("gcc", "13.2.0"),
    edges=(edge("python", "build,link,run"), edge("py-setuptools", "build")),
)


@pytest.mark.parametrize(
    ("query", "answer"),
    [
        (q, True)
        for q in [
            "%gcc",
            "%gcc@13",
            "%c=gcc",
            "%c,cxx=gcc",
            "^zlib-ng",
            "^zlib-ng %cmake",
            "^py-setuptools",
            "^gcc@13",
        ]
    ]
    + [
        (q, True)
        for q in [
            "^[virtuals=zlib-api] zlib-ng",
            "^ +shared",
            "^[deptypes=run] python",
            "^python/pyth",
            "^python/PYTH",
        ]
    ]
    + [
        (q, True)
        for q in [
            "%[when=+foo] python@2",
            "%%gcc@13",
            "^zlib-api",
            "%libc",
            "^*",
            "%*",
            "^python %gcc@13",
            "%python",
        ]
    ]
    + [
        (q, False)
        for q in [
            "%cxx=gcc",
            "%fortran=gcc",
            "%zlib-ng",
            "^cmake",
            "^[virtuals=mpi] zlib-ng",
            "^python %gcc@12",
        ]
    ]
    + [
        (q, False)
        for q in ["%[deptypes=test] python", "%[when=build_system=python_pip] python@2", "^openmpi"]
    ],
)
def test_dependencies_of_a_new_node(query: str, answer: bool) -> None:
    assert satisfies(MULTIDICT, parse(query), DAG) is answer


@pytest.mark.parametrize(
    ("query", "answer"),
    [
        ("%gcc@13", True),
        ("%gcc@12", False),
        ("%fortran=gcc", True),
        ("^gcc", False),
        ("^python", True),
        ("%python", True),
        ("%python@3.12", False),
        ("%gcc+x", False),
        ("%zlib-ng", False),
        ("%@13", True),
    ],
)
def test_dependencies_of_an_old_node(query: str, answer: bool) -> None:
    assert satisfies(OLD, parse(query), DAG) is answer


@pytest.mark.parametrize(
    ("recorded", "query"),
    [("clang", "%clang"), ("clang", "%llvm@17"), ("oneapi", "%intel-oneapi-compilers"), ("arm", "%arm")],
)
def test_compiler_names_are_translated_both_ways(recorded: str, query: str) -> None:
    node = changed(OLD, compiler=(recorded, "17.0.6"))
    assert satisfies(node, parse(query), DAG)
    assert display_compiler(node, DAG) == (modern_compiler(recorded), "17.0.6")


@pytest.mark.parametrize(
    ("query", "code", "have", "need"),
    [
        ("zlib", "name", "py-multidict", "zlib"),
        ("/abc", "hash", "/py-mult", "/abc"),
        ("other.py-multidict", "namespace", "builtin", "other"),
        ("@7:", "version", "6.1.0", "@7:"),
        ("@=6.1", "version-exact", "6.1.0", "@=6.1"),
        ("~ext", "variant", "+ext", "~ext"),
        ("tags=c", "variant", "tags=a,b", "tags=c"),
        ("tags:=a", "variant-exact", "tags=a,b", "tags:=a"),
        ("+mpi", "variant-absent", "build_system, ext, patches, tags", "+mpi"),
        ("mpi=*", "variant-absent", "build_system, ext, patches, tags", "mpi='*'"),
        ("~~ssl", "variant", "python +ssl", "~~ssl"),
        ("cflags=-O3", "flags", "cflags='-O2 -g'", "cflags=-O3"),
        ("ldflags=-s", "flags", "no ldflags", "ldflags=-s"),
        ("os=rhel8", "query-os", "debian12", "os=rhel8"),
        ("target=x86_64", "query-target", "x86_64_v3", "target=x86_64"),
        ("platform=darwin", "query-platform", "linux", "platform=darwin"),
        ("%gcc@12", "compiler", "gcc@13.2.0", "%gcc@12"),
        ("%clang", "compiler", "gcc@13.2.0", "%clang"),
        ("%cxx=gcc", "compiler-lang", "gcc provides c", "%cxx=gcc"),
        ("%cmake", "dependency-missing", "no direct dependency cmake", "%cmake"),
        ("%python@3.12", "dependency", "python@3.11.9", "%python@3.12"),
        ("^openmpi", "dependency-missing", "no openmpi", "^openmpi"),
        ("^zlib-api=zlib", "dependency-missing", "no zlib; zlib-ng@2.2.2 for zlib-api", "^zlib-api=zlib"),
        ("^python@3.12", "dependency", "python@3.11.9", "^python@3.12"),
        ("^python~ssl", "dependency", "python@3.11.9 with +ssl", "^python~ssl"),
        ("^zlib-api@3:", "virtual-version", "zlib-ng@2.2.2", "^zlib-api@3:"),
    ],
)
def test_the_reason_and_both_sides(query: str, code: str, have: str, need: str) -> None:
    assert list(mismatches(MULTIDICT, parse(query), DAG)) == [Mismatch(code, have, need)]


def test_a_prerelease_just_below_is_named_as_such() -> None:
    node = changed(MULTIDICT, version="6.1.0rc1")
    assert [m.code for m in mismatches(node, parse("@6.1.0"), DAG)] == ["version-prerelease"]
    assert [m.code for m in mismatches(node, parse("@7"), DAG)] == ["version"]


def test_code_without_a_compiler() -> None:
    assert [m.code for m in mismatches(make("py-pip"), parse("%gcc@13"), DAG)] == ["no-compiler"]
    assert display_compiler(make("py-pip"), DAG) is None


def test_all_failures_are_yielded_in_the_order_of_the_gates() -> None:
    spec = parse("zlib@9 ~ext cflags=-x os=a target=zen2 platform=b %clang ^mpich /abc")
    spec = changed(spec, hash="abc")
    codes = [m.code for m in mismatches(MULTIDICT, spec, DAG)]
    places = ["query-os", "query-target", "query-platform"]
    assert codes == ["name", "hash", "version", "variant", "flags", *places, "compiler", "dependency-missing"]


def test_the_compiler_of_the_first_language_is_shown() -> None:
    both = make("mixed", "1", edge("python", "build", "fortran"), edge("gcc", "build", "cxx"))
    assert display_compiler(both, DAG) == ("gcc", "13.2.0")
    assert display_compiler(make("x", "1", edge("llvm", "build", "c")), DAG) == ("llvm", "")


@pytest.mark.parametrize(
    ("target", "wanted", "answer"),
    [
        ("x86_64_v3", "x86_64_v2:x86_64_v4", True),
        ("x86_64", "x86_64_v2:x86_64_v4", False),
        ("haswell", "x86_64_v2:x86_64_v4", False),
        ("haswell", "x86_64_v3:", True),
        ("cascadelake", "x86_64_v4:", True),
        ("zen4", ":x86_64_v4", False),
        ("x86_64_v4", ":zen4", True),
        ("x86_64_v4", ":zen3", False),
        ("x86_64_v3", ":haswell", True),
        ("skylake", ":zen4", False),
        ("haswell", "x86_64_v3", False),
        ("zen4", "zen2:,x86_64", True),
        ("neoverse_v1", "armv8.4a:", True),
        ("neoverse_v1", ":neoverse_v2", False),
        ("m2", "m1:", True),
        ("zen4", "aarch64:", False),
        ("zen4", "*", True),
    ],
)
def test_target_ranges_follow_the_partial_order(target: str, wanted: str, answer: bool) -> None:
    assert target_fits(target, wanted) is answer


def test_an_unknown_bound_of_a_target_range_is_an_error() -> None:
    with pytest.raises(UsageError, match="`foo` in target=foo:") as caught:
        satisfies(MULTIDICT, parse("target=foo:"), DAG)
    assert caught.value.hint


def test_a_star_asks_for_one_field_only() -> None:
    assert not satisfies(MULTIDICT, parse("platform=* os=rhel8"), DAG)
    assert satisfies(MULTIDICT, parse("platform=* os=* target=*"), DAG)


def test_patches_are_asked_for_by_a_prefix() -> None:
    assert satisfies(MULTIDICT, parse("patches=abc"), DAG)
    assert not satisfies(MULTIDICT, parse("patches:=abc"), DAG)
    page = changed(MULTIDICT, partial=True, variants={"patches": ("abcdef0",)})
    assert satisfies(page, parse("patches=abcdef0123"), DAG)


PAGE = changed(MULTIDICT, partial=True, edges=(), flags={}, compiler=("gcc", "13.3.0"), namespace="")


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("%gcc@13", None),
        ("%c=gcc", None),
        ("builtin.py-multidict", None),
        ("%clang", "compiler"),
        ("%gcc@12", "compiler"),
        ("%python", "dependency-missing"),
        ("^python", "dependency-missing"),
        ("cflags=-O2", "flags"),
    ],
)
def test_a_cache_page_records_a_compiler_and_no_dependencies(query: str, code: str | None) -> None:
    found = [m.code for m in mismatches(PAGE, parse(query), DAG)]
    assert found == ([code] if code else [])


def test_a_cache_page_without_a_compiler() -> None:
    assert [m.code for m in mismatches(changed(PAGE, compiler=None), parse("%gcc"), DAG)] == ["no-compiler"]


def test_a_node_that_says_what_it_provides_answers_for_the_virtual() -> None:
    mpich = make("mpich", "4.2.3", provided=("mpi@4.0", "pmi"))
    root = make("hdf5", "1.14", edge("mpich", "link", "mpi"))
    dag = Dag(mpich, root)
    assert satisfies(root, parse("^mpi@4:"), dag)
    assert not satisfies(root, parse("^mpi@5:"), dag)
    assert satisfies(mpich, parse("mpi"), dag)
    assert not satisfies(mpich, parse("pmi@2:"), dag)


def test_an_edge_without_a_node_is_known_by_name_and_hash_only() -> None:
    root = make("hdf5", "1.14", edge("mpich", "link", "mpi"))
    dag = Dag(root)
    assert satisfies(root, parse("^mpich"), dag)
    assert satisfies(root, parse("^mpi"), dag)
    assert satisfies(root, parse("^mpich/MPI"), dag)
    assert [m.code for m in mismatches(root, parse("^mpich@4"), dag)] == ["dependency"]


def test_a_requirement_takes_the_place_of_the_version() -> None:
    spec = parse_requirement("multidict>=6,<7")
    assert satisfies(MULTIDICT, spec, DAG)
    assert [m.need for m in mismatches(changed(MULTIDICT, version="7.0"), spec, DAG)] == ["<7,>=6"]


def test_the_marker_of_a_requirement_asks_the_candidate() -> None:
    assert satisfies(MULTIDICT, parse_requirement("multidict>=9; python_version<'3.10'"), DAG)
    assert not satisfies(MULTIDICT, parse_requirement("multidict>=9; python_version>='3.10'"), DAG)
    assert satisfies(MULTIDICT, parse_requirement("multidict>=9; sys_platform=='win32'"), DAG)
