"""Facts given by flags and by host files."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cachefetch.errors import HostError
from cachefetch.resolver.host.overrides import HostOverrides, host_from_dict, parse_compiler, parse_libc
from cachefetch.resolver.model import Compiler, Host, Libc

HERE = Host(
    "linux",
    "debian12",
    "zen4",
    Libc("glibc", "2.36", "/usr"),
    sources={"platform": "kernel", "os": "os-release", "target": "archspec", "libc": "confstr"},
)


@pytest.mark.parametrize(
    ("text", "libc"),
    [
        ("glibc@2.35", Libc("glibc", "2.35")),
        ("glibc@=2.35", Libc("glibc", "2.35")),
        ("glibc@2.35:/usr", Libc("glibc", "2.35", "/usr")),
        ("glibc@2.35:/usr/", Libc("glibc", "2.35", "/usr")),
        ("musl@1.2.4:/", Libc("musl", "1.2.4", "/")),
        (" glibc@2.35 ", Libc("glibc", "2.35")),
    ],
)
def test_libc_flag(text: str, libc: Libc) -> None:
    assert parse_libc(text) == libc
    assert parse_libc(str(libc)) == libc


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("2.35", "write glibc@2.35 "),
        ("glibc 2.31", "write glibc@2.31 "),
        ("glibc-2.31", "write glibc@2.31 "),
        ("musl 1.2.4", "write musl@1.2.4 "),
        ("glibc@2.35:usr", "write glibc@2.35 "),
        ("uclibc@1.0", "kinds are glibc and musl"),
        ("glibc@2", "write glibc@2.35 "),
        ("", "write glibc@2.35 "),
    ],
)
def test_libc_flag_says_what_to_write(text: str, hint: str) -> None:
    with pytest.raises(HostError) as caught:
        parse_libc(text)
    assert hint in caught.value.hint
    assert repr(text) in caught.value.message


@pytest.mark.parametrize(
    ("text", "compiler"),
    [
        ("gcc@11.4.0", Compiler("gcc", "11.4.0")),
        ("gcc@=11.4.0", Compiler("gcc", "11.4.0")),
        ("clang@16.0.6", Compiler("llvm", "16.0.6")),
        ("llvm@16", Compiler("llvm", "16")),
        ("oneapi@2024.0.0", Compiler("intel-oneapi-compilers", "2024.0.0")),
        ("intel@2021.6.0", Compiler("intel-oneapi-compilers-classic", "2021.6.0")),
        ("rocmcc@6.0.2", Compiler("llvm-amdgpu", "6.0.2")),
        ("arm@23.10", Compiler("acfl", "23.10")),
    ],
)
def test_compiler_flag(text: str, compiler: Compiler) -> None:
    assert parse_compiler(text) == compiler


@pytest.mark.parametrize("text", ["gcc", "gcc@", "@12", "gcc@x", "gc@12.1", "gcc 12", "", "gcc@12:13"])
def test_bad_compiler_flag(text: str) -> None:
    with pytest.raises(HostError):
        parse_compiler(text)


def test_near_names_of_a_misspelt_compiler() -> None:
    with pytest.raises(HostError, match="not a known compiler") as caught:
        parse_compiler("gc@12.1")
    assert "gcc" in caught.value.hint


def test_nothing_given_changes_nothing() -> None:
    assert HostOverrides().given() == frozenset()
    assert HostOverrides().apply(HERE) is HERE


def test_another_os_brings_its_own_c_library() -> None:
    host = HostOverrides(os="ubuntu22.04").apply(HERE)
    assert host.libc == Libc("glibc", "2.35", prefix=None, inferred=True)
    assert host.sources["libc"] == "inferred from os ubuntu22.04"
    assert host.target == "zen4"
    assert host.overridden == {"os"}


def test_naming_this_os_keeps_its_c_library() -> None:
    host = HostOverrides(platform="linux", os="debian12").apply(HERE)
    assert host.libc == HERE.libc


def test_an_os_without_a_known_c_library_needs_one() -> None:
    with pytest.raises(HostError, match="no C library is known for os gentoo2") as caught:
        HostOverrides(os="gentoo2").apply(HERE)
    assert "--libc" in caught.value.hint
    host = HostOverrides(os="gentoo2", libc=Libc("glibc", "2.38")).apply(HERE)
    assert host.libc == Libc("glibc", "2.38")


def test_another_target_keeps_the_rest() -> None:
    host = HostOverrides(target="x86_64_v2").apply(HERE)
    assert (host.os, host.libc, host.target) == ("debian12", HERE.libc, "x86_64_v2")
    assert host.sources["target"] == "given"
    assert host.sources["compilers"] == "not looked for: target given"


def test_a_foreign_platform_drops_the_c_library() -> None:
    host = HostOverrides(platform="darwin", os="sequoia", target="m2").apply(HERE)
    assert (host.platform, host.os, host.target, host.libc) == ("darwin", "sequoia", "m2", None)


def test_a_foreign_platform_needs_os_and_target() -> None:
    with pytest.raises(HostError, match="--os and --target must be given"):
        HostOverrides(platform="darwin").apply(HERE)
    with pytest.raises(HostError, match="--target must be given"):
        HostOverrides(platform="darwin", os="sequoia").apply(HERE)


def test_no_c_library_off_linux() -> None:
    with pytest.raises(HostError, match="does not apply to platform darwin"):
        HostOverrides(platform="darwin", os="sequoia", target="m2", libc=Libc("glibc", "2.35")).apply(HERE)


def test_linux_described_on_a_mac() -> None:
    mac = Host("darwin", "sequoia", "m2")
    host = HostOverrides(platform="linux", os="rhel8", target="zen3").apply(mac)
    assert host.libc == Libc("glibc", "2.28", inferred=True)


@pytest.mark.parametrize(
    ("overrides", "near"),
    [
        (HostOverrides(target="zenn3"), "zen3"),
        (HostOverrides(target="skylake-avx512"), "skylake_avx512"),
        (HostOverrides(platform="macos"), ""),
        (HostOverrides(platform="linx"), "linux"),
        (HostOverrides(os="ubuntu 22.04"), "ubuntu22.04"),
        (HostOverrides(os="opensuse-leap15"), "without blanks or dashes"),
        (HostOverrides(platform="darwin", os="macos15", target="m2"), "sequoia"),
    ],
)
def test_unknown_names_are_errors_with_near_names(overrides: HostOverrides, near: str) -> None:
    with pytest.raises(HostError) as caught:
        overrides.apply(HERE)
    assert near in caught.value.hint
    assert caught.value.hint


def test_compilers_are_those_of_the_flags() -> None:
    given = (Compiler("llvm", "16.0.6"), Compiler("gcc", "11.4.0"))
    host = HostOverrides(compilers=given).apply(HERE)
    assert host.compilers == (Compiler("gcc", "11.4.0"), Compiler("llvm", "16.0.6"))
    assert host.overridden == {"compilers"}


def full_host() -> Host:
    return Host(
        "linux",
        "rhel8",
        "zen3",
        Libc("glibc", "2.28", "/usr"),
        (Compiler("gcc", "12.2.0"), Compiler("llvm", "16.0.6")),
        {"os": "os-release"},
    )


def read(document: Any) -> Host:
    return host_from_dict(json.loads(json.dumps(document)), "node.json")


def test_what_host_prints_is_read_back() -> None:
    want = full_host()
    for document in (
        {"schema": "cachefetch/host/1", **want.to_dict()},
        {"schema": "cachefetch/resolve/1", "status": "ok", "host": want.to_dict(), "roots": []},
        want.to_dict(),
    ):
        host = read(document)
        assert host.to_dict() | {"sources": 0} == want.to_dict() | {"sources": 0}
        assert host.overridden == {"platform", "os", "target", "libc", "compilers"}
        assert host.sources["os"] == "node.json (os-release)"
        assert host.sources["target"] == "node.json"


def test_flags_on_top_of_a_host_file() -> None:
    host = HostOverrides(target="zen4").apply(read(full_host().to_dict()))
    assert (host.target, host.os) == ("zen4", "rhel8")
    assert host.compilers == full_host().compilers


def test_a_hand_written_file_may_be_short() -> None:
    host = read({"platform": "linux", "os": "ubuntu22.04", "target": "zen3"})
    assert host.libc == Libc("glibc", "2.35", inferred=True)
    assert host.compilers == ()
    assert host.overridden == {"platform", "os", "target"}
    assert read({"platform": "darwin", "os": "sequoia", "target": "m2"}).libc is None


def test_unknown_fields_are_left_alone() -> None:
    assert read({**full_host().to_dict(), "memory": 12}).os == "rhel8"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"schema": "cachefetch/host/2"}, "schema"),
        ({"schema": "cachefetch/resolve/1"}, "host"),
        ({"platform": None}, "platform"),
        ({"platform": "linx"}, "platform"),
        ({"os": ""}, "os"),
        ({"os": 12}, "os"),
        ({"os": "a b"}, "os"),
        ({"target": "zenn3"}, "target"),
        ({"target": {"name": "zen3"}}, "target"),
        ({"libc": "glibc"}, "libc"),
        ({"libc": {"kind": "glibc"}}, "libc"),
        ({"libc": {"kind": "uclibc", "version": "1.0"}}, "libc"),
        ({"libc": {"kind": "glibc", "version": "new"}}, "libc.version"),
        ({"libc": {"kind": "glibc", "version": "2.28", "prefix": "usr"}}, "libc.prefix"),
        ({"compilers": "gcc"}, "compilers"),
        ({"compilers": ["gcc"]}, "compilers[0]"),
        ({"compilers": [{"name": "gcc"}]}, "compilers[0]"),
        ({"compilers": [{"name": "gcc", "version": "new"}]}, "compilers[0].version"),
        ({"compilers": [{"name": "gc", "version": "12"}]}, "compilers[0].name"),
        ({"sources": []}, "sources"),
    ],
)
def test_bad_host_files_name_field_and_file(change: dict[str, Any], field: str) -> None:
    with pytest.raises(HostError) as caught:
        read({**full_host().to_dict(), **change})
    assert "node.json" in caught.value.message
    assert field in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("document", [None, [], "x", 1])
def test_a_host_file_is_an_object(document: Any) -> None:
    with pytest.raises(HostError, match=r"node\.json: the document"):
        read(document)


def test_an_unknown_target_with_features_is_its_best_generic() -> None:
    from cachefetch.resolver.targets import features

    listed = sorted(features("x86_64_v3") | {"avx1024"})
    document = {**full_host().to_dict(), "target": "zen9", "target_features": listed}
    assert read(document).target == "x86_64_v3"
    with pytest.raises(HostError, match="zen9"):
        read({**document, "target_features": ["neon"]})
    with pytest.raises(HostError, match="target_features"):
        read({**document, "target_features": "avx"})
