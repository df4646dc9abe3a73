"""Proving a package before any payload moves: manifest, signature, spec document, binding to the request.

The order is that of docs/security.md: signature on the exact bytes as the mirror's policy asks -> schema -> digest
of the spec blob -> its root hash, name and version equal the request, and the node that of the index. Spack 1.1 skips
all but the first two, so a valid manifest of another package could stand in (docs/formats.md).
"""

from __future__ import annotations

from ..errors import FormatError, NotFoundError
from ..values import changed
from . import aio, images, layout2
from .asking import Asking
from .events import Verified, Waiting, Warned
from .failures import SOURCE_ERRORS, caveats, for_package
from .layouts import OCI, UNKNOWN, V2, V3, blob_url, kept_name, manifest_url
from .model import Failure, VerifiedPackage
from .verify.binding import check_binding, check_index_node, read_spec_blob
from .verify.policy import apply

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ..resolver.index.readers.manifest import BlobRef
    from .model import Source, Wanted
    from .session import Session
    from .store.cas import Store
    from .verify.policy import VerifiedManifest


async def prove(session: Session, wanted: Wanted, transfer: int = 0) -> VerifiedPackage:
    """Prove a package from the store, else from its mirrors in order.

    Raises:
        TrustError, IntegrityError, MirrorError: no mirror gives a proof; the most serious of their failures, naming
            each mirror's (NotFoundError only when every mirror lacks it).
    """
    # One process asks the mirrors, the others wait and find its answer in the store.
    package = await session.alone(
        session.metadata_slots,
        lock_key(wanted),
        ready=lambda: stored(session, wanted, []),
        prepare=lambda lock: None,  # noqa: ARG005 - being called means having it
        work=lambda _: _prove_locked(session, wanted, transfer),
        waiting=lambda: session.emit(Waiting(transfer, str(wanted))),
    )
    session.emit(Verified(transfer, str(wanted), package.signature, package.key))
    return package


async def _prove_locked(session: Session, wanted: Wanted, transfer: int) -> VerifiedPackage:
    failures: list[Failure] = []
    package = await from_mirrors(session, wanted, failures, transfer)
    if package is None:
        if session.offline:  # why the store's own copy does not do is then the better answer
            ours: list[Failure] = []
            await aio.to_thread.run_sync(stored, session, wanted, ours)
            failures = ours + failures
        raise for_package(wanted, failures)
    return package


def stored(session: Session, wanted: Wanted, failures: list[Failure]) -> VerifiedPackage | None:
    """Prove a package from what the store kept, with the policies of today; None if that fails."""
    for source in wanted.sources:
        for layout in _layouts(source, wanted):
            try:
                found = _FROM_STORE[layout](session, wanted, source)
            except SOURCE_ERRORS as error:
                failures.append(Failure(source.mirror, error))
                continue
            if found is not None:
                return found
    return None


async def from_mirrors(
    session: Session, wanted: Wanted, failures: list[Failure], transfer: int
) -> VerifiedPackage | None:
    """Prove a package from its mirrors in order, keep what was proven, and note every failure."""
    noted = len(failures)
    failures += session.met_for_good(transfer, wanted.sources)
    failed = {failure.mirror for failure in failures[noted:]}
    sources = [one for one in session.in_order(wanted.sources) if one.mirror not in failed]
    for number, source in enumerate(sources, 1):
        try:
            asking = Asking(session, source, transfer, number < len(sources))
            package = await from_mirror(asking, wanted)
        except SOURCE_ERRORS as error:
            session.health.suspect(source.mirror, error)
            failures.append(Failure(source.mirror, error))
            continue
        failures += session.met_rest(transfer, wanted.sources)
        new = tuple(failures[noted:])
        for warning in caveats(new):
            session.emit(Warned(transfer, warning.code, warning.message, warning.mirror))
        return changed(package, failures=new)
    return None


async def from_mirror(asking: Asking, wanted: Wanted) -> VerifiedPackage:
    """Prove a package from one mirror and keep the proof.

    Of a mirror whose layout nobody knows, layout 2 is tried when layout 3 has nothing. Nothing but `asking` is
    awaited, so that an errand can do it too (`quick`).

    Raises:
        TrustError, IntegrityError, MirrorError, StoreError.
    """
    layouts = _layouts(asking.source, wanted)
    for layout in layouts[:-1]:
        try:
            return await _FROM_MIRROR[layout](asking, wanted)
        except NotFoundError:
            continue
    return await _FROM_MIRROR[layouts[-1]](asking, wanted)


def _layouts(source: Source, wanted: Wanted) -> tuple[str, ...]:
    """Return the layouts that the package may have in a mirror, in the order to try."""
    if source.layout != UNKNOWN:
        return (source.layout,)
    return (V3, V2) if wanted.node is not None else (V3,)


async def _layout3(asking: Asking, wanted: Wanted) -> VerifiedPackage:
    session, source = asking.session, asking.source
    url = manifest_url(source, wanted)
    data = await asking.document(url, session.limits.manifest_bytes)
    what = f"manifest {url.partition('?')[0].rpartition('/')[2]}"
    verified = _apply(session, source, data, what)
    ref = verified.manifest.spec()
    tarball = verified.manifest.tarball()  # without payload it is of no use: say so before anything else
    if ref.size > session.limits.spec_blob_bytes:
        raise FormatError(
            f"{what} promises a spec document of {ref.size} bytes; the limit is {session.limits.spec_blob_bytes}",
            hint="the mirror is damaged or hostile; tell its owner",
            context={"size": ref.size},
        )
    blob = await asking.blob(blob_url(source, ref.sha256), ref.sha256, ref.size)
    package = _bound(wanted, source, verified, (tarball, ref), blob, what, stored=False)
    await asking.run(_keep, session.store, kept_name(wanted, V3), data, blob, ref.sha256)
    return package


def _stored_layout3(session: Session, wanted: Wanted, source: Source) -> VerifiedPackage | None:
    data = session.store.manifest(kept_name(wanted, V3))
    if data is None:
        return None
    what = f"stored manifest of {wanted}"
    verified = _apply(session, source, data, what)
    ref = verified.manifest.spec()
    blob = session.store.read(ref.sha256, ref.size)
    if blob is None:
        return None
    blobs = (verified.manifest.tarball(), ref)
    return _bound(wanted, source, verified, blobs, blob, what, stored=True)


def lock_key(wanted: Wanted) -> str:
    """Return the key of the store's lock under which a package is proven."""
    return f"prove-{kept_name(wanted, V3)}"


def _keep(store: Store, key: str, manifest: bytes, blob: bytes, sha256: str) -> None:
    store.put_bytes(blob, sha256)  # before the manifest that names it
    store.put_manifest(key, manifest)


def _apply(session: Session, source: Source, data: bytes, what: str) -> VerifiedManifest:
    now = session.clockwork.now()
    return apply(source.policy, data, source.keyring, what=what, now=now, mirror=source.mirror)


def _bound(
    wanted: Wanted,
    source: Source,
    verified: VerifiedManifest,
    blobs: tuple[BlobRef, BlobRef],
    blob: bytes,
    what: str,
    *,
    stored: bool,
) -> VerifiedPackage:
    tarball, spec = blobs
    document = read_spec_blob(blob, spec, what=f"spec document of {wanted}")
    check_binding(document, name=wanted.name, version=wanted.version, hash=wanted.hash, what=what)
    if wanted.node is not None:
        check_index_node(document, wanted.node, what=what)
    return VerifiedPackage(
        wanted,
        tarball,
        spec,
        document,
        source,
        verified.signature,
        verified.key,
        stored,
        expires=verified.expires,
        dag_hash=document.dag_hash_confirmed,
    )


_FROM_MIRROR: dict[str, Callable[[Asking, Wanted], Awaitable[VerifiedPackage]]] = {
    V3: _layout3,
    V2: layout2.from_mirror,
    OCI: images.from_mirror,
}
_FROM_STORE: dict[str, Callable[[Session, Wanted, Source], VerifiedPackage | None]] = {
    V3: _stored_layout3,
    V2: layout2.from_store,
    OCI: images.from_store,
}
