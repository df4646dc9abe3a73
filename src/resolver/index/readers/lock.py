"""``spack.lock``, lockfile versions 4 to 8: the concrete specs of an environment (docs/formats.md, "spack.lock").

It lists binaries that may exist, and holds none: another mirror delivers them, by name, version and hash.
"""

from __future__ import annotations

import json

from ....errors import FormatError, NotFoundError
from ...model import Record
from . import PAGE_LIMIT, Get, Reading, failed, skipped_text
from .nodes import node_from_dict

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from . import Known, Reader

#: Specfile version of the nodes by lockfile version (Spack 1.3's table of file formats, docs/formats.md).
SPECFILE_OF_LOCK = {4: 3, 5: 4, 6: 5, 7: 5, 8: 6}


def read(location: str, known: Known | None = None) -> Reader:  # noqa: ARG001 -- the registry's signature; a lock file has no stored form
    """Read the lock file at `location`; a Reading without kind when it is something else."""
    answer = yield Get(location, limit=PAGE_LIMIT)
    if isinstance(answer.error, NotFoundError):
        return Reading("", "unreachable")
    if answer.error:
        return failed("lock", answer.error)
    if answer.names is not None or not is_lock(answer.body):
        return Reading("", "not-a-cache")
    try:
        records, broken = parse_lock(answer.body, what=location)
    except FormatError as error:
        return Reading("lock", error.context.get("state", "corrupt"), error.message)
    if not records:
        return Reading("lock", "corrupt" if broken else "empty", "no concrete specs", broken=len(broken))
    detail = skipped_text("specs", broken)
    return Reading("lock", "fresh", detail, records=records, broken=len(broken))


def is_lock(data: bytes) -> bool:
    """Return True for a document that has the two keys of a lock file."""
    return b'"concrete_specs"' in data and b'"roots"' in data


def parse_lock(data: bytes, *, what: str) -> tuple[tuple[Record, ...], tuple[str, ...]]:
    """Return the records of a lock file, included environments too, and why others could not be read.

    Raises:
        FormatError: not a lock file, or one of a version that is not read; `context["state"]` is the mirror state.
    """
    try:
        document = json.loads(data)
        version = document["_meta"]["lockfile-version"]
        if not isinstance(version, int):
            raise TypeError("lockfile-version is no number")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise FormatError(f"{what} is not a spack.lock: {error}", context={"file": what}) from None
    if version not in SPECFILE_OF_LOCK:
        state = "too-new" if version > max(SPECFILE_OF_LOCK) else "too-old"
        raise FormatError(
            f"{what} is lockfile version {version}; versions 4 to 8 are read",
            hint="`spack concretize --force` with a newer Spack writes it anew" if state == "too-old" else "",
            context={"file": what, "version": version, "state": state},
        )
    found: dict[str, Record] = {}
    broken = _collect(document, SPECFILE_OF_LOCK[version], found)
    return tuple(found.values()), tuple(broken)


def lock_roots(data: bytes, *, what: str) -> tuple[tuple[str, str], ...]:
    """Return name and DAG hash of the roots of a lock file, those of included environments too.

    Raises:
        FormatError: as `parse_lock`, or a root that the file does not describe.
    """
    records, _ = parse_lock(data, what=what)
    names = {record.node.hash: record.node.name for record in records}
    found: dict[str, str] = {}
    waiting = [json.loads(data)]
    while waiting:
        document = waiting.pop()
        included = document.get("include_concrete")
        waiting += (
            [one for one in included.values() if isinstance(one, dict)] if isinstance(included, dict) else []
        )
        for root in document.get("roots") or ():
            hash_ = str(root.get("hash")).lower() if isinstance(root, dict) else None
            if hash_ not in names:
                raise FormatError(f"{what}: the root {root!r:.90} is not described", context={"file": what})
            found[hash_] = names[hash_]
    return tuple((name, hash_) for hash_, name in found.items())


def _collect(document: Mapping[str, Any], specfile: int, found: dict[str, Record]) -> list[str]:
    """Add the records of an environment and of those that it includes; return what is wrong with others."""
    broken: list[str] = []
    specs = document.get("concrete_specs")
    for hash_, data in specs.items() if isinstance(specs, dict) else ():
        try:
            node = node_from_dict(data, hash=hash_, specfile=specfile)
        except FormatError as error:
            broken.append(error.message)
            continue
        found.setdefault(node.hash, Record(node, node.external is None))
    included = document.get("include_concrete")
    for inner in included.values() if isinstance(included, dict) else ():
        broken += _collect(inner, specfile, found) if isinstance(inner, dict) else ["include_concrete"]
    return broken
