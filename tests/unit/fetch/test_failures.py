"""What many packages and mirrors did wrong, told once."""

from __future__ import annotations

import pytest

from cachefetch.errors import CachefetchError, DigestError, KeyNotTrustedError, MissingError, NotFoundError
from cachefetch.fetch.failures import for_package, for_run
from cachefetch.fetch.model import Failure, Wanted


def wanted(number: int) -> Wanted:
    return Wanted(f"p{number}", "1.0", f"{number:032d}", ())


def failed(number: int, error: CachefetchError, mirror: str = "m") -> tuple[Wanted, CachefetchError]:
    return wanted(number), for_package(wanted(number), [Failure(mirror, error)])


def test_what_failed_alike_is_told_once() -> None:
    errors = [
        failed(n, KeyNotTrustedError(f"manifest p{n} is signed, but no key is trusted")) for n in range(1000)
    ]
    error = for_run(errors, 1000)
    assert isinstance(error, KeyNotTrustedError)
    assert error.message.count("no key is trusted") == 1
    assert error.message.startswith("1000 of 1000 packages cannot be fetched: p0@1.0")
    assert "and so for p1@1.0" in error.message
    assert error.message.endswith("and 995 more)")
    assert len(error.context["failures"]) == 1000


def test_different_failures_are_all_told() -> None:
    errors = [
        failed(1, NotFoundError("blob one is not there")),
        failed(2, DigestError("blob two is wrong")),
        failed(3, NotFoundError("blob three is not there"), mirror="other"),
    ]
    error = for_run(errors, 9)
    assert isinstance(error, DigestError)
    for text in ("3 of 9", "blob one", "blob two", "mirror other: blob three"):
        assert text in error.message


def test_one_package_keeps_its_own_words() -> None:
    error = for_run([failed(1, NotFoundError("blob one is not there"))], 1)
    assert isinstance(error, MissingError)
    assert error.message == f"{wanted(1)}: mirror m: blob one is not there"


def test_no_mirror_at_all() -> None:
    with pytest.raises(CachefetchError, match="no mirror to ask"):
        raise for_package(wanted(1), [])
