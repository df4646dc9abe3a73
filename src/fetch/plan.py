"""What to get and what to reuse. Pure: packages and an inventory in, a plan out."""

from __future__ import annotations

from ..values import frozen
from .layouts import V2

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from .model import VerifiedPackage
    from .store.cas import Stored


@frozen
class Step:
    """One package: `stored` is where its payload already is, or None when it must be got."""

    package: VerifiedPackage
    stored: Stored | None


@frozen
class FetchPlan:
    """Steps in the order of the request; bytes to get (each blob counted once) and bytes reused."""

    steps: tuple[Step, ...]
    get_bytes: int
    reuse_bytes: int

    @property
    def reused(self) -> int:
        """Number of packages whose payload is stored already."""
        return sum(step.stored is not None for step in self.steps)


def room_needed(packages: Iterable[VerifiedPackage]) -> int:
    """Return the bytes that the payloads of `packages` are sure to take, each blob counted once.

    A manifest proves a size. In layout 2 only the server tells it, and each alone fits: of these the largest counts, so
    that sizes that are no truth are the fault of their packages, not of all.
    """
    proven: dict[str, int] = {}
    told: dict[str, int] = {}
    for package in packages:
        (told if package.layout == V2 else proven)[package.tarball.sha256] = package.tarball.size
    return sum(proven.values()) + max(told.values(), default=0)


def plan(packages: Sequence[VerifiedPackage], inventory: Mapping[str, Stored]) -> FetchPlan:
    """Return the plan.

    Args:
        packages: proven packages.
        inventory: sha256 -> place, of the payload blobs that are stored. One of another size than promised does
            not count (it is damaged).
    """
    steps = []
    get: dict[str, int] = {}
    reuse: dict[str, int] = {}
    for package in packages:
        blob = package.tarball
        stored = inventory.get(blob.sha256)
        if stored is not None and stored.size != blob.size:
            stored = None
        (get if stored is None else reuse)[blob.sha256] = blob.size
        steps.append(Step(package, stored))
    return FetchPlan(tuple(steps), sum(get.values()), sum(reuse.values()))
