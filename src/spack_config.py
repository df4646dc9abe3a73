"""Mirrors from Spack's own configuration: the ``mirrors.yaml`` of every scope, merged as Spack merges them.

Read only when neither the command line nor our own configuration names a mirror. Scopes and merging are those of
Spack 1.1 (docs/formats.md, "mirrors.yaml"): higher scopes come first in order, mappings merge key by key, a key that
ends in ``::`` replaces. Our reading stops at what names a binary mirror: plugins and ``-C`` scopes are not asked.
"""

from __future__ import annotations

import os
import re

from .config import Mirror, absolute, without_login
from .errors import ConfigError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


def scope_files(env: Mapping[str, str]) -> tuple[str, ...]:
    """Return the configuration files that exist and may name mirrors, lowest scope first.

    With ``SPACK_DISABLE_LOCAL_CONFIG`` the system and user scopes are left out (Spack 1.1). Scopes before 1.0 with one
    directory a platform (``~/.spack/linux``) are read too.
    """
    root, environment = env.get("SPACK_ROOT", ""), env.get("SPACK_ENV", "")
    directories = (
        [os.path.join(root, "etc/spack", name) for name in ("defaults", "defaults/base")] if root else []
    )
    if not env.get("SPACK_DISABLE_LOCAL_CONFIG"):
        directories.append(env.get("SPACK_SYSTEM_CONFIG_PATH") or "/etc/spack")
    directories += [os.path.join(root, "etc/spack/site")] if root else []
    if not env.get("SPACK_DISABLE_LOCAL_CONFIG"):
        home = os.path.join(env.get("HOME") or os.path.expanduser("~"), ".spack")
        directories.append(env.get("SPACK_USER_CONFIG_PATH") or home)
    directories += [os.path.join(root, "etc/spack")] if root else []
    platform = os.uname().sysname.lower()
    files = [
        os.path.join(directory, *below, "mirrors.yaml")
        for directory in directories
        for below in ((), (platform,))
    ]
    files += [os.path.join(environment, "spack.yaml")] if environment else []
    return tuple(path for path in files if os.path.isfile(path))


def read_mirrors(files: Sequence[str], env: Mapping[str, str]) -> tuple[Mirror, ...]:
    """Return the mirrors that `files` (lowest scope first) name for binaries.

    Raises:
        ConfigError: a file is not readable or not of its schema; names file and mirror.
    """
    merged: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for path in files:
        section, alone = _section(path)
        for key in section:
            origins[key.removesuffix(":")] = path
        merged = merge({} if alone else merged, section)
    mirrors = (_mirror(name, value, origins.get(name, ""), env) for name, value in merged.items())
    return tuple(mirror for mirror in mirrors if mirror is not None)


def merge(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    """Return two mappings merged as Spack does: keys of `high` first, and ``key::`` in `high` replaces."""
    merged: dict[str, Any] = {}
    for key, value in high.items():
        name = key.removesuffix(":")
        old = None if name != key else low.get(name)
        merged[name] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return {**merged, **{key: value for key, value in low.items() if key not in merged}}


def _section(path: str) -> tuple[dict[str, Any], bool]:
    """Return the ``mirrors`` mapping of one file, and whether it hides all lower scopes (``mirrors::``).

    That of an environment's ``spack.yaml`` stands below ``spack``.
    """
    document = _load(path)
    if os.path.basename(path) == "spack.yaml":
        document = document.get("spack") or {} if isinstance(document, dict) else document
    if not isinstance(document, dict):
        raise ConfigError(
            f"{path} is not a mapping", hint="Spack itself would refuse it: `spack config blame mirrors`"
        )
    alone = "mirrors:" in document
    section = document.get("mirrors:" if alone else "mirrors")
    if section is None:
        return {}, alone
    if not isinstance(section, dict):
        raise ConfigError(f"{path}: mirrors is not a mapping of names")
    return {str(key): value for key, value in section.items()}, alone


def _load(path: str) -> Any:
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        with open(path, "rb") as file:
            return yaml.load(file, Loader=loader) or {}  # noqa: S506 -- a safe loader, in C where PyYAML has it
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        first = str(error).split("\n", 1)[0]
        raise ConfigError(
            f"{path} is not YAML: {first}", hint="correct it, or name a mirror with -m"
        ) from None


def _mirror(name: str, value: Any, path: str, env: Mapping[str, str]) -> Mirror | None:
    """Return the mirror of one entry; None for one that holds no binaries."""
    if isinstance(value, str):
        value = {"url": value}
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: mirror {name} is neither a URL nor a mapping")
    if value.get("binary", True) is False:
        return None
    fetch = value.get("fetch")
    fetch = {"url": fetch} if isinstance(fetch, str) else fetch if isinstance(fetch, dict) else {}
    url = fetch.get("url") or value.get("url")
    if not isinstance(url, str) or not url:
        raise ConfigError(f"{path}: mirror {name} has no url", hint="it needs url, or fetch with a url")
    try:
        location = absolute(expand(url, env, os.path.dirname(path)))
    except UsageError as error:
        raise ConfigError(f"{path}: mirror {name}: {error.message}", hint=error.hint) from None
    signed = "none" if value.get("signed", True) is False or location.startswith("oci") else "required"
    view = fetch.get("view") or value.get("view") or ""
    pair = fetch.get("access_pair") or value.get("access_pair")
    location = _with_credentials(location, pair, env)
    endpoint = fetch.get("endpoint_url") or value.get("endpoint_url")
    if endpoint and location.startswith("s3://"):
        location = _at_endpoint(location, str(endpoint))
    return without_login(Mirror(name, location, signed, origin=path, view=str(view)))


def expand(url: str, env: Mapping[str, str], directory: str) -> str:
    """Return a path or URL with ``~`` and ``$variables`` replaced; a relative path is below `directory`."""
    special = {
        "spack": env.get("SPACK_ROOT", ""),
        "env": env.get("SPACK_ENV", ""),
        "user_cache_path": env.get("SPACK_USER_CACHE_PATH")
        or os.path.join(env.get("HOME") or os.path.expanduser("~"), ".spack"),
    }

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        return special.get(name) or env.get(name) or match[0]

    url = _VARIABLE.sub(value, url)
    if "://" in url:
        return url
    return os.path.join(directory, os.path.expanduser(url))


def _with_credentials(location: str, pair: Any, env: Mapping[str, str]) -> str:
    """Return a URL with the user and password, or the S3 keys, of ``access_pair``; unset variables give none."""
    if not location.startswith(("http", "oci", "s3")) or "@" in location:
        return location
    found = tuple(_pair(pair, env))
    if len(found) != 2 or not all(found):
        return location
    from urllib.parse import quote

    scheme, _, rest = location.partition("://")
    return f"{scheme}://{quote(found[0], safe='')}:{quote(found[1], safe='')}@{rest}"


def _at_endpoint(location: str, endpoint: str) -> str:
    """Return an S3 URL that names the server of its bucket; one without a scheme is https."""
    from urllib.parse import quote

    if "://" not in endpoint:
        endpoint = f"https://{endpoint}"
    return f"{location}?endpoint={quote(endpoint, safe=':/')}"


def _pair(pair: Any, env: Mapping[str, str]) -> Iterator[str]:
    if isinstance(pair, list):
        yield from map(str, pair)
    elif isinstance(pair, dict):
        yield str(pair.get("id") or env.get(str(pair.get("id_variable")), ""))
        yield env.get(str(pair.get("secret_variable")), "")
