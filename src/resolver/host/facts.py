"""Read raw facts about this machine: files, system calls and the answers of programs. Edge.

Nothing here raises for what a machine lacks: a missing file is "", a program that cannot be started, fails to
end within its time limit or is not there gives None. What the facts mean is said in `describe`.
"""

from __future__ import annotations

import os
import re
import stat
import sys
import time

from .compiler_table import preference, program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from subprocess import Popen
    from typing import Literal

#: Seconds that a compiler or loader may take to print its version.
PROGRAM_LIMIT_S = 2.0
#: Most bytes read from a program or a small file.
MAX_BYTES = 65536

#: Lines of /proc/cpuinfo that decide the target; others (MHz, bogomips) change from start to start.
_CPU_KEYS = ("vendor_id", "flags", "CPU implementer", "CPU part", "Features", "cpu", "uarch", "model name")

#: Files in /etc that are named like a release file of a distribution and are none.
_NOT_RELEASE_FILES = frozenset({"os", "lsb", "system", "debian", "oem", "initrd", "plesk", "iredmail"})


def read_text(path: str, limit: int = MAX_BYTES) -> str:
    """Return up to `limit` bytes of a file as text, "" if it cannot be read."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (OSError, ValueError):
        return ""
    try:
        # One read() is enough for files, and keeps /proc/cpuinfo from being produced for every core.
        return os.read(handle, limit).decode("utf-8", "replace")
    except OSError:
        return ""
    finally:
        os.close(handle)


def run(argv: Sequence[str], limit_s: float = PROGRAM_LIMIT_S) -> tuple[int, str] | None:
    """Run a program without input; return (exit code, stdout and stderr together).

    None when it cannot be started or does not end in `limit_s` seconds. Messages are asked for in English.
    A program that runs out of time is killed with all its children.
    """
    import subprocess

    try:
        process = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "LC_ALL": "C"},
            start_new_session=True,
        )
    except (OSError, ValueError):
        return None
    end = time.monotonic() + limit_s
    answer = None
    try:
        output = _read_until(process, end)
        if output is not None:
            answer = process.wait(max(0.05, end - time.monotonic())), output.decode("utf-8", "replace")
    except subprocess.TimeoutExpired:
        pass  # it closed its output, and still runs
    finally:
        if answer is None:
            _kill(process)
        if process.stdout is not None:
            process.stdout.close()
    return answer


def _read_until(process: Popen[bytes], end: float) -> bytes | None:
    """Read up to MAX_BYTES until the program closes its output; None when the time is over."""
    import select

    assert process.stdout is not None
    handle = process.stdout.fileno()
    parts = bytearray()
    while len(parts) < MAX_BYTES:
        left = end - time.monotonic()
        if left <= 0 or not select.select([handle], [], [], left)[0]:
            return None
        part = os.read(handle, MAX_BYTES - len(parts))
        if not part:
            return bytes(parts)
        parts += part
    return None  # no version text is that long


def _kill(process: Popen[bytes]) -> None:
    """Kill the program and its children, which may hold the output open after its own end."""
    import signal

    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (OSError, AttributeError):  # gone already; Windows has no process groups
        process.kill()
    process.wait()


def system() -> str:
    """Return Python's name of the operating system: `linux`, `darwin`, `win32`, `freebsd14`."""
    return sys.platform


def machine() -> str:
    """Return what the kernel calls the machine: `x86_64`, `arm64`."""
    if hasattr(os, "uname"):
        return os.uname().machine
    import platform

    return platform.machine()


def kernel_release() -> str:
    """Return the kernel's release (FreeBSD: ``14.0-RELEASE``), the full version on Windows."""
    if hasattr(os, "uname"):
        return os.uname().release
    import platform

    return platform.version()


def os_release(root: str = "/") -> str:
    """Return the text of /etc/os-release, else of /usr/lib/os-release."""
    return read_text(os.path.join(root, "etc/os-release")) or read_text(
        os.path.join(root, "usr/lib/os-release")
    )


def debian_version(root: str = "/") -> str:
    """Return the text of /etc/debian_version."""
    return read_text(os.path.join(root, "etc/debian_version"))


def release_file(root: str = "/") -> tuple[str, str]:
    """Return (name part, first line) of the first distribution file such as /etc/centos-release."""
    etc = os.path.join(root, "etc")
    for file_name in _names_in(etc):
        found = re.fullmatch(r"(\w+)[-_](?:release|version)", file_name)
        if found and found.group(1) not in _NOT_RELEASE_FILES:
            lines = read_text(os.path.join(etc, file_name)).splitlines()
            if lines and lines[0].strip():
                return found.group(1), lines[0].strip()
    return "", ""


def _names_in(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except (OSError, ValueError):
        return []


def macos_version() -> str:
    """Return the macOS version: $MACOSX_DEPLOYMENT_TARGET, else ``sw_vers``, else what Python knows."""
    if version := os.environ.get("MACOSX_DEPLOYMENT_TARGET"):
        return version
    answer = run(["/usr/bin/sw_vers", "-productVersion"])
    if answer and answer[0] == 0 and answer[1].strip():
        return answer[1].strip()
    import platform

    return platform.mac_ver()[0]


def cpu(root: str = "/") -> dict[str, str]:
    """Return the entries of the first processor in /proc/cpuinfo, {} when there is none."""
    entries: dict[str, str] = {}
    for line in read_text(os.path.join(root, "proc/cpuinfo")).splitlines():
        key, colon, value = line.partition(":")
        if not colon and entries:
            break
        entries[key.strip()] = value.strip()
    return entries


def cpu_fingerprint(entries: Mapping[str, str]) -> str:
    """Return a text that is the same as long as the CPU as seen by archspec is the same."""
    shown = [f"{key}: {entries[key]}" for key in _CPU_KEYS if key in entries]
    return "\n".join([system(), machine(), *(shown or _kernel_identity())])


def _kernel_identity() -> list[str]:
    """Return the names of this machine where there is no cpuinfo (macOS): a home may be shared by several."""
    return list(os.uname()) if hasattr(os, "uname") else [kernel_release()]


def archspec_target() -> tuple[str, ...] | None:
    """Return archspec's name for this CPU and its ancestors; None when archspec fails in any way."""
    import warnings

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # archspec warns where /proc is missing, and then falls back
            from archspec.cpu import host

            target = host()
            return (str(target), *(str(ancestor) for ancestor in target.ancestors))
    except Exception:  # noqa: BLE001  # detection must never stop a command; the caller falls back to the family
        return None


def confstr_libc() -> str:
    """Return what the C library of this Python says about itself (``glibc 2.36``), "" where it does not."""
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (ValueError, OSError, AttributeError):  # musl, macOS, Windows
        return ""


def elf_interpreter(path: str = "/proc/self/exe") -> str:
    """Return the loader that an ELF program asks for, "" when it is static or no ELF file."""
    try:
        with open(path, "rb") as file:
            head = file.read(64)
            if head[:4] != b"\x7fELF" or len(head) < 64 or head[4] not in (1, 2):
                return ""
            offset, size = _interpreter_place(file.read, file.seek, head)
            file.seek(offset)
            return file.read(min(size, 4096)).partition(b"\0")[0].decode("utf-8", "surrogateescape")
    except (OSError, ValueError, OverflowError):
        return ""


def _interpreter_place(
    read: Callable[[int], bytes], seek: Callable[[int], int], head: bytes
) -> tuple[int, int]:
    """Return (file offset, size) of the PT_INTERP segment, (0, 0) when there is none."""
    wide = head[4] == 2
    order: Literal["little", "big"] = "little" if head[5] == 1 else "big"

    def number(data: bytes, at: int, size: int) -> int:
        return int.from_bytes(data[at : at + size], order)

    word = 8 if wide else 4
    table, entry, count = (32, 54, 56) if wide else (28, 42, 44)
    size, entries = number(head, entry, 2), number(head, count, 2)
    seek(number(head, table, word))
    headers = read(size * min(entries, 256))
    for start in range(0, len(headers), size or 1):
        header = headers[start : start + size]
        if number(header, 0, 4) == 3:
            return (
                (number(header, 8, 8), number(header, 32, 8))
                if wide
                else (number(header, 4, 4), number(header, 16, 4))
            )
    return 0, 0


def stamp(path: str) -> str:
    """Return path, size and time of change: a text that differs when the file does, "" if there is none."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return ""
    return f"{path} {status.st_size} {status.st_mtime_ns}"


def compiler_programs(search_path: str) -> list[tuple[int, str, str]]:
    """Return (program group, path, stamp) of the compilers along `search_path`, in its order.

    Each absolute directory and its `bin`; one program of each group and suffix a directory; a file that has
    several names counts once, by the name that is no symbolic link if there is one.
    """
    found: dict[tuple[int, int, int], tuple[int, str, str, bool]] = {}
    for directory in _directories(search_path):
        for group, path in _in_directory(directory):
            try:
                status = os.stat(path)
                link = os.path.islink(path)
            except OSError:
                continue
            if not stat.S_ISREG(status.st_mode) or not status.st_mode & 0o111:
                continue
            key = (group, status.st_dev, status.st_ino)
            if key not in found or (found[key][3] and not link):
                found[key] = (group, path, f"{path} {status.st_size} {status.st_mtime_ns}", link)
    return [(group, path, mark) for group, path, mark, _ in found.values()]


def _directories(search_path: str) -> list[str]:
    """Return the directories to look at. Relative ones are left out: they would run what lies around."""
    seen: dict[tuple[int, int], str] = {}
    for entry in search_path.split(os.pathsep):
        if os.path.isabs(entry):
            for directory in (entry, os.path.join(entry, "bin")):
                try:
                    status = os.stat(directory)
                except (OSError, ValueError):
                    continue
                seen.setdefault((status.st_dev, status.st_ino), directory)
    return list(seen.values())


def _in_directory(directory: str) -> list[tuple[int, str]]:
    """Return (group, path) of the program to ask for every (group, suffix) in one directory."""
    chosen: dict[tuple[int, str], str] = {}
    for file_name in _names_in(directory):
        if key := program(file_name):
            best = chosen.get(key)
            if best is None or preference(file_name) < preference(best):
                chosen[key] = file_name
    return [(group, os.path.join(directory, file_name)) for (group, _), file_name in chosen.items()]
