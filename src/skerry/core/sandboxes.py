"""Sandboxes from their request to their end."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import anyio
import anyio.abc

from skerry.core import states
from skerry.core.alarms import Alarms
from skerry.core.events import Events
from skerry.core.records import (
    INCARNATION,
    KEPT,
    expiry,
    incarnation_of,
    is_in_memory,
    kept_of,
    known,
    new_sandbox,
    template_of,
    wakes,
    without,
)
from skerry.core.records import wanted as wanted_of
from skerry.core.templates import Templates
from skerry.core.turns import Turns
from skerry.core.volume_use import VolumeUse
from skerry.errors import Error, SandboxLost, SandboxNotFound, SandboxNotRunning
from skerry.failpoints import reached
from skerry.models import (
    EndCode,
    Rest,
    RestartWhen,
    Sandbox,
    SandboxPage,
    SandboxSpec,
    SandboxState,
    SandboxStats,
    SandboxUpdate,
    Template,
    UsageSample,
)
from skerry.ports import Agent, Engine, Placement, SandboxRecord, State, Store

logger = logging.getLogger(__name__)

_DEATH_NEWS_S = 2.0
"""How long a call that lost its sandbox waits for the reason."""


@dataclass(eq=False)
class Live:
    """A sandbox that runs, or is frozen, as the core knows it."""

    record: SandboxRecord
    warm: dict[str, int] = field(default_factory=dict)
    """Language → pid of the interpreter that came with it and no context has taken yet."""
    users: int = 0
    """Requests and streams under way."""
    oom_kills: int = 0
    leaving: bool = False
    """Whether it is being written to the disk, to be paused there with its memory: it goes on by being resumed."""
    ended: anyio.Event = field(default_factory=anyio.Event)

    @property
    def id(self) -> str:
        return self.record.sandbox.id

    @property
    def sandbox(self) -> Sandbox:
        return self.record.sandbox

    @cached_property
    def template(self) -> Template:
        """As it was when the sandbox was made."""
        return template_of(self.record)

    @property
    def is_frozen(self) -> bool:
        return self.sandbox.state is SandboxState.PAUSED


class Sandboxes:
    """All sandboxes of this server. `start` before use."""

    def __init__(self, engine: Engine, store: Store, templates: Templates, events: Events, volumes: VolumeUse) -> None:
        self._engine, self._store, self._templates, self._events = engine, store, templates, events
        self.volumes = volumes
        self._live: dict[str, Live] = {}
        self._creating: dict[str, anyio.Event] = {}
        self.timeouts, self.idle = Alarms(), Alarms()
        self.turns = Turns()
        self.on_begin: Sequence[Callable[[Live], None]] = ()
        """Called with each sandbox that has begun to run, or was taken over."""
        self.on_end: Sequence[Callable[[str], None]] = ()
        """Called with the id of each sandbox that has ended, or rests."""
        self.wake: Callable[[str, str], Awaitable[None]] = _cannot_wake
        """Resumes one that is paused, of a tenant, because somebody uses it."""

    async def start(self, kept: Collection[str] = ()) -> None:
        """Take over what an earlier server left.

        Args:
            kept: states that belong to others than sandboxes.
        """
        records = await self._all(*states.LIVE)
        wanted = {record.sandbox.id: wanted_of(record) for record in records if is_in_memory(record.sandbox)}
        resting = {state.id for record in records if (state := kept_of(record))}
        found = {provided.sandbox_id: provided for provided in await self._engine.adopt(wanted, {*kept, *resting})}
        for record in records:
            provided = found.get(record.sandbox.id)
            if provided is not None:
                live = self._live[record.sandbox.id] = Live(record, dict(provided.warm))
                if not live.is_frozen:
                    self.set_alarms(live)
                self._tell_begin(live)
                await self.tell(record, "sandbox.adopted", {})
            elif is_in_memory(record.sandbox) or record.sandbox.state is SandboxState.CREATING:
                await self._lost(record)

    # --- create -----------------------------------------------------------------------------------------------------

    async def create(
        self, tenant_id: str, spec: SandboxSpec, *, internal: Mapping[str, Any] | None = None,
        idempotency: tuple[str, bytes] | None = None,
    ) -> Sandbox:  # fmt: skip
        """A running sandbox from a template. See `Core.create`."""
        template = await self._templates.get(tenant_id, spec.template)
        volumes = await self.volumes.resolve(tenant_id, spec.volumes)
        sandbox = new_sandbox(spec, template.name, template.limits, volumes=volumes)
        env, internal = {**template.env, **spec.env}, {**(internal or {}), **known(template)}
        return await self.add(SandboxRecord(sandbox, tenant_id, env, internal), idempotency=idempotency)

    async def add(
        self, record: SandboxRecord, *, state: State | None = None, idempotency: tuple[str, bytes] | None = None
    ) -> Sandbox:
        """Start a new sandbox, from its template or a state. Raises as `create`, and SnapshotDamaged,
        SnapshotIncompatible."""
        self._creating[record.sandbox.id] = anyio.Event()
        try:
            async with self.volumes.placing(record.tenant_id, record.sandbox.volumes):
                stored = await self._store.create_sandbox(record, idempotency)
            if stored.sandbox.id != record.sandbox.id:
                return await self._earlier(record.tenant_id, stored.sandbox.id)
            reached("create: written down")
            try:
                live = await self.begin(record, state=state)
            except BaseException as error:
                with anyio.CancelScope(shield=True):
                    await self._never_ran(record, error)
                raise
            return live.sandbox
        finally:
            self._creating.pop(record.sandbox.id).set()

    async def _earlier(self, tenant_id: str, sandbox_id: str) -> Sandbox:
        """The sandbox of an earlier request with the same idempotency key, which may still be creating it."""
        if under_way := self._creating.get(sandbox_id):
            await under_way.wait()
        return await self.get(tenant_id, sandbox_id)

    async def begin(self, record: SandboxRecord, *, state: State | None = None) -> Live:
        """Have a sandbox that does not run started, and note that it runs: with an error, nothing has changed.

        Args:
            record: as it is to be, but for what comes of the start.
            state: what it starts from; None: its template.
        """
        incarnation = incarnation_of(record) + 1
        internal = {**without(record.internal, KEPT), INCARNATION: incarnation}
        sandbox = record.sandbox
        provided = await self._engine.provide(
            Placement(
                sandbox.id, template_of(record), sandbox.isolation, sandbox.limits, sandbox.internet, record.env,
                incarnation, state, sandbox.restart.when is not RestartWhen.NO, sandbox.volumes,
            )
        )  # fmt: skip
        reached("start: provided")
        running = states.transition(sandbox, SandboxState.RUNNING)
        running = running.model_copy(
            update={"origin": provided.origin, "rest": None, "restart_at": None, "started_at": datetime.now(UTC)}
        )
        live = self._live[sandbox.id] = Live(replace(record, sandbox=running, internal=internal), dict(provided.warm))
        try:
            await self.move(live.record, {"origin": provided.origin})
            reached("start: committed")
        except BaseException:
            with anyio.CancelScope(shield=True):
                self._leave(live)
                await self._engine.destroy(sandbox.id)
            raise
        self.set_alarms(live)
        self._tell_begin(live)
        return live

    def _tell_begin(self, live: Live) -> None:
        for tell in self.on_begin:
            tell(live)

    async def move(self, record: SandboxRecord, data: Mapping[str, Any]) -> None:
        """Write down that a sandbox is in another state, and tell it as an event."""
        await self._store.update_sandbox(record)
        await self.tell(record, f"sandbox.{record.sandbox.state}", data)

    async def tell(self, record: SandboxRecord, type: str, data: Mapping[str, Any]) -> None:
        """Record an event of a sandbox."""
        await self._events.record(record.tenant_id, record.sandbox.id, type, data)

    async def rest(
        self, live: Live, to: SandboxState, rest: Rest | None, state: State | None,
        change: Mapping[str, Any] | None = None,
    ) -> Sandbox:  # fmt: skip
        """A running or frozen sandbox rests from now on, and is not in memory: what is kept of it is its state.

        Args:
            change: what else changes in it.

        Raises:
            SandboxNotRunning: it has ended meanwhile. With any error nothing has changed, and the state is of no use.
        """
        sandbox = live.sandbox if live.sandbox.state is to else states.transition(live.sandbox, to)
        sandbox = sandbox.model_copy(update={"rest": rest, "expires_at": None, **(change or {})})
        kept = {} if state is None else {KEPT: asdict(state)}
        record = replace(live.record, sandbox=sandbox, internal={**live.record.internal, **kept})
        with anyio.CancelScope(shield=True):
            await self.change(live, record, {} if rest is None else {"grade": rest.grade, "memory": rest.memory})
            reached("rest: committed")
            self._leave(live)
            await self._engine.destroy(live.id)
            reached("rest: destroyed")
        return sandbox

    async def change(self, live: Live, record: SandboxRecord, data: Mapping[str, Any]) -> None:
        """A sandbox in memory is in another state from now on. Raises SandboxNotRunning: it has ended meanwhile."""
        if self._live.get(live.id) is not live:
            raise states.not_running(live.sandbox)
        before, live.record = live.record, record
        try:
            await self.move(record, data)
        except BaseException:
            live.record = before
            raise
        if self._live.get(live.id) is not live:  # its end, which came in between, is what is written down last
            raise states.not_running(live.sandbox)
        if live.is_frozen:
            self._quiet(live)

    async def _never_ran(self, record: SandboxRecord, error: BaseException) -> None:
        message = error.message if isinstance(error, Error) else "the request that created it was abandoned"
        failed = replace(record, sandbox=states.ended(record.sandbox, EndCode.START_FAILED, message))
        with suppress(Error):
            await self._engine.destroy(record.sandbox.id)
        await self._store.update_sandbox(failed)
        await self._store.forget_idempotency(record.sandbox.id)
        await self._events.record(record.tenant_id, record.sandbox.id, "sandbox.failed", {"reason": message})

    # --- look and change --------------------------------------------------------------------------------------------

    async def get(self, tenant_id: str, sandbox_id: str) -> Sandbox:
        """Raises SandboxNotFound."""
        return (await self.record(tenant_id, sandbox_id)).sandbox

    async def usable(self, sandbox_id: str) -> SandboxRecord:
        """A sandbox of any tenant that can be used as it is, for façades whose callers show a token of the sandbox
        instead of a key.

        Raises:
            SandboxNotRunning: there is none with that id, or it has ended, or it rests and a request does not wake it.
        """
        live = self._live.get(sandbox_id)
        record = live.record if live is not None else await self._store.sandbox(None, sandbox_id)
        if record is None:
            raise SandboxNotRunning(f"cannot use sandbox {sandbox_id}: it does not run", sandbox_id=sandbox_id)
        if not wakes(record.sandbox) and record.sandbox.state is not SandboxState.RUNNING:
            raise states.not_running(record.sandbox)
        return record

    async def rewrite(self, record: SandboxRecord) -> None:
        """Change what is known of one that rests, without another state. To be called in its turn."""
        await self._store.update_sandbox(record)

    async def waiting(self) -> list[SandboxRecord]:
        """Those that are stopped and shall start again."""
        records = await self._all(SandboxState.STOPPED)
        return [record for record in records if record.sandbox.restart_at is not None]

    async def _all(self, *states: SandboxState) -> list[SandboxRecord]:
        """Of all tenants."""
        records, cursor = await self._store.sandboxes(None, states=states, limit=1000)
        while cursor is not None:
            more, cursor = await self._store.sandboxes(None, states=states, limit=1000, cursor=cursor)
            records += more
        return records

    def frozen(self) -> list[Live]:
        """Those that are paused in memory, the longest so first."""
        found = [live for live in self._live.values() if live.is_frozen]
        return sorted(found, key=lambda live: live.sandbox.rest.since if live.sandbox.rest else live.sandbox.created_at)

    def find(self, sandbox_id: str) -> Live | None:
        """One that runs, or is frozen."""
        return self._live.get(sandbox_id)

    async def page(
        self, tenant_id: str, *, states: Sequence[SandboxState] = states.LIVE, template: str | None = None,
        metadata: dict[str, str] | None = None, created_since: datetime | None = None, oldest_first: bool = False,
        limit: int = 100, cursor: str | None = None,
    ) -> SandboxPage:  # fmt: skip
        """Newest first unless told otherwise. Raises InvalidRequest for a cursor that is none of ours."""
        records, more = await self._store.sandboxes(
            tenant_id, states=states, template=template, metadata=metadata, created_since=created_since,
            oldest_first=oldest_first, limit=limit, cursor=cursor,
        )  # fmt: skip
        return SandboxPage(items=[record.sandbox for record in records], next_cursor=more)

    async def update(self, tenant_id: str, sandbox_id: str, change: SandboxUpdate) -> Sandbox:
        """Change what can change while it runs or rests. Raises SandboxNotFound, SandboxNotRunning."""
        async with self.turns.take(sandbox_id):
            record = await self.record(tenant_id, sandbox_id)
            sandbox, live = record.sandbox, self._live.get(sandbox_id)
            if sandbox.state is not SandboxState.RUNNING and sandbox.state not in states.RESTING:
                raise states.not_running(sandbox)
            given = change.model_fields_set
            update: dict[str, Any] = {
                name: getattr(change, name) for name in ("timeout_s", "idle_timeout_s") if name in given
            }
            if "timeout_s" in given and sandbox.state is SandboxState.RUNNING:
                update["expires_at"] = expiry(change.timeout_s)
            if change.on_timeout is not None:
                update["on_timeout"] = change.on_timeout
            if change.metadata is not None:
                update["metadata"] = dict(change.metadata)
            if change.internet is not None and change.internet != sandbox.internet:
                if live is not None:
                    await self._engine.set_internet(sandbox_id, change.internet)
                update["internet"] = change.internet
            if live is None:
                record = replace(record, sandbox=sandbox.model_copy(update=update))
                await self._store.update_sandbox(record)
                return record.sandbox
            await self.save(live, sandbox=live.sandbox.model_copy(update=update))
            if not live.is_frozen:
                self.set_alarms(live)
            return live.sandbox

    async def save(self, live: Live, **changes: Any) -> None:
        """Change the record of a live sandbox, here and in the store."""
        live.record = replace(live.record, **changes)
        if self._live.get(live.id) is live:
            await self._store.update_sandbox(live.record)

    async def stats(self, tenant_id: str, sandbox_id: str) -> SandboxStats:
        """Raises SandboxNotFound, SandboxNotRunning."""
        await self._present(tenant_id, sandbox_id)
        return await self._engine.stats(sandbox_id)

    async def history(self, tenant_id: str, sandbox_id: str) -> list[UsageSample]:
        """Samples of what it has used, the oldest first. Raises SandboxNotFound, SandboxNotRunning."""
        await self._present(tenant_id, sandbox_id)
        return self._engine.history(sandbox_id)

    async def _present(self, tenant_id: str, sandbox_id: str) -> Live:
        """One that is in memory, running or frozen. Raises SandboxNotFound, SandboxNotRunning."""
        record = await self.record(tenant_id, sandbox_id)
        live = self._live.get(sandbox_id)
        if live is None:
            raise states.not_running(record.sandbox)
        return live

    async def out_of_memory(self, live: Live) -> bool:
        """Whether the kernel has killed something in it for lack of memory since this was asked last."""
        with suppress(Error):
            kills = (await self._engine.stats(live.id)).oom_kills
            known, live.oom_kills = live.oom_kills, max(kills, live.oom_kills)
            return kills > known
        return False

    # --- use --------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def use(self, tenant_id: str, sandbox_id: str) -> AsyncIterator[tuple[Live, Agent]]:
        """A running sandbox and its agent, for the time of one request or stream; it is not idle meanwhile.

        Raises:
            SandboxNotFound, SandboxNotRunning: before.
            SandboxNotRunning, SandboxLost: when it ends on the way, with the reason.
        """
        live = self._live.get(sandbox_id)
        if live is None or live.record.tenant_id != tenant_id or live.is_frozen or live.leaving:
            live = await self._awake(tenant_id, sandbox_id)
        live.users += 1
        try:
            yield live, self._engine.agent(sandbox_id)
        except SandboxLost as error:
            with anyio.move_on_after(_DEATH_NEWS_S):
                await live.ended.wait()
            if live.ended.is_set():
                raise states.not_running(live.sandbox) from error
            raise
        finally:
            live.users -= 1
            if live.users == 0:
                self._set_idle_alarm(live)

    async def _awake(self, tenant_id: str, sandbox_id: str) -> Live:
        """One that did not run a moment ago."""
        record, live = await self.record(tenant_id, sandbox_id), self._live.get(sandbox_id)
        if wakes(record.sandbox) or (live is not None and live.leaving and record.sandbox.auto_resume):
            await self.wake(tenant_id, sandbox_id)
            record = await self.record(tenant_id, sandbox_id)
        live = self._live.get(sandbox_id)
        if live is None or live.is_frozen:
            raise states.not_running(record.sandbox)
        return live

    # --- the end ----------------------------------------------------------------------------------------------------

    async def destroy(self, tenant_id: str, sandbox_id: str) -> None:
        """End it now, whatever is done with it; no-op when it has ended. Raises SandboxNotFound."""
        if under_way := self._creating.get(sandbox_id):
            await under_way.wait()
        await self.record(tenant_id, sandbox_id)
        with anyio.CancelScope(shield=True):
            await self.finish(sandbox_id, EndCode.KILLED, "killed through the API")

    async def stop(self) -> None:
        """The server stops: end all that are in memory."""
        for sandbox_id in list(self._live):  # first, so that none of them competes with what follows
            await self._engine.destroy(sandbox_id)
        for live in list(self._live.values()):
            await self.end(live, EndCode.SERVER_STOPPED, "the server was stopped")

    async def finish(self, sandbox_id: str, code: EndCode, message: str) -> None:
        """End one that runs or rests, and whatever is under way with it."""
        if self.turns.is_taken(sandbox_id):
            await self._engine.destroy(sandbox_id)  # so that what is under way has nothing more to wait for
        async with self.turns.kill(sandbox_id):
            if live := self._live.get(sandbox_id):
                await self.end(live, code, message)
                return
            record = await self._store.sandbox(None, sandbox_id)
            if record is not None and record.sandbox.state in states.RESTING:
                ended = replace(record, sandbox=states.ended(record.sandbox, code, message))
                await self.move(ended, {"code": code.value, "reason": message})
                if state := kept_of(record):
                    await self._engine.remove_state(state.id)

    async def end(self, live: Live, code: EndCode, message: str) -> None:
        """It ends, or has ended: note why, and remove what is left; no-op when it has left already."""
        with anyio.CancelScope(shield=True):
            sandbox = states.ended(live.sandbox, code, message)
            live.record = replace(live.record, sandbox=sandbox)
            if self._leave(live):
                try:
                    await self.move(live.record, {"code": code.value, "reason": message})
                    reached("end: committed")
                finally:  # whether it can be written down or not
                    await self._engine.destroy(live.id)
                    reached("end: destroyed")

    def _leave(self, live: Live) -> bool:
        """It is not in memory any more; false when it was not already."""
        if self._live.get(live.id) is not live:
            return False
        del self._live[live.id]
        self._quiet(live)
        live.ended.set()
        for tell in self.on_end:
            tell(live.id)
        return True

    def _quiet(self, live: Live) -> None:
        self.timeouts.set(live.id, None)
        self.idle.set(live.id, None)

    # --- the rest ---------------------------------------------------------------------------------------------------

    def live(self) -> list[Live]:
        """Those that run, for counting."""
        return list(self._live.values())

    async def _lost(self, record: SandboxRecord) -> None:
        message = "it did not outlive a restart of the server or of its machine"
        sandbox = states.ended(record.sandbox, EndCode.NODE_LOST, message)
        await self._store.update_sandbox(replace(record, sandbox=sandbox))
        await self._store.forget_idempotency(sandbox.id)
        await self._events.record(
            record.tenant_id, sandbox.id, "sandbox.failed", {"code": EndCode.NODE_LOST.value, "reason": message}
        )

    async def record(self, tenant_id: str, sandbox_id: str) -> SandboxRecord:
        """All that is known of a sandbox. Raises SandboxNotFound."""
        live = self._live.get(sandbox_id)
        if live is not None and live.record.tenant_id == tenant_id:
            return live.record
        record = await self._store.sandbox(tenant_id, sandbox_id)
        if record is None:
            raise SandboxNotFound(
                f"cannot find sandbox {sandbox_id}: there is none with that id", sandbox_id=sandbox_id
            )
        return record

    def set_alarms(self, live: Live) -> None:
        expires = live.sandbox.expires_at
        due = None if expires is None else anyio.current_time() + (expires - datetime.now(UTC)).total_seconds()
        self.timeouts.set(live.id, due)
        self._set_idle_alarm(live)

    def _set_idle_alarm(self, live: Live) -> None:
        if live.id in self._live:
            idle = live.sandbox.idle_timeout_s
            self.idle.set(live.id, None if idle is None else anyio.current_time() + idle)


async def _cannot_wake(*_: Any) -> None:
    """While nothing is there that could."""
