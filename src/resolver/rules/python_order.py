"""The order of versions of Python packages: that of PEP 440 where every version of a pool can be read by it (pure).

Source: docs/semantics.md, "Total order". `packaging` is imported only for versions that are not plain numbers.
"""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

_PLAIN = re.compile(r"\d+(\.\d+)*")


def pep440_order(texts: Iterable[str]) -> dict[str, tuple[bool, Any]] | None:
    """Return (is a pre-release, comparable value) of each version text, or None when PEP 440 cannot read all of them.

    Values of equal versions are equal (1.2 and 1.2.0); a larger value is a newer version. A development release
    counts as a pre-release.
    """
    found = set(texts)
    if all(map(_PLAIN.fullmatch, found)):
        return {text: (False, _release(text)) for text in found}
    from packaging.version import InvalidVersion, Version

    try:
        versions = {text: Version(text) for text in found}
    except InvalidVersion:
        return None
    return {text: (version.is_prerelease, version) for text, version in versions.items()}


def _release(text: str) -> tuple[int, ...]:
    """Return the numbers without zeros at the end."""
    numbers = [int(part) for part in text.split(".")]
    while len(numbers) > 1 and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)
