"""The core's public face: one object whose parts the façades call."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.abc

from skerry.core.builds import Builds
from skerry.core.commands import Commands
from skerry.core.contexts import Contexts
from skerry.core.events import Events
from skerry.core.files import Files
from skerry.core.keys import Keys
from skerry.core.lifecycle import Lifecycle
from skerry.core.processes import Processes
from skerry.core.sandboxes import Sandboxes
from skerry.core.settling import Settling
from skerry.core.snapshots import Snapshots
from skerry.core.templates import Templates
from skerry.core.uploads import Uploads
from skerry.core.volume_files import VolumeFiles
from skerry.core.volumes import Volumes
from skerry.core.watch import Watch
from skerry.models import Sandbox, SandboxSpec
from skerry.ports import ByteStream, Engine, SnapshotStore, Store

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
        snapshots: keeps what is known of snapshots.
        volumes: directories that outlive sandboxes; volume_files: what is in them.
        frozen_s, reserve_mib: see `Settling`.
    """

    def __init__(
        self, engine: Engine, store: Store, templates: Templates, builds: Builds, uploads: Uploads,
        snapshots: SnapshotStore, volumes: Volumes, volume_files: VolumeFiles, *, frozen_s: float = 60.0,
        reserve_mib: int = 1024,
    ) -> None:  # fmt: skip
        self.templates, self.builds, self.uploads = templates, builds, uploads
        self.volumes, self.volume_files = volumes, volume_files
        self.events = Events(store)
        self.keys = Keys(store)
        self.sandboxes = Sandboxes(engine, store, templates, self.events, volumes.use)
        self.lifecycle = Lifecycle(engine, self.sandboxes, snapshots)
        self.settling = Settling(engine, self.sandboxes, self.lifecycle, frozen_s=frozen_s, reserve_mib=reserve_mib)
        self.commands = Commands(engine, self.sandboxes, self.lifecycle)
        self.watch = Watch(engine, self.sandboxes, self.lifecycle, self.commands)
        self.snapshots = Snapshots(engine, snapshots, self.sandboxes, self.lifecycle, volumes.storage)
        builds.workshop.standing = self.lifecycle.standing
        self.processes = Processes(self.sandboxes)
        self.files = Files(self.sandboxes)
        self.contexts = Contexts(self.sandboxes)

    async def start(self, group: anyio.abc.TaskGroup) -> None:
        """Take over what an earlier server left, and begin to watch; background work runs in `group`."""
        await self.volumes.start()  # first: a sandbox that starts has a place for them
        self.contexts.start(group)
        await self.builds.start(group)
        self.commands.start(group)
        self.lifecycle.start(group)
        await self.sandboxes.start(await self.snapshots.states())
        self.watch.start(group)
        group.start_soon(self.settling.run, name="paused sandboxes")
        await self.commands.resume()

    async def create(
        self, tenant_id: str, spec: SandboxSpec, idempotency_key: str | None = None, *,
        internal: Mapping[str, Any] | None = None,
    ) -> Sandbox:  # fmt: skip
        """A running sandbox, from a template or a snapshot. The same idempotency key and spec again: the first one, as
        it is now.

        Args:
            internal: what a façade wants to know of it later; JSON-able, under names that begin with `facade.`.

        Raises:
            TemplateNotFound, SnapshotNotFound, InvalidRequest, IsolationUnavailable, HostFull, SandboxStartFailed,
            Conflict, SnapshotDamaged, SnapshotIncompatible
        """
        idempotency = None
        if idempotency_key is not None:
            idempotency = (idempotency_key, hashlib.sha256(spec.model_dump_json().encode()).digest())
        create = self.sandboxes.create if spec.snapshot is None else self.snapshots.start
        return await create(tenant_id, spec, internal=internal, idempotency=idempotency)

    async def stop(self, *, keep: bool = False) -> None:
        """End all sandboxes that run, unless `keep`; what rests stays."""
        if not keep:
            await self.settling.settle_all()
            await self.sandboxes.stop()

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
