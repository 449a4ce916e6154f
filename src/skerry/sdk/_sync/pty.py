# Generated from src/skerry/sdk/_async/pty.py by tools/async_to_sync.py: change that.

"""Terminals in a sandbox."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from skerry.errors import Error, SandboxLost
from skerry.models import Exit, Process
from skerry.sdk import wire
from skerry.sdk._sync.client import Client


class Terminal:
    """A program on a pseudo-terminal. Iterate over its output; use it as a context manager to close the connection."""

    def __init__(self, socket: ClientConnection, process: Process, stack: ExitStack) -> None:
        self._socket, self._stack = socket, stack
        self.info = process
        self.pid = process.pid
        self.exit: Exit | None = None

    def receive(self) -> bytes:
        """The next piece of output; empty when the program has ended.

        Raises:
            SandboxLost: the connection broke off.
        """
        try:
            message = self._socket.recv()
        except ConnectionClosed as error:
            if self.exit is None:
                raise SandboxLost(f"the terminal broke off: {error}") from error
            return b""
        if isinstance(message, bytes):
            return message
        event = json.loads(message)
        if "error" in event:
            raise Error.from_wire(event)
        self.exit = Exit.model_validate(event["exit"])
        return b""

    def __iter__(self) -> Iterator[bytes]:
        while data := self.receive():
            yield data

    def send(self, data: bytes | str) -> None:
        """Type something."""
        self._socket.send(data.encode() if isinstance(data, str) else data)

    def resize(self, cols: int, rows: int) -> None:
        """Change its size; the program is told."""
        self._socket.send(json.dumps({"resize": {"cols": cols, "rows": rows}}))

    def send_signal(self, signal: int) -> None:
        """Signal the program's process group."""
        self._socket.send(json.dumps({"signal": int(signal)}))

    def wait(self) -> int:
        """Wait for the program's end, throwing output away; its exit status."""
        while self.receive():
            pass
        assert self.exit is not None
        return self.exit.exit_code

    def close(self) -> None:
        """Close the connection; the program goes on."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class Pty:
    """`sandbox.pty`."""

    def __init__(self, client: Client, sandbox_id: str) -> None:
        self._client, self._sandbox_id = client, sandbox_id

    def open(
        self, cols: int = 80, rows: int = 24, command: str | Sequence[str] = ("/bin/bash", "-l"), *,
        cwd: str | None = None, env: Mapping[str, str] | None = None, user: str | None = None,
        timeout: float | None = None,
    ) -> Terminal:  # fmt: skip
        """Start a program on a new terminal.

        Raises:
            CannotStartProcess
        """
        body: dict[str, Any] = {
            "command": command if isinstance(command, str) else list(command),
            "terminal": {"cols": cols, "rows": rows},
            **wire.given(user=user, cwd=cwd, env=None if env is None else dict(env), timeout_s=timeout),
        }  # fmt: skip
        path = wire.path_of("sandboxes", self._sandbox_id, "processes")
        process = Process.model_validate_json(self._client.call("POST", path, body))
        return self._connect(process)

    def attach(self, pid: int) -> Terminal:
        """Connect again to a program on a terminal; what it wrote and is still held comes again."""
        path = wire.path_of("sandboxes", self._sandbox_id, "processes")
        for process in json.loads(self._client.call("GET", path))["items"]:
            if process["pid"] == pid:
                return self._connect(Process.model_validate(process))
        raise Error.lookup("process.not_found")(f"cannot attach to process {pid}: there is none with that pid")

    def _connect(self, process: Process) -> Terminal:
        path = wire.path_of("sandboxes", self._sandbox_id, "processes", str(process.pid), "terminal")
        url = "ws" + self._client.api_url.removeprefix("http") + path
        headers = {"Authorization": f"Bearer {self._client.api_key}"}
        stack = ExitStack()
        try:
            socket = stack.enter_context(
                connect(url, additional_headers=headers, max_size=None, compression=None, proxy=None)
            )
        except (OSError, InvalidStatus) as error:
            raise SandboxLost(f"cannot open the terminal: {error}") from error
        return Terminal(socket, process, stack)
