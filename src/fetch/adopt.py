"""Taking payloads into the store that other tools fetched, after verification (edge: reads a directory)."""

from __future__ import annotations

import os

from ..regular import open_regular
from .export import file_name
from .model import Caveat
from .resume import PartInfo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .plan import FetchPlan, Step
    from .store.cas import Store

_CHUNK = 1 << 20


def adopt(store: Store, plan: FetchPlan, directory: str) -> tuple[Caveat, ...]:
    """Copy from `directory` what the plan would get; return a warning for each file that is not what it should be.

    A payload is looked for as ``NAME-VERSION-HASH.spack``, as its digest, and where a mirror has it. Files of the
    wrong length or digest are left alone, and fetched as if they were not there.

    Raises:
        StoreError: the store cannot be written, or has no space.
    """
    warnings = []
    for step in plan.steps:
        if step.stored is None:
            for path in _candidates(directory, step):
                if _take(store, step, path):
                    break
                message = f"{path} is not the payload of {step.package.wanted}: wrong length or digest"
                warnings.append(Caveat("adopt", message, ""))
    return tuple(warnings)


def _candidates(directory: str, step: Step) -> Iterator[str]:
    blob = step.package.tarball
    for name in (file_name(step.package), blob.sha256, blob.path):
        path = os.path.join(directory, name)
        if os.path.isfile(path):
            yield path


def _take(store: Store, step: Step, path: str) -> bool:
    blob = step.package.tarball
    try:
        if os.path.getsize(path) != blob.size:
            return False
        file = open_regular(path)  # an error of reading it is no error of the store
    except OSError:
        return False
    with file:
        lock = store.try_lock(blob.sha256)
        if lock is None:
            return True  # another process is bringing it; the fetch waits for that
        try:
            part = store.open_part(lock, blob.sha256, blob.size)
            part.begin(PartInfo(path, None, blob.sha256, blob.size))
            while (data := file.read(_CHUNK)) and part.offset + len(data) <= blob.size:
                part.write(data)
            part.commit_if_right()
            if not part.done:
                part.remove()
            return part.done
        finally:
            lock.release()
