"""Change the mirrors of a configuration file without touching the rest of its text."""

from __future__ import annotations

import os
import re
import tomllib

from .config import SIGNED, absolute, check_policy, default_policy
from .errors import ConfigError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
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
        ConfigError: the file cannot be read or written, or a registry is to be signed.
    """
    default = default_policy(url)
    signed = signed or default
    if not _BARE.fullmatch(name):
        raise UsageError(f"{name!r} is no name for a mirror", hint="letters, digits, - and _")
    if signed not in SIGNED:
        raise UsageError(f"signed is {signed!r}", hint=f"one of {', '.join(SIGNED)}")
    check_policy(url, signed, keys, f"mirror {name}")
    text = _read(path)
    old = _mirrors(text, path)
    if name in old:
        raise UsageError(
            f"{path} has a mirror {name} already", hint=f"`cachefetch mirror remove {name}` first"
        )
    lines = [f"[mirrors.{name}]", f"url = {_quoted(absolute(url))}"]
    lines += [f"signed = {_quoted(signed)}"] if signed != default else []
    lines += [f"keys = [{', '.join(map(_quoted, keys))}]"] if keys else []
    lines += [f"view = {_quoted(view)}"] if view else []
    head = text.rstrip("\n")
    _write(path, (f"{head}\n\n" if head else "") + "\n".join(lines) + "\n", {*old, name})


def remove_mirror(path: str, name: str) -> None:
    """Remove a mirror from the file at `path`.

    Raises:
        UsageError: the file has no such mirror.
        ConfigError: the file cannot be read or written, or the entry is not a table of its own.
    """
    text = _read(path)
    old = _mirrors(text, path)
    if name not in old:
        raise UsageError(
            f"{path} has no mirror {name}",
            hint=f"it has: {', '.join(old) or 'none'}; see `cachefetch mirror list`",
        )
    kept: list[str] = []
    inside = False
    for line in text.splitlines(keepends=True):
        header = _HEADER.match(line)
        if header:
            parts = [part.strip().strip("\"'") for part in header[1].split(".", 1)]
            inside = parts == ["mirrors", name]
        if not inside:
            kept.append(line)
    _write(path, "".join(kept).rstrip("\n") + "\n", set(old) - {name})


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
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
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from error
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)


def _quoted(text: str) -> str:
    """Return a TOML basic string; JSON's escapes are a part of TOML's."""
    import json

    return json.dumps(text)
