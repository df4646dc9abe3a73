"""Proving a package before any payload moves: manifest, signature, spec document, binding to the request.

The order is that of docs/security.md: signature on the exact bytes as the mirror's policy asks -> schema -> digest
of the spec blob -> its root hash, name and version equal the request. Spack 1.1 skips the last two, so a valid
manifest of another package could stand in (docs/formats.md).
"""

from __future__ import annotations

from dataclasses import replace

from anyio import to_thread

from ..errors import FormatError
from ..resolver.index.readers.manifest import spec_manifest_path, spec_stem
from .events import Verified, Warned
from .failures import SOURCE_ERRORS, caveats, for_package
from .model import Failure, VerifiedPackage
from .transports import join
from .verify.binding import check_binding, read_spec_blob
from .verify.policy import apply

TYPE_CHECKING = False
if TYPE_CHECKING:
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
        f"prove-{_key(wanted)}",
        ready=lambda: stored(session, wanted, []),
        prepare=lambda lock: None,  # noqa: ARG005 - being called means having it
        work=lambda _: _prove_locked(session, wanted, transfer),
        waiting=lambda: None,
    )
    session.emit(Verified(transfer, str(wanted), package.signature, package.key))
    return package


async def _prove_locked(session: Session, wanted: Wanted, transfer: int) -> VerifiedPackage:
    failures: list[Failure] = []
    package = await from_mirrors(session, wanted, failures, transfer)
    if package is None:
        if session.offline:  # why the store's own copy does not do is then the better answer
            ours: list[Failure] = []
            await to_thread.run_sync(stored, session, wanted, ours)
            failures = ours + failures
        raise for_package(wanted, failures)
    return package


def stored(session: Session, wanted: Wanted, failures: list[Failure]) -> VerifiedPackage | None:
    """Prove a package from the kept manifest and spec blob, with the policies of today; None if that fails."""
    data = session.store.manifest(_key(wanted))
    if data is None:
        return None
    what = f"stored manifest of {wanted}"
    for source in wanted.sources:
        try:
            verified = _apply(session, source, data, what)
            ref = verified.manifest.spec()
            blob = session.store.read(ref.sha256, ref.size)
            if blob is not None:
                return _bound(wanted, source, verified, blob, what, stored=True)
        except SOURCE_ERRORS as error:
            failures.append(Failure(source.mirror, error))
    return None


async def from_mirrors(
    session: Session, wanted: Wanted, failures: list[Failure], transfer: int
) -> VerifiedPackage | None:
    """Prove a package from its mirrors in order, keep what was proven, and note every failure."""
    noted = len(failures)
    sources = session.in_order(wanted.sources)
    for number, source in enumerate(sources, 1):
        try:
            package = await _from_mirror(session, wanted, source, transfer, number < len(sources))
        except SOURCE_ERRORS as error:
            session.health.suspect(source.mirror, error)
            failures.append(Failure(source.mirror, error))
            continue
        new = tuple(failures[noted:])
        for warning in caveats(new):
            session.emit(Warned(transfer, warning.code, warning.message, warning.mirror))
        return replace(package, failures=new)
    return None


async def _from_mirror(
    session: Session, wanted: Wanted, source: Source, transfer: int, alternatives: bool
) -> VerifiedPackage:
    url = join(source.url, spec_manifest_path(wanted.name, wanted.version, wanted.hash))
    data = await session.document(
        source, url, session.limits.manifest_bytes, transfer, alternatives=alternatives
    )
    what = f"manifest {url.partition('?')[0].rpartition('/')[2]}"
    verified = _apply(session, source, data, what)
    ref = verified.manifest.spec()
    verified.manifest.tarball()  # a manifest without payload is of no use: say so before anything else
    blob = await _spec_blob(session, source, ref, what, transfer, alternatives)
    package = _bound(wanted, source, verified, blob, what, stored=False)
    await to_thread.run_sync(_keep, session.store, _key(wanted), data, blob, ref.sha256)
    return package


def _keep(store: Store, key: str, manifest: bytes, blob: bytes, sha256: str) -> None:
    store.put_bytes(blob, sha256)  # before the manifest that names it
    store.put_manifest(key, manifest)


async def _spec_blob(
    session: Session, source: Source, ref: BlobRef, what: str, transfer: int, alternatives: bool
) -> bytes:
    if ref.size > session.limits.spec_blob_bytes:
        raise FormatError(
            f"{what} promises a spec document of {ref.size} bytes; the limit is {session.limits.spec_blob_bytes}",
            hint="the mirror is damaged or hostile; tell its owner",
            context={"size": ref.size},
        )
    kept = session.store.read(ref.sha256, ref.size)  # small, and hardly ever there: not worth a hop
    if kept is not None:
        return kept
    url = join(source.url, ref.path)
    return await session.blob(source, url, ref.size, transfer, alternatives=alternatives)


def _apply(session: Session, source: Source, data: bytes, what: str) -> VerifiedManifest:
    now = session.clockwork.now()
    return apply(source.policy, data, source.keyring, what=what, now=now, mirror=source.mirror)


def _bound(
    wanted: Wanted, source: Source, verified: VerifiedManifest, blob: bytes, what: str, *, stored: bool
) -> VerifiedPackage:
    document = read_spec_blob(blob, verified.manifest.spec(), what=f"spec document of {wanted}")
    check_binding(document, name=wanted.name, version=wanted.version, hash=wanted.hash, what=what)
    return VerifiedPackage(
        wanted, verified.manifest, document, source, verified.signature, verified.key, stored
    )


def _key(wanted: Wanted) -> str:
    return spec_stem(wanted.name, wanted.version, wanted.hash)
