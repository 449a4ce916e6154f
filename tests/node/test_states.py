"""States on the disk: what is removed, and what is written after it."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any

import anyio
import pytest

from skerry.node.states import States

pytestmark = pytest.mark.anyio


async def write(states: States, state_id: str) -> None:
    async with states.writing(state_id) as directory:
        (directory / "disk.img").write_text("disk")


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Nothing is deleted before it is set."""
    go, remove = threading.Event(), shutil.rmtree

    def wait(*args: Any, **named: Any) -> None:
        go.wait(10)
        remove(*args, **named)

    monkeypatch.setattr(shutil, "rmtree", wait)
    return go


async def test_a_removed_state_is_gone_at_once_and_its_blocks_soon(tmp_path: Path, slow: threading.Event) -> None:
    states = States(tmp_path)
    await write(states, "one")
    await states.remove("one")
    await states.remove("never was")
    assert states.ids() == []
    slow.set()
    with anyio.fail_after(10):
        while list(tmp_path.iterdir()):
            await anyio.sleep(0.01)


async def test_a_new_state_has_the_room_of_those_removed_before(tmp_path: Path, slow: threading.Event) -> None:
    states = States(tmp_path)
    await write(states, "one")
    await states.remove("one")
    begun = anyio.Event()

    async def write_another() -> None:
        begun.set()
        await write(states, "two")

    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(write_another)
            await begun.wait()
            await anyio.sleep(0.05)
            assert states.ids() == []
            slow.set()
    assert [path.name for path in tmp_path.iterdir()] == ["two"]
