# Generated from src/skerry/sdk/_async/process.py by tools/async_to_sync.py: change that.

"""A process in a sandbox, and its terminal."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterator
from typing import Any

from skerry.errors import Error, SandboxLost
from skerry.models import Exit, Reply, TerminalSize
from skerry.models import Process as ProcessInfo
from skerry.sdk import wire
from skerry.sdk._sync.client import Client


class Process:
    """A process that runs in the background. Its output is read through `stdout`, `stderr` or `output`, by one reader
    at a time; what is not read is held in the sandbox, up to a limit."""

    def __init__(self, client: Client, sandbox_id: str, process: ProcessInfo) -> None:
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
    def stdout(self) -> Iterator[bytes]:
        """Standard output as it comes, until the process ends."""
        return self._stream("stdout")

    @property
    def stderr(self) -> Iterator[bytes]:
        """Standard error as it comes, until the process ends."""
        return self._stream("stderr")

    def output(self) -> Iterator[tuple[str, bytes]]:
        """Pairs of stream name and bytes, as they come, until the process ends.

        Raises:
            SandboxLost, SandboxNotRunning: the sandbox has ended.
        """
        query = {"stdout_offset": self._offsets["stdout"], "stderr_offset": self._offsets["stderr"]}
        with self._client.events("GET", self._path("output", **query)) as events:
            for event in events:
                if event["type"] == "exit":
                    self.exit = Exit.model_validate(event)
                    return
                if event["type"] in self._offsets:
                    data = b64decode(event["data"])
                    self._offsets[event["type"]] = event["offset"] + len(data)
                    yield event["type"], data
        raise SandboxLost(f"the output of process {self.pid} broke off")

    def _stream(self, name: str) -> Iterator[bytes]:
        for stream, data in self.output():
            if stream == name:
                yield data

    def wait(self) -> int:
        """Wait for its end; its exit status. Output is thrown away."""
        if self.exit is None:
            for _ in self.output():
                pass
        assert self.exit is not None
        return self.exit.exit_code

    def poll(self) -> int | None:
        """Its exit status if it has ended, without waiting."""
        if self.exit is None:
            reply = self._client.call("GET", wire.path_of("sandboxes", self._sandbox_id, "processes"))
            for process in _ProcessList.model_validate_json(reply).items:
                if process.pid == self.pid:
                    self.exit = process.exit
        return self.returncode

    def write_stdin(self, data: bytes | str) -> None:
        """Write to its standard input, which must have been asked for by `stdin=True`."""
        content = data.encode() if isinstance(data, str) else data
        self._client.send("POST", self._path("stdin"), content, headers=_OCTETS)

    def close_stdin(self) -> None:
        """End its standard input."""
        self._client.send("POST", self._path("stdin", eof=True), b"", headers=_OCTETS)

    def send_signal(self, signal: int, *, group: bool = True) -> None:
        """Signal its process group, or only the process. No-op when it has ended."""
        try:
            self._client.call("POST", self._path("signal"), {"signal": int(signal), "group": group})
        except Error as error:
            if error.code != "process.not_found":
                raise

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(15)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(9)

    def resize(self, cols: int, rows: int) -> None:
        """Change the size of its terminal."""
        size = TerminalSize(cols=cols, rows=rows)
        self._client.call("POST", self._path("resize"), size.model_dump())

    def _path(self, *parts: str, **query: Any) -> str:
        return wire.path_of("sandboxes", self._sandbox_id, "processes", str(self.pid), *parts, **query)

    def __repr__(self) -> str:
        return f"<process {self.pid} of {self._sandbox_id}>"


class _ProcessList(Reply):
    items: list[ProcessInfo]


_OCTETS = {"Content-Type": "application/octet-stream"}
