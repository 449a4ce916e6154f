"""A sandbox that stands still, so that what it is can be kept: its files, its memory, or both as they belong together.

The agent closes its connection first, because one to the host that is open in a checkpoint makes every restore of it
fail. Then the isolation stops all that runs inside; what was written is in the files, and stays so.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.to_thread

from skerry.errors import Error, HostFull, SandboxLost, TemplateBuildFailed
from skerry.failpoints import reached
from skerry.host.trees import Allowance, UnsafeTree, copy_layer
from skerry.models import Isolation
from skerry.node.builder import Host
from skerry.node.prepare import IDENTITY_FILES
from skerry.node.states import Meta, States, write_meta
from skerry.node.unit import Unit
from skerry.ports import State

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Held:
    """`ports.Held` on this machine."""

    host: Host
    states: States
    unit: Unit

    async def save(self, state_id: str, *, memory: bool, last: bool = False) -> State:
        """See `ports.Held.save`."""
        name, driver = self.unit.name, self.host.driver(self.unit.record.isolation)
        engine = await engine_of(self.host, self.unit.record.isolation) if memory else None
        async with self._keeping(state_id, engine) as directory:
            if memory:
                await driver.checkpoint(name, directory / "checkpoint", keep_running=True)
                reached("save: memory written")
            if self.unit.ending is not None:
                raise SandboxLost("cannot keep a sandbox: it has just ended")
            await self.host.disks.export(name, directory / "disk.img", last=last)
            reached("save: disk written")
        reached("save: published")
        if last:
            self.unit.kept = state_id
        return State(state_id, memory, self.states.size_bytes(state_id))

    async def save_files(self, state_id: str) -> State:
        """Keep the files of one that has died. Raises HostFull, OSError."""
        async with self._keeping(state_id, None) as directory:
            await self.host.disks.export(self.unit.name, directory / "disk.img", last=True)
        self.unit.kept = state_id
        return State(state_id, False, self.states.size_bytes(state_id))

    @asynccontextmanager
    async def _keeping(self, state_id: str, engine: str | None) -> AsyncIterator[Path]:
        """The directory of a state that is being written; nothing is kept when the block fails."""
        record = self.unit.record
        meta = Meta(record.image, record.limits.disk_mib, record.runtime, engine, dict(record.warm))
        self.host.images.keep(state_id, record.image)
        try:
            async with self.states.writing(state_id) as directory:
                yield directory
                await anyio.to_thread.run_sync(write_meta, directory, meta)
        except BaseException as error:
            self.host.images.let_go(state_id)
            if isinstance(error, OSError):
                raise HostFull(f"cannot keep a sandbox: {error.strerror or error}") from error
            raise

    async def commit(self) -> str:
        """See `ports.Held.commit`."""
        return await commit(self.host, self.unit)


async def commit(host: Host, unit: Unit) -> str:
    """Keep as a layer what a sandbox in which nothing runs has changed; returns its digest.

    Raises:
        TemplateBuildFailed: it holds what no image may hold.
    """
    images, upper = host.images, host.disks.upper(unit.name)
    async with images.staging() as staging:
        try:
            await anyio.to_thread.run_sync(copy_layer, upper, staging / "layer", Allowance(), IDENTITY_FILES)
        except UnsafeTree as error:
            raise TemplateBuildFailed(str(error), log=[]) from error
        return await anyio.to_thread.run_sync(images.layers.adopt, staging / "layer")


async def engine_of(host: Host, isolation: Isolation) -> str:
    """What a restore of a sandbox's memory depends on."""
    driver = host.driver(isolation)
    return f"{await driver.version()} {driver.traits()}"


@asynccontextmanager
async def hold(host: Host, states: States, unit: Unit) -> AsyncIterator[Held]:
    """Let it stand still for the block; then it goes on, unless it was ended. Raises SandboxLost."""
    driver = host.driver(unit.record.isolation)
    assert unit.listener is not None
    await unit.listener.hold()
    reached("hold: quiet")
    try:
        unit.record.held = True
        host.records.write(unit.record)
        await driver.pause(unit.name)
        reached("hold: standing")
        yield Held(host, states, unit)
    finally:
        if unit.ending is None:
            with anyio.CancelScope(shield=True):
                try:
                    await driver.resume(unit.name)
                    reached("hold: going on")
                    unit.record.held = False
                    host.records.write(unit.record)
                    await unit.listener.release()
                except (Error, OSError) as error:
                    # Nobody could use it, and it must not stay so: its connection's watch ends it.
                    logger.warning("sandbox %s does not go on: %s", unit.sandbox_id, error)
                    host.cgroups.kill(unit.name)
