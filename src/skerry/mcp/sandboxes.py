"""Which sandbox a call means, and the end of all that were made here."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio

from skerry import AsyncSandbox
from skerry.errors import Error, InvalidRequest, SandboxLost, SandboxNotFound, SandboxNotRunning
from skerry.models import Sandbox as SandboxInfo

_LABEL = "skerry-mcp"
_KILL_ALL_S = 20.0
"""How long the end may take; what is left then goes by its idle timeout."""


@dataclass(frozen=True)
class Offer:
    """What the sandboxes are like, and of which server.

    Attributes:
        template: of sandboxes that are made without naming one.
        idle_timeout: seconds without use until a sandbox is destroyed.
        internet: whether sandboxes may reach the internet; if not, no call can change that.
        server: `api_url` and `api_key` as for `AsyncSandbox.create`; empty: as the environment says.
    """

    template: str = "base"
    idle_timeout: float = 3600.0
    internet: bool = True
    server: Mapping[str, Any] = field(default_factory=dict)


class Sandboxes:
    """The sandboxes of one run of this server.

    Args:
        offer: what they are like.
        implicit: whether a call that names no sandbox means one that is made for it at the first such call. Only where
            one client is served: over HTTP, calls of different clients cannot be told apart.
    """

    def __init__(self, offer: Offer, *, implicit: bool) -> None:
        self.offer = offer
        self.implicit = implicit
        self._labels = {_LABEL: uuid.uuid4().hex}
        self._own: AsyncSandbox | None = None
        self._making = anyio.Lock()

    async def create(self, template: str | None = None, *, internet: bool = True, **options: Any) -> AsyncSandbox:
        """A new sandbox; options as for `AsyncSandbox.create`."""
        return await AsyncSandbox.create(
            template or self.offer.template, internet=internet and self.offer.internet,
            idle_timeout=self.offer.idle_timeout, metadata=self._labels, **{"timeout": None, **options},
            **self.offer.server,
        )  # fmt: skip

    @asynccontextmanager
    async def use(self, sandbox_id: str | None) -> AsyncIterator[AsyncSandbox]:
        """The sandbox of that id, or the implicit one.

        Raises:
            InvalidRequest: none is named, and there is no implicit one.
            SandboxNotFound, SandboxNotRunning, SandboxLost: also out of the body; an implicit sandbox that has ended is
                forgotten, and the message says so.
        """
        if sandbox_id is not None:
            yield await AsyncSandbox.connect(sandbox_id, **self.offer.server)
            return
        sandbox = await self._implicit()
        try:
            yield sandbox
        except (SandboxNotFound, SandboxNotRunning, SandboxLost) as error:
            if self._own is sandbox:
                self._own = None
            error.message += "; what was in it is lost, and the next call without sandbox_id makes a new one"
            raise

    async def _implicit(self) -> AsyncSandbox:
        if not self.implicit:
            raise InvalidRequest(
                "cannot tell which sandbox is meant: call create_sandbox first and pass its sandbox_id"
            )
        async with self._making:
            if self._own is None:
                self._own = await self.create()
            return self._own

    async def kill(self, sandbox_id: str | None) -> str | None:
        """End the sandbox of that id, or the implicit one; its id, or None when there is no implicit one.

        Raises:
            SandboxNotFound
        """
        if sandbox_id is not None:
            sandbox = await AsyncSandbox.connect(sandbox_id, **self.offer.server)
        elif self._own is not None:
            sandbox = self._own
        else:
            return None
        if self._own is not None and self._own.id == sandbox.id:
            self._own = None
        await sandbox.kill()
        return sandbox.id

    async def list(self) -> list[SandboxInfo]:
        """Those that were made here and have not ended, newest first."""
        return [item async for item in AsyncSandbox.list(metadata=self._labels, **self.offer.server)]

    async def kill_all(self) -> None:
        """End all that were made here, also when the caller is cancelled."""
        with anyio.move_on_after(_KILL_ALL_S, shield=True):
            try:
                left = await self.list()
                async with anyio.create_task_group() as tasks:
                    for item in left:
                        tasks.start_soon(self._end, item.id)
            except Error:  # the server is gone, and with it the way to end them
                return

    async def _end(self, sandbox_id: str) -> None:
        try:
            await (await AsyncSandbox.connect(sandbox_id, **self.offer.server)).kill()
        except Error:  # it has ended meanwhile, or its idle timeout ends it
            return
