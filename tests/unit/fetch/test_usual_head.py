"""The short way to read the usual answer agrees with the strict parser, or leaves the answer to it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachefetch.fetch.transports.wire import BadAnswer, Unspoken, parse_head, usual_head

NGINX = (
    b"HTTP/1.1 200 OK\r\nServer: nginx\r\nContent-Type: application/octet-stream\r\nContent-Length: 51200\r\n"
    b'Connection: keep-alive\r\nETag: "65-c800"\r\nAccept-Ranges: bytes\r\n'
)


def test_the_usual_answer() -> None:
    assert usual_head(NGINX) == (51200, '"65-c800"')
    assert usual_head(b"HTTP/1.1 200 OK\r\ncontent-length:0\r\n") == (0, None)


@pytest.mark.parametrize(
    "head",
    [
        NGINX.replace(b"200 OK", b"206 Partial Content"),
        NGINX.replace(b"200 OK", b"404 Not Found"),
        NGINX.replace(b"HTTP/1.1", b"HTTP/1.0"),
        NGINX.replace(b"keep-alive", b"close"),
        NGINX + b"Transfer-Encoding: chunked\r\n",
        NGINX + b"Content-Encoding: gzip\r\n",
        NGINX + b"Content-Length: 51201\r\n",
        NGINX + b'ETag: "other"\r\n',
        NGINX.replace(b"51200", b"+51200"),
        NGINX.replace(b"51200", b"5 1200"),
        NGINX.replace(b"51200", b"9" * 19),
        NGINX.replace(b"Content-Length: 51200\r\n", b""),
        NGINX.replace(b"Content-Length:", b"Content-Length :"),
        NGINX.replace(b"ETag", b" ETag"),
        NGINX.replace(b"\r\nETag", b"\nETag"),
        NGINX[:-2],
        b"",
    ],
)
def test_any_other_answer_is_left_to_the_parser(head: bytes) -> None:
    assert usual_head(head) is None


_PIECES = [
    *NGINX.replace(b": ", b":\0").replace(b":\0", b": \0").split(b"\0"),
    b"\r\n",
    b":",
    b"Content-Length: 7",
]
_HEADS = st.lists(
    st.one_of(st.sampled_from([*NGINX.splitlines(keepends=True), *_PIECES]), st.binary(max_size=3)),
    max_size=12,
).map(b"".join)


@given(st.one_of(_HEADS, _HEADS.map(lambda more: NGINX + more)))
def test_what_it_says_is_what_the_parser_says(head: bytes) -> None:
    found = usual_head(head)
    if found is None:
        return
    try:
        answer = parse_head(head)
    except (BadAnswer, Unspoken) as error:
        raise AssertionError("only the parser refuses it") from error
    assert (answer.status, answer.plain, answer.keeps) == (200, True, True)
    assert (answer.length(), answer.headers.get("etag") or None) == found
