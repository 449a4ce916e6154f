"""Snapshots, forks and rollbacks, on an engine that only says what it does; see tests/e2e for the real one."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from skerry.core import Core
from skerry.errors import (
    CannotSnapshot,
    Conflict,
    HostFull,
    InvalidRequest,
    LimitExceeded,
    SnapshotDamaged,
    SnapshotNotFound,
)
from skerry.models import (
    ForkSpec,
    PauseSpec,
    SandboxSpec,
    SandboxState,
    SnapshotSpec,
    StopSpec,
)
from tests.core.test_sandboxes import Engine, core_on, until

pytestmark = pytest.mark.anyio

FOREVER = SandboxSpec(timeout_s=None, env={"A": "b"}, metadata={"m": "n"})


async def test_a_snapshot_of_each_kind_of_rest_and_what_is_started_from_it(core: Core, engine: Engine) -> None:
    for how in ("running", "frozen", "disk", "stopped"):
        sandbox = await core.create("t", FOREVER)
        if how == "stopped":
            await core.lifecycle.stop("t", sandbox.id, StopSpec(grace_s=0))
        elif how != "running":
            await core.lifecycle.pause("t", sandbox.id, PauseSpec(to_disk=how == "disk"))
        before = await core.sandboxes.get("t", sandbox.id)
        snapshot = await core.snapshots.take("t", sandbox.id, SnapshotSpec(name=how))
        assert (await core.sandboxes.get("t", sandbox.id)).state is before.state, "it goes on as before"
        assert snapshot.memory == (how != "stopped")
        assert snapshot.sandbox_id == sandbox.id
        for reference in (snapshot.id, how):
            child = await core.create("t", SandboxSpec(snapshot=reference, env={"C": "d"}, memory_mib=256))
            assert child.snapshot == snapshot.id
            assert child.limits.memory_mib == 256
            placement = engine.running[child.id]
            assert placement is not None
            assert placement.state is not None
            assert placement.env == {"A": "b", "C": "d"}
        await core.sandboxes.destroy("t", sandbox.id)
        assert (await core.snapshots.get("t", how)).id == snapshot.id, "it outlives its sandbox"
    assert engine.held == set()
    assert len(engine.frozen) == 0


async def test_what_a_facade_says_of_a_sandbox_it_says_of_its_forks_and_of_nothing_else(core: Core) -> None:
    sandbox = await core.create("t", FOREVER, internal={"facade.x": "open to all"})
    await core.snapshots.take("t", sandbox.id, SnapshotSpec(name="n"))
    [fork] = (await core.snapshots.fork("t", sandbox.id, ForkSpec())).items
    assert fork.sandbox is not None
    child = await core.create("t", SandboxSpec(snapshot="n"))
    told = await core.create("t", SandboxSpec(snapshot="n"), internal={"facade.x": "closed"})
    said = {
        one.id: (await core.sandboxes.record("t", one.id)).internal.get("facade.x")
        for one in (fork.sandbox, child, told)
    }
    assert said == {fork.sandbox.id: "open to all", child.id: None, told.id: "closed"}


async def test_the_newest_snapshot_of_a_name_has_it(core: Core) -> None:
    sandbox = await core.create("t", FOREVER)
    first = await core.snapshots.take("t", sandbox.id, SnapshotSpec(name="n"))
    second = await core.snapshots.take("t", sandbox.id, SnapshotSpec(name="n"))
    assert (await core.snapshots.get("t", "n")).id == second.id
    assert (await core.snapshots.get("t", first.id)).name is None
    page = await core.snapshots.page("t", limit=1)
    assert [snapshot.id for snapshot in page.items] == [second.id]
    rest = await core.snapshots.page("t", limit=1, cursor=page.next_cursor)
    assert [snapshot.id for snapshot in rest.items] == [first.id]
    assert rest.next_cursor is None
    assert (await core.snapshots.page("t", name="n")).items == page.items
    assert (await core.snapshots.page("t", sandbox_id="other")).items == []
    assert (await core.snapshots.page("other")).items == []


async def test_a_snapshot_that_fails_leaves_nothing(core: Core, engine: Engine) -> None:
    sandbox = await core.create("t", FOREVER)
    engine.cannot_save = CannotSnapshot("a deleted file")
    with pytest.raises(CannotSnapshot):
        await core.snapshots.take("t", sandbox.id, SnapshotSpec())
    with pytest.raises(CannotSnapshot):
        await core.snapshots.fork("t", sandbox.id, ForkSpec(count=2))
    assert engine.states == {}
    assert (await core.snapshots.page("t")).items == []
    assert (await core.sandboxes.get("t", sandbox.id)).state is SandboxState.RUNNING


async def test_a_deleted_snapshot_stays_for_those_that_start_from_it(core: Core, engine: Engine) -> None:
    sandbox = await core.create("t", FOREVER)
    snapshot = await core.snapshots.take("t", sandbox.id, SnapshotSpec(name="n"))
    engine.delay_s = 0.1
    async with anyio.create_task_group() as group:
        group.start_soon(core.create, "t", SandboxSpec(snapshot="n"))
        await anyio.sleep(0.03)
        await core.snapshots.remove("t", "n")
        assert engine.states, "a start from it is under way"
        with pytest.raises(SnapshotNotFound):
            await core.snapshots.get("t", snapshot.id)
    assert engine.states == {}
    with pytest.raises(SnapshotNotFound):
        await core.snapshots.remove("t", "n")


async def test_forks_are_sandboxes_of_their_own(core: Core, engine: Engine) -> None:
    parent = await core.create("t", FOREVER)
    reply = await core.snapshots.fork("t", parent.id, ForkSpec(count=3, timeout_s=50, env={"C": "d"}))
    children = [fork.sandbox for fork in reply.items if fork.sandbox is not None]
    assert len({child.id for child in children} | {parent.id}) == 4
    assert all(child.metadata == {"m": "n"} and child.timeout_s == 50 for child in children)
    placements = [engine.running[child.id] for child in children]
    assert all(placement is not None and placement.env == {"A": "b", "C": "d"} for placement in placements)
    assert engine.states == {}, "what they were made from is gone"
    assert (await core.sandboxes.get("t", parent.id)).state is SandboxState.RUNNING
    events = [event.type for event in await core.events.list("t", parent.id)]
    assert events == ["sandbox.running", "sandbox.forked"]


async def test_a_copy_that_cannot_be_made_is_an_error_in_its_place(core: Core, engine: Engine) -> None:
    parent = await core.create("t", FOREVER)
    engine.fails = HostFull("no room")
    reply = await core.snapshots.fork("t", parent.id, ForkSpec(count=2))
    assert [fork.sandbox for fork in reply.items] == [None, None]
    assert all(fork.error is not None and fork.error["code"] == "host.full" for fork in reply.items)
    assert engine.states == {}
    assert [sandbox.id for sandbox in (await core.sandboxes.page("t")).items] == [parent.id]


async def test_a_rollback_is_in_place(core: Core, engine: Engine) -> None:
    sandbox = await core.create("t", FOREVER)
    snapshot = await core.snapshots.take("t", sandbox.id, SnapshotSpec(name="n"))
    for how in ("running", "frozen", "disk", "stopped"):
        if how == "stopped":
            await core.lifecycle.stop("t", sandbox.id, StopSpec(grace_s=0))
        elif how != "running":
            await core.lifecycle.pause("t", sandbox.id, PauseSpec(to_disk=how == "disk"))
        back = await core.snapshots.rollback("t", sandbox.id, "n")
        assert (back.id, back.state, back.snapshot) == (sandbox.id, SandboxState.RUNNING, snapshot.id)
    assert len(engine.states) == 1, "the snapshot's own"
    placement = engine.running[sandbox.id]
    assert placement is not None
    assert placement.incarnation == 5


async def test_a_rollback_that_cannot_be_leaves_it_as_it_is(core: Core, engine: Engine) -> None:
    sandbox, other = [await core.create("t", FOREVER) for _ in range(2)]
    await core.snapshots.take("t", other.id, SnapshotSpec(name="others"))
    with pytest.raises(Conflict, match="start a new sandbox from it"):
        await core.snapshots.rollback("t", sandbox.id, "others")
    with pytest.raises(SnapshotNotFound):
        await core.snapshots.rollback("t", sandbox.id, "none")
    await core.snapshots.take("t", sandbox.id, SnapshotSpec(name="own"))
    engine.states = dict.fromkeys(engine.states, "tampered")
    with pytest.raises(SnapshotDamaged):
        await core.snapshots.rollback("t", sandbox.id, "own")
    assert (await core.sandboxes.get("t", sandbox.id)).state is SandboxState.RUNNING
    assert len(engine.states) == 2


async def test_another_disk_size_is_refused(core: Core) -> None:
    sandbox = await core.create("t", FOREVER)
    await core.snapshots.take("t", sandbox.id, SnapshotSpec(name="n"))
    with pytest.raises(InvalidRequest, match="100 MiB"):
        await core.create("t", SandboxSpec(snapshot="n", disk_mib=200))
    with pytest.raises(SnapshotNotFound):
        await core.create("other", SandboxSpec(snapshot="n"))


async def test_snapshots_outlive_the_server(tmp_path: Path) -> None:
    engine = Engine()
    async with core_on(tmp_path, engine) as core:
        sandbox = await core.create("t", FOREVER)
        await core.snapshots.take("t", sandbox.id, SnapshotSpec(name="n"))
    async with core_on(tmp_path, engine) as core:

        async def started() -> bool:
            return (await core.create("t", SandboxSpec(snapshot="n"))).state is SandboxState.RUNNING

        await until(started)
    engine.close()


async def test_snapshots_count_against_the_tenants_storage(tmp_path: Path) -> None:
    engine = Engine()
    async with core_on(tmp_path, engine, quota_mib=2) as core:
        sandbox = await core.create("t", FOREVER)
        for name in ("one", "two"):
            await core.snapshots.take("t", sandbox.id, SnapshotSpec(name=name))
        with pytest.raises(LimitExceeded, match="2 of 2 MiB") as caught:
            await core.snapshots.take("t", sandbox.id, SnapshotSpec())
        assert caught.value.details["current_mib"] == 2
        assert len(engine.states) == 2, "what was refused is not kept"
        await core.snapshots.remove("t", "one")
        await core.snapshots.take("t", sandbox.id, SnapshotSpec())
        other = await core.create("other", FOREVER)
        await core.snapshots.take("other", other.id, SnapshotSpec())
    engine.close()
