"""The audit of a bundle: volumes, signature, and the digest of every file (synchronous I/O in threads)."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from ...errors import CachefetchError
from ..mirror.plan import Problem
from ..verify.policy import check_signature

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..model import Source
    from .format import Entry
    from .read import Bundle

_SPEC = ("v3/manifests/spec/", ".spec.manifest.json")


@dataclass(frozen=True, slots=True)
class BundleReport:
    """What is known of a bundle.

    Attributes:
        id: its name.
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


def check_bundle_signature(bundle: Bundle, source: Source, now: float) -> tuple[str, str]:
    """Check the headers of all volumes that are here under the policy of `source`.

    A bundle need not be signed: its packages prove themselves. A signature that is there must be good, unless the
    policy needs none.

    Returns:
        "good", "none" or "not-required", and the fingerprint or "".

    Raises:
        TrustError: a signature is bad, or by a key that is not trusted.
    """
    from ..verify.policy import IF_PRESENT, NONE, SignaturePolicy

    policy = source.policy
    if policy.mode != NONE:
        policy = SignaturePolicy(IF_PRESENT, policy.pinned)
    found: set[tuple[str, str]] = set()
    for volume in (bundle.volumes or bundle.short).values():
        what = os.path.basename(volume.path)
        verified = check_signature(
            policy, volume.text, source.keyring, what=what, now=now, mirror=source.mirror
        )
        found.add((str(verified.signature), verified.key or ""))
    return found.pop() if len(found) == 1 else ("none", "")


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
        if have is not None and not labels and number not in {**bundle.short, **bundle.cut}:
            continue  # a volume that is damaged is named even so
        if number in bundle.short:
            path = bundle.short[number].path
            message, what = f"{path} is {text} and not whole: copy it again", "size-mismatch"
        elif number in bundle.cut:
            path = bundle.cut[number]
            message = f"{path} has the name of {text} and is no volume: it was cut or changed, copy it again"
            what = "bad-format"
        else:
            path, what = "", "volume-missing"
            message = f"{text} of the bundle {bundle.name} is not here; it holds {len(labels)} packages"
        problems.append(Problem("", f"volume {number}", what, message, tuple(labels), path))
    return problems


def check_bundle(bundle: Bundle, source: Source, now: float) -> BundleReport:
    """Audit all volumes that are here.

    Raises:
        TrustError: see `check_bundle_signature`.
    """
    signature, key = check_bundle_signature(bundle, source, now)
    problems = lost_volumes(bundle)
    here = [entry for entry in bundle.contents.entries if not bundle.lacking(entry)]
    # Files of all volumes are in each: they are read from every one of them.
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for found in pool.map(lambda entry: _check_entry(bundle, entry), here):
            problems += found
    packages = packages_of(bundle)
    return BundleReport(
        bundle.id,
        bundle.contents.since,
        {number: volume.path for number, volume in bundle.volumes.items()},
        bundle.header.volumes,
        len(packages),
        len(here),
        sum(entry.file.size for entry in here),
        signature,
        key,
        tuple(problems),
    )


def _check_entry(bundle: Bundle, entry: Entry) -> list[Problem]:
    everywhere = entry.pieces[0].volume == 0
    problems = []
    for volume in sorted(bundle.volumes) if everywhere else [0]:
        digest = hashlib.sha256()
        try:
            for data in bundle.chunks(entry, volume=volume):
                digest.update(data)
            if digest.hexdigest() == entry.file.sha256:
                continue
            what, message = "digest-mismatch", f"{entry.file.path} has sha256 {digest.hexdigest()}"
        except (OSError, CachefetchError) as error:
            what, message = "unreadable", f"{entry.file.path} cannot be read: {error}"
        number = volume or entry.pieces[0].volume
        place = bundle.volumes[number].path
        label = package_label(entry.file.path) or entry.file.path.rpartition("/")[2]
        problems.append(Problem("", label, what, f"{place}: {message}", (), place))
    return problems
