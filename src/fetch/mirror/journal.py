"""The journal of a destination: what was copied and proven, so that the next run need not prove it again.

``DEST/.cachefetch/journal.sqlite``, and ``journal-I-of-N.sqlite`` for each shard worker: a worker writes its own file
only and reads all of them. The journal is never the only witness: a row counts while the manifest and both blobs
are there with the recorded sizes. A journal that is lost or damaged costs hashing, no correctness.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import time
from dataclasses import dataclass

from ...errors import StoreError
from ..store.locks import NO_LOCKS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_SCHEMA = "1"
_TABLES = """
CREATE TABLE IF NOT EXISTS meta(key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS package(
  stem TEXT PRIMARY KEY, tarball TEXT, tarball_size INTEGER, spec TEXT, spec_size INTEGER,
  signature TEXT, key TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS pruned(path TEXT, size INTEGER, at REAL);
"""
#: Rows that wait for one commit. A crash loses them, and the next run hashes their blobs again.
_BATCH = 200


@dataclass(frozen=True, slots=True)
class Row:
    """A package that is complete at the destination; `stem` is ``NAME-VERSION-HASH``.

    `signature` and `key` say how its manifest was proven ("good", "none", "not-required"; fingerprint or "").
    """

    stem: str
    tarball: str
    tarball_size: int
    spec: str
    spec_size: int
    signature: str
    key: str

    @property
    def hash(self) -> str:
        """The DAG hash."""
        return self.stem[-32:]

    @property
    def blobs(self) -> tuple[tuple[str, int], tuple[str, int]]:
        """(sha256, size) of the tarball and of the spec document."""
        return (self.tarball, self.tarball_size), (self.spec, self.spec_size)


class Journal:
    """Reads all journals below `directory`, writes the one called `name`. Close it; use it from one thread at a time.

    `problem` is a sentence about a journal that could not be read, or "".
    """

    def __init__(self, directory: str, name: str = "journal", *, write: bool = True) -> None:
        self._path = os.path.join(directory, f"{name}.sqlite")
        self.problem = ""
        self._db: sqlite3.Connection | None = None
        self._waiting = 0
        self._rows: dict[str, Row] | None = None
        self._paths = _journals(directory)
        if write:
            with _errors(self._path):
                os.makedirs(directory, exist_ok=True)
                try:
                    self._db = _open(self._path)
                except sqlite3.DatabaseError as error:
                    self._db = self._anew(error)

    @property
    def rows(self) -> dict[str, Row]:
        """The packages that are recorded, by stem; read when first asked for."""
        if self._rows is None:
            self._rows = {}
            for path in self._paths:
                self._rows.update(self._read(path))
        return self._rows

    def _read(self, path: str) -> dict[str, Row]:
        try:
            with contextlib.closing(sqlite3.connect(_uri(path, "mode=ro"), uri=True)) as db:
                if not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                    return {}  # another worker is just making it
                if dict(db.execute("SELECT key, value FROM meta")).get("schema") != _SCHEMA:
                    raise sqlite3.DatabaseError("of another version")
                return {row[0]: Row(*row) for row in db.execute("SELECT * FROM package")}
        except sqlite3.DatabaseError as error:
            self._unreadable(path, error)
            if self._db is not None and path == self._path:
                self._db.close()
                self._db = self._anew(error)
            return {}

    def _unreadable(self, path: str, error: sqlite3.Error) -> None:
        self.problem = f"{path} cannot be read ({error}); what it recorded is hashed again"

    def _anew(self, error: sqlite3.DatabaseError) -> sqlite3.Connection:
        """Put our own damaged journal aside and begin a new one."""
        if "locked" in str(error) or "full" in str(error):
            raise error
        self._unreadable(self._path, error)
        self._paths = [path for path in self._paths if path != self._path]
        os.replace(self._path, f"{self._path}.damaged")
        return _open(self._path)

    def meta(self, key: str) -> str:
        """Return a remembered value, or ""."""
        if self._db is None:
            return ""
        found = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return found[0] if found else ""

    def remember(self, key: str, value: str) -> None:
        """Keep a value, at once."""
        with _errors(self._path):
            self._handle.execute("INSERT OR REPLACE INTO meta VALUES(?, ?)", (key, value))
            self._handle.commit()

    def add(self, row: Row) -> None:
        """Record a package; written with the next batch or `flush`."""
        self.rows[row.stem] = row
        with _errors(self._path):
            self._handle.execute("INSERT OR REPLACE INTO package VALUES(?,?,?,?,?,?,?)", _values(row))
            self._waiting += 1
            if self._waiting >= _BATCH:
                self._waiting = 0
                self._handle.commit()

    def add_all(self, rows: Iterable[Row]) -> None:
        """Record packages that other journals have, so that this one is complete."""
        with _errors(self._path):
            self._handle.executemany(
                "INSERT OR REPLACE INTO package VALUES(?,?,?,?,?,?,?)", map(_values, rows)
            )
            self._handle.commit()

    def drop(self, stems: Iterable[str]) -> None:
        """Forget packages."""
        stems = list(stems)
        for stem in stems:
            self.rows.pop(stem, None)
        with _errors(self._path):
            self._handle.executemany("DELETE FROM package WHERE stem = ?", [(stem,) for stem in stems])
            self._handle.commit()

    def pruning(self, files: Iterable[tuple[str, int]]) -> None:
        """Write down what is about to be removed: (path, size)."""
        now = time.time()
        with _errors(self._path):
            self._handle.executemany(
                "INSERT INTO pruned VALUES(?, ?, ?)", [(path, size, now) for path, size in files]
            )
            self._handle.commit()

    def flush(self) -> None:
        """Write what waits."""
        if self._db is not None:
            with _errors(self._path):
                self._db.commit()

    def close(self) -> None:
        """Write what waits, and close."""
        db, self._db = self._db, None
        if db is not None:
            with contextlib.closing(db), _errors(self._path):
                db.commit()

    @property
    def _handle(self) -> sqlite3.Connection:
        assert self._db is not None, "opened for reading"
        return self._db


def _journals(directory: str) -> list[str]:
    try:
        names = sorted(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [
        os.path.join(directory, name)
        for name in names
        if name.startswith("journal") and name.endswith(".sqlite")
    ]


def _open(path: str) -> sqlite3.Connection:
    # A rollback journal, not WAL: WAL needs shared memory, which network file systems do not have.
    db = sqlite3.connect(_uri(path, "mode=rwc"), uri=True, timeout=10, check_same_thread=False)
    try:
        db.execute("PRAGMA synchronous = NORMAL")
        tables = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if not tables:
            # In one transaction: another worker that reads it finds nothing or all of it.
            db.executescript(
                f"BEGIN IMMEDIATE; {_TABLES} INSERT OR REPLACE INTO meta VALUES('schema', '{_SCHEMA}'); COMMIT;"
            )
        elif dict(db.execute("SELECT key, value FROM meta")).get("schema") != _SCHEMA:
            raise sqlite3.DatabaseError("of another version")
    except BaseException:
        db.close()
        raise
    return db


def _uri(path: str, mode: str) -> str:
    """Return the URI of a journal for SQLite, which must not lock where the file system has no locks.

    There the lease of the destination keeps a second writer away (`destination.locked`).
    """
    lockless = "" if _has_locks(os.path.dirname(path)) else "&nolock=1"
    return f"file:{_quote(path)}?{mode}{lockless}"


def _has_locks(directory: str) -> bool:
    # Of the directory: whoever closes a file loses all locks of his process on it, and SQLite may have some.
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return True  # SQLite will say what is wrong
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in NO_LOCKS
    finally:
        os.close(descriptor)
    return True


def _values(row: Row) -> tuple[object, ...]:
    return tuple(getattr(row, name) for name in Row.__slots__)


def _quote(path: str) -> str:
    return path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")


@contextlib.contextmanager
def _errors(path: str) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        full = "full" in str(error)
        hint = "free some space on the destination, then run the same command again" if full else ""
        what = str(error)
        if isinstance(error, OSError):
            what = error.strerror or what
        if os.path.isdir(path):
            what, hint = "is a directory", "remove it: the journal of the destination is written anew"
        raise StoreError(
            f"{path}: {what}",
            hint=hint,
            context={"path": path, "reason": "disk-full"} if full else {"path": path},
        ) from error
