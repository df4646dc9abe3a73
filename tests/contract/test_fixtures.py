"""Every mirror that real Spack wrote gives the specs that real Spack reads from it, field by field."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from tests.services.registry import Registry

import cachefetch
from cachefetch.config import Mirror
from cachefetch.resolver.index.query import Specs
from cachefetch.resolver.model import LANGUAGES, Node
from cachefetch.resolver.targets import family

FIXTURES = Path(__file__).parents[1] / "data" / "fixtures"
NAMES = ["v3-unsigned", "v3-signed", "v2-unsigned", "v2-signed", "oci-registry"]


@contextmanager
def served(name: str, tmp_path: Path) -> Iterator[str]:
    """Give the location of a fixture mirror; the registry one is served by a real docker-registry."""
    if name != "oci-registry":
        yield str(FIXTURES / name)
        return
    storage = tmp_path / "storage"
    shutil.copytree(FIXTURES / name, storage)
    with Registry(str(tmp_path / "registry"), str(storage)) as registry:
        yield registry.url("cache")


@pytest.fixture
def place(tmp_path: Path) -> Callable[[str], AbstractContextManager[str]]:
    return lambda name: served(name, tmp_path)


def specs_of(client: cachefetch.Client) -> Specs:
    client.update()
    assert client._sources is not None
    return client._sources.specs


@pytest.mark.parametrize("name", NAMES)
def test_every_node_is_what_spack_reads(
    name: str, place: Callable[[str], AbstractContextManager[str]]
) -> None:
    expected = json.loads((FIXTURES / name / "EXPECTED.json").read_bytes())
    with place(name) as location, cachefetch.Client([location]) as client:
        (state,) = client.update()
        assert (state.kind, state.state, state.specs) == (
            expected["layout"],
            "fresh",
            expected["in_buildcache"],
        )
        specs = specs_of(client)
        everything = {record.node.hash: record for record in specs.everything()}
        assert set(everything) == {spec["hash"] for spec in expected["specs"]}
        dag = {hash_: record.node for hash_, record in everything.items()}
        for spec in expected["specs"]:
            record = everything[spec["hash"]]
            assert as_spack_says(record.node, dag) == {
                key: spec[key] for key in as_spack_says(record.node, dag)
            }
            assert record.has_binary == (spec["in_buildcache"] and not spec["external"])
            assert bool(record.mirrors) == record.has_binary


def as_spack_says(node: Node, dag: dict[str, Node]) -> dict[str, Any]:
    """Return the fields of EXPECTED.json for a node."""
    by_language = {
        language: edge
        for edge in node.edges
        for language in LANGUAGES
        if language in edge.virtuals and "build" in edge.types
    }
    return {
        "name": node.name,
        "namespace": node.namespace,
        "version": node.version,
        "external": node.external is not None,
        "platform": node.platform,
        "os": node.os,
        "target": node.target,
        "target_family": family(node.target),
        "compilers": {
            language: f"{dag[e.hash].name}@{dag[e.hash].version}/{e.hash}"
            for language, e in by_language.items()
        },
        "annotated_compiler": "@=".join(node.compiler) if node.compiler else None,
        "variants": {k: list(v) if isinstance(v, tuple) else v for k, v in node.variants.items()},
        "compiler_flags": {key: list(words) for key, words in node.flags.items() if words},
        "build_spec": node.build_spec,
        "dependencies": [
            {"hash": e.hash, "name": e.name, "types": sorted(e.types), "virtuals": sorted(e.virtuals)}
            for e in sorted(node.edges, key=lambda edge: (edge.name, edge.hash))
        ],
    }


@pytest.mark.parametrize("name", NAMES)
def test_externals_are_known_and_never_offered(
    name: str, place: Callable[[str], AbstractContextManager[str]]
) -> None:
    expected = json.loads((FIXTURES / name / "EXPECTED.json").read_bytes())
    external = {spec["hash"] for spec in expected["specs"] if spec["external"]}
    assert external
    with place(name) as location, cachefetch.Client([location]) as client:
        assert not external & {artifact.hash for artifact in client.list().specs}
        assert external <= {artifact.hash for artifact in client.list(externals=True).specs}


def test_an_unchanged_registry_and_v2_mirror_are_not_read_again(
    place: Callable[[str], AbstractContextManager[str]],
) -> None:
    with place("oci-registry") as location:
        with cachefetch.Client([location]) as client:
            first = client.update()
        with cachefetch.Client([location], refresh=True) as client:
            again = client.update()
            assert client._sources is not None
    assert [(s.kind, s.state, s.specs) for s in again] == [(s.kind, s.state, s.specs) for s in first]


#: bcrypt of "secret", for the registry's password file.
PASSWORDS = "me:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n"


def test_a_registry_that_wants_a_password_gets_it_from_the_url(tmp_path: Path) -> None:
    shutil.copytree(FIXTURES / "oci-registry", tmp_path / "storage")
    (tmp_path / "passwords").write_text(PASSWORDS)
    auth = f"auth: {{htpasswd: {{realm: test, path: {tmp_path / 'passwords'}}}}}"
    with Registry(str(tmp_path / "registry"), str(tmp_path / "storage"), auth) as registry:
        for userinfo, word in (("", "unauthorized"), ("me:wrong@", "unauthorized"), ("me:secret@", "fresh")):
            location = registry.url("cache").replace("://", f"://{userinfo}")
            assert state_of(location)["state"] == word
            assert "secret" not in str(state_of(location))


def state_of(location: str) -> dict[str, Any]:
    with cachefetch.Client([location]) as client:
        try:
            return client.update()[0].to_dict()
        except cachefetch.MirrorError as error:
            found: dict[str, Any] = error.context["mirrors"][0]
            return found


class TokenService(BaseHTTPRequestHandler):
    """A registry that gives its index image to bearers of a token, and the service that gives the token."""

    asked: ClassVar[list[tuple[str, str]]] = []

    def log_message(self, format: str, *args: Any) -> None:
        """Stay silent."""

    def do_GET(self) -> None:
        authorization = self.headers.get("Authorization", "")
        self.asked.append((self.path, authorization))
        host = self.headers["Host"]
        if self.path.startswith("/token?"):
            self.answer(200, json.dumps({"token": "t0ken"}).encode())
        elif authorization != "Bearer t0ken":
            challenge = f'Bearer realm="http://{host}/token",service="reg",scope="repository:cache:pull"'
            self.answer(401, b"{}", challenge)
        elif self.path == "/v2/cache/manifests/index.spack":
            layer = {"digest": f"sha256:{hashlib.sha256(INDEX).hexdigest()}", "size": len(INDEX)}
            self.answer(200, json.dumps({"schemaVersion": 2, "layers": [layer]}).encode())
        else:
            self.answer(200, INDEX)

    def answer(self, status: int, body: bytes, challenge: str = "") -> None:
        self.send_response(status)
        if challenge:
            self.send_header("WWW-Authenticate", challenge)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


INDEX = (FIXTURES / "v2-signed/build_cache/index.json").read_bytes()


def test_a_token_is_fetched_once_and_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TokenService, "asked", [])
    server = ThreadingHTTPServer(("127.0.0.1", 0), TokenService)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        state = state_of(f"oci+http://me:pw@127.0.0.1:{server.server_address[1]}/cache")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert (state["kind"], state["state"], state["specs"]) == ("oci", "fresh", 55)
    tokens = [(path, given) for path, given in TokenService.asked if path.startswith("/token")]
    assert len(tokens) == 1
    path, given = tokens[0]
    assert "service=reg" in path
    assert "scope=repository%3Acache%3Apull" in path
    assert given == "Basic " + base64.b64encode(b"me:pw").decode()
    assert not any(given.startswith("Basic") for path, given in TokenService.asked if "/v2/" in path)


def test_mirrors_are_merged_by_hash_whatever_their_layout() -> None:
    mirrors = [Mirror(name, str(FIXTURES / name)) for name in ("v2-signed", "v2-unsigned", "v3-signed")]
    with cachefetch.Client(mirrors) as client:
        everything = specs_of(client).everything()
    both = [record for record in everything if len(record.mirrors) > 1]
    assert both
    assert {name for record in everything for name in record.mirrors} == {m.name for m in mirrors}
