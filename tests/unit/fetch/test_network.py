"""Proxies, certificates and credentials, with sockets of our own and with httpx."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
import trustme
from tests.faults.mirror import unsigned, write_package
from tests.faults.run import fetch, final_files
from tests.faults.server import Fault, FaultServer

from cachefetch.config import load
from cachefetch.errors import ConfigError, MirrorError, NetworkError
from cachefetch.fetch.limits import Limits
from cachefetch.fetch.network import Credential, Network, proxied
from cachefetch.fetch.transports import Transports
from cachefetch.fetch.transports.direct import DirectTransport

LIMITS = Limits(stall_s=1, connect_timeout_s=5)
DATA = b"payload" * 1000


@pytest.fixture(autouse=True, params=["direct", "httpx"])
def client(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    if request.param == "httpx":
        monkeypatch.setattr(DirectTransport, "_speaks", lambda self, url: False)
    return str(request.param)


@pytest.fixture
def root(tmp_path: Path) -> str:
    (tmp_path / "x").write_bytes(DATA)
    return str(tmp_path)


@pytest.fixture
def server(root: str) -> Iterator[FaultServer]:
    with FaultServer(root) as started:
        yield started


def get(url: str, network: Network | None = None) -> bytes:
    async def main() -> bytes:
        transports = Transports(LIMITS, network=network)
        try:
            return (await transports.for_url(url).get(url, limit=1 << 20)).body
        finally:
            await transports.aclose()

    return anyio.run(main)


def test_a_proxy_of_the_environment_is_used(
    root: str, server: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    behind = Path(root, "http:", "mirror.invalid")
    behind.mkdir(parents=True)
    (behind / "y").write_bytes(b"through the proxy")
    monkeypatch.setenv("HTTP_PROXY", server.url)
    monkeypatch.setenv("http_proxy", server.url)
    assert get("http://mirror.invalid/y") == b"through the proxy"
    assert server.requests[-1].path == "http://mirror.invalid/y"


def test_no_proxy_is_respected(server: FaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1")
    assert get(f"{server.url}/x") == DATA
    assert not proxied("http", "127.0.0.1")
    assert proxied("http", "mirror.invalid")


def test_a_dead_proxy_is_a_network_error(server: FaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with pytest.raises(NetworkError):
        get(f"{server.url}/x")
    assert server.requests == []


# --- credentials ----------------------------------------------------------------------------------------------------


def test_a_token_of_an_environment_variable(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network(credentials={"127.0.0.1": Credential(token="LAB_TOKEN")})
    with FaultServer(root, user="Bearer s3cret") as guarded:
        with pytest.raises(ConfigError, match="LAB_TOKEN"):
            get(f"{guarded.url}/x", network)
        monkeypatch.setenv("LAB_TOKEN", "s3cret\n")
        assert get(f"{guarded.url}/x", network) == DATA
        monkeypatch.setenv("LAB_TOKEN", "two\r\nX-Injected: lines")
        with pytest.raises(ConfigError, match="not usable"):
            get(f"{guarded.url}/x", network)


def test_user_and_password_of_environment_variables_by_host_and_port(
    root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("U", "ann")
    monkeypatch.setenv("P", "pw")
    with FaultServer(root, user="Basic YW5uOnB3") as guarded:
        network = Network(credentials={f"127.0.0.1:{guarded.port}": Credential(user="U", password="P")})
        assert get(f"{guarded.url}/x", network) == DATA


def test_netrc(root: str, tmp_path: Path) -> None:
    file = tmp_path / "netrc"
    file.write_text("machine 127.0.0.1 login ann password pw\n")
    file.chmod(0o600)
    with FaultServer(root, user="Basic YW5uOnB3") as guarded:
        assert get(f"{guarded.url}/x", Network(netrc=str(file))) == DATA
        with pytest.raises(ConfigError, match="netrc"):
            get(f"{guarded.url}/x", Network(netrc=str(tmp_path / "absent")))


def test_configured_credentials_do_not_follow_a_redirect(
    root: str, server: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAB_TOKEN", "s3cret")
    network = Network(credentials={"127.0.0.1": Credential(token="LAB_TOKEN")})
    with FaultServer(root) as first:
        first.script("/x", Fault(location=f"{server.url}/x"))  # same host, another port: another server
        assert get(f"{first.url}/x", network) == DATA
        assert first.requests[0].headers["authorization"] == "Bearer s3cret"
    assert "authorization" not in server.requests[0].headers


# --- certificates ---------------------------------------------------------------------------------------------------


def test_an_authority_of_the_configuration_and_a_client_certificate(root: str, tmp_path: Path) -> None:
    authority, own = trustme.CA(), trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    context.verify_mode = ssl.CERT_REQUIRED
    own.configure_trust(context)
    ca, cert, key = (str(tmp_path / name) for name in ("ca.pem", "cert.pem", "key.pem"))
    authority.cert_pem.write_to_path(ca)
    mine = own.issue_cert("client@example.org")
    mine.cert_chain_pems[0].write_to_path(cert)
    mine.private_key_pem.write_to_path(key)
    with FaultServer(root, tls=context) as secure:
        assert get(f"{secure.url}/x", Network(ca_file=ca, client_cert=cert, client_key=key)) == DATA
        for refused in (Network(ca_file=ca), Network(system_trust=True, client_cert=cert, client_key=key)):
            with pytest.raises(MirrorError):
                get(f"{secure.url}/x", refused)


def test_a_certificate_that_cannot_be_read_is_a_configuration_error(server: FaultServer) -> None:
    with pytest.raises(ConfigError, match=r"nothing\.pem"):
        get(server.url.replace("http:", "https:") + "/x", Network(ca_file="/nothing.pem"))


# --- the section of the configuration file --------------------------------------------------------------------------


def config_of(tmp_path: Path, text: str) -> dict[str, object]:
    file = tmp_path / "config.toml"
    file.write_text(text)
    return dict(load({"HOME": str(tmp_path)}, system_file=str(file)).network)


def test_the_section_is_checked(tmp_path: Path) -> None:
    text = (
        '[network]\nca_file = "/ca.pem"\n[network.credentials."Mirror.example.org"]\ntoken_variable = "T"\n'
    )
    assert config_of(tmp_path, text) == {
        "ca_file": "/ca.pem",
        "credentials": {"mirror.example.org": {"token": "T"}},
    }


@pytest.mark.parametrize(
    "text",
    [
        "[network]\nca = 1\n",
        "[network]\nca_file = 1\n",
        '[network.credentials.host]\ntoken = "secret"\n',
        '[network.credentials.host]\nuser_variable = "U"\n',
        "[network.credentials.host]\ntoken_variable = 1\n",
    ],
)
def test_bad_sections_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="network"):
        config_of(tmp_path, text)


@pytest.mark.parametrize("client", ["direct", "httpx"])
def test_ipv6(root: str, client: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if client == "httpx":
        monkeypatch.setattr(DirectTransport, "_speaks", lambda self, url: False)
    try:
        server = FaultServer(root, host="::1")
    except OSError as error:
        pytest.skip(f"this machine has no IPv6: {error}")
    package = write_package(root, "six", 400_000)
    with server:
        assert "[::1]" in server.url
        fetch([package.wanted(unsigned("m", server.url))], tmp_path / "store")
    assert final_files(tmp_path / "store")[package.sha256] == package.payload
