"""The resolver that sandboxes see: relays DNS messages to the host's resolvers, and nothing else.

A seam: this is where a policy by domain will decide what is answered. It relays over UDP and TCP, bounds what is under
way, and takes no word of a packet on trust.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
from contextlib import suppress
from functools import partial
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import cast

import anyio

logger = logging.getLogger(__name__)

MAX_UNDER_WAY = 2048
MAX_PER_SANDBOX = 64
MAX_CONNECTIONS = 128
_TIMEOUT_S = 5.0
_CONNECT_TIMEOUT_S = 2.0
_HEADER = 12
_IP_FREEBIND = 15

_Client = tuple[str, int]


def host_resolvers(resolv_conf: Path = Path("/etc/resolv.conf")) -> list[str]:
    """The name servers the host uses."""
    servers = []
    with suppress(OSError):
        for line in resolv_conf.read_text().splitlines():
            words = line.split()
            if len(words) >= 2 and words[0] == "nameserver":
                servers.append(words[1])
    return servers


class Forwarder:
    """Listens on the sandboxes' gateway address.

    Args:
        gateway: address to listen on; need not exist yet.
        subnet: only these may ask.
        resolvers: addresses of name servers, in order of preference.
    """

    def __init__(self, gateway: IPv4Address, subnet: IPv4Network, resolvers: list[str]) -> None:
        self._gateway, self._subnet, self._resolvers = gateway, subnet, resolvers
        self._upstream: list[_Upstream] = []
        self._downstream: asyncio.DatagramTransport | None = None
        self._server: asyncio.Server | None = None
        self._connections = 0
        self.port = 0

    async def start(self) -> None:
        """Listen for UDP and TCP on one port, `port`. Raises OSError."""
        loop = asyncio.get_running_loop()
        udp = _bound(socket.SOCK_DGRAM, str(self._gateway), 0)
        self.port = udp.getsockname()[1]
        tcp = _bound(socket.SOCK_STREAM, str(self._gateway), self.port)
        self._downstream, _ = await loop.create_datagram_endpoint(lambda: _Downstream(self), sock=udp)
        self._server = await asyncio.start_server(self._relay, sock=tcp)
        for address in self._resolvers:
            try:
                _, protocol = await loop.create_datagram_endpoint(
                    partial(_Upstream, self, address), remote_addr=(address, 53)
                )
            except OSError as error:
                logger.warning("cannot use name server %s: %s", address, error)
            else:
                self._upstream.append(protocol)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        if self._downstream is not None:
            self._downstream.close()
        for upstream in self._upstream:
            upstream.close()

    def ask(self, query: bytes, client: _Client) -> None:
        """Pass a query on to the first resolver that has answered lately."""
        if len(query) < _HEADER or IPv4Address(client[0]) not in self._subnet or not self._upstream:
            return
        self._upstream[0].ask(query, client)

    def answer(self, message: bytes, client: _Client) -> None:
        if self._downstream is not None and not self._downstream.is_closing():
            self._downstream.sendto(message, client)

    def silent(self, upstream: _Upstream) -> None:
        """A resolver did not answer: the others come first from now on."""
        if self._upstream and self._upstream[0] is upstream:
            self._upstream.append(self._upstream.pop(0))

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            peer = writer.get_extra_info("peername")
            if self._connections >= MAX_CONNECTIONS or not peer or IPv4Address(peer[0]) not in self._subnet:
                return
            self._connections += 1
            try:
                with suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
                    await self._relay_messages(reader, writer)
            finally:
                self._connections -= 1
        finally:
            writer.close()

    async def _relay_messages(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = await self._connect()
        if connection is None:
            return
        up_reader, up_writer = connection
        try:
            for _ in range(16):
                for source, target in ((reader, up_writer), (up_reader, writer)):
                    with anyio.fail_after(_TIMEOUT_S):
                        length = await source.readexactly(2)
                        target.write(length + await source.readexactly(int.from_bytes(length, "big")))
                        await target.drain()
        finally:
            up_writer.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        """A connection to the first resolver that takes one: many speak UDP only. None when there is none."""
        for upstream in list(self._upstream):
            with suppress(OSError, TimeoutError), anyio.fail_after(_CONNECT_TIMEOUT_S):
                return await asyncio.open_connection(upstream.address, 53)
        return None


class _Downstream(asyncio.DatagramProtocol):
    def __init__(self, forwarder: Forwarder) -> None:
        self._forwarder = forwarder

    def datagram_received(self, data: bytes, addr: tuple[str | int, ...]) -> None:
        self._forwarder.ask(data, cast("_Client", addr[:2]))


class _Upstream(asyncio.DatagramProtocol):
    """One resolver. Queries get random ids of ours, so that sandboxes cannot guess each other's."""

    def __init__(self, forwarder: Forwarder, address: str) -> None:
        self._forwarder = forwarder
        self.address = address
        self._transport: asyncio.DatagramTransport | None = None
        self._under_way: dict[int, tuple[bytes, _Client, asyncio.TimerHandle]] = {}
        self._by_sandbox: dict[str, int] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def ask(self, query: bytes, client: _Client) -> None:
        if len(self._under_way) >= MAX_UNDER_WAY or self._by_sandbox.get(client[0], 0) >= MAX_PER_SANDBOX:
            return  # the client asks again
        number = secrets.randbelow(65536)
        while number in self._under_way:
            number = secrets.randbelow(65536)
        timer = asyncio.get_running_loop().call_later(_TIMEOUT_S, self._expired, number)
        self._under_way[number] = (query[:2], client, timer)
        self._by_sandbox[client[0]] = self._by_sandbox.get(client[0], 0) + 1
        if self._transport is not None:
            self._transport.sendto(number.to_bytes(2, "big") + query[2:])

    def datagram_received(self, data: bytes, addr: tuple[str | int, ...]) -> None:
        found = self._take(int.from_bytes(data[:2], "big")) if len(data) >= _HEADER else None
        if found is not None:
            original, client, timer = found
            timer.cancel()
            self._forwarder.answer(original + data[2:], client)

    def close(self) -> None:
        for _, _, timer in self._under_way.values():
            timer.cancel()
        if self._transport is not None:
            self._transport.close()

    def _expired(self, number: int) -> None:
        if self._take(number) is not None:
            self._forwarder.silent(self)

    def _take(self, number: int) -> tuple[bytes, _Client, asyncio.TimerHandle] | None:
        found = self._under_way.pop(number, None)
        if found is not None:
            sandbox = found[1][0]
            self._by_sandbox[sandbox] -= 1
            if not self._by_sandbox[sandbox]:
                del self._by_sandbox[sandbox]
        return found


def _bound(kind: socket.SocketKind, address: str, port: int) -> socket.socket:
    bound = socket.socket(socket.AF_INET, kind)
    try:
        bound.setblocking(False)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)  # the address comes with the first sandbox
        bound.bind((address, port))
    except BaseException:
        bound.close()
        raise
    return bound
