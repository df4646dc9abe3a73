"""What people and programs see: documents on stdout, everything else on stderr."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager

from ..errors import FULL, CachefetchError, ResolutionError, SpecSyntaxError, StoreError
from ..signals import Terminated

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence
    from typing import Any, TextIO


#: What the arguments of this run hold that no message may show, and what stands for it: users first.
_hidden: list[tuple[str, str]] = []


def hide_secrets(words: Sequence[str]) -> None:
    """Keep the users, passwords and queries of URLs among the arguments out of all messages to come."""
    found = {pair for word in words if set("@?#") & set(word) for pair in _secrets_of(word)}
    _hidden[:] = sorted(found, key=lambda pair: (pair[1], -len(pair[0]), pair[0]))


def _secrets_of(word: str) -> Iterator[tuple[str, str]]:
    """Yield (text, what stands for it). Passwords may hold unescaped / # ?, and a URL may lack its scheme."""
    import re

    url = re.search(r"[A-Za-z][A-Za-z0-9+.-]*:/+", word)
    if url is None:
        bare = re.match(r"(?:--[\w-]+=|-[A-Za-z])?([^\s/@:]+:\S*@)", word)
        if bare:
            yield bare[1], ""
        return
    rest = word[url.end() :]
    authority = re.split("[/?#]", rest, maxsplit=1)[0]
    if "@" in rest and not re.fullmatch(r"(\[[^]]*\]|[^:@]*)(:\d{0,5})?", authority):
        yield rest[: rest.index("@") + 1], ""
        yield rest[: rest.rindex("@") + 1], ""
    if tail := re.search(r"[?#](?=.)", rest):
        yield rest[tail.start() :], f"{tail[0]}..."


def public(text: str) -> str:
    """Return a text without the secrets of the arguments."""
    for secret, shown in _hidden:
        text = text.replace(secret, shown)
    return text


def _error_document(error: CachefetchError) -> None:
    import json

    text = json.dumps(error.to_dict(), ensure_ascii=True)
    for secret, shown in _hidden:
        text = text.replace(json.dumps(secret)[1:-1], shown)
    _answer(text + "\n")


def document(value: dict[str, Any]) -> None:
    """Print one JSON document on stdout."""
    import json

    _answer(json.dumps(value, ensure_ascii=True) + "\n")


def line(text: str) -> None:
    """Print a line of the answer on stdout."""
    _answer(printable(text) + "\n")


def raw(text: str) -> None:
    """Print text of our own on stdout as it is."""
    _answer(text)


def say(text: str, args: argparse.Namespace | None = None, *, end: str = "\n") -> None:
    """Print a remark on stderr, unless ``--quiet``."""
    if args is None or not args.quiet:
        _remark(printable(public(text)) + end)


def printable(text: str) -> str:
    """Return `text` with everything escaped that a terminal would obey: names in it may come from a mirror."""
    if text.isprintable():
        return text
    return "".join(c if c in "\n\t" or c.isprintable() else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    return (
        character.encode("ascii", "backslashreplace").decode()
        if character >= "\x7f"
        else repr(character)[1:-1]
    )


def _answer(text: str) -> None:
    """Write to stdout. Raises StoreError where it cannot be written, BrokenPipeError where nobody reads it."""
    if sys.stdout is None:
        raise StoreError(
            "cannot write the answer: stdout is closed", hint="do not start cachefetch with `>&-`"
        )
    with _stdout_errors():
        try:
            sys.stdout.write(text)
        except UnicodeEncodeError:  # the locale's encoding lacks a character: escaped is better than nothing
            sys.stdout.write(text.encode("ascii", "backslashreplace").decode())


def _remark(text: str) -> None:
    """Write to stderr; where that is impossible the command goes on, since its answer and exit code count."""
    if sys.stderr is None:
        return
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except OSError:
        mute(sys.stderr)


def flush() -> None:
    """Bring the answer out now, where a failure can still be told.

    Raises:
        StoreError: stdout cannot be written.
        BrokenPipeError: its reader has gone.
    """
    if sys.stdout is not None:
        with _stdout_errors():
            sys.stdout.flush()


@contextmanager
def _stdout_errors() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        mute(sys.stdout)
        raise StoreError(
            f"cannot write the answer to stdout: {error.strerror}",
            hint="free some space where stdout goes, or send it elsewhere" if error.errno in FULL else "",
        ) from None


def mute(stream: TextIO) -> None:
    """Lead a stream to nowhere, so that what it still holds gives no traceback when the process ends."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


def report_error(error: Exception, *, as_json: bool, verbose: bool, quiet: bool = False) -> int:
    """Print an error and return its exit code; a bug of ours is exit 1 and asks for a report. `quiet`: no hint."""
    error = _leaf(error)
    if isinstance(error, ResolutionError):
        if as_json:
            document(error.resolution.to_dict())
        _problem(error, quiet)
        return error.exit_code
    if not isinstance(error, CachefetchError):
        from .memory import exhausted

        error = exhausted(error) or _internal(error, verbose)
    if as_json:
        _error_document(error)
    _problem(error, quiet)
    return error.exit_code


def report_interruption(stopped: KeyboardInterrupt) -> int:
    """Say that Ctrl-C or SIGTERM ended the command, and return its exit code."""
    terminated = isinstance(stopped, Terminated)
    say("terminated" if terminated else "interrupted")
    return 143 if terminated else 130


def _leaf(error: Exception) -> Exception:
    """Return the first error of ours in a group, else the first of any kind; what is no group is itself."""
    leaves = [error]
    while isinstance(group := leaves[0], ExceptionGroup):
        leaves = [*group.exceptions, *leaves[1:]]
    ours = (leaf for leaf in leaves if isinstance(leaf, CachefetchError))
    return next(ours, leaves[0])


def _internal(error: Exception, verbose: bool) -> CachefetchError:
    if verbose:
        import traceback

        _remark(printable(public("".join(traceback.format_exception(error)))))
    wrapped = CachefetchError(
        f"internal error: {type(error).__name__}: {error}",
        hint="this is a bug in cachefetch; run again with -v for the traceback, and report it",
    )
    wrapped.code = "internal"
    return wrapped


def _problem(error: CachefetchError, quiet: bool) -> None:
    """Print the message, the caret under a spec, and the hint unless `quiet`, on stderr."""
    _remark(f"{_label('error:', '31')} {printable(public(error.message))}\n")
    if isinstance(error, SpecSyntaxError) and error.caret() and public(error.text) == error.text:
        _remark("".join(f"  {text}\n" for text in error.caret().split("\n")))
    if error.hint and not quiet:
        _remark(f"{_label('hint:', '36')} {printable(public(error.hint))}\n")


def _label(text: str, colour: str) -> str:
    """Colour a label where a person sees it; colour never carries meaning."""
    given = [number for number, word in enumerate(sys.argv) if word.startswith("--color")]
    mode = "auto"
    if given:
        word = sys.argv[given[-1]]
        mode = word.partition("=")[2] or ([*sys.argv, "auto"])[given[-1] + 1]
    if mode == "always" or (mode == "auto" and sys.stderr is not None and sys.stderr.isatty()):
        return f"\x1b[1;{colour}m{text}\x1b[0m"
    return text
