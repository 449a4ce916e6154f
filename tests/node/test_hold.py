"""Sandboxes that stand still: what is kept of them, what is started from it, and that nothing is left when a step fails."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from skerry.errors import (
    CannotSnapshot,
    HostFull,
    SandboxLost,
    SandboxStartFailed,
    SnapshotDamaged,
    SnapshotIncompatible,
)
from skerry.models import EndCode
from skerry.node import Node
from skerry.ports import State
from tests.node.fakes import World, make_node
from tests.node.test_node import next_death, placement, settled

pytestmark = pytest.mark.anyio


def kept(world: World) -> list[str]:
    """All but what was removed, which goes in its own time."""
    directory = world.directory / "states"
    names = sorted(path.name for path in directory.iterdir()) if directory.exists() else []
    return [name for name in names if not name.startswith(".gone-")]


async def save(node: Node, state_id: str = "st1", *, memory: bool = True, last: bool = False) -> State:
    async with node.hold("sbx") as held:
        return await held.save(state_id, memory=memory, last=last)


async def test_it_stands_still_while_it_is_saved_and_then_goes_on(world: World) -> None:
    async with make_node(world) as node:
        await node.provide(placement())
        state = await save(node)
        begun = world.log.index("hold")
        assert world.log[begun:] == ["hold", "pause", "checkpoint", "export", "resume", "release"]
        assert world.standing == set()
        assert (state.memory, kept(world)) == (True, ["st1"])
        assert (world.directory / "states/st1/checkpoint/pages").read_text() == "memory"
        await node.destroy("sbx")
        await settled(node, world)
        assert kept(world) == ["st1"]
        await node.remove_state("st1")
        assert kept(world) == []


@pytest.mark.parametrize(
    ("step", "error"),
    [("checkpoint", CannotSnapshot("a deleted file")), ("export", HostFull("full")), ("pause", SandboxLost("gone"))],
)
async def test_a_save_that_fails_keeps_nothing_and_the_sandbox_goes_on(
    world: World, step: str, error: Exception
) -> None:
    async with make_node(world) as node:
        await node.provide(placement())
        world.fail[step] = error
        with pytest.raises(type(error)):
            await save(node)
        assert kept(world) == []
        assert world.standing == set()
        assert world.log[-2:] == ["resume", "release"]


async def test_one_that_does_not_go_on_is_ended(world: World) -> None:
    async with make_node(world) as node:
        await node.provide(placement())
        world.fail["resume"] = SandboxLost("it does not answer")
        await save(node)
        assert (await next_death(node)).end.code is EndCode.CRASHED
    world.assert_clean()


async def test_an_end_while_it_is_held_is_an_end(world: World) -> None:
    async with make_node(world) as node:
        await node.provide(placement())
        async with node.hold("sbx") as held:
            await node.destroy("sbx")
            with pytest.raises(SandboxLost):
                await held.save("st1", memory=False)
        await settled(node, world)
        assert kept(world) == []
        assert "resume" not in world.log


async def test_a_start_from_memory_is_reseeded_and_has_its_policy_before_anything_runs(world: World) -> None:
    async with make_node(world) as node:
        await node.provide(placement())
        state = await save(node)
        provided = await node.provide(placement("copy", state=state, internet=False, incarnation=3))
        assert provided.origin == "snapshot"
        assert world.log.count("reseed") == 1
        assert world.blocked_at_restore == world.blocked != set(), "internet was off before the restore"
    world.assert_clean()


async def test_a_copy_that_does_not_confirm_its_reseed_is_destroyed(world: World) -> None:
    async with make_node(world) as node:
        await node.provide(placement())
        state = await save(node)
        world.fail["reseed"] = SandboxLost("no answer")
        with pytest.raises(SandboxLost):
            await node.provide(placement("copy", state=state))
        await node.destroy("sbx")
        await settled(node, world)


@pytest.mark.parametrize("step", ["disk", "network", "boot", "dial", "configure"])
async def test_a_start_that_fails_leaves_the_state(world: World, step: str) -> None:
    async with make_node(world) as node:
        await node.provide(placement())
        state = await save(node)
        world.fail[step] = SandboxStartFailed("no")
        with pytest.raises(SandboxStartFailed):
            await node.provide(placement("copy", state=state))
        del world.fail[step]
        await node.provide(placement("copy", state=state))
    world.assert_clean()


async def test_what_is_not_as_it_was_written_is_refused(world: World) -> None:
    async with make_node(world) as node:
        await node.provide(placement())
        for number, (name, change) in enumerate(
            {
                "disk.img": lambda path: path.write_text("d1sk"),
                "checkpoint/pages": lambda path: path.write_text(""),
                "state.json": lambda path: path.write_text("{}"),
                "more": lambda path: path.write_text("from elsewhere"),
                "checkpoint/gone": lambda path: (path.parent / "pages").unlink(),
            }.items()
        ):
            state = await node.seal(await save(node, f"st{number}"))
            await node.verify(state)
            change(world.directory / "states" / state.id / name)
            with pytest.raises(SnapshotDamaged):
                await node.provide(placement("copy", state=state))
        with pytest.raises(SnapshotDamaged):
            await node.provide(placement("copy", state=State("never-was", True, 0)))
    world.assert_clean()


async def test_a_link_to_elsewhere_is_no_state(world: World, tmp_path: Path) -> None:
    async with make_node(world) as node:
        await node.provide(placement())
        state = await node.seal(await save(node))
        disk = world.directory / "states/st1/disk.img"
        other = tmp_path / "other"
        other.write_text("disk")
        disk.unlink()
        disk.symlink_to(other)
        with pytest.raises(SnapshotDamaged):
            await node.provide(placement("copy", state=state))


async def test_memory_of_another_version_is_refused_and_its_files_are_started(world: World) -> None:
    async with make_node(world) as node:
        await node.provide(placement())
        state = await save(node)
        world.version = "2"
        with pytest.raises(SnapshotIncompatible, match="keep_memory=false"):
            await node.provide(placement("copy", state=state))
        before = world.log.count("boot")
        await node.provide(placement("copy", state=replace(state, memory=False)))
        assert world.log.count("boot") == before + 1
        assert "restore" not in world.log
    world.assert_clean()


async def test_a_copy_of_a_state_stays_when_the_first_is_removed(world: World) -> None:
    async with make_node(world) as node:
        await node.provide(placement())
        state = await node.seal(await save(node))
        copy = await node.copy_state(state, "st2")
        await node.remove_state("st1")
        await node.verify(copy)
        await node.provide(placement("copy", state=copy))
    world.assert_clean()


async def test_freezing_stops_it_and_silence_means_nothing_then(world: World) -> None:
    async with make_node(world) as node:
        await node.provide(placement())
        await node.freeze("sbx")
        assert len(world.frozen) == 1
        assert node.agent("sbx").suspended  # type: ignore[attr-defined]
        await node.thaw("sbx")
        assert world.frozen == set()
        assert not node.agent("sbx").suspended  # type: ignore[attr-defined]
        await node.freeze("sbx")
        await node.destroy("sbx")
        await settled(node, world)
        for call in (node.freeze, node.thaw):
            with pytest.raises(SandboxLost):
                await call("sbx")


async def test_the_files_of_a_durable_one_outlive_its_death(world: World) -> None:
    async with make_node(world) as node:
        await node.provide(placement(is_durable=True))
        (pids,) = world.groups.values()
        os.kill(pids[0], signal.SIGKILL)
        death = await next_death(node)
        assert death.state is not None
        assert not death.state.memory
        await node.provide(placement(state=death.state, incarnation=2))
        await node.remove_state(death.state.id)
    world.assert_clean()


async def test_an_ordinary_one_that_dies_leaves_nothing(world: World) -> None:
    async with make_node(world) as node:
        await node.provide(placement())
        (pids,) = world.groups.values()
        os.kill(pids[0], signal.SIGKILL)
        assert (await next_death(node)).state is None
        assert kept(world) == []
    world.assert_clean()


async def test_states_that_nobody_wants_go_at_the_start(world: World) -> None:
    async with make_node(world) as node:
        await node.provide(placement())
        for name in ("wanted", "unwanted"):
            await save(node, name)
        (world.directory / "states/.half").mkdir()
    async with make_node(world) as node:
        await node.adopt({}, ["wanted"])
        assert kept(world) == ["wanted"]


async def test_nobody_starts_from_a_disk_that_is_still_mounted(world: World) -> None:
    async with make_node(world) as node:
        await node.provide(placement())
        async with node.hold("sbx") as held:
            state = await held.save("st1", memory=True, last=True)
            world.hold["removal"] = anyio.Event()
            await node.destroy("sbx")
        begun = anyio.Event()

        async def start() -> None:
            begun.set()
            await node.provide(placement(state=state, incarnation=2))

        async with anyio.create_task_group() as group:
            group.start_soon(start)
            await begun.wait()
            await anyio.sleep(0.05)
            assert "restore" not in world.log
            world.hold["removal"].set()
        assert "restore" in world.log
    world.assert_clean()
