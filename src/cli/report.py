"""What people and programs see: documents on stdout, everything else on stderr."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager

from ..errors import CachefetchError, ResolutionError, SpecSyntaxError, StoreError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from typing import Any, TextIO


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
        _remark(printable(text) + end)


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
            hint="free some space where stdout goes, or send it elsewhere",
        ) from None


def mute(stream: TextIO) -> None:
    """Lead a stream to nowhere, so that what it still holds gives no traceback when the process ends."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


def report_error(error: Exception, *, as_json: bool, verbose: bool) -> int:
    """Print an error and return its exit code; a bug of ours is exit 1 and asks for a report."""
    error = _leaf(error)
    if isinstance(error, ResolutionError):
        if as_json:
            document(error.resolution.to_dict())
        _problem(error)
        return error.exit_code
    if not isinstance(error, CachefetchError):
        error = _internal(error, verbose)
    if as_json:
        document(error.to_dict())
    _problem(error)
    return error.exit_code


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

        traceback.print_exception(error)
    wrapped = CachefetchError(
        f"internal error: {type(error).__name__}: {error}",
        hint="this is a bug in cachefetch; run again with -v for the traceback, and report it",
    )
    wrapped.code = "internal"
    return wrapped


def _problem(error: CachefetchError) -> None:
    """Print the message, the caret under a spec, and the hint, on stderr."""
    _remark(f"{_label('error:', '31')} {printable(error.message)}\n")
    if isinstance(error, SpecSyntaxError) and error.caret():
        _remark("".join(f"  {text}\n" for text in error.caret().split("\n")))
    if error.hint:
        _remark(f"{_label('hint:', '36')} {printable(error.hint)}\n")


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
