"""``NAME@=VERSION/HASH``: enough to fetch without an index, because a manifest's path is made of these three.

A bare ``/HASH`` becomes one where a mirror directory without an index can be listed; so does each package of a
``spack.lock``.
"""

from __future__ import annotations

import os
import re

from .errors import UsageError
from .resolver.closure import closure_of
from .resolver.index.query import PageSource, Specs
from .resolver.model import Record
from .values import frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from .resolver.model import Host, Node
    from .resolver.rules.context import Policy

_PIN = r"([a-z0-9][a-z0-9_+-]*)@=([A-Za-z0-9_.][A-Za-z0-9_.-]*)\s*/([a-z2-7]{32})"
_BARE = r"/([a-z2-7]{5,32})"
_SUFFIX = ".spec.manifest.json"


@frozen
class Pin:
    """One binary, named in full."""

    name: str
    version: str
    hash: str

    def __str__(self) -> str:
        """Return ``NAME@=VERSION/HASH``."""
        return f"{self.name}@={self.version}/{self.hash}"


def parse_pins(texts: Sequence[str]) -> tuple[Pin, ...]:
    """Return the pins when every text is one, else () (then they are specs to be resolved)."""
    found = [re.fullmatch(_PIN, text.strip()) for text in texts]
    return tuple(Pin(one[1], one[2], one[3]) for one in found if one) if all(found) else ()


def find_pins(texts: Sequence[str], locations: Sequence[str]) -> tuple[Pin, ...]:
    """Return the pins when every text is one, or a hash that a directory without an index lists; else ().

    Args:
        texts: what the user asks for.
        locations: the mirrors; only paths of directories count.

    Raises:
        UsageError: a hash begins like those of several packages.
    """
    pins = parse_pins(texts)
    if pins or not all(re.fullmatch(_BARE, text) for text in texts):
        return pins
    directories = [one for one in locations if os.path.isdir(one) and not _has_index(one)]
    found = [_listed(text[1:], directories) for text in texts] if directories else []
    return tuple(pin for pin in found if pin) if all(found) else ()


def environment_pins(data: bytes, *, what: str) -> tuple[Pin, ...]:
    """Return what the environment of a ``spack.lock`` needs: its roots with their link and run closure.

    Raises:
        FormatError: not a lock file of a version that is read. UsageError: it has no concrete specs.
    """
    roots, specs = _environment(data, what)
    if not roots:
        raise UsageError(f"{what} has no concrete specs", hint="run `spack concretize` in the environment")
    found = {
        record.node.hash: record.node for root in roots for record in closure_of(root.node, specs).records
    }
    return tuple(Pin(node.name, node.version, node.hash) for node in found.values())


def environment_misfits(data: bytes, host: Host, policy: Policy, *, here: bool, what: str) -> str:
    """Say which roots of the environment of a ``spack.lock`` a host cannot run, with the first reason; "" for none.

    Args:
        data: the file.
        host: the machine that is to run it.
        policy: settings of acceptance.
        here: it is this machine, so prefixes of externals are looked for.
        what: name of the file.
    """
    from .resolver import explain, rank
    from .resolver.rules.context import Context
    from .resolver.spec.parser import parse

    roots, specs = _environment(data, what)
    context = Context(parse(""), host, specs, policy, os.path.exists if here else None)
    found = [(root.node, problems[0]) for root in roots if (problems := rank.problems(root, context))]
    if not found:
        return ""
    node, problem = found[0]
    names = ", ".join(node.name for node, _ in found[:5]) + (", ..." if len(found) > 5 else "")
    return (
        f"{what} was concretized for another host: {explain.host_line(host)} cannot run {len(found)} of its "
        f"{len(roots)} roots ({names}); {node.name}/{node.hash[:7]} {explain.reason_text(problem)}"
    )


def _environment(data: bytes, what: str) -> tuple[tuple[Record, ...], Specs]:
    """Return the roots of a ``spack.lock``, and all that it describes."""
    from .resolver.index.readers.lock import lock_roots, parse_lock

    records, _ = parse_lock(data, what=what)
    known = {record.node.hash: record for record in records}
    roots = tuple(known[hash_] for _, hash_ in lock_roots(data, what=what))
    return roots, Specs([PageSource("", records)])


def _has_index(directory: str) -> bool:
    from .resolver.index.readers.manifest import INDEX_MANIFEST

    return os.path.exists(os.path.join(directory, INDEX_MANIFEST))


def _listed(prefix: str, directories: Sequence[str]) -> Pin | None:
    """Return the package whose manifest some directory has under this hash, None when none has."""
    from .resolver.index.readers.manifest import SPEC_MANIFESTS

    found: set[tuple[str, str, str]] = set()
    for directory in directories:
        for folder, _, names in os.walk(os.path.join(directory, SPEC_MANIFESTS)):
            package = os.path.basename(folder)
            for name in names:
                stem = name.removesuffix(_SUFFIX)
                version, hash_ = stem[len(package) + 1 : -33], stem[-32:]
                if stem != name and stem.startswith(f"{package}-") and version and hash_.startswith(prefix):
                    found.add((package, version, hash_))
    if len(found) > 1:
        some = ", ".join(f"{name}/{hash_}" for name, _, hash_ in sorted(found)[:5])
        raise UsageError(f"/{prefix} means {len(found)} binaries: {some}", hint="give more of the hash")
    return Pin(*found.pop()) if found else None


def closure_nodes(documents: Sequence[Sequence[Node]]) -> tuple[Node, ...]:
    """Return the nodes to fetch: the link and run closure of spec documents (root first), without externals."""
    nodes = {node.hash: node for document in documents for node in document}
    specs = Specs([PageSource("", (Record(node, node.external is None) for node in nodes.values()))])
    found = [record.node for one in documents for record in closure_of(one[0], specs).records]
    return tuple({node.hash: node for node in found}.values())
