"""E2B's own clients, unmodified, of the oldest and the newest generation that is supported: see tests/clients/e2b."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from .conftest import Server

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("client", ["e2b-2.45", "e2b-2.63"])
def test_every_scenario_of_a_client(server: Server, client: str) -> None:
    python = ROOT / "build" / "clients" / client / "bin" / "python"
    assert python.exists(), "the client is not installed: run tools/clients.sh"
    environment = {
        **os.environ, "E2B_API_KEY": server.api_key, "E2B_API_URL": server.api_url, "E2B_SANDBOX_URL": server.api_url,
    }  # fmt: skip
    done = subprocess.run(
        [python, "-m", "pytest", "--rootdir", ".", "-c", "pytest.ini", "--tb=short", "."],
        cwd=ROOT / "tests" / "clients" / "e2b", env=environment, stdin=subprocess.DEVNULL, capture_output=True,
        text=True, timeout=550, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:]
