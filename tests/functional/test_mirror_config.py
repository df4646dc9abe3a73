"""Mirrors of the configuration: added and removed by command, read from Spack's own files, and where they come from."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.functional.conftest import DEBIAN, FIXTURES, Done

from cachefetch.config import SCHEMES, Mirror, load, spack_mirrors
from cachefetch.errors import ConfigError
from cachefetch.fetch.transports import _SCHEMES
from cachefetch.spack_config import merge, read_mirrors, scope_files

MIRROR = str(FIXTURES / "v3-signed")


def test_a_mirror_is_added_used_and_removed(tmp_path: Path, cli: Callable[..., Done]) -> None:
    assert cli("mirror", "add", "site", MIRROR, "--signed", "none").code == 0
    assert (
        cli("mirror", "add", "other", "https://x.example.org/c", "--pin", "A" * 40, "--view", "v").code == 0
    )
    shown = {m["name"]: m for m in cli("mirror", "list", "--json").json["mirrors"]}
    assert (shown["site"]["url"], shown["site"]["signed"]) == (MIRROR, "none")
    assert (shown["other"]["keys"], shown["other"]["view"]) == (["A" * 40], "v")
    assert shown["site"]["origin"] == str(tmp_path / "config/cachefetch/config.toml")
    assert cli("mirror", "remove", "other").code == 0
    assert cli("resolve", "py-multidict", *DEBIAN).code == 0
    assert cli("mirror", "remove", "site").code == 0
    assert cli("resolve", "py-multidict", *DEBIAN).code == 2


def test_the_rest_of_the_file_is_kept(tmp_path: Path, cli: Callable[..., Done]) -> None:
    path = tmp_path / "config/cachefetch/config.toml"
    path.parent.mkdir(parents=True)
    before = '# mine\n[index]\nmax_age = 7 # short\n\n["mirrors"."a"]\nurl = "/a"\n\n[store]\n'
    path.write_text(before)
    cli("mirror", "add", "b", "/b")
    assert path.read_text().startswith(before)
    cli("mirror", "remove", "a")
    text = path.read_text()
    assert "# mine" in text
    assert "max_age = 7 # short" in text
    assert "/a" not in text
    assert [m.name for m in load().mirrors] == ["b"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["add", "x"], "name and a URL"),
        (["add", "a b", "/x"], "no name for a mirror"),
        (["add", "x", "/x", "--pin", "short"], "no full fingerprint"),
        (["remove", "x"], "has no mirror x"),
        (["remove"], "needs a name"),
    ],
)
def test_what_cannot_be_done_is_said(words: list[str], message: str, cli: Callable[..., Done]) -> None:
    done = cli("mirror", *words)
    assert done.code == 2
    assert message in done.err


def test_a_name_is_given_once(cli: Callable[..., Done]) -> None:
    assert cli("mirror", "add", "x", "/x").code == 0
    done = cli("mirror", "add", "x", "/y")
    assert done.code == 2
    assert "already" in done.err


def test_the_state_of_each_mirror_is_asked(tmp_path: Path, cli: Callable[..., Done]) -> None:
    cli("mirror", "add", "good", MIRROR)
    cli("mirror", "add", "gone", str(tmp_path / "nothing"))
    done = cli("mirror", "status", "--json")
    assert done.code == 0
    assert [(m["mirror"], m["kind"], m["state"]) for m in done.json["mirrors"]] == [
        ("good", "v3", "fresh"),
        ("gone", "", "unreachable"),
    ]
    cli("mirror", "remove", "good")
    assert cli("mirror", "status").code == 8


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def spack(tmp_path: Path) -> dict[str, str]:
    """A Spack installation with mirrors in three scopes and an environment."""
    root, home, env = tmp_path / "spack", tmp_path / "home", tmp_path / "env"
    write(
        root / "etc/spack/defaults/mirrors.yaml",
        "mirrors:\n  spack-public:\n    binary: false\n    url: https://mirror.spack.io\n",
    )
    write(
        root / "etc/spack/site/mirrors.yaml",
        "mirrors:\n  site:\n    url: $spack/cache\n    signed: false\n  both: https://low.example.org\n",
    )
    write(
        home / ".spack/mirrors.yaml",
        "mirrors:\n"
        "  plain: https://cache.example.org/v1\n"
        "  both: https://high.example.org\n"
        "  split:\n    fetch: https://fetch.example.org\n    push:\n      url: s3://push\n"
        "  registry:\n    url: oci://ghcr.io/acme/cache\n"
        "    access_pair: {id_variable: GH_USER, secret_variable: GH_TOKEN}\n"
        "  sources:\n    url: https://s.example.org\n    binary: false\n"
        "  named:\n    url: ~/mirror\n    view: radiuss\n"
        "  bucket:\n    url: s3://site-cache/spack\n    endpoint_url: minio.example.org\n"
        "    access_pair: {id_variable: GH_USER, secret_variable: GH_TOKEN}\n",
    )
    write(env / "spack.yaml", "spack:\n  specs: [zlib]\n  mirrors:\n    env: ./local\n")
    return {
        "SPACK_ROOT": str(root),
        "HOME": str(home),
        "SPACK_ENV": str(env),
        "SPACK_SYSTEM_CONFIG_PATH": str(tmp_path / "no-system"),
        "GH_USER": "me",
        "GH_TOKEN": "s/t",
    }


def test_spacks_scopes_are_merged_the_higher_first(
    spack: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", spack["HOME"])
    found = {mirror.name: mirror for mirror in spack_mirrors(spack)}
    assert list(found) == ["env", "plain", "both", "split", "registry", "named", "bucket", "site"]
    assert found["env"].location == str(tmp_path / "env/local")
    assert found["both"].location == "https://high.example.org"
    assert found["split"].location == "https://fetch.example.org"
    assert found["site"].location == str(tmp_path / "spack/cache")
    assert found["site"].signed == "none"
    assert found["plain"].signed == "required"
    assert found["registry"].location == "oci://me:s%2Ft@ghcr.io/acme/cache"
    assert (found["named"].location, found["named"].view) == (str(tmp_path / "home/mirror"), "radiuss")
    assert found["plain"].origin == str(tmp_path / "home/.spack/mirrors.yaml")


def test_scopes_can_be_left_out_or_hidden(spack: dict[str, str], tmp_path: Path) -> None:
    del spack["SPACK_ENV"]
    assert [m.name for m in spack_mirrors({**spack, "SPACK_DISABLE_LOCAL_CONFIG": "1"})] == ["site", "both"]
    write(tmp_path / "home/.spack/mirrors.yaml", "mirrors::\n  only: /x\n")
    assert [m.name for m in spack_mirrors(spack)] == ["only"]
    assert scope_files({"HOME": str(tmp_path / "nobody"), "SPACK_SYSTEM_CONFIG_PATH": "/nowhere"}) == ()


def test_a_key_with_two_colons_replaces() -> None:
    low = {"a": {"url": "x", "signed": False}, "b": "y"}
    assert merge(low, {"a": {"url": "z"}}) == {"a": {"url": "z", "signed": False}, "b": "y"}
    assert merge(low, {"a:": {"url": "z"}}) == {"a": {"url": "z"}, "b": "y"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mirrors: [", "is not YAML"),
        ("mirrors: 7", "not a mapping of names"),
        ("7", "is not a mapping"),
        ("mirrors: {a: 7}", "neither a URL nor a mapping"),
        ("mirrors: {a: {signed: true}}", "mirror a has no url"),
    ],
)
def test_files_that_spack_would_refuse_are_named(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mirrors.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        read_mirrors([str(path)], {})
    assert str(path) in caught.value.message


def test_spacks_mirrors_serve_where_nothing_else_is_configured(
    tmp_path: Path, cli: Callable[..., Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "home/.spack/mirrors.yaml", f"mirrors:\n  mine: {{url: {MIRROR}}}\n")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    done = cli("resolve", "py-multidict", *DEBIAN, "--json")
    assert done.code == 0
    assert [m["mirror"] for m in done.json["mirrors"]] == ["mine"]
    cli("mirror", "add", "own", str(FIXTURES / "v3-unsigned"))
    done = cli("resolve", "py-multidict", *DEBIAN, "--json")
    assert [m["mirror"] for m in done.json["mirrors"]] == ["own"]


def test_a_view_is_another_index_of_the_mirror(tmp_path: Path, cli: Callable[..., Done]) -> None:
    import shutil

    place = tmp_path / "mirror"
    shutil.copytree(FIXTURES / "v3-signed", place)
    index = place / "v3/manifests/index"
    (index / "all").mkdir()
    (index / "index.manifest.json").rename(index / "all/index.manifest.json")
    cli("mirror", "add", "default", str(place))
    cli("mirror", "add", "viewed", str(place), "--view", "all")
    found = {m["mirror"]: m for m in cli("mirror", "status", "--json").json["mirrors"]}
    assert (found["viewed"]["state"], found["viewed"]["specs"]) == ("fresh", 62)
    assert found["default"]["state"] == "no-index"
    assert "views all" in found["default"]["detail"]


def test_a_mirrors_key_has_no_secret() -> None:
    assert Mirror("m", "https://u:p@x.example.org/c").key == "https://x.example.org/c"
    assert Mirror("m", "/x", view="v").key == "/x#v"
    assert json.dumps(Mirror("m", "/x").key) == '"/x"'


@pytest.mark.parametrize("words", [("--pin", "ABCD"), ("--view", "a/b"), ("--view", "..")])
def test_a_mirror_that_could_not_be_read_again_is_not_added(
    words: tuple[str, ...], tmp_path: Path, cli: Callable[..., Done]
) -> None:
    assert cli("mirror", "add", "good", MIRROR).code == 0
    path = tmp_path / "config/cachefetch/config.toml"
    before = path.read_bytes()
    assert cli("mirror", "add", "bad", MIRROR, *words).code == 2
    assert path.read_bytes() == before


@pytest.mark.parametrize("url", ["htps://h/x", "ftp://h/x", "http://bob:s3cret[pw@127.0.0.1/"])
def test_what_no_transport_could_open_is_neither_added_nor_asked(url: str, cli: Callable[..., Done]) -> None:
    for words in (("mirror", "add", "x", url), ("list", "-m", url), ("doctor", url)):
        done = cli(*words)
        assert done.code == 2
        assert "unknown scheme" in done.err or "bracket" in done.err
        assert "s3cret" not in done.err


def test_an_unknown_scheme_in_the_file_is_refused_and_named(tmp_path: Path, cli: Callable[..., Done]) -> None:
    path = tmp_path / "config/cachefetch/config.toml"
    path.parent.mkdir(parents=True)
    path.write_text('[mirrors.odd]\nurl = "htp://u:pw@x.example.org/y"\n')
    done = cli("resolve", "zlib")
    assert done.code == 2
    assert f"{path}: mirrors.odd.url: htp://x.example.org/y has the unknown scheme htp://" in done.err
    assert "mirrors.odd.url" in cli("doctor").out
    assert cli("mirror", "remove", "odd").code == 0


def test_the_schemes_are_those_of_the_transports() -> None:
    assert set(SCHEMES) == set(_SCHEMES)


def test_a_bad_entry_is_named_and_can_be_removed(tmp_path: Path, cli: Callable[..., Done]) -> None:
    path = tmp_path / "config/cachefetch/config.toml"
    write(path, f'[mirrors.good]\nurl = "{MIRROR}"\n\n[mirrors.bad]\nurl = "/x"\nkeys = ["ABCD"]\n')
    assert cli("list").code == 2
    done = cli("mirror", "list", "--json")
    assert done.code == 0
    assert [m["name"] for m in done.json["mirrors"]] == ["good"]
    assert "mirrors.bad.keys" in done.err
    done = cli("doctor", "--json")
    assert done.code == 10
    assert "mirrors.bad.keys" in done.json["problems"][0]
    assert cli("mirror", "remove", "good", "nosuch").code == 2
    assert "[mirrors.good]" in path.read_text()
    assert cli("mirror", "remove", "bad").code == 0
    assert [m.name for m in load().mirrors] == ["good"]


def test_the_file_stays_as_private_as_it_was_and_where_it_was(
    tmp_path: Path, cli: Callable[..., Done]
) -> None:
    path, real = tmp_path / "config/cachefetch/config.toml", tmp_path / "dotfiles/mine.toml"
    cli("mirror", "add", "a", "https://u:secret@h.example.org/p")
    assert path.stat().st_mode & 0o777 == 0o600
    real.parent.mkdir()
    path.rename(real)
    path.symlink_to(real)
    for mode in (0o640, 0o600):
        real.chmod(mode)
        assert cli("mirror", "add", f"b{mode}", "/b").code == 0
        assert real.stat().st_mode & 0o777 == mode
    assert path.is_symlink()
    assert [m.name for m in load().mirrors] == ["a", f"b{0o640}", f"b{0o600}"]
    assert [p.name for p in path.parent.iterdir()] == ["config.toml"]


def test_commands_that_add_at_the_same_time_lose_nothing(tmp_path: Path, cli: Callable[..., Done]) -> None:
    import subprocess
    import sys

    cli("mirror", "add", "first", "/first")
    command = [sys.executable, "-m", "cachefetch", "mirror", "add"]
    running = [subprocess.Popen([*command, f"m{n}", f"/m{n}"], stderr=subprocess.PIPE) for n in range(8)]
    for process in running:
        process.communicate()
        assert process.returncode == 0
    assert {m.name for m in load().mirrors} == {"first", *(f"m{n}" for n in range(8))}


def test_a_configuration_that_is_a_fifo_is_an_error(tmp_path: Path, cli: Callable[..., Done]) -> None:
    path = tmp_path / "config/cachefetch/config.toml"
    path.parent.mkdir(parents=True)
    os.mkfifo(path)
    for words in (("list",), ("mirror", "add", "x", "/x")):
        done = cli(*words)
        assert done.code == 2
        assert "not a regular file" in done.err
