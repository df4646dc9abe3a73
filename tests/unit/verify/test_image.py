"""Images of packages: every one that real Spack pushed, and what must be refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cachefetch.errors import BindingError, CachefetchError, FormatError
from cachefetch.fetch.verify.binding import SpecDocument, check_index_node
from cachefetch.fetch.verify.image import parse_image, read_config
from cachefetch.resolver.index.readers.nodes import node_from_dict
from cachefetch.resolver.index.readers.places import image_tag

REGISTRY = Path(__file__).parents[2] / "data/fixtures/oci-registry"
V2 = REGISTRY / "docker/registry/v2"
SPECS = [s for s in json.loads((REGISTRY / "EXPECTED.json").read_text())["specs"] if s["artifact"]]
SPEC, OTHER = SPECS[:2]


def blob(digest: str) -> bytes:
    hex_ = digest.removeprefix("sha256:")
    return (V2 / "blobs/sha256" / hex_[:2] / hex_ / "data").read_bytes()


def manifest(tag: str) -> bytes:
    return blob((V2 / f"repositories/cache/_manifests/tags/{tag}/current/link").read_text())


def read(data: bytes, config: bytes | None, spec: dict[str, Any]) -> SpecDocument:
    image = parse_image(data, what="image")
    found = blob(image.config.sha256) if config is None else config
    return read_config(
        found, image, name=spec["name"], version=spec["version"], hash=spec["hash"], what="image"
    )


def test_every_image_of_spack() -> None:
    index = json.loads(blob(json.loads(manifest("index.spack"))["layers"][0]["digest"]))
    installs = index["database"]["installs"]
    for spec in SPECS:
        tag = image_tag(spec["name"], spec["version"], spec["hash"])
        assert tag == spec["artifact"]["tag"]
        document = read(manifest(tag), None, spec)
        image = parse_image(manifest(tag), what=tag)
        assert image.config.sha256 == spec["artifact"]["config_digest"].removeprefix("sha256:")
        assert image.tarball.sha256 == spec["artifact"]["tarball_sha256"]
        assert image.tarball.size == spec["artifact"]["tarball_size"]
        assert hashlib.sha256(blob(image.tarball.sha256)).hexdigest() == image.tarball.sha256
        check_index_node(document, node_from_dict(installs[spec["hash"]]["spec"], specfile=5), what=tag)
    assert len(SPECS) == 47


MANIFEST = json.loads(manifest(SPEC["artifact"]["tag"]))
CONFIG = json.loads(blob(MANIFEST["config"]["digest"]))
LAYER = MANIFEST["layers"][-1]


def image(**change: Any) -> bytes:
    return json.dumps({**MANIFEST, **change}).encode()


def layer(**change: Any) -> bytes:
    return image(layers=[*MANIFEST["layers"][:-1], {**LAYER, **change}])


BAD_MANIFESTS: dict[str, bytes] = {
    "not JSON": b"{",
    "not UTF-8": b"\xff",
    "deep": b"[" * 100_000,
    "a list": b"[]",
    "too large": b" " * ((1 << 20) + 1),
    "schema 1": image(schemaVersion=1),
    "an image index": image(mediaType="application/vnd.oci.image.index.v1+json"),
    "media type is no text": image(mediaType=[]),
    "no layers": image(layers=[]),
    "layers is an object": image(layers={}),
    "a layer is a text": image(layers=["x"]),
    "no config": image(config=None),
    "config without digest": image(config={}),
    "giant config": image(config={**MANIFEST["config"], "size": 1 << 40}),
    "sha512": layer(digest="sha512:" + "0" * 128),
    "digest with a path": layer(digest="sha256:../../../etc/passwd"),
    "upper-case digest": layer(digest="sha256:" + "A" * 64),
    "digest with a newline": layer(digest=LAYER["digest"] + "\n"),
    "negative size": layer(size=-1),
    "size is true": layer(size=True),
    "foreign layer": layer(urls=["http://evil.invalid/x"]),
    "nondistributable layer": layer(mediaType="application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"),
    "not a tarball": layer(mediaType="text/plain"),
}


@pytest.mark.parametrize("name", BAD_MANIFESTS)
def test_a_bad_manifest_is_refused(name: str) -> None:
    with pytest.raises(FormatError) as caught:
        parse_image(BAD_MANIFESTS[name], what="image")
    assert len(caught.value.message) < 400
    assert caught.value.hint


def with_config(**change: Any) -> tuple[bytes, bytes]:
    config = json.dumps({**CONFIG, **change}).encode()
    ref = {
        **MANIFEST["config"],
        "digest": f"sha256:{hashlib.sha256(config).hexdigest()}",
        "size": len(config),
    }
    return image(config=ref), config


CHECKSUM = CONFIG["binary_cache_checksum"]
BAD_CONFIGS: dict[str, tuple[type[CachefetchError], Callable[[], tuple[bytes, bytes | None]]]] = {
    "of another package": (BindingError, lambda: (manifest(OTHER["artifact"]["tag"]), None)),
    "config of another package": (
        BindingError,
        lambda: with_config(spec=json.loads(blob(OTHER["artifact"]["config_digest"]))["spec"]),
    ),
    "about another tarball": (
        BindingError,
        lambda: with_config(binary_cache_checksum={**CHECKSUM, "hash": "0" * 64}),
    ),
    "about no tarball": (BindingError, lambda: with_config(binary_cache_checksum=None)),
    "of a newer layout": (FormatError, lambda: with_config(buildcache_layout_version=4)),
    "layout is a text": (FormatError, lambda: with_config(buildcache_layout_version="3")),
    "of a newer specfile": (
        FormatError,
        lambda: with_config(spec={**CONFIG["spec"], "_meta": {"version": 99}}),
    ),
    "without spec": (FormatError, lambda: with_config(spec=None)),
}


@pytest.mark.parametrize("name", BAD_CONFIGS)
def test_a_bad_config_is_refused(name: str) -> None:
    kind, make = BAD_CONFIGS[name]
    data, config = make()
    with pytest.raises(kind):
        read(data, config, SPEC)
