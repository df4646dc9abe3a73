"""Mirrors at IPv6 addresses, and behind servers that want a client certificate: real nginx, real command line."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme
from tests.functional.conftest import DEBIAN, KEY, MIRROR, Done
from tests.services.nginx import Nginx

Cli = Callable[..., Done]


@pytest.fixture(params=["127.0.0.1", "[::1]"])
def address(request: pytest.FixtureRequest) -> str:
    host = str(request.param)
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.bind((host.strip("[]"), 0))
    except OSError as error:
        pytest.skip(f"this machine has no {host}: {error}")
    return host


def configure(tmp_path: Path, text: str) -> None:
    file = tmp_path / "config/cachefetch/config.toml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def use(cli: Cli, tmp_path: Path, url: str) -> None:
    """Let every command that reaches out use a mirror; each must get all of it."""
    assert cli("doctor", url, "--json").json["mirrors"][0]["state"] == "fresh"
    found = cli("fetch", "zlib", "-m", url, "--key", KEY, *DEBIAN, "--json")
    assert found.code == 0, found.err
    assert {item["from"] for item in found.json["items"]} == {"network"}
    copied = cli("sync", "--all", "--from", url, "--key", KEY, "--to", tmp_path / "copy", "--json")
    assert (copied.code, copied.json["done"]["packages"]) == (0, 18), copied.err
    audit = cli("verify", url, "--key", KEY, "--json")
    assert (audit.code, audit.json["manifests"]) == (0, 18), audit.err


def test_every_command_reaches_it(cli: Cli, tmp_path: Path, address: str) -> None:
    with Nginx(str(tmp_path / "nginx"), MIRROR, address=address) as server:
        use(cli, tmp_path, server.url)
        assert cli("mirror", "add", "site", server.url).code == 0
        assert server.url in cli("mirror", "list").out


def test_a_credential_for_an_address(
    cli: Cli, tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    guard = 'if ($http_authorization != "Bearer s3cret") { return 401; }'
    with Nginx(str(tmp_path / "nginx"), MIRROR, address=address, server=guard) as server:
        assert "unauthorized" in cli("doctor", server.url).out
        for name in (address, server.url.removeprefix("http://")):
            configure(tmp_path, f'[network.credentials."{name}"]\ntoken_variable = "SITE_TOKEN"\n')
            monkeypatch.delenv("SITE_TOKEN", raising=False)
            assert any("SITE_TOKEN" in problem for problem in cli("doctor", "--json").json["problems"])
            monkeypatch.setenv("SITE_TOKEN", "s3cret")
            assert cli("doctor", "--json").json["problems"] == []
            assert cli("list", "-m", server.url, "--refresh").code == 0


def test_a_server_that_wants_a_client_certificate(cli: Cli, tmp_path: Path, address: str) -> None:
    servers, clients, others = trustme.CA(), trustme.CA(), trustme.CA()
    host = address.strip("[]")
    paths = {name: str(tmp_path / f"{name}.pem") for name in ("ca", "clients", "server", "key")}
    servers.cert_pem.write_to_path(paths["ca"])
    clients.cert_pem.write_to_path(paths["clients"])
    own = servers.issue_cert(host)
    own.cert_chain_pems[0].write_to_path(paths["server"])
    own.private_key_pem.write_to_path(paths["key"])
    for name, authority in (("good", clients), ("wrong", others)):
        made = authority.issue_cert("client@example.org")
        made.cert_chain_pems[0].write_to_path(str(tmp_path / f"{name}.crt"))
        made.private_key_pem.write_to_path(str(tmp_path / f"{name}.key"))
    asks = f"ssl_verify_client on; ssl_client_certificate {paths['clients']};"
    trust = f'[network]\nca_file = "{paths["ca"]}"\n'

    def identified(certificate: str, key: str) -> str:
        return f'{trust}client_cert = "{tmp_path}/{certificate}.crt"\nclient_key = "{tmp_path}/{key}.key"\n'

    tls = (paths["server"], paths["key"])
    with Nginx(str(tmp_path / "nginx"), MIRROR, tls=tls, address=address, server=asks) as server:
        for text, said in (
            ("", "certificate verify failed"),
            (trust, "client certificate may answer so"),
            (identified("wrong", "wrong"), "client certificate may answer so"),
            (identified("good", "wrong"), "cannot use the certificates"),
            (identified("good", "absent"), "cannot use the certificates"),
        ):
            configure(tmp_path, text)
            refused = cli("resolve", "zlib", "-m", server.url, *DEBIAN)
            assert (refused.code, said in refused.err) == (8, True), refused.err
        assert any("absent.key" in problem for problem in cli("doctor", "--json").json["problems"])
        configure(tmp_path, identified("good", "good"))
        assert cli("doctor", "--json").json["problems"] == []
        use(cli, tmp_path, server.url)
