"""The lock file: what was asked, for which host, what was chosen, and the digests of every blob (pure).

`write` makes the document from an answer and the proven manifests; `Lock.read` takes it back; `changes` says what
no longer holds. The file is JSON, ``cachefetch/lock/1``, with sorted keys and one line a value, so that it can be
kept under version control.
"""

from __future__ import annotations

import json

from .errors import FormatError
from .resolver import targets
from .resolver.explain import host_line
from .resolver.saved import host_from
from .resolver.spec.versions import parse_version
from .values import check_types, frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from .resolver.model import Host
    from .resolver.resolution import Resolution

SCHEMA = "cachefetch/lock/1"
DEFAULT_NAME = "cachefetch.lock"


@frozen
class Locked:
    """One binary: sha256 and size in bytes of its tarball and of its spec document."""

    name: str
    version: str
    hash: str
    sha256: str
    size: int
    spec_sha256: str
    spec_size: int


@frozen
class LockedPolicy:
    """The signature policy of a mirror when the lock was made: `url` without secrets, `signed`, pinned `keys`."""

    mirror: str
    url: str
    signed: str
    keys: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return an entry of ``policies``."""
        return {"mirror": self.mirror, "url": self.url, "signed": self.signed, "keys": list(self.keys)}


@frozen
class Lock:
    """A lock file. `roots` maps canonical queries to hashes, `needs` has the facts that a host must meet."""

    roots: Mapping[str, str]
    host: Host
    packages: tuple[Locked, ...]
    mirrors: tuple[str, ...]
    decided_by: Mapping[str, tuple[str, ...]]
    policies: tuple[LockedPolicy, ...] = ()

    @classmethod
    def read(cls, data: bytes, *, what: str) -> Lock:
        """Return the lock.

        Raises:
            FormatError: not JSON, another document, or a field is missing or of another type.
        """
        hint = "make it with `cachefetch resolve SPEC... --lock FILE`"
        try:
            document = json.loads(data)
            if not isinstance(document, dict) or document.get("schema") != SCHEMA:
                raise FormatError(f"{what} is no {SCHEMA} document", hint=hint)
            roots = document["roots"]
            packages = tuple(Locked(**entry) for entry in document["packages"])
            known = {package.hash for package in packages}
            if not roots or not all(root["hash"] in known for root in roots):
                raise ValueError("a root is not among the packages")
            lock = cls(
                {root["query"]: root["hash"] for root in roots},
                host_from(document["host"]),
                packages,
                tuple(document["mirrors"]),
                {root["query"]: tuple(root["decided_by"]) for root in roots},
                tuple(map(_policy, document.get("policies", []))),
            )
            check_types(lock)
            return lock
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise FormatError(f"{what} is no usable lock file: {_reason(error)}", hint=hint) from None


def _reason(error: Exception) -> str:
    """Return what is wrong with a document, without the words of Python."""
    if isinstance(error, KeyError):
        return f"{error.args[0]!r} is missing"
    if isinstance(error, json.JSONDecodeError):
        return f"it is not JSON: {error.msg} (line {error.lineno})"
    if isinstance(error, (UnicodeDecodeError, RecursionError)):
        return "it is not JSON"
    if isinstance(error, (TypeError, AttributeError)):
        return "a field is missing, unknown, or of another type than it must be"
    return str(error)


def _policy(entry: Mapping[str, Any]) -> LockedPolicy:
    found = LockedPolicy(entry["mirror"], entry["url"], entry["signed"], tuple(entry["keys"]))
    if found.signed not in _STRICTNESS or not all(isinstance(v, str) for v in (found.url, *found.keys)):
        raise ValueError("a policy is none of required, if-present and none")
    return found


#: Policies from the weakest to the strictest.
_STRICTNESS = ("none", "if-present", "required")


def weaker(lock: Lock, mirrors: Sequence[LockedPolicy]) -> tuple[str, ...]:
    """Return which mirrors have a weaker policy now than when the lock was made; see `weaker_than`."""
    return weaker_than(lock.policies, mirrors)


def weaker_than(locked: Sequence[LockedPolicy], mirrors: Sequence[LockedPolicy]) -> tuple[str, ...]:
    """Return which mirrors have a weaker policy now than those of the lock; () when none has.

    A mirror is known by its URL. One that the lock does not name must be as strict as the weakest that it names.
    """
    known = {policy.url: policy for policy in locked}
    least = min((policy.signed for policy in locked), key=_STRICTNESS.index, default="none")
    found = []
    for mirror in mirrors:
        was = known.get(mirror.url) or LockedPolicy("", mirror.url, least)
        if _STRICTNESS.index(mirror.signed) < _STRICTNESS.index(was.signed):
            found.append(f"{mirror.mirror}: signed = {mirror.signed}, locked with {was.signed}")
        elif was.keys and was.signed != "none" and not set(mirror.keys) <= set(was.keys):
            found.append(f"{mirror.mirror}: keys are accepted that the lock does not pin")
        elif was.keys and was.signed != "none" and not mirror.keys:
            found.append(f"{mirror.mirror}: no key is pinned, locked with {', '.join(was.keys)}")
    return tuple(found)


def write(answer: Resolution, packages: tuple[Locked, ...], policies: Sequence[LockedPolicy] = ()) -> bytes:
    """Return the lock file for an answer whose status is ok; `policies` are those of the mirrors that deliver."""
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "host": answer.host.to_dict(),
        "roots": [
            {"query": r.query, "hash": r.chosen.hash, "decided_by": list(r.decided_by)}
            for r in sorted(answer.roots, key=lambda root: root.query)
            if r.chosen
        ],
        "packages": [
            {name: getattr(package, name) for name in Locked.__match_args__}
            for package in sorted(packages, key=lambda p: (p.name, p.version, p.hash))
        ],
        "mirrors": sorted(state.mirror for state in answer.mirrors if state.usable),
        "policies": [policy.to_dict() for policy in sorted(policies, key=lambda p: (p.url, p.mirror))],
    }
    return json.dumps(document, indent=1, sort_keys=True).encode() + b"\n"


def host_changes(lock: Lock, host: Host) -> tuple[str, ...]:
    """Return why this host may not run what was locked for another one; () when it may.

    What runs on the locked host runs here when platform and libc kind are the same, this CPU is that target or a
    descendant of it, and this libc is not older. Elsewhere the OS must be the same.
    """
    was, found = lock.host, []
    if was.platform != host.platform:
        found.append(f"platform {host.platform}, locked for {was.platform}")
    if not targets.runs_on(was.target, host.target):
        found.append(f"target {host.target}, locked for {was.target}")
    if host.platform != "linux" and was.os != host.os:
        found.append(f"os {host.os}, locked for {was.os}")
    if was.libc is not None:
        mine = host.libc
        same = mine is not None and mine.kind == was.libc.kind
        same = same and (not mine or not mine.prefix or mine.prefix == (was.libc.prefix or mine.prefix))
        if mine is None or not same or parse_version(mine.version) < parse_version(was.libc.version):
            found.append(f"libc {mine or 'unknown'}, locked for {was.libc}")
    return tuple(found)


def made_elsewhere(lock: Lock, host: Host) -> str:
    """Say that a host which may run what was locked is not the one it was locked for; "" when it is that one."""
    if all(getattr(lock.host, fact) == getattr(host, fact) for fact in ("platform", "os", "target", "libc")):
        return ""
    was, now = host_line(lock.host), host_line(host)
    return f"the lock file was made for another host, {was}; this one, {now}, can run what it names"


def changes(lock: Lock, packages: tuple[Locked, ...]) -> tuple[str, ...]:
    """Return in what packages differ from the locked ones; () when they are the same."""
    now = {package.hash: package for package in packages}
    found = []
    for was in lock.packages:
        label = f"{was.name}@{was.version}/{was.hash[:7]}"
        new = now.pop(was.hash, None)
        if new is None:
            found.append(f"{label} is not part of the answer any more")
        elif new != was:
            found.append(
                f"{label}: sha256 {new.sha256[:12]} ({new.size} bytes), locked {was.sha256[:12]} ({was.size})"
            )
    found += [f"{p.name}@{p.version}/{p.hash[:7]} is not in the lock file" for p in now.values()]
    return tuple(found)
