"""Raw facts -> names of platform, operating system and C library."""

from __future__ import annotations

import pytest

from cachefetch.resolver.host import describe
from cachefetch.resolver.host.libc_table import inferred_libc
from cachefetch.resolver.model import Libc


@pytest.mark.parametrize(
    ("system", "platform"),
    [
        ("Linux", "linux"),
        ("linux", "linux"),
        ("Darwin", "darwin"),
        ("win32", "windows"),
        ("Windows", "windows"),
        ("cygwin", "windows"),
        ("CYGWIN_NT-10.0", "windows"),
        ("freebsd14", "freebsd"),
        ("FreeBSD", "freebsd"),
        ("sunos5", "sunos5"),
    ],
)
def test_platform(system: str, platform: str) -> None:
    assert describe.platform_name(system) == platform


@pytest.mark.parametrize(
    ("machine", "family"),
    [
        ("x86_64", "x86_64"),
        ("AMD64", "x86_64"),
        ("arm64", "aarch64"),
        ("ARM64", "aarch64"),
        ("ppc64le", "ppc64le"),
    ],
)
def test_family_of_machine(machine: str, family: str) -> None:
    assert describe.family_of_machine(machine) == family


# Every row was checked with real Spack (docs/semantics.md): ID, VERSION_ID, label.
OS_LABELS = [
    ("ubuntu", "22.04", "ubuntu22.04"),
    ("ubuntu", "24.04", "ubuntu24.04"),
    ("debian", "12", "debian12"),
    ("rhel", "8.6", "rhel8"),
    ("centos", "7", "centos7"),
    ("rocky", "9.3", "rocky9"),
    ("almalinux", "8.9", "almalinux8"),
    ("fedora", "39", "fedora39"),
    ("linuxmint", "21.2", "linuxmint21"),
    ("pop", "22.04", "pop22"),
    ("neon", "22.04", "neon22"),
    ("raspbian", "11", "raspbian11"),
    ("scientific", "7.9", "scientific7"),
    ("openEuler", "22.03", "openeuler22"),
    ("sle-micro", "5.5", "sle_micro5"),
    ("ubuntu-core", "22", "ubuntu_core22"),
    ("ol", "8.9", "oracle8"),
    ("amzn", "2", "amzn2"),
    ("amzn", "2023", "amzn2023"),
    ("sles", "15.5", "sles15"),
    ("opensuse-leap", "15.5", "opensuse15"),
    ("alpine", "3.19.1", "alpine3"),
    ("arch", "", "arch"),
    ("manjaro", "", "manjaro"),
    ("void", "", "void"),
    ("cachyos", "", "cachyos"),
    ("gentoo", "2.14", "gentoo2"),
    ("nixos", "23.11", "nixos23"),
    ("kali", "2023.4", "kali2023"),
    ("azurelinux", "3.0", "azurelinux3"),
    ("mariner", "2.0", "mariner2"),
    ("photon", "4.0", "photon4"),
    ("opensuse-microos", "20240101", "opensuse_microos20240101"),
    ("steamos", "3.5.7", "steamos3"),
    ("flatcar", "3510.2.0", "flatcar3510"),
]


@pytest.mark.parametrize(("name", "version", "label"), OS_LABELS)
@pytest.mark.parametrize("quote", ["", '"', "'"])
def test_linux_label(name: str, version: str, label: str, quote: str) -> None:
    lines = [f"ID={quote}{name}{quote}"] + ([f"VERSION_ID={quote}{version}{quote}"] if version else [])
    assert describe.linux_os(describe.parse_os_release("\n".join(lines))) == label


@pytest.mark.parametrize("name", ["opensuse-tumbleweed", "opensusetumbleweed"])
def test_tumbleweed_is_named_by_its_glibc(name: str) -> None:
    release = {"id": name, "version_id": "20240101"}
    assert describe.linux_os(release, glibc="2.38") == "opensusetumbleweed2.38"
    assert describe.linux_os(release) == "opensusetumbleweed20240101"


def test_debian_testing_takes_the_code_name() -> None:
    release = describe.parse_os_release('PRETTY_NAME="Debian GNU/Linux trixie/sid"\nID=debian\n')
    assert describe.linux_os(release, debian_version="trixie/sid\n") == "debiantrixie"
    assert describe.linux_os(release) == "debian"
    assert describe.linux_os({"id": "arch"}, debian_version="trixie/sid\n") == "arch"
    derived = {"id": "deepin", "id_like": "ubuntu debian"}
    assert describe.linux_os(derived, debian_version="11.2\n") == "deepin11"


@pytest.mark.parametrize(
    ("distributor", "release", "label"),
    [
        ("RedHatEnterpriseServer", "6.9", "rhel6"),
        ("RedHatEnterpriseWorkstation", "7.9", "rhel7"),
        ("RedHatEnterpriseComputeNode", "7.9", "rhel7"),
        ("EnterpriseEnterpriseServer", "5.2", "oracle5"),
        ("Ubuntu", "12.04", "ubuntu12.04"),
        ("Scientific Fermi", "6.9", "scientific_fermi6"),
        ("Arch", "rolling", "archrolling"),
    ],
)
def test_lsb_release_fills_what_os_release_lacks(distributor: str, release: str, label: str) -> None:
    text = (
        f"No LSB modules are available.\nDistributor ID:\t{distributor}\nRelease:\t{release}\nCodename:\tx\n"
    )
    assert describe.linux_os({}, lsb=describe.parse_lsb_release(text)) == label


@pytest.mark.parametrize(
    ("name", "line", "label"),
    [
        ("centos", "CentOS release 6.10 (Final)", "centos6"),
        ("redhat", "Red Hat Enterprise Linux Server release 6.9 (Santiago)", "rhel6"),
        ("gentoo", "Gentoo Base System release 2.14", "gentoo2"),
        ("arch", "Arch Linux", "arch"),
        ("", "", ""),
    ],
)
def test_release_file_is_the_last_source(name: str, line: str, label: str) -> None:
    assert describe.linux_os({}, release_file=(name, line)) == label


def test_version_from_the_pretty_name() -> None:
    release = describe.parse_os_release('ID=ubuntu\nPRETTY_NAME="Ubuntu 20.04.6 LTS"\n')
    assert describe.linux_os(release) == "ubuntu20.04"


def test_broken_os_release_lines_are_skipped() -> None:
    text = '# comment\n\nnonsense\n=value\nid="debian\nVERSION_ID="1\\"2"\nNAME=\'it is\' rest\nX=a\\ b\n'
    values = describe.parse_os_release(text)
    assert values == {"id": "debian", "version_id": '1"2', "name": "it is", "x": "a b"}
    assert not describe.os_release_is_enough({"id": "arch"})
    assert describe.os_release_is_enough(values)


MACOS = {
    "10.0": "cheetah",
    "10.1": "puma",
    "10.2": "jaguar",
    "10.3.9": "panther",
    "10.4": "tiger",
    "10.5": "leopard",
    "10.6": "snowleopard",
    "10.7": "lion",
    "10.8": "mountainlion",
    "10.9": "mavericks",
    "10.10": "yosemite",
    "10.11": "elcapitan",
    "10.12": "sierra",
    "10.13": "highsierra",
    "10.14": "mojave",
    "10.15.7": "catalina",
    "10.16": "bigsur",
    "11.7.10": "bigsur",
    "12.0": "monterey",
    "13": "ventura",
    "14.5": "sonoma",
    "15.1": "sequoia",
    "26.0": "tahoe",
    "99.1": "macos",
    "": "macos",
}


@pytest.mark.parametrize(("version", "name"), MACOS.items())
def test_macos(version: str, name: str) -> None:
    assert describe.macos_name(version) == name


def test_windows_and_freebsd() -> None:
    assert describe.windows_os("10.0.19045") == "windows10.0.19045"
    assert describe.freebsd_os("14.0-RELEASE-p3") == "freebsd14.0"


@pytest.mark.parametrize(
    ("loader", "prefix"),
    [
        ("/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2", "/usr"),
        ("/lib/x86_64-linux-gnu/ld-2.31.so", "/"),
        ("/usr/lib64/ld-linux-x86-64.so.2", "/usr"),
        ("/lib64/ld-2.17.so", "/"),
        ("/lib/ld-musl-x86_64.so.1", "/"),
        ("/usr/lib/ld-linux-aarch64.so.1", "/usr"),
        ("/opt/glibc/lib/ld-linux-x86-64.so.2", "/opt/glibc"),
        ("/nix/store/abc-glibc-2.38/lib/ld-linux-x86-64.so.2", "/nix/store/abc-glibc-2.38"),
        ("/opt/strange/place/ld.so", None),
        ("/ld.so", None),
    ],
)
def test_prefix_of_the_c_library(loader: str, prefix: str | None) -> None:
    assert describe.libc_prefix(loader) == prefix


GLIBC_LOADER = """ld.so (Debian GLIBC 2.36-9+deb12u10) stable release version 2.36.
Copyright (C) 2022 Free Software Foundation, Inc.
This is free software; see the source for copying conditions.
"""
GLIBC_LDD = """ldd (Ubuntu GLIBC 2.35-0ubuntu3.8) 2.35
Copyright (C) 2022 Free Software Foundation, Inc.
Written by Roland McGrath and Ulrich Drepper.
"""
GLIBC_LDD_GERMAN = """ldd (GNU libc) 2.17
Copyright (C) 2012 Free Software Foundation, Inc.
Dies ist freie Software. Geschrieben von Roland McGrath und Ulrich Drepper.
"""
MUSL = "musl libc (x86_64)\nVersion 1.2.4_git20230717\nDynamic Program Loader\nUsage: ld [options] [--] pathname\n"


@pytest.mark.parametrize(
    ("output", "libc"),
    [
        (GLIBC_LOADER, ("glibc", "2.36")),
        (GLIBC_LOADER.replace("version 2.36.", "version 2.36.1."), ("glibc", "2.36.1")),
        (MUSL, ("musl", "1.2.4_git20230717")),
        ("musl libc (aarch64)\nVersion 1.1.24\n", ("musl", "1.1.24")),
        ("musl libc (aarch64)\n", None),
        ("--version: error while loading shared libraries: cannot open shared object file\n", None),
        ("some loader version 3.0\n", None),
        ("", None),
    ],
)
def test_what_loaders_print(output: str, libc: tuple[str, str] | None) -> None:
    assert describe.parse_loader(output) == libc


@pytest.mark.parametrize(
    ("output", "libc"),
    [
        (GLIBC_LDD, ("glibc", "2.35")),
        (GLIBC_LDD_GERMAN, ("glibc", "2.17")),
        (MUSL, ("musl", "1.2.4_git20230717")),
        ("ldd (strange) 2.35\n", None),
        ("", None),
    ],
)
def test_what_ldd_prints(output: str, libc: tuple[str, str] | None) -> None:
    assert describe.parse_ldd(output) == libc


@pytest.mark.parametrize(
    ("text", "libc"),
    [("glibc 2.36", ("glibc", "2.36")), ("", None), ("glibc", None), ("glibc x", None), ("NPTL 2.36", None)],
)
def test_confstr(text: str, libc: tuple[str, str] | None) -> None:
    assert describe.parse_confstr(text) == libc


INFERRED = {
    "centos7": "2.17",
    "rhel7": "2.17",
    "rhel8": "2.28",
    "centos8": "2.28",
    "rocky8": "2.28",
    "almalinux8": "2.28",
    "oracle8": "2.28",
    "rhel9": "2.34",
    "rocky9": "2.34",
    "oracle10": "2.39",
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
    "opensusetumbleweed2.38": "2.38",
}


@pytest.mark.parametrize(("label", "version"), INFERRED.items())
def test_c_library_implied_by_a_label(label: str, version: str) -> None:
    assert inferred_libc(label) == Libc("glibc", version, prefix=None, inferred=True)


@pytest.mark.parametrize("label", ["sequoia", "gentoo2", "ubuntu", "rhel", "debian", "", "windows10.0.19045"])
def test_a_label_that_implies_nothing(label: str) -> None:
    assert inferred_libc(label) is None


def test_alpine_has_musl() -> None:
    libc = inferred_libc("alpine3")
    assert libc is not None
    assert (libc.kind, libc.inferred) == ("musl", True)
