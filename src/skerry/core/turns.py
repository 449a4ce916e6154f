"""What changes a sandbox's life happens one after the other; a kill does not wait for what is under way, it ends it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio

from skerry.errors import SandboxNotRunning


@dataclass(eq=False)
class _Turn:
    lock: anyio.Lock = field(default_factory=anyio.Lock)
    users: int = 0
    scope: anyio.CancelScope | None = None
    """Around what is under way."""
    kills: int = 0
    """Kills under way or waiting."""


class Turns:
    """One turn for each sandbox; kept only while somebody uses it."""

    def __init__(self) -> None:
        self._turns: dict[str, _Turn] = {}

    @asynccontextmanager
    async def take(self, sandbox_id: str) -> AsyncIterator[None]:
        """Wait for the turn, and hold it. Not to be taken again inside.

        Raises:
            SandboxNotRunning: it is being killed; what the block did is undone by the block itself.
        """
        async with self._using(sandbox_id) as turn, turn.lock:
            if turn.kills:
                raise _killed(sandbox_id)
            with anyio.CancelScope() as turn.scope:
                try:
                    yield
                finally:
                    scope, turn.scope = turn.scope, None
            if scope is not None and scope.cancelled_caught:
                raise _killed(sandbox_id)

    def is_taken(self, sandbox_id: str) -> bool:
        """Whether something is under way."""
        return sandbox_id in self._turns

    @asynccontextmanager
    async def kill(self, sandbox_id: str) -> AsyncIterator[None]:
        """Cancel what is under way, wait until it has undone itself, and hold the turn."""
        async with self._using(sandbox_id) as turn:
            turn.kills += 1
            try:
                if turn.scope is not None:
                    turn.scope.cancel()
                async with turn.lock:
                    yield
            finally:
                turn.kills -= 1

    @asynccontextmanager
    async def _using(self, sandbox_id: str) -> AsyncIterator[_Turn]:
        turn = self._turns.setdefault(sandbox_id, _Turn())
        turn.users += 1
        try:
            yield turn
        finally:
            turn.users -= 1
            if turn.users == 0:
                del self._turns[sandbox_id]


def _killed(sandbox_id: str) -> SandboxNotRunning:
    return SandboxNotRunning(f"cannot go on with sandbox {sandbox_id}: it is being killed", sandbox_id=sandbox_id)
