"""Sandboxes from their request to their end."""

from __future__ import annotations

import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

import anyio
import anyio.abc

from skerry.core import states
from skerry.core.alarms import Alarms
from skerry.core.events import Events
from skerry.core.templates import Templates
from skerry.core.turns import Turns
from skerry.core.volume_use import VolumeUse
from skerry.errors import Error, InternalError, SandboxLost, SandboxNotFound, SandboxNotRunning
from skerry.failpoints import reached
from skerry.models import (
    EndCode,
    Limits,
    OnTimeout,
    PauseGrade,
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
from skerry.ports import Agent, Death, Engine, Placement, SandboxRecord, State, Store, Wanted

logger = logging.getLogger(__name__)

LIVE_STATES = (SandboxState.CREATING, SandboxState.RUNNING, SandboxState.PAUSED, SandboxState.STOPPED)
_RESTING = (SandboxState.PAUSED, SandboxState.STOPPED)
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
    idle_since: float = 0.0
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
        self._timeouts = Alarms(self._timed_out)
        self._idle = Alarms(self._idled_out)
        self.turns = Turns()
        self.on_begin: Sequence[Callable[[Live], None]] = ()
        """Called with each sandbox that has begun to run, or was taken over."""
        self.on_end: Sequence[Callable[[str], None]] = ()
        """Called with the id of each sandbox that has ended, or rests."""
        self.wake: Callable[[str, str], Awaitable[None]] = _cannot_wake
        """Resumes one that is paused, of a tenant, because somebody uses it."""
        self.lay_down: Callable[[Live], Awaitable[None]] = _cannot_wake
        """Pauses one whose time is over."""
        self.died: Callable[[Live, Death], Awaitable[bool]] = _stays_dead
        """Told of one that died; true: it starts again."""

    async def start(self, group: anyio.abc.TaskGroup, kept: Collection[str] = ()) -> None:
        """Take over what an earlier server left, and begin to watch.

        Args:
            kept: states that belong to others than sandboxes.
        """
        self._group = group
        await self._adopt(kept)
        group.start_soon(self._timeouts.run)
        group.start_soon(self._idle.run)
        group.start_soon(self._watch_deaths)

    # --- create -----------------------------------------------------------------------------------------------------

    async def create(
        self, tenant_id: str, spec: SandboxSpec, *, internal: Mapping[str, Any] | None = None,
        idempotency: tuple[str, bytes] | None = None,
    ) -> Sandbox:  # fmt: skip
        """A running sandbox from a template. See `Core.create`."""
        template = await self._templates.get(tenant_id, spec.template)
        record = replace(_new_record(tenant_id, spec, template), internal={**(internal or {}), **known(template)})
        volumes = await self.volumes.resolve(tenant_id, spec.volumes)
        record = replace(record, sandbox=record.sandbox.model_copy(update={"volumes": volumes}))
        return await self.add(record, idempotency=idempotency)

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
        internal = {name: value for name, value in record.internal.items() if name != KEPT}
        incarnation = internal["incarnation"] = record.internal.get("incarnation", 0) + 1
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
            raise not_running(live.sandbox)
        before, live.record = live.record, record
        try:
            await self.move(record, data)
        except BaseException:
            live.record = before
            raise
        if self._live.get(live.id) is not live:  # its end, which came in between, is what is written down last
            raise not_running(live.sandbox)
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
        if not _wakes(record.sandbox) and record.sandbox.state is not SandboxState.RUNNING:
            raise not_running(record.sandbox)
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
        self, tenant_id: str, *, states: Sequence[SandboxState] = LIVE_STATES, template: str | None = None,
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
            if sandbox.state is not SandboxState.RUNNING and sandbox.state not in _RESTING:
                raise not_running(sandbox)
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
            raise not_running(record.sandbox)
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
                raise not_running(live.sandbox) from error
            raise
        finally:
            live.users -= 1
            if live.users == 0:
                self._set_idle_alarm(live)

    async def _awake(self, tenant_id: str, sandbox_id: str) -> Live:
        """One that did not run a moment ago."""
        record, live = await self.record(tenant_id, sandbox_id), self._live.get(sandbox_id)
        if _wakes(record.sandbox) or (live is not None and live.leaving and record.sandbox.auto_resume):
            await self.wake(tenant_id, sandbox_id)
            record = await self.record(tenant_id, sandbox_id)
        live = self._live.get(sandbox_id)
        if live is None or live.is_frozen:
            raise not_running(record.sandbox)
        return live

    # --- the end ----------------------------------------------------------------------------------------------------

    async def destroy(self, tenant_id: str, sandbox_id: str) -> None:
        """End it now, whatever is done with it; no-op when it has ended. Raises SandboxNotFound."""
        if under_way := self._creating.get(sandbox_id):
            await under_way.wait()
        await self.record(tenant_id, sandbox_id)
        with anyio.CancelScope(shield=True):
            await self._finish(sandbox_id, EndCode.KILLED, "killed through the API")

    async def stop(self, *, keep: bool) -> None:
        """The server stops. `keep`: leave them running for the next one. What is paused stays so."""
        if keep:
            return
        for live in self.frozen():
            with suppress(Error):
                await self.lay_down(live)
        for sandbox_id in list(self._live):  # first, so that none of them competes with what follows
            await self._engine.destroy(sandbox_id)
        for live in list(self._live.values()):
            await self._end(live, EndCode.SERVER_STOPPED, "the server was stopped")

    async def _finish(self, sandbox_id: str, code: EndCode, message: str) -> None:
        """End one that runs or rests, and whatever is under way with it."""
        if self.turns.is_taken(sandbox_id):
            await self._engine.destroy(sandbox_id)  # so that what is under way has nothing more to wait for
        async with self.turns.kill(sandbox_id):
            if live := self._live.get(sandbox_id):
                await self._end(live, code, message)
                return
            record = await self._store.sandbox(None, sandbox_id)
            if record is not None and record.sandbox.state in _RESTING:
                ended = replace(record, sandbox=states.ended(record.sandbox, code, message))
                await self.move(ended, {"code": code.value, "reason": message})
                if state := kept_of(record):
                    await self._engine.remove_state(state.id)

    async def _end(self, live: Live, code: EndCode, message: str) -> None:
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
        self._timeouts.set(live.id, None)
        self._idle.set(live.id, None)

    async def _watch_deaths(self) -> None:
        async for death in self._engine.deaths():
            await self._died(death)

    async def _died(self, death: Death) -> None:
        live = self._live.get(death.sandbox_id)
        if live is None:
            return
        message = death.end.message
        if death.end.code is EndCode.OUT_OF_MEMORY:
            message = f"it needed more than its {live.sandbox.limits.memory_mib} MiB of memory"
        try:
            if not await self.died(live, death):
                await self._end(live, death.end.code, message)
                if death.state is not None:
                    await self._engine.remove_state(death.state.id)
        except Exception:  # one sandbox's end never stops the watch over the others
            logger.exception("cannot record the end of sandbox %s", death.sandbox_id)

    async def _timed_out(self, sandbox_id: str) -> None:
        self._group.start_soon(
            self._ring, sandbox_id, EndCode.TIMEOUT, "its time was over; set `timeout_s` to give it more"
        )

    async def _idled_out(self, sandbox_id: str) -> None:
        live = self._live.get(sandbox_id)
        if live is not None and live.users == 0:
            message = f"nobody used it for {live.sandbox.idle_timeout_s:g} s"
            self._group.start_soon(self._ring, sandbox_id, EndCode.IDLE_TIMEOUT, message)

    async def _ring(self, sandbox_id: str, code: EndCode, message: str) -> None:
        live = self._live.get(sandbox_id)
        if live is None:
            return
        try:
            if live.sandbox.on_timeout is OnTimeout.PAUSE:
                await self.lay_down(live)
            else:
                await self._finish(sandbox_id, code, message)
        except Error as error:
            logger.warning("cannot end sandbox %s in time: %s", sandbox_id, error)
        except Exception:
            logger.exception("cannot end sandbox %s in time", sandbox_id)

    # --- the rest ---------------------------------------------------------------------------------------------------

    def live(self) -> list[Live]:
        """Those that run, for counting."""
        return list(self._live.values())

    async def _adopt(self, kept: Collection[str]) -> None:
        records = await self._all(*LIVE_STATES)
        wanted = {record.sandbox.id: _wanted(record) for record in records if _is_in_memory(record.sandbox)}
        resting = {state.id for record in records if (state := kept_of(record))}
        found = {provided.sandbox_id: provided for provided in await self._engine.adopt(wanted, {*kept, *resting})}
        for record in records:
            provided = found.get(record.sandbox.id)
            if provided is not None:
                live = self._live[record.sandbox.id] = Live(record, dict(provided.warm))
                if not live.is_frozen:
                    self.set_alarms(live)
                self._tell_begin(live)
                await self._events.record(record.tenant_id, live.id, "sandbox.adopted")
            elif _is_in_memory(record.sandbox) or record.sandbox.state is SandboxState.CREATING:
                await self._lost(record)

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
        self._timeouts.set(live.id, due)
        self._set_idle_alarm(live)

    def _set_idle_alarm(self, live: Live) -> None:
        if live.id in self._live:
            idle = live.sandbox.idle_timeout_s
            self._idle.set(live.id, None if idle is None else anyio.current_time() + idle)


def _new_record(tenant_id: str, spec: SandboxSpec, template: Template) -> SandboxRecord:
    sandbox = Sandbox(
        id=new_sandbox_id(),
        template=template.name,
        isolation=spec.isolation,
        state=SandboxState.CREATING,
        limits=Limits(
            cpu=spec.cpu or template.limits.cpu,
            memory_mib=spec.memory_mib or template.limits.memory_mib,
            disk_mib=spec.disk_mib or template.limits.disk_mib,
            pids=spec.pids or template.limits.pids,
        ),
        internet=spec.internet,
        metadata=dict(spec.metadata),
        created_at=datetime.now(UTC),
        expires_at=expiry(spec.timeout_s),
        timeout_s=spec.timeout_s,
        idle_timeout_s=spec.idle_timeout_s,
        on_timeout=spec.on_timeout,
        keep_memory=spec.keep_memory,
        auto_resume=spec.auto_resume,
        command=spec.command,
        restart=spec.restart,
    )
    return SandboxRecord(sandbox, tenant_id, {**template.env, **spec.env})


def new_sandbox_id() -> str:
    return "sb" + secrets.token_hex(10)


def expiry(timeout_s: float | None) -> datetime | None:
    return None if timeout_s is None else datetime.now(UTC) + timedelta(seconds=timeout_s)


FACADE = "facade."
"""How the names begin, in `SandboxRecord.internal`, of what façades want to know."""
KEPT, TEMPLATE = "kept", "template"
"""Of `SandboxRecord.internal`: the state of one that rests, and the template as it was when the sandbox was made."""


def known(template: Template) -> dict[str, Any]:
    """What a record keeps of a template."""
    return {TEMPLATE: template.model_dump(mode="json")}


def template_of(record: SandboxRecord) -> Template:
    """As it was when the sandbox was made. Records of servers that knew no snapshots say less."""
    if TEMPLATE in record.internal:
        return Template.model_validate(record.internal[TEMPLATE])
    sandbox, internal = record.sandbox, record.internal
    return Template(
        name=sandbox.template, image="", limits=sandbox.limits, languages=internal.get("languages", []), size_mib=0,
        built_at=sandbox.created_at, user=internal.get("user", "user"), workdir=internal.get("workdir"),
    )  # fmt: skip


def kept_of(record: SandboxRecord) -> State | None:
    """What is kept of a sandbox that rests; None: nothing, or in memory only."""
    kept = record.internal.get(KEPT)
    return None if kept is None else State(**kept)


def _wanted(record: SandboxRecord) -> Wanted:
    return Wanted(record.internal.get("incarnation", 0), record.sandbox.state is SandboxState.PAUSED)


def _is_in_memory(sandbox: Sandbox) -> bool:
    frozen = sandbox.rest is not None and sandbox.rest.grade is PauseGrade.FROZEN
    return sandbox.state is SandboxState.RUNNING or (sandbox.state is SandboxState.PAUSED and frozen)


def _wakes(sandbox: Sandbox) -> bool:
    return sandbox.state is SandboxState.PAUSED and sandbox.auto_resume


async def _cannot_wake(*_: Any) -> None:
    """While nothing is there that could."""


async def _stays_dead(*_: Any) -> bool:
    return False


def not_running(sandbox: Sandbox) -> Error:
    if sandbox.state is SandboxState.RUNNING:
        return InternalError(f"sandbox {sandbox.id} should run but is not known to")
    why = f": {sandbox.end.message}" if sandbox.end else ""
    if sandbox.state in _RESTING:
        why = "; resume it first" if sandbox.state is SandboxState.PAUSED else "; start it first"
    return SandboxNotRunning(f"cannot use sandbox {sandbox.id}: it is {sandbox.state}{why}", **states.about(sandbox))
