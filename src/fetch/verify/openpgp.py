"""OpenPGP clear-signed documents, verified in this process: no agent, no home directory, no options file.

gpg and OpenPGP libraries accept text outside the signed block, a second block, trailing spaces, a changed
``Hash:`` line and old signatures by keys that have expired or were revoked since. We refuse all of these
(docs/security.md), so the framing is taken apart here, byte by byte, and only the text of the one block is
handed to the verifier.
"""

from __future__ import annotations

import binascii
import hashlib
import re
from functools import cache
from types import MappingProxyType

from ...errors import ConfigError, KeyNotTrustedError, SignatureInvalidError
from ...values import frozen
from . import late_sequoia as pgp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import NoReturn

    from .late_sequoia import Packet, SignatureType

BEGIN_MESSAGE = b"-----BEGIN PGP SIGNED MESSAGE-----"
BEGIN_SIGNATURE = b"-----BEGIN PGP SIGNATURE-----"
END_SIGNATURE = b"-----END PGP SIGNATURE-----"

#: Digests whose collisions are out of reach: our library's names and those of ``Hash:`` lines.
_STRONG_DIGESTS = {
    "SHA224": "SHA224",
    "SHA256": "SHA256",
    "SHA384": "SHA384",
    "SHA512": "SHA512",
    "SHA3_256": "SHA3-256",
    "SHA3_512": "SHA3-512",
}
_MIN_RSA_BITS = 2048
_NO_CERTIFICATES: Mapping[str, Certificate] = {}
_RSA = (1, 2, 3)
_WEAK_ALGORITHMS = {16: "ElGamal", 17: "DSA", 20: "ElGamal"}
_ARMOUR_HEADER = re.compile(rb"(?:Version|Comment): [ -~]*")
_TRUST_HINT = (
    "if you know that this key belongs to the mirror's owner, give it with `--key FILE` "
    "or trust it with `cachefetch key trust FILE`"
)
_INVALID_HINT = "do not use this file; get it from another mirror and tell the owner of this one"


@frozen
class KeyInfo:
    """What is known about a public key.

    `fingerprint` is of the primary key, upper-case. Times are Unix seconds, `expires` None means never.
    `weak` says why the key must not be relied on, "" otherwise.
    """

    fingerprint: str
    user_ids: tuple[str, ...]
    created: float
    expires: float | None
    revoked: bool
    algorithm: str
    weak: str = ""


@frozen
class Component:
    """A primary key or subkey of a certificate, by fingerprint (upper-case); times in Unix seconds."""

    fingerprint: str
    key_id: str
    algorithm: str
    created: float
    expires: float | None = None
    revoked: bool = False
    weak: str = ""
    #: Time of the oldest self-signature on it in this copy of the certificate.
    bound: float = 0.0


@frozen
class Certificate:
    """A public key with its subkeys; `components` has the primary key first."""

    info: KeyInfo
    components: tuple[Component, ...]
    cert: pgp.Cert

    def component(self, issuer: str) -> Component | None:
        """Return the key that an issuer fingerprint or key id (upper-case) means, or None."""
        for key in self.components:
            if issuer in (key.fingerprint, key.key_id):
                return key
        return None


@frozen
class Keyring:
    """Trusted public keys, by fingerprint of the primary key (upper-case).

    `problems` has one sentence for each key file that could not be read; the other keys work all the same.
    """

    certificates: Mapping[str, Certificate] = _NO_CERTIFICATES
    problems: tuple[str, ...] = ()

    @classmethod
    def from_bytes(cls, data: bytes, *, what: str) -> Keyring:
        """Read every public key in `data`, armoured or binary.

        Raises:
            ConfigError: no public key in it, damaged, or a secret key; `what` names it.
        """
        return cls(MappingProxyType({c.info.fingerprint: c for c in _read_certificates(data, what)}))

    @property
    def fingerprints(self) -> frozenset[str]:
        """Fingerprints of the primary keys, upper-case."""
        return frozenset(self.certificates)

    def __len__(self) -> int:
        return len(self.certificates)

    def __or__(self, other: Keyring) -> Keyring:
        """Return the keys of both; of a key in both all facts count, so a revocation is never lost."""
        found = dict(self.certificates)
        for fingerprint, certificate in other.certificates.items():
            if fingerprint in found:
                certificate = _describe(found[fingerprint].cert.merge(certificate.cert))
            found[fingerprint] = certificate
        return Keyring(MappingProxyType(found), self.problems + other.problems)

    def digest(self) -> str:
        """Return what changes with every fact about a trusted key: a sha256 of all certificates."""
        found = hashlib.sha256()
        for fingerprint in sorted(self.certificates):
            found.update(hashlib.sha256(bytes(self.certificates[fingerprint].cert)).digest())
        return found.hexdigest()

    def find(self, issuer: str) -> tuple[Certificate, Component] | None:
        """Return the certificate and key that an issuer fingerprint or key id means, or None."""
        for certificate in self.certificates.values():
            component = certificate.component(issuer.upper())
            if component is not None:
                return certificate, component
        return None


@frozen
class Cleartext:
    """A clear-signed document taken apart: dash-unescaped `text` (without the last newline), names of the
    ``Hash:`` lines, and the binary signature packet."""

    text: bytes
    hashes: tuple[str, ...]
    signature: bytes


@frozen
class Verified:
    """A text whose signature is good.

    `fingerprint` is of the primary key, `signing_key` of the key or subkey that signed, both upper-case.
    `created` is the time of signing, `expires` when the signature or one of its keys does (None: never); Unix seconds.
    """

    text: bytes
    fingerprint: str
    signing_key: str
    created: float
    expires: float | None = None


def is_signed(data: bytes) -> bool:
    """Tell whether a document claims to be clear-signed: by its first bytes, not its name (Spack 1.1)."""
    return data.startswith(BEGIN_MESSAGE)


def normalize_fingerprint(text: str, *, what: str) -> str:
    """Return a fingerprint in the form used here: 40 or 64 upper-case hexadecimal characters.

    Raises:
        ConfigError: something else, such as a short key id, which is easy to forge.
    """
    found = re.sub(r"[\s:]", "", text).upper().removeprefix("0X")
    if not re.fullmatch(r"[0-9A-F]{40}(?:[0-9A-F]{24})?", found):
        raise ConfigError(
            f"{what}: {text!r:.90} is not a key fingerprint",
            hint="a fingerprint has 40 hexadecimal characters; `cachefetch key list` shows those you trust",
            context={"fingerprint": text[:90]},
        )
    return found


def verify_cleartext(
    data: bytes, keyring: Keyring, *, pinned: frozenset[str] = frozenset(), what: str, now: float
) -> Verified:
    """Verify a clear-signed document and return the text that was signed.

    Args:
        data: the whole file.
        keyring: trusted keys.
        pinned: fingerprints of primary keys (upper-case) that alone may sign here; empty: any trusted one.
        what: mirror and file, for messages.
        now: Unix seconds; keys and signatures that expired before are refused.

    Raises:
        SignatureInvalidError: framing that could hide text, text changed after signing, expired signature.
        KeyNotTrustedError: context["reason"] is "unknown", "not-pinned", "revoked", "expired" or "weak".
    """
    parts = split_cleartext(data, what=what)
    signature = _read_signature(parts, what)
    certificate, key = _trusted(signature, keyring, pinned, what)
    _check_key(certificate, key, what, now)
    _check_times(signature, key, what, now)
    try:
        # A detached check of exactly the framed bytes: nothing that the framing did not see can be accepted.
        result = pgp.verify(bytes=parts.text, signature=signature.packet, store=lambda _: [certificate.cert])
    except RuntimeError:
        _refuse_unverified(signature, certificate, key, what)
    if result.bytes != parts.text or len(result.valid_sigs) != 1:
        _refuse(what, "does not equal the text that was signed")
    ends = [end for end in (certificate.info.expires, key.expires, signature.expires) if end is not None]
    return Verified(
        parts.text,
        certificate.info.fingerprint,
        key.fingerprint,
        signature.created or 0.0,
        min(ends, default=None),
    )


def split_cleartext(data: bytes, *, what: str) -> Cleartext:
    """Take a clear-signed document apart, strictly; no signature is checked.

    Line 1 is the BEGIN line, then ``Hash:`` lines only, a blank line, the text, one signature block, end of
    file.
    No carriage returns, no trailing white space: signatures of this kind do not cover them.

    Raises:
        SignatureInvalidError: anything else.
    """
    if b"\r" in data:
        _refuse(what, "has carriage returns, which its signature does not cover")
    lines = data.split(b"\n")
    if lines[0] != BEGIN_MESSAGE:
        _refuse(what, "does not begin with a signed block")
    try:
        blank = lines.index(b"")
        armour = lines.index(BEGIN_SIGNATURE)
    except ValueError:
        _refuse(what, "has no complete signed block")
    if armour < blank:
        _refuse(what, "has no text in its signed block")
    hashes = _hash_names(lines[1:blank], what)
    text = b"\n".join(_unescape(line, what) for line in lines[blank + 1 : armour])
    return Cleartext(text, hashes, _armour(lines[armour:], what))


def _hash_names(lines: list[bytes], what: str) -> tuple[str, ...]:
    names: list[str] = []
    for line in lines:
        if not re.fullmatch(rb"Hash: [A-Z0-9-]+(?:, ?[A-Z0-9-]+)*", line):
            _refuse(what, "has a line other than Hash: before its text")
        names += [name.strip().decode("ascii") for name in line[6:].split(b",")]
    return tuple(names)


def _unescape(line: bytes, what: str) -> bytes:
    if line.endswith((b" ", b"\t")):
        _refuse(what, "has trailing white space in its text, which its signature does not cover")
    if not line.startswith(b"-"):
        return line
    if not line.startswith((b"- -", b"- From ")):  # the only lines that writers escape
        _refuse(what, "has a second block or a wrongly escaped dash in its text")
    return line[2:]


def _armour(lines: list[bytes], what: str) -> bytes:
    """Decode the signature block that `lines` must be: exactly one, up to the end of the file."""
    if lines[-2:] != [END_SIGNATURE, b""] or lines.count(END_SIGNATURE) != 1:
        _refuse(what, "does not end with its one signature block")
    body = lines[1:-2]
    blank = body.index(b"") if b"" in body else len(body)
    if not all(_ARMOUR_HEADER.fullmatch(line) for line in body[:blank]):
        _refuse(what, "has an unknown header in its signature block")
    body = body[blank + 1 :]
    checksum = body.pop() if body and body[-1].startswith(b"=") else None
    raw = _base64(body, what)
    if checksum is not None and binascii.b2a_base64(_crc24(raw), newline=False) != checksum[1:]:
        _refuse(what, "has a damaged signature block (checksum)")
    return raw


def _base64(lines: list[bytes], what: str) -> bytes:
    """Decode lines of one width; only the one spelling of each value is accepted."""
    width = len(lines[0]) if lines else 0
    even = (
        all(len(line) == width for line in lines[:-1]) and bool(lines) and 0 < len(lines[-1]) <= width <= 76
    )
    joined = b"".join(lines)
    try:
        raw = binascii.a2b_base64(joined)
    except binascii.Error:
        raw = b""
    if not even or binascii.b2a_base64(raw, newline=False) != joined:
        _refuse(what, "has a damaged signature block (base64)")
    return raw


@cache
def _crc24_table() -> tuple[int, ...]:
    """Table for the checksum of armour (RFC 4880, section 6.1)."""
    table = []
    for value in range(256):
        crc = value << 16
        for _ in range(8):
            crc = (crc << 1) ^ (0x1864CFB if crc & 0x800000 else 0)
        table.append(crc & 0xFFFFFF)
    return tuple(table)


def _crc24(data: bytes) -> bytes:
    table, crc = _crc24_table(), 0xB704CE
    for byte in data:
        crc = ((crc << 8) & 0xFFFFFF) ^ table[(crc >> 16) ^ byte]
    return crc.to_bytes(3, "big")


@frozen
class _Signature:
    """What a signature packet says: issuer fingerprint or key id (upper-case), times in Unix seconds."""

    packet: pgp.Sig
    issuer: str
    digest: str
    created: float | None
    expires: float | None


def _read_signature(parts: Cleartext, what: str) -> _Signature:
    """Parse the one signature; check its digest against the ``Hash:`` line and the strength we ask for."""
    try:
        packets = len(pgp.PacketPile.from_bytes(parts.signature))
        packet = pgp.Sig.from_bytes(parts.signature)
        is_text = (
            packet.signature_type == pgp.SignatureType.Text
        )  # unknown codes raise RuntimeError, here and below
        signature = _Signature(
            packet,
            (packet.issuer_fingerprint or packet.issuer_key_id or "").upper(),
            _name(packet.hash_algorithm),
            packet.created.timestamp() if packet.created else None,
            packet.expiration.timestamp() if packet.expiration else None,
        )
    except (RuntimeError, ValueError, OverflowError) as error:
        _refuse(what, f"has a damaged signature ({_first_line(error)})")
    if packets != 1:
        _refuse(what, f"has {packets} signatures; exactly one is accepted")
    if not is_text:
        _refuse(what, "has a signature of another kind than over a text")
    digest = _STRONG_DIGESTS.get(signature.digest)
    if digest is None:
        _distrust(
            what,
            "weak",
            signature.issuer,
            f"uses the weak digest {signature.digest}",
            "ask the mirror's owner to sign with SHA-256 or better",
        )
    if parts.hashes != (digest,):
        _refuse(what, f"says Hash: {','.join(parts.hashes) or 'nothing'} but its signature uses {digest}")
    return signature


def _trusted(
    signature: _Signature, keyring: Keyring, pinned: frozenset[str], what: str
) -> tuple[Certificate, Component]:
    issuer = signature.issuer
    found = keyring.find(issuer) if issuer else None
    if found is None:
        extra = f" ({'; '.join(keyring.problems)})" if keyring.problems else ""
        trusted = (
            f"{len(keyring)} other key{'' if len(keyring) == 1 else 's'} trusted" if len(keyring) else ""
        )
        note = trusted or "no key is trusted yet"
        _distrust(
            what,
            "unknown",
            issuer,
            f"is by key {issuer or 'without name'}, which is not trusted: {note}{extra}",
        )
    certificate, key = found
    primary = certificate.info.fingerprint
    if pinned and primary not in pinned:
        _distrust(
            what,
            "not-pinned",
            primary,
            f"is by key {primary}, which is trusted but not pinned for this mirror",
            f"the pinned keys are {', '.join(sorted(pinned))}; {_TRUST_HINT} and pin its fingerprint",
        )
    return certificate, key


def _check_key(certificate: Certificate, key: Component, what: str, now: float) -> None:
    """Refuse revoked, expired and weak keys, whatever the time of the signature (docs/security.md)."""
    info = certificate.info
    label = key.fingerprint
    if key.fingerprint != info.fingerprint:
        label += f" (subkey of {info.fingerprint})"
    renew = f"get the owner's present key; {_TRUST_HINT}"
    if info.revoked or key.revoked:
        _distrust(what, "revoked", key.fingerprint, f"is by key {label}, which was revoked", renew)
    weak = info.weak or key.weak
    if weak:
        _distrust(what, "weak", key.fingerprint, f"is by key {label}, which is too weak: {weak}", renew)
    ends = [end for end in (info.expires, key.expires) if end is not None]
    if ends and min(ends) <= now:
        when = _date(min(ends))
        _distrust(what, "expired", key.fingerprint, f"is by key {label}, which expired on {when}", renew)


def _check_times(signature: _Signature, key: Component, what: str, now: float) -> None:
    created, expires = signature.created, signature.expires
    if created is None:
        _refuse(what, "has a signature without date")
    if created > now:
        _refuse(what, f"was signed in the future ({_date(created)})", hint="check the clock of this machine")
    if expires is not None and expires <= now:
        _refuse(what, f"has a signature by {key.fingerprint} that expired on {_date(expires)}")


def _refuse_unverified(
    signature: _Signature, certificate: Certificate, key: Component, what: str
) -> NoReturn:
    """Refuse what the verifier refused. It asks that the key was valid when it signed, by what this copy of it says.

    gpg replaces a self-signature when the owner extends the key: a newer copy says nothing of the time before.
    """
    since = max(key.bound, certificate.components[0].bound)
    if signature.created is not None and signature.created < since:
        _refuse(
            what,
            f"cannot be verified: it was signed on {_date(signature.created)}, and the trusted copy of key "
            f"{key.fingerprint} says nothing of the time before {_date(since)}",
            hint="the owner extended or changed the key since: trust an older copy of it too, both are kept together",
        )
    _refuse(what, f"does not fit its signature by {key.fingerprint}: it was changed after signing")


def _read_certificates(data: bytes, what: str) -> Iterable[Certificate]:
    try:
        if any(
            packet.tag in (pgp.Tag.SecretKey, pgp.Tag.SecretSubkey)
            for packet in pgp.PacketPile.from_bytes(data)
        ):
            raise ConfigError(
                f"{what} holds a SECRET key; only public keys belong here",
                hint="keep it to yourself; give `gpg --armor --export FINGERPRINT` instead",
                context={"file": what},
            )
        merged: dict[str, pgp.Cert] = {}
        for cert in pgp.Cert.split_bytes(data):
            known = merged.get(cert.fingerprint)
            merged[cert.fingerprint] = known.merge(cert) if known else cert
        certificates = [_describe(cert) for cert in merged.values()]
    except (RuntimeError, ValueError) as error:
        raise _not_a_key(what, _first_line(error)) from error
    if not certificates:
        raise _not_a_key(what, "no key in it")
    return certificates


def _not_a_key(what: str, why: str) -> ConfigError:
    return ConfigError(
        f"{what} is not an OpenPGP public key ({why})",
        hint="a public key file begins with -----BEGIN PGP PUBLIC KEY BLOCK-----",
        context={"file": what},
    )


def _describe(cert: pgp.Cert) -> Certificate:
    packets = list(pgp.PacketPile.from_bytes(bytes(cert)))
    components = _components(packets)
    primary = components[0]
    weak = primary.weak
    expires = None
    try:
        expiration = cert.expiration
        expires = expiration.timestamp() if expiration else None
    except RuntimeError as error:  # the verifier's policy refuses the key as a whole
        weak = weak or _cause(error)
    user_ids = tuple(packet.user_id for packet in packets if packet.user_id is not None)
    info = KeyInfo(
        primary.fingerprint, user_ids, primary.created, expires, cert.is_revoked, primary.algorithm, weak
    )
    return Certificate(info, components, cert)


def _components(packets: list[Packet]) -> tuple[Component, ...]:
    """Read the keys of a certificate with the signatures that follow each of them."""
    groups: list[tuple[Packet, list[Packet]]] = []
    for packet in packets:
        if packet.tag in (pgp.Tag.PublicKey, pgp.Tag.PublicSubkey):
            groups.append((packet, []))
        elif packet.tag == pgp.Tag.Signature and groups:
            groups[-1][1].append(packet)
    return tuple(_component(key, signatures) for key, signatures in groups)


@cache
def _self_signatures() -> tuple[SignatureType, ...]:
    kinds = pgp.SignatureType
    return (
        kinds.GenericCertification,
        kinds.PersonaCertification,
        kinds.CasualCertification,
        kinds.PositiveCertification,
        kinds.DirectKey,
        kinds.SubkeyBinding,
    )


def _component(packet: Packet, signatures: list[Packet]) -> Component:
    from datetime import UTC, datetime

    kinds = [(_signature_kind(signature), signature) for signature in signatures]
    binding, epoch = pgp.SignatureType.SubkeyBinding, datetime.fromtimestamp(0, UTC)
    bindings = [s for kind, s in kinds if kind == binding and s.signature_created]
    own = [s.signature_created for kind, s in kinds if kind in _self_signatures() and s.signature_created]
    newest = max(bindings, key=lambda s: s.signature_created or epoch, default=None)
    validity = newest.key_validity_period if newest else None
    created = packet.key_created.timestamp() if packet.key_created else 0.0
    algorithm, weak = _strength(packet)
    return Component(
        (packet.fingerprint or "").upper(),
        (packet.key_id or "").upper(),
        algorithm,
        created,
        created + validity.total_seconds() if validity else None,
        any(kind == pgp.SignatureType.SubkeyRevocation for kind, _ in kinds),
        weak,
        min(own).timestamp() if own else 0.0,
    )


def _strength(packet: Packet) -> tuple[str, str]:
    """Return the name of a key packet's algorithm, and why it is too weak or ""."""
    version, code = packet.body[0], packet.body[5]  # version, time (4 bytes), algorithm (RFC 4880, 5.5.2)
    if code in _RSA:
        start = 6 if version < 6 else 10  # the bit count of the modulus; version 6 has a length before it
        bits = int.from_bytes(packet.body[start : start + 2], "big")
        return f"RSA {bits}", f"RSA with {bits} bits" if bits < _MIN_RSA_BITS else ""
    try:
        algorithm = _name(packet.key_algorithm)
    except RuntimeError:  # a code that our library does not know
        algorithm = f"algorithm {code}"
    return algorithm, _WEAK_ALGORITHMS.get(code, "")


def _signature_kind(packet: Packet) -> SignatureType | None:
    try:
        return packet.signature_type
    except RuntimeError:  # a code that our library does not know
        return None


def _name(value: object) -> str:
    return str(value).rpartition(".")[2]


def _date(seconds: float) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")


def _first_line(error: BaseException) -> str:
    return str(error).split("\n", 1)[0][:120]


def _cause(error: BaseException) -> str:
    """Return the reason in an error of the library, which may have a backtrace below it."""
    lines = [line.strip() for line in str(error).split("Stack backtrace:", 1)[0].splitlines() if line.strip()]
    return lines[-1][:120] if lines else "refused by the verifier"


def _refuse(what: str, problem: str, *, hint: str = _INVALID_HINT) -> NoReturn:
    raise SignatureInvalidError(f"{what} {problem}", hint=hint, context={"file": what})


def _distrust(what: str, reason: str, fingerprint: str, problem: str, hint: str = _TRUST_HINT) -> NoReturn:
    raise KeyNotTrustedError(
        f"the signature of {what} {problem}",
        hint=hint,
        context={"file": what, "reason": reason, "fingerprint": fingerprint},
    )
