"""The client on the wire."""

import hashlib
import json

import pytest

from skerry import AsyncSandbox
from skerry.errors import Error, HostFull, SandboxLost, ServerUnreachable
from skerry.sdk import wire
from skerry.sdk._async.client import AsyncClient

KEY = "sk_test"


@pytest.mark.anyio
async def test_only_what_was_given_is_sent(url: str) -> None:
    sandbox = await AsyncSandbox.create(memory=5, env={"A": "b"}, timeout=None, api_url=url, api_key=KEY)
    sent = json.loads(sandbox.created.metadata["sent"])
    assert sent == {
        "template": "base", "timeout_s": None, "idle_timeout_s": None, "internet": True, "isolation": "gvisor",
        "on_timeout": "kill", "keep_memory": True, "auto_resume": True, "restart": {"when": "no"}, "env": {"A": "b"},
        "memory_mib": 5,
    }  # fmt: skip


@pytest.mark.anyio
async def test_errors_are_the_servers(url: str) -> None:
    with pytest.raises(HostFull) as caught:
        await AsyncSandbox.create("full", api_url=url, api_key=KEY)
    assert (caught.value.message, caught.value.details, caught.value.retryable) == ("no room", {"limit": 1}, True)
    with pytest.raises(Error, match="502"):
        await AsyncSandbox.create("broken", api_url=url, api_key=KEY)


@pytest.mark.anyio
async def test_a_server_that_is_not_there_is_said() -> None:
    with pytest.raises(ServerUnreachable, match="skerry up"):
        await AsyncSandbox.create(api_url="http://127.0.0.1:1", api_key=KEY)


@pytest.mark.anyio
@pytest.mark.parametrize("size", [0, 1, 256 * 1024, 3 * 1024 * 1024 + 1])
async def test_content_arrives_whole_with_its_length(url: str, size: int) -> None:
    content = bytes(range(251)) * (size // 251 + 1)
    sandbox = await AsyncSandbox.create(api_url=url, api_key=KEY)
    info = await sandbox.files.write("/x", content[:size])
    assert (info.size, info.name, info.owner) == (size, hashlib.sha256(content[:size]).hexdigest(), str(size))


@pytest.mark.anyio
async def test_pages_are_walked(url: str) -> None:
    found = [item.id async for item in AsyncSandbox.list(api_url=url, api_key=KEY)]
    assert found == ["sb1", "sb2"]


@pytest.mark.anyio
async def test_ids_are_quoted_and_the_key_is_sent(url: str) -> None:
    sandbox = await AsyncSandbox.connect("a/b", api_url=url, api_key=KEY)
    assert sandbox.created.metadata == {"path": "/v1/sandboxes/a/b", "key": f"Bearer {KEY}"}


@pytest.mark.anyio
async def test_a_stream_is_cut_into_events(url: str) -> None:
    sandbox = await AsyncSandbox.create(api_url=url, api_key=KEY)
    async with sandbox.run_code_stream("fine") as events:
        assert [event.type async for event in events] == ["stdout", "done"]


@pytest.mark.anyio
async def test_a_failure_in_a_stream_is_raised(url: str) -> None:
    sandbox = await AsyncSandbox.create(api_url=url, api_key=KEY)
    with pytest.raises(HostFull):
        await sandbox.run_code("fails", on_stdout=print)


@pytest.mark.anyio
async def test_a_stream_that_breaks_off_is_no_success(url: str) -> None:
    sandbox = await AsyncSandbox.create(api_url=url, api_key=KEY)
    with pytest.raises(SandboxLost):
        await sandbox.run_code("breaks off", on_stdout=print)


@pytest.mark.anyio
async def test_silence_without_a_heartbeat_is_not_waited_for(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "SILENCE_S", 0.2)
    sandbox = await AsyncSandbox.create(api_url=url, api_key=KEY)
    with pytest.raises(ServerUnreachable):
        await sandbox.run_code("silent", on_stdout=print)


@pytest.mark.anyio
async def test_clients_are_shared(url: str) -> None:
    assert AsyncClient.shared(url, KEY) is AsyncClient.shared(url, KEY)
    assert AsyncClient.shared(url, KEY) is not AsyncClient.shared(url, "sk_other")
