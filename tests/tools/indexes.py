"""The indexes of the fixture mirrors and the pages, raw and as records: one place for all tests of the choice."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from cachefetch.resolver.index.readers.nodes import node_from_dict, specfile_of_database
from cachefetch.resolver.index.readers.page import parse_page
from cachefetch.resolver.model import Record

DATA = Path(__file__).parents[1] / "data"
#: Every fixture mirror that real Spack wrote.
FIXTURES = ("v3-unsigned", "v3-signed", "v2-unsigned", "v2-signed", "oci-registry")
PAGE = DATA / "pages" / "py-multidict.specs.md"


@cache
def raw_index(name: str) -> tuple[dict[str, dict[str, Any]], str]:
    """Return the records by hash as Spack wrote them (spec, in_buildcache), and the version of the database."""
    root = DATA / "fixtures" / name
    if name.startswith("v3"):
        manifest = json.loads((root / "v3/manifests/index/index.manifest.json").read_bytes())
        digest = manifest["data"][0]["checksum"]
        found = [root / "blobs" / "sha256" / digest[:2] / digest]
    elif name.startswith("v2"):
        found = [root / "build_cache" / "index.json"]
    else:  # the storage of a registry: the index is the blob that says so
        blobs = root.glob("docker/registry/v2/blobs/sha256/*/*/data")
        found = [path for path in blobs if b'"database"' in path.read_bytes()[:400]]
    (path,) = found
    database = json.loads(path.read_bytes())["database"]
    return database["installs"], database["version"]


@cache
def records(name: str) -> tuple[Record, ...]:
    """Return the records of a fixture."""
    installs, version = raw_index(name)
    specfile = specfile_of_database(version)
    return tuple(
        Record(node_from_dict(row["spec"], hash=hash_, specfile=specfile), bool(row.get("in_buildcache")))
        for hash_, row in installs.items()
    )


@cache
def raw_page() -> dict[str, dict[str, Any]]:
    """Return the entries of the 61-build page by hash."""
    lines = PAGE.read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("spec_details: ")]
    return {entry["hash"]: entry for entry in json.loads(line.removeprefix("spec_details: "))}


@cache
def page_records() -> tuple[Record, ...]:
    """Return the records of the 61-build page."""
    found, broken = parse_page(PAGE.read_bytes(), what="page")[:2]
    assert not broken
    return tuple(found)
