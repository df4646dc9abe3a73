"""PEP 508 requirements (``multidict>=6,<7``) as queries for Python packages.

Detection is cheap; `packaging` is imported only when a requirement is there. A requirement becomes an ordinary
`Spec` whose `requirement` tests versions in place of ``@``, by the rules of PEP 440.
Source: docs/semantics.md ("Python requirements").
"""

from __future__ import annotations

import re
from functools import lru_cache

from ...errors import SpecSyntaxError
from ...values import changed, frozen
from .. import targets
from .parser import parse_many
from .values import Spec, Variant
from .versions import parse_version

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from packaging.specifiers import SpecifierSet
    from packaging.version import Version

    from ..model import Dag, Host, Node

#: Projects whose Spack package is not `py-` and the name.
_OTHER_NAMES = {
    "python": "python",
    "cmake": "cmake",
    "ninja": "ninja",
    "meson": "meson",
    "gdal": "gdal",
    "vtk": "vtk",
    "opencv-python": "opencv",
}
_EXTRA_VARIANTS = {"opencv-python": "python3"}

_SYS_PLATFORMS = {"linux": "linux", "darwin": "darwin", "windows": "win32", "freebsd": "freebsd"}
_SYSTEMS = {"linux": "Linux", "darwin": "Darwin", "windows": "Windows", "freebsd": "FreeBSD"}
_MACHINES = {("darwin", "aarch64"): "arm64", ("windows", "x86_64"): "AMD64", ("windows", "aarch64"): "ARM64"}


@frozen
class Requirement:
    """A requirement: `specifier` and `marker` as `packaging` prints them, `names` of the package in Spack.

    `names` are in the order in which to look them up. `prereleases` admits pre-releases that the specifier does
    not mention.
    """

    text: str
    names: tuple[str, ...]
    specifier: str = ""
    marker: str = ""
    extras: tuple[str, ...] = ()
    prereleases: bool = False

    def __str__(self) -> str:
        marker = f"; {self.marker}" if self.marker else ""
        return f"{self.specifier or '(any version)'}{marker}"

    @property
    def names_version(self) -> bool:
        """True if it names exactly one version (``==6.1``, ``===6.1``) or mentions a pre-release."""
        specifiers = _specifiers(self.specifier)
        pinned = any(s.operator in ("==", "===") and not s.version.endswith(".*") for s in specifiers)
        return pinned or bool(specifiers.prereleases)

    def contains(self, version: str) -> bool:
        """Return whether a version, as a node records it, meets the specifier by PEP 440."""
        specifiers = _specifiers(self.specifier)
        if not len(specifiers):
            return True
        mapped = pep440_version(version)
        if mapped is None:
            return all(s.operator == "===" and s.version == version for s in specifiers)
        admit = self.prereleases or bool(specifiers.prereleases)
        return all(
            s.version == version if s.operator == "===" else s.contains(mapped, prereleases=admit)
            for s in specifiers
        ) and (admit or not mapped.is_prerelease)

    def applies_to(self, node: Node, dag: Dag) -> bool:
        """Return whether the marker holds for a candidate: its platform, target and Python version.

        A candidate without a recorded Python is asked for the version in any case.
        """
        if not self.marker:
            return True
        from packaging.markers import Marker, UndefinedEnvironmentName

        python = next((child.version for child in _children(node, dag) if child.name == "python"), None)
        if python is None:
            if "python_" in self.marker or "implementation" in self.marker:
                return True
            python = "3"
        try:
            return Marker(self.marker).evaluate(_environment(node, python))
        except UndefinedEnvironmentName:
            return True

    def admitting(self, versions: Iterable[str]) -> Requirement:
        """Return the requirement that admits pre-releases if no final version of a pool meets it."""
        if self.prereleases or any(self.contains(version) for version in versions):
            return self
        return changed(self, prereleases=True)


def looks_like_requirement(text: str) -> bool:
    """Return whether a query is meant as a PEP 508 requirement, not as a spec; `packaging` is not imported.

    It is one with a comparison operator or ``;`` outside quotes, with extras, a URL, or as ``NAME==1.2``.
    """
    if not any(character in text for character in "<>!~;[=:"):
        return False
    bare = re.sub(r"'[^']*'|\"[^\"]*\"", "", text)
    if any(sign in bare for sign in (">", "<", "~=", "!=", "===", ";", "://")):
        return True
    name = r"\s*[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?\s*"
    extras = r"(?:\[[^\]]*\]\s*)"
    return re.fullmatch(rf"{name}(?:{extras}|{extras}?==\s*v?[0-9][A-Za-z0-9.*+!_-]*\s*)", bare) is not None


def parse_requirement(
    text: str, *, known: Callable[[str], bool] | None = None, prereleases: bool = False
) -> Spec:
    """Parse one requirement into a spec that asks for the Spack package of that project.

    Args:
        text: the requirement.
        known: whether an index has a package of that name; without it the first possible name is taken.
        prereleases: admit pre-releases (``--pre``).

    Raises:
        SpecSyntaxError: the text is no requirement, or names a URL.
    """
    from packaging.requirements import InvalidRequirement
    from packaging.requirements import Requirement as Parsed

    try:
        parsed = Parsed(text)
    except InvalidRequirement as error:
        reason, *drawing = str(error).splitlines()
        # `packaging` draws the text and a caret under it, both indented alike; its last line tells the column.
        indent = len(drawing[0]) - len(drawing[0].lstrip()) if drawing else 0
        column = max(0, drawing[-1].find("^") - indent) if drawing else 0
        hint = "write a requirement as `multidict>=6,<7`, or a spec as `py-multidict@6`"
        raise SpecSyntaxError(f"not a requirement: {reason}", text, column, hint=hint) from None
    if parsed.url:
        column = text.index("@")
        hint = "a build cache is searched by name and version: leave the URL out"
        raise SpecSyntaxError(
            "a requirement with a URL cannot be resolved", text, column, len(text) - column, hint=hint
        )
    project = re.sub(r"[-_.]+", "-", parsed.name).lower()
    names = spack_names(project)
    name = next((name for name in names if known is not None and known(name)), names[0])
    requirement = Requirement(
        text,
        names,
        str(parsed.specifier),
        str(parsed.marker or ""),
        tuple(sorted(parsed.extras)),
        prereleases,
    )
    notes = [f"`{text}` is read as a Python requirement for the package {name}"]
    if parsed.extras:
        notes.append(
            f"the extras [{','.join(requirement.extras)}] cannot be checked on a binary and are ignored"
        )
    variants = {}
    if variant := _EXTRA_VARIANTS.get(project):
        variants[variant] = Variant(variant, True)
    return Spec(name, variants=variants, requirement=requirement, notes=tuple(notes))


def spack_names(project: str) -> tuple[str, ...]:
    """Return the names that a normalised project name may have in Spack, in the order to look them up."""
    other = _OTHER_NAMES.get(project)
    names = (other, f"py-{project}", project) if other else (f"py-{project}", project)
    return tuple(dict.fromkeys(names))


def parse_query(
    text: str,
    *,
    known: Callable[[str], bool] | None = None,
    prereleases: bool = False,
    host: Host | None = None,
) -> tuple[Spec, ...]:
    """Parse what a user types: one requirement, or any number of specs.

    Args:
        text: the query.
        known: as in `parse_requirement`.
        prereleases: as in `parse_requirement`.
        host: as in `parser.parse`.

    Raises:
        SpecSyntaxError: the text is neither.
    """
    if looks_like_requirement(text):
        return (parse_requirement(text, known=known, prereleases=prereleases),)
    return parse_many(text, host=host)


def requirement_lines(text: str) -> list[tuple[int, str]]:
    """Return (line number, requirement) of a requirements file: comments, options and hashes are left out.

    Raises:
        SpecSyntaxError: a line that includes another file or an editable project.
    """
    found = []
    joined, first = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        line = re.sub(r"(^|\s)#.*$", "", line).strip()
        first = first if joined else number
        if line.endswith("\\"):
            joined += line[:-1] + " "
            continue
        whole, joined = (joined + line).strip(), ""
        if re.match(r"(-r|-c|-e|--requirement|--constraint|--editable)\b", whole):
            hint = "name the other file on the command line, and packages by name and version"
            message = f"line {first}: `{whole.split()[0]}` is not supported in a requirements file"
            raise SpecSyntaxError(message, whole, 0, len(whole.split()[0]), hint=hint)
        whole = re.split(r"\s--", whole)[0].strip()
        if whole and not whole.startswith("-"):
            found.append((first, whole))
    if joined.strip():
        found.append((first, joined.strip()))
    return found


@lru_cache(maxsize=4096)
def pep440_version(text: str) -> Version | None:
    """Return the PEP 440 version that a Spack version stands for, None for one such as ``develop``.

    What PEP 440 cannot read keeps its numbers: ``2024-01-05`` and ``1_2`` with dots, the rest of ``9e`` or
    ``1.2.3-custom`` as local version. A git version counts as its reference version.
    """
    from packaging.version import InvalidVersion, Version

    version = parse_version(text)
    if version.is_git:
        text = text.partition("=")[2] if not version.is_bare_ref else ""
    dotted = re.sub(r"[-_.]+", ".", text)
    candidates = [text]
    if re.fullmatch(r"[0-9]+(\.[0-9]+)*", dotted):
        candidates.append(dotted)
    if split := re.fullmatch(r"([0-9]+(?:\.[0-9]+)*)[-_.]?([A-Za-z0-9.]+)", dotted):
        candidates.append(f"{split[1]}+{split[2]}")
    for candidate in candidates:
        try:
            return Version(candidate)
        except InvalidVersion:
            continue
    return None


@lru_cache(maxsize=256)
def _specifiers(text: str) -> SpecifierSet:
    from packaging.specifiers import SpecifierSet

    return SpecifierSet(text)


def _children(node: Node, dag: Dag) -> Iterable[Node]:
    return (child for child in (dag.get(edge.hash) for edge in node.closure_edges()) if child is not None)


def _environment(node: Node, python: str) -> dict[str, str]:
    """Return the marker variables of a candidate."""
    family = targets.family(node.target)
    return {
        "sys_platform": _SYS_PLATFORMS.get(node.platform, node.platform),
        "platform_system": _SYSTEMS.get(node.platform, node.platform),
        "os_name": "nt" if node.platform == "windows" else "posix",
        "platform_machine": _MACHINES.get((node.platform, family), family),
        "python_version": ".".join(python.split(".")[:2]),
        "python_full_version": python,
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "extra": "",
    }
