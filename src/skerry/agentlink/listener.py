"""Where one sandbox's agent dials in: a Unix socket in a directory that only this sandbox sees."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import anyio

from skerry.agentlink.connection import Connection
from skerry.agentlink.link import Link
from skerry.errors import Error, SandboxLost

HOLD_GRACE_S = 2.0
"""How long requests under way may take to end before a hold cuts them off."""
MAX_STRANGERS = 8
"""Connections that have not yet shown the token; more are refused."""
_TURNS = 4
"""Of the loop, until a connection that was just accepted is closed again, and its socket given back."""


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
        self._closed = self._listening = False
        self._strangers: set[Connection] = set()
        self._arrived = asyncio.Event()
        self.link = Link(on_lost)

    async def start(self) -> None:
        """Write the token and listen, replacing an earlier server's socket. Raises OSError."""
        token = self._directory / "token.new"
        descriptor = os.open(token, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(self._token)
        token.rename(self._directory / "token")
        with anyio.CancelScope(shield=True):  # or nobody would close what listens already
            await self._listen()

    async def _listen(self) -> None:
        path = self._directory / "link.sock"
        with suppress(FileNotFoundError):
            path.unlink()
        self._listening = True
        self._server = await asyncio.get_running_loop().create_unix_server(self._accept, path)
        path.chmod(0o600)
        if self._closed:  # meanwhile
            await self._stop_listening()

    async def _stop_listening(self) -> None:
        self._listening = False
        if self._server is not None:
            self._server.close()
            self._server = None
        for stranger in list(self._strangers):
            stranger.close()
        with suppress(FileNotFoundError):
            (self._directory / "link.sock").unlink()
        for _ in range(_TURNS):
            await asyncio.sleep(0)

    async def connected(self) -> Link:
        """Wait until an agent has shown the token."""
        await self._arrived.wait()
        return self.link

    async def hold(self, grace_s: float = HOLD_GRACE_S) -> None:
        """Make the agent quiet, for the sandbox to be saved: when this returns it has written everything to its disk,
        nothing is connected to the host, and it cannot dial until `release`.

        Requests that begin meanwhile wait for `release`. Those under way get `grace_s` to end, which no other begins
        in; then they are cut off with SandboxHeld, but for those that follow a process or watch a directory: they go on
        after the release.

        Raises:
            SandboxLost: the sandbox has ended, or its agent is not connected.
            DeadlineExceeded: the agent does not answer. In both cases nothing is held.
        """
        self.link.hold()
        try:
            await self.link.settle(grace_s)
            await self._stop_listening()
            await self.link.part()
        except BaseException:
            with anyio.CancelScope(shield=True):
                if not self._closed and not self._listening:
                    await self._listen()
            self.link.let_go()
            raise

    async def release(self) -> None:
        """After `hold`, when the sandbox runs: wait until the agent has dialled, and let requests go on.

        Raises:
            SandboxLost: it has not, which ends the sandbox, or the sandbox has ended meanwhile.
        """
        try:
            with anyio.CancelScope(shield=True):
                if not self._closed:
                    await self._listen()
            await self.link.returned()
        finally:
            self.link.let_go()

    async def aclose(self) -> None:
        """Stop listening and end the connection; nobody is told."""
        self._closed = True
        self.link.close(SandboxLost("the sandbox has ended"))
        with suppress(FileNotFoundError):
            (self._directory / "token").unlink()
        await self._stop_listening()

    def _accept(self) -> Connection:
        connection = Connection(self._token, self._on_ready, self._on_closed)
        if not self._listening or len(self._strangers) >= MAX_STRANGERS:
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
