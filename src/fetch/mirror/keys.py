"""The public keys that mirrors publish: read, checked against their names, and copied.

A published key is not a trusted key (docs/security.md): it is copied so that `spack buildcache keys` works at the
destination. Layout: docs/formats.md, "Keys".
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from ...errors import CachefetchError, ConfigError, FormatError, NotFoundError
from ...resolver.index.readers import join
from ...resolver.index.readers.manifest import (
    KEY_INDEX_MANIFEST,
    blob_path,
    key_manifest_path,
    parse_manifest,
)
from ...resolver.index.writer import KEY_INDEX_MEDIA_TYPE, key_index_text, manifest_text
from ..failures import SOURCE_ERRORS, caveats
from ..keyfiles import MAX_KEY_SIZE
from ..model import Failure
from ..verify.binding import check_blob
from ..verify.openpgp import Keyring
from .plan import Problem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping, Sequence

    from ...resolver.index.readers.manifest import BlobRef
    from ..model import Caveat, Source
    from ..session import Session

    #: A key that a mirror has wrong, or lists and does not have: mirror, fingerprint, error.
    KeyFailure = tuple[Source, str, CachefetchError]


@dataclass(frozen=True, slots=True)
class Published:
    """Keys to publish: `keys` fingerprint -> (manifest, key blob); `index` (manifest, blob) or None; `problems`.

    `caveats` are about keys that one mirror has wrong and another one right.
    """

    keys: Mapping[str, tuple[bytes, bytes]]
    index: tuple[bytes, bytes] | None
    problems: tuple[Problem, ...] = ()
    caveats: tuple[Caveat, ...] = ()

    def blobs(self) -> dict[str, int]:
        """sha256 -> size of all blobs."""
        blobs = [blob for _, blob in self.keys.values()] + ([self.index[1]] if self.index else [])
        return {hashlib.sha256(blob).hexdigest(): len(blob) for blob in blobs}

    def counts(self, path: str) -> bool:
        """Tell whether a file of `files` is one of `blobs`."""
        return path.startswith("blobs/")

    def files(self) -> list[tuple[str, bytes]]:
        """(path below the mirror, bytes) in the order of writing: blobs before what names them."""
        found: list[tuple[str, bytes]] = []
        entries = [(key_manifest_path(fpr), *pair) for fpr, pair in self.keys.items()]
        if self.index:
            entries.append((KEY_INDEX_MANIFEST, *self.index))
        for path, manifest, blob in entries:
            found += [(blob_path(hashlib.sha256(blob).hexdigest()), blob), (path, manifest)]
        return found


async def read_keys(
    session: Session, sources: Sequence[Source], signers: Iterable[str], own: Source | None = None
) -> Published:
    """Return the keys that the mirrors publish, merged.

    Args:
        session: of the run.
        sources: mirrors, asked in this order; the first that has a key delivers it.
        signers: fingerprints that signed something: their keys are asked for even when no list names them.
        own: the destination, whose keys stay.
    """
    keys: dict[str, tuple[bytes, bytes]] = {}
    lists: list[tuple[frozenset[str], tuple[bytes, bytes]]] = []
    problems: list[Problem] = []
    failed: list[KeyFailure] = []
    for source in (*sources, own) if own else sources:
        names, listed = await _key_list(session, source, problems)
        if listed:
            lists.append((names, listed))
        for fingerprint in sorted(names | frozenset(signers)):
            if fingerprint not in keys:
                found = await _key(session, source, fingerprint, fingerprint in names, failed)
                if found:
                    keys[fingerprint] = found
    keys = dict(sorted(keys.items()))
    lost, told = settle(failed, keys)
    return Published(keys, _index(frozenset(keys), lists), (*problems, *lost), told)


def settle(
    failed: Iterable[KeyFailure], keys: Container[str]
) -> tuple[tuple[Problem, ...], tuple[Caveat, ...]]:
    """Return the failures that lose a key, as problems, and those about keys that another mirror had."""
    problems: list[Problem] = []
    others: list[Failure] = []
    for source, fingerprint, error in failed:
        if fingerprint in keys:
            others.append(Failure(source.mirror, error))
        else:
            problems.append(key_problem(source, error))
    return tuple(problems), caveats(others)


def _index(
    names: frozenset[str], lists: list[tuple[frozenset[str], tuple[bytes, bytes]]]
) -> tuple[bytes, bytes] | None:
    """Return the key list: that of a mirror byte for byte where it names exactly these keys."""
    if not names:
        return None
    same = next((listed for found, listed in lists if found == names), None)
    if same:
        return same
    blob = key_index_text(names)
    return manifest_text(KEY_INDEX_MEDIA_TYPE, hashlib.sha256(blob).hexdigest(), len(blob)), blob


async def _key_list(
    session: Session, source: Source, problems: list[Problem]
) -> tuple[frozenset[str], tuple[bytes, bytes] | None]:
    try:
        manifest = await session.document(source, join(source.url, KEY_INDEX_MANIFEST), 1 << 20, 0)
        ref = parse_manifest(manifest, what=f"{source.mirror}: the key list").key_index()
        blob = await _blob(session, source, ref)
        names = json.loads(blob)["keys"]
        if not isinstance(names, dict):
            raise ValueError("keys is no object")
        for name in names:
            key_manifest_path(name)  # refuses what is no fingerprint, and could be a path
        return frozenset(name.upper() for name in names), (manifest, blob)
    except NotFoundError:
        return frozenset(), None
    except (ValueError, KeyError, TypeError) as error:
        problems.append(
            Problem("", "key", "bad-format", f"{source.mirror}: the key list is damaged: {error}")
        )
    except SOURCE_ERRORS as error:
        problems.append(key_problem(source, error))
    return frozenset(), None


async def _key(
    session: Session, source: Source, fingerprint: str, listed: bool, failed: list[KeyFailure]
) -> tuple[bytes, bytes] | None:
    path = key_manifest_path(fingerprint)
    try:
        manifest = await session.document(source, join(source.url, path), 1 << 20, 0)
        ref = parse_manifest(manifest, what=f"{source.mirror}: {path}").key()
        blob = await _blob(session, source, ref)
        check_key(blob, fingerprint, f"{source.mirror}: {path}")
        return manifest, blob
    except NotFoundError as error:
        if listed:  # a signer's key that nobody published is not the mirror's fault
            failed.append((source, fingerprint, error))
    except CachefetchError as error:
        failed.append((source, fingerprint, error))
    return None


async def _blob(session: Session, source: Source, ref: BlobRef) -> bytes:
    if ref.size > MAX_KEY_SIZE:
        raise FormatError(f"{source.mirror}: a key of {ref.size} bytes is refused")
    data = await session.blob(source, join(source.url, ref.path), ref.size, 0)
    check_blob(data, ref, what=f"{source.mirror}: {ref.path}")
    return data


def check_key(data: bytes, fingerprint: str, what: str) -> None:
    """Require that a published key is the one that its name says. Raises FormatError."""
    try:
        found = Keyring.from_bytes(data, what=what).fingerprints
    except ConfigError as error:  # as a mirror's file it is damage, not a mistake of whoever runs this
        raise FormatError(error.message) from error
    if fingerprint.upper() not in found:
        raise FormatError(f"{what} holds another key than its name says")


def key_problem(source: Source, error: CachefetchError) -> Problem:
    """Return the problem that a key which cannot be had is."""
    return Problem("", "key", error.code, f"{source.mirror}: {error.message}")
