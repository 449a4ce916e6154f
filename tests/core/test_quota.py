"""What a tenant may keep."""

from __future__ import annotations

import pytest

from skerry.core.quota import Storage
from skerry.errors import LimitExceeded

pytestmark = pytest.mark.anyio


def storage(limit_mib: int | None, used: dict[str, float]) -> Storage:
    made = Storage(limit_mib)

    async def count(tenant_id: str) -> float:
        return used.get(tenant_id, 0)

    made.count(count)
    made.count(count)
    return made


async def test_what_is_counted_and_reserved_is_one_sum() -> None:
    quota = storage(100, {"a": 20})
    async with quota.reserve("a", 50, "x"):
        assert await quota.used_mib("a") == 90
        with pytest.raises(LimitExceeded) as caught:
            async with quota.reserve("a", 11, "volume 'v'"):
                pass
        assert caught.value.details == {
            "limit": "storage_quota_mib", "limit_mib": 100, "current_mib": 90, "requested_mib": 11,
        }  # fmt: skip
        assert "volume 'v'" in caught.value.message
        async with quota.reserve("b", 60, "x"):
            pass
    assert await quota.used_mib("a") == 40
    async with quota.reserve("a", 60, "x"):
        pass


async def test_less_is_always_possible() -> None:
    quota = storage(10, {"a": 20})
    async with quota.reserve("a", -5, "x"):
        assert await quota.used_mib("a") == 35


async def test_a_failure_gives_the_room_back() -> None:
    quota = storage(10, {})
    with pytest.raises(ZeroDivisionError):
        async with quota.reserve("a", 10, "x"):
            raise ZeroDivisionError
    async with quota.reserve("a", 10, "x"):
        pass


async def test_no_limit() -> None:
    async with storage(None, {"a": 1e9}).reserve("a", 1e9, "x"):
        pass
