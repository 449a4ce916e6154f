"""The wheel is complete: with the agents for both architectures, the templates and the interpreter."""

from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ELF_MACHINE = {"amd64": 62, "arm64": 183}


def test_the_wheel_holds_what_a_server_needs(tmp_path: Path) -> None:
    for words in (
        ["make", "agent-all"],
        [".venv/bin/python", "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path],
    ):
        subprocess.run(words, cwd=ROOT, check=True, timeout=300, stdin=subprocess.DEVNULL, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as content:
        names = set(content.namelist())
        assert {"skerry/templates/base.toml", "skerry/interpreter/main.py", "skerry/py.typed"} <= names
        for architecture, machine in ELF_MACHINE.items():
            agent = content.read(f"skerry/_bin/agent-{architecture}")
            assert agent[:4] == b"\x7fELF"
            assert int.from_bytes(agent[18:20], "little") == machine
