"""Spec metadata of mirror layout 2: ``.spec.json`` and the clear-signed ``.spec.json.sig``. Pure: bytes in, values out.

In layout 2 one file is manifest and spec document at once: it holds the node and names the digest of the tarball
(Spack 0.23 and 1.1, docs/formats.md).
"""

from __future__ import annotations

import re

from ...errors import FormatError
from ...values import frozen
from .binding import MAX_SPEC_BLOB_SIZE, check_binding, parse_spec
from .policy import check_signature

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from .binding import SpecDocument
    from .openpgp import Keyring
    from .policy import SignaturePolicy, SignatureState

#: Newest ``buildcache_layout_version`` of this kind of file.
NEWEST_LAYOUT = 2
_SHA256 = re.compile(r"[0-9a-f]{64}")


@frozen
class VerifiedSpecFile:
    """A spec file of layout 2 that meets its policy.

    `sha256` is of the tarball as stored, `layout` 1 or 2; `key` is a primary key's fingerprint. The file
    does not tell the size of the tarball.
    """

    document: SpecDocument
    sha256: str
    layout: int
    signature: SignatureState
    key: str | None


def verify_spec_file(
    policy: SignaturePolicy,
    data: bytes,
    keyring: Keyring,
    *,
    name: str,
    version: str,
    hash: str,
    what: str,
    now: float,
    mirror: str = "",
) -> VerifiedSpecFile:
    """Check a spec file of layout 2 against a policy and the request, and parse the verified text.

    Args:
        policy: of the mirror that the bytes came from.
        data: the file, exactly as fetched; its first bytes tell whether it is signed, not its name.
        keyring: trusted keys.
        name, version, hash: the wanted package.
        what: mirror and file, for messages.
        now: Unix seconds.
        mirror: name of the mirror, for the hint; may be empty.

    Raises:
        SignatureMissingError, SignatureInvalidError, KeyNotTrustedError: the policy is not met.
        BindingError: the file of another package.
        FormatError: not a spec file of layout 1 or 2, or without a sha256 of its tarball.
    """
    if len(data) > MAX_SPEC_BLOB_SIZE:
        _refuse(what, f"has {len(data)} bytes, more than the limit of {MAX_SPEC_BLOB_SIZE}")
    verified = check_signature(policy, data, keyring, what=what, now=now, mirror=mirror)
    document = parse_spec(verified.text, what=what)
    layout = document.raw.get("buildcache_layout_version", 0)
    if not isinstance(layout, int) or isinstance(layout, bool):
        _refuse(what, "has no usable buildcache_layout_version")
    if not 1 <= layout <= NEWEST_LAYOUT:
        reason = "too-new" if layout > NEWEST_LAYOUT else "too-old"
        raise FormatError(
            f"{what} has build cache layout {layout}; this cachefetch reads 1 and 2 of this kind",
            hint="use a mirror written by Spack 0.18 or later, of layout 2 or 3",
            context={"file": what, "reason": reason, "version": layout},
        )
    check_binding(document, name=name, version=version, hash=hash, what=what)
    return VerifiedSpecFile(
        document, tarball_digest(document, what=what), layout, verified.signature, verified.key
    )


def tarball_digest(document: SpecDocument, *, what: str) -> str:
    """Return the sha256 of the tarball that a spec file names. Raises FormatError when it names none."""
    checksum = document.raw.get("binary_cache_checksum")
    if not isinstance(checksum, dict) or checksum.get("hash_algorithm") != "sha256":
        _refuse(what, "names no sha256 of its tarball")
    digest = checksum.get("hash")
    if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
        _refuse(what, "names no sha256 of its tarball")
    return digest


def _refuse(what: str, problem: str) -> NoReturn:
    hint = "the mirror is damaged or was changed: get the file from another mirror and tell its owner"
    raise FormatError(f"{what} {problem}", hint=hint, context={"file": what})
