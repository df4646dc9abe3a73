"""The C library that an OS label implies, for pages and old nodes that record none. Pure.

Not from Spack: distributions keep the glibc version for the life of a release (docs/host.md). Where the
label hides the service pack (`sles15`, `opensuse15`) the middle of the range is assumed.
"""

from __future__ import annotations

import re

from ..model import Libc

_RHEL_LIKE = {"8": "2.28", "9": "2.34", "10": "2.39"}
_GLIBC = {
    **{
        name + release: version
        for name in ("rhel", "centos", "rocky", "almalinux", "oracle")
        for release, version in _RHEL_LIKE.items()
    },
    "centos7": "2.17",
    "rhel7": "2.17",
    "amzn2": "2.26",
    "amzn2023": "2.34",
    "ubuntu18.04": "2.27",
    "ubuntu20.04": "2.31",
    "ubuntu22.04": "2.35",
    "ubuntu24.04": "2.39",
    "debian10": "2.28",
    "debian11": "2.31",
    "debian12": "2.36",
    "debian13": "2.41",
    "fedora38": "2.37",
    "fedora39": "2.38",
    "fedora40": "2.39",
    "sles15": "2.31",
    "opensuse15": "2.31",
}

#: Every Alpine release since 2021 has some 1.2; the label `alpine3` does not say more.
_MUSL = "1.2"


def inferred_libc(os_label: str) -> Libc | None:
    """Return the C library of a Linux OS label, marked `inferred` and without prefix, None when not known."""
    if re.fullmatch(r"alpine\d*", os_label):
        return Libc("musl", _MUSL, inferred=True)
    tumbleweed = re.fullmatch(r"opensusetumbleweed(2\.\d+)", os_label)
    version = tumbleweed.group(1) if tumbleweed else _GLIBC.get(os_label)
    return Libc("glibc", version, inferred=True) if version else None
