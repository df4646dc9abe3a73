"""Manifests and paths of mirror layout v3: bytes in, values out.

A manifest names blobs by digest. Only spec manifests are ever signed, and the signature is taken off before
the text gets here (``fetch/verify``). Rules: Spack 1.1 ``url_buildcache``, docs/formats.md.
"""

from __future__ import annotations

import functools
import json
import re

from ....errors import FormatError
from ....values import frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

#: The only manifest (and layout) version that exists; Spack refuses any other for specs.
MANIFEST_VERSION = 3
#: Bytes. Real manifests have about 600 (1,500 when signed); a larger document is refused before it is parsed.
MAX_MANIFEST_SIZE = 1 << 20
LAYOUT_PATH = "v3/layout.json"
SPEC_MANIFESTS = "v3/manifests/spec"
INDEX_MANIFEST = "v3/manifests/index/index.manifest.json"
KEY_INDEX_MANIFEST = "v3/manifests/key/keys.manifest.json"
#: Record kinds: prefix of the media type, oldest and newest version that we read (specfile, database, ...).
_KINDS = {
    "spec": ("application/vnd.spack.spec.", 1, 6),
    "index": ("application/vnd.spack.db.", 6, 9),
    "tarball": ("application/vnd.spack.install.", 2, 2),
    "key index": ("application/vnd.spack.keyindex.", 1, 1),
}
KEY_MEDIA_TYPE = "application/pgp-keys"
_MEDIA_VERSION = re.compile(r"v([0-9]{1,6})(?:\.|\+|;|$)")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_DAG_HASH = re.compile(r"[a-z2-7]{32}")
#: Characters of NAME-VERSION-HASH: with what files of a mirror and a store add, a file system takes 255.
_LONGEST_STEM = 220
_FINGERPRINT = re.compile(r"[0-9A-F]{40}(?:[0-9A-F]{24})?")
_UNSAFE = re.compile(r"[^A-Za-z0-9_+.-]")
_MAX_SIZE = (1 << 63) - 1
_KEYS = frozenset(("version", "data"))
_BLOB_KEYS = frozenset(("contentLength", "mediaType", "compression", "checksumAlgorithm", "checksum"))


@frozen
class BlobRef:
    """A blob as a manifest promises it.

    `sha256` (64 lower-case hex characters) and `size` (bytes) are of the blob as stored, after compression.
    `compression` is what the manifest says ("gzip", "none"); readers sniff the bytes instead.
    """

    media_type: str
    sha256: str
    size: int
    compression: str

    @property
    def path(self) -> str:
        """Path of the blob relative to the mirror URL."""
        return blob_path(self.sha256)


@frozen
class Manifest:
    """A valid manifest: its blobs in file order, and `what` it is called in messages; `extra` are keys without meaning.

    The accessors take the newest media version that we know, so that a manifest may list newer ones beside it
    (Spack 1.3, docs/formats.md). They raise FormatError when there is none; its context then has "reason"
    ("too-new", "too-old" or "missing") and, for the first two, "version" (int).
    """

    version: int
    blobs: tuple[BlobRef, ...]
    what: str = "manifest"
    extra: tuple[str, ...] = ()

    def tarball(self) -> BlobRef:
        """Return the install tarball of a spec manifest."""
        return self._newest("tarball")

    def spec(self) -> BlobRef:
        """Return the spec metadata of a spec manifest."""
        return self._newest("spec")

    def index(self) -> BlobRef:
        """Return the index (database) of an index manifest."""
        return self._newest("index")

    def key_index(self) -> BlobRef:
        """Return the key list of the key index manifest."""
        return self._newest("key index")

    def key(self) -> BlobRef:
        """Return the public key of a key manifest."""
        for blob in self.blobs:
            if blob.media_type == KEY_MEDIA_TYPE:
                return blob
        raise FormatError(
            f"{self.what} names no public key", hint=_REPORT, context={"file": self.what, "reason": "missing"}
        )

    def _newest(self, kind: str) -> BlobRef:
        prefix, oldest, newest = _KINDS[kind]
        versions = [(_media_version(blob.media_type, prefix), blob) for blob in self.blobs]
        known = [(version, blob) for version, blob in versions if oldest <= version <= newest]
        if known:
            return max(known, key=lambda entry: entry[0])[1]  # the first of equals, as Spack takes it
        raise _kind_error(self.what, kind, [version for version, _ in versions if version >= 0], newest)


def parse_manifest(data: bytes, *, what: str) -> Manifest:
    """Parse and check a manifest without signature.

    Args:
        data: the JSON text, UTF-8; of a signed manifest the verified text.
        what: mirror and file, for messages, such as "mirror e4s: zlib-1.3.1-a2u….spec.manifest.json".

    Raises:
        FormatError: not JSON, not of the schema, another version than 3, or another digest than sha256.
            Extra keys are allowed at both levels (Spack 1.1, docs/formats.md).
    """
    document = _load(data, what)
    if not isinstance(document, dict):
        _refuse(what, "is not a JSON object")
    version = document.get("version")
    if not isinstance(version, int) or isinstance(version, bool):
        _refuse(what, 'has no integer "version"')
    if version != MANIFEST_VERSION:
        _refuse_version(what, version)
    records = document.get("data")
    if not isinstance(records, list):
        _refuse(what, 'has no array "data"')
    blobs = tuple(_blob(what, i, record) for i, record in enumerate(records))
    return Manifest(version, blobs, what, _extra(document, records))


def spec_manifest_path(name: str, version: str, hash: str) -> str:
    """Return the path of a spec manifest relative to the mirror URL.

    Characters outside ``A-Za-z0-9_+.-`` become ``_`` (a git version has "="). Name, version and hash are
    enough: no architecture and no compiler in it (Spack 1.1, docs/formats.md).

    Raises:
        FormatError: `hash` is no full DAG hash, or `name` could leave the directory.
    """
    return f"{SPEC_MANIFESTS}/{_safe_name(name)}/{spec_stem(name, version, hash)}.spec.manifest.json"


def spec_stem(name: str, version: str, hash: str, *, is_file: bool = True) -> str:
    """Return ``NAME-VERSION-HASH``, unsafe characters replaced: the stem of file names about one spec.

    Without `is_file` it may be of any length (a registry's tag is cut).

    Raises:
        FormatError: `hash` is no full DAG hash, `name` could leave the directory, or both are too long for a file.
    """
    if not _DAG_HASH.fullmatch(hash):
        raise FormatError(
            f"{hash!r:.60} of {name!r:.60} is not a DAG hash",
            hint="a DAG hash has 32 characters a-z and 2-7; see `cachefetch list`",
            context={"name": name, "hash": hash},
        )
    stem = f"{_safe_name(name)}-{_UNSAFE.sub('_', version)}-{hash}"
    if is_file and len(stem) > _LONGEST_STEM:
        raise FormatError(
            f"{name!r:.60}, version {version!r:.60}, is too long for the name of a file",
            hint=_REPORT,
            context={"name": name[:200], "hash": hash},
        )
    return stem


def blob_path(sha256: str) -> str:
    """Return the path of a blob relative to the mirror URL (``blobs/`` is beside ``v3/``, not below it).

    Raises:
        FormatError: not 64 lower-case hexadecimal characters.
    """
    if not _SHA256.fullmatch(sha256):
        raise FormatError(
            f"{sha256!r:.90} is not a sha256 digest", hint=_REPORT, context={"checksum": str(sha256)[:90]}
        )
    return f"blobs/sha256/{sha256[:2]}/{sha256}"


def key_manifest_path(fingerprint: str) -> str:
    """Return the path of the manifest of one public key (upper-case fingerprint) relative to the mirror URL.

    Raises:
        FormatError: not an OpenPGP fingerprint (40 or 64 hexadecimal characters).
    """
    if not is_fingerprint(fingerprint):
        raise FormatError(
            f"{fingerprint!r:.90} is not a key fingerprint",
            hint=_REPORT,
            context={"fingerprint": fingerprint[:90]},
        )
    return f"v3/manifests/key/{fingerprint.upper()}.key.manifest.json"


def is_fingerprint(text: str) -> bool:
    """Tell whether a text is an OpenPGP fingerprint (40 or 64 hexadecimal characters)."""
    return _FINGERPRINT.fullmatch(text.upper()) is not None


_REPORT = "the mirror is damaged or not a Spack build cache; try another mirror and tell its owner"


def _load(data: bytes, what: str) -> Any:
    if len(data) > MAX_MANIFEST_SIZE:
        _refuse(what, f"has {len(data)} bytes, more than the limit of {MAX_MANIFEST_SIZE}")
    if data.startswith(b"-----BEGIN PGP"):
        _refuse(what, "still has its signature around it")
    try:
        return _DECODER.decode(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        _refuse(what, f"is not JSON ({_first_line(error)})", error)


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Two readers may take different ones of two equal keys: a signed text must have one meaning.
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return found


#: Made once: `json.loads` with a hook makes a new one each time, which costs as much as a manifest.
_DECODER = json.JSONDecoder(object_pairs_hook=_no_duplicates)


def _blob(what: str, position: int, record: Any) -> BlobRef:
    where = f"record {position} of data"
    if not isinstance(record, dict):
        _refuse(what, f"has {where} that is not an object")
    for key in ("mediaType", "compression", "checksumAlgorithm", "checksum"):
        if not isinstance(record.get(key), str):
            _refuse(what, f'has no text "{key}" in {where}')
    size = record.get("contentLength")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= _MAX_SIZE:
        _refuse(what, f'has no usable "contentLength" in {where}')
    algorithm, digest = record["checksumAlgorithm"], record["checksum"]
    if algorithm != "sha256":
        _refuse(what, f"uses the digest algorithm {algorithm!r:.40} in {where}; only sha256 is accepted")
    if not _SHA256.fullmatch(digest):
        _refuse(what, f"has {digest!r:.90} in {where}, which is not a sha256 digest")
    return BlobRef(record["mediaType"], digest, size, record["compression"])


def _extra(document: dict[str, Any], records: list[dict[str, Any]]) -> tuple[str, ...]:
    """Return the keys that nobody knows, of the manifest and its records."""
    found = set(document) - _KEYS if len(document) != len(_KEYS) else set()
    for record in records:
        if len(record) != len(_BLOB_KEYS):
            found |= set(record) - _BLOB_KEYS
    return tuple(sorted(found))


@functools.lru_cache(256)  # of a few texts, asked for each blob of each manifest
def _media_version(media_type: str, prefix: str) -> int:
    """Return the version number after `prefix`, -1 for another kind of record."""
    found = _MEDIA_VERSION.match(media_type, len(prefix)) if media_type.startswith(prefix) else None
    return int(found[1]) if found else -1


def _safe_name(name: str) -> str:
    safe = _UNSAFE.sub("_", name)
    if not safe or safe.startswith("."):
        raise FormatError(f"{name!r:.60} is not a package name", hint=_REPORT, context={"name": name})
    return safe


def _refuse(what: str, problem: str, cause: BaseException | None = None) -> NoReturn:
    raise FormatError(f"{what} {problem}", hint=_REPORT, context={"file": what}) from cause


def _refuse_version(what: str, version: int) -> NoReturn:
    reason = "too-new" if version > MANIFEST_VERSION else "too-old"
    raise FormatError(
        f"{what} has manifest version {version}; this cachefetch reads version {MANIFEST_VERSION}",
        hint=_UPDATE if reason == "too-new" else _REPORT,
        context={"file": what, "reason": reason, "version": version},
    )


def _kind_error(what: str, kind: str, versions: list[int], newest: int) -> FormatError:
    if not versions:
        return FormatError(
            f"{what} names no {kind}", hint=_REPORT, context={"file": what, "reason": "missing"}
        )
    reason = "too-new" if max(versions) > newest else "too-old"
    version = min(v for v in versions if v > newest) if reason == "too-new" else max(versions)
    return FormatError(
        f"{what} has its {kind} in format version {version} only; this cachefetch reads up to {newest}",
        hint=_UPDATE if reason == "too-new" else _REPORT,
        context={"file": what, "reason": reason, "version": version},
    )


_UPDATE = "a newer Spack wrote it: update cachefetch, or use a mirror written by Spack 1.1 to 1.3"


def _first_line(error: BaseException) -> str:
    return str(error).split("\n", 1)[0][:120]
