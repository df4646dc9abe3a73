"""cache.spack.io pages: Jekyll front matter whose `spec_details` value is JSON on one line (docs/formats.md).

Pages record a node's own attributes only. Eras: d, e, f (2023 to 2025) have all of an entry on the page; a, b, c (2021
to 2023) name ``spec-N.json`` documents beside it; g (since 2025) has no page but ``specs_data.json``, JSON alone.
"""

from __future__ import annotations

import json
import re

from ....errors import FormatError, NotFoundError, SpecSyntaxError
from ....values import changed
from ...model import Node, Record
from ...spec.versions import parse_version
from . import PAGE_LIMIT, Get, Reading, failed, skipped_text
from .nodes import check_printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping
    from typing import Any

    from ...model import VariantValue
    from . import Answer, Known, Reader

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\Z")
_HASH = re.compile(r"[A-Za-z2-7]{32}\Z")
_WORD = re.compile(r"[A-Za-z0-9_.:+-]+\Z")


def read(location: str, known: Known | None = None) -> Reader:  # noqa: ARG001 -- the registry's signature; pages have no stored form
    """Read the page at `location`; a Reading without kind when it is something else."""
    answer = yield Get(location, limit=PAGE_LIMIT)
    if answer.error:
        if isinstance(answer.error, NotFoundError):
            return Reading("", "unreachable")
        return failed("page", answer.error)
    if answer.names is not None:
        return Reading("", "not-a-cache")
    if is_data(answer.body):
        parsed = _parsed(parse_data, answer.body, location)
    elif is_page(answer.body):
        parsed = _parsed(parse_page, answer.body, location)
        if isinstance(parsed, Reading) and (names := spec_files(answer.body)):
            parsed = yield from _beside(location, names)
    else:
        return Reading("", "not-a-cache")
    if isinstance(parsed, Reading):
        return parsed
    records, broken = parsed
    if not records:
        return Reading(
            "page", "corrupt" if broken else "empty", skipped_text("entries", broken), broken=len(broken)
        )
    release = release_of(answer.body)
    detail = skipped_text("entries", broken)
    return Reading("page", "fresh", detail, records=records, broken=len(broken), release=release)


def _parsed(
    parse: Callable[..., tuple[tuple[Record, ...], tuple[str, ...]]], data: bytes, location: str
) -> tuple[tuple[Record, ...], tuple[str, ...]] | Reading:
    try:
        return parse(data, what=location)
    except FormatError as error:
        return Reading("page", error.context.get("state", "corrupt"), error.message)


def spec_files(data: bytes) -> tuple[str, ...]:
    """Return the names ``spec-N.json`` that a page of eras a to c lists, in its order, each once."""
    text = data.decode("utf-8", "replace")
    _, found, block = text.partition("\nspec_files:")
    if not found:
        return ()
    end = re.search(r"\n[A-Za-z_]+:|\n---", block)
    return tuple(dict.fromkeys(re.findall(r"\bspec-[0-9]+\.json\b", block[: end.start() if end else None])))


def _beside(
    location: str, names: tuple[str, ...]
) -> Generator[Get, Answer, tuple[tuple[Record, ...], tuple[str, ...]] | Reading]:
    """Read the spec documents beside a page of eras a to c: the root node alone, of specfile 2."""
    from .spec import parse_document

    directory = location.rpartition("/")[0]
    found: dict[str, Record] = {}
    broken: list[str] = []
    for name in names:
        answer = yield Get(f"{directory}/{name}")
        if answer.error and not isinstance(answer.error, NotFoundError):
            return failed("page", answer.error)
        try:
            node = parse_document(answer.body, what=f"{directory}/{name}")[0]
        except FormatError as error:
            broken.append(error.message)
            continue
        # Whatever it says about dependencies, none of them is described anywhere: as on the other pages.
        found[node.hash] = Record(changed(node, partial=True, edges=()), True)
    if not found:
        return Reading(
            "page", "too-old", f"{location} names {len(names)} spec documents, and none can be read beside it"
        )
    return tuple(found.values()), tuple(broken)


def is_data(data: bytes) -> bool:
    """Return True for a JSON document with entries of era g."""
    head = data.lstrip()[:1]
    return head in (b"[", b"{") and b'"hash"' in data and b'"stacks"' in data


def parse_data(data: bytes, *, what: str) -> tuple[tuple[Record, ...], tuple[str, ...]]:
    """Return the records of a ``specs_data.json`` (era g), and why other entries could not be read.

    Nothing is promised about this format, so the entries may be a list or the values of an object, and the package
    is the entry's `name` or that of the file's directory. The compiler is not recorded, and what an interim
    version wrote in its place (the name of some build dependency) is not one.

    Raises:
        FormatError: not JSON.
    """
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{what} is not JSON: {error}", context={"file": what}) from None
    package = what.rpartition("/")[0].rpartition("/")[2]
    return _merged_entries(list(_data_entries(document)), package)


def _data_entries(document: Any) -> Iterator[Any]:
    """Yield the objects with a hash, wherever they stand in the document."""
    if isinstance(document, dict) and "hash" in document:
        versions = document.get("versions") or [document.get("version")]
        yield {**document, "versions": versions, "compiler": ""}
    elif isinstance(document, dict | list):
        for inner in document.values() if isinstance(document, dict) else document:
            yield from _data_entries(inner)


def is_page(data: bytes) -> bool:
    """Return True for a document that opens with front matter."""
    return data.lstrip(b"\xef\xbb\xbf")[:4] in (b"---\n", b"---\r")


def parse_page(data: bytes, *, what: str) -> tuple[tuple[Record, ...], tuple[str, ...]]:
    """Return the records of a page, merged by hash, and why other entries could not be read.

    Raises:
        FormatError: not a page of a known era; `context["state"]` is the mirror state.
    """
    fields = _front_matter(data, what)
    details = fields.get("spec_details")
    if details is None:
        if "spec_files" in fields:
            raise FormatError(
                f"{what} is a page of 2021 to 2023, which names spec documents (spec-N.json) in place of entries",
                hint="keep those documents beside the page, or use the page of a newer release",
                context={"file": what, "state": "too-old"},
            )
        raise FormatError(
            f"{what} has front matter but no spec_details", context={"file": what, "state": "not-a-cache"}
        )
    name = fields.get("title", "").strip().strip("\"'")
    try:
        entries = json.loads(details)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"spec_details of {what} is not JSON: {error}", context={"file": what}) from None
    if not isinstance(entries, list) or not name:
        raise FormatError(f"{what} has no list of specs or no title", context={"file": what})
    return _merged_entries(entries, name)


def _merged_entries(entries: list[Any], package: str) -> tuple[tuple[Record, ...], tuple[str, ...]]:
    """Return the records of entries, merged by hash, and why others could not be read."""
    found: dict[str, Record] = {}
    broken: list[str] = []
    for entry in entries:
        try:
            record = _record(str(entry.get("name") or package), entry)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            broken.append(f"{type(error).__name__}: {error}"[:100])
            continue
        except (SpecSyntaxError, FormatError) as error:
            broken.append(error.message[:100])
            continue
        old = found.get(record.node.hash)
        stacks = tuple(dict.fromkeys((old.stacks if old else ()) + record.stacks))
        found[record.node.hash] = Record(record.node, True, (), stacks)
    return tuple(found.values()), tuple(broken)


def release_of(data: bytes) -> str:
    """Return the release (ref) that a page belongs to, from ``categories: [package, REF]``; "" when it says none."""
    match = re.search(rb"^categories:\s*\[([^\]\n]*)\]", data, re.M)
    words = (
        [word.strip().strip("\"'") for word in match[1].decode("utf-8", "replace").split(",")]
        if match
        else []
    )
    return next((word for word in words if word not in ("package", "packages", "")), "")


def _front_matter(data: bytes, what: str) -> dict[str, str]:
    """Return the top-level keys of the front matter with the text after the colon."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FormatError(f"{what} is not UTF-8 text: {error}", context={"file": what}) from None
    fields: dict[str, str] = {}
    for line in text.splitlines()[1:]:
        if line.rstrip() == "---":
            return fields
        key, colon, value = line.partition(":")
        if colon and key and not key[0].isspace():
            fields[key] = value.strip()
    raise FormatError(f"{what} ends inside its front matter: it is cut off", context={"file": what})


def _record(name: str, entry: Mapping[str, Any]) -> Record:
    """Return the record of one `spec_details` entry."""
    versions = entry["versions"]
    if not isinstance(versions, list) or not _HASH.match(entry["hash"]):
        raise ValueError("hash or versions")
    texts = [versions[0], entry["platform"], entry["os"], entry["target"]]
    if not all(isinstance(text, str) and text for text in texts):
        raise ValueError("version or architecture")
    check_printable(entry)
    version, platform, os, target = texts
    if not all(_WORD.match(text) for text in (platform, os, target)):
        raise ValueError("architecture")
    version = version.removeprefix("=")
    compiler = _compiler(entry.get("compiler"))
    if not _NAME.match(name):
        raise ValueError("package name")
    for text in (version, compiler[1] if compiler else "0"):
        parse_version(text)
    node = Node(
        hash=entry["hash"].lower(),
        name=name,
        version=version,
        platform=platform,
        os=os,
        target=target,
        variants=_variants(entry.get("variants", [])),
        compiler=compiler,
        # The era that writes `gcc@=13.2.0` is that of specfile 4; `gcc@13.3.0` came with Spack 1.0.
        format=4 if "@=" in (entry.get("compiler") or "") else 5,
        partial=True,
    )
    return Record(node, True, (), tuple(str(stack) for stack in entry.get("stacks", [])))


def _compiler(text: str | None) -> tuple[str, str] | None:
    if not text or text == "none":
        return None
    name, _, version = text.partition("@")
    return name, version.removeprefix("=")


def _variants(texts: list[str] | str) -> dict[str, VariantValue]:
    """Parse display strings: ``+shared``, ``~ipo``, ``build_system=cmake``, ``cuda_arch=80,86``, ``x:=a``."""
    if isinstance(texts, str):
        texts = texts.split()
    variants: dict[str, VariantValue] = {}
    for text in texts:
        if text[0] in "+~-":
            variants[text[1:].lstrip("+~-")] = text[0] == "+"
            continue
        name, _, value = text.partition("=")
        value = value.removeprefix("=")
        if name.endswith(":") or "," in value:
            variants[name.rstrip(":")] = tuple(sorted(value.split(",")))
        else:
            variants[name] = value
    return variants
