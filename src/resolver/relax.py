"""The single conditions of a request, and the request without each of them (pure)."""

from __future__ import annotations

from ..values import changed
from .spec.versions import ANY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .spec.values import Spec


def without_each(spec: Spec) -> Iterator[tuple[str, Spec]]:
    """Yield (text of a condition, the spec without it) for all but the name and the hash."""
    if spec.requirement is not None:
        yield f"`{spec.requirement}`", changed(spec, requirement=None)
    elif not spec.versions.is_any:
        yield f"@{spec.versions}", changed(spec, versions=ANY)
    for name, variant in spec.variants.items():
        yield str(variant), changed(spec, variants={n: v for n, v in spec.variants.items() if n != name})
    for at, flags in enumerate(spec.flags):
        yield str(flags), changed(spec, flags=spec.flags[:at] + spec.flags[at + 1 :])
    if spec.platform:
        yield f"platform={spec.platform}", changed(spec, platform="")
    if spec.os:
        yield f"os={spec.os}", changed(spec, os="")
    if spec.target:
        yield f"target={spec.target}", changed(spec, target="")
    for at, edge in enumerate(spec.edges):
        yield str(edge), changed(spec, edges=spec.edges[:at] + spec.edges[at + 1 :])
