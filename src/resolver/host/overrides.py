"""Host facts given by the user: flags, and host files for another machine. Pure.

What is given replaces what was detected; what no longer fits is dropped or asked for:

* another platform needs its os and target too (HostError otherwise), and has no C library unless given;
* another os on Linux has the C library that its label implies (marked `inferred`), or `--libc` is needed;
* another target keeps os and C library: a login node and a compute node differ in nothing else;
* once any fact is given, compilers of this machine say nothing: only those of the flags count.
"""

from __future__ import annotations

import re

from ...errors import HostError
from ...values import frozen
from ..model import Compiler, Host, Libc
from ..targets import features, is_known, names, vendor
from .compiler_table import LEGACY_NAMES, by_preference, compiler_names
from .describe import macos_names
from .libc_table import inferred_libc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any, NoReturn

PLATFORMS = ("linux", "darwin", "windows", "freebsd", "cray")
SCHEMA = "cachefetch/host/1"
_RESOLVE_SCHEMA = "cachefetch/resolve/1"
_FACTS = ("platform", "os", "target", "libc", "compilers")
_LIBC_KINDS = ("glibc", "musl")
_VERSION = r"\d+(\.\d+)*[A-Za-z0-9._+-]*"


@frozen
class HostOverrides:
    """Facts that replace detected ones; None or () is "not given"."""

    platform: str | None = None
    os: str | None = None
    target: str | None = None
    libc: Libc | None = None
    compilers: tuple[Compiler, ...] = ()

    def given(self) -> frozenset[str]:
        """Return the names of the facts that are given."""
        return frozenset(fact for fact in _FACTS if getattr(self, fact))

    def apply(self, base: Host) -> Host:
        """Return `base` with the given facts in place (rules: see the module).

        Args:
            base: the detected host, or one from a host file.

        Raises:
            HostError: an unknown name, or facts that do not go together.
        """
        given = self.given()
        if not given:
            return base
        platform = check_platform(self.platform) if self.platform else base.platform
        if platform != base.platform:
            _need_all_for(platform, base.platform, self)
        os_label = check_os(self.os, platform) if self.os else base.os
        libc, libc_source = _libc(base, platform, os_label, self.libc)
        sources = {**base.sources, **dict.fromkeys(sorted(given), "given"), "libc": libc_source}
        from_file = "compilers" in base.overridden
        if not self.compilers and not from_file:
            sources["compilers"] = "not looked for: " + ", ".join(sorted(given)) + " given"
        return Host(
            platform=platform,
            os=os_label,
            target=check_target(self.target) if self.target else base.target,
            libc=libc,
            compilers=by_preference(self.compilers, platform) or (base.compilers if from_file else ()),
            sources=sources,
            overridden=base.overridden | given,
        )


def parse_libc(text: str) -> Libc:
    """Return the C library of ``glibc@2.35`` or ``musl@1.2.4:/usr`` (``@=`` is accepted too).

    Raises:
        HostError: any other form; the hint shows what was probably meant.
    """
    found = re.fullmatch(r"(glibc|musl)@=?(\d+(?:\.\d+)+)(?::(/.*))?", text.strip())
    if not found:
        _bad_libc(text)
    kind, version, prefix = found.groups()
    return Libc(kind, version, (prefix.rstrip("/") or "/") if prefix else None)


def _bad_libc(text: str) -> NoReturn:
    version = re.search(r"\d+(?:\.\d+)+", text)
    kind = "musl" if "musl" in text.lower() else "glibc"
    example = f"{kind}@{version.group() if version else '2.35'}"
    raise HostError(
        f"the C library {text!r} is not of the form KIND@VERSION[:PREFIX]",
        hint=f"write {example} or {example}:/usr; kinds are glibc and musl",
        context={"field": "libc", "value": text},
    )


def parse_compiler(text: str) -> Compiler:
    """Return the compiler of ``gcc@11.4.0``; names of Spack before 1.0 are translated (clang -> llvm).

    Raises:
        HostError: no version, or a name that is no compiler's.
    """
    name, at, version = text.strip().partition("@")
    version = version.removeprefix("=")
    if not at or not re.fullmatch(_VERSION, version):
        raise HostError(
            f"the compiler {text!r} is not of the form NAME@VERSION",
            hint=f"write {name or 'gcc'}@11.4.0, with the version that the host has",
            context={"field": "compiler", "value": text},
        )
    return Compiler(_compiler_name(name, "--compiler"), version)


def _compiler_name(name: str, source: str) -> str:
    modern = LEGACY_NAMES.get(name, name)
    if modern not in compiler_names():
        _unknown("compiler", name, source, (*compiler_names(), *LEGACY_NAMES))
    return modern


def check_platform(name: str, source: str = "--platform") -> str:
    """Return the platform's name. Raises HostError for one that Spack does not have."""
    if name not in PLATFORMS:
        _unknown("platform", name, source, PLATFORMS)
    return name


def check_target(name: str, source: str = "--target") -> str:
    """Return the target's name. Raises HostError for one that the table lacks, with near names."""
    if not is_known(name):
        _unknown("target", name, source, names())
    return name


def check_os(label: str, platform: str, source: str = "--os") -> str:
    """Return the OS label. Raises HostError for text that cannot be one on that platform."""
    hint = ""
    if not re.fullmatch(r"\w[\w.]*", label):
        hint = (
            "labels are a name and a version without blanks or dashes: debian12, ubuntu22.04, rhel8, sequoia"
        )
    elif platform == "darwin" and label not in (*macos_names(), "macos"):
        hint = "a macOS label is the name of the release alone: " + ", ".join(macos_names()[-6:])
    if hint:
        message = f"{source}: {label!r} is not an OS label of platform {platform}"
        raise HostError(message, hint=hint, context={"field": "os", "value": label})
    return label


def _unknown(field: str, value: str, source: str, known: Iterable[str]) -> NoReturn:
    import difflib  # only when something is wrong: it costs start-up time

    near = difflib.get_close_matches(value, tuple(known), n=4, cutoff=0.5)
    raise HostError(
        f"{source}: {value!r} is not a known {field}",
        hint=f"near names: {', '.join(near)}" if near else f"known: {', '.join(known)}",
        context={"field": field, "value": value, "near": near},
    )


def _need_all_for(platform: str, base_platform: str, overrides: HostOverrides) -> None:
    missing = [f"--{fact}" for fact in ("os", "target") if not getattr(overrides, fact)]
    if missing:
        example = {
            "linux": "--os ubuntu22.04 --target x86_64_v3",
            "darwin": "--os sequoia --target m2",
            "windows": "--os windows10.0.19045 --target x86_64_v3",
            "freebsd": "--os freebsd14.0 --target x86_64_v3",
            "cray": "--os sles15 --target zen3",
        }[platform]
        raise HostError(
            f"the facts at hand are of platform {base_platform}: "
            f"with --platform {platform}, {' and '.join(missing)} must be given too",
            hint=f"for example --platform {platform} {example}",
            context={"field": "platform", "value": platform, "missing": missing},
        )


def _libc(base: Host, platform: str, os_label: str, given: Libc | None) -> tuple[Libc | None, str]:
    """Return the C library of the described host and where it comes from."""
    if given and platform != "linux":
        raise HostError(
            f"--libc {given} does not apply to platform {platform}",
            hint="leave --libc out: only binaries for linux record a C library",
            context={"field": "libc", "value": str(given)},
        )
    if given:
        return given, "given"
    if platform != "linux":
        return None, f"none: platform {platform} has no C library to choose"
    if platform == base.platform and os_label == base.os:
        return base.libc, base.sources.get("libc", "")
    inferred = inferred_libc(os_label)
    if inferred is None:
        raise HostError(
            f"no C library is known for os {os_label}",
            hint="add --libc, for example --libc glibc@2.35",
            context={"field": "libc", "value": os_label},
        )
    return inferred, f"inferred from os {os_label}"


def host_from_dict(data: Any, what: str = "host file") -> Host:
    """Return the host of a ``cachefetch host --json`` document, of a resolve document, or of a host object.

    Fields that this version does not know are left alone (documents may gain fields). A Linux host without
    the field `libc` gets the one its OS label implies; `null` means "no C library". A target name that the
    table lacks is accepted with a list `target_features`, as the best generic target that has only those.

    Args:
        data: the decoded JSON.
        what: the file's name, for messages.

    Raises:
        HostError: names the field and the file.
    """
    if not isinstance(data, dict):
        _bad(what, "the document", "a JSON object", data)
    schema = data.get("schema", SCHEMA)
    if schema == _RESOLVE_SCHEMA:
        data = data.get("host")
        if not isinstance(data, dict):
            _bad(what, "host", "a JSON object", data)
    elif schema != SCHEMA:
        _bad(what, "schema", f"{SCHEMA} or {_RESOLVE_SCHEMA}", schema)
    platform = check_platform(_text(data, "platform", what), f"{what}: platform")
    os_label = check_os(_text(data, "os", what), platform, f"{what}: os")
    return _checked_host(data, what, platform, os_label)


def _checked_host(data: Mapping[str, Any], source: str, platform: str, os_label: str) -> Host:
    libc, inferred = _libc_of(data, source, platform, os_label)
    given = frozenset(fact for fact in _FACTS if fact in data)
    recorded = _sources_of(data, source)
    sources = {
        fact: f"{source} ({recorded[fact]})" if recorded.get(fact) else source
        for fact in _FACTS
        if fact in given
    }
    if inferred:
        sources["libc"] = inferred
    return Host(
        platform=platform,
        os=os_label,
        target=_target_of(data, source),
        libc=libc,
        compilers=_compilers_of(data, source, platform),
        sources=sources,
        overridden=given,
    )


def _text(data: Mapping[str, Any], field: str, source: str) -> str:
    value = data.get(field)
    if not isinstance(value, str) or not value:
        _bad(source, field, "a text", value)
    return value


def _bad(source: str, field: str, need: str, value: object) -> NoReturn:
    have = "is missing" if value is None else f"is {value!r:.60}"
    raise HostError(
        f"{source}: {field} {have}, {need} is needed",
        hint="write the file with: cachefetch host --json > FILE",
        context={"source": source, "field": field},
    )


def _libc_of(data: Mapping[str, Any], source: str, platform: str, os_label: str) -> tuple[Libc | None, str]:
    if "libc" not in data:
        libc = inferred_libc(os_label) if platform == "linux" else None
        return libc, f"inferred from os {os_label}" if libc else ""
    value = data["libc"]
    if value is None:
        return None, ""
    if not isinstance(value, dict):
        _bad(source, "libc", "null or an object with kind, version and prefix", value)
    if platform != "linux":
        _bad(source, "libc", f"null (platform {platform})", value)
    kind, version = _text(value, "kind", f"{source}: libc"), _text(value, "version", f"{source}: libc")
    if kind not in _LIBC_KINDS:
        _unknown("kind of C library", kind, f"{source}: libc.kind", _LIBC_KINDS)
    if not re.fullmatch(r"\d+(\.\d+)+", version):
        _bad(source, "libc.version", "a version such as 2.35", version)
    prefix = value.get("prefix")
    if prefix is not None and not (isinstance(prefix, str) and prefix.startswith("/")):
        _bad(source, "libc.prefix", "null or an absolute path", prefix)
    return Libc(kind, version, prefix, inferred=value.get("inferred") is True), ""


def _target_of(data: Mapping[str, Any], source: str) -> str:
    name = _text(data, "target", source)
    listed = data.get("target_features")
    if is_known(name) or listed is None:
        return check_target(name, f"{source}: target")
    if not isinstance(listed, list) or not all(isinstance(feature, str) for feature in listed):
        _bad(source, "target_features", "a list of texts", listed)
    fitting = [t for t in names() if vendor(t) == "generic" and features(t) and features(t) <= set(listed)]
    if not fitting:
        check_target(name, f"{source}: target (its features fit no generic target)")
    return max(fitting, key=lambda target: len(features(target)))


def _compilers_of(data: Mapping[str, Any], source: str, platform: str) -> tuple[Compiler, ...]:
    value = data.get("compilers", [])
    if not isinstance(value, list):
        _bad(source, "compilers", "a list of objects with name and version", value)
    found = []
    for index, item in enumerate(value):
        field = f"compilers[{index}]"
        if not isinstance(item, dict):
            _bad(source, field, "an object with name and version", item)
        name = _compiler_name(_text(item, "name", f"{source}: {field}"), f"{source}: {field}.name")
        version = _text(item, "version", f"{source}: {field}")
        if not re.fullmatch(_VERSION, version):
            _bad(source, f"{field}.version", "a version such as 13.2.0", version)
        found.append(Compiler(name, version))
    return by_preference(found, platform)


def _sources_of(data: Mapping[str, Any], source: str) -> dict[str, str]:
    value = data.get("sources", {})
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        _bad(source, "sources", "an object of texts", value)
    return value
