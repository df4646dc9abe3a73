"""Proving a package of a layout 2 mirror: its spec file, signed or not, is manifest and document at once."""

from __future__ import annotations

from ..errors import FormatError, NotFoundError, StoreError
from ..resolver.index.readers.manifest import BlobRef
from .layouts import V2, kept_name, payload_url, spec_file_urls
from .model import VerifiedPackage
from .transports import redact
from .verify.binding import MAX_SPEC_BLOB_SIZE, check_index_node
from .verify.policy import NONE
from .verify.specfile import verify_spec_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .asking import Asking
    from .model import Source, Wanted
    from .session import Session

_TARBALL = "application/gzip"
_SPEC_FILE = "application/json"


async def from_mirror(asking: Asking, wanted: Wanted) -> VerifiedPackage:
    """Prove a package from the mirror, and keep its spec file. Errors as for `metadata.prove`.

    The spec file does not tell the size of the tarball, so the mirror is asked for it: the digest is what counts.
    """
    session, source = asking.session, asking.source
    url, data = await _spec_file(asking, wanted)
    what = f"spec file {url.partition('?')[0].rpartition('/')[2]}"
    package = _proven(session, wanted, source, data, what, 0, stored=False)
    place = session.store.locate(package.tarball.sha256)
    size = place.size if place else await _told_size(asking, package)
    await asking.run(session.store.put_manifest, kept_name(wanted, V2), data)
    return _proven(session, wanted, source, data, what, size, stored=False)


async def _told_size(asking: Asking, package: VerifiedPackage) -> int:
    """Ask the mirror for the size of a tarball. What cannot be stored is this mirror's fault until it is proven.

    Raises:
        FormatError: the server does not tell, or tells more than there is room for.
    """
    url, store = payload_url(asking.source, package), asking.session.store
    size = await asking.size(url)
    rest = max(0, size - store.part_size(package.tarball.sha256))
    try:
        await asking.run(store.require_space, rest)
    except StoreError as error:
        if error.context.get("reason") != "disk-full":
            raise
        raise FormatError(
            f"{redact(url)} has {size} bytes, says the server, more than there is room for ({error.message})",
            hint="is it that large? Then make room; else the mirror is damaged: use another one, tell its owner",
            context={"url": redact(url), "size": size},
        ) from error
    return size


def from_store(session: Session, wanted: Wanted, source: Source) -> VerifiedPackage | None:
    """Prove a package from the kept spec file, when its tarball is in the store; None when not."""
    data = session.store.manifest(kept_name(wanted, V2))
    if data is None:
        return None
    package = _proven(session, wanted, source, data, f"stored spec file of {wanted}", 0, stored=True)
    place = session.store.locate(package.tarball.sha256)
    if place is None:
        return None
    return _proven(session, wanted, source, data, f"stored spec file of {wanted}", place.size, stored=True)


async def _spec_file(asking: Asking, wanted: Wanted) -> tuple[str, bytes]:
    """Return URL and bytes: the signed file before the unsigned one, unless no signature is looked at.

    What is found is checked by the policy, so that an unsigned file where a signature is required says so.
    """
    first, second = spec_file_urls(asking.source, wanted)
    if asking.source.policy.mode == NONE:
        first, second = second, first
    try:
        return first, await asking.document(first, MAX_SPEC_BLOB_SIZE)
    except NotFoundError as error:
        absent = error
    try:
        return second, await asking.document(second, MAX_SPEC_BLOB_SIZE)
    except NotFoundError:
        raise absent from None


def _proven(
    session: Session, wanted: Wanted, source: Source, data: bytes, what: str, size: int, *, stored: bool
) -> VerifiedPackage:
    import hashlib

    found = verify_spec_file(
        source.policy,
        data,
        source.keyring,
        name=wanted.name,
        version=wanted.version,
        hash=wanted.hash,
        what=what,
        now=session.clockwork.now(),
        mirror=source.mirror,
    )
    if wanted.node is not None:
        check_index_node(found.document, wanted.node, what=what)
    return VerifiedPackage(
        wanted,
        BlobRef(_TARBALL, found.sha256, size, "gzip"),
        BlobRef(_SPEC_FILE, hashlib.sha256(data).hexdigest(), len(data), "none"),
        found.document,
        source,
        found.signature,
        found.key,
        stored,
        layout=V2,
        dag_hash=found.document.dag_hash_confirmed,
    )
