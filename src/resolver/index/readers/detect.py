"""Find out what a location is, by asking each format in turn (docs/formats.md, "What -m accepts")."""

from __future__ import annotations

from importlib import import_module

from ....errors import NotFoundError
from ....values import without_secrets
from . import (
    BUNDLE_SCHEME,
    CATALOGUE_FILE,
    FORMATS,
    OCI_SCHEMES,
    PAGE_DATA_FILE,
    Get,
    Reading,
    failed,
    join,
    name_of,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator

    from . import Answer, Known, Reader


#: Better than nothing, but another format at the same place may be better still.
_WEAK = ("no-index", "forbidden")
#: Entries of a directory that are looked into for a mirror.
_LOOK_INTO = 50
#: What stands in a path for a user and password (`config.MASKED`), and what to say of it.
_LOGIN = "***@"
_NO_SCHEME = "; a URL begins with its scheme: https://USER@HOST/PATH"
_URL_FORMATS = ("v3", "v2", "page")


def read(location: str, known: Known | None = None, kind: str = "", view: str = "") -> Reader:
    """Read the mirror at `location` with the first format that recognises it.

    Args:
        location: absolute path or URL.
        known: what the store has of it, for a conditional request.
        kind: the format found last time, tried first when given.
        view: named index of a v3 mirror; no other format is tried then.
    """
    if view:
        from .v3 import read as read_v3

        return (yield from read_v3(location, known, view))
    if location.startswith(OCI_SCHEMES):  # nothing else is in a registry, and what it lacks its reader says
        return (yield from _format("oci", location, known))
    weak: Reading | None = None
    for name in _order(location, kind):
        reading = yield from _format(name, location, known if name == kind else None)
        if reading.kind and reading.state not in _WEAK:
            return reading
        weak = weak or (reading if reading.kind else None)
    return weak or (yield from _nothing(location))


def _format(name: str, location: str, known: Known | None) -> Reader:
    """Return the reader of one format; its module is imported only when it is asked."""
    reader: Reader = import_module(f"{__name__.rpartition('.')[0]}.{name}").read(location, known)
    return reader


def _order(location: str, kind: str) -> tuple[str, ...]:
    """Return the formats to ask, the likeliest first.

    Layout 3 is always asked before layout 2, also where layout 2 was found last time: a mirror that was migrated keeps
    its old tree, and nothing there would ever change again (Spack 1.1 asks in this order too).
    """
    order = _by_name(location)
    if kind == "v2":
        return ("v3", *(name for name in order if name != "v3"))
    return (kind, *(name for name in order if name != kind)) if kind else order


def _by_name(location: str) -> tuple[str, ...]:
    """Return the formats that a location's name leaves open."""
    name = name_of(location)
    if location.startswith(BUNDLE_SCHEME):
        return ("bundle",)
    if name.endswith(".md") or name == PAGE_DATA_FILE:
        return ("page",)
    if name.endswith(".lock"):
        return ("lock",)
    if name.endswith((".spec.json", ".spec.json.sig")) or name == "spec.json":
        return ("spec",)
    if name == CATALOGUE_FILE:
        return ("catalogue",)
    if name.endswith(".json"):
        return ("bare", "lock", "spec", "catalogue", "page")
    if "://" in location:
        return _URL_FORMATS  # a URL cannot be listed, and single documents have names that tell
    return tuple(name for name in FORMATS if name not in ("oci", "bundle"))


def _nothing(location: str) -> Reader:
    """Say what stands at `location` instead of a build cache, and where the nearest one is."""
    near = yield from _nearest(location)
    answer = yield Get(location)
    if isinstance(answer.error, NotFoundError):
        if "://" not in location:
            near = near or (_NO_SCHEME if _LOGIN in location else "")
            return Reading("", "unreachable", f"there is no file or directory {location}{near}")
        return Reading(
            "",
            "not-a-cache",
            f"nothing known at {without_secrets(location)}: neither v3/ nor build_cache/ below it, "
            f"and the address itself is 404{near}",
        )
    if answer.error:
        return failed("", answer.error)
    if answer.names == ():  # a mirror that nothing was pushed to yet; it can be asked, and has nothing
        return Reading("directory", "empty", f"the directory {location} is empty")
    if answer.names is not None:
        state, what = "not-a-cache", _directory(answer.names)
    elif not answer.body.strip():
        # A write that was cut off, not a cache without specs.
        state, what = "corrupt", f"{without_secrets(location)} is empty"
    elif answer.body.lstrip()[:1] == b"<":
        state = "not-a-cache"
        what = "an HTML page; give the mirror's own URL, the one that has v3/ or build_cache/ below it"
    else:
        state, what = "not-a-cache", "neither a cache page nor a Spack index"
    return Reading("", state, what + near)


def _directory(names: tuple[str, ...]) -> str:
    """Return the description of a directory that is no mirror."""
    if "oci-layout" in names or "docker" in names:
        return "a container registry's storage: serve it with a registry, and name it as oci://HOST/NAME"
    if "_source-cache" in names:
        return "a Spack source mirror: it holds sources, no binaries"
    return "the directory has neither v3/ nor build_cache/ nor a cache page (*.md)"


def _nearest(location: str) -> Generator[Get, Answer, str]:
    """Return a remark that names the nearest mirror: above `location`, or in a directory directly below it."""
    head, scheme, rest = location.rpartition("://")
    for part in ("/v3", "/build_cache", "/blobs"):
        above, found, _ = f"{rest}/".partition(f"{part}/")
        if found and above:
            return f"; did you mean {head}{scheme}{above}?"
    if scheme:
        return ""
    here = yield Get(location)
    for name in (here.names or ())[:_LOOK_INTO]:
        inner = (yield Get(join(location, name))).names or ()
        if "v3" in inner or "build_cache" in inner:
            return f"; did you mean {join(location, name)}?"
    return ""
