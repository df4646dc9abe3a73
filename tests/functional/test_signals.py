"""A command that is interrupted says so and leaves nothing, or it is done and says that: at every moment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.functional.conftest import KEY, MIRROR, ROOT

SIGNALS = pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGTERM, 143, "terminated"), (signal.SIGINT, 130, "interrupted")]
)
#: The program, as the console script runs it; what comes before this makes the signal come at a certain moment.
MAIN = "\nfrom cachefetch.__main__ import main\nsys.exit(main())\n"
#: A signal for this process, and its handler has run when this returns.
INTERRUPT = """
import os, signal, sys, time
number, words = int(sys.argv.pop(1)), sys.argv
def interrupt():
    os.kill(os.getpid(), number)
    from cachefetch import signals
    end = time.monotonic() + 20
    while not signals._ending._first and time.monotonic() < end:
        time.sleep(0.001)
"""


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a program with an empty cache, where Ctrl-C is not ignored as in a shell's background job."""

    def one(program: str, number: int, *words: str) -> subprocess.CompletedProcess[str]:
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            return subprocess.run(
                [sys.executable, "-c", program, str(int(number)), *words],
                env={
                    **os.environ,
                    "PYTHONPATH": str(ROOT / ".dev"),
                    "XDG_CACHE_HOME": str(tmp_path / "cache"),
                    "XDG_CONFIG_HOME": str(tmp_path / "config"),
                },
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
        finally:
            signal.signal(signal.SIGINT, before)

    return one


Run = Callable[..., subprocess.CompletedProcess[str]]
EXTRACT = ("extract", "/4znr57ewjpwhs3c5cux3abeg2ygubgbl", "-m", MIRROR, "--key", KEY)


@SIGNALS
def test_before_the_tree_has_its_name(run: Run, tmp_path: Path, number: int, code: int, word: str) -> None:
    program = """
from cachefetch.fetch import extract
real = extract._move
def move(*arguments):
    interrupt()
    real(*arguments)
extract._move = move
"""
    done = run(INTERRUPT + program + MAIN, number, *EXTRACT, str(tmp_path / "out" / "zlib"))
    assert (done.returncode, done.stdout, done.stderr.splitlines()[-1]) == (code, "", word)
    assert os.listdir(tmp_path / "out") == []


@SIGNALS
def test_behind_the_last_moment_nothing_is_interrupted(
    run: Run, tmp_path: Path, number: int, code: int, word: str
) -> None:
    program = """
from cachefetch.fetch import extract
real = extract._move
def move(*arguments):
    real(*arguments)
    interrupt()
    interrupt()
extract._move = move
"""
    done = run(INTERRUPT + program + MAIN, number, *EXTRACT, str(tmp_path / "out" / "zlib"))
    assert (done.returncode, word in done.stderr) == (0, False)
    assert done.stdout.startswith("zlib@1.3.1  /4znr57e")
    assert os.listdir(tmp_path / "out") == ["zlib"]


@SIGNALS
def test_while_modules_are_loaded(run: Run, number: int, code: int, word: str) -> None:
    program = """
class Loads:
    def find_spec(self, name, *_):
        if name == "cachefetch.cli":
            sys.meta_path.remove(self)
            interrupt()
sys.meta_path.insert(0, Loads())
"""
    done = run(INTERRUPT + program + MAIN, number, "host")
    assert (done.returncode, done.stdout, done.stderr.splitlines()) == (code, "", [word])


@SIGNALS
def test_while_the_interpreter_ends(run: Run, number: int, code: int, word: str) -> None:
    program = "\nimport atexit\natexit.register(os.kill, os.getpid(), number)\n"
    done = run(INTERRUPT + program + MAIN, number, "completion", "bash")
    assert (done.returncode, done.stderr) == (0, "")
    assert "cachefetch" in done.stdout


@SIGNALS
@pytest.mark.parametrize("command", ["list", "fetch"])
def test_a_slow_look_up_of_a_name_is_left_alone(
    run: Run, number: int, code: int, word: str, command: str
) -> None:
    program = """
import socket, threading
real = socket.getaddrinfo
def slow(host, *arguments, **options):
    if host != "mirror.invalid":
        return real(host, *arguments, **options)
    if not options.get("flags"):
        threading.Timer(0.3, interrupt).start()
        time.sleep(20)
    raise socket.gaierror(socket.EAI_NONAME, "no such name")
socket.getaddrinfo = slow
"""
    words = ["zlib@=1.3.1/4znr57ewjpwhs3c5cux3abeg2ygubgbl", "--no-deps"] if command == "fetch" else []
    start = time.monotonic()
    done = run(
        INTERRUPT + program + MAIN, number, command, *words, "-m", "http://mirror.invalid/", "--unsigned"
    )
    assert (done.returncode, done.stderr.splitlines()[-1]) == (code, word)
    assert time.monotonic() - start < 10
