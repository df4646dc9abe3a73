"""Bundles, above the fetch layer: export from any source, import into a mirror directory, audit."""

from __future__ import annotations

import contextlib
import os
import shutil
import time

from .config import absolute
from .errors import TrustError, UsageError, cannot_write
from .values import changed, frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
    from typing import Any

    from .config import Mirror
    from .errors import CachefetchError
    from .fetch.bundle.check import BundleReport
    from .fetch.bundle.read import Found
    from .fetch.mirror.plan import Problem, SyncReport
    from .fetch.model import Source

RECEIPT_NAME = "receipt.json"


@frozen
class ExportReport:
    """What was exported; `kept` of the volumes were there already, `left` packages the other side has already."""

    bundle: str
    since: str
    volumes: tuple[str, ...]
    kept: int
    bytes: int
    packages: int
    left: int
    signed: bool
    problems: tuple[Problem, ...]
    warnings: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 done, 9 when something of the source could not be exported."""
        return 9 if self.problems else 0

    def to_dict(self) -> dict[str, Any]:
        """Return the ``cachefetch/bundle-export/1`` document (docs/schemas/bundle-export-1.json)."""
        return {
            "schema": "cachefetch/bundle-export/1",
            "status": "partial" if self.problems else "ok",
            "bundle": self.bundle,
            "since": self.since,
            "volumes": list(self.volumes),
            "kept": self.kept,
            "bytes": self.bytes,
            "packages": self.packages,
            "left": self.left,
            "signed": self.signed,
            "problems": [problem.to_dict() for problem in self.problems],
            "warnings": list(self.warnings),
        }


@frozen
class ImportReport:
    """What was imported: the sync of one bundle, with what is lost among its problems; where the receipt is."""

    bundle: str
    since: str
    volumes: int
    present: tuple[str, ...]
    signature: str
    key: str
    receipt: str
    sync: SyncReport

    @property
    def exit_code(self) -> int:
        """0 done, 9 partly done."""
        return self.sync.exit_code

    def to_dict(self) -> dict[str, Any]:
        """Return the ``cachefetch/bundle-import/1`` document (docs/schemas/bundle-import-1.json)."""
        return {
            "schema": "cachefetch/bundle-import/1",
            "status": self.sync.status,
            "bundle": self.bundle,
            "since": self.since,
            "volumes": self.volumes,
            "present": list(self.present),
            "signature": self.signature,
            "key": self.key,
            "receipt": self.receipt,
            "plan": self.sync.plan.to_dict(),
            "done": dict(self.sync.done),
            "problems": [problem.to_dict() for problem in self.sync.problems],
            "warnings": list(self.sync.warnings),
        }


def read_small(path: str, what: str) -> bytes:
    """Return the bytes of a small file. Raises UsageError."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise UsageError(f"cannot read the {what} {path}: {error.strerror}") from error


def is_mirror_directory(location: str) -> bool:
    """Tell whether a location is a directory of layout 3, which can be packed as it is."""
    return "://" not in location and os.path.isdir(os.path.join(location, "v3"))


def export_directory(
    mirror: str,
    to: str,
    *,
    volume_size: int | None,
    since: str,
    sign_key: str,
    problems: Sequence[Problem] = (),
    warnings: tuple[str, ...] = (),
) -> ExportReport:
    """Pack a mirror directory.

    Args:
        mirror: the directory.
        to: file that ends in ``.bundle``, or a directory.
        volume_size: most bytes of a volume, None for one volume.
        since: path of the receipt of the other side, or "".
        sign_key: path of a secret key, or "".
        problems: what a sync before this could not bring.
        warnings: for the report.

    Raises:
        UsageError, FormatError, ConfigError, StoreError, DigestError: see `fetch.bundle.write`.
    """
    from .fetch.bundle.write import contents_of, read_receipt, signer_from, survey, write_bundle

    sign = signer_from(sign_key) if sign_key else None
    base, baseline = read_receipt(read_small(since, "receipt"), what=since) if since else ("", frozenset())
    packing = survey(mirror, baseline, divided=volume_size is not None)
    contents = contents_of(packing, volume_size=volume_size, since=base)
    target = os.path.abspath(os.path.expanduser(to)) + (os.sep if to.endswith(os.sep) else "")
    done = write_bundle(mirror, contents, target, sign)
    return ExportReport(
        done.id,
        base,
        done.paths,
        done.kept,
        done.bytes,
        len(packing.packages),
        packing.left,
        sign is not None,
        (*problems, *packing.problems),
        warnings,
    )


@contextlib.asynccontextmanager
async def staging_directory(given: str, to: str) -> AsyncIterator[str]:
    """Yield the directory that a sync goes into before it is packed; one that was not given is removed at the end.

    A run that failed leaves it, so that the next one goes on.
    """
    if given:
        yield absolute(given)
        return
    from anyio import to_thread

    place = _beside(to)
    yield place
    await to_thread.run_sync(shutil.rmtree, place, True)


def _beside(to: str) -> str:
    """Return the staging directory of a bundle; `to` may be one by now, so it is not read as a mirror."""
    return f"{os.path.abspath(os.path.expanduser(to))}.staging"


def bundles_in(mirrors: Sequence[Mirror]) -> tuple[list[tuple[Mirror, Found]], dict[str, CachefetchError]]:
    """Return the bundles that mirrors name, each once, and files that should be volumes and cannot be read.

    Raises:
        NotFoundError, FormatError: there is nothing of a bundle.
        UsageError: no mirror is given.
    """
    from .fetch.bundle.read import Found, find_bundles

    if not mirrors:
        raise UsageError("no bundle is named", hint="cachefetch bundle import FILE|DIR... --to MIRROR")
    found: dict[str, tuple[Mirror, Found]] = {}
    unreadable: dict[str, CachefetchError] = {}
    for mirror in mirrors:
        bundles, broken = find_bundles(mirror.location)
        unreadable.update(broken)
        for bundle in bundles:
            path = bundle.volumes[0].path
            one = changed(mirror, name=path, location=f"bundle://{path}")
            _, mine = found.setdefault(bundle.id, (one, Found()))
            mine.volumes += [volume for volume in bundle.volumes if volume not in mine.volumes]
            mine.beside += [volume for volume in bundle.beside if volume not in mine.beside]
    return list(found.values()), unreadable


def to_import(
    mirrors: Sequence[Mirror], source_of: Callable[[Mirror], Source]
) -> tuple[list[tuple[Mirror, Found]], list[Problem]]:
    """Return the bundles that mirrors name, each after the one that it continues, and what cannot be used beside them.

    Args:
        mirrors: files and directories.
        source_of: returns a mirror with its policy and keys.

    Raises:
        NotFoundError, FormatError: there is no bundle, or none of its volumes tells what is in it.
        TrustError: every bundle is signed, and none by a trusted key.
        UsageError: no mirror is given.
    """
    from .fetch.bundle.check import believe, unreadable_volumes
    from .fetch.bundle.read import Bundle

    every, unusable = bundles_in(mirrors)
    found: list[tuple[Mirror, Found]] = []
    for mirror, one in every:
        try:
            good = believe(one, source_of(mirror), time.time())
        except TrustError as error:
            unusable.update({volume.path: error for volume in one.volumes})
        else:
            found.append((changed(mirror, location=f"bundle://{good.volumes[0].path}"), good))
    if not found:
        raise next(iter(unusable.values()))
    opened = {one.id: Bundle(one.volumes, one.beside, one.refused) for _, one in found}
    ordered: list[tuple[Mirror, Found]] = []
    while rest := [pair for pair in found if pair not in ordered]:
        waiting = {one.id for _, one in rest}
        continues = {one.id: opened[one.id].contents.since for _, one in rest}
        ordered.append(next((pair for pair in rest if continues[pair[1].id] not in waiting), rest[0]))
    told = {path for bundle in opened.values() for path in bundle.cut.values()}
    return ordered, unreadable_volumes({p: error for p, error in unusable.items() if p not in told})


async def import_bundle(
    found: Found,
    to: str,
    run: Callable[..., Awaitable[SyncReport]],
    *,
    receipt: str,
    further: Sequence[Problem] = (),
) -> ImportReport:
    """Bring what is here of one bundle into the mirror directory `to`, and write the receipt.

    Args:
        found: its volumes, from `to_import`; those beside the named ones are not taken.
        to: the directory.
        run: syncs from it, see `syncing.sync`.
        receipt: further file that gets the receipt, or "".
        further: problems to report with those of this bundle.

    Raises:
        UsageError, StoreError, DigestError: see `syncing.sync`, `fetch.bundle.take`.
    """
    from dataclasses import replace

    from anyio import to_thread

    from .fetch.bundle.read import Bundle
    from .fetch.bundle.take import Taking
    from .fetch.bundle.write import receipt_text
    from .fetch.mirror.destination import Destination, check_destination, locked

    bundle = await to_thread.run_sync(Bundle, found.volumes, found.beside, found.refused)
    check_destination(to)
    destination = Destination(to)
    taking = Taking(bundle, destination)
    with locked(destination):
        await to_thread.run_sync(taking.gather)
    here = ",".join(map(str, sorted(bundle.volumes)))
    report = await run(to, adjust=taking.adjust, variant=f"{bundle.id} {here}")
    problems = (*report.problems, *taking.problems(), *further)
    report = replace(report, problems=problems, status="partial" if problems else "ok")
    text = await to_thread.run_sync(receipt_text, to, bundle.id)
    destination.write(os.path.join(destination.own, RECEIPT_NAME), text)
    if receipt:
        _write(receipt, text)
    return ImportReport(
        bundle.id,
        bundle.contents.since,
        bundle.header.volumes,
        tuple(bundle.volumes[number].path for number in sorted(bundle.volumes)),
        found.signature,
        found.key,
        receipt or os.path.join(destination.own, RECEIPT_NAME),
        report,
    )


def verify_bundles(
    found: Sequence[tuple[Found, Source]], unreadable: Mapping[str, CachefetchError]
) -> tuple[BundleReport, ...]:
    """Audit bundles, each with its policy and keys; what cannot be read or believed gets a report of its own.

    Raises:
        TrustError: nothing can be believed.
    """
    from .fetch.bundle.check import check_bundle, unreadable_bundle, unreadable_files

    reports: list[BundleReport] = []
    refused: list[tuple[Found, TrustError]] = []
    for one, source in found:
        try:
            reports.append(check_bundle(one, source, time.time()))
        except TrustError as error:
            refused.append((one, error))
    told = {problem.path for report in reports for problem in report.problems}
    rest = {path: error for path, error in unreadable.items() if path not in told}
    if not reports and all(isinstance(error, TrustError) for error in rest.values()):
        raise next(iter([*(error for _, error in refused), *rest.values()]))
    reports += [unreadable_bundle(one.volumes[0], error) for one, error in refused]
    return (*reports, *([unreadable_files(rest)] if rest else []))


def _write(path: str, data: bytes) -> None:
    try:
        temporary = f"{path}.{os.getpid()}"
        with open(temporary, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except OSError as error:
        raise cannot_write(f"the receipt {path}", path, error) from error
