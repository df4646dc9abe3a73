"""What every test gets: a private environment, and the paths of the example and fixture mirrors."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.tools.page_from_mirror import write_page

ROOT = Path(__file__).resolve().parent.parent
OUTSIDE = ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "ssl_cert_file", "ssl_cert_dir", "netrc")


@pytest.fixture(autouse=True)
def private_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Point caches, configuration and home below a new directory, and drop settings of the caller.

    So no test reads or writes what belongs to the user, and none depends on a proxy of the machine.
    """
    home = tmp_path_factory.mktemp("home")
    for name in list(os.environ):
        if name.startswith(("CACHEFETCH_", "SPACK_")) or name.lower() in OUTSIDE:
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    for name in ("CACHE", "CONFIG", "DATA", "STATE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(home / name.lower()))
    return home


@pytest.fixture(scope="session")
def repository() -> Path:
    """Return the root of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def fixture_mirrors() -> Path:
    """Return the directory of the mirrors that real Spack wrote: v3-signed, v3-unsigned, v2-signed, ..."""
    return ROOT / "tests/data/fixtures"


@pytest.fixture(scope="session")
def example_mirror() -> Path:
    """Return the small signed v3 mirror, examples/mirror; copy it before changing it."""
    return ROOT / "examples/mirror"


@pytest.fixture(scope="session")
def example_key() -> Path:
    """Return the public key that signed the example mirror."""
    return ROOT / "examples/mirror.pub.asc"


@pytest.fixture
def example_page(example_mirror: Path, tmp_path: Path) -> Path:
    """Return a cache.spack.io page of py-multidict whose four hashes examples/mirror holds."""
    return write_page(example_mirror, tmp_path / "py-multidict.specs.md")
