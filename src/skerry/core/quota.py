"""What a tenant may keep on the server's disk."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio

from skerry.errors import LimitExceeded


class Storage:
    """One limit for all that outlives sandboxes.

    Args:
        limit_mib: of each tenant; None: none.
    """

    def __init__(self, limit_mib: int | None = None) -> None:
        self._limit_mib = limit_mib
        self._counters: list[Callable[[str], Awaitable[float]]] = []
        self._reserved: dict[str, float] = {}
        self._lock = anyio.Lock()

    def count(self, counter: Callable[[str], Awaitable[float]]) -> None:
        """Something that takes room: MiB that a tenant has of it, by the tenant's id."""
        self._counters.append(counter)

    async def used_mib(self, tenant_id: str) -> float:
        """All that the tenant keeps, and what is being made."""
        return self._reserved.get(tenant_id, 0.0) + sum([await counter(tenant_id) for counter in self._counters])

    @asynccontextmanager
    async def reserve(self, tenant_id: str, requested_mib: float, what: str) -> AsyncIterator[None]:
        """Room for something new, for the time until it is counted itself: leave the context when it is.

        Args:
            what: for the message, for example `volume 'data'`.

        Raises:
            LimitExceeded: details hold `limit_mib`, `current_mib` and `requested_mib`.
        """
        if self._limit_mib is None:
            yield
            return
        async with self._lock:  # or two would find the same room
            current = await self.used_mib(tenant_id)
            if requested_mib > 0 and current + requested_mib > self._limit_mib:
                raise LimitExceeded(
                    f"cannot keep {what}: it needs {requested_mib:.0f} MiB, and {current:.0f} of {self._limit_mib} MiB "
                    "are used (`storage_quota_mib`); delete volumes or snapshots",
                    limit="storage_quota_mib", limit_mib=self._limit_mib, current_mib=round(current, 1),
                    requested_mib=round(requested_mib, 1),
                )  # fmt: skip
            self._reserved[tenant_id] = self._reserved.get(tenant_id, 0.0) + requested_mib
        try:
            yield
        finally:
            self._reserved[tenant_id] -= requested_mib
