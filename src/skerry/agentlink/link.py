"""A sandbox's agent as the server uses it: typed calls over whatever connection the agent has dialled last."""

from __future__ import annotations

import asyncio
import base64
import secrets
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from skerry.agentlink import decode
from skerry.agentlink.channel import Channel, Data, Item
from skerry.agentlink.connection import Connection
from skerry.errors import AgentViolation, Error, SandboxLost
from skerry.models import Exit, FileInfo, Output, Process, Started, TerminalSize, WatchEvent
from skerry.ports import ByteStream, FileContent

PING_AFTER_S = 10.0
"""Silence after which the agent is asked whether it lives."""
UNREACHABLE_AFTER_S = 30.0
"""Without an answer, or without a connection, for this long: it does not."""
RECONNECT_WAIT_S = 10.0
"""How long a call waits for the agent to dial again."""
_STREAMS = {1: "stdout", 2: "stderr"}


class Link:
    """Implements `ports.Agent`. Made by a `Listener`, which feeds it connections.

    Args:
        on_lost: called once, when the agent has broken the protocol or cannot be reached any more.
    """

    def __init__(self, on_lost: Callable[[Error], None]) -> None:
        self._on_lost = on_lost
        self._connection: Connection | None = None
        self._connected = asyncio.Event()
        self._failure: Error | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._suspended = False
        self._silent_since = asyncio.get_running_loop().time()
        self._pinging: Channel | None = None

    # --- connections ------------------------------------------------------------------------------------------------

    def use(self, connection: Connection) -> None:
        """A newer connection replaces an older one."""
        old, self._connection = self._connection, connection
        self._connected.set()
        if old is not None:
            old.close()
        self._watch()

    def lost(self, connection: Connection, error: Error) -> None:
        """A connection has ended."""
        if isinstance(error, AgentViolation):
            self.fail(error)
        elif connection is self._connection:
            self._connection = None
            self._connected.clear()
            self._silent_since = asyncio.get_running_loop().time()

    def fail(self, error: Error) -> None:
        """Give the agent up: every call under way and every later one raises `error`."""
        if self._failure is not None:
            return
        self.close(error)
        self._on_lost(error)

    def close(self, error: Error) -> None:
        """As `fail`, without telling anybody."""
        if self._failure is None:
            self._failure = error
        self._unwatch()
        self._connected.set()
        if self._connection is not None:
            self._connection.fail(error)

    def suspend(self) -> None:
        """The sandbox is about to be frozen: its silence means nothing until `resume`."""
        self._suspended = True
        self._unwatch()

    def resume(self) -> None:
        """The sandbox runs again."""
        self._suspended = False
        self._watch()

    def _watch(self) -> None:
        self._unwatch()
        if self._suspended or self._failure is not None:
            return
        now = asyncio.get_running_loop().time()
        self._silent_since = now
        if self._connection is not None:
            self._connection.last_heard = now
        self._timer = asyncio.get_running_loop().call_later(PING_AFTER_S, self._look)

    def _unwatch(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        """Every ten seconds: has the agent been heard?"""
        loop = asyncio.get_running_loop()
        connection = self._connection
        heard = connection.last_heard if connection is not None else self._silent_since
        silence = loop.time() - heard
        if silence >= UNREACHABLE_AFTER_S:
            self.fail(SandboxLost(f"the sandbox's agent has not answered for {silence:.0f} s"))
            return
        if connection is not None and silence >= PING_AFTER_S * 0.9 and (not self._pinging or not self._pinging.open):
            self._pinging = connection.open({"op": "ping"})
        self._timer = loop.call_later(PING_AFTER_S, self._look)

    async def _ready(self) -> Connection:
        if self._connection is None and self._failure is None:
            try:
                async with asyncio.timeout(RECONNECT_WAIT_S):
                    await self._connected.wait()
            except TimeoutError:
                raise SandboxLost("cannot reach the sandbox: its agent is not connected") from None
        if self._failure is not None:
            raise self._failure
        assert self._connection is not None
        return self._connection

    @asynccontextmanager
    async def _request(self, op: str, **fields: Any) -> AsyncIterator[Channel]:
        """A channel that is given up when its user leaves before the agent's answer."""
        channel = (await self._ready()).open({"op": op, **fields})
        try:
            yield channel
        except AgentViolation as violation:
            channel.connection.fail(violation)
            raise
        finally:
            channel.cancel()

    async def _call(self, op: str, **fields: Any) -> dict[str, Any]:
        async with self._request(op, **fields) as channel:
            return await channel.answer()

    async def _file_call(self, op: str, **fields: Any) -> FileInfo:
        async with self._request(op, **fields) as channel:
            return decode.file_info((await channel.answer()).get("info"))

    # --- processes --------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def run(
        self, command: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: str | None = None,
        user: str = "user", timeout_s: float | None = None, stdin: bool = False,
        terminal: TerminalSize | None = None, tag: str | None = None,
    ) -> AsyncIterator[AsyncIterator[Started | Output | Exit]]:  # fmt: skip
        """See `ports.Agent.run`."""
        async with self._request(
            "exec", argv=list(command), env=dict(env or {}), cwd=cwd, user=user,
            timeout_ms=None if timeout_s is None else max(1, round(timeout_s * 1000)), stdin=stdin,
            pty=None if terminal is None else terminal.model_dump(), tag=tag,
        ) as channel:  # fmt: skip
            yield _follow(channel)

    @asynccontextmanager
    async def attach(
        self, pid: int, *, stdout_offset: int | None = None, stderr_offset: int | None = None
    ) -> AsyncIterator[AsyncIterator[Started | Output | Exit]]:
        """See `ports.Agent.attach`."""
        async with self._request(
            "attach", pid=pid, stdout_offset=stdout_offset, stderr_offset=stderr_offset
        ) as channel:
            yield _follow(channel)

    async def processes(self) -> list[Process]:
        """See `ports.Agent.processes`."""
        async with self._request("list") as channel:
            return [decode.process(process) for process in decode.items(await channel.answer(), "processes")]

    async def signal(self, pid: int, signal: int, *, group: bool = True) -> None:
        """See `ports.Agent.signal`."""
        await self._call("signal", pid=pid, signal=signal, group=group)

    async def resize(self, pid: int, size: TerminalSize) -> None:
        """See `ports.Agent.resize`."""
        await self._call("resize", pid=pid, cols=size.cols, rows=size.rows)

    async def write_stdin(self, pid: int, chunks: AsyncIterable[bytes] | bytes, *, eof: bool = False) -> None:
        """See `ports.Agent.write_stdin`."""
        async with self._request("stdin", pid=pid, eof=eof) as channel:
            await _send_all(channel, chunks)
            await channel.answer()

    # --- files ------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def read_file(
        self, path: str, *, user: str = "user", offset: int = 0, length: int | None = None
    ) -> AsyncIterator[FileContent]:
        """See `ports.Agent.read_file`."""
        async with self._request("read", path=path, user=user, offset=offset, length=length) as channel:
            yield FileContent(decode.file_info((await channel.item()).get("info")), _data(channel))

    async def write_file(
        self, path: str, chunks: AsyncIterable[bytes] | bytes, *, user: str = "user", mode: int | None = None,
        parents: bool = True, metadata: Mapping[str, str] | None = None,
    ) -> FileInfo:  # fmt: skip
        """See `ports.Agent.write_file`."""
        fields = {"path": path, "user": user, "mode": mode, "parents": parents, "metadata": dict(metadata or {})}
        async with self._request("write", **fields) as channel:
            await _send_all(channel, chunks)
            return decode.file_info((await channel.answer()).get("info"))

    async def unpack(
        self, path: str, chunks: AsyncIterable[bytes] | bytes, *, source: str = ".", owner: str | None = None,
        mode: int | None = None, user: str = "user",
    ) -> int:  # fmt: skip
        """See `ports.Agent.unpack`."""
        fields = {"path": path, "source": source, "owner": owner, "mode": mode, "user": user}
        async with self._request("unpack", **fields) as channel:
            await _send_all(channel, chunks)
            entries = (await channel.answer()).get("entries")
        if type(entries) is not int:
            raise AgentViolation("the agent did not say how much it has unpacked")
        return entries

    @asynccontextmanager
    async def pack(self, path: str, *, user: str = "user") -> AsyncIterator[AsyncIterator[bytes]]:
        """See `ports.Agent.pack`."""
        async with self._request("pack", path=path, user=user) as channel:
            yield _data(channel)

    async def stat(self, path: str, *, user: str = "user") -> FileInfo:
        """See `ports.Agent.stat`."""
        return await self._file_call("stat", path=path, user=user)

    async def list_files(
        self, path: str, *, user: str = "user", depth: int = 1, limit: int = 100_000
    ) -> tuple[list[FileInfo], bool]:
        """See `ports.Agent.list_files`."""
        found: list[FileInfo] = []
        async with self._request("listdir", path=path, user=user, depth=depth, limit=limit) as channel:
            while (event := await channel.next()) is not None:
                if not isinstance(event, Item):
                    raise AgentViolation("the agent sent data in a list")
                found.extend(decode.file_info(entry) for entry in decode.items(event.content, "entries"))
                if len(found) > limit:
                    raise AgentViolation("the agent sent more entries than were asked for")
            truncated = (await channel.final()).get("truncated")
        return found, bool(truncated)

    async def make_directory(
        self, path: str, *, user: str = "user", parents: bool = True, mode: int = 0o755
    ) -> FileInfo:
        """See `ports.Agent.make_directory`."""
        return await self._file_call("mkdir", path=path, user=user, parents=parents, mode=mode)

    async def rename(self, source: str, target: str, *, user: str = "user") -> FileInfo:
        """See `ports.Agent.rename`."""
        return await self._file_call("rename", source=source, target=target, user=user)

    async def remove(self, path: str, *, user: str = "user", recursive: bool = False) -> None:
        """See `ports.Agent.remove`."""
        await self._call("remove", path=path, user=user, recursive=recursive)

    async def set_attributes(
        self, path: str, *, user: str = "user", mode: int | None = None, owner: str | None = None,
        group: str | None = None,
    ) -> FileInfo:  # fmt: skip
        """See `ports.Agent.set_attributes`."""
        return await self._file_call("setattr", path=path, user=user, mode=mode, owner=owner, group=group)

    @asynccontextmanager
    async def watch(
        self, path: str, *, user: str = "user", recursive: bool = False
    ) -> AsyncIterator[AsyncIterator[WatchEvent]]:
        """See `ports.Agent.watch`."""
        async with self._request("watch", path=path, user=user, recursive=recursive) as channel:
            if (await channel.item()).get("ready") is not True:
                raise AgentViolation("the agent did not say that it watches")
            yield _watch_events(channel)

    # --- the rest ---------------------------------------------------------------------------------------------------

    async def dial(self, address: str | int) -> ByteStream:
        """See `ports.Agent.dial`."""
        fields = {"port": address} if isinstance(address, int) else {"path": address}
        channel = (await self._ready()).open({"op": "dial", **fields})
        try:
            if (await channel.item()).get("connected") is not True:
                raise channel.connection.violated("the agent did not say that it is connected")
        except BaseException:
            channel.cancel()
            raise
        return _Dialled(channel)

    async def configure(
        self, *, env: Mapping[str, str] | None = None, hostname: str | None = None, pids: int | None = None
    ) -> None:
        """See `ports.Agent.configure`."""
        await self._call("configure", env=None if env is None else dict(env), hostname=hostname, pids=pids)

    async def stats(self) -> dict[str, Any]:
        """What the agent counts inside; not to be relied on for limits or bills."""
        return await self._call("stats")

    async def ping(self) -> None:
        """See `ports.Agent.ping`."""
        await self._call("ping")

    async def quiesce(self) -> None:
        """See `ports.Agent.quiesce`."""
        await self._call("quiesce")

    async def reseed(self, *, hostname: str | None = None) -> None:
        """After a restore: fresh entropy, the host's clock, a host name of its own."""
        await self._call(
            "reseed", entropy=base64.b64encode(secrets.token_bytes(64)).decode(), hostname=hostname,
            time_unix_ns=time.time_ns(),
        )  # fmt: skip


class _Dialled:
    """`ports.ByteStream` over a channel."""

    def __init__(self, channel: Channel) -> None:
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
        self._channel.cancel()


async def _send_all(channel: Channel, chunks: AsyncIterable[bytes] | bytes) -> None:
    if isinstance(chunks, bytes | bytearray | memoryview):
        await channel.send(chunks)
    else:
        async for chunk in chunks:
            await channel.send(chunk)
    channel.send_end()


async def _data(channel: Channel) -> AsyncIterator[bytes]:
    while (event := await channel.next()) is not None:
        if not isinstance(event, Data):
            raise AgentViolation("the agent sent an item in a file's content")
        yield event.data
    await channel.final()


async def _watch_events(channel: Channel) -> AsyncIterator[WatchEvent]:
    while (event := await channel.next()) is not None:
        if not isinstance(event, Item):
            raise AgentViolation("the agent sent data among watch events")
        for content in decode.items(event.content, "events"):
            yield decode.watch_event(content)


async def _follow(channel: Channel) -> AsyncIterator[Started | Output | Exit]:
    """What a process does, from `started` to its exit."""
    started = (await channel.item()).get("started")
    process = decode.process(started)
    offsets = dict(zip(_STREAMS, decode.offsets(started), strict=True))
    yield Started(process=process)
    lost = {1: 0, 2: 0}
    while (event := await channel.next()) is not None:
        if isinstance(event, Item):
            gap = decode.dropped(event.content)
            if gap is None:
                raise AgentViolation("the agent sent an item that means nothing here")
            lost[gap[0]] += gap[1]
            continue
        stream = event.stream
        offsets[stream] += lost[stream]
        # Not validated: the data is bytes already, and this is the hot path of all output.
        yield Output.model_construct(
            type=_STREAMS[stream], offset=offsets[stream], data=event.data, dropped=lost[stream]
        )
        offsets[stream] += len(event.data)
        lost[stream] = 0
    yield decode.exit_(await channel.final())
