"""From one kind of rest to another."""

from __future__ import annotations

from contextlib import asynccontextmanager

import anyio
import pytest

from skerry.core import Core
from skerry.errors import SnapshotNotFound
from skerry.models import PauseGrade, PauseSpec, Process, ResumeSpec, SandboxSpec, SandboxState, SnapshotSpec, StopSpec

from .test_sandboxes import Engine, core_on, until

pytestmark = pytest.mark.anyio


class Quiet:
    """An agent of a sandbox in which nothing was started."""

    async def processes(self) -> list[Process]:
        return []


@pytest.fixture(autouse=True)
def quiet(engine: Engine) -> None:
    engine.agent = lambda sandbox_id: Quiet()


RESET = StopSpec(reset=True, grace_s=0)


async def test_what_is_frozen_can_be_written_to_the_disk(core: Core, engine: Engine) -> None:
    sandbox = await core.create("t", SandboxSpec())
    frozen = await core.lifecycle.pause("t", sandbox.id, PauseSpec())
    written = await core.lifecycle.pause("t", sandbox.id, PauseSpec(to_disk=True))
    assert (written.state, written.rest.grade) == (SandboxState.PAUSED, PauseGrade.DISK)
    assert written.rest.since == frozen.rest.since, "it is paused since then"
    assert engine.running == {}
    assert (await core.lifecycle.resume("t", sandbox.id, ResumeSpec())).state is SandboxState.RUNNING


async def test_what_is_frozen_for_long_is_written_to_the_disk(tmp_path, engine: Engine) -> None:
    async with core_on(tmp_path, engine, frozen_s=0.05) as core:
        sandbox = await core.create("t", SandboxSpec())
        await core.lifecycle.pause("t", sandbox.id, PauseSpec())

        async def written() -> bool:
            rest = (await core.sandboxes.get("t", sandbox.id)).rest
            return rest.grade is PauseGrade.DISK and not engine.running

        await until(written)


async def test_a_request_while_it_is_written_to_the_disk_waits_and_wakes_it(core: Core, engine: Engine) -> None:
    sandbox = await core.create("t", SandboxSpec())
    standing, written, hold = anyio.Event(), anyio.Event(), engine.hold

    @asynccontextmanager
    async def hold_long(sandbox_id: str):
        async with hold(sandbox_id) as held:
            standing.set()
            await written.wait()
            yield held

    engine.hold = hold_long

    async def use() -> None:
        async with core.sandboxes.use("t", sandbox.id) as (live, _):
            assert written.is_set()
            assert live is core.sandboxes.find(sandbox.id)

    async with anyio.create_task_group() as group:
        group.start_soon(core.lifecycle.pause, "t", sandbox.id, PauseSpec(to_disk=True))
        await standing.wait()
        group.start_soon(use)
        await anyio.wait_all_tasks_blocked()
        written.set()
    assert (await core.sandboxes.get("t", sandbox.id)).state is SandboxState.RUNNING


async def test_a_reset_goes_back_to_the_snapshots_files(core: Core, engine: Engine) -> None:
    original = await core.create("t", SandboxSpec())
    snapshot = await core.snapshots.take("t", original.id, SnapshotSpec())
    for rested in (False, True):
        sandbox = await core.create("t", SandboxSpec(snapshot=snapshot.id))
        if rested:
            await core.lifecycle.pause("t", sandbox.id, PauseSpec(to_disk=True))
        stopped = await core.lifecycle.stop("t", sandbox.id, RESET)
        assert (stopped.state, stopped.rest.memory) == (SandboxState.STOPPED, False)
        await anyio.wait_all_tasks_blocked()
        await core.lifecycle.start_again("t", sandbox.id, ResumeSpec())
        state = engine.running[sandbox.id].state
        assert not state.memory
        assert state.seal == f"seal of {original.id}"
        await core.sandboxes.destroy("t", sandbox.id)
    await core.sandboxes.destroy("t", original.id)
    assert len(engine.states) == 1, "the snapshot's"


async def test_a_reset_without_its_snapshot_changes_nothing(core: Core, engine: Engine) -> None:
    original = await core.create("t", SandboxSpec())
    await core.snapshots.take("t", original.id, SnapshotSpec(name="n"))
    sandbox = await core.create("t", SandboxSpec(snapshot="n"))
    await core.snapshots.remove("t", "n")
    with pytest.raises(SnapshotNotFound, match="it was removed"):
        await core.lifecycle.stop("t", sandbox.id, RESET)
    assert (await core.sandboxes.get("t", sandbox.id)).state is SandboxState.RUNNING
    assert engine.states == {}


async def test_stopping_twice_is_once(core: Core, engine: Engine) -> None:
    sandbox = await core.create("t", SandboxSpec())
    stopped = await core.lifecycle.stop("t", sandbox.id, StopSpec(grace_s=0))
    assert await core.lifecycle.stop("t", sandbox.id, StopSpec(grace_s=0)) == stopped
    assert [event.type for event in await core.events.list("t", sandbox.id)] == ["sandbox.running", "sandbox.stopped"]
