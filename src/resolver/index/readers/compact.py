"""Decode an index record that is written exactly as Spack writes it, with one pattern in place of a JSON parser.

A closure has hundreds of nodes, and a question looks at a few attributes of each: a parser that builds all of their
values takes most of the time of a new question (P4). The pattern checks every character of a record, so what it takes
is what `nodes.node_from_dict` takes, with the same values (tests/property/test_compact.py); it knows the common form
alone. Pure. Every other record is left to the parser. Source of the form: docs/formats.md, "Nodes".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

from ....errors import FormatError, SpecSyntaxError
from ...model import Edge, Node
from ...spec.versions import parse_version
from .nodes import parameters_from_dict, target_from_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any


# What follows is never given back (`++`, `*+`, `?+`): the time is that of one look at each character.
_NAME = r'"([A-Za-z0-9_][A-Za-z0-9_.+-]*+)"'
_VERSION = r"([A-Za-z0-9_][A-Za-z0-9_.-]*+)"
_TEXT = r'"[ !#-\[\]-~]*+"'  # printable ASCII, no quote, no backslash
_TEXTS = rf"\[(?:{_TEXT}(?:,{_TEXT})*+)?+\]"
_FLAG = r'"(?:cflags|cppflags|cxxflags|fflags|ldflags|ldlibs)":'
_PARAMETER = rf"(?:{_FLAG}{_TEXTS}|(?!{_FLAG}){_TEXT}:(?:true|false|{_TEXT}|{_TEXTS}))"
_WORD = r'"[A-Za-z0-9_.:+-]*+"'
_WORDS = rf"\[(?:{_WORD}(?:,{_WORD})*+)?+\]"
_EDGE = (
    rf'\{{"name":{_WORD},"hash":"[a-z0-9]++","parameters":\{{"deptypes":{_WORDS},"virtuals":{_WORDS}\}}\}}'
)
_TARGET = (
    rf'\{{"name":{_WORD},"vendor":{_TEXT},"features":{_TEXTS},"generation":[0-9]{{1,4}},'
    rf'"parents":{_TEXTS}(?:,"cpupart":{_TEXT})?+\}}'
)
_RECORD = (
    rf'\{{"spec":\{{"name":{_NAME},"version":"{_VERSION}",'
    rf'"arch":\{{"platform":{_NAME},"platform_os":{_NAME},"target":(?:{_NAME}|({_TARGET}))\}},'
    rf'(?:"compiler":\{{"name":{_NAME},"version":"{_VERSION}"\}},)?+'
    rf'"namespace":"([ !#-\[\]-~]*+)",'
    rf'"parameters":(\{{{_PARAMETER}(?:,{_PARAMETER})*+\}}),'
    rf'(?:"external":\{{"path":"([ !#-\[\]-~]*+)","module":null,"extra_attributes":\{{\}}\}},)?+'
    rf'(?:"package_hash":{_TEXT},)?+(?:"patches":{_TEXTS},)?+'
    rf'(?:"dependencies":\[({_EDGE}(?:,{_EDGE})*+)\],)?+'
    rf'(?:"annotations":\{{"original_specfile_version":([1-6])(?:,"compiler":"([^"@\\]*+)@=?{_VERSION}")?+\}},)?+'
    rf'"hash":"([^"\\]*+)"\}},"ref_count":[0-9]++,"in_buildcache":(true|false)\}}'
)
_NO_FLAGS = '"cflags":[],"cppflags":[],"cxxflags":[],"fflags":[],"ldflags":[],"ldlibs":[]}'
_NONE: dict[str, Any] = {}
_EDGES = r'"name":"([^"]*)","hash":"([^"]*)","parameters":\{([^}]*)\}'


class Parameters(Mapping[str, "Any"]):
    """Variants or flags of a node, read from their text when somebody asks; the same mapping as a dict of them.

    Args:
        text: the JSON object ``parameters`` of the node, whose form was checked.
        part: 0 for the variants, 1 for the flags.
    """

    __slots__ = ("_known", "_part", "_text")

    def __init__(self, text: str, part: int) -> None:
        self._text, self._part = text, part
        self._known: dict[str, Any] | None = None

    def _read(self) -> dict[str, Any]:
        if self._known is None:
            import json

            self._known = parameters_from_dict(json.loads(self._text))[self._part]
        return self._known

    def __contains__(self, name: object) -> bool:
        return f'"{name}":' in self._text and name in self._read()

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Parameters) and self._part == other._part and self._text == other._text:
            return True
        return self._read() == (other._read() if isinstance(other, Parameters) else other)

    __hash__ = None  # type: ignore[assignment]  # a dict has none either

    def __getitem__(self, name: str) -> Any:
        return self._read()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())

    def __repr__(self) -> str:
        return repr(self._read())

    def __reduce__(self) -> tuple[type, tuple[dict[str, Any]]]:
        return dict, (self._read(),)


def compact_record(text: bytes, hash: str, specfile: int) -> tuple[Node, bool] | None:
    """Return the node of an index record and its ``in_buildcache``; None for any but the common form.

    Args:
        text: the JSON object of the record.
        hash: its key in the index: the DAG hash that counts.
        specfile: specfile version of nodes that are not annotated.
    """
    try:
        match = _pattern(_RECORD).fullmatch(text.decode("ascii"))
        if match is None or match[16] != hash:  # another's record, perhaps
            return None
        (
            name, version, platform, os, target, detailed, built, built_version,
            namespace, parameters, external, edges, original, noted, noted_version, _, in_cache,
        ) = match.groups()  # fmt: skip
        parse_version(version)
        compiler = (built or noted, built_version or noted_version) if built or noted_version else None
        if compiler:
            if built and original:  # no writer has both
                return None
            parse_version(compiler[1])
        target, recorded = _target(detailed) if detailed else (target, _NONE)
    except (UnicodeDecodeError, SpecSyntaxError, FormatError):
        return None
    node = Node(
        hash,
        name,
        version,
        platform,
        os,
        target,
        namespace,
        Parameters(parameters, 0),
        _NONE if parameters.endswith(_NO_FLAGS) else Parameters(parameters, 1),
        _edges(edges) if edges else (),
        compiler,
        int(original) if original else specfile,
        external,
        **recorded,
    )
    return node, in_cache == "true"


@lru_cache(maxsize=256)
def _target(text: str) -> tuple[str, dict[str, Any]]:
    """Return the name of a target that is an object, and what it records as fields of `Node`."""
    import json

    return target_from_json(json.loads(text))


def _edges(text: str) -> tuple[Edge, ...]:
    return tuple([Edge(hash, name, *_combination(p)) for name, hash, p in _pattern(_EDGES).findall(text)])


@lru_cache(maxsize=1000)  # Spack writes some twenty combinations; a mirror may write any
def _combination(parameters: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return types and virtuals of an edge."""
    import json

    found = json.loads("{" + parameters + "}")
    return tuple(found["deptypes"]), tuple(found["virtuals"])


@lru_cache(maxsize=2)
def _pattern(text: str) -> re.Pattern[str]:
    """Return a compiled pattern; compiled at first use, because most starts need none."""
    return re.compile(text)
