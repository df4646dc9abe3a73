"""Plans, combined failures, and the documents of a receipt: pure values."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachefetch.errors import (
    AccessError,
    BindingError,
    CachefetchError,
    DigestError,
    FormatError,
    KeyNotTrustedError,
    MissingError,
    NetworkError,
    NotFoundError,
    NoUsableMirrorError,
    OfflineError,
    SignatureInvalidError,
    StoreError,
    TruncatedError,
)
from cachefetch.fetch.failures import caveats, for_package, for_run, rank, texts, unique
from cachefetch.fetch.model import Caveat, Failure, Item, Receipt, Source, VerifiedPackage, Wanted
from cachefetch.fetch.plan import plan
from cachefetch.fetch.store.cas import Stored
from cachefetch.fetch.verify.binding import SpecDocument
from cachefetch.fetch.verify.openpgp import Keyring
from cachefetch.fetch.verify.policy import SignaturePolicy
from cachefetch.resolver.index.readers.manifest import BlobRef

SOURCE = Source("m", "/mirror", SignaturePolicy("none"), Keyring())
WANTED = Wanted("zlib", "1.3.1", "a" * 32, (SOURCE,))
OTHER = Wanted("gmake", "4.4", "b" * 32, (SOURCE,))


def package(number: int, size: int) -> VerifiedPackage:
    ref = BlobRef("application/vnd.spack.install.v2.tar+gzip", f"{number:064x}", size, "gzip")
    document = SpecDocument((), {}, 5, False)
    return VerifiedPackage(WANTED, ref, ref, document, SOURCE, "not-required", None, False)


def test_plan_splits_what_is_here_from_what_is_not() -> None:
    packages = [package(1, 100), package(2, 30), package(3, 7), package(2, 30)]
    inventory = {f"{n:064x}": Stored(f"/s/{n}", size, "store") for n, size in [(1, 100), (3, 6), (9, 1)]}
    made = plan(packages, inventory)
    assert [step.stored.path if step.stored else None for step in made.steps] == ["/s/1", None, None, None]
    assert (made.get_bytes, made.reuse_bytes, made.reused) == (37, 100, 1)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 100)), max_size=8), st.data())
def test_plan_of_what_is_all_here_gets_nothing(pairs: list[tuple[int, int]], data: st.DataObject) -> None:
    sizes = dict(pairs)
    packages = [package(number, size) for number, size in sizes.items()]
    whole = {p.tarball.sha256: Stored("/s", p.tarball.size, "store") for p in packages}
    assert plan(packages, whole).get_bytes == 0
    keys = data.draw(st.sets(st.sampled_from(sorted(whole)))) if whole else set()
    made = plan(packages, {key: whole[key] for key in keys})
    assert made.get_bytes + made.reuse_bytes == sum(sizes.values())
    assert made.reused == len(keys)


def test_order_of_seriousness() -> None:
    order: list[CachefetchError] = [
        KeyNotTrustedError("t"),
        DigestError("i"),
        OfflineError("o"),
        NetworkError("n"),
        NotFoundError("f"),
    ]
    ranks = [rank(error) for error in order]
    assert ranks == sorted(set(ranks))
    assert rank(SignatureInvalidError("x")) == rank(KeyNotTrustedError("x"))
    assert rank(AccessError("x")) == rank(NetworkError("x"))


def test_error_of_one_package_names_each_mirror() -> None:
    failures = [
        Failure("a", NotFoundError("not there")),
        Failure("b", BindingError("another package", hint="tell the owner", context={"file": "f"})),
        Failure("c", NetworkError("down")),
    ]
    error = for_package(WANTED, failures)
    assert isinstance(error, BindingError)
    assert error.hint == "tell the owner"
    assert error.message == (
        "zlib@1.3.1/aaaaaaa: mirror a: not there; mirror b: another package; mirror c: down"
    )
    assert error.context["file"] == "f"
    assert error.context["hash"] == "a" * 32
    assert [m["code"] for m in error.context["mirrors"]] == ["not-found", "binding-mismatch", "network"]
    assert error.__cause__ is failures[1].error


def test_no_mirror_at_all() -> None:
    error = for_package(WANTED, [])
    assert isinstance(error, NoUsableMirrorError)
    assert "-m" in error.hint


def test_absent_packages_of_a_run_are_listed() -> None:
    error = for_run([(WANTED, NotFoundError("x")), (OTHER, NotFoundError("y"))], 5)
    assert isinstance(error, MissingError)
    assert error.missing == (("zlib", "a" * 32), ("gmake", "b" * 32))
    assert error.message == "2 of 5 packages cannot be fetched: x (and so for gmake@4.4/bbbbbbb)"
    json.dumps(error.to_dict())


def test_the_most_serious_package_gives_the_kind_of_the_run() -> None:
    error = for_run([(WANTED, NotFoundError("x")), (OTHER, TruncatedError("y", hint="h"))], 2)
    assert type(error) is TruncatedError
    assert error.hint == "h"
    assert [m["name"] for m in error.context["missing"]] == ["zlib"]
    assert [f["code"] for f in error.context["failures"]] == ["not-found", "size-mismatch"]


def test_absence_is_no_warning() -> None:
    failures = [
        Failure("a", NotFoundError("x")),
        Failure("b", FormatError("y")),
        Failure("c", AccessError("z")),
    ]
    assert caveats(failures) == (Caveat("bad-format", "y", "b"), Caveat("access-denied", "z", "c"))


def test_one_warning_of_the_network_for_each_mirror_but_all_of_security() -> None:
    told = [
        Caveat("network", "down for p1", "a"),
        Caveat("network", "down for p2", "a"),
        Caveat("network", "down for p1", "b"),
        Caveat("digest-mismatch", "p1", "a"),
        Caveat("digest-mismatch", "p2", "a"),
        Caveat("digest-mismatch", "p2", "a"),
        Caveat("key-not-trusted", "p1", "a"),
        Caveat("key-not-trusted", "p2", "a"),
    ]
    assert [w.message for w in unique(told)] == ["down for p1", "down for p1", "p1", "p2", "p1", "p2"]


@pytest.mark.parametrize("error", [StoreError("full")])
def test_errors_of_the_store_are_not_the_mirrors(error: CachefetchError) -> None:
    from cachefetch.fetch.failures import SOURCE_ERRORS

    assert not isinstance(error, SOURCE_ERRORS)


def test_receipt_is_the_document_of_the_command_line() -> None:
    item = Item("zlib", "1.3.1", "a" * 32, "c" * 64, 7, "network", "m", "/p", "good", "F" * 40)
    receipt = Receipt((item,), 9, (Caveat("digest-mismatch", "text", "bad"),))
    expected: dict[str, Any] = {
        "schema": "cachefetch/fetch/1",
        "status": "ok",
        "network_bytes": 9,
        "items": [
            {
                "name": "zlib",
                "version": "1.3.1",
                "hash": "a" * 32,
                "sha256": "c" * 64,
                "size": 7,
                "from": "network",
                "mirror": "m",
                "path": "/p",
                "verified": {
                    "digest": True,
                    "binding": True,
                    "signature": "good",
                    "key": "F" * 40,
                    "dag_hash": False,
                },
            }
        ],
        "warnings": [{"code": "digest-mismatch", "message": "text", "mirror": "bad"}],
    }
    assert receipt.to_dict() == expected


def test_a_sentence_for_each_mirror_and_kind_says_how_many_there_are() -> None:
    told = [
        Caveat("digest-mismatch", "zlib is wrong", "a"),
        Caveat("digest-mismatch", "gmake is wrong", "a"),
        Caveat("access-denied", "no entry", "b"),
        Caveat("store-damaged", "fetched again", ""),
    ]
    assert texts(told) == (
        "security (digest-mismatch): mirror a: zlib is wrong (and 1 more like this)",
        "mirror b: no entry",
        "fetched again",
    )
