"""examples/mirror is what its script makes, and the page helper writes what real pages look like."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.tools.page_from_mirror import Era, installs_of, page_text

SCRIPT = "tools/make_example_mirror.py"


def files_below(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }


def run_script(repository: Path, fixtures: Path, to: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(repository / SCRIPT), "--fixtures", str(fixtures), "--to", str(to)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_script_makes_the_committed_mirror_byte_for_byte(
    repository: Path, fixture_mirrors: Path, example_mirror: Path, example_key: Path, tmp_path: Path
) -> None:
    done = run_script(repository, fixture_mirrors / "v3-signed", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "18 binaries" in done.stdout
    assert files_below(tmp_path / "mirror") == files_below(example_mirror)
    assert (tmp_path / "mirror.pub.asc").read_bytes() == example_key.read_bytes()


def test_script_refuses_a_damaged_blob(repository: Path, example_mirror: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    for name, content in files_below(example_mirror).items():
        (damaged / name).parent.mkdir(parents=True, exist_ok=True)
        (damaged / name).write_bytes(content + (b" " if len(content) == 1688 else b""))  # the key's size
    done = run_script(repository, damaged, tmp_path / "out")
    assert done.returncode == 1
    assert "another digest than its name" in done.stderr


def test_all_but_the_index_is_copied_unchanged_from_spack(
    fixture_mirrors: Path, example_mirror: Path
) -> None:
    source = files_below(fixture_mirrors / "v3-signed")
    changed = {name for name, content in files_below(example_mirror).items() if source.get(name) != content}
    manifest = json.loads((example_mirror / "v3/manifests/index/index.manifest.json").read_text())
    digest = manifest["data"][0]["checksum"]
    assert changed == {"v3/manifests/index/index.manifest.json", f"blobs/sha256/{digest[:2]}/{digest}"}
    assert manifest["data"][0]["contentLength"] == os.path.getsize(
        example_mirror / f"blobs/sha256/{digest[:2]}/{digest}"
    )


def test_every_blob_has_the_digest_of_its_name(example_mirror: Path) -> None:
    blobs = [path for path in (example_mirror / "blobs").rglob("*") if path.is_file()]
    assert len(blobs) == 18 * 2 + 3  # tarball and spec of each, index, key, key list
    for path in blobs:
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name


def test_index_is_closed_and_marks_exactly_what_the_mirror_holds(example_mirror: Path) -> None:
    installs = installs_of(example_mirror)
    held = {path.name.split(".spec.")[0][-32:] for path in example_mirror.rglob("*.spec.manifest.json")}
    assert {dag_hash for dag_hash, record in installs.items() if record["in_buildcache"]} == held
    assert {edge["hash"] for edge in edges_of(installs)} <= installs.keys()
    assert {len(installs), len(held)} == {38, 18}
    assert not any("external" in installs[dag_hash]["spec"] for dag_hash in held)


def edges_of(installs: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    return [edge for record in installs.values() for edge in record["spec"].get("dependencies", [])]


def test_index_writer_reproduces_the_index_that_spack_wrote(repository: Path, fixture_mirrors: Path) -> None:
    """On the whole mirror of Spack 1.1 the rule for ref_count and the formatting give Spack's own bytes."""
    code = (
        "import sys, make_example_mirror as make; source = sys.argv[1]; installs = make.read_index(source);"
        "held = {key for key, record in installs.items() if record['in_buildcache']};"
        "make.write_index(sys.argv[2], make.make_index(installs, held))"
    )
    source = fixture_mirrors / "v3-signed"
    target = Path(os.environ["HOME"])
    subprocess.run(
        [sys.executable, "-c", code, str(source), str(target)],
        check=True,
        env={**os.environ, "PYTHONPATH": str(repository / "tools")},
    )
    name = "v3/manifests/index/index.manifest.json"
    assert (target / name).read_bytes() == (source / name).read_bytes()


def test_example_page_is_the_page_of_the_test_data(repository: Path) -> None:
    page = repository / "examples/pages/py-multidict.md"
    assert page.read_bytes() == (repository / "tests/data/pages/py-multidict.specs.md").read_bytes()


@pytest.mark.parametrize(("era", "compiler"), [("2024", "gcc@=12.2.0"), ("2025", "gcc@12.2.0")])
def test_page_has_the_keys_and_the_layout_of_a_real_one(
    repository: Path, example_mirror: Path, era: Era, compiler: str
) -> None:
    real = (repository / "tests/data/pages/py-multidict.specs.md").read_text().split("\n")
    made = page_text(example_mirror, "py-multidict", era=era).split("\n")
    assert [line.partition(":")[0] for line in made] == [line.partition(":")[0] for line in real]
    details = json.loads(made[5].partition(": ")[2])
    assert list(details[0]) == list(json.loads(real[5].partition(": ")[2])[0])
    assert list(json.loads(made[4].partition(": ")[2])) == list(json.loads(real[4].partition(": ")[2]))
    assert {d["hash"][:7]: d["target"] for d in details} == {
        "35dh3lm": "aarch64",
        "apj2lpn": "x86_64_v3",
        "grpkdln": "x86_64_v3",
        "z6rk5cu": "aarch64",
    }
    assert {d["compiler"] for d in details if d["os"] == "debian12"} == {compiler}
