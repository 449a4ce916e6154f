"""Samples of a sandbox's life."""

from __future__ import annotations

from itertools import pairwise

from skerry.node.history import KEPT, STEP_S, History


def lived(seconds: int) -> History:
    history = History()
    for now in range(seconds):
        if history.is_due(now):
            history.add(now, cpu_used_s=now, memory_used_mib=1, disk_used_mib=2)
    return history


def test_a_sample_every_few_seconds() -> None:
    assert [sample.cpu_used_s for sample in lived(21).samples()] == [0, 5, 10, 15, 20]


def test_a_long_life_is_told_in_as_many_samples() -> None:
    day = [sample.cpu_used_s for sample in lived(86_400).samples()]
    assert KEPT / 2 - 1 <= len(day) < KEPT
    steps = {after - before for before, after in pairwise(day)}
    assert max(steps) <= 2 * min(steps)
    assert day[-1] > 86_400 - 2 * max(steps)
    assert day[0] < 2 * max(steps) + STEP_S
