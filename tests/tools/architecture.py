"""The rules about who may import whom, as code; tests/test_architecture.py applies them to src/.

Direction: ``cli -> client -> fetch -> resolver -> errors``: an import may only go right, also one inside a
function or under TYPE_CHECKING. Pure resolver modules take bytes and values and return values: they import
no I/O, neither from the standard library nor from the few edge modules.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path

#: Layer by the first part of the module name below the package; a lower number is further right.
LAYERS = {
    "errors": 0,
    "values": 0,
    "regular": 0,
    "signals": 0,
    "resolver": 1,
    "fetch": 2,
    "base": 3,
    "client": 3,
    "driver": 3,
    "fetching": 3,
    "blocking": 3,
    "portal": 3,
    "answers": 3,
    "recall": 3,
    "lockfile": 3,
    "sources": 3,
    "pins": 3,
    "syncing": 3,
    "bundling": 3,
    "config": 3,
    "spack_config": 3,
    "config_edit": 3,
    "": 3,  # the package itself: lazy exports of the public names
    "cli": 4,
    "__main__": 4,
}
#: All that fetch may know of the resolver; each is pure.
FETCH_MAY_IMPORT = (
    "resolver.model",
    "resolver.spec",
    "resolver.targets",
    "resolver.index.readers",
    "resolver.index.splitter",
    "resolver.index.writer",
)
#: Where the resolver meets the machine.
EDGES = ("resolver.host.facts", "resolver.host.detect", "resolver.host.cache", "resolver.index.store")
#: The only modules with SQL.
SQL_MODULES = ("resolver.index.store", "fetch.mirror.journal")
# fmt: off
IO_MODULES = frozenset({
    "anyio", "asyncio", "concurrent", "ctypes", "fcntl", "getpass", "glob", "http", "httpcore", "httpx",
    "io", "logging", "mmap", "multiprocessing", "obstore", "os", "pathlib", "platform", "pysequoia",
    "random", "rich", "secrets", "select", "selectors", "shutil", "signal", "sniffio", "socket",
    "sqlite3", "ssl", "subprocess", "tempfile", "tenacity", "threading", "time", "urllib",
})
# fmt: on
SQL_TEXT = re.compile(
    r"\s*(SELECT\s.*\sFROM|INSERT\s+(OR\s+\w+\s+)?INTO|REPLACE\s+INTO|DELETE\s+FROM|UPDATE\s+\w+\s+SET|"
    r"CREATE\s+(UNIQUE\s+|TEMP\s+)?(TABLE|INDEX)|DROP\s+(TABLE|INDEX)|PRAGMA\s+\w+)\b",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Import:
    """One import: `target` is the module below the package ("" is the package), or None for `outside`."""

    line: int
    target: str | None
    outside: str = ""
    name: str = ""


def is_pure(module: str) -> bool:
    """True for a module that must not touch the machine: the bottom layer, and the resolver but its edges."""
    return module.split(".")[0] in {"errors", "values", "resolver"} and module not in EDGES


def within(module: str, places: tuple[str, ...]) -> bool:
    """True if the module is one of the places or lies below one."""
    return any(module == place or module.startswith(place + ".") for place in places)


def module_names(tree: Path) -> dict[str, Path]:
    """Return every module below the package directory by its name: "" , "errors", "resolver.model", ..."""
    names = {}
    for path in sorted(tree.rglob("*.py")):
        parts = list(path.relative_to(tree).with_suffix("").parts)
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def imports_of(module: str, path: Path, modules: dict[str, Path]) -> list[Import]:
    """Return all imports of one module, wherever they stand in it."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            found += [Import(node.lineno, None, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.append(Import(node.lineno, None, node.module or ""))
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".") if package else []
            base = ".".join([*parts[: len(parts) + 1 - node.level], *filter(None, [node.module])])
            for alias in node.names:
                below = f"{base}.{alias.name}".lstrip(".")
                found.append(Import(node.lineno, below if below in modules else base, name=alias.name))
    return found


def direction_problem(module: str, imported: Import) -> str:
    """Say how the import breaks the direction rule, or ""."""
    target = imported.target or ""
    if target == "" and imported.name == "__version__":
        return ""  # a constant, not an upward dependency on code
    here, there = module.split(".")[0], target.split(".")[0]
    if here not in LAYERS or there not in LAYERS:
        return ""  # reported once, at the module without a layer
    if LAYERS[there] > LAYERS[here]:
        return f"imports {target or 'the package'}, which is further left"
    if here == "fetch" and there == "resolver" and not within(target, FETCH_MAY_IMPORT):
        return f"fetch may not import {target}"
    if is_pure(module) and target in EDGES:
        return f"a pure module imports the edge module {target}"
    return ""


def outside_problem(module: str, imported: Import) -> str:
    """Say how an import of a foreign module breaks a rule, or ""."""
    top = imported.outside.split(".")[0]
    if top == "cachefetch":
        return "imports by the absolute name; use a relative import"
    if top == "sqlite3" and module not in SQL_MODULES:
        return "imports sqlite3"
    if is_pure(module) and top in IO_MODULES:
        return f"a pure module imports {imported.outside}"
    return ""


def text_problems(module: str, path: Path) -> list[tuple[int, str]]:
    """Return (line, problem) of SQL in the wrong module and of ``open()`` in a pure one."""
    pure = is_pure(module)
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if module not in SQL_MODULES and SQL_TEXT.match(node.value):
                found.append((node.lineno, "has SQL"))
        elif pure and isinstance(node, ast.Call) and ast.unparse(node.func) in {"open", "print", "input"}:
            found.append((node.lineno, f"a pure module calls {ast.unparse(node.func)}()"))
    return found


def violations(tree: Path) -> list[str]:
    """Return one line ``file:line: what`` for every broken rule below the package directory, sorted."""
    modules = module_names(tree)
    found = []
    for module, path in modules.items():
        problems = text_problems(module, path)
        if module.split(".")[0] not in LAYERS:
            problems.append((1, "has no layer: name it in LAYERS of tests/tools/architecture.py"))
        for imported in imports_of(module, path, modules):
            check = direction_problem if imported.target is not None else outside_problem
            problems.append((imported.line, check(module, imported)))
        found += [f"{path.relative_to(tree)}:{line}: {what}" for line, what in problems if what]
    return sorted(set(found))
