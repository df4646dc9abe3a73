"""What a mirror did wrong is told even when another mirror delivered (docs/security.md), by sync as by fetch."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.functional.conftest import DEBIAN, FIXTURES, KEY, MIRROR, Done, host
from tests.functional.test_repair import copy_of
from tests.functional.test_sync import files, sync, tarball_of, verified
from tests.functional.test_verify import blob_of, flip, manifest_of
from tests.functional.test_verify_formats import change_index, rewrite

from cachefetch import Client
from cachefetch.resolver.host.overrides import HostOverrides, parse_compiler, parse_libc

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


def lie(record: Any, how: str) -> None:
    """Describe another build, with more variants: so that this description is the fullest."""
    spec = record["spec"]
    spec["parameters"]["lie"] = True
    if how == "version":
        spec["version"] = "9.9"
    elif how == "name":
        spec["name"] = f"{spec['name']}-of-somebody"
    elif how == "dependencies":
        spec.pop("dependencies", None)
        spec["parameters"].update(dict.fromkeys(map(str, range(9)), "x"))


@pytest.mark.parametrize("how", ["variant", "version", "name", "dependencies"])
@pytest.mark.parametrize("layout", ["v3", "v2"])
def test_an_index_that_lies_denies_nothing_that_another_mirror_has(
    cli: Cli, tmp_path: Path, layout: str, how: str
) -> None:
    good = FIXTURES / f"{layout}-signed"
    liar, to, direct = copy_of(good, tmp_path / "liar"), tmp_path / "to", tmp_path / "direct"
    lying = 0

    def change(database: Any) -> None:
        nonlocal lying
        for record in database["installs"].values():
            if record["spec"]["name"] in ("zlib", "openssl") and "external" not in record["spec"]:
                lie(record, how)
                lying += 1

    (change_index if layout == "v3" else rewrite)(liar, change)
    assert sync(cli, "--all", source=good, to=direct).code == 0
    words = ("sync", "--all", "--from", liar, "--from", good, "--key", KEY, "--json")
    plan = cli(*words, "--dry-run", "--to", to)
    done = cli(*words, "--to", to)
    assert (done.code, done.json["problems"], lying > 2) == (0, [], True), done.out + done.err
    assert plan.json["plan"] == done.json["plan"]
    assert files(to) == files(direct)
    notes = [text for text in done.json["warnings"] if "disagree about" in text]
    assert len(notes) == lying
    assert all(str(liar) in note and str(good) in note for note in notes)
    assert cli("verify", to, "--key", KEY).code == 0
    again = cli(
        *words, "--to", direct
    )  # complete by another run: the liar's description gets not into the index
    assert again.code == 0, again.err
    assert files(to) == files(direct)


def test_what_no_description_fits_is_a_problem_still(cli: Cli, tmp_path: Path) -> None:
    liar, bad = (copy_of(FIXTURES / "v3-signed", tmp_path / name) for name in ("liar", "bad"))
    _, hash_ = tarball_of(bad, "openssl")
    next(bad.glob(f"v3/manifests/spec/openssl/*{hash_}*")).write_text("{}")
    change_index(liar, lambda database: lie(database["installs"][hash_], "variant"))
    done = cli(
        "sync", "--all", "--from", liar, "--from", bad, "--key", KEY, "--to", tmp_path / "to", "--json"
    )
    assert (done.code, [p["hash"] for p in done.json["problems"]]) == (9, [hash_]), done.err
    assert cli("verify", tmp_path / "to", "--key", KEY).code == 0


def liar_beside(good: Path, to: Path, change: Callable[[Any], None]) -> Path:
    liar = copy_of(good, to)
    change_index(liar, change)
    return liar


def test_an_extraction_too_tries_what_other_mirrors_say(cli: Cli, tmp_path: Path) -> None:
    good = FIXTURES / "v3-signed"

    def change(database: Any) -> None:
        for record in database["installs"].values():
            if record["spec"]["name"] == "zlib":
                lie(record, "variant")

    liar = liar_beside(good, tmp_path / "liar", change)
    done = cli("extract", "zlib", tmp_path / "to", "-m", liar, "-m", good, "--key", KEY, *DEBIAN, "--json")
    assert done.code == 0, done.err
    assert any("disagree about zlib" in str(warning) for warning in done.json["warnings"])


@pytest.mark.parametrize("how", ["cli", "client"])
def test_a_fetch_too_tries_what_other_mirrors_say(cli: Cli, tmp_path: Path, how: str) -> None:
    good = FIXTURES / "v3-signed"

    def change(database: Any) -> None:
        for record in database["installs"].values():
            if record["spec"]["name"] in ("zlib", "py-multidict"):
                lie(record, "variant")

    liar = liar_beside(good, tmp_path / "liar", change)
    if how == "client":
        with Client(mirrors=[str(liar), str(good)], keys=[KEY]) as client:
            libc, gcc = parse_libc("glibc@2.36"), parse_compiler("gcc@12.2.0")
            here = HostOverrides("linux", "debian12", "x86_64_v3", libc, (gcc,))
            receipt = client.fetch("py-multidict@6.1.0", host=client.host(here))
        codes = {warning.code: warning.message for warning in receipt.warnings}
        assert {"zlib", "py-multidict"} <= {item.name for item in receipt.items}
    else:
        words = ("fetch", "py-multidict@6.1.0", "-m", liar, "-m", good, "--key", KEY, *DEBIAN, "--json")
        done = cli(*words)
        assert done.code == 0, done.err
        codes = {warning["code"]: warning["message"] for warning in done.json["warnings"]}
        assert cli(*words).code == 0  # what is in the store does not depend on it
    assert str(liar) in codes["mirrors-disagree"]
    assert str(good) in codes["mirrors-disagree"]


def test_an_index_that_makes_a_binary_fit_does_not_choose_it(cli: Cli, tmp_path: Path) -> None:
    """The choice is made anew, so that nothing is delivered that does not run here."""
    good = FIXTURES / "v3-signed"
    old = host("linux", "debian12", "x86_64", "glibc@2.36", "gcc@12.2.0")

    def change(database: Any) -> None:
        for record in database["installs"].values():
            if record["spec"]["arch"]["target"] == "x86_64_v3":
                lie(record, "variant")
                record["spec"]["arch"]["target"] = "x86_64"

    liar = liar_beside(good, tmp_path / "liar", change)
    words = ("zlib", "-m", liar, "-m", good, "--key", KEY, *old, "--json")
    assert cli("resolve", *words).code == 0  # who only asks an index believes it
    done = cli("fetch", *words)
    assert (done.code, done.json["status"]) == (3, "no-candidate"), done.out + done.err


def _of_zlib(change: Callable[[Any], object]) -> Callable[[Any], None]:
    def changed(database: Any) -> None:
        for record in database["installs"].values():
            if record["spec"]["name"] == "zlib":
                change(record["spec"])

    return changed


def _paths_of_externals(database: Any) -> None:
    for record in database["installs"].values():
        if "external" in record["spec"]:
            record["spec"]["external"]["path"] = "/a"  # the first of all


UNSEEN: dict[str, Callable[[Any], None]] = {
    "no arch, so that nobody can read it": _of_zlib(lambda spec: spec.update(arch=None)),
    "version that is a number": _of_zlib(lambda spec: spec.update(version=1.3)),
    "hash of the recipe": _of_zlib(lambda spec: spec.update(package_hash="x" * 56)),
    "not concrete": _of_zlib(lambda spec: spec.update(concrete=False)),
    "annotations": _of_zlib(lambda spec: spec.update(annotations={"compiler": "evil@1"})),
    "paths of externals": _paths_of_externals,
}


@pytest.mark.parametrize("what", UNSEEN)
@pytest.mark.parametrize("layout", ["v3", "v2"])
def test_the_index_of_the_destination_says_what_the_documents_say(
    cli: Cli, tmp_path: Path, layout: str, what: str
) -> None:
    """What is no part of a description, or makes a record unreadable, came from the index that was named first."""
    good = FIXTURES / f"{layout}-signed"
    liar, direct = copy_of(good, tmp_path / "liar"), tmp_path / "direct"
    (change_index if layout == "v3" else rewrite)(liar, UNSEEN[what])
    assert sync(cli, "--all", source=good, to=direct).code == 0
    for first, second in ((liar, good), (good, liar)):
        to = tmp_path / f"{first.name}-first"
        done = cli("sync", "--all", "--from", first, "--from", second, "--key", KEY, "--to", to, "--json")
        assert (done.code, done.json["problems"]) == (0, []), done.out + done.err
        audit = cli("verify", to, "--key", KEY, "--json")
        assert (audit.code, audit.json["problems"]) == (0, []), audit.out
        assert files(to) == files(direct)
