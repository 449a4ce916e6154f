"""SIGINT becomes KeyboardInterrupt in user code only: never while idle, never in the middle of an event."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupts:
    """Handles SIGINT in the main thread, where Python runs all signal handlers."""

    def __init__(self) -> None:
        self._armed = False
        self._shields = 0
        self._pending = False

    def install(self) -> None:
        """User code may have put a handler of its own in place; each cell starts with ours."""
        if signal.getsignal(signal.SIGINT) != self._handle:
            signal.signal(signal.SIGINT, self._handle)

    def _handle(self, _signal: int, _frame: FrameType | None) -> None:
        if self._shields:
            self._pending = self._armed
        elif self._armed:
            raise KeyboardInterrupt

    @contextmanager
    def armed(self) -> Iterator[None]:
        """Within: an interrupt raises KeyboardInterrupt, here or just before leaving."""
        self._pending = False
        self._armed = True
        try:
            yield
        finally:
            self._armed = False

    @contextmanager
    def shielded(self) -> Iterator[None]:
        """Within: an interrupt waits until the end. Only for the main thread."""
        self._shields += 1
        try:
            yield
        finally:
            self._shields -= 1
            if self._pending and not self._shields:
                self._pending = False
                if self._armed:
                    raise KeyboardInterrupt
