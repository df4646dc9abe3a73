"""Every error that cachefetch raises on purpose, split by what the caller can do about it.

::

    CachefetchError                 anything below; .code, .exit_code, .context, .hint
    ├── UsageError            (2)   fix what was typed or configured
    │   ├── SpecSyntaxError         a spec does not parse; has .text and .column for the caret
    │   ├── HostError               a host description or override is not usable
    │   └── ConfigError             a configuration file or variable is not usable
    ├── ResolutionError       (3|4|5)  nothing fits, closure incomplete, roots conflict; has .resolution
    ├── IntegrityError        (6)   bytes are not what they claim to be; another mirror may be right
    │   ├── DigestError             sha256 differs
    │   ├── TruncatedError          fewer or more bytes than promised
    │   ├── BindingError            valid bytes of another package than the one asked for
    │   ├── LockChangedError        not what the lock file promises
    │   ├── FormatError             a document that is not of its declared format
    │   └── ArchiveError            a package that must not be unpacked; .code and .reason say why
    ├── TrustError            (7)   a signature is missing, bad, or by a key that is not trusted
    │   ├── SignatureMissingError
    │   ├── SignatureInvalidError   text changed after signing, or framing that hides text
    │   ├── KeyNotTrustedError      unknown, expired, revoked or not pinned
    │   ├── PolicyError             a weaker signature policy than the one of the lock file
    │   └── FreshnessError          an older index again, or one that is too old; .code says which
    ├── MirrorError           (8)   network or mirror; try again or elsewhere
    │   ├── NetworkError            may go away: connection, time-out, 5xx, 429
    │   ├── NotFoundError           404 or 410, missing file
    │   │   └── MissingError        packages of a closure that no mirror has; has .missing
    │   ├── AccessError             401 or 403
    │   ├── OfflineError            --offline, and the store lacks something
    │   └── NoUsableMirrorError     no configured mirror could be read at all
    └── StoreError           (10)   disk full, permission, store damaged

Errors carry values; text for people is made from ``message`` and ``hint`` in one place, the command line.
Programmer errors are ordinary Python exceptions (exit 1), so that catching CachefetchError never hides a bug.
"""

from __future__ import annotations

import errno

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing costs start-up time (P4), annotations are strings
    from collections.abc import Mapping
    from typing import Any


#: What the system says when no more bytes fit, and when they are not allowed.
FULL = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
DENIED = frozenset((errno.EACCES, errno.EPERM, errno.EROFS))
_NOT_A_DIRECTORY = frozenset((errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENOTEMPTY))
#: Characters shown on each side of a problem in a spec.
_CARET_AROUND = 60


class CachefetchError(Exception):
    """Base of all expected failures.

    Args:
        message: what happened, to which mirror, spec or file; one sentence without a final full stop.
        hint: what to do next, or "".
        context: values for machines (``error/1`` document), JSON-compatible, never a secret.
    """

    code = "error"
    exit_code = 1

    def __init__(self, message: str, *, hint: str = "", context: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.context: dict[str, Any] = dict(context or {})

    def to_dict(self) -> dict[str, Any]:
        """Return the ``cachefetch/error/1`` document (design of the command line, docs/cli.md)."""
        return {
            "schema": "cachefetch/error/1",
            "code": self.code,
            "exit": self.exit_code,
            "message": self.message,
            "context": self.context,
            "hint": self.hint,
        }


class UsageError(CachefetchError):
    """Fix what was typed or configured."""

    code = "usage"
    exit_code = 2


class NoMatchError(UsageError):
    """Mirrors could be read, and none has what was to be shown."""

    code = "no-candidate"
    exit_code = 3


class SpecSyntaxError(UsageError):
    """A spec does not parse.

    Args:
        message: what was found and what was expected.
        text: the whole input.
        column: 0-based offset in ``text`` where the problem starts.
        length: number of characters to underline, at least 1.
    """

    code = "spec-syntax"

    def __init__(self, message: str, text: str, column: int, length: int = 1, *, hint: str = "") -> None:
        super().__init__(message, hint=hint, context={"text": text, "column": column, "length": length})
        self.text = text
        self.column = column
        self.length = max(1, length)

    def caret(self) -> str:
        """Return two lines: the input around the problem, and a caret underline; "" for an empty input."""
        if not self.text.strip():
            return ""
        start = self.column - _CARET_AROUND if self.column > _CARET_AROUND else 0
        end = self.column + _CARET_AROUND
        shown = "".join(c if c.isprintable() else " " for c in self.text[start:end])
        before, after = "..." if start else "", "..." if end < len(self.text) else ""
        length = min(self.length, max(1, len(shown) - self.column + start))
        return f"{before}{shown}{after}\n{' ' * (len(before) + self.column - start)}{'^' * length}"


class HostError(UsageError):
    """A host description or an override is not usable."""

    code = "host"


class ConfigError(UsageError):
    """A configuration file or variable is not usable."""

    code = "config"


class ResolutionError(CachefetchError):
    """No answer: exit 3 (nothing fits), 4 (closure incomplete) or 5 (roots conflict).

    Args:
        resolution: the full frozen answer with every rejection (``resolver.model.Resolution``).
    """

    code = "no-candidate"
    exit_code = 3

    def __init__(self, message: str, resolution: Any, *, code: str, exit_code: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.resolution = resolution
        self.code = code
        self.exit_code = exit_code


class IntegrityError(CachefetchError):
    """Bytes are not what they claim to be."""

    code = "integrity"
    exit_code = 6


class DigestError(IntegrityError):
    """The sha256 of the received bytes differs from the promised one."""

    code = "digest-mismatch"


class TruncatedError(IntegrityError):
    """Fewer or more bytes than promised."""

    code = "size-mismatch"


class BindingError(IntegrityError):
    """Valid bytes, but of another package than the one asked for."""

    code = "binding-mismatch"


class LockChangedError(IntegrityError):
    """A mirror no longer holds what a lock file promises; ``context["changes"]`` lists what differs."""

    code = "lock-changed"


class FormatError(IntegrityError):
    """A document that is not of its declared format."""

    code = "bad-format"


class ArchiveError(IntegrityError):
    """A package that is damaged or would write outside its own directory. ``code`` is ``archive-`` and the reason.

    Args:
        reason: one of the words in docs/security.md.
        problem: the rest of a sentence that begins with the file.
        member: name of the entry, "" for the archive as a whole.
    """

    def __init__(self, reason: str, problem: str, member: str = "") -> None:
        where = f" (member {member[:200]!r})" if member else ""
        super().__init__(
            f"the package {problem}{where}",
            hint="nothing was unpacked; do not use this package, and tell the owner of the mirror",
            context={"reason": reason, "member": member[:200]},
        )
        self.reason = reason
        self.code = f"archive-{reason}"

    def name_file(self, path: str) -> None:
        """Say which file it is about."""
        self.context["file"] = path
        self.message = self.message.replace("the package", f"the package {path}", 1)
        self.args = (self.message,)


class TrustError(CachefetchError):
    """A signature is missing, bad, or made by a key that is not trusted."""

    code = "trust"
    exit_code = 7


class SignatureMissingError(TrustError):
    """The policy requires a signature and there is none."""

    code = "signature-missing"


class SignatureInvalidError(TrustError):
    """The text was changed after signing, or the framing could hide text."""

    code = "signature-invalid"


class KeyNotTrustedError(TrustError):
    """The signing key is unknown, expired, revoked or not pinned; ``context["reason"]`` says which."""

    code = "key-not-trusted"


class PolicyError(TrustError):
    """A mirror's signature policy is weaker than the one that a lock file was made with."""

    code = "policy-weaker"


class FreshnessError(TrustError):
    """An index that is, or may be, older than it should be.

    The code is ``rollback``, ``index-too-old``, ``index-not-checked`` or ``history-damaged``.
    """

    def __init__(self, code: str, message: str, *, hint: str, context: Mapping[str, Any]) -> None:
        super().__init__(message, hint=hint, context=context)
        self.code = code


class MirrorError(CachefetchError):
    """A mirror or the network failed."""

    code = "mirror"
    exit_code = 8


class NetworkError(MirrorError):
    """A failure that may go away: connection, time-out, 5xx, 429.

    Args:
        retry_after: seconds the server asked to wait, or None.
    """

    code = "network"

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        context: Mapping[str, Any] | None = None,
        retry_after: float | None = None,
        throttled: bool = False,
    ) -> None:
        super().__init__(message, hint=hint, context=context)
        self.retry_after = retry_after
        self.throttled = throttled


class NotFoundError(MirrorError):
    """The mirror does not have the object (404, 410, missing file)."""

    code = "not-found"


class MissingError(NotFoundError):
    """Packages of a fetch are in no mirror; nothing was wrong with those that are there.

    Args:
        missing: (name, DAG hash) of each.
    """

    def __init__(
        self,
        message: str,
        missing: tuple[tuple[str, str], ...] = (),
        *,
        hint: str = "",
        context: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message, hint=hint, context=context)
        self.missing = missing


class AccessError(MirrorError):
    """The mirror refuses access (401, 403)."""

    code = "access-denied"


class OfflineError(MirrorError):
    """``--offline`` was asked for and something is not in the store."""

    code = "offline"


class NoUsableMirrorError(MirrorError):
    """No configured mirror could be read at all; ``context["mirrors"]`` has their states."""

    code = "no-usable-mirror"


class StoreError(CachefetchError):
    """Disk full, permission denied, or the local store is damaged."""

    code = "store"
    exit_code = 10


def cannot_write(
    what: str, path: str, error: Exception, *, cache: bool = False, **context: str
) -> StoreError:
    """Return the error for what could not be written, with a hint that fits the reason.

    Args:
        what: what it is, for the message: "the index of MIRROR below DIR".
        path: the file, for the context.
        error: an OSError, or one of SQLite.
        cache: it belongs to the cache, which may be put elsewhere.
        context: more of it.
    """
    number = getattr(error, "errno", None)
    reason = getattr(error, "strerror", None) or str(error)
    place = getattr(error, "filename", None)
    if (
        place and str(place) != path and not str(place).startswith(f"{path}.")
    ):  # of which it is the temporary file
        reason += f": {place}"
    if number in FULL or "is full" in reason:  # the latter is SQLite's
        hint = "free some space there"
    elif number in DENIED or "readonly" in reason:
        hint = "make the directory writable"
    elif number in _NOT_A_DIRECTORY:
        hint = "a file is in the place of a directory, or the other way round: remove it"
    else:
        hint = "check the path and its file system"
    elsewhere = "set CACHEFETCH_CACHE_DIR (or cache_dir in the configuration) to another directory"
    return StoreError(
        f"cannot write {what}: {reason}",
        hint=f"{hint}, or {elsewhere if cache else 'choose another place'}",
        context={**context, "path": path, "errno": errno.errorcode.get(number or 0, "")},
    )
