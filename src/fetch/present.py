"""What of a request is in the store already, by the notes of earlier runs (docs/decisions/0008-proof-notes.md).

A package is *proven* when its manifest and spec document are the very files that were verified, for the same request
and with the same trust, and *present* when that is so of its payload, too. Nothing of them is read then: three looks at
the state of a file a package. No module of the network is imported here.
"""

from __future__ import annotations

import os

from ..resolver.index.readers.manifest import BlobRef, spec_stem
from ..values import frozen
from .events import Finished, Planned, Reporter, Reused, Verified
from .layouts import UNKNOWN, V2, V3, kept_name
from .model import Item, Receipt, VerifiedPackage
from .store.notes import subject

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..resolver.model import Node
    from .model import Source, Wanted
    from .store.cas import Store


_FIELDS = 10  # of a note about a package


@frozen
class Present:
    """A package whose payload is at `path` of the layer `origin`; proven before with the trust of `mirror`.

    The other fields are those of `VerifiedPackage`: digests and sizes of tarball and spec document, bytes; `signature`
    and `key`; `dag_hash` is True when the DAG hash was computed again.
    """

    wanted: Wanted
    mirror: str
    sha256: str
    size: int
    spec_sha256: str
    spec_size: int
    signature: str
    key: str | None
    dag_hash: bool
    path: str
    origin: str


def keys_of(wanted: Sequence[Wanted]) -> tuple[str, ...]:
    """Return the keys of the notes about packages: all that a proof depends on besides the files and the clock."""
    keys = _Keys()
    return tuple([keys.of(one) for one in wanted])


def look(store: Store, wanted: Sequence[Wanted], keys: Sequence[str]) -> list[Present | None]:
    """Return for each package what is known of it, None where it has to be proven or fetched."""
    store.notes.refresh()
    return [find(store, one, key) for one, key in zip(wanted, keys, strict=True)]


def note(store: Store, proven: Iterable[tuple[str, Wanted, VerifiedPackage]]) -> None:
    """Note what this run proved: key, request and proof. A note counts once the payload is there and noted, too."""
    for key, one, package in proven:
        manifest = store.identities.get(kept_name(one, V3), "")
        document = store.identities.get(package.spec.sha256, "")
        rank = next((n for n, source in enumerate(one.sources) if source is package.source), -1)
        if package.layout == V3 and manifest and document and rank >= 0:
            store.notes.put(
                key,
                str(rank),
                manifest,
                document,
                package.spec.sha256,
                str(package.spec.size),
                package.tarball.sha256,
                str(package.tarball.size),
                package.signature,
                package.key or "-",
                str(int(package.dag_hash)),
                until=package.expires,
            )
    store.notes.flush()


def receipt(store: Store, found: Sequence[Present], to: str | None, reporter: Reporter) -> Receipt:
    """Return the receipt of a run that finds all packages present; with `to`, link the payloads there.

    Raises:
        StoreError: they cannot be linked; no space.
    """
    tell(reporter, found, 1)
    reporter.on_event(Planned(0, len(found), len(found), 0))
    if to is not None:
        store.require_space_out(to, sum({one.sha256: one.size for one in found}.values()))
    items = tuple([item(store, one, to) for one in found])
    store.notes.flush()
    reporter.on_event(Finished(0, len(items), 0))
    return Receipt(items, 0)


def tell(reporter: Reporter, found: Sequence[Present], first: int) -> None:
    """Tell that packages are present, the first of them under the number `first`."""
    if type(reporter) is not Reporter:  # that one does not listen
        for number, one in enumerate(found, first):
            reporter.on_event(Verified(number, str(one.wanted), one.signature, one.key))
            reporter.on_event(Reused(number, str(one.wanted), one.path))


def item(store: Store, one: Present, to: str | None) -> Item:
    """Return the entry of the receipt; with `to`, link the payload there.

    Raises:
        StoreError: it cannot be linked.
    """
    path = one.path if to is None else link_out(store, one.wanted, one.sha256, to)
    wanted = one.wanted
    return Item(
        wanted.name,
        wanted.version,
        wanted.hash,
        one.sha256,
        one.size,
        one.origin,
        one.mirror,
        path,
        one.signature,
        one.key,
        one.dag_hash,
    )


def link_out(store: Store, wanted: Wanted, sha256: str, to: str) -> str:
    """Link a payload into the directory `to` under the name of its package; return the path. Raises StoreError."""
    stem = spec_stem(wanted.name, wanted.version, wanted.hash)
    path = os.path.join(os.path.abspath(to), f"{stem}.spack")
    store.link_out(sha256, path)
    return path


def trace(store: Store, wanted: Wanted, key: str) -> str:
    """Return what changes when another process proves a package that is not present, and as its payload grows."""
    fields = store.notes.get(key)
    if fields is None or len(fields) != _FIELDS:
        return store.manifest_state(kept_name(wanted, V3))
    return store.part_state(fields[5])


def find(store: Store, wanted: Wanted, key: str) -> Present | None:
    """Return what the notes know of a package, None where it has to be proven or fetched."""
    fields = store.notes.get(key)
    if fields is None or len(fields) != _FIELDS:
        return None
    rank, manifest, document, spec, spec_size, blob, size, signature, fingerprint, dag_hash = fields
    place = store.blob_state(blob)
    if place is None or place[0].size != int(size) or not store.noted(blob, place[1]):
        return None
    if store.manifest_state(kept_name(wanted, V3)) != manifest:
        return None
    described = store.blob_state(spec)
    if described is None or described[1] != document:
        return None
    return Present(
        wanted,
        wanted.sources[int(rank)].mirror,
        blob,
        int(size),
        spec,
        int(spec_size),
        signature,
        _signer(fingerprint),
        dag_hash == "1",
        place[0].path,
        place[0].origin,
    )


def proven(store: Store, wanted: Wanted, key: str) -> VerifiedPackage | None:
    """Return the proof of an earlier run for a package whose payload is not here; its document was not read.

    None also where a mirror has layout 2: it takes the document to tell where such a mirror has the payload.
    """
    fields = store.notes.get(key)
    if fields is None or len(fields) != _FIELDS or any(source.layout == V2 for source in wanted.sources):
        return None
    rank, manifest, document, spec, spec_size, blob, size, signature, fingerprint, dag_hash = fields
    described = store.blob_state(spec)
    if described is None or described[1] != document:
        return None
    if store.manifest_state(kept_name(wanted, V3)) != manifest:
        return None
    return VerifiedPackage(
        wanted,
        BlobRef("", blob, int(size), ""),
        BlobRef("", spec, int(spec_size), ""),
        None,
        wanted.sources[int(rank)],
        signature,
        _signer(fingerprint),
        stored=True,
        expires=store.notes.until(key),  # what is noted of this proof again ends no later
        dag_hash=dag_hash == "1",
    )


def _signer(field: str) -> str | None:
    return None if field == "-" else field


class _Keys:
    """Makes the keys of notes."""

    def __init__(self) -> None:
        self._trust: dict[int, tuple[Source, str]] = {}

    def of(self, wanted: Wanted) -> str:
        """Return the key for a request: the package, what the index says of it, and the trust in each mirror."""
        trust = [self._of_source(source) for source in wanted.sources]
        node = "" if wanted.node is None else _text(wanted.node)
        return subject("\0".join((wanted.name, wanted.version, wanted.hash, node, *trust)))

    def _of_source(self, source: Source) -> str:
        known = self._trust.get(id(source))
        if known is None:
            policy = source.policy
            layouts = source.layout if source.layout != UNKNOWN else f"{V3} {V2}"
            text = f"{layouts} {policy.mode} {sorted(policy.pinned)} {source.keyring.digest()}"
            known = self._trust[id(source)] = (
                source,
                text,
            )  # with the source, so that no other gets its number
        return known[1]


def _text(node: Node) -> str:
    """Return all that is known of a node, as a text that is the same in every process."""
    fields = [getattr(node, name) for name in node.__match_args__ if name != "edges"]
    edges = [(edge.hash, edge.name, edge.types, edge.virtuals) for edge in node.edges]
    return repr((fields, edges))
