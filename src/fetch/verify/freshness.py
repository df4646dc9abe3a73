"""Is a mirror's index as new as what this machine has seen of it? Pure: values and bytes in, values out.

Spack signs no index and puts no date into it (Spack 1.1, docs/formats.md). So the only proof of age is memory: the
digests that a mirror's index had, in the order in which they were first seen here. A digest that was followed by
another one and is there again is a rollback; one that stays for too long may be frozen (docs/security.md).
"""

from __future__ import annotations

import json

from ...errors import FreshnessError
from ...values import frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: Digests that are remembered of one mirror; a busy mirror has some ten a day.
MAX_SEEN = 5000


@frozen
class Seen:
    """An index that was accepted: sha256 (hexadecimal), size in bytes, and when it was first seen, Unix seconds."""

    sha256: str
    size: int
    first: float


@frozen
class Verdict:
    """What memory says of an index: the `history` with it, its own entry, and the newer one that it falls behind."""

    history: tuple[Seen, ...]
    seen: Seen
    newer: Seen | None

    def age(self, now: float) -> float:
        """Seconds for which this index has been the mirror's, as far as is known here."""
        return max(0.0, now - self.seen.first)


def judge(history: tuple[Seen, ...], sha256: str, size: int, now: float) -> Verdict:
    """Compare an index with what was seen before, oldest first."""
    known = next((seen for seen in history if seen.sha256 == sha256), None)
    if known is None:
        seen = Seen(sha256, size, now)
        return Verdict((*history, seen)[-MAX_SEEN:], seen, None)
    newest = history[-1]
    return Verdict(history, known, None if known == newest else newest)


def encode(history: tuple[Seen, ...]) -> bytes:
    """Return the file of a history."""
    seen = [[one.sha256, one.size, one.first] for one in history]
    return json.dumps({"schema": "cachefetch/seen/1", "indexes": seen}).encode("ascii")


def decode(data: bytes) -> tuple[Seen, ...] | None:
    """Read a history; None when it is damaged: what was seen is not known then, which is not the same as nothing."""
    try:
        document: Any = json.loads(data)
        found = [Seen(sha256, int(size), float(first)) for sha256, size, first in document["indexes"]]
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None
    right = all(isinstance(one.sha256, str) and len(one.sha256) == 64 and one.first >= 0 for one in found)
    return tuple(found) if right else None


def forgotten_message(mirror: str, damaged: str) -> str:
    """Return the warning about a history that could not be read and was put aside as the file `damaged`."""
    return (
        f"what was seen of the index of {mirror} is lost, so an older index cannot be told from a new one: "
        f"the file was damaged; look at {damaged} and remove it to begin again with what the mirror has now"
    )


def rollback_message(mirror: str, verdict: Verdict) -> str:
    """Return the warning about an older index, "" when there is nothing to warn of."""
    if verdict.newer is None:
        return ""
    return (
        f"the index of {mirror} is an older one again: {verdict.seen.sha256[:12]} of {_day(verdict.seen.first)}, "
        f"after {verdict.newer.sha256[:12]} of {_day(verdict.newer.first)}"
    )


def require(
    mirror: str,
    verdict: Verdict,
    *,
    checked: bool,
    fresh: bool,
    max_age: float | None,
    now: float,
    memory: str,
    damaged: str = "",
) -> None:
    """Refuse an index that is not fresh enough.

    Args:
        mirror: its name, for messages.
        verdict: from `judge`.
        checked: the mirror was asked within `max_age` of the configuration; False for what only the store has.
        fresh: refuse a rollback, and an index that could not be checked.
        max_age: seconds; refuse an index that has not changed for longer; None for no limit.
        now: Unix seconds.
        memory: path of the history, for the hint.
        damaged: path of a history that could not be read, and that nobody has removed yet.

    Raises:
        FreshnessError: code ``history-damaged``, ``rollback``, ``index-not-checked`` or ``index-too-old``.
    """
    context: dict[str, Any] = {
        "mirror": mirror,
        "sha256": verdict.seen.sha256,
        "first_seen": verdict.seen.first,
    }
    if damaged and (fresh or max_age is not None):
        raise FreshnessError(
            "history-damaged",
            f"the index of {mirror} may be an older one: what was seen of it before is lost, the file was damaged",
            hint=f"compare the mirror with another source, then remove {damaged}: what the mirror has now counts",
            context={**context, "path": damaged},
        )
    if fresh and verdict.newer is not None:
        raise FreshnessError(
            "rollback",
            rollback_message(mirror, verdict),
            hint=f"ask the mirror's owner; if they restored a backup on purpose, remove {memory}",
            context={**context, "newer": verdict.newer.sha256},
        )
    if fresh and not checked:
        raise FreshnessError(
            "index-not-checked",
            f"the index of {mirror} could not be checked: the mirror does not answer, or was not to be asked",
            hint="try again, or leave out --require-fresh",
            context=context,
        )
    if max_age is not None and verdict.age(now) > max_age:
        raise FreshnessError(
            "index-too-old",
            f"the index of {mirror} has not changed since {_day(verdict.seen.first)}, for longer than the "
            f"{max_age:g} s that --max-index-age allows",
            hint="the mirror may be frozen on purpose: ask its owner, or allow more",
            context={**context, "age_s": round(verdict.age(now)), "max_age_s": max_age},
        )


def _day(seconds: float) -> str:
    import time

    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))
