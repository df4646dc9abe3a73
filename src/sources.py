"""Open mirrors: from locations to their specs and the state of each, through readers and the local index.

Steps are generators: they yield a batch of `Get` and are sent the `Answer`s, and never open a socket. `client` runs
them in two short loops: a plain one, which reads local mirrors itself and starts the network only when a request
needs it, and an async one. The local index (`IndexStore`) is used directly: it is a local file.
"""

from __future__ import annotations

import os

from .errors import FormatError, NoUsableMirrorError, UsageError
from .resolver.index.query import PageSource, Specs
from .resolver.index.readers import Get, Known, Reading, detect
from .resolver.resolution import MirrorState
from .values import frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from typing import Any, TypeVar

    from .config import Config, Mirror
    from .resolver.index.query import SpecSource
    from .resolver.index.readers import Answer, Reader
    from .resolver.index.store import IndexStore, StoredIndex

    T = TypeVar("T")
    #: A batch of requests is yielded, the answers in the same order are sent.
    Steps = Generator[tuple[Get, ...], tuple[Answer, ...], T]


@frozen
class Sources:
    """The specs of all mirrors, the state of each, and the mirrors that deliver binaries.

    `pages` is True when cache pages are the spec index: the other mirrors' indexes are then not read.
    """

    specs: Specs
    states: tuple[MirrorState, ...]
    deliver: tuple[Mirror, ...]
    pages: bool


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
    unique = tuple({mirror.location: mirror for mirror in reversed(mirrors)}.values())[::-1]
    paged = yield from _page_like(unique)
    first = [mirror for mirror in unique if mirror.location in paged] or list(unique)
    found = yield from _read_all(first, config, store, refresh=refresh, offline=offline)
    pages = any(state.kind in ("page", "pages") and source for state, source in found.values())
    if paged and not pages:  # what looked like pages was none: ask the others after all
        rest = [mirror for mirror in unique if mirror not in first]
        found.update((yield from _read_all(rest, config, store, refresh=refresh, offline=offline)))
    states = tuple(found[m.location][0] if m.location in found else _not_read(m) for m in unique)
    if not any(state.usable for state in states):
        raise _none_usable(states)
    if pages:
        used = [source for state, source in found.values() if source and state.kind in ("page", "pages")]
        deliver = tuple(m for m in unique if m.location not in found or found[m.location][0].kind == "v3")
    else:
        used = [source for _, source in found.values() if source]
        deliver = tuple(m for m in unique if found[m.location][0].usable)
    return Sources(Specs(used), states, deliver, pages)


def _page_like(mirrors: Sequence[Mirror]) -> Steps[frozenset[str]]:
    """Return the locations that look like cache pages, when there are other mirrors beside them."""
    if len(mirrors) < 2:
        return frozenset()
    found = {mirror.location for mirror in mirrors if mirror.location.endswith(".md")}
    local = [m for m in mirrors if "://" not in m.location and not m.location.endswith((".md", ".json"))]
    answers = yield tuple(Get(mirror.location) for mirror in local)
    for mirror, answer in zip(local, answers, strict=True):
        names = answer.names or ()
        if "v3" not in names and any(name.endswith(".md") for name in names):
            found.add(mirror.location)
    return frozenset(found)


def _read_all(
    mirrors: Sequence[Mirror],
    config: Config,
    store: Callable[[], IndexStore],
    *,
    refresh: bool,
    offline: bool,
) -> Steps[dict[str, tuple[MirrorState, SpecSource | None]]]:
    """Read several mirrors side by side."""
    # Pages are small and decoded at each run: they have no stored form, and need no SQLite.
    stored = {
        mirror.location: None
        if mirror.location.endswith(".md")
        else store().load(mirror.location, mirror.name)
        for mirror in mirrors
    }
    found: dict[str, tuple[MirrorState, SpecSource | None]] = {}
    asked: list[tuple[Mirror, Reader]] = []
    for mirror in mirrors:
        index = stored[mirror.location]
        if index and "://" in mirror.location and not refresh and (offline or index.age() < config.max_age):
            word = "fresh" if index.age() < config.max_age else "stale-ok"
            found[mirror.location] = (_state(mirror, index, word), index)
            continue
        if index and index.meta["kind"] == "bare" and "://" not in mirror.location:
            # `load` has just compared the file's size, time and inode: asking again would tell no more.
            found[mirror.location] = (_state(mirror, index, "fresh", age=0.0), index)
            continue
        known = Known(index.meta["sha256"], index.meta.get("etag") or None) if index else None
        asked.append((mirror, detect.read(mirror.location, known, index.meta["kind"] if index else "")))
    readings = yield from gather([reader for _, reader in asked])
    for (mirror, _), reading in zip(asked, readings, strict=True):
        found[mirror.location] = _settle(mirror, reading, stored[mirror.location], store)
    return found


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
    return [results[number] for number in range(len(readers))]


def _settle(
    mirror: Mirror, reading: Reading, stored: StoredIndex | None, store: Callable[[], IndexStore]
) -> tuple[MirrorState, SpecSource | None]:
    """Turn a reading into the mirror's state and its specs, filling the local index when it is stale."""
    if reading.unchanged and stored:
        if "://" in mirror.location:
            stored.touch(reading.etag)
        return _state(mirror, stored, "fresh", age=0.0), stored
    if reading.index_path:
        return _ingest(mirror, reading, store())
    if reading.records:
        source = PageSource(mirror.name, reading.records)
        state = MirrorState(mirror.name, reading.kind, reading.state, reading.detail, source.count(), 0.0)
        return state, source
    if stored and reading.state == "unreachable":
        return _state(mirror, stored, "stale-ok", reading.detail), stored
    return MirrorState(mirror.name, reading.kind, reading.state, reading.detail), None


def _ingest(mirror: Mirror, reading: Reading, store: IndexStore) -> tuple[MirrorState, SpecSource | None]:
    assert reading.index_path
    try:
        index = store.ingest(
            mirror.location,
            mirror.name,
            reading.index_path,
            local=reading.index_local,
            meta={"kind": reading.kind, "etag": reading.etag or ""},
            sha256=reading.index_sha256,
            size=reading.index_size,
        )
    except FormatError as error:
        state = error.context.get("state", "corrupt")
        if not reading.index_local:
            os.unlink(reading.index_path)
        return MirrorState(mirror.name, reading.kind, state, error.message), None
    return _state(mirror, index, "fresh", age=0.0), index


def _state(
    mirror: Mirror, index: StoredIndex, word: str, detail: str = "", *, age: float | None = None
) -> MirrorState:
    broken = int(index.meta.get("broken", "0"))
    if broken and not detail:
        detail = f"{broken} unreadable records skipped"
    count = index.count()
    if not count and word == "fresh":
        word = "empty"
    return MirrorState(
        mirror.name, index.meta["kind"], word, detail, count, index.age() if age is None else age
    )


def _not_read(mirror: Mirror) -> MirrorState:
    return MirrorState(mirror.name, "", "not-read", "delivers what the page names; its index is not needed")


def _none_usable(states: Sequence[MirrorState]) -> NoUsableMirrorError:
    lines = "; ".join(f"{s.mirror} is {s.state}" + (f": {s.detail}" if s.detail else "") for s in states)
    return NoUsableMirrorError(
        f"no mirror could be read: {lines}",
        hint="check the URL or path: a mirror is the directory above v3/, or a cache.spack.io page (specs.md)",
        context={"mirrors": [state.to_dict() for state in states]},
    )
