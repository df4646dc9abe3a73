"""Raw facts about a machine -> Spack's names for platform, operating system and C library. Pure.

Rules: Spack 1.1 `platforms`, `operating_systems` and `util/libc`, docs/host.md.
"""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

#: Loaders by machine: where each C library's loader stands by convention (glibc, musl).
_LOADERS = {
    "x86_64": ("/lib64/ld-linux-x86-64.so.2", "/lib/ld-musl-x86_64.so.1"),
    "aarch64": ("/lib/ld-linux-aarch64.so.1", "/lib/ld-musl-aarch64.so.1"),
    "ppc64le": ("/lib64/ld64.so.2", "/lib/ld-musl-powerpc64le.so.1"),
    "riscv64": ("/lib/ld-linux-riscv64-lp64d.so.1", "/lib/ld-musl-riscv64.so.1"),
}

_MACOS = {
    "10.0": "cheetah",
    "10.1": "puma",
    "10.2": "jaguar",
    "10.3": "panther",
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
    "10.15": "catalina",
    "10.16": "bigsur",
    "11": "bigsur",
    "12": "monterey",
    "13": "ventura",
    "14": "sonoma",
    "15": "sequoia",
    "26": "tahoe",
}

_OS_RELEASE_IDS = {"ol": "oracle", "opensuse-leap": "opensuse"}
_LSB_IDS = {
    "enterpriseenterpriseas": "oracle",
    "enterpriseenterpriseserver": "oracle",
    "redhatenterpriseworkstation": "rhel",
    "redhatenterpriseserver": "rhel",
    "redhatenterprisecomputenode": "rhel",
}
_RELEASE_FILE_IDS = {"redhat": "rhel"}

#: Names of glibc's authors: they survive in messages that are translated.
_GLIBC_AUTHORS = r"Free Software Foundation|Roland McGrath"


def platform_name(system: str) -> str:
    """Return Spack's platform for Python's system name (`Linux`, `darwin`, `win32`, `freebsd14`).

    A system that Spack does not know keeps its name in lower case.
    """
    system = system.lower()
    if "darwin" in system:
        return "darwin"
    if "linux" in system:
        return "linux"
    if "cygwin" in system or "win32" in system or "windows" in system:
        return "windows"
    return "freebsd" if system.rstrip("0123456789") == "freebsd" else system


def family_of_machine(machine: str) -> str:
    """Return archspec's family name for what uname or Windows call the machine."""
    machine = machine.lower()
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine)


def parse_os_release(text: str) -> dict[str, str]:
    """Return the variables of an os-release file, keys in lower case. Lines that are broken are skipped."""
    found = {}
    for line in text.splitlines():
        key, equals, value = line.strip().partition("=")
        if equals and key and not key.startswith("#"):
            found[key.strip().lower()] = _unquoted(value.strip())
    return found


def _unquoted(value: str) -> str:
    """Undo shell quoting of one word: '...' is literal, "..." and bare text have backslash escapes."""
    quote = value[:1]
    if quote == "'":
        return value[1:].partition("'")[0]
    if quote == '"':
        closed = re.match(r'"((?:\\.|[^"\\])*)', value)
        value = closed.group(1) if closed else value[1:]
        return re.sub(r'\\(["\\$`])', r"\1", value)
    return re.sub(r"\\(.)", r"\1", value)


def parse_lsb_release(text: str) -> dict[str, str]:
    """Return the fields of ``lsb_release -a``, keys in lower case with underscores (`distributor_id`)."""
    fields = (line.partition(":") for line in text.splitlines() if ":" in line)
    return {key.strip().lower().replace(" ", "_"): value.strip() for key, _, value in fields}


def os_release_is_enough(release: Mapping[str, str]) -> bool:
    """Return whether os-release alone names the system, so that no other source has to be asked."""
    return bool(release.get("id") and release.get("version_id"))


def linux_os(
    release: Mapping[str, str],
    *,
    lsb: Mapping[str, str] | None = None,
    release_file: tuple[str, str] = ("", ""),
    debian_version: str = "",
    glibc: str = "",
) -> str:
    """Return the OS label (`debian12`, `ubuntu22.04`, `rhel8`), "" when no source names the system.

    Args:
        release: variables of os-release, keys in lower case.
        lsb: fields of ``lsb_release -a``, if it was asked.
        release_file: name part and first line of a file such as /etc/centos-release.
        debian_version: text of /etc/debian_version.
        glibc: version of the C library; the label of openSUSE Tumbleweed has it.
    """
    lsb = lsb or {}
    name = _distribution(release, lsb, release_file[0])
    version = _distribution_version(release, lsb, release_file[1], debian_version)
    if name in ("opensuse-tumbleweed", "opensusetumbleweed"):
        return "opensusetumbleweed" + (glibc or _first_parts(version, 1))
    # Only names with "ubuntu" keep the second part: pop 22.04 is pop22 (Spack 1.1).
    return (name + _first_parts(version, 2 if "ubuntu" in name else 1)).replace("-", "_")


def _distribution(release: Mapping[str, str], lsb: Mapping[str, str], file_name: str) -> str:
    sources = (
        (release.get("id", ""), _OS_RELEASE_IDS),
        (lsb.get("distributor_id", ""), _LSB_IDS),
        (file_name, _RELEASE_FILE_IDS),
    )
    for value, names in sources:
        if value:
            name = value.lower().replace(" ", "_")
            return names.get(name, name)
    return ""


def _distribution_version(
    release: Mapping[str, str], lsb: Mapping[str, str], file_line: str, debian_version: str
) -> str:
    is_debian = release.get("id", "").lower() == "debian" or "debian" in release.get("id_like", "").split()
    return (
        release.get("version_id", "")
        or lsb.get("release", "")
        or _version_in(file_line)
        or _version_in(release.get("pretty_name", ""))
        or _version_in(lsb.get("description", ""))
        or (debian_version.strip() if is_debian else "")
    )


def _version_in(line: str) -> str:
    """Return the version in a line such as ``CentOS release 6.10 (Final)``, "" when it has none."""
    found = re.search(r"\s(\d[\w.+-]*)(?:\s+LTS)?(?:\s*\([^)]*\))?\s*$", line)
    return found.group(1) if found else ""


def _first_parts(version: str, count: int) -> str:
    return ".".join(re.split(r"[^\w-]", version)[:count])


def macos_name(version: str) -> str:
    """Return Spack's name of a macOS version (`14.5` -> `sonoma`), `macos` for one that it does not know."""
    parts = version.strip().split(".")
    first = parts[0]
    key = first if first.isdigit() and int(first) >= 11 else ".".join(parts[:2])
    return _MACOS.get(key, "macos")


def macos_names() -> tuple[str, ...]:
    """Return the names of all macOS releases, oldest first."""
    return tuple(dict.fromkeys(_MACOS.values()))


def windows_os(version: str) -> str:
    """Return `windows` and the full version: ``windows10.0.19045``."""
    return f"windows{version}"


def freebsd_os(release: str) -> str:
    """Return `freebsd` and the release up to the first dash: ``14.0-RELEASE`` -> ``freebsd14.0``."""
    return "freebsd" + release.partition("-")[0]


def conventional_loaders(machine: str) -> tuple[str, ...]:
    """Return the loader paths that are usual on this machine, glibc's before musl's; () when unknown."""
    return _LOADERS.get(machine, ())


def libc_prefix(loader: str) -> str | None:
    """Return the prefix of a C library from its loader's real path, None where it has no usual place.

    ``/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2`` -> ``/usr``, ``/lib/ld-musl-x86_64.so.1`` -> ``/``.
    """
    parts = loader.split("/")[:-1]
    if parts and parts[-1] not in ("lib", "lib64"):
        parts.pop()  # a multiarch directory
    if not parts or parts.pop() not in ("lib", "lib64"):
        return None
    return "/".join(parts) or "/"


def parse_confstr(text: str) -> tuple[str, str] | None:
    """Return (kind, version) of what confstr calls CS_GNU_LIBC_VERSION: ``glibc 2.36``."""
    kind, _, version = text.strip().partition(" ")
    return (kind, version) if kind == "glibc" and re.fullmatch(r"\d+(\.\d+)+", version) else None


def parse_loader(output: str) -> tuple[str, str] | None:
    """Return (kind, version) from what ``LOADER --version`` prints, None when it is no known C library."""
    if output.lstrip().startswith("musl libc"):
        found = re.search(r"^Version (\S+)", output, re.MULTILINE)
        return ("musl", found.group(1)) if found else None
    if not re.search(_GLIBC_AUTHORS, output):
        return None
    found = re.search(r"version (\d+\.\d+(?:\.\d+)?)", output)
    return ("glibc", found.group(1)) if found else None


def parse_ldd(output: str) -> tuple[str, str] | None:
    """Return (kind, version) from what ``ldd --version`` prints: ``ldd (Debian GLIBC 2.36-9) 2.36``."""
    if output.lstrip().startswith("musl libc"):
        return parse_loader(output)
    found = re.match(r"[^\n]*\)\s*(\d+\.\d+(?:\.\d+)?)\s*$", output, re.MULTILINE)
    return ("glibc", found.group(1)) if found and re.search(_GLIBC_AUTHORS, output) else None
