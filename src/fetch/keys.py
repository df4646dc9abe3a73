"""The store of trusted public keys: one armoured file ``<FINGERPRINT>.asc`` a key, in one directory.

Trusted means: in this directory, or given with ``--key`` for one run. There is no web of trust
(docs/security.md).
"""

from __future__ import annotations

import contextlib
import json
import os

from ..errors import BindingError, ConfigError, FormatError, NotFoundError, StoreError
from ..regular import open_regular
from ..resolver.index.readers import Get, join
from ..resolver.index.readers.manifest import KEY_INDEX_MANIFEST, key_manifest_path, parse_manifest
from ..values import frozen
from .keyfiles import MAX_KEY_SIZE, NAME
from .transports import redact
from .verify.binding import check_blob
from .verify.openpgp import KeyInfo, Keyring, normalize_fingerprint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Mapping
    from typing import BinaryIO, NoReturn

    from ..resolver.index.readers import Answer

__all__ = [
    "KeyInfo",
    "Published",
    "default_directory",
    "key_files",
    "list_keys",
    "load_files",
    "load_trusted",
    "published",
    "trust",
    "untrust",
]


def default_directory(environ: Mapping[str, str]) -> str:
    """Return ``$XDG_CONFIG_HOME/cachefetch/keys``, by default below ``~/.config``."""
    base = environ.get("XDG_CONFIG_HOME", "")
    if not os.path.isabs(base):  # the XDG rule: a relative path is ignored
        base = os.path.join(environ.get("HOME") or os.path.expanduser("~"), ".config")
    return os.path.join(base, "cachefetch", "keys")


def load_trusted(directory: str) -> Keyring:
    """Read every trusted key.

    A file that cannot be read, is damaged, or has another name than its key does not stop the others: one
    sentence about it is in ``problems`` of the result. A directory that does not exist holds no keys.

    Raises:
        StoreError: the directory cannot be listed.
    """
    keyring = Keyring()
    for name in _names(directory):
        path = os.path.join(directory, name)
        try:
            keyring |= _load_one(path, name)
        except (ConfigError, StoreError) as error:
            keyring |= Keyring(problems=(error.message,))
    return keyring


def load_files(paths: tuple[str, ...]) -> Keyring:
    """Read public key files given by the user (``--key FILE``), each with one or more keys.

    Raises:
        ConfigError: a file is missing, unreadable or not a public key.
    """
    keyring = Keyring()
    for path in paths:
        try:
            keyring |= Keyring.from_bytes(_read(path, _open), what=path)
        except StoreError as error:
            raise ConfigError(
                error.message, hint="give a readable public key file", context=error.context
            ) from error
    return keyring


def list_keys(directory: str) -> tuple[KeyInfo, ...]:
    """Return the trusted keys, ordered by fingerprint; errors as for `load_trusted`."""
    keyring = load_trusted(directory)
    return tuple(keyring.certificates[fpr].info for fpr in sorted(keyring.certificates))


def trust(
    data: bytes, directory: str, *, what: str = "the key file", only: Collection[str] = ()
) -> tuple[KeyInfo, ...]:
    """Trust every public key in `data` from now on; facts about a key that is there already are kept.

    Args:
        data: armoured or binary public keys.
        directory: of the key store, made when missing.
        what: name of the file, for messages.
        only: fingerprints (upper-case) that are wanted; empty takes every key in `data`.

    Returns:
        What is now known of each key, in the order of `data`. Revoked, expired and weak keys are stored too
        (the caller shows that), since verification refuses their signatures with the right reason.

    Raises:
        ConfigError: not a public key, or a secret one.
        StoreError: the directory cannot be written.
    """
    given = Keyring.from_bytes(data, what=what)
    known = load_trusted(directory)
    infos = []
    for fingerprint in given.certificates:
        if only and fingerprint not in only:
            continue
        one = Keyring({fingerprint: given.certificates[fingerprint]})
        if fingerprint in known.certificates:
            one = Keyring({fingerprint: known.certificates[fingerprint]}) | one
        certificate = one.certificates[fingerprint]
        _write(directory, f"{fingerprint}.asc", str(certificate.cert).encode("ascii"))
        infos.append(certificate.info)
    return tuple(infos)


def untrust(fingerprint: str, directory: str) -> str:
    """Trust a key no longer, and return its fingerprint (upper-case).

    Raises:
        ConfigError: not a fingerprint, or no such key.
        StoreError: the file cannot be removed.
    """
    wanted = normalize_fingerprint(fingerprint, what="key untrust")
    path = os.path.join(directory, f"{wanted}.asc")
    try:
        os.unlink(path)
    except FileNotFoundError as error:
        raise ConfigError(
            f"key {wanted} is not trusted",
            hint="`cachefetch key list` shows the trusted keys",
            context={"fingerprint": wanted},
        ) from error
    except OSError as error:
        _failed("remove", path, error)
    return wanted


def _names(directory: str) -> list[str]:
    try:
        return sorted(name for name in os.listdir(directory) if name.endswith(".asc"))
    except FileNotFoundError:
        return []
    except OSError as error:
        _failed("list", directory, error)


def _load_one(path: str, name: str) -> Keyring:
    """Read one file of the store; its name must be the fingerprint, or `untrust` would not find the key."""
    keyring = Keyring.from_bytes(_read(path, open_regular), what=path)
    match = NAME.fullmatch(name)
    if match is None or keyring.fingerprints != {match[1]}:
        raise ConfigError(
            f"{path} is not named after the one key in it: add it with `cachefetch key trust FILE`"
        )
    return keyring


def _open(path: str) -> BinaryIO:
    """Open what the user named, which may be a FIFO: ``--key <(gpg --export ...)``."""
    return open(path, "rb")


def _read(path: str, opened: Callable[[str], BinaryIO]) -> bytes:
    try:
        with opened(path) as file:
            data = file.read(MAX_KEY_SIZE + 1)
    except OSError as error:
        _failed("read", path, error)
    if len(data) > MAX_KEY_SIZE:
        raise ConfigError(f"{path} is too large for a public key (more than {MAX_KEY_SIZE} bytes)")
    return data


def _write(directory: str, name: str, data: bytes) -> None:
    """Write a file so that a crash leaves the old content or the new, never a part."""
    import tempfile

    temporary = None
    try:
        os.makedirs(directory, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=".new-", dir=directory)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            os.fchmod(file.fileno(), 0o644)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, os.path.join(directory, name))
        _sync(directory)
    except OSError as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        _failed("write", os.path.join(directory, name), error)


def _sync(directory: str) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _failed(verb: str, path: str, error: OSError) -> NoReturn:
    raise StoreError(
        f"cannot {verb} {path}: {error.strerror or error}",
        hint="check that the directory exists, is yours, and has free space",
        context={"path": path},
    ) from error


@frozen
class Published:
    """A public key beside a mirror's packages: what it says of itself, and its bytes. Not trusted by being there."""

    info: KeyInfo
    data: bytes


def published(location: str) -> Generator[tuple[Get, ...], tuple[Answer, ...], tuple[Published, ...]]:
    """Read the keys that a mirror publishes, of layout 3, else of layout 2 (Spack 1.1, docs/formats.md).

    A generator of requests, as the readers of indexes; each key must have the fingerprint that the list calls it by.

    Raises:
        NotFoundError: the mirror publishes no keys.
        IntegrityError, MirrorError: the list or a key is damaged or cannot be read.
        ConfigError: a key is no OpenPGP key.
    """
    what = f"the key list of {redact(location)}"
    (answer,) = yield (Get(join(location, KEY_INDEX_MANIFEST)),)
    if isinstance(answer.error, NotFoundError):
        (answer,) = yield (Get(join(location, f"{_V2_KEYS}/index.json")),)
        if isinstance(answer.error, NotFoundError):
            raise NotFoundError(
                f"{redact(location)} publishes no keys",
                hint="ask its owner for the public key, and give it to `cachefetch key trust FILE`",
                context={"mirror": redact(location)},
            )
        names = _key_names(_body(answer), what)
        answers = yield tuple(Get(join(location, f"{_V2_KEYS}/{name}.pub")) for name in names)
        return tuple(_published(_body(a), name, what) for a, name in zip(answers, names, strict=True))
    ref = parse_manifest(_body(answer), what=what).key_index()
    (answer,) = yield (Get(join(location, ref.path)),)
    check_blob(_body(answer), ref, what=what)
    names = _key_names(_body(answer), what)
    answers = yield tuple(Get(join(location, key_manifest_path(name))) for name in names)
    refs = [parse_manifest(_body(answer), what=what).key() for answer in answers]
    answers = yield tuple(Get(join(location, ref.path)) for ref in refs)
    for ref, answer in zip(refs, answers, strict=True):
        check_blob(_body(answer), ref, what=what)
    return tuple(_published(_body(a), name, what) for a, name in zip(answers, names, strict=True))


def _body(answer: Answer) -> bytes:
    if answer.error is not None:
        raise answer.error
    return answer.body


def _key_names(data: bytes, what: str) -> list[str]:
    """Return the fingerprints of a key list: ``{"keys": {"<fingerprint>": {}}}``."""
    try:
        document = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{what} is not JSON", hint=_DAMAGED, context={"file": what}) from error
    keys = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(keys, dict) or len(keys) > MAX_PUBLISHED:
        raise FormatError(f"{what} is no list of keys", hint=_DAMAGED, context={"file": what})
    try:
        return [normalize_fingerprint(name, what=what) for name in sorted(keys)]
    except ConfigError as error:
        raise FormatError(error.message, hint=_DAMAGED, context={"file": what}) from error


def _published(data: bytes, name: str, what: str) -> Published:
    keyring = Keyring.from_bytes(data, what=f"{what}, key {name}")
    if keyring.fingerprints != {name}:
        found = ", ".join(sorted(keyring.fingerprints))
        raise BindingError(
            f"{what} calls key {found} by the fingerprint {name}", hint=_DAMAGED, context={"file": what}
        )
    return Published(keyring.certificates[name].info, data)


def key_files(directory: str) -> list[str]:
    """Return the files of a directory that may hold public keys, such as Spack's ``var/spack/gpg`` (``*.key``).

    Raises:
        ConfigError: there is none.
        StoreError: the directory cannot be listed.
    """
    try:
        names = sorted(name for name in os.listdir(directory) if name.endswith(_KEY_ENDINGS))
    except OSError as error:
        _failed("list", directory, error)
    if not names:
        raise ConfigError(
            f"{directory} has no public key file ({', '.join(_KEY_ENDINGS)})",
            hint="from a gpg home, export the key: gpg --homedir DIR --armor --export FINGERPRINT > FILE",
            context={"path": directory},
        )
    return [os.path.join(directory, name) for name in names]


_V2_KEYS = "build_cache/_pgp"
_KEY_ENDINGS = (".key", ".asc", ".pub", ".gpg")
_DAMAGED = "the mirror is damaged: get the key from its owner"
#: Keys of one list. The public caches have a handful.
MAX_PUBLISHED = 1000
