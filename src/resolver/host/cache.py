"""Remembered answers of slow host facts: archspec's target, versions of programs. Edge.

One small JSON file in the user's cache directory. A key names everything that the answer depends on (CPU
flags; path, size and time of change of an executable), so an entry is never out of date, and machines that
share a home have their own entries. A file that cannot be read or written only costs time.
"""

from __future__ import annotations

import contextlib
import json
import os
import time

_SCHEMA = "cachefetch/host-cache/1"
#: Entries kept, newest last: enough for the kinds of machines of a cluster.
_MAX_ENTRIES = 256


def default_directory() -> str:
    """Return ``$XDG_CACHE_HOME/cachefetch``, else ``~/.cache/cachefetch``; "" when there is no home."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):
        base = os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(base, "cachefetch") if os.path.isabs(base) else ""


class HostCache:
    """Answers by key; each is a tuple of strings. Use `save` once at the end."""

    __slots__ = ("_changed", "_entries", "_path")

    def __init__(self, directory: str) -> None:
        self._path = os.path.join(directory, "host.json") if directory else ""
        self._entries = _read(self._path)
        self._changed = False

    def get(self, key: str) -> tuple[str, ...] | None:
        """Return the answer, None when it is unknown or was to be kept for a time that is over."""
        entry = self._entries.get(key)
        if not isinstance(entry, list) or len(entry) != 2:
            return None
        expires, answer = entry
        if not isinstance(answer, list) or not all(isinstance(part, str) for part in answer):
            return None
        if not isinstance(expires, int | float) or (expires and time.time() > expires):
            return None
        return tuple(answer)

    def put(self, key: str, answer: tuple[str, ...], *, keep_s: float = 0) -> None:
        """Remember an answer, for `keep_s` seconds, or for good when that is 0."""
        self._entries.pop(key, None)
        self._entries[key] = [time.time() + keep_s if keep_s else 0, list(answer)]
        self._changed = True

    def save(self) -> None:
        """Write the file atomically if anything changed. No error when the place is not writable."""
        if not self._changed or not self._path:
            return
        newest = list(self._entries.items())[-_MAX_ENTRIES:]
        text = json.dumps({"schema": _SCHEMA, "entries": dict(newest)}, indent=0)
        temporary = f"{self._path}.{os.getpid()}.tmp"
        try:
            os.makedirs(os.path.dirname(self._path), mode=0o700, exist_ok=True)
            with open(temporary, "w", encoding="utf-8") as file:
                file.write(text)
            os.replace(temporary, self._path)
        except (OSError, UnicodeError):
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        self._changed = False


def _read(path: str) -> dict[str, object]:
    try:
        with open(path, encoding="utf-8") as file:
            data = json.load(file)
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(data, dict) or data.get("schema") != _SCHEMA:
        return {}
    entries = data.get("entries")
    return entries if isinstance(entries, dict) else {}
