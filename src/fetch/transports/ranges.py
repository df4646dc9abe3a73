"""Header values of HTTP that decide about resuming and waiting. Pure."""

from __future__ import annotations

import re

_CONTENT_RANGE = re.compile(r"bytes\s+([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19}|\*)\s*", re.I)


def content_range(header: str | None, length: int | None = None) -> tuple[int, int | None] | None:
    """Return (first byte, size of the whole object or None), None when the header is not usable (RFC 9110).

    Neither is one that names another number of bytes than the `length` of the body, where that is known.
    """
    found = _CONTENT_RANGE.fullmatch(header.strip()) if header else None
    if not found:
        return None
    first, last = int(found[1]), int(found[2])
    size = None if found[3] == "*" else int(found[3])
    if last < first or (size is not None and last >= size) or length not in (None, last + 1 - first):
        return None
    return first, size


def strong_etag(header: str | None) -> str | None:
    """Return the ETag when it is a strong validator, the only kind that If-Range may carry (RFC 9110)."""
    if not header or header.startswith("W/") or len(header) > 200:
        return None
    return header if len(header) >= 2 and header[0] == header[-1] == '"' else None


def retry_after(header: str | None, now: float) -> float | None:
    """Return the seconds to wait; the header is a number of seconds or a date (`now` in Unix time)."""
    if not header:
        return None
    text = header.strip()
    if re.fullmatch(r"[0-9]{1,9}", text):
        return float(text)
    from email.utils import parsedate_to_datetime

    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now)
    except (ValueError, TypeError, OverflowError):
        return None
