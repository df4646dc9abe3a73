"""The error for what could not be written: its hint fits the reason."""

from __future__ import annotations

import errno
import os
import sqlite3

import pytest

from cachefetch.errors import cannot_write

SPACE, WRITABLE, PLACE = "free some space", "make the directory writable", "in the place of a directory"


@pytest.mark.parametrize(
    ("number", "hint"),
    [
        (errno.ENOSPC, SPACE),
        (errno.EDQUOT, SPACE),
        (errno.EACCES, WRITABLE),
        (errno.EROFS, WRITABLE),
        (errno.EEXIST, PLACE),
        (errno.ENOTDIR, PLACE),
        (errno.EIO, "check the path"),
    ],
)
@pytest.mark.parametrize("cache", [True, False])
def test_the_hint_fits_the_reason(number: int, hint: str, cache: bool) -> None:
    error = cannot_write("x", "/c/x", OSError(number, os.strerror(number), "/c"), cache=cache, mirror="m")
    assert error.message == f"cannot write x: {os.strerror(number)}: /c"
    assert error.hint.startswith(hint) or hint in error.hint
    assert sum(words in error.hint for words in (SPACE, WRITABLE, PLACE)) == (number != errno.EIO)
    assert ("CACHEFETCH_CACHE_DIR" in error.hint) == cache
    assert (error.context["mirror"], error.context["errno"]) == ("m", errno.errorcode[number])


def test_sqlite_says_it_in_words() -> None:
    assert SPACE in cannot_write("x", "x", sqlite3.OperationalError("database or disk is full")).hint
    readonly = sqlite3.OperationalError("attempt to write a readonly database")
    assert WRITABLE in cannot_write("x", "x", readonly).hint
