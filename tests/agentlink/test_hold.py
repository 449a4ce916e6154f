"""Holds: what waits, what goes on, what is cut off, and how they end."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import anyio
import pytest

from skerry.agentlink import Link, Listener, presence
from skerry.agentlink.frames import Kind
from skerry.errors import DeadlineExceeded, Error, SandboxHeld, SandboxLost
from skerry.models import Exit, Output, WatchEventType

from .conftest import Peer

pytestmark = pytest.mark.anyio


async def numbers(link: Link, count: int, held: Callable[[int], Awaitable[None]]) -> tuple[list[int], Exit]:
    """What a process counts, while `held` is called with each number that was read."""
    script = f"i=0; while [ $i -lt {count} ]; do i=$((i+1)); echo $i; sleep 0.005; done; exit 7"
    text, exit = b"", None
    async with link.run(["/bin/sh", "-c", script], user="root") as events:
        async for event in events:
            if isinstance(event, Output):
                assert event.offset == len(text)
                assert event.dropped == 0
                text += event.data
                await held(text.count(b"\n"))
            elif isinstance(event, Exit):
                exit = event
    assert exit is not None
    return [int(line) for line in text.split()], exit


async def test_a_followed_process_goes_on_through_holds(listener: Listener, link: Link, lost: list[Error]) -> None:
    holds = 0

    async def hold(read: int) -> None:
        nonlocal holds
        if read > holds * 20:
            holds += 1
            await listener.hold()
            await anyio.sleep(0.02)
            await listener.release()

    counted, exit = await numbers(link, 100, hold)
    assert counted == list(range(1, 101))
    assert exit.exit_code == 7
    assert holds >= 4
    assert lost == []


async def test_an_exit_during_a_hold_is_told_after_it(listener: Listener, link: Link) -> None:
    async with link.run(["/bin/sh", "-c", "read x; echo $x; exit 3"], user="root", stdin=True) as events:
        pid = (await anext(events)).process.pid
        await link.write_stdin(pid, b"end\n", eof=True)
        await listener.hold()
        await anyio.sleep(0.2)
        await listener.release()
        assert [(await anext(events)).data, (await anext(events)).exit_code] == [b"end\n", 3]


async def test_nothing_is_connected_while_held_and_requests_wait(
    listener: Listener, link: Link, tmp_path: Path
) -> None:
    await listener.hold()
    assert not (tmp_path / "link.sock").exists()
    async with anyio.create_task_group() as group:
        done = anyio.Event()

        async def ask() -> None:
            await link.ping()
            done.set()

        group.start_soon(ask)
        await anyio.sleep(0.2)
        assert not done.is_set()
        await listener.release()
        with anyio.fail_after(5):
            await done.wait()


async def test_an_agent_is_back_when_it_is_released(listener: Listener, link: Link) -> None:
    for held_s in (0.0, 0.5):
        await listener.hold()
        await anyio.sleep(held_s)
        await listener.release()
        await link.ping()


async def test_a_watch_goes_on_and_says_that_it_may_have_missed_something(
    listener: Listener, link: Link, tmp_path: Path
) -> None:
    watched = tmp_path / "watched"
    watched.mkdir()
    async with link.watch(str(watched), user="root") as events:
        await listener.hold()
        (watched / "meanwhile").write_text("")
        await listener.release()
        event = await anext(events)
        assert (event.type, event.path) == (WatchEventType.OVERFLOW, str(watched))
        (watched / "after").write_text("")
        event = await anext(events)
        assert (event.type, event.path) == (WatchEventType.CREATE, str(watched / "after"))


async def test_short_requests_are_waited_for_and_long_ones_cut_off(listener: Listener, peer: Peer) -> None:
    """Also: none begins during the grace."""
    async with anyio.create_task_group() as group:
        answers: list[object] = []

        async def list_processes() -> None:
            answers.append(await listener.link.processes())

        async def read() -> None:
            with pytest.raises(SandboxHeld):
                await listener.link.stat("/never")
            answers.append("cut off")

        group.start_soon(list_processes)
        listed, _ = await peer.hear_open()
        group.start_soon(read)
        await peer.hear_open()
        group.start_soon(listener.hold, 0.2)
        await anyio.sleep(0.05)
        group.start_soon(listener.link.ping)
        await peer.say(Kind.RESULT, listed, {"processes": []})
        channel, request = await peer.hear_open()
        assert request == {"op": "quiesce"}
        assert answers == [[]]
        await peer.say(Kind.RESULT, channel, {})
        await peer.aclose()
        await anyio.sleep(0.05)
        assert answers == [[], "cut off"]
        group.start_soon(listener.release)
        await anyio.sleep(0.05)
        newer = await Peer.dial(listener._directory)
        await newer.hello()
        channel, request = await newer.hear_open()
        assert request == {"op": "ping"}
        await newer.say(Kind.RESULT, channel, {})


async def test_connections_and_transfers_are_cut_off(
    listener: Listener, link: Link, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence, "DIALLED_GRACE_S", 0.1)
    closed = anyio.Event()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        closed.set()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    stream = await link.dial(server.sockets[0].getsockname()[1])
    (tmp_path / "file").write_text("old")

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x"
            await anyio.sleep(0.01)

    async def write() -> None:
        with pytest.raises(SandboxHeld):
            await link.write_file(str(tmp_path / "file"), endless(), user="root")

    async def receive() -> None:
        with pytest.raises(SandboxHeld):
            await stream.receive()

    async with anyio.create_task_group() as group:
        group.start_soon(write)
        group.start_soon(receive)
        await anyio.sleep(0.1)
        await listener.hold(0.1)
    await listener.release()
    await stream.aclose()
    assert (tmp_path / "file").read_text() == "old"
    with anyio.fail_after(5):
        await closed.wait()
    server.close()


async def test_a_transfer_that_ends_in_time_is_whole(listener: Listener, link: Link, tmp_path: Path) -> None:
    async def slow() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"x" * 10_000
            await anyio.sleep(0.01)

    async with anyio.create_task_group() as group:
        group.start_soon(lambda: link.write_file(str(tmp_path / "file"), slow(), user="root"))
        await anyio.sleep(0.05)
        await listener.hold()
        assert (tmp_path / "file").stat().st_size == 200_000
        await listener.release()


async def test_the_end_of_the_sandbox_ends_every_wait(listener: Listener, link: Link) -> None:
    async with link.run(["sleep", "60"], user="root") as events:
        await anext(events)
        async with anyio.create_task_group() as group:
            raised: list[str] = []

            async def fails(name: str, call: Callable[[], Awaitable[object]]) -> None:
                with pytest.raises(SandboxLost):
                    await call()
                raised.append(name)

            await listener.hold()
            group.start_soon(fails, "ping", link.ping)
            group.start_soon(fails, "follow", lambda: anext(events))
            await anyio.sleep(0.05)
            link.close(SandboxLost("it has ended"))
            await anyio.sleep(0.05)
            assert sorted(raised) == ["follow", "ping"]
            with pytest.raises(SandboxLost):
                await listener.release()
        with pytest.raises(SandboxLost):
            await listener.hold()


async def test_closing_while_held_leaves_nothing(listener: Listener, link: Link, tmp_path: Path) -> None:
    await listener.hold()
    await listener.aclose()
    with pytest.raises(SandboxLost):
        await listener.release()
    assert list(tmp_path.glob("link.sock")) == []


async def test_an_agent_that_stays_away_after_a_release_is_given_up(
    listener: Listener, peer: Peer, lost: list[Error], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence, "PING_AFTER_S", 0.05)
    monkeypatch.setattr(presence, "UNREACHABLE_AFTER_S", 0.2)
    async with anyio.create_task_group() as group:
        group.start_soon(listener.hold)
        channel, _ = await peer.hear_open()
        await peer.say(Kind.RESULT, channel, {})
        await peer.aclose()
    await anyio.sleep(0.4)
    assert lost == [], "silence means nothing while held"
    with pytest.raises(SandboxLost):
        await listener.release()
    assert isinstance(lost[0], SandboxLost)


async def test_a_hold_that_fails_holds_nothing(
    listener: Listener, peer: Peer, lost: list[Error], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence, "QUIESCE_S", 0.05)
    with pytest.raises(DeadlineExceeded):
        await listener.hold()
    assert await peer.is_hung_up()
    newer = await Peer.dial(listener._directory)
    await newer.hello()
    async with anyio.create_task_group() as group:
        group.start_soon(listener.link.ping)
        channel, request = await newer.hear_open()
        assert json.dumps(request) == '{"op": "ping"}'
        await newer.say(Kind.RESULT, channel, {})
    assert lost == []


async def test_a_cancelled_hold_holds_nothing(listener: Listener, link: Link, tmp_path: Path) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x"
            await anyio.sleep(0.01)

    async with anyio.create_task_group() as group:
        group.start_soon(functools.partial(link.write_file, str(tmp_path / "file"), endless(), user="root"))
        await anyio.sleep(0.05)
        with anyio.move_on_after(0.05) as cancelled:
            await listener.hold()
        assert cancelled.cancelled_caught
        await link.ping()
        group.cancel_scope.cancel()


async def test_no_output_is_lost_however_fast_it_comes(listener: Listener, link: Link) -> None:
    count = 3_000_000
    size = sum(9 * 10**digits * (digits + 2) for digits in range(6)) + (count - 999_999) * 8
    async with anyio.create_task_group() as group:

        async def hold() -> None:
            for _ in range(5):
                await listener.hold()
                await anyio.sleep(0.05)
                await listener.release()

        read, tail = 0, b""
        async with link.run(["seq", str(count)], user="root") as events:
            group.start_soon(hold)
            async for event in events:
                if isinstance(event, Output):
                    assert (event.offset, event.dropped) == (read, 0)
                    read += len(event.data)
                    tail = event.data[-8:]
                    await anyio.sleep(0.001)
    assert (read, tail) == (size, b"3000000\n")


async def test_input_goes_on_after_a_hold(listener: Listener, link: Link) -> None:
    """A program that reads slowly, more than its pipe and the agent's window hold."""
    lines = b"".join(b"%015d\n" % number for number in range(200_000))
    script = "read x; sleep 0.3; exec md5sum"

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(lines), 100_001):
            yield lines[start : start + 100_001]

    for whole in (lines, chunks()):
        async with link.run(["/bin/sh", "-c", script], user="root", stdin=True) as events:
            pid = (await anext(events)).process.pid
            async with anyio.create_task_group() as group:
                group.start_soon(functools.partial(link.write_stdin, pid, whole, eof=True))
                for _ in range(4):
                    await anyio.sleep(0.05)
                    await listener.hold()
                    await listener.release()
                printed = b"".join([event.data async for event in events if isinstance(event, Output)])
        assert printed.split()[0].decode() == hashlib.md5(lines[16:], usedforsecurity=False).hexdigest()
