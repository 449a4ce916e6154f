"""How many sandboxes a pool should hold."""

from __future__ import annotations

from typing import Any

from skerry.models import Isolation
from skerry.node.pool import Pool, PoolSettings

from .fakes import template


def pool(*, units: int = 0, **settings: Any) -> Pool:
    made = Pool(template(), Isolation.GVISOR, PoolSettings(**settings))
    for _ in range(units):
        made.put(object())  # type: ignore[arg-type]
    return made


def test_a_pool_follows_its_demand() -> None:
    busy = pool(minimum=2, maximum=5, units=2)
    assert busy.missing(1000.0) == 0
    for _ in range(4):
        busy.take(1000.0)
    assert (busy.target(1000.0), busy.missing(1000.0)) == (4, 4)
    for _ in range(20):
        busy.take(1000.0)
    assert busy.target(1000.0) == 5


def test_it_shrinks_when_it_has_been_quiet() -> None:
    busy = pool(minimum=1, maximum=5, units=3, quiet_s=60, forget_s=900)
    busy.take(1000.0)
    assert busy.surplus(1030.0) is None
    assert busy.surplus(1200.0) is not None
    assert busy.surplus(1200.0) is None


def test_what_nobody_uses_is_forgotten_unless_it_is_pinned() -> None:
    forgotten, pinned = (pool(minimum=1, units=2, forget_s=900) for _ in range(2))
    pinned.pinned = True
    for one in (forgotten, pinned):
        one.take(1000.0)
    assert (forgotten.target(2000.0), pinned.target(2000.0)) == (0, 1)
    assert forgotten.surplus(2000.0) is not None
    assert len(forgotten) == 0
    forgotten.take(2000.0)
    assert forgotten.missing(2000.0) == 1


def test_one_that_was_never_claimed_is_kept() -> None:
    assert pool(minimum=2, forget_s=1).target(10_000.0) == 2
