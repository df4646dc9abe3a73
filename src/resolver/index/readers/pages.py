"""A directory of cache.spack.io pages: every ``*.md`` in it, and ``PACKAGE/specs.md`` one level below."""

from __future__ import annotations

from ....errors import FormatError
from . import PAGE_LIMIT, Get, Reading, failed, join, skipped_text
from .page import is_page, parse_page, release_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator

    from ...model import Record
    from . import Answer, Known, Reader


def read(location: str, known: Known | None = None) -> Reader:  # noqa: ARG001 -- the registry's signature; pages have no stored form
    """Read all pages of the directory `location`; a Reading without kind when it has none."""
    answer = yield Get(location)
    if answer.error or answer.names is None:
        return Reading("", "not-a-cache")
    records: dict[str, Record] = {}
    pages = unreadable = 0
    broken: list[str] = []
    detail = release = ""
    for name in sorted(answer.names):
        page = yield from _page(join(location, name))
        if page is None or page.error or not is_page(page.body):
            if page is not None and page.error and name.endswith(".md"):
                return failed("pages", page.error)
            continue
        pages += 1
        try:
            found, bad = parse_page(page.body, what=join(location, name))
        except FormatError as error:
            unreadable, detail = unreadable + 1, detail or error.message
            continue
        broken += bad
        release = release or release_of(page.body)
        records.update((record.node.hash, record) for record in found)
    if not pages:
        return Reading("", "not-a-cache")
    if not records:
        return Reading("pages", "corrupt" if unreadable else "empty", detail)
    detail = detail or skipped_text("entries", broken)
    return Reading(
        "pages", "fresh", detail, records=tuple(records.values()), broken=len(broken), release=release
    )


def _page(path: str) -> Generator[Get, Answer, Answer | None]:
    """Return the page at `path`, or the ``specs.md`` in the directory `path`, or None."""
    if path.endswith(".md"):
        return (yield Get(path, limit=PAGE_LIMIT))
    if "." in path.rpartition("/")[2]:
        return None
    answer = yield Get(path)
    if answer.names is None or "specs.md" not in answer.names:
        return None
    return (yield Get(join(path, "specs.md"), limit=PAGE_LIMIT))
