"""Write a bundle from a mirror directory: every byte is hashed on its way, a volume appears when it is whole."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from dataclasses import dataclass

from ...errors import CachefetchError, ConfigError, DigestError, FormatError, TruncatedError
from ...regular import open_regular
from ...resolver.index.readers.manifest import (
    INDEX_MANIFEST,
    KEY_INDEX_MANIFEST,
    LAYOUT_PATH,
    blob_path,
    parse_manifest,
)
from ..mirror.destination import list_manifests, list_other_manifests
from ..mirror.plan import Problem
from ..mirror.records import Records, record_node
from ..store import files as store_files
from ..verify.openpgp import is_signed, split_cleartext
from .format import (
    HEADER_NAME,
    LIST_NAME,
    MAX_HEADER_SIZE,
    SUFFIX,
    File,
    Header,
    header_text,
    lay_out,
    list_text,
    member_header,
    padding,
    piece_name,
    volume_bytes,
    volume_names,
)
from .order import dependencies_first
from .read import read_volume

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable
    from typing import BinaryIO

    from ...resolver.index.readers.manifest import BlobRef
    from .format import Contents

    #: Path and bytes of a manifest, and the blobs that it names.
    _Waiting = tuple[str, bytes, tuple[BlobRef, ...]]

    #: Returns a text clear-signed.
    Sign = Callable[[bytes], bytes]

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Packing:
    """What of a mirror goes into a bundle: files of every volume, files of each package; `left` were known."""

    common: tuple[File, ...]
    packages: tuple[tuple[File, ...], ...]
    left: int
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written: the volumes in order, those of them that were there already, bytes written."""

    id: str
    paths: tuple[str, ...]
    kept: int
    bytes: int


def short_digest(data: bytes) -> str:
    """Return what a receipt calls a manifest: the first 16 bytes of its sha256, hexadecimal."""
    return hashlib.sha256(data).hexdigest()[:32]


def survey(mirror: str, baseline: Collection[str] = (), *, divided: bool = False) -> Packing:
    """Return what a bundle of the mirror directory holds.

    Args:
        mirror: a directory of layout 3.
        baseline: `short_digest` of the manifests that the other side has; these and their blobs stay out.
        divided: there may be several volumes: what others need comes first. In one volume the order is that of names.

    Raises:
        FormatError: there is no index, or a document of the mirror itself is damaged.
        StoreError: a file cannot be read.
    """
    common = _common(mirror)
    known: set[str] = {file.path for file in common}
    waiting: list[_Waiting] = []
    problems: list[Problem] = []
    left = 0
    for stem, path in sorted(list_manifests(mirror).items(), key=lambda item: item[1]):
        data = _read(mirror, path)
        try:
            text = split_cleartext(data, what=path).text if is_signed(data) else data
            manifest = parse_manifest(text, what=path)
            blobs: tuple[BlobRef, ...] = (manifest.spec(), manifest.tarball())
        except CachefetchError as error:
            problems.append(Problem(stem[-32:], path.split("/")[-2], error.code, error.message, (), path))
            continue
        if short_digest(data) in baseline:
            left += 1
            known.update(blob.path for blob in blobs)
        else:
            waiting.append((path, data, blobs))
    if divided:
        waiting = _dependencies_first(mirror, waiting)
    packages = []
    for path, data, blobs in waiting:
        if lost := [blob for blob in blobs if _size(mirror, blob.path) != blob.size]:
            message = f"the blob {lost[0].path} of {path} is missing or of another size"
            problems.append(
                Problem(_hash_of(path), path.split("/")[-2], "not-found", message, (), lost[0].path)
            )
            continue
        mine = [File(blob.path, blob.size, blob.sha256) for blob in blobs if blob.path not in known]
        known.update(file.path for file in mine)
        packages.append((*_unique(mine), _file(path, data)))
    return Packing(common, tuple(packages), left, tuple(problems))


def _hash_of(path: str) -> str:
    return path.removesuffix(".spec.manifest.json")[-32:]


def _dependencies_first(mirror: str, waiting: list[_Waiting]) -> list[_Waiting]:
    """Return packages in the order that the index of the mirror tells; as they are where it cannot be read."""
    try:
        index = parse_manifest(_read(mirror, INDEX_MANIFEST), what=INDEX_MANIFEST).index()
        records = Records(_read(mirror, index.path))
    except FormatError:
        return waiting

    def needed_by(hash_: str) -> list[str]:
        try:
            node = record_node(records.text(hash_), hash_, records.specfile)
        except FormatError:
            return []
        return [edge.hash for edge in node.closure_edges()] if node.external is None else []

    by_hash = {_hash_of(one[0]): one for one in waiting}
    return [by_hash[hash_] for hash_ in dependencies_first([*by_hash], needed_by)]


def _unique(found: Iterable[File]) -> list[File]:
    return list({file.path: file for file in found}.values())


def _common(mirror: str) -> tuple[File, ...]:
    """Return layout, keys and index: manifests with the blobs that they name."""
    found: list[File] = []
    if layout := store_files.read_or_none(os.path.join(mirror, LAYOUT_PATH)):
        found.append(_file(LAYOUT_PATH, layout))
    others = list_other_manifests(mirror)
    if INDEX_MANIFEST not in others:
        raise FormatError(
            f"{mirror} has no index, so it is no mirror that can be carried",
            hint="finish the sync that writes it, or run `cachefetch verify` on it",
            context={"path": mirror},
        )
    for path in [*(p for p in others if "/key/" in p and p != KEY_INDEX_MANIFEST), KEY_INDEX_MANIFEST]:
        if path in others:
            found += _with_blobs(mirror, path)
    return tuple(_unique([*found, *_with_blobs(mirror, INDEX_MANIFEST)]))


def _with_blobs(mirror: str, path: str) -> list[File]:
    data = _read(mirror, path)
    blobs = parse_manifest(data, what=path).blobs
    for blob in blobs:
        if _size(mirror, blob.path) != blob.size:
            raise FormatError(
                f"{os.path.join(mirror, blob.path)}, which {path} names, is missing or of another size",
                hint="repair the mirror first: `cachefetch verify DIR --repair --from MIRROR`",
                context={"file": blob.path},
            )
    return [*(File(blob.path, blob.size, blob.sha256) for blob in blobs), _file(path, data)]


def _file(path: str, data: bytes) -> File:
    return File(path, len(data), hashlib.sha256(data).hexdigest())


def _read(mirror: str, path: str) -> bytes:
    place = os.path.join(mirror, path)
    with store_files.store_errors(place), open_regular(place) as file:
        return file.read()


def _size(mirror: str, path: str) -> int | None:
    return store_files.size_or_none(os.path.join(mirror, path))


def contents_of(packing: Packing, *, volume_size: int | None, since: str) -> Contents:
    """Return the layout of a bundle. Raises UsageError when the volumes are too small."""
    return lay_out(packing.common, packing.packages, volume_size=volume_size, since=since)


def write_bundle(mirror: str, contents: Contents, to: str, sign: Sign | None = None) -> Exported:
    """Write the volumes that are not there yet.

    Args:
        mirror: the directory that `contents` was made from.
        contents: from `contents_of`.
        to: a file name that ends in ``.bundle``, or a directory, where the name is made from the bundle's id.
        sign: signs the header of each volume; None leaves it unsigned.

    Raises:
        DigestError, TruncatedError: a file of the mirror is not what its manifest says; nothing of that volume stays.
        StoreError: no space, or no permission; run the same again to continue with this volume.
    """
    text = list_text(contents)
    id_ = hashlib.sha256(text).hexdigest()
    if not to.endswith(SUFFIX) or os.path.isdir(to):
        to = os.path.join(to, f"mirror-{id_[:12]}{SUFFIX}")
    directory, name = os.path.split(os.path.abspath(to))
    paths = [os.path.join(directory, one) for one in volume_names(name, contents.volumes)]
    kept = written = 0
    for volume, path in enumerate(paths, start=1):
        head = _head(Header(id_, len(text), volume, contents.volumes), text, sign)
        if _is_there(path, id_, volume, contents):
            kept += 1
            continue
        written += _write_volume(mirror, contents, volume, path, head)
    return Exported(id_, tuple(paths), kept, written)


def _head(header: Header, text: bytes, sign: Sign | None) -> bytes:
    plain = header_text(header)
    said = sign(plain) if sign else plain
    assert len(said) <= MAX_HEADER_SIZE
    return b"".join(
        part
        for name, data in ((HEADER_NAME, said), (LIST_NAME, text))
        for part in (member_header(name, len(data)), data, bytes(padding(len(data))))
    )


def _is_there(path: str, id_: str, volume: int, contents: Contents) -> bool:
    try:
        found = read_volume(path)
    except (OSError, CachefetchError):
        return False
    size = volume_bytes(contents, volume, found.data_start)
    return (found.header.id, found.header.volume) == (id_, volume) and os.path.getsize(path) == size


def _write_volume(mirror: str, contents: Contents, volume: int, path: str, head: bytes) -> int:
    temporary = f"{path}.part"
    size = volume_bytes(contents, volume, len(head))
    try:
        with store_files.store_errors(path):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            store_files.require_space(path, size)
            with open(temporary, "xb") as file:
                file.write(head)
                for entry, start, piece in contents.of_volume(volume):
                    file.write(member_header(piece_name(entry, start), piece.length))
                    _copy(mirror, entry.file, start, piece.length, file)
                    file.write(bytes(padding(piece.length)))
                file.write(bytes(size - file.tell()))
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    return size


def _copy(mirror: str, wanted: File, start: int, length: int, out: BinaryIO) -> None:
    """Copy a piece of a file; a file that goes out in one piece is hashed, the last piece hashes all of it."""
    place = os.path.join(mirror, wanted.path)
    with open_regular(place) as file:
        digest = hashlib.sha256()
        last = start + length == wanted.size
        while last and (before := start - file.tell()) > 0 and (data := file.read(min(_CHUNK, before))):
            digest.update(data)
        file.seek(start)
        left = length
        while left and (data := file.read(min(_CHUNK, left))):
            digest.update(data)
            out.write(data)
            left -= len(data)
    context = {"file": wanted.path}
    hint = "repair the mirror first: `cachefetch verify DIR --repair --from MIRROR`"
    if left:
        raise TruncatedError(f"{place} is shorter than its manifest says", hint=hint, context=context)
    if last and digest.hexdigest() != wanted.sha256:
        raise DigestError(f"{place} has sha256 {digest.hexdigest()}", hint=hint, context=context)


def signer_from(path: str) -> Sign:
    """Return what clear-signs with the secret OpenPGP key in a file.

    Raises:
        ConfigError: it cannot be read, holds no secret key, or its key needs a passphrase.
    """
    import pysequoia

    hint = "export it with `gpg --export-secret-keys --armor FINGERPRINT`, without a passphrase"
    try:
        with open(path, "rb") as file:
            signer = pysequoia.Tsk.from_bytes(file.read()).signer()
    except OSError as error:
        raise ConfigError(f"cannot read the secret key {path}: {error.strerror}", hint=hint) from None
    except (RuntimeError, ValueError, TypeError) as error:
        reason = str(error).partition("\n")[0].strip()[:200]  # what follows is a backtrace
        raise ConfigError(f"{path} is no secret key that can sign: {reason}", hint=hint) from None

    def sign(text: bytes) -> bytes:
        return bytes(pysequoia.sign(signer, text, mode=pysequoia.SignatureMode.CLEAR))

    return sign


# --- receipts -------------------------------------------------------------------------------------------------------

RECEIPT_SCHEMA = "cachefetch/receipt/1"


def receipt_text(mirror: str, bundle: str) -> bytes:
    """Return the receipt of a mirror directory after an import: what it holds, for the next export.

    Args:
        mirror: the directory.
        bundle: id of the bundle that was imported.
    """
    manifests = sorted(short_digest(_read(mirror, path)) for path in list_manifests(mirror).values())
    document = {"schema": RECEIPT_SCHEMA, "bundle": bundle, "manifests": manifests}
    return json.dumps(document, indent=0, separators=(",", ":")).encode() + b"\n"


def read_receipt(data: bytes, *, what: str) -> tuple[str, frozenset[str]]:
    """Return the bundle id and the manifests of a receipt. Raises FormatError."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        raise _no_receipt(what, "it is not JSON") from None
    if not isinstance(document, dict) or document.get("schema") != RECEIPT_SCHEMA:
        raise _no_receipt(what, f"its schema is not {RECEIPT_SCHEMA}")
    bundle, manifests = str(document.get("bundle")), document.get("manifests")
    try:
        blob_path(bundle)
    except FormatError:
        raise _no_receipt(what, "its bundle is no digest") from None
    if not isinstance(manifests, list) or not all(isinstance(one, str) for one in manifests):
        raise _no_receipt(what, "its manifests are no list of texts")
    return bundle, frozenset(manifests)


def _no_receipt(what: str, why: str) -> FormatError:
    return FormatError(f"{what} is no receipt: {why}", hint="`cachefetch bundle import` writes it")
