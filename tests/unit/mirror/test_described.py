"""Which documents are read to settle what indexes write differently, and which of them counts."""

from __future__ import annotations

from typing import Any

from cachefetch.fetch.mirror.described import Documents, settled

A, B, C, X = ("a" * 32, "b" * 32, "c" * 32, "x" * 32)


def node(by: str) -> tuple[dict[str, Any], int]:
    return {"name": by}, 5


def documents(read: list[str], **nodes: dict[str, tuple[dict[str, Any], int]]) -> Documents:
    def of(path: str) -> dict[str, tuple[dict[str, Any], int]]:
        read.append(path)
        return nodes[path]

    return Documents({A: "a", B: "b", C: "c"}, of)


def test_a_packages_own_document_counts_and_no_other_is_read() -> None:
    read: list[str] = []
    found = documents(read, a={A: node("a"), B: node("a")}, b={B: node("b"), X: node("b")}, c={})
    assert (found.own(B), found.find(B), read) == (node("b"), node("b"), ["b"])
    assert (found.find(X), read) == (node("b"), ["b"])
    assert (found.own(X), found.find(A)) == (None, node("a"))


def test_of_what_has_no_document_the_first_counts_that_names_it_each_read_until_then() -> None:
    read: list[str] = []
    found = documents(read, a={A: node("a")}, b={B: node("b"), X: node("b")}, c={X: node("c")})
    assert (found.find(X), read) == (node("b"), ["a", "b"])
    assert (found.find("y" * 32), read) == (None, ["a", "b", "c"])
    assert (found.find("z" * 32), len(read)) == (None, 3)


def test_a_document_that_is_not_right_says_nothing_and_others_do() -> None:
    found = documents([], a={}, b={A: node("b")}, c={})
    assert (found.own(A), found.find(A)) == (None, node("b"))


def test_documents_are_asked_about_what_is_in_doubt_only() -> None:
    read: list[str] = []
    asked = documents(read, a={A: node("a")}, b={B: node("b")}, c={})
    lookup = settled({A: node("index"), B: node("index"), X: node("index")}.get, {A, X}.__contains__, asked)
    assert (lookup(B), read) == (node("index"), [])
    assert lookup(A) == node("a")
    assert lookup(X) == node("index")  # no document names it
    assert lookup(C) is None
