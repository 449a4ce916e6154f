"""Pause and resume, stop and start: sandboxes that rest, and go on.

Every change is whole or has not happened. What is kept is written first, then the store says so, then what ran is
destroyed; the way back is the same in reverse. A server that dies in between leaves either the old or the new state,
because the next one makes the machine follow the store.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

import anyio
import anyio.abc

from skerry.core import states
from skerry.core.records import (
    INCARNATION,
    KEPT,
    at_rest,
    expiry,
    incarnation_of,
    kept_of,
    new_state_id,
    without,
    without_memory,
)
from skerry.core.sandboxes import Live, Sandboxes
from skerry.errors import Error, SnapshotNotFound
from skerry.failpoints import reached
from skerry.models import (
    PauseGrade,
    PauseSpec,
    Rest,
    ResumeSpec,
    Sandbox,
    SandboxState,
    StopSpec,
    Template,
)
from skerry.ports import Agent, Engine, Held, SandboxRecord, SnapshotStore, State

logger = logging.getLogger(__name__)

_TERM_POLL_S = 0.05
_SIGTERM = 15


class Lifecycle:
    """What the sandboxes of all tenants go through between their creation and their end."""

    def __init__(self, engine: Engine, sandboxes: Sandboxes, snapshots: SnapshotStore) -> None:
        self._engine, self._sandboxes, self._snapshots = engine, sandboxes, snapshots
        sandboxes.wake = self._wake

    def start(self, group: anyio.abc.TaskGroup) -> None:
        """Background work runs in `group`."""
        self._group = group

    # --- pause and resume -------------------------------------------------------------------------------------------

    async def pause(self, tenant_id: str, sandbox_id: str, spec: PauseSpec) -> Sandbox:
        """Nothing of it runs until it is resumed; no-op when it is paused so already.

        Raises:
            SandboxNotFound, SandboxNotRunning, CannotSnapshot, HostFull: it goes on as before.
        """
        async with self._sandboxes.turns.take(sandbox_id):
            record = await self._sandboxes.record(tenant_id, sandbox_id)
            live = self._sandboxes.find(sandbox_id)
            if live is None:
                if record.sandbox.state is SandboxState.PAUSED:
                    return record.sandbox
                raise states.not_running(record.sandbox)
            if spec.keep_memory and not spec.to_disk:
                return live.sandbox if live.is_frozen else await self._freeze(live)
            return await self._to_disk(live, memory=spec.keep_memory)

    async def resume(self, tenant_id: str, sandbox_id: str, spec: ResumeSpec) -> Sandbox:
        """It goes on where it was; no-op when it runs.

        Raises:
            SandboxNotFound, SandboxNotRunning, HostFull, SandboxStartFailed, SnapshotDamaged, SnapshotIncompatible: it
                stays paused.
        """
        async with self._sandboxes.turns.take(sandbox_id):
            record = await self._sandboxes.record(tenant_id, sandbox_id)
            if record.sandbox.state is SandboxState.RUNNING:
                return record.sandbox
            if record.sandbox.state is not SandboxState.PAUSED:
                raise states.not_running(record.sandbox)
            timeout_s = spec.timeout_s if "timeout_s" in spec.model_fields_set else record.sandbox.timeout_s
            if live := self._sandboxes.find(sandbox_id):
                if spec.keep_memory:
                    return await self._thaw(live, timeout_s)
                await self._to_disk(live, memory=False)
                record = await self._sandboxes.record(tenant_id, sandbox_id)
            return (await self._from_disk(record, timeout_s, memory=spec.keep_memory)).sandbox

    async def _freeze(self, live: Live) -> Sandbox:
        rest = Rest(grade=PauseGrade.FROZEN, memory=True, size_mib=0, since=datetime.now(UTC))
        sandbox = states.transition(live.sandbox, SandboxState.PAUSED)
        sandbox = sandbox.model_copy(update={"rest": rest, "expires_at": None})
        with anyio.CancelScope(shield=True):
            await self._engine.freeze(live.id)
            reached("freeze: frozen")
            try:
                await self._sandboxes.change(live, replace(live.record, sandbox=sandbox), _told(rest))
                reached("freeze: committed")
            except BaseException:
                with suppress(Error):
                    await self._engine.thaw(live.id)
                raise
        return sandbox

    async def _thaw(self, live: Live, timeout_s: float | None) -> Sandbox:
        sandbox = states.transition(live.sandbox, SandboxState.RUNNING)
        sandbox = sandbox.model_copy(
            update={"rest": None, "expires_at": expiry(timeout_s), "timeout_s": timeout_s}
        )  # fmt: skip
        with anyio.CancelScope(shield=True):
            await self._engine.thaw(live.id)
            reached("thaw: thawed")
            try:
                await self._sandboxes.change(live, replace(live.record, sandbox=sandbox), {"grade": PauseGrade.FROZEN})
                reached("thaw: committed")
            except BaseException:
                with suppress(Error):
                    await self._engine.freeze(live.id)
                raise
            self._sandboxes.set_alarms(live)
        return sandbox

    async def _to_disk(self, live: Live, *, memory: bool) -> Sandbox:
        live.leaving = memory
        try:
            async with self.held(live) as held:
                return await self._keep(live, held, SandboxState.PAUSED, memory=memory)
        finally:
            live.leaving = False

    async def _keep(
        self, live: Live, held: Held, to: SandboxState, *, memory: bool, change: Mapping[str, Any] | None = None
    ) -> Sandbox:  # fmt: skip
        """Let a sandbox that stands still rest as its state on the disk."""
        state = await held.save(new_state_id(), memory=memory, last=True)
        try:
            rest = at_rest(state)
            if live.is_frozen and live.sandbox.rest is not None:
                rest = rest.model_copy(update={"since": live.sandbox.rest.since})
            sandbox = await self._sandboxes.rest(live, to, rest, state, change)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self._engine.remove_state(state.id)
            raise
        self._group.start_soon(self._seal, live.record.tenant_id, live.id, state)
        return sandbox

    async def write_down(self, live: Live) -> None:
        """Write one to the disk that is paused in memory; no-op when it is not any more. Raises as `pause`."""
        async with self._sandboxes.turns.take(live.id):
            if self._sandboxes.find(live.id) is live and live.is_frozen:
                await self._to_disk(live, memory=True)

    @asynccontextmanager
    async def held(self, live: Live) -> AsyncIterator[Held]:
        """It stands still for the block; one that was frozen is frozen again after it."""
        was_frozen = live.is_frozen
        if was_frozen:
            await self._engine.thaw(live.id)
        try:
            async with self._engine.hold(live.id) as held:
                yield held
        finally:
            if was_frozen and self._sandboxes.find(live.id) is live and live.is_frozen:
                with anyio.CancelScope(shield=True), suppress(Error):
                    await self._engine.freeze(live.id)

    @asynccontextmanager
    async def standing(self, tenant_id: str, sandbox_id: str) -> AsyncIterator[tuple[Template, Held]]:
        """A sandbox in memory, which stands still for the block, and its template; it goes on as before.

        Raises:
            SandboxNotFound, SandboxNotRunning
        """
        async with self._sandboxes.turns.take(sandbox_id):
            record = await self._sandboxes.record(tenant_id, sandbox_id)
            live = self._sandboxes.find(sandbox_id)
            if live is None:
                raise states.not_running(record.sandbox)
            async with self.held(live) as held:
                yield live.template, held

    async def _seal(self, tenant_id: str, sandbox_id: str, state: State) -> None:
        """Note the digest of what is kept, if it is still what is kept: the caller did not wait for it."""
        try:
            sealed = await self._engine.seal(state)
            async with self._sandboxes.turns.take(sandbox_id):
                record = await self._sandboxes.record(tenant_id, sandbox_id)
                if kept_of(record) == state:
                    internal = {**record.internal, KEPT: asdict(sealed)}
                    await self._sandboxes.rewrite(replace(record, internal=internal))
        except Error as error:
            logger.info("the state of sandbox %s was not sealed: %s", sandbox_id, error)
        except Exception:
            logger.exception("cannot seal the state of sandbox %s", sandbox_id)

    async def _from_disk(self, record: SandboxRecord, timeout_s: float | None, *, memory: bool) -> Live:
        """Start one that rests. It runs, or rests as before."""
        state = kept_of(record)
        sandbox = record.sandbox.model_copy(update={"expires_at": expiry(timeout_s), "timeout_s": timeout_s})
        start = None if state is None else replace(state, memory=state.memory and memory)
        if start is None or not start.memory:
            record = replace(record, internal=without_memory(record.internal))
        live = await self._sandboxes.begin(replace(record, sandbox=sandbox), state=start)
        reached("resume: committed")
        if state is not None:
            with anyio.CancelScope(shield=True):
                await self._engine.remove_state(state.id)
        return live

    async def _wake(self, tenant_id: str, sandbox_id: str) -> None:
        await self.resume(tenant_id, sandbox_id, ResumeSpec())

    async def lay_down(self, live: Live) -> None:
        """Its time is over, or the server's: pause it, in memory when it cannot be written to the disk."""
        tenant_id, keep_memory = live.record.tenant_id, live.sandbox.keep_memory
        to_disk = live.is_frozen or not keep_memory
        await self.pause(tenant_id, live.id, PauseSpec(keep_memory=keep_memory, to_disk=to_disk))

    # --- stop and start ---------------------------------------------------------------------------------------------

    async def stop(
        self, tenant_id: str, sandbox_id: str, spec: StopSpec, change: Mapping[str, Any] | None = None
    ) -> Sandbox:
        """End its processes and keep its files, unless they are to be reset; no-op when it is stopped.

        Args:
            change: what else changes in it; default: its policy does not start it again.

        Raises:
            SandboxNotFound, SandboxNotRunning, HostFull
            SnapshotNotFound: a reset would go back to a snapshot that was removed.
        """
        async with self._sandboxes.turns.take(sandbox_id):
            record = await self._sandboxes.record(tenant_id, sandbox_id)
            live = self._sandboxes.find(sandbox_id)
            if live is None:
                return await self._stop_resting(record, spec)
            first = await self._first(record) if spec.reset else None
            try:
                if live.is_frozen:
                    await self._thaw(live, live.sandbox.timeout_s)
                await self.end_processes(live, spec.grace_s)
                reached("stop: processes ended")
                if spec.reset:
                    rest = None if first is None else at_rest(first)
                    return await self._sandboxes.rest(live, SandboxState.STOPPED, rest, first, change)
            except BaseException:
                await self._discard(first)
                raise
            async with self.held(live) as held:
                return await self._keep(live, held, SandboxState.STOPPED, memory=False, change=change)

    async def _stop_resting(self, record: SandboxRecord, spec: StopSpec) -> Sandbox:
        if record.sandbox.state not in states.RESTING:
            raise states.not_running(record.sandbox)
        state, sandbox = kept_of(record), record.sandbox
        if sandbox.state is not SandboxState.STOPPED:
            sandbox = states.transition(sandbox, SandboxState.STOPPED)
        elif not spec.reset and sandbox.restart_at is None:
            return sandbox
        internal = without(without_memory(record.internal), KEPT)
        sandbox = sandbox.model_copy(update={"restart_at": None})
        kept = await self._first(record) if spec.reset else state
        if kept is None:
            sandbox = sandbox.model_copy(update={"rest": None})
        else:
            kept = replace(kept, memory=False)
            internal[KEPT] = asdict(kept)
            sandbox = sandbox.model_copy(update={"rest": at_rest(kept)})
        with anyio.CancelScope(shield=True):
            try:
                await self._sandboxes.move(replace(record, sandbox=sandbox, internal=internal), {})
            except BaseException:
                await self._discard(kept if spec.reset else None)
                raise
            await self._discard(state if spec.reset else None)
        return sandbox

    async def _first(self, record: SandboxRecord) -> State | None:
        """What a reset goes back to: a copy of the files of its snapshot; None: its template. Raises
        SnapshotNotFound."""
        snapshot_id = record.sandbox.snapshot
        if snapshot_id is None:
            return None
        snapshot = await self._snapshots.get(record.tenant_id, snapshot_id)
        if snapshot is None:
            raise SnapshotNotFound(
                f"cannot go back to snapshot {snapshot_id}: it was removed; stop without a reset", snapshot=snapshot_id
            )
        return replace(await self._engine.copy_state(snapshot.state, new_state_id()), memory=False)

    async def _discard(self, state: State | None) -> None:
        if state is not None:
            with anyio.CancelScope(shield=True):
                await self._engine.remove_state(state.id)

    async def start_again(self, tenant_id: str, sandbox_id: str, spec: ResumeSpec) -> Sandbox:
        """Boot one that is stopped, and run its command; no-op when it runs. Raises as `resume`."""
        async with self._sandboxes.turns.take(sandbox_id):
            record = await self._sandboxes.record(tenant_id, sandbox_id)
            if record.sandbox.state is SandboxState.RUNNING:
                return record.sandbox
            if record.sandbox.state is not SandboxState.STOPPED:
                raise states.not_running(record.sandbox)
            timeout_s = spec.timeout_s if "timeout_s" in spec.model_fields_set else record.sandbox.timeout_s
            record = replace(record, sandbox=record.sandbox.model_copy(update={"restarts": 0}))
            return (await self._from_disk(record, timeout_s, memory=False)).sandbox

    async def restart(self, tenant_id: str, sandbox_id: str, due: datetime) -> None:
        """Start one as its policy wants; no-op when it is not that restart any more for which it waits. Raises as
        `resume`."""
        async with self._sandboxes.turns.take(sandbox_id):
            record = await self._sandboxes.record(tenant_id, sandbox_id)
            if record.sandbox.state is SandboxState.STOPPED and record.sandbox.restart_at == due:
                await self._from_disk(record, record.sandbox.timeout_s, memory=False)

    async def end_processes(self, live: Live, grace_s: float) -> None:
        """Ask its processes to end, and wait until they have, or the time is over."""
        with suppress(Error), anyio.move_on_after(grace_s):
            agent = self._engine.agent(live.id)
            for process in await agent.processes():
                if process.exit is None:
                    with suppress(Error):
                        await agent.signal(process.pid, _SIGTERM)
            while await _any_runs(agent):  # noqa: ASYNC110 - the agent tells of each process's end to its followers only
                await anyio.sleep(_TERM_POLL_S)

    # --- back in time -----------------------------------------------------------------------------------------------

    async def go_back(
        self, tenant_id: str, sandbox_id: str, state: State, internal: Mapping[str, Any], snapshot_id: str
    ) -> None:
        """What it is now is given up; it rests as that state, of its own past.

        Raises:
            SandboxNotFound, SandboxNotRunning, SnapshotDamaged, HostFull: it is as before.
        """
        async with self._sandboxes.turns.take(sandbox_id):
            record = await self._sandboxes.record(tenant_id, sandbox_id)
            if record.sandbox.state not in (SandboxState.RUNNING, *states.RESTING):
                raise states.not_running(record.sandbox)
            await self._engine.verify(state)
            copy = await self._engine.copy_state(state, new_state_id())
            reached("rollback: copied")
            try:
                await self._give_up(record, copy, internal, snapshot_id)
            except BaseException:
                with anyio.CancelScope(shield=True):
                    await self._engine.remove_state(copy.id)
                raise

    async def _give_up(
        self, record: SandboxRecord, state: State, internal: Mapping[str, Any], snapshot_id: str
    ) -> None:  # fmt: skip
        own = {INCARNATION: incarnation_of(record)}
        sandbox = record.sandbox.model_copy(update={"snapshot": snapshot_id})
        if live := self._sandboxes.find(record.sandbox.id):
            live.record = replace(record, sandbox=sandbox, internal={**internal, **own})
            try:
                await self._sandboxes.rest(live, SandboxState.PAUSED, at_rest(state), state)
            except BaseException:
                live.record = record
                raise
            return
        before = kept_of(record)
        if sandbox.state is SandboxState.STOPPED:
            sandbox = states.transition(sandbox, SandboxState.PAUSED)
        sandbox = sandbox.model_copy(update={"rest": at_rest(state)})
        record = replace(record, sandbox=sandbox, internal={**internal, **own, KEPT: asdict(state)})
        with anyio.CancelScope(shield=True):
            await self._sandboxes.move(record, _told(at_rest(state)))
            if before is not None:
                await self._engine.remove_state(before.id)


def _told(rest: Rest) -> dict[str, object]:
    return {"grade": rest.grade, "memory": rest.memory}


async def _any_runs(agent: Agent) -> bool:
    return any(process.exit is None for process in await agent.processes())
