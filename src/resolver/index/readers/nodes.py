"""Decode one concrete node as indexes and spec files record it, specfile versions 1 to 6.

Pure: a JSON object in, a `Node` out. Source: Spack 1.1 `spec.py` readers and the addendum on 1.3, docs/formats.md
("Nodes"). Old formats record a compiler on the node, newer ones as edges; both are kept as recorded.
"""

from __future__ import annotations

from ....errors import FormatError, SpecSyntaxError
from ...model import Edge, Node
from ...spec.versions import parse_version

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, NoReturn

    from ...model import VariantValue

#: Characters of hashes, of package names, and of names of platforms, systems and targets: Spack's and a few more.
#: Nothing made of them can leave a directory, act on a terminal or end a line.
_HASH = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
_NAME = _HASH | frozenset("_.+-")
_WORD = _NAME | frozenset(":")
#: The parameters that are compiler flags, not variants.
FLAG_NAMES = ("cflags", "cppflags", "cxxflags", "fflags", "ldflags", "ldlibs")

_FLAGS = frozenset(FLAG_NAMES)
_SPECFILE_OF_DATABASE = {"6": 3, "7": 4, "8": 5, "9": 6}
_EDGE_HASHES = ("hash", "full_hash", "build_hash")
_BOOLEANS = {"true": True, "false": False}
#: (types, virtuals) of edges that were checked before; bounded, because the texts come from the mirror.
_COMBINATIONS: dict[tuple[str | None, ...], tuple[tuple[str, ...], tuple[str, ...]]] = {}
_MOST_COMBINATIONS = 1000


def specfile_of_database(version: str) -> int:
    """Return the specfile version of the nodes in an index of that database version (a string such as "8").

    Raises:
        FormatError: a database version that is not known.
    """
    try:
        return _SPECFILE_OF_DATABASE[version]
    except (KeyError, TypeError):
        shown = str(version)[:20]  # a text of any length, and Python refuses to read numbers of 4300 digits
        number = int(shown) if shown.isdecimal() else 0
        raise FormatError(
            f"database version {shown!r} is not one of 6, 7, 8 and 9",
            hint="a newer cachefetch may read it, or the index is older than Spack 0.18",
            context={"version": shown, "state": "too-new" if number > 9 else "too-old"},
        ) from None


def node_from_dict(
    data: Mapping[str, Any], *, hash: str | None = None, specfile: int | None = None, plain: bool = False
) -> Node:
    """Return the node that an index record's ``spec`` or an entry of a spec file's ``nodes`` describes.

    Args:
        data: the JSON object of the node.
        hash: DAG hash that counts (the key of an index record); None takes the node's own.
        specfile: version of the document; None guesses from the shape. An annotation in the node wins.
        plain: the caller knows that no text in `data` has a control character.

    Raises:
        FormatError: a field is absent or has another type than the format says, or a text that cannot be shown or
            stored safely (control characters, a name or hash with a slash); the message names it.
    """
    if not isinstance(data, dict):
        _bad("the node", data, "an object")
    if not plain:
        check_printable(data)
    if "name" not in data and len(data) == 1:  # specfile 1 wraps the node: {"zlib": {...}}
        name, data = next(iter(data.items()))
        specfile = specfile or 1
    else:
        name = data.get("name")
    if not isinstance(name, str) or not name or name[0] in ".+-" or not _NAME.issuperset(name):
        _bad("name", name, "a package name")
    if not isinstance(data, dict):
        _bad(f"node {name}", data, "an object")
    try:
        return _node(name, data, hash or data.get("hash"), specfile)
    except FormatError as error:
        raise FormatError(f"node {name}: {error.message}", hint=error.hint, context=error.context) from None


def _node(name: str, data: Mapping[str, Any], hash: Any, specfile: int | None) -> Node:
    if not isinstance(hash, str) or not hash or not _HASH.issuperset(hash):
        _bad("hash", hash, "a DAG hash")
    platform, os, target, recorded = _architecture(data.get("arch"))
    variants, flags = parameters_from_dict(data.get("parameters") or {})
    compiler, original = _compiler(data)
    if compiler is not None:
        _check_version(compiler[1], "compiler")
    return Node(
        hash=hash.lower(),
        name=name,
        version=_version(data),
        platform=platform,
        os=os,
        target=target,
        namespace=_text(data.get("namespace") or "", "namespace"),
        variants=variants,
        flags=flags,
        edges=_edges(data.get("dependencies")),
        compiler=compiler,
        format=original or specfile or (4 if compiler else 5),
        external=_external(data.get("external")),
        build_spec=_build_spec(data.get("build_spec")),
        provided=_texts(data.get("provided_virtuals") or (), "provided_virtuals"),
        **recorded,
    )


def is_plain(text: bytes) -> bool:
    """Tell whether no text of this JSON can have a control character, for `node_from_dict`; False is no news."""
    return text.isascii() and b"\\" not in text and b"\x7f" not in text


def check_printable(data: Any) -> None:
    """Refuse a document with a text, key or value, that has control characters: some would act on a terminal.

    Raises:
        FormatError: shows the text, escaped.
    """
    waiting = [data]
    for value in waiting:  # grows while it is walked
        if isinstance(value, str):
            if not value.isprintable():
                _bad("with a text that", value, "printable")
        elif isinstance(value, dict):
            # What Spack noted about an external is not used and may hold anything.
            waiting += [inner for key, inner in value.items() if key != "extra_attributes"]
            waiting += value
        elif isinstance(value, (list, tuple)):
            waiting += value


def _bad(field: str, value: object, wanted: str) -> NoReturn:
    shown = repr(value)
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    raise FormatError(f"field {field} is {shown}, not {wanted}", context={"field": field})


def _text(value: object, field: str) -> str:
    if not isinstance(value, str):
        _bad(field, value, "a text")
    return value


def _word(value: object, field: str) -> str:
    """Return a name of a platform, OS or target: they get into messages, options and file names."""
    if not isinstance(value, str) or not _WORD.issuperset(value):
        _bad(field, value, "a name")
    return value


def _texts(values: Any, field: str) -> tuple[str, ...]:
    if not isinstance(values, (list, tuple)):
        _bad(field, values, "a list of texts")
    for value in values:
        if not isinstance(value, str):
            _bad(field, value, "a text")
    return tuple(values)


def _version(data: Mapping[str, Any]) -> str:
    version = data.get("version")
    if version is None and isinstance(data.get("versions"), list) and len(data["versions"]) == 1:
        version = data["versions"][0]
    if not isinstance(version, str) or not version:
        _bad("version", version, "one version")
    version = version.removeprefix("=")
    _check_version(version, "version")
    return version


def _check_version(version: str, field: str) -> None:
    """Refuse a text that is no version: whatever compares versions later must be able to rely on it."""
    try:
        parse_version(version)
    except SpecSyntaxError as error:
        raise FormatError(f"field {field}: {error.message}", context={"field": field}) from None


def _architecture(arch: Any) -> tuple[str, str, str, dict[str, Any]]:
    """Return platform, OS, target name, and of a target that is an object what it records, as fields of `Node`."""
    if not isinstance(arch, dict):
        _bad("arch", arch, "an object")
    platform = _word(arch.get("platform"), "arch.platform")
    os = _word(arch.get("platform_os"), "arch.platform_os")
    return platform, os, *target_from_json(arch.get("target"))


def target_from_json(target: Any) -> tuple[str, dict[str, Any]]:
    """Return the name of a target and, where it is an object, what it records, as fields of `Node`.

    Raises:
        FormatError: neither a name nor an object as Spack writes it.
    """
    if isinstance(target, str):
        return _word(target, "arch.target"), {}
    if not isinstance(target, dict):
        _bad("arch.target", target, "a name or an object")
    name = _word(target.get("name"), "arch.target.name")
    generation = target.get("generation")
    recorded = {
        "target_features": _texts(target.get("features") or (), "arch.target.features"),
        "target_vendor": _text(target.get("vendor") or "", "arch.target.vendor"),
        "target_parents": _texts(target.get("parents") or (), "arch.target.parents"),
        "target_generation": generation if type(generation) is int else 0,
    }
    return name, recorded


def parameters_from_dict(
    parameters: Any,
) -> tuple[dict[str, VariantValue], dict[str, tuple[str, ...]]]:
    """Split ``parameters`` of a node into variants and those compiler flags that have words.

    Raises:
        FormatError: not an object, or a value of another type than variants have.
    """
    if not isinstance(parameters, dict):
        _bad("parameters", parameters, "an object")
    variants: dict[str, VariantValue] = {}
    flags: dict[str, tuple[str, ...]] = {}
    for key, value in parameters.items():
        if key in _FLAGS:
            if value and (words := _texts(value, f"parameters.{key}")):
                flags[key] = words
        elif isinstance(value, bool):
            variants[key] = value
        elif isinstance(value, str):
            variants[key] = _BOOLEANS.get(value.lower(), value) if 4 <= len(value) <= 5 else value
        elif isinstance(value, list):
            variants[key] = tuple(sorted(_texts(value, f"parameters.{key}")))
        else:
            _bad(f"parameters.{key}", value, "a boolean, a text or a list")
    return variants, flags


def _compiler(data: Mapping[str, Any]) -> tuple[tuple[str, str] | None, int | None]:
    """Return the compiler recorded on the node itself and the format that its annotation gives."""
    notes = data.get("annotations")
    if notes is not None:
        if not isinstance(notes, dict):
            _bad("annotations", notes, "an object")
        original = notes.get("original_specfile_version")
        if original is not None and type(original) is not int:
            _bad("annotations.original_specfile_version", original, "a number")
        text = notes.get("compiler")
        if text is None:
            return None, original
        name, _, version = _text(text, "annotations.compiler").partition("@")
        return (name, version.removeprefix("=")), original
    compiler = data.get("compiler")
    if compiler is None:
        return None, None
    if not isinstance(compiler, dict):
        _bad("compiler", compiler, "an object")
    found = compiler.get("version")
    if found is None and isinstance(compiler.get("versions"), list) and compiler["versions"]:
        found = compiler["versions"][0]
    version = _text(found, "compiler.version").removeprefix("=")
    return (_text(compiler.get("name"), "compiler.name"), version), None


def _edges(entries: Any) -> tuple[Edge, ...]:
    """Return the edges, in the order recorded. Edges are keyed by hash: a name may occur more than once."""
    if not entries:
        return ()
    if isinstance(entries, dict):  # specfile 1: keyed by package name
        return tuple([_edge(name, entry) for name, entry in entries.items()])
    if not isinstance(entries, list):
        _bad("dependencies", entries, "a list or an object")
    # A closure has thousands of edges, most as Spack writes them since specfile 4, with some twenty combinations of
    # types and virtuals: each combination is checked once. `_edge` takes, or refuses, every other shape.
    found = []
    for entry in entries:
        try:
            parameters = entry["parameters"]
            types, virtuals = parameters["deptypes"], parameters["virtuals"]
            hash, name = entry["hash"], entry["name"]
            known = _COMBINATIONS.get((*types, None, *virtuals))
            usual = type(types) is type(virtuals) is list and type(hash) is type(name) is str
        except (KeyError, TypeError):
            usual, known = False, None
        if usual and known and hash.isalnum() and hash.isascii():
            found.append(Edge(hash.lower(), name, *known))
        else:
            found.append(_edge(entry.get("name") if isinstance(entry, dict) else None, entry))
    return tuple(found)


def _edge(name: Any, entry: Any) -> Edge:
    if not isinstance(entry, dict):
        _bad("dependencies", entry, "a list of objects")
    hash = next((entry[key] for key in _EDGE_HASHES if entry.get(key)), None)
    parameters = entry.get("parameters")
    if parameters is None:
        types, virtuals = entry.get("type") or (), ()
    elif isinstance(parameters, dict):
        types, virtuals = parameters.get("deptypes") or (), parameters.get("virtuals") or ()
    else:
        _bad("dependencies.parameters", parameters, "an object")
    if isinstance(types, str):
        types = (types,)
    if not isinstance(hash, str) or not hash or not _HASH.issuperset(hash):
        _bad("dependencies.hash", hash, "a DAG hash")
    edge = Edge(
        hash.lower(),
        _text(name, "dependencies.name"),
        _texts(types, "dependencies.deptypes"),
        _texts(virtuals, "dependencies.virtuals"),
    )
    if len(_COMBINATIONS) < _MOST_COMBINATIONS:
        _COMBINATIONS[(*edge.types, None, *edge.virtuals)] = (edge.types, edge.virtuals)
    return edge


def _external(external: Any) -> str | None:
    """Return the recorded prefix, "" for an external without one, None for an ordinary node."""
    if not external:
        return None
    if not isinstance(external, dict):
        _bad("external", external, "an object")
    return _text(external.get("path") or "", "external.path")


def _build_spec(build_spec: Any) -> str | None:
    """Return the hash of the spec whose binary a spliced node uses."""
    if build_spec is None:
        return None
    if not isinstance(build_spec, dict):
        _bad("build_spec", build_spec, "an object")
    hash = next((build_spec[key] for key in _EDGE_HASHES if build_spec.get(key)), None)
    return _text(hash, "build_spec.hash").lower()
