"""Times that are over, and deaths."""

from __future__ import annotations

import anyio
import pytest

from skerry.core import Core
from skerry.errors import SandboxNotRunning
from skerry.models import End, EndCode, OnTimeout, SandboxSpec, SandboxState
from tests.core.test_sandboxes import Engine, until

pytestmark = pytest.mark.anyio


async def test_a_timeout_ends_it_and_is_told(core: Core, engine: Engine) -> None:
    sandbox = await core.create("t", SandboxSpec(timeout_s=0.1))
    end = await until(lambda: _end(core, sandbox.id))
    assert end.code is EndCode.TIMEOUT
    assert engine.running == {}
    with pytest.raises(SandboxNotRunning) as caught:
        await core.sandboxes.stats("t", sandbox.id)
    assert caught.value.details["end"]["code"] == "timeout"

    async def told() -> bool:
        types = [event.type for event in await core.events.list("t", sandbox.id)]
        return types == ["sandbox.running", "sandbox.destroyed"]

    await until(told)


async def _end(core: Core, sandbox_id: str) -> End | None:
    return (await core.sandboxes.get("t", sandbox_id)).end


async def test_use_postpones_the_idle_timeout(core: Core) -> None:
    sandbox = await core.create("t", SandboxSpec(idle_timeout_s=0.2))
    async with core.sandboxes.use("t", sandbox.id):
        await anyio.sleep(0.4)
    assert await _end(core, sandbox.id) is None
    assert (await until(lambda: _end(core, sandbox.id))).code is EndCode.IDLE_TIMEOUT


@pytest.mark.parametrize(
    ("code", "state"),
    [
        (EndCode.CRASHED, SandboxState.FAILED),
        (EndCode.OUT_OF_MEMORY, SandboxState.FAILED),
        (EndCode.AGENT_VIOLATION, SandboxState.FAILED),
    ],
)
async def test_a_death_is_recorded(core: Core, engine: Engine, code: EndCode, state: SandboxState) -> None:
    sandbox = await core.create("t", SandboxSpec())
    await engine.die(sandbox.id, code)
    assert (await until(lambda: _end(core, sandbox.id))).code is code
    assert (await core.sandboxes.get("t", sandbox.id)).state is state


async def test_a_timeout_pauses_where_that_is_wanted(core: Core, engine: Engine) -> None:
    sandbox = await core.create("t", SandboxSpec(timeout_s=0.05, on_timeout=OnTimeout.PAUSE))
    idle = await core.create("t", SandboxSpec(timeout_s=None, idle_timeout_s=0.05, on_timeout=OnTimeout.PAUSE))
    files = await core.create("t", SandboxSpec(timeout_s=0.05, on_timeout=OnTimeout.PAUSE, keep_memory=False))

    async def paused() -> bool:
        return all(
            [(await core.sandboxes.get("t", each.id)).state is SandboxState.PAUSED for each in (sandbox, idle, files)]
        )

    await until(paused)
    assert engine.frozen == {sandbox.id, idle.id}
    kept = (await core.sandboxes.get("t", files.id)).rest
    assert kept is not None
    assert not kept.memory
