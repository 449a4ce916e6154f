"""`skerry mcp`, driven by the protocol's official client."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from mcp_types import CallToolResult, TextContent

from skerry import Sandbox
from tests.e2e.conftest import Server

SKERRY = ("-m", "skerry", "mcp")


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("skerry") / "data", settings={"SKERRY_SUBNET": "10.217.0.0/16"})
    yield server
    assert server.stop() == 0


@pytest.fixture
def environment(server: Server) -> dict[str, str]:
    """What makes `skerry mcp` use this server."""
    return {**os.environ, "SKERRY_API_URL": server.api_url, "SKERRY_API_KEY": server.api_key}


class Http:
    """`skerry mcp --http` as a child process."""

    def __init__(self, environment: dict[str, str], log: Path) -> None:
        with log.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, *SKERRY, "--http", "0", "--json"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=errors, env=environment,
            )  # fmt: skip
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, log.read_text()
        ready: dict[str, Any] = json.loads(line)
        self.url: str = ready["url"]
        self.key: str = ready["api_key"]

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(30)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return status


@pytest.fixture
def http(environment: dict[str, str], tmp_path: Path) -> Iterator[Http]:
    http = Http(environment, tmp_path / "mcp.log")
    yield http
    if http.process.poll() is None:
        http.stop()


def running(server: Server) -> list[str]:
    return [item.id for item in Sandbox.list(api_url=server.api_url, api_key=server.api_key)]


async def call(client: Client, tool: str, **arguments: Any) -> CallToolResult:
    answer = await client.call_tool(tool, arguments)
    assert isinstance(answer, CallToolResult)
    return answer


async def text(client: Client, tool: str, **arguments: Any) -> str:
    """The answer's text; the call must not fail."""
    answer = await call(client, tool, **arguments)
    assert not answer.is_error, answer
    return "\n".join(block.text for block in answer.content if isinstance(block, TextContent))


async def refusal(client: Client, tool: str, **arguments: Any) -> str:
    """The message of a call that must fail, as a result and not as a fault of the protocol."""
    answer = await call(client, tool, **arguments)
    assert answer.is_error, answer
    [block] = answer.content
    assert isinstance(block, TextContent)
    return block.text
