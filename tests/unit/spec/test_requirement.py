"""PEP 508 requirements: detection, names, versions of both worlds, requirements files."""

from __future__ import annotations

import pytest

from cachefetch.errors import SpecSyntaxError
from cachefetch.resolver.spec.requirement import (
    Requirement,
    looks_like_requirement,
    parse_query,
    parse_requirement,
    pep440_version,
    requirement_lines,
    spack_names,
)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (t, True)
        for t in (
            "multidict>=6,<7",
            "requests[socks]",
            "foo==1.2",
            "foo == 1.*",
            "foo===1.2",
            "a~=1.2",
            "a!=1",
        )
    ]
    + [
        (t, True)
        for t in ("foo; python_version<'3.9'", "foo @ https://example.org/x.whl", "ruamel.yaml==0.18")
    ]
    + [
        (t, False)
        for t in ("py-multidict@6.1.0", "multidict", "hdf5 %[virtuals=c] gcc", "zlib@1.2:", "zlib foo==bar")
    ]
    + [
        (t, False)
        for t in (
            "hdf5+mpi %gcc@13",
            "zlib cflags='-Da>b'",
            "ruamel.yaml",
            "cflags==-O3",
            "^[virtuals=c] gcc",
        )
    ],
)
def test_detection(text: str, answer: bool) -> None:
    assert looks_like_requirement(text) is answer


def requirement(text: str) -> Requirement:
    found = parse_requirement(text).requirement
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("text", "versions", "chosen"),
    [
        ("multidict>=6,<7", "6.1.0 6.0.5 7.0rc1 5.2.0 6.9rc1", "6.1.0 6.0.5"),
        ("multidict==6.1", "6.1.0 6.1 6.1.1", "6.1.0 6.1"),
        ("torch>=2,<2.6", "2.5.1 develop 2.6", "2.5.1"),
        ("numpy~=1.26", "1.26.4 2.1.0 1.27", "1.26.4 1.27"),
        ("foo>=1.0", "1.0b2 1.0", "1.0"),
        ("foo>=1.0b1", "1.0b2 1.0 1.0a1", "1.0b2 1.0"),
        ("foo===1_2", "1.2 1_2", "1_2"),
        ("foo===develop", "1.2 develop", "develop"),
        ("foo==1.2", "1.2 git.main=1.2 1_2", "1.2 git.main=1.2 1_2"),
        ("foo[x]", "develop 1.2 1.0rc1", "develop 1.2 1.0rc1"),
        ("foo==1.2.3", "1.2.3-custom 1.2.3", "1.2.3-custom 1.2.3"),
    ],
)
def test_which_versions_meet_a_requirement(text: str, versions: str, chosen: str) -> None:
    wanted = requirement(text)
    assert [v for v in versions.split() if wanted.contains(v)] == chosen.split()


def test_prereleases_are_admitted_where_no_final_version_meets_it() -> None:
    wanted = requirement("foo>=1")
    assert wanted.admitting(["1.0rc1", "1.0"]) == wanted
    admitting = wanted.admitting(["1.1rc1", "0.9"])
    assert admitting.contains("1.1rc1")
    assert not admitting.contains("0.9")
    pre = parse_requirement("foo>=1", prereleases=True).requirement
    assert pre is not None
    assert pre.contains("1.1rc1")


@pytest.mark.parametrize(
    ("spack", "pep440"),
    [
        ("2024-01-05", "2024.1.5"),
        ("1_2", "1.2"),
        ("9e", "9+e"),
        ("1.2.3-custom", "1.2.3+custom"),
        ("git.x=1.2", "1.2"),
        ("1.2-3", "1.2.post3"),
        ("v1.2", "1.2"),
        ("develop", None),
        ("git.main", None),
        ("1.2.RC1", "1.2rc1"),
    ],
)
def test_versions_that_pep_440_does_not_know(spack: str, pep440: str | None) -> None:
    found = pep440_version(spack)
    assert (str(found) if found else None) == pep440


def test_names_and_what_the_index_knows() -> None:
    assert spack_names("multidict") == ("py-multidict", "multidict")
    assert spack_names("cmake")[0] == "cmake"
    assert parse_requirement("ruamel.yaml>=0.1").name == "py-ruamel-yaml"
    assert parse_requirement("PyYAML>=5").name == "py-pyyaml"
    assert parse_requirement("py-multidict>=6", known={"py-multidict"}.__contains__).name == "py-multidict"
    assert str(parse_requirement("opencv-python>=4")) == "opencv >=4+python3"


def test_extras_are_remarked() -> None:
    assert any("[socks]" in note for note in parse_requirement("requests[socks]>=2").notes)


@pytest.mark.parametrize(
    ("text", "answer"), [("a==1", True), ("a==1.*", False), ("a>=1", False), ("a>=1rc1", True)]
)
def test_whether_one_version_is_named(text: str, answer: bool) -> None:
    assert parse_requirement(text).names_one_version() is answer


@pytest.mark.parametrize("text", ["foo>=", ">=2", "foo @ https://example.org/x", "zlib;x", "foo<>3"])
def test_a_bad_requirement_is_a_syntax_error(text: str) -> None:
    with pytest.raises(SpecSyntaxError) as caught:
        parse_query(text)
    assert caught.value.hint


def test_a_query_is_a_requirement_or_specs() -> None:
    assert [spec.name for spec in parse_query("multidict>=6")] == ["py-multidict"]
    assert [spec.name for spec in parse_query("zlib hdf5+mpi")] == ["zlib", "hdf5"]


def test_lines_of_a_requirements_file() -> None:
    text = (
        "# comment\n--index-url https://example.org\n\nmultidict>=6,<7  # why\n"
        "yarl==1.18.3 \\\n    --hash=sha256:00 \\\n    --hash=sha256:11\nidna\n"
    )
    assert requirement_lines(text) == [(4, "multidict>=6,<7"), (5, "yarl==1.18.3"), (8, "idna")]
    with pytest.raises(SpecSyntaxError, match="line 2: `-r`"):
        requirement_lines("idna\n-r other.txt\n")
