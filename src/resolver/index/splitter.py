"""Split an index into its records without decoding them (pure: takes bytes, yields offsets).

Spack writes ``{"database":{"version":"8","installs":{"HASH":{"spec":{...},"ref_count":N,"in_buildcache":B},...}}}``
on one line. The fast path cuts at ``":{"spec":`` and checks the text between records exactly. Anything else,
such as other key order or spaces, raises Unexpected; `split_any` then gives the same rows by a full decode.
Measurements: docs/decisions/0003-index-store.md.
"""

from __future__ import annotations

import json
import re

from ...errors import FormatError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any, NamedTuple

    class Row(NamedTuple):
        """One record: `offset` and `length` are bytes of the record object, `binary` is in_buildcache."""

        hash: str
        name: str
        offset: int
        length: int
        binary: bool


_MARK = b'":{"spec":'
_HEAD = re.compile(rb'\{"database":\{"version":"([0-9.]+)","installs":\{"\Z')
_NAME = re.compile(rb'\{"spec":\{"name":"([^"\\]+)"')
_TAIL = re.compile(rb'\},"ref_count":\d+,"in_buildcache":(true|false)\}\Z')
_LAST = re.compile(rb'\},"ref_count":\d+,"in_buildcache":(true|false)\}(\}\}\}\s*)\Z')
_HASH_LENGTH = 32
_GLUE = b',"'


class Unexpected(Exception):
    """The text is not exactly as Spack writes it; says nothing about its validity."""


class Splitter:
    """Streaming splitter: `feed` chunks, take rows, then `close`.

    Memory is one chunk and one record. `version` is the database version once the head was seen.
    """

    def __init__(self) -> None:
        self.version = ""
        self._buffer = b""
        self._start = 0  # absolute offset of the buffer's first byte
        self._record = -1  # index in the buffer of the record object being read, -1 before the first
        self._hash = ""

    def feed(self, chunk: bytes) -> Iterator[Row]:
        """Yield the rows that are complete after `chunk`. Raises Unexpected."""
        self._buffer += chunk
        buffer = self._buffer
        cut = max(self._record, 0)
        search = cut + 2 if self._record >= 0 else 0
        while (at := buffer.find(_MARK, search)) >= 0:
            begin = at - _HASH_LENGTH
            if begin < 1:
                raise Unexpected("head")
            key = buffer[begin:at]
            if buffer[begin - 1 : begin] != b'"' or not key.isalnum():
                raise Unexpected("key")
            if self._record < 0:
                self._head(buffer[:begin])
            else:
                yield self._row(buffer, self._record, begin - len(_GLUE), buffer[begin - 2 : begin])
            self._hash = key.decode("ascii").lower()
            self._record = at + 2
            search = at + len(_MARK)
        keep = self._record if self._record >= 0 else 0
        self._buffer = buffer[keep:]
        self._start += keep
        self._record = 0 if self._record >= 0 else -1
        if self._record < 0 and len(self._buffer) > 4096:
            raise Unexpected("head")

    def close(self) -> Iterator[Row]:
        """Yield the last row. Raises Unexpected when the text does not end as expected."""
        buffer = self._buffer
        if self._record < 0:
            raise Unexpected("no records")
        last = _LAST.search(buffer)
        if last is None:
            raise Unexpected("end")
        yield self._row(buffer, 0, last.start(2), _GLUE)

    def _head(self, text: bytes) -> None:
        match = _HEAD.match(text)
        if match is None:
            raise Unexpected("head")
        self.version = match[1].decode("ascii")

    def _row(self, buffer: bytes, begin: int, end: int, glue: bytes) -> Row:
        name = _NAME.match(buffer, begin)
        tail = _TAIL.search(buffer, max(begin, end - 64), end)
        if name is None or tail is None or glue != _GLUE:
            raise Unexpected("record")
        # A plain tuple: at 400,000 rows a NamedTuple costs as much as the regular expressions.
        return (self._hash, name[1].decode(), self._start + begin, end - begin, tail[1] == b"true")  # type: ignore[return-value]  # see above


def split_any(data: bytes, *, what: str) -> tuple[str, list[Row], dict[str, str]]:
    """Return (database version, rows, broken records: by hash, why) of any valid index document, by decoding all of it.

    The first JSON value counts, trailing data is ignored, as Spack does.

    Raises:
        FormatError: not JSON, or not a database; names `what`.
    """
    try:
        walk = _Walk(data.decode("utf-8"))
        walk.document()
    except (ValueError, TypeError, IndexError) as error:
        reason = "it is cut off" if isinstance(error, IndexError) else error
        raise FormatError(f"{what} is not a Spack index: {reason}", context={"file": what}) from None
    return walk.version, list(walk.rows.values()), walk.broken


def _number(text: str) -> float:
    """Read a whole number. One of more digits than Python takes spoils its record alone, when that is decoded."""
    try:
        return int(text)
    except ValueError:
        return float(text)


class _Walk:
    """One walk over the text of an index, decoding a record at a time: its `version`, `rows` and what is `broken`.

    Of several members with one key the last counts, as in `json`. A value that is nested too deep to be decoded is
    stepped over by its brackets: it spoils its own record alone, when that is decoded, as on the fast path.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._raw_decode = json.JSONDecoder(parse_int=_number).raw_decode
        self._byte_at = _ByteOffsets(text)
        self.version = ""
        self.rows: dict[str, Row] = {}
        self.broken: dict[str, str] = {}
        self._missing = {"version", "installs"}

    def document(self) -> None:
        """Walk the first JSON value. Raises ValueError, TypeError or IndexError when it is no index."""
        begin = 1 if self._text.startswith("\ufeff") else 0
        self._object(self._skip(begin), self._enter_database)
        if self._missing:
            raise ValueError(f"no {min(self._missing)} in its database")

    def _enter_database(self, key: str, at: int) -> int:
        if key != "database":
            return self._value(at)[1]
        self._missing = {"version", "installs"}
        return self._object(at, self._enter_installs)

    def _enter_installs(self, key: str, at: int) -> int:
        self._missing.discard(key)
        if key == "installs":
            self.rows, self.broken = {}, {}
            return self._object(at, self._record)
        value, end = self._value(at)
        if key == "version":
            self.version = str(value)
        return end

    def _record(self, key: str, at: int) -> int:
        """Note the record of that hash, its value at `at`; return where it ends."""
        hash_ = key.lower()
        self.rows.pop(hash_, None)
        self.broken.pop(hash_, None)
        try:
            record, end = self._value(at)
        except ValueError as error:
            end = self._end_of_broken(at)
            if not end:
                raise
            self.broken[hash_] = f"{type(error).__name__}: {error}"
            return end
        if not _GOES_ON.match(self._text, end) and (whole := self._end_of_broken(at)) > end:
            self.broken[hash_] = "it ends before the text that Spack writes behind a record"
            return whole
        try:
            record = self._surface(at) if record is _TOO_DEEP else record
            spec = record["spec"]
            name = str(spec["name"] if "name" in spec else next(iter(spec)))
            f"{key}{name}".encode()  # a lone surrogate can be stored nowhere
            offset, binary = self._byte_at(at), record.get("in_buildcache") is True
            self.rows[hash_] = (hash_, name, offset, self._byte_at(end) - offset, binary)  # type: ignore[assignment]  # plain tuple, see Splitter._row
        except (KeyError, TypeError, AttributeError, StopIteration, UnicodeEncodeError) as error:
            self.broken[hash_] = f"{type(error).__name__}: {error}"
        return end

    def _end_of_broken(self, at: int) -> int:
        """Return where a record that is no JSON ends, 0 where that cannot be told.

        It is told by what Spack writes in front of the next record, or behind the last one. Text in which another
        record begins may have lost more than one: that is no single broken record.
        """
        end = _RECORD_END.search(self._text, at)
        if end is None or _RECORD_BEGIN.search(self._text, at + 1, end.start()):
            return 0
        return end.end(1)

    def _surface(self, at: int) -> dict[str, Any]:
        """Return a record, and the members of its spec, with None for what is nested too deep."""
        found: dict[str, Any] = {"spec": {}}

        def keep(members: dict[str, Any], key: str, begin: int) -> int:
            members[key], end = self._value(begin)
            return end

        def enter(key: str, begin: int) -> int:
            if key != "spec":
                return keep(found, key, begin)
            return self._object(begin, lambda inner, first: keep(found["spec"], inner, first))

        self._object(at, enter)
        return found

    def _object(self, at: int, member: Callable[[str, int], int]) -> int:
        """Walk the object at `at`, return its end; `member` gets key and begin of a value and tells the end."""
        text = self._text
        if text[at] != "{":
            raise TypeError(f"no object at character {at}")
        at = self._skip(at + 1)
        if text[at] == "}":
            return at + 1
        while True:
            key, at = self._value(at)
            at = self._skip(at)
            if not isinstance(key, str) or text[at] != ":":
                raise ValueError(f"no key and colon at character {at}")
            at = self._skip(member(key, self._skip(at + 1)))
            if text[at] == "}":
                return at + 1
            if text[at] != ",":
                raise ValueError(f"no comma at character {at}")
            at = self._skip(at + 1)

    def _value(self, at: int) -> tuple[Any, int]:
        """Return the value at `at` and where it ends."""
        try:
            return self._raw_decode(self._text, at)
        except RecursionError:
            return _TOO_DEEP, self._end_of(at)

    def _end_of(self, at: int) -> int:
        """Return where the object or array at `at` ends."""
        depth = 0
        for token in _BRACKETS.finditer(self._text, at):
            depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(token[0], 0)
            if not depth:
                return token.end()
        raise IndexError

    def _skip(self, at: int) -> int:
        """Return the index of the next character that is not JSON white space."""
        match = _SPACE.match(self._text, at)
        return match.end() if match else at


_TOO_DEEP = None
#: As the fast path takes them, with any white space: the last members of a record, and then another or the end.
_RECORD_BEGIN = re.compile(r'":\s*\{\s*"spec"\s*:')
#: What follows a whole record: the next one, or the end of all.
_GOES_ON = re.compile(r'\s*(?:,\s*"[0-9A-Za-z]{32}"\s*:|\}\s*[,}])')
_RECORD_END = re.compile(
    r'(\}\s*,\s*"ref_count"\s*:\s*\d+\s*,\s*"in_buildcache"\s*:\s*(?:true|false)\s*\})\s*'
    r'(?:,\s*"[0-9A-Za-z]{32}"\s*:\s*\{|\}\s*[,}])'
)
_SPACE = re.compile(r"[ \t\n\r]*")
_BRACKETS = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[][{}]', re.DOTALL)


class _ByteOffsets:
    """Convert ascending character offsets to byte offsets in one pass."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._ascii = text.isascii()
        self._chars = self._bytes = 0

    def __call__(self, chars: int) -> int:
        if self._ascii:
            return chars
        self._bytes += len(self._text[self._chars : chars].encode("utf-8"))
        self._chars = chars
        return self._bytes


def split(chunks: Iterable[bytes]) -> tuple[str, list[Row]]:
    """Return (database version, rows) by the fast path. Raises Unexpected."""
    splitter = Splitter()
    rows: list[Row] = []
    for chunk in chunks:
        rows.extend(splitter.feed(chunk))
    rows.extend(splitter.close())
    return splitter.version, rows
