"""A sandbox's agent as the server uses it: typed calls over whatever connection the agent has dialled last."""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import AsyncIterable, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from skerry.agentlink import decode
from skerry.agentlink.channel import Item
from skerry.agentlink.presence import Presence
from skerry.agentlink.streams import Dialled, Feeding, Following, Watching, content, send_all
from skerry.errors import AgentViolation
from skerry.models import Exit, FileInfo, Output, Process, Started, TerminalSize, WatchEvent
from skerry.ports import ByteStream, FileContent


class Link(Presence):
    """Implements `ports.Agent`. Made by a `Listener`, which feeds it connections."""

    async def _call(self, op: str, **fields: Any) -> dict[str, Any]:
        async with self.request(op, **fields) as channel:
            return await channel.answer()

    async def _file_call(self, op: str, **fields: Any) -> FileInfo:
        async with self.request(op, **fields) as channel:
            return decode.file_info((await channel.answer()).get("info"))

    # --- processes --------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def run(
        self, command: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: str | None = None,
        user: str = "user", timeout_s: float | None = None, stdin: bool = False,
        terminal: TerminalSize | None = None, tag: str | None = None,
    ) -> AsyncIterator[AsyncIterator[Started | Output | Exit]]:  # fmt: skip
        """See `ports.Agent.run`."""
        async with self._followed(
            "exec", argv=list(command), env=dict(env or {}), cwd=cwd, user=user,
            timeout_ms=None if timeout_s is None else max(1, round(timeout_s * 1000)), stdin=stdin,
            pty=None if terminal is None else terminal.model_dump(), tag=tag,
        ) as events:  # fmt: skip
            yield events

    @asynccontextmanager
    async def attach(
        self, pid: int, *, stdout_offset: int | None = None, stderr_offset: int | None = None
    ) -> AsyncIterator[AsyncIterator[Started | Output | Exit]]:
        """See `ports.Agent.attach`."""
        fields = {"pid": pid, "stdout_offset": stdout_offset, "stderr_offset": stderr_offset}
        async with self._followed("attach", **fields) as events:
            yield events

    @asynccontextmanager
    async def _followed(self, op: str, **fields: Any) -> AsyncIterator[AsyncIterator[Started | Output | Exit]]:
        following = Following(self, op, fields)
        try:
            await following.begin()
            yield following.events()
        except AgentViolation as violation:
            following.fail(violation)
            raise
        finally:
            following.leave()

    async def processes(self) -> list[Process]:
        """See `ports.Agent.processes`."""
        async with self.request("list") as channel:
            return [decode.process(process) for process in decode.items(await channel.answer(), "processes")]

    async def signal(self, pid: int, signal: int, *, group: bool = True) -> None:
        """See `ports.Agent.signal`."""
        await self._call("signal", pid=pid, signal=signal, group=group)

    async def resize(self, pid: int, size: TerminalSize) -> None:
        """See `ports.Agent.resize`."""
        await self._call("resize", pid=pid, cols=size.cols, rows=size.rows)

    async def write_stdin(self, pid: int, chunks: AsyncIterable[bytes] | bytes, *, eof: bool = False) -> None:
        """See `ports.Agent.write_stdin`."""
        await Feeding(self, chunks).feed(pid, eof)

    # --- files ------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def read_file(
        self, path: str, *, user: str = "user", offset: int = 0, length: int | None = None
    ) -> AsyncIterator[FileContent]:
        """See `ports.Agent.read_file`."""
        async with self.request("read", path=path, user=user, offset=offset, length=length) as channel:
            yield FileContent(decode.file_info((await channel.item()).get("info")), content(channel))

    async def write_file(
        self, path: str, chunks: AsyncIterable[bytes] | bytes, *, user: str = "user", mode: int | None = None,
        parents: bool = True, metadata: Mapping[str, str] | None = None,
    ) -> FileInfo:  # fmt: skip
        """See `ports.Agent.write_file`."""
        fields = {"path": path, "user": user, "mode": mode, "parents": parents, "metadata": dict(metadata or {})}
        async with self.request("write", **fields) as channel:
            await send_all(channel, chunks)
            return decode.file_info((await channel.answer()).get("info"))

    async def unpack(
        self, path: str, chunks: AsyncIterable[bytes] | bytes, *, source: str = ".", owner: str | None = None,
        mode: int | None = None, user: str = "user",
    ) -> int:  # fmt: skip
        """See `ports.Agent.unpack`."""
        fields = {"path": path, "source": source, "owner": owner, "mode": mode, "user": user}
        async with self.request("unpack", **fields) as channel:
            await send_all(channel, chunks)
            entries = (await channel.answer()).get("entries")
        if type(entries) is not int:
            raise AgentViolation("the agent did not say how much it has unpacked")
        return entries

    @asynccontextmanager
    async def pack(self, path: str, *, user: str = "user") -> AsyncIterator[AsyncIterator[bytes]]:
        """See `ports.Agent.pack`."""
        async with self.request("pack", path=path, user=user) as channel:
            yield content(channel)

    async def stat(self, path: str, *, user: str = "user") -> FileInfo:
        """See `ports.Agent.stat`."""
        return await self._file_call("stat", path=path, user=user)

    async def list_files(
        self, path: str, *, user: str = "user", depth: int = 1, limit: int = 100_000
    ) -> tuple[list[FileInfo], bool]:
        """See `ports.Agent.list_files`."""
        found: list[FileInfo] = []
        async with self.request("listdir", path=path, user=user, depth=depth, limit=limit) as channel:
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
        watching = Watching(self, path, {"user": user, "recursive": recursive})
        try:
            await watching.begin()
            yield watching.events()
        except AgentViolation as violation:
            watching.fail(violation)
            raise
        finally:
            watching.leave()

    # --- the rest ---------------------------------------------------------------------------------------------------

    async def dial(self, address: str | int) -> ByteStream:
        """See `ports.Agent.dial`."""
        fields = {"port": address} if isinstance(address, int) else {"path": address}
        channel = await self.begin_dialled(**fields)
        try:
            if (await channel.item()).get("connected") is not True:
                raise channel.connection.violated("the agent did not say that it is connected")
        except BaseException:
            self.leave(channel)
            raise
        return Dialled(self, channel)

    async def configure(
        self, *, env: Mapping[str, str] | None = None, hostname: str | None = None, pids: int | None = None
    ) -> None:
        """See `ports.Agent.configure`."""
        await self._call("configure", env=None if env is None else dict(env), hostname=hostname, pids=pids)

    async def mount(self, source: str, target: str, *, read_only: bool = False) -> None:
        """Let what is at `source` be seen at `target` too, which is made when it is missing; no-op when the agent has
        done so before. `read_only` is for programs that look; the host's mount is what forbids. Raises the file errors.
        """
        await self._call("mount", source=source, target=target, read_only=read_only)

    async def stats(self) -> dict[str, Any]:
        """What the agent counts inside; not to be relied on for limits or bills."""
        return await self._call("stats")

    async def ping(self) -> None:
        """See `ports.Agent.ping`."""
        await self._call("ping")

    async def stand_still(self) -> None:
        """Before the sandbox is frozen: its processes' timeouts stand still until it is asked something again."""
        await self._call("still")

    async def quiesce(self) -> None:
        """See `ports.Agent.quiesce`."""
        await self._call("quiesce")

    async def reseed(self, *, hostname: str | None = None) -> None:
        """After a restore: fresh entropy, the host's clock, a host name of its own."""
        await self._call(
            "reseed", entropy=base64.b64encode(secrets.token_bytes(64)).decode(), hostname=hostname,
            time_unix_ns=time.time_ns(),
        )  # fmt: skip
