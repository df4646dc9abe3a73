"""`cachefetch verify` against what Spack 1.1 said of the same mirrors: what it refuses is damage (exit 9).

Where the audit asks for more than Spack, or for less, the case and the reason stand here.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.contract.test_acceptance import CHANGES, ORACLE, Edit
from tests.contract.test_acceptance import minimal as minimal_fixture
from tests.functional.conftest import Done
from tests.functional.conftest import cli as cli_fixture

Cli = Callable[..., Done]
cli, minimal = cli_fixture, minimal_fixture

#: Spack accepts it, the audit does not.
STRICTER = {
    "no-layout-json": "it is lost, and a repair writes it again",
    "index-manifest-version-4": "its schema is that of version 3",
    "index-manifest-wrong-length": "a length that is not that of the blob",
    "manifest-tarball-wrong-length": "a length that is not that of the blob",
    "spec-blob-corrupted": "nothing else binds a manifest to its package",
    "spec-blob-missing": "nothing else binds a manifest to its package",
    "bare-8-files": "nothing else binds a manifest to its package",
    "spec-entry-dropped-from-manifest": "nothing else binds a manifest to its package",
    "in_buildcache-all-true-externals-too": "the build dependencies are not there",
    "index-no-externals-dangling": "what a package links with may be lost, or external: nothing tells",
    "index-root-only-dangling": "a package without what it links with cannot be chosen",
}
#: Spack does not install from it, and nothing is damaged: the mirror offers less than it could.
SMALLER = {"no-index", "in_buildcache-false", "no-in_buildcache-key"}
#: Accepted by both, and told: a warning, or a note with a count.
TOLD = {
    "no-index": "the mirror has no index",
    "index-manifest-extra-keys": "the manifest has unknown keys ('hello')",
    "manifest-extra-keys": "the manifest has unknown keys ('hello') (and 2 more)",
}


def accepted(case: str) -> bool:
    answer = ORACLE[case]
    return bool(answer["list"]["exit"] == 0 and answer["list"]["specs"] and answer["install"]["by_hash"])


@pytest.mark.parametrize("case", list(ORACLE))
def test_the_audit_refuses_what_spack_refuses(
    cli: Cli, tmp_path: Path, minimal: tuple[Path, str], case: str
) -> None:
    mirror = shutil.copytree(minimal[0], tmp_path / "mirror")
    edit = Edit(mirror, minimal[1])
    # The oracle's mirror lists build dependencies that it does not hold, which is damage of its own.
    there = {path.name.removesuffix(".spec.manifest.json")[-32:] for path in edit.specs()}
    edit.keep(lambda hash_, record: not record.update(in_buildcache=hash_ in there))
    CHANGES[case](edit)
    done = cli("verify", mirror, "--unsigned", "--json")
    good = (accepted(case) and case not in STRICTER) or case in SMALLER
    assert (done.code, bool(done.json["problems"])) == ((0, False) if good else (9, True)), done.json
    assert [text for text in done.json["warnings"] if TOLD.get(case, "nothing") in text] or case not in TOLD
    assert case in TOLD or not done.json["warnings"]


def test_the_exceptions_are_cases_that_spack_answers_otherwise() -> None:
    assert all(accepted(case) for case in STRICTER)
    assert not any(accepted(case) for case in SMALLER)
