"""`cachefetch doctor`, `index` and `completion`."""

from __future__ import annotations

import os
import pty
import select
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tests.faults.server import FaultServer
from tests.functional.conftest import FIXTURES, PAGE, Done
from tests.services.nginx import Nginx
from tests.services.program import find
from tests.services.registry import Registry

from cachefetch.cli import COMMANDS
from cachefetch.cli.completion import words_of


@pytest.mark.parametrize(
    ("where", "kind", "state"),
    [
        (str(FIXTURES / "v3-signed"), "v3", "fresh"),
        (str(FIXTURES / "v2-unsigned"), "v2", "fresh"),
        (str(FIXTURES / "v2-unsigned/build_cache/index.json"), "bare", "fresh"),
        (PAGE, "page", "fresh"),
    ],
)
def test_it_says_what_a_place_is(where: str, kind: str, state: str, cli: Callable[..., Done]) -> None:
    done = cli("doctor", where, "--json")
    assert done.code == 0
    (mirror,) = done.json["mirrors"]
    assert (mirror["kind"], mirror["state"]) == (kind, state)
    assert state in cli("doctor", where).out


@pytest.mark.parametrize(
    ("below", "near"),
    [
        ("v3-signed/v3", "v3-signed"),
        ("v2-signed/build_cache", "v2-signed"),
        ("v3-signed/blobs/sha256", "v3-signed"),
    ],
)
def test_it_suggests_the_nearest_mirror(below: str, near: str, cli: Callable[..., Done]) -> None:
    done = cli("doctor", FIXTURES / below)
    assert done.code == 8
    assert f"did you mean {FIXTURES / near}?" in done.out


def test_it_looks_one_directory_down(tmp_path: Path, cli: Callable[..., Done]) -> None:
    shutil.copytree(FIXTURES / "v3-signed", tmp_path / "site/develop")
    assert f"did you mean {tmp_path}/site/develop?" in cli("doctor", tmp_path / "site").out


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: (p / "_source-cache").mkdir(), "source mirror"),
        (lambda p: (p / "docker").mkdir(), "registry's storage"),
        (lambda p: None, "is empty"),
        (lambda p: (p / "x.txt").write_text("x"), "neither v3/ nor build_cache/"),
    ],
)
def test_what_is_no_mirror_is_named(
    make: Callable[[Path], None], words: str, tmp_path: Path, cli: Callable[..., Done]
) -> None:
    (tmp_path / "place").mkdir()
    make(tmp_path / "place")
    done = cli("doctor", tmp_path / "place")
    assert done.code == (0 if words == "is empty" else 8)  # an empty one can be read
    assert words in done.out


def test_this_installation(cli: Callable[..., Done], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CACHEFETCH_MAX_AGE", "7")
    cli("mirror", "add", "site", str(FIXTURES / "v3-signed"))
    cli("index", "update")
    found = cli("doctor", "--json").json
    assert found["settings"]["max_age"] == {"value": 7.0, "origin": "environment variable CACHEFETCH_MAX_AGE"}
    assert found["settings"]["libc"]["origin"] == "default"
    assert found["mirrors"][0]["origin"] == str(tmp_path / "config/cachefetch/config.toml")
    assert [index["specs"] for index in found["indexes"]] == [62]
    assert found["problems"] == []
    assert "max_age" in cli("doctor").out


def test_what_the_settings_name_and_is_not_there_is_a_problem(
    cli: Callable[..., Done], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_SUCH_TOKEN", raising=False)
    file = tmp_path / "config/cachefetch/config.toml"
    file.parent.mkdir(parents=True)
    network = "".join(
        f'{name} = "/no/{name}"\n' for name in ("ca_file", "client_cert", "client_key", "netrc")
    )
    file.write_text(
        f'[network]\n{network}[network.credentials."h.example.org"]\ntoken_variable = "NO_SUCH_TOKEN"\n'
        '[store]\nsite = ["/no/site"]\n[mirrors.a]\nurl = "/a"\nkey_files = ["/no/key.asc"]\n'
    )
    done = cli("doctor", "--json")
    told = "\n".join(done.json["problems"])
    assert done.code == 10
    for words in (
        "ca_file",
        "client_cert",
        "client_key",
        "netrc",
        "/no/site",
        "/no/key.asc",
        "NO_SUCH_TOKEN",
    ):
        assert words in told
    assert len(done.json["problems"]) == 7
    assert "problem" in cli("doctor").out


@pytest.mark.parametrize("name", ["ca_file", "client_cert", "netrc"])
def test_a_file_of_another_kind_is_a_problem(cli: Callable[..., Done], tmp_path: Path, name: str) -> None:
    file = tmp_path / "config/cachefetch/config.toml"
    file.parent.mkdir(parents=True)
    other = tmp_path / "other"
    other.write_text("no certificate, and no list of passwords")
    file.write_text(f'[network]\n{name} = "{other}"\n')
    (problem,) = cli("doctor", "--json").json["problems"]
    assert str(other) in problem


def test_index_status_tells_age_size_and_digest_without_asking(
    tmp_path: Path, cli: Callable[..., Done]
) -> None:
    shutil.copytree(FIXTURES / "v3-unsigned", tmp_path / "mirror")
    assert cli("index", "status", "--json").json["indexes"] == []
    cli("index", "update", "-m", tmp_path / "mirror")
    shutil.rmtree(tmp_path / "mirror/v3")
    (index,) = cli("index", "status", "--check", "--json").json["indexes"]
    assert (index["kind"], index["version"], index["specs"]) == ("v3", "8", 414)
    assert index["sha256"].startswith("0749db73")
    assert (index["broken"], index["damaged"]) == (0, False)
    assert "414 specs" in cli("index", "status").out


def test_a_damaged_index_is_found_by_the_check(tmp_path: Path, cli: Callable[..., Done]) -> None:
    with FaultServer(str(FIXTURES / "v2-signed")) as server:
        cli("index", "update", "-m", server.url)
    (body,) = (tmp_path / "cache").glob("cachefetch/index/*/index-*.json")
    before, text = body.stat(), body.read_bytes()
    with open(body, "r+b") as file:
        file.write(text.replace(b'"version":"1.3.1"', b'"version":"1.3.2"', 1))
    os.utime(body, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert cli("index", "status").code == 0  # a copy of our own: only hashing it tells
    done = cli("index", "status", "--check")
    assert done.code == 10
    assert "DAMAGED: it is dropped, and the next command reads it anew" in done.out


@pytest.mark.parametrize("kind", ["bare", "layout 2"])
def test_a_change_of_the_same_size_with_its_time_set_back_is_noticed(
    tmp_path: Path, cli: Callable[..., Done], kind: str
) -> None:
    mirror = tmp_path / "mirror"
    shutil.copytree(FIXTURES / "v2-unsigned", mirror)
    body = mirror / "build_cache/index.json"
    where = mirror if kind == "layout 2" else body
    (mirror / "build_cache/index.json.hash").unlink(missing_ok=True)
    assert "zlib@1.3.1" in cli("list", "zlib", "-m", where).out
    before, text = body.stat(), body.read_bytes()
    with open(body, "r+b") as file:  # the same file, as whoever hides a change would do it
        file.write(text.replace(b'{"spec":{"name":"zlib"', b'{"spec":{"name":"zlob"'))
    os.utime(body, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (body.stat().st_size, body.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert "zlob@1.3.1" in cli("list", "zlob", "-m", where).out
    assert "zlib@" not in cli("list", "-m", where).out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_name_every_command_and_option(shell: str, cli: Callable[..., Done]) -> None:
    text = cli("completion", shell).out
    for command in COMMANDS:
        for word in [command, *words_of(command)]:
            assert word.lstrip("-") in text


def test_bash_completes(cli: Callable[..., Done]) -> None:
    if shutil.which("bash") is None:
        pytest.skip("there is no bash")
    script = cli("completion", "bash").out
    ask = 'COMP_WORDS=({}); COMP_CWORD={}; _cachefetch; echo "${{COMPREPLY[@]}}"'
    for words, at, wanted in (
        ("cachefetch re", 1, "resolve"),
        ("cachefetch mirror a", 2, "add"),
        ("cachefetch resolve zlib --exp", 3, "--explain"),
    ):
        done = subprocess.run(
            ["bash", "-c", f"{script}\n{ask.format(words, at)}"], capture_output=True, text=True, check=True
        )
        assert wanted in done.stdout.split()


ASKED = [
    ("cachefetch reso", "resolve"),
    ("cachefetch mirror a", "add"),
    ("cachefetch resolve zlib --exp", "--explain"),
    ("cachefetch -q fet", "fetch"),
]


@pytest.mark.parametrize(("words", "wanted"), ASKED)
def test_fish_completes(words: str, wanted: str, cli: Callable[..., Done], tmp_path: Path) -> None:
    fish = find("fish", "apt-get install fish")
    (tmp_path / "script").write_text(cli("completion", "fish").out)
    done = subprocess.run(
        [fish, "-c", f"source {tmp_path}/script; complete -C '{words}'"],
        env={**os.environ, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert wanted in [line.split("\t")[0] for line in done.stdout.splitlines()]


@pytest.mark.parametrize("prepared", [True, False], ids=["compinit", "plain"])
def test_zsh_completes(prepared: bool, cli: Callable[..., Done], tmp_path: Path) -> None:
    """A shell at a terminal, because zsh completes nowhere else; the line is shown completed."""
    zsh = find("zsh", "apt-get install zsh")
    (tmp_path / "script").write_text(cli("completion", "zsh").out)
    child, terminal = pty.fork()
    if not child:  # pragma: no cover - another process
        os.execve(zsh, [zsh, "-f", "-i"], {"HOME": str(tmp_path), "TERM": "dumb", "PATH": os.environ["PATH"]})

    def type_until(text: str, wanted: str) -> None:
        os.write(terminal, text.encode())
        seen, until = b"", time.monotonic() + 20
        while wanted.encode() not in seen:
            assert time.monotonic() < until, seen
            if select.select([terminal], [], [], 0.2)[0]:
                seen += os.read(terminal, 65536)

    try:
        type_until("unsetopt zle_bracketed_paste; PS1='>'; echo rea''dy\n", "ready")
        if prepared:
            type_until("autoload -Uz compinit && compinit -u && echo do''ne\n", "done")
        type_until(f"source {tmp_path}/script && echo lo''aded\n", "loaded")
        for words, wanted in ASKED:
            type_until(f"{words}\t", wanted)
            type_until("\x15echo ne''xt\n", "next")
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(terminal)


@pytest.mark.parametrize("where", ["http://127.0.0.1:9", "oci+http://127.0.0.1:9/x"])
def test_a_place_that_could_not_be_asked_is_not_called_a_cache(where: str, cli: Callable[..., Done]) -> None:
    done = cli("doctor", where)
    assert done.code == 8
    assert f"{where} could not be asked" in done.out
    assert "build cache" not in done.out
    assert "state    unreachable: " in done.out


@pytest.mark.parametrize(
    ("status", "words"),
    [(401, "could not be asked: it refuses access"), (500, "could not be asked")],
)
def test_a_server_that_refuses_is_not_called_a_cache(
    status: int, words: str, cli: Callable[..., Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(status)

        def log_message(self, *args: object) -> None:
            pass

    from cachefetch.fetch import limits

    monkeypatch.setattr(limits, "DEFAULT_LIMITS", limits.Limits(attempts=2, backoff_s=0.01))
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        done = cli("doctor", f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
    assert words in done.out
    assert "build cache" not in done.out.splitlines()[0]


def test_a_registry_without_the_repository_is_named_as_one(cli: Callable[..., Done], tmp_path: Path) -> None:
    shutil.copytree(FIXTURES / "oci-registry", tmp_path / "storage")
    with Registry(str(tmp_path / "server"), str(tmp_path / "storage")) as registry:
        done = cli("doctor", registry.url("team/none"))
        host = f"127.0.0.1:{registry.port}"
        assert done.code == 8
        assert done.out.splitlines() == [
            f"{registry.url('team/none')} is nothing that holds or lists binaries",
            f"state    not-a-cache: {host} is a container registry and has no repository team/none; "
            "it has cache, tagged",
        ]
        assert "is not-a-cache" in cli("resolve", "zlib", "-m", registry.url("team/none")).err
        assert cli("doctor", registry.url("cache")).code == 0


def test_a_web_server_is_no_registry(cli: Callable[..., Done], tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    with Nginx(str(tmp_path / "nginx"), str(tmp_path / "root")) as server:
        done = cli("doctor", server.url.replace("http://", "oci+http://") + "/x")
    assert done.code == 8
    assert "answers, and is no container registry" in done.out


def test_a_device_is_neither_file_nor_directory(cli: Callable[..., Done]) -> None:
    assert "/dev/null is neither a file nor a directory" in cli("doctor", "/dev/null").out


def test_it_shows_what_the_environment_decides(
    cli: Callable[..., Done], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://me:s3cr3t@proxy.example:3128")
    monkeypatch.setenv("no_proxy", "localhost")
    done = cli("doctor", "--json")
    settings = done.json["settings"]
    assert "s3cr3t" not in done.out
    assert settings["network.https_proxy"] == {
        "value": "http://proxy.example:3128",
        "origin": "environment variable HTTPS_PROXY",
    }
    assert settings["network.no_proxy"]["origin"] == "environment variable no_proxy"
    assert settings["cache_dir"] == {
        "value": str(tmp_path / "cache/cachefetch"),
        "origin": "environment variable XDG_CACHE_HOME",
    }


def test_it_shows_where_network_settings_and_site_stores_come_from(
    cli: Callable[..., Done], tmp_path: Path
) -> None:
    file = tmp_path / "config/cachefetch/config.toml"
    file.parent.mkdir(parents=True)
    file.write_text(
        f'[store]\nsite = ["{tmp_path}/site"]\n[network]\nnetrc = "{tmp_path}/netrc"\n'
        '[network.credentials."a.example"]\ntoken_variable = "TOKEN"\n'
    )
    settings = cli("doctor", "--json").json["settings"]
    assert settings["site"] == {"value": [f"{tmp_path}/site"], "origin": str(file)}
    assert settings["network.netrc"] == {"value": f"{tmp_path}/netrc", "origin": str(file)}
    assert settings["network.credentials.a.example"] == {"value": "set", "origin": str(file)}
