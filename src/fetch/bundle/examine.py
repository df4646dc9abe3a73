"""What an audit of a bundle looks at beside the digests: the bytes around the files, and what the list calls them.

Nothing of a volume goes unlooked at: each byte belongs to the header, the list, a file, the tar header in front of
one, or is a zero. Whoever unpacks a volume with ``tar`` gets what the list says. Synchronous I/O.
"""

from __future__ import annotations

import hashlib
import os

from ...errors import BindingError, FormatError, NotFoundError
from ...regular import open_regular
from ...resolver.index.readers.manifest import (
    INDEX_MANIFEST,
    KEY_INDEX_MANIFEST,
    LAYOUT_PATH,
    SPEC_MANIFESTS,
    key_manifest_path,
    parse_manifest,
    spec_manifest_path,
)
from ..verify.binding import read_root_entry, root_node
from ..verify.openpgp import Keyring, is_signed, split_cleartext
from .format import HEADER_NAME, LIST_NAME, member_header, padding, piece_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from ...resolver.index.readers.manifest import BlobRef
    from .format import Contents, Entry
    from .read import Bundle, Volume

_KEYS = KEY_INDEX_MANIFEST.rpartition("/")[0] + "/"
_BLOBS = "blobs/"
_CHUNK = 1 << 20


def check_volume(bundle: Bundle, volume: Volume) -> Iterator[str]:
    """Yield what is wrong in front of the files of a volume, and behind them. Raises OSError."""
    header = volume.header
    front = [
        member_header(HEADER_NAME, len(volume.text)),
        volume.text,
        bytes(padding(len(volume.text))),
        member_header(LIST_NAME, header.list_size),
    ]
    with open_regular(volume.path) as file:
        if file.read(sum(map(len, front))) != b"".join(front):
            yield "the tar headers of its first two members were changed"
        if hashlib.sha256(file.read(header.list_size)).hexdigest() != header.id:
            yield "its list of files does not have the digest that its header says"
        if not _are_zeros(file, volume.data_start - file.tell()):
            yield "behind its list of files stands something else than zeros"
        file.seek(volume.data_start + bundle.contents.data_sizes[header.volume - 1])
        if not _are_zeros(file, os.path.getsize(volume.path) - file.tell()):
            yield "behind its last file stands something else than zeros"


def check_frames(entry: Entry, volume: Volume) -> Iterator[str]:
    """Yield what is wrong around the pieces of a file that stand in a volume. Raises OSError."""
    start = 0
    for piece in entry.pieces:
        if piece.volume in (0, volume.header.volume):
            name = piece_name(entry, start)
            header = member_header(name, piece.length)
            with open_regular(volume.path) as file:
                file.seek(max(0, volume.data_start + piece.offset - len(header)))
                if file.read(len(header)) != header:
                    yield f"the tar header in front of {name} is not that of this file"
                file.seek(piece.length, os.SEEK_CUR)
                if not _are_zeros(file, padding(piece.length)):
                    yield f"behind {name} stands something else than zeros"
        start += piece.length


def check_places(contents: Contents) -> Iterator[str]:
    """Yield where the list does not tell a place for each byte of a volume, or one file twice."""
    at = [0] * contents.volumes
    seen: set[str] = set()
    for entry in contents.entries:
        path, start = entry.file.path, 0
        if path in seen:
            yield f"the list has {path} twice"
        seen.add(path)
        for piece in entry.pieces:
            front = len(member_header(piece_name(entry, start), piece.length))
            start += piece.length
            for number in [piece.volume - 1] if piece.volume else range(contents.volumes):
                if piece.offset != at[number] + front:
                    yield f"the list says a wrong place for {path} in volume {number + 1}"
                at[number] = piece.offset + piece.length + padding(piece.length)
    for number, (found, size) in enumerate(zip(at, contents.data_sizes, strict=True), 1):
        if found != size:
            yield f"the list says {size} bytes of files for volume {number}, and places {found}"


def check_name(bundle: Bundle, entry: Entry) -> tuple[BlobRef, ...]:
    """Require that a file is what its path says; return the blobs that it names.

    A blob that is needed for that may be damaged, or in a volume that is not here: that is told of the blob.

    Raises:
        BindingError: the manifest, or the key, of something else.
        FormatError: no file of a mirror, or a damaged one.
        NotFoundError: a blob that it names is not in the bundle.
    """
    path = entry.file.path
    if path == LAYOUT_PATH or path.startswith(_BLOBS):
        return ()
    is_spec = path.startswith(f"{SPEC_MANIFESTS}/")
    if not is_spec and path != INDEX_MANIFEST and not path.startswith(_KEYS):
        raise FormatError(f"{path} is no file of a mirror")
    data = b"".join(bundle.chunks(entry))
    text = split_cleartext(data, what=path).text if is_signed(data) else data
    manifest = parse_manifest(text, what=path)
    # What the other side has already is not carried again.
    partial = is_spec and bool(bundle.contents.since)
    for ref in (manifest.spec(), manifest.tarball()) if is_spec else manifest.blobs:
        if not (partial and bundle.find(ref.path) is None):
            _require(bundle, path, ref)
    if is_spec:
        _check_package(bundle, path, manifest.spec())
    elif path not in (INDEX_MANIFEST, KEY_INDEX_MANIFEST):
        _check_key(bundle, path, manifest.key())
    return manifest.blobs


def _check_package(bundle: Bundle, path: str, ref: BlobRef) -> None:
    if data := _blob(bundle, ref):
        root = root_node(*read_root_entry(data, ref, what=ref.path), what=ref.path)
        if spec_manifest_path(root.name, root.version, root.hash) != path:
            raise BindingError(f"{path} is the manifest of {root.name}@{root.version}/{root.hash}")


def _check_key(bundle: Bundle, path: str, ref: BlobRef) -> None:
    if data := _blob(bundle, ref):
        ring = Keyring.from_bytes(data, what=path)
        if path not in map(key_manifest_path, ring.fingerprints):
            raise BindingError(f"{path} holds another key than its name says")


def _require(bundle: Bundle, path: str, ref: BlobRef) -> None:
    entry = bundle.find(ref.path)
    if entry is None:
        raise NotFoundError(f"{ref.path}, which {path} names, is not in the list")
    if entry.file.size != ref.size:
        raise FormatError(f"{ref.path} has {entry.file.size} bytes, {path} says {ref.size}")


def _blob(bundle: Bundle, ref: BlobRef) -> bytes:
    """Return a blob, b"" when it is not here or damaged."""
    entry = bundle.find(ref.path)
    if entry is None or bundle.lacking(entry):
        return b""
    data = b"".join(bundle.chunks(entry))
    return data if hashlib.sha256(data).hexdigest() == ref.sha256 else b""


def unnamed(bundle: Bundle, named: set[str]) -> Iterator[str]:
    """Yield the blobs that no manifest of a complete bundle names; `named` are the paths of those that one names."""
    for entry in bundle.contents.entries:
        if entry.file.path.startswith(_BLOBS) and entry.file.path not in named:
            yield entry.file.path


def _are_zeros(file: BinaryIO, length: int) -> bool:
    while length > 0:
        data = file.read(min(_CHUNK, length))
        if not data or data.strip(b"\0"):
            return False
        length -= len(data)
    return True
