"""What is in the store already is accepted by the notes of earlier runs, exactly as long as nothing has changed."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.faults.mirror import unsigned, write_package
from tests.faults.run import fetch as engine_fetch
from tests.functional.conftest import DEBIAN, KEY, MIRROR, Done
from tests.test_import_time import PROGRAM

from cachefetch.errors import NotFoundError
from cachefetch.fetch import metadata, quick
from cachefetch.fetch.execute import new_run, plan_items, prove_items
from cachefetch.fetch.limits import Limits
from cachefetch.fetch.model import Failure, VerifiedPackage, Wanted
from cachefetch.fetch.present import keys_of
from cachefetch.fetch.session import Session
from cachefetch.fetch.store.cas import Store
from cachefetch.fetch.store.notes import Notes
from cachefetch.fetch.transports import Transports

Cli = Callable[..., Done]
NETWORK = {"anyio", "asyncio", "httpx", "httpcore", "ssl", "socket", "tenacity", "concurrent"}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "cachefetch" / "store"


def fetch(cli: Cli, *more: str) -> Done:
    return cli("fetch", "py-multidict@6.1.0", "-m", MIRROR, "--key", KEY, *DEBIAN, "--json", *more)


def without_origin(done: Done) -> list[dict[str, object]]:
    assert done.code == 0, done.err
    return [{**item, "from": ""} for item in done.json["items"]]


def damage_with_a_note(store: Path, path: Path) -> None:
    """Change a byte, and note that the file is right: what a disk does that loses a bit."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    path.chmod(0o444)
    one = Store(str(store))
    one.note(path.name, path.stat())
    one.notes.flush()


def test_the_second_fetch_has_the_same_receipt(cli: Cli, store: Path, tmp_path: Path) -> None:
    first = fetch(cli)
    assert (store / "proofs").stat().st_mode & 0o022 == 0
    second = fetch(cli)
    assert without_origin(first) == without_origin(second)
    assert {item["from"] for item in second.json["items"]} == {"store"}
    assert second.json["network_bytes"] == 0
    linked = fetch(cli, "--to", str(tmp_path / "out"))
    assert all(Path(item["path"]).is_file() for item in linked.json["items"])
    assert all(Path(item["path"]).parent == tmp_path / "out" for item in linked.json["items"])


@pytest.mark.parametrize("more", [(), ("--to", "out"), ("--lock", "lock"), ("--no-deps",)])
def test_nothing_of_the_network_is_loaded_when_all_is_present(
    repository: Path, tmp_path: Path, more: tuple[str, ...]
) -> None:
    env = {**os.environ, "PYTHONPATH": str(repository / ".dev"), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    mirror = ["-m", MIRROR, "--key", KEY]
    make_lock = ["resolve", "py-multidict@6.1.0", *mirror, *DEBIAN, "--lock", str(tmp_path / "lock")]
    what = [] if "--lock" in more else ["py-multidict@6.1.0"]
    words = [str(tmp_path / word) if word in ("out", "lock") else word for word in more]
    command = [sys.executable, "-c", PROGRAM]

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run([*command, *words], env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done

    run(*make_lock)
    first = run("fetch", *what, *mirror, *DEBIAN, "--json", *words)
    second = run("fetch", *what, *mirror, *DEBIAN, "--json", *words)
    assert len(json.loads(second.stdout)["items"]) == len(json.loads(first.stdout)["items"])
    loaded = set(second.stderr.split())
    assert "cachefetch.fetch.present" in loaded
    assert {name for name in loaded if NETWORK & {name, name.partition(".")[0]}} == set()


def test_a_note_is_what_makes_it_so(cli: Cli, store: Path) -> None:
    """A damaged file whose note says that it is right is believed: nothing was read. `cache verify` finds it."""
    path = Path(fetch(cli).json["items"][0]["path"])
    damage_with_a_note(store, path)
    assert fetch(cli).json["warnings"] == []
    done = cli("cache", "verify", "--json")
    assert (done.code, [p["path"] for p in done.json["problems"]]) == (9, [str(path)])
    assert [w["code"] for w in fetch(cli).json["warnings"]] == ["store-damaged"]
    assert cli("cache", "verify").code == 0


def test_another_byte_with_the_old_time_is_noticed(cli: Cli) -> None:
    path = Path(fetch(cli).json["items"][0]["path"])
    before = path.stat()
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    path.chmod(0o444)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert [w["code"] for w in fetch(cli).json["warnings"]] == ["store-damaged"]


@pytest.mark.parametrize("kind", ["manifests", "sha256"])
def test_a_lost_document_is_fetched_again(cli: Cli, store: Path, kind: str) -> None:
    items = fetch(cli).json["items"]
    payloads = {item["sha256"] for item in items}
    gone = [path for path in (store / kind).rglob("*") if path.is_file() and path.name not in payloads]
    gone[0].unlink()
    assert without_origin(fetch(cli)) is not None
    assert gone[0].exists()


def test_without_the_key_nothing_is_present(cli: Cli) -> None:
    fetch(cli)
    done = cli("fetch", "py-multidict@6.1.0", "-m", MIRROR, *DEBIAN, "--json", "--offline")
    assert (done.code, done.json["code"]) == (7, "key-not-trusted")


def test_pinned_to_another_key_nothing_is_present(cli: Cli, tmp_path: Path) -> None:
    config = tmp_path / "config" / "cachefetch" / "config.toml"
    config.parent.mkdir(parents=True)

    def configured(pins: str) -> Done:
        config.write_text(f'[mirrors.lab]\nurl = "{MIRROR}"\nkeys = [{pins}]\n')
        return cli("fetch", "py-multidict@6.1.0", *DEBIAN, "--json")

    assert cli("key", "trust", KEY).code == 0
    assert configured("").code == 0
    assert configured("").code == 0
    done = configured(f'"{"A" * 40}"')
    assert (done.code, done.json["context"]["reason"]) == (7, "not-pinned")
    assert configured("").code == 0
    assert cli("key", "untrust", next(iter(configured("").json["items"]))["verified"]["key"]).code == 0
    assert configured("").code == 7


def test_unsigned_is_no_proof_for_who_asks_for_signatures(cli: Cli) -> None:
    first = cli("fetch", "py-multidict@6.1.0", "-m", MIRROR, "--unsigned", *DEBIAN, "--json")
    assert {item["verified"]["signature"] for item in first.json["items"]} == {"not-required"}
    second = fetch(cli)
    assert {item["verified"]["signature"] for item in second.json["items"]} == {"good"}


def test_a_store_that_others_may_write_holds_no_notes(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = tmp_path / "shared"
    (shared / "store").mkdir(parents=True)
    (shared / "store").chmod(0o775)
    own = tmp_path / "cache" / "cachefetch" / "proofs"
    monkeypatch.setenv("CACHEFETCH_CACHE_DIR", str(shared))
    first, second = fetch(cli), fetch(cli)
    assert without_origin(first) == without_origin(second)
    assert not (shared / "store" / "proofs").exists()
    assert len(list(own.glob("*/proofs"))) == 1


def test_garbage_in_the_notes_changes_nothing(cli: Cli, store: Path) -> None:
    first = fetch(cli)
    (store / "proofs").write_bytes(os.urandom(10_000))
    assert without_origin(fetch(cli)) == without_origin(first)
    assert without_origin(fetch(cli)) == without_origin(first)


def test_a_store_without_a_place_for_notes_works(cli: Cli, store: Path) -> None:
    first = fetch(cli)
    (store / "proofs").unlink()
    (store / "proofs").mkdir()
    assert without_origin(fetch(cli)) == without_origin(first)


def test_what_a_dry_run_proved_is_not_proven_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, store = str(tmp_path / "mirror"), tmp_path / "engine"
    packages = [write_package(root, f"p{i}", 1000 + i) for i in range(4)]
    wanted = [package.wanted(unsigned("m", root)) for package in packages]
    limits = Limits()
    planned = plan_items(wanted, store=Store(str(store)), transports=Transports(limits))
    assert [step.stored for step in asyncio.run(planned).steps] == [None] * 4
    asked: list[str] = []
    real = metadata.stored

    def proving(session: Session, one: Wanted, failures: list[Failure]) -> VerifiedPackage | None:
        asked.append(one.name)
        return real(session, one, failures)

    monkeypatch.setattr(quick, "stored", proving)
    changed = next((store / "manifests").glob("p2-*"))
    changed.chmod(0o644)
    changed.write_bytes(changed.read_bytes() + b" ")
    receipt = engine_fetch(wanted, store)
    assert set(asked) == {"p2"}, "only what was changed"
    assert {item.origin for item in receipt.items} == {"network"}
    assert [item.sha256 for item in receipt.items] == [package.sha256 for package in packages]
    asked.clear()
    for path in (store / "sha256").rglob(packages[0].sha256):
        path.unlink()
    other = [package.wanted(unsigned("m", root), unsigned("n", root)) for package in packages]
    engine_fetch(other, store)
    assert set(asked) == {p.name for p in packages}, "another trust is another question"


def test_a_note_is_not_lengthened_by_a_run_that_rests_on_it(tmp_path: Path) -> None:
    root, place = tmp_path / "mirror", tmp_path / "engine"
    package = write_package(str(root), "p", 1000)
    wanted = [package.wanted(unsigned("m", str(root)))]
    [key] = keys_of(wanted)
    limits, store = Limits(), Store(str(place))
    asyncio.run(plan_items(wanted, store=store, transports=Transports(limits)))
    fields = store.notes.get(key)
    assert fields is not None
    store.notes.put(key, *fields, until=time.time() + 600)  # as of a signature that ends then
    store.notes.flush()
    (root / package.blob).unlink()

    async def as_for_a_name(store: Store) -> None:
        await prove_items(wanted, store=store, transports=Transports(limits))
        await new_run(wanted, store=store, transports=Transports(limits)).finish()

    with pytest.raises(NotFoundError):
        asyncio.run(as_for_a_name(Store(str(place))))

    def counts(after_s: float) -> bool:
        notes = Notes([str(place)], lambda: time.time() + after_s)
        notes.refresh()
        return notes.get(key) is not None

    assert (counts(500), counts(700)) == (True, False)
