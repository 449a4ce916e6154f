"""What lasts longer than one answer: processes that are followed, watches, connections, and content both ways.

Following a process and watching a directory outlive the connection: when it ends, by a hold or otherwise, they are
begun again on the next one, a process from the byte that comes next. Input for a process outlives a hold.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterable, AsyncIterator
from typing import Any

from skerry.agentlink import decode
from skerry.agentlink.channel import Channel, Data, Item
from skerry.agentlink.frames import WINDOW
from skerry.agentlink.presence import CUT, Presence
from skerry.errors import AgentViolation
from skerry.models import Exit, Output, Process, Started, WatchEvent, WatchEventType

_STREAMS = {1: "stdout", 2: "stderr"}


class Following:
    """A process, from `started` to its exit.

    Args:
        presence: where the requests are made.
        op: `exec` or `attach`, with its fields.
    """

    def __init__(self, presence: Presence, op: str, fields: dict[str, Any]) -> None:
        self._presence = presence
        self._op, self._fields = op, fields
        self._channel: Channel | None = None
        self._offsets = {1: 0, 2: 0}
        self._lost = {1: 0, 2: 0}

    async def begin(self) -> None:
        """Make the request, whose answer `events` reads."""
        self.leave()
        self._channel = await self._presence.begin(self._op, **self._fields)

    async def events(self) -> AsyncIterator[Started | Output | Exit]:
        """After `begin`. Raises the agent's errors, and SandboxLost when no connection comes."""
        yield Started(process=await self._started())
        while True:
            assert self._channel is not None
            try:
                event = await self._channel.next()
                exit = decode.exit_(await self._channel.final()) if event is None else None
            except CUT:
                await self._attach_again()
                continue
            if exit is not None:
                yield exit
                return
            if isinstance(event, Item):
                gap = decode.dropped(event.content)
                if gap is None:
                    raise AgentViolation("the agent sent an item that means nothing here")
                self._lost[gap[0]] += gap[1]
                continue
            assert event is not None
            yield self._output(event)

    def _output(self, event: Data) -> Output:
        stream, lost = event.stream, self._lost[event.stream]
        offset = self._offsets[stream] + lost
        self._offsets[stream] = offset + len(event.data)
        self._lost[stream] = 0
        # Not validated: the data is bytes already, and this is the hot path of all output.
        return Output.model_construct(type=_STREAMS[stream], offset=offset, data=event.data, dropped=lost)

    async def _started(self) -> Process:
        """Read what the process is. To attach can be tried again, unlike to start."""
        while True:
            assert self._channel is not None
            try:
                started = (await self._channel.item()).get("started")
            except CUT:
                if self._op != "attach":
                    raise
                await self.begin()
                continue
            process = decode.process(started)
            self._offsets = dict(zip(_STREAMS, decode.offsets(started), strict=True))
            self._presence.settled(self._channel)
            self._op, self._fields = "attach", {"pid": process.pid}
            return process

    async def _attach_again(self) -> None:
        """On the next connection, where the last one ended. Output that was said to be lost is said so again."""
        wanted, pid = self._offsets, self._fields["pid"]
        self._lost = {1: 0, 2: 0}
        self._fields = {"pid": pid, "stdout_offset": wanted[1], "stderr_offset": wanted[2]}
        await self.begin()
        process = await self._started()
        if process.pid != pid or self._offsets != wanted:
            assert self._channel is not None
            raise self._channel.connection.violated("the agent attached to something else than was asked for")

    def fail(self, violation: AgentViolation) -> None:
        if self._channel is not None:
            self._channel.connection.fail(violation)

    def leave(self) -> None:
        if self._channel is not None:
            self._presence.leave(self._channel)


class Watching:
    """A directory's changes. What changes while there is no connection is one `overflow`."""

    def __init__(self, presence: Presence, path: str, options: dict[str, Any]) -> None:
        self._presence = presence
        self._path, self._options = path, options
        self._channel: Channel | None = None

    async def begin(self) -> None:
        """Returns when events are noticed from now on. Raises the agent's errors."""
        while True:
            self.leave()
            channel = self._channel = await self._presence.begin("watch", path=self._path, **self._options)
            try:
                ready = (await channel.item()).get("ready")
            except CUT:
                continue
            if ready is not True:
                raise channel.connection.violated("the agent did not say that it watches")
            self._presence.settled(channel)
            return

    async def events(self) -> AsyncIterator[WatchEvent]:
        """After `begin`."""
        while True:
            assert self._channel is not None
            try:
                event = await self._channel.next()
            except CUT:
                await self.begin()
                yield WatchEvent(type=WatchEventType.OVERFLOW, path=self._path)
                continue
            if event is None:
                return
            if not isinstance(event, Item):
                raise AgentViolation("the agent sent data among watch events")
            for changed in decode.items(event.content, "events"):
                yield decode.watch_event(changed)

    def fail(self, violation: AgentViolation) -> None:
        if self._channel is not None:
            self._channel.connection.fail(violation)

    def leave(self) -> None:
        if self._channel is not None:
            self._presence.leave(self._channel)


class Dialled:
    """`ports.ByteStream` over a channel."""

    def __init__(self, presence: Presence, channel: Channel) -> None:
        self._presence = presence
        self._channel = channel

    async def receive(self) -> bytes:
        event = await self._channel.next()
        if event is None:
            return b""
        if not isinstance(event, Data):
            raise self._channel.connection.violated("the agent sent an item on a connection")
        return event.data

    async def send(self, data: bytes) -> None:
        await self._channel.send(data)

    async def send_eof(self) -> None:
        self._channel.send_end()

    async def aclose(self) -> None:
        self._presence.leave(self._channel)


class Feeding:
    """Input for a process. A hold interrupts it: the agent says how much the process has taken, the rest follows."""

    def __init__(self, presence: Presence, chunks: AsyncIterable[bytes] | bytes) -> None:
        self._presence = presence
        self._source = aiter(_whole(chunks) if isinstance(chunks, bytes | bytearray | memoryview) else chunks)
        self._sent: deque[bytes] = deque()
        """What the process may not have taken yet; the agent does not take more than WINDOW of it before."""
        self._size = 0

    async def feed(self, pid: int, eof: bool) -> None:
        """Returns when the process has taken all. Raises the agent's errors."""
        while True:
            async with self._presence.request("stdin", pid=pid, eof=eof) as channel:
                self._presence.settled(channel)
                sent = await self._send(channel)
                answer = await channel.answer()
                if "taken" not in answer:
                    return
                self._take(answer["taken"], sent, channel)

    async def _send(self, channel: Channel) -> int:
        """All that was not taken before, and what comes; returns how many bytes that was, whether sent or not."""
        total = self._size
        for chunk in list(self._sent):
            if not await channel.offer(chunk):
                return total
        async for chunk in self._source:
            self._keep(chunk)
            total += len(chunk)
            if not await channel.offer(chunk):
                return total
        channel.send_end()
        return total

    def _keep(self, chunk: bytes) -> None:
        """All before it was sent, so no more of that than the agent's window can be left."""
        while self._sent and self._size - len(self._sent[0]) >= WINDOW:
            self._size -= len(self._sent.popleft())
        self._sent.append(chunk)
        self._size += len(chunk)

    def _take(self, taken: Any, sent: int, channel: Channel) -> None:
        """Keep what the process has not taken of `sent` bytes."""
        left = sent - taken if type(taken) is int else -1
        if not 0 <= left <= self._size:
            raise channel.connection.violated("the agent took something else than was sent")
        while self._size > left:
            first = self._sent.popleft()
            self._size -= len(first)
            if self._size < left:
                self._sent.appendleft(first[len(first) - (left - self._size) :])
                self._size = left


async def _whole(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def send_all(channel: Channel, chunks: AsyncIterable[bytes] | bytes) -> None:
    """Everything, and the end."""
    if isinstance(chunks, bytes | bytearray | memoryview):
        await channel.send(chunks)
    else:
        async for chunk in chunks:
            await channel.send(chunk)
    channel.send_end()


async def content(channel: Channel) -> AsyncIterator[bytes]:
    """Bytes that the agent sends, to its answer."""
    while (event := await channel.next()) is not None:
        if not isinstance(event, Data):
            raise AgentViolation("the agent sent an item in a file's content")
        yield event.data
    await channel.final()
