"""What a mirror's signature policy makes of a fetched document. Pure: bytes and values in, values out.

The default is that every spec manifest of a mirror is signed, as in Spack 1.1; the policy is per mirror and
there is no global off switch (docs/security.md).
"""

from __future__ import annotations

from ...errors import ConfigError, KeyNotTrustedError, SignatureMissingError
from ...resolver.index.readers.manifest import Manifest, parse_manifest
from ...values import frozen
from .openpgp import Keyring, is_signed, normalize_fingerprint, split_cleartext, verify_cleartext

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    #: "good": verified; "none": unsigned where a signature is optional; "not-required": not looked at.
    #: "not-possible": of a registry, which has none.
    SignatureState = Literal["good", "none", "not-required", "not-possible"]

REQUIRED = "required"
IF_PRESENT = "if-present"
NONE = "none"
MODES = (REQUIRED, IF_PRESENT, NONE)
#: The state of what comes from a registry, where signatures do not exist.
NOT_POSSIBLE: Literal["not-possible"] = "not-possible"


@frozen
class SignaturePolicy:
    """How a mirror's documents must be signed.

    `mode` is "required", "if-present" (a signature that is there must be good) or "none" (not looked at).
    `pinned` are fingerprints of the keys that alone may sign; empty means any trusted key.

    Raises:
        ConfigError: another mode, or something that is no fingerprint.
    """

    mode: str = REQUIRED
    pinned: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ConfigError(
                f"{self.mode!r:.40} is not a signature policy", hint=f"use one of {', '.join(MODES)}"
            )
        pins = frozenset(normalize_fingerprint(pin, what="pinned key") for pin in self.pinned)
        object.__setattr__(self, "pinned", pins)


@frozen
class VerifiedText:
    """A document that meets its policy: the `text` without signature, the primary key's fingerprint, and when the
    signature or a key of it expires (Unix seconds, None for never)."""

    text: bytes
    signature: SignatureState
    key: str | None
    expires: float | None = None


@frozen
class VerifiedManifest:
    """A manifest that meets its policy; `text` is what was parsed, the others are those of `VerifiedText`."""

    manifest: Manifest
    text: bytes
    signature: SignatureState
    key: str | None
    expires: float | None = None


def apply(
    policy: SignaturePolicy, data: bytes, keyring: Keyring, *, what: str, now: float, mirror: str = ""
) -> VerifiedManifest:
    """Check a manifest against a policy and parse the verified text, never the file around it.

    Args:
        policy: of the mirror that the bytes came from.
        data: the manifest, exactly as fetched.
        keyring: trusted keys.
        what: mirror and file, for messages.
        now: Unix seconds.
        mirror: name of the mirror, for the hint; may be empty.

    Raises:
        SignatureMissingError, SignatureInvalidError, KeyNotTrustedError: the policy is not met.
        FormatError: not a manifest of version 3.
    """
    verified = check_signature(policy, data, keyring, what=what, now=now, mirror=mirror)
    manifest = parse_manifest(verified.text, what=what)
    return VerifiedManifest(manifest, verified.text, verified.signature, verified.key, verified.expires)


def check_signature(
    policy: SignaturePolicy, data: bytes, keyring: Keyring, *, what: str, now: float, mirror: str = ""
) -> VerifiedText:
    """Check any document that may be clear-signed against a policy; arguments and errors as for `apply`."""
    signed = is_signed(data)
    if policy.mode == NONE:
        # Framed strictly all the same: a lenient reader would be a second, untested parser.
        text = split_cleartext(data, what=what).text if signed else data
        return VerifiedText(text, "not-required", None)
    if not signed:
        if policy.mode == IF_PRESENT:
            return VerifiedText(data, "none", None)
        raise _unsigned(what, mirror)
    if not len(keyring):
        raise _no_keys(keyring, what, mirror)
    verified = verify_cleartext(data, keyring, pinned=policy.pinned, what=what, now=now)
    return VerifiedText(verified.text, "good", verified.fingerprint, verified.expires)


def _unsigned(what: str, mirror: str) -> SignatureMissingError:
    name = mirror or "that mirror"
    return SignatureMissingError(
        f"{what} is not signed, but signatures are required for {name}",
        hint=f"if {name} is known to be unsigned, allow it with `--unsigned` (mirrors named on the command "
        f'line) or signed = "none" in the configuration: then anyone who can write to the mirror, or change '
        "what it sends, decides what you run",
        context={"file": what, "mirror": mirror},
    )


def _no_keys(keyring: Keyring, what: str, mirror: str) -> KeyNotTrustedError:
    problems = f" ({'; '.join(keyring.problems)})" if keyring.problems else ""
    return KeyNotTrustedError(
        f"{what} is signed, but no key is trusted yet{problems}",
        hint="give the public key of the mirror's owner with `--key FILE`, or trust it for good with "
        "`cachefetch key trust FILE`",
        context={"file": what, "mirror": mirror, "reason": "unknown"},
    )
