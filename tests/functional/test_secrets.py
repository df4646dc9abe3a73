"""A credential in a mirror's URL is used, and shows nowhere: output, JSON, exceptions, repr, events, receipts."""

from __future__ import annotations

import base64
import json
import logging
import shutil
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.faults.run import Recorder
from tests.faults.server import Fault, FaultServer
from tests.functional.conftest import DEBIAN, KEY, MIRROR, Done

from cachefetch import Client
from cachefetch.config import Config, Mirror
from cachefetch.errors import CachefetchError
from cachefetch.fetch.limits import Limits
from cachefetch.fetch.model import Source
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
