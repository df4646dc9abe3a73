"""Spack versions: single versions, ranges and lists, and how they relate.

A version is parsed once into a key, a tuple that compares in C. The order is Spack's, not PEP 440's: no zero
padding (``1.2 < 1.2.0``), ``1.0b2 > 1.0``, words such as ``develop`` above every number.
Source of all rules: Spack 1.1 `version/version_types.py`, docs/semantics.md ("Versions").
"""

from __future__ import annotations

import re
from functools import cache, lru_cache

from ...errors import SpecSyntaxError
from ...values import frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import TypeAlias

    #: (release, pre-release) of a plain version, (release, pre-release, ref) of a git version.
    Key: TypeAlias = tuple[tuple[object, ...], ...]

#: Words above every number, ascending. A whole component, case-sensitive.
INFINITY_WORDS = ("stable", "nightly", "trunk", "head", "master", "main", "develop")

_PRERELEASE_KINDS = {"alpha": 0, "beta": 1, "rc": 2, "final": 3}
_FINAL = (3,)
_STRING, _NUMBER, _INFINITY = 0, 1, 2  # the order of kinds of components
_INFINITY_RANK = {word: rank for rank, word in enumerate(INFINITY_WORDS)}
_NO_LOWER: Key = ()
_NO_UPPER: Key = ((_INFINITY, len(INFINITY_WORDS) + 1), _FINAL)  # above what follows `develop`
#: No Python converts longer runs of digits to an integer by default.
_MAX_DIGITS = 4000


@frozen
class Version:
    """One version: `text` as written, `key` for comparison, `ref` of a git version ("" for a plain one).

    Versions whose keys are equal are equal (``1.2`` and ``1-2``). A git version sorts just above its
    reference version; `is_bare_ref` tells one that names no reference version.
    """

    text: str
    key: Key
    ref: str = ""
    is_bare_ref: bool = False

    def __str__(self) -> str:
        return self.text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Version) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def __lt__(self, other: Version) -> bool:
        return self.key < other.key

    def __le__(self, other: Version) -> bool:
        return self.key <= other.key

    def __gt__(self, other: Version) -> bool:
        return self.key > other.key

    def __ge__(self, other: Version) -> bool:
        return self.key >= other.key

    @property
    def is_git(self) -> bool:
        """True for ``git.REF=V``, ``git.REF`` and a commit of 40 hexadecimal digits."""
        return len(self.key) == 3

    @property
    def is_prerelease(self) -> bool:
        """True if the version ends in alpha, beta or rc, with or without a number, as Spack sees it."""
        return self.key[1] != _FINAL

    def up_to(self, count: int) -> str:
        """Return the first `count` release components as written; a negative count leaves out the last ones."""
        segments = _segments(self.text)[: len(self.key[0]) // 2]
        chosen = segments[:count]
        return "".join(word + separator for word, separator in chosen[:-1]) + "".join(
            w for w, _ in chosen[-1:]
        )


@frozen
class VersionRange:
    """A half open range of keys ``[low, high)``; `low_text` and `high_text` (inclusive) are for printing."""

    low: Key
    high: Key
    low_text: str = ""
    high_text: str = ""

    def __str__(self) -> str:
        if self.low and self.high == _next_key(self.low):
            # A text without digits and letters bounds nothing from above (Spack 1.1 prints `._:`).
            return self.low_text if self.low[0] else f"{self.low_text}:"
        return f"{self.low_text}:{self.high_text}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, VersionRange) and (self.low, self.high) == (other.low, other.high)

    def __hash__(self) -> int:
        return hash((self.low, self.high))

    @property
    def is_empty(self) -> bool:
        """True for a range such as ``3:2`` that Spack accepts and that contains nothing."""
        return self.low >= self.high


@frozen
class Versions:
    """A version constraint: a sorted union of single versions and ranges that do not touch.

    ``str()`` gives the text after ``@``: ``=1.2`` for exactly one version, ``1.2`` for its range, ``:`` for any.
    """

    items: tuple[Version | VersionRange, ...]

    def __str__(self) -> str:
        return ",".join(_item_text(item) for item in self.items)

    @property
    def is_any(self) -> bool:
        """True for ``@:``, which every version meets."""
        return self.items == (_ANY_RANGE,)

    @property
    def is_empty(self) -> bool:
        """True if no version can meet it."""
        return all(isinstance(item, VersionRange) and item.is_empty for item in self.items)

    @property
    def exact(self) -> Version | None:
        """The only version that meets the constraint where it is written so (``@=1.2``, a git version)."""
        first = self.items[0] if len(self.items) == 1 else None
        return first if isinstance(first, Version) else None

    @property
    def names_version(self) -> bool:
        """True if the constraint names exactly one version, or mentions a pre-release: key K1 is waived."""
        if self.exact is not None:
            return True
        keys = [key for item in self.items for key in _bounds(item)]
        return any(len(key) > 1 and key[1] != _FINAL for key in keys)

    def contains(self, version: Version) -> bool:
        """Return whether a concrete version meets the constraint."""
        return any(_contains(item, version) for item in self.items)

    def satisfies(self, other: Versions) -> bool:
        """Return whether every version that meets this constraint meets `other` too."""
        return all(any(_item_within(mine, theirs) for theirs in other.items) for mine in self.items)

    def intersects(self, other: Versions) -> bool:
        """Return whether some version could meet both."""
        return any(_item_meets(mine, theirs) for mine in self.items for theirs in other.items)

    def intersection(self, other: Versions) -> Versions:
        """Return the constraint that both together make; it may have no items."""
        met = (_meet(mine, theirs) for mine in self.items for theirs in other.items)
        return Versions(_normalise(item for item in met if item is not None))


_ANY_RANGE = VersionRange(_NO_LOWER, _NO_UPPER)
ANY = Versions((_ANY_RANGE,))


@cache
def pattern(text: str) -> re.Pattern[str]:
    """Return a compiled pattern (ASCII classes); compiled at first use, because most starts need few of them."""
    return re.compile(text, re.ASCII)


def _segments(text: str) -> list[tuple[str, str]]:
    """Split into (run of digits or letters, separators after it)."""
    return pattern(r"([0-9]+|[A-Za-z]+)([_.-]*)").findall(text)


@lru_cache(maxsize=65536)
def parse_version(text: str) -> Version:
    """Parse one concrete version, as nodes record them: ``6.1.0``, ``develop``, ``git.main=1.2``.

    Raises:
        SpecSyntaxError: characters that no Spack version has.
    """
    text = text.strip()
    if text.startswith("git.") or "=" in text[1:] or pattern(r"[0-9a-fA-F]{40}").fullmatch(text):
        return _git_version(text)
    if text and not pattern(r"[A-Za-z0-9_.-]+").fullmatch(text):
        raise SpecSyntaxError(
            f"`{text}` is not a version",
            text,
            0,
            len(text),
            hint="versions have letters, digits, `.`, `_` and `-`",
        )
    return Version(text, _key(text))


def _git_version(text: str) -> Version:
    ref, equals, version = text.removeprefix("git.").partition("=")
    if not ref:
        text = text.removeprefix("git.")  # an empty ref prints without its prefix (Spack 1.1)
    if equals:
        return Version(text, (*_key(version), (ref,)), ref)
    # Without its repository the place of a bare ref is unknown: above all, and in no range.
    return Version(text, (*_NO_UPPER, (ref,)), ref, is_bare_ref=True)


def _key(text: str) -> Key:
    """Return (release, pre-release). Components are interleaved: kind, value, kind, value ..."""
    words = [word for word, _ in _segments(text)]
    prerelease: tuple[object, ...] = _FINAL
    if len(words) >= 3 and words[-1].isdigit() and words[-2] in _PRERELEASE_KINDS and words[-2] != "final":
        prerelease = (_PRERELEASE_KINDS[words[-2]], _integer(words[-1], text))
        words = words[:-2]
    elif len(words) >= 2 and words[-1] in _PRERELEASE_KINDS:
        prerelease = (_PRERELEASE_KINDS[words[-1]],)
        words = words[:-1]
    release: list[object] = []
    for word in words:
        if word.isdigit():
            release += (_NUMBER, _integer(word, text))
        elif word in _INFINITY_RANK:
            release += (_INFINITY, _INFINITY_RANK[word])
        else:
            release += (_STRING, word)
    return tuple(release), prerelease


def _integer(digits: str, text: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise SpecSyntaxError(f"a version has a number of {len(digits)} digits", text, 0, len(text))
    return int(digits)


def _next_string(word: str) -> str:
    """Return the next word in the alphabet A-Z a-z that is not an infinity word."""
    last = word[-1]
    following = word + "A" if last == "z" else word[:-1] + ("a" if last == "Z" else chr(ord(last) + 1))
    return _next_string(following) if following in _INFINITY_RANK else following


def _next_key(key: Key) -> Key:
    """Return the smallest key above everything that has `key` as a prefix (Spack 1.1 `next_version`)."""
    release, prerelease = key[0], key[1]
    if prerelease != _FINAL:
        number = prerelease[1] + 1 if len(prerelease) == 2 else 0  # type: ignore[operator]  # an int by construction
        return release, (prerelease[0], number)
    if not release:
        return (_STRING, "A"), _FINAL
    kind, value = release[-2:]
    following = _next_string(value) if isinstance(value, str) else value + 1  # type: ignore[operator]  # an int
    return (*release[:-2], kind, following), _FINAL


def parse_versions(text: str) -> Versions:
    """Parse what follows ``@`` in a spec: versions, ranges and lists of them.

    Raises:
        SpecSyntaxError: bad characters, too many colons, or a range whose bounds are the wrong way round.
    """
    return Versions(_normalise([_parse_item(item.strip()) for item in text.split(",")]))


def _parse_item(text: str) -> Version | VersionRange:
    if ":" in text:
        low, _, high = text.partition(":")
        return _range("" if low == "@" else low.strip(), high.strip(), text)
    if text.startswith("="):
        return parse_version(text[1:])
    version = parse_version(text)
    return version if version.is_git else VersionRange(version.key, _next_key(version.key), text, text)


def _range(low: str, high: str, text: str) -> VersionRange:
    """Return the range ``low:high``; an empty text means no bound. A bound is a plain version, never a git one."""
    for bound in (low, high):
        if not pattern(r"[A-Za-z0-9_.-]*").fullmatch(bound):
            message = f"`{bound}` cannot bound a version range"
            raise SpecSyntaxError(
                message, text, 0, len(text), hint="write a range as `1.2:1.4`, `1.2:` or `:1.4`"
            )
    low_key = _key(low) if low else _NO_LOWER
    high_key = _next_key(_key(high)) if high else _NO_UPPER
    if high_key < low_key:
        hint = f"write `{high}:{low}`" if low and high else ""
        raise SpecSyntaxError(f"the version range `{text}` is empty", text, 0, len(text), hint=hint)
    return VersionRange(low_key, high_key, low, high)


def _bounds(item: Version | VersionRange) -> tuple[Key, Key]:
    """Return the keys as written: of a range the lower one and the exclusive upper one."""
    return (item.key, item.key) if isinstance(item, Version) else (item.low, item.high)


def _item_text(item: Version | VersionRange) -> str:
    return f"={item.text}" if isinstance(item, Version) and not item.is_git else str(item)


def _contains(item: Version | VersionRange, version: Version) -> bool:
    if isinstance(item, VersionRange):
        return item.low <= version.key < item.high and not version.is_bare_ref
    if item.is_bare_ref:  # only the text of the ref is known
        return item.ref == version.ref
    return item.key == version.key


def _item_within(mine: Version | VersionRange, theirs: Version | VersionRange) -> bool:
    if isinstance(mine, Version):
        return _contains(theirs, mine)
    return isinstance(theirs, VersionRange) and theirs.low <= mine.low and mine.high <= theirs.high


def _item_meets(mine: Version | VersionRange, theirs: Version | VersionRange) -> bool:
    if isinstance(mine, VersionRange) and isinstance(theirs, VersionRange):
        return mine.low < theirs.high and theirs.low < mine.high
    return _meet(mine, theirs) is not None


def _meet(mine: Version | VersionRange, theirs: Version | VersionRange) -> Version | VersionRange | None:
    if isinstance(mine, Version):
        return mine if _contains(theirs, mine) else None
    if isinstance(theirs, Version):
        return theirs if _contains(mine, theirs) else None
    lower = mine if mine.low >= theirs.low else theirs
    upper = mine if mine.high <= theirs.high else theirs
    if lower.low >= upper.high:
        return None
    return VersionRange(lower.low, upper.high, lower.low_text, upper.high_text)


def _normalise(items: Iterable[Version | VersionRange]) -> tuple[Version | VersionRange, ...]:
    """Sort, and merge what overlaps or touches."""
    merged: list[Version | VersionRange] = []
    for item in sorted(items, key=lambda item: (_bounds(item)[0], isinstance(item, Version))):
        last = merged[-1] if merged else None
        if last is not None and _covers(last, item):
            continue
        # An empty range is kept as it is written (`3:2`), so that it can be reported.
        if (
            isinstance(last, VersionRange)
            and isinstance(item, VersionRange)
            and item.low <= last.high
            and not last.is_empty
            and not item.is_empty
        ):
            merged[-1] = VersionRange(last.low, item.high, last.low_text, item.high_text)
        elif not (isinstance(item, VersionRange) and merged and item in merged):
            merged.append(item)
    return tuple(merged)


def _covers(last: Version | VersionRange, item: Version | VersionRange) -> bool:
    if isinstance(item, Version):
        return _contains(last, item)
    return isinstance(last, VersionRange) and item.high <= last.high and not item.is_empty


def version_class(version: Version) -> int:
    """Return 0 for a final version, 1 for a pre-release, 2 for an infinity word or a git version (key K1)."""
    if version.is_git or _INFINITY in version.key[0][::2]:
        return 2
    return int(version.is_prerelease)
