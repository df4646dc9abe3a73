"""What several mirrors did wrong, made into one error or into warnings. Pure."""

from __future__ import annotations

from ..errors import (
    CachefetchError,
    IntegrityError,
    MirrorError,
    MissingError,
    NotFoundError,
    NoUsableMirrorError,
    OfflineError,
    TrustError,
)
from .model import Caveat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from .model import Failure, Wanted

#: What another mirror may do better. StoreError and UsageError are ours or the user's, and stop the run.
SOURCE_ERRORS = (MirrorError, IntegrityError, TrustError)
#: Packages that a message names besides the first one that failed in the same way.
_NAMED = 4
_SERIOUS = (TrustError, IntegrityError)


def rank(error: CachefetchError) -> int:
    """Return how serious an error is, most serious lowest: trust, integrity, offline, network, not found."""
    order = [TrustError, IntegrityError, OfflineError, MirrorError]
    if isinstance(error, NotFoundError):
        return len(order)
    return next((i for i, kind in enumerate(order) if isinstance(error, kind)), 0)


def caveats(failures: Sequence[Failure]) -> tuple[Caveat, ...]:
    """Return the warnings about mirrors that failed where another one did not. Absence is not worth one."""
    return tuple(
        Caveat(failure.error.code, failure.error.message, failure.mirror)
        for failure in failures
        if not isinstance(failure.error, NotFoundError | OfflineError)
    )


def is_security(warning: Caveat) -> bool:
    """Tell whether bytes or a signature were wrong, in contrast to a mirror that cannot be read."""
    return warning.code in {kind.code for kind in _all_kinds(_SERIOUS)}


def texts(warnings: Sequence[Caveat]) -> tuple[str, ...]:
    """Return a sentence for each mirror and kind of failure: the first one's message, and how many more there are."""
    groups: dict[tuple[str, str], list[Caveat]] = {}
    for warning in warnings:
        groups.setdefault((warning.mirror, warning.code), []).append(warning)
    found = []
    for (mirror, code), group in groups.items():
        kind = f"security ({code}): " if is_security(group[0]) else ""
        place = f"mirror {mirror}: " if mirror else ""
        more = f" (and {len(group) - 1} more like this)" if len(group) > 1 else ""
        found.append(f"{kind}{place}{group[0].message}{more}")
    return tuple(found)


def unique(warnings: Sequence[Caveat]) -> tuple[Caveat, ...]:
    """Return every warning once; failures of the network once for each mirror, not once for each package."""
    security = {kind.code for kind in _all_kinds(_SERIOUS)}
    seen: dict[tuple[str, str, str], Caveat] = {}
    for warning in warnings:
        text = warning.message if warning.code in security else ""
        seen.setdefault((warning.code, warning.mirror, text), warning)
    return tuple(seen.values())


def _all_kinds(kinds: tuple[type[CachefetchError], ...]) -> list[type[CachefetchError]]:
    return [found for kind in kinds for found in (kind, *_all_kinds(tuple(kind.__subclasses__())))]


def for_package(wanted: Wanted, failures: Sequence[Failure]) -> CachefetchError:
    """Return the most serious failure as an error that names the package and what every mirror did.

    Its context has ``name``, ``version``, ``hash`` and ``mirrors``: [{"mirror", "code", "message"}].
    """
    context: dict[str, Any] = dict(_identity(wanted))
    if not failures:
        return NoUsableMirrorError(
            f"{wanted}: no mirror to ask",
            hint="name one with -m, or add one with `cachefetch mirror add`",
            context={**context, "mirrors": []},
        )
    worst = min(failures, key=lambda failure: rank(failure.error)).error
    said = "; ".join(f"mirror {failure.mirror}: {failure.error.message}" for failure in failures)
    mirrors = [
        {"mirror": failure.mirror, "code": failure.error.code, "message": failure.error.message}
        for failure in failures
    ]
    context = {**worst.context, **context, "mirrors": mirrors}
    return _again(worst, f"{wanted}: {said}", context)


def for_run(errors: Sequence[tuple[Wanted, CachefetchError]], total: int) -> CachefetchError:
    """Return one error for the packages of a run that failed; the most serious one gives its kind.

    A MissingError when no mirror has them and nothing else is wrong. Its context has ``missing``: [{"name", "version",
    "hash"}] of the packages that no mirror has, and ``failures``: [{"name", "version", "hash", "code", "message"}].
    """
    worst = min((error for _, error in errors), key=rank)
    absent = [wanted for wanted, error in errors if isinstance(error, NotFoundError)]
    failures = [
        {**_identity(wanted), "code": error.code, "message": error.message} for wanted, error in errors
    ]
    missing = [_identity(wanted) for wanted in absent]
    context = {**worst.context, "missing": missing, "failures": failures}
    message = "; ".join(_grouped(errors))
    if len(errors) > 1:
        message = f"{len(errors)} of {total} packages cannot be fetched: {message}"
    if isinstance(worst, NotFoundError):
        pairs = tuple((wanted.name, wanted.hash) for wanted in absent)
        made = MissingError(message, pairs, hint=worst.hint, context=context)
        made.__cause__ = worst
        return made
    return _again(worst, message, context)


def _grouped(errors: Sequence[tuple[Wanted, CachefetchError]]) -> list[str]:
    """Return one text for all packages that failed alike: a missing key is told once, not a thousand times."""
    groups: dict[tuple[str, ...], list[tuple[Wanted, CachefetchError]]] = {}
    for wanted, error in errors:
        mirrors = error.context.get("mirrors", [])
        key = (error.code, *(f"{one['mirror']} {one['code']}" for one in mirrors))
        groups.setdefault(key, []).append((wanted, error))
    texts = []
    for group in groups.values():
        text = group[0][1].message
        if others := [str(wanted) for wanted, _ in group[1:]]:
            more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
            text += f" (and so for {', '.join(others[:_NAMED])}{more})"
        texts.append(text)
    return texts


def _identity(wanted: Wanted) -> dict[str, str]:
    return {"name": wanted.name, "version": wanted.version, "hash": wanted.hash}


def _again(error: CachefetchError, message: str, context: dict[str, Any]) -> CachefetchError:
    made = type(error)(message, hint=error.hint, context=context)
    made.__cause__ = error
    return made
