"""How many sandboxes may boot at a time, and who goes first."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio


class BootGate:
    """A semaphore with two queues: boots that a caller waits for go before refills of a pool.

    A boot keeps about one core busy, so more at a time than there are cores makes each slower and none sooner, and
    starves the server and the running sandboxes.

    Args:
        capacity: boots at a time.
        background: refills at a time when nothing else boots; less than `capacity` keeps room for a caller.
    """

    def __init__(self, capacity: int, background: int) -> None:
        self._capacity = capacity
        self._background = background
        self._running = 0
        self._refilling = 0
        self._callers: deque[anyio.Event] = deque()
        self._refills: deque[anyio.Event] = deque()

    @property
    def callers_waiting(self) -> int:
        return len(self._callers)

    def limit_background(self, refills: int) -> None:
        """Change how many refills may run at a time, from now on."""
        self._background = refills
        self._wake()

    @asynccontextmanager
    async def enter(self, *, background: bool = False) -> AsyncIterator[None]:
        """Wait for a turn and hold it. A cancelled waiter gives its turn to the next."""
        queue = self._refills if background else self._callers
        turn = anyio.Event()
        queue.append(turn)
        self._wake()
        try:
            await turn.wait()
            yield
        finally:
            if turn.is_set():
                self._running -= 1
                self._refilling -= background
            else:
                queue.remove(turn)
            self._wake()

    def _wake(self) -> None:
        while self._running < self._capacity and self._callers:
            self._running += 1
            self._callers.popleft().set()
        while self._running < self._capacity and self._refills and self._refilling < self._background:
            self._running += 1
            self._refilling += 1
            self._refills.popleft().set()
