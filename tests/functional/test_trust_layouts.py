"""Attacks on layout 2 mirrors and on a real registry: each is refused with its own code, and leaves nothing."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.faults.server import Fault, FaultServer
from tests.functional.conftest import FIXTURES, Done
from tests.functional.test_trust import flip, sign_of
from tests.services.registry import Registry
from tests.tools import archive
from tests.tools.archive import entry, package, stored

Cli = Callable[..., Done]
KEY = str(FIXTURES / "keys/cachefetch-test.pub.asc")
SIGNED, UNSIGNED, OCI = FIXTURES / "v2-signed", FIXTURES / "v2-unsigned", FIXTURES / "oci-registry"


def two(mirror: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the wanted package and another one."""
    specs = [s for s in json.loads((mirror / "EXPECTED.json").read_text())["specs"] if s["artifact"]]
    return next(s for s in specs if s["name"] == "zlib"), next(s for s in specs if s["name"] == "python")


class Attack:
    """A copy of a layout 2 mirror, as far as the wanted package needs it, to be changed."""

    def __init__(self, root: Path, mirror: Path) -> None:
        self.root = root
        self.wanted, self.other = two(mirror)
        for path in ("build_cache/index.json", "build_cache/index.json.hash"):
            self._copy(mirror, path)
        for spec in (self.wanted, self.other):
            self._copy(mirror, spec["artifact"]["spec_file"])
            self._copy(mirror, spec["artifact"]["tarball"])

    def _copy(self, mirror: Path, path: str) -> None:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(mirror / path, target)

    @property
    def spec_file(self) -> Path:
        return self.root / str(self.wanted["artifact"]["spec_file"])

    @property
    def tarball(self) -> Path:
        return self.root / str(self.wanted["artifact"]["tarball"])


Change = Callable[[Attack], None]


def on_spec_file(change: Callable[[bytes], bytes]) -> Change:
    return lambda attack: void(attack.spec_file.write_bytes(change(attack.spec_file.read_bytes())))


def on_tarball(change: Callable[[bytes], bytes]) -> Change:
    return lambda attack: void(attack.tarball.write_bytes(change(attack.tarball.read_bytes())))


def void(_: object) -> None:
    """Drop a result."""


def swap_spec_files(attack: Attack) -> None:
    shutil.copyfile(attack.root / attack.other["artifact"]["spec_file"], attack.spec_file)


def swap_tarballs(attack: Attack) -> None:
    shutil.copyfile(attack.root / attack.other["artifact"]["tarball"], attack.tarball)


def payload(data: bytes) -> bytes:
    return data[data.index(b"\n\n") + 2 : data.index(b"-----BEGIN PGP SIGNATURE")]


def unsigned_beside(attack: Attack) -> None:
    """The signed file is damaged, and a good unsigned one lies beside it: no way around the signature."""
    data = attack.spec_file.read_bytes()
    attack.spec_file.with_suffix("").write_bytes(payload(data))
    attack.spec_file.write_bytes(flip(0.3)(data))


def unsigned_instead(attack: Attack) -> None:
    attack.spec_file.with_suffix("").write_bytes(payload(attack.spec_file.read_bytes()))
    attack.spec_file.unlink()


OTHER_SPEC_FILE = (SIGNED / two(SIGNED)[1]["artifact"]["spec_file"]).read_bytes()
#: name -> (exit, code, what is done to the mirror). The key is trusted and a signature is required.
ON_SIGNED: dict[str, tuple[int, str, Change]] = {
    "spec file, a bit of the text": (7, "signature-invalid", on_spec_file(flip(0.2))),
    "spec file, a bit of the signature": (7, "signature-invalid", on_spec_file(flip(0.95))),
    "spec file, first line damaged": (7, "signature-missing", on_spec_file(flip(0.0))),
    "spec file, signature stripped": (7, "signature-missing", on_spec_file(payload)),
    "spec file, unsigned one instead": (7, "signature-missing", unsigned_instead),
    "spec file, unsigned one beside": (7, "signature-invalid", unsigned_beside),
    "spec file, text before": (7, "signature-missing", on_spec_file(lambda d: b"x\n" + d)),
    "spec file, text after": (7, "signature-invalid", on_spec_file(lambda d: d + b"x\n")),
    "spec file, two blocks": (7, "signature-invalid", on_spec_file(lambda d: d + d)),
    "spec file, signature of another": (7, "signature-invalid", on_spec_file(sign_of(OTHER_SPEC_FILE))),
    "spec file, trailing space": (
        7,
        "signature-invalid",
        on_spec_file(lambda d: d.replace(b"{\n", b"{ \n", 1)),
    ),
    "spec file, cut": (7, "signature-invalid", on_spec_file(lambda d: d[: len(d) // 2])),
    "spec file, as gzip": (7, "signature-missing", on_spec_file(gzip.compress)),
    "spec file, gzip bomb": (7, "signature-missing", on_spec_file(lambda _: gzip.compress(bytes(99 << 20)))),
    "spec file, empty": (7, "signature-missing", on_spec_file(lambda _: b"")),
    "spec file of another package, validly signed": (6, "binding-mismatch", swap_spec_files),
    "tarball, a bit at the start": (6, "digest-mismatch", on_tarball(flip(0.0))),
    "tarball, a bit in the middle": (6, "digest-mismatch", on_tarball(flip(0.5))),
    "tarball, too long": (6, "digest-mismatch", on_tarball(lambda d: d + b"x")),
    "tarball, too short": (6, "digest-mismatch", on_tarball(lambda d: d[:-1])),
    "tarball, empty": (6, "digest-mismatch", on_tarball(lambda _: b"")),
    "tarball of another package": (6, "digest-mismatch", swap_tarballs),
    "tarball packed anew": (
        6,
        "digest-mismatch",
        on_tarball(lambda d: gzip.compress(gzip.decompress(d), 1)),
    ),
}


def nothing_left(root: Path, *digests: str) -> None:
    assert list((root / "out").rglob("*")) == []
    for digest in digests:
        assert [p for p in (root / "cache").rglob(f"*{digest}*") if p.is_file() and p.stat().st_size] == []


@pytest.mark.parametrize("name", ON_SIGNED)
def test_attack_on_a_signed_mirror(cli: Cli, tmp_path: Path, name: str) -> None:
    code, word, change = ON_SIGNED[name]
    attack = Attack(tmp_path / "mirror", SIGNED)
    change(attack)
    words = ("-m", attack.root, "--key", KEY, "--json")
    done = cli("extract", f"/{attack.wanted['hash']}", tmp_path / "out/zlib", *words)
    assert (done.code, done.json["code"]) == (code, word), done.err
    nothing_left(tmp_path, attack.wanted["artifact"]["tarball_sha256"])


@pytest.mark.parametrize("size", [10**15, 10**18])
def test_an_absurd_size_is_the_fault_of_one_mirror(cli: Cli, tmp_path: Path, size: int) -> None:
    """Nobody signs how long a tarball is here: what the server says of one must not end a run for lack of space."""
    attack = Attack(tmp_path / "mirror", SIGNED)
    Attack(tmp_path / "good", SIGNED)
    wanted = f"/{attack.wanted['hash']}"
    with FaultServer(str(attack.root)) as server:
        path = "/" + attack.wanted["artifact"]["tarball"]
        server.script(path, Fault(ignore_range=True, length=size, times=0))
        done = cli("extract", wanted, tmp_path / "out/zlib", "-m", server.url, "--key", KEY, "--json")
        assert (done.code, done.json["code"]) == (6, "bad-format"), done.err
        assert str(size) in done.json["message"]
        nothing_left(tmp_path, attack.wanted["artifact"]["tarball_sha256"])
        mirrors = ("-m", server.url, "-m", tmp_path / "good")
        done = cli("extract", wanted, tmp_path / "out/zlib", *mirrors, "--key", KEY, "--json")
        assert done.code == 0, done.err
        assert [warning["code"] for warning in done.json["warnings"]] == ["bad-format"]


# --- where nobody signs, digests and binding still hold


def document(change: Callable[[dict[str, Any]], object]) -> Change:
    """Return a change of the parsed spec file."""

    def make(attack: Attack) -> None:
        found = json.loads(attack.spec_file.read_text())
        change(found)
        attack.spec_file.write_text(json.dumps(found))

    return make


def with_payload(data: bytes) -> Change:
    """Return a mirror whose spec file names this tarball."""

    def make(attack: Attack) -> None:
        attack.tarball.write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        document(lambda found: found["binary_cache_checksum"].update(hash=digest))(attack)

    return make


def root_of(found: dict[str, Any]) -> dict[str, Any]:
    node: dict[str, Any] = found["spec"]["nodes"][0]
    return node


ON_UNSIGNED: dict[str, tuple[int, str, Change]] = {
    "spec file of another package": (6, "binding-mismatch", swap_spec_files),
    "spec file with another name": (
        6,
        "binding-mismatch",
        document(lambda found: root_of(found).update(name="evil")),
    ),
    "spec file with another version": (
        6,
        "binding-mismatch",
        document(lambda found: root_of(found).update(version="9.9")),
    ),
    "spec file of another build than the index says": (
        6,
        "binding-mismatch",
        document(lambda found: root_of(found)["parameters"].update(shared="evil")),
    ),
    "spec file with other dependencies": (
        6,
        "binding-mismatch",
        document(lambda found: root_of(found).pop("dependencies")),
    ),
    "spec file with a weak digest": (
        6,
        "bad-format",
        document(lambda found: found["binary_cache_checksum"].update(hash_algorithm="md5")),
    ),
    "spec file with a digest that is a path": (
        6,
        "bad-format",
        document(lambda found: found["binary_cache_checksum"].update(hash="../../../etc/passwd")),
    ),
    "spec file without digest": (6, "bad-format", document(lambda found: found.pop("binary_cache_checksum"))),
    "spec file of layout 3": (
        6,
        "bad-format",
        document(lambda found: found.update(buildcache_layout_version=3)),
    ),
    "spec file of layout 0": (
        6,
        "bad-format",
        document(lambda found: found.pop("buildcache_layout_version")),
    ),
    "spec file with deep nesting": (6, "bad-format", on_spec_file(lambda _: b"[" * 100_000)),
    "spec file as gzip bomb": (6, "bad-format", on_spec_file(lambda _: gzip.compress(bytes(99 << 20)))),
    "spec file of 17 MiB": (6, "bad-format", on_spec_file(lambda d: d + b" " * (17 << 20))),
    "spec file that is no text": (6, "bad-format", on_spec_file(lambda _: b"\xff\xfe\0")),
    "tarball, wrong digest": (6, "digest-mismatch", on_tarball(flip(0.5))),
    "tarball with ..": (
        6,
        "archive-parent-reference",
        with_payload(stored(package(entry("./../../../../../evil", b"x")))),
    ),
    "tarball as bomb": (
        6,
        "archive-bomb",
        with_payload(stored(package(entry("./zeros", bytes(100 << 20))))),
    ),
    "tarball that is cut": (6, "archive-truncated", with_payload(stored(archive.good()[:9000]))),
    "nested tarball of layout 0": (
        6,
        "archive-no-prefix",
        with_payload(
            archive.archive([entry("zlib.tar.gz", gzip.compress(package())), entry("zlib.spec.json")])
        ),
    ),
}


@pytest.mark.parametrize("name", ON_UNSIGNED)
def test_attack_on_an_unsigned_mirror(cli: Cli, tmp_path: Path, name: str) -> None:
    code, word, change = ON_UNSIGNED[name]
    attack = Attack(tmp_path / "mirror", UNSIGNED)
    change(attack)
    words = ("-m", attack.root, "--unsigned", "--json")
    done = cli("extract", f"/{attack.wanted['hash']}", tmp_path / "out/zlib", *words)
    assert (done.code, done.json["code"]) == (code, word), done.err
    nothing_left(tmp_path, attack.wanted["artifact"]["tarball_sha256"])


def test_without_an_attack_it_is_delivered(cli: Cli, tmp_path: Path) -> None:
    for mirror, trust in ((SIGNED, ("--key", KEY)), (UNSIGNED, ("--unsigned",))):
        attack = Attack(tmp_path / mirror.name, mirror)
        words = ("extract", f"/{attack.wanted['hash']}", tmp_path / f"out-{mirror.name}")
        assert cli(*words, "-m", attack.root, *trust).code == 0
    done = cli(*words[:2], tmp_path / "again", "-m", tmp_path / SIGNED.name, "--unsigned", "--json")
    assert (done.code, done.json["verified"]["signature"]) == (0, "not-required")


# --- a registry


class Storage:
    """The storage folder of a registry; what is put there is what the registry serves."""

    wanted, other = two(OCI)

    def __init__(self, root: Path) -> None:
        self.root = root / "docker/registry/v2"
        self.repository = self.root / "repositories/cache"

    def data(self, digest: str) -> Path:
        hex_ = digest.removeprefix("sha256:")
        return self.root / "blobs/sha256" / hex_[:2] / hex_ / "data"

    def put(self, data: bytes) -> str:
        """Store a blob and return its digest."""
        hex_ = hashlib.sha256(data).hexdigest()
        self.data(hex_).parent.mkdir(parents=True, exist_ok=True)
        self.data(hex_).write_bytes(data)
        for place in (self.repository / "_layers/sha256", self.repository / "_manifests/revisions/sha256"):
            (place / hex_).mkdir(parents=True, exist_ok=True)
            (place / hex_ / "link").write_text(f"sha256:{hex_}")
        return f"sha256:{hex_}"

    def link(self, spec: dict[str, Any]) -> Path:
        return self.repository / f"_manifests/tags/{spec['artifact']['tag']}/current/link"

    def manifest(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.data(self.link(self.wanted).read_text()).read_text())
        return found

    def tag(self, manifest: dict[str, Any]) -> None:
        self.link(self.wanted).write_text(self.put(json.dumps(manifest).encode()))

    def config(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.data(self.manifest()["config"]["digest"]).read_text())
        return found

    def with_config(self, data: bytes) -> None:
        """Tag an image with this config."""
        ref = {**self.manifest()["config"], "digest": self.put(data), "size": len(data)}
        self.tag({**self.manifest(), "config": ref})

    def with_layer(self, data: bytes) -> None:
        """Tag an image with this tarball, which its config names too."""
        digest = self.put(data)
        layer = {**self.manifest()["layers"][-1], "digest": digest, "size": len(data)}
        self.tag({**self.manifest(), "layers": [*self.manifest()["layers"][:-1], layer]})
        checksum = {"hash_algorithm": "sha256", "hash": digest.removeprefix("sha256:")}
        self.with_config(json.dumps({**self.config(), "binary_cache_checksum": checksum}).encode())

    def change(self, digest: str, change: Callable[[bytes], bytes]) -> None:
        self.data(digest).write_bytes(change(self.data(digest).read_bytes()))


def layer(**change: Any) -> Callable[[Storage], None]:
    def make(storage: Storage) -> None:
        manifest = storage.manifest()
        manifest["layers"][-1].update(change)
        storage.tag(manifest)

    return make


def config(**change: Any) -> Callable[[Storage], None]:
    return lambda storage: storage.with_config(json.dumps({**storage.config(), **change}).encode())


def config_node(**change: Any) -> Callable[[Storage], None]:
    def make(storage: Storage) -> None:
        found = storage.config()
        root_of(found).update(change)
        storage.with_config(json.dumps(found).encode())

    return make


def other_image(storage: Storage) -> None:
    storage.link(storage.wanted).write_text(storage.link(storage.other).read_text())


def other_layer(storage: Storage) -> None:
    manifest = json.loads(storage.data(storage.link(storage.other).read_text()).read_text())
    storage.tag({**storage.manifest(), "layers": manifest["layers"]})


ON_REGISTRY: dict[str, tuple[int, str, Callable[[Storage], None]]] = {
    "image of another package": (6, "binding-mismatch", other_image),
    "layer of another package": (6, "binding-mismatch", other_layer),
    "config with another name": (6, "binding-mismatch", config_node(name="evil")),
    "config with another hash": (6, "binding-mismatch", config_node(hash="a" * 32)),
    "config of another build than the index says": (
        6,
        "binding-mismatch",
        config_node(parameters={"build_system": "evil"}),
    ),
    "config about another tarball": (
        6,
        "binding-mismatch",
        config(binary_cache_checksum={"hash_algorithm": "sha256", "hash": "0" * 64}),
    ),
    "config about no tarball": (6, "binding-mismatch", config(binary_cache_checksum=None)),
    "config of a newer layout": (6, "bad-format", config(buildcache_layout_version=4)),
    "config without spec": (6, "bad-format", config(spec=None)),
    "config as gzip bomb": (
        6,
        "bad-format",
        lambda storage: storage.with_config(gzip.compress(bytes(99 << 20))),
    ),
    "config, a bit": (
        6,
        "digest-mismatch",
        lambda storage: storage.change(storage.manifest()["config"]["digest"], flip(0.5)),
    ),
    "layer that lies elsewhere": (6, "bad-format", layer(urls=["http://127.0.0.1:9/evil"])),
    "layer with a weak digest": (6, "bad-format", layer(digest="md5:" + "0" * 32)),
    "layer with a digest that is a path": (6, "bad-format", layer(digest="sha256:../../etc/passwd")),
    "layer with a negative size": (6, "bad-format", layer(size=-1)),
    "layer that is no tarball": (6, "bad-format", layer(mediaType="text/plain")),
    "layer, a bit": (
        6,
        "digest-mismatch",
        lambda storage: storage.change(storage.manifest()["layers"][-1]["digest"], flip(0.5)),
    ),
    "layer, too long": (
        6,
        "size-mismatch",
        lambda storage: storage.change(storage.manifest()["layers"][-1]["digest"], lambda d: d + b"x"),
    ),
    "layer with ..": (
        6,
        "archive-parent-reference",
        lambda storage: storage.with_layer(stored(package(entry("./../../../../../evil", b"x")))),
    ),
    "layer as bomb": (
        6,
        "archive-bomb",
        lambda storage: storage.with_layer(stored(package(entry("./zeros", bytes(100 << 20))))),
    ),
    "manifest without layers": (
        6,
        "bad-format",
        lambda storage: storage.tag({**storage.manifest(), "layers": []}),
    ),
}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Registry]]:
    """Return a registry and the directory that it serves; each test fills it anew."""
    base = tmp_path_factory.mktemp("registry")
    shutil.copytree(OCI, base / "storage")
    with Registry(str(base / "server"), str(base / "storage")) as running:
        yield base / "storage", running


@pytest.fixture
def storage(template: tuple[Path, Registry]) -> Storage:
    root, _ = template
    shutil.rmtree(root / "docker")
    shutil.copytree(OCI / "docker", root / "docker")
    return Storage(root)


@pytest.mark.parametrize("name", ON_REGISTRY)
def test_attack_on_a_registry(
    cli: Cli, tmp_path: Path, template: tuple[Path, Registry], storage: Storage, name: str
) -> None:
    code, word, change = ON_REGISTRY[name]
    url = template[1].url("cache")
    assert cli("index", "update", "-m", url).code == 0
    change(storage)
    done = cli("extract", f"/{Storage.wanted['hash']}", tmp_path / "out/zlib", "-m", url, "--json")
    assert (done.code, done.json["code"]) == (code, word), done.err
    nothing_left(tmp_path, Storage.wanted["artifact"]["tarball_sha256"])


def test_there_are_enough_attacks() -> None:
    assert len(ON_SIGNED) + len(ON_UNSIGNED) + len(ON_REGISTRY) >= 60
