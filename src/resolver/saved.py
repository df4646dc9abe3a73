"""Reads a saved ``cachefetch/resolve/1`` document back, so that it can be explained without any mirror (pure)."""

from __future__ import annotations

import json

from ..errors import FormatError
from ..values import check_types
from .model import Compiler, Host, Libc
from .resolution import (
    EXIT_CODES,
    Artifact,
    Coverage,
    Difference,
    MirrorState,
    Missing,
    Other,
    Rejection,
    Resolution,
    Root,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SCHEMA = "cachefetch/resolve/1"


def read_resolution(data: bytes, *, what: str) -> Resolution:
    """Return the answer that `Resolution.to_dict` wrote.

    Args:
        data: the JSON document.
        what: its file, for messages.

    Raises:
        FormatError: not JSON, another document, or a field is missing or of another type.
    """
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{what} is not JSON: {error}", hint=_HINT) from None
    schema = document.get("schema") if isinstance(document, dict) else None
    if schema != SCHEMA:
        raise FormatError(f"{what} is {schema or 'no document of cachefetch'}, not {SCHEMA}", hint=_HINT)
    try:
        answer = resolution_from(document)
        check_types(answer)
        return answer
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        name = type(error).__name__
        raise FormatError(f"{what} is damaged: {name}: {error}", hint=_HINT) from None


_HINT = "save one with `cachefetch resolve SPEC... --json > FILE`"


def resolution_from(document: dict[str, Any]) -> Resolution:
    """Return the answer from a parsed document. Raises KeyError, TypeError, ValueError on a wrong shape."""
    if document["status"] not in EXIT_CODES:
        raise ValueError(f"unknown status {document['status']!r}")
    return Resolution(
        status=document["status"],
        host=host_from(document["host"]),
        mirrors=tuple(
            MirrorState(m["mirror"], m["kind"], m["state"], m["detail"], m["specs"], m["age_s"])
            for m in document["mirrors"]
        ),
        roots=tuple(_root(root) for root in document["roots"]),
        closure=tuple(_artifact(entry) for entry in document["closure"]),
        host_provides=tuple(document["host_provides"]),
        missing=tuple(
            Missing(m["name"], m["hash"], tuple(m["needed_by"]), m.get("build_spec"))
            for m in document["missing"]
        ),
        conflicts=tuple(document["conflicts"]),
        coverage=tuple(_coverage(row) for row in document.get("coverage", ())),
        conflict_relax=tuple((e["query"], e["drop"]) for e in document.get("conflict_relax", ())),
    )


def host_from(data: dict[str, Any]) -> Host:
    """Return the host of a document as it was written, without the checks of a host file."""
    libc = data["libc"]
    return Host(
        data["platform"],
        data["os"],
        data["target"],
        Libc(libc["kind"], libc["version"], libc["prefix"]) if libc else None,
        tuple(Compiler(c["name"], c["version"]) for c in data["compilers"]),
        dict(data["sources"]),
    )


def _coverage(row: dict[str, Any]) -> Coverage:
    roots = tuple((root["query"], int(root["fits"]), bool(root["chosen"])) for root in row["roots"])
    return Coverage(host_from(row["host"]), roots)


def _root(data: dict[str, Any]) -> Root:
    return Root(
        query=data["query"],
        candidates=data["candidates"],
        chosen=_artifact(data["chosen"]) if data["chosen"] else None,
        decided_by=tuple(data["decided_by"]),
        keys=dict(data["keys"]),
        key_texts=dict(data["key_texts"]),
        others=tuple(_other(entry) for entry in data["others"]),
        rejected=tuple(
            Rejection(_artifact(r), r["reason"], r["have"], r["need"], tuple(r["also"]))
            for r in data["rejected"]
        ),
        relax=tuple((entry["drop"], entry["leaves"]) for entry in data["relax"]),
        suggestions=tuple(data["suggestions"]),
        notes=tuple(data["notes"]),
        closure_known=data["closure_known"],
    )


def _other(data: dict[str, Any]) -> Other:
    found = data["differences"]
    listed = None if found is None else tuple(Difference(**entry) for entry in found)
    return Other(_artifact(data), data["worse_by"], data["have"], data["best"], data["missing"], listed)


def _artifact(data: dict[str, Any]) -> Artifact:
    """Return an artifact; entries of lists have fewer fields than the chosen one."""
    libc = data.get("libc")
    return Artifact(
        name=data["name"],
        version=data["version"],
        hash=data["hash"],
        platform=data.get("platform", ""),
        os=data.get("os", ""),
        target=data.get("target", ""),
        compiler=data.get("compiler"),
        libc=Libc(libc["kind"], libc["version"], libc["prefix"], libc["inferred"]) if libc else None,
        mirrors=tuple(data.get("mirrors", ())),
    )
