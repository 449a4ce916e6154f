"""Strangers, newcomers, and agents that break the rules."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import pytest

from skerry.agentlink import Listener, connection, presence
from skerry.agentlink.frames import MAX_PAYLOAD, WINDOW, Kind
from skerry.errors import AgentViolation, Error, FileMissing, SandboxLost

from .conftest import Peer

pytestmark = pytest.mark.anyio


async def test_a_stranger_is_sent_away_without_a_word(listener: Listener, tmp_path: Path, lost: list[Error]) -> None:
    for token in ("", "wrong", "t" * 63):
        peer = await Peer.dial(tmp_path)
        await peer.hello(token)
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await peer.hear()
    peer = await Peer.dial(tmp_path)
    await peer.raw(b"GET / HTTP/1.1\r\n\r\n" * 100)
    assert await peer.is_hung_up()
    assert lost == []


async def test_silence_is_not_waited_for(listener: Listener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_HELLO_TIMEOUT_S", 0.05)
    peer = await Peer.dial(tmp_path)
    assert await peer.is_hung_up()


async def test_the_socket_is_roots_own(listener: Listener, tmp_path: Path) -> None:
    assert (tmp_path / "link.sock").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "token").stat().st_mode & 0o777 == 0o600


async def test_another_protocol_is_refused(listener: Listener, tmp_path: Path) -> None:
    peer = await Peer.dial(tmp_path)
    await peer.hello(protocol=2)
    assert await peer.is_hung_up()


async def test_a_newer_connection_replaces_the_old(
    listener: Listener, peer: Peer, tmp_path: Path, lost: list[Error]
) -> None:
    newer = await Peer.dial(tmp_path)
    await newer.hello()
    assert await peer.is_hung_up()
    assert (await newer.hear())[0] is Kind.WELCOME
    async with anyio.create_task_group() as group:
        group.start_soon(listener.link.ping)
        channel, request = await newer.hear_open()
        assert request == {"op": "ping"}
        await newer.say(Kind.RESULT, channel, {})
    assert lost == []


async def test_calls_fail_with_the_connection_and_later_ones_wait(
    listener: Listener, peer: Peer, tmp_path: Path
) -> None:
    async with anyio.create_task_group() as group:

        async def call() -> None:
            with pytest.raises(SandboxLost):
                await listener.link.ping()

        group.start_soon(call)
        await peer.hear_open()
        await peer.aclose()
    async with anyio.create_task_group() as group:
        group.start_soon(listener.link.ping)
        await anyio.sleep(0.05)
        newer = await Peer.dial(tmp_path)
        await newer.hello()
        channel, _ = await newer.hear_open()
        await newer.say(Kind.RESULT, channel, {})


async def test_nobody_waits_for_ever(listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "RECONNECT_WAIT_S", 0.05)
    with pytest.raises(SandboxLost):
        await listener.link.ping()


FILE: dict[str, Any] = {
    "name": "n", "path": "/n", "type": "file", "size": 1, "mode": 1, "uid": 0, "gid": 0, "owner": "o", "group": "g",
    "modified_unix_ns": 0, "target": None, "target_type": None,
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        (Kind.RESULT, b"nonsense"),
        (Kind.RESULT, {"info": {}}),
        (Kind.RESULT, {"info": FILE | {"size": -1}}),
        (Kind.RESULT, {"info": FILE | {"size": "1"}}),
        (Kind.RESULT, {"info": FILE | {"type": "door"}}),
        (Kind.RESULT, {"info": FILE | {"modified_unix_ns": True}}),
        (Kind.RESULT, {}),
        (Kind.ITEM, {"unasked": 1}),
        (Kind.DATA, b"unasked"),
        (Kind.CREDIT, b"123"),
        (Kind.HELLO, {}),
        (Kind.ERROR, {"code": "host.full", "message": "not yours to say"}),
        (Kind.ERROR, {"code": "file.not_found"}),
        (Kind.ERROR, {"code": 5, "message": "m"}),
    ],
)
async def test_a_wrong_answer_ends_this_sandbox(
    listener: Listener, peer: Peer, lost: list[Error], kind: Kind, content: Any
) -> None:
    async with anyio.create_task_group() as group:

        async def call() -> None:
            with pytest.raises(AgentViolation):
                await listener.link.stat("/n")

        group.start_soon(call)
        channel, _ = await peer.hear_open()
        await peer.say(kind, channel, content)
    assert await peer.is_hung_up()
    assert [type(error) for error in lost] == [AgentViolation], "told once"
    with pytest.raises(AgentViolation):
        await listener.link.ping()


async def test_the_agents_own_errors_are_raised(listener: Listener, peer: Peer, lost: list[Error]) -> None:
    async with anyio.create_task_group() as group:

        async def call() -> None:
            with pytest.raises(FileMissing, match="no such file"):
                await listener.link.stat("/n")

        group.start_soon(call)
        channel, request = await peer.hear_open()
        assert request == {"op": "stat", "path": "/n", "user": "user"}
        await peer.say(Kind.ERROR, channel, {"code": "file.not_found", "message": "no such file"})
    assert lost == []


async def test_frames_out_of_nowhere_are_violations(listener: Listener, peer: Peer, lost: list[Error]) -> None:
    await peer.say(Kind.RESULT, 99, {})
    assert await peer.is_hung_up()
    assert isinstance(lost[0], AgentViolation)


async def test_data_beyond_the_credit_is_a_violation(listener: Listener, peer: Peer, lost: list[Error]) -> None:
    async with anyio.create_task_group() as group:

        async def read() -> None:
            async with listener.link.read_file("/n"):
                await anyio.sleep_forever()

        group.start_soon(read)
        channel, _ = await peer.hear_open()
        await peer.say(Kind.ITEM, channel, {"info": FILE})
        for _ in range(WINDOW // MAX_PAYLOAD + 1):
            await peer.say(Kind.DATA, channel, b"x" * MAX_PAYLOAD)
        assert await peer.is_hung_up()
        group.cancel_scope.cancel()
    assert isinstance(lost[0], AgentViolation)


async def test_items_without_end_are_a_violation(listener: Listener, peer: Peer, lost: list[Error]) -> None:
    async with anyio.create_task_group() as group:

        async def watch() -> None:
            async with listener.link.watch("/n"):
                await anyio.sleep_forever()

        group.start_soon(watch)
        channel, _ = await peer.hear_open()
        await peer.say(Kind.ITEM, channel, {"ready": True})
        with suppress(ConnectionError):
            for _ in range(200):
                await peer.say(Kind.ITEM, channel, {"events": [], "fill": "x" * 200_000})
        assert await peer.is_hung_up()
        group.cancel_scope.cancel()
    assert isinstance(lost[0], AgentViolation)


async def test_leaving_a_call_cancels_it_and_what_still_comes_is_ignored(
    listener: Listener, peer: Peer, lost: list[Error]
) -> None:
    with anyio.move_on_after(0.05):
        await listener.link.stat("/n")
    channel, _ = await peer.hear_open()
    assert await peer.hear() == (Kind.CANCEL, channel, b"")
    await peer.say(Kind.ITEM, channel, {"late": 1})
    await peer.say(Kind.RESULT, channel, {"info": "whatever"})
    async with anyio.create_task_group() as group:
        group.start_soon(listener.link.ping)
        channel, _ = await peer.hear_open()
        await peer.say(Kind.RESULT, channel, {})
    assert lost == []


async def test_an_agent_that_never_answers_is_given_up(
    listener: Listener, peer: Peer, lost: list[Error], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence, "PING_AFTER_S", 0.05)
    monkeypatch.setattr(presence, "UNREACHABLE_AFTER_S", 0.2)
    listener.link.resume()
    assert await peer.is_hung_up()
    assert isinstance(lost[0], SandboxLost)


async def test_a_suspended_agent_may_be_silent(
    listener: Listener, peer: Peer, lost: list[Error], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence, "PING_AFTER_S", 0.02)
    monkeypatch.setattr(presence, "UNREACHABLE_AFTER_S", 0.05)
    listener.link.suspend()
    await anyio.sleep(0.3)
    assert lost == []
