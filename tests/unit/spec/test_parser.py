"""The spec language: canonical texts, refusals with their column, and remarks on what is easily misread."""

from __future__ import annotations

import pytest

from cachefetch.errors import SpecSyntaxError
from cachefetch.resolver.model import Host
from cachefetch.resolver.spec.parser import parse, parse_many

CANONICAL = [
    ("zlib @1.2", "zlib@1.2"),
    ("zlib@ 1.2", "zlib@1.2"),
    ("zlib@1.2 , 1.3", "zlib@1.2:1.3"),
    ("zlib+shared~pic", "zlib~pic+shared"),
    ("zlib -pic", "zlib~pic"),
    ("zlib-pic", "zlib-pic"),
    ("zlib+shared-pic", "zlib+shared-pic"),
    ("zlib + shared", "zlib+shared"),
    ("zlib ++shared ~~pic --x", "zlib~~pic++shared~~x"),
    ("zlib foo=True", "zlib+foo"),
    ("zlib foo=false", "zlib~foo"),
    ("zlib foo=*", "zlib foo='*'"),
    ("foo foo:=*", "foo foo='*'"),
    ("zlib foo=a=b", "zlib foo='a=b'"),
    ('zlib foo="bar baz"', "zlib foo='bar baz'"),
    ("zlib build_system:=cmake,generic", "zlib build_system:=cmake,generic"),
    ("zlib foo==bar,baz", "zlib foo==bar,baz"),
    ("zlib cflags=-O3 -g", "zlib cflags=-O3 ~g"),
    ('zlib cflags="-O2 -g"', "zlib cflags='-O2 -g'"),
    ("zlib arch=linux-ubuntu22.04-zen4", "zlib platform=linux os=ubuntu22.04 target=zen4"),
    ("zlib arch=x86_64_v3", "zlib target=x86_64_v3"),
    ("zlib arch=linux-None-x86_64", "zlib platform=linux target=x86_64"),
    ("zlib os=fe", "zlib platform=linux os=debian12"),
    ("zlib@1.2:target=x86_64", "zlib@1.2: target=x86_64"),
    ("builtin.zlib@1.3", "zlib@1.3"),
    ("+foo namespace=bar", "+foo namespace=bar"),
    ("zlib@:", "zlib"),
    ("zlib@1.2,:1.0", "zlib@:1.0,1.2"),
    ("zlib@3:2", "zlib@3:2"),
    ("zlib%gcc@13.2.0+shared", "zlib %gcc@13.2.0+shared"),
    ("zlib%intel-oneapi-compilers", "zlib %oneapi"),
    ("hdf5 %[virtuals=c,cxx] gcc@12", "hdf5 %c,cxx=gcc@12"),
    ("hdf5 ^[virtuals=mpi] openmpi", "hdf5 ^mpi=openmpi"),
    ("hdf5 %c,cxx=gcc@12 %fortran=gcc@12", "hdf5 %c,cxx,fortran=gcc@12"),
    ("hdf5 %c=gcc %cxx=clang", "hdf5 %c=gcc %cxx=clang"),
    ("hdf5 %[when=+mpi virtuals=c] gcc", "hdf5 %[when='+mpi'] c=gcc"),
    ("hdf5 %mpi=openmpi+cuda", "hdf5 %mpi=openmpi+cuda"),
    ("hdf5 ^zlib@1.2 ^cmake@3:", "hdf5 ^cmake@3: ^zlib@1.2"),
    ("hdf5 %gcc ^zlib %clang@17", "hdf5 %gcc ^zlib %clang@17"),
    ("zlib ^py-foo@1: ^py-foo@:2", "zlib ^py-foo@1:2"),
    ("foo ^bar %gcc +x", "foo ^bar %gcc+x"),
    ("foo/abc@1.2", "foo@1.2/abc"),
    ("foo %gcc /abc", "foo %gcc/abc"),
    ("@1.2 +foo", "@1.2+foo"),
    ("*", ""),
    ("zlib@git.main=1.2", "zlib@git.main=1.2"),
    ("zlib os=debian12 /abc", "zlib os=debian12 /abc"),
    ("zlib foo='it\\'s'", 'zlib foo="it\'s"'),
]


@pytest.mark.parametrize(("text", "canonical"), CANONICAL)
def test_the_canonical_text(text: str, canonical: str) -> None:
    host = Host("linux", "debian12", "zen4")
    spec = parse(text, host=host)
    assert str(spec) == canonical
    assert str(parse(canonical, host=host)) == canonical


@pytest.mark.parametrize(
    ("text", "column"),
    [
        ("zlib@1.2@1.3", 8),
        ("zlib +a ~a", 8),
        ("zlib foo=a foo=b", 11),
        ("zlib target=a target=b", 14),
        ("zlib arch=linux-a-b os=c", 20),
        ("zlib;x", 4),
        ("zlib foo = bar", 9),
        ("foo@", 3),
        ("foo@=", 3),
        ("zlib@1:2:3", 8),
        ("zlib@4:2", 4),
        ("foo +bar=baz", 8),
        ("zlib~~~foo", 4),
        ("hdf5 %c,cxx", 7),
        ("hdf5 %gcc@13 %gcc@12", 14),
        ("zlib ^py-foo@1 ^py-foo@2", 16),
        ("hdf5 %[virtuals=c", 5),
        ("hdf5 %[foo=1] gcc", 7),
        ("hdf5 %[deptypes=linky] gcc", 7),
        ("hdf5 %[when='+a +a'] gcc", 7),
        ("multidict>=6", 9),
        ("hdf5 ^", 5),
        ("hdf5 %", 5),
        ("hdf5 ^ ^zlib", 5),
        ("zlib openssl", 5),
        ("zlib cflags='-O2", 12),
        ("./spec.json", 0),
        ("zlib ]", 5),
    ],
)
def test_a_refusal_points_at_the_column(text: str, column: int) -> None:
    with pytest.raises(SpecSyntaxError) as caught:
        parse(text)
    assert caught.value.column == column
    assert caught.value.caret().splitlines()[1].index("^") == column
    assert len(caught.value.message) > 10


def test_a_refusal_says_what_to_write() -> None:
    for text in ("py-multidict@>=6", "py-multidict >= 6"):
        with pytest.raises(SpecSyntaxError, match="unexpected") as caught:
            parse(text)
        assert "`@6:` is 6 or newer" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "specs"),
    [
        ("zlib bzip2", ["zlib", "bzip2"]),
        ("zlib /abc /def", ["zlib/abc", "/def"]),
        ("hdf5 ^zlib %gcc py-yarl", ["hdf5 ^zlib %gcc", "py-yarl"]),
        ("  ", []),
    ],
)
def test_several_specs_in_one_text(text: str, specs: list[str]) -> None:
    assert [str(spec) for spec in parse_many(text)] == specs


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("zlib %gcc +shared", "before the `%`"),
        ("zlib %gcc target=zen4", "before the `%`"),
        ("zlib@3:2", "empty range"),
        ("zlib@1,2", "read as `@1:2`"),
        ("zlib arch=linux-rhel8", "not platform-os-target"),
        ("zlib os=rhel8,rhel9", "one label"),
        ("multidict==6.1", "read as a variant"),
        ("zlib os=fe", "this host's own os"),
    ],
)
def test_what_is_easily_misread_is_remarked(text: str, word: str) -> None:
    spec = parse(text)
    assert any(word in note for note in spec.notes)


@pytest.mark.parametrize(
    "text", ["zlib+shared %gcc@13", "zlib@1.2:1.4 target=zen4 %c,cxx=gcc@13+x", "zlib ^mpich +x"]
)
def test_plain_specs_have_no_remarks(text: str) -> None:
    assert parse(text).notes == ()


def test_remarks_are_no_part_of_equality() -> None:
    assert parse("zlib %gcc +shared") == parse("zlib %gcc+shared")
    assert hash(parse("zlib %gcc +shared")) == hash(parse("zlib %gcc+shared"))


def test_the_names_of_the_host_fix_the_platform() -> None:
    host = Host("darwin", "sequoia", "m2")
    assert (
        str(parse("zlib ^python os=fe target=be", host=host))
        == "zlib ^python platform=darwin os=sequoia target=m2"
    )
    with pytest.raises(SpecSyntaxError, match="platform linux"):
        parse("zlib platform=linux os=fe", host=host)


@pytest.mark.parametrize(
    ("text", "names_one"),
    [("a@=1", True), ("a@1", False), ("a", False), ("a@1.2rc1", True), ("a@git.x=1", True)],
)
def test_whether_a_query_names_one_version(text: str, names_one: bool) -> None:
    assert parse(text).names_one_version() is names_one


@pytest.mark.parametrize(
    ("a", "b", "satisfies", "intersects"),
    [
        ("zlib@1.2", "zlib@1", True, True),
        ("zlib@1", "zlib@1.2", False, True),
        ("zlib+pic", "zlib~pic", False, False),
        ("zlib", "zlib+pic", False, True),
        ("zlib filters:=a", "zlib filters=a,b", False, False),
        ("zlib target=zen4", "zlib target=x86_64_v3:", True, True),
        ("zlib target=aarch64", "zlib target=x86_64:", False, False),
        ("zlib os=a", "zlib os=b", False, False),
        ("zlib %gcc@13", "zlib %gcc", True, True),
        ("zlib ^python@3.12", "zlib ^python@3.11", False, False),
        ("hdf5", "zlib", False, False),
        ("zlib/abc", "zlib/abd", False, False),
        ("zlib cflags='-O2 -g'", "zlib cflags=-g", True, True),
    ],
)
def test_how_two_specs_relate(a: str, b: str, satisfies: bool, intersects: bool) -> None:
    assert (parse(a).satisfies(parse(b)), parse(a).intersects(parse(b))) == (satisfies, intersects)
