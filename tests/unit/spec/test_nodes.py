"""Nodes of all specfile versions, and refusals that name the field."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from cachefetch.errors import FormatError
from cachefetch.resolver.index.readers.nodes import node_from_dict, specfile_of_database
from cachefetch.resolver.model import Edge

ARCH = {"platform": "linux", "platform_os": "rhel8", "target": "x86_64_v3"}
V1 = {
    "zlib": {
        "version": "1.2.11",
        "arch": ARCH,
        "compiler": {"name": "gcc", "version": "8.3.1"},
        "namespace": "builtin",
        "parameters": {"optimize": True, "pic": "True", "cflags": []},
        "dependencies": {"pkgconf": {"hash": "7b", "type": ["build"]}},
        "hash": "aa",
    }
}
V4: dict[str, Any] = {
    "name": "zlib",
    "version": "1.2.13",
    "arch": {
        **ARCH,
        "target": {"name": "haswell", "vendor": "GenuineIntel", "features": ["avx2"], "parents": []},
    },
    "compiler": {"name": "gcc", "version": "11.4.0"},
    "parameters": {"build_system": "makefile", "langs": ["cxx", "c"], "cflags": ["-O2"]},
    "dependencies": [
        {"name": "gmake", "hash": "3c", "parameters": {"deptypes": ["build"], "virtuals": []}},
        {"name": "gmake", "hash": "3d", "parameters": {"deptypes": ["build"], "virtuals": ["make"]}},
    ],
    "hash": "q5",
}


def test_specfile_1_wraps_the_node_and_keys_edges_by_name() -> None:
    node = node_from_dict(V1)
    assert (node.name, node.version, node.hash, node.format) == ("zlib", "1.2.11", "aa", 1)
    assert node.variants == {"optimize": True, "pic": True}
    assert node.flags == {}
    assert node.edges == (Edge("7b", "pkgconf", ("build",)),)
    assert node.compiler == ("gcc", "8.3.1")


def test_specfile_4_and_a_target_that_is_an_object() -> None:
    node = node_from_dict(V4, hash="key", specfile=4)
    assert (node.hash, node.target, node.target_features, node.target_vendor) == (
        "key",
        "haswell",
        ("avx2",),
        "GenuineIntel",
    )
    assert node.variants == {"build_system": "makefile", "langs": ("c", "cxx")}
    assert node.flags == {"cflags": ("-O2",)}
    assert [edge.hash for edge in node.edges] == ["3c", "3d"]
    assert node.edges[1].virtuals == ("make",)


def test_specfile_2_has_types_beside_the_hash_and_older_names_of_hashes() -> None:
    data = {
        **V4,
        "dependencies": [{"name": "gmake", "build_hash": "bb", "full_hash": "ff", "type": ["build"]}],
    }
    assert node_from_dict(data, specfile=2).edges == (Edge("ff", "gmake", ("build",)),)


def test_an_annotation_gives_the_original_format_and_the_compiler() -> None:
    data = {key: value for key, value in V4.items() if key != "compiler"}
    data["annotations"] = {"original_specfile_version": 4, "compiler": "gcc@=11.4.0"}
    node = node_from_dict(data, specfile=5)
    assert (node.format, node.compiler) == (4, ("gcc", "11.4.0"))
    data["annotations"] = {"original_specfile_version": 5}
    assert node_from_dict(data, specfile=5).compiler is None


def test_specfile_6_says_what_a_node_provides() -> None:
    node = node_from_dict({**V4, "provided_virtuals": ["zlib-api", "libgfortran@5"]}, specfile=6)
    assert node.provided == ("zlib-api", "libgfortran@5")


def test_externals_and_spliced_nodes() -> None:
    node = node_from_dict(
        {**V4, "external": {"path": "/usr", "module": None}, "build_spec": {"name": "z", "hash": "bs"}}
    )
    assert (node.external, node.build_spec) == ("/usr", "bs")
    assert node_from_dict({**V4, "external": {"path": None}}).external == ""
    assert node_from_dict(V4).external is None


def test_the_specfile_of_a_database() -> None:
    assert [specfile_of_database(v) for v in "6789"] == [3, 4, 5, 6]
    for bad in ("5", "10", "", "9" * 6000):
        with pytest.raises(FormatError, match="database version") as caught:
            specfile_of_database(bad)
        assert len(caught.value.message) < 100


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        (("name",), 3, "name"),
        (("version",), None, "version"),
        (("version",), "1.2+x", "version"),
        (("arch",), "linux-rhel8-x86_64", "arch"),
        (("arch", "platform"), None, "arch.platform"),
        (("arch", "target"), 7, "arch.target"),
        (("parameters",), [1], "parameters"),
        (("parameters", "langs"), 5, "parameters.langs"),
        (("parameters", "cflags"), "-O2", "parameters.cflags"),
        (("compiler",), "gcc", "compiler"),
        (("dependencies",), "gmake", "dependencies"),
        (("dependencies", 0), "gmake", "dependencies"),
        (("dependencies", 0, "hash"), None, "dependencies.hash"),
        (("dependencies", 0, "parameters", "deptypes"), [1], "dependencies.deptypes"),
        (("external",), True, "external"),
        (("build_spec",), "zlib", "build_spec"),
        (("annotations",), 5, "annotations"),
        (("hash",), "", "hash"),
        (("provided_virtuals",), {"a": 1}, "provided_virtuals"),
    ],
)
def test_a_wrong_field_is_named(path: tuple[str | int, ...], value: object, field: str) -> None:
    data = copy.deepcopy(V4)
    place: Any = data
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(FormatError, match=rf"field {field}\b") as caught:
        node_from_dict(data)
    assert caught.value.context["field"] == field


@pytest.mark.parametrize("data", [[], None, "zlib", {}, {"zlib": 3}])
def test_what_is_no_node_is_refused(data: Any) -> None:
    with pytest.raises(FormatError):
        node_from_dict(data)
