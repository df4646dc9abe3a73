"""docs/airgap.md: its commands do what it says, to the letter."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.functional.conftest import DEBIAN, EXAMPLES, ROOT


def test_the_commands_give_the_output_that_is_printed(tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    shutil.copytree(EXAMPLES / "mirror", site / "mirror")
    shutil.copy(EXAMPLES / "mirror.pub.asc", site)
    program = f"{sys.executable} -m cachefetch"
    env = {**os.environ, "PYTHONPATH": str(ROOT / ".dev"), "XDG_CACHE_HOME": str(tmp_path / "cache")}

    def run(command: str) -> str:
        words = re.sub(r"^cachefetch ", f"{program} ", command)
        done = subprocess.run(
            ["sh", "-c", f"{words} 2>&1"], cwd=site, env=env, capture_output=True, text=True, check=False
        )
        return done.stdout.replace(str(site), "/site")

    (site / "node.json").write_text(run(f"cachefetch host {' '.join(DEBIAN)} --json"))
    text = (ROOT / "docs/airgap.md").read_text()
    found = []
    for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, printed = part.partition("\n")
            found.append(command)
            assert run(command) == printed, command
    assert len(found) == 13


def test_the_units_name_commands_that_exist() -> None:
    text = (EXAMPLES / "systemd/cachefetch-sync.service").read_text()
    commands = re.findall(r"^ExecStart=/usr/bin/cachefetch (\w+) (.*)$", text, re.MULTILINE)
    assert [name for name, _ in commands] == ["sync", "verify"]
    for name, words in commands:
        done = subprocess.run(
            [sys.executable, "-m", "cachefetch", name, "--help"],
            env={**os.environ, "PYTHONPATH": str(ROOT / ".dev")},
            capture_output=True,
            text=True,
            check=True,
        )
        for flag in re.findall(r"--[a-z-]+", words):
            assert flag in done.stdout
