"""What the parts of an audit share: how files of a mirror are read, and where what is found is noted."""

from __future__ import annotations

import hashlib
import os

from ...errors import FormatError, NotFoundError
from ...resolver.index.readers import join
from ..transports import scheme_of
from ..transports.file import local_path
from .examine import Found, compare_blob
from .plan import Problem
from .records import Records

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...resolver.index.readers.manifest import BlobRef
    from ..model import Source
    from ..session import Session
    from ..transports import Head


class Inspection:
    """The state of one audit.

    Attributes:
        local: the directory, None for a URL.
        problems: the damage.
        notes: counts of what is harmless.
        named: sha256 (layout 2: path) -> size of what something names.
        records: the index.
        held: DAG hashes of the binaries that the index lists.
        external: those of external nodes.
        found: what was found about packages and records,
        odd: and remarks on all else.
        index_good: False when the index is damaged.
        absent: identities of the packages of which the index alone tells.
    """

    def __init__(self, session: Session, source: Source) -> None:
        self.session, self.source = session, source
        self.local = local_path(source.url) if scheme_of(source.url) == "file" else None
        self.problems: list[Problem] = []
        self.notes: dict[str, int] = {}
        self.named: dict[str, int] = {}
        self.records = Records.none()
        self.held: set[str] = set()
        self.external: set[str] = set()
        self.found = Found()
        self.odd = Found()  # remarks on all but packages
        self.warnings: list[str] = []
        self.index_good = True
        self.absent: list[tuple[str, str, str] | None] = []
        self._users: dict[str, list[str]] | None = None

    # --- notes ------------------------------------------------------------------------------------------------------

    def _problem(self, hash_: str, name: str, what: str, message: str, path: str = "") -> None:
        self.problems.append(Problem(hash_, name, what, message, self._needed_by(hash_), path))

    def _needed_by(self, hash_: str) -> tuple[str, ...]:
        if self._users is None:  # the first damage: all records are decoded once
            self._users = {}
            for node in filter(None, map(self.records.node, self.held)):
                label = f"{node.name}@{node.version}/{node.hash[:7]}"
                for needed in {edge.hash for edge in node.closure_edges()}:
                    self._users.setdefault(needed, []).append(label)
        return tuple(sorted(self._users.get(hash_, ())))

    # --- reading ----------------------------------------------------------------------------------------------------

    async def _document(self, path: str, limit: int = 1 << 20) -> bytes:
        """Read a small file. Raises FormatError for what is there and no file, NotFoundError for nothing."""
        try:
            return await self.session.document(self.source, join(self.source.url, path), limit, 0)
        except NotFoundError as error:
            if self._is_there(path):
                raise FormatError(error.message) from error
            raise

    def _is_there(self, path: str) -> bool:
        """Tell whether something stands at a path of a directory that cannot be read as a file."""
        return self.local is not None and os.path.lexists(os.path.join(self.local, path))

    async def _blob(self, ref: BlobRef, limit: int) -> bytes:
        if ref.size > limit:
            raise FormatError(f"{ref.path} has {ref.size} bytes, more than the limit of {limit}")
        data = await self.session.blob(self.source, join(self.source.url, ref.path), ref.size, 0)
        compare_blob(hashlib.sha256(data).hexdigest(), len(data), ref)
        return data

    async def _hash_remote(self, ref: BlobRef) -> None:
        found = await self._hash(join(self.source.url, ref.path))
        compare_blob(found.digest.hexdigest(), found.size, ref)

    async def _hash(self, url: str) -> _Hashing:
        """Hash a large blob without keeping it."""
        transport = self.session.transport(self.source, url)

        async def read() -> _Hashing:
            sink = _Hashing()
            try:
                async with self.session.host_slots(url):
                    await transport.receive(url, sink)
            finally:
                if transport.network:
                    self.session.meter.network_bytes += sink.size
            return sink

        return await self.session.patiently(read, url, 0)


class _Hashing:
    """A sink that keeps nothing but digest and size."""

    def __init__(self) -> None:
        self.digest, self.size = hashlib.sha256(), 0

    def begin(self, head: Head) -> None:
        """Nothing is expected of an answer: what comes is compared at the end."""

    def write(self, data: memoryview) -> None:
        """Hash the next bytes."""
        self.digest.update(data)
        self.size += len(data)

    def end(self) -> None:
        """Nothing is left to do."""
