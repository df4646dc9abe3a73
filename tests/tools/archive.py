"""Package tarballs written for one test: good ones, and ones that Spack would never write."""

from __future__ import annotations

import gzip
import io
import tarfile

PREFIX = "opt/store/linux-x86_64/demo-1.0-abc"
BUILDINFO = (
    b"{sbang_install_path: /opt/store/bin/sbang, buildpath: /opt/store, relative_prefix: linux-x86_64/demo-1.0-abc,"
    b" hash_to_prefix: {abc: /opt/store/linux-x86_64/demo-1.0-abc}, relocate_textfiles: [bin/tool]}\n"
)
Entry = tuple[tarfile.TarInfo, bytes]


def entry(
    name: str, data: bytes = b"", *, kind: bytes = tarfile.REGTYPE, mode: int = 0o644, link: str = ""
) -> Entry:
    """Return one member; names below the prefix start with ``./``."""
    member = tarfile.TarInfo(name.replace("./", PREFIX + "/", 1) if name.startswith("./") else name)
    member.type, member.mode, member.size = kind, mode, len(data)
    member.linkname = link.replace("./", PREFIX + "/", 1) if kind == tarfile.LNKTYPE else link
    return member, data


def directory(name: str, mode: int = 0o755) -> Entry:
    """Return a directory."""
    return entry(name, kind=tarfile.DIRTYPE, mode=mode)


def symlink(name: str, target: str) -> Entry:
    """Return a symlink."""
    return entry(name, kind=tarfile.SYMTYPE, mode=0o777, link=target)


def hard_link(name: str, target: str) -> Entry:
    """Return a hard link."""
    return entry(name, kind=tarfile.LNKTYPE, link=target)


def parents() -> list[Entry]:
    """Return the directories down to the prefix, as Spack lists them."""
    parts = PREFIX.split("/")
    return [directory("/".join(parts[:end])) for end in range(1, len(parts) + 1)]


def package(*entries: Entry, last: tuple[Entry, ...] | None = None) -> bytes:
    """Return an uncompressed package with `entries` between its directories and its metadata."""
    end = [directory("./.spack"), entry("./.spack/binary_distribution", BUILDINFO)] if last is None else last
    return archive([*parents(), *entries, *end])


def archive(entries: list[Entry], form: int = tarfile.PAX_FORMAT) -> bytes:
    """Return a tar of exactly these entries."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for member, data in entries:
            tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


def stored(data: bytes) -> bytes:
    """Return gzip as Spack writes it."""
    return gzip.compress(data, 6, mtime=0)


def good() -> bytes:
    """Return a package with one of everything that is allowed."""
    return package(
        directory("./bin"),
        entry("./bin/tool", b"#!/opt/store/linux-x86_64/demo-1.0-abc/bin/sh\n", mode=0o755),
        hard_link("./bin/same", "./bin/tool"),
        symlink("./bin/absolute", "/opt/store/linux-x86_64/other-2.0-def/bin/x"),
        symlink("./bin/inside", "../lib/data"),
        symlink("./bin/loop", "loop"),
        directory("./lib"),
        entry("./lib/data", b"\0" * 3000),
        entry("./lib/empty"),
        entry("./lib/" + "n" * 240, b"long"),
        entry("./lib/Ünïcode ⊕\n", b"odd"),
        entry("./lib/Case", b"1"),
        entry("./lib/case", b"2"),
        directory("./closed", mode=0o500),
    )
