"""A credential in a mirror's URL is used, and shows nowhere: output, JSON, exceptions, repr, events, receipts."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import shutil
import threading
import traceback
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self

import pytest
from tests.faults.run import Recorder
from tests.faults.server import Fault, FaultServer
from tests.functional.conftest import DEBIAN, KEY, MIRROR, Done

from cachefetch import Client
from cachefetch.cli import run
from cachefetch.config import Config, Mirror, load, spack_mirrors
from cachefetch.errors import CachefetchError, MirrorError
from cachefetch.fetch.limits import Limits
from cachefetch.fetch.model import Source
from cachefetch.fetch.network import Network
from cachefetch.fetch.transports.oci import OciTransport
from cachefetch.fetch.verify.openpgp import Keyring
from cachefetch.fetch.verify.policy import SignaturePolicy
from cachefetch.resolver.index.readers import Get

Cli = Callable[..., Done]
CANARY = "c4nary-5ecret"
ZLIB = "/4znr57ewjpwhs3c5cux3abeg2ygubgbl"
#: The secret as itself and as it stands in a header.
FORMS = (CANARY, base64.b64encode(f"user:{CANARY}".encode()).decode())


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FaultServer]:
    shutil.copytree(MIRROR, tmp_path / "served")
    with FaultServer(str(tmp_path / "served"), user=f"Basic {FORMS[1]}") as running:
        yield running


def secret_url(server: FaultServer) -> str:
    return server.url.replace("://", f"://user:{CANARY}@")


def clean(*texts: object) -> None:
    for text in texts:
        for form in FORMS:
            assert form not in str(text)
            assert form not in repr(text)


COMMANDS = [
    ("resolve", "zlib", *DEBIAN),
    ("resolve", "zlib", *DEBIAN, "--explain=all", "-v"),
    ("list", "-v"),
    ("fetch", "zlib", *DEBIAN, "--key", KEY),
    ("fetch", "zlib", *DEBIAN),
    ("extract", ZLIB, "OUT", "--key", KEY),
    ("key", "fetch"),
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command)[:30])
@pytest.mark.parametrize("as_json", [True, False], ids=["json", "text"])
def test_commands(
    cli: Cli,
    tmp_path: Path,
    server: FaultServer,
    command: tuple[str, ...],
    as_json: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    words = [str(tmp_path / "out") if word == "OUT" else word for word in command]
    done = cli(*words, "-m", secret_url(server), *(["--json"] if as_json else []))
    assert done.code == (7 if command[0] == "fetch" and "--key" not in command else 0), done.err
    assert any("authorization" in {name.lower() for name in r.headers} for r in server.requests)
    clean(done.out, done.err)
    clean(*(record.getMessage() for record in caplog.records if record.name.startswith("cachefetch")))


FAULTS = {
    "refused": Fault(status=401, times=0),
    "forbidden": Fault(status=403, times=0),
    "absent": Fault(status=404, times=0),
    "broken": Fault(status=500, times=0),
    "redirected": Fault(location=f"http://user:{CANARY}@127.0.0.1:9/x", times=0),
    "cut": Fault(cut_after=3, times=0),
    "corrupt": Fault(corrupt_at=1, times=0),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_failures(tmp_path: Path, server: FaultServer, fault: str) -> None:
    """Nothing of it is in the error, what caused it, its document, its traceback, or the events before."""
    url, recorder = secret_url(server), Recorder()
    config = Config(cache_dir=str(tmp_path / "cache"), config_dir=str(tmp_path / "config"))
    limits = Limits(attempts=1, connect_timeout_s=2, stall_s=1)
    with Client([url], keys=[KEY], config=config, limits=limits, reporter=recorder) as client:
        if fault != "absent":
            client.update()
        server.script("*", FAULTS[fault])
        with pytest.raises(CachefetchError) as caught:
            client.extract(ZLIB, str(tmp_path / "out"))
        clean(repr(client.options), client.rollbacks)
    error: BaseException | None = caught.value
    clean(json.dumps(caught.value.to_dict()), *recorder.events)
    clean("".join(traceback.format_exception(caught.value)))
    while error is not None:
        clean(str(error), error.args)
        error = error.__cause__


def test_reprs_and_receipts(tmp_path: Path, server: FaultServer) -> None:
    url, recorder = secret_url(server), Recorder()
    config = Config(cache_dir=str(tmp_path / "cache"), config_dir=str(tmp_path / "config"))
    with Client([url], keys=[KEY], config=config, reporter=recorder) as client:
        answer = client.resolve("zlib", host=None)
        done = client.extract(ZLIB, str(tmp_path / "out"))
        clean(answer, json.dumps(answer.to_dict()), done, json.dumps(done.to_dict()), client.update())
        clean(client.options, *recorder.events)
    assert recorder.events
    names = [str(path) for path in (tmp_path / "cache").rglob("*")]
    clean(*names)
    token = f"https://user:{CANARY}@host.invalid/m?token={CANARY}#x"
    for value in (Mirror("m", token), Get(token), Source("m", token, SignaturePolicy(), Keyring())):
        clean(value)
        assert "host.invalid/m" in repr(value)


def test_a_redirect_to_another_host_gets_no_credential(tmp_path: Path, server: FaultServer) -> None:
    digest = "4b7ce737c6f2c6d2599e4b464dc9b05c9cb80c70477bd34b5ecda18260bdae8c"
    path = f"/blobs/sha256/4b/{digest}"
    with FaultServer(str(tmp_path / "served")) as other:
        server.script(path, Fault(location=f"{other.url}{path}", times=0))
        config = Config(cache_dir=str(tmp_path / "cache"), config_dir=str(tmp_path / "config"))
        with Client([secret_url(server)], keys=[KEY], config=config) as client:
            client.extract(ZLIB, str(tmp_path / "out"))
        assert other.requests
        for request in other.requests:
            assert "authorization" not in {name.lower() for name in request.headers}
            clean(request.path, *request.headers.values())


@pytest.mark.parametrize("query", ["", f"?signature={CANARY}&x=1"], ids=["password", "signed URL"])
def test_no_file_that_any_command_writes_holds_it(
    cli: Cli, tmp_path: Path, server: FaultServer, query: str
) -> None:
    """Lock files, plans, journals, receipts, saved answers, the local index and its memory, mirrors and bundles.

    The configuration alone holds the URL as it was given: `mirror add` writes it there to be used.
    """
    url, made = secret_url(server) + query, tmp_path / "made"
    made.mkdir()
    trusted = ("-m", url, "--key", KEY)
    lock, config = made / "cachefetch.lock", tmp_path / "config/cachefetch/config.toml"
    runs: list[tuple[object, ...]] = [
        ("resolve", "zlib", *DEBIAN, *trusted, "--lock", lock, "--json", "-v"),
        ("resolve", "zlib", *DEBIAN, *trusted, "--locked", "--lock", lock),
        ("fetch", "--lock", lock, *DEBIAN, *trusted, "--to", made / "to", "--json"),
        *(
            ("fetch", "zlib", *DEBIAN, *trusted, "--plan", made / f"plan.{form}", "--format", form)
            for form in ("json", "aria2", "curl", "sha256sum", "metalink")
        ),
        ("fetch", "zlib", *DEBIAN, *trusted, "--dry-run", "--json"),
        ("extract", ZLIB, made / "zlib", *trusted, "--json", "-v"),
        ("list", *trusted, "--json"),
        ("show", ZLIB, *trusted, "--json"),
        ("index", "update", *trusted),
        ("index", "status", "--json"),
        ("doctor", *trusted, "--json"),
        ("doctor", url),
        ("mirror", "status", *trusted, "--json"),
        ("sync", "--from", url, "--key", KEY, "--to", made / "copy", "--all", "--json", "-v"),
        ("sync", "--from", url, "--key", KEY, "--to", made / "copy", "--all"),
        ("verify", url, "--key", KEY, "--json"),
        ("cache", "info", "--json"),
        ("mirror", "add", "lab", url),
        ("mirror", "list", "--json"),
        ("mirror", "list"),
        ("key", "trust", KEY),
        ("fetch", "zlib", *DEBIAN, "--json", "-v"),
        ("doctor", "--json"),
        ("doctor",),
    ]
    for words in runs:
        done = cli(*words)
        assert done.code in (0, 9), (words, done.err)
        clean(done.out, done.err)
    written = [path for base in (made, tmp_path / "cache") for path in base.rglob("*") if path.is_file()]
    assert {"cachefetch.lock", "plan.json", "seen.json", "sidecar.sqlite"} <= {path.name for path in written}
    assert any("journal" in path.name for path in written)
    for path in written:
        clean(path)
        data = path.read_bytes()
        for form in FORMS:
            assert form.encode() not in data, path
    assert CANARY in config.read_text()


def test_a_registry_gets_no_credential_of_ours_elsewhere(tmp_path: Path) -> None:
    """A registry sends a blob request to another host, and the token service to http: neither gets what is ours."""
    with Elsewhere() as other, Asking(other.url) as registry:
        url = registry.url.replace("http://", f"oci+http://user:{CANARY}@") + "/cache"
        config = Config(cache_dir=str(tmp_path / "cache"), config_dir=str(tmp_path / "config"))
        with Client([url], config=config) as client:
            states = client_states(client)
        clean(*states)
        assert registry.authorized  # at home the credential is used
        assert other.asked
        for headers in other.asked:
            assert "authorization" not in {name.lower() for name in headers}
            clean(*headers.values())


def client_states(client: Client) -> tuple[object, ...]:
    """Return what became of reading the mirror: it has no index, whatever it says."""
    try:
        return client.update()
    except CachefetchError as error:
        return (error.message, json.dumps(error.to_dict()), "".join(traceback.format_exception(error)))


class Elsewhere:
    """A server that is not the mirror: it notes what it is asked."""

    def __init__(self, redirect: str = "") -> None:
        self.asked: list[dict[str, str]] = []
        self.authorized = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(dict(self.headers.items()))
                outer.answer(self)

            def log_message(self, *words: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.redirect = redirect

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self._send(request, 404)

    @staticmethod
    def _send(request: BaseHTTPRequestHandler, status: int, body: bytes = b"", **headers: str) -> None:
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name.replace("_", "-"), value)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    def __enter__(self) -> Self:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.server.shutdown()
        self.server.server_close()


class Asking(Elsewhere):
    """A registry that asks for Basic credentials, and then sends every blob request to another server."""

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        if FORMS[1] not in request.headers.get("Authorization", ""):
            self._send(request, 401, WWW_Authenticate='Basic realm="r"')
            return
        self.authorized += 1
        if "/manifests/" in request.path:
            digest = "sha256:" + "0" * 64
            layer = {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest, "size": 2}
            document = {"schemaVersion": 2, "config": layer, "layers": [layer]}
            self._send(request, 200, json.dumps(document).encode())
        else:
            self._send(request, 307, Location=f"{self.redirect}{request.path}")


@pytest.mark.parametrize(
    "realm", ["http://other.invalid/token", "http://127.0.0.1:{port}/token", "ftp://x/y"]
)
def test_a_token_service_without_tls_gets_no_credential(tmp_path: Path, realm: str) -> None:
    """Of a registry that is asked over https, whatever host the token service has."""
    transport = OciTransport(Limits(), Network())
    challenge = [f'Bearer realm="{realm.format(port=1)}",service="s",scope="c"']
    with pytest.raises(MirrorError, match="not https") as caught:
        asyncio.run(transport._token(challenge, f"user:{CANARY}", "https://127.0.0.1/v2/cache/manifests/x"))
    clean(caught.value.message, caught.value.to_dict())


TYPED = (
    "http://bob:{}/pw@h.invalid/",
    "http://bob:x#{}@h.invalid/",
    "http://bob:{}?pw@h.invalid/",
    "http:/u:{}@h.invalid/x",
    "file://u:{}@h.invalid/x",
    "u:{}@h.invalid",
    "u:p@{}@h.invalid",
    "https://h.invalid/x?token={}",
)


@pytest.mark.parametrize("url", [text.format(CANARY) for text in TYPED])
@pytest.mark.parametrize("as_json", [True, False], ids=["json", "text"])
def test_what_was_typed_wrong_shows_no_secret(cli: Cli, url: str, as_json: bool) -> None:
    for words in (
        ("mirror", "remove", url),
        ("mirror", "add", url, url),
        ("bundle", "import", url, "--to", "x"),
        ("key", "trust", url),
        ("fetch", "--env", url),
        ("resolve", "zlib", "--host", url, "-m", MIRROR),
        ("sync", f"{url}/e.lock", "--to", "x"),
        ("list", f"--frm={url}"),
        ("list", "--max-index-age", url),
        (url,),
    ):
        done = cli(*words, *(["--json"] if as_json else []))
        assert done.code == 2 or "key" not in words
        assert done.code != 1
        clean(done.out, done.err)


@pytest.mark.parametrize("url", [text.format(CANARY) for text in TYPED])
def test_what_was_typed_wrong_shows_no_secret_in_the_library(tmp_path: Path, url: str) -> None:
    config = Config(cache_dir=str(tmp_path / "cache"), config_dir=str(tmp_path / "config"))
    for mirror in (url, Mirror(url, url)):
        try:
            with Client([mirror], config=config, limits=Limits(attempts=1, connect_timeout_s=1)) as client:
                clean(client.options, client.mirrors(), *(m.name for m in client.mirrors()))
                client.update()
        except CachefetchError as error:
            clean(json.dumps(error.to_dict()), "".join(traceback.format_exception(error)))


@pytest.mark.parametrize(
    "text", [f"u:{CANARY}@h/x", f"u:a/{CANARY}@h", f"u:a@{CANARY}@h/x", f"http:/u:{CANARY}@h/x"]
)
def test_a_mirror_without_scheme_is_told_so_and_holds_no_secret(tmp_path: Path, text: str) -> None:
    """It is taken for a path; also where a configuration names it."""
    config = tmp_path / "cachefetch" / "config.toml"
    config.parent.mkdir()
    config.write_text(f'[mirrors.lab]\nurl = "{text}"\n')
    spack = tmp_path / "spack"
    spack.mkdir()
    (spack / "mirrors.yaml").write_text(f"mirrors:\n  lab: {text}\n")
    own = {"XDG_CONFIG_HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path), "HOME": str(tmp_path)}
    alone = {"SPACK_DISABLE_LOCAL_CONFIG": "1", "SPACK_ROOT": str(tmp_path / "root")}
    (tmp_path / "root" / "etc").mkdir(parents=True)
    spack.rename(tmp_path / "root" / "etc" / "spack")
    settings = load(own)
    (of_spack,) = spack_mirrors(alone)
    clean(settings, of_spack)
    for mirror in (*settings.mirrors, of_spack):
        with Client([mirror], config=settings) as client, pytest.raises(MirrorError) as caught:
            client.update()
        assert "a URL begins with its scheme" in caught.value.message
        clean(json.dumps(caught.value.to_dict()))


def test_a_directory_with_a_name_like_a_login_is_a_mirror_as_ever(cli: Cli, tmp_path: Path) -> None:
    shutil.copytree(MIRROR, tmp_path / "a:b@c" / "d@e")
    done = cli("doctor", str(tmp_path / "a:b@c" / "d@e"))
    assert done.code == 0
    assert "a:b@c/d@e" in done.out


def test_mirror_add_refuses_a_login_without_scheme(cli: Cli) -> None:
    done = cli("mirror", "add", "lab", f"u:{CANARY}@h.invalid/x")
    assert done.code == 2
    assert "no scheme" in done.err
    clean(done.err)


@pytest.mark.parametrize("where", [f"u:{CANARY}@h.invalid", f"http://u:{CANARY}@127.0.0.1:9/?s={CANARY}"])
def test_a_place_that_doctor_looks_at_shows_no_password(cli: Cli, where: str) -> None:
    for words in ((), ("--json",)):
        done = cli("doctor", where, *words)
        assert done.code == 8
        assert done.out
        clean(done.out, done.err)


@pytest.mark.parametrize("option", ["-m", "--mirror="])
@pytest.mark.parametrize("scheme", ["", "http://"])
def test_a_traceback_shows_no_password(
    capsys: pytest.CaptureFixture[str], cli: Cli, monkeypatch: pytest.MonkeyPatch, option: str, scheme: str
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError(f"of us: {scheme}u:{CANARY}@h.invalid")

    word = f"{option}{scheme}u:{CANARY}@h.invalid"
    clean(cli("show", "/aaaa", word, "-v").err)
    monkeypatch.setattr(Client, "list", broken)
    for more in ((), ("--json",)):
        assert run(["list", word, "-v", *more]) == 1
        out, err = capsys.readouterr()
        assert "Traceback" in err
        assert "h.invalid" in err
        clean(out, err)


def test_what_is_no_secret_stays_in_messages(cli: Cli) -> None:
    for word in ("http://h.invalid:80/py@1/x", "zlib@1.2:1.3", "/a/b@c"):
        assert word in cli(word).err


@pytest.mark.parametrize("words", [("fetch", "zlib", "-m", MIRROR), ("bundle", "export", "--from", MIRROR)])
def test_a_url_is_no_place_to_write_to(
    words: tuple[str, ...], cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = cli(*words, "--key", KEY, "--to", f"http://u:{CANARY}@h.invalid/x")
    assert done.code == 2
    assert "is a URL" in done.err
    clean(done.err)
    assert not list(tmp_path.glob("http*"))


def test_a_quiet_error_has_no_hint(cli: Cli) -> None:
    assert "hint:" in cli("nosuch").err
    for flag in ("-q", "--quiet"):
        assert "hint:" not in cli("mirror", "remove", "nosuch", flag).err


@pytest.mark.parametrize(
    ("proxy", "said"),
    [
        (f"socks5://u:{CANARY}@127.0.0.1:9", "socksio"),
        (f"nosuch://u:{CANARY}@127.0.0.1:9", "cannot use the proxy"),
        (f"u:{CANARY}@127.0.0.1:9", "through the proxy http://127.0.0.1:9"),
        (f"http://u:{CANARY}@127.0.0.1:9", "through the proxy http://127.0.0.1:9"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_named_and_hides_no_other_mirror(
    proxy: str, said: str, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ALL_PROXY", proxy)
    monkeypatch.setenv("all_proxy", proxy)
    done = cli("list", "-m", "http://mirror.invalid/x", "-m", MIRROR, "--key", KEY)
    assert done.code == 0
    assert said in done.err
    assert "127.0.0.1:9" in done.err
    clean(done.out, done.err)
