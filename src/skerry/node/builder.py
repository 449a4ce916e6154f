"""Putting one sandbox together and taking it apart again. Either is whole or nothing is left."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from skerry.drivers.launch import wait_for_exit
from skerry.errors import Error, IsolationUnavailable, SandboxStartFailed
from skerry.models import Isolation, Limits, MountedVolume, Template
from skerry.node import prepare, reaper
from skerry.node.machine import ControlGroups, Disks, Drivers, Images, ListenerFactory, Network, Volumes
from skerry.node.parallel import race, together
from skerry.node.records import Record, Records, lives, new_name, start_time
from skerry.node.unit import Unit
from skerry.node.volumes import attach
from skerry.ports import Boot, Driver

logger = logging.getLogger(__name__)

START_TIMEOUT_S = 60.0
"""From the start of the runtime to the agent's first word. Generous: a loaded machine is slow but not broken."""
EXIT_TIMEOUT_S = 10.0
"""How long a killed process may take to go away."""


@dataclass(frozen=True, slots=True)
class Host:
    """The machine's parts that sandboxes are made of."""

    drivers: Drivers
    cgroups: ControlGroups
    disks: Disks
    volumes: Volumes
    network: Network
    images: Images
    listener: ListenerFactory
    records: Records
    runtime_directory: Path

    def driver(self, isolation: Isolation) -> Driver:
        """Raises IsolationUnavailable: there is no fallback to another one."""
        try:
            return self.drivers[isolation]
        except KeyError:
            available = ", ".join(self.drivers) or "none"
            raise IsolationUnavailable(
                f"cannot isolate by {isolation}: this server has {available}", available=list(self.drivers)
            ) from None


@dataclass(frozen=True, slots=True)
class Source:
    """What a sandbox starts from other than its image alone: a disk, and mostly the memory that belongs to it."""

    disk: Path
    checkpoint: Path | None
    """None: it boots."""
    interpreters: Mapping[str, int]
    """Language → pid inside, of those that came with it."""
    runtime_directory: Path | None = None
    """Whose programs its memory holds; None: this server's."""
    is_copy: bool = True
    """Others may start from it, so nothing random may repeat; False: it is the same sandbox that goes on."""


@dataclass(frozen=True, slots=True)
class Order:
    """What to start."""

    template: Template
    isolation: Isolation
    limits: Limits
    source: Source | None = None
    sandbox_id: str | None = None
    origin: str = "cold"
    incarnation: int = 0
    internet: bool = True
    volumes: Sequence[MountedVolume] = ()
    """Mounted for it before it starts: its memory knows them, or it has been stopped with them."""

    @property
    def hostname(self) -> str:
        return self.sandbox_id or "sandbox"

    @property
    def checkpoint(self) -> Path | None:
        """The memory that it goes on from; None: it boots."""
        return self.source.checkpoint if self.source is not None else None


class Builder:
    """Starts and removes units on one host."""

    def __init__(self, host: Host) -> None:
        self._host = host

    async def start(self, order: Order, on_lost: Callable[[Unit, Error], None]) -> Unit:
        """Start a sandbox and wait until its agent answers.

        Args:
            on_lost: called when the connection with the agent is lost for good, with the reason.

        Raises:
            SandboxStartFailed, HostFull, IsolationUnavailable: nothing is left behind.
        """
        driver = self._host.driver(order.isolation)
        runtime = (order.source and order.source.runtime_directory) or self._host.runtime_directory
        unit = Unit(
            Record(
                new_name(), order.isolation, order.template.key, order.template.image, order.limits,
                sandbox_id=order.sandbox_id, origin=order.origin, incarnation=order.incarnation,
                runtime=runtime.name,
            )
        )  # fmt: skip
        self._host.records.write(unit.record)
        try:
            await self._make_parts(unit, order, on_lost)
            await self._launch(unit, order, driver)
        except BaseException as error:
            with anyio.CancelScope(shield=True):
                await self.remove(unit)
            if isinstance(error, OSError):
                raise SandboxStartFailed(f"cannot start a sandbox: {error}") from error
            raise
        return unit

    async def _make_parts(self, unit: Unit, order: Order, on_lost: Callable[[Unit, Error], None]) -> None:
        """Everything that the runtime needs to find, made side by side."""
        host = self._host

        async def slot() -> None:
            unit.slot = await host.network.acquire()
            unit.record.network_index = unit.slot.index
            host.records.write(unit.record)
            if not order.internet:  # before anything can run: memory may hold programs that wait for just that
                await host.network.set_internet(unit.slot, False)
                unit.record.internet = False

        async def disk() -> None:
            unit.rootfs = await host.disks.create(
                unit.name,
                layers=host.images.trees(order.template.image),
                size_mib=order.limits.disk_mib,
                source=order.source.disk if order.source else None,
            )
            if order.checkpoint is None:
                await anyio.to_thread.run_sync(
                    lambda: prepare.write_identity(
                        unit.rootfs or Path(), hostname="sandbox", resolv_conf=host.network.resolv_conf
                    )
                )

        host.cgroups.create(unit.name, order.limits)
        unit.listener = host.listener(
            host.records.link_directory(unit.name), secrets.token_hex(32), lambda error: on_lost(unit, error)
        )
        await unit.listener.start()
        await together(slot, disk)

    async def _launch(self, unit: Unit, order: Order, driver: Driver) -> None:
        assert unit.slot is not None
        assert unit.rootfs is not None
        assert unit.listener is not None
        boot = Boot(
            sandbox_id=unit.name,
            rootfs=unit.rootfs,
            network_namespace=unit.slot.namespace,
            cgroup=unit.name,
            link_directory=self._host.records.link_directory(unit.name),
            volumes_directory=self._host.volumes.directory(unit.name),
            runtime_directory=self._host.runtime_directory.parent / unit.record.runtime,
            limits=order.limits,
            hostname=order.hostname,
        )
        await attach(self._host.volumes, unit, order.volumes)
        if order.checkpoint is None:
            pid = await driver.boot(boot)
        else:
            assert order.source is not None
            pid = await driver.restore(boot, order.checkpoint)
            unit.record.warm = dict(order.source.interpreters)
        unit.record.pid, unit.record.started = pid, start_time(pid)
        self._host.records.write(unit.record)
        await self._greet(unit, pid)
        if order.checkpoint is not None:
            await unit.require_link().reseed(hostname=order.hostname)

    async def _greet(self, unit: Unit, pid: int) -> None:
        """Wait for the agent, or for the end of the sandbox."""
        assert unit.listener is not None
        listener = unit.listener

        async def agent() -> None:
            unit.link = await listener.connected()

        try:
            with anyio.fail_after(START_TIMEOUT_S):
                await race(agent, lambda: wait_for_exit(pid))
        except TimeoutError:
            raise SandboxStartFailed(
                f"cannot start a sandbox: its agent said nothing for {START_TIMEOUT_S:.0f} s"
            ) from None
        if unit.link is None:
            raise SandboxStartFailed("cannot start a sandbox: it ended before its agent answered")

    async def remove(self, unit: Unit) -> None:
        """End it and remove everything it had. Goes on after a step that fails, keeps the record then (so that a later
        server tries again), and raises nothing."""
        host, name = self._host, unit.name
        steps: list[tuple[str, Callable[[], Awaitable[Any]]]] = [
            ("kill", lambda: self.kill(unit)),
            ("driver", lambda: host.driver(unit.record.isolation).destroy(name)),
            ("link", lambda: _close(unit)),
            ("volumes", lambda: host.volumes.detach(name)),
            ("disk", lambda: host.disks.remove(name)),
            ("network", lambda: self._release(unit)),
            ("cgroup", lambda: anyio.to_thread.run_sync(host.cgroups.remove, name)),
        ]
        clean = True
        for step, action in steps:
            try:
                await action()
            except Exception:
                clean = False
                logger.exception("cannot remove all of sandbox %s: step %r failed", unit.sandbox_id or name, step)
        if clean:
            host.records.remove(name)
        unit.removed.set()

    async def kill(self, unit: Unit) -> None:
        """Kill all of it and wait until all of it has ended."""
        pids = [unit.record.pid] if unit.record.pid is not None and lives(unit.record) else []
        with suppress(FileNotFoundError):
            pids += self._host.cgroups.pids(unit.name)
            self._host.cgroups.kill(unit.name)
        with anyio.move_on_after(EXIT_TIMEOUT_S):
            for pid in pids:
                await wait_for_exit(pid)
        reaper.reap()

    async def _release(self, unit: Unit) -> None:
        if unit.slot is not None:
            slot, unit.slot = unit.slot, None
            await self._host.network.release(slot)


async def _close(unit: Unit) -> None:
    if unit.listener is not None:
        await unit.listener.aclose()
        unit.listener = None
