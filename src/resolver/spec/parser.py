"""The parser of Spack's spec language: text to `Spec` values, with errors that point at the column.

Source: Spack 1.1 `spec_parser.py`, docs/semantics.md ("Grammar"). The scanner takes the first kind of token
that fits at a place, not the longest. Small patterns are compiled when first needed: start-up time counts.
"""

from __future__ import annotations

from ...errors import SpecSyntaxError
from ...values import changed
from .values import (
    DEPTYPES,
    FLAG_NAMES,
    HOST_OS_WORDS,
    HOST_TARGET_WORDS,
    MODERN_COMPILERS,
    Dependency,
    Flags,
    Spec,
    Variant,
)
from .versions import ANY, VersionRange, parse_versions, pattern

__all__ = ["Spec", "parse", "parse_many"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from ..model import Host
    from .versions import Versions

_IDENT = r"[A-Za-z0-9_][A-Za-z0-9_-]*"
_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
_VALUE = r"[A-Za-z0-9_\-+*.,:=%^~/\\]+"
_VERSION = r"=?[A-Za-z0-9_][A-Za-z0-9_.-]*\b"
_VERSION_ITEM = rf"(?:(?:{_VERSION})?:(?:{_VERSION}(?!\s*=))?|{_VERSION})"
_VERSION_LIST = rf"@\s*({_VERSION_ITEM}(?:\s*,\s*{_VERSION_ITEM})*)"
_GIT_REF = r"(?:git\.[A-Za-z0-9_][A-Za-z0-9_./-]*|[0-9a-fA-F]{40}(?![A-Za-z0-9_.-]))"
_GIT_VERSION = rf"@({_GIT_REF}(?:=[A-Za-z0-9_][A-Za-z0-9_.-]*\b)?)"
_ASSIGNMENT = rf"\s*({_IDENT}(?:,{_IDENT})*)=({_IDENT})"
_FILE = r"(?:[./]|[A-Za-z0-9_-]+/)[A-Za-z0-9_./-]*\.(?:json|yaml)"

_EXPECTED = (
    "expected a package name, `@version`, `+variant`, `name=value`, `%dependency`, `^dependency` or `/hash`"
)
_OPERATORS = "write a version range: `@6:` is 6 or newer, `@:6` up to 6.x, `@6:7` both"
_HINTS = {
    "=": "write `name=value` without spaces around `=`, and quote a value that has spaces",
    "@": "a version, range or list follows `@`, for example `@1.2`, `@1.2:`, `@=1.2.3`",
    "/": "at least one letter or digit of a DAG hash follows `/`",
    ">": _OPERATORS,
    "<": _OPERATORS,
    "!": "a spec cannot exclude a version; list the ranges that you want, as in `@:1.2,1.4:`",
    ",": "commas stand in values and version lists, and between virtuals before their package: `%c,cxx=gcc`",
    ":": "a version range has no spaces around `:` and only one `:`",
    "'": "quotes go around a value: `cflags='-O2 -g'`",
    '"': "quotes go around a value: `cflags='-O2 -g'`",
    "[": "attributes of a dependency follow `%` or `^` directly: `%[virtuals=c] gcc`",
    "(": "a spec has no parentheses",
}


class _Token:
    """One token: `kind`, its place in the text, and what it says (`name`, `value` depend on the kind)."""

    __slots__ = ("end", "kind", "name", "spaced", "start", "value")

    def __init__(self, kind: str, start: int, end: int, name: str = "", value: str = "") -> None:
        self.kind = kind
        self.start = start
        self.end = end
        self.name = name
        self.value = value
        self.spaced = False


def parse(text: str, *, host: Host | None = None) -> Spec:
    """Parse exactly one spec; an empty text is the anonymous spec that everything meets.

    Args:
        text: the spec.
        host: replaces ``os=fe``, ``target=be`` and the like; without it they stay as written.

    Raises:
        SpecSyntaxError: the text is no spec, or more than one.
    """
    found = _Parser(text).specs()
    if len(found) > 1:
        start = found[1][1]
        end = next((i for i in range(start, len(text)) if text[i].isspace()), len(text))
        _fail(
            f"expected one spec, but `{text[start:end]}` starts another",
            text,
            start,
            end - start,
            hint="a name after the first starts a new spec; `^name` asks for a dependency",
        )
    spec = found[0][0] if found else Spec()
    return spec.bind(host) if host else spec


def parse_many(text: str, *, host: Host | None = None) -> tuple[Spec, ...]:
    """Parse any number of specs: a package name or a second ``/hash`` starts the next one.

    Args:
        text: the specs.
        host: as in `parse`.

    Raises:
        SpecSyntaxError: the text is no list of specs.
    """
    specs = tuple(spec for spec, _ in _Parser(text).specs())
    return tuple(spec.bind(host) for spec in specs) if host else specs


def _fail(message: str, text: str, column: int, length: int = 1, hint: str = "") -> NoReturn:
    raise SpecSyntaxError(message, text, column, length, hint=hint)


# -- scanner ---------------------------------------------------------------------------------------------------


def _tokens(text: str) -> list[_Token]:
    found = []
    position = 0
    spaced = False
    while position < len(text):
        if text[position].isspace():
            position += 1
            spaced = True
            continue
        token = _token(text, position)
        token.spaced = spaced
        found.append(token)
        position = token.end
        spaced = False
    return found


def _token(text: str, at: int) -> _Token:
    """Return the token at a place that is no white space."""
    first = text[at]
    if first in "^%":
        return _sigil(text, at)
    if first == "]":
        return _assigned(_Token("]", at, at + 1), text)
    if first == "@":
        return _version(text, at)
    if first in "+~-":
        match = pattern(rf"(\+\+|~~|--|[+~-])\s*({_NAME})").match(text, at)
        if match:
            return _Token("bool", at, match.end(), match[2], match[1])
        raise _unexpected(text, at, f"expected the name of a variant after `{first}`")
    return _word(text, at)


def _sigil(text: str, at: int) -> _Token:
    length = 2 if text.startswith("%%", at) else 1
    sigil = text[at : at + length]
    if text.startswith("[", at + length):
        return _Token("[", at, at + length + 1, value=sigil)
    return _assigned(_Token("edge", at, at + length, value=sigil), text)


def _assigned(token: _Token, text: str) -> _Token:
    """Take ``virtuals=package`` into the token before it; it has kind, `name` virtuals and package."""
    match = pattern(_ASSIGNMENT).match(text, token.end)
    if match:
        token.name = f"{match[1]}={match[2]}"
        token.end = match.end()
    return token


def _version(text: str, at: int) -> _Token:
    match = pattern(_GIT_VERSION).match(text, at) or pattern(_VERSION_LIST).match(text, at)
    if not match:
        raise _unexpected(text, at, "expected a version after `@`")
    return _Token("version", at, match.end(), value=match[1])


def _word(text: str, at: int) -> _Token:
    if token := _key_value(text, at):
        return token
    if "/" in text or text[at] == ".":
        file = pattern(_FILE).match(text, at)
        if file:
            hint = "give the hash in the file as /HASH"
            _fail(f"`{file[0]}` is a spec file; cachefetch reads none here", text, at, len(file[0]), hint)
    if text[at] == "*":
        return _Token("name", at, at + 1)
    if match := pattern(rf"{_IDENT}(?:\.{_IDENT})*").match(text, at):
        return _Token("name", at, match.end(), match[0])
    if match := pattern(r"/([A-Za-z0-9_]+)").match(text, at):
        return _Token("hash", at, match.end(), value=match[1])
    raise _unexpected(text, at, _EXPECTED)


def _key_value(text: str, at: int) -> _Token | None:
    key = pattern(rf"({_NAME})(:?=)").match(text, at)
    if not key:
        return None
    # `==` propagates where a value follows it; otherwise the value itself starts with `=`.
    for operator in (key[2] + "=", key[2]):
        start = key.start(2) + len(operator)
        if not text.startswith(operator, key.start(2)):
            continue
        if text[start : start + 1] in ("'", '"'):
            end = _closing_quote(text, start)
            quote = text[start]
            value = text[start + 1 : end].replace("\\" + quote, quote)
            return _Token("key" + operator, at, end + 1, key[1], value)
        if match := pattern(_VALUE).match(text, start):
            return _Token("key" + operator, at, match.end(), key[1], match[0])
    return None


def _closing_quote(text: str, start: int) -> int:
    """Return the place of the quote that closes the one at `start`; a backslash hides a quote."""
    quote = text[start]
    end = text.find(quote, start + 1)
    while end > 0 and text[end - 1] == "\\":
        end = text.find(quote, end + 1)
    if end < 0:
        _fail(f"the quote {quote} is not closed", text, start, len(text) - start)
    return end


def _unexpected(text: str, at: int, expected: str) -> SpecSyntaxError:
    shown = text[at] if text[at].isprintable() else repr(text[at])
    following = text[at + 1 : at + 2]
    hint = _OPERATORS if text[at] == "@" and following in ("<", ">", "~", "!") else _HINTS.get(text[at], "")
    return SpecSyntaxError(f"unexpected `{shown}`; {expected}", text, at, hint=hint)


# -- parser ----------------------------------------------------------------------------------------------------


class _Draft:
    """A node while it is read."""

    def __init__(self, start: int) -> None:
        self.start = start
        self.name = ""
        self.namespace = ""
        self.versions: Versions = ANY
        self.has_version = False
        self.variants: dict[str, Variant] = {}
        self.flags: dict[tuple[str, bool], tuple[str, ...]] = {}
        self.places: dict[str, str] = {}
        self.has_arch = False
        self.hash = ""
        self.edges: list[tuple[int, int, Dependency, _Draft]] = []
        self.is_empty = True

    def finish(self, text: str, notes: tuple[str, ...] = ()) -> Spec:
        """Return the value; edges are merged and sorted."""
        flags = tuple(
            Flags(name, words, propagate) for (name, propagate), words in sorted(self.flags.items())
        )
        return Spec(
            self.name,
            self.namespace,
            self.versions,
            self.variants,
            flags,
            self.places.get("platform", ""),
            self.places.get("os", ""),
            self.places.get("target", ""),
            self.hash,
            self._finished_edges(text) if self.edges else (),
            notes=notes,
        )

    def _finished_edges(self, text: str) -> tuple[Dependency, ...]:
        from .relations import merge_edges  # only specs with dependencies pay for it

        found: tuple[Dependency, ...] = ()
        for start, end, edge, draft in self.edges:
            try:
                found = merge_edges(found, (changed(edge, spec=draft.finish(text)),))
            except ValueError as error:
                _fail(str(error), text, start, end - start, "remove one of the two, or make them agree")
        return found


class _Parser:
    """Recursive descent over the tokens of one text."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = _tokens(text)
        self.next = 0
        self.notes: list[str] = []

    def specs(self) -> list[tuple[Spec, int]]:
        """Return the specs with the column where each starts."""
        found = []
        while self.next < len(self.tokens):
            start = self.tokens[self.next].start
            found.append((self._spec(), start))
        return found

    def _peek(self) -> _Token | None:
        return self.tokens[self.next] if self.next < len(self.tokens) else None

    def _spec(self) -> Spec:
        self.notes = []
        root = self._node(direct=False)
        if root.is_empty and (token := self._peek()) and token.kind == "]":
            _fail("unexpected `]`", self.text, token.start, hint=_HINTS["["])
        latest = root
        while (token := self._peek()) and token.kind in ("edge", "["):
            self.next += 1
            direct = token.value != "^"
            edge, opening = self._edge(token, direct)
            child = self._child(opening, direct)
            end = self.tokens[self.next - 1].end
            parent = latest if direct else root
            parent.edges.append((child.start, end, edge, child))
            if not direct:
                latest = child
        if token and token.kind == "]":
            _fail("unexpected `]`", self.text, token.start, hint=_HINTS["["])
        return root.finish(self.text, tuple(dict.fromkeys(self.notes)))

    def _edge(self, token: _Token, direct: bool) -> tuple[Dependency, _Token]:
        """Return the edge without its node, and the token after which the node starts."""
        given: dict[str, _Token] = {}
        opening = token
        if token.kind == "[":
            while (part := self._peek()) and part.kind != "]":
                self.next += 1
                given[part.name] = self._checked_attribute(part)
            if part is None:
                _fail(
                    "the `[` of this dependency is not closed", self.text, token.start, 2, "close it with `]`"
                )
            opening = part
            self.next += 1
        virtuals = self._names(given["virtuals"]) if "virtuals" in given else []
        deptypes = self._deptypes(given["deptypes"]) if "deptypes" in given else ()
        when = self._condition(given["when"]) if "when" in given else None
        if opening.name:
            virtuals += opening.name.partition("=")[0].split(",")
        virtuals = sorted(set(virtuals))
        return Dependency(Spec(), direct, tuple(virtuals), deptypes, when, token.value == "%%"), opening

    def _checked_attribute(self, part: _Token) -> _Token:
        if part.kind not in ("key=", "key:="):
            self._fail_at(
                part, "expected `when=`, `virtuals=` or `deptypes=` in the attributes of a dependency"
            )
        if part.name not in ("when", "virtuals", "deptypes"):
            hint = "attributes are `when`, `virtuals` and `deptypes`"
            self._fail_at(part, f"`{part.name}` is no attribute of a dependency", hint)
        return part

    def _names(self, part: _Token) -> list[str]:
        names = part.value.split(",")
        if not all(pattern(_IDENT).fullmatch(name) for name in names):
            self._fail_at(part, "expected names of virtual packages")
        return names

    def _deptypes(self, part: _Token) -> tuple[str, ...]:
        names = part.value.split(",")
        if "all" in names:
            return DEPTYPES
        if unknown := [name for name in names if name not in DEPTYPES]:
            hint = "types are build, link, run and test"
            self._fail_at(part, f"`{unknown[0]}` is no dependency type", hint)
        return tuple(name for name in DEPTYPES if name in names)

    def _condition(self, part: _Token) -> Spec:
        try:
            return parse(part.value)
        except SpecSyntaxError as error:
            self._fail_at(part, f"in `when`: {error.message}", error.hint)

    def _child(self, opening: _Token, direct: bool) -> _Draft:
        _, _, provider = opening.name.partition("=")
        child = self._node(direct, provider)
        if child.is_empty:
            _fail(
                f"expected a package or a constraint after `{self.text[opening.start : opening.end]}`",
                self.text,
                opening.start,
                opening.end - opening.start,
                "`^*` stands for any dependency",
            )
        if direct:
            child.name = MODERN_COMPILERS.get(child.name, child.name)
        return child

    def _node(self, direct: bool, name: str = "") -> _Draft:
        token = self._peek()
        draft = _Draft(token.start if token else len(self.text))
        if name:
            draft.name = name
            draft.is_empty = False
            draft.start = self.tokens[self.next - 1].start
        elif token and token.kind == "name":
            self.next += 1
            draft.namespace, _, draft.name = token.name.rpartition(".")
            draft.is_empty = False
        while (token := self._peek()) and self._attribute(draft, token):
            self.next += 1
            if direct and token.spaced and draft.name and token.kind != "version":
                self.notes.append(
                    f"`{self.text[token.start : token.end]}` after `%{draft.name}` is asked of {draft.name}; "
                    "to ask it of the package, write it before the `%`"
                )
            draft.is_empty = False
        return draft

    def _attribute(self, draft: _Draft, token: _Token) -> bool:
        """Take one attribute into the node; False where the token does not belong to it."""
        if token.kind == "version":
            self._take_version(draft, token)
        elif token.kind == "bool":
            name, sign = token.name, token.value
            self._add_variant(draft, Variant(name, sign[0] == "+", propagate=len(sign) == 2), token)
        elif token.kind.startswith("key"):
            self._take_key(draft, token)
        elif token.kind == "hash" and not draft.hash:
            draft.hash = token.value.lower()  # hashes are lower-case (docs/semantics.md, "Determinism")
        else:
            return False
        return True

    def _fail_at(self, token: _Token, message: str, hint: str = "") -> NoReturn:
        _fail(message, self.text, token.start, token.end - token.start, hint)

    def _take_version(self, draft: _Draft, token: _Token) -> None:
        if draft.has_version:
            self._fail_at(token, "a second version for one package", "join versions with a comma: `@1.2,1.4`")
        try:
            draft.versions = parse_versions(token.value)
        except SpecSyntaxError as error:
            self._fail_at(token, error.message, error.hint)
        draft.has_version = True
        if "," in token.value and any(
            not isinstance(i, VersionRange) and i.is_git for i in draft.versions.items
        ):
            self._fail_at(token, "a git version cannot stand in a list of versions", "ask for it alone")
        if draft.versions.is_empty:
            self.notes.append(f"`@{token.value}` is an empty range: no version meets it")
        elif "," in token.value and str(draft.versions) != token.value.replace(" ", ""):
            self.notes.append(f"`@{token.value}` is read as `@{draft.versions}`")

    def _add_variant(self, draft: _Draft, variant: Variant, token: _Token) -> None:
        if variant.name in draft.variants:
            self._fail_at(token, f"variant `{variant.name}` is given twice")
        draft.variants[variant.name] = variant

    def _take_key(self, draft: _Draft, token: _Token) -> None:
        name, value = token.name, token.value
        propagate = token.kind.endswith("==")
        if name in FLAG_NAMES:
            if words := tuple(value.split()):
                key = (name, propagate)
                draft.flags[key] = draft.flags.get(key, ()) + words
                self._check_printable(token, " ".join(draft.flags[key]))
        elif name in ("arch", "architecture"):
            self._take_arch(draft, token)
        elif name in ("platform", "os", "operating_system", "target"):
            self._take_place(draft, "os" if name == "operating_system" else name, token)
        elif name == "namespace":
            if draft.namespace:
                self._fail_at(token, "a second namespace for one package")
            draft.namespace = value
        else:
            if propagate and not draft.name and value[:1].isdigit():
                self.notes.append(
                    f"`{name}=={value}` is read as a variant `{name}`; a version is `{name}@={value}`"
                )
            variant = _valued(name, value, ":" in token.kind, propagate)
            if not isinstance(variant.value, bool):
                self._check_printable(token, ",".join(variant.value))
            self._add_variant(draft, variant, token)

    def _check_printable(self, token: _Token, value: str) -> None:
        """Refuse what no text can say: in quotes, a final backslash hides the closing quote."""
        if value.endswith("\\") and not pattern(_VALUE).fullmatch(value):
            self._fail_at(token, "a value that needs quotes cannot end in a backslash")

    def _take_arch(self, draft: _Draft, token: _Token) -> None:
        if draft.has_arch or draft.places:
            self._fail_at(token, "a second architecture for one package")
        draft.has_arch = True
        parts = token.value.split("-")
        if len(parts) != 3:
            self.notes.append(
                f"`{token.value}` is not platform-os-target, so all of it is read as a target; "
                "use `platform=`, `os=` and `target=` for single parts"
            )
            parts = ["", "", token.value]
        for key, part in zip(("platform", "os", "target"), parts, strict=True):
            if part and part != "None":
                self._check_printable(token, part)
                draft.places[key] = part

    def _take_place(self, draft: _Draft, key: str, token: _Token) -> None:
        if draft.has_arch or key in draft.places:
            self._fail_at(token, f"`{key}` is given twice")
        draft.places[key] = token.value
        if key == "os" and "," in token.value:
            self.notes.append(f"`os={token.value}` is one label: no list of operating systems is possible")
        words = {"os": HOST_OS_WORDS, "target": HOST_TARGET_WORDS}.get(key, frozenset())
        if token.value in words and draft.places.get("platform") is None:
            self.notes.append(f"`{key}={token.value}` stands for this host's own {key}")


def _valued(name: str, value: str, exact: bool, propagate: bool) -> Variant:
    """Return the variant that ``name=value`` asks for; true and false in any case are booleans."""
    lowered = value.lower()
    if lowered in ("true", "false"):
        return Variant(name, lowered == "true", propagate=propagate)
    if value == "*":
        return Variant(name, (), propagate=propagate)
    return Variant(name, tuple(sorted(set(value.split(",")))), exact, propagate)
