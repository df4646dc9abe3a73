"""Gates G1 to G16: may this candidate be used for this request on this host? (pure)

A gate yields a Mismatch for each reason against the candidate: `have` is what the candidate has, `need` what
the request or host allows. The order of the two lists is the order in which reasons are reported. Own gates look
at the candidate alone and run for every candidate, so that near misses can be counted; closure gates run
only for candidates that passed those. Rules: docs/semantics.md, "Gates".
"""

from __future__ import annotations

import re

from ...values import changed
from .. import targets
from ..closure import LIBC_NAMES, label
from ..host.libc_table import inferred_libc
from ..model import LANGUAGES, Libc, Mismatch
from ..spec.matching import mismatches
from ..spec.versions import ANY, parse_version

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..model import Dag, Host, Node, Record
    from .context import Context

    Gate = Callable[[Record, Context], Iterator[Mismatch]]

#: macOS releases, newest first: a host runs what was built on its own or an older one (Spack 1.1).
MACOS = ("tahoe", "sequoia", "sonoma", "ventura", "monterey", "bigsur", "catalina")
_POWER = ("ppc64", "ppc64le")
_LANGUAGES = frozenset(LANGUAGES)
#: Compilers whose code needs the runtime library of the same release (Spack 1.1, reuse of concrete specs).
_RUNTIMES = (("gcc", "gcc-runtime"), ("intel-oneapi-compilers", "intel-oneapi-runtime"))


def query(record: Record, context: Context) -> Iterator[Mismatch]:
    """G1 to G8: everything that the request says. A virtual stands for any of its usual providers."""
    node, spec = record.node, context.spec
    if spec.name not in (node.name, "") and node.name in context.providers(spec.name):
        if not spec.versions.is_any:
            yield Mismatch("virtual-version", f"{node.name} as {spec.name}", f"{spec.name}@{spec.versions}")
        spec = changed(spec, name=node.name, versions=ANY)
    yield from mismatches(node, spec, context.dag)


def ambiguous(record: Record, context: Context) -> Iterator[Mismatch]:
    """G2: a hash prefix must name one binary."""
    if record.node.hash in context.ambiguous:
        asked = f"/{context.spec.hash}"
        have = f"/{record.node.hash[:12]}, one of {len(context.ambiguous)} that begin with {asked}"
        yield Mismatch("hash", have, asked)


def stack(record: Record, context: Context) -> Iterator[Mismatch]:
    """``--stack``: the source must list the candidate in that stack, where it knows stacks."""
    wanted = context.policy.stack
    if wanted and record.stacks and wanted not in record.stacks:
        yield Mismatch("stack", ",".join(record.stacks), wanted)


def development(record: Record, context: Context) -> Iterator[Mismatch]:  # noqa: ARG001 -- every gate has this signature
    """G14: builds from a user's working tree are never reused (Spack 1.1)."""
    if "dev_path" in record.node.variants:
        yield Mismatch("dev", f"dev_path={record.node.variants['dev_path']}", "no dev_path")


def closure_development(record: Record, context: Context) -> Iterator[Mismatch]:
    """G14 for the rest of the closure."""
    for node in context.dependencies(record.node):
        if "dev_path" in node.variants:
            have = f"dev_path={node.variants['dev_path']} (of {label(node)})"
            yield Mismatch("dev", have, "no dev_path")
            return


def platform(record: Record, context: Context) -> Iterator[Mismatch]:
    """G9: the platform is the host's."""
    if record.node.platform != context.host.platform:
        yield Mismatch("platform", record.node.platform, context.host.platform)


def target(record: Record, context: Context) -> Iterator[Mismatch]:
    """G10 for the candidate itself: its target is the host's or one of that target's ancestors."""
    host = context.host
    problem = _target_problem(record.node, host)
    if problem:
        have = _unknown_target(record.node) if problem == "target-unknown" else record.node.target
        yield Mismatch(problem, have, _target_need(host.target))


def system(record: Record, context: Context) -> Iterator[Mismatch]:
    """G11 for the candidate itself: libc on Linux, the OS chain elsewhere."""
    yield from _system(record.node, context)


def closure_targets(record: Record, context: Context) -> Iterator[Mismatch]:
    """G10 for the rest of the closure."""
    judged, host = context.judged.setdefault("target", {}), context.host
    for node in context.dependencies(record.node):
        problem = judged.get(node.hash)
        if problem is None:
            problem = judged[node.hash] = _target_problem(node, host)
        if problem:
            needed = _unknown_target(node) if problem == "target-unknown" else node.target
            yield Mismatch("target-dep", f"{label(node)} needs {needed}", _target_need(host.target))
            return


def closure_systems(record: Record, context: Context) -> Iterator[Mismatch]:
    """G11 for the rest of the closure: its newest libc decides."""
    judged = context.judged.setdefault("system", {})
    for node in context.dependencies(record.node):
        problems = judged.get(node.hash)
        if problems is None:
            problems = judged[node.hash] = tuple(_foreign(node, context) or _system(node, context))
        for problem in problems:
            yield Mismatch(problem.code, f"{problem.have} (of {label(node)})", problem.need)
            return


def externals(record: Record, context: Context) -> Iterator[Mismatch]:
    """G13: what the build took from its machine must be on this one; libc has its own rule."""
    if record.node.partial or context.prefix_exists is None:
        return
    for node in context.closure(record.node).externals:
        if node.name not in LIBC_NAMES and node.external and not context.prefix_exists(node.external):
            yield Mismatch(
                "external", f"{node.name}@{node.version} at {node.external}", "that prefix on this host"
            )


def runtime(record: Record, context: Context) -> Iterator[Mismatch]:
    """G15: compiled code must say which runtime library and libc it needs, in each node of the closure."""
    judged = context.judged.setdefault("runtime", {})
    for node in (record.node, *context.dependencies(record.node)):
        problems = judged.get(node.hash)
        if problems is None:
            problems = judged[node.hash] = tuple(_runtime(node, context))
        for problem in problems:
            of = f" (of {label(node)})" if node is not record.node else ""
            yield changed(problem, have=problem.have + of)
            return


def _runtime(node: Node, context: Context) -> Iterator[Mismatch]:
    if node.partial:
        return
    if node.format >= 5:
        for compiler, library in _RUNTIMES:
            named = [e for e in node.edges if e.name == compiler]
            built = any(_LANGUAGES.intersection(e.virtuals) for e in named)
            if built and not _holds(node, (library,), context):
                have = f"built with {compiler}, records no {library}"
                yield Mismatch("runtime", have, f"{library} as a dependency")
    elif (
        node.platform == "linux"
        and node.os != context.host.os
        and not _holds(node, (*LIBC_NAMES, "gcc-runtime"), context)
    ):
        yield Mismatch(
            "libc-unknown", f"{node.os}, no libc recorded", f"os={context.host.os} or a recorded libc"
        )


def _holds(node: Node, names: tuple[str, ...], context: Context) -> bool:
    """Return whether one of these packages is in the closure of the node, itself included."""
    if node.name in names:
        return True
    # Most nodes name it themselves: only for the others is a closure of their own worth its walk.
    if any(e.name in names and e.in_closure and context.dag.get(e.hash) is not None for e in node.edges):
        return True
    return any(each.name in names for each in context.closure(node).nodes())


OWN_GATES: tuple[Gate, ...] = (query, ambiguous, stack, platform, target, system, development)
CLOSURE_GATES: tuple[Gate, ...] = (
    closure_targets, closure_systems, closure_development, externals, runtime,
)  # fmt: skip


def libc_of(node: Node, dag: Dag) -> Libc | None:
    """Return the libc that a node records or, on a page, the one its OS label stands for; None when neither."""
    for edge in node.edges:
        if "libc" in edge.virtuals or (edge.name in LIBC_NAMES and edge.in_closure):
            child = dag.get(edge.hash)
            if child is not None:
                return Libc(child.name, child.version, child.external or None)
    if node.partial and node.platform == "linux":
        return inferred_libc(node.os)
    return None


def _target_problem(node: Node, host: Host) -> str:
    """Return "", "target" or "target-unknown"."""
    if targets.runs_on(node.target, host.target):
        return ""
    if targets.is_known(node.target):
        return "target"
    # Spack's table may be newer than ours: run archspec's own test on what the node records of its target.
    if not _lacks_of_target(node):
        return "" if _recorded_target_fits(node, host) else "target"
    return "target-unknown"


def _recorded_target_fits(node: Node, host: Host) -> bool:
    """Return whether archspec would find the recorded target on that host: it has another test for each family."""
    family = targets.recorded_family(node.target_parents)
    if family != targets.family(host.target):
        return False
    same_vendor = node.target_vendor == targets.vendor(host.target)
    generic = node.target_vendor == "generic"
    has_all = set(node.target_features or ()) <= targets.features(host.target)
    if family == "x86_64":
        return has_all and (same_vendor or generic)
    if (
        family == "aarch64"
    ):  # a Mac runs its model and what that descends from: never a name that we do not know
        return has_all and same_vendor and not generic and host.platform != "darwin"
    if family in _POWER:
        return node.target_generation <= targets.generation(host.target)
    return family == "riscv64" and generic and has_all


def _lacks_of_target(node: Node) -> str:
    """Return what the record of an unknown target lacks for archspec's test, "" when it is enough."""
    if node.target_features is None:
        return "records only its name"
    family = targets.recorded_family(node.target_parents)
    if not family:
        return "records no parent of a known family"
    if family in _POWER and node.target_generation <= 0:
        return "records no generation"
    if family in ("x86_64", "aarch64") and not node.target_features:
        return "records no features"
    return ""


def _unknown_target(node: Node) -> str:
    return f"{node.target}, which is not in the table and {_lacks_of_target(node)}"


def _target_need(host_target: str) -> str:
    """Return ``skylake`` or, where the generic level differs, ``skylake (x86_64_v3)``."""
    generic = targets.generic(host_target)
    return host_target if generic == host_target else f"{host_target} ({generic})"


def _system(node: Node, context: Context) -> Iterator[Mismatch]:
    if node.platform == "linux":
        yield from _libc(node, context)
    elif not _os_runs(node.os, context.host.os):
        host_os = context.host.os
        yield Mismatch("os", node.os, f"{host_os} or older" if host_os in MACOS else host_os)


def _foreign(node: Node, context: Context) -> list[Mismatch]:
    """Return what a dependency of another platform lacks: its libc or OS release says nothing here."""
    host = context.host
    if node.platform == host.platform:
        return []
    return [Mismatch("os", f"{node.platform} {node.os}", f"{host.platform} {host.os}")]


def _os_runs(os: str, host_os: str) -> bool:
    if os == host_os:
        return True
    return os in MACOS and host_os in MACOS and MACOS.index(os) >= MACOS.index(host_os)


def _libc(node: Node, context: Context) -> Iterator[Mismatch]:
    """Same kind, same prefix, and not newer than the host's (Spack 1.1, libc compatibility)."""
    host = context.host
    libc = libc_of(node, context.dag)
    same_os = node.os == host.os
    if node.partial and not same_os and (libc is None or context.policy.libc == "recorded"):
        reason = "no libc recorded" if libc else "no libc recorded and none known for it"
        yield Mismatch("libc-unknown", f"{node.os}, {reason}", f"os={host.os} or a recorded libc")
        return
    if libc is None:
        return
    if host.libc is None:
        if not same_os:
            yield Mismatch(
                "libc-unknown", f"{libc.kind} {libc.version}", "a host with a known libc: give --libc"
            )
    elif libc.kind != host.libc.kind:
        yield Mismatch("libc-kind", f"{libc.kind} {libc.version}", host.libc.kind)
    elif libc.prefix and host.libc.prefix and libc.prefix != host.libc.prefix:
        yield Mismatch(
            "libc-prefix", f"{libc.kind} under {libc.prefix}", f"{libc.kind} under {host.libc.prefix}"
        )
    elif parse_version(libc.version) > parse_version(host.libc.version):
        yield Mismatch("libc", f"{libc.kind} {libc.version}", f"{libc.kind} <= {host.libc.version}")


def distribution(os: str) -> str:
    """Return the distribution id of an OS label: ``ubuntu`` of ``ubuntu22.04``."""
    match = re.match(r"[a-z_]+", os)
    return match[0] if match else os
