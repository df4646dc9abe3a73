from __future__ import annotations

import pytest

from cachefetch.errors import (
    ConfigError,
    FormatError,
    KeyNotTrustedError,
    SignatureInvalidError,
    SignatureMissingError,
)
from cachefetch.fetch.verify.openpgp import Keyring
from cachefetch.fetch.verify.policy import SignaturePolicy, apply, check_signature

from .conftest import FIXTURES

SIGNED_PATH = sorted((FIXTURES / "v3-signed" / "v3" / "manifests" / "spec").glob("*/*.json"))[0]
SIGNED = SIGNED_PATH.read_bytes()
UNSIGNED = sorted((FIXTURES / "v3-unsigned" / "v3" / "manifests" / "spec").glob("*/*.json"))[0].read_bytes()
FINGERPRINT = (FIXTURES / "keys" / "fingerprint.txt").read_text().strip()
KEYRING = Keyring.from_bytes((FIXTURES / "keys" / "cachefetch-test.pub.asc").read_bytes(), what="test key")
NOW = 1_800_000_000.0
WHAT = "mirror lab: zlib.spec.manifest.json"


def outcome(mode: str, data: bytes, keyring: Keyring = KEYRING) -> tuple[str, str | None]:
    verified = apply(SignaturePolicy(mode), data, keyring, what=WHAT, now=NOW, mirror="lab")
    assert verified.manifest.tarball().size > 0
    assert verified.text.startswith(b"{")
    return verified.signature, verified.key


@pytest.mark.parametrize(
    ("mode", "data", "signature", "key"),
    [
        ("required", SIGNED, "good", FINGERPRINT),
        ("if-present", SIGNED, "good", FINGERPRINT),
        ("if-present", UNSIGNED, "none", None),
        ("none", SIGNED, "not-required", None),
        ("none", UNSIGNED, "not-required", None),
    ],
)
def test_what_each_policy_accepts(mode: str, data: bytes, signature: str, key: str | None) -> None:
    assert outcome(mode, data) == (signature, key)


def test_required_is_the_default() -> None:
    assert SignaturePolicy() == SignaturePolicy("required", frozenset())


def test_unsigned_where_required_says_how_to_allow_it_and_what_that_means() -> None:
    with pytest.raises(SignatureMissingError) as caught:
        outcome("required", UNSIGNED)
    assert caught.value.message == f"{WHAT} is not signed, but signatures are required for lab"
    assert "`--unsigned`" in caught.value.hint
    assert "decides what you run" in caught.value.hint
    assert caught.value.exit_code == 7


def test_stripped_signature_is_refused_where_required() -> None:
    stripped = apply(SignaturePolicy(), SIGNED, KEYRING, what=WHAT, now=NOW).text
    with pytest.raises(SignatureMissingError):
        outcome("required", stripped)


def test_text_before_the_block_counts_as_unsigned() -> None:
    with pytest.raises(SignatureMissingError):
        outcome("required", b" " + SIGNED)


@pytest.mark.parametrize("mode", ["required", "if-present"])
def test_no_key_at_all_says_so(mode: str) -> None:
    keyring = Keyring(problems=("/keys/X.asc is damaged",))
    with pytest.raises(KeyNotTrustedError) as caught:
        outcome(mode, SIGNED, keyring)
    assert caught.value.message == f"{WHAT} is signed, but no key is trusted yet (/keys/X.asc is damaged)"
    assert "`--key FILE`" in caught.value.hint
    assert "`cachefetch key trust FILE`" in caught.value.hint
    assert caught.value.context["reason"] == "unknown"


@pytest.mark.parametrize("mode", ["required", "if-present"])
def test_bad_signature_is_refused_wherever_signatures_count(mode: str) -> None:
    with pytest.raises(SignatureInvalidError):
        outcome(mode, SIGNED.replace(b'"version":3', b'"version":4'))


def test_policy_none_still_frames_strictly() -> None:
    with pytest.raises(SignatureInvalidError):
        outcome("none", SIGNED + b"more\n")
    with pytest.raises(FormatError):
        outcome("none", b"hidden" + SIGNED)


def test_policy_none_does_not_look_at_the_signature() -> None:
    changed = SIGNED.replace(b'"version":3,', b'"version":3,\n"x":1,')
    assert outcome("none", changed, Keyring()) == ("not-required", None)


def test_pins_are_fingerprints_in_any_spelling() -> None:
    pins = SignaturePolicy(pinned=frozenset({FINGERPRINT.lower()}))
    assert pins.pinned == {FINGERPRINT}
    assert apply(pins, SIGNED, KEYRING, what=WHAT, now=NOW).key == FINGERPRINT
    other = SignaturePolicy(pinned=frozenset({"0" * 40}))
    with pytest.raises(KeyNotTrustedError, match="not pinned"):
        apply(other, SIGNED, KEYRING, what=WHAT, now=NOW)


def test_bad_policies_are_refused() -> None:
    with pytest.raises(ConfigError, match="'off' is not a signature policy"):
        SignaturePolicy("off")
    with pytest.raises(ConfigError, match="not a key fingerprint"):
        SignaturePolicy(pinned=frozenset({"92DFACD7F6EA048A"}))


def test_signed_text_that_is_no_manifest_is_refused() -> None:
    document = sorted((FIXTURES / "v2-signed").rglob("*.spec.json.sig"))[0].read_bytes()
    assert check_signature(SignaturePolicy(), document, KEYRING, what=WHAT, now=NOW).signature == "good"
    with pytest.raises(FormatError):
        apply(SignaturePolicy(), document, KEYRING, what=WHAT, now=NOW)
