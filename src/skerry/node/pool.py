"""One template's pool of sandboxes that are booted, warm, frozen, and nobody's yet."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import anyio

from skerry.models import Isolation, Template
from skerry.node.demand import Demand
from skerry.node.unit import Unit


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """How large each template's pool may be."""

    minimum: int = 2
    """Sandboxes kept ready however quiet it is; 0 switches pools off."""
    maximum: int = 16
    """Sandboxes kept ready however busy it is. Each holds the memory of a started interpreter."""
    quiet_s: float = 60.0
    """After a claim, nothing is taken away for that long."""
    forget_s: float = 900.0
    """After that long without a claim nothing is kept ready, unless the pool is pinned."""


class Pool:
    """What is ready, what is on its way, and how many there should be. Does no I/O: `refill.py` acts on it."""

    def __init__(self, template: Template, isolation: Isolation, settings: PoolSettings) -> None:
        self.template = template
        self.isolation = isolation
        self.settings = settings
        self.pinned = False
        """Kept filled however long nobody claims."""
        self.starting = 0
        self.failures = 0
        """Starts that failed since the last that did not."""
        self.changed = anyio.Event()
        self._idle: deque[Unit] = deque()
        self._demand = Demand()
        self._last_claim: float | None = None

    def __len__(self) -> int:
        return len(self._idle)

    def __iter__(self) -> Iterator[Unit]:
        return iter(list(self._idle))

    def take(self, now: float) -> Unit | None:
        """The sandbox that has waited longest; None when the pool is empty. Both count as demand."""
        self._demand.claimed(now)
        self._last_claim = now
        self._notify()
        return self._idle.popleft() if self._idle else None

    def put(self, unit: Unit) -> None:
        self._idle.append(unit)
        self._notify()

    def discard(self, unit: Unit) -> bool:
        """Take out one that died; False when it was not here."""
        try:
            self._idle.remove(unit)
        except ValueError:
            return False
        self._notify()
        return True

    def target(self, now: float) -> int:
        """How many should be ready."""
        if self.settings.minimum <= 0 or (not self.pinned and self._quiet(now) > self.settings.forget_s):
            return 0
        return min(max(self.settings.minimum, self._demand.burst(now)), max(self.settings.maximum, 1))

    def missing(self, now: float) -> int:
        """How many to start now, beyond those that are starting."""
        return max(0, self.target(now) - len(self._idle) - self.starting)

    def surplus(self, now: float) -> Unit | None:
        """One that is no longer wanted, taken out; None while demand is recent. Called again and again, the pool
        shrinks one by one."""
        if len(self._idle) <= self.target(now) or 0 < self._quiet(now) < self.settings.quiet_s:
            return None
        return self._idle.pop()

    def _quiet(self, now: float) -> float:
        """Seconds since the last claim; 0 when there was none."""
        return 0.0 if self._last_claim is None else now - self._last_claim

    def drain(self) -> list[Unit]:
        """Take out all."""
        units = list(self._idle)
        self._idle.clear()
        return units

    def _notify(self) -> None:
        self.changed.set()
        self.changed = anyio.Event()
