"""What the claimed sandboxes use of the machine's cores, from their control groups' counters."""

from __future__ import annotations

from collections.abc import Iterable

BUSY_SHARE = 0.5
"""Share of the machine's cores that claimed sandboxes may use before pools refill one at a time."""
IDLE_CORES = 0.05
"""A sandbox that uses less of a core than this is idle: gVisor alone uses 0.02 to 0.03."""


class Load:
    """Cores in use between one `measure` and the next."""

    def __init__(self) -> None:
        self._before: dict[str, float] = {}
        self._at = 0.0
        self._cores: dict[str, float] = {}

    def measure(self, used_s: Iterable[tuple[str, float]], now: float) -> float:
        """Cores that all together have used since the last call.

        Args:
            used_s: of each sandbox, its name and the CPU seconds it has used so far.
        """
        after = dict(used_s)
        elapsed = now - self._at
        if self._at and elapsed > 0:
            self._cores = {
                name: (seconds - self._before[name]) / elapsed
                for name, seconds in after.items()
                if name in self._before
            }
        self._before, self._at = after, now
        return max(0.0, sum(self._cores.values()))

    def is_idle(self, name: str) -> bool:
        """Whether that sandbox did next to nothing between the last two calls; False when it is newer than that."""
        return self._cores.get(name, 1.0) < IDLE_CORES
