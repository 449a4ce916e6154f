"""Copies of sandboxes: snapshots, and what is made of them: new sandboxes, forks, the sandbox's own past."""

from __future__ import annotations

import logging
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import anyio

from skerry.core import states
from skerry.core.lifecycle import Lifecycle
from skerry.core.quota import Storage
from skerry.core.records import (
    FACADE,
    INCARNATION,
    KEPT,
    expiry,
    kept_of,
    new_sandbox,
    new_sandbox_id,
    new_state_id,
    without,
    without_memory,
)
from skerry.core.sandboxes import Live, Sandboxes
from skerry.errors import Conflict, Error, InvalidRequest, SnapshotNotFound
from skerry.failpoints import reached
from skerry.models import (
    Fork,
    ForkReply,
    ForkSpec,
    ResumeSpec,
    Sandbox,
    SandboxSpec,
    SandboxState,
    Snapshot,
    SnapshotPage,
    SnapshotSpec,
)
from skerry.ports import Engine, SandboxRecord, SnapshotRecord, SnapshotStore, State

logger = logging.getLogger(__name__)

_MIB = 1024 * 1024
_OWN = (KEPT, INCARNATION)
"""What a sandbox's record holds of itself alone."""


class Snapshots:
    """The snapshots of all tenants."""

    def __init__(
        self, engine: Engine, store: SnapshotStore, sandboxes: Sandboxes, lifecycle: Lifecycle, storage: Storage
    ) -> None:
        self._engine, self._store, self._sandboxes, self._lifecycle = engine, store, sandboxes, lifecycle
        self._storage = storage
        storage.count(store.stored_mib)
        self._in_use = Counter[str]()
        """State → starts from it under way."""
        self._unwanted: set[str] = set()
        """States to be removed when nobody uses them any more."""

    async def states(self) -> list[str]:
        """Ids of all that snapshots keep."""
        return await self._store.states()

    # --- snapshots --------------------------------------------------------------------------------------------------

    async def take(self, tenant_id: str, sandbox_id: str, spec: SnapshotSpec) -> Snapshot:
        """A copy of a sandbox as it is now, running or at rest; it goes on as before.

        Raises:
            SandboxNotFound, SandboxNotRunning, CannotSnapshot, HostFull
            LimitExceeded: the tenant keeps too much already.
        """
        async with self._sandboxes.turns.take(sandbox_id):
            record = await self._sandboxes.record(tenant_id, sandbox_id)
            state, pause_s = await self._copy(record, memory=spec.memory)
            try:
                state = await self._engine.seal(state)
                reached("snapshot: sealed")
                snapshot = Snapshot(
                    id="snap" + secrets.token_hex(10), name=spec.name, sandbox_id=sandbox_id,
                    template=record.sandbox.template, memory=state.memory, limits=record.sandbox.limits,
                    size_mib=round(state.size_bytes / _MIB, 1), pause_s=round(pause_s, 4),
                    created_at=datetime.now(UTC), volumes=record.sandbox.volumes,
                )  # fmt: skip
                record = await self._sandboxes.record(tenant_id, sandbox_id)  # a context may have come meanwhile
                internal = _inherited(record.internal, memory=state.memory)
                async with self._storage.reserve(tenant_id, snapshot.size_mib, "a snapshot of a sandbox"):
                    await self._store.add(SnapshotRecord(snapshot, tenant_id, record.env, internal, state))
                reached("snapshot: committed")
            except BaseException:
                with anyio.CancelScope(shield=True):
                    await self._engine.remove_state(state.id)
                raise
            await self._sandboxes.tell(
                record, "sandbox.snapshot", {"snapshot_id": snapshot.id, "pause_s": snapshot.pause_s}
            )
            return snapshot

    async def get(self, tenant_id: str, reference: str) -> Snapshot:
        """By id or name. Raises SnapshotNotFound."""
        return (await self._record(tenant_id, reference)).snapshot

    async def page(
        self, tenant_id: str, *, sandbox_id: str | None = None, name: str | None = None, limit: int = 100,
        cursor: str | None = None,
    ) -> SnapshotPage:  # fmt: skip
        """Newest first. Raises InvalidRequest for a cursor that is none of ours."""
        records, more = await self._store.page(
            tenant_id, sandbox_id=sandbox_id, name=name, limit=limit, cursor=cursor
        )  # fmt: skip
        return SnapshotPage(items=[record.snapshot for record in records], next_cursor=more)

    async def remove(self, tenant_id: str, reference: str) -> None:
        """Sandboxes that were started from it, or are being, are not touched. Raises SnapshotNotFound."""
        record = await self._record(tenant_id, reference)
        if not await self._store.remove(tenant_id, record.snapshot.id):
            raise _missing(reference)
        reached("snapshot: deleted")
        with anyio.CancelScope(shield=True):
            if self._in_use[record.state.id]:
                self._unwanted.add(record.state.id)
            else:
                await self._engine.remove_state(record.state.id)

    # --- what is made of them ---------------------------------------------------------------------------------------

    async def start(
        self, tenant_id: str, spec: SandboxSpec, *, internal: Mapping[str, Any] | None = None,
        idempotency: tuple[str, bytes] | None = None,
    ) -> Sandbox:  # fmt: skip
        """A new sandbox from the snapshot that the spec names.

        Raises:
            SnapshotNotFound, InvalidRequest, SnapshotDamaged, SnapshotIncompatible, HostFull, SandboxStartFailed
        """
        assert spec.snapshot is not None
        record = await self._record(tenant_id, spec.snapshot)
        limits = record.snapshot.limits
        if spec.disk_mib is not None and spec.disk_mib != limits.disk_mib:
            raise InvalidRequest(
                f"cannot start from snapshot {spec.snapshot} with disk_mib {spec.disk_mib}: its disk has "
                f"{limits.disk_mib} MiB, and keeps that",
                limit=limits.disk_mib, requested=spec.disk_mib,
            )  # fmt: skip
        volumes = await self._sandboxes.volumes.inherit(
            tenant_id, record.snapshot.volumes, spec.volumes, fixed=record.snapshot.memory
        )
        sandbox = new_sandbox(
            spec, record.snapshot.template, limits, snapshot=record.snapshot.id, volumes=volumes
        )  # fmt: skip
        # What a façade said of the original, who may reach it for example, it has not said of this one.
        known = {name: value for name, value in record.internal.items() if not name.startswith(FACADE)}
        child = SandboxRecord(sandbox, tenant_id, {**record.env, **spec.env}, {**known, **(internal or {})})
        async with self._using(record.state):
            return await self._sandboxes.add(child, state=record.state, idempotency=idempotency)

    async def fork(self, tenant_id: str, sandbox_id: str, spec: ForkSpec) -> ForkReply:
        """Running copies of a sandbox, which goes on as before. Each is ready, or there is an error in its place.

        Raises:
            SandboxNotFound, SandboxNotRunning, CannotSnapshot, HostFull
        """
        async with self._sandboxes.turns.take(sandbox_id):
            record = await self._sandboxes.record(tenant_id, sandbox_id)
            state, pause_s = await self._copy(record, memory=True)
            record = await self._sandboxes.record(tenant_id, sandbox_id)
        reached("fork: saved")
        forks = [Fork()] * spec.count

        async def make(number: int) -> None:
            try:
                sandbox = await self._sandboxes.add(_child(record, spec, memory=state.memory), state=state)
                forks[number] = Fork(sandbox=sandbox)
            except Error as error:
                forks[number] = Fork(error=error.to_wire()["error"])

        try:
            async with anyio.create_task_group() as group:
                for number in range(spec.count):
                    group.start_soon(make, number)
        finally:
            with anyio.CancelScope(shield=True):
                await self._engine.remove_state(state.id)
        made = [fork.sandbox.id for fork in forks if fork.sandbox is not None]
        pause_s = round(pause_s, 4)
        await self._sandboxes.tell(record, "sandbox.forked", {"sandbox_ids": made, "pause_s": pause_s})
        return ForkReply(items=forks, pause_s=pause_s)

    async def rollback(self, tenant_id: str, sandbox_id: str, reference: str) -> Sandbox:
        """The sandbox becomes, in place, what it was when one of its snapshots was taken, and runs.

        Raises:
            SandboxNotFound, SandboxNotRunning, SnapshotNotFound, Conflict, SnapshotDamaged: it is as before.
            SnapshotIncompatible, HostFull, SandboxStartFailed: it is paused, as the snapshot is.
        """
        snapshot = await self._record(tenant_id, reference)
        if snapshot.snapshot.sandbox_id != sandbox_id:
            raise Conflict(
                f"cannot roll sandbox {sandbox_id} back to snapshot {reference}: that is of sandbox "
                f"{snapshot.snapshot.sandbox_id}; start a new sandbox from it",
                snapshot_id=snapshot.snapshot.id,
            )  # fmt: skip
        async with self._using(snapshot.state):
            await self._lifecycle.go_back(
                tenant_id, sandbox_id, snapshot.state, snapshot.internal, snapshot.snapshot.id
            )
        return await self._lifecycle.resume(tenant_id, sandbox_id, ResumeSpec())

    # --- how --------------------------------------------------------------------------------------------------------

    async def _copy(self, record: SandboxRecord, *, memory: bool) -> tuple[State, float]:
        """A new state as the sandbox is now, and how long it stood still for it. To be called in its turn."""
        live = self._sandboxes.find(record.sandbox.id)
        if live is not None:
            return await self._copy_live(live, memory=memory)
        kept = kept_of(record)
        if record.sandbox.state not in states.RESTING or kept is None:
            raise states.not_running(record.sandbox)
        copy = await self._engine.copy_state(kept, new_state_id())
        return replace(copy, memory=copy.memory and memory), 0.0

    async def _copy_live(self, live: Live, *, memory: bool) -> tuple[State, float]:
        state_id = new_state_id()
        try:
            async with self._lifecycle.held(live) as held:
                began = anyio.current_time()
                state = await held.save(state_id, memory=memory)
            return state, anyio.current_time() - began
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self._engine.remove_state(state_id)
            raise

    @asynccontextmanager
    async def _using(self, state: State) -> AsyncIterator[None]:
        """It stays for the block, whoever deletes its snapshot."""
        self._in_use[state.id] += 1
        try:
            yield
        finally:
            self._in_use[state.id] -= 1
            if not self._in_use[state.id]:
                del self._in_use[state.id]
                if state.id in self._unwanted:
                    self._unwanted.discard(state.id)
                    with anyio.CancelScope(shield=True):
                        await self._engine.remove_state(state.id)

    async def _record(self, tenant_id: str, reference: str) -> SnapshotRecord:
        record = await self._store.get(tenant_id, reference)
        if record is None:
            raise _missing(reference)
        return record


def _inherited(internal: Mapping[str, Any], *, memory: bool) -> dict[str, Any]:
    """What a copy's record has of the original's. Without memory there are no interpreters to know of."""
    rest = internal if memory else without_memory(internal)
    return without(rest, *_OWN)


def _child(parent: SandboxRecord, spec: ForkSpec, *, memory: bool) -> SandboxRecord:
    timeout_s = spec.timeout_s if "timeout_s" in spec.model_fields_set else parent.sandbox.timeout_s
    sandbox = parent.sandbox.model_copy(
        update={
            "id": new_sandbox_id(), "state": SandboxState.CREATING, "created_at": datetime.now(UTC),
            "timeout_s": timeout_s, "expires_at": expiry(timeout_s), "rest": None, "restarts": 0, "last_exit": None,
            "restart_at": None,
        }
    )  # fmt: skip
    internal = _inherited(parent.internal, memory=memory)
    return replace(parent, sandbox=sandbox, env={**parent.env, **spec.env}, internal=internal)


def _missing(reference: str) -> SnapshotNotFound:
    return SnapshotNotFound(f"cannot find snapshot {reference!r}: there is none of that id or name", snapshot=reference)
