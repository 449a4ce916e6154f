"""One task for each sandbox, inside a fence of its own: it waits for the sandbox's end and says why it came."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import anyio
import anyio.abc

from skerry.drivers.launch import wait_for_exit
from skerry.errors import AgentViolation, Error
from skerry.models import EndCode
from skerry.node.machine import ControlGroups
from skerry.node.records import lives
from skerry.node.unit import Unit

logger = logging.getLogger(__name__)

_MESSAGES = {
    EndCode.OUT_OF_MEMORY: "the sandbox used more than its {memory} MiB of memory",
    EndCode.CRASHED: "the sandbox's main process ended unexpectedly",
}


class Supervisor:
    """Watches units from their start to their end.

    Args:
        group: where the watching tasks run; it must outlive every unit.
        on_death: awaited once for each unit that ended without `release`; never for one that was released. What `watch`
            names goes before.
    """

    def __init__(
        self,
        group: anyio.abc.TaskGroup,
        cgroups: ControlGroups,
        on_death: Callable[[Unit], Awaitable[None]],
    ) -> None:
        self._group = group
        self._cgroups = cgroups
        self._on_death = on_death

    def watch(self, unit: Unit, on_death: Callable[[Unit], Awaitable[None]] | None = None) -> None:
        """From now on the unit's end is noticed."""
        self._group.start_soon(self._watch, unit, on_death or self._on_death, name=f"sandbox {unit.name}")

    def release(self, unit: Unit, code: EndCode) -> None:
        """Its end is wanted: stop watching it."""
        unit.ending = unit.ending or code
        unit.fence.cancel()

    def agent_lost(self, unit: Unit, error: Error) -> None:
        """Its agent broke the protocol or went silent: the sandbox is of no more use, and may be hostile. Ends it."""
        if unit.ending is None:
            violation = isinstance(error, AgentViolation)
            unit.ending = EndCode.AGENT_VIOLATION if violation else EndCode.AGENT_UNREACHABLE
            unit.ending_message = error.message
        try:
            self._cgroups.kill(unit.name)
        except OSError:
            logger.exception("cannot kill sandbox %s", unit.name)

    def out_of_memory(self, unit: Unit) -> None:
        """The kernel has taken memory from a part of it. Ends it: gVisor may wait for that part for ever, and neither
        the caller nor we can tell."""
        unit.ending = unit.ending or EndCode.OUT_OF_MEMORY
        try:
            self._cgroups.kill(unit.name)
        except OSError:
            logger.exception("cannot kill sandbox %s", unit.name)

    async def _watch(self, unit: Unit, on_death: Callable[[Unit], Awaitable[None]]) -> None:
        with unit.fence:
            try:
                # An adopted sandbox may have ended before this, and its pid may be another process's by now.
                if unit.record.pid is not None and lives(unit.record):
                    await wait_for_exit(unit.record.pid)
                if unit.ending is None:
                    unit.ending = self._cause(unit)
                unit.ending_message = unit.ending_message or _MESSAGES.get(unit.ending, "").format(
                    memory=unit.record.limits.memory_mib
                )
                # From here on nothing interrupts: an end that was noticed is an end that is told.
                with anyio.CancelScope(shield=True):
                    await on_death(unit)
            except Exception:
                logger.exception("the supervision of sandbox %s failed", unit.name)

    def _cause(self, unit: Unit) -> EndCode:
        try:
            killed_for_memory = self._cgroups.usage(unit.name).oom_kills > 0
        except OSError:
            killed_for_memory = False
        return EndCode.OUT_OF_MEMORY if killed_for_memory else EndCode.CRASHED
