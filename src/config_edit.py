"""Change the mirrors of a configuration file without touching the rest of its text."""

from __future__ import annotations

import os
import re
import tomllib
from contextlib import contextmanager, suppress

from .config import (
    SIGNED,
    Mirror,
    absolute,
    check_policy,
    check_scheme,
    default_policy,
    mirror_from_table,
    without_login,
)
from .errors import ConfigError, UsageError
from .regular import open_regular

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_HEADER = re.compile(r"^\s*\[+\s*([^\]]+?)\s*\]+\s*(?:#.*)?$")


def add_mirror(
    path: str, name: str, url: str, *, signed: str = "", keys: tuple[str, ...] = (), view: str = ""
) -> None:
    """Append a mirror to the file at `path`, which is made when it is not there.

    `signed` is one of SIGNED, "" for the default of its kind.

    Raises:
        UsageError: the name is taken or not usable, or a value is not of its kind.
        ConfigError: the file cannot be read or written, or the mirror would not be usable; then nothing was written.
    """
    default = default_policy(url)
    signed = signed or default
    if not _BARE.fullmatch(name):
        raise UsageError(f"{name!r} is no name for a mirror", hint="letters, digits, - and _")
    if signed not in SIGNED:
        raise UsageError(f"signed is {signed!r}", hint=f"one of {', '.join(SIGNED)}")
    check_scheme(url)
    check_policy(url, signed, keys, f"mirror {name}")
    location = absolute(url)
    if without_login(Mirror(name, location)).location != location:
        raise UsageError(
            f"the URL of mirror {name} has a user and password, but no scheme",
            hint="write the whole URL: https://USER@HOST/PATH",
        )
    lines = [f"[mirrors.{name}]", f"url = {_quoted(location)}"]
    lines += [f"signed = {_quoted(signed)}"] if signed != default else []
    lines += [f"keys = [{', '.join(map(_quoted, keys))}]"] if keys else []
    lines += [f"view = {_quoted(view)}"] if view else []
    entry = "\n".join(lines) + "\n"
    mirror_from_table(
        name, tomllib.loads(entry)["mirrors"][name], path
    )  # what could not be read is not written
    with _locked(path) as file:
        text = _read(file)
        old = _mirrors(text, path)
        if name in old:
            raise UsageError(
                f"{path} has a mirror {name} already", hint=f"`cachefetch mirror remove {name}` first"
            )
        head = text.rstrip("\n")
        _write(file, (f"{head}\n\n" if head else "") + entry, {*old, name})


def remove_mirrors(path: str, names: Sequence[str]) -> None:
    """Remove mirrors from the file at `path`: all of them, or none.

    Raises:
        UsageError: the file has no such mirror.
        ConfigError: the file cannot be read or written, or an entry is not a table of its own.
    """
    with _locked(path) as file:
        text = _read(file)
        old = _mirrors(text, path)
        for name in names:
            if name not in old:
                raise UsageError(
                    f"{path} has no mirror {name}",
                    hint=f"it has: {', '.join(old) or 'none'}; see `cachefetch mirror list`",
                )
        _write(file, _without(text, names), set(old) - set(names))


def _without(text: str, names: Sequence[str]) -> str:
    """Return the text of a file without the tables of some mirrors."""
    kept: list[str] = []
    inside = False
    for line in text.splitlines(keepends=True):
        header = _HEADER.match(line)
        if header:
            parts = [part.strip().strip("\"'") for part in header[1].split(".", 1)]
            inside = parts[0] == "mirrors" and parts[1:] != [] and parts[1] in names
        if not inside:
            kept.append(line)
    return "".join(kept).rstrip("\n") + "\n"


@contextmanager
def _locked(path: str) -> Iterator[str]:
    """Be the one command that changes the file; yields its path behind all symbolic links."""
    import fcntl

    file = os.path.realpath(path)
    try:
        os.makedirs(os.path.dirname(file), exist_ok=True)
        directory = os.open(os.path.dirname(file), os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from error
    try:
        with suppress(OSError):  # a file system without locks: the file is replaced as a whole all the same
            fcntl.flock(directory, fcntl.LOCK_EX)
        yield file
    finally:
        os.close(directory)


def _read(path: str) -> str:
    try:
        with open_regular(path) as file:
            return file.read().decode()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error


def _mirrors(text: str, path: str) -> dict[str, Any]:
    try:
        found = tomllib.loads(text).get("mirrors", {})
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not TOML: {error}", hint="correct the line that is named") from None
    if not isinstance(found, dict):
        raise ConfigError(f"{path}: mirrors must be a table")
    return found


def _write(path: str, text: str, names: set[str]) -> None:
    """Replace the file when the new text has the mirrors that it must have."""
    if set(_mirrors(text, path)) != names:
        raise ConfigError(
            f"{path} is written in a way that this command cannot change", hint="edit the file by hand"
        )
    temporary = f"{path}.{os.getpid()}"
    try:
        # A mirror's URL may hold a password: a new file is for its owner alone, an old one stays as open as it was.
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            _keep_access(path, descriptor)
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        os.replace(temporary, path)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from error
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)


def _keep_access(path: str, descriptor: int) -> None:
    """Give a file the mode and owner of the one that it replaces; 0600 where there is none."""
    try:
        before = os.stat(path)
    except FileNotFoundError:
        return
    now = os.fstat(descriptor)
    if (now.st_uid, now.st_gid) != (before.st_uid, before.st_gid):
        os.fchown(descriptor, before.st_uid, before.st_gid)
    os.fchmod(descriptor, before.st_mode & 0o777)


def _quoted(text: str) -> str:
    """Return a TOML basic string; JSON's escapes are a part of TOML's."""
    import json

    return json.dumps(text)
