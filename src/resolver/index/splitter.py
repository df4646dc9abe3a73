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
    from collections.abc import Iterable, Iterator
    from typing import NamedTuple

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
            self._hash = key.decode("ascii")
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


def split_any(data: bytes, *, what: str) -> tuple[str, list[Row], int]:
    """Return (database version, rows, broken records) of any valid index document, by decoding all of it.

    The first JSON value counts, trailing data is ignored, as Spack does.

    Raises:
        FormatError: not JSON, or not a database; names `what`.
    """
    try:
        text = data.decode("utf-8")
        document, _ = json.JSONDecoder().raw_decode(text, _skip(text, 0))
        database = document["database"]
        version, installs = str(database["version"]), database["installs"]
        if not isinstance(installs, dict):
            raise TypeError("installs is not an object")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise FormatError(f"{what} is not a Spack index: {error}", context={"file": what}) from None
    rows: list[Row] = []
    broken = 0
    offsets = dict(_record_offsets(text))
    for key, record in installs.items():
        try:
            spec = record["spec"]
            name = spec["name"] if "name" in spec else next(iter(spec))
            offset, length = offsets[key]
            f"{key}{name}".encode()  # a lone surrogate can be stored nowhere
            rows.append((key, str(name), offset, length, record.get("in_buildcache") is True))  # type: ignore[arg-type]  # plain tuple, see Splitter._row
        except (KeyError, TypeError, AttributeError, StopIteration, UnicodeEncodeError):
            broken += 1
    return version, rows, broken


def _record_offsets(text: str) -> Iterator[tuple[str, tuple[int, int]]]:
    """Yield (hash, (byte offset, byte length)) of the values of database.installs, by walking the JSON text."""
    decoder = json.JSONDecoder()
    byte_at = _ByteOffsets(text)
    for key, begin, _ in _members(text, _skip(text, 0), decoder, enter="database"):
        if key != "database":
            continue
        for inner, start, _ in _members(text, begin, decoder, enter="installs"):
            if inner != "installs":
                continue
            for hash_, first, end in _members(text, start, decoder):
                offset = byte_at(first)
                yield hash_, (offset, byte_at(end) - offset)


def _members(
    text: str, at: int, decoder: json.JSONDecoder, enter: str | None = None
) -> Iterator[tuple[str, int, int]]:
    """Yield (key, begin, end) of an object's members in the text that the decoder has accepted."""
    at = _skip(text, at + 1)
    while text[at] != "}":
        key, at = decoder.raw_decode(text, at)
        begin = _skip(text, _skip(text, at) + 1)
        _, end = decoder.raw_decode(text, begin)
        yield key, begin, end
        if key == enter:
            enter = None  # a duplicate key replaces the former, as in json
        at = _skip(text, end)
        if text[at] == ",":
            at = _skip(text, at + 1)


def _skip(text: str, at: int) -> int:
    """Return the index of the next character that is not JSON white space."""
    while at < len(text) and text[at] in " \t\n\r\ufeff":
        at += 1
    return at


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
