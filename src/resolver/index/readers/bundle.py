"""A bundle: a mirror of layout 3 in one file, or a few (docs/airgap.md); its transport finds the files in it."""

from __future__ import annotations

from ....values import changed
from . import v3

TYPE_CHECKING = False
if TYPE_CHECKING:
    from . import Known, Reader


def read(location: str, known: Known | None = None) -> Reader:
    """Read the index of the bundle at `location`, ``bundle://PATH``."""
    reading = yield from v3.read(location, known)
    return changed(reading, kind="bundle") if reading.kind else reading
