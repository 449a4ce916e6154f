"""Deadlines of many things, watched by one task."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable

import anyio


class Alarms:
    """At most one alarm for each name; times are those of `anyio.current_time`, which no clock change moves."""

    def __init__(self) -> None:
        self._due: dict[str, float] = {}
        self._heap: list[tuple[float, int, str]] = []
        self._order = itertools.count()
        self._earlier = anyio.Event()

    def set(self, name: str, due: float | None) -> None:
        """Set or move (None: cancel) the alarm of `name`."""
        if due is None:
            self._due.pop(name, None)
            return
        self._due[name] = due
        heapq.heappush(self._heap, (due, next(self._order), name))
        if self._heap[0][2] == name:
            self._earlier.set()

    async def run(self, ring: Callable[[str], object]) -> None:
        """Until cancelled: call `ring`, which must not raise, with the name of each alarm that is due."""
        while True:
            self._earlier = anyio.Event()
            wait = self._heap[0][0] - anyio.current_time() if self._heap else float("inf")
            with anyio.move_on_after(max(wait, 0)):
                await self._earlier.wait()
            while self._heap and self._heap[0][0] <= anyio.current_time():
                due, _, name = heapq.heappop(self._heap)
                if self._due.get(name) == due:  # not moved or cancelled since
                    del self._due[name]
                    ring(name)
