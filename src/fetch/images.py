"""Proving a package of a registry: an image whose config is the spec document. There are no signatures."""

from __future__ import annotations

from .layouts import OCI, blob_url, image_url, kept_name
from .model import VerifiedPackage
from .verify.binding import check_index_node
from .verify.image import parse_image, read_config
from .verify.policy import NOT_POSSIBLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .asking import Asking
    from .model import Source, Wanted
    from .session import Session
    from .store.cas import Store
    from .verify.image import Image


async def from_mirror(asking: Asking, wanted: Wanted) -> VerifiedPackage:
    """Prove a package from the registry, and keep its image manifest and config. Errors as for `metadata.prove`."""
    session, source = asking.session, asking.source
    url = image_url(source, wanted)
    data = await asking.document(url, session.limits.manifest_bytes)
    what = f"image {url.rpartition('/')[2]}"
    image = parse_image(data, what=what)
    config = await asking.blob(blob_url(source, image.config.sha256), image.config.sha256, image.config.size)
    package = _proven(wanted, source, image, config, what, stored=False)
    await asking.run(_keep, session.store, kept_name(wanted, OCI), data, config, image.config.sha256)
    return package


def from_store(session: Session, wanted: Wanted, source: Source) -> VerifiedPackage | None:
    """Prove a package from the kept image manifest and config; None when one is not there."""
    data = session.store.manifest(kept_name(wanted, OCI))
    if data is None:
        return None
    what = f"stored image of {wanted}"
    image = parse_image(data, what=what)
    config = session.store.read(image.config.sha256, image.config.size)
    return None if config is None else _proven(wanted, source, image, config, what, stored=True)


def _keep(store: Store, name: str, manifest: bytes, config: bytes, sha256: str) -> None:
    store.put_bytes(config, sha256)  # before the manifest that names it
    store.put_manifest(name, manifest)


def _proven(
    wanted: Wanted, source: Source, image: Image, config: bytes, what: str, *, stored: bool
) -> VerifiedPackage:
    document = read_config(
        config, image, name=wanted.name, version=wanted.version, hash=wanted.hash, what=what
    )
    if wanted.node is not None:
        check_index_node(document, wanted.node, what=what)
    return VerifiedPackage(
        wanted,
        image.tarball,
        image.config,
        document,
        source,
        NOT_POSSIBLE,
        None,
        stored,
        layout=OCI,
        dag_hash=document.dag_hash_confirmed,
    )
