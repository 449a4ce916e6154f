"""Many deadlines, one task."""

import anyio
import pytest

from skerry.core.alarms import Alarms

pytestmark = pytest.mark.anyio


async def rung_after(seconds: float, *plan: tuple[str, float | None]) -> list[str]:
    rung: list[str] = []

    alarms = Alarms()
    async with anyio.create_task_group() as group:
        group.start_soon(alarms.run, rung.append)
        await anyio.sleep(0.01)
        for name, delay in plan:
            alarms.set(name, None if delay is None else anyio.current_time() + delay)
        await anyio.sleep(seconds)
        group.cancel_scope.cancel()
    return rung


async def test_in_order_of_time() -> None:
    assert await rung_after(0.2, ("late", 0.1), ("soon", 0.03), ("never", 60)) == ["soon", "late"]


async def test_moved_and_cancelled() -> None:
    plan = (
        ("moved later", 0.02),
        ("moved later", 60),
        ("moved sooner", 60),
        ("moved sooner", 0.03),
        ("off", 0.02),
        ("off", None),
    )
    assert await rung_after(0.2, *plan) == ["moved sooner"]


async def test_what_is_over_rings_at_once() -> None:
    assert await rung_after(0.05, ("past", -5.0)) == ["past"]
