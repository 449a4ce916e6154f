"""After the death of a server: take over the sandboxes that live and are wanted, remove all the rest of what it had."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress

import anyio
import anyio.to_thread

from skerry.errors import Error, SandboxLost
from skerry.node.builder import Builder, Host
from skerry.node.records import Record, lives
from skerry.node.unit import Unit
from skerry.ports import Wanted

logger = logging.getLogger(__name__)

REDIAL_TIMEOUT_S = 15.0
"""An agent dials again at most 2 s apart; more is for a machine that has much to do after a restart."""


class Recovery:
    """Reads what an earlier server of the same data directory left on this machine."""

    def __init__(self, host: Host, builder: Builder) -> None:
        self._host = host
        self._builder = builder

    async def recover(
        self, wanted: Mapping[str, Wanted], known: set[str], on_lost: Callable[[Unit, Error], None]
    ) -> list[Unit]:
        """Adopt and clean.

        Args:
            wanted: sandboxes to take over if they live; of several starts of one, the one wanted.
            known: names of this server's own sandboxes, to be left alone.
            on_lost: as in `Builder.start`, for the adopted.

        Returns:
            The adopted: their agents have dialled again.
        """
        adopted: list[Unit] = []

        async def adopt(record: Record, frozen: bool) -> None:
            unit = await self._adopt(record, frozen, on_lost)
            if unit is not None:
                adopted.append(unit)

        async with anyio.create_task_group() as group:
            for record in list(self._host.records.all()):
                want = wanted.get(record.sandbox_id or "")
                if record.name in known or want is None or want.incarnation != record.incarnation:
                    continue
                if lives(record):
                    group.start_soon(adopt, record, want.frozen)
        await self._clean(known | {unit.name for unit in adopted})
        return adopted

    async def _adopt(
        self, record: Record, frozen: bool, on_lost: Callable[[Unit, Error], None]
    ) -> Unit | None:  # fmt: skip
        """None when its agent does not dial again: it is removed then, like all that is not adopted. A frozen one stays
        so, and its agent dials when it is thawed. One that an earlier server held goes on."""
        host = self._host
        unit = Unit(record)
        try:
            if record.network_index is not None:
                unit.slot = await host.network.adopt(record.network_index)
            unit.listener = host.listener(
                host.records.link_directory(record.name), secrets.token_hex(32), lambda error: on_lost(unit, error)
            )
            await unit.listener.start()
            await host.disks.adopt(record.name)
            if frozen:
                host.cgroups.freeze(record.name)
                unit.link = unit.listener.link
                unit.link.suspend()
                return unit
            host.cgroups.thaw(record.name)
            if record.held:
                with suppress(SandboxLost):  # it was not stopped yet
                    await host.driver(record.isolation).resume(record.name)
                record.held = False
                host.records.write(record)
            with anyio.fail_after(REDIAL_TIMEOUT_S):
                unit.link = await unit.listener.connected()
        except (Error, OSError, TimeoutError) as error:
            logger.warning("sandbox %s lives but cannot be taken over: %s", record.sandbox_id, error)
            await self._builder.remove(unit)
            return None
        return unit

    async def _clean(self, keep: set[str]) -> None:
        """Remove everything that has no place in `keep`: whole sandboxes first, then parts without a record."""
        for name in self._host.records.names():
            if name not in keep:
                await self._remove(name)
        for name in {*self._host.cgroups.names(), *self._host.disks.names(), *self._host.volumes.units()} - keep:
            await self._remove_parts(name)

    async def _remove(self, name: str) -> None:
        record = self._host.records.read(name)
        if record is None or record.isolation not in self._host.drivers:
            await self._remove_parts(name)
            self._host.records.remove(name)
            return
        unit = Unit(record)
        if record.network_index is not None:
            with suppress(Error, OSError):
                unit.slot = await self._host.network.adopt(record.network_index)
        await self._builder.remove(unit)

    async def _remove_parts(self, name: str) -> None:
        try:
            with suppress(FileNotFoundError):
                self._host.cgroups.kill(name)
            for driver in self._host.drivers.values():
                await driver.destroy(name)
            await self._host.volumes.detach(name)
            await self._host.disks.remove(name)
            await anyio.to_thread.run_sync(self._host.cgroups.remove, name)
        except Exception:
            logger.exception("cannot remove what is left of %s", name)
