"""Sandboxes that steps of a build run in: what one has changed in its image becomes a layer.

A step never runs on the host. Its sandbox is an ordinary one, with limits and network policy, that no caller can see;
it is ended before anything of its disk is looked at, and a server's restart removes it as it removes every orphan.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import anyio

from skerry.models import Isolation, Limits, Template
from skerry.node.builder import Builder, Host, Order
from skerry.node.gate import BootGate
from skerry.node.hold import commit
from skerry.node.unit import Unit
from skerry.ports import Agent


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


@asynccontextmanager
async def workbench(host: Host, builder: Builder, gate: BootGate, image: str, limits: Limits) -> AsyncIterator[Bench]:
    """A sandbox on an image, removed on leaving. Raises as `Builder.start` does."""
    template = Template(
        name="build", image=image, limits=limits, languages=[], size_mib=0.0, built_at=datetime.now(UTC)
    )
    async with gate.enter(background=True):
        unit = await builder.start(
            Order(template, Isolation.GVISOR, limits, origin="build"), lambda _unit, _error: None
        )
    try:
        await unit.require_link().configure(pids=limits.pids)
        yield Bench(host, builder, unit)
    finally:
        with anyio.CancelScope(shield=True):
            await builder.remove(unit)
