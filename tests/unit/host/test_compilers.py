"""Which files are compilers, what they print, and which one is the host compiler."""

from __future__ import annotations

import pytest

from cachefetch.resolver.host import compiler_table as table
from cachefetch.resolver.model import Compiler

APPLE = "Apple clang version 15.0.0 (clang-1500.3.9.4)\nTarget: arm64-apple-darwin23.4.0\n"
OUTPUTS = [
    ("gcc", "12.2.0\n", "gcc@12.2.0"),
    ("gcc-13", "13\n", "gcc@13"),
    ("g++", "4.8.5\n", "gcc@4.8.5"),
    ("clang", "clang version 18.1.8 (https://example.org/llvm 3b5b5c1)\nTarget: x86_64\n", "llvm@18.1.8"),
    ("clang-14", "Ubuntu clang version 14.0.0-1ubuntu1.1\nTarget: x86_64\n", "llvm@14.0.0"),
    ("clang", "Debian clang version 19.1.7 (3+b1)\n", "llvm@19.1.7"),
    ("clang", APPLE, "apple-clang@15.0.0"),
    ("clang", "Apple LLVM version 10.0.1 (clang-1001.0.46.4)\n", "apple-clang@10.0.1"),
    ("clang", "AMD clang version 16.0.3 (CLANG: AOCC_4.1.0-Build#270 2023_07_10)\n", "aocc@4.1.0"),
    ("clang", "AMD clang version 17.0.0 (https://example.org roc-6.0.2 24012)\n", None),
    ("amdclang", "AMD clang version 17.0.0 (https://example.org roc-6.0.2 24012)\n", "llvm-amdgpu@6.0.2"),
    (
        "icx",
        "Intel(R) oneAPI DPC++/C++ Compiler 2024.0.0 (2024.0.0.20231017)\n",
        "intel-oneapi-compilers@2024.0.0",
    ),
    (
        "icpx",
        "Intel(R) oneAPI DPC++ Compiler 2021.2.0 (2021.2.0.20210317)\n",
        "intel-oneapi-compilers@2021.2.0",
    ),
    ("ifx", "ifx (IFX) 2024.0.0 20231017\n", "intel-oneapi-compilers@2024.0.0"),
    ("icc", "icc (ICC) 2021.6.0 20220226\nCopyright\n", "intel-oneapi-compilers-classic@2021.6.0"),
    ("ifort", "ifort (IFORT) 2021.6.0 20220226\n", "intel-oneapi-compilers-classic@2021.6.0"),
    ("nvc", "\nnvc 23.11-0 64-bit target on x86-64 Linux -tp zen3\nNVIDIA Compilers\n", "nvhpc@23.11"),
    ("nvfortran", "\nnvfortran 24.3-0 linuxarm64 target on aarch64 Linux\n", "nvhpc@24.3"),
    (
        "armclang",
        "Arm C/C++/Fortran Compiler version 23.10 (build number 7) (based on LLVM 17)\n",
        "acfl@23.10",
    ),
    ("craycc", "Cray clang version 15.0.1  (d4a1b2)\nTarget: x86_64\n", "cce@15.0.1"),
    ("crayftn", "Cray Fortran : Version 15.0.1 Tue Nov 21, 2023\n", "cce@15.0.1"),
    ("craycc", "Cray C : Version 8.7.10  Mon Jan 1\n", "cce@8.7.10"),
    ("xlc", "IBM XL C/C++ for Linux, V16.1.1 (5725-C73, 5765-J13)\nVersion: 16.01.0001.0007\n", "xl@16.1"),
    ("fcc", "fcc (FCC) 4.11.1 20230317\nsimulating gcc version 6.1\n", "fj@4.11.1"),
    ("frt", "frt (FRT) 4.5.0a 20210101\n", "fj@4.5.0a"),
    ("cl.exe", "Microsoft (R) C/C++ Optimizing Compiler Version 19.29.30133 for x64\n", "msvc@19.29.30133"),
    ("nagfor", "NAG Fortran Compiler Release 7.1(Hanzomon) Build 7103\n", "nag@7.1.7103"),
    ("pgcc", "\npgcc 19.10-0 LLVM 64-bit target on x86-64 Linux -tp haswell\n", "pgi@19.10"),
    ("clang", "something else\n", None),
    ("nvc", "", None),
]


@pytest.mark.parametrize(("file_name", "output", "compiler"), OUTPUTS)
def test_what_compilers_print(file_name: str, output: str, compiler: str | None) -> None:
    found = table.program(file_name)
    assert found is not None
    read = table.compiler_from_output(found[0], output, "linux")
    assert (str(read) if read else None) == compiler


def test_every_family_has_a_sample() -> None:
    assert {text.partition("@")[0] for _, _, text in OUTPUTS if text} == set(table.compiler_names())


@pytest.mark.parametrize(
    "name",
    [
        "gcc-ar",
        "gcc-nm-12",
        "clang-tidy",
        "clang-tidy-14",
        "clang-format-14",
        "clang-cpp-14",
        "clang-cl",
        "clang-scan-deps",
        "icx-cl",
        "lldb-server",
        "x86_64-linux-gnu-gcc",
        "gccgo",
        "cc",
        "clang14",
        "",
        "-",
        "-12",
    ],
)
def test_not_asked(name: str) -> None:
    assert table.program(name) is None


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("gcc", ""),
        ("gcc-12", "-12"),
        ("gcc-mp-13", "-mp-13"),
        ("gfortran-4.8", "-4.8"),
        ("gcc12", "12"),
        ("g++.exe", ""),
    ],
)
def test_names_of_gcc(name: str, suffix: str) -> None:
    assert table.program(name) == (0, suffix)


def test_gcc_on_macos_may_be_clang() -> None:
    assert table.arguments(0, "darwin") == ("--version",)
    assert table.arguments(0, "linux") == ("-dumpfullversion", "-dumpversion")
    assert table.compiler_from_output(0, APPLE, "darwin") is None
    real = "gcc-13 (Homebrew GCC 13.2.0) 13.2.0\nCopyright (C) 2023 Free Software Foundation, Inc.\n"
    assert table.compiler_from_output(0, real, "darwin") == Compiler("gcc", "13.2.0")


def names(compilers: tuple[Compiler, ...]) -> list[str]:
    return [str(compiler) for compiler in compilers]


def test_preference_is_the_platforms_then_the_newest() -> None:
    found = [
        Compiler("nvhpc", "24.3"),
        Compiler("llvm", "18.1.8"),
        Compiler("gcc", "9.5.0"),
        Compiler("gcc", "13.2.0"),
        Compiler("apple-clang", "15.0.0"),
        Compiler("gcc", "13.2.0"),
        Compiler("aocc", "4.1.0"),
    ]
    linux = ["gcc@13.2.0", "gcc@9.5.0", "llvm@18.1.8", "aocc@4.1.0", "apple-clang@15.0.0", "nvhpc@24.3"]
    assert names(table.by_preference(found, "linux")) == linux
    assert names(table.by_preference(reversed(found), "linux")) == linux
    assert names(table.by_preference(found, "darwin"))[:4] == [
        "apple-clang@15.0.0",
        "llvm@18.1.8",
        "gcc@13.2.0",
        "gcc@9.5.0",
    ]


def test_versions_are_numbers_not_text() -> None:
    versions = ["4.11.1a", "4.9", "10", "4.11.1", "4.11"]
    assert sorted(versions, key=table.version_key) == ["4.9", "4.11", "4.11.1", "4.11.1a", "10"]
