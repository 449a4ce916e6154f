"""Sandboxes from their request to their end."""

from __future__ import annotations

import hashlib
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import anyio.abc

from skerry.core import states
from skerry.core.alarms import Alarms
from skerry.core.events import Events
from skerry.core.templates import Templates
from skerry.errors import Error, InternalError, SandboxLost, SandboxNotFound, SandboxNotRunning
from skerry.models import (
    EndCode,
    Limits,
    Sandbox,
    SandboxPage,
    SandboxSpec,
    SandboxState,
    SandboxStats,
    SandboxUpdate,
    Template,
    UsageSample,
)
from skerry.ports import Agent, Death, Engine, Placement, SandboxRecord, Store

logger = logging.getLogger(__name__)

LIVE_STATES = (SandboxState.CREATING, SandboxState.RUNNING, SandboxState.PAUSED, SandboxState.STOPPED)
_DEATH_NEWS_S = 2.0
"""How long a call that lost its sandbox waits for the reason."""


@dataclass(eq=False)
class Live:
    """A sandbox that runs, as the core knows it."""

    record: SandboxRecord
    warm: dict[str, int] = field(default_factory=dict)
    """Language → pid of the interpreter that came with it and no context has taken yet."""
    users: int = 0
    """Requests and streams under way."""
    idle_since: float = 0.0
    oom_kills: int = 0
    ended: anyio.Event = field(default_factory=anyio.Event)

    @property
    def id(self) -> str:
        return self.record.sandbox.id

    @property
    def sandbox(self) -> Sandbox:
        return self.record.sandbox

    @property
    def user(self) -> str:
        """Who its programs run as unless the call says otherwise."""
        return str(self.record.internal.get("user", "user"))

    @property
    def workdir(self) -> str | None:
        """Where they start; None: their user's home directory."""
        return self.record.internal.get("workdir")

    @property
    def languages(self) -> list[str]:
        """Of its template, for `run_code`."""
        return list(self.record.internal.get("languages", []))


class Sandboxes:
    """All sandboxes of this server. `start` before use."""

    def __init__(self, engine: Engine, store: Store, templates: Templates, events: Events) -> None:
        self._engine, self._store, self._templates, self._events = engine, store, templates, events
        self._live: dict[str, Live] = {}
        self._creating: dict[str, anyio.Event] = {}
        self._timeouts = Alarms(self._timed_out)
        self._idle = Alarms(self._idled_out)
        self.on_end: Sequence[Callable[[str], None]] = ()
        """Called with the id of each sandbox that has ended."""

    async def start(self, group: anyio.abc.TaskGroup) -> None:
        """Take over what an earlier server left running, and begin to watch."""
        await self._adopt()
        group.start_soon(self._timeouts.run)
        group.start_soon(self._idle.run)
        group.start_soon(self._watch_deaths)

    # --- create -----------------------------------------------------------------------------------------------------

    async def create(
        self, tenant_id: str, spec: SandboxSpec, idempotency_key: str | None = None, *,
        internal: Mapping[str, Any] | None = None,
    ) -> Sandbox:  # fmt: skip
        """A running sandbox. The same idempotency key and spec again: the first one, as it is now.

        Args:
            internal: what a façade wants to know of it later; JSON-able.

        Raises:
            TemplateNotFound, IsolationUnavailable, HostFull, SandboxStartFailed, Conflict
        """
        template = await self._templates.get(tenant_id, spec.template)
        known = {
            **(internal or {}), "languages": template.languages, "user": template.user, "workdir": template.workdir,
        }  # fmt: skip
        record = replace(_new_record(tenant_id, spec, template), internal=known)
        idempotency = None
        if idempotency_key is not None:
            idempotency = (idempotency_key, hashlib.sha256(spec.model_dump_json().encode()).digest())
        self._creating[record.sandbox.id] = anyio.Event()
        try:
            stored = await self._store.create_sandbox(record, idempotency)
            if stored.sandbox.id != record.sandbox.id:
                return await self._earlier(tenant_id, stored.sandbox.id)
            return await self._provide(record, template)
        finally:
            self._creating.pop(record.sandbox.id).set()

    async def _earlier(self, tenant_id: str, sandbox_id: str) -> Sandbox:
        """The sandbox of an earlier request with the same idempotency key, which may still be creating it."""
        if under_way := self._creating.get(sandbox_id):
            await under_way.wait()
        return await self.get(tenant_id, sandbox_id)

    async def _provide(self, record: SandboxRecord, template: Template) -> Sandbox:
        sandbox = record.sandbox
        placement = Placement(
            sandbox.id, template, sandbox.isolation, sandbox.limits, sandbox.internet, dict(record.env)
        )
        try:
            provided = await self._engine.provide(placement)
        except BaseException as error:
            with anyio.CancelScope(shield=True):
                await self._never_ran(record, error)
            raise
        sandbox = states.transition(sandbox, SandboxState.RUNNING).model_copy(update={"origin": provided.origin})
        live = Live(replace(record, sandbox=sandbox), dict(provided.warm))
        self._live[sandbox.id] = live
        try:
            await self._store.update_sandbox(live.record)
            await self._events.record(record.tenant_id, sandbox.id, "sandbox.running", {"origin": provided.origin})
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self._end(live, EndCode.KILLED, "the request that created it was abandoned")
            raise
        self._set_alarms(live)
        return live.sandbox

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

    def running(self, sandbox_id: str) -> SandboxRecord:
        """A running sandbox of any tenant, for façades whose callers show a token of the sandbox instead of a key.

        Raises:
            SandboxNotRunning: there is none with that id, or it has ended.
        """
        live = self._live.get(sandbox_id)
        if live is None:
            raise SandboxNotRunning(f"cannot use sandbox {sandbox_id}: it does not run", sandbox_id=sandbox_id)
        return live.record

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
        """Change what can change while it runs. Raises SandboxNotFound, SandboxNotRunning."""
        async with self.use(tenant_id, sandbox_id) as (live, _):
            given = change.model_fields_set
            update: dict[str, Any] = {}
            if "timeout_s" in given:
                update["expires_at"] = _expiry(change.timeout_s)
            if "idle_timeout_s" in given:
                update["idle_timeout_s"] = change.idle_timeout_s
            if change.metadata is not None:
                update["metadata"] = dict(change.metadata)
            if change.internet is not None and change.internet != live.sandbox.internet:
                await self._engine.set_internet(sandbox_id, change.internet)
                update["internet"] = change.internet
            await self.save(live, sandbox=live.sandbox.model_copy(update=update))
            self._set_alarms(live)
            return live.sandbox

    async def save(self, live: Live, **changes: Any) -> None:
        """Change the record of a live sandbox, here and in the store."""
        live.record = replace(live.record, **changes)
        await self._store.update_sandbox(live.record)

    async def stats(self, tenant_id: str, sandbox_id: str) -> SandboxStats:
        """Raises SandboxNotFound, SandboxNotRunning."""
        async with self.use(tenant_id, sandbox_id):
            return await self._engine.stats(sandbox_id)

    async def history(self, tenant_id: str, sandbox_id: str) -> list[UsageSample]:
        """Samples of what it has used, the oldest first. Raises SandboxNotFound, SandboxNotRunning."""
        async with self.use(tenant_id, sandbox_id):
            return self._engine.history(sandbox_id)

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
        if live is None or live.record.tenant_id != tenant_id:
            record = await self.record(tenant_id, sandbox_id)
            raise _not_running(record.sandbox)
        live.users += 1
        try:
            yield live, self._engine.agent(sandbox_id)
        except SandboxLost as error:
            with anyio.move_on_after(_DEATH_NEWS_S):
                await live.ended.wait()
            if live.ended.is_set():
                raise _not_running(live.sandbox) from error
            raise
        finally:
            live.users -= 1
            if live.users == 0:
                self._set_idle_alarm(live)

    # --- the end ----------------------------------------------------------------------------------------------------

    async def destroy(self, tenant_id: str, sandbox_id: str) -> None:
        """End it now; no-op when it has ended. Raises SandboxNotFound."""
        if under_way := self._creating.get(sandbox_id):
            await under_way.wait()
        await self.record(tenant_id, sandbox_id)
        if live := self._live.get(sandbox_id):
            await self._end(live, EndCode.KILLED, "killed through the API")

    async def stop(self, *, keep: bool) -> None:
        """The server stops. `keep`: leave them running for the next one."""
        if keep:
            return
        for sandbox_id in list(self._live):  # first, so that none of them competes with what follows
            await self._engine.destroy(sandbox_id)
        for live in list(self._live.values()):
            await self._end(live, EndCode.SERVER_STOPPED, "the server was stopped")

    async def _end(self, live: Live, code: EndCode, message: str, *, at: datetime | None = None) -> None:
        if self._live.pop(live.id, None) is None:
            return
        self._timeouts.set(live.id, None)
        self._idle.set(live.id, None)
        with anyio.CancelScope(shield=True):
            sandbox = states.ended(live.sandbox, code, message)
            live.record = replace(live.record, sandbox=sandbox)
            live.ended.set()
            for tell in self.on_end:
                tell(live.id)
            await self._engine.destroy(live.id)
            await self._store.update_sandbox(live.record)
            await self._events.record(
                live.record.tenant_id, live.id, f"sandbox.{sandbox.state}", {"code": code.value, "reason": message}
            )

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
            await self._end(live, death.end.code, message)
        except Exception:  # one sandbox's end never stops the watch over the others
            logger.exception("cannot record the end of sandbox %s", death.sandbox_id)

    async def _timed_out(self, sandbox_id: str) -> None:
        await self._ring(sandbox_id, EndCode.TIMEOUT, "its time was over; set `timeout_s` to give it more")

    async def _idled_out(self, sandbox_id: str) -> None:
        live = self._live.get(sandbox_id)
        if live is not None and live.users == 0:
            await self._ring(sandbox_id, EndCode.IDLE_TIMEOUT, f"nobody used it for {live.sandbox.idle_timeout_s:g} s")

    async def _ring(self, sandbox_id: str, code: EndCode, message: str) -> None:
        if live := self._live.get(sandbox_id):
            try:
                await self._end(live, code, message)
            except Exception:
                logger.exception("cannot end sandbox %s in time", sandbox_id)

    # --- the rest ---------------------------------------------------------------------------------------------------

    def live(self) -> list[Live]:
        """Those that run, for counting."""
        return list(self._live.values())

    async def _adopt(self) -> None:
        records, cursor = await self._store.sandboxes(None, states=LIVE_STATES, limit=1000)
        while cursor is not None:
            more, cursor = await self._store.sandboxes(None, states=LIVE_STATES, limit=1000, cursor=cursor)
            records += more
        wanted = {record.sandbox.id: record for record in records if record.sandbox.state is SandboxState.RUNNING}
        found = {provided.sandbox_id: provided for provided in await self._engine.adopt(list(wanted))}
        for record in records:
            provided = found.get(record.sandbox.id)
            if provided is not None:
                live = self._live[record.sandbox.id] = Live(record, dict(provided.warm))
                self._set_alarms(live)
                await self._events.record(record.tenant_id, live.id, "sandbox.adopted")
            else:
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

    def _set_alarms(self, live: Live) -> None:
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
        id="sb" + secrets.token_hex(10),
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
        expires_at=_expiry(spec.timeout_s),
        idle_timeout_s=spec.idle_timeout_s,
    )
    return SandboxRecord(sandbox, tenant_id, {**template.env, **spec.env})


def _expiry(timeout_s: float | None) -> datetime | None:
    return None if timeout_s is None else datetime.now(UTC) + timedelta(seconds=timeout_s)


def _not_running(sandbox: Sandbox) -> Error:
    if sandbox.state is SandboxState.RUNNING:
        return InternalError(f"sandbox {sandbox.id} should run but is not known to")
    why = f": {sandbox.end.message}" if sandbox.end else ""
    return SandboxNotRunning(f"cannot use sandbox {sandbox.id}: it is {sandbox.state}{why}", **states.about(sandbox))
