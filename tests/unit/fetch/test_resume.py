"""Where a transfer continues."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachefetch.fetch.resume import PartInfo, Start, continues, read_info, start, usable
from cachefetch.fetch.transports.ranges import content_range, retry_after, strong_etag
from cachefetch.fetch.transports.stall import StallGuard

URL = "https://m/blobs/x"
INFO = PartInfo(URL, '"v1"', "ab" * 32, 100)


@dataclass
class Answer:
    offset: int
    etag: str | None = None
    size: int | None = None
    encoding: str = ""


@pytest.mark.parametrize(
    ("info", "have", "url", "expected"),
    [
        (None, 0, URL, Start(0, None)),
        (None, 50, URL, Start(0, None)),
        (INFO, 0, URL, Start(0, None)),
        (INFO, 50, URL, Start(50, '"v1"')),
        (INFO, 50, "https://user:pw@m/blobs/x", Start(50, '"v1"')),
        (INFO, 50, "https://other/blobs/x", Start(50, None)),
        (PartInfo(URL, None, "ab" * 32, 100), 50, URL, Start(50, None)),
    ],
)
def test_start(info: PartInfo | None, have: int, url: str, expected: Start) -> None:
    assert start(info, have, url) == expected


@pytest.mark.parametrize(
    ("asked", "answer", "expected"),
    [
        (Start(50, '"v1"'), Answer(50, '"v1"'), True),
        (Start(50, '"v1"'), Answer(50, None), True),
        (Start(50, '"v1"'), Answer(50, '"v2"'), False),
        (Start(50, '"v1"'), Answer(0, '"v1"'), False),
        (Start(50, None), Answer(50, '"v2"'), True),
        (Start(50, None), Answer(0, None), False),
    ],
)
def test_continues(asked: Start, answer: Answer, expected: bool) -> None:
    assert continues(asked, answer) is expected  # type: ignore[arg-type]  # the values that count


@pytest.mark.parametrize(
    ("info", "have", "expected"),
    [
        (INFO, 1, True),
        (INFO, 100, True),
        (INFO, 0, False),
        (INFO, 101, False),
        (None, 50, False),
        (PartInfo(URL, None, "cd" * 32, 100), 50, False),
        (PartInfo(URL, None, "ab" * 32, 99), 50, False),
    ],
)
def test_usable(info: PartInfo | None, have: int, expected: bool) -> None:
    assert usable(info, have, sha256="ab" * 32, size=100) is expected


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"{", b"[]", b"null", b"7", b'{"url": 1}', b"\xff\xfe", INFO.encode()[:-5], b"[" * 100_000),
        json.dumps({"url": "u", "etag": None, "sha256": "a", "size": True}).encode(),
        json.dumps({"url": "u", "etag": 5, "sha256": "a", "size": 5}).encode(),
    ],
)
def test_damaged_sidecar_is_no_sidecar(data: bytes) -> None:
    assert read_info(data) is None


@given(st.text(), st.none() | st.text(), st.text(), st.integers(0))
def test_sidecar_round_trip(url: str, etag: str | None, sha256: str, size: int) -> None:
    info = PartInfo(url, etag, sha256, size)
    assert read_info(info.encode()) == info


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes 5-9/10", (5, 10)),
        ("bytes 5-9/*", (5, None)),
        ("BYTES 0-0/1", (0, 1)),
        (None, None),
        ("", None),
        ("bytes */10", None),
        ("bytes 9-5/10", None),
        ("bytes 5-10/10", None),
        ("items 5-9/10", None),
        ("bytes 5-9/10, 11-12/20", None),
    ],
)
def test_content_range(header: str | None, expected: tuple[int, int | None] | None) -> None:
    assert content_range(header) == expected


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ('"abc"', '"abc"'),
        ('""', '""'),
        ('W/"abc"', None),
        ("abc", None),
        ('"', None),
        (None, None),
        ("", None),
        ('"' + "x" * 300 + '"', None),
    ],
)
def test_strong_etag(header: str | None, expected: str | None) -> None:
    assert strong_etag(header) == expected


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("120", 120.0),
        (" 0 ", 0.0),
        ("Thu, 01 Jan 1970 00:20:00 GMT", 200.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("-5", None),
        ("soon", None),
        ("1.5", None),
        ("99999999999999999999", None),
        (None, None),
        ("", None),
    ],
)
def test_retry_after(header: str | None, expected: float | None) -> None:
    assert retry_after(header, 1000.0) == expected


def test_stall_guard() -> None:
    now = [0.0]
    guard = StallGuard(60, 1024, lambda: now[0])
    for second in range(1, 60):
        now[0] = second
        assert not guard.stalled(0)  # the window is not over
    now[0] = 60
    assert not guard.stalled(60 * 1024)  # just enough in all
    now[0] = 119.9
    assert not guard.stalled(1)
    now[0] = 120
    assert guard.stalled(1)
