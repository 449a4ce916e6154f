"""The engine on this machine: claims from warm pools, cold starts, ends, deaths.

Theory of operation. A sandbox is a `Unit`. `Builder` puts one together and takes it apart; `Supervisor` watches it;
`Refill` keeps each template's `Pool` of frozen, unclaimed units full; `Recovery` deals with what a dead server left.
The node itself decides which unit a caller gets, and what follows from its end. All tasks live in one group that ends
with the node.
"""

from __future__ import annotations

import logging
import os
import secrets
import time
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import anyio
import anyio.abc

from skerry.errors import (
    CannotMount,
    Error,
    HostFull,
    SandboxLost,
    SandboxStartFailed,
    ServerStopping,
    SnapshotIncompatible,
)
from skerry.models import End, EndCode, Isolation, Limits, SandboxStats, Template, UsageSample
from skerry.node import interpreters, reaper, startup, volumes
from skerry.node.builder import Builder, Host, Order, Source
from skerry.node.gate import BootGate
from skerry.node.hold import Held, engine_of, hold
from skerry.node.load import BUSY_SHARE, Load
from skerry.node.machine import Usage
from skerry.node.pool import Pool, PoolSettings
from skerry.node.recovery import Recovery
from skerry.node.refill import Refill
from skerry.node.room import available_mib, check_room
from skerry.node.states import States
from skerry.node.supervisor import Supervisor
from skerry.node.unit import Unit
from skerry.node.warm import WarmImages
from skerry.node.workbench import Bench, Workbenches
from skerry.ports import Agent, Death, Placement, Provided, State, Wanted

logger = logging.getLogger(__name__)

_MIB = 1024 * 1024
_HOUSEKEEPING_S = 2.0
_STILL_S = 1.0
"""How long an agent may take to let timeouts stand still."""
_CORES = os.cpu_count() or 1


class Node:
    """`ports.Engine` on this machine. Use it as an async context manager: leaving it ends every sandbox, unless `keep`.

    Args:
        host: the machine's parts.
        states: what is kept of sandboxes.
        pools: size of the pools.
        warm_directory: where warm images are kept; None: boot every sandbox from its image.
    """

    def __init__(
        self, host: Host, states: States, *, pools: PoolSettings | None = None, warm_directory: Path | None = None
    ) -> None:
        self._host = host
        self._states = states
        self._pool_settings = pools or PoolSettings()
        self._builder = Builder(host)
        self._gate = BootGate(_CORES, _CORES)
        self._warm = WarmImages(warm_directory, host, self._builder, self._gate) if warm_directory is not None else None
        self._units: dict[str, Unit] = {}
        self._pools: dict[tuple[str, Isolation], Pool] = {}
        self._deaths_in, self._deaths_out = anyio.create_memory_object_stream[Death](float("inf"))
        self._stack = AsyncExitStack()
        self._refills: dict[tuple[str, Isolation], anyio.CancelScope] = {}
        self._leaving: set[Unit] = set()
        self._recovery = Recovery(host, self._builder)
        self._stopping = False
        self._load = Load()
        self.keep = False
        """On leaving, leave claimed sandboxes running for the next server to adopt."""

    # --- life of the node -------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        reaper.adopt_orphans()
        await self._host.network.start()
        self._group = await self._stack.enter_async_context(anyio.create_task_group())
        self._supervisor = Supervisor(self._group, self._host.cgroups, self._died)
        self._benches = Workbenches(self._host, self._builder, self._gate, self._supervisor)
        self._refill = Refill(
            self._group, self._gate, self._prepare_pool, self._start_idle,
            lambda unit: self._end(unit, EndCode.KILLED),
        )  # fmt: skip
        self._group.start_soon(self._keep_house)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopping = True
        for scope in self._refills.values():
            scope.cancel()
        with anyio.CancelScope(shield=True):
            for pool in self._pools.values():
                for unit in pool.drain():
                    self._end(unit, EndCode.SERVER_STOPPED)
            for unit in list(self._units.values()):
                if self.keep:
                    await self._leave(unit)
                else:
                    self._end(unit, EndCode.SERVER_STOPPED)
            self._units.clear()
            while self._leaving:
                await next(iter(self._leaving)).removed.wait()
        # What is still starting is undone by its own task, which the group waits for.
        self._group.cancel_scope.cancel()
        await self._stack.__aexit__(None, None, None)
        with anyio.CancelScope(shield=True):
            await self._host.network.stop(keep=self.keep)
        self._deaths_in.close()
        self._deaths_out.close()
        reaper.reap()

    async def check(self) -> None:
        """Raises IsolationUnavailable when one of the isolations cannot be given here."""
        for driver in self._host.drivers.values():
            await driver.check()

    def keep_ready(self, template: Template, isolation: Isolation = Isolation.GVISOR) -> None:
        """Begin to keep a pool of this template, as it is now. A pool of an older version is given up.

        Claims do this by themselves; a server calls it at its start so that the first claim finds a sandbox ready.
        """
        self._pool(template, isolation).pinned = True

    async def ready(self, template: Template, count: int = 1, isolation: Isolation = Isolation.GVISOR) -> None:
        """Wait until `count` sandboxes of the template are ready to be claimed (at most the pool's minimum)."""
        pool = self._pool(template, isolation)
        while len(pool) < min(count, pool.settings.minimum):
            await pool.changed.wait()

    def pool_sizes(self) -> dict[str, int]:
        """Template → sandboxes ready to be claimed."""
        return {name: len(pool) for (name, _), pool in self._pools.items()}

    # --- ports.Engine -----------------------------------------------------------------------------------------------

    async def provide(self, placement: Placement) -> Provided:
        """See `ports.Engine.provide`."""
        if self._stopping:
            raise ServerStopping("cannot provide a sandbox: the server is stopping")
        self._host.driver(placement.isolation)
        if placement.state is not None:
            return _provided(await self._start_from(placement, placement.state))
        pool = self._pool(placement.template, placement.isolation)
        unit = await self._claim(pool, placement)
        if unit is None:
            async with self._gate.enter():
                # The pool may have been refilled while this request waited for its turn to boot.
                unit = await self._claim(pool, placement)
                cold = None if unit is not None else await self._boot_cold(placement)
            if cold is not None:
                unit = await self._ready_cold(cold, placement)
        assert unit is not None
        return _provided(unit)

    async def adopt(self, wanted: Mapping[str, Wanted], states: Collection[str]) -> Sequence[Provided]:
        """See `ports.Engine.adopt`."""
        known = {unit.name for unit in self._all_units()}
        units = await self._recovery.recover(wanted, known, self._supervisor.agent_lost)
        for state_id in await self._states.collect(states):
            self._host.images.let_go(state_id)
        for unit in units:
            assert unit.sandbox_id is not None
            unit.idle = True  # perhaps: its next caller sees to it
            self._units[unit.sandbox_id] = unit
            self._supervisor.watch(unit)
        return [_provided(unit) for unit in units]

    def agent(self, sandbox_id: str) -> Agent:
        """See `ports.Engine.agent`."""
        unit = self._unit(sandbox_id)
        self._set_idle(unit, False)
        return unit.require_link()

    # --- what stands still ------------------------------------------------------------------------------------------

    async def freeze(self, sandbox_id: str) -> None:
        """See `ports.Engine.freeze`."""
        unit = self._unit(sandbox_id)
        with anyio.move_on_after(_STILL_S), suppress(Error):  # else timeouts are wrong by a second at most
            await unit.require_link().stand_still()
        unit.require_link().suspend()
        self._host.cgroups.freeze(unit.name)

    async def thaw(self, sandbox_id: str) -> None:
        """See `ports.Engine.thaw`."""
        unit = self._unit(sandbox_id)
        self._host.cgroups.thaw(unit.name)
        unit.require_link().resume()

    @asynccontextmanager
    async def hold(self, sandbox_id: str) -> AsyncIterator[Held]:
        """See `ports.Engine.hold`."""
        async with hold(self._host, self._states, self._unit(sandbox_id)) as held:
            yield held

    async def seal(self, state: State) -> State:
        """See `ports.Engine.seal`."""
        if state.seal is not None:
            return state
        await self._settled(state.id)
        return replace(state, seal=await self._states.seal(state.id))

    async def verify(self, state: State) -> None:
        """See `ports.Engine.verify`."""
        await self._states.verify(state)

    async def copy_state(self, state: State, copy_id: str) -> State:
        """See `ports.Engine.copy_state`."""
        await self._settled(state.id)
        self._host.images.keep(copy_id, self._states.meta(state.id).image)
        try:
            await self._states.copy(state.id, copy_id)
        except BaseException as error:
            self._host.images.let_go(copy_id)
            if isinstance(error, OSError):
                raise HostFull(f"cannot copy what is kept of a sandbox: {error.strerror or error}") from error
            raise
        return replace(state, id=copy_id)

    async def remove_state(self, state_id: str) -> None:
        """See `ports.Engine.remove_state`."""
        await self._states.remove(state_id)
        self._host.images.let_go(state_id)

    def available_mib(self) -> int:
        """See `ports.Engine.available_mib`."""
        return available_mib(Path("/proc/meminfo").read_text())

    async def _settled(self, state_id: str) -> None:
        """Wait until the sandbox whose disk a state has taken over is removed: its file system is whole then."""
        for unit in list(self._leaving):
            if unit.kept == state_id:
                await unit.removed.wait()

    # --- the rest of ports.Engine -----------------------------------------------------------------------------------

    async def set_internet(self, sandbox_id: str, allowed: bool) -> None:
        """See `ports.Engine.set_internet`."""
        await self._allow_internet(self._unit(sandbox_id), allowed)

    async def stats(self, sandbox_id: str) -> SandboxStats:
        """See `ports.Engine.stats`."""
        unit = self._unit(sandbox_id)
        try:
            usage = self._host.cgroups.usage(unit.name)
            disk = self._host.disks.used_bytes(unit.name)
        except FileNotFoundError:
            raise SandboxLost(f"cannot measure sandbox {sandbox_id}: it has just ended") from None
        peak = usage.memory_peak_bytes
        return SandboxStats(
            cpu_used_s=usage.cpu_used_s,
            memory_used_mib=usage.memory_bytes / _MIB,
            memory_peak_mib=None if peak is None else peak / _MIB,
            disk_used_mib=disk / _MIB,
            pids=usage.pids,
            oom_kills=usage.oom_kills,
        )

    def history(self, sandbox_id: str) -> list[UsageSample]:
        """See `ports.Engine.history`."""
        return self._unit(sandbox_id).history.samples()

    def workbench(self, image: str, limits: Limits) -> AbstractAsyncContextManager[Bench]:
        """See `ports.Engine.workbench`."""
        return self._benches.open(image, limits)

    async def prepare(self, template: Template) -> None:
        """See `ports.Engine.prepare`."""
        if self._warm is not None:
            await self._warm.make(template, Isolation.GVISOR)

    async def destroy(self, sandbox_id: str) -> None:
        """See `ports.Engine.destroy`. Returns when nothing of the sandbox can run any more; what it had is removed in
        the background, and waited for when the node stops."""
        unit = self._units.get(sandbox_id)
        if unit is not None:
            self._end(unit, EndCode.KILLED)

    async def deaths(self) -> AsyncIterator[Death]:
        """See `ports.Engine.deaths`."""
        with suppress(anyio.ClosedResourceError):
            async for death in self._deaths_out:
                yield death

    # --- claims and starts ------------------------------------------------------------------------------------------

    def _pool(self, template: Template, isolation: Isolation) -> Pool:
        key = (template.key, isolation)
        pool = self._pools.get(key)
        if pool is not None and pool.template == template:
            return pool
        if pool is not None:
            if (scope := self._refills.pop(key, None)) is not None:
                scope.cancel()
            for unit in pool.drain():
                self._end(unit, EndCode.KILLED)
        pool = self._pools[key] = Pool(template, isolation, self._pool_settings)
        if self._pool_settings.minimum > 0 and not self._stopping:
            self._refills[key] = self._refill.look_after(pool)
        return pool

    async def _claim(self, pool: Pool, placement: Placement) -> Unit | None:
        """One of the pool's sandboxes, made the caller's; None when there is none that fits."""
        if placement.limits.disk_mib != pool.template.limits.disk_mib:
            return None
        while (unit := pool.take(time.monotonic())) is not None:
            try:
                self._host.cgroups.thaw(unit.name)
                unit.require_link().resume()
                await self._hand_over(unit, placement, "pool")
            except CannotMount:  # no other sandbox could either
                self._end(unit, EndCode.KILLED)
                raise
            except (Error, OSError) as error:
                logger.warning("a pooled sandbox of %s could not be claimed: %s", pool.template.name, error)
                self._end(unit, EndCode.KILLED)
            except BaseException:
                self._end(unit, EndCode.KILLED)
                raise
            else:
                return unit
        return None

    async def _start_from(self, placement: Placement, state: State) -> Unit:
        """From a state. What it holds is verified before any of it is used."""
        await self._settled(state.id)
        await self._states.verify(state)
        meta = self._states.meta(state.id)
        checkpoint = self._states.checkpoint(state.id) if state.memory else None
        source = Source(
            self._states.disk(state.id), checkpoint, meta.interpreters if checkpoint else {},
            self._host.runtime_directory.parent / meta.runtime if checkpoint else None,
        )  # fmt: skip
        if checkpoint is not None and meta.engine != await engine_of(self._host, placement.isolation):
            raise SnapshotIncompatible(
                "cannot go on with what was kept of a sandbox: its memory was written by another version of the "
                "isolation, or on another processor; start it with keep_memory=false, from its files",
                state=state.id,
            )  # fmt: skip
        check_room()
        template = placement.template.model_copy(update={"image": meta.image})
        order = Order(
            template, placement.isolation, placement.limits, source, placement.sandbox_id, "snapshot",
            placement.incarnation, placement.internet, placement.volumes,
        )  # fmt: skip
        async with self._gate.enter():
            unit = await self._builder.start(order, self._supervisor.agent_lost)
        self._supervisor.watch(unit)
        try:
            if checkpoint is None:
                await startup.launch(unit.require_link(), placement.template)
            await self._hand_over(unit, placement, "snapshot")
        except BaseException:
            self._end(unit, EndCode.START_FAILED)
            raise
        return unit

    async def _hand_over(self, unit: Unit, placement: Placement, origin: str) -> None:
        """Make a running sandbox what the caller asked for."""
        if origin != "snapshot":  # that has them from its start
            await volumes.attach(self._host.volumes, unit, placement.volumes)
        if unit.record.limits != placement.limits:
            self._host.cgroups.set_limits(unit.name, placement.limits)
        if unit.record.internet and not placement.internet:
            await self._allow_internet(unit, False)
        await unit.require_link().configure(
            env=placement.env, hostname=placement.sandbox_id, pids=placement.limits.pids
        )
        await volumes.show(unit, placement.volumes)
        if unit.ending is not None:
            raise SandboxLost("cannot claim a sandbox: it has just ended")
        unit.record = replace(
            unit.record,
            sandbox_id=placement.sandbox_id,
            limits=placement.limits,
            origin=origin,
            incarnation=placement.incarnation,
            is_durable=placement.is_durable,
        )
        self._host.records.write(unit.record)
        self._units[placement.sandbox_id] = unit

    async def _boot_cold(self, placement: Placement) -> Unit:
        """From the image, not from the warm one: that is ready sooner and takes a seventh of the memory, and its
        interpreter starts when somebody runs code. But where a command of the template's must run, it runs in the
        warm image already."""
        check_room()
        template, warm = placement.template, None
        if template.start_command and placement.limits.disk_mib == template.limits.disk_mib and self._warm is not None:
            warm = await self._warm.find(template, placement.isolation)
        return await self._start(Order(template, placement.isolation, placement.limits, warm, placement.sandbox_id))

    async def _ready_cold(self, unit: Unit, placement: Placement) -> Unit:
        """What comes after the boot, which nobody else needs to wait for."""
        try:
            if not unit.is_restored:
                await startup.launch(unit.require_link(), placement.template)
            await self._hand_over(unit, placement, "cold")
        except BaseException:
            self._end(unit, EndCode.START_FAILED)
            raise
        return unit

    async def _start(self, order: Order) -> Unit:
        """Start and watch. A warm image that cannot be restored is no reason to fail: boot from the image then."""
        try:
            unit = await self._builder.start(order, self._supervisor.agent_lost)
        except SandboxStartFailed as error:
            if order.source is None:
                raise
            logger.warning("cannot restore a warm sandbox of %s: %s %s", order.template.name, error, error.details)
            if self._warm is not None:
                await self._warm.suspect(order.template, order.isolation)
            order = replace(order, source=None)
            unit = await self._builder.start(order, self._supervisor.agent_lost)
        self._supervisor.watch(unit)
        unit.is_restored = order.source is not None
        return unit

    async def _prepare_pool(self, pool: Pool) -> None:
        if self._warm is not None:
            await self._warm.make(pool.template, pool.isolation)

    async def _start_idle(self, pool: Pool) -> Unit:
        """A sandbox for the pool: warm, then frozen until it is claimed."""
        template = pool.template
        warm = await self._warm.find(template, pool.isolation) if self._warm is not None else None
        unit = await self._start(Order(template, pool.isolation, template.limits, warm, origin="pool"))
        try:
            if not unit.is_restored:
                await startup.launch(unit.require_link(), template)
            if not unit.record.warm:  # none was restored
                await unit.require_link().configure(pids=template.limits.pids)
                unit.record.warm = await interpreters.start_all(unit.require_link(), template.languages)
                self._host.records.write(unit.record)
            await interpreters.rehearse(unit.require_link(), unit.record.warm)
            unit.require_link().suspend()
            self._host.cgroups.freeze(unit.name)
        except BaseException:
            self._end(unit, EndCode.START_FAILED)
            raise
        return unit

    async def _allow_internet(self, unit: Unit, allowed: bool) -> None:
        assert unit.slot is not None
        await self._host.network.set_internet(unit.slot, allowed)
        unit.record.internet = allowed
        self._host.records.write(unit.record)

    # --- ends -------------------------------------------------------------------------------------------------------

    def _end(self, unit: Unit, code: EndCode) -> None:
        """Kill it at once; remove it in the background. Once is enough."""
        if unit.sandbox_id is not None and self._units.get(unit.sandbox_id) is unit:
            del self._units[unit.sandbox_id]
        if unit in self._leaving or unit.removed.is_set():
            return
        self._leaving.add(unit)
        self._supervisor.release(unit, code)
        with suppress(FileNotFoundError):
            self._host.cgroups.kill(unit.name)
        self._group.start_soon(self._remove, unit, name=f"removal of {unit.name}")

    async def _remove(self, unit: Unit) -> None:
        with anyio.CancelScope(shield=True):
            try:
                await self._builder.remove(unit)
            finally:
                self._leaving.discard(unit)

    async def _died(self, unit: Unit) -> None:
        """A watched sandbox ended by itself."""
        pool = self._pools.get((unit.record.template, unit.record.isolation))
        claimed = unit.sandbox_id is not None and self._units.get(unit.sandbox_id) is unit
        if claimed:
            assert unit.sandbox_id is not None
            assert unit.ending is not None
            end = End(code=unit.ending, message=unit.ending_message, at=datetime.now(UTC))
            state = await self._salvage(unit) if unit.record.is_durable else None
            self._deaths_in.send_nowait(Death(unit.sandbox_id, end, state))
        elif pool is not None and pool.discard(unit):
            logger.warning("a pooled sandbox of %s ended: %s", unit.record.template, unit.ending)
        # A sandbox that is just being claimed is in neither place; its claim fails, which ends it too.
        self._end(unit, unit.ending or EndCode.CRASHED)

    async def _salvage(self, unit: Unit) -> State | None:
        """The files of one that has died; None when they cannot be kept."""
        state_id = f"st{secrets.token_hex(10)}"
        try:
            await self._builder.kill(unit)
            return await Held(self._host, self._states, unit).save_files(state_id)
        except (Error, OSError) as error:
            logger.warning("cannot keep the files of sandbox %s: %s", unit.sandbox_id, error)
            return None

    async def _leave(self, unit: Unit) -> None:
        """Let go of a sandbox that shall outlive this server."""
        self._supervisor.release(unit, EndCode.SERVER_STOPPED)
        if unit.listener is not None:
            await unit.listener.aclose()

    # --- housekeeping -----------------------------------------------------------------------------------------------

    async def _keep_house(self) -> None:
        while True:
            await anyio.sleep(_HOUSEKEEPING_S)
            try:
                reaper.reap()
                now, used = time.monotonic(), list(self._used())
                busy = self._load.measure(((unit.name, use.cpu_used_s) for unit, use in used), now)
                self._gate.limit_background(1 if busy > BUSY_SHARE * _CORES else _CORES)
                for unit, use in used:
                    self._set_idle(unit, self._load.is_idle(unit.name))
                    if unit.history.is_due(now):
                        self._note(unit, use, now)
                    if use.oom_kills > 0:
                        self._supervisor.out_of_memory(unit)
                self._benches.look()
                for driver in self._host.drivers.values():
                    await driver.tidy()
            except Exception:
                logger.exception("housekeeping failed")

    def _note(self, unit: Unit, use: Usage, now: float) -> None:
        with suppress(OSError):
            unit.history.add(
                now, cpu_used_s=use.cpu_used_s, memory_used_mib=use.memory_bytes / _MIB,
                disk_used_mib=self._host.disks.used_bytes(unit.name) / _MIB,
            )  # fmt: skip

    def _set_idle(self, unit: Unit, idle: bool) -> None:
        if unit.idle != idle and unit.record.pid is not None:
            unit.idle = idle
            self._host.driver(unit.record.isolation).set_idle(unit.record.pid, idle)

    def _used(self) -> Iterator[tuple[Unit, Usage]]:
        for unit in self._units.values():
            with suppress(OSError):
                yield unit, self._host.cgroups.usage(unit.name)

    def _all_units(self) -> Iterator[Unit]:
        yield from self._units.values()
        yield from self._leaving
        for pool in self._pools.values():
            yield from pool

    def _unit(self, sandbox_id: str) -> Unit:
        try:
            return self._units[sandbox_id]
        except KeyError:
            raise SandboxLost(f"sandbox {sandbox_id} does not live on this machine", sandbox_id=sandbox_id) from None


def _provided(unit: Unit) -> Provided:
    assert unit.sandbox_id is not None
    return Provided(unit.sandbox_id, unit.require_link(), unit.record.origin, unit.record.warm)
