"""What people and programs see: documents on stdout, everything else on stderr."""

from __future__ import annotations

import json
import sys

from ..errors import CachefetchError, ResolutionError, SpecSyntaxError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any


def document(value: dict[str, Any]) -> None:
    """Print one JSON document on stdout."""
    sys.stdout.write(json.dumps(value, ensure_ascii=True) + "\n")


def line(text: str) -> None:
    """Print a line of the answer on stdout."""
    sys.stdout.write(text + "\n")


def say(text: str, args: argparse.Namespace | None = None) -> None:
    """Print a remark on stderr, unless ``--quiet``."""
    if args is None or not args.quiet:
        sys.stderr.write(text + "\n")


def report_error(error: Exception, *, as_json: bool, verbose: bool) -> int:
    """Print an error and return its exit code; a bug of ours is exit 1 and asks for a report."""
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
    sys.stderr.write(f"{_label('error:', '31')} {error.message}\n")
    if isinstance(error, SpecSyntaxError):
        sys.stderr.write("".join(f"  {text}\n" for text in error.caret().split("\n")))
    if error.hint:
        sys.stderr.write(f"{_label('hint:', '36')} {error.hint}\n")


def _label(text: str, colour: str) -> str:
    """Colour a label where a person sees it; colour never carries meaning."""
    given = [number for number, word in enumerate(sys.argv) if word.startswith("--color")]
    mode = "auto"
    if given:
        word = sys.argv[given[-1]]
        mode = word.partition("=")[2] or ([*sys.argv, "auto"])[given[-1] + 1]
    if mode == "always" or (mode == "auto" and sys.stderr.isatty()):
        return f"\x1b[1;{colour}m{text}\x1b[0m"
    return text
