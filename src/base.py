"""What both clients share: options, configuration, host, and the step functions. Opens no network.

`sources` has generators of mirror requests, `answers` what is decided from their results; a client runs them.
"""

from __future__ import annotations

import os
import time

from .answers import (
    known_hashes,
    listing,
    parse_constraint,
    parse_queries,
    resolve,
    shown,
    spliced_without_binary,
)
from .config import Config, Mirror, distinct, load, mirror_from_argument, spack_mirrors, without_login
from .errors import (
    AccessError,
    CachefetchError,
    NoUsableMirrorError,
    ResolutionError,
    StoreError,
    UsageError,
    cannot_write,
)
from .pins import Pin, find_pins
from .recall import exists_noting, is_askable, keep, question, recall
from .resolver.index.readers import METADATA_LIMIT, SNIFF_SIZE, Answer
from .resolver.rules.context import Policy
from .sources import index_facts, open_known, open_sources
from .values import changed, frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import TypeVar

    from .fetch.events import Reporter
    from .fetch.keys import Published
    from .fetch.limits import Limits
    from .fetch.model import Receipt
    from .fetch.verify.freshness import Seen
    from .resolver.host.overrides import HostOverrides
    from .resolver.index.readers import Get
    from .resolver.index.store import IndexStore
    from .resolver.model import Host
    from .resolver.resolution import Artifact, Listing, Resolution, Shown
    from .sources import IndexFacts, Sources, Steps

    T = TypeVar("T")


@frozen
class Options:
    """What a client was made with; see `AsyncClient` for the meaning."""

    mirrors: tuple[Mirror, ...]
    config: Config
    offline: bool
    refresh: bool
    policy: Policy
    require_fresh: bool = False
    max_index_age: float | None = None


class Base:
    """Configuration, host and the step functions, shared by both clients. Opens nothing."""

    def __init__(
        self,
        mirrors: Iterable[str | os.PathLike[str] | Mirror] = (),
        *,
        keys: Iterable[str | os.PathLike[str]] = (),
        unsigned: bool = False,
        offline: bool = False,
        refresh: bool = False,
        stack: str | None = None,
        require_fresh: bool = False,
        max_index_age: float | None = None,
        config: Config | None = None,
        limits: Limits | None = None,
        reporter: Reporter | None = None,
    ) -> None:
        settings = config if config is not None else load()
        for name, value in (("mirrors", mirrors), ("keys", keys)):
            if isinstance(value, (str, bytes)):
                raise TypeError(f"{name} is a list of several, not one string: {name}=[{value!r}]")
        key_files = tuple(os.path.abspath(path) for path in keys)
        named = distinct(
            without_login(m)
            if isinstance(m, Mirror)
            else mirror_from_argument(os.fspath(m), settings, unsigned=unsigned, key_files=key_files)
            for m in mirrors
        )
        self.options = Options(
            named or settings.mirrors,
            settings,
            offline,
            refresh,
            Policy(libc=settings.libc, stack=stack),
            require_fresh,
            max_index_age,
        )
        self._limits = limits
        self._reporter = reporter
        self._sources: Sources | None = None
        self._known: dict[frozenset[str], Sources] = {}
        self._index_store: IndexStore | None = None
        self._key_problems: tuple[str, ...] = ()
        #: (mirror, message) of every index that is an older one again.
        self.rollbacks: tuple[tuple[str, str], ...] = ()
        #: (mirror, message) where what was seen of the index is lost.
        self.forgotten: tuple[tuple[str, str], ...] = ()
        self._begin()

    def _begin(self) -> None:
        """Make what one kind of client needs besides."""

    def _detect(self, overrides: HostOverrides | None) -> Host:
        from .resolver.host.detect import detect

        return detect(overrides=overrides, cache_dir=self.options.config.cache_dir)

    def mirrors(self) -> tuple[Mirror, ...]:
        """Return the mirrors in use: those given, else those configured, else those of Spack's own configuration.

        Raises:
            ConfigError: Spack's configuration cannot be read.
        """
        return self.options.mirrors or spack_mirrors()

    def pins(self, *specs: str) -> tuple[Pin, ...]:
        """Return what `specs` name in full (``NAME@=VERSION/HASH``), as far as needs no index; () for other specs.

        A ``/HASH`` is looked for in mirrors that are directories without an index.

        Raises:
            UsageError: a hash begins like those of several packages.
        """
        return find_pins(specs, [mirror.location for mirror in self.mirrors()]) if specs else ()

    def indexes(self, *, check: bool = False) -> tuple[IndexFacts, ...]:
        """Return what the local index holds, without asking any mirror; `check` reads and hashes all of it."""
        return index_facts(self._indexes(), check=check)

    def _indexes(self) -> IndexStore:
        if self._index_store is None:
            from .resolver.index.store import IndexStore

            self._index_store = IndexStore(os.path.join(self.options.config.cache_dir, "index"))
        return self._index_store

    def _close_sources(self) -> None:
        found, self._sources = self._sources, None
        if found is not None:
            found.specs.close()

    def _open_steps(self) -> Steps[Sources]:
        """Read the mirrors once a client."""
        if self._sources is None:
            self._sources = yield from self._judged_steps(self.mirrors(), refresh=self.options.refresh)
        return self._sources

    def _judged_steps(self, mirrors: Sequence[Mirror], *, refresh: bool) -> Steps[Sources]:
        """Read mirrors, and refuse those whose index is not as fresh as the options ask; see `_judge`."""
        o = self.options
        found = yield from open_sources(mirrors, o.config, self._indexes, refresh=refresh, offline=o.offline)
        try:
            self._judge(found)
        except BaseException:
            found.specs.close()
            raise
        return found

    def _freshness_steps(self, mirror: Mirror) -> Steps[None]:
        """Judge the index of a mirror whose packages are read without it.

        One that was never seen cannot be an older one again: it is read only when an option asks.
        """
        o = self.options
        asked = o.require_fresh or o.max_index_age is not None
        if asked or os.path.exists(os.path.join(self._indexes().directory(mirror.key), "seen.json")):
            try:
                found = yield from self._judged_steps((mirror,), refresh=not o.offline)
            except NoUsableMirrorError:
                if asked:
                    raise
            else:
                found.specs.close()

    def _warnings(self) -> tuple[str, ...]:
        """Return sentences about what was odd about keys and indexes."""
        return (*self._key_problems, *(message for _, message in (*self.forgotten, *self.rollbacks)))

    def key_notes(self) -> tuple[str, ...]:
        """Return a sentence for each file of the key directory that is damaged; the keys themselves are not read."""
        from .fetch.keyfiles import damaged_key_files

        return damaged_key_files(os.path.join(self.options.config.config_dir, "keys"))

    def _noted_steps(self, steps: Steps[Resolution]) -> Steps[Resolution]:
        """Add what is wrong with key files to the notes of the first root; that is never part of a kept answer."""
        answer = yield from steps
        notes = self.key_notes()
        if not notes or not answer.roots:
            return answer
        first, *rest = answer.roots
        return changed(answer, roots=(changed(first, notes=(*notes, *first.notes)), *rest))

    def _healed(self, work: Callable[[], Steps[T]]) -> Steps[T]:
        """Run a step function; when it meets a damaged local index, drop that one and run it once more."""
        try:
            return (yield from work())
        except StoreError as error:
            damaged = error.context.get("damaged")
            if damaged is None:
                raise
        self._indexes().drop(damaged)
        self._sources = None
        return (yield from work())

    def _judge(self, found: Sources) -> None:
        """Compare each index with what was seen of its mirror; note the rollbacks, and where that is lost.

        Raises:
            FreshnessError: an index is not as fresh as the options ask.
            StoreError: it cannot be remembered.
        """
        o, now, rollbacks, forgotten = self.options, time.time(), [*self.rollbacks], [*self.forgotten]
        states = {state.mirror: state.state for state in found.states}
        for source in found.specs.sources:
            if not (meta := source.meta):
                continue  # a page: read anew each time, and nothing is remembered of it
            from .fetch.verify import freshness

            memory = os.path.join(self._indexes().directory(meta["location"]), "seen.json")
            history, damaged = _recall_memory(memory)
            verdict = freshness.judge(history, meta["sha256"], int(meta["size"]), now)
            if verdict.history != history:
                _remember(memory, freshness.encode(verdict.history))
            checked = states.get(source.mirror) != "stale-ok"
            freshness.require(
                source.mirror,
                verdict,
                checked=checked,
                fresh=o.require_fresh,
                max_age=o.max_index_age,
                now=now,
                memory=memory,
                damaged=damaged,
            )
            if damaged:
                forgotten.append((source.mirror, freshness.forgotten_message(source.mirror, damaged)))
            if message := freshness.rollback_message(source.mirror, verdict):
                rollbacks.append((source.mirror, message))
        self.rollbacks = tuple(dict.fromkeys(rollbacks))
        self.forgotten = tuple(dict.fromkeys(forgotten))

    def _with_caveats(self, receipt: Receipt) -> Receipt:
        """Return the receipt with what was odd about keys and indexes."""
        from .fetch.model import Caveat, Receipt

        receipt = receipt.with_warnings("key-file", self._key_problems)
        if self._sources is not None:
            notes = self._sources.specs.dispute_notes(item.hash for item in receipt.items)
            receipt = receipt.with_warnings("mirrors-disagree", notes)
        more = tuple(
            Caveat(code, message, mirror)
            for code, doubts in (("history-damaged", self.forgotten), ("rollback", self.rollbacks))
            for mirror, message in doubts
        )
        return Receipt(receipt.items, receipt.network_bytes, receipt.warnings + more, receipt.status)

    def reconsider(self, error: CachefetchError) -> bool:
        """Let what other mirrors say of the packages that a fetch could not bring count from now on.

        Mirrors may describe a package differently; one of them lies. The fullest description counts first, with its own
        mirrors only. When these do not deliver what they describe, resolve again after this.

        Args:
            error: what `fetch` raised.

        Returns:
            False when the mirrors agree about all of these packages, or every description was tried.
        """
        hashes: set[str] = set()
        cause: BaseException | None = error
        while isinstance(cause, CachefetchError):
            hashes.update(str(one.get("hash")) for one in cause.context.get("failures", ()))
            cause = cause.__cause__
        return self._sources is not None and self._sources.specs.discredit(hashes)

    def _resolve_steps(
        self,
        specs: tuple[str, ...],
        host: Host | None,
        unify: bool,
        requirements: Sequence[str],
        prereleases: bool,
        others: Sequence[Host] = (),
        full: bool = True,
        pinned: Mapping[str, str] | None = None,
    ) -> Steps[Resolution]:
        queries = parse_queries(specs, requirements)  # a typing error shows before any mirror is asked
        known = known_hashes(queries)
        sources = None
        if known and self._sources is None:
            sources = yield from open_known(self.mirrors(), known)
        if sources is None:
            sources = yield from self._open_steps()
        else:
            self._known[frozenset(hash_ for _, _, hash_ in known)] = sources
        facts = host if host is not None else self._detect(None)
        asked, answers = "", os.path.join(self.options.config.cache_dir, "index", "answers")
        if not sources.specs.reconsidered and is_askable(specs, requirements, others, pinned):
            same = {
                "specs": list(specs),
                "unify": unify,
                "pre": prereleases,
                "full": full,
                "here": host is None,
            }
            asked = question(sources, facts, self.options.policy, **same)
            if asked and (known_answer := recall(answers, asked, sources)):
                return known_answer
        looked: dict[str, bool] = {}
        answer = resolve(
            specs,
            sources,
            facts,
            policy=self.options.policy,
            unify=unify,
            local_host=host is None,
            exists=exists_noting(looked),
            requirements=requirements,
            prereleases=prereleases,
            others=others,
            pinned=pinned,
            full=full,
        )
        if asked and not sources.specs.skipped():
            keep(answers, asked, answer, looked)
        return answer

    def _behind(self, answer: Resolution) -> Steps[Sources]:
        """Return the sources that an answer was made from."""
        known = self._known.get(frozenset(root.chosen.hash for root in answer.roots if root.chosen))
        return known or (yield from self._open_steps())

    def _show_steps(self, spec: str, host: Host | None) -> Steps[Shown]:
        if len(parse_queries((spec,))) > 1:
            raise UsageError(f"{spec} names more than one binary", hint="ask for one at a time")
        sources = yield from self._open_steps()
        query = parse_queries((spec,), specs=sources.specs)
        facts = host if host is not None else self._detect(None)
        return changed(shown(query[0], sources, facts, policy=self.options.policy), notes=self.key_notes())

    def _list_steps(self, spec: str | None, externals: bool, host: Host | None) -> Steps[Listing]:
        parse_constraint(spec)  # a typing error shows before any mirror is asked
        sources = yield from self._open_steps()
        constraint = parse_constraint(spec, sources.specs)
        found = listing(constraint, sources, externals=externals, host=host, policy=self.options.policy)
        return changed(found, notes=(*self.key_notes(), *found.notes))

    def _key_steps(self) -> Steps[dict[str, tuple[Published, ...]]]:
        from .fetch.keys import published

        if not self.mirrors():
            raise UsageError("no mirror is configured", hint="name one with -m URL|DIRECTORY")
        found = {}
        for mirror in self.mirrors():
            found[mirror.name] = yield from published(mirror.location)
        return found

    def _artifact_steps(self, spec: str, host: Host | None) -> Steps[Artifact]:
        """Choose the one binary to unpack; a hash alone is looked up, not matched with this host."""
        if not spec.startswith("/"):
            answer = yield from self._resolve_steps((spec,), host, False, (), False)
            if len(answer.roots) != 1:
                raise UsageError(f"{spec!r} names {len(answer.roots)} packages; one is unpacked at a time")
            if answer.roots[0].chosen is None:
                raise resolution_error(answer)
            return answer.roots[0].chosen
        found = (yield from self._list_steps(spec, False, None)).specs
        if not found and self._sources is not None:
            query = parse_queries((spec,), specs=self._sources.specs)[0]
            if spliced := spliced_without_binary(query, self._sources.specs):
                raise UsageError(
                    spliced[0],
                    hint=f"`cachefetch extract /{spliced[1]} DIR`",
                    context={"hash": spec, "matches": 0},
                )
        if len(found) != 1:
            names = ", ".join(f"{a.name}/{a.hash}" for a in found[:5])
            raise UsageError(
                f"{spec} means {len(found)} binaries: {names}" if found else f"no mirror has a binary {spec}",
                hint="give more of the hash" if found else "`cachefetch list` shows what the mirrors hold",
                context={"hash": spec, "matches": len(found)},
            )
        return found[0]


def answer_local(get: Get) -> Answer:
    """Answer a request for a path of this machine, without any network module."""
    path = get.url
    try:
        if os.path.isdir(path):
            return Answer(200, names=tuple(sorted(os.listdir(path))))
        if get.spool and os.path.isfile(path) and os.access(path, os.R_OK):
            if not get.sniff or get.sniff in read_head(path, SNIFF_SIZE):
                return Answer(200, path=path, local=True)
            return Answer(200, body=read_head(path, METADATA_LIMIT))
        etag = _file_tag(path)
        if etag and etag == get.etag:
            return Answer(304, etag=etag)
        from .fetch.transports.file import read_local  # costs 10 ms, and a current index is not read

        return Answer(200, body=read_local(path, get.limit), etag=etag)
    except CachefetchError as error:
        return Answer(0, error=error)
    except OSError as error:
        return Answer(0, error=AccessError(f"cannot list {path}: {error.strerror}", context={"path": path}))


def _file_tag(path: str) -> str | None:
    """Return what changes whenever a file does; None where there is none."""
    try:
        info = os.stat(path)
    except OSError:
        return None
    return f"{info.st_size:x}-{info.st_mtime_ns:x}-{info.st_ctime_ns:x}-{info.st_ino:x}"


def read_head(path: str, size: int) -> bytes:
    """Return the first `size` bytes of a file."""
    with open(path, "rb") as file:
        return file.read(size)


def _recall_memory(path: str) -> tuple[tuple[Seen, ...], str]:
    """Return what was seen of an index, and the path of a damaged file of it ("" when there is none).

    A damaged one is put aside, where it stays until somebody removes it: nobody can say any more what it held.
    """
    from .fetch.verify import freshness

    damaged = f"{path}.damaged"
    try:
        with open(path, "rb") as file:
            history = freshness.decode(file.read())
    except FileNotFoundError:
        history = ()  # never seen
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}", context={"path": path}) from error
    if history is None:
        try:
            os.replace(path, damaged)
        except OSError as error:
            raise cannot_write(damaged, damaged, error, cache=True) from error
    return history or (), damaged if os.path.lexists(damaged) else ""


def _remember(path: str, data: bytes) -> None:
    """Replace a small file of the store; whoever writes last wins, and no reader sees a half."""
    temporary = f"{path}.{os.getpid()}"
    try:
        with open(temporary, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except OSError as error:
        raise cannot_write(path, path, error, cache=True) from error


def is_local(url: str) -> bool:
    """Return True for a path of this machine."""
    return "://" not in url


def resolution_error(answer: Resolution, asked: CachefetchError | None = None) -> ResolutionError:
    """Return the exception for an answer that cannot be fetched; `asked` is what the mirrors said to a fetch."""
    from .resolver.explain import conflict_lines, missing_lines, next_complete, no_candidate_lines

    hint = ""
    if answer.status == "no-candidate":
        lines = [
            line for root in answer.roots if root.chosen is None for line in no_candidate_lines(answer, root)
        ]
    elif answer.status == "conflict":
        lines = conflict_lines(answer)
    else:
        lines = missing_lines(answer)
        hint = next_complete(answer)
    if asked is not None:
        lines = [*lines, f"asked    {asked.message}"]
    return ResolutionError(
        "\n".join(lines), answer, code=answer.status, exit_code=answer.exit_code, hint=hint
    )


def not_both(specs: Sequence[str], requirements: Sequence[str]) -> None:
    """Refuse what was asked for beside a resolution. Raises UsageError."""
    if specs or requirements:
        raise UsageError(
            f"fetch got a resolution and {' '.join((*specs, *requirements))!r} too",
            hint="give the specs to `resolve`, or leave the resolution out",
        )
