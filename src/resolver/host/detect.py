"""Find out what this machine is: the raw facts, described, with slow answers remembered. Edge.

Rules: Spack 1.1 host detection, docs/host.md. Nothing raises for an odd machine: what is not found out
falls back (an unknown CPU to its family), and `Host.sources` says so.
"""

from __future__ import annotations

import os
import time

from ...values import changed
from .. import targets
from ..model import Compiler, Host, Libc
from . import compiler_table, describe, facts
from .cache import HostCache, default_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .overrides import HostOverrides  # imported by who has some: 2 ms that other starts save

#: All compilers together may take this long; those not asked by then are asked next time.
COMPILERS_LIMIT_S = 10.0
#: A program that hung is asked again after this time, it may have been the file system.
_HUNG_KEEP_S = 3600.0


def detect(
    *, overrides: HostOverrides | None = None, compilers: bool = True, cache_dir: str | None = None
) -> Host:
    """Return the host: this machine, with the facts of `overrides` in place of detected ones.

    Args:
        overrides: facts given by the user. Once there is one, compilers are not looked for (key K7).
        compilers: False where they do not matter; no program of PATH is then run.
        cache_dir: where `host.json` is kept; None is the user's cache directory, "" keeps nothing.

    Raises:
        HostError: an override is not usable. Detection itself never raises.
    """
    cache = HostCache(default_directory() if cache_dir is None else cache_dir)
    host = _machine(cache)
    if overrides is not None and overrides.given():
        host = overrides.apply(host)
    elif compilers:
        found, source = _compilers(cache, host.platform)
        host = changed(host, compilers=found, sources={**host.sources, "compilers": source})
    cache.save()
    return host


def _machine(cache: HostCache) -> Host:
    """Return platform, os, target and C library of this machine."""
    platform = describe.platform_name(facts.system())
    target, target_source = _target(cache)
    libc, libc_source = _libc(cache) if platform == "linux" else (None, f"none on {platform}")
    os_label, os_source = _os(cache, platform, libc)
    return Host(
        platform=platform,
        os=os_label,
        target=target,
        libc=libc,
        sources={"platform": "kernel", "os": os_source, "target": target_source, "libc": libc_source},
    )


def _target(cache: HostCache) -> tuple[str, str]:
    key = f"target {targets.TABLE_VERSION}\n{facts.cpu_fingerprint(facts.cpu())}"
    known = cache.get(key)
    if known is not None and len(known) == 2:
        return known[0], known[1]
    family = describe.family_of_machine(facts.machine())
    answer = facts.archspec_target()
    if answer is None:
        return family, f"archspec failed: the family {family}"
    target, source = _in_our_table(answer)
    cache.put(key, (target, source))
    return target, source


def _in_our_table(answer: tuple[str, ...]) -> tuple[str, str]:
    """Return a target of our table and its source for archspec's (target, ancestors...).

    The installed archspec may be newer than the table: its nearest known ancestor runs the same binaries.
    """
    name = answer[0]
    known = next((target for target in answer if targets.is_known(target)), name)
    if known != name:
        return known, f"archspec: {name}, which is newer than the table; its ancestor {known}"
    if targets.family(name) == name:
        return name, f"archspec: no known microarchitecture fits this CPU; the family {name}"
    return name, "archspec"


def _os(cache: HostCache, platform: str, libc: Libc | None) -> tuple[str, str]:
    if platform == "darwin":
        return describe.macos_name(facts.macos_version()), "macOS version"
    if platform == "windows":
        return describe.windows_os(facts.kernel_release()), "Windows version"
    if platform == "freebsd":
        return describe.freebsd_os(facts.kernel_release()), "kernel release"
    label = linux_os_label(cache, libc.version if libc and libc.kind == "glibc" else "")
    return (label, "os-release") if label else ("unknown", "no os-release: give --os")


def linux_os_label(cache: HostCache, glibc: str, root: str = "/") -> str:
    """Return the OS label of the Linux system below `root`, "" when nothing there names it."""
    release = describe.parse_os_release(facts.os_release(root))
    if describe.os_release_is_enough(release):
        return describe.linux_os(release, glibc=glibc)
    return describe.linux_os(
        release,
        lsb=describe.parse_lsb_release(_lsb_release(cache, root)),
        release_file=facts.release_file(root),
        debian_version=facts.debian_version(root),
        glibc=glibc,
    )


def _lsb_release(cache: HostCache, root: str) -> str:
    """Return what ``lsb_release -a`` prints; asked only where os-release is not enough."""
    program = os.path.join(root, "usr/bin/lsb_release")
    mark = facts.stamp(program)
    # It prints what these files say, so it is asked again when they change.
    key = " ".join(
        [mark, *(facts.stamp(os.path.join(root, "etc", n)) for n in ("os-release", "lsb-release"))]
    )
    return _ask(cache, key, [program, "-a"]) if mark else ""


def _ask(cache: HostCache, key: str, argv: list[str], *, must_succeed: bool = True) -> str:
    """Return what a program prints, from the cache if `key` is known; "" if it failed or hung."""
    known = cache.get(key)
    if known is not None:
        return known[0] if known else ""
    answer = facts.run(argv)
    if answer is None:
        cache.put(key, (), keep_s=_HUNG_KEEP_S)
        return ""
    text = "" if must_succeed and answer[0] != 0 else answer[1]
    cache.put(key, (text,))
    return text


def _libc(cache: HostCache) -> tuple[Libc | None, str]:
    own = facts.elf_interpreter()
    loader = choose_loader(own, describe.conventional_loaders(describe.family_of_machine(facts.machine())))
    if not loader:
        return None, "no loader found: give --libc"
    prefix = describe.libc_prefix(os.path.realpath(loader))
    said = describe.parse_confstr(facts.confstr_libc()) if loader == own else None
    if said:
        return Libc(*said, prefix=prefix), f"this Python's C library; prefix from {loader}"
    # musl prints its version to an exit code of 1, so only the text counts.
    said = describe.parse_loader(
        _ask(cache, f"libc {facts.stamp(loader)}", [loader, "--version"], must_succeed=False)
    )
    if said:
        return Libc(*said, prefix=prefix), f"{loader} --version"
    for ldd in _ldd_paths(prefix):
        if found := describe.parse_ldd(_ask(cache, f"libc {facts.stamp(ldd)}", [ldd, "--version"])):
            return Libc(*found, prefix=prefix), f"{ldd} --version"
    return None, f"{loader} does not tell its version: give --libc"


def _ldd_paths(prefix: str | None) -> list[str]:
    prefixes = ["/", "/usr"] if prefix == "/" else [prefix or "/usr"]
    paths = [os.path.join(place, "bin", "ldd") for place in prefixes]
    return [path for path in paths if os.path.exists(path)]


def choose_loader(own: str, conventional: tuple[str, ...], *, root: str = "/") -> str:
    """Return the loader of this system's C library, "" when there is none.

    `own`, that of the running Python, if it stands at a conventional place or if no conventional one is
    there; a Python from a relocated tree may have a C library that other programs do not use.
    """
    if own in conventional:
        return own
    for path in (*conventional, own):
        if path and os.path.exists(os.path.join(root, path.lstrip("/"))):
            return path
    return ""


def _compilers(cache: HostCache, platform: str) -> tuple[tuple[Compiler, ...], str]:
    found, skipped = [], 0
    end = time.monotonic() + COMPILERS_LIMIT_S
    for group, path, mark in facts.compiler_programs(os.environ.get("PATH", "")):
        key = f"compiler {platform} {mark}"
        known = cache.get(key)
        if known is None:
            if time.monotonic() > end:
                skipped += 1
                continue
            known = _ask_compiler(cache, key, group, path, platform)
        if len(known) == 2:
            found.append(Compiler(*known))
    source = "PATH" + (f"; {skipped} not asked, the others took too long" if skipped else "")
    return compiler_table.by_preference(found, platform), source


def _ask_compiler(cache: HostCache, key: str, group: int, path: str, platform: str) -> tuple[str, ...]:
    """Run one executable; return and remember (name, version), () when it is no known compiler."""
    answer = facts.run([path, *compiler_table.arguments(group, platform)])
    if answer is None:
        cache.put(key, (), keep_s=_HUNG_KEEP_S)
        return ()
    compiler = compiler_table.compiler_from_output(group, answer[1], platform) if answer[0] == 0 else None
    known = (compiler.name, compiler.version) if compiler else ()
    cache.put(key, known)
    return known


def missing_for_next(host_target: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return (target, missing CPU features) for the targets just above the host's, fewest missing first.

    For the command `host` only. Empty where features do not decide (macOS, POWER, RISC-V), and on a CPU of a
    family other than that of `host_target`. Targets of other vendors are left out.
    """
    entries = facts.cpu()
    listed = set((entries.get("flags") or entries.get("Features") or "").split())
    if "ssse3" in listed:
        listed.add("sse3")  # Linux calls it pni
    family = describe.family_of_machine(facts.machine())
    if not listed or family not in ("x86_64", "aarch64") or targets.family(host_target) != family:
        return ()
    vendors = {_vendor(entries, family, host_target)} | ({"generic"} if family == "x86_64" else set())
    children = (
        t for t in targets.names() if host_target in targets.parents(t) and targets.vendor(t) in vendors
    )
    missing = ((t, tuple(sorted(targets.features(t) - listed))) for t in children)
    return tuple(sorted((row for row in missing if row[1]), key=lambda row: (len(row[1]), row[0])))


def _vendor(entries: dict[str, str], family: str, host_target: str) -> str:
    """Return the CPU's vendor in archspec's words; on Arm, where cpuinfo has codes, the host target's."""
    return entries.get("vendor_id", "") if family == "x86_64" else targets.vendor(host_target)
