"""Compiler families: executable names, how to ask them for a version, how to read the answer. Pure.

Source: Spack 1.1 compiler recipes, docs/host.md. Two deliberate limits keep
the search quick and safe: a suffix must look like a version (`-12`, `-mp-13`), because some helpers with
other suffixes hang; of a family's C, C++ and Fortran programs with the same suffix in one directory only
the first is asked.
"""

from __future__ import annotations

import re

from ..model import Compiler

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

#: (argument, families that use these names, names in the order C, C++, Fortran)
_PROGRAMS: tuple[tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]], ...] = (
    # gcc before 7 knows only -dumpversion; it then ignores the first argument, and newer ones the second.
    (("-dumpfullversion", "-dumpversion"), ("gcc",), ("gcc", "g++", "gfortran")),
    (("--version",), ("apple-clang", "aocc", "llvm"), ("clang", "clang++", "flang")),
    (("--version",), ("intel-oneapi-compilers",), ("icx", "icpx", "ifx")),
    (("--version",), ("intel-oneapi-compilers-classic",), ("icc", "icpc", "ifort")),
    (("--version",), ("nvhpc",), ("nvc", "nvc++", "nvfortran")),
    (("--version",), ("acfl",), ("armclang", "armclang++", "armflang")),
    (("--version",), ("cce",), ("craycc", "crayCC", "crayftn")),
    (("-qversion",), ("xl",), ("xlc", "xlc_r", "xlc++", "xlC", "xlc++_r", "xlC_r", "xlf", "xlf_r")),
    (("--version",), ("fj",), ("fcc", "FCC", "frt")),
    ((), ("msvc",), ("cl",)),
    (("--version",), ("llvm-amdgpu",), ("amdclang", "amdclang++", "amdflang")),
    (("-V",), ("nag",), ("nagfor",)),
    (("-V",), ("pgi",), ("pgcc", "pgc++", "pgCC", "pgfortran")),
)
_PROGRAM_OF = {name: index for index, (_, _, names) in enumerate(_PROGRAMS) for name in names}

#: The version is all groups joined by a dot.
_VERSION = {
    "gcc": r"^\D*?(\d[\d.]*)",
    "apple-clang": r"^Apple (?:LLVM|clang) version ([^ )\n]+)",
    "aocc": r"AOCC_(\d+[._]\d+[._]\d+)",
    "llvm": r"clang version ([^ )\n-]+)",
    "intel-oneapi-compilers": r"(?:oneAPI DPC\+\+(?:/C\+\+)? Compiler|\(IFORT\)|\(IFX\)) ([^ )\n]+)",
    "intel-oneapi-compilers-classic": r"\((?:ICC|IFORT)\) ([^ )\n]+)",
    "nvhpc": r"\bnv\S* (?:\S+ Dev-r)?([0-9.]+)",
    "acfl": r"Arm C/C\+\+/Fortran Compiler version ([\d.]+) \(build number \d+\)",
    "cce": r"Cray (?:clang|C :|C\+\+ :|Fortran :)\s+[Vv]ersion\s+(\d+(?:\.\d+)+)",
    "xl": r"(\d?\d\.\d)",
    "fj": r"\((?:FCC|FRT)\) ([a-z0-9.]+)",
    "msvc": r"([1-9]\d*\.\d+\.\d+)",
    "llvm-amdgpu": r"roc-(\d+[._]\d+[._]\d+)",
    "nag": r"NAG Fortran Compiler Release (\d+)\.(\d+)\([^)]*\) Build (\d+)",
    "pgi": r"\bpg\S* ([0-9.]+)-[0-9]+ .* target on",
}
_REJECT = {"llvm": ("Apple", "AMD")}

#: `packages:all:providers` of Spack 1.1: families in the order of preference.
_PREFERENCE = {
    "linux": ("gcc", "llvm", "intel-oneapi-compilers"),
    "freebsd": ("gcc", "llvm", "intel-oneapi-compilers"),
    "darwin": ("apple-clang", "llvm", "gcc"),
    "windows": ("msvc",),
}

#: Names of Spack before 1.0 -> package names.
LEGACY_NAMES = {
    "clang": "llvm",
    "oneapi": "intel-oneapi-compilers",
    "dpcpp": "intel-oneapi-compilers",
    "intel": "intel-oneapi-compilers-classic",
    "rocmcc": "llvm-amdgpu",
    "arm": "acfl",
}


def compiler_names() -> tuple[str, ...]:
    """Return the package names of all compiler families."""
    return tuple(_VERSION)


def program(file_name: str) -> tuple[int, str] | None:
    """Return (number of the program group, suffix) if the file is named like a compiler, else None."""
    file_name = file_name.removesuffix(".exe")
    name, dash, suffix = file_name.partition("-")
    if name in _PROGRAM_OF:
        rest = suffix.removeprefix("mp-")
        return (_PROGRAM_OF[name], dash + suffix) if not dash or rest[:1].isdigit() else None
    if file_name[-2:].isdigit() and _PROGRAM_OF.get(file_name[:-2]) == 0:  # gcc12, of the BSDs
        return 0, file_name[-2:]
    return None


def preference(file_name: str) -> int:
    """Return the position among the names of the same group: C before C++ before Fortran."""
    name = file_name.removesuffix(".exe").partition("-")[0]
    return next((names.index(name) for _, _, names in _PROGRAMS if name in names), 99)


def arguments(group: int, platform: str) -> tuple[str, ...]:
    """Return the arguments that make a program of this group print its version.

    On macOS `gcc` may be clang, which -dumpversion does not show: ask for the long text there.
    """
    return ("--version",) if group == 0 and platform == "darwin" else _PROGRAMS[group][0]


def compiler_from_output(group: int, output: str, platform: str) -> Compiler | None:
    """Return the compiler that printed `output`, None when the text is of no family of this group."""
    for family in _PROGRAMS[group][1]:
        pattern = _VERSION[family]
        if family == "gcc" and platform == "darwin":
            if "clang version" in output:
                return None
            pattern = r"^[^\n]*\)\s+(\d[\d.]*)"
        if any(word in output for word in _REJECT.get(family, ())):
            continue
        if found := re.search(pattern, output):
            return Compiler(family, ".".join(found.groups()))
    return None


def version_key(version: str) -> tuple[tuple[int, str], ...]:
    """Return a sort key: numbers by value, letters after (`4.11.1a` above `4.11.1`)."""
    return tuple((int(digits or 0), letters) for digits, letters in re.findall(r"(\d+)|([A-Za-z]+)", version))


def by_preference(compilers: Iterable[Compiler], platform: str) -> tuple[Compiler, ...]:
    """Return the compilers without doubles: preferred family of the platform first, then newest version."""
    families = _PREFERENCE.get(platform, ("gcc", "llvm"))
    newest_first = sorted(set(compilers), key=lambda c: version_key(c.version), reverse=True)
    return tuple(
        sorted(
            newest_first,
            key=lambda c: (families.index(c.name) if c.name in families else len(families), c.name),
        )
    )
