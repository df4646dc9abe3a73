"""What Spack 1.1 accepts in a mirror of layout 3, as code; held against its own answers (oracles/acceptance.json).

Only what those answers show is modelled: which specs `buildcache list` prints, and whether a package installs with all
that it links or runs with.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

INDEX_TYPE = "application/vnd.spack.db.v8+json"
TARBALL_TYPE = "application/vnd.spack.install.v2.tar+gzip"
RECORD_KEYS = {
    "spec", "ref_count", "in_buildcache", "path", "installed", "explicit", "installation_time", "deprecated_for",
    "origin",
}  # fmt: skip
BLOB_KEYS = ("contentLength", "mediaType", "compression", "checksumAlgorithm", "checksum")


class Refused(Exception):
    """Spack ends with an error."""


@dataclass(frozen=True)
class Reader:
    """The index of a mirror as Spack reads it: records by DAG hash; {} when there is none that it can use."""

    mirror: Path
    records: dict[str, Any]

    @classmethod
    def open(cls, mirror: Path) -> Reader:
        path = mirror / "v3/manifests/index/index.manifest.json"
        if not path.exists():
            return cls(mirror, {})
        manifest = json.loads(path.read_text())
        if "version" not in manifest:
            raise Refused("'version' is a required property")
        entry = next((one for one in manifest["data"] if one["mediaType"] == INDEX_TYPE), None)
        if entry is None:
            raise Refused(f"Manifest has no blobs of type {INDEX_TYPE}")
        blob = _blob(mirror, entry)
        if blob is None:
            return cls(mirror, {})
        if hashlib.sha256(blob).hexdigest() != entry["checksum"]:
            raise Refused("sha256 checksum failed")
        try:
            database = json.loads(blob.decode("utf-8"))["database"]
        except ValueError as error:
            raise Refused(str(error)) from error
        if int(database["version"]) > 8:
            return cls(mirror, {})
        for record in database["installs"].values():
            if not record.keys() <= RECORD_KEYS:
                raise Refused("Invalid record in Spack database")
            if (
                database["version"] == "8"
                and "compiler" in record["spec"]
                and "annotations" not in record["spec"]
            ):
                raise Refused("a node of an older format in a newer database")
        return cls(mirror, database["installs"])

    def listed(self) -> set[str]:
        """Return what `buildcache list --allarch` prints: held specs and externals."""
        return {h for h, r in self.records.items() if r.get("in_buildcache") or "external" in r["spec"]}

    def dangling(self) -> set[str]:
        """Return hashes that a record names and that are none: each is a warning of Spack."""
        named = {e["hash"] for r in self.records.values() for e in r["spec"].get("dependencies", ())}
        return named - self.records.keys()

    def installs(self, hash_: str) -> bool:
        """Tell whether a package and its link and run dependencies can be installed from the mirror alone."""
        seen: set[str] = set()
        waiting = [hash_]
        while waiting:
            one = waiting.pop()
            record = self.records.get(one)
            if one in seen or (record and "external" in record["spec"]):
                continue
            seen.add(one)
            if record is None or (one == hash_ and not record.get("in_buildcache")) or not self._fetches(one):
                return False
            waiting += [
                edge["hash"]
                for edge in record["spec"].get("dependencies", ())
                if {"link", "run"} & set(edge["parameters"]["deptypes"]) and edge["hash"] in self.records
            ]
        return True

    def _fetches(self, hash_: str) -> bool:
        paths = list(self.mirror.glob(f"v3/manifests/spec/*/*-{hash_}.spec.manifest.json"))
        if not paths:
            return False
        text = paths[0].read_text()
        manifest = json.loads(text[text.index("{") : text.rindex("}") + 1])
        if manifest["version"] != 3 or any(key not in one for one in manifest["data"] for key in BLOB_KEYS):
            return False
        entry = next((one for one in manifest["data"] if one["mediaType"] == TARBALL_TYPE), None)
        if entry is None:
            return False
        blob = _blob(self.mirror, entry)
        return blob is not None and hashlib.sha256(blob).hexdigest() == entry["checksum"]


def _blob(mirror: Path, entry: dict[str, Any]) -> bytes | None:
    path = mirror / "blobs/sha256" / entry["checksum"][:2] / entry["checksum"]
    return path.read_bytes() if path.exists() else None
