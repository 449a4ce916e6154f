"""Sandboxes that steps of a build run in: what one has changed in its image becomes a layer.

A step never runs on the host. Its sandbox is an ordinary one, with limits and network policy, that no caller can see;
it is ended before anything of its disk is looked at, and a server's restart removes it as it removes every orphan.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import anyio
import anyio.to_thread

from skerry.errors import SandboxLost, TemplateBuildFailed
from skerry.models import EndCode, Isolation, Limits, Template
from skerry.node.builder import EXIT_TIMEOUT_S, Builder, Host, Order
from skerry.node.gate import BootGate
from skerry.node.hold import commit
from skerry.node.supervisor import Supervisor
from skerry.node.unit import Unit
from skerry.ports import Agent

_LITTLE = 1024 * 1024
"""A disk with fewer bytes left is full."""


class Bench:
    """One such sandbox."""

    def __init__(self, host: Host, builder: Builder, unit: Unit) -> None:
        self._host, self._builder, self._unit = host, builder, unit

    @property
    def agent(self) -> Agent:
        return self._unit.require_link()

    async def commit(self) -> str:
        """End the sandbox and keep what it has changed as a layer; returns its digest.

        Raises:
            TemplateBuildFailed: it holds what no image may hold.
        """
        await self._unit.require_link().quiesce()
        await self._builder.kill(self._unit)
        return await commit(self._host, self._unit)


@dataclass(frozen=True)
class Workbenches:
    """Makes them, and watches them as other sandboxes are: one that ends by itself ends its step, with the reason."""

    host: Host
    builder: Builder
    gate: BootGate
    supervisor: Supervisor
    units: set[Unit] = field(default_factory=set)
    """Those there are now."""

    def look(self) -> None:
        """To be called from time to time: end those that the kernel has taken memory from."""
        for unit in list(self.units):
            with suppress(OSError):
                if self.host.cgroups.usage(unit.name).oom_kills > 0:
                    self.supervisor.out_of_memory(unit)

    @asynccontextmanager
    async def open(self, image: str, limits: Limits) -> AsyncIterator[Bench]:
        """A sandbox on an image, removed on leaving. Raises as `Builder.start` does; TemplateBuildFailed when it ended,
        or its disk is full."""
        template = Template(
            name="build", image=image, limits=limits, languages=[], size_mib=0.0, built_at=datetime.now(UTC)
        )
        async with self.gate.enter(background=True):
            order = Order(template, Isolation.GVISOR, limits, origin="build")
            unit = await self.builder.start(order, self.supervisor.agent_lost)
        ended = anyio.Event()

        async def end(_: Unit) -> None:
            ended.set()

        self.supervisor.watch(unit, end)
        self.units.add(unit)
        try:
            await unit.require_link().configure(pids=limits.pids)
            yield Bench(self.host, self.builder, unit)
        except SandboxLost as error:
            with anyio.move_on_after(EXIT_TIMEOUT_S):
                await ended.wait()
            raise TemplateBuildFailed(_why(unit, error), log=[]) from error
        except TemplateBuildFailed as error:
            if await anyio.to_thread.run_sync(_is_full, self.host.disks.upper(unit.name)):
                full = f"{error.message}; its disk is full: a step may write {limits.disk_mib} MiB"
                raise TemplateBuildFailed(full, log=[]) from error
            raise
        finally:
            self.units.discard(unit)
            self.supervisor.release(unit, EndCode.KILLED)
            with anyio.CancelScope(shield=True):
                await self.builder.remove(unit)


def _why(unit: Unit, error: SandboxLost) -> str:
    """Why the sandbox of a step has ended."""
    if unit.ending is EndCode.OUT_OF_MEMORY:
        return f"out of memory: the step needed more than its {unit.record.limits.memory_mib} MiB"
    return f"the step's sandbox ended: {unit.ending_message or error.message}"


def _is_full(directory: Path) -> bool:
    try:
        room = os.statvfs(directory)
    except OSError:
        return False
    return room.f_bavail * room.f_frsize < _LITTLE or room.f_favail == 0
