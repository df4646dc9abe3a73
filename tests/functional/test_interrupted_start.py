"""Ctrl-C and SIGTERM while the event loop starts end a command as they do at any other moment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

#: A signal comes while the loop's thread waits for its beginning; then the command ends.
PROGRAM = """
import os, signal, sys, threading, time
from cachefetch.portal import Portal
import anyio.from_thread as module

real = module.start_blocking_portal

def slow():
    import contextlib
    @contextlib.contextmanager
    def manager():
        threading.Timer(0.1, os.kill, (os.getpid(), int(sys.argv[1]))).start()
        time.sleep(0.3)
        with real() as portal:
            yield portal
    return manager()

module.start_blocking_portal = slow
signal.signal(signal.SIGTERM, signal.default_int_handler)
portal = Portal()

async def nothing():
    print("done")

try:
    portal.call(nothing)
except KeyboardInterrupt:
    print("interrupted")
finally:
    portal.close()
print(threading.active_count())
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_start_neither_hangs_nor_leaves_a_loop(number: int, repository: Path) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    try:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(int(number))],
            env={**os.environ, "PYTHONPATH": str(repository / ".dev")},
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    finally:
        signal.signal(signal.SIGINT, before)
    assert (done.returncode, done.stdout.split()) == (0, ["interrupted", "1"]), done.stderr
