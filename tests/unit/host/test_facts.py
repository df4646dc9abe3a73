"""The edge: real files, real programs, also hung and broken ones."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from cachefetch.resolver.host import facts


def script(path: Path, body: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


def test_missing_files_are_empty(tmp_path: Path) -> None:
    root = str(tmp_path)
    assert facts.read_text(str(tmp_path / "none")) == ""
    assert facts.read_text(root) == ""  # a directory
    assert facts.read_text("a\0b") == ""
    assert facts.os_release(root) == facts.debian_version(root) == ""
    assert facts.release_file(root) == ("", "")
    assert facts.cpu(root) == {}
    assert facts.stamp(str(tmp_path / "none")) == facts.stamp("a\0b") == ""


def test_os_release_in_etc_wins(tmp_path: Path) -> None:
    for place, text in (("usr/lib", "ID=one"), ("etc", "ID=two")):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "os-release").write_text(text)
        assert facts.os_release(str(tmp_path)) == text


def test_release_file_leaves_out_what_names_no_distribution(tmp_path: Path) -> None:
    etc = tmp_path / "etc"
    etc.mkdir()
    for name in ("lsb-release", "debian_version", "system-release", "os-release"):
        (etc / name).write_text("wrong 1\n")
    (etc / "centos-release").write_text("CentOS release 6.10 (Final)\nmore\n")
    (etc / "redhat-release").write_text("CentOS release 6.10 (Final)\n")
    assert facts.release_file(str(tmp_path)) == ("centos", "CentOS release 6.10 (Final)")


def test_a_program_answers_on_both_channels_in_english(tmp_path: Path) -> None:
    program = script(tmp_path / "tool", 'echo "out $LC_ALL"; echo err >&2; exit 3')
    assert facts.run([program]) == (3, "out C\nerr\n")


def test_a_program_that_cannot_start() -> None:
    assert facts.run(["/nonexistent/program"]) is None


@pytest.mark.parametrize(
    "body",
    [
        "sleep 60",
        "sleep 60 &\nexit 0",  # the child keeps the output open
        "exec >&- 2>&-\nsleep 60",  # closes the output and goes on
        "while true; do echo yes; done",  # never ends, and fills the memory of who reads it all
    ],
    ids=["hangs", "leaves-a-child", "closes-output", "floods"],
)
def test_a_program_that_does_not_end_is_killed(tmp_path: Path, body: str) -> None:
    program = script(tmp_path / "tool", f"echo $$ > {tmp_path}/group\n{body}")
    start = time.monotonic()
    assert facts.run([program], limit_s=0.5) is None
    assert time.monotonic() - start < 5
    group = int((tmp_path / "group").read_text())
    for _ in range(50):  # killed children stay visible until init has waited for them
        if not group_is_alive(group):
            return
        time.sleep(0.1)
    pytest.fail("something of the program still runs")


def group_is_alive(group: int) -> bool:
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                state, _, pgrp = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[:3]
            except OSError:
                continue
            if int(pgrp) == group and state != "Z":
                return True
    return False


def test_loader_of_this_python_and_of_other_files(tmp_path: Path) -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("ELF programs of this machine are asked")
    assert os.path.exists(facts.elf_interpreter())
    assert facts.elf_interpreter(sys.executable) == facts.elf_interpreter()
    assert facts.elf_interpreter(script(tmp_path / "text", "true")) == ""
    assert facts.elf_interpreter(str(tmp_path / "none")) == ""
    with open(sys.executable, "rb") as file:
        program = file.read(4096)
    for size in (0, 4, 40, 64, 100, 700):
        (tmp_path / "cut").write_bytes(program[:size])
        assert facts.elf_interpreter(str(tmp_path / "cut")) in ("", facts.elf_interpreter()[:0])
    (tmp_path / "wild").write_bytes(program[:32] + b"\xff" * 32 + program[64:])
    assert facts.elf_interpreter(str(tmp_path / "wild")) == ""


def test_a_32_bit_big_endian_program(tmp_path: Path) -> None:
    head = bytearray(52)
    head[:7] = b"\x7fELF\x01\x02\x01"
    head[28:32] = (64).to_bytes(4, "big")
    head[42:44] = (32).to_bytes(2, "big")
    head[44:46] = (1).to_bytes(2, "big")
    segment = bytearray(32)
    segment[0:4] = (3).to_bytes(4, "big")
    segment[4:8] = (96).to_bytes(4, "big")
    segment[16:20] = (12).to_bytes(4, "big")
    (tmp_path / "big").write_bytes(bytes(head) + bytes(12) + bytes(segment) + b"/lib/ld.so.1\0")
    assert facts.elf_interpreter(str(tmp_path / "big")) == "/lib/ld.so.1"


def test_fingerprint_is_the_same_when_only_the_clock_changes(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()

    def fingerprint(mhz: str, flags: str) -> str:
        text = f"processor\t: 0\nvendor_id\t: X\ncpu MHz\t: {mhz}\nflags\t: {flags}\n\nprocessor\t: 1\nflags\t: z\n"
        (tmp_path / "proc" / "cpuinfo").write_text(text)
        return facts.cpu_fingerprint(facts.cpu(str(tmp_path)))

    assert fingerprint("2000", "sse avx") == fingerprint("2100", "sse avx") != fingerprint("2000", "sse")


def test_compilers_along_the_path(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    script(first / "gcc-12", "echo 12.2.0")
    (first / "gcc").symlink_to("gcc-12")
    script(first / "g++-12", "echo 12.2.0")
    script(first / "gcc-ar-12", "echo no")
    script(first / "gfortran-9", "echo 9.5.0")
    (first / "clang").write_text("not executable")
    (first / "icx").mkdir()
    (first / "nvc").symlink_to("nowhere")
    script(second / "bin" / "clang", "echo x")
    search = os.pathsep.join([str(first), "relative", "", str(tmp_path / "none"), str(second), str(first)])
    found = facts.compiler_programs(search)
    # gcc and gcc-12 are one file: once, by the name that is no link. g++-12 belongs to gcc-12.
    assert {(group, os.path.relpath(path, tmp_path)) for group, path, _ in found} == {
        (0, "first/gcc-12"),
        (0, "first/gfortran-9"),
        (1, "second/bin/clang"),
    }
    assert len(found) == 3


def test_relative_directories_are_never_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(tmp_path / "gcc", "echo 12.2.0")
    monkeypatch.chdir(tmp_path)
    assert facts.compiler_programs(os.pathsep.join([".", "", "./"])) == []


def test_macos_version_prefers_the_deployment_target(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MACOSX_DEPLOYMENT_TARGET", "13.2")
    assert facts.macos_version() == "13.2"
