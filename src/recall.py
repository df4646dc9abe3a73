"""Answers that were given before: the same question about unchanged indexes has the same answer.

A choice depends on nothing but the question, the host, the settings and the bytes of the indexes (docs/semantics.md,
"Determinism"), and on which prefixes of externals exist. All of that is kept with an answer and compared, so what is
recalled is what would be computed. The store holds 256 answers, one a slot; a damaged or foreign one counts as none.
"""

from __future__ import annotations

import binascii
import json
import os
import time

from . import __version__
from .resolver import model, resolution
from .values import changed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from .resolver.model import Host
    from .resolver.resolution import Resolution
    from .resolver.rules.context import Policy
    from .sources import Sources

#: Bytes of an answer beyond which it is not kept.
LIMIT = 2 << 20
_SLOTS = 0xFF
#: Seconds after which an unfinished answer can only be what a killed run left.
_LEFTOVER_S = 3600.0
_CLASSES = {
    made.__name__: made
    for made in (
        model.Host,
        model.Libc,
        model.Compiler,
        resolution.Artifact,
        resolution.Coverage,
        resolution.Difference,
        resolution.MirrorState,
        resolution.Missing,
        resolution.Other,
        resolution.Rejection,
        resolution.Resolution,
        resolution.Root,
    )
}
#: What JSON holds as it is.
_PLAIN = frozenset((str, int, float, bool, type(None)))
#: Where the modules are that decide about answers: in a working copy of cachefetch, a changed file is another program.
_DECIDING = (
    "",
    "resolver",
    "resolver/rules",
    "resolver/spec",
    "resolver/host",
    "resolver/index",
    "resolver/index/readers",
)


def question(sources: Sources, host: Host, policy: Policy, **asked: Any) -> str:
    """Return all that an answer depends on, as a text; "" where the sources are not all indexes of the store."""
    metas = [source.meta for source in sources.specs.sources]
    if sources.pages or not metas or not all(meta.get("sha256") for meta in metas):
        return ""
    names = [source.mirror for source in sources.specs.sources]
    indexes = [[name, meta["sha256"], meta["version"]] for name, meta in zip(names, metas, strict=True)]
    rules = [policy.libc, policy.stack, sorted((k, list(v)) for k, v in policy.providers.items())]
    about = [host.to_dict(), repr(host.libc), sorted(host.overridden)]
    return json.dumps([__version__, _program(), indexes, about, rules, sorted(asked.items())], sort_keys=True)


def recall(directory: str, asked: str, sources: Sources) -> Resolution | None:
    """Return the answer to a question, with the mirrors' states of now; None when it must be computed.

    Args:
        directory: where answers are kept.
        asked: from `question`.
        sources: what the question is about.
    """
    try:
        with open(_path(directory, asked), "rb") as file:
            check, _, data = file.read().partition(b"\n")
        if int(check, 16) != binascii.crc32(data):
            return None
        known, prefixes, packed = json.loads(data)
        if known != asked or any(os.path.exists(path) != there for path, there in prefixes):
            return None
        answer: Resolution = _unpacked(packed)
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    return changed(answer, mirrors=sources.current_states())


def keep(directory: str, asked: str, answer: Resolution, prefixes: Mapping[str, bool]) -> None:
    """Keep an answer, and which prefixes it looked for; where nothing can be written, nothing is."""
    data = json.dumps([asked, list(prefixes.items()), _packed(answer)], separators=(",", ":")).encode()
    if len(data) > LIMIT:
        return
    path = _path(directory, asked)
    temporary = f"{path}.{os.getpid()}.{time.monotonic_ns():x}"
    try:
        os.makedirs(directory, exist_ok=True)
        _drop_leftovers(directory)
        with open(temporary, "wb") as file:
            file.write(b"%08x\n" % binascii.crc32(data) + data)
        os.replace(temporary, path)
    except OSError:
        if os.access(temporary, os.F_OK):
            os.unlink(temporary)


def _drop_leftovers(directory: str) -> None:
    """Remove what writers that were killed left: unfinished answers have a dot in their names."""
    for name in os.listdir(directory):
        path = os.path.join(directory, name)
        if "." in name and time.time() - os.stat(path).st_mtime > _LEFTOVER_S:
            os.unlink(path)


def _path(directory: str, asked: str) -> str:
    return os.path.join(directory, f"{binascii.crc32(asked.encode()) & _SLOTS:02x}")


def _program() -> list[int]:
    """Return number, sizes and times of the deciding modules, summed, as far as there are files."""
    here = os.path.dirname(os.path.abspath(__file__))
    infos = []
    for place in _DECIDING:
        try:
            with os.scandir(os.path.join(here, place)) as entries:
                infos += [entry.stat() for entry in entries if entry.name.endswith(".py")]
        except OSError:  # imported from an archive
            continue
    return [len(infos), sum(info.st_size for info in infos), sum(info.st_mtime_ns for info in infos)]


def _packed(value: Any) -> Any:
    """Return a value as JSON can hold it without loss: a list begins with what it is."""
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is tuple:
        return ["", *_each(value)]
    if kind is list:
        return ["list", *_each(value)]
    if kind is dict:
        return {key: _packed(inner) for key, inner in value.items()}
    if kind is frozenset:
        return ["frozenset", *sorted(value)]
    return [_CLASSES[kind.__name__].__name__, *_each([getattr(value, name) for name in value.__match_args__])]


def _each(values: Iterable[Any]) -> list[Any]:
    """Pack values, most of which need none: an answer has thousands of texts."""
    return [value if type(value) in _PLAIN else _packed(value) for value in values]


def _unpacked(value: Any) -> Any:
    if type(value) is list:
        kind, values = value[0], [_unpacked(v) if type(v) in (list, dict) else v for v in value[1:]]
        if not kind:
            return tuple(values)
        made = _CLASSES.get(kind)
        return made(*values) if made else values if kind == "list" else frozenset(values)
    return {key: _unpacked(inner) for key, inner in value.items()} if type(value) is dict else value


def exists_noting(seen: dict[str, bool]) -> Any:
    """Return `os.path.exists` that notes in `seen` what it was asked and said."""

    def exists(path: str) -> bool:
        seen[path] = os.path.exists(path)
        return seen[path]

    return exists


def is_askable(
    specs: Sequence[str], requirements: Sequence[str], others: Sequence[Host], pinned: object
) -> bool:
    """Return True for a question whose answer is kept."""
    return bool(specs) and not requirements and not others and pinned is None
