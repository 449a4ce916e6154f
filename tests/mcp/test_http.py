"""Many clients, over HTTP."""

from __future__ import annotations

import subprocess
import sys

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from tests.e2e.conftest import Server

from .conftest import SKERRY, Http, call, refusal, running, text


def authorized(http: Http) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(headers={"Authorization": f"Bearer {http.key}"}, timeout=60)


@pytest.mark.anyio
@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_clients_of_either_revision_name_their_sandboxes(http: Http, server: Server, mode: str) -> None:
    before = running(server)
    async with (
        authorized(http) as connection,
        Client(streamable_http_client(http.url, http_client=connection), mode=mode) as client,
    ):
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert "sandbox_id" in tools["exec"].input_schema["required"]
        assert "create_sandbox first" in await refusal(client, "run_code", code="1")
        assert "pass its sandbox_id" in await refusal(client, "kill_sandbox")
        made = (await call(client, "create_sandbox")).structured_content["sandbox_id"]
        await text(client, "run_code", code="x = 41", sandbox_id=made)
    async with (
        authorized(http) as connection,
        Client(streamable_http_client(http.url, http_client=connection), mode=mode) as client,
    ):
        assert "42" in await text(client, "run_code", code="x + 1", sandbox_id=made), "it outlives the connection"
    assert len(running(server)) == len(before) + 1
    assert http.stop() == 0
    assert running(server) == before, "and ends with the server"


@pytest.mark.anyio
@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic x"}])
async def test_nothing_is_done_without_the_key(http: Http, headers: dict[str, str]) -> None:
    async with httpx2.AsyncClient(headers=headers) as connection:
        request = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
        reply = await connection.post(http.url, json=request)
        assert reply.status_code == 401
        assert reply.headers["www-authenticate"] == "Bearer"


@pytest.mark.anyio
async def test_a_page_of_another_site_reaches_nothing_even_with_the_key(http: Http) -> None:
    async with authorized(http) as connection:
        request = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
        for headers in ({"Host": "evil.example"}, {"Origin": "https://evil.example"}):
            reply = await connection.post(http.url, json=request, headers=headers)
            assert reply.status_code in (403, 421)


@pytest.mark.parametrize("where", ["nowhere", "127.0.0.1:x", "192.0.2.1:80", "127.0.0.1:70000"])
def test_where_it_cannot_listen_is_told(environment: dict[str, str], where: str) -> None:
    done = subprocess.run(
        [sys.executable, *SKERRY, "--http", where], env=environment, stdin=subprocess.DEVNULL, capture_output=True,
        text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "cannot listen on" in done.stderr
    assert "Traceback" not in done.stderr
