"""Laws that hold for every version and spec: total order, parse and print, transitivity, and a fuzzed parser."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachefetch.errors import SpecSyntaxError
from cachefetch.resolver.index.readers.nodes import node_from_dict
from cachefetch.resolver.model import Node, Record
from cachefetch.resolver.spec.matching import mismatches, satisfies
from cachefetch.resolver.spec.parser import Spec, parse, parse_many
from cachefetch.resolver.spec.requirement import looks_like_requirement, parse_query
from cachefetch.resolver.spec.values import quoted
from cachefetch.resolver.spec.versions import (
    INFINITY_WORDS,
    Version,
    Versions,
    parse_version,
    parse_versions,
)
from cachefetch.values import changed

DATA = Path(__file__).resolve().parent.parent / "data"

components = st.one_of(
    st.integers(0, 30).map(str),
    st.sampled_from(
        [*INFINITY_WORDS, "alpha", "beta", "rc", "final", "a", "b", "z", "Z", "foo", "post", "00", "RC"]
    ),
)
version_texts = st.lists(
    st.tuples(components, st.sampled_from(["", ".", "-", "_"])), min_size=1, max_size=5
).map(lambda parts: "".join(word + separator for word, separator in parts).rstrip(".-_"))
git_texts = st.builds("git.{}={}".format, st.sampled_from(["main", "v1.2", "feature/x"]), version_texts)
versions = st.one_of(version_texts, git_texts).map(parse_version)


def is_accepted(text: str) -> bool:
    try:
        parse_versions(text)
    except SpecSyntaxError:
        return False
    return True


items = st.one_of(
    version_texts,
    version_texts.map("={}".format),
    st.builds("{}:{}".format, st.one_of(st.just(""), version_texts), st.one_of(st.just(""), version_texts)),
).filter(is_accepted)
constraints = st.lists(items, min_size=1, max_size=3).map(",".join).filter(is_accepted).map(parse_versions)


# -- versions --------------------------------------------------------------------------------------------------


@given(versions, versions)
def test_exactly_one_of_less_equal_greater_holds(a: Version, b: Version) -> None:
    assert [a < b, a == b, a > b].count(True) == 1
    assert (a <= b, a >= b) == (a < b or a == b, a > b or a == b)


@given(versions, versions, versions)
def test_the_order_is_transitive(a: Version, b: Version, c: Version) -> None:
    low, middle, high = sorted([a, b, c])
    assert low <= middle <= high
    assert low <= high


@given(versions, versions)
def test_equal_versions_have_equal_hashes(a: Version, b: Version) -> None:
    assert parse_version(str(a)) == a
    if a == b:
        assert hash(a) == hash(b)
        assert len({a, b}) == 1


@given(version_texts)
def test_a_version_lies_in_its_own_range_and_is_exactly_itself(text: str) -> None:
    version = parse_version(text)
    for constraint in (text, f"={text}", f"{text}:", f":{text}", f"{text}:{text}"):
        assert parse_versions(constraint).contains(version)


@given(version_texts, st.integers(0, 99))
def test_a_final_version_contains_its_own_continuations(text: str, number: int) -> None:
    if not parse_version(text).is_prerelease and text[-1].isdigit():
        assert parse_versions(text).contains(parse_version(f"{text}.{number}"))


@given(constraints, constraints, constraints)
def test_satisfies_of_constraints_is_transitive(a: Versions, b: Versions, c: Versions) -> None:
    if a.satisfies(b) and b.satisfies(c):
        assert a.satisfies(c)


@given(constraints, constraints, versions)
def test_satisfies_and_intersection_mean_what_contains_says(
    a: Versions, b: Versions, version: Version
) -> None:
    if a.contains(version) and a.satisfies(b):
        assert b.contains(version)
    assert a.intersection(b).contains(version) == (a.contains(version) and b.contains(version))
    if a.contains(version) and b.contains(version):
        assert a.intersects(b)


@given(constraints)
def test_a_constraint_is_printed_so_that_it_reads_the_same(constraint: Versions) -> None:
    assert parse_versions(str(constraint)) == constraint
    assert constraint.satisfies(constraint)


# -- specs -----------------------------------------------------------------------------------------------------

names = st.sampled_from(["zlib", "py-multidict", "hdf5", "7zip-ish", "gcc", "llvm", "clang", "oneapi", "a_b"])
values = st.text(alphabet="abz019-_.,:=+*%^~/\\ '\"[]@\u00e9", max_size=8).filter(
    lambda text: not text.endswith("\\")
)
variant_names = st.sampled_from(["mpi", "shared", "api", "x.y", "cuda_arch", "build_system", "patches"])
simple = st.one_of(
    st.builds("{}{}".format, st.sampled_from(["+", "~", " -", " ++", " ~~", " --"]), variant_names),
    st.builds(
        " {}{}{}".format,
        variant_names,
        st.sampled_from(["=", ":=", "==", ":=="]),
        values.map(lambda v: quoted(v) or "''"),
    ),
    st.builds(
        " {}={}".format,
        st.sampled_from(["cflags", "ldflags"]),
        st.sampled_from(["-O2", "'-O2 -g'", "\"-Da='b'\""]),
    ),
    st.sampled_from(
        [" os=debian12", " target=x86_64:,zen2", " platform=linux", " arch=linux-None-zen4", "/abc"]
    ),
    constraints.map("@{}".format).filter(
        lambda text: ":=" not in text and "=" not in text[2:] and text[-1] not in "."
    ),
)
nodes = st.builds(lambda name, parts: name + "".join(parts), names, st.lists(simple, max_size=4))
sigils = st.sampled_from(
    [
        " %",
        " ^",
        " %%",
        " %c,cxx=",
        " ^mpi=",
        " %[deptypes=build] ",
        " ^[virtuals=mpi deptypes=run,link] ",
        " %[when='+mpi'] ",
    ]
)
spec_texts = st.builds(
    lambda root, edges: root + "".join(sigil + node for sigil, node in edges),
    st.one_of(nodes, st.lists(simple, max_size=3).map("".join)),
    st.lists(st.tuples(sigils, nodes), max_size=3),
)


def without_namespace(spec: Spec) -> Spec:
    """Return the spec as its text has it: a named node prints no namespace (Spack 1.1)."""
    edges = tuple(changed(edge, spec=without_namespace(edge.spec)) for edge in spec.edges)
    return changed(spec, edges=edges, namespace="" if spec.name else spec.namespace)


def check_error(error: SpecSyntaxError, text: str) -> None:
    assert error.text == text
    assert 0 <= error.column <= len(text)
    assert error.message


def check_round_trip(text: str) -> bool:
    """Check every spec in a text, or its error; False where it is no text of specs."""
    try:
        found = parse_many(text)
    except SpecSyntaxError as error:
        check_error(error, text)
        return False
    for spec in found:
        printed = str(spec)
        assert parse(printed) == without_namespace(spec), printed
        assert str(parse(printed)) == printed
    return True


@given(spec_texts)
def test_what_is_printed_parses_to_the_same_spec(text: str) -> None:
    check_round_trip(text)


def test_the_generated_texts_are_mostly_specs() -> None:
    good = [
        "zlib+mpi",
        "hdf5 api:='a b' %c,cxx=gcc@12:+x ^mpi=llvm",
        "zlib x='' ^[deptypes=link,run] a_b/abc",
    ]
    assert all(check_round_trip(text) for text in good)


@given(st.text(max_size=40))
def test_any_text_is_a_spec_or_a_syntax_error(text: str) -> None:
    check_round_trip(text)


@given(st.text(alphabet="abx019 .,:;=<>!~[]'\"@+-_^%/*()", max_size=30))
def test_any_query_is_read_or_a_syntax_error(text: str) -> None:
    try:
        found = parse_query(text)
    except SpecSyntaxError:
        return
    if looks_like_requirement(text):
        assert found[0].requirement is not None


PIECES = (
    "zlib", "py-multidict", "builtin.", "@", "@1.2", "@=", ":", ",", "1.2", "develop", "git.main", "=", "==", ":=",
    "+", "~", "-", "++", "~~", "--", "mpi", "cflags", "os", "target", "arch", "linux-debian12-zen2", "namespace",
    "%", "%%", "^", "%[", "^[", "[", "]", "virtuals=c", "when=", "deptypes=build", "c,cxx=gcc", "gcc", "clang", "/abc",
    "/", "'", '"', "\\", "*", " ", " ", "\t", "\n", "\x00", "\u00e9", "\u00b2", "\u0663", ";", "<", ">", "!", "true",
    "0" * 41, "a" * 40, "x.json", "./x.yaml", "(", "$", "\ud800",
)  # fmt: skip


def fuzz(count: int, seed: int) -> int:
    """Parse random texts made of pieces of the language; return how many were specs."""
    rng = random.Random(seed)
    good = 0
    for _ in range(count):
        text = "".join(rng.choices(PIECES, k=rng.randint(1, 12)))
        good += check_round_trip(text)
    return good


def test_the_parser_raises_nothing_but_its_own_error() -> None:
    assert fuzz(5_000, seed=20251121) > 300


@pytest.mark.long
def test_the_parser_raises_nothing_but_its_own_error_long() -> None:
    count = int(os.environ.get("FUZZ", "100000"))
    assert fuzz(count, seed=7) > count * 0.06


@pytest.mark.parametrize(
    "text", ["9" * 5000, f"zlib@{'9' * 5000}", "zlib@" + "1." * 3000 + "1", "^a" * 500, "%[when='" * 50]
)
def test_long_inputs_are_answered(text: str) -> None:
    check_round_trip(text)


# -- concrete nodes --------------------------------------------------------------------------------------------


class Dag:
    """The nodes of the oracle by hash."""

    def __init__(self, nodes: dict[str, Node]) -> None:
        self.nodes = nodes

    def get(self, hash: str, /) -> Node | None:
        return self.nodes.get(hash)

    def record(self, hash: str, /) -> Record | None:
        raise NotImplementedError("the matcher asks for nodes only")

    def prefetch(self, hashes: Iterable[str], /) -> None:
        """All of it is in memory."""


@cache
def dags() -> tuple[Dag, ...]:
    document = json.loads((DATA / "oracles" / "satisfies.json").read_bytes())["nodes"]
    return tuple(
        Dag({h: node_from_dict(data, hash=h, specfile=specfile) for h, data in document[layout].items()})
        for layout, specfile in (("v3", 5), ("v2", 4))
    )


def full_spec(node: Node, dag: Dag) -> Spec:
    """Return the spec that names everything recorded of a node and of its visible dependencies."""
    text = f"{node.name}@={node.version} namespace={node.namespace} platform={node.platform} os={node.os}"
    if node.version.startswith("git."):
        text = text.replace("@=", "@")
    text += f" target={node.target}"
    for name, value in node.variants.items():
        if isinstance(value, bool):
            text += f" {'+' if value else '~'}{name}"
        else:
            text += f" {name}:={quoted(value if isinstance(value, str) else ','.join(value))}"
    for name, words in node.flags.items():
        text += f" {name}={quoted(' '.join(words))}"
    text += f" /{node.hash}"
    labels = {e.hash: f"virtuals={','.join(e.virtuals)} " if e.virtuals else "" for e in node.edges}
    if node.format >= 5:
        for edge in node.edges:
            text += f" %[{labels[edge.hash]}deptypes={','.join(edge.types)}] {edge.name}/{edge.hash}"
    for edge in node.closure_edges():
        text += f" ^[{labels[edge.hash]}] {edge.name}/{edge.hash}"
    return parse(text)


@pytest.mark.parametrize("layout", [0, 1])
def test_satisfies_is_reflexive_on_concrete_specs(layout: int) -> None:
    dag = dags()[layout]
    assert len(dag.nodes) > 50
    for node in dag.nodes.values():
        assert list(mismatches(node, full_spec(node, dag), dag)) == []


def test_a_full_spec_is_met_by_its_own_node_only() -> None:
    dag = dags()[0]
    chosen = random.Random(3).sample(sorted(dag.nodes), 12)
    for hash in chosen:
        spec = full_spec(dag.nodes[hash], dag)
        assert [node.hash for node in dag.nodes.values() if satisfies(node, spec, dag)] == [hash]
