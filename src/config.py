"""Files, environment and flags merged into one frozen Config (imported by the command line and the client only).

Order, later wins: ``/etc/cachefetch/config.toml``, ``$XDG_CONFIG_HOME/cachefetch/config.toml``, the variables
``CACHEFETCH_*``, flags. docs/cli.md lists every setting.
"""

from __future__ import annotations

import os

from .errors import ConfigError, UsageError
from .regular import open_regular
from .values import changed, frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

SIGNED = ("required", "if-present", "none")
LIBC = ("inferred", "recorded")
#: The schemes of mirrors: those of `fetch.transports`, which costs start-up time to import.
SCHEMES = ("https", "http", "file", "oci", "oci+http", "s3", "bundle")
#: What every volume of a bundle begins with (`fetch.bundle.format.MAGIC`, which costs start-up time to import).
_BUNDLE_MARK = b"cachefetch-bundle.json\0"
#: Stands for a user and password in what is taken for a path.
MASKED = "***"
SYSTEM_FILE = "/etc/cachefetch/config.toml"


@frozen
class Mirror:
    """A place that holds binaries.

    `location` is a URL or an absolute path; `signed` one of SIGNED; `pinned` are fingerprints (40 hex digits)
    of the only keys accepted for it, () for any trusted key; `key_files` are public keys trusted for this mirror
    alone; `origin` says where it was configured; `view` is a named index of the mirror (Spack 1.2).
    """

    name: str
    location: str
    signed: str = "required"
    pinned: tuple[str, ...] = ()
    key_files: tuple[str, ...] = ()
    origin: str = ""
    view: str = ""

    @property
    def key(self) -> str:
        """What the local index knows the mirror by: its location without secrets, and the view."""
        shown = _shown(self.location)
        if shown.startswith("s3://") and shown.endswith(
            "?..."
        ):  # a bucket is one only together with its server
            from urllib.parse import parse_qs

            server = parse_qs(self.location.partition("?")[2]).get("endpoint", [""])[0]
            shown = f"{shown.removesuffix('?...')}@{server}"
        return f"{shown}#{self.view}" if self.view else shown


@frozen
class Config:
    """Every setting, merged. `origins` maps a setting's dotted name to where its value came from.

    `max_age` is seconds for which a mirror is not asked again. `site` are read-only stores that are looked into
    too. `network` is the checked section of the configuration file that `fetch.network.Network` is made from. `own_dir`
    is this user's cache directory, even where `cache_dir` is one that several users share.
    """

    mirrors: tuple[Mirror, ...] = ()
    cache_dir: str = ""
    config_dir: str = ""
    max_age: float = 600.0
    libc: str = "inferred"
    site: tuple[str, ...] = ()
    network: Mapping[str, Any] = {}
    origins: Mapping[str, str] = {}
    own_dir: str = ""

    @property
    def store_dir(self) -> str:
        """Where verified binaries are kept."""
        return os.path.join(self.cache_dir, "store")

    @property
    def notes_dir(self) -> str | None:
        """Where notes of what was verified are kept when others may write the store; None for nowhere."""
        if not self.own_dir:
            return None
        from hashlib import sha256

        name = sha256(os.path.abspath(self.store_dir).encode("utf-8", "surrogateescape")).hexdigest()[:16]
        return os.path.join(self.own_dir, "proofs", name)


def load(
    environ: Mapping[str, str] | None = None,
    *,
    system_file: str = SYSTEM_FILE,
    problems: list[ConfigError] | None = None,
) -> Config:
    """Read the configuration files that exist and the environment.

    Where a list of `problems` is given, a mirror whose entry is not usable is left out and its error added there: the
    commands that show and remove mirrors work all the same.

    Raises:
        ConfigError: a file or variable is not usable; names it and the setting.
    """
    env = os.environ if environ is None else environ
    config_dir = os.path.join(_xdg(env, "XDG_CONFIG_HOME", ".config"), "cachefetch")
    cache_dir = os.path.join(_xdg(env, "XDG_CACHE_HOME", ".cache"), "cachefetch")
    origins = {"max_age": "default", "libc": "default"}
    for key, variable in (("config_dir", "XDG_CONFIG_HOME"), ("cache_dir", "XDG_CACHE_HOME")):
        origins[key] = (
            f"environment variable {variable}" if os.path.isabs(env.get(variable, "")) else "default"
        )
    values: dict[str, Any] = {"cache_dir": cache_dir, "config_dir": config_dir, "own_dir": cache_dir}
    mirrors: dict[str, Mirror] = {}
    for path in (system_file, os.path.join(config_dir, "config.toml")):
        if os.path.exists(path):
            _apply_file(path, values, mirrors, origins, problems)
    for name, read in (("CACHE_DIR", str), ("MAX_AGE", float), ("LIBC", str)):
        variable = f"CACHEFETCH_{name}"
        if text := env.get(variable):
            key = name.lower()
            try:
                values[key] = read(text)
            except ValueError:
                raise ConfigError(f"{variable}={text} is not a number of seconds") from None
            origins[key] = f"environment variable {variable}"
    return _checked(Config(mirrors=tuple(mirrors.values()), origins=origins, **values))


def spack_mirrors(environ: Mapping[str, str] | None = None) -> tuple[Mirror, ...]:
    """Return the binary mirrors of Spack's own configuration, in its order; () where Spack is not configured.

    Raises:
        ConfigError: a mirrors.yaml that cannot be read; names it.
    """
    env = os.environ if environ is None else environ
    from .spack_config import read_mirrors, scope_files

    files = scope_files(env)
    return read_mirrors(files, env) if files else ()


def mirror_from_argument(
    text: str, config: Config, *, unsigned: bool = False, key_files: tuple[str, ...] = ()
) -> Mirror:
    """Return the mirror for a ``-m`` value: the name of a configured one, or a URL or path.

    `unsigned` and `key_files` are the flags for mirrors named on the command line; a configured mirror keeps its
    policy when it is not named there.
    """
    known = next((mirror for mirror in config.mirrors if mirror.name == text), None)
    if known is None:
        check_scheme(text)
        signed = "none" if unsigned or is_registry(text) else "required"
        return without_login(Mirror(_shown(text), absolute(text), signed, (), key_files, "command line"))
    return Mirror(
        known.name,
        known.location,
        "none" if unsigned else known.signed,
        known.pinned,
        (*known.key_files, *key_files),
        known.origin,
        known.view,
    )


def without_login(mirror: Mirror) -> Mirror:
    """Return a mirror whose name holds no secret, nor its location where that is taken for a path: paths are shown.

    ``***@`` takes the place of the user and password of a URL whose ``scheme://`` is missing. A path that exists stays.
    """
    name, location = _shown(mirror.name), mirror.location
    if not os.path.lexists(location):
        name, location = _masked(name), _masked(location)
    return changed(mirror, name=name, location=location)


def _masked(text: str) -> str:
    if ":" not in text or "@" not in text or "://" in text:
        return text
    import re

    return re.sub(r"(?:^|(?<=/))[^\s/@:]+:.*@", f"{MASKED}@", text, count=1, flags=re.S)


def is_registry(location: str) -> bool:
    """Return True for an OCI registry, in which signatures do not exist."""
    return location.startswith(("oci://", "oci+http://"))


def default_policy(location: str) -> str:
    """Return the signature policy of a mirror for which none is written down."""
    return "none" if is_registry(location) else "required"


def check_policy(location: str, signed: str, pinned: tuple[str, ...], what: str) -> None:
    """Refuse what no registry can hold. Raises ConfigError."""
    if is_registry(location) and (signed != "none" or pinned):
        raise ConfigError(
            f"{what}: a registry holds no signatures, so none can be required of {_shown(location)}",
            hint='signed = "none" without keys accepts what the registry says: digests and binding are checked all '
            "the same; or use a mirror of layout 3",
        )


def check_scheme(location: str) -> None:
    """Refuse a URL that no transport knows. Raises UsageError."""
    scheme = location.partition("://")[0].lower()
    if "://" in location and scheme not in SCHEMES:
        raise UsageError(
            f"{_shown(location)} has the unknown scheme {scheme}://",
            hint=f"a directory, or a URL that begins with one of {', '.join(SCHEMES)}",
        )


def distinct(mirrors: Iterable[Mirror]) -> tuple[Mirror, ...]:
    """Return the mirrors, each once, with names that differ: a URL's secrets are no part of its name."""
    found: dict[str, Mirror] = {}
    for mirror in mirrors:
        name, number = mirror.name, 1
        while name in found and changed(found[name], name=mirror.name) != mirror:
            number += 1
            name = f"{mirror.name} ({number})"
        found.setdefault(name, changed(mirror, name=name))
    return tuple(found.values())


def absolute(location: str) -> str:
    """Return a URL with its scheme and host in lower case, and a path (or file:// URL) as an absolute path.

    Raises:
        UsageError: a URL that no transport could use: no host, a port that is none, blanks.
    """
    if location.startswith("file://"):
        from .fetch.transports.file import local_path

        location = local_path(location)
    if "://" in location:
        return _checked_url(location).rstrip("/")
    path = os.path.abspath(os.path.expanduser(location))
    return f"bundle://{path}" if _is_bundle(path) else path


def _is_bundle(path: str) -> bool:
    """Tell whether a path is a volume of a bundle, or a directory that holds volumes and is no mirror."""
    try:
        if path.endswith(".bundle"):
            with open_regular(path) as file:
                return file.read(len(_BUNDLE_MARK)) == _BUNDLE_MARK
        names = set(os.listdir(path))
    except OSError:
        return False
    if names & {"v3", "build_cache"}:
        return False
    return any(name.endswith(".bundle") and _is_bundle(os.path.join(path, name)) for name in names)


def _checked_url(url: str) -> str:
    if url.startswith("bundle://"):
        return url  # a path, made by `absolute`
    import re

    parts = re.fullmatch(
        r"([A-Za-z][\w.+-]*)://([^/?#@]*@)?(\[[\w:.%]+\]|[^/?#@:\[\]]+)(:\d{1,5})?([/?#].*)?", url
    )
    problem = ""
    if not url.isprintable() or " " in url:
        problem = "has a blank or a control character"
    elif "#" in url:
        problem = (
            "has a fragment (# and what follows), which no server ever sees; a # of a path is written %23"
        )
    elif not parts:
        problem = "has no host, or a host or port that cannot be"
    elif set(parts[2] or "") & set("[]"):
        problem = "has a bracket in the user or password, which must be written %5B or %5D there"
    elif parts[4] and not 0 < int(parts[4][1:]) < 65536:
        problem = f"has the port {parts[4][1:]}; ports are 1 to 65535"
    if problem or not parts:
        raise UsageError(
            f"the mirror URL {_shown(url)} {problem}", hint="for example https://host/path, oci://host/name"
        )
    return f"{parts[1].lower()}://{parts[2] or ''}{parts[3].lower()}{parts[4] or ''}{parts[5] or ''}"


def _shown(location: str) -> str:
    """Return a location as messages and documents show it: a URL without user, password and query."""
    if "://" not in location or not set("@?#") & set(location):
        return location
    from .fetch.transports import redact

    return redact(location)


def _xdg(env: Mapping[str, str], variable: str, default: str) -> str:
    """Return an XDG base directory. Spelled out: platformdirs would cost start-up time (P4)."""
    value = env.get(variable, "")
    if os.path.isabs(value):
        return value
    return os.path.join(env.get("HOME") or os.path.expanduser("~"), default)


def _apply_file(
    path: str,
    values: dict[str, Any],
    mirrors: dict[str, Mirror],
    origins: dict[str, str],
    problems: list[ConfigError] | None,
) -> None:
    import tomllib

    try:
        with open_regular(path) as file:
            document = tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path} is not TOML: {error}", hint="correct the line that is named") from None
    for section, known in (("index", ("max_age",)), ("resolve", ("libc",)), ("store", ("cache_dir", "site"))):
        for key, value in _table(document.pop(section, {}), path, section).items():
            if key not in known:
                raise ConfigError(
                    f"{path}: unknown setting {section}.{key}", hint=f"known: {', '.join(known)}"
                )
            values[key] = value
            origins[key] = path
    if "network" in document:
        values["network"] = _network(_table(document.pop("network"), path, "network"), path)
        origins["network"] = path
    for name, table in _table(document.pop("mirrors", {}), path, "mirrors").items():
        try:
            mirrors[name] = mirror_from_table(name, table, path)
        except ConfigError as error:
            if problems is None:
                raise
            problems.append(error)
            continue
        origins[f"mirrors.{name}"] = path
    if document:
        raise ConfigError(
            f"{path}: unknown section {', '.join(sorted(document))}",
            hint="known: index, network, resolve, store, mirrors.NAME",
        )


def _table(value: Any, path: str, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: {name} must be a table")
    return value


def mirror_from_table(name: str, entry: Any, path: str) -> Mirror:
    """Return the mirror that the section ``[mirrors.NAME]`` of the file at `path` describes. Raises ConfigError."""
    table = _table(entry, path, f"mirrors.{name}")
    unknown = set(table) - {"url", "signed", "keys", "key_files", "view"}
    if unknown:
        raise ConfigError(
            f"{path}: unknown setting mirrors.{name}.{min(unknown)}",
            hint="known: url, signed, keys, key_files, view",
        )
    url = table.get("url")
    if not isinstance(url, str) or not url:
        raise ConfigError(f'{path}: mirrors.{name} needs url = "..."')
    signed = table.get("signed", default_policy(url))
    if signed not in SIGNED:
        raise ConfigError(f"{path}: mirrors.{name}.signed is {signed!r}", hint=f"one of {', '.join(SIGNED)}")
    keys = table.get("keys", [])
    files = table.get("key_files", [])
    if not all(isinstance(v, list) and all(isinstance(k, str) for k in v) for v in (keys, files)):
        raise ConfigError(f"{path}: mirrors.{name}.keys and key_files must be lists of strings")
    pinned = tuple("".join(key.split()).upper() for key in keys)
    if bad := next(
        (key for key in pinned if len(key) not in (40, 64) or set(key) - set("0123456789ABCDEF")), None
    ):
        raise ConfigError(f"{path}: mirrors.{name}.keys: {bad} is no full fingerprint (40 hex digits)")
    check_policy(url, signed, pinned, f"{path}: mirrors.{name}")
    view = table.get("view", "")
    if not isinstance(view, str) or "/" in view or view in (".", "..") or not view.isprintable():
        raise ConfigError(f"{path}: mirrors.{name}.view must be the name of a view")
    try:
        check_scheme(url)
        location = absolute(url)
    except UsageError as error:
        raise ConfigError(f"{path}: mirrors.{name}.url: {error.message}", hint=error.hint) from None
    return without_login(
        Mirror(name, location, signed, pinned, tuple(absolute(f) for f in files), path, view)
    )


def _network(table: dict[str, Any], path: str) -> dict[str, Any]:
    """Check the section ``[network]`` and its ``[network.credentials."HOST"]``, and make its paths absolute."""
    kinds = {"ca_file": str, "client_cert": str, "client_key": str, "netrc": str, "system_trust": bool}
    found: dict[str, Any] = {}
    for key, value in table.items():
        if key == "credentials":
            continue
        if key not in kinds:
            known = ", ".join((*kinds, "credentials"))
            raise ConfigError(f"{path}: unknown setting network.{key}", hint=f"known: {known}")
        if not isinstance(value, kinds[key]):
            raise ConfigError(f"{path}: network.{key} must be a {kinds[key].__name__}")
        found[key] = absolute(value) if isinstance(value, str) else value
    credentials = _table(table.get("credentials", {}), path, "network.credentials")
    found["credentials"] = {
        host.lower(): _credential(host, _table(entry, path, f"network.credentials.{host}"), path)
        for host, entry in credentials.items()
    }
    return found


def _credential(host: str, table: dict[str, Any], path: str) -> dict[str, str]:
    """Check that a credential names variables: secrets do not belong into the file."""
    names = set(table)
    if names not in ({"token_variable"}, {"user_variable", "password_variable"}) or not all(
        isinstance(value, str) and value for value in table.values()
    ):
        raise ConfigError(
            f"{path}: network.credentials.{host} must name environment variables",
            hint="token_variable, or user_variable and password_variable; never the secret itself",
        )
    return {name.removesuffix("_variable"): value for name, value in table.items()}


def _checked(config: Config) -> Config:
    """Refuse values of the wrong type or range, naming where they came from."""
    age = config.max_age
    if isinstance(age, bool) or not isinstance(age, (int, float)) or not 0 <= age < float("inf"):
        raise ConfigError(f"max_age in {config.origins['max_age']} must be a number of seconds")
    if config.libc not in LIBC:
        raise ConfigError(
            f"libc in {config.origins['libc']} is {config.libc!r}", hint=f"one of {', '.join(LIBC)}"
        )
    if (
        not isinstance(config.cache_dir, str)
        or not os.path.isabs(config.cache_dir)
        or "\0" in config.cache_dir
    ):
        raise ConfigError(f"cache_dir in {config.origins['cache_dir']} must be an absolute path")
    site = config.site
    if not isinstance(site, (list, tuple)) or not all(isinstance(p, str) and os.path.isabs(p) for p in site):
        raise ConfigError(f"store.site in {config.origins['site']} must be a list of absolute paths")
    return changed(config, site=tuple(site))
