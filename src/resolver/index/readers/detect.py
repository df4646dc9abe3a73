"""Find out what a location is, by asking each format in turn (docs/formats.md, "What -m accepts")."""

from __future__ import annotations

from importlib import import_module

from ....errors import NotFoundError
from . import FORMATS, Get, Reading, failed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from . import Known, Reader


def read(location: str, known: Known | None = None, kind: str = "") -> Reader:
    """Read the mirror at `location` with the first format that recognises it.

    Args:
        location: absolute path or URL.
        known: what the store has of it, for a conditional request.
        kind: the format found last time, tried alone when given.
    """
    if kind:
        return (yield from _format(kind, location, known))
    for name in _order(location):
        reading = yield from _format(name, location, known)
        if reading.kind:
            return reading
    return (yield from _nothing(location))


def _format(name: str, location: str, known: Known | None) -> Reader:
    """Return the reader of one format; its module is imported only when it is asked."""
    reader: Reader = import_module(f"{__name__.rpartition('.')[0]}.{name}").read(location, known)
    return reader


def _order(location: str) -> tuple[str, ...]:
    """Return the formats to ask; a single document by its name saves the question for a whole mirror."""
    if location.endswith((".md", ".json")):
        return ("page", "bare")
    return FORMATS


def _nothing(location: str) -> Reader:
    """Say what stands at `location` instead of a build cache."""
    answer = yield Get(location)
    if isinstance(answer.error, NotFoundError):
        if "://" not in location:
            return Reading("", "unreachable", f"there is no file or directory {location}")
        return Reading(
            "", "not-a-cache", f"nothing known at {location}: no v3 index, and the address itself is 404"
        )
    if answer.error:
        return failed("", answer.error)
    if answer.names is not None:
        if not answer.names:
            return Reading("", "empty", f"the directory {location} is empty")
        if "build_cache" in answer.names:
            return Reading("", "too-old", "layout 2 (build_cache/); this version reads layout 3")
        if "oci-layout" in answer.names or "docker" in answer.names:
            return Reading("", "not-a-cache", "a container registry's storage, not a Spack layout 3 mirror")
        if "_source-cache" in answer.names:
            return Reading("", "not-a-cache", "a Spack source mirror: it holds sources, no binaries")
        return Reading("", "not-a-cache", "the directory has neither v3/ nor a cache page (*.md)")
    if not answer.body.strip():
        return Reading("", "empty", f"{location} is empty")
    if answer.body.lstrip()[:1] == b"<":
        return Reading(
            "", "not-a-cache", "an HTML page; give the mirror's own URL, the one that has v3/ below it"
        )
    return Reading("", "not-a-cache", "neither a cache page nor a Spack index")
