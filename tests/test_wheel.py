"""The built packages: every module is in the wheel, from the tree and from the sdist, and its command runs.

A wrong setting of the build gives an empty wheel without any error (docs/decisions/0001), hence these tests.
They build with the hatchling of the running environment, so they need no network.
"""

from __future__ import annotations

import email
import os
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def run(*command: str | Path, cwd: Path) -> str:
    # Without the caller's PYTHONPATH: it may lead to this checkout, and what is installed is the question.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def build(source: Path, to: Path, *what: str) -> Path:
    """Build the sdist (--sdist) or the wheel (--wheel) of the source and return the one file made."""
    run(sys.executable, "-m", "build", "--no-isolation", *what, "--outdir", to, source, cwd=to.parent)
    (made,) = to.iterdir()
    return made


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, tmp_path_factory.mktemp("wheel"), "--wheel")


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, tmp_path_factory.mktemp("sdist"), "--sdist")


@pytest.fixture(scope="module")
def wheel_of_sdist(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    unpacked = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(unpacked, filter="data")
    (source,) = unpacked.iterdir()
    return build(source, tmp_path_factory.mktemp("wheel-of-sdist"), "--wheel")


def contents(wheel: Path) -> dict[str, bytes]:
    """Return what the wheel installs, without its metadata directory."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if ".dist-info/" not in name}


def metadata(wheel: Path) -> dict[str, bytes]:
    """Return the files of the metadata directory by their name inside it."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if ".dist-info/" in name]
        return {name.partition(".dist-info/")[2]: archive.read(name) for name in names}


def source_files() -> dict[str, bytes]:
    """Return what must be installed: all of src/ but caches."""
    found = [path for path in (ROOT / "src").rglob("*") if path.is_file() and path.suffix != ".pyc"]
    return {f"cachefetch/{path.relative_to(ROOT / 'src').as_posix()}": path.read_bytes() for path in found}


def printed_by(python: Path, statement: str, expression: str) -> str:
    """Return what that interpreter, started outside of the checkout, gives for the expression."""
    return run(python, "-c", f"{statement}; print({expression})", cwd=python.parent).strip()


def test_wheel_has_every_module_and_nothing_else(wheel: Path) -> None:
    assert contents(wheel) == source_files()
    assert {"cachefetch/py.typed", "cachefetch/__main__.py"} <= contents(wheel).keys()


def test_wheel_of_the_sdist_is_the_same(wheel: Path, wheel_of_sdist: Path) -> None:
    assert wheel_of_sdist.name == wheel.name
    assert contents(wheel_of_sdist) == contents(wheel)
    assert metadata(wheel_of_sdist)["METADATA"] == metadata(wheel)["METADATA"]


def test_wheel_names_its_command_licences_and_dependencies(wheel: Path) -> None:
    with open(ROOT / "pyproject.toml", "rb") as file:
        project = tomllib.load(file)["project"]
    files = metadata(wheel)
    assert b"cachefetch = cachefetch.__main__:main" in files["entry_points.txt"]
    for name in project["license-files"]:
        assert files[f"licenses/{name}"] == (ROOT / name).read_bytes()
    written = email.message_from_bytes(files["METADATA"])
    assert written["License-Expression"] == project["license"]
    required = [line for line in written.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert len(required) == len(project["dependencies"])


def test_sdist_has_no_environment_and_no_caches(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        parts = {part for name in archive.getnames() for part in name.split("/")[1:]}
    assert "src" in parts
    assert not {".venv", ".git", "__pycache__", ".mypy_cache", ".hypothesis", "demo-out"} & parts


def test_installed_command_runs_outside_of_the_checkout(wheel: Path, tmp_path: Path) -> None:
    """The wheel goes into an environment of its own; only the dependencies are those of the running one."""
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv", cwd=tmp_path)
    python = tmp_path / "venv/bin/python"
    install = ("-m", "pip", "--python", python, "install", "--no-deps", "--no-index", "--quiet", wheel)
    run(sys.executable, *install, cwd=tmp_path)
    site = Path(printed_by(python, "import sysconfig", "sysconfig.get_path('purelib')"))
    # A path line adds the packages there, but not that directory's own .pth files (the editable install).
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + os.linesep)
    where = printed_by(python, "import cachefetch", "cachefetch.__file__")
    assert Path(where) == site / "cachefetch/__init__.py"
    version = printed_by(python, "import cachefetch", "cachefetch.__version__")
    assert wheel.name.startswith(f"cachefetch-{version}-")
    assert version in run(tmp_path / "venv/bin/cachefetch", "--version", cwd=tmp_path)
    assert "resolve" in run(python, "-m", "cachefetch", "--help", cwd=tmp_path)
