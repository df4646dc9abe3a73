"""What a mirror did wrong is told even when another mirror delivered (docs/security.md), by sync as by fetch."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.functional.conftest import FIXTURES, KEY, MIRROR, Done
from tests.functional.test_sync import files, tarball_of, verified
from tests.functional.test_verify import blob_of, flip, manifest_of

Cli = Callable[..., Done]


def tarball_wrong(mirror: Path) -> None:
    flip(tarball_of(mirror, "zlib")[0])


def spec_wrong(mirror: Path) -> None:
    flip(blob_of(mirror, manifest_of(mirror, "zlib"), ".spec."))


def manifest_wrong(mirror: Path) -> None:
    path = next(mirror.glob("v3/manifests/spec/zlib/*.json"))
    path.write_text(path.read_text().replace('"gzip"', '"none"', 1))


def manifest_unsigned(mirror: Path) -> None:
    path = next(mirror.glob("v3/manifests/spec/zlib/*.json"))
    text = path.read_text()
    path.write_text(text[text.index("{") : text.rindex("}") + 1])


def both(cli: Cli, damaged: Path, to: Path, *words: str) -> Done:
    return cli(
        "sync", "--all", "--from", damaged, "--from", MIRROR, "--key", KEY, "--to", to, "--json", *words
    )


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (tarball_wrong, "digest-mismatch"),
        (spec_wrong, "digest-mismatch"),
        (manifest_wrong, "signature-invalid"),
        (manifest_unsigned, "signature-missing"),
    ],
)
def test_a_security_failure_of_one_mirror_is_told_when_another_delivers(
    cli: Cli, tmp_path: Path, damage: Callable[[Path], None], code: str
) -> None:
    damaged, to = shutil.copytree(MIRROR, tmp_path / "damaged"), tmp_path / "to"
    damage(damaged)
    done = both(cli, damaged, to)
    report: Any = done.json
    assert (done.code, report["status"], report["problems"]) == (0, "ok", [])
    [failure] = report["failures"]
    assert failure["code"] == code
    assert str(damaged) in failure["mirror"]
    [warning] = report["warnings"]
    assert warning.startswith(f"security ({code}): mirror {failure['mirror']}: ")
    assert f"warning: {warning}" in done.err
    assert verified(cli, to)["status"] == "ok"
    assert both(cli, Path(MIRROR), tmp_path / "direct").json["failures"] == []
    assert files(to) == files(tmp_path / "direct")


def test_what_proving_met_is_told_by_a_dry_run_too(cli: Cli, tmp_path: Path) -> None:
    damaged = shutil.copytree(MIRROR, tmp_path / "damaged")
    manifest_wrong(damaged)
    done = both(cli, damaged, tmp_path / "to", "--dry-run")
    assert [failure["code"] for failure in done.json["failures"]] == ["signature-invalid"]
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize("fixture", ["v3-signed", "v2-signed"])
def test_a_key_that_one_mirror_has_wrong_comes_from_another(cli: Cli, tmp_path: Path, fixture: str) -> None:
    source, to = FIXTURES / fixture, tmp_path / "to"
    damaged = shutil.copytree(source, tmp_path / "damaged")
    key = next(damaged.rglob("*.pub"), None) or next(
        path for path in damaged.glob("blobs/sha256/*/*") if b"PUBLIC KEY BLOCK" in path.read_bytes()
    )
    flip(key)
    words = ("zlib", "--from", damaged, "--key", KEY, "--json")
    done = cli("sync", *words, "--from", source, "--to", to)
    assert (done.code, done.json["problems"]) == (0, []), done.err
    [failure] = done.json["failures"]
    assert str(damaged) in failure["mirror"]
    assert (to / key.relative_to(damaged)).read_bytes() != key.read_bytes()
    alone = cli("sync", *words, "--to", tmp_path / "alone")
    assert (alone.code, [problem["name"] for problem in alone.json["problems"]]) == (9, ["key"])
