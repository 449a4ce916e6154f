"""One request under way: what the agent has sent for it and what may still be sent, in both directions bounded."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from skerry.agentlink.frames import MAX_PAYLOAD, WINDOW, Kind
from skerry.errors import AgentViolation, Error

if TYPE_CHECKING:
    from skerry.agentlink.connection import Connection

MAX_ITEM_BYTES = 16 * 1024 * 1024
"""JSON that may wait for its reader on one channel."""
_CREDIT_STEP = WINDOW // 4


@dataclass(frozen=True, slots=True)
class Data:
    """Bytes the agent sent; `stream` is 1 or 2."""

    stream: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Item:
    """A part of an answer."""

    content: dict[str, Any]
    size: int


class Channel:
    """Made by `Connection.open`. One task reads; one may send."""

    __slots__ = (
        "_answer", "_failure", "_incoming", "_item_bytes", "_reader", "_receive_left", "_send_left", "_sender",
        "_to_grant", "connection", "ended", "number", "open",
    )  # fmt: skip

    def __init__(self, connection: Connection, number: int) -> None:
        self.connection = connection
        self.number = number
        self.open = True
        """The agent has not closed it yet."""
        self.ended = False
        """The agent sends no more data."""
        self._incoming: deque[Data | Item] = deque()
        self._item_bytes = 0
        self._answer: dict[str, Any] | None = None
        self._failure: Error | None = None
        self._receive_left = WINDOW
        self._to_grant = 0
        self._send_left = WINDOW
        self._reader: asyncio.Future[None] | None = None
        self._sender: asyncio.Future[None] | None = None

    # --- called by the connection -----------------------------------------------------------------------------------

    def take_data(self, stream: int, data: bytes) -> None:
        """Raises AgentViolation for data beyond the credit or after its end."""
        self._receive_left -= len(data)
        if self._receive_left < 0 or self.ended:
            raise AgentViolation("the agent sent data beyond its credit or after its end")
        self._incoming.append(Data(stream, data))
        self._wake_reader()

    def take_item(self, content: dict[str, Any], size: int) -> None:
        """Raises AgentViolation for more parts than a reader can be behind."""
        self._item_bytes += size
        if self._item_bytes > MAX_ITEM_BYTES:
            raise AgentViolation("the agent sent more items than may wait")
        self._incoming.append(Item(content, size))
        self._wake_reader()

    def take_end(self) -> None:
        if self.ended:
            raise AgentViolation("the agent ended a stream twice")
        self.ended = True
        self._wake_reader()

    def take_credit(self, count: int) -> None:
        """Raises AgentViolation for an absurd sum."""
        self._send_left += count
        if self._send_left > 2**40:
            raise AgentViolation("the agent granted an absurd credit")
        self._wake_sender()

    def close(self, answer: dict[str, Any] | None, failure: Error | None) -> None:
        """The agent has answered, or nothing more can come."""
        self.open = False
        self._answer, self._failure = answer, failure
        self._wake_reader()
        self._wake_sender()

    # --- called by the request --------------------------------------------------------------------------------------

    async def next(self) -> Data | Item | None:
        """What comes next; None when the agent has answered (or ended its stream) and all was read.

        Raises:
            Error: the agent's, or that of a lost connection.
        """
        while not self._incoming:
            if self._failure is not None:
                raise self._failure
            if not self.open or self.ended:
                return None
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        event = self._incoming.popleft()
        if type(event) is Data:
            self._consumed(len(event.data))
        else:
            assert isinstance(event, Item)
            self._item_bytes -= event.size
        return event

    async def item(self) -> dict[str, Any]:
        """The next part, which must be JSON. Raises AgentViolation through the connection when it is not."""
        event = await self.next()
        if not isinstance(event, Item):
            raise self.connection.violated("the agent sent something else than the item that was due")
        return event.content

    async def answer(self) -> dict[str, Any]:
        """Wait for the answer of a request that has no parts; parts are a violation."""
        while self.open:
            event = await self.next()
            if event is not None:
                raise self.connection.violated("the agent sent parts of an answer that has none")
            if self.ended and self.open:
                await self._closed()
        return await self.final()

    async def final(self) -> dict[str, Any]:
        """The answer after all parts were read with `next`."""
        while self.open:
            await self._closed()
        if self._failure is not None:
            raise self._failure
        assert self._answer is not None
        return self._answer

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        """Send data as credit and socket allow. Raises the agent's error when it has given up meanwhile."""
        if not await self.offer(data):
            raise self.connection.violated("the agent answered before it had read all")

    async def offer(self, data: bytes | bytearray | memoryview) -> bool:
        """As `send`, where the agent may answer early: returns whether all was sent."""
        view = memoryview(data)
        while view:
            if not self.open:
                if self._failure is not None:
                    raise self._failure
                return False
            if self._send_left <= 0 or self.connection.congested:
                await self._may_send()
                continue
            size = min(len(view), MAX_PAYLOAD, self._send_left)
            self._send_left -= size
            self.connection.send_data(self.number, view[:size])
            view = view[size:]
        return True

    def send_end(self) -> None:
        if self.open:
            self.connection.send(Kind.END, self.number)

    def cancel(self) -> None:
        """Want no more: what still comes is thrown away. No-op when the agent has answered."""
        self._incoming.clear()
        if self.open:
            self.connection.abandon(self)

    async def _may_send(self) -> None:
        self._sender = asyncio.get_running_loop().create_future()
        self.connection.waiting.add(self)
        try:
            await self._sender
        finally:
            self._sender = None
            self.connection.waiting.discard(self)

    async def _closed(self) -> None:
        self._reader = asyncio.get_running_loop().create_future()
        try:
            await self._reader
        finally:
            self._reader = None

    def _consumed(self, size: int) -> None:
        self._to_grant += size
        if self._to_grant >= _CREDIT_STEP and self.open and not self.ended:
            self.connection.send(Kind.CREDIT, self.number, self._to_grant.to_bytes(4, "big"))
            self._receive_left += self._to_grant
            self._to_grant = 0

    def _wake_reader(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def _wake_sender(self) -> None:
        if self._sender is not None and not self._sender.done():
            self._sender.set_result(None)

    def socket_writable(self) -> None:
        """The connection's socket takes data again."""
        self._wake_sender()
