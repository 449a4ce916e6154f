"""The programs of examples/integrations, each with the framework it is about, in an environment of that framework's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import Server
from .test_e2b import CLIENTS, ROOT, environment

EXAMPLES = ROOT / "examples" / "integrations"
HOW_TO = ROOT / "docs" / "how-to"


def run(server: Server, *words: str | Path, env: dict[str, str]) -> str:
    """What the program printed; it must succeed and leave no sandbox."""
    before = sandboxes(server)
    assert Path(words[0]).exists(), "the client is not installed: run tools/clients.sh"
    done = subprocess.run(
        words, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert sandboxes(server) <= before
    return done.stdout


def documented(page: str) -> list[str]:
    """The lines of output that a how-to page shows: the indented block after "prints"."""
    _, _, rest = (HOW_TO / f"{page}.md").read_text().partition("\nprints")
    lines = rest.partition("\n    ")[2].split("\n\n")[0].splitlines()
    assert lines
    return [line.strip() for line in lines]


def sandboxes(server: Server) -> set[str]:
    return {item["id"] for item in server.request("GET", "/v1/sandboxes")[1]["items"]}


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("client", "program", "page"),
    [
        ("deepagents", "deepagents_e2b.py", "langchain"),
        ("openai-agents", "openai_agents_e2b.py", "openai-agents"),
        ("smolagents", "smolagents_e2b.py", "smolagents"),
    ],
)
def test_agent_frameworks_in_python(server: Server, client: str, program: str, page: str) -> None:
    printed = run(server, CLIENTS / client / "bin" / "python", EXAMPLES / program, env=environment(server))
    assert_shown(printed, page)


def test_the_vercel_ai_sdk(server: Server, tmp_path: Path) -> None:
    # Node looks for packages beside the program.
    program = shutil.copy(EXAMPLES / "vercel-ai-sdk" / "agent.mjs", tmp_path)
    (tmp_path / "node_modules").symlink_to(CLIENTS / "vercel-ai-sdk" / "node_modules")
    printed = run(server, CLIENTS / "node" / "bin" / "node", program, env=environment(server))
    assert_shown(printed, "vercel-ai-sdk")


@pytest.mark.parametrize("python", [sys.executable, CLIENTS / "mcp-1" / "bin" / "python"], ids=["mcp-2", "mcp-1"])
def test_an_mcp_client(server: Server, python: str | Path) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = {**os.environ, "SKERRY_API_URL": server.api_url, "SKERRY_API_KEY": server.api_key, "PATH": path}
    assert_shown(run(server, python, EXAMPLES / "mcp_client.py", env=env), "mcp")


def assert_shown(printed: str, page: str) -> None:
    """What the page shows is what came."""
    lines = [line.strip() for line in printed.splitlines()]
    assert [line for line in documented(page) if line not in lines] == []
