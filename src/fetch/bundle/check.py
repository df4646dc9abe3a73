"""The audit of a bundle: volumes, signature, and every byte of every volume (synchronous I/O in threads)."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain

from ...errors import CachefetchError, FormatError, TrustError
from ..mirror.plan import Problem
from ..verify.policy import check_signature
from .examine import check_frames, check_name, check_places, check_volume, unnamed
from .read import Bundle, Found

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any

    from ..model import Source
    from .format import Entry
    from .read import Volume

_SPEC = ("v3/manifests/spec/", ".spec.manifest.json")


@dataclass(frozen=True, slots=True)
class BundleReport:
    """What is known of a bundle.

    Attributes:
        id: its name; "" for files that do not even tell which bundle they are of.
        since: id of the bundle whose receipt was its baseline, or "".
        volumes: paths of the volumes that are here, by number.
        of: number of all volumes.
        packages: number of packages in it.
        files: number of files that were checked; `bytes` of them.
        signature: "good", "none", or "not-required"; `key` is the fingerprint or "".
        problems: what is wrong; a volume that is lost is one, with the packages in it as `needed_by`.
    """

    id: str
    since: str
    volumes: dict[int, str]
    of: int
    packages: int
    files: int
    bytes: int
    signature: str
    key: str
    problems: tuple[Problem, ...]

    @property
    def status(self) -> str:
        """Return "ok" or "damaged"."""
        return "damaged" if self.problems else "ok"

    @property
    def exit_code(self) -> int:
        """0, or 9 when something is lost or wrong."""
        return 9 if self.problems else 0

    def to_dict(self) -> dict[str, Any]:
        """Return the ``cachefetch/bundle-verify/1`` document (docs/schemas/bundle-verify-1.json)."""
        return {
            "schema": "cachefetch/bundle-verify/1",
            "status": self.status,
            "bundle": self.id,
            "since": self.since,
            "volumes": self.of,
            "present": [self.volumes[number] for number in sorted(self.volumes)],
            "packages": self.packages,
            "files": self.files,
            "bytes": self.bytes,
            "signature": self.signature,
            "key": self.key,
            "problems": [problem.to_dict() for problem in self.problems],
        }


def believe(found: Found, source: Source, now: float) -> Found:
    """Check the headers of the volumes of one bundle under the policy of `source`.

    A bundle need not be signed: its packages prove themselves. A signature that is there must be good, unless the
    policy needs none.

    Returns:
        The bundle with the volumes that fail as `refused`, and with `signature` and `key`.

    Raises:
        TrustError: the signature of every volume is bad, or by a key that is not trusted.
    """
    from ..verify.policy import IF_PRESENT, NONE, SignaturePolicy

    policy = source.policy
    if policy.mode != NONE:
        policy = SignaturePolicy(IF_PRESENT, policy.pinned)
    signers: set[tuple[str, str]] = set()
    good: list[Volume] = []
    refused: dict[str, tuple[Volume, CachefetchError]] = {}
    for volume in found.volumes:
        what = os.path.basename(volume.path)
        try:
            verified = check_signature(
                policy, volume.text, source.keyring, what=what, now=now, mirror=source.mirror
            )
        except TrustError as error:
            refused[volume.path] = volume, error
        else:
            good.append(volume)
            signers.add((str(verified.signature), verified.key or ""))
    if refused and not good:
        raise next(error for _, error in refused.values())
    return Found(good, found.beside, refused, *(signers.pop() if len(signers) == 1 else ("none", "")))


def package_label(path: str) -> str:
    """Return ``NAME-VERSION/HASH7`` for the path of a spec manifest, "" for another path."""
    if not path.startswith(_SPEC[0]) or not path.endswith(_SPEC[1]):
        return ""
    stem = path.rpartition("/")[2].removesuffix(_SPEC[1])
    return f"{stem[:-33]}/{stem[-32:][:7]}"


def packages_of(bundle: Bundle) -> dict[str, tuple[Entry, ...]]:
    """Return the files of each package: path of its manifest -> entries, the manifest last.

    The files of a package stand before its manifest, and after the manifest of the one before, or they name it.
    """
    found: dict[str, tuple[Entry, ...]] = {}
    group: list[Entry] = []
    for entry in bundle.contents.entries:
        if package := entry.file.package:
            found[package] = (*found.get(package, ()), entry)
            continue
        if entry.pieces[0].volume:
            group.append(entry)
        if package_label(entry.file.path):
            found[entry.file.path] = tuple(group)
            group = []
    return found


def lost_volumes(bundle: Bundle, have: Callable[[str], bool] | None = None) -> list[Problem]:
    """Return a problem for each volume that is not here or not whole, naming the packages in it.

    Args:
        bundle: the bundle.
        have: tells by the path of a manifest whether a package is at the destination already; then its volume is
            not needed any more. None for an audit: every volume counts.
    """
    needed: dict[int, list[str]] = {number: [] for number in bundle.missing}
    for path, entries in packages_of(bundle).items():
        if have is None or not have(path):
            for number in {number for entry in entries for number in bundle.lacking(entry)}:
                needed[number].append(package_label(path))
    problems = []
    for number, labels in needed.items():
        text = bundle.volume_text((number,))
        if have is not None and not labels and number not in {**bundle.short, **bundle.cut, **bundle.refused}:
            continue  # a volume that is damaged is named even so
        if number in bundle.refused:
            path, why = bundle.refused[number]
            message, what = f"{path} is {text} and not believed: {why.message}", why.code
        elif number in bundle.short:
            path = bundle.short[number].path
            message, what = f"{path} is {text} and not whole: copy it again", "size-mismatch"
        elif number in bundle.cut:
            path = bundle.cut[number]
            message = f"{path} has the name of {text} and is no volume: it was cut or changed, copy it again"
            what = "bad-format"
        elif number in bundle.beside:
            path, what = bundle.beside[number], "volume-missing"
            message = f"{text} was not named; it is {path}: name the directory to take all volumes in it"
        else:
            path, what = "", "volume-missing"
            message = f"{text} of the bundle {bundle.name} is not here; it holds {len(labels)} packages"
        problems.append(Problem("", f"volume {number}", what, message, tuple(labels), path))
    return problems


def check_bundle(found: Found, source: Source, now: float) -> BundleReport:
    """Audit the volumes of one bundle, those beside the named ones too, and of each volume every copy.

    Raises:
        TrustError: see `believe`.
    """
    found = believe(Found(found.all()), source, now)
    try:
        every = Bundle(found.volumes, (), found.refused)
    except (FormatError, OSError) as error:  # no list can be read, or volumes contradict each other
        return unreadable_bundle(found.volumes[0], error)
    bundle, problems = every.alone(), lost_volumes(every)
    problems += [_short_copy(every, volume) for volume in every.short_copies]
    here = [entry for entry in bundle.contents.entries if bundle.volumes and not bundle.lacking(entry)]
    named: set[str] = set()
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        problems += chain.from_iterable(pool.map(partial(_check_volume, bundle), bundle.volumes))
        for wrong, blobs in pool.map(partial(_check_entry, bundle), here):
            problems += wrong
            named |= blobs
        for number, copies in every.copies.items():
            for volume in copies:
                problems += _check_copy(every.alone({number: volume}), number, here, pool)
    problems += list_problems(bundle)
    if not problems:  # else the manifest that names a blob may be the damaged one
        problems += [
            _problem(path, bundle.name, f"no manifest names {path}") for path in unnamed(bundle, named)
        ]
    return BundleReport(
        bundle.id,
        bundle.contents.since,
        {number: volume.path for number, volume in bundle.volumes.items()},
        bundle.header.volumes,
        len(packages_of(bundle)),
        len(here),
        sum(entry.file.size for entry in here),
        found.signature,
        found.key,
        tuple(problems),
    )


def list_problems(bundle: Bundle) -> list[Problem]:
    """Return a problem for each contradiction in the list of a bundle, as an audit tells it."""
    return [_problem("list", bundle.name, what) for what in check_places(bundle.contents)]


def _check_copy(
    bundle: Bundle, number: int, here: Sequence[Entry], pool: ThreadPoolExecutor
) -> Iterator[Problem]:
    """Yield what is wrong with a further copy of a volume, which `bundle` reads in place of the first."""
    yield from _check_volume(bundle, number)
    inside = [entry for entry in here if {0, number} & {piece.volume for piece in entry.pieces}]
    for found, _ in pool.map(partial(_check_entry, bundle, only=number), inside):
        yield from found


def _short_copy(bundle: Bundle, volume: Volume) -> Problem:
    number = volume.header.volume
    message = f"{volume.path} is a copy of {bundle.volume_text((number,))} and not whole: copy it again"
    return Problem("", f"volume {number}", "size-mismatch", message, (), volume.path)


def unreadable_bundle(volume: Volume, error: CachefetchError | OSError) -> BundleReport:
    """Return the report of a bundle of which nothing but headers can be read."""
    code, message = _told(error)
    problem = Problem("", os.path.basename(volume.path), code, message, (), volume.path)
    return BundleReport(volume.header.id, "", {}, volume.header.volumes, 0, 0, 0, "none", "", (problem,))


def unreadable_volumes(found: Mapping[str, CachefetchError]) -> list[Problem]:
    """Return a problem for each file that has the name or the mark of a volume, and cannot be read as one."""
    return [
        Problem("", os.path.basename(path), error.code, f"{error.message}: copy it again", (), path)
        for path, error in sorted(found.items())
    ]


def unreadable_files(found: Mapping[str, CachefetchError]) -> BundleReport:
    """Return the report of files that do not even tell which bundle they are of."""
    return BundleReport("", "", {}, 0, 0, 0, 0, "none", "", tuple(unreadable_volumes(found)))


def _check_volume(bundle: Bundle, number: int) -> list[Problem]:
    volume = bundle.volumes[number]
    try:
        found = list(check_volume(bundle, volume))
    except OSError as error:
        found = [f"it cannot be read: {error.strerror}"]
    return [_problem(f"volume {number}", volume.path, what) for what in found]


def _check_entry(bundle: Bundle, entry: Entry, *, only: int = 0) -> tuple[list[Problem], set[str]]:
    """Check a file wherever it stands, or in `only` one volume; return the problems, and the blobs that it names."""
    file, numbers = entry.file, {piece.volume for piece in entry.pieces}
    label = package_label(file.path) or file.path.rpartition("/")[2]
    problems = []
    # Files of all volumes are in each: they are read from every one of them.
    for number in [only] if only else sorted(bundle.volumes if 0 in numbers else numbers):
        place = bundle.volumes[number].path
        if 0 in numbers or number == (only or min(numbers)):
            problems += [
                Problem("", label, what, f"{place}: {message}", (), place)
                for what, message in _check_contents(bundle, entry, number if 0 in numbers else 0)
            ]
        with suppress(OSError):  # told of the contents
            found = list(check_frames(entry, bundle.volumes[number]))
            problems += [_problem(label, place, what) for what in found]
    if problems or only:
        return problems, set()
    try:
        return [], {ref.path for ref in check_name(bundle, entry)}
    except (OSError, CachefetchError) as error:
        code, message = _told(error)
        place = bundle.volumes[min(numbers) or min(bundle.volumes)].path
        return [Problem("", label, code, f"{place}: {message}", (), place)], set()


def _check_contents(bundle: Bundle, entry: Entry, volume: int) -> Iterator[tuple[str, str]]:
    digest = hashlib.sha256()
    try:
        for data in bundle.chunks(entry, volume=volume):
            digest.update(data)
    except (OSError, CachefetchError) as error:
        yield "unreadable", f"{entry.file.path} cannot be read: {error}"
    else:
        if digest.hexdigest() != entry.file.sha256:
            yield "digest-mismatch", f"{entry.file.path} has sha256 {digest.hexdigest()}"


def _problem(name: str, path: str, what: str) -> Problem:
    return Problem("", name, "bad-format", f"{path}: {what}", (), path)


def _told(error: CachefetchError | OSError) -> tuple[str, str]:
    if isinstance(error, CachefetchError):
        return error.code, error.message
    return "unreadable", f"cannot be read: {error.strerror}"
