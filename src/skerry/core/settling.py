"""Paused sandboxes go from memory to the disk: after some time, or when memory is short."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

import anyio

from skerry.core.lifecycle import Lifecycle
from skerry.core.sandboxes import Live, Sandboxes
from skerry.errors import CannotSnapshot, Error, HostFull
from skerry.models import OnTimeout, PauseSpec, RestartWhen, StopSpec
from skerry.ports import Engine

logger = logging.getLogger(__name__)

_LOOK_S = 2.0
"""Between two looks."""
_AGAIN_S = 300.0
"""After one could not be written: until it is tried again."""


class Settling:
    """
    Args:
        frozen_s: how long a paused sandbox waits in memory.
        reserve_mib: memory that shall be available on the machine; with less, none waits.
    """

    def __init__(
        self, engine: Engine, sandboxes: Sandboxes, lifecycle: Lifecycle, *, frozen_s: float, reserve_mib: int
    ) -> None:
        self._engine, self._sandboxes, self._lifecycle = engine, sandboxes, lifecycle
        self._frozen_s, self._reserve_mib = frozen_s, reserve_mib
        self._tried: dict[Live, float] = {}
        """When one could not be written."""

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await anyio.sleep(min(_LOOK_S, self._frozen_s))
            try:
                for live in self._due():
                    await self._write_down(live)
            except Exception:
                logger.exception("cannot look after paused sandboxes")

    async def settle_all(self) -> None:
        """The server stops: what is paused in memory is written to the disk, what would be paused when its time is over
        is paused now, and what always starts again is stopped, and starts with the next server."""
        async with anyio.create_task_group() as group:
            for live in self._sandboxes.live():
                group.start_soon(self._settle, live)

    async def _settle(self, live: Live) -> None:
        tenant_id, sandbox = live.record.tenant_id, live.sandbox
        try:
            if live.is_frozen:
                await self._lifecycle.write_down(live)
            elif sandbox.on_timeout is OnTimeout.PAUSE:
                spec = PauseSpec(keep_memory=sandbox.keep_memory, to_disk=True)
                await self._lifecycle.pause(tenant_id, live.id, spec)
            elif sandbox.restart.when is RestartWhen.ALWAYS:
                await self._lifecycle.stop(tenant_id, live.id, StopSpec(), {"restart_at": datetime.now(UTC)})
        except Error as error:
            logger.warning("sandbox %s cannot rest while the server is stopped: %s", live.id, error)

    def _due(self) -> list[Live]:
        """Those that shall not wait in memory any longer, the one that waits longest first."""
        now, frozen = datetime.now(UTC), self._sandboxes.frozen()
        self._tried = {live: at for live, at in self._tried.items() if live in frozen}
        frozen = [live for live in frozen if not self._tried_lately(live)]
        if frozen and self._engine.available_mib() < self._reserve_mib:
            return frozen[:1]  # and then look again
        return [live for live in frozen if (now - _since(live)).total_seconds() >= self._frozen_s]

    def _tried_lately(self, live: Live) -> bool:
        return anyio.current_time() - self._tried.get(live, -_AGAIN_S) < _AGAIN_S

    async def _write_down(self, live: Live) -> None:
        try:
            await self._lifecycle.write_down(live)
        except (CannotSnapshot, HostFull) as error:
            self._tried[live] = anyio.current_time()
            logger.warning("paused sandbox %s stays in memory: %s", live.id, error)
        except Error as error:
            logger.info("paused sandbox %s was not written to the disk: %s", live.id, error)


def _since(live: Live) -> datetime:
    return live.sandbox.rest.since if live.sandbox.rest is not None else datetime.now(UTC)
