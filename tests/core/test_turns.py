"""One thing after the other for each sandbox; a kill waits for nothing."""

from __future__ import annotations

import anyio
import pytest

from skerry.core.turns import Turns
from skerry.errors import SandboxNotRunning

pytestmark = pytest.mark.anyio


async def test_turns_of_one_sandbox_follow_each_other_and_others_do_not_wait() -> None:
    turns, seen = Turns(), list[str]()

    async def work(sandbox_id: str, name: str, delay_s: float) -> None:
        async with turns.take(sandbox_id):
            seen.append(f"{name} begins")
            await anyio.sleep(delay_s)
            seen.append(f"{name} ends")

    async with anyio.create_task_group() as group:
        group.start_soon(work, "a", "first", 0.05)
        await anyio.sleep(0.01)
        assert turns.is_taken("a")
        group.start_soon(work, "a", "second", 0)
        group.start_soon(work, "b", "other", 0)
    assert seen.index("other ends") < seen.index("first ends") < seen.index("second begins")
    assert not turns.is_taken("a")


async def test_a_kill_ends_what_is_under_way_and_what_waits() -> None:
    turns, undone = Turns(), list[str]()
    refused = list[str]()

    async def work(name: str) -> None:
        try:
            async with turns.take("a"):
                try:
                    await anyio.sleep(60)
                except BaseException:
                    with anyio.CancelScope(shield=True):
                        await anyio.sleep(0.02)
                    undone.append(name)
                    raise
        except SandboxNotRunning:
            refused.append(name)

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(work, "first")
            await anyio.sleep(0.01)
            group.start_soon(work, "second")
            await anyio.sleep(0.01)
            async with turns.kill("a"):
                assert undone == ["first"], "the kill waits until it is undone"
    assert refused == ["first", "second"]
    assert not turns.is_taken("a")


async def test_a_caller_that_goes_away_is_not_told_of_a_kill() -> None:
    turns = Turns()
    with anyio.move_on_after(0.02) as scope:
        async with turns.take("a"):
            await anyio.sleep(60)
    assert scope.cancelled_caught
    async with turns.take("a"):
        pass


async def test_two_kills_both_come_through() -> None:
    turns, done = Turns(), list[int]()

    async def kill(number: int) -> None:
        async with turns.kill("a"):
            await anyio.sleep(0.01)
            done.append(number)

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(kill, 1)
            group.start_soon(kill, 2)
    assert sorted(done) == [1, 2]
