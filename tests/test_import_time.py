"""`cachefetch resolve` starts quickly: it loads no module that costs more than it is worth.

Times differ between machines, so the list of loaded modules is tested here, and times in benchmarks/.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

#: Each costs several milliseconds at start; the whole start has about 50.
# fmt: off
SLOW = frozenset([
    "anyio", "archspec", "asyncio", "concurrent", "ctypes", "email", "http", "httpx", "importlib.metadata",
    "logging", "multiprocessing", "packaging", "pathlib", "pysequoia", "rich", "socket", "ssl", "subprocess",
    "tempfile", "tenacity", "typing", "unittest", "urllib", "zipfile",
])
HOST = [
    "--platform", "linux", "--os", "debian12", "--target", "x86_64_v3", "--libc", "glibc@2.36",
    "--compiler", "gcc@12.2.0",
]
# fmt: on
PROGRAM = """
import sys
before = set(sys.modules)
from cachefetch.__main__ import main
sys.argv = ["cachefetch", *sys.argv[1:]]
status = main()
print(*sorted(set(sys.modules) - before), sep="\\n", file=sys.stderr)
sys.exit(status)
"""


def loaded_by(repository: Path, *words: str | Path) -> set[str]:
    """Return the modules that a run of the command line loads beyond those of a bare interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, words)],
        env={**os.environ, "PYTHONPATH": str(repository / ".dev")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stderr.split())


def test_package_import_loads_nothing_else(repository: Path) -> None:
    code = "import sys; before = set(sys.modules); import cachefetch; print(*set(sys.modules) - before)"
    env = {**os.environ, "PYTHONPATH": str(repository / ".dev")}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) - {"__future__"} == {"cachefetch"}


@pytest.mark.parametrize("place", ["examples/pages/py-multidict.md", "examples/mirror"])
def test_resolve_with_a_known_host_loads_no_slow_module(repository: Path, place: str) -> None:
    query = ("resolve", "py-multidict@6.1.0", "-m", str(repository / place), *HOST)
    loaded_by(repository, *query)  # the first run fills the local index
    loaded = loaded_by(repository, *query)
    assert "cachefetch.resolver.rank" in loaded  # the list is that of a real run
    assert {name for name in loaded if SLOW & {name, name.partition(".")[0]}} == set()
