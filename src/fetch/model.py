"""Values of the fetch engine: what is wanted, what was proven, what was done. No I/O."""

from __future__ import annotations

from ..values import frozen
from .transports import is_network, redact

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..errors import CachefetchError
    from ..resolver.index.readers.manifest import BlobRef
    from ..resolver.model import Node
    from .verify.binding import SpecDocument
    from .verify.openpgp import Keyring
    from .verify.policy import SignaturePolicy


@frozen
class Source:
    """A mirror and what it must prove.

    Attributes:
        mirror: its name, as messages and receipts show it.
        url: its base: a path, ``file://``, ``http://`` or ``https://``.
        policy: which signatures it needs, and the fingerprints that are pinned.
        keyring: the trusted certificates.
        layout: "v3", "v2", "oci", or "" when nobody looked: 3, else 2 (`layouts`).
    """

    mirror: str
    url: str
    policy: SignaturePolicy
    keyring: Keyring
    layout: str = ""

    def __repr__(self) -> str:
        # Values get into logs and tracebacks: the URL may hold a password, and certificates are long.
        return f"Source({self.mirror!r}, {redact(self.url)!r}, {self.policy!r}, {len(self.keyring)} keys)"

    @property
    def network(self) -> bool:
        """True when reading this mirror opens a socket."""
        return is_network(self.url)


@frozen
class Wanted:
    """One binary: package `name`, `version`, full DAG `hash`, and the mirrors to ask, in this order.

    `node` is what the index says about it, None when no index was read; a mirror whose spec document says otherwise
    is refused. `compiler` is the one in the names of layout 2 (`places.recorded_compiler`).
    """

    name: str
    version: str
    hash: str
    sources: tuple[Source, ...]
    node: Node | None = None
    compiler: tuple[str, str] | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Wanted) and self._who() == other._who()

    def __hash__(self) -> int:
        return hash(self._who())

    def _who(self) -> tuple[object, ...]:
        """Return what two requests must have in common to be one: all but the node, which follows from the hash."""
        return self.name, self.version, self.hash, self.sources, self.compiler

    def __str__(self) -> str:
        """Return ``zlib@1.3.1/a2u4nrk``."""
        return f"{self.name}@{self.version}/{self.hash[:7]}"


@frozen
class Caveat:
    """Something that went wrong and did not stop the fetch: error `code`, `message`, name of the `mirror`."""

    code: str
    message: str
    mirror: str

    def to_dict(self) -> dict[str, Any]:
        """Return an entry of ``warnings`` in ``cachefetch/fetch/1``."""
        return {"code": self.code, "message": self.message, "mirror": self.mirror}


@frozen
class Failure:
    """`mirror` failed with `error`."""

    mirror: str
    error: CachefetchError


@frozen
class VerifiedPackage:
    """A package whose manifest and spec document are proven: signature by policy, digest, binding to the request.

    Attributes:
        wanted: the request.
        tarball: the payload.
        spec: the spec document as the mirror stores it: spec blob, spec file, or config of the image.
        read: the spec document, None where the proof rests on that of an earlier run or of a helper process.
        source: the mirror whose policy the manifest meets.
        signature: "good", "none", "not-required" or "not-possible".
        key: fingerprint of the signing key, or None.
        stored: True when the manifest came from the store.
        failures: what mirrors asked before `source` did wrong.
        layout: that of the mirror which it was proven from: "v3", "v2" or "oci".
        expires: when the signature or a key of it does, or the note that the proof rests on, Unix seconds; None for
            never.
        dag_hash: True when the DAG hash was computed again and is right; False proves nothing.
    """

    wanted: Wanted
    tarball: BlobRef
    spec: BlobRef
    read: SpecDocument | None
    source: Source
    signature: str
    key: str | None
    stored: bool
    failures: tuple[Failure, ...] = ()
    layout: str = "v3"
    expires: float | None = None
    dag_hash: bool = False

    @property
    def document(self) -> SpecDocument:
        """The spec document, root first; only `prove_items` and `fetch_metadata` always have it."""
        assert self.read is not None, "this proof was made elsewhere: its document was not read"
        return self.read


class Meter:
    """Counts the bytes of bodies that come through sockets; one may be shared by the steps of a command."""

    def __init__(self) -> None:
        self.network_bytes = 0


@frozen
class Item:
    """A package that is on disk and verified.

    Attributes:
        origin: "network" (any mirror), "store", or "site" (a read-only layer).
        mirror: name of the mirror that delivered it; for what was stored, the one whose policy it meets.
        path: where the tarball is: in ``--to`` if that was asked for, else in the store.
        dag_hash: True when the DAG hash was computed again and is right; False proves nothing.
        sha256, size: of the tarball; bytes.
    """

    name: str
    version: str
    hash: str
    sha256: str
    size: int
    origin: str
    mirror: str
    path: str
    signature: str
    key: str | None
    dag_hash: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return an entry of ``items`` in ``cachefetch/fetch/1``. Digest and binding hold, or there is no item."""
        return {
            "name": self.name,
            "version": self.version,
            "hash": self.hash,
            "sha256": self.sha256,
            "size": self.size,
            "from": self.origin,
            "mirror": self.mirror,
            "path": self.path,
            "verified": {
                "digest": True,
                "binding": True,
                "signature": self.signature,
                "key": self.key,
                "dag_hash": self.dag_hash,
            },
        }


@frozen
class Receipt:
    """What a fetch did: items in the order of the request, bytes of bodies that came through sockets, warnings."""

    items: tuple[Item, ...]
    network_bytes: int
    warnings: tuple[Caveat, ...] = ()
    status: str = "ok"

    def with_warnings(self, code: str, messages: tuple[str, ...]) -> Receipt:
        """Return the receipt with more warnings, which are about no mirror."""
        more = tuple(Caveat(code, message, "") for message in messages)
        return Receipt(self.items, self.network_bytes, self.warnings + more, self.status)

    def to_dict(self) -> dict[str, Any]:
        """Return the ``cachefetch/fetch/1`` document (docs/cli.md)."""
        return {
            "schema": "cachefetch/fetch/1",
            "status": self.status,
            "network_bytes": self.network_bytes,
            "items": [item.to_dict() for item in self.items],
            "warnings": [warning.to_dict() for warning in self.warnings],
        }
