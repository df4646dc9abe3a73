"""An answer that was given before is the one that would be computed, or it is computed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import cachefetch
from cachefetch import answers, base, recall
from cachefetch.resolver.model import Compiler, Host, Libc
from cachefetch.resolver.resolution import Resolution
from cachefetch.values import changed

FIXTURES = Path(__file__).parents[2] / "data" / "fixtures"
SLOTS = recall._SLOTS
DEBIAN = Host(
    "linux", "debian12", "x86_64_v3", Libc("glibc", "2.36"), (Compiler("gcc", "12.2.0"),), {"os": "given"}
)
SPECS = (
    "zlib",
    "hdf5+mpi",
    "py-multidict@6.1",
    "py-multidict@99",
    "nothing-such",
    "zlib hdf5",
    "hdf5 %oneapi",
)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(recall, "_SLOTS", 0xFFFFFFFF)  # no two questions of a test share a slot


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Return what was computed, not recalled, since the test began."""
    calls: list[object] = []
    real = answers.resolve

    def counting(specs: Any, *args: Any, **options: Any) -> Resolution:
        calls.append(specs)
        return real(specs, *args, **options)

    monkeypatch.setattr(base, "resolve", counting)
    return calls


def ask(
    place: Path | str, *specs: str, host: Host | None = DEBIAN, full: bool = True, **options: Any
) -> Resolution:
    with cachefetch.Client([str(place)], unsigned=True, **options) as client:
        answer = client.resolve(*specs, host=host, full=full)
    return changed(answer, mirrors=tuple(changed(state, age=None) for state in answer.mirrors))


@pytest.mark.parametrize("full", [True, False])
def test_every_kind_of_answer_is_recalled_whole(computed: list[object], full: bool) -> None:
    first = [ask(FIXTURES / "v3-unsigned", text, full=full) for text in SPECS]
    assert len(computed) == len(SPECS)
    again = [ask(FIXTURES / "v3-unsigned", text, full=full) for text in SPECS]
    assert len(computed) == len(SPECS)
    assert again == first
    assert [json.dumps(answer.to_dict()) for answer in again] == [json.dumps(a.to_dict()) for a in first]
    assert {answer.status for answer in first} >= {"ok", "no-candidate"}
    others = [other for answer in first for root in answer.roots for other in root.others]
    assert any(other.differences for other in others) is full


def test_whatever_the_answer_depends_on_asks_anew(
    tmp_path: Path, computed: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "mirror"
    shutil.copytree(FIXTURES / "v3-unsigned", place)
    ask(place, "zlib")
    for options in (
        {"host": changed(DEBIAN, target="x86_64")},
        {"host": changed(DEBIAN, libc=Libc("glibc", "2.17"))},
        {"host": changed(DEBIAN, compilers=())},
        {"full": False},
        {"stack": "e4s"},
    ):
        before = len(computed)
        ask(place, "zlib", **options)
        assert len(computed) == before + 1
    before = len(computed)
    monkeypatch.setenv("CACHEFETCH_LIBC", "recorded")
    ask(place, "zlib")
    assert len(computed) == before + 1


def test_another_index_is_another_question(tmp_path: Path, computed: list[object]) -> None:
    body = tmp_path / "index.json"
    shutil.copy(FIXTURES / "v2-signed/build_cache/index.json", body)
    assert ask(body, "zlib").roots[0].candidates
    document = json.loads(body.read_bytes())
    for record in document["database"]["installs"].values():
        record["in_buildcache"] = False
    body.write_text(json.dumps(document))
    assert not ask(body, "zlib").roots[0].candidates
    assert len(computed) == 2


@pytest.mark.parametrize("damage", [b"", b"00000000\n[]", b"{}", b"\xff" * 100])
def test_a_damaged_answer_is_computed_again(computed: list[object], damage: bytes, tmp_path: Path) -> None:
    first = ask(FIXTURES / "v3-unsigned", "zlib")
    (kept,) = (tmp_path / "cache/cachefetch/index/answers").iterdir()
    whole = kept.read_bytes()
    kept.write_bytes(damage or whole.replace(b"debian12", b"debian13"))
    assert ask(FIXTURES / "v3-unsigned", "zlib") == first
    assert len(computed) == 2
    assert kept.read_bytes() == whole


def test_a_prefix_that_comes_or_goes_asks_anew(tmp_path: Path) -> None:
    answer = ask(FIXTURES / "v3-unsigned", "zlib")
    directory, prefix = str(tmp_path / "answers"), tmp_path / "opt"

    class Sources:
        def current_states(self) -> tuple[()]:
            return ()

    looked: dict[str, bool] = {}
    assert not recall.exists_noting(looked)(str(prefix))
    recall.keep(directory, "question", answer, looked)
    assert recall.recall(directory, "question", Sources()) == changed(answer, mirrors=())  # type: ignore[arg-type]
    assert recall.recall(directory, "another", Sources()) is None  # type: ignore[arg-type]
    prefix.mkdir()
    assert recall.recall(directory, "question", Sources()) is None  # type: ignore[arg-type]


def test_the_number_of_kept_answers_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recall, "_SLOTS", SLOTS)
    answer = ask(FIXTURES / "v3-unsigned", "zlib")
    for number in range(1000):
        recall.keep(str(tmp_path / "answers"), f"question {number}", answer, {})
    assert len(os.listdir(tmp_path / "answers")) <= 256


KILLED = """
import os, signal, sys
from cachefetch import recall
replace = os.replace
os.replace = lambda a, b: os.kill(os.getpid(), signal.SIGKILL) if "answers" in b else replace(a, b)
from cachefetch.__main__ import main
sys.argv = ["cachefetch", "resolve", "zlib", "-m", sys.argv[1]]
main()
"""


def test_what_a_killed_writer_leaves_goes_with_the_next_answer(tmp_path: Path) -> None:
    ask(FIXTURES / "v3-unsigned", "gmake")  # so the index is there, and the answer is the only thing to write
    killed = subprocess.run([sys.executable, "-c", KILLED, str(FIXTURES / "v3-unsigned")], env=os.environ)
    assert killed.returncode == -signal.SIGKILL
    directory = tmp_path / "cache/cachefetch/index/answers"
    (left,) = (path for path in directory.iterdir() if "." in path.name)
    ask(FIXTURES / "v3-unsigned", "zlib")
    assert left.exists()  # it might be another process's that is about to finish
    os.utime(left, (0, 0))
    ask(FIXTURES / "v3-unsigned", "hdf5")
    assert not [path for path in directory.iterdir() if "." in path.name]


def test_a_page_is_read_and_never_recalled(computed: list[object]) -> None:
    page = FIXTURES.parent / "pages"
    for _ in range(2):
        ask(page, "py-multidict@6.1.0")
    assert len(computed) == 2
