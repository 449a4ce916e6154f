"""How many warm sandboxes a pool should hold: as many as were lately claimed in one short stretch."""

from __future__ import annotations

from collections import deque

BURST_S = 10.0
"""About what a pool needs to refill itself: claims closer together than this must all find a sandbox ready."""
MEMORY_S = 120.0
"""A burst is remembered that long; then the pool shrinks again."""


class Demand:
    """Counts claims and tells the size of the largest recent burst. Times are those of any one steady clock."""

    def __init__(self) -> None:
        self._claims: deque[float] = deque()
        self._bursts: deque[tuple[float, int]] = deque()  # (when, size): sizes fall from left to right

    def claimed(self, now: float) -> None:
        """Note one claim (or one that found the pool empty)."""
        self._claims.append(now)
        while self._claims[0] <= now - BURST_S:
            self._claims.popleft()
        size = len(self._claims)
        while self._bursts and self._bursts[-1][1] <= size:
            self._bursts.pop()
        self._bursts.append((now, size))

    def burst(self, now: float) -> int:
        """The most claims within BURST_S seconds, seen in the last MEMORY_S seconds."""
        while self._bursts and self._bursts[0][0] <= now - MEMORY_S:
            self._bursts.popleft()
        return self._bursts[0][1] if self._bursts else 0
