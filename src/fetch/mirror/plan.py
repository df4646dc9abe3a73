"""What a sync copies and what is there already. Pure: packages, keys and listings in, a plan out."""

from __future__ import annotations

from dataclasses import dataclass, field

from ...resolver.index.writer import needed_by_nodes, users_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from typing import Any

    from ...errors import CachefetchError
    from ...resolver.index.writer import Lookup
    from ..model import Caveat, Source, VerifiedPackage, Wanted
    from .journal import Row


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is not as it should be.

    Attributes:
        hash: DAG hash of the package, or "".
        name: its name; of something else what it is ("index", "key").
        what: the code of the error, such as "not-found" or "digest-mismatch".
        message: one sentence.
        needed_by: labels of the packages that need this one.
        path: the file below the mirror, or "".
    """

    hash: str
    name: str
    what: str
    message: str
    needed_by: tuple[str, ...] = ()
    path: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return an entry of ``problems`` in ``cachefetch/sync/1`` and ``cachefetch/verify/1``."""
        return {
            "hash": self.hash,
            "name": self.name,
            "what": self.what,
            "message": self.message,
            "needed_by": list(self.needed_by),
            "path": self.path,
        }


@dataclass(frozen=True, slots=True)
class Listing:
    """Files of a mirror directory: blobs (name -> size) and manifests (``NAME-VERSION-HASH`` -> path).

    A blob's name is its sha256 in layout 3, its path in layout 2; there spec files count as blobs too.
    """

    blobs: Mapping[str, int]
    manifests: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Job:
    """What a sync is asked for.

    Attributes:
        wanted: the packages, closure included, each with the mirrors to ask.
        sources: all mirrors, for their keys.
        needed_by: DAG hash -> labels of the packages that need it.
        missing: closure nodes that no mirror has.
        lookup: the sources' node of a DAG hash, for the index.
        pins: DAG hash -> sha256 that a lock file promises of the tarball.
        awaited: DAG hashes of packages that may come later: what needs one that is not there yet is not listed.
        otherwise: given the DAG hashes of packages that could not be proven, returns the job as other mirrors describe
            these; None when all agree about them.
        disputed: DAG hashes that mirrors describe differently: what the journal has of them does not show which
            description it was proven by.
        notes: sentences about these.
        doubted: tells of a DAG hash whether sources write its node differently: then spec documents decide what the
            index gets.
    """

    wanted: tuple[Wanted, ...]
    sources: tuple[Source, ...]
    needed_by: Mapping[str, tuple[str, ...]]
    missing: tuple[Problem, ...]
    lookup: Lookup
    pins: Mapping[str, str] = field(default_factory=dict)
    awaited: frozenset[str] = frozenset()
    otherwise: Callable[[frozenset[str]], Job | None] = field(default=lambda _: None)
    disputed: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()
    doubted: Callable[[str], bool] = field(default=lambda _: False)


@dataclass(frozen=True, slots=True)
class Terms:
    """What an index lists of the packages that are there.

    Attributes:
        awaited: DAG hashes of packages that failed, or come later: what needs one that is not there is not listed.
        absent: those that no source has: what needs them is listed, as the sources do.
        repair: what was listed and is there stays listed, whatever it needs; where nothing is right the index of
            before stays, too.
    """

    awaited: frozenset[str] = frozenset()
    absent: frozenset[str] = frozenset()
    repair: bool = False

    def waiting(
        self, held: Collection[str], before: Collection[str], nodes: Mapping[str, Mapping[str, Any]]
    ) -> set[str]:
        """Return which of the packages `held` the index must not list yet.

        Those that were not listed `before` are also looked at for what an earlier run failed to bring: what they wait
        for may be outside of this run's selection.

        Args:
            held: DAG hashes of what is there.
            before: of what the index of before lists.
            nodes: see `with_closure`.
        """
        waiting = users_of(lacking, nodes) if (lacking := self.awaited.difference(held)) else set()
        if self.repair:
            return waiting.intersection(held)
        new = set(held).difference(before)
        outside = {hash_ for hash_ in needed_by_nodes(new, nodes) if hash_ not in held}
        outside -= self.absent | {hash_ for hash_ in outside if nodes.get(hash_, {}).get("external")}
        if outside:
            waiting |= users_of(outside, nodes) & new
        return waiting.intersection(held)


@dataclass(frozen=True, slots=True)
class SyncPlan:
    """Blobs to copy, sha256 -> size; number of needed blobs that are there; files that nothing names, path -> size."""

    copy: Mapping[str, int]
    present: int
    prune: Mapping[str, int]

    @property
    def copy_bytes(self) -> int:
        """Bytes to copy."""
        return sum(self.copy.values())

    def to_dict(self) -> dict[str, int]:
        """Return ``plan`` of ``cachefetch/sync/1``."""
        return {
            "copy_blobs": len(self.copy),
            "copy_bytes": self.copy_bytes,
            "present": self.present,
            "prune": len(self.prune),
        }


@dataclass(frozen=True, slots=True)
class SyncReport:
    """What a sync did: `status` is "ok", "partial" or "no-candidate"; `done` has counts and bytes.

    `waiting` are the packages (``NAME-VERSION-HASH``) that are there, and not in the index until what they need is.
    `failures` are what mirrors did wrong where another one delivered; `warnings` tells of them, too.
    """

    status: str
    plan: SyncPlan
    done: Mapping[str, int]
    problems: tuple[Problem, ...]
    warnings: tuple[str, ...] = ()
    dry_run: bool = False
    failures: tuple[Caveat, ...] = ()
    waiting: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 done, 3 nothing matches, 9 partly done."""
        return {"ok": 0, "no-candidate": 3}.get(self.status, 9)

    def to_dict(self) -> dict[str, Any]:
        """Return the ``cachefetch/sync/1`` document (docs/schemas/sync-1.json)."""
        return {
            "schema": "cachefetch/sync/1",
            "status": self.status,
            "dry_run": self.dry_run,
            "plan": self.plan.to_dict(),
            "done": dict(self.done),
            "problems": [problem.to_dict() for problem in self.problems],
            "warnings": list(self.warnings),
            "failures": [failure.to_dict() for failure in self.failures],
            "waiting": list(self.waiting),
        }


def by_digest(package: VerifiedPackage) -> tuple[tuple[str, int], tuple[str, int]]:
    """Return name and size of tarball and spec document in layout 3."""
    return (package.tarball.sha256, package.tarball.size), (package.spec.sha256, package.spec.size)


def make_plan(
    packages: Iterable[VerifiedPackage],
    rows: Iterable[Row],
    small: Mapping[str, int],
    there: Mapping[str, int],
    prune: Mapping[str, int],
    names: Callable[[VerifiedPackage], Iterable[tuple[str, int]]] = by_digest,
) -> SyncPlan:
    """Return the plan.

    Args:
        packages: proven, not recorded as complete.
        rows: complete packages of the selection.
        small: key blobs, name -> size.
        there: blobs at the destination before this run, name -> size.
        prune: what nothing names, path -> size.
        names: returns names and sizes of a package's blobs.
    """
    needed = dict(small)
    for package in packages:
        needed.update(names(package))
    copy = {name: size for name, size in needed.items() if there.get(name) != size}
    for row in rows:
        needed.update(row.blobs)
    return SyncPlan(copy, len(needed) - len(copy), prune)


def is_complete(row: Row, there: Mapping[str, int]) -> bool:
    """True when both blobs of a recorded package are at the destination with the recorded sizes."""
    return all(there.get(sha256) == size for sha256, size in row.blobs)


def meets_policy(row: Row, source: Source) -> bool:
    """True when the way a package was proven satisfies `source`'s policy of today."""
    policy = source.policy
    if policy.mode == "none":
        return True
    if row.signature == "good":
        return row.key in source.keyring.fingerprints and (not policy.pinned or row.key in policy.pinned)
    return policy.mode == "if-present" and row.signature == "none"


def problem_of(
    wanted: Wanted, error: CachefetchError, needed_by: Mapping[str, tuple[str, ...]], path: str = ""
) -> Problem:
    """Return the problem that a failed package is."""
    return Problem(wanted.hash, wanted.name, error.code, error.message, needed_by.get(wanted.hash, ()), path)


def shard_of(things: Sequence[Wanted], number: int, of: int, digest: Callable[[str], bytes]) -> list[Wanted]:
    """Return the part of a plan that worker `number` (1 to `of`) copies; every package is in exactly one part."""
    return [one for one in things if int.from_bytes(digest(one.hash)[:4]) % of == number - 1]
