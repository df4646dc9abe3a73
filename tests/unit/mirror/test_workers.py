"""Several processes find what one finds, and what a worker does not do is done here."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from cachefetch.fetch.mirror.destination import list_manifests
from cachefetch.fetch.mirror.examine import Examiner, Found, Rules
from cachefetch.fetch.mirror.records import Records
from cachefetch.fetch.mirror.workers import examine_in_processes
from cachefetch.fetch.transports.threads import Abort, Aborted
from cachefetch.fetch.verify.openpgp import Keyring
from cachefetch.fetch.verify.policy import SignaturePolicy
from cachefetch.resolver.index.readers.manifest import parse_manifest

EXAMPLE = Path(__file__).parents[3] / "examples/mirror"
INDEX = "v3/manifests/index/index.manifest.json"


def index_of(mirror: Path) -> Path:
    return mirror / parse_manifest((mirror / INDEX).read_bytes(), what=INDEX).index().path


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    mirror = shutil.copytree(EXAMPLE, tmp_path / "mirror")
    paths = sorted(list_manifests(str(mirror)).values())
    (mirror / paths[3]).write_text("no manifest")
    index = index_of(mirror)
    index.write_bytes(index.read_bytes().replace(b'"version":"3.4.0"', b'"version":"3.4.9"'))
    return mirror


def items(mirror: Path) -> list[tuple[str, str, bytes, bool]]:
    records = Records(index_of(mirror).read_bytes())
    found = [
        (path, stem[-32:], records.text(stem[-32:]), records.is_binary(stem[-32:]))
        for stem, path in sorted(list_manifests(str(mirror)).items())
    ]
    there = {hash_ for _, hash_, *_ in found}
    return found + [("", h, records.text(h), records.is_binary(h)) for h in records if h not in there]


def rules(mirror: Path) -> Rules:
    return Rules(str(mirror), SignaturePolicy(), "m", 2e9, 1 << 20, 1 << 24, INDEX, 5)


def ordered(found: Found) -> tuple[object, ...]:
    return found.named, sorted(found.odd, key=lambda one: (one.path, one.hash)), found.targets


@pytest.mark.parametrize("interpreter", [sys.executable, "/bin/false", "/nonexistent"])
def test_workers_find_what_one_process_finds(
    mirror: Path, example_key: Path, monkeypatch: pytest.MonkeyPatch, interpreter: str
) -> None:
    ring = Keyring.from_bytes(example_key.read_bytes(), what="key")
    alone = Examiner(rules(mirror), ring)
    for item in items(mirror):
        alone.examine(item)
    codes = {code for one in alone.found.odd for _, code, _ in one.wrong}
    assert codes == {"signature-missing", "binding-mismatch"}
    assert len(alone.found.targets) > 3
    together = Examiner(rules(mirror), ring)
    monkeypatch.setattr(sys, "executable", interpreter)
    examine_in_processes(together, ring, items(mirror), Abort())
    assert ordered(together.found) == ordered(alone.found)


def test_an_abort_ends_the_workers(mirror: Path, example_key: Path) -> None:
    ring = Keyring.from_bytes(example_key.read_bytes(), what="key")
    abort = Abort()
    abort.fire()
    with pytest.raises(Aborted):
        examine_in_processes(Examiner(rules(mirror), ring), ring, items(mirror), abort)
