"""Open mirrors: from locations to their specs and the state of each, through readers and the local index.

Steps are generators: they yield a batch of `Get` and are sent the `Answer`s, and never open a socket. `client` runs
them in two short loops: a plain one, which reads local mirrors itself and starts the network only when a request
needs it, and an async one. The local index (`IndexStore`) is used directly: it is a local file.
"""

from __future__ import annotations

import json
import os
import time

from .errors import FormatError, NoUsableMirrorError, StoreError, UsageError
from .resolver.index.query import PageSource, Specs
from .resolver.index.readers import (
    BUNDLE_SCHEME,
    CATALOGUE_FILE,
    LISTS,
    PAGE_DATA_FILE,
    Get,
    Known,
    Reading,
    detect,
    name_of,
    skipped_text,
)
from .resolver.resolution import MirrorState
from .values import changed, frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
    from typing import Any, TypeVar

    from .config import Config, Mirror
    from .resolver.index.query import SpecSource
    from .resolver.index.readers import Answer, Reader
    from .resolver.index.store import IndexStore, Lock, StoredIndex
    from .resolver.model import Record

    #: State, specs, and what was read just now (None when the store was enough).
    _Found = tuple[MirrorState, SpecSource | None, Reading | None]

    T = TypeVar("T")
    #: A batch of requests is yielded, the answers in the same order are sent. A Pause waits, and is sent ().
    Steps = Generator["tuple[Get, ...] | Pause", "tuple[Answer, ...]", T]

#: Formats that the fetch engine can fetch binaries from.
DELIVERS = ("v3", "v2", "oci", "bundle")
#: Endings of documents that list binaries and hold none.
_LIST_NAMES = (".md", ".lock", ".spec.json", ".spec.json.sig")
_LIST_FILES = (PAGE_DATA_FILE, CATALOGUE_FILE)
_POLL_S = 0.02
#: Seconds for which a server that has no index is not asked again (`--refresh` asks); never longer than `max_age`.
ABSENT_S = 60.0
#: What is remembered for so long. A server that cannot be reached, or refuses, may be another one in a second.
_ABSENT = ("no-index", "not-a-cache")


@frozen
class Pause:
    """In place of a batch of requests: go on after so many seconds."""

    seconds: float


@frozen
class IndexFacts:
    """One local index: where it came from, how old it is, and whether it is whole.

    `broken` counts records that cannot be read, as far as that was looked at; `damaged` is True when a check found that
    the bytes are not those that were stored.
    """

    mirror: str
    location: str
    kind: str
    version: str
    specs: int
    size: int
    age_s: float
    sha256: str
    etag: str
    broken: int
    damaged: bool

    def to_dict(self) -> dict[str, Any]:
        """Return the `indexes` entry."""
        return {**{name: getattr(self, name) for name in self.__match_args__}, "age_s": round(self.age_s, 1)}


def index_facts(store: IndexStore, *, check: bool = False) -> tuple[IndexFacts, ...]:
    """Return what is stored, by location; `check` decodes and hashes all of it, and drops what is damaged."""
    found = []
    for index in store.stored():
        meta = index.meta
        broken, whole = index.check() if check else (int(meta.get("broken", "0")), index.body_is_current())
        found.append(
            IndexFacts(
                index.mirror,
                meta["location"],
                meta["kind"],
                meta["version"],
                index.count(),
                int(meta["size"]),
                index.age(),
                meta["sha256"],
                meta.get("etag", ""),
                broken,
                not whole,
            )
        )
        index.close()
        if check and not whole:  # the mirror would say that nothing has changed
            store.drop(meta["location"])
    return tuple(found)


@frozen
class Sources:
    """The specs of all mirrors, the state of each, and the mirrors that deliver binaries.

    `pages` is True when lists (cache pages, lock files) are the spec index: the other mirrors' indexes are then not
    read. `placed` are the names of delivering mirrors that come from a catalogue: they deliver only what names them.
    """

    specs: Specs
    states: tuple[MirrorState, ...]
    deliver: tuple[Mirror, ...]
    pages: bool
    placed: frozenset[str] = frozenset()

    def layouts(self) -> dict[str, str]:
        """Return the layout of each mirror that was looked at, by name. A bundle is a mirror of layout 3."""
        kinds = {state.mirror: state.kind for state in self.states if state.kind in DELIVERS}
        return {mirror: "v3" if kind == "bundle" else kind for mirror, kind in kinds.items()}

    def current_states(self) -> tuple[MirrorState, ...]:
        """Return the states with what came out while records were decoded: how many had to be skipped."""
        skipped = self.specs.skipped()
        left_out = {source.mirror: _left_out(source.meta) for source in self.specs.sources}
        return tuple(
            changed(
                state,
                detail=_joined(
                    state.detail.removesuffix(left_out[state.mirror]).removesuffix("; "),
                    skipped_text("records", skipped[state.mirror]),
                ),
            )
            if skipped.get(state.mirror)
            else state
            for state in self.states
        )


def open_sources(
    mirrors: Sequence[Mirror],
    config: Config,
    store: Callable[[], IndexStore],
    *,
    refresh: bool = False,
    offline: bool = False,
) -> Steps[Sources]:
    """Read, or find fresh in the local index, the specs of `mirrors`.

    Raises:
        UsageError: no mirror is given or configured.
        NoUsableMirrorError: none of them could be read; the message names each state.
    """
    if not mirrors:
        raise UsageError(
            "no mirror is configured",
            hint="name one with -m URL|DIRECTORY|PAGE.md, or put it into the config file: "
            f'[mirrors.NAME] url = "..." in {os.path.join(config.config_dir, "config.toml")}',
        )
    unique = tuple({mirror.key: mirror for mirror in reversed(mirrors)}.values())[::-1]
    listed = yield from _lists(unique)
    first = [mirror for mirror in unique if mirror.key in listed] or list(unique)
    found = yield from _read_all(first, config, store, refresh=refresh, offline=offline)
    pages = any(state.kind in LISTS and source for state, source, _ in found.values())
    if listed and not pages:  # what looked like lists was none: ask the others after all
        rest = [mirror for mirror in unique if mirror not in first]
        found.update((yield from _read_all(rest, config, store, refresh=refresh, offline=offline)))
    states = tuple(found[m.key][0] if m.key in found else _not_read(m) for m in unique)
    if not any(state.usable for state in states):
        raise _none_usable(states)
    return _assembled(unique, found, states, pages)


def open_known(mirrors: Sequence[Mirror], wanted: Sequence[tuple[str, str, str]]) -> Steps[Sources | None]:
    """Read specs by (name, version, hash) from their manifests: no index is read. None when one is not found so.

    Which mirrors have the dependencies shows when they are fetched: all are named for them.
    """
    from .resolver.index.readers.spec import read_known

    unique = tuple({mirror.key: mirror for mirror in reversed(mirrors)}.values())[::-1]
    asked = [(mirror, each) for mirror in unique if _holds_manifests(mirror) for each in wanted]
    readings = yield from gather([read_known(mirror.location, *each) for mirror, each in asked])
    records: dict[str, list[Record]] = {}
    seen: set[str] = set()
    for (mirror, each), reading in zip(asked, readings, strict=True):
        if reading.records:
            seen.add(each[2])
            records.setdefault(mirror.name, []).extend(reading.records)
    if not wanted or len(seen) < len({each[2] for each in wanted}):
        return None
    names = tuple(records)
    sources = [PageSource(name, found, mirrors=names) for name, found in records.items()]
    states = tuple(
        MirrorState(m.name, "v3", "not-read", "the hash is known: its manifest was read, no index")
        for m in unique
    )
    return Sources(Specs(sources), states, tuple(m for m in unique if m.name in records), False)


def _is_list(mirror: Mirror) -> bool:
    """Return True for a name that only lists of binaries have."""
    name = name_of(mirror.location)
    return name.endswith(_LIST_NAMES) or name in _LIST_FILES


def _holds_manifests(mirror: Mirror) -> bool:
    """Return True for what may be a v3 mirror by its name."""
    return (
        not _is_list(mirror)
        and not name_of(mirror.location).endswith(".json")
        and not mirror.location.startswith("oci")
    )


def _assembled(
    unique: Sequence[Mirror], found: Mapping[str, _Found], states: tuple[MirrorState, ...], pages: bool
) -> Sources:
    """Put together what was read."""
    if not pages:
        used = [source for _, source, _ in found.values() if source]
        deliver = tuple(m for m in unique if found[m.key][0].usable and found[m.key][0].kind in DELIVERS)
        return Sources(Specs(used), states, deliver, False)
    read = [(state, source, reading) for state, source, reading in found.values() if state.kind in LISTS]
    deliver = tuple(m for m in unique if m.key not in found or found[m.key][0].kind in DELIVERS)
    catalogues = [
        (m, found[m.key][2]) for m in unique if m.key in found and found[m.key][0].kind == "catalogue"
    ]
    placed: dict[str, Mirror] = {}
    sources: list[SpecSource] = []
    for state, source, reading in read:
        if source is None:
            continue
        for mirror, catalogue in catalogues:
            if reading and catalogue:
                source = PageSource(state.mirror, _place(reading, catalogue, mirror, placed))
        sources.append(source)
    return Sources(Specs(sources), states, (*deliver, *placed.values()), True, frozenset(placed))


def _place(
    reading: Reading, catalogue: Reading, origin: Mirror, placed: dict[str, Mirror]
) -> Iterator[Record]:
    """Yield the records of a page with the mirrors of their stacks, and collect those mirrors in `placed`."""
    from .resolver.index.readers.catalogue import places_for

    for record in reading.records:
        names = []
        for place in places_for(catalogue.places, reading.release, record.stacks):
            name = f"{place.ref}/{place.label}"
            names.append(name)
            # The policy of the catalogue holds for the mirrors that it names.
            placed.setdefault(name, changed(origin, name=name, location=place.url))
        yield changed(record, mirrors=tuple(names))


def _lists(mirrors: Sequence[Mirror]) -> Steps[frozenset[str]]:
    """Return the keys of mirrors that look like lists of binaries, when there are other mirrors beside them."""
    if len(mirrors) < 2:
        return frozenset()
    found = {mirror.key for mirror in mirrors if _is_list(mirror)}
    local = [
        m for m in mirrors if "://" not in m.location and not m.location.endswith((".md", ".json", ".lock"))
    ]
    answers = yield tuple(Get(mirror.location) for mirror in local)
    for mirror, answer in zip(local, answers, strict=True):
        names = answer.names or ()
        if not {"v3", "build_cache"}.intersection(names) and any(name.endswith(".md") for name in names):
            found.add(mirror.key)
    return frozenset(found)


def _read_all(
    mirrors: Sequence[Mirror],
    config: Config,
    store: Callable[[], IndexStore],
    *,
    refresh: bool,
    offline: bool,
) -> Steps[dict[str, _Found]]:
    """Read several mirrors side by side, those that are stale one process at a time."""
    found: dict[str, _Found] = {}
    locks: dict[str, Lock] = {}
    try:
        asked: list[tuple[Mirror, StoredIndex | None, Reader]] = []
        for mirror in sorted(
            mirrors, key=lambda mirror: mirror.key
        ):  # one order for all: no two wait for each other
            # Lists are small and decoded at each run: they have no stored form, and need no SQLite.
            index = None if _is_list(mirror) else store().load(mirror.key, mirror.name)
            ready = _ready(mirror, index, config, refresh=refresh, offline=offline)
            if ready is None and _remote(mirror) and not offline and not _is_list(mirror):
                since = time.time()
                locks[mirror.key] = yield from _locked(mirror, store())
                index = store().load(mirror.key, mirror.name)  # who had the lock may have read it for us
                again = refresh and not (index and float(index.meta["checked"]) >= since)
                ready = _ready(mirror, index, config, refresh=again, offline=offline)
                ready = ready or _absent(mirror, index, config, store, refresh=refresh, since=since)
            if ready is not None:
                found[mirror.key] = ready
                continue
            known = Known(index.meta["sha256"], index.meta.get("etag") or None) if index else None
            kind = index.meta["kind"] if index else ""
            asked.append((mirror, index, detect.read(mirror.location, known, kind, mirror.view)))
        readings = yield from gather([reader for _, _, reader in asked])
        for (mirror, index, _), reading in zip(asked, readings, strict=True):
            if reading.index_path and mirror.key not in locks:
                locks[mirror.key] = yield from _locked(mirror, store())
                now = store().load(mirror.key, mirror.name)
                if now and now.meta["kind"] == reading.kind and now.meta["sha256"] == _digest(reading, now):
                    found[mirror.key] = (_state(mirror, now, "fresh", age=0.0), now, reading)
                    continue
            found[mirror.key] = _settle(mirror, reading, index, store, alone=_is_held(locks, mirror))
    finally:
        for lock in locks.values():
            lock.release()
    return {mirror.key: found[mirror.key] for mirror in mirrors}


def _ready(
    mirror: Mirror, index: StoredIndex | None, config: Config, *, refresh: bool, offline: bool
) -> _Found | None:
    """Return what the store has when that is enough, None when the mirror must be asked."""
    if index is None:
        return None
    if _remote(mirror):
        if refresh or not (offline or index.age() < config.max_age):
            return None
        word = "fresh" if index.age() < config.max_age else "stale-ok"
        return _state(mirror, index, word), index, None
    if index.meta["kind"] in ("bare", "v2") and not refresh:
        # `load` has just compared the file's size, time and inode: asking again would tell no more.
        return _state(mirror, index, "fresh", age=0.0), index, None
    return None


def _absent(
    mirror: Mirror,
    index: StoredIndex | None,
    config: Config,
    store: Callable[[], IndexStore],
    *,
    refresh: bool,
    since: float | None = None,
) -> _Found | None:
    """Return the state of a server that has just said that it has no index; None when it must be asked.

    Also with `refresh`, where that was said after `since`: somebody else asked while we waited for our turn.
    """
    if index is not None or not _remote(mirror) or _is_list(mirror):
        return None
    note = store().absent(mirror.key)
    if note is None:
        return None
    asked = float(note["asked"])
    age = time.time() - asked
    if (refresh and not (since and asked >= since)) or not 0 <= age < min(config.max_age, ABSENT_S):
        return None
    return MirrorState(mirror.name, note["kind"], note["state"], note["detail"], 0, age), None, None


def _locked(mirror: Mirror, store: IndexStore) -> Steps[Lock]:
    """Wait until this process is the only one that reads the mirror anew."""
    while (lock := store.lock(mirror.key)) is None:
        yield Pause(_POLL_S)
    return lock


def _is_held(locks: Mapping[str, Lock], mirror: Mirror) -> bool:
    return mirror.key in locks and locks[mirror.key].held


def _digest(reading: Reading, stored: StoredIndex) -> str:
    """Return the digest that a stored index must have to be what the reading found.

    A local index without a promised digest is the same file: `load` has compared it.
    """
    return reading.index_sha256 or (stored.meta["sha256"] if reading.index_local else "")


def _remote(mirror: Mirror) -> bool:
    return "://" in mirror.location and not mirror.location.startswith(BUNDLE_SCHEME)


def gather(readers: Sequence[Reader]) -> Steps[list[Reading]]:
    """Run readers side by side: one batch holds the next request of each that is not finished."""
    results: dict[int, Reading] = {}
    waiting: dict[int, Get] = {}
    answers: dict[int, Any] = dict.fromkeys(range(len(readers)))
    while answers:
        for number, answer in answers.items():
            try:
                waiting[number] = readers[number].send(answer)
            except StopIteration as stop:
                results[number] = stop.value
        if not waiting:
            break
        batch, waiting = waiting, {}
        answers = dict(zip(batch, (yield tuple(batch.values())), strict=True))
        for answer in answers.values():
            if isinstance(answer.error, StoreError):  # our own disk, and no news of the mirror
                raise answer.error
    return [results[number] for number in range(len(readers))]


def _settle(
    mirror: Mirror,
    reading: Reading,
    stored: StoredIndex | None,
    store: Callable[[], IndexStore],
    *,
    alone: bool,
) -> _Found:
    """Turn a reading into the mirror's state and its specs, filling the local index when it is stale."""
    if reading.unchanged and stored:
        if _remote(mirror) or reading.etag != stored.meta.get("etag"):
            stored.touch(reading.etag)
        return _state(mirror, stored, "fresh", age=0.0), stored, reading
    if reading.index_path:
        return _ingest(mirror, reading, store(), alone=alone)
    if reading.records:
        source = PageSource(mirror.name, reading.records)
        state = MirrorState(mirror.name, reading.kind, reading.state, reading.detail, source.count(), 0.0)
        return state, source, reading
    if stored and reading.state == "unreachable":
        return _state(mirror, stored, "stale-ok", reading.detail), stored, reading
    if _remote(mirror) and reading.state in _ABSENT and alone:
        store().remember_absent(mirror.key, reading.kind, reading.state, reading.detail)
    return MirrorState(mirror.name, reading.kind, reading.state, reading.detail), None, reading


def _ingest(mirror: Mirror, reading: Reading, store: IndexStore, *, alone: bool) -> _Found:
    assert reading.index_path
    try:
        index = store.ingest(
            mirror.key,
            mirror.name,
            reading.index_path,
            local=reading.index_local,
            meta={"kind": reading.kind, "etag": reading.etag or "", "promised": reading.index_promised},
            sha256=reading.index_sha256,
            size=reading.index_size,
            alone=alone,
        )
    except FormatError as error:
        state = error.context.get("state", "corrupt")
        if not reading.index_local:
            os.unlink(reading.index_path)
        return MirrorState(mirror.name, reading.kind, state, error.message), None, reading
    return _state(mirror, index, "fresh", age=0.0), index, reading


def _state(
    mirror: Mirror, index: StoredIndex, word: str, detail: str = "", *, age: float | None = None
) -> MirrorState:
    if index.meta.get("promised") and index.meta["promised"] != index.meta["sha256"] and not detail:
        detail = "index.json.hash does not fit index.json: one of them is old"
    detail = _joined(detail, _left_out(index.meta))
    count = index.count()
    if not count and word == "fresh":
        word = "empty"
    return MirrorState(
        mirror.name, index.meta["kind"], word, detail, count, index.age() if age is None else age
    )


def _left_out(meta: Mapping[str, str]) -> str:
    """Return how many records the ingestion of an index left out, with the first reason, or ""."""
    return skipped_text("records", list(json.loads(meta.get("unreadable", "{}")).values()))


def _joined(*details: str) -> str:
    return "; ".join(filter(None, details))


def _not_read(mirror: Mirror) -> MirrorState:
    return MirrorState(mirror.name, "", "not-read", "delivers what the list names; its index is not needed")


def _none_usable(states: Sequence[MirrorState]) -> NoUsableMirrorError:
    lines = "; ".join(f"{s.mirror} is {s.state}" + (f": {s.detail}" if s.detail else "") for s in states)
    hint = "check the URL or path: a mirror is the directory above v3/ or build_cache/, or a cache page (specs.md)"
    if all(state.state in ("unauthorized", "forbidden") for state in states):
        hint = 'name the variables that hold user and password, or a token, under [network.credentials."HOST"] in '
        hint += "the configuration (docs/cli.md)"
    return NoUsableMirrorError(
        f"no mirror could be read: {lines}",
        hint=hint,
        context={"mirrors": [state.to_dict() for state in states]},
    )
