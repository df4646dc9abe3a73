"""Which of the rejected candidates came nearest (pure).

Fewest failing reasons first; of those, what failed at a later gate; of those, the smallest distance to what was
allowed: the libc that is least too new, the CPU with the fewest missing features, the system with the fewest
releases between, the version with the fewest others between. Then the keys that a candidate's own attributes
give, then the hash.
"""

from __future__ import annotations

from . import targets
from .resolution import REASONS
from .rules.gates import MACOS
from .rules.keys import Pool, compiler_tier, compiler_version, os_distance, target_order, versions
from .spec.versions import VersionRange, parse_version

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from .model import Mismatch, Record
    from .rules.context import Context
    from .rules.keys import Usual

    Failed = tuple[Record, list[Mismatch]]

_PLACE = {code: number for number, code in enumerate(REASONS)}
#: The reasons of the request come before all of the host's, and are alike.
_FIRST_OF_HOST = _PLACE["platform"]
#: More than any real distance.
_FAR = 1_000_000


def nearest_first(failed: Iterable[Failed], contexts: Sequence[Context], usual: Usual) -> list[Failed]:
    """Return the rejected candidates in the order described above.

    Args:
        failed: each record with its reasons.
        contexts: one for each host; the first gives the keys.
        usual: for the keys.
    """
    failed = list(failed)
    first = contexts[0]
    pool = Pool(first, tuple(record for record, _ in failed), usual)
    measures = [build(pool) for build in (versions, compiler_tier, compiler_version)] if failed else []
    distance = _Distance(failed, contexts)

    def key(item: Failed) -> tuple[Any, ...]:
        record, problems = item
        codes = {problem.code for problem in problems[1:]}
        late = max(0, _PLACE[problems[0].code] - _FIRST_OF_HOST + 1)
        version, *compiler = [measure(record)[0] for measure in measures]
        node = record.node
        return (
            len(codes),
            -late,
            distance(record, problems[0]),
            version,
            os_distance(node.os, first.host.os),
            target_order(node.target),
            *compiler,
            node.hash,
        )

    return sorted(failed, key=key)


class _Distance:
    """How far a candidate is from what was allowed, as a whole number within one reason code."""

    def __init__(self, failed: Sequence[Failed], contexts: Sequence[Context]) -> None:
        self._contexts = contexts
        self._versions = sorted({parse_version(record.node.version) for record, _ in failed})
        self._gaps: dict[str, int] = {}
        libcs = {problems[0].have for _, problems in failed if problems[0].code == "libc"}
        self._libcs = {
            text: at for at, text in enumerate(sorted(libcs, key=lambda t: parse_version(t.split()[1])))
        }

    def __call__(self, record: Record, problem: Mismatch) -> int:
        """Return the distance."""
        node = record.node
        if problem.code == "libc":
            return self._libcs[problem.have]
        if problem.code == "target":
            return sum(_missing_features(node.target, c.host.target) for c in self._contexts)
        if problem.code == "os" and node.os in MACOS and problem.need.split()[0] in MACOS:
            return MACOS.index(problem.need.split()[0]) - MACOS.index(node.os)
        if problem.code in ("version", "version-exact", "version-prerelease"):
            if node.version not in self._gaps:
                self._gaps[node.version] = self._gap(node.version)
            return self._gaps[node.version]
        return 0

    def _gap(self, text: str) -> int:
        """Return how many versions of the pool lie between a version and the nearest one that was asked for."""
        spec = self._contexts[0].spec
        if spec.requirement is not None:
            return 0
        own = parse_version(text).key
        gaps = []
        for item in spec.versions.items:
            low, high = (item.low, item.high) if isinstance(item, VersionRange) else (item.key, item.key)
            if own < low:
                gaps.append(sum(own < version.key < low for version in self._versions))
            else:
                gaps.append(sum(high <= version.key < own for version in self._versions))
        return min(gaps, default=0)


def _missing_features(target: str, host: str) -> int:
    if targets.family(target) != targets.family(host):
        return _FAR
    return len(targets.features(target) - targets.features(host))
