"""Many errands over few connections: answers in any order, kept connections, ends, aborts."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import pytest
import trustme
from tests.faults.server import Fault, FaultServer

from cachefetch.errors import CachefetchError, MirrorError, NetworkError, NotFoundError, StoreError
from cachefetch.fetch.limits import Limits
from cachefetch.fetch.network import Network
from cachefetch.fetch.session import Small
from cachefetch.fetch.transports.direct import DirectTransport
from cachefetch.fetch.transports.errand import Ask, HandedBack, asked
from cachefetch.fetch.transports.threads import run_abortable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cachefetch.fetch.transports.errand import Errand

LIMITS = Limits(connect_timeout_s=5, stall_s=1.0)


@pytest.fixture
def root(tmp_path: Path) -> str:
    for number in range(40):
        (tmp_path / f"f{number}").write_bytes(bytes([number]) * (number * 1000))
    return str(tmp_path)


@pytest.fixture
def server(root: str) -> Iterator[FaultServer]:
    with FaultServer(root) as started:
        yield started


class Errands:
    """Errands that each get some files, and remember what came and what went wrong."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.got: dict[str, bytes] = {}
        self.errors: dict[str, Exception] = {}
        self.ended: list[str] = []
        self.begun = 0

    async def get(self, *names: str) -> None:
        self.begun += 1
        try:
            for name in names:
                sink = Small(f"{self.url}/{name}", 1 << 20)
                try:
                    await asked(Ask(f"{self.url}/{name}", sink))
                    self.got[name] = bytes(sink.data)
                except (CachefetchError, HandedBack) as error:
                    self.errors[name] = error
        finally:
            self.ended.append(names[0])

    def run(self, groups: list[tuple[str, ...]], width: int = 4, network: Network | None = None) -> None:
        async def main() -> None:
            transport = DirectTransport(LIMITS, network or Network())
            await run_abortable(
                lambda abort: transport.run_errands(
                    abort, self.url, (self.get(*names) for names in groups), width
                )
            )
            await transport.aclose()

        anyio.run(main)


def test_every_errand_gets_its_bytes_over_few_connections(server: FaultServer) -> None:
    errands = Errands(server.url)
    errands.run([(f"f{n}", f"f{n + 20}") for n in range(20)])
    assert errands.got == {f"f{n}": bytes([n]) * (n * 1000) for n in range(40)}
    assert not errands.errors
    assert server.most_at_once <= 4


def test_tls(root: str, tmp_path: Path) -> None:
    issuer = trustme.CA()
    issuer.cert_pem.write_to_path(tmp_path / "ca.pem")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    issuer.issue_cert("127.0.0.1").configure_cert(tls)
    with FaultServer(root, tls=tls) as server:
        errands = Errands(server.url)
        errands.run([(f"f{n}",) for n in range(40)], network=Network(ca_file=str(tmp_path / "ca.pem")))
        assert len(errands.got) == 40
        strangers = Errands(server.url)
        strangers.run([("f1",)])
    assert isinstance(strangers.errors["f1"], MirrorError)
    assert "TLS" in str(strangers.errors["f1"])


def test_a_name_whose_first_address_does_not_answer(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    with FaultServer(root) as server, socket.create_server(("127.0.0.1", 0)) as closed:
        dead = closed.getsockname()
        closed.close()
        kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
        found = [(*kind, dead), (*kind, ("127.0.0.1", server.port))]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        errands = Errands(server.url)
        errands.run([(f"f{n}",) for n in range(10)])
    assert len(errands.got) == 10


def test_an_absent_file_is_the_errands_own_error_and_the_connection_goes_on(server: FaultServer) -> None:
    errands = Errands(server.url)
    errands.run([("none", "f1"), ("f2",)], width=1)
    assert isinstance(errands.errors["none"], NotFoundError)
    assert set(errands.got) == {"f1", "f2"}


HANDED_BACK = {
    "redirect": Fault(location="/f2"),
    "no length": Fault(no_length=True),
    "encoded": Fault(gzip=True),
    "chunked": Fault(headers=(("Transfer-Encoding", "chunked"),)),
}


@pytest.mark.parametrize("name", HANDED_BACK)
def test_what_is_not_plain_is_handed_back_and_no_more_is_begun(name: str, server: FaultServer) -> None:
    server.script("*", *[HANDED_BACK[name]] * 40)
    errands = Errands(server.url)
    errands.run([(f"f{n}",) for n in range(40)], width=2)
    assert all(isinstance(error, HandedBack) for error in errands.errors.values())
    assert 1 <= len(errands.errors) <= 3
    assert errands.begun == len(errands.ended)


BREAKS: dict[str, Fault] = {
    "cut": Fault(cut_after=500),
    "reset": Fault(reset_after=500),
    "stall": Fault(stall_after=500),
    "503": Fault(status=503),
}


@pytest.mark.parametrize("name", BREAKS)
def test_one_failure_is_one_errands(name: str, server: FaultServer) -> None:
    server.script("/f7", BREAKS[name])
    errands = Errands(server.url)
    errands.run([(f"f{n}",) for n in range(40)])
    assert set(errands.errors) == {"f7"}
    assert isinstance(errands.errors["f7"], NetworkError)
    assert len(errands.got) == 39


def test_a_host_in_trouble_gets_no_more(server: FaultServer) -> None:
    server.script("*", Fault(status=500, times=0))
    errands = Errands(server.url)
    errands.run([(f"f{n}",) for n in range(40)], width=2)
    assert 3 <= len(errands.errors) <= 5


def test_what_an_errand_does_not_catch_ends_the_run_and_the_others(server: FaultServer) -> None:
    errands = Errands(server.url)

    async def full() -> None:
        await asked(Ask(f"{server.url}/f1", Small("f1", 1 << 20)))
        raise StoreError("the disk is full")

    def run(make: Callable[[], Iterator[Errand]]) -> None:
        async def main() -> None:
            transport = DirectTransport(LIMITS, Network())
            try:
                await run_abortable(lambda abort: transport.run_errands(abort, server.url, make(), 4))
            finally:
                await transport.aclose()

        anyio.run(main)

    server.script("/f9", Fault(stall_after=10))
    with pytest.raises(StoreError):
        run(lambda: iter([errands.get("f9"), full()]))
    assert errands.ended == ["f9"], "an errand under way is closed, so that it gives its locks back"


def test_cancelling_closes_what_is_under_way(server: FaultServer) -> None:
    server.script("/f9", Fault(stall_after=10))
    errands = Errands(server.url)

    async def main() -> None:
        transport = DirectTransport(LIMITS, Network())
        with anyio.move_on_after(0.3):
            await run_abortable(
                lambda abort: transport.run_errands(abort, server.url, iter([errands.get("f9")]), 4)
            )
        await transport.aclose()

    anyio.run(main)
    assert errands.ended == ["f9"]
    assert not errands.errors
