"""The local index: each mirror's index byte for byte, plus a SQLite sidecar of offsets into it (edge module).

One directory a mirror below ``<cache>/index``: ``index.json`` (unless the mirror is local: then the mirror's
own file is used where it lies) and ``sidecar.sqlite``. Both are written under a temporary name and renamed, so
a crash leaves the old state or the new one. Anything unreadable is dropped and read again. One process at a time
changes a mirror's directory (`IndexStore.lock`); readers never wait: they keep what they have opened.
"""

from __future__ import annotations

import binascii
import json
import os
import re
import time
from bisect import bisect_right
from operator import itemgetter

try:  # the C module alone: `sqlite3` adds the types of `datetime` to it, which costs 3 ms at every start (P4)
    import _sqlite3 as sqlite3
except ImportError:  # not CPython
    import sqlite3  # type: ignore[no-redef]  # the same functions

from ...errors import FormatError, StoreError, cannot_write
from ..model import Record
from .readers.compact import compact_record
from .readers.nodes import is_plain, node_from_dict, specfile_of_database

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Any

    from ..model import Node
    from .splitter import Row

#: Changes whenever the tables below do; an older sidecar is built anew.
SCHEMA = "4"
_CHUNK = 1 << 20
#: Hashes in one question to the sidecar; SQLite takes 999 variables since its earliest versions.
_BATCH = 900
#: Seconds without a write after which an unfinished file in the store can only be what a killed run left.
_LEFTOVER_S = 3600.0
#: Versions in the text of a record: the node's own, and a compiler's or a dependency's.
_VERSION_MARK = re.compile(rb'"version"\s*:\s*"=?([^"]*)"')
#: A record's key, and the end of a record with what follows, in so many bytes around its beginning and end.
_KEY_BEFORE = re.compile(rb'("(?:[^"\\]|\\.)*")\s*:\s*\Z')
_NEXT_KEY = re.compile(rb'\}\s*(?:,\s*"(?:[^"\\]|\\.)*"\s*:|\})')
_AROUND = 1024
#: What stands before a virtual in the label of an edge, with the name of the package; and after the name of a variant.
_LABEL = re.compile(
    rb'\{"name":"([^"\\]*)","hash":"\w*","parameters":\{"deptypes":\[[^][]*\],"virtuals":\[(?:"[^"\\]*",)*\Z'
)
_MEMBER = re.compile(rb"\s*:")
#: Newest specfile version of a node (Spack 1.3, docs/formats.md); what is newer is skipped and counted.
_NEWEST_SPECFILE = 6
_TABLES = """
CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
CREATE TABLE pkg(id INTEGER PRIMARY KEY, name TEXT UNIQUE);
CREATE TABLE spec(hash TEXT PRIMARY KEY, pkg INTEGER, off INTEGER, len INTEGER, binary INTEGER) WITHOUT ROWID;
"""


class IndexStore:
    """The directory that holds the indexes of all mirrors.

    Args:
        root: directory, created on the first write.
    """

    def __init__(self, root: str) -> None:
        self.root = root

    def directory(self, location: str) -> str:
        """Return the directory for the mirror at `location` (its absolute path or URL)."""
        # The check sum only tells similar names apart; the sidecar holds the location itself, which is compared.
        shown = re.sub(
            r"://[^/?#@]*@|[?#].*", "_", location
        )  # paths get into messages: no password, no token
        name = re.sub(r"[^A-Za-z0-9.]+", "_", shown)[-60:]
        return os.path.join(self.root, f"{name}-{binascii.crc32(os.fsencode(location)):08x}")

    def load(self, location: str, mirror: str) -> StoredIndex | None:
        """Return the stored index of the mirror, or None when there is none that can be used."""
        path = os.path.join(self.directory(location), "sidecar.sqlite")
        for _ in range(2):  # another process may replace both files between our opening of the two
            if not os.path.exists(path):
                return None
            try:
                index = StoredIndex(path, mirror)
            except (sqlite3.Error, OSError, KeyError, ValueError):
                continue
            if index.meta.get("location") == location and index.body_is_current():
                return index
            index.close()
        return None

    def absent(self, location: str) -> dict[str, str] | None:
        """Return what `remember_absent` wrote: kind, state, detail, asked (Unix time); None when there is nothing."""
        try:
            with open(os.path.join(self.directory(location), "absent.json"), encoding="utf-8") as file:
                note = json.load(file)
            float(note["asked"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        known = ("location", "kind", "state", "detail", "asked")
        whole = note["location"] == location and all(isinstance(note.get(key), str) for key in known)
        return note if whole else None

    def remember_absent(self, location: str, kind: str, state: str, detail: str) -> None:
        """Remember that the mirror was asked just now and has no index; failure to write is harmless."""
        note = {
            "location": location,
            "kind": kind,
            "state": state,
            "detail": detail,
            "asked": repr(time.time()),
        }
        _write_note(os.path.join(self.directory(location), "absent.json"), note)

    def lock(self, location: str) -> Lock | None:
        """Try to become the one process (and task) that reads the mirror anew.

        Returns:
            A lock to `release`, or None while somebody else has it. Where there can be no lock, such as on a read-only
            store, the lock is an empty one: then nothing can be written either.
        """
        import fcntl

        directory = self.directory(location)
        try:
            os.makedirs(directory, exist_ok=True)
            descriptor = os.open(
                os.path.join(directory, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666
            )
        except OSError:
            return Lock(None)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError:  # a file system without flock
            os.close(descriptor)
            return Lock(None)
        return Lock(descriptor)

    def drop(self, location: str) -> None:
        """Forget the stored index of a mirror: the next use reads it anew. Nothing happens on a read-only store."""
        for name in ("sidecar.sqlite", "sidecar.sqlite-journal"):
            _remove(os.path.join(self.directory(location), name))

    def stored(self) -> list[StoredIndex]:
        """Return every index in the store that can be read, by location; the caller closes them."""
        found = []
        try:
            names = os.listdir(self.root)
        except OSError:
            return []
        for name in names:
            try:
                index = StoredIndex(os.path.join(self.root, name, "sidecar.sqlite"), "")
            except (sqlite3.Error, OSError, KeyError, ValueError):
                continue
            index.mirror = index.meta.get("mirror", name)
            found.append(index)
        return sorted(found, key=lambda index: index.meta["location"])

    def ingest(
        self,
        location: str,
        mirror: str,
        body: str,
        *,
        local: bool,
        meta: dict[str, str],
        sha256: str | None,
        size: int | None = None,
        alone: bool = False,
    ) -> StoredIndex:
        """Read the index file `body` in one pass (split, sha256) and make it the mirror's stored index.

        Args:
            location: absolute path or URL of the mirror.
            mirror: its name, for messages and records.
            body: path of the index; moved into the store unless `local`.
            local: the file belongs to the mirror and stays where it is.
            meta: what to remember with it (kind, etag).
            sha256: what the index must hash to, or None where the source promises nothing.
            size: bytes that the mirror's manifest promises, for the message only.
            alone: the caller holds the mirror's lock, so unfinished files in its directory are nobody's.

        Raises:
            FormatError: not an index, or its digest differs; nothing is changed.
            StoreError: the store cannot be written.
        """
        split, digest = _split_and_hash(body)
        _check_digest(
            mirror, body, digest, sha256, size
        )  # before the slow path spends its time on a damaged file
        version, rows, broken = split or _read_slowly(body, mirror)
        specfile_of_database(version)  # refuses a database that is too old or too new, by version
        directory = self.directory(location)
        try:
            os.makedirs(directory, exist_ok=True)
            for prefix in ("sidecar.sqlite.", "asked.json.", "absent.json."):
                _drop_leftovers(directory, prefix, 0.0 if alone else _LEFTOVER_S)
            self._drop_downloads(body)
            if not local:
                _sync(body)
                target = os.path.join(directory, f"index-{digest[:16]}.json")
                os.replace(body, target)
                body = target
            facts = {
                **meta,
                "location": location,
                "mirror": mirror,
                "version": version,
                "sha256": digest,
                "body": body,
                "broken": str(len(broken)),
                "unreadable": json.dumps({hash_: _reason(hash_, broken[hash_]) for hash_ in sorted(broken)}),
                **_stat_facts(body, local=local),
                "checked": repr(time.time()),
                "changed": repr(time.time()),
            }
            path = os.path.join(directory, "sidecar.sqlite")
            if os.path.isdir(path):  # nobody can have meant that; a full one is an error that names it
                os.rmdir(path)
            _write_sidecar(path, rows, facts)
            _drop_other_bodies(directory, body)
            _remove(os.path.join(directory, "absent.json"))
        except (OSError, sqlite3.Error) as error:
            what = f"the index of {mirror} below {self.root}"
            raise cannot_write(what, self.root, error, cache=True, mirror=mirror) from error
        return StoredIndex(path, mirror)

    def spool_path(self) -> str:
        """Return a fresh path for an index that is being downloaded, on the store's own file system."""
        directory = os.path.join(self.root, "incoming")
        try:
            os.makedirs(directory, exist_ok=True)
        except OSError as error:
            raise cannot_write(directory, directory, error, cache=True) from error
        self._drop_downloads()
        return os.path.join(directory, f"download-{_machine()}-{os.getpid()}-{time.monotonic_ns():x}")

    def _drop_downloads(self, keep: str = "") -> None:
        """Remove downloads that nobody will finish: of processes of this machine that are gone, and old ones."""
        directory = os.path.join(self.root, "incoming")
        for name in os.listdir(directory) if os.path.isdir(directory) else ():
            path = os.path.join(directory, name)
            if (
                path != keep
                and name.startswith("download-")
                and (_is_orphan(name) or _age_of(path) > _LEFTOVER_S)
            ):
                _remove(path)


class Lock:
    """An exclusive lock on one mirror's directory, also given up when the process ends."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    @property
    def held(self) -> bool:
        """False for the empty lock of a store that cannot be locked."""
        return self._descriptor is not None

    def release(self) -> None:
        """Let the next one in."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class StoredIndex:
    """One mirror's index on disk; decodes only the records that are asked for.

    Attributes:
        mirror: name of the mirror.
        meta: facts of the sidecar: location, kind, version, sha256, etag, checked (Unix time), ...
        skipped: by hash, why records cannot be read: all that the ingestion left out, and others once asked for.
    """

    def __init__(self, path: str, mirror: str) -> None:
        self.mirror = mirror
        self.skipped: dict[str, str] = {}
        self._path = path
        self._body: int | None = None
        self._versions: dict[str, list[tuple[str, frozenset[bytes]]]] = {}
        # Read only and used by one task at a time, but not always from the thread that opened it. Immutable: a sidecar
        # is replaced and never changed, so reading needs no lock of the file system, which may have none.
        self._db = sqlite3.connect(
            f"file:{_quote(path)}?mode=ro&immutable=1", uri=True, check_same_thread=False
        )
        try:
            rows = self._db.execute("SELECT key, value FROM meta")
            self.meta: dict[str, str] = {
                key: os.fsdecode(value) if isinstance(value, bytes) else value for key, value in rows
            }
            if self.meta.get("schema") != SCHEMA:
                raise ValueError("sidecar of another version")
            if os.stat(path).st_mtime_ns != int(self.meta["stamp"]):
                raise ValueError("sidecar that was changed after it was written")
            self.meta.update(_read_note(path, self.meta["changed"]))
            self.skipped.update(json.loads(self.meta["unreadable"]))
            self._specfile = specfile_of_database(self.meta["version"])
            # Opened now: another process may put a newer index in its place at any time.
            self._body = os.open(self.meta["body"], os.O_RDONLY | os.O_CLOEXEC)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Release the files."""
        self._db.close()
        if self._body is not None:
            os.close(self._body)
            self._body = None

    def __del__(self) -> None:
        # An index that another one has replaced has no owner who would close it.
        if hasattr(self, "_db"):
            self.close()

    def body_is_current(self) -> bool:
        """Return True while the file that the offsets point into is the one that was split."""
        try:
            facts = _stat_facts(self.meta["body"], local="ctime" in self.meta)
            return all(self.meta[key] == value for key, value in facts.items())
        except (OSError, KeyError):
            return False

    def check(self) -> tuple[int, bool]:
        """Decode every record and hash the index again: (records that cannot be read, all is as it was)."""
        from hashlib import sha256

        rows = self._rows("ORDER BY hash")
        broken, placed = 0, True
        for row in rows:
            try:
                broken += self._decode(*row) is None
            except StoreError:
                placed = False
        digest, offset = sha256(), 0
        assert self._body is not None
        while chunk := os.pread(self._body, _CHUNK, offset):
            digest.update(chunk)
            offset += len(chunk)
        whole = digest.hexdigest() == self.meta["sha256"] and len(rows) == int(self.meta["nodes"])
        return broken, whole and placed

    def age(self) -> float:
        """Seconds since the mirror was last asked."""
        return max(0.0, time.time() - float(self.meta["checked"]))

    def touch(self, etag: str | None) -> None:
        """Remember that the mirror was asked just now and had nothing newer; failure to write is harmless.

        In a file of its own: a write to the sidecar that is killed would leave a journal, which SQLite would one day
        roll back into the next sidecar of that name.
        """
        self.meta["checked"], self.meta["etag"] = repr(time.time()), etag or ""
        _write_note(_note_path(self._path), {key: self.meta[key] for key in _NOTED})

    def count(self) -> int:
        """Number of records that have a binary."""
        return int(self.meta["binaries"])

    def names(self) -> list[str]:
        """All package names, sorted."""
        return [row[0] for row in self._select("SELECT name FROM pkg ORDER BY name") if row[0].isprintable()]

    def named(self, name: str) -> list[Record]:
        """All records of the package `name`, by hash."""
        rows = self._rows("WHERE pkg = (SELECT id FROM pkg WHERE name = ?) ORDER BY hash", name)
        return [record for row in rows if (record := self._decode(*row))]

    def hashes_at(self, name: str, version: str) -> list[str]:
        """The hashes of the package `name` whose records may be of that version, told without decoding them."""
        if name not in self._versions:
            rows = self._rows("WHERE pkg = (SELECT id FROM pkg WHERE name = ?) ORDER BY hash", name)
            assert self._body is not None
            texts = ((hash_, os.pread(self._body, length, offset)) for hash_, offset, length in rows)
            self._versions[name] = [(hash_, frozenset(_VERSION_MARK.findall(text))) for hash_, text in texts]
        wanted = version.encode()
        # A text without any such mark is written in another way: decoding it tells.
        return [hash_ for hash_, found in self._versions[name] if not found or wanted in found]

    def with_prefix(self, prefix: str) -> list[Record]:
        """All records whose DAG hash starts with `prefix`, by hash."""
        rows = self._rows("WHERE hash >= ? AND hash < ? ORDER BY hash", prefix, prefix + "\x7f")
        return [record for row in rows if (record := self._decode(*row))]

    def everything(self) -> Iterable[Record]:
        """All records, by hash."""
        return (record for row in self._rows("ORDER BY hash") if (record := self._decode(*row)))

    def labelling(self, virtual: str) -> Iterator[Record]:
        """Yield records that label packages as providers of `virtual`, at least one for each such package.

        The bytes are searched. Decoded is only what may say something new: a name that nobody has ever written costs no
        decoding, nor does a variant of that name, nor the thousandth edge that says what the first one said.
        """
        import mmap

        mark = f'"{virtual}"'.encode()
        assert self._body is not None
        if not os.fstat(self._body).st_size:
            return
        rows = self._rows("ORDER BY off")
        starts = [offset for _, offset, _ in rows]
        known: set[bytes] = set()
        with mmap.mmap(self._body, 0, access=mmap.ACCESS_READ) as text:
            at = text.find(mark)
            while at >= 0:
                end = at + 1
                edge = _LABEL.search(text[max(0, at - _AROUND) : at])
                if not (_MEMBER.match(text, at + len(mark)) or (edge and edge[1] in known)):
                    row = rows[max(0, bisect_right(starts, at) - 1)]
                    if row[1] <= at < row[1] + row[2]:
                        end = row[1] + row[2]
                        if record := self._decode(*row):
                            found = (e.name for e in record.node.edges if virtual in e.virtuals)
                            known.update(name.encode() for name in found)
                            yield record
                at = text.find(mark, end)

    def record(self, hash: str) -> Record | None:
        """The record with that full DAG hash, or None."""
        return next(iter(self.records((hash,))), None)

    def records(self, hashes: Sequence[str]) -> list[Record]:
        """The records with those full DAG hashes, as far as there are any; one query for some hundred of them."""
        found = []
        for at in range(0, len(hashes), _BATCH):
            batch = hashes[at : at + _BATCH]
            rows = self._rows(f"WHERE hash IN ({','.join('?' * len(batch))})", *batch)
            found += [record for row in rows if (record := self._decode(*row))]
        return found

    def _rows(self, condition: str, *values: str) -> list[tuple[str, int, int]]:
        """Return (hash, offset, length) of the records that meet a condition."""
        return self._select(f"SELECT hash, off, len FROM spec {condition}", *values)  # noqa: S608 -- conditions are those above

    def _select(self, query: str, *values: str) -> list[Any]:
        """Return all rows; damage of the sidecar becomes an error that says which mirror must be read anew."""
        try:
            return self._db.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise self._damaged(str(error)) from error

    def _damaged(self, what: str) -> StoreError:
        """Drop the sidecar, so the next use reads the index anew, and return the error that says so."""
        _remove(self._path)
        return StoreError(
            f"the local index of {self.mirror} is damaged: {what}",
            hint="try again: it is read anew",
            context={"mirror": self.mirror, "damaged": self.meta["location"]},
        )

    def _require_place(self, hash: str, offset: int, length: int) -> None:
        """Refuse a sidecar that says a record is where it is not: its key stands before it, the next key after it.

        Looked at where a record is not as expected; then it is the mirror's doing, or this is what is wrong.
        """
        assert self._body is not None
        try:
            begin = max(0, offset - _AROUND)
            key = _KEY_BEFORE.search(os.pread(self._body, offset - begin, begin))
            after = os.pread(self._body, _AROUND, offset + length - 1)
            right = key and json.loads(key[1]).lower() == hash and _NEXT_KEY.match(after)
        except (OSError, ValueError, OverflowError, TypeError):
            right = None
        if not right:
            raise self._damaged(f"there is no record of {hash} at byte {offset}")

    def raw(self, hash: str) -> tuple[dict[str, Any], int] | None:
        """The node with that full DAG hash as the mirror wrote it, and its specfile version; None when absent."""
        row = next(iter(self._rows("WHERE hash = ?", hash)), None)
        try:
            return (self._load(*row[1:])["spec"], self._specfile) if row else None
        except (ValueError, KeyError, TypeError):
            return None

    def _load(self, offset: int, length: int) -> dict[str, Any]:
        assert self._body is not None
        data: dict[str, Any] = json.loads(os.pread(self._body, length, offset))
        return data

    def _decode(self, hash: str, offset: int, length: int) -> Record | None:
        """Decode one record; None for one that is broken (it is counted in `skipped`, not fatal)."""
        try:
            assert self._body is not None
            text = os.pread(self._body, length, offset)
            if found := compact_record(text, hash, self._specfile):
                return self._record(*found)
            data = json.loads(text)
            # JSON cannot hold a control character but by an escape.
            node = node_from_dict(data["spec"], hash=hash, specfile=self._specfile, plain=is_plain(text))
            if node.format > _NEWEST_SPECFILE:
                raise ValueError(f"specfile version {node.format}")
        except (
            RecursionError,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            FormatError,
            OSError,
            OverflowError,
            MemoryError,
        ) as error:
            self._require_place(hash, offset, length)
            reason = error.message if isinstance(error, FormatError) else f"{type(error).__name__}: {error}"
            self.skipped[hash] = _reason(hash, reason)
            return None
        if data["spec"].get("hash", hash) != hash:  # most likely another's record
            self._require_place(hash, offset, length)
        return self._record(node, data.get("in_buildcache") is True)

    def _record(self, node: Node, in_buildcache: bool) -> Record:
        has_binary = in_buildcache and node.external is None
        return Record(node, has_binary, (self.mirror,) if has_binary else ())


def _reason(hash: str, why: str) -> str:
    return f"/{ascii(hash)[1:8]}: {why[:100]}"


#: What `touch` remembers; "changed" tells to which sidecar it belongs.
_NOTED = ("changed", "checked", "etag")


def _write_note(path: str, note: dict[str, str]) -> None:
    """Replace a small file that is good to have; where nothing can be written, nothing is."""
    temporary = f"{path}.{os.getpid()}.{time.monotonic_ns():x}"
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump(note, file)
        os.replace(temporary, path)
    except OSError:
        _remove(temporary)


def _note_path(sidecar: str) -> str:
    return os.path.join(os.path.dirname(sidecar), "asked.json")


def _read_note(sidecar: str, changed: str) -> dict[str, str]:
    """Return what `touch` remembered of this sidecar; nothing when the note is absent, damaged or of another one."""
    try:
        with open(_note_path(sidecar), encoding="utf-8") as file:
            note = json.load(file)
        float(note["checked"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}
    if note.get("changed") != changed or not all(isinstance(note.get(key), str) for key in _NOTED):
        return {}
    return {key: note[key] for key in _NOTED}


def _check_digest(mirror: str, body: str, digest: str, sha256: str | None, size: int | None) -> None:
    if sha256 is None or digest == sha256:
        return
    length = os.path.getsize(body)
    promised = f" and {size} bytes" if size is not None else ""
    raise FormatError(
        f"the index of {mirror} hashes to {digest} ({length} bytes); its manifest promises {sha256}{promised}",
        hint="the mirror is damaged or its index is being rewritten; try again or tell its admin",
        context={"mirror": mirror, "expected": sha256, "got": digest},
    )


def _split_and_hash(body: str) -> tuple[tuple[str, list[Row], dict[str, str]] | None, str]:
    """Read the file once: ((database version, rows, {}) or None for a shape that the fast path lacks, sha256)."""
    from .splitter import Splitter

    splitter = Splitter()
    rows: list[Row] = []
    expected = True
    try:
        with open(body, "rb") as file, _Hasher() as digest:
            chunk = file.read(_CHUNK)
            while chunk:
                digest.update(chunk)
                following = file.read(_CHUNK)  # meanwhile the other thread begins with the chunk
                if expected:
                    expected = _collect(rows, splitter.feed, chunk)
                chunk = following
    except OSError as error:
        raise StoreError(f"cannot read {body}: {error.strerror}", context={"path": body}) from error
    complete = expected and _collect(rows, lambda _: splitter.close(), b"")
    if complete and len({row[0] for row in rows}) == len(rows):
        return (splitter.version, rows, {}), digest.hexdigest()
    return None, digest.hexdigest()


class _Hasher:
    """The sha256 of chunks, computed in a thread of its own: the splitter leaves a second processor idle."""

    def __init__(self) -> None:
        from hashlib import sha256
        from queue import Queue
        from threading import Thread

        self._digest = sha256()
        self._chunks: Queue[bytes] = Queue(maxsize=4)
        self._thread = Thread(target=self._run, daemon=True)

    def __enter__(self) -> _Hasher:
        self._thread.start()
        return self

    def __exit__(self, *problem: object) -> None:
        self._chunks.put(b"")
        self._thread.join()

    def _run(self) -> None:
        while chunk := self._chunks.get():
            self._digest.update(chunk)

    def update(self, chunk: bytes) -> None:
        """Add a chunk that is not empty; waits while four of them wait."""
        self._chunks.put(chunk)

    def hexdigest(self) -> str:
        """Return the digest of all chunks, after the ``with`` block."""
        return self._digest.hexdigest()


def _read_slowly(body: str, mirror: str) -> tuple[str, list[Row], dict[str, str]]:
    """Return (database version, rows, broken records: by hash, why) by decoding the whole index."""
    from .splitter import split_any

    try:
        with open(body, "rb") as file:
            return split_any(file.read(), what=f"the index of {mirror}")
    except OSError as error:
        raise StoreError(f"cannot read {body}: {error.strerror}", context={"path": body}) from error


def _collect(rows: list[Row], step: Callable[[bytes], Iterable[Row]], chunk: bytes) -> bool:
    """Add the rows of one step; False when the text is not what the fast path knows."""
    from .splitter import Unexpected

    try:
        rows.extend(step(chunk))
    except (Unexpected, UnicodeDecodeError):
        return False
    return True


def _write_sidecar(path: str, rows: list[Row], facts: dict[str, str]) -> None:
    """Write the sidecar under a temporary name and rename it.

    Its time of modification is one that it records itself: whatever else changes the file changes that too, and rows
    that were lost are noticed without counting them. Whole even seconds, because every file system can keep those.
    """
    facts = {**facts, "stamp": str(int(time.time()) // 2 * 2_000_000_000)}
    temporary = f"{path}.{os.getpid()}.{time.monotonic_ns():x}"
    try:
        # Nobody else knows the temporary name, so there is nothing to lock, and file systems without locks do.
        db = sqlite3.connect(f"file:{_quote(temporary)}?nolock=1", uri=True)
        try:
            _fill(db, rows, facts)
        finally:
            db.close()
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.utime(temporary, ns=(int(facts["stamp"]),) * 2)
        os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)


def _fill(db: sqlite3.Connection, rows: list[Row], facts: dict[str, str]) -> None:
    """Fill an empty database; rows go in by hash, the secondary index last: both are faster so."""
    db.execute("PRAGMA page_size = 16384")  # a fifth less time than with 4096; look-ups take the same
    db.execute("PRAGMA journal_mode = OFF")  # the file is new and nameless until it is complete
    db.execute("PRAGMA synchronous = OFF")
    db.executescript(_TABLES)
    ids: dict[str, int] = {}
    for row in rows:
        ids.setdefault(row[1], len(ids))
    db.executemany("INSERT INTO pkg VALUES(?, ?)", ((id_, name) for name, id_ in ids.items()))
    rows.sort(key=itemgetter(0))
    db.executemany(
        "INSERT INTO spec VALUES(?, ?, ?, ?, ?)",
        ((hash_, ids[name], off, length, binary) for hash_, name, off, length, binary in rows),
    )
    db.execute("CREATE INDEX by_pkg ON spec(pkg, off, len)")
    facts = {
        **facts,
        "schema": SCHEMA,
        "nodes": str(len(rows)),
        "binaries": str(sum(1 for row in rows if row[4])),
    }
    db.executemany("INSERT INTO meta VALUES(?, ?)", ((key, _storable(value)) for key, value in facts.items()))
    db.commit()


def _storable(text: str) -> str | bytes:
    """Return a text as SQLite takes it: a path need not be UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return os.fsencode(text)
    return text


def _stat_facts(body: str, *, local: bool) -> dict[str, str]:
    """Return what changes with an index file.

    Of a file of a mirror (`local`) also the time that nobody can set back, as the other one can be. Not of a file of
    our own: a store that is made read-only is still right.
    """
    stat = os.stat(body)
    facts = {"size": str(stat.st_size), "mtime": str(stat.st_mtime_ns), "inode": str(stat.st_ino)}
    return {**facts, "ctime": str(stat.st_ctime_ns)} if local else facts


def _sync(path: str) -> None:
    """Bring a downloaded file to the disk before its name promises that it is whole."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def _drop_leftovers(directory: str, prefix: str, age: float) -> None:
    """Remove temporary files, older than `age` seconds, of runs that were killed."""
    for name in os.listdir(directory):
        path = os.path.join(directory, name)
        if name.startswith(prefix) and _age_of(path) >= age:
            _remove(path)


def _machine() -> str:
    """Return what tells apart where process numbers count: machines that share a store, and containers."""
    try:
        space = os.readlink("/proc/self/ns/pid")
    except OSError:
        space = ""
    return f"{binascii.crc32(os.fsencode(os.uname().nodename + space)):08x}"


def _is_orphan(name: str) -> bool:
    """Return True for a download of a process of this machine that is gone."""
    _, machine, process, *_ = (*name.split("-"), "", "")
    if machine != _machine() or not process.isdecimal():
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False


def _age_of(path: str) -> float:
    try:
        return time.time() - os.stat(path).st_mtime
    except OSError:  # somebody else removed it
        return 0.0


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        return


def _drop_other_bodies(directory: str, keep: str) -> None:
    """Remove former index files; a process that still reads one keeps its open descriptor."""
    for name in os.listdir(directory):
        path = os.path.join(directory, name)
        if name.startswith("index-") and path != keep:
            _remove(path)


def _quote(path: str) -> str:
    """Escape a path for SQLite's URI form."""
    return path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
