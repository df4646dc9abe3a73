"""The catalogue of the public caches, ``cache_spack_io_index.json``: releases, stacks and where their indexes lie.

It holds no specs. With a cache page it tells where the stacks of an entry are fetched from: the page says which
release and which stacks, the catalogue which mirrors these are (docs/formats.md, "The catalogue").
"""

from __future__ import annotations

import json

from ....errors import FormatError, NotFoundError
from . import Get, Place, Reading, failed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from . import Known, Reader

_BUCKET = "s3://spack-binaries/"
_PUBLIC = "https://binaries.spack.io/"


def read(location: str, known: Known | None = None) -> Reader:  # noqa: ARG001 -- the registry's signature; the catalogue is small and read anew
    """Read the catalogue at `location`; a Reading without kind when it is something else."""
    answer = yield Get(location)
    if isinstance(answer.error, NotFoundError):
        return Reading("", "unreachable")
    if answer.error:
        return failed("catalogue", answer.error)
    if answer.names is not None or b'"label"' not in answer.body:
        return Reading("", "not-a-cache")
    try:
        places = parse_catalogue(answer.body, what=location)
    except FormatError as error:
        return Reading("catalogue", "corrupt", error.message)
    releases = dict.fromkeys(place.ref for place in places)
    detail = f"names {len(places)} mirrors of {len(releases)} releases; give it beside a cache page"
    return Reading("catalogue", "fresh" if places else "empty", detail, places=places)


def parse_catalogue(data: bytes, *, what: str) -> tuple[Place, ...]:
    """Return the mirrors that a catalogue names, in its order, of each release ``root`` first.

    Entries whose URL is no index of either layout are left out.

    Raises:
        FormatError: not a catalogue.
    """
    try:
        document = json.loads(data)
        entries = [
            (str(ref), str(entry["label"]), str(entry["url"]))
            for ref, found in document.items()
            for entry in found
        ]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FormatError(f"{what} is not a catalogue of caches: {error}", context={"file": what}) from None
    places = [Place(ref, label, mirror) for ref, label, url in entries if (mirror := mirror_of(url))]
    releases = list(dict.fromkeys(place.ref for place in places))
    return tuple(sorted(places, key=lambda place: (releases.index(place.ref), place.label != "root")))


def mirror_of(url: str) -> str:
    """Return the mirror of an index URL, "" for another URL.

    The public bucket has an https address. A v3 URL is that of a blob and goes stale with the next index, so
    only the part before ``/blobs/`` counts; of a v2 URL that before ``/build_cache/``.
    """
    if url.startswith(_BUCKET):
        url = _PUBLIC + url[len(_BUCKET) :].lstrip("/")
    for mark in ("/blobs/", "/build_cache/"):
        mirror, found, _ = url.partition(mark)
        if found:
            return mirror
    return ""


def places_for(places: tuple[Place, ...], ref: str, stacks: tuple[str, ...]) -> tuple[Place, ...]:
    """Return where an entry of a page of release `ref` lies: the mirrors of its `stacks`, ``root`` first."""
    return tuple(place for place in places if place.ref == ref and place.label in stacks)
