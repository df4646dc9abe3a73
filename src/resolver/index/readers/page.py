"""cache.spack.io pages: Jekyll front matter whose `spec_details` value is JSON on one line (docs/formats.md).

Pages record a node's own attributes only. Eras read: 2023 (with `tarball`), 2024 (`gcc@=13.2.0`) and 2025
(`gcc@13.3.0`, package names). Older pages list spec strings without full hashes and are refused by name.
"""

from __future__ import annotations

import json
import re

from ....errors import FormatError, NotFoundError
from ...model import Node, Record
from . import PAGE_LIMIT, Get, Reading, failed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from ...model import VariantValue
    from . import Known, Reader

_HASH = re.compile(r"[a-z2-7]{32}\Z")


def read(location: str, known: Known | None = None) -> Reader:  # noqa: ARG001 -- the registry's signature; pages have no stored form
    """Read the page at `location`; a Reading without kind when it is something else."""
    answer = yield Get(location, limit=PAGE_LIMIT)
    if answer.error:
        if isinstance(answer.error, NotFoundError):
            return Reading("", "unreachable")
        return failed("page", answer.error)
    if answer.names is not None or not is_page(answer.body):
        return Reading("", "not-a-cache")
    try:
        records, broken = parse_page(answer.body, what=location)
    except FormatError as error:
        return Reading("page", error.context.get("state", "corrupt"), error.message)
    if not records:
        return Reading(
            "page", "corrupt" if broken else "empty", f"{broken} unreadable entries", broken=broken
        )
    return Reading("page", "fresh", _broken_detail(broken), records=records, broken=broken)


def is_page(data: bytes) -> bool:
    """Return True for a document that opens with front matter."""
    return data.lstrip(b"\xef\xbb\xbf")[:4] in (b"---\n", b"---\r")


def parse_page(data: bytes, *, what: str) -> tuple[tuple[Record, ...], int]:
    """Return the records of a page, merged by hash, and the number of entries that could not be read.

    Raises:
        FormatError: not a page of a known era; `context["state"]` is the mirror state.
    """
    fields = _front_matter(data, what)
    details = fields.get("spec_details")
    if details is None:
        if "spec_files" in fields:
            raise FormatError(
                f"{what} is a page of 2021 to 2023, which lists spec strings without hashes",
                hint="use the page of a newer release, or the mirror itself",
                context={"file": what, "state": "too-old"},
            )
        raise FormatError(
            f"{what} has front matter but no spec_details", context={"file": what, "state": "not-a-cache"}
        )
    name = fields.get("title", "").strip().strip("\"'")
    try:
        entries = json.loads(details)
    except ValueError as error:
        raise FormatError(f"spec_details of {what} is not JSON: {error}", context={"file": what}) from None
    if not isinstance(entries, list) or not name:
        raise FormatError(f"{what} has no list of specs or no title", context={"file": what})
    found: dict[str, Record] = {}
    broken = 0
    for entry in entries:
        try:
            record = _record(name, entry)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError):
            broken += 1
            continue
        old = found.get(record.node.hash)
        stacks = tuple(dict.fromkeys((old.stacks if old else ()) + record.stacks))
        found[record.node.hash] = Record(record.node, True, (), stacks)
    return tuple(found.values()), broken


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
    version, platform, os, target = texts
    node = Node(
        hash=entry["hash"],
        name=name,
        version=version.removeprefix("="),
        platform=platform,
        os=os,
        target=target,
        variants=_variants(entry.get("variants", [])),
        compiler=_compiler(entry.get("compiler")),
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


def _variants(texts: list[str]) -> dict[str, VariantValue]:
    """Parse display strings: ``+shared``, ``~ipo``, ``build_system=cmake``, ``cuda_arch=80,86``, ``x:=a``."""
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


def _broken_detail(broken: int) -> str:
    return f"{broken} unreadable entries skipped" if broken else ""
