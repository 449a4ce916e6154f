"""The core's public face: one object whose parts the façades call."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import anyio.abc

from skerry.core.builds import Builds
from skerry.core.contexts import Contexts
from skerry.core.events import Events
from skerry.core.files import Files
from skerry.core.keys import Keys
from skerry.core.processes import Processes
from skerry.core.sandboxes import Sandboxes
from skerry.core.templates import Templates
from skerry.core.uploads import Uploads
from skerry.ports import ByteStream, Engine, Store

DEFAULT_TENANT = "default"
"""Whose everything is while there is one tenant."""


class Core:
    """Everything that can be done with sandboxes, for any façade.

    Args:
        engine: provides sandboxes.
        store: keeps what must survive.
        templates: recipes on this machine.
        builds: makes more of them.
        uploads: files that they are made from.
    """

    def __init__(self, engine: Engine, store: Store, templates: Templates, builds: Builds, uploads: Uploads) -> None:
        self.templates, self.builds, self.uploads = templates, builds, uploads
        self.events = Events(store)
        self.keys = Keys(store)
        self.sandboxes = Sandboxes(engine, store, templates, self.events)
        self.processes = Processes(self.sandboxes)
        self.files = Files(self.sandboxes)
        self.contexts = Contexts(self.sandboxes)

    async def start(self, group: anyio.abc.TaskGroup) -> None:
        """Take over what an earlier server left, and begin to watch; background work runs in `group`."""
        self.contexts.start(group)
        await self.builds.start(group)
        await self.sandboxes.start(group)

    async def stop(self, *, keep: bool = False) -> None:
        """End all sandboxes, unless `keep`."""
        await self.sandboxes.stop(keep=keep)

    @asynccontextmanager
    async def dial(self, tenant_id: str, sandbox_id: str, port: int) -> AsyncIterator[ByteStream]:
        """A connection to a port that a program in the sandbox listens on.

        Raises:
            SandboxNotFound, SandboxNotRunning, PortNotOpen
        """
        async with self.sandboxes.use(tenant_id, sandbox_id) as (_, agent):
            stream = await agent.dial(port)
            try:
                yield stream
            finally:
                await stream.aclose()
