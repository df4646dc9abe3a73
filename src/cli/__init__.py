"""The command line: one module a command, loaded when it is called. Uses only the public library."""

from __future__ import annotations

import sys

from ..errors import StoreError
from . import report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

#: Command -> (module here, one line of help). The order is that of the help.
COMMANDS = {
    "host": ("host", "show what was detected of this machine, and from where"),
    "resolve": ("resolve", "choose the best binary for this host, and say why"),
    "explain": ("explain", "explain a saved answer (resolve --json) without any mirror"),
    "fetch": ("fetch", "fetch and verify binaries with their link and run dependencies"),
    "list": ("listing", "list what the mirrors hold"),
    "show": ("show", "show one binary, its dependencies, and where it can be had"),
    "mirror": ("mirror", "add, remove or list mirrors, or ask each for its state"),
    "index": ("index", "show or renew the local copies of the mirrors' indexes"),
    "doctor": ("doctor", "check this installation, or say what a URL or directory is"),
    "sync": ("sync", "copy binaries with their closure into a mirror directory"),
    "verify": ("verify", "audit every manifest, signature, blob and index entry of a mirror"),
    "bundle": ("bundle", "export, import or verify bundles for removable media"),
    "key": ("key", "list, trust, untrust or fetch public keys"),
    "cache": ("cache", "show, clean or check what was fetched"),
    "extract": ("extract", "fetch, verify and unpack one package"),
    "completion": ("completion", "print the completion script of a shell"),
}

_HELP = """usage: cachefetch COMMAND [OPTION...] [ARGUMENT...]

Resolve, fetch and verify prebuilt binaries from Spack build caches, without Spack.

commands:
{commands}

cachefetch COMMAND --help   options of a command
cachefetch --version        version

exit codes: 0 done, 1 internal error, 2 usage, 3 nothing fits, 4 closure incomplete, 5 conflict,
            6 integrity, 7 trust, 8 network or mirror, 9 partly done, 10 disk or store, 130 interrupted,
            141 nobody reads stdout any more, 143 terminated
"""

#: Options without a value, which may stand before the command. The word behind any other option is its value.
FLAGS = frozenset(
    ("--json", "-q", "--quiet", "-v", "--verbose", "--offline", "--unsigned", "--refresh", "--require-fresh")
)


def run(argv: Sequence[str]) -> int:
    """Run one command.

    Args:
        argv: arguments without the program's name.

    Returns:
        The exit code (docs/cli.md).
    """
    words = list(argv)
    as_json, quiet = "--json" in words, "-q" in words or "--quiet" in words
    report.hide_secrets(words)
    try:
        try:
            code = _dispatch(words)
        except (KeyboardInterrupt, BrokenPipeError):
            raise
        except Exception as error:  # noqa: BLE001 -- the last line of defence: never a traceback
            verbose = "-v" in words or "--verbose" in words
            code = report.report_error(error, as_json=as_json, verbose=verbose, quiet=quiet)
        report.flush()
        return code
    except KeyboardInterrupt as stopped:
        return report.report_interruption(stopped)
    except BrokenPipeError:  # the reader of our output went away: no error of ours, and no traceback at exit
        report.mute(sys.stdout)
        return 141
    except StoreError as error:  # stdout cannot be written, so the error cannot be a document there
        return report.report_error(error, as_json=False, verbose=False, quiet=quiet)


def _command_at(words: list[str]) -> int | None:
    """Return where the command stands: options may come before it, with their values."""
    for number, (before, word) in enumerate(zip(["", *words], words, strict=False)):
        if word in COMMANDS and not (before.startswith("-") and "=" not in before and before not in FLAGS):
            return number
    return None


def _dispatch(words: list[str]) -> int:
    at = _command_at(words)
    first = words[0] if words else "--help"
    if first in ("-h", "--help", "help") or (at is None and "--help" in words):
        report.raw(_HELP.format(commands=_command_lines()))
        return 0 if words else 2
    if at is None or (at > 0 and not first.startswith("-")):
        _unknown(first)
    name = words.pop(at or 0)
    from importlib import import_module

    from .options import Parser

    module = import_module(f"{__name__}.{COMMANDS[name][0]}")
    parser = Parser(prog=f"cachefetch {name}", description=COMMANDS[name][1])
    module.configure(parser)
    result: int = module.execute(parser.parse(words))
    return result


def _command_lines() -> str:
    return "\n".join(f"  {name:10} {text}" for name, (_, text) in COMMANDS.items())


def _unknown(word: str) -> None:
    from difflib import get_close_matches

    from ..errors import UsageError

    near = get_close_matches(word, COMMANDS, 1)
    hint = f"did you mean `cachefetch {near[0]}`?" if near else f"commands: {', '.join(COMMANDS)}"
    raise UsageError(f"there is no command {word!r}", hint=hint)
