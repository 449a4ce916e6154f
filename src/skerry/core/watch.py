"""Ends that nobody asks for: times that are over, and deaths."""

from __future__ import annotations

import logging

import anyio.abc

from skerry.core.commands import Commands
from skerry.core.lifecycle import Lifecycle
from skerry.core.sandboxes import Sandboxes
from skerry.errors import Error
from skerry.models import EndCode, OnTimeout
from skerry.ports import Death, Engine

logger = logging.getLogger(__name__)


class Watch:
    """Watches over all sandboxes."""

    def __init__(self, engine: Engine, sandboxes: Sandboxes, lifecycle: Lifecycle, commands: Commands) -> None:
        self._engine, self._sandboxes, self._lifecycle, self._commands = engine, sandboxes, lifecycle, commands

    def start(self, group: anyio.abc.TaskGroup) -> None:
        """Begin."""
        timeouts, idle = self._sandboxes.timeouts, self._sandboxes.idle
        group.start_soon(timeouts.run, lambda sandbox_id: group.start_soon(self._timed_out, sandbox_id))
        group.start_soon(idle.run, lambda sandbox_id: group.start_soon(self._idled_out, sandbox_id))
        group.start_soon(self._watch_deaths)

    async def _timed_out(self, sandbox_id: str) -> None:
        await self._over(sandbox_id, EndCode.TIMEOUT, "its time was over; set `timeout_s` to give it more")

    async def _idled_out(self, sandbox_id: str) -> None:
        live = self._sandboxes.find(sandbox_id)
        if live is not None and live.users == 0:
            message = f"nobody used it for {live.sandbox.idle_timeout_s:g} s"
            await self._over(sandbox_id, EndCode.IDLE_TIMEOUT, message)

    async def _over(self, sandbox_id: str, code: EndCode, message: str) -> None:
        live = self._sandboxes.find(sandbox_id)
        if live is None:
            return
        try:
            if live.sandbox.on_timeout is OnTimeout.PAUSE:
                await self._lifecycle.lay_down(live)
            else:
                await self._sandboxes.finish(sandbox_id, code, message)
        except Error as error:
            logger.warning("cannot end sandbox %s in time: %s", sandbox_id, error)
        except Exception:
            logger.exception("cannot end sandbox %s in time", sandbox_id)

    async def _watch_deaths(self) -> None:
        async for death in self._engine.deaths():
            try:
                await self._died(death)
            except Exception:  # one sandbox's end never stops the watch over the others
                logger.exception("cannot record the end of sandbox %s", death.sandbox_id)

    async def _died(self, death: Death) -> None:
        live = self._sandboxes.find(death.sandbox_id)
        if live is None or await self._commands.died(live, death):
            return
        message = death.end.message
        if death.end.code is EndCode.OUT_OF_MEMORY:
            message = f"it needed more than its {live.sandbox.limits.memory_mib} MiB of memory"
        await self._sandboxes.end(live, death.end.code, message)
        if death.state is not None:
            await self._engine.remove_state(death.state.id)
