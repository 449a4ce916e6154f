"""A listener, and an agent at its other end: the real one as a process of this machine, or one that says what the test wants."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import pytest

from skerry.agentlink import Link, Listener
from skerry.agentlink.frames import HEADER, Kind
from skerry.errors import Error
from skerry.host.runtime import agent_binary

TOKEN = "t" * 64


@pytest.fixture
def lost() -> list[Error]:
    """What the listener reported as lost."""
    return []


@pytest.fixture
async def listener(tmp_path: Path, lost: list[Error]) -> AsyncIterator[Listener]:
    listener = Listener(tmp_path, TOKEN, lost.append)
    await listener.start()
    yield listener
    await listener.aclose()
    while _peers:
        await _peers.pop().aclose()


_peers: list[Peer] = []


class Peer:
    """An agent under the test's control."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def dial(cls, directory: Path) -> Peer:
        peer = cls(*await asyncio.open_unix_connection(directory / "link.sock"))
        _peers.append(peer)
        return peer

    async def hello(self, token: str = TOKEN, protocol: int = 1) -> None:
        await self.say(Kind.HELLO, 0, {"protocol": protocol, "token": token, "agent_version": "t", "instance": "i"})

    async def say(self, kind: int, channel: int, content: dict[str, Any] | bytes = b"") -> None:
        payload = content if isinstance(content, bytes) else json.dumps(content).encode()
        await self.raw(HEADER.pack(len(payload) + 5, kind, channel) + payload)

    async def raw(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def hear(self) -> tuple[Kind, int, bytes]:
        """The next frame. Raises IncompleteReadError when the server has hung up."""
        with anyio.fail_after(5):
            length, kind, channel = HEADER.unpack(await self._reader.readexactly(HEADER.size))
            return Kind(kind), channel, await self._reader.readexactly(length - 5)

    async def hear_open(self) -> tuple[int, dict[str, Any]]:
        """The next request: its channel and content."""
        while True:
            kind, channel, payload = await self.hear()
            if kind is Kind.OPEN:
                return channel, json.loads(payload)

    async def is_hung_up(self) -> bool:
        try:
            while True:
                await self.hear()
        except (asyncio.IncompleteReadError, ConnectionError):
            return True

    async def aclose(self) -> None:
        self._writer.close()
        with suppress(ConnectionError):
            await self._writer.wait_closed()


@pytest.fixture
async def peer(listener: Listener, tmp_path: Path) -> Peer:
    peer = await Peer.dial(tmp_path)
    await peer.hello()
    await listener.connected()
    assert (await peer.hear())[0] is Kind.WELCOME
    return peer


@pytest.fixture
async def link(listener: Listener, tmp_path: Path) -> AsyncIterator[Link]:
    """A link to the real agent."""
    process = subprocess.Popen(
        [agent_binary(), "-link", tmp_path, "-run", tmp_path / "run", "-health", "127.0.0.1:0"], stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        with anyio.fail_after(10):
            yield await listener.connected()
    finally:
        process.kill()
        process.wait()
