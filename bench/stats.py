"""Order statistics of samples. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Summary:
    """What every table shows of a measurement, in the samples' own unit."""

    count: int
    median: float
    p95: float
    p99: float
    minimum: float
    maximum: float


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Nearest rank: the smallest sample that at least `percent` % of `ordered` (ascending, not empty) do not exceed."""
    rank = math.ceil(percent / 100 * len(ordered))
    return ordered[min(max(rank, 1), len(ordered)) - 1]


def median(ordered: Sequence[float]) -> float:
    """The middle of `ordered` (ascending, not empty), or the mean of the middle two."""
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def summarize(samples: Sequence[float]) -> Summary:
    """Raises ValueError when there is no sample: a number made of nothing must not reach a table."""
    if not samples:
        raise ValueError("cannot summarize: no samples")
    ordered = sorted(samples)
    return Summary(
        count=len(ordered),
        median=median(ordered),
        p95=percentile(ordered, 95),
        p99=percentile(ordered, 99),
        minimum=ordered[0],
        maximum=ordered[-1],
    )


def trimmed(samples: Sequence[float], share: float = 0.05) -> list[float]:
    """Ascending, without the lowest and the highest `share` (rounded down): the public ComputeSDK benchmark does this
    before its statistics."""
    ordered = sorted(samples)
    cut = math.floor(len(ordered) * share)
    return ordered[cut : len(ordered) - cut] if cut and len(ordered) > 2 * cut else ordered


def composite_score(samples: Sequence[float], success_rate: float, ceiling: float = 10.0) -> float:
    """ComputeSDK's published score, 0–100: 60 % median, 25 % p95, 15 % p99 of the trimmed seconds, each linear from 100
    at 0 to 0 at `ceiling`; times the success rate."""
    if not samples:
        return 0.0
    summary = summarize(trimmed(samples))
    weighted = ((summary.median, 0.60), (summary.p95, 0.25), (summary.p99, 0.15))
    return success_rate * sum(weight * max(0.0, 100 * (1 - value / ceiling)) for value, weight in weighted)
