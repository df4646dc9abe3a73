"""Detection: this machine for real, other machines by their files, programs that hang, the cache."""

from __future__ import annotations

import builtins
import glob
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from cachefetch.resolver import targets
from cachefetch.resolver.host import detect as detection
from cachefetch.resolver.host import facts
from cachefetch.resolver.host.cache import HostCache, default_directory
from cachefetch.resolver.host.overrides import HostOverrides
from cachefetch.resolver.model import Compiler

from .test_facts import script

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
SAMPLES = sorted(glob.glob(os.path.join(ROOT, "tests", "data", "hosts", "cpuinfo", "*.txt")))
linux_only = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="facts of a Linux machine")


@pytest.fixture(autouse=True)
def own_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """PATH is one directory, which tests fill; nothing in the user's cache is touched."""
    programs = tmp_path / "programs"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return programs


@linux_only
def test_this_machine_is_what_archspec_and_ldd_say() -> None:
    from archspec.cpu import host as archspec_host

    host = detection.detect()
    assert host.platform == "linux"
    assert host.target == str(archspec_host())
    assert host.overridden == frozenset()
    assert set(host.sources) == {"platform", "os", "target", "libc", "compilers"}
    ldd = subprocess.run(
        ["/usr/bin/ldd", "--version"], capture_output=True, text=True, check=False, env={"LC_ALL": "C"}
    )
    first = (ldd.stdout + ldd.stderr).splitlines()[0]
    assert host.libc is not None
    if host.libc.kind == "glibc":
        assert first.endswith(host.libc.version)
    assert os.path.isdir(host.libc.prefix or "")


@linux_only
def test_the_loader_says_the_same_as_confstr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by_confstr = detection.detect(compilers=False).libc
    monkeypatch.setattr(facts, "confstr_libc", lambda: "")  # as on a system where confstr does not know
    by_loader = detection.detect(compilers=False)
    assert by_loader.libc == by_confstr
    assert by_loader.sources["libc"].endswith("--version")


def sample(path: str) -> tuple[str, str]:
    machine, target = os.path.basename(path).removesuffix(".txt").split(".")[:2]
    return machine, target


@pytest.mark.parametrize("path", SAMPLES, ids=[os.path.basename(path) for path in SAMPLES])
def test_target_of_a_captured_machine(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """archspec has the path of cpuinfo fixed: let it open the sample instead; all else is the real one."""
    import archspec.cpu.detect as theirs

    def opened(name: str, *args: Any, **kwargs: Any) -> Any:
        return builtins.open(path if name == "/proc/cpuinfo" else name, *args, **kwargs)

    machine, target = sample(path)
    monkeypatch.setattr(theirs, "open", opened, raising=False)
    monkeypatch.setattr(theirs, "_machine", lambda: machine)
    monkeypatch.setattr(theirs.platform, "system", lambda: "Linux")
    theirs.host.cache_clear()
    try:
        answer = facts.archspec_target()
    finally:
        theirs.host.cache_clear()
    assert answer is not None
    found, source = detection._in_our_table(answer)
    assert found == target
    if targets.family(target) == target:
        assert "no known microarchitecture" in source


def test_there_are_samples_of_all_families() -> None:
    assert {sample(path)[0] for path in SAMPLES} == {"x86_64", "aarch64", "ppc64le", "riscv64"}


def test_a_target_that_only_a_newer_archspec_knows() -> None:
    assert detection._in_our_table(("zen99", "zen98", "zen5", "zen4"))[0] == "zen5"
    assert "zen99" in detection._in_our_table(("zen99", "zen98", "zen5", "zen4"))[1]
    assert detection._in_our_table(("loongarch64",)) == (
        "loongarch64",
        "archspec: no known microarchitecture fits this CPU; the family loongarch64",
    )


def test_archspec_that_fails_gives_the_family(tmp_path: Path) -> None:
    """A broken archspec before the real one on the path, in a process of its own."""
    package = tmp_path / "archspec"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('broken')\n")
    code = (
        "from cachefetch.resolver.host.detect import detect\n"
        "host = detect(compilers=False, cache_dir='')\n"
        "print(host.target, '|', host.sources['target'])\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.path.join(ROOT, ".dev")])}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    family = targets.family(detection.detect(compilers=False).target)
    assert done.stdout == f"{family} | archspec failed: the family {family}\n"


def make_root(tmp_path: Path, files: dict[str, str]) -> str:
    root = tmp_path / "root"
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return str(root)


@pytest.mark.parametrize(
    ("files", "label"),
    [
        ({"etc/os-release": 'ID="rocky"\nVERSION_ID="9.3"\n'}, "rocky9"),
        ({"usr/lib/os-release": "ID=fedora\nVERSION_ID=39\n"}, "fedora39"),
        ({"etc/os-release": "ID=debian\n", "etc/debian_version": "trixie/sid\n"}, "debiantrixie"),
        ({"etc/os-release": "ID=arch\n"}, "arch"),
        ({"etc/os-release": '\0\1 "\n', "etc/redhat-release": "Red Hat release 6.9 (Santiago)\n"}, "rhel6"),
        ({"etc/os-release": ""}, ""),
        ({"etc/hostname": "nothing else"}, ""),
    ],
)
def test_os_label_of_a_system_tree(tmp_path: Path, files: dict[str, str], label: str) -> None:
    assert detection.linux_os_label(HostCache(""), "2.36", make_root(tmp_path, files)) == label


def test_lsb_release_is_asked_once(tmp_path: Path) -> None:
    root = make_root(tmp_path, {"etc/os-release": "NAME=odd\n"})
    calls = tmp_path / "calls"
    script(
        Path(root) / "usr/bin/lsb_release",
        f'echo x >> {calls}; printf "Distributor ID:\\tUbuntu\\nRelease:\\t12.04\\n"',
    )
    for _ in range(3):
        cache = HostCache(str(tmp_path / "c"))
        assert detection.linux_os_label(cache, "", root) == "ubuntu12.04"
        cache.save()
    assert calls.read_text() == "x\n"


def test_compilers_are_found_once_and_sorted(own_path: Path, tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    script(own_path / "gcc", f"echo gcc >> {calls}; echo 12.2.0")
    script(own_path / "gcc-9", f"echo gcc-9 >> {calls}; echo 9.5.0")
    script(own_path / "clang", f"echo clang >> {calls}; echo 'clang version 18.1.8'")
    script(own_path / "nvc", f"echo nvc >> {calls}; echo broken; exit 1")
    want = (Compiler("gcc", "12.2.0"), Compiler("gcc", "9.5.0"), Compiler("llvm", "18.1.8"))
    for _ in range(3):
        assert detection.detect().compilers == want
    assert sorted(calls.read_text().split()) == ["clang", "gcc", "gcc-9", "nvc"]
    script(own_path / "gcc", "echo 13.1.0; # newer")  # an update is noticed
    assert detection.detect().compilers[0] == Compiler("gcc", "13.1.0")


def test_a_hung_compiler_costs_its_limit_once(own_path: Path, tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    script(own_path / "icx", f"echo icx >> {calls}; /bin/sleep 60")
    script(own_path / "gcc", "echo 12.2.0")
    start = time.monotonic()
    assert detection.detect().compilers == (Compiler("gcc", "12.2.0"),)
    first = time.monotonic() - start
    assert facts.PROGRAM_LIMIT_S <= first < facts.PROGRAM_LIMIT_S + 3
    assert detection.detect().compilers == (Compiler("gcc", "12.2.0"),)
    assert calls.read_text() == "icx\n"


def test_what_takes_too_long_is_left_for_the_next_start(
    own_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(own_path / "gcc", "echo 12.2.0")
    monkeypatch.setattr(detection, "COMPILERS_LIMIT_S", -1.0)
    host = detection.detect()
    assert host.compilers == ()
    assert "1 not asked" in host.sources["compilers"]
    monkeypatch.setattr(detection, "COMPILERS_LIMIT_S", 10.0)
    assert detection.detect().compilers == (Compiler("gcc", "12.2.0"),)


def test_compilers_are_not_run_once_a_fact_is_given(own_path: Path, tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    script(own_path / "gcc", f"echo gcc >> {calls}; echo 12.2.0")
    host = detection.detect(overrides=HostOverrides(target="x86_64"))
    assert host.compilers == ()
    given = HostOverrides(target="x86_64", compilers=(Compiler("gcc", "11.4.0"),))
    assert detection.detect(overrides=given).compilers == (Compiler("gcc", "11.4.0"),)
    assert detection.detect(compilers=False).compilers == ()
    assert not calls.exists()
    assert detection.detect(overrides=HostOverrides()).compilers == (Compiler("gcc", "12.2.0"),)


def test_a_warm_start_imports_neither_archspec_nor_subprocess(own_path: Path, tmp_path: Path) -> None:
    script(own_path / "gcc", "echo 12.2.0")
    cold = detection.detect()
    code = (
        "import sys\n"
        "from cachefetch.resolver.host.detect import detect\n"
        "host = detect()\n"
        "import json\n"
        "slow = {'archspec', 'subprocess', 'typing', 'pathlib', 'platform', 'logging'}\n"
        "print(json.dumps([host.to_dict(), sorted(slow & set(sys.modules))]))\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.path.join(ROOT, ".dev")}
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    host, slow = json.loads(done.stdout)
    assert slow == []
    assert host == cold.to_dict()


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"schema": "other"}', '{"schema": "cachefetch/host-cache/1", "entries": []}', "\0" * 50],
)
def test_a_damaged_cache_is_made_again(tmp_path: Path, text: str) -> None:
    directory = tmp_path / "cache" / "cachefetch"
    directory.mkdir(parents=True)
    (directory / "host.json").write_text(text)
    host = detection.detect()
    data = json.loads((directory / "host.json").read_text())
    assert any(answer[1][:1] == [host.target] for answer in data["entries"].values())
    assert os.listdir(directory) == ["host.json"]


@pytest.mark.parametrize("entry", [None, 1, [], [0], [0, "x"], [0, [1]], ["x", ["a"]], [1.0, ["a"]]])
def test_a_damaged_or_old_entry_is_not_used(tmp_path: Path, entry: object) -> None:
    document = {"schema": "cachefetch/host-cache/1", "entries": {"key": entry}}
    (tmp_path / "host.json").write_text(json.dumps(document))
    assert HostCache(str(tmp_path)).get("key") is None


def test_the_cache_keeps_the_newest_entries(tmp_path: Path) -> None:
    cache = HostCache(str(tmp_path))
    for number in range(300):
        cache.put(f"key{number}", (str(number),))
    cache.put("short", ("x",), keep_s=100)
    cache.save()
    again = HostCache(str(tmp_path))
    assert again.get("key0") is None
    assert again.get("key299") == ("299",)
    assert again.get("short") == ("x",)


def test_an_unwritable_cache_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    for directory in (str(tmp_path / "file"), str(tmp_path / "file" / "below"), ""):
        assert detection.detect(cache_dir=directory).target


def test_place_of_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert default_directory() == str(tmp_path / "cache" / "cachefetch")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_directory() == str(tmp_path / ".cache" / "cachefetch")


CONVENTIONAL = ("/lib64/ld-linux-x86-64.so.2", "/lib/ld-musl-x86_64.so.1")


@pytest.mark.parametrize(
    ("own", "present", "chosen"),
    [
        (CONVENTIONAL[0], CONVENTIONAL, CONVENTIONAL[0]),
        (CONVENTIONAL[1], CONVENTIONAL, CONVENTIONAL[1]),  # Alpine with glibc installed beside
        ("/opt/spack/glibc/lib/ld.so", (*CONVENTIONAL, "/opt/spack/glibc/lib/ld.so"), CONVENTIONAL[0]),
        ("/nix/store/x/lib/ld.so", ("/nix/store/x/lib/ld.so",), "/nix/store/x/lib/ld.so"),
        ("", CONVENTIONAL[1:], CONVENTIONAL[1]),  # a static Python
        ("", (), ""),
    ],
)
def test_choice_of_the_loader(tmp_path: Path, own: str, present: tuple[str, ...], chosen: str) -> None:
    for path in present:
        file = tmp_path / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    assert detection.choose_loader(own, CONVENTIONAL, root=str(tmp_path)) == chosen


@linux_only
def test_missing_features_stop_the_next_target() -> None:
    from archspec.cpu import TARGETS, host
    from archspec.cpu.detect import detected_info

    has = detected_info().features
    rows = detection.missing_for_next(str(host()))
    for target, missing in rows:
        assert host() < TARGETS[target]
        assert set(missing) == TARGETS[target].features - has
    assert detection.missing_for_next("power9le" if rows else "m1") == ()


def test_missing_features_of_a_described_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = " ".join(sorted(targets.features("zen4") - {"clzero"}))
    monkeypatch.setattr(facts, "machine", lambda: "x86_64")
    monkeypatch.setattr(facts, "cpu", lambda: {"vendor_id": "AuthenticAMD", "flags": listed})
    rows = dict(detection.missing_for_next("x86_64_v4"))
    assert rows == {"zen4": ("clzero",)}
