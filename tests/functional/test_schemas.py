"""Real documents of the choice against docs/schemas: nothing absent, nothing of another type, nothing undescribed."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from referencing import Registry, Resource
from tests.functional.conftest import FIXTURES, KEY, MIRROR, PAGE, ROOT, Done, host
from tests.unit.rules.cases import answer, load_all

Cli = Callable[..., Done]

NEW = host("linux", "ubuntu24.04", "zen4", "glibc@2.39:/usr", "gcc@13.2.0")
OLD = host("linux", "debian12", "x86_64_v3", "glibc@2.36:/usr", "gcc@12.2.0")
BIG = str(FIXTURES / "v3-unsigned")
NAMES = ("resolve", "fleet", "lock", "error")


def closed(schema: Any) -> Any:
    """Return the schema with every described object closed: a field that nobody described is an error here."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: closed(value) for key, value in schema.items()}
    if isinstance(found.get("required"), list):
        found["additionalProperties"] = False
    return found


SCHEMAS = {name: json.loads((ROOT / f"docs/schemas/{name}-1.json").read_text()) for name in NAMES}
REGISTRY: Registry[Any] = Registry().with_resources(
    (schema["$id"], Resource.from_contents(closed(schema))) for schema in SCHEMAS.values()
)


def check(document: Any) -> str:
    """Validate a document against the schema that it names; return that name."""
    kind, name, version = document["schema"].split("/")
    assert (kind, version) == ("cachefetch", "1")
    Draft202012Validator(closed(SCHEMAS[name]), registry=REGISTRY).validate(document)
    return str(name)


@pytest.mark.parametrize("name", NAMES)
def test_the_schemas_are_schemas(name: str) -> None:
    Draft202012Validator.check_schema(SCHEMAS[name])


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["py-multidict@6.1.0", "-m", PAGE, *NEW], 0),
        (["py-multidict@6.1.0", "-m", PAGE, *host("linux", "rocky9", "zen3", "glibc@2.34")], 3),
        (["py-multidict@99", "-m", PAGE, "-m", "/nowhere", *NEW], 3),
        (["no-such-package", "-m", PAGE, *NEW], 3),
        (["py-multidict", "-m", MIRROR, "--key", KEY, *OLD], 0),
        (["hdf5+mpi", "py-yarl", "zlib", "-m", BIG, *NEW], 0),
        (["hdf5+mpi", "py-yarl", "-m", BIG, *NEW, "--no-unify"], 0),
        (["py-multidict ^python@3.11", "py-yarl ^python@3.12", "-m", BIG, *NEW], 5),
        (["multidict>=6", "-m", PAGE, *NEW], 0),
        (["hdf5", "-m", BIG, "--platform", "darwin", "--os", "sequoia", "--target", "m2"], 0),
    ],
)
def test_answers(cli: Cli, tmp_path: Path, words: list[str], code: int) -> None:
    done = cli("resolve", *words, "--json")
    assert (done.code, check(done.json)) == (code, "resolve")
    saved = tmp_path / "saved.json"
    saved.write_text(done.out)
    again = cli("explain", saved, "--json")
    assert (again.code, again.json) == (code, done.json)


def test_an_incomplete_answer(cli: Cli, tmp_path: Path) -> None:
    mirror = Path(shutil.copytree(BIG, tmp_path / "mirror"))
    manifest = json.loads((mirror / "v3/manifests/index/index.manifest.json").read_bytes())
    digest = manifest["data"][0]["checksum"]
    index = json.loads((mirror / "blobs/sha256" / digest[:2] / digest).read_bytes())
    rows = index["database"]["installs"]
    for row in rows.values():
        row["in_buildcache"] = row["in_buildcache"] and row["spec"]["name"] != "zlib"
    bare = tmp_path / "index.json"
    bare.write_text(json.dumps(index))
    done = cli("resolve", "py-multidict", "-m", bare, *OLD, "--json")
    assert (done.code, check(done.json)) == (4, "resolve")
    assert {entry["name"] for entry in done.json["missing"]} == {"zlib"}


def test_fleets_and_answers_for_each_host(cli: Cli, tmp_path: Path) -> None:
    words = []
    for name, flags in (("new", NEW), ("old", OLD), ("mac", host("darwin", "sequoia", "m1"))):
        (tmp_path / name).write_text(cli("host", *flags, "--json").out)
        words += ["--host", str(tmp_path / name)]
    fleet = cli("resolve", "py-multidict", "zlib", "-m", BIG, *words[:4], "--json")
    assert (fleet.code, check(fleet.json), len(fleet.json["coverage"])) == (0, "resolve", 2)
    nothing = cli("resolve", "py-multidict", "-m", PAGE, *words[2:], "--json")
    assert (nothing.code, check(nothing.json), len(nothing.json["coverage"])) == (3, "resolve", 2)
    each = cli("resolve", "py-multidict", "-m", PAGE, *words, "--per-host", "--json")
    assert (check(each.json), len(each.json["hosts"])) == ("fleet", 3)


def test_lock_files_and_their_refusals(cli: Cli, tmp_path: Path) -> None:
    options, path = ["-m", MIRROR, "--key", KEY, *OLD], tmp_path / "x.lock"
    assert cli("resolve", "py-multidict", *options, "--lock", path).code == 0
    document = json.loads(path.read_bytes())
    assert check(document) == "lock"
    assert check(cli("resolve", "--locked", "--lock", path, *options, "--json").json) == "resolve"
    weaker = cli("resolve", "--locked", "--lock", path, "-m", MIRROR, "--unsigned", *OLD, "--json")
    assert (weaker.code, check(weaker.json)) == (7, "error")
    changed = copy.deepcopy(document)
    changed["packages"][0]["sha256"] = "0" * 64
    path.write_text(json.dumps(changed))
    for command in (["resolve", "--locked"], ["fetch"]):
        refused = cli(*command, "--lock", path, *options, "--json")
        assert (refused.code, check(refused.json), refused.json["code"]) == (6, "error", "lock-changed")
    elsewhere = cli(
        "fetch", "--lock", path, "-m", MIRROR, "--key", KEY, *host("linux", "x", "x86_64"), "--json"
    )
    assert (elsewhere.code, check(elsewhere.json)) == (2, "error")


@pytest.mark.parametrize(
    ("words", "code"),
    [(["zlib@", "-m", PAGE], 2), (["zlib", "-m", "/nowhere"], 8), (["zlib", "--no-such-option"], 2)],
)
def test_errors(cli: Cli, words: list[str], code: int) -> None:
    done = cli("resolve", *words, *OLD, "--json")
    assert (done.code, check(done.json)) == (code, "error")


def test_the_answers_of_all_cases() -> None:
    statuses = set()
    for case in load_all():
        document = answer(case)[0].to_dict()
        check(json.loads(json.dumps(document)))
        statuses.add(document["status"])
    assert statuses == {"ok", "no-candidate", "incomplete", "conflict"}


def test_what_a_schema_does_not_describe_is_found(cli: Cli) -> None:
    document = cli("resolve", "py-multidict", "-m", PAGE, *NEW, "--json").json
    spoils: tuple[Callable[[Any], object], ...] = (
        lambda d: d.pop("roots"),
        lambda d: d.update(status="fine"),
        lambda d: d["roots"][0].update(unheard=1),
        lambda d: d["roots"][0]["rejected"][0].update(reason="because"),
        lambda d: d["roots"][0]["chosen"].update(version=6),
    )
    for spoil in spoils:
        copied = copy.deepcopy(document)
        spoil(copied)
        with pytest.raises(ValidationError):
            check(copied)
