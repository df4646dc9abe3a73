"""User and password of a real container registry, from the configuration, netrc or the URL: who gets them, who not."""

from __future__ import annotations

import base64
import shutil
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tests.functional.conftest import DEBIAN, FIXTURES, Done
from tests.services.registry import Registry
from tests.services.tokens import Tokens

Cli = Callable[..., Done]
SECRET = "s3cr3t-canary"
#: bcrypt of "secret" is in the contract tests; here the password file is that of another one.
PASSWORDS = "me:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n"
ME = "Basic " + base64.b64encode(f"me:{SECRET}".encode()).decode()


@pytest.fixture
def tokens(tmp_path: Path) -> Iterator[Tokens]:
    with Tokens(tmp_path, "me", SECRET) as running:
        yield running


def registry(tmp_path: Path, auth: str) -> Registry:
    shutil.copytree(FIXTURES / "oci-registry", tmp_path / "storage")
    return Registry(str(tmp_path / "server"), str(tmp_path / "storage"), auth)


def configure(tmp_path: Path, text: str) -> None:
    file = tmp_path / "config/cachefetch/config.toml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def from_variables(host: str) -> str:
    return f'[network.credentials."{host}"]\nuser_variable = "REG_USER"\npassword_variable = "REG_PASSWORD"\n'


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REG_USER", "me")
    monkeypatch.setenv("REG_PASSWORD", SECRET)


@pytest.mark.usefixtures("variables")
@pytest.mark.parametrize("where", ["config", "netrc", "url", "none", "wrong"])
def test_a_token_service_gets_user_and_password(
    where: str, tmp_path: Path, tokens: Tokens, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    with registry(tmp_path, tokens.auth) as running:
        host, url = f"127.0.0.1:{running.port}", running.url("cache")
        if where == "url":
            url = url.replace("://", f"://me:{SECRET}@")
        if where in ("config", "wrong"):
            configure(tmp_path, from_variables(host))
        if where == "wrong":
            monkeypatch.setenv("REG_PASSWORD", f"{SECRET}-no")
        if where == "netrc":
            (tmp_path / "netrc").write_text(f"machine 127.0.0.1 login me password {SECRET}\n")
            configure(tmp_path, f'[network]\nnetrc = "{tmp_path}/netrc"\n')
        listed = cli("list", "-m", url, "-v")
        assert SECRET not in listed.out + listed.err
        if where in ("none", "wrong"):
            assert listed.code == 8
            assert "the token service answers HTTP 401" in listed.err
            assert "[network.credentials" in cli("fetch", "zlib", "-m", url, *DEBIAN).err
            return
        assert listed.code == 0, listed.err
        fetched = cli("fetch", "zlib", "-m", url, *DEBIAN, "--json")
    assert fetched.code == 0, fetched.err
    assert fetched.json["network_bytes"] > 0
    assert set(tokens.asked) == {ME}


@pytest.mark.usefixtures("variables")
def test_a_token_service_with_credentials_of_its_own_gets_those(
    tmp_path: Path, tokens: Tokens, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTHER", "nobody")
    with registry(tmp_path, tokens.auth) as running:
        other = (
            from_variables(f"127.0.0.1:{running.port}")
            .replace("REG_USER", "OTHER")
            .replace("REG_PASSWORD", "OTHER")
        )
        configure(tmp_path, other + from_variables(f"127.0.0.1:{tokens.port}"))
        assert cli("list", "-m", running.url("cache")).code == 0
    assert set(tokens.asked) == {ME}


@pytest.mark.usefixtures("variables")
def test_a_bearer_token_goes_to_the_registry_alone(
    tmp_path: Path, tokens: Tokens, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    with registry(tmp_path, tokens.auth) as running:
        monkeypatch.setenv("REG_TOKEN", tokens.token("repository:cache:pull"))
        configure(
            tmp_path, f'[network.credentials."127.0.0.1:{running.port}"]\ntoken_variable = "REG_TOKEN"\n'
        )
        assert cli("list", "-m", running.url("cache")).code == 0
        assert tokens.asked == []
        monkeypatch.setenv("REG_TOKEN", "old")
        assert cli("list", "-m", running.url("cache"), "--refresh").code == 8
    assert set(tokens.asked) == {""}


def test_a_registry_that_asks_for_basic_gets_it(
    tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "passwords").write_text(PASSWORDS)
    auth = f"auth: {{htpasswd: {{realm: test, path: {tmp_path / 'passwords'}}}}}"
    monkeypatch.setenv("REG_USER", "me")
    with registry(tmp_path, auth) as running:
        configure(tmp_path, from_variables(f"127.0.0.1:{running.port}"))
        for password, code, words in (
            ("secret", 0, ""),
            ("wrong-one", 8, "refuses the configured user and password"),
        ):
            monkeypatch.setenv("REG_PASSWORD", password)
            done = cli("list", "-m", running.url("cache"), "--refresh")
            assert done.code == code, done.err
            assert words in done.err
            assert "wrong-one" not in done.err
        configure(tmp_path, "")
        assert "wants a user and password" in cli("list", "-m", running.url("cache"), "--refresh").err


@pytest.mark.usefixtures("variables")
def test_nobody_else_gets_them(tmp_path: Path, cli: Cli) -> None:
    """A registry sends us elsewhere: for blobs by a redirect, for a token to a service without TLS."""
    elsewhere: list[str | None] = []

    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            elsewhere.append(self.headers.get("Authorization"))
            self.send_error(404)

        def log_message(self, *words: object) -> None:
            pass

    class Sends(Other):
        def do_GET(self) -> None:
            if self.path.startswith("/v2/token"):
                self.send_response(401)
                realm = f"http://localhost:{other.server_port}/token"
                self.send_header("WWW-Authenticate", f'Bearer realm="{realm}",service="s",scope="x"')
            else:
                self.send_response(307)
                self.send_header("Location", f"http://localhost:{other.server_port}{self.path}")
            self.send_header("Content-Length", "0")
            self.end_headers()

    with (
        ThreadingHTTPServer(("127.0.0.1", 0), Other) as other,
        ThreadingHTTPServer(("127.0.0.1", 0), Sends) as sends,
    ):
        for server in (other, sends):
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        configure(tmp_path, from_variables(f"127.0.0.1:{sends.server_port}"))
        base = f"oci+http://127.0.0.1:{sends.server_port}"
        assert cli("doctor", f"{base}/moved").code == 8
        assert elsewhere
        assert set(elsewhere) == {None}
        elsewhere.clear()
        assert "which is not https" in cli("doctor", f"{base}/token").out
        assert elsewhere == []
        for server in (other, sends):
            server.shutdown()
