"""Compare cachefetch with real Spack's recorded answers (oracles), list by list.

    python tests/conformance.py [--oracles DIR] [--json]

Each list of an oracle file is a section FILE.LIST: it prints how many cases agree and every case that does not.
Known differences are rules over inputs in conformance_known.toml and are counted apart; so are the few answers that
contradict our documented order of choice, each listed with its reason. Mirrors come from tests/data/fixtures.
Exit 0 when agree + known + apart = total everywhere and no section has too many known ones.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tomllib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
if not any((Path(path) / "cachefetch" / "__init__.py").is_file() for path in sys.path):
    sys.path.insert(0, str(HERE.parent / ".dev"))  # run as a script in a clone

from tests import conformance_reuse  # noqa: E402

from cachefetch.errors import CachefetchError, SpecSyntaxError  # noqa: E402  # after the path is set
from cachefetch.resolver import targets  # noqa: E402
from cachefetch.resolver.index.readers.nodes import node_from_dict, specfile_of_database  # noqa: E402
from cachefetch.resolver.model import Host  # noqa: E402
from cachefetch.resolver.spec.matching import satisfies  # noqa: E402
from cachefetch.resolver.spec.parser import parse, parse_many  # noqa: E402
from cachefetch.resolver.spec.versions import Version, Versions, parse_version, parse_versions  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from cachefetch.resolver.model import Node, Record
    from cachefetch.resolver.spec.parser import Spec

    #: input as shown, Spack's answer, ours
    Case = tuple[str, Any, Any]

#: The host on which the oracle was made: `os=fe` and `target=be` stand for its values.
ORACLE_HOST = Host("linux", "debian12", "x86_64_v4")

#: Keys of the oracle files that are no lists of cases, or that belong to another judge.
NOT_SECTIONS = {
    "satisfies": {"nodes", "note", "repo_dependent", "repo_dependent_note"},
    "microarch": {"note", "compatible_pairs"},
    "buildcache_list": {"note", "mirror"},
    "reuse": {"note"},
    "acceptance": {"note"},
}
#: Sections that are spread over a list with another key.
LIST_OF = {"reuse.answers": "hosts", "reuse.gates": "hosts"}
#: Sections with an oracle that nothing here answers yet.
WAITING: dict[str, str] = {}
SKIPPED_FILES = {
    "acceptance": "mirrors with one thing changed: no section of matching",
}


class Nodes:
    """A set of nodes by hash, as the matcher walks over it."""

    def __init__(self, nodes: dict[str, Node]) -> None:
        self.nodes = nodes

    def get(self, hash: str, /) -> Node | None:
        return self.nodes.get(hash)

    def record(self, hash: str, /) -> Record | None:
        raise NotImplementedError("the matcher asks for nodes only")

    def prefetch(self, hashes: Iterable[str], /) -> None:
        """All of it is in memory."""


def attempt(call: Callable[..., Any], *arguments: Any) -> Any:
    """Return the result of the call, or None where cachefetch refuses the input."""
    try:
        return call(*arguments)
    except CachefetchError:
        return None


# -- versions --------------------------------------------------------------------------------------------------


def compare(a: Version, b: Version) -> str:
    return "lt" if a < b else "eq" if a == b else "gt"


def as_printed(versions: Versions) -> str:
    """Return the text in Spack's form outside of a spec, where one exact version has no `=`."""
    return str(versions.exact) if versions.exact is not None else str(versions)


def class_of(versions: Versions, text: str) -> str:
    if "," in text:
        return "VersionList"
    if versions.exact is None:
        return "ClosedOpenRange"
    return "GitVersion" if versions.exact.is_git else "StandardVersion"


def one(text: str) -> Versions:
    return Versions((parse_version(text),))


def versions_order(cases: list[Any], _: dict[str, Any]) -> Iterator[Case]:
    for a, b, answer in cases:
        yield f"{a} {b}", answer, compare(parse_version(a), parse_version(b))


def versions_satisfies(cases: list[Any], _: dict[str, Any]) -> Iterator[Case]:
    for version, range_, *answer in cases:
        a, b = one(version), parse_versions(range_)
        yield f"{version} @{range_}", answer, [a.satisfies(b), a.intersects(b)]


def versions_canonical(cases: list[Any], _: dict[str, Any]) -> Iterator[Case]:
    for text, *answer in cases:
        versions = parse_versions(text)
        yield text, answer, [as_printed(versions), class_of(versions, text)]


def versions_errors(cases: list[Any], _: dict[str, Any]) -> Iterator[Case]:
    for text, _class, _message in cases:
        refused = attempt(parse_versions, text) is None
        yield text, "refused", "refused" if refused else "accepted"


def versions_sorted(cases: list[Any], _: dict[str, Any]) -> Iterator[Case]:
    ours = sorted(parse_version(text) for text in reversed(cases))
    for place, (text, version) in enumerate(zip(cases, ours, strict=True)):
        same = parse_version(text) == version  # texts of equal versions may stand in either order
        yield f"place {place}", text, text if same else str(version)


def versions_range_relations(cases: list[Any], _: dict[str, Any]) -> Iterator[Case]:
    for case in cases:
        a, b = parse_versions(case["a"]), parse_versions(case["b"])
        met = a.intersection(b)
        is_list = "," in case["a"] + case["b"]
        ours = [a.satisfies(b), a.intersects(b), str(met) if is_list else as_printed(met)]
        answer = [case["satisfies"], case["intersects"], case["intersection"]]
        if answer[2] == "TypeError":  # Spack fell over: there is no answer to compare with
            ours, answer = ours[:2], answer[:2]
        yield f"{case['a']} {case['b']}", answer, ours


def versions_lists(cases: list[Any], _: dict[str, Any]) -> Iterator[Case]:
    for text, *answer in cases:
        versions = parse_versions(text)
        yield text, answer, [str(versions), versions.exact is not None]


def versions_git(cases: list[Any], _: dict[str, Any]) -> Iterator[Case]:
    for case in cases:
        git = one(case["input"])
        assert git.exact is not None
        # A look-up error means that Spack wanted a repository: there is no answer to compare with.
        meets = {r: answer for r, answer in case.get("satisfies", {}).items() if isinstance(answer, bool)}
        order = case.get("vs", {})
        yield (
            case["input"],
            [case["canonical"], case["type"], meets, order],
            [
                str(git.exact),
                class_of(git, case["input"]),
                {r: git.satisfies(parse_versions(r)) for r in meets},
                {v: compare(git.exact, parse_version(v)) for v in order},
            ],
        )


def versions_invalid(cases: list[Any], _: dict[str, Any]) -> Iterator[Case]:
    for case in cases:
        text = case["input"]
        version, versions = attempt(parse_version, text), attempt(parse_versions, text)
        ours = [None if version is None else str(version), None if versions is None else as_printed(versions)]
        yield text, [case["Version"].get("ok"), case["ver"].get("ok")], ours


def versions_up_to(cases: list[Any], _: dict[str, Any]) -> Iterator[Case]:
    for version, count, answer in cases:
        yield f"{version} {count}", answer, parse_version(version).up_to(count)


@cache
def spec_of(text: str) -> Spec:
    """Return the spec as on the host of the oracle."""
    return parse(text, host=ORACLE_HOST)


# -- parsing ---------------------------------------------------------------------------------------------------


def parsed_fields(spec: Spec) -> dict[str, Any]:
    """Return the spec as the oracle describes one."""
    variants = {}
    for name, variant in spec.variants.items():
        is_bool = isinstance(variant.value, bool)
        variants[name] = {
            "values": [variant.value] if isinstance(variant.value, bool) else list(variant.value),
            "propagate": variant.propagate,
            "type": "BOOL" if is_bool else "MULTI",
            "concrete": is_bool or variant.exact,
        }
    flags: dict[str, list[str]] = {}
    for group in spec.flags:
        flags.setdefault(group.name, []).extend(group.words)
    return {
        "canonical": str(spec),
        "name": spec.name,
        "namespace": spec.namespace or None,
        "abstract_hash": spec.hash or None,
        "architecture": [spec.platform or None, spec.os or None, spec.target or None],
        "versions": str(spec.versions),
        "variants": variants,
        "flags": flags,
        "edges": edge_fields(spec),
    }


def edge_fields(spec: Spec) -> list[dict[str, Any]]:
    found = []
    for edge in spec.edges:
        found.append(
            {
                "spec": edge.spec.node_text(edge.spec.name),
                "direct": edge.direct,
                "virtuals": list(edge.virtuals),
                "deptypes": list(edge.deptypes),
                "when": None if edge.when is None else str(edge.when),
                "propagation": "PREFERENCE" if edge.propagate else "NONE",
            }
        )
        found += edge_fields(edge.spec)
    return found


def parse_parse(cases: list[Any], _: dict[str, Any]) -> Iterator[Case]:
    for case in cases:
        text = case["input"]
        spec = attempt(spec_of, text)
        if spec is None:
            yield text, case.get("canonical", "refused"), "refused"
        elif "error" in case:
            yield text, "refused", str(spec)
        else:
            again = str(parse(str(spec), host=ORACLE_HOST))
            ours = {**parsed_fields(spec), "reparsed": again}
            yield text, {key: case[key] for key in ours}, ours


def parse_parse_many(cases: list[Any], _: dict[str, Any]) -> Iterator[Case]:
    for case in cases:
        text = case["input"]
        specs = attempt(parse_many, text)
        yield (
            text,
            case.get("specs", "refused"),
            "refused" if specs is None else [str(spec) for spec in specs],
        )


# -- matching --------------------------------------------------------------------------------------------------


def satisfies_cases(cases: list[Any], document: dict[str, Any]) -> Iterator[Case]:
    # Layout v3 indices have database version 8, the v2 ones 7.
    specfile = {"v3": specfile_of_database("8"), "v2": specfile_of_database("7")}
    dags = {
        layout: Nodes(
            {h: node_from_dict(data, hash=h, specfile=specfile[layout]) for h, data in nodes.items()}
        )
        for layout, nodes in document["nodes"].items()
    }
    for layout, hash, text, answer in cases:
        dag = dags[layout]
        node = dag.nodes[hash]
        yield f"{layout}: {node.name}/{hash[:7]} {text}", answer, attempt(satisfies, node, spec_of(text), dag)


def satisfies_abstract(cases: list[Any], _: dict[str, Any]) -> Iterator[Case]:
    for a, b, *answer in cases:
        mine, theirs = spec_of(a), spec_of(b)
        yield f"{a} | {b}", answer, [mine.satisfies(theirs), mine.intersects(theirs)]


def satisfies_errors(cases: list[Any], _: dict[str, Any]) -> Iterator[Case]:
    for _layout, _hash, text, _class, _message in cases:
        try:
            ours = str(parse(text))
        except SpecSyntaxError:
            ours = "refused"
        yield text, "refused", ours


def buildcache_list_queries(cases: list[Any], document: dict[str, Any]) -> Iterator[Case]:
    """Ask the fixture's index; its externals are listed as well, as Spack's list shows them."""
    dag, listed = fixture(document["mirror"])
    for case in cases:
        found = sorted(hash for hash in listed if satisfies(dag.nodes[hash], spec_of(case["query"]), dag))
        answer = sorted(case["list"])
        yield case["query"], answer, found


@cache
def fixture(name: str) -> tuple[Nodes, tuple[str, ...]]:
    """Return the nodes of a layout 3 mirror's index, and the hashes of the available ones."""
    root = HERE / "data" / "fixtures" / name
    manifest = json.loads((root / "v3/manifests/index/index.manifest.json").read_bytes())
    digest = manifest["data"][0]["checksum"]
    index = json.loads((root / "blobs" / "sha256" / digest[:2] / digest).read_bytes())["database"]
    specfile = specfile_of_database(index["version"])
    records = index["installs"]
    nodes = {hash: node_from_dict(r["spec"], hash=hash, specfile=specfile) for hash, r in records.items()}
    listed = (h for h, r in records.items() if r.get("in_buildcache") or nodes[h].external is not None)
    return Nodes(nodes), tuple(listed)


# -- microarchitectures ----------------------------------------------------------------------------------------


def microarch_targets(cases: dict[str, Any], _: dict[str, Any]) -> Iterator[Case]:
    for name, row in cases.items():
        ours = {
            "vendor": targets.vendor(name),
            "family": targets.family(name),
            "generic": targets.generic(name),
            "parents": list(targets.parents(name)),
            "ancestors": list(targets.ancestors(name)),
            "features": sorted(targets.features(name)),
        }
        answer = {key: row[key] for key in ours}
        answer["features"] = sorted(answer["features"])
        yield name, answer, ours


def microarch_runs_on(cases: dict[str, Any], _: dict[str, Any]) -> Iterator[Case]:
    for name, hosts in cases.items():
        yield name, sorted(hosts), sorted(host for host in cases if targets.runs_on(name, host))


def microarch_pairs(_: int, document: dict[str, Any]) -> Iterator[Case]:
    """The partial order over all pairs of names; `runs_on` has those where `a <= b`."""
    runs_on = document["runs_on"]
    for a, hosts in runs_on.items():
        for b in runs_on:
            yield f"{a} <= {b}", b in hosts, targets.is_within(a, b)


SECTIONS: dict[str, Callable[[Any, dict[str, Any]], Iterator[Any]]] = {
    "versions.order": versions_order,
    "versions.satisfies": versions_satisfies,
    "versions.canonical": versions_canonical,
    "versions.errors": versions_errors,
    "versions.sorted": versions_sorted,
    "versions.range_relations": versions_range_relations,
    "versions.lists": versions_lists,
    "versions.git": versions_git,
    "versions.invalid": versions_invalid,
    "versions.up_to": versions_up_to,
    "parse.parse": parse_parse,
    "parse.parse_many": parse_parse_many,
    "satisfies.cases": satisfies_cases,
    "satisfies.abstract": satisfies_abstract,
    "satisfies.errors": satisfies_errors,
    "buildcache_list.queries": buildcache_list_queries,
    "microarch.targets": microarch_targets,
    "microarch.runs_on": microarch_runs_on,
    "microarch.pairs": microarch_pairs,
    "reuse.gates": lambda _, document: conformance_reuse.gates(document),
    "reuse.answers": lambda _, document: conformance_reuse.choices(document),
}


# -- the comparison --------------------------------------------------------------------------------------------


@dataclass
class Rule:
    """A known difference: where it applies, which way the answers differ, and why."""

    section: str
    input: str
    reason: str
    spack: Any = None
    ours: Any = None

    def explains(self, section: str, case: Case) -> bool:
        text, spack, ours = case
        if section != self.section or not re.search(self.input, text):
            return False
        return (self.spack is None or self.spack == spack) and (self.ours is None or self.ours == ours)


@dataclass
class Section:
    """The counts of one list."""

    agree: int = 0
    total: int = 0
    known: int = 0
    excused: int = 0
    #: Cases that are neither, and kept on purpose: input, both answers, reason (conformance_reuse).
    apart: list[dict[str, Any]] = field(default_factory=list)

    @property
    def fails(self) -> bool:
        return self.agree + self.known + len(self.apart) != self.total or self.known > self.allowed

    @property
    def allowed(self) -> float:
        """How many known differences a list may have: 3 % of a long one, 2 of a short one."""
        return (self.total * 0.03 if self.total >= 100 else 2) + self.excused


@dataclass
class Report:
    """What was compared, what differs without an explanation, and what was left out."""

    sections: dict[str, Section] = field(default_factory=dict)
    disagreements: list[dict[str, Any]] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)

    @property
    def passes(self) -> bool:
        return not any(section.fails for section in self.sections.values())


def rules() -> list[Rule]:
    document = tomllib.loads((HERE / "conformance_known.toml").read_text())
    return [Rule(**entry) for entry in document["known"]]


def compare_all(oracles: Path) -> Report:
    """Run every section for which there is an oracle."""
    report = Report()
    known = rules()
    files = {section.partition(".")[0] for section in (*SECTIONS, *WAITING)}
    for name in sorted(files | {path.stem for path in oracles.glob("*.json")}):
        path = oracles / f"{name}.json"
        if name in SKIPPED_FILES or not path.is_file():
            report.skipped[name] = SKIPPED_FILES.get(name, "no such file")
            continue
        document = json.loads(path.read_bytes())
        for section in sections_of(name, document):
            key = LIST_OF.get(section, section.partition(".")[2])
            if key not in document:
                report.skipped[section] = "no such list"
            elif section not in SECTIONS:
                report.skipped[section] = WAITING.get(section, "nothing here answers it")
            elif name == "buildcache_list" and not (HERE / "data" / "fixtures" / document["mirror"]).is_dir():
                report.skipped[section] = f"no fixture {document['mirror']}"
            else:
                compare_section(report, known, section, SECTIONS[section](document[key], document))
    return report


def sections_of(name: str, document: dict[str, Any]) -> list[str]:
    """Return the sections that a file has or should have."""
    named = {f"{name}.{key}" for key in set(document) - NOT_SECTIONS.get(name, set())}
    for section, key in LIST_OF.items():
        if key in document and section.startswith(f"{name}."):
            named = named - {f"{name}.{key}"} | {section}
    return sorted(named | {section for section in SECTIONS if section.startswith(f"{name}.")})


def compare_section(report: Report, known: list[Rule], name: str, cases: Iterator[Any]) -> None:
    section = report.sections.setdefault(name, Section())
    for text, spack, ours, *excuse in cases:
        case = (text, spack, ours)
        section.total += 1
        if spack == ours:
            section.agree += 1
        elif excuse and excuse[0]:  # computed from the deciding key (conformance_reuse)
            section.known += 1
            section.excused += 1
        elif len(excuse) > 1 and excuse[1]:
            section.apart.append({"input": text, "spack": spack, "ours": ours, "reason": excuse[1]})
        elif any(rule.explains(name, case) for rule in known):
            section.known += 1
        else:
            report.disagreements.append({"section": name, "input": text, "spack": spack, "ours": ours})


def as_json(report: Report) -> dict[str, Any]:
    return {
        "sections": {
            name: {"agree": s.agree, "total": s.total, "known": s.known, "apart": len(s.apart)}
            for name, s in report.sections.items()
        },
        "apart": [{"section": name, **entry} for name, s in report.sections.items() for entry in s.apart],
        "disagreements": report.disagreements,
        "skipped": report.skipped,
    }


def show(report: Report) -> None:
    for name, section in report.sections.items():
        notes = [f"{section.known} known differences"] if section.known else []
        notes += [f"{len(section.apart)} kept apart"] if section.apart else []
        print(f"{name}: {section.agree} of {section.total}" + (f" ({', '.join(notes)})" if notes else ""))
        for entry in section.apart:
            print(f"  apart: {entry['input']}: {entry['reason']}")
        if section.known > section.allowed:
            print(f"  too many known differences: at most {section.allowed:g} are allowed")
    for name, why in report.skipped.items():
        print(f"{name}: skipped, {why}")
    for entry in report.disagreements:
        print(f"{entry['section']}: {entry['input']!r}\n  Spack: {entry['spack']}\n  ours:  {entry['ours']}")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Compare cachefetch with real Spack's recorded answers.")
    parser.add_argument(
        "--oracles", type=Path, default=HERE / "data" / "oracles", help="folder of oracle files"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args(arguments)
    if not options.oracles.is_dir():
        parser.error(f"{options.oracles} is no folder")
    report = compare_all(options.oracles)
    if options.json:
        print(json.dumps(as_json(report), indent=1))
    else:
        show(report)
    return 0 if report.passes else 1


if __name__ == "__main__":
    sys.exit(main())
