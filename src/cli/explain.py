"""``cachefetch explain FILE``: the explanation of a saved answer, without any mirror."""

from __future__ import annotations

import sys

from ..errors import UsageError
from ..resolver.explain import explain
from ..resolver.saved import read_resolution
from .options import add_output
from .report import document, line

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("file", metavar="FILE", help="made by `cachefetch resolve --json`; - for stdin")
    parser.add_argument("--all", action="store_true", help="list every candidate, not only the nearest")
    add_output(parser)


def execute(args: argparse.Namespace) -> int:
    """Print the explanation on stdout."""
    try:
        if args.file == "-":
            if sys.stdin is None:
                raise UsageError("cannot read the answer: stdin is closed")
            data = sys.stdin.buffer.read()
        else:
            with open(args.file, "rb") as file:
                data = file.read()
    except OSError as error:
        raise UsageError(f"cannot read {args.file}: {error.strerror}") from error
    answer = read_resolution(data, what=args.file)
    if args.json:
        document(answer.to_dict())
    else:
        line(explain(answer, everything=args.all))
    return answer.exit_code
