"""The direction of imports in src/, and proof on tiny bad trees that the check can fail."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.tools.architecture import module_names, violations

ROOT = Path(__file__).resolve().parent.parent

BAD = [
    ("resolver/rank.py", "from ..fetch import plan", "imports fetch.plan, which is further left"),
    (
        "resolver/rank.py",
        "def f():\n    from ..client import Client",
        "imports client, which is further left",
    ),
    ("errors.py", "if TYPE_CHECKING:\n    from .resolver.model import Node", "imports resolver.model, which"),
    ("client.py", "from .cli import main", "imports cli, which is further left"),
    ("client.py", "from . import __main__", "imports __main__, which is further left"),
    ("fetch/plan.py", "from ..config import Config", "imports config, which is further left"),
    ("fetch/plan.py", "from ..resolver import rank", "fetch may not import resolver.rank"),
    ("fetch/plan.py", "from .. import resolver", "fetch may not import resolver"),
    (
        "fetch/plan.py",
        "from ..resolver.index.store import Index",
        "fetch may not import resolver.index.store",
    ),
    ("fetch/plan.py", "from .. import Client", "imports the package, which is further left"),
    ("values.py", "import socket", "a pure module imports socket"),
    ("resolver/rank.py", "import os", "a pure module imports os"),
    ("resolver/rank.py", "from urllib.request import urlopen", "a pure module imports urllib.request"),
    ("resolver/rank.py", "def f():\n    import httpx", "a pure module imports httpx"),
    ("resolver/rank.py", "from .index import store", "imports the edge module resolver.index.store"),
    ("resolver/rank.py", "TEXT = open('x').read()", "a pure module calls open()"),
    ("fetch/plan.py", "import sqlite3", "imports sqlite3"),
    ("fetch/plan.py", "Q = 'SELECT name FROM specs'", "has SQL"),
    ("fetch/plan.py", "import cachefetch.errors", "absolute name"),
    ("stray.py", "from . import errors", "has no layer"),
]


def make_tree(tree: Path, *, name: str = "", text: str = "") -> Path:
    """Write a small package that keeps all rules, with `text` in place of one of its modules."""
    files = {
        "__init__.py": "from .client import Client\n__version__ = '1'\n",
        "__main__.py": "from .cli import main\n",
        "errors.py": "class E(Exception): ...\n",
        "cli/__init__.py": "from .. import client, config\nfrom ..errors import E\n",
        "client.py": "from .fetch import plan\nfrom .resolver.index import store\nimport httpx\n",
        "config.py": "import tomllib\nfrom .errors import E\n",
        "fetch/__init__.py": "",
        "fetch/plan.py": "import os\nfrom .. import __version__\nfrom ..resolver.index.readers import v3\n",
        "resolver/__init__.py": "",
        "resolver/model.py": "from dataclasses import dataclass\n",
        "resolver/rank.py": "import json\nfrom .model import Node\nfrom ..errors import E\n",
        "resolver/index/__init__.py": "",
        "resolver/index/readers/__init__.py": "",
        "resolver/index/readers/v3.py": "from .. import readers\nfrom ....errors import E\n",
        "resolver/index/store.py": "import os, sqlite3\nQ = 'SELECT name FROM specs'\n",
    }
    for path, content in (files | ({name: text} if name else {})).items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text(content, encoding="utf-8")
    return tree


def test_source_keeps_the_direction_of_imports() -> None:
    assert violations(ROOT / "src") == []


def test_source_is_seen_at_all() -> None:
    assert {"errors", "resolver.model"} <= set(module_names(ROOT / "src"))


def test_good_tree_has_no_violation(tmp_path: Path) -> None:
    assert violations(make_tree(tmp_path)) == []


@pytest.mark.parametrize(("name", "text", "expected"), BAD)
def test_bad_import_is_reported_once_with_its_place(
    tmp_path: Path, name: str, text: str, expected: str
) -> None:
    found = violations(make_tree(tmp_path, name=name, text=text))
    assert len(found) == 1
    assert found[0].startswith(f"{name}:{text.count(chr(10)) + 1}: ")
    assert expected in found[0]
