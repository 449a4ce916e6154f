"""Pause and resume, stop and start, on an engine that only says what it does; see tests/e2e for the real one."""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import anyio
import pytest

from skerry.core import Core
from skerry.errors import CannotSnapshot, Error, HostFull, SandboxNotRunning, SnapshotDamaged, SnapshotNotFound
from skerry.models import (
    EndCode,
    PauseGrade,
    PauseSpec,
    ResumeSpec,
    SandboxSpec,
    SandboxState,
    SandboxUpdate,
    SnapshotSpec,
    StopSpec,
)
from tests.core.test_sandboxes import Engine, core_on, until

pytestmark = pytest.mark.anyio
RESET = StopSpec(reset=True, grace_s=0)


async def test_a_frozen_sandbox_keeps_its_place_in_memory_and_thaws(tmp_path: Path) -> None:
    engine = Engine()
    async with core_on(tmp_path, engine) as core:
        sandbox = await core.create("t", SandboxSpec(timeout_s=100))
        paused = await core.lifecycle.pause("t", sandbox.id, PauseSpec())
        assert (paused.state, paused.expires_at) == (SandboxState.PAUSED, None)
        assert paused.rest is not None
        assert paused.rest.grade is PauseGrade.FROZEN
        assert engine.frozen == {sandbox.id}
        assert (await core.lifecycle.pause("t", sandbox.id, PauseSpec())).rest == paused.rest, "once is enough"
        resumed = await core.lifecycle.resume("t", sandbox.id, ResumeSpec())
        assert engine.frozen == set()
        assert resumed.rest is None
        assert resumed.expires_at is not None
        assert 95 < (resumed.expires_at - datetime.now(UTC)).total_seconds() < 101, "as much time as before"
        assert not engine.states
    engine.close()


async def test_on_the_disk_it_is_nothing_but_its_state(core: Core, engine: Engine) -> None:
    sandbox = await core.create("t", SandboxSpec(timeout_s=None))
    paused = await core.lifecycle.pause("t", sandbox.id, PauseSpec(to_disk=True))
    assert paused.rest is not None
    assert (paused.rest.grade, paused.rest.memory, paused.rest.size_mib) == (PauseGrade.DISK, True, 1.0)
    assert engine.running == {}
    assert list(engine.states.values()) == [sandbox.id]
    resumed = await core.lifecycle.resume("t", sandbox.id, ResumeSpec(timeout_s=5))
    assert resumed.origin == "pool"  # what the engine says
    placement = engine.running[sandbox.id]
    assert placement is not None
    assert placement.state is not None
    assert placement.state.memory
    assert placement.incarnation == 2, "it is told from what may be left of the first"
    assert engine.states == {}, "what was kept is used up"


async def test_using_it_resumes_it_unless_that_is_switched_off(core: Core, engine: Engine) -> None:
    for to_disk in (False, True):
        sandbox = await core.create("t", SandboxSpec(timeout_s=None))
        await core.lifecycle.pause("t", sandbox.id, PauseSpec(to_disk=to_disk))
        async with core.sandboxes.use("t", sandbox.id) as (live, _):
            assert live.sandbox.state is SandboxState.RUNNING
        other = await core.create("t", SandboxSpec(timeout_s=None, auto_resume=False))
        await core.lifecycle.pause("t", other.id, PauseSpec(to_disk=to_disk))
        with pytest.raises(SandboxNotRunning, match="resume it first"):
            async with core.sandboxes.use("t", other.id):
                pass
        assert (await core.sandboxes.get("t", other.id)).state is SandboxState.PAUSED


async def test_many_requests_wake_it_once(core: Core, engine: Engine) -> None:
    sandbox = await core.create("t", SandboxSpec(timeout_s=None))
    await core.lifecycle.pause("t", sandbox.id, PauseSpec(to_disk=True))
    engine.delay_s = 0.05

    async def use() -> None:
        async with core.sandboxes.use("t", sandbox.id):
            pass

    async with anyio.create_task_group() as group:
        for _ in range(10):
            group.start_soon(use)
    placement = engine.running[sandbox.id]
    assert placement is not None
    assert placement.incarnation == 2


async def test_a_pause_that_fails_leaves_it_running(core: Core, engine: Engine) -> None:
    sandbox = await core.create("t", SandboxSpec(timeout_s=None))
    for failure in (CannotSnapshot("a deleted file"), HostFull("no room")):
        engine.cannot_save = failure
        with pytest.raises(type(failure)):
            await core.lifecycle.pause("t", sandbox.id, PauseSpec(to_disk=True))
        assert (await core.sandboxes.get("t", sandbox.id)).state is SandboxState.RUNNING
        assert engine.held == set()
        assert engine.states == {}
        async with core.sandboxes.use("t", sandbox.id):
            pass


async def test_a_resume_that_fails_leaves_it_paused(core: Core, engine: Engine) -> None:
    sandbox = await core.create("t", SandboxSpec(timeout_s=None))
    await core.lifecycle.pause("t", sandbox.id, PauseSpec(to_disk=True))
    engine.fails = HostFull("no room")
    with pytest.raises(HostFull):
        await core.lifecycle.resume("t", sandbox.id, ResumeSpec())
    assert (await core.sandboxes.get("t", sandbox.id)).state is SandboxState.PAUSED
    engine.fails = None
    await core.lifecycle.resume("t", sandbox.id, ResumeSpec())


async def test_what_was_changed_on_the_disk_is_not_started(core: Core, engine: Engine) -> None:
    sandbox = await core.create("t", SandboxSpec(timeout_s=None))
    await core.lifecycle.pause("t", sandbox.id, PauseSpec(to_disk=True))

    async def sealed() -> bool:
        record = await core.sandboxes.record("t", sandbox.id)
        return record.internal["kept"]["seal"] is not None

    await until(sealed)
    engine.states = dict.fromkeys(engine.states, "another")
    with pytest.raises(SnapshotDamaged):
        await core.lifecycle.resume("t", sandbox.id, ResumeSpec())
    assert (await core.sandboxes.get("t", sandbox.id)).state is SandboxState.PAUSED
    await core.sandboxes.destroy("t", sandbox.id)


async def test_a_kill_works_from_every_state(core: Core, engine: Engine) -> None:
    async def rest(how: str) -> str:
        sandbox_id = (await core.create("t", SandboxSpec(timeout_s=None))).id
        if how == "stopped":
            await core.lifecycle.stop("t", sandbox_id, StopSpec(grace_s=0))
        elif how != "running":
            await core.lifecycle.pause("t", sandbox_id, PauseSpec(to_disk=how == "disk"))
        return sandbox_id

    for how in ("running", "frozen", "disk", "stopped"):
        sandbox_id = await rest(how)
        await core.sandboxes.destroy("t", sandbox_id)
        ended = await core.sandboxes.get("t", sandbox_id)
        assert ended.state is SandboxState.DESTROYED, how
        assert ended.end is not None
        assert ended.end.code is EndCode.KILLED
    assert engine.states == {}
    assert engine.running == {}


async def test_a_kill_does_not_wait_for_a_pause_or_a_resume(core: Core, engine: Engine) -> None:
    engine.delay_s = 0
    sandbox = await core.create("t", SandboxSpec(timeout_s=None))
    paused = await core.create("t", SandboxSpec(timeout_s=None))
    await core.lifecycle.pause("t", paused.id, PauseSpec(to_disk=True))
    engine.delay_s = 60
    failures = list[str]()

    async def attempt(what: str) -> None:
        try:
            if what == "pause":
                await core.lifecycle.pause("t", sandbox.id, PauseSpec(to_disk=True))
            else:
                await core.lifecycle.resume("t", paused.id, ResumeSpec())
        except SandboxNotRunning:
            failures.append(what)

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(attempt, "pause")
            group.start_soon(attempt, "resume")
            await anyio.sleep(0.05)
            await core.sandboxes.destroy("t", sandbox.id)
            await core.sandboxes.destroy("t", paused.id)
    assert sorted(failures) == ["pause", "resume"]
    for sandbox_id in (sandbox.id, paused.id):
        assert (await core.sandboxes.get("t", sandbox_id)).state is SandboxState.DESTROYED
    assert engine.states == {}


async def test_a_stopped_one_boots_from_its_files(core: Core, engine: Engine) -> None:
    sandbox = await core.create("t", SandboxSpec(timeout_s=None))
    stopped = await core.lifecycle.stop("t", sandbox.id, StopSpec(grace_s=0))
    assert stopped.state is SandboxState.STOPPED
    with pytest.raises(SandboxNotRunning, match="start it first"):
        async with core.sandboxes.use("t", sandbox.id):
            pass
    with pytest.raises(SandboxNotRunning):
        await core.lifecycle.pause("t", sandbox.id, PauseSpec())
    await core.lifecycle.start_again("t", sandbox.id, ResumeSpec())
    placement = engine.running[sandbox.id]
    assert placement is not None
    assert placement.state is not None
    assert not placement.state.memory
    await core.lifecycle.stop("t", sandbox.id, StopSpec(reset=True, grace_s=0))
    await core.lifecycle.start_again("t", sandbox.id, ResumeSpec())
    placement = engine.running[sandbox.id]
    assert placement is not None
    assert placement.state is None, "it begins with its template again"


async def test_metadata_and_time_can_be_changed_at_rest(core: Core) -> None:
    sandbox = await core.create("t", SandboxSpec(timeout_s=10))
    await core.lifecycle.pause("t", sandbox.id, PauseSpec(to_disk=True))
    changed = await core.sandboxes.update("t", sandbox.id, SandboxUpdate(metadata={"a": "b"}, timeout_s=77))
    assert (changed.state, changed.metadata, changed.expires_at) == (SandboxState.PAUSED, {"a": "b"}, None)
    resumed = await core.lifecycle.resume("t", sandbox.id, ResumeSpec())
    assert (resumed.metadata, resumed.timeout_s) == ({"a": "b"}, 77)


async def test_a_later_server_finds_each_where_it_was(tmp_path: Path) -> None:
    engine = Engine()
    async with core_on(tmp_path, engine) as core:
        running, frozen, disk, stopped = [await core.create("t", SandboxSpec(timeout_s=None)) for _ in range(4)]
        await core.lifecycle.pause("t", frozen.id, PauseSpec())
        await core.lifecycle.pause("t", disk.id, PauseSpec(to_disk=True))
        await core.lifecycle.stop("t", stopped.id, StopSpec(grace_s=0))
    engine.survivors = [running.id, frozen.id]
    engine.states["orphan"] = "of a save that was never committed"
    async with core_on(tmp_path, engine) as core:
        assert sorted(engine.states.values()) == sorted([disk.id, stopped.id])
        assert engine.frozen == {frozen.id}
        for sandbox in (frozen, disk):
            assert (await core.lifecycle.resume("t", sandbox.id, ResumeSpec())).state is SandboxState.RUNNING
        await core.lifecycle.start_again("t", stopped.id, ResumeSpec())
        assert (await core.sandboxes.get("t", running.id)).state is SandboxState.RUNNING
    engine.close()


async def test_another_tenants_sandbox_is_not_there(core: Core) -> None:
    sandbox = await core.create("t", SandboxSpec())
    for call in (
        lambda: core.lifecycle.pause("other", sandbox.id, PauseSpec()),
        lambda: core.lifecycle.resume("other", sandbox.id, ResumeSpec()),
        lambda: core.lifecycle.stop("other", sandbox.id, StopSpec()),
        lambda: core.lifecycle.start_again("other", sandbox.id, ResumeSpec()),
    ):
        with pytest.raises(Error) as caught:
            await call()
        assert caught.value.code == "sandbox.not_found"


async def test_what_is_frozen_can_be_written_to_the_disk(core: Core, engine: Engine) -> None:
    sandbox = await core.create("t", SandboxSpec())
    frozen = await core.lifecycle.pause("t", sandbox.id, PauseSpec())
    written = await core.lifecycle.pause("t", sandbox.id, PauseSpec(to_disk=True))
    assert (written.state, written.rest.grade) == (SandboxState.PAUSED, PauseGrade.DISK)
    assert written.rest.since == frozen.rest.since, "it is paused since then"
    assert engine.running == {}
    assert (await core.lifecycle.resume("t", sandbox.id, ResumeSpec())).state is SandboxState.RUNNING


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
