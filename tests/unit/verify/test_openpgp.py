from __future__ import annotations

import base64
import contextlib
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cachefetch.errors import ConfigError, KeyNotTrustedError, SignatureInvalidError, TrustError
from cachefetch.fetch.verify.openpgp import (
    Keyring,
    is_signed,
    normalize_fingerprint,
    split_cleartext,
    verify_cleartext,
)

from .conftest import FIXTURES, TEXT

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Matrix

SIGNED = sorted((FIXTURES / "v3-signed" / "v3" / "manifests" / "spec").glob("*/*.json"))
SIGNED_V2 = sorted((FIXTURES / "v2-signed").rglob("*.spec.json.sig"))
KEY = (FIXTURES / "keys" / "cachefetch-test.pub.asc").read_bytes()
FINGERPRINT = (FIXTURES / "keys" / "fingerprint.txt").read_text().strip()
KEYRING = Keyring.from_bytes(KEY, what="test key")
NOW = 1_800_000_000.0  # 2027-01-15: after the fixtures were signed
ORIGINAL = SIGNED[0].read_bytes()
ORIGINAL_TEXT = split_cleartext(ORIGINAL, what="m").text


def verify(data: bytes, keyring: Keyring = KEYRING, pinned: frozenset[str] = frozenset()) -> bytes:
    return verify_cleartext(data, keyring, pinned=pinned, what="mirror m: file f", now=NOW).text


def all_keys(matrix: Matrix, *, without: str = "") -> Keyring:
    keyring = Keyring()
    for label, data in matrix.keys.items():
        if label != without:
            keyring |= Keyring.from_bytes(data, what=label)
    return keyring


# --- documents written by Spack


def test_fixtures_are_all_there() -> None:
    assert (len(SIGNED), len(SIGNED_V2)) == (62, 55)


@pytest.mark.parametrize("path", SIGNED + SIGNED_V2, ids=lambda path: path.name)
def test_every_signed_document_of_spack_verifies(path: Path) -> None:
    data = path.read_bytes()
    assert is_signed(data)
    verified = verify_cleartext(data, KEYRING, what=path.name, now=NOW)
    assert verified.text in data
    assert verified.text.startswith(b"{")
    assert verified.text.endswith(b"}")
    assert verified.fingerprint == verified.signing_key == FINGERPRINT
    assert 1_700_000_000 < verified.created < NOW


# --- changes of one byte, anywhere


@pytest.mark.parametrize("change", ["flip", "delete", "space", "newline", "return", "dash", "letter"])
def test_no_change_of_one_byte_is_accepted(change: str) -> None:
    added = {"space": b" ", "newline": b"\n", "return": b"\r", "dash": b"-", "letter": b"A"}.get(change, b"")
    for position in range(len(ORIGINAL)):
        rest = ORIGINAL[position + 1 :] if change in ("flip", "delete") else ORIGINAL[position:]
        byte = bytes([ORIGINAL[position] ^ 1]) if change == "flip" else added
        document = ORIGINAL[:position] + byte + rest
        if document == ORIGINAL:
            continue
        with pytest.raises(TrustError):
            verify(document)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_what_is_accepted_has_the_signed_text(data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(ORIGINAL)))
    end = data.draw(st.integers(start, len(ORIGINAL)))
    pieces = st.lists(st.sampled_from(ORIGINAL.split(b"\n")), max_size=4).map(b"\n".join)
    document = ORIGINAL[:start] + data.draw(st.binary(max_size=8) | pieces) + ORIGINAL[end:]
    try:
        text = verify(document)
    except TrustError:
        return
    assert text == ORIGINAL_TEXT


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_as_signature_packet_are_refused(raw: bytes) -> None:
    head = ORIGINAL[: ORIGINAL.index(b"-----BEGIN PGP SIGNATURE")]
    armour = base64.b64encode(raw)
    lines = b"\n".join(armour[i : i + 64] for i in range(0, len(armour), 64))
    document = head + b"-----BEGIN PGP SIGNATURE-----\n\n" + lines + b"\n-----END PGP SIGNATURE-----\n"
    with pytest.raises(TrustError):
        verify(document)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damaged_signature_packet_is_refused(data: st.DataObject) -> None:
    head, _, armour = ORIGINAL.partition(b"-----BEGIN PGP SIGNATURE-----\n\n")
    raw = bytearray(base64.b64decode(armour.split(b"\n=")[0]))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    text = base64.b64encode(raw)
    lines = b"\n".join(text[i : i + 64] for i in range(0, len(text), 64))
    document = head + b"-----BEGIN PGP SIGNATURE-----\n\n" + lines + b"\n-----END PGP SIGNATURE-----\n"
    with contextlib.suppress(TrustError):
        assert verify(document) == ORIGINAL_TEXT  # a byte that the signature does not cover (unhashed area)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300) | st.binary(max_size=100).map(lambda b: KEY[:400] + b + KEY[450:]))
def test_any_bytes_as_key_are_read_or_refused(data: bytes) -> None:
    try:
        keyring = Keyring.from_bytes(data, what="FILE")
    except ConfigError:
        return
    assert keyring.fingerprints


# --- framing


@pytest.mark.parametrize(
    ("document", "says"),
    [
        (b"\n" + ORIGINAL, "does not begin"),
        (b"hidden\n" + ORIGINAL, "does not begin"),
        (ORIGINAL + b"hidden\n", "does not end"),
        (ORIGINAL + b"\n", "does not end"),
        (ORIGINAL + ORIGINAL, "does not end"),
        (ORIGINAL.replace(b"}\n-----", b"-----BEGIN PGP SIGNED MESSAGE-----\n-----"), "second block"),
        (ORIGINAL[:-1], "does not end"),
        (ORIGINAL.replace(b"Hash: SHA512\n", b""), "Hash: nothing"),
        (ORIGINAL.replace(b"Hash: SHA512", b"Hash: SHA256"), "Hash: SHA256"),
        (ORIGINAL.replace(b"Hash: SHA512", b"Hash: SHA512,SHA256"), "Hash: SHA512,SHA256"),
        (ORIGINAL.replace(b"Hash: SHA512", b"Hash: SHA512\nComment: x"), "other than Hash:"),
        (ORIGINAL.replace(b'"version":3,', b'"version":3, '), "white space"),
        (ORIGINAL.replace(b'"version":3,', b'"version":3,\t'), "white space"),
        (ORIGINAL.replace(b"\n", b"\r\n"), "carriage"),
        (ORIGINAL.replace(b'"version"', b'- "version"'), "escaped dash"),
        (ORIGINAL.replace(b'"version":3', b'"version":4'), "changed after signing"),
        (ORIGINAL[: ORIGINAL.index(b"-----BEGIN PGP SIGNATURE")], "no complete"),
        (ORIGINAL.replace(b"SIGNATURE-----\n\n", b"SIGNATURE-----\nX: y\n\n"), "header"),
        (b"-----BEGIN PGP SIGNED MESSAGE-----\n", "no complete"),
        (b"-----BEGIN PGP SIGNED MESSAGE-----\n-----BEGIN PGP SIGNATURE-----\n\n", "no text"),
        (b"", "does not begin"),
    ],
)
def test_framing_that_could_hide_text_is_refused(document: bytes, says: str) -> None:
    with pytest.raises(SignatureInvalidError) as caught:
        verify(document)
    assert says in caught.value.message
    assert caught.value.message.startswith("mirror m: file f ")
    assert caught.value.hint
    assert caught.value.exit_code == 7


def test_version_and_comment_of_old_gpg_are_accepted() -> None:
    begin = b"-----BEGIN PGP SIGNATURE-----\n"
    assert verify(ORIGINAL.replace(begin, begin + b"Version: GnuPG v2.0.22 (GNU/Linux)\n")) == ORIGINAL_TEXT


# --- the matrix of keys, cross-checked against gpg

#: name -> what we say ("good", "invalid", or why the key is not trusted), and a status word gpg must give.
EXPECTED = {
    "rsa4096": ("good", "GOODSIG"),
    "ed25519": ("good", "GOODSIG"),
    "rsa2048": ("good", "GOODSIG"),
    "nistp256": ("good", "GOODSIG"),
    "sha256": ("good", "GOODSIG"),
    "subkey": ("good", "GOODSIG"),
    "dashes": ("good", "GOODSIG"),
    "expired": ("expired", "EXPKEYSIG"),
    "subkey-expired": ("expired", "EXPKEYSIG"),
    "revoked": ("revoked", "REVKEYSIG"),
    "subkey-revoked": ("revoked", "REVKEYSIG"),
    "weak-key": ("weak", "GOODSIG"),
    "dsa": ("weak", "GOODSIG"),
    "weak digest": ("weak", "GOODSIG"),
    "ripemd160": ("weak", "GOODSIG"),
    "md5": ("weak", "ERRSIG"),
    "expiry extended": ("invalid", "GOODSIG"),
    "two signatures": ("invalid", "GOODSIG"),
    "signature expires": ("invalid", "GOODSIG"),
    "future": ("invalid", "GOODSIG"),
    "tampered": ("invalid", "BADSIG"),
    "trailing space": ("invalid", "GOODSIG"),
    "text before": ("invalid", "GOODSIG"),
    "text after": ("invalid", "GOODSIG"),
    "two blocks": ("invalid", ""),
    "hash line": ("invalid", ""),
}


def judge(document: bytes, keyring: Keyring, now: float) -> str:
    try:
        verify_cleartext(document, keyring, what="f", now=now)
    except KeyNotTrustedError as error:
        return str(error.context["reason"])
    except SignatureInvalidError:
        return "invalid"
    return "good"


@pytest.mark.parametrize("name", EXPECTED)
def test_matrix_of_keys_and_signatures(matrix: Matrix, name: str) -> None:
    ours, gpgs = EXPECTED[name]
    # "signature expires" is good for a day: we look two days later, gpg now.
    now = time.time() + (2 * 86400 if name == "signature expires" else 60)
    assert judge(matrix.documents[name], all_keys(matrix), now) == ours
    if gpgs:
        assert gpgs in matrix.gpg.verdict(matrix.documents[name])


def test_we_accept_nothing_that_gpg_refuses(matrix: Matrix) -> None:
    keyring = all_keys(matrix)
    for name, document in matrix.documents.items():
        if judge(document, keyring, time.time() + 60) == "good":
            assert {"GOODSIG", "VALIDSIG"} <= matrix.gpg.verdict(document), name


def test_text_is_what_gpg_was_given(matrix: Matrix) -> None:
    now = time.time() + 60
    keyring = all_keys(matrix)
    assert verify_cleartext(matrix.documents["rsa4096"], keyring, what="f", now=now).text + b"\n" == TEXT
    dashes = verify_cleartext(matrix.documents["dashes"], keyring, what="f", now=now)
    assert dashes.text == b"-----BEGIN\n- a\nFrom b\nc"


def test_signature_expires_is_good_before(matrix: Matrix) -> None:
    assert judge(matrix.documents["signature expires"], all_keys(matrix), time.time() + 60) == "good"


def test_a_key_that_was_extended_later_needs_its_older_copy_too(matrix: Matrix) -> None:
    """The older copy alone has expired; the newer one alone does not say that the key was valid when it signed."""
    label, now = "expiry extended", time.time() + 60
    document, fingerprint = matrix.documents[label], matrix.gpg.keys[label]
    newer = Keyring.from_bytes(matrix.keys[label], what="newer")
    older = Keyring.from_bytes(matrix.before_extension, what="older")
    assert judge(document, older, now) == "expired"
    with pytest.raises(SignatureInvalidError, match="signed on 2020-01-02") as caught:
        verify_cleartext(document, newer, what="f", now=now)
    assert fingerprint in caught.value.message
    assert "older copy" in caught.value.hint
    assert judge(document, older | newer, now) == "good"
    assert judge(document.replace(b'"version":3', b'"version":4'), older | newer, now) == "invalid"


def test_subkey_reports_the_primary_key(matrix: Matrix) -> None:
    verified = verify_cleartext(matrix.documents["subkey"], all_keys(matrix), what="f", now=time.time() + 60)
    primary, subkey = matrix.gpg.fingerprints("subkey <subkey@example.invalid>")
    assert (verified.fingerprint, verified.signing_key) == (primary, subkey)


def test_unknown_key_is_named_with_the_way_to_trust_it(matrix: Matrix) -> None:
    keyring = all_keys(matrix, without="ed25519")
    with pytest.raises(KeyNotTrustedError) as caught:
        verify_cleartext(matrix.documents["unknown"], keyring, what="mirror m: f", now=time.time() + 60)
    error = caught.value
    assert error.context["reason"] == "unknown"
    assert error.context["fingerprint"] == matrix.gpg.keys["ed25519"]
    assert matrix.gpg.keys["ed25519"] in error.message
    assert "mirror m: f" in error.message
    assert "`--key FILE`" in error.hint
    assert "`cachefetch key trust FILE`" in error.hint
    assert error.exit_code == 7


def test_pinned_key_alone_may_sign(matrix: Matrix) -> None:
    document, keyring, now = matrix.documents["subkey"], all_keys(matrix), time.time() + 60
    right, wrong = frozenset({matrix.gpg.keys["subkey"]}), frozenset({matrix.gpg.keys["rsa4096"]})
    assert verify_cleartext(document, keyring, pinned=right, what="f", now=now).text
    with pytest.raises(KeyNotTrustedError) as caught:
        verify_cleartext(document, keyring, pinned=wrong, what="f", now=now)
    assert caught.value.context["reason"] == "not-pinned"
    assert matrix.gpg.keys["rsa4096"] in caught.value.hint


# --- keyrings


def test_keyring_reads_several_keys_armoured_or_binary(matrix: Matrix) -> None:
    keys = matrix.gpg.keys
    both = {keys["rsa4096"], keys["ed25519"]}
    one_block = matrix.gpg.export("rsa4096", "ed25519")
    two_blocks = matrix.keys["rsa4096"] + matrix.keys["ed25519"]
    binary = matrix.gpg.run("--batch", "--export", *sorted(both))
    for data in (one_block, two_blocks, binary):
        assert Keyring.from_bytes(data, what="keys").fingerprints == both


def test_key_facts(matrix: Matrix) -> None:
    infos = {c.info.user_ids[0].split()[0]: c.info for c in all_keys(matrix).certificates.values()}
    assert infos["rsa4096"].algorithm == "RSA 4096"
    assert infos["rsa4096"].expires is None
    assert not infos["rsa4096"].weak
    assert infos["weak-key"].weak == "RSA with 1024 bits"
    assert infos["revoked"].revoked
    assert infos["expired"].expires == 1580515200.0  # 2020-02-01
    assert infos["expired"].created == 1577836800.0  # 2020-01-01
    assert infos["ed25519"].fingerprint == matrix.gpg.keys["ed25519"]


def test_union_keeps_a_revocation(matrix: Matrix) -> None:
    revoked = Keyring.from_bytes(matrix.keys["revoked"], what="new")
    before = Keyring.from_bytes(matrix.before_revocation, what="old")
    fingerprint = matrix.gpg.keys["revoked"]
    assert not before.certificates[fingerprint].info.revoked
    assert judge(matrix.documents["revoked"], before, time.time() + 60) == "good"
    for union in (revoked | before, before | revoked):
        assert union.certificates[fingerprint].info.revoked
        assert judge(matrix.documents["revoked"], union, time.time() + 60) == "revoked"
    both = Keyring.from_bytes(matrix.before_revocation + matrix.keys["revoked"], what="both")
    assert both.certificates[fingerprint].info.revoked


def test_secret_key_is_refused(matrix: Matrix) -> None:
    with pytest.raises(ConfigError, match="SECRET") as caught:
        Keyring.from_bytes(matrix.gpg.export("ed25519", secret=True), what="mykey.asc")
    assert "mykey.asc" in caught.value.message


@pytest.mark.parametrize("data", [b"", b"hello", KEY[:300], KEY.replace(b"BLOCK", b""), ORIGINAL])
def test_what_is_no_key_is_refused(data: bytes) -> None:
    with pytest.raises(ConfigError, match=r"FILE is not an OpenPGP public key"):
        Keyring.from_bytes(data, what="FILE")


@pytest.mark.parametrize("text", [FINGERPRINT, FINGERPRINT.lower(), "0x" + FINGERPRINT])
def test_fingerprint_in_its_spellings(text: str) -> None:
    spaced = " ".join(text[i : i + 4] for i in range(0, len(text), 4))
    assert normalize_fingerprint(text, what="x") == normalize_fingerprint(spaced, what="x") == FINGERPRINT


@pytest.mark.parametrize("text", ["", "92DFACD7F6EA048A", "g" * 40, FINGERPRINT + "00"])
def test_short_key_ids_are_no_fingerprints(text: str) -> None:
    with pytest.raises(ConfigError):
        normalize_fingerprint(text, what="x")
