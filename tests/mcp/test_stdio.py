"""One client, over standard input and output, as MCP clients start servers."""

from __future__ import annotations

import base64
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from mcp import Client, StdioServerParameters
from mcp_types import ImageContent

from tests.e2e.conftest import Server, eventually

from .conftest import SKERRY, call, refusal, running, text

PNG = b"\x89PNG\r\n\x1a\n"


@asynccontextmanager
async def connected(environment: dict[str, str], mode: str = "auto") -> AsyncIterator[Client]:
    parameters = StdioServerParameters(command=sys.executable, args=[*SKERRY], env=environment)
    async with Client(parameters, mode=mode, read_timeout_seconds=60) as client:
        yield client


@pytest.mark.anyio
@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_client_of_either_revision_runs_code_and_leaves_no_sandbox(
    environment: dict[str, str], server: Server, mode: str
) -> None:
    before = running(server)
    async with connected(environment, mode) as client:
        assert running(server) == before, "no sandbox is made before it is needed"
        assert client.instructions is not None
        assert "default sandbox" in client.instructions
        names = {tool.name for tool in (await client.list_tools()).tools}
        assert {"run_code", "exec", "create_sandbox"} <= names
        assert await text(client, "run_code", code="x = 41") == "[it ran, and showed nothing]"
        assert await text(client, "run_code", code="print('printed'); x + 1") == "stdout:\nprinted\nresult:\n42"
        assert len(running(server)) == len(before) + 1
        await text(client, "create_sandbox")
        assert len(running(server)) == len(before) + 2
    assert running(server) == before


@pytest.mark.anyio
async def test_code(environment: dict[str, str]) -> None:
    async with connected(environment) as client:
        assert "ZeroDivisionError" in await text(client, "run_code", code="1 / 0")
        assert "TimeoutError" in await text(client, "run_code", code="while True: pass", timeout_s=1)
        assert "result:\n3" in await text(client, "run_code", code="1 + 2"), "the interpreter is well after that"
        figure = await call(client, "run_code", code="import matplotlib.pyplot as plt\nplt.plot([1, 4, 9]);")
        [image] = [block for block in figure.content if isinstance(block, ImageContent)]
        assert image.mime_type == "image/png"
        assert base64.b64decode(image.data).startswith(PNG)
        assert "language.not_found" in await refusal(client, "run_code", code="1", language="cobol")
        await text(client, "create_sandbox", template="base", internet=False, memory_mib=512, timeout_s=60)


@pytest.mark.anyio
async def test_a_call_that_its_client_gives_up_is_interrupted(environment: dict[str, str]) -> None:
    async with connected(environment) as client:
        await text(client, "run_code", code="x = 1")
        with anyio.move_on_after(1) as given_up:
            await text(client, "run_code", code="while True: x += 1")
        assert given_up.cancelled_caught
        with anyio.fail_after(20):
            assert "True" in await text(client, "run_code", code="x > 1"), (
                "the interpreter is free, and is the same one"
            )
        with anyio.move_on_after(1):
            await text(client, "exec", command="exec sleep 345")
        sleeping = "pgrep -f 'sleep 34[5]' || echo none"
        with anyio.fail_after(20):
            while "none" not in await text(client, "exec", command=sleeping):
                await anyio.sleep(0.2)


@pytest.mark.anyio
async def test_calls_at_once_share_the_default_sandbox(environment: dict[str, str]) -> None:
    async with connected(environment) as client:
        async with anyio.create_task_group() as tasks:
            for n in range(5):
                tasks.start_soon(lambda n=n: text(client, "exec", command=f"echo {n} > {n}"))
        assert await text(client, "exec", command="cat ?") == "exit code 0\nstdout:\n0\n1\n2\n3\n4"
        assert len((await call(client, "list_sandboxes")).structured_content["sandboxes"]) == 1


@pytest.mark.anyio
async def test_commands(environment: dict[str, str]) -> None:
    async with connected(environment) as client:
        answer = await call(client, "exec", command="echo out; echo err >&2; exit 3")
        assert not answer.is_error
        assert answer.structured_content == {
            "exit_code": 3, "reason": "exited", "stdout": "out\n", "stderr": "err\n", "truncated": False,
        }  # fmt: skip
        assert "characters left out" in await text(client, "exec", command="seq 100000")
        assert "(timeout)" in await text(client, "exec", command="sleep 60", timeout_s=1)
        assert "root" in await text(client, "exec", command="id -un; pwd", user="root", cwd="/tmp")
        assert "process.cannot_start" in await refusal(client, "exec", command="true", cwd="/nowhere")


@pytest.mark.anyio
async def test_files(environment: dict[str, str]) -> None:
    async with connected(environment) as client:
        assert (
            await text(client, "write_file", path="a/b.txt", content="grüße\n") == "wrote 8 bytes to /home/user/a/b.txt"
        )
        assert await text(client, "read_file", path="/home/user/a/b.txt") == "grüße\n"
        assert "8 /home/user/a/b.txt" in await text(client, "list_files", depth=2)
        assert await text(client, "list_files", path="/srv") == "[empty]"
        await text(
            client, "write_file", path="p.png", content=base64.b64encode(PNG + b"rest").decode(), encoding="base64"
        )
        [image] = (await call(client, "read_file", path="p.png")).content
        assert isinstance(image, ImageContent)
        assert base64.b64decode(image.data) == PNG + b"rest"
        await text(
            client, "run_code", code="open('long', 'w').write('ä' * 60_001); open('zeros', 'wb').write(bytes(9));"
        )
        first = await text(client, "read_file", path="long")
        assert first.endswith("read on with offset=100000]")
        assert await text(client, "read_file", path="long", offset=100_000) == "ä" * 10_001
        assert "not text" in await refusal(client, "read_file", path="zeros")
        assert "file.not_found" in await refusal(client, "read_file", path="missing")
        assert "file.permission_denied" in await refusal(client, "write_file", path="/etc/x", content="")
        assert "base64" in await refusal(client, "write_file", path="x", content="?", encoding="base64")
        assert "file.not_directory" in await refusal(client, "list_files", path="long")


@pytest.mark.anyio
async def test_a_port(environment: dict[str, str], server: Server) -> None:
    async with connected(environment) as client:
        await text(client, "write_file", path="index.html", content="hello from inside")
        assert "process" in await text(client, "exec", command="python3 -m http.server 8000", background=True)
        url = (await call(client, "port_url", port=8000)).structured_content["url"]
        assert url.startswith(server.api_url)
        path = url.removeprefix(server.api_url)
        assert await anyio.to_thread.run_sync(
            lambda: eventually(lambda: server.request("GET", path)[1] == "hello from inside")
        )


@pytest.mark.anyio
async def test_what_a_caller_does_wrong_is_told_to_the_model(environment: dict[str, str]) -> None:
    async with connected(environment) as client:
        assert "code: Field required" in await refusal(client, "run_code")
        assert "lang: Extra inputs" in await refusal(client, "run_code", code="1", lang="python")
        assert "timeout_s" in await refusal(client, "exec", command="true", timeout_s=-1)
        assert "port" in await refusal(client, "port_url", port=70_000)
        assert "no such tool" in await refusal(client, "launch")
        assert "sandbox.not_found" in await refusal(client, "exec", command="true", sandbox_id="sb0")
        assert "sandbox.not_found" in await refusal(client, "kill_sandbox", sandbox_id="sb0")
        assert "template.not_found" in await refusal(client, "create_sandbox", template="nosuch")
        assert await text(client, "kill_sandbox") == "there was none"


@pytest.mark.anyio
async def test_sandboxes_are_listed_used_and_killed(environment: dict[str, str], server: Server) -> None:
    with server.sandbox():  # somebody else's
        async with connected(environment) as client:
            assert await text(client, "list_sandboxes") == "there are none"
            made = (await call(client, "create_sandbox")).structured_content["sandbox_id"]
            await text(client, "run_code", code="x = 1", sandbox_id=made)
            assert "NameError" in await text(client, "run_code", code="x"), "the default sandbox is another one"
            listed = (await call(client, "list_sandboxes")).structured_content["sandboxes"]
            assert made in [item["sandbox_id"] for item in listed]
            assert len(listed) == 2
            assert await text(client, "kill_sandbox", sandbox_id=made) == f"killed {made}"
            assert "sandbox.not_running" in await refusal(client, "exec", command="true", sandbox_id=made)


@pytest.mark.anyio
async def test_when_the_default_sandbox_has_ended_that_is_told_and_the_next_call_gets_a_new_one(
    environment: dict[str, str], server: Server
) -> None:
    async with connected(environment) as client:
        await text(client, "run_code", code="x = 1")
        [item] = (await call(client, "list_sandboxes")).structured_content["sandboxes"]
        server.connect(item["sandbox_id"]).kill()
        assert "makes a new one [sandbox.not_running]" in await refusal(client, "run_code", code="x")
        assert "NameError" in await text(client, "run_code", code="x")


@pytest.mark.parametrize(("how", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_ends_it_and_its_sandboxes_though_standard_input_stays_open(
    environment: dict[str, str], server: Server, how: signal.Signals, status: int
) -> None:
    before = running(server)
    process = subprocess.Popen(
        [sys.executable, *SKERRY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        env=environment,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    with process.stdin, process.stdout:
        for message in (
            '{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}',
            '{"jsonrpc":"2.0","method":"notifications/initialized"}',
            '{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"run_code","arguments":{"code":"1"}}}',
        ):
            process.stdin.write(message.encode() + b"\n")
            process.stdin.flush()
        assert b'"id":1' in process.stdout.readline()
        assert b"result:" in process.stdout.readline()
        assert len(running(server)) == len(before) + 1
        os.kill(process.pid, how)
        assert process.wait(20) == status
    assert running(server) == before


def test_without_a_server_one_is_started_for_as_long_as_it_runs(environment: dict[str, str], tmp_path: Path) -> None:
    for name in ("SKERRY_API_URL", "SKERRY_API_KEY"):
        del environment[name]
    environment |= {"SKERRY_SUBNET": "10.216.0.0/16", "TMPDIR": str(tmp_path)}
    requests = (
        '{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}\n'
        '{"jsonrpc":"2.0","method":"notifications/initialized"}\n'
        '{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"exec","arguments":{"command":"echo inside"}}}\n'
    )
    process = subprocess.Popen(
        [sys.executable, *SKERRY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        env=environment, text=True,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    with process.stdin, process.stdout:
        process.stdin.write(requests)
        process.stdin.flush()
        assert '"id":1' in process.stdout.readline()
        assert "inside" in process.stdout.readline()
        process.stdin.close()
        assert process.wait(60) == 0
    assert list(tmp_path.iterdir()) == [], "the data of the server that was started is removed"
