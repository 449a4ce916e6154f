"""A name server that answers what the test says, over UDP and TCP."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import cast

import anyio
import anyio.to_thread

Answer = Callable[[bytes], bytes | None]


def query(number: int, rest: bytes = b"") -> bytes:
    """A message with this id, and what else it says."""
    return number.to_bytes(2, "big") + b"\x01\0\0\x01\0\0\0\0\0\0" + rest


def echo(message: bytes) -> bytes | None:
    return message + b"answered"


@dataclass
class Resolver:
    """What was asked, and the answer to give; None is silence."""

    answer: Answer = echo
    asked: list[bytes] = field(default_factory=list)

    def take(self, message: bytes) -> bytes | None:
        self.asked.append(message)
        return self.answer(message)


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str | int, ...]) -> None:
        answer = self._resolver.take(data)
        if answer is not None:
            self._transport.sendto(answer, addr)


@asynccontextmanager
async def resolver(address: str, *, tcp: bool = True) -> AsyncIterator[Resolver]:
    """A resolver on port 53 of an address of this host."""
    scripted = Resolver()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                length = int.from_bytes(await reader.readexactly(2), "big")
                answer = scripted.take(await reader.readexactly(length))
                if answer is not None:
                    writer.write(len(answer).to_bytes(2, "big") + answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: _Datagrams(scripted), local_addr=(address, 53)
    )
    server = await asyncio.start_server(serve, address, 53) if tcp else None
    try:
        yield scripted
    finally:
        transport.close()
        if server is not None:
            server.close()
            await server.wait_closed()


async def ask_udp(target: tuple[str, int], message: bytes, *, source: str, wait_s: float = 2) -> bytes | None:
    """The answer to one datagram; None when there is none in time."""

    def ask() -> bytes | None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.settimeout(wait_s)
            sender.bind((source, 0))
            sender.sendto(message, target)
            try:
                return sender.recv(65536)
            except TimeoutError:
                return None

    return await anyio.to_thread.run_sync(ask)


async def ask_tcp(target: tuple[str, int], *messages: bytes, source: str) -> list[bytes]:
    """Messages sent at once on one connection, and the answers up to its end or one for each."""
    reader, writer = await asyncio.open_connection(*target, local_addr=(source, 0))
    answers = []
    try:
        with anyio.fail_after(5):
            writer.write(b"".join(len(message).to_bytes(2, "big") + message for message in messages))
            for _ in messages:
                try:
                    length = int.from_bytes(await reader.readexactly(2), "big")
                    answers.append(await reader.readexactly(length))
                except (asyncio.IncompleteReadError, ConnectionError):
                    break
    finally:
        writer.close()
    return answers
