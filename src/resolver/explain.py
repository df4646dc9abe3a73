"""Text for people, made from a Resolution and nothing else (pure). Also the only place that words reasons."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from .model import Host, Mismatch, Node
    from .resolution import Artifact, MirrorState, Other, Rejection, Resolution, Root

#: What a reason code says about a candidate; {have} and {need} are the values of the rejection.
MESSAGES = {
    "name": "is {have}, you asked for {need}",
    "hash": "has the hash {have}, you asked for {need}",
    "namespace": "is of the namespace {have}, you asked for {need}",
    "version": "is version {have}, outside of {need}",
    "version-exact": "is version {have}, and {need} means exactly that version",
    "version-prerelease": "{have} sorts below the release, so {need} does not include it",
    "variant": "has {have}, you asked for {need}",
    "variant-absent": "has no such variant for {need} (its variants: {have})",
    "variant-exact": "has {have}, you asked for exactly {need}",
    "flags": "was built with {have}, you asked for {need}",
    "compiler": "was built with {have}, you asked for {need}",
    "compiler-lang": "uses {have}, you asked for {need}",
    "no-compiler": "contains no compiled code, so {need} cannot apply",
    "dependency-missing": "does not have the dependency {need} ({have})",
    "dependency": "depends on {have}, you asked for {need}",
    "virtual-version": "{need} cannot be checked from an index; name a provider instead",
    "query-os": "was built for {have}, you asked for {need}",
    "query-target": "was built for {have}, you asked for {need}",
    "query-platform": "was built for {have}, you asked for {need}",
    "stack": "is in the stacks {have}, you asked for {need}",
    "platform": "was built for {have}, this host is {need}",
    "target": "needs the CPU target {have}, this host is {need}",
    "target-dep": "the dependency {have}, this host is {need}",
    "target-unknown": "needs the CPU target {have}; this host is {need}",
    "libc": "needs {have}, this host allows {need}",
    "libc-kind": "was built for {have}, this host uses {need}",
    "libc-prefix": "expects {have}, this host has {need}",
    "libc-unknown": "{have}; needs {need}",
    "os": "was built on {have}, this host takes {need}",
    "external": "depends on the external {have}, absent here",
    "dev": "is a development build ({have}), which is never reused",
    "runtime": "{have}",
}
#: For people: what a funnel says of N candidates with a reason, and the name of the rule.
WORDS = {
    "name": ("of another name", "name"),
    "hash": ("not named by that hash alone", "hash"),
    "namespace": ("of another namespace", "namespace"),
    "version": ("of another version", "version"),
    "version-exact": ("of another version than exactly that", "exact version"),
    "version-prerelease": ("pre-releases below that version", "pre-release"),
    "variant": ("with another variant value", "variant"),
    "variant-absent": ("without that variant", "missing variant"),
    "variant-exact": ("with more variant values", "exact variant"),
    "flags": ("with other compiler flags", "compiler flags"),
    "query-os": ("for another OS than asked", "OS asked for"),
    "query-target": ("for another target than asked", "target asked for"),
    "query-platform": ("for another platform than asked", "platform asked for"),
    "compiler": ("by another compiler", "compiler"),
    "compiler-lang": ("with another compiler for that language", "compiler of a language"),
    "no-compiler": ("without compiled code", "compiled code"),
    "dependency-missing": ("without that dependency", "missing dependency"),
    "dependency": ("with that dependency in another form", "dependency"),
    "virtual-version": ("without a recorded version of the virtual", "version of a virtual"),
    "stack": ("in other stacks", "stack"),
    "platform": ("wrong platform", "platform"),
    "target": ("wrong CPU target", "CPU target"),
    "target-unknown": ("for an unknown CPU target", "unknown CPU target"),
    "libc-kind": ("for another C library", "kind of libc"),
    "libc-prefix": ("with the C library elsewhere", "prefix of libc"),
    "libc-unknown": ("without a known libc", "unknown libc"),
    "libc": ("need a newer libc", "libc version"),
    "os": ("wrong OS", "OS"),
    "dev": ("development builds", "development build"),
    "target-dep": ("with a dependency for another CPU", "CPU target of a dependency"),
    "external": ("need what this host lacks", "external"),
    "runtime": ("without a recorded compiler runtime", "compiler runtime"),
}
NEAR_MISSES = 5
#: What to do about a reason, when nothing fits.
HINTS = {
    "version-exact": "@=VERSION means that version alone; @VERSION takes everything that begins with it",
    "version-prerelease": "a pre-release sorts below its release: ask for it by its full name, @=VERSION",
    "variant-absent": "a build without the variant meets neither +NAME nor ~NAME",
    "no-compiler": "drop the compiler, or ask for it where code is compiled: ^python %gcc",
    "dependency-missing": "only the build dependencies of the package itself are visible, not those further down",
    "query-target": "target=NAME is exact; target=NAME: takes newer ones too, target=:NAME older ones",
    "target": "if this CPU was detected wrongly, name it with --target; `cachefetch host` shows what it lacks",
    "target-unknown": "a newer cachefetch may know this target",
    "libc-prefix": "--libc KIND@VERSION without a prefix accepts any prefix",
    "libc-unknown": 'libc = "inferred" accepts OS labels with a known libc; --os NAME answers for that system',
    "external": "install it there, or take a build without it",
    "hash": "give more letters of the hash",
}


def one_line(root: Root) -> str:
    """Return the reason in one line: ``1 of 61: 28 wrong platform or CPU, ...; decided by compiler, then hash``."""
    parts = [_funnel_part(root, code, count) for code, count in root.funnel().items()]
    if root.others:
        parts.append(f"{len(root.others)} other{'s fit' if len(root.others) > 1 else ' fits'}")
    text = f"{1 if root.chosen else 0} of {root.candidates}"
    if parts:
        text += ": " + ", ".join(parts)
    if root.decided_by:
        text += "; decided by " + ", then ".join(key_word(code) for code in root.decided_by)
    if root.chosen and root.chosen.libc and root.chosen.libc.inferred:
        text += f"; {root.chosen.libc.kind} {root.chosen.libc.version} inferred from {root.chosen.os}"
    return text


def _funnel_part(root: Root, code: str, count: int) -> str:
    """Return ``14 need glibc 2.39 (host: glibc <= 2.36)`` where all of them need the same, else the general words."""
    if code == "libc":
        needs = {(r.have, r.need) for r in root.rejected if r.reason == code}
        if len(needs) == 1:
            have, allowed = needs.pop()
            return f"{count} need {have} (host: {allowed})"
    return f"{count} {WORDS[code][0]}"


def key_word(code: str) -> str:
    """Return the word for a key: ``compiler`` for K7."""
    from .rules.keys import KEYS

    words = {"K0": "complete closure", "unify": "the other roots"}
    return next((word for key, word, _ in KEYS if key == code), words.get(code, code))


def host_line(host: Host) -> str:
    """Return ``linux ubuntu24.04 skylake (x86_64_v3) glibc@2.39:/usr gcc@13.2.0``."""
    from . import targets

    generic = targets.generic(host.target)
    target = host.target if generic == host.target else f"{host.target} ({generic})"
    words = [host.platform, host.os, target]
    if host.libc:
        words.append(str(host.libc) + (" (inferred)" if host.libc.inferred else ""))
    words += [str(compiler) for compiler in host.compilers[:1]]
    return " ".join(words)


def mirror_line(state: MirrorState) -> str:
    """Return what is known about one mirror in a line."""
    return state_line(state.to_dict())


def state_line(state: Mapping[str, Any]) -> str:
    """Return the same line for a `mirrors` entry of a document."""
    text = f"{state['mirror']}: {state['state']}"
    if state["kind"] and state["state"] in ("fresh", "stale-ok", "empty"):
        text += f", {state['specs']} specs"
    if state["age_s"] is not None:
        text += f", asked {state['age_s']:.0f} s ago"
    return text + (f" ({state['detail']})" if state["detail"] else "")


def reason_text(problem: Mismatch) -> str:
    """Return what a mismatch says about a candidate."""
    return MESSAGES.get(problem.code, problem.code).format(have=problem.have, need=problem.need)


def variants_text(node: Node) -> str:
    """Return the variants and compiler flags of a node as Spack prints them: ``+shared~ipo build_system=cmake``."""
    switches, values = "", []
    for name, value in sorted(node.variants.items()):
        if isinstance(value, bool):
            switches += ("+" if value else "~") + name
        else:
            values.append(f"{name}={value if isinstance(value, str) else ','.join(value)}")
    values += [f"{name}='{' '.join(words)}'" for name, words in sorted(node.flags.items()) if words]
    return " ".join([text for text in (switches, *values) if text])


def explain(resolution: Resolution, *, everything: bool = False) -> str:
    """Return the explanation: host, mirrors, and for each root the funnel, the choice and what was not chosen.

    Args:
        resolution: the answer.
        everything: list every candidate, not only the nearest ones.
    """
    lines = [f"host     {host_line(resolution.host)}"]
    lines += [f"mirror   {mirror_line(state)}" for state in resolution.mirrors]
    for root in resolution.roots:
        lines += ["", *_root_lines(root, everything, conflict=bool(resolution.conflicts))]
    if resolution.missing:
        lines += ["", *missing_lines(resolution)]
    if resolution.host_provides:
        lines += ["", "host provides: " + ", ".join(resolution.host_provides)]
    lines += ["", *conflict_lines(resolution)] if resolution.conflicts else []
    lines += ["", *coverage_lines(resolution)] if resolution.coverage else []
    return "\n".join(lines)


def missing_lines(resolution: Resolution) -> list[str]:
    """Name each closure node that no mirror has, and who needs it."""
    return [
        f"missing  {node.name}/{node.hash[:7]}, needed by {', '.join(node.needed_by) or 'the request'}"
        + (f"; it is {spliced_text(node.build_spec)}" if node.build_spec else "")
        for node in resolution.missing
    ]


def spliced_text(build_spec: str) -> str:
    """Say why a spliced node may have no binary, and what there is instead."""
    return f"spliced: Spack relocates it from the binary of its build spec, which is fetched as /{build_spec}"


def conflict_lines(resolution: Resolution) -> list[str]:
    """Say why there is no common set, and what would give one."""
    lines = [f"conflict: {text}" for text in resolution.conflicts]
    if lines:
        lines += [
            f"hint: dropping {drop} from {query} gives a set" for query, drop in resolution.conflict_relax
        ]
        lines.append("hint: --no-unify answers each root alone")
    return lines


def coverage_lines(resolution: Resolution) -> list[str]:
    """Return the table host x root: how many candidates fit there, and whether the common choice does."""
    rows = [("host", *(query for query, _, _ in resolution.coverage[0].roots))] if resolution.coverage else []
    for row in resolution.coverage:
        cells = (f"{fits} fit" + (", chosen" if chosen else "") for _, fits, chosen in row.roots)
        rows.append((f"{row.host.platform}-{row.host.os}-{row.host.target}", *cells))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))] if rows else []
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def next_complete(resolution: Resolution) -> str:
    """Name the next candidate whose closure is complete, as far as that is known, for each root."""
    parts = []
    for root in resolution.roots:
        other = next((other for other in root.others if not other.missing), None)
        if other:
            parts.append(f"next candidate for {root.query}: {artifact_line(other.artifact)}")
        elif root.chosen:
            parts.append(f"no other candidate for {root.query}")
    return "\n".join(parts)


def no_candidate_lines(resolution: Resolution, root: Root) -> list[str]:
    """Say why nothing was chosen for `root`, the nearest miss, and the smallest change that would work."""
    lines = [f"no binary of {root.query} fits {host_line(resolution.host)}"]
    if len(resolution.coverage) > 1:
        hosts = "; ".join(host_line(row.host) for row in resolution.coverage)
        lines = [f"no binary of {root.query} fits all {len(resolution.coverage)} hosts: {hosts}"]
    if not root.candidates:
        if root.notes:  # the last one says why
            lines = [f"no binary of {root.query}: {root.notes[-1]}"]
        lines += [f"  {mirror_line(state)}" for state in resolution.mirrors]
    else:
        lines.append(f"  {one_line(root)}")
    if root.rejected:
        lines.append(f"  nearest: {_rejection_line(root.rejected[0])}")
    lines += [f"  {text}" for text in (*_relax_lines(root), *_hint_lines(root))]
    if root.suggestions:
        lines.append(f"  did you mean {' or '.join(root.suggestions)}?")
    return lines


def artifact_line(artifact: Artifact) -> str:
    """Return ``name@version /hash platform-os-target compiler``."""
    arch = f"{artifact.platform}-{artifact.os}-{artifact.target}"
    return (
        f"{artifact.name}@{artifact.version}  /{artifact.hash}  {arch}  {artifact.compiler or 'no compiler'}"
    )


def _root_lines(root: Root, everything: bool, *, conflict: bool = False) -> Iterator[str]:
    yield f"query    {root.query}"
    for note in root.notes:
        yield f"note     {note}"
    yield f"result   {one_line(root)}"
    if root.chosen:
        yield f"{'alone' if conflict else 'chosen':8} {artifact_line(root.chosen)}"
        for code in root.decided_by:
            text = root.key_texts.get(code, "better ones do not go together")
            yield f"  {code:4} {key_word(code)}: {text}"
        yield from _twin_line(root)
        if not root.closure_known:
            yield "  the closure is unknown: a cache page records no dependencies; fetch checks it"
    limit = None if everything else NEAR_MISSES
    if root.others:
        yield "also fit"
        for other in root.others[:limit]:
            yield f"  {_other_line(other)}"
        yield from _more(len(root.others), limit)
    if root.rejected:
        yield "rejected, nearest first"
        for rejection in root.rejected[:limit]:
            yield f"  {_rejection_line(rejection)}"
        yield from _more(len(root.rejected), limit)
    for text in (*_relax_lines(root), *_hint_lines(root)) if root.chosen is None else ():
        yield f"         {text}"
    if root.suggestions:
        yield f"         did you mean {' or '.join(root.suggestions)}?"


def _twin_line(root: Root) -> Iterator[str]:
    twins = sum(other.twin for other in root.others)
    if twins and root.closure_known:
        yield f"  {twins} more hashes differ only in build dependencies; the smallest hash is taken"
    elif twins:
        yield f"  {twins} more hashes are equal in all that the page records"


def _more(count: int, limit: int | None) -> Iterator[str]:
    if limit is not None and count > limit:
        yield f"  and {count - limit} more (--explain=all, --json)"


def _other_line(other: Other) -> str:
    a = other.artifact
    if other.worse_by == "unify":
        reason = f"better alone, {other.have}, not {other.best}, but the other roots cannot use it"
    else:
        reason = f"{other.worse_by} {key_word(other.worse_by)}"
        if other.have and other.have != other.best:
            reason += f": {other.have}, the chosen one has {other.best}"
    text = f"/{a.hash[:7]}  {a.version}  {a.os}-{a.target}  {a.compiler or 'no compiler'}  ({reason})"
    shown = [str(difference) for difference in (other.differences or ())[:2]]
    rest = len(other.differences or ()) - len(shown)
    if other.twin:
        shown = ["no visible difference"]
    elif rest > 0:
        shown.append(f"{rest} more differences")
    return text + (f"; {'; '.join(shown)}" if shown else "")


def _rejection_line(rejection: Rejection) -> str:
    a = rejection.artifact
    text = MESSAGES.get(rejection.reason, "{have} / {need}").format(have=rejection.have, need=rejection.need)
    also = ", ".join(WORDS[code][1] for code in rejection.also if code in WORDS)
    compiler = a.compiler or "no compiler"
    place = f"/{a.hash[:7]}  {a.name}@{a.version}  {a.os}-{a.target}  {compiler}"
    return f"{place}: {text}" + (f" (also: {also})" if also else "")


def _hint_lines(root: Root) -> Iterator[str]:
    """Say what helps against the nearest miss."""
    nearest = root.rejected[0] if root.rejected else None
    if nearest and "cache page" in nearest.have:
        yield "a cache page lists the package itself only; ask a mirror for what it depends on"
    elif nearest and (text := HINTS.get(nearest.reason)):
        yield text


def _relax_lines(root: Root) -> Iterator[str]:
    for drop, leaves in root.relax[:3]:
        what = f"setting aside the {WORDS[drop][1]}" if drop in WORDS else f"dropping {drop}"
        yield f"{what} leaves {leaves}"
