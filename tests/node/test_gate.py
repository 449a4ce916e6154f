"""Who boots first, and how many at a time."""

from __future__ import annotations

import anyio
import anyio.abc
import pytest

from skerry.node.gate import BootGate

pytestmark = pytest.mark.anyio


async def _settle() -> None:
    for _ in range(5):
        await anyio.lowlevel.checkpoint()


class Boots:
    def __init__(self, gate: BootGate) -> None:
        self.gate = gate
        self.running: list[str] = []
        self.scopes: dict[str, anyio.CancelScope] = {}
        self.finish: dict[str, anyio.Event] = {}

    async def boot(self, name: str, background: bool) -> None:
        self.finish[name] = anyio.Event()
        with anyio.CancelScope() as self.scopes[name]:
            async with self.gate.enter(background=background):
                self.running.append(name)
                try:
                    await self.finish[name].wait()
                finally:
                    self.running.remove(name)


async def test_callers_go_before_refills() -> None:
    boots = Boots(BootGate(1, 1))
    async with anyio.create_task_group() as group:
        group.start_soon(boots.boot, "first", True)
        await _settle()
        group.start_soon(boots.boot, "refill", True)
        await _settle()
        group.start_soon(boots.boot, "caller", False)
        await _settle()
        assert boots.running == ["first"]
        assert boots.gate.callers_waiting == 1
        boots.finish["first"].set()
        await _settle()
        assert boots.running == ["caller"]
        boots.finish["caller"].set()
        await _settle()
        assert boots.running == ["refill"]
        boots.finish["refill"].set()


async def test_refills_leave_room_for_a_caller() -> None:
    boots = Boots(BootGate(2, 1))
    async with anyio.create_task_group() as group:
        for name in ("a", "b"):
            group.start_soon(boots.boot, name, True)
        await _settle()
        assert boots.running == ["a"]
        group.start_soon(boots.boot, "caller", False)
        await _settle()
        assert boots.running == ["a", "caller"]
        boots.gate.limit_background(2)
        boots.finish["a"].set()
        await _settle()
        assert boots.running == ["caller", "b"]
        boots.finish["caller"].set()
        boots.finish["b"].set()


async def test_a_cancelled_waiter_and_a_cancelled_boot_give_their_turn_back() -> None:
    boots = Boots(BootGate(1, 1))
    async with anyio.create_task_group() as group:
        for name in ("running", "waiting", "last"):
            group.start_soon(boots.boot, name, False)
            await _settle()
        boots.scopes["waiting"].cancel()
        await _settle()
        boots.scopes["running"].cancel()
        await _settle()
        assert boots.running == ["last"]
        boots.finish["last"].set()
