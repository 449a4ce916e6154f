"""What a sandbox has used over its life, in a bounded number of samples."""

from __future__ import annotations

from datetime import UTC, datetime

from skerry.models import UsageSample

STEP_S = 5.0
"""Between samples at first, as E2B's metrics have it."""
KEPT = 360
"""Samples at most. When there are more, every second one goes and the step doubles: a whole life, however long."""


class History:
    """Times are seconds of a clock that only goes forward."""

    def __init__(self) -> None:
        self._samples: list[UsageSample] = []
        self._step_s = STEP_S
        self._due = 0.0

    def is_due(self, now: float) -> bool:
        return now >= self._due

    def add(self, now: float, *, cpu_used_s: float, memory_used_mib: float, disk_used_mib: float) -> None:
        # Never validated: these are our own numbers, many of them.
        sample = UsageSample.model_construct(
            at=datetime.now(UTC), cpu_used_s=cpu_used_s, memory_used_mib=memory_used_mib, disk_used_mib=disk_used_mib
        )
        self._samples.append(sample)
        if len(self._samples) >= KEPT:
            self._samples = self._samples[1::2]
            self._step_s *= 2
        # Not from now: a late look must not make the next one later.
        self._due = max(self._due + self._step_s, now + self._step_s / 2)

    def samples(self) -> list[UsageSample]:
        """The oldest first."""
        return list(self._samples)
