"""The largest recent burst of claims."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from skerry.node.demand import BURST_S, MEMORY_S, Demand


def test_quiet_means_none() -> None:
    assert Demand().burst(100.0) == 0


def test_a_burst_is_counted_and_remembered_for_a_while() -> None:
    demand = Demand()
    for _ in range(7):
        demand.claimed(100.0)
    assert demand.burst(100.0) == 7
    demand.claimed(100.0 + BURST_S + 1)
    assert demand.burst(100.0 + MEMORY_S - 1) == 7
    assert demand.burst(100.0 + MEMORY_S + 1) == 1
    assert demand.burst(200.0 + MEMORY_S + BURST_S) == 0


def test_claims_far_apart_are_no_burst() -> None:
    demand = Demand()
    for number in range(20):
        demand.claimed(number * (BURST_S + 0.1))
    assert demand.burst(20 * (BURST_S + 0.1)) == 1


@given(st.lists(st.floats(0, 60), max_size=60))
def test_it_agrees_with_counting_by_hand(gaps: list[float]) -> None:
    demand, times, now = Demand(), list[float](), 0.0
    for gap in gaps:
        now += gap
        times.append(now)
        demand.claimed(now)
        recent = [end for end in times if end > now - MEMORY_S]
        bursts = [sum(1 for at in times if end - BURST_S < at <= end) for end in recent]
        assert demand.burst(now) == max(bursts)
