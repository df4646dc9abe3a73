"""Write a cache.spack.io page from a mirror's own index, so that tests can use a page and a mirror together.

The real pages in tests/data/pages name hashes that no mirror here holds. The format is that of the eras from
2024 on (docs/formats.md): front matter, `meta` and `spec_details` each JSON on one line, entries by hash, and
no newline after the closing line.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

Era = Literal["2024", "2025"]  # 2024 wrote gcc@=13.2.0, Spack 1.0's pages write gcc@13.2.0

FLAGS = frozenset(["cflags", "cppflags", "cxxflags", "fflags", "ldflags", "ldlibs"])
LANGUAGES = ("c", "cxx", "fortran")

Node = dict[str, Any]


def installs_of(mirror: Path) -> dict[str, dict[str, Any]]:
    """Return the install records of the default index of a v3 mirror, by DAG hash."""
    manifest = json.loads((mirror / "v3/manifests/index/index.manifest.json").read_text())
    digest = manifest["data"][0]["checksum"]
    index = json.loads((mirror / "blobs/sha256" / digest[:2] / digest).read_text())
    installs: dict[str, dict[str, Any]] = index["database"]["installs"]
    return installs


def compiler_of(node: Node, installs: dict[str, dict[str, Any]], era: Era) -> str:
    """Return the compiler of the first of c, cxx and fortran, "none" where there is none."""
    by_language = {
        virtual: installs[edge["hash"]]["spec"]
        for edge in node.get("dependencies", [])
        for virtual in edge["parameters"]["virtuals"]
    }
    for language in LANGUAGES:
        if language in by_language:
            compiler = by_language[language]
            return f"{compiler['name']}@{'=' if era == '2024' else ''}{compiler['version']}"
    return "none"


def variants_of(node: Node) -> list[str]:
    """Return the variants as a page shows them, without compiler flags."""
    shown = []
    for name, value in sorted(node["parameters"].items()):
        if name in FLAGS:
            continue
        if isinstance(value, bool):
            shown.append(f"{'+' if value else '~'}{name}")
        else:
            shown.append(f"{name}={','.join(value) if isinstance(value, list) else value}")
    return shown


def detail_of(node: Node, installs: dict[str, dict[str, Any]], era: Era, stack: str) -> dict[str, Any]:
    """Return the entry of one spec in `spec_details`."""
    target = node["arch"]["target"]
    return {
        "compiler": compiler_of(node, installs, era),
        "hash": node["hash"],
        "os": node["arch"]["platform_os"],
        "platform": node["arch"]["platform"],
        "size": "-",
        "stacks": ["root", stack],
        "target": target if isinstance(target, str) else target["name"],
        "variants": variants_of(node),
        "versions": [node["version"]],
    }


def page_text(mirror: Path, package: str, *, era: Era = "2025", stack: str = "tutorial") -> str:
    """Return the page of the package, with every spec of it whose binary the mirror has."""
    installs = installs_of(mirror)
    nodes = [
        record["spec"]
        for record in installs.values()
        if record["spec"]["name"] == package and record["in_buildcache"]
    ]
    details = [detail_of(node, installs, era, stack) for node in sorted(nodes, key=lambda n: str(n["hash"]))]
    meta = {
        "compilers": sorted({detail["compiler"] for detail in details}),
        "num_specs": len(details),
        "num_specs_by_stack": {"root": len(details), stack: len(details)},
        "oss": sorted({detail["os"] for detail in details}),
        "platforms": sorted({detail["platform"] for detail in details}),
        "stacks": ["root", stack],
        "targets": sorted({detail["target"] for detail in details}),
        "versions": sorted({detail["versions"][0] for detail in details}),
    }
    lines = [
        "---",
        f'title: "{package}"',
        "layout: cache",
        "categories: [package, develop]",
        f"meta: {json.dumps(meta)}",
        f"spec_details: {json.dumps(details)}",
        "---",
    ]
    return "\n".join(lines)


def write_page(
    mirror: Path, to: Path, package: str = "py-multidict", *, era: Era = "2025", stack: str = "tutorial"
) -> Path:
    """Write the page to the file `to` and return it."""
    to.write_text(page_text(mirror, package, era=era, stack=stack))
    return to
