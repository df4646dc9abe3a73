"""The library as programs call it: threads, both event loops, odd arguments, the same results everywhere."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import pytest
from tests.functional.conftest import KEY, MIRROR
from tests.services.nginx import Nginx

from cachefetch import AsyncClient, Client, Config, Mirror
from cachefetch.errors import UsageError
from cachefetch.resolver.host.overrides import HostOverrides, parse_compiler, parse_libc
from cachefetch.resolver.model import Host


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(cache_dir=str(tmp_path / "cache"), config_dir=str(tmp_path / "config"))


@pytest.fixture
def host() -> Host:
    with Client([MIRROR], config=Config(cache_dir="/nonexistent")) as client:
        return client.host(
            HostOverrides(
                platform="linux",
                os="debian12",
                target="x86_64_v3",
                libc=parse_libc("glibc@2.36"),
                compilers=(parse_compiler("gcc@12.2.0"),),
            )
        )


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with Nginx(str(tmp_path_factory.mktemp("nginx")), root=MIRROR) as server:
        yield server.url


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_both_event_loops_fetch(url: str, config: Config, host: Host, tmp_path: Path, backend: str) -> None:
    async def main() -> list[str]:
        async with AsyncClient([url], keys=[KEY], config=config) as client:
            receipt = await client.fetch("zlib", host=host, to=str(tmp_path / "out"))
            return [item.hash for item in receipt.items]

    assert anyio.run(main, backend=backend)
    assert list((tmp_path / "out").glob("zlib-*.spack"))


def test_threads_share_a_client(url: str, config: Config, host: Host) -> None:
    found: list[object] = []
    with Client([url], keys=[KEY], config=config) as client:
        gate = threading.Barrier(8)

        def work() -> None:
            gate.wait()
            found.append([m.state for m in client.update()])

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert found == [["fresh"]] * 8


def test_paths_are_mirrors_too(config: Config, host: Host, tmp_path: Path) -> None:
    with Client([Path(MIRROR)], keys=[Path(KEY)], config=config) as client:
        assert client.fetch("zlib", host=host, to=str(tmp_path)).items


@pytest.mark.parametrize("words", [{"mirrors": MIRROR}, {"mirrors": [MIRROR], "keys": KEY}])
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_one_string_in_place_of_a_list_is_a_mistake(
    kind: Callable[..., object], words: dict[str, object], config: Config
) -> None:
    with pytest.raises(TypeError, match="list of several"):
        kind(**words, config=config)


def test_a_resolution_and_specs_contradict(config: Config, host: Host) -> None:
    with Client([MIRROR], keys=[KEY], config=config) as client:
        answer = client.resolve("zlib", host=host)
        with pytest.raises(UsageError, match=r"got a resolution and 'hdf5'"):
            client.fetch("hdf5", resolution=answer)


def test_fetch_takes_requirements(config: Config, host: Host) -> None:
    with Client([MIRROR], keys=[KEY], config=config) as client:
        by_spec = client.fetch("zlib", host=host)
        by_requirement = client.fetch(requirements=["zlib>=1"], host=host)
    assert [i.hash for i in by_spec.items] == [i.hash for i in by_requirement.items]


def test_mirrors_that_differ_in_their_secrets_are_two(config: Config) -> None:
    one, two = "http://a:x@h.example/m?sig=1", "http://a:x@h.example/m?sig=2"
    names = [m.name for m in Client([one, two, one], config=config).mirrors()]
    assert len(names) == len(set(names)) == 2
    assert not any("sig=" in name or "x@" in name for name in names)
    same = Mirror("m", "/m")
    assert Client([same, same], config=config).mirrors() == (same,)
