from __future__ import annotations

from skerry.node.load import Load


def test_the_sum_and_each_ones_share() -> None:
    load = Load()
    assert load.measure([("a", 5.0), ("b", 1.0)], now=10.0) == 0.0
    assert not load.is_idle("a")
    assert load.measure([("a", 6.0), ("b", 1.01), ("new", 50.0)], now=12.0) == 0.505
    assert not load.is_idle("a")
    assert load.is_idle("b")
    assert not load.is_idle("new")
    assert not load.is_idle("unknown")


def test_one_that_is_gone_counts_no_more() -> None:
    load = Load()
    load.measure([("a", 5.0)], now=10.0)
    load.measure([("a", 6.0)], now=11.0)
    assert load.measure([], now=12.0) == 0.0
