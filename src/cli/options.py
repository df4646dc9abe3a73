"""Options that several commands share, and the values made from them."""

from __future__ import annotations

import argparse
import errno
import json
import os

from ..errors import HostError, UsageError
from .report import say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, NoReturn

    from ..blocking import Client
    from ..errors import ConfigError
    from ..resolver.model import Host


# Our texts are English: looking for translations of argparse's few words costs 2 ms at every start (P4).
argparse._ = str  # type: ignore[attr-defined]  # the module's name for gettext


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are ours: text or JSON, exit 2."""

    def __init__(self, **options: Any) -> None:
        # A fixed width: argparse would import shutil at every start to ask for the terminal's.
        super().__init__(formatter_class=lambda prog: argparse.HelpFormatter(prog, width=100), **options)

    def error(self, message: str) -> NoReturn:
        """Raise UsageError in place of printing and leaving."""
        raise UsageError(message, hint=f"`{self.prog} --help` lists the options")

    def parse(self, words: Sequence[str]) -> argparse.Namespace:
        """Parse, with options and arguments in any order. An empty value is an unset variable of a script."""
        blank = [action for action in self._actions if action.default == ""]
        for action in blank:
            action.default = None  # so that "" can only have been given
        found = self.parse_intermixed_args(words)
        for action in self._actions:
            value = getattr(found, action.dest, None)
            if value == "" or (isinstance(value, list) and "" in value):
                name = action.option_strings[-1] if action.option_strings else action.metavar or action.dest
                self.error(f"{name} was given an empty value")
        for action in blank:
            if getattr(found, action.dest) is None:
                setattr(found, action.dest, "")
        return found


def add_output(parser: argparse.ArgumentParser) -> None:
    """Add ``--json -q -v --color``."""
    group = parser.add_argument_group("output")
    group.add_argument("--json", action="store_true", help="print one JSON document on stdout")
    group.add_argument("-q", "--quiet", action="store_true", help="no hints and no progress on stderr")
    group.add_argument("-v", "--verbose", action="store_true", help="say more on stderr")
    group.add_argument("--color", choices=("auto", "always", "never"), default="auto")


def add_mirrors(parser: argparse.ArgumentParser) -> None:
    """Add the options that name mirrors and their policy."""
    group = parser.add_argument_group("mirrors")
    group.add_argument(
        "-m",
        "--mirror",
        action="append",
        default=[],
        metavar="WHERE",
        help="URL, directory, cache page (*.md), index.json or name of a configured mirror; repeatable",
    )
    group.add_argument(
        "--key",
        action="append",
        default=[],
        metavar="FILE",
        help="public key trusted for the mirrors named by -m; repeatable",
    )
    group.add_argument("--unsigned", action="store_true", help="the mirrors named by -m need no signature")
    group.add_argument("--stack", metavar="NAME", help="only binaries of this stack (cache pages)")
    group.add_argument(
        "--offline", action="store_true", help="open no socket: local index, store, directories"
    )
    group.add_argument(
        "--require-fresh",
        action="store_true",
        help="refuse an index that is an older one again, or could not be checked",
    )
    group.add_argument(
        "--max-index-age",
        metavar="AGE",
        type=_age,
        help="refuse an index that has not changed for longer: seconds, or 90m, 12h, 7d",
    )
    group.add_argument(
        "--refresh", action="store_true", help="ask the mirrors, however fresh the local index is"
    )


def _age(text: str) -> float:
    """Read seconds, or a number with s, m, h or d. Raises ValueError, which argparse reports."""
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    seconds = float(text[:-1]) * units[text[-1]] if text[-1:] in units else float(text)
    if not 0 <= seconds < float("inf"):
        raise ValueError(text)
    return seconds


_age.__name__ = "age"  # argparse names the type: "invalid age value: 'xyz'"


def add_host(parser: argparse.ArgumentParser, *, several: bool = False) -> None:
    """Add the options that override host facts; with `several`, ``--host`` may be given more than once."""
    group = parser.add_argument_group("host (overrides replace what is detected)")
    group.add_argument(
        "--host",
        action="append" if several else "store",
        metavar="FILE",
        help="facts printed by `cachefetch host --json` elsewhere" + ("; repeatable" if several else ""),
    )
    group.add_argument("--platform", metavar="NAME", help="linux, darwin, windows, freebsd")
    group.add_argument("--os", metavar="NAME", help="ubuntu22.04, debian12, rhel8, sequoia, ...")
    group.add_argument("--target", metavar="NAME", help="x86_64_v3, zen4, neoverse_v2, ...")
    group.add_argument("--libc", metavar="KIND@VERSION[:PREFIX]", help="glibc@2.35, musl@1.2.4:/")
    group.add_argument(
        "--compiler", action="append", default=[], metavar="NAME@VERSION", help="gcc@13.2.0; repeatable"
    )


def add_requirements(parser: argparse.ArgumentParser) -> None:
    """Add ``-r`` and ``--pre``."""
    parser.add_argument(
        "-r",
        "--requirement",
        action="append",
        default=[],
        metavar="FILE",
        help="Python requirements, one a line, as in requirements.txt; repeatable",
    )
    parser.add_argument("--pre", action="store_true", help="requirements admit pre-releases")


def requirements_from(args: argparse.Namespace) -> list[str]:
    """Return the requirements of all ``-r`` files. Raises UsageError, SpecSyntaxError."""
    if not args.requirement:
        return []
    from ..resolver.spec.requirement import requirement_lines

    found = []
    for path in args.requirement:
        try:
            with open(path, encoding="utf-8-sig") as file:
                found += [text for _, text in requirement_lines(file.read())]
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or error
            raise UsageError(f"cannot read the requirements file {path}: {why}") from error
    return found


def client_from(
    args: argparse.Namespace,
    *,
    reporter: Any = None,
    limits: Any = None,
    problems: list[ConfigError] | None = None,
) -> Client:
    """Return the client for the mirror options; `problems` as for `config.load`.

    Raises:
        UsageError: ``--key`` or ``--unsigned`` without -m, or a key file that does not exist.
    """
    from ..blocking import Client
    from ..config import load
    from .memory import reserve_little

    if (args.key or args.unsigned) and not args.mirror:
        flag = "--key" if args.key else "--unsigned"
        raise UsageError(
            f"{flag} is for mirrors named by -m, and none is",
            hint='configured mirrors: `cachefetch key trust FILE`, or signed = "none" in the config file',
        )
    for path in args.key:  # it is read where a signature is checked, which `resolve` does not
        if not os.path.exists(path):
            raise UsageError(f"cannot read the key file {path}: {os.strerror(errno.ENOENT)}")
    reserve_little()
    return Client(
        args.mirror,
        keys=args.key,
        unsigned=args.unsigned,
        offline=args.offline,
        refresh=args.refresh,
        stack=args.stack,
        require_fresh=args.require_fresh,
        max_index_age=args.max_index_age,
        config=load(problems=problems),
        reporter=reporter,
        limits=limits,
    )


def local_target(path: str, option: str) -> str:
    """Return the path that an option names to write to. Raises UsageError for a URL: nothing is sent anywhere."""
    if "://" in path:
        raise UsageError(
            f"{option} {path} is a URL; it must be a path of this machine",
            hint="write there, and copy the result with the tool of that server",
        )
    return path


def warn_of_rollbacks(client: Client) -> None:
    """Say on stderr which mirrors show an older index again, or may do so unnoticed."""
    for _, message in (*client.forgotten, *client.rollbacks):
        say(f"warning: {message}")


def host_from(args: argparse.Namespace, client: Client) -> Host | None:
    """Return the host that the options describe, None for this machine as it is; the first of several."""
    return hosts_from(args, client)[0]


def hosts_from(args: argparse.Namespace, client: Client) -> list[Host | None]:
    """Return the hosts that the options describe, [None] for this machine as it is. Raises HostError."""
    if not (args.host or args.platform or args.os or args.target or args.libc or args.compiler):
        return [None]
    from ..resolver.host.overrides import HostOverrides, host_from_dict, parse_compiler, parse_libc

    files = args.host if isinstance(args.host, list) else [args.host] if args.host else []
    overrides = HostOverrides(
        platform=args.platform,
        os=args.os,
        target=args.target,
        libc=parse_libc(args.libc) if args.libc else None,
        compilers=tuple(parse_compiler(text) for text in args.compiler),
    )
    if not files:
        if overrides.platform and overrides.os and overrides.target and overrides.libc:
            from ..resolver.model import Host

            # Nothing is left to be detected, so the machine is not asked (start-up, P4).
            return [overrides.apply(Host(overrides.platform, "", ""))]
        return [client.host(overrides)]
    return [overrides.apply(host_from_dict(_read_host(path), what=path)) for path in files]


def _read_host(path: str) -> Any:
    try:
        with open(path, "rb") as file:
            return json.loads(file.read())
    except OSError as error:
        raise HostError(f"cannot read the host file {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise HostError(
            f"{path} is not JSON: {error}",
            hint=f"make it with `cachefetch host --json > {os.path.basename(path)}`",
        ) from None
