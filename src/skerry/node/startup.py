"""A template's start command: what runs in each of its sandboxes before anybody gets it."""

from __future__ import annotations

import anyio

from skerry.errors import SandboxStartFailed
from skerry.models import Exit, Output, Started, Template
from skerry.ports import Agent

READY_S = 300.0
"""How long it may take to be ready."""
_POLL_S = 0.5
_SETTLE_S = 1.0
_SAID_MAX = 2000


async def launch(agent: Agent, template: Template) -> None:
    """Start it and wait until it is ready; no-op for a template without one.

    Raises:
        SandboxStartFailed: it failed, or was not ready in time; details hold what it said.
    """
    if template.start_command is None:
        return
    async with agent.run(
        ["/bin/bash", "-l", "-c", template.start_command], env=template.env, cwd=template.workdir, user=template.user
    ) as events:
        started = await anext(events)
        assert isinstance(started, Started)
    await _ready(agent, template)
    await _still_well(agent, started.process.pid)


async def _ready(agent: Agent, template: Template) -> None:
    if template.ready_command is None:
        await anyio.sleep(_SETTLE_S)
        return
    with anyio.move_on_after(READY_S):
        while True:
            if await _succeeds(agent, template, template.ready_command):
                return
            await anyio.sleep(_POLL_S)
    raise SandboxStartFailed(
        f"cannot start the template's command: {template.ready_command!r} did not succeed in {READY_S:.0f} s"
    )


async def _succeeds(agent: Agent, template: Template, command: str) -> bool:
    async with agent.run(
        ["/bin/bash", "-l", "-c", command], env=template.env, cwd=template.workdir, user=template.user
    ) as events:
        async for event in events:
            if isinstance(event, Exit):
                return event.exit_code == 0
    return False


async def _still_well(agent: Agent, pid: int) -> None:
    """It may have ended, but not with an error."""
    ended = next((process.exit for process in await agent.processes() if process.pid == pid), None)
    if ended is None or ended.exit_code == 0:
        return
    said = bytearray()
    async with agent.attach(pid) as events:
        async for event in events:
            if isinstance(event, Output):
                said += event.data
    words = said[-_SAID_MAX:].decode(errors="replace").strip()
    raise SandboxStartFailed(
        f"cannot start the template's command: it ended with exit code {ended.exit_code}: {words}", stderr=words
    )
