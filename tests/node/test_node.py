"""What the node decides: who gets which sandbox, and what follows from an end."""

from __future__ import annotations

import os
import signal
from dataclasses import replace

import anyio
import pytest

from skerry.errors import (
    AgentViolation,
    HostFull,
    IsolationUnavailable,
    SandboxLost,
    SandboxStartFailed,
    ServerStopping,
)
from skerry.models import EndCode, Isolation, Limits
from skerry.node import Node
from skerry.ports import Death, Placement, Wanted
from tests.node.fakes import LIMITS, FakeLink, World, make_node, template

pytestmark = pytest.mark.anyio


def placement(sandbox_id: str = "sbx", **changes: object) -> Placement:
    base = Placement(sandbox_id, template(), Isolation.GVISOR, LIMITS, True, {"A": "1"})
    return replace(base, **changes)  # type: ignore[arg-type]


async def next_death(node: Node) -> Death:
    with anyio.fail_after(5):
        async for death in node.deaths():
            return death
    raise AssertionError("the deaths ended")


async def settled(node: Node, world: World) -> None:
    """Until everything that was ended has been removed."""
    with anyio.fail_after(5):
        while any(world.leftovers.values()):
            await anyio.sleep(0.005)


async def test_a_cold_sandbox_has_what_was_asked_for(world: World) -> None:
    async with make_node(world) as node:
        limits = Limits(cpu=2, memory_mib=1024, disk_mib=2048, pids=50)
        provided = await node.provide(placement(limits=limits, internet=False))
        link = provided.agent
        assert isinstance(link, FakeLink)
        assert provided.origin == "cold"
        assert link.configured == {"env": {"A": "1"}, "hostname": "sbx", "pids": 50}
        assert world.limits[world.unit_of("sbx")] == limits
        assert len(world.blocked) == 1
        await node.set_internet("sbx", True)
        assert not world.blocked
        assert node.agent("sbx") is link
        stats = await node.stats("sbx")
        assert (stats.memory_used_mib, stats.disk_used_mib, stats.cpu_used_s, stats.pids) == (3, 2, 1.5, 4)
        await node.destroy("sbx")
        with pytest.raises(SandboxLost):
            node.agent("sbx")
        await node.destroy("sbx")
        await settled(node, world)
    world.assert_clean()


async def test_a_claim_thaws_a_pooled_one_and_the_pool_refills(world: World) -> None:
    async with make_node(world, minimum=2) as node:
        await node.ready(template(), 2)
        assert len(world.frozen) == 2
        world.log.clear()
        provided = await node.provide(placement(limits=Limits(cpu=2, memory_mib=999, disk_mib=1024, pids=9)))
        assert provided.origin == "pool"
        assert "boot" not in world.log
        assert world.limits[world.unit_of("sbx")].memory_mib == 999
        await node.ready(template(), 2)
        assert len(world.groups) == 3
        world.log.clear()
        await node.provide(placement("same"))
        assert "set_limits" not in world.log
    world.assert_clean()


async def test_another_disk_size_is_never_taken_from_the_pool(world: World) -> None:
    async with make_node(world, minimum=1) as node:
        await node.ready(template())
        provided = await node.provide(placement(limits=LIMITS.model_copy(update={"disk_mib": 4096})))
        assert provided.origin == "cold"
    world.assert_clean()


async def test_the_pool_grows_with_demand_up_to_its_maximum(world: World) -> None:
    async with make_node(world, minimum=1, maximum=3) as node:
        for number in range(6):
            await node.provide(placement(f"sbx{number}"))
        with anyio.fail_after(5):
            while len(world.frozen) < 3:
                await anyio.sleep(0.005)
        await anyio.sleep(0.05)
        assert len(world.frozen) == 3
    world.assert_clean()


async def test_a_new_image_replaces_the_pool(world: World) -> None:
    async with make_node(world, minimum=1) as node:
        await node.ready(template())
        (old,) = world.groups
        await node.ready(template(image="sha256:2"))
        with anyio.fail_after(5):
            while old in world.groups:
                await anyio.sleep(0.005)
        assert len(world.groups) == 1
    world.assert_clean()


async def test_a_pooled_one_that_cannot_be_claimed_is_replaced_without_the_caller_noticing(world: World) -> None:
    async with make_node(world, minimum=1) as node:
        await node.ready(template())
        (broken,) = world.groups
        os.kill(world.groups[broken][0], signal.SIGKILL)
        world.fail["configure"] = SandboxLost("it is gone")
        task_done = anyio.Event()

        async def provide() -> None:
            with pytest.raises(SandboxLost):
                await node.provide(placement())
            world.fail.clear()
            assert (await node.provide(placement())).sandbox_id == "sbx"
            task_done.set()

        async with anyio.create_task_group() as group:
            group.start_soon(provide)
        assert task_done.is_set()
    world.assert_clean()


@pytest.mark.parametrize("step", ["disk", "network", "boot", "dial", "configure"])
async def test_a_failed_step_leaves_nothing(world: World, step: str) -> None:
    async with make_node(world) as node:
        world.fail[step] = HostFull(f"no {step}")
        with pytest.raises(HostFull, match=step):
            await node.provide(placement())
        await settled(node, world)


@pytest.mark.parametrize("step", ["disk", "network", "boot", "dial", "configure"])
async def test_a_caller_that_goes_away_leaves_nothing(world: World, step: str) -> None:
    async with make_node(world) as node:
        world.hold[step] = anyio.Event()
        with anyio.move_on_after(0.1) as scope:
            await node.provide(placement())
        assert scope.cancelled_caught
        await settled(node, world)
        world.hold.clear()
        await node.provide(placement())
    world.assert_clean()


async def test_a_sandbox_that_ends_before_its_agent_answers_is_an_error(world: World) -> None:
    async with make_node(world) as node:
        world.hold["dial"] = anyio.Event()
        async with anyio.create_task_group() as group:

            async def provide() -> None:
                with pytest.raises(SandboxStartFailed, match="ended before"):
                    await node.provide(placement())

            group.start_soon(provide)
            while "dial" not in world.log:
                await anyio.sleep(0.005)
            world.children[0].kill()
        await settled(node, world)


async def test_a_killed_main_process_is_a_crash_and_touches_no_other(world: World) -> None:
    async with make_node(world) as node:
        await node.provide(placement("one"))
        await node.provide(placement("two"))
        os.kill(world.groups[world.unit_of("one")][0], signal.SIGKILL)
        death = await next_death(node)
        assert (death.sandbox_id, death.end.code) == ("one", EndCode.CRASHED)
        assert node.agent("two")
        with pytest.raises(SandboxLost):
            node.agent("one")
    world.assert_clean()


async def test_out_of_memory_is_told_as_such(world: World) -> None:
    async with make_node(world) as node:
        await node.provide(placement())
        unit = world.unit_of("sbx")
        world.oom_kills[unit] = 1
        os.kill(world.groups[unit][0], signal.SIGKILL)
        death = await next_death(node)
        assert death.end.code is EndCode.OUT_OF_MEMORY
        assert "512 MiB" in death.end.message
    world.assert_clean()


@pytest.mark.parametrize(
    ("error", "code"),
    [(AgentViolation("it lied"), EndCode.AGENT_VIOLATION), (SandboxLost("silent"), EndCode.AGENT_UNREACHABLE)],
)
async def test_a_lost_agent_ends_its_sandbox(world: World, error: SandboxLost, code: EndCode) -> None:
    async with make_node(world) as node:
        await node.provide(placement())
        (listener,) = world.listeners.values()
        listener.on_lost(error)
        death = await next_death(node)
        assert (death.end.code, death.end.message) == (code, error.message)
        await settled(node, world)


async def test_a_pooled_one_that_dies_is_replaced_and_not_reported(world: World) -> None:
    async with make_node(world, minimum=1) as node:
        await node.ready(template())
        (old,) = world.groups
        os.kill(world.groups[old][0], signal.SIGKILL)
        with anyio.fail_after(5):
            while old in world.groups or not world.frozen:
                await anyio.sleep(0.005)
        assert (await node.provide(placement())).origin == "pool"
    world.assert_clean()


async def test_isolation_that_is_not_there_is_refused(world: World) -> None:
    async with make_node(world) as node:
        with pytest.raises(IsolationUnavailable):
            await node.provide(placement(isolation=Isolation.MICROVM))
    world.assert_clean()


async def test_a_stopping_node_gives_nothing_out(world: World) -> None:
    node = make_node(world)
    async with node:
        await node.provide(placement())
    with pytest.raises(ServerStopping):
        await node.provide(placement("late"))
    world.assert_clean()


async def test_stopping_in_the_middle_of_refills_leaves_nothing(world: World) -> None:
    world.hold["dial"] = anyio.Event()
    async with make_node(world, minimum=2) as node:
        node.keep_ready(template())
        with anyio.fail_after(5):
            while "dial" not in world.log:
                await anyio.sleep(0.005)
    world.assert_clean()


async def test_a_warm_image_is_made_once_and_restored(world: World) -> None:
    async with make_node(world, minimum=2, warm=True) as node:
        await node.ready(template(), 2)
        assert world.log.count("checkpoint") == 1
        assert world.log.count("restore") == world.log.count("reseed") == 2
    async with make_node(world, minimum=1, warm=True) as node:
        await node.ready(template())
        assert world.log.count("checkpoint") == 1
    world.assert_clean()


async def test_a_warm_image_of_another_server_stays_until_nobody_has_used_it_for_long(world: World) -> None:
    used, forgotten = world.directory / "warm" / "used", world.directory / "warm" / "forgotten"
    for directory in (used, forgotten):
        directory.mkdir(parents=True)
        (directory / "warm.json").write_text('{"template": "base", "interpreters": {}}')
    os.utime(forgotten / "warm.json", (0, 0))
    async with make_node(world, minimum=1, warm=True) as node:
        await node.ready(template())
    assert used.exists()
    assert not forgotten.exists()
    world.assert_clean()


async def test_a_warm_image_that_cannot_be_restored_is_booted_instead(world: World) -> None:
    async with make_node(world, minimum=1, warm=True) as node:
        await node.ready(template())
        world.fail["restore"] = SandboxStartFailed("no")
        await node.provide(placement("a"))
        assert (await node.provide(placement("b"))).origin == "cold"
    world.assert_clean()


async def test_a_kept_sandbox_is_adopted_by_the_next_node_and_the_rest_is_removed(world: World) -> None:
    async with make_node(world, minimum=1) as node:
        node.keep = True
        await node.provide(placement("kept"))
        await node.provide(placement("unwanted"))
    assert not world.frozen
    async with make_node(world) as node:
        (adopted,) = await node.adopt({"kept": Wanted(1), "never-was": Wanted(1)}, [])
        assert adopted.sandbox_id == "kept"
        assert node.agent("kept") is adopted.agent
        assert len(world.groups) == len(world.disks) == len(world.slots) == 1
        os.kill(world.groups[world.unit_of("kept")][0], signal.SIGKILL)
        assert (await next_death(node)).sandbox_id == "kept"
    world.assert_clean()


async def test_a_sandbox_that_does_nothing_is_idle_until_its_next_caller(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skerry.node.node._HOUSEKEEPING_S", 0.005)
    async with make_node(world) as node:
        await node.provide(placement("a"))
        with anyio.fail_after(5):
            while "idle True" not in world.log:
                await anyio.sleep(0.005)
        assert "idle False" not in world.log
        node.agent("a")
        assert world.log[-1] == "idle False"


async def test_parts_without_a_record_are_removed(world: World) -> None:
    world.disks.add("orphan-disk")
    world.groups["orphan-group"] = []
    (world.directory / "run" / "empty").mkdir(parents=True)
    async with make_node(world) as node:
        assert list(await node.adopt({}, [])) == []
        world.assert_clean()
