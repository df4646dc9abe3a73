"""The plan of a sync, the trust rule for what is recorded, and the journal."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cachefetch.errors import StoreError, UsageError
from cachefetch.fetch.mirror.destination import Destination, check_destination, locked
from cachefetch.fetch.mirror.journal import Journal, Row
from cachefetch.fetch.mirror.plan import Terms, is_complete, make_plan, meets_policy, shard_of
from cachefetch.fetch.model import Source, Wanted
from cachefetch.fetch.verify.openpgp import Keyring
from cachefetch.fetch.verify.policy import SignaturePolicy
from cachefetch.syncing import Selection, shard_numbers

KEY = "7" * 40
ROW = Row("zlib-1.3.1-" + "z" * 32, "a" * 64, 10, "b" * 64, 5, "good", KEY)


def source(mode: str, *, pinned: tuple[str, ...] = (), key: Path | None = None) -> Source:
    ring = Keyring.from_bytes(key.read_bytes(), what="key") if key else Keyring()
    return Source("m", "/m", SignaturePolicy(mode, frozenset(pinned)), ring)


def test_nothing_is_to_copy_where_everything_is() -> None:
    plan = make_plan([], [ROW], {"c" * 64: 3}, {"a" * 64: 10, "b" * 64: 5, "c" * 64: 3}, {})
    assert plan.to_dict() == {"copy_blobs": 0, "copy_bytes": 0, "present": 3, "prune": 0}


def test_a_blob_of_another_size_is_copied_again() -> None:
    plan = make_plan([], [], {"c" * 64: 3}, {"c" * 64: 2}, {"blobs/x": 9})
    assert plan.to_dict() == {"copy_blobs": 1, "copy_bytes": 3, "present": 0, "prune": 1}


def test_a_recorded_package_needs_both_blobs_with_their_sizes() -> None:
    assert is_complete(ROW, {"a" * 64: 10, "b" * 64: 5})
    assert not is_complete(ROW, {"a" * 64: 10})
    assert not is_complete(ROW, {"a" * 64: 9, "b" * 64: 5})


def test_a_record_counts_only_under_a_policy_that_it_meets(example_key: Path) -> None:
    fingerprint = "782919F9DB28EF14FA36F2A892DFACD7F6EA048A"
    good = replace(ROW, key=fingerprint)
    unchecked = replace(ROW, signature="not-required", key="")
    assert meets_policy(good, source("required", key=example_key))
    assert not meets_policy(good, source("required"))  # the key is not trusted any more
    assert not meets_policy(good, source("required", key=example_key, pinned=("A" * 40,)))
    assert not meets_policy(unchecked, source("required", key=example_key))
    assert not meets_policy(unchecked, source("if-present", key=example_key))
    assert meets_policy(unchecked, source("none"))


def test_shards_are_a_partition() -> None:
    things = [Wanted("p", "1", f"{n:032d}", ()) for n in range(200)]
    parts = [shard_of(things, i, 3, lambda text: hashlib.sha256(text.encode()).digest()) for i in (1, 2, 3)]
    assert sorted(one.hash for part in parts for one in part) == [one.hash for one in things]
    assert min(map(len, parts)) > 30


@pytest.mark.parametrize("text", ["", "1", "0/4", "5/4", "a/b", "1/", "-1/2"])
def test_shard_numbers_that_are_none(text: str) -> None:
    with pytest.raises(UsageError):
        shard_numbers(text)
    assert shard_numbers("4/4") == (4, 4)


def test_the_journal_keeps_rows_and_reads_those_of_all_workers(tmp_path: Path) -> None:
    one, two = Journal(str(tmp_path), "journal-1-of-2"), Journal(str(tmp_path), "journal-2-of-2")
    one.add(ROW)
    other = replace(ROW, stem="other-1-" + "o" * 32)
    two.add(other)
    one.close()
    two.close()
    whole = Journal(str(tmp_path))
    assert whole.rows == {ROW.stem: ROW, other.stem: other}
    assert ROW.hash == "z" * 32
    whole.remember("last", "x")
    whole.drop([ROW.stem])
    whole.add_all(whole.rows.values())
    whole.close()
    again = Journal(str(tmp_path), write=False)
    assert other.stem in again.rows
    assert again.meta("last") == ""  # opened for reading


def test_a_damaged_journal_is_put_aside(tmp_path: Path) -> None:
    (tmp_path / "journal.sqlite").write_bytes(b"garbage" * 1000)
    journal = Journal(str(tmp_path))
    assert journal.rows == {}
    assert "hashed again" in journal.problem
    assert (tmp_path / "journal.sqlite.damaged").exists()
    journal.add(ROW)
    journal.close()
    assert Journal(str(tmp_path), write=False).rows == {ROW.stem: ROW}


def test_a_lock_names_its_holder_and_workers_share_one(tmp_path: Path) -> None:
    here, there = Destination(str(tmp_path)), Destination(str(tmp_path))
    with (
        locked(here),
        pytest.raises(StoreError, match=r"another sync works on .*process [0-9]+ on "),
        locked(there),
    ):
        pass
    with locked(here, shared=True), locked(there, shared=True), pytest.raises(StoreError), locked(there):
        pass


def test_what_may_be_a_destination(tmp_path: Path) -> None:
    check_destination(str(tmp_path / "new"))
    check_destination(str(tmp_path))
    (tmp_path / "blobs").mkdir()
    check_destination(str(tmp_path))
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="not empty and not a mirror"):
        check_destination(str(tmp_path))
    (tmp_path / "v3").mkdir()
    check_destination(str(tmp_path))


def test_a_selection_says_when_it_is_the_same() -> None:
    assert Selection(("zlib",)).text() == Selection(("zlib",)).text()
    assert Selection(("zlib",)).text() != Selection(("zlib",), exclude=("@1",)).text()
    with pytest.raises(UsageError):
        Selection().check()


def nodes(**edges: tuple[str, str]) -> dict[str, dict[str, Any]]:
    """Return nodes of one-letter hashes; `edges` are (hashes needed to link or run, hashes needed to build)."""
    found: dict[str, dict[str, Any]] = {}
    for hash_, kinds in edges.items():
        found[hash_] = node = {
            "name": hash_,
            "version": "1",
            "hash": hash_,
            "arch": {"platform": "linux", "platform_os": "debian12", "target": "x86_64"},
            "parameters": {},
            "dependencies": [
                {"name": child, "hash": child, "parameters": {"deptypes": [kind], "virtuals": []}}
                for kind, children in zip(("link", "build"), kinds, strict=True)
                for child in children
            ],
        }
        if hash_ == "x":
            node["external"] = {"path": "/usr"}
    return found


CHAIN = nodes(a=("b", ""), b=("c", "d"), c=("x", ""), d=("", ""), x=("m", ""))


@pytest.mark.parametrize(
    ("terms", "held", "before", "waiting"),
    [
        (Terms(), "abc", "", ""),  # externals need nothing, builds are not needed
        (Terms(awaited=frozenset("c")), "ab", "ab", "ab"),  # listed before, and what it needs failed now
        (Terms(awaited=frozenset("c")), "abc", "", ""),  # it is there
        (Terms(), "ab", "", "ab"),  # failed in an earlier run
        (Terms(), "ab", "ab", ""),  # as it was: the sources never had it
        (Terms(), "ab", "b", ""),  # what it needs is listed
        (Terms(absent=frozenset("c")), "ab", "", ""),
        (Terms(absent=frozenset("c")), "a", "", "a"),
        (Terms(repair=True), "ab", "", ""),
    ],
)
def test_what_waits_for_others_is_not_listed(terms: Terms, held: str, before: str, waiting: str) -> None:
    assert terms.waiting(set(held), set(before), CHAIN) == set(waiting)


def test_a_spliced_package_waits_for_the_one_that_it_was_spliced_from() -> None:
    spliced = nodes(a=("", ""), o=("", ""))
    spliced["a"]["build_spec"] = {"name": "o", "hash": "o"}
    assert Terms().waiting({"a"}, (), spliced) == {"a"}
    assert Terms().waiting({"a", "o"}, (), spliced) == set()
