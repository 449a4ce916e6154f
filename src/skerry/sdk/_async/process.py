"""A process in a sandbox, and its terminal."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import AsyncIterator
from typing import Any

from skerry.errors import Error, SandboxLost
from skerry.models import Exit, Reply, TerminalSize
from skerry.models import Process as ProcessInfo
from skerry.sdk import wire
from skerry.sdk._async.client import AsyncClient


class AsyncProcess:
    """A process that runs in the background. Its output is read through `stdout`, `stderr` or `output`, by one reader
    at a time; what is not read is held in the sandbox, up to a limit."""

    def __init__(self, client: AsyncClient, sandbox_id: str, process: ProcessInfo) -> None:
        self._client, self._sandbox_id = client, sandbox_id
        self.info = process
        self.pid = process.pid
        self.exit: Exit | None = process.exit
        """How it ended, as far as known here."""
        self._offsets: dict[str, int] = {"stdout": 0, "stderr": 0}

    @property
    def returncode(self) -> int | None:
        """Its status when it is known to have ended; see `poll`."""
        return None if self.exit is None else self.exit.exit_code

    @property
    def stdout(self) -> AsyncIterator[bytes]:
        """Standard output as it comes, until the process ends."""
        return self._stream("stdout")

    @property
    def stderr(self) -> AsyncIterator[bytes]:
        """Standard error as it comes, until the process ends."""
        return self._stream("stderr")

    async def output(self) -> AsyncIterator[tuple[str, bytes]]:
        """Pairs of stream name and bytes, as they come, until the process ends.

        Raises:
            SandboxLost, SandboxNotRunning: the sandbox has ended.
        """
        query = {"stdout_offset": self._offsets["stdout"], "stderr_offset": self._offsets["stderr"]}
        async with self._client.events("GET", self._path("output", **query)) as events:
            async for event in events:
                if event["type"] == "exit":
                    self.exit = Exit.model_validate(event)
                    return
                if event["type"] in self._offsets:
                    data = b64decode(event["data"])
                    self._offsets[event["type"]] = event["offset"] + len(data)
                    yield event["type"], data
        raise SandboxLost(f"the output of process {self.pid} broke off")

    async def _stream(self, name: str) -> AsyncIterator[bytes]:
        async for stream, data in self.output():
            if stream == name:
                yield data

    async def wait(self) -> int:
        """Wait for its end; its exit status. Output is thrown away."""
        if self.exit is None:
            async for _ in self.output():
                pass
        assert self.exit is not None
        return self.exit.exit_code

    async def poll(self) -> int | None:
        """Its exit status if it has ended, without waiting."""
        if self.exit is None:
            reply = await self._client.call("GET", wire.path_of("sandboxes", self._sandbox_id, "processes"))
            for process in _ProcessList.model_validate_json(reply).items:
                if process.pid == self.pid:
                    self.exit = process.exit
        return self.returncode

    async def write_stdin(self, data: bytes | str) -> None:
        """Write to its standard input, which must have been asked for by `stdin=True`."""
        content = data.encode() if isinstance(data, str) else data
        await self._client.send("POST", self._path("stdin"), content, headers=_OCTETS)

    async def close_stdin(self) -> None:
        """End its standard input."""
        await self._client.send("POST", self._path("stdin", eof=True), b"", headers=_OCTETS)

    async def send_signal(self, signal: int, *, group: bool = True) -> None:
        """Signal its process group, or only the process. No-op when it has ended."""
        try:
            await self._client.call("POST", self._path("signal"), {"signal": int(signal), "group": group})
        except Error as error:
            if error.code != "process.not_found":
                raise

    async def terminate(self) -> None:
        """SIGTERM."""
        await self.send_signal(15)

    async def kill(self) -> None:
        """SIGKILL."""
        await self.send_signal(9)

    async def resize(self, cols: int, rows: int) -> None:
        """Change the size of its terminal."""
        size = TerminalSize(cols=cols, rows=rows)
        await self._client.call("POST", self._path("resize"), size.model_dump())

    def _path(self, *parts: str, **query: Any) -> str:
        return wire.path_of("sandboxes", self._sandbox_id, "processes", str(self.pid), *parts, **query)

    def __repr__(self) -> str:
        return f"<process {self.pid} of {self._sandbox_id}>"


class _ProcessList(Reply):
    items: list[ProcessInfo]


_OCTETS = {"Content-Type": "application/octet-stream"}
