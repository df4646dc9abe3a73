"""What an import needs beside a sync: which packages can be taken now, and files that were divided among volumes."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace

from ...errors import DigestError
from ...regular import open_regular
from ...resolver.index.readers.manifest import spec_manifest_path
from ..mirror.destination import list_manifests
from ..mirror.inventory import stem_of
from ..mirror.plan import Problem
from ..store import files
from .check import list_problems, lost_volumes, packages_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..mirror.destination import Destination
    from ..mirror.journal import Journal
    from ..mirror.plan import Job
    from ..model import Wanted
    from .format import Entry
    from .read import Bundle


class Taking:
    """One import: `bundle` into `to`."""

    def __init__(self, bundle: Bundle, to: Destination) -> None:
        self.bundle, self.to = bundle, to
        self.packages = packages_of(bundle)
        self._all: tuple[Wanted, ...] = ()

    def adjust(self, job: Job, journal: Journal) -> Job:
        """Return the job without the packages that cannot be taken now; `problems` tells about them afterwards.

        What needs them waits with them: the index lists a package when all that it needs has come, so that the
        destination is a valid smaller mirror in between.
        """
        self._all = job.wanted
        return replace(
            job,
            wanted=tuple(
                one for one in job.wanted if self._is_here(_path(one)) or stem_of(one) in journal.rows
            ),
            awaited=frozenset(one.hash for one in job.wanted),
        )

    def _is_here(self, path: str) -> bool:
        entries = self.packages.get(path)
        return entries is not None and all(
            not self.bundle.lacking(entry) or self._has(entry) for entry in entries
        )

    def _has(self, entry: Entry) -> bool:
        return files.size_or_none(os.path.join(self.to.mirror, entry.file.path)) == entry.file.size

    def problems(self) -> list[Problem]:
        """Return what is lost (volumes that are needed, packages of the baseline), and what the list contradicts."""
        there = set(list_manifests(self.to.mirror).values())
        found = lost_volumes(self.bundle, there.__contains__)
        for one in self._all:
            if _path(one) in self.packages or _path(one) in there:
                continue
            since = self.bundle.contents.since
            message = f"{one} is neither in the bundle {self.bundle.name} nor at the destination"
            if since:
                message += f": import the bundle {since[:12]} first, which this one continues"
            found.append(Problem(one.hash, one.name, "not-in-bundle", message))
        return [*found, *list_problems(self.bundle)]

    def gather(self) -> None:
        """Keep the pieces of divided files that are here; a file whose last piece came is made whole.

        Raises:
            DigestError: the pieces together are not the file.
            StoreError: the destination is full or cannot be written.
        """
        for entry in self.bundle.contents.entries:
            if len(entry.pieces) > 1 and self.bundle.lacking(entry) and not self._has(entry):
                with files.store_errors(self.to.mirror):
                    self._gather(entry)

    def _gather(self, entry: Entry) -> None:
        place = os.path.join(self.to.own, "pieces", entry.file.sha256)
        start = 0
        for number, piece in enumerate(entry.pieces):
            mark = f"{place}.{number}"
            if piece.volume in self.bundle.volumes and not os.path.exists(mark):
                files.require_space(place, piece.length)
                descriptor = files.open_for_writing(place)
                try:
                    os.lseek(descriptor, start, os.SEEK_SET)
                    for data in self.bundle.piece(entry, number):
                        view = memoryview(data)
                        while view:
                            view = view[os.write(descriptor, view) :]
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
                os.close(files.open_for_writing(mark))
            start += piece.length
        marks = [f"{place}.{number}" for number in range(len(entry.pieces))]
        if all(os.path.exists(mark) for mark in marks):
            self._finish(entry, place, marks)

    def _finish(self, entry: Entry, place: str, marks: list[str]) -> None:
        with open_regular(place) as file:
            good = hashlib.file_digest(file, "sha256").hexdigest() == entry.file.sha256
        if good:
            final = os.path.join(self.to.mirror, entry.file.path)
            os.makedirs(os.path.dirname(final), exist_ok=True)
            os.chmod(place, files.READ_ONLY)
            os.replace(place, final)
        else:
            os.unlink(place)
        for mark in marks:
            os.unlink(mark)
        if not good:
            raise DigestError(
                f"the pieces of {entry.file.path} in the bundle {self.bundle.name} are not the file",
                hint="run `cachefetch bundle verify` on every volume, and copy the damaged one again",
                context={"file": entry.file.path},
            )


def _path(wanted: Wanted) -> str:
    return spec_manifest_path(wanted.name, wanted.version, wanted.hash)
