"""Layout 2: every spec file that real Spack signed, and what must be refused."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from cachefetch.errors import (
    BindingError,
    CachefetchError,
    FormatError,
    SignatureInvalidError,
    SignatureMissingError,
)
from cachefetch.fetch.verify.binding import check_index_node
from cachefetch.fetch.verify.openpgp import Keyring
from cachefetch.fetch.verify.policy import SignaturePolicy
from cachefetch.fetch.verify.specfile import VerifiedSpecFile, verify_spec_file
from cachefetch.resolver.index.readers.nodes import node_from_dict

FIXTURES = Path(__file__).parents[2] / "data" / "fixtures"
KEYRING = Keyring.from_bytes((FIXTURES / "keys/cachefetch-test.pub.asc").read_bytes(), what="key")


def specs(mirror: str) -> list[dict[str, Any]]:
    found = json.loads((FIXTURES / mirror / "EXPECTED.json").read_text())["specs"]
    return [spec for spec in found if spec["artifact"]]


def verify(data: bytes, spec: dict[str, Any], mode: str = "required") -> VerifiedSpecFile:
    return verify_spec_file(
        SignaturePolicy(mode),
        data,
        KEYRING,
        name=spec["name"],
        version=spec["version"],
        hash=spec["hash"],
        what="m: f",
        now=time.time() + 1e8,
    )


@pytest.mark.parametrize(
    ("mirror", "mode", "count"), [("v2-signed", "required", 55), ("v2-unsigned", "if-present", 72)]
)
def test_every_file_of_spack(mirror: str, mode: str, count: int) -> None:
    index = json.loads((FIXTURES / mirror / "build_cache/index.json").read_text())["database"]["installs"]
    for spec in specs(mirror):
        artifact = spec["artifact"]
        found = verify((FIXTURES / mirror / artifact["spec_file"]).read_bytes(), spec, mode)
        assert found.sha256 == artifact["tarball_sha256"]
        node = node_from_dict(index[spec["hash"]]["spec"], hash=spec["hash"])
        check_index_node(found.document, node, what=spec["name"])
        assert found.layout == artifact["layout_version"]
        assert found.document.root.hash == spec["hash"]
        assert found.signature == ("good" if artifact["signed"] else "none")
    assert len(specs(mirror)) == count


SPEC, OTHER = specs("v2-signed")[:2]
SIGNED = (FIXTURES / "v2-signed" / SPEC["artifact"]["spec_file"]).read_bytes()
TEXT = SIGNED[SIGNED.index(b"\n\n") + 2 : SIGNED.index(b"-----BEGIN PGP SIGNATURE")]


def changed(key: str, value: object) -> bytes:
    document = json.loads(TEXT)
    document[key] = value
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    ("data", "mode", "kind"),
    [
        (TEXT, "required", SignatureMissingError),
        (SIGNED.replace(b"sha256", b"sha512", 1), "required", SignatureInvalidError),
        (SIGNED + b"x", "none", SignatureInvalidError),
        ((FIXTURES / "v2-signed" / OTHER["artifact"]["spec_file"]).read_bytes(), "required", BindingError),
        (changed("buildcache_layout_version", 3), "none", FormatError),
        (changed("buildcache_layout_version", 0), "none", FormatError),
        (changed("buildcache_layout_version", "2"), "none", FormatError),
        (changed("binary_cache_checksum", None), "none", FormatError),
        (changed("binary_cache_checksum", {"hash_algorithm": "md5", "hash": "0" * 32}), "none", FormatError),
        (changed("binary_cache_checksum", {"hash_algorithm": "sha256", "hash": "../x"}), "none", FormatError),
        (changed("spec", {}), "none", FormatError),
        (b"{", "none", FormatError),
        (b" " * (17 << 20), "none", FormatError),
    ],
)
def test_refused(data: bytes, mode: str, kind: type[CachefetchError]) -> None:
    with pytest.raises(kind):
        verify(data, SPEC, mode)
