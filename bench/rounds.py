"""Interleaved measuring: subjects and baselines take turns, so that whatever else the machine does hits all of them."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping

Sampler = Callable[[], Awaitable[float | list[float] | None]]
"""Takes one sample (or several), in seconds or whatever the measurement's unit is; None: this one does not count."""


async def interleave(
    samplers: Mapping[str, Sampler],
    rounds: int,
    *,
    warm_up: int = 1,
    budget_s: float = 600.0,
    before_each: Callable[[], Awaitable[None]] | None = None,
) -> dict[str, list[float]]:
    """Each round runs every sampler once, starting with another one each time.

    Args:
        warm_up: rounds before the first that counts.
        budget_s: no further round begins after that many seconds, however few there were.
        before_each: awaited before every sample, untimed.
    """
    names = list(samplers)
    collected: dict[str, list[float]] = {name: [] for name in names}
    deadline = time.monotonic() + budget_s
    for number in range(warm_up + rounds):
        if number > warm_up and time.monotonic() > deadline:
            break
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            if before_each is not None:
                await before_each()
            sample = await samplers[name]()
            if number >= warm_up and sample is not None:
                collected[name] += sample if isinstance(sample, list) else [sample]
    return collected


def timed(action: Callable[[], object]) -> Sampler:
    """A sampler of how long the blocking `action` takes. It blocks the event loop, which has nothing else to do."""

    async def sample() -> float:
        start = time.perf_counter()
        action()
        return time.perf_counter() - start

    return sample


def timed_async(action: Callable[[], Awaitable[object]]) -> Sampler:
    """A sampler of how long `action` takes."""

    async def sample() -> float:
        start = time.perf_counter()
        await action()
        return time.perf_counter() - start

    return sample


Turn = Callable[[], Awaitable[Mapping[str, float]]]
"""Takes samples that come in an order of their own: by name, as a sampler's."""


async def turns(
    subjects: list[Turn], rounds: int, *, warm_up: int = 1, budget_s: float = 600.0
) -> dict[str, list[float]]:
    """As `interleave`, for subjects of which each gives several samples; other names may come in other rounds."""
    collected: dict[str, list[float]] = {}
    deadline = time.monotonic() + budget_s
    for number in range(warm_up + rounds):
        if number > warm_up and time.monotonic() > deadline:
            break
        shift = number % len(subjects)
        for subject in subjects[shift:] + subjects[:shift]:
            for name, sample in (await subject()).items():
                if number >= warm_up:
                    collected.setdefault(name, []).append(sample)
    return collected


def took(action: Callable[[], object]) -> float:
    """Seconds that the blocking `action` takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start
