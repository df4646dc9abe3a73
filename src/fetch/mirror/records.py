"""The records of an index, undecoded: an audit looks at each once, and hardly ever at one again. Pure."""

from __future__ import annotations

import json

from ...errors import CachefetchError, FormatError
from ...resolver.index.readers.nodes import node_from_dict, specfile_of_database
from ...resolver.index.splitter import Unexpected, split

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

    from ...resolver.model import Node


class Records:
    """Records by DAG hash. `specfile` is the version of their nodes, `version` that of the database.

    A mirror of 400,000 specs has an index of 800 MB, which decoded takes eight times as much: what is kept is its text.

    Raises:
        FormatError: the text is not a Spack database.
    """

    def __init__(self, text: bytes) -> None:
        self._text = text
        self._nodes: dict[str, Node | None] = {}
        try:
            version, rows = split([text])
            self._rows = {row[0]: row[1:] for row in rows}
        except (Unexpected, UnicodeDecodeError):
            version, self._text, found = _written_anew(text)
            self._rows = dict(found)
        self.version, self.specfile = str(version), specfile_of_database(version)

    @classmethod
    def none(cls) -> Records:
        """Return those of a mirror without index."""
        return cls(b'{"database":{"version":"8","installs":{}}}')

    def __contains__(self, hash_: str) -> bool:
        return hash_ in self._rows

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def name(self, hash_: str) -> str:
        """Return the package name of a record, "" when there is no such record."""
        row = self._rows.get(hash_)
        return row[0] if row else ""

    def is_binary(self, hash_: str) -> bool:
        """Tell whether a record says that the mirror has the binary."""
        row = self._rows.get(hash_)
        return bool(row and row[3])

    def text(self, hash_: str) -> bytes:
        """Return the text of a record, b"" when there is no such record."""
        row = self._rows.get(hash_)
        return self._text[row[1] : row[1] + row[2]] if row else b""

    def node(self, hash_: str) -> Node | None:
        """Return the node of a record, None when there is no such record or it is damaged."""
        if hash_ not in self._nodes:
            try:
                self._nodes[hash_] = record_node(self.text(hash_), hash_, self.specfile)
            except FormatError:
                self._nodes[hash_] = None
        return self._nodes[hash_]


def record_node(text: bytes, hash_: str, specfile: int) -> Node:
    """Decode a record. Raises FormatError."""
    return node_of(record_of(text), hash_, specfile)


def record_of(text: bytes) -> dict[str, Any]:
    """Return a record as it is written, with a "spec". Raises FormatError."""
    try:
        record: dict[str, Any] = json.loads(text)
        if not isinstance(record["spec"], dict):
            raise TypeError("its spec is no object")
        return record
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise FormatError(f"it is not a record: {error!r:.100}") from None


def node_of(record: Mapping[str, Any], hash_: str, specfile: int) -> Node:
    """Return the node of a record. Raises FormatError."""
    try:
        return node_from_dict(record["spec"], hash=hash_, specfile=specfile)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise FormatError(f"it is not a record: {error!r:.100}") from None


def _written_anew(text: bytes) -> tuple[str, bytes, Iterable[tuple[str, tuple[str, int, int, bool]]]]:
    """Return version, text and rows of an index that is not written as Spack does it, each record written anew."""
    try:
        database = json.loads(text)["database"]
        version, installs = database["version"], database["installs"].items()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FormatError(f"the index is not a Spack database: {error!r:.100}") from None
    rows: list[tuple[str, tuple[str, int, int, bool]]] = []
    parts: list[bytes] = []
    at = 0
    for hash_, record in installs:
        try:
            name, binary = str(record["spec"]["name"]), record.get("in_buildcache") is True
        except (KeyError, TypeError, AttributeError, CachefetchError):
            name, binary = "", False
        parts.append(json.dumps(record).encode())
        rows.append((hash_, (name, at, len(parts[-1]), binary)))
        at += len(parts[-1])
    return version, b"".join(parts), rows
