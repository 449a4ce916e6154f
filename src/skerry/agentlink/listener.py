"""Where one sandbox's agent dials in: a Unix socket in a directory that only this sandbox sees."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from skerry.agentlink.connection import Connection
from skerry.agentlink.link import Link
from skerry.errors import Error, SandboxLost

MAX_STRANGERS = 8
"""Connections that have not yet shown the token; more are refused."""


class Listener:
    """One sandbox's socket and its link.

    Args:
        directory: where `link.sock` and `token` are made; readable by root only.
        token: what the agent must show.
        on_lost: called once when the agent broke the protocol or became unreachable.
    """

    def __init__(self, directory: Path, token: str, on_lost: Callable[[Error], None]) -> None:
        self._directory, self._token = directory, token
        self._server: asyncio.Server | None = None
        self._strangers: set[Connection] = set()
        self._arrived = asyncio.Event()
        self.link = Link(on_lost)

    async def start(self) -> None:
        """Write the token and listen, replacing an earlier server's socket. Raises OSError."""
        path = self._directory / "link.sock"
        with suppress(FileNotFoundError):
            path.unlink()
        token = self._directory / "token.new"
        descriptor = os.open(token, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(self._token)
        token.rename(self._directory / "token")
        self._server = await asyncio.get_running_loop().create_unix_server(self._accept, path)
        path.chmod(0o600)

    async def connected(self) -> Link:
        """Wait until an agent has shown the token."""
        await self._arrived.wait()
        return self.link

    async def aclose(self) -> None:
        """Stop listening and end the connection; nobody is told."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.link.close(SandboxLost("the sandbox has ended"))
        for stranger in list(self._strangers):
            stranger.close()
        for name in ("link.sock", "token"):
            with suppress(FileNotFoundError):
                (self._directory / name).unlink()
        await asyncio.sleep(0)  # transports give their sockets back in the loop's next turn

    def _accept(self) -> Connection:
        connection = Connection(self._token, self._on_ready, self._on_closed)
        if len(self._strangers) >= MAX_STRANGERS:
            asyncio.get_running_loop().call_soon(connection.close)
        else:
            self._strangers.add(connection)
        return connection

    def _on_ready(self, connection: Connection) -> None:
        self._strangers.discard(connection)
        self.link.use(connection)
        self._arrived.set()

    def _on_closed(self, connection: Connection, error: Error) -> None:
        if connection in self._strangers:
            self._strangers.discard(connection)  # a stranger's end, or its nonsense, is nobody's fault
        else:
            self.link.lost(connection, error)
