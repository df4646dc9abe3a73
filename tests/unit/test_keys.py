from __future__ import annotations

import os
from pathlib import Path

import pysequoia
import pytest

from cachefetch.errors import ConfigError, StoreError
from cachefetch.fetch import keys
from cachefetch.fetch.keyfiles import MAX_KEY_SIZE

FIXTURES = Path(__file__).parents[1] / "data" / "fixtures" / "keys"
KEY = (FIXTURES / "cachefetch-test.pub.asc").read_bytes()
FINGERPRINT = (FIXTURES / "fingerprint.txt").read_text().strip()


def new_key(user: str) -> pysequoia.Tsk:
    return pysequoia.Tsk.generate(user_id=user, profile=pysequoia.Profile.RFC4880)


def public(key: pysequoia.Tsk) -> bytes:
    return str(key.extract_certificate()).encode()


@pytest.fixture
def directory(tmp_path: Path) -> str:
    return str(tmp_path / "cachefetch" / "keys")


def test_trust_list_untrust(directory: str) -> None:
    assert keys.list_keys(directory) == ()
    [info] = keys.trust(KEY, directory)
    assert info.fingerprint == FINGERPRINT
    assert info.user_ids == ("Cachefetch Test Key (throwaway) <cachefetch-test@example.invalid>",)
    assert (info.algorithm, info.expires, info.revoked, info.weak) == ("RSA 4096", None, False, "")
    path = Path(directory) / f"{FINGERPRINT}.asc"
    assert path.stat().st_mode & 0o777 == 0o644
    assert path.read_bytes().startswith(b"-----BEGIN PGP PUBLIC KEY BLOCK-----")
    assert os.listdir(directory) == [path.name]
    assert keys.list_keys(directory) == (info,)
    assert keys.load_trusted(directory).fingerprints == {FINGERPRINT}
    assert keys.untrust(FINGERPRINT.lower(), directory) == FINGERPRINT
    assert keys.list_keys(directory) == ()


def test_trust_takes_every_key_of_a_file(directory: str) -> None:
    other = new_key("Other <other@example.invalid>")
    infos = keys.trust(KEY + public(other), directory)
    assert [info.fingerprint for info in infos] == [
        FINGERPRINT,
        other.extract_certificate().fingerprint.upper(),
    ]
    assert len(keys.list_keys(directory)) == 2


def test_old_copy_of_a_key_does_not_undo_its_revocation(directory: str) -> None:
    key = new_key("Gone <gone@example.invalid>")
    old, cert = public(key), key.extract_certificate()
    revocation = cert.revoke(key.certifier())
    packets = [*pysequoia.packet.PacketPile.from_bytes(bytes(cert))]
    revoked = pysequoia.Cert.from_packets(
        [packets[0], *pysequoia.packet.PacketPile.from_bytes(bytes(revocation)), *packets[1:]]
    )
    assert keys.trust(old, directory)[0].revoked is False
    assert keys.trust(str(revoked).encode(), directory)[0].revoked is True
    assert keys.trust(old, directory)[0].revoked is True
    assert keys.list_keys(directory)[0].revoked is True


def test_secret_key_is_refused_and_nothing_is_written(directory: str) -> None:
    secret = str(new_key("Me <me@example.invalid>")).encode()
    assert b"PRIVATE KEY" in secret
    with pytest.raises(ConfigError, match=r"my\.asc holds a SECRET key"):
        keys.trust(secret, directory, what="my.asc")
    assert not os.path.exists(directory)


def test_what_is_no_key_is_refused(directory: str) -> None:
    with pytest.raises(ConfigError, match=r"page\.html is not an OpenPGP public key"):
        keys.trust(b"<html>", directory, what="page.html")
    assert not os.path.exists(directory)


def test_damaged_file_is_named_and_the_others_work(directory: str) -> None:
    keys.trust(KEY, directory)
    other = public(new_key("Other <other@example.invalid>"))
    damaged, misnamed = Path(directory) / f"{'A' * 40}.asc", Path(directory) / "site.asc"
    damaged.write_bytes(KEY[:500])
    misnamed.write_bytes(other)
    (Path(directory) / "README").write_text("not a key, not looked at")
    keyring = keys.load_trusted(directory)
    assert keyring.fingerprints == {FINGERPRINT}
    assert len(keyring.problems) == 2
    assert str(damaged) in keyring.problems[0]
    assert "is not an OpenPGP public key" in keyring.problems[0]
    assert str(misnamed) in keyring.problems[1]
    assert keys.untrust("A" * 40, directory) == "A" * 40  # the way to be rid of it


def test_directory_instead_of_a_key_file_is_a_problem(directory: str) -> None:
    keys.trust(KEY, directory)
    (Path(directory) / f"{'B' * 40}.asc").mkdir()
    keyring = keys.load_trusted(directory)
    assert keyring.fingerprints == {FINGERPRINT}
    assert "cannot read" in keyring.problems[0]


def test_untrust_of_an_unknown_key(directory: str) -> None:
    with pytest.raises(ConfigError, match="is not trusted"):
        keys.untrust(FINGERPRINT, directory)
    with pytest.raises(ConfigError, match="not a key fingerprint"):
        keys.untrust("../../etc/passwd", directory)


def test_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot") as caught:
        keys.trust(KEY, str(tmp_path / "file" / "keys"))
    assert caught.value.exit_code == 10


def test_failed_write_leaves_no_part(directory: str) -> None:
    blocker = Path(directory) / f"{FINGERPRINT}.asc"
    (blocker / "x").mkdir(parents=True)  # a directory that is not empty cannot be replaced by a file
    with pytest.raises(StoreError, match="cannot write"):
        keys.trust(KEY, directory)
    assert os.listdir(directory) == [blocker.name]


def test_key_files_of_the_command_line(tmp_path: Path) -> None:
    other = tmp_path / "other.asc"
    other.write_bytes(public(new_key("Other <other@example.invalid>")))
    keyring = keys.load_files((str(FIXTURES / "cachefetch-test.pub.asc"), str(other)))
    assert FINGERPRINT in keyring.fingerprints
    assert len(keyring) == 2
    with pytest.raises(ConfigError, match=r"cannot read .*none\.asc: No such file"):
        keys.load_files((str(tmp_path / "none.asc"),))
    (tmp_path / "bad.asc").write_text("x")
    with pytest.raises(ConfigError, match=r"bad\.asc is not an OpenPGP public key"):
        keys.load_files((str(tmp_path / "bad.asc"),))


def test_oversize_key_file_is_refused(tmp_path: Path) -> None:
    large = tmp_path / "large.asc"
    large.write_bytes(b"x" * (MAX_KEY_SIZE + 1))
    with pytest.raises(ConfigError, match="too large"):
        keys.load_files((str(large),))


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"XDG_CONFIG_HOME": "/x", "HOME": "/h"}, "/x/cachefetch/keys"),
        ({"HOME": "/h"}, "/h/.config/cachefetch/keys"),
        ({"XDG_CONFIG_HOME": "relative", "HOME": "/h"}, "/h/.config/cachefetch/keys"),
        ({"XDG_CONFIG_HOME": "", "HOME": "/h"}, "/h/.config/cachefetch/keys"),
    ],
)
def test_default_directory(environ: dict[str, str], expected: str) -> None:
    assert keys.default_directory(environ) == expected
