"""The frozen answer of the resolver: what was chosen, and everything that was not, with the reason.

`to_dict` is the ``cachefetch/resolve/1`` document (docs/cli.md). Text for people is made from these values in
`explain`, and from nothing else.
"""

from __future__ import annotations

from ..values import changed, frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from .model import Edge, Host, Libc, Mismatch, Node

#: `Resolution.status` values and the exit codes that go with them (docs/cli.md).
EXIT_CODES = {"ok": 0, "no-candidate": 3, "incomplete": 4, "conflict": 5}

#: Reasons that the request gives against a candidate, in the order in which they are checked.
REQUEST_REASONS = (
    "name", "hash", "namespace", "version", "version-exact", "version-prerelease", "variant", "variant-absent",
    "variant-exact", "flags", "query-os", "query-target", "query-platform", "compiler", "compiler-lang", "no-compiler",
    "dependency-missing", "dependency", "virtual-version", "stack",
)  # fmt: skip
#: Reasons that the host gives, in the order of the gates.
HOST_REASONS = (
    "platform", "target", "target-unknown", "libc-kind", "libc-prefix", "libc-unknown", "libc", "os", "dev",
    "target-dep", "external", "runtime",
)  # fmt: skip
REASONS = REQUEST_REASONS + HOST_REASONS


@frozen
class Artifact:
    """One binary: enough to fetch it, and to show it. `libc` may be inferred; None when nothing is recorded."""

    name: str
    version: str
    hash: str
    platform: str
    os: str
    target: str
    compiler: str | None
    libc: Libc | None
    mirrors: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the `chosen` object."""
        libc = self.libc
        return {
            "name": self.name,
            "version": self.version,
            "hash": self.hash,
            "platform": self.platform,
            "os": self.os,
            "target": self.target,
            "compiler": self.compiler,
            "libc": {**libc.to_dict(), "inferred": libc.inferred} if libc else None,
            "mirrors": list(self.mirrors),
        }

    def brief(self) -> dict[str, Any]:
        """Return the `closure` entry."""
        return {"name": self.name, "version": self.version, "hash": self.hash, "mirrors": list(self.mirrors)}


@frozen
class Rejection:
    """A candidate that failed: the first reason in gate order, and the codes of all (`also`)."""

    artifact: Artifact
    reason: str
    have: str
    need: str
    also: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the `rejected` entry."""
        a = self.artifact
        return {
            "hash": a.hash,
            "reason": self.reason,
            "have": self.have,
            "need": self.need,
            "also": list(self.also),
            "name": a.name,
            "version": a.version,
            "os": a.os,
            "target": a.target,
            "compiler": a.compiler,
        }


@frozen
class Difference:
    """One attribute in which a candidate differs from the chosen one: of which `node`, and `what`."""

    node: str
    what: str
    have: str
    best: str

    def __str__(self) -> str:
        """Return ``python version 3.11.9, not 3.12.4``."""
        return f"{self.node} {self.what} {self.have}, not {self.best}"

    def to_dict(self) -> dict[str, str]:
        """Return the entry of `differences`."""
        return {"node": self.node, "what": self.what, "have": self.have, "best": self.best}


@frozen
class Other:
    """A candidate that fits but is not the best: `worse_by` is the first key in which it loses.

    It is "unify" for one that the keys prefer, but that another root cannot live with: `have` and `best` then begin
    with the word of the key that prefers it. `differences` is None where
    the DAGs were not compared (far from the choice), () for a twin: nothing visible differs.
    """

    artifact: Artifact
    worse_by: str
    have: str = ""
    best: str = ""
    missing: int = 0
    differences: tuple[Difference, ...] | None = None

    @property
    def twin(self) -> bool:
        """True when nothing but build dependencies, recipe or build environment can differ from the choice."""
        return self.differences == ()

    def with_differences(self, found: tuple[Difference, ...]) -> Other:
        """Return a copy that says what differs."""
        return Other(self.artifact, self.worse_by, self.have, self.best, self.missing, found)

    def to_dict(self) -> dict[str, Any]:
        """Return the `others` entry."""
        a = self.artifact
        found = self.differences
        return {
            "hash": a.hash,
            "worse_by": self.worse_by,
            "have": self.have,
            "best": self.best,
            "missing": self.missing,
            "name": a.name,
            "version": a.version,
            "os": a.os,
            "target": a.target,
            "compiler": a.compiler,
            "differences": None if found is None else [difference.to_dict() for difference in found],
        }


@frozen
class Root:
    """The answer for one query. `candidates` = chosen (0 or 1) + len(others) + len(rejected), always.

    `keys` has the value of the chosen candidate in each key (whole numbers, lists of them, or the hash), `key_texts`
    what they mean.
    """

    query: str
    candidates: int
    chosen: Artifact | None
    decided_by: tuple[str, ...] = ()
    keys: Mapping[str, Any] = {}
    key_texts: Mapping[str, str] = {}
    others: tuple[Other, ...] = ()
    rejected: tuple[Rejection, ...] = ()
    relax: tuple[tuple[str, int], ...] = ()
    suggestions: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    closure_known: bool = True

    def funnel(self) -> dict[str, int]:
        """Number of rejected candidates by reason, in the order in which reasons are checked."""
        counts: dict[str, int] = {}
        for rejection in self.rejected:
            counts[rejection.reason] = counts.get(rejection.reason, 0) + 1
        return {reason: counts[reason] for reason in REASONS if reason in counts}

    def to_dict(self) -> dict[str, Any]:
        """Return the `roots` entry."""
        return {
            "query": self.query,
            "candidates": self.candidates,
            "chosen": self.chosen.to_dict() if self.chosen else None,
            "decided_by": list(self.decided_by),
            "keys": dict(self.keys),
            "key_texts": dict(self.key_texts),
            "twins": sum(other.twin for other in self.others),
            "others": [other.to_dict() for other in self.others],
            "rejected": [rejection.to_dict() for rejection in self.rejected],
            "funnel": self.funnel(),
            "relax": [{"drop": drop, "leaves": leaves} for drop, leaves in self.relax],
            "suggestions": list(self.suggestions),
            "notes": list(self.notes),
            "closure_known": self.closure_known,
        }


@frozen
class MirrorState:
    """What is known about one mirror: `state` is a word of docs/formats.md, `age` seconds since it was asked."""

    mirror: str
    kind: str
    state: str
    detail: str = ""
    specs: int = 0
    age: float | None = None

    @property
    def usable(self) -> bool:
        """True where specs could be read, also if there are none."""
        return self.state in ("fresh", "stale-ok", "empty", "not-read") and bool(self.kind)

    def to_dict(self) -> dict[str, Any]:
        """Return the `mirrors` entry."""
        return {
            "mirror": self.mirror,
            "kind": self.kind,
            "state": self.state,
            "detail": self.detail,
            "specs": self.specs,
            "age_s": None if self.age is None else round(self.age, 1),
        }


@frozen
class Missing:
    """A closure node without a binary in any mirror, and the nodes that need it.

    `build_spec` is the hash of the binary that Spack would make a spliced node from, None for any other node.
    """

    name: str
    hash: str
    needed_by: tuple[str, ...]
    build_spec: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the `missing` entry."""
        entry = {"name": self.name, "hash": self.hash, "needed_by": list(self.needed_by)}
        return {**entry, "build_spec": self.build_spec} if self.build_spec else entry


@frozen
class Coverage:
    """One host of several: for each root (query, number of candidates that fit there, True when one was chosen)."""

    host: Host
    roots: tuple[tuple[str, int, bool], ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the `coverage` entry."""
        return {
            "host": self.host.to_dict(),
            "roots": [
                {"query": query, "fits": count, "chosen": chosen} for query, count, chosen in self.roots
            ],
        }


@frozen
class Resolution:
    """The whole answer. Nothing else is needed to explain it, to fetch it, or to print it.

    `conflicts` says why several roots have no common set, `conflict_relax` which single condition of which root
    stands in the way: (query, condition).
    """

    status: str
    host: Host
    mirrors: tuple[MirrorState, ...]
    roots: tuple[Root, ...]
    closure: tuple[Artifact, ...] = ()
    host_provides: tuple[str, ...] = ()
    missing: tuple[Missing, ...] = ()
    conflicts: tuple[str, ...] = ()
    coverage: tuple[Coverage, ...] = ()
    conflict_relax: tuple[tuple[str, str], ...] = ()

    @property
    def exit_code(self) -> int:
        """The exit code of the command line for this answer."""
        return EXIT_CODES[self.status]

    def to_dict(self) -> dict[str, Any]:
        """Return the ``cachefetch/resolve/1`` document."""
        return {
            "schema": "cachefetch/resolve/1",
            "status": self.status,
            "host": self.host.to_dict(),
            "mirrors": [state.to_dict() for state in self.mirrors],
            "roots": [root.to_dict() for root in self.roots],
            "closure": [artifact.brief() for artifact in self.closure],
            "closure_known": all(root.closure_known for root in self.roots),
            "host_provides": list(self.host_provides),
            "missing": [node.to_dict() for node in self.missing],
            "conflicts": list(self.conflicts),
            "conflict_relax": [{"query": query, "drop": drop} for query, drop in self.conflict_relax],
            "coverage": [row.to_dict() for row in self.coverage],
        }


@frozen
class Listing:
    """What the mirrors hold: specs sorted by name, version and hash, and the state of each mirror.

    `unusable` has the first reason against each spec that cannot run on the host that was asked about, by hash.
    `nodes` are the nodes of the specs, in the same order. `notes` say what the parser understood differently from what
    it may have looked like, `suggestions` name packages that resemble an unknown one.
    """

    specs: tuple[Artifact, ...]
    mirrors: tuple[MirrorState, ...]
    unusable: Mapping[str, Mismatch] = {}
    nodes: tuple[Node, ...] = ()
    host: Host | None = None
    notes: tuple[str, ...] = ()
    suggestions: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the ``cachefetch/list/1`` document; `usable` is null where no host was asked about."""
        return {
            "schema": "cachefetch/list/1",
            "specs": [{**artifact.to_dict(), **self._verdict(artifact.hash)} for artifact in self.specs],
            "mirrors": [state.to_dict() for state in self.mirrors],
            "notes": list(self.notes),
            "suggestions": list(self.suggestions),
        }

    def only_usable(self) -> Listing:
        """Return the listing without what cannot run on the host that was asked about."""
        kept = [number for number, artifact in enumerate(self.specs) if artifact.hash not in self.unusable]
        specs, nodes = (tuple(values[number] for number in kept) for values in (self.specs, self.nodes))
        return changed(self, specs=specs, nodes=nodes, unusable={})

    def _verdict(self, hash: str) -> dict[str, Any]:
        problem = self.unusable.get(hash)
        reason = {"reason": problem.code, "have": problem.have, "need": problem.need} if problem else None
        return {"usable": None if self.host is None else problem is None, "unusable": reason}


@frozen
class Shown:
    """One binary with all that is known of it.

    `problems` are the reasons against it on the host; `closure` are its link and run dependencies without itself,
    `build` the direct dependencies that only the build needed, `notes` what is odd about the key directory.
    """

    artifact: Artifact
    node: Node
    problems: tuple[Mismatch, ...]
    stacks: tuple[str, ...]
    closure: tuple[Artifact, ...]
    closure_known: bool
    build: tuple[Edge, ...]
    host_provides: tuple[str, ...]
    missing: tuple[Missing, ...]
    mirrors: tuple[MirrorState, ...]
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the ``cachefetch/show/1`` document."""
        node = self.node
        return {
            "schema": "cachefetch/show/1",
            "spec": {
                **self.artifact.to_dict(),
                "namespace": node.namespace,
                "variants": {k: list(v) if isinstance(v, tuple) else v for k, v in node.variants.items()},
                "flags": {key: list(values) for key, values in node.flags.items()},
                "format": node.format,
                "external": node.external,
                "build_spec": node.build_spec,
                "provides": list(node.provided),
                "stacks": list(self.stacks),
                "dependencies": [
                    {"name": e.name, "hash": e.hash, "types": list(e.types), "virtuals": list(e.virtuals)}
                    for e in node.edges
                ],
            },
            "problems": [{"reason": p.code, "have": p.have, "need": p.need} for p in self.problems],
            "closure": [artifact.brief() for artifact in self.closure],
            "closure_known": self.closure_known,
            "host_provides": list(self.host_provides),
            "missing": [node.to_dict() for node in self.missing],
            "mirrors": [state.to_dict() for state in self.mirrors],
            "notes": list(self.notes),
        }
