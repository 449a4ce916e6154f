"""A sandbox's own command: what it runs from its start on, and whose end is the sandbox's stop, or its next start.

A restart is a stop and a start: every process ends, the files stay. Whether there is one, after an exit or after the
sandbox's own death, is the policy's to say, and when it is due is written down, so that a later server makes it.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import anyio.abc

from skerry.core.lifecycle import Lifecycle
from skerry.core.records import COMMAND, at_rest
from skerry.core.sandboxes import Live, Sandboxes
from skerry.errors import CannotStartProcess, Error, SandboxLost
from skerry.models import (
    EndCode,
    Exit,
    LastExit,
    RestartWhen,
    Sandbox,
    SandboxState,
    Started,
    StopSpec,
)
from skerry.ports import Agent, Death, Engine

logger = logging.getLogger(__name__)

BACKOFF_MAX_S = 300.0
STEADY_S = 600.0
"""A command that ran for so long is no part of a row of failures."""
_TAG = "command"
_NOT_FOUND, _KILLED = 127, 137
"""Exit codes, as of a shell: it could not be started; it was killed with its sandbox."""
_AGAIN_S = 0.1
_DEATHS = frozenset({EndCode.CRASHED, EndCode.OUT_OF_MEMORY})
"""Ends that a policy may answer with a restart: nobody wanted them, and nothing hostile caused them."""


class Commands:
    """The commands of all sandboxes."""

    def __init__(self, engine: Engine, sandboxes: Sandboxes, lifecycle: Lifecycle) -> None:
        self._engine, self._sandboxes, self._lifecycle = engine, sandboxes, lifecycle
        sandboxes.on_begin = (*sandboxes.on_begin, self._begun)

    def start(self, group: anyio.abc.TaskGroup) -> None:
        """Follow commands in `group`; to be called before the sandboxes start."""
        self._group = group

    async def resume(self) -> None:
        """Make the restarts that an earlier server has left; to be called when the sandboxes have started."""
        for record in await self._sandboxes.waiting():
            self._group.start_soon(self._restart, record.tenant_id, record.sandbox)

    # --- running ----------------------------------------------------------------------------------------------------

    def _begun(self, live: Live) -> None:
        if live.sandbox.command is not None:
            self._group.start_soon(self._follow, live, name=f"command of {live.id}")

    async def _follow(self, live: Live) -> None:
        """Start the command, unless it runs already, and see to its end."""
        try:
            code = await self._exit_code(live)
            if code is not None:
                await self._ended(live, code)
        except Error as error:
            if not live.ended.is_set():
                logger.warning("cannot follow the command of sandbox %s: %s", live.id, error)
        except Exception:
            logger.exception("cannot follow the command of sandbox %s", live.id)

    async def _exit_code(self, live: Live) -> int | None:
        """None: the sandbox has left before."""
        try:
            pid = live.record.internal.get(COMMAND) or await self._spawn(live)
        except CannotStartProcess as error:
            logger.info("cannot start the command of sandbox %s: %s", live.id, error)
            return _NOT_FOUND
        while not live.ended.is_set():
            try:
                async with self._engine.agent(live.id).attach(pid) as events:
                    async for event in events:
                        if isinstance(event, Exit):
                            return event.exit_code
            except SandboxLost:
                with anyio.move_on_after(_AGAIN_S):
                    await live.ended.wait()
        return None

    async def _spawn(self, live: Live) -> int:
        agent: Agent = self._engine.agent(live.id)
        command, template = live.sandbox.command, live.template
        assert command is not None
        argv = ["/bin/bash", "-l", "-c", command] if isinstance(command, str) else command
        async with agent.run(argv, cwd=template.workdir, user=template.user, tag=_TAG) as events:
            started = await anext(events)
        assert isinstance(started, Started)
        pid = started.process.pid
        await self._sandboxes.save(live, internal={**live.record.internal, COMMAND: pid})
        return pid

    # --- ending -----------------------------------------------------------------------------------------------------

    async def _ended(self, live: Live, code: int) -> None:
        change = after(live.sandbox, code, datetime.now(UTC))
        sandbox = await self._lifecycle.stop(live.record.tenant_id, live.id, StopSpec(grace_s=1.0), change)
        if sandbox.restart_at is not None:
            await self._restart(live.record.tenant_id, sandbox)

    async def died(self, live: Live, death: Death) -> bool:
        """It has died by itself: whether it starts again, and rests until then."""
        change = after(live.sandbox, _KILLED, death.end.at)
        if death.state is None or death.end.code not in _DEATHS or change["restart_at"] is None:
            return False
        sandbox = await self._sandboxes.rest(live, SandboxState.STOPPED, at_rest(death.state), death.state, change)
        self._group.start_soon(self._restart, live.record.tenant_id, sandbox)
        return True

    async def _restart(self, tenant_id: str, sandbox: Sandbox) -> None:
        """When it is due, unless somebody was first."""
        assert sandbox.restart_at is not None
        await anyio.sleep(max(0.0, (sandbox.restart_at - datetime.now(UTC)).total_seconds()))
        with suppress(Error):
            await self._lifecycle.restart(tenant_id, sandbox.id, sandbox.restart_at)


def after(sandbox: Sandbox, code: int, at: datetime) -> dict[str, Any]:
    """What changes in a sandbox whose command has ended: the exit, and when its policy starts it again, if it does."""
    policy, restarts = sandbox.restart, sandbox.restarts
    if sandbox.started_at is not None and (at - sandbox.started_at).total_seconds() >= STEADY_S:
        restarts = 0
    wanted = policy.when is RestartWhen.ALWAYS or (policy.when is RestartWhen.ON_FAILURE and code != 0)
    change: dict[str, Any] = {"last_exit": LastExit(exit_code=code, at=at), "restart_at": None, "restarts": restarts}
    if wanted and (policy.retries is None or restarts < policy.retries):
        delay_s = min(BACKOFF_MAX_S, policy.backoff_s * 2 ** min(restarts, 20))
        change |= {"restart_at": at + timedelta(seconds=delay_s), "restarts": restarts + 1}
    return change
