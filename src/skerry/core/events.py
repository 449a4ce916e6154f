"""What happened to sandboxes: kept in the store, and told to whoever follows."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import anyio
from anyio.streams.memory import MemoryObjectSendStream

from skerry.models import Event
from skerry.ports import Store

_BEHIND_MAX = 1000
"""Events that a follower may be behind; one that is further behind is cut off and reads the store."""


class Events:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._followers: dict[MemoryObjectSendStream[Event], str] = {}

    async def record(self, tenant_id: str, sandbox_id: str, type: str, data: Mapping[str, Any] | None = None) -> None:
        event = await self._store.add_event(sandbox_id, type, data or {}, datetime.now(UTC))
        for follower, tenant in list(self._followers.items()):
            if tenant == tenant_id:
                try:
                    follower.send_nowait(event)
                except anyio.WouldBlock:
                    await follower.aclose()
                    self._followers.pop(follower, None)

    async def list(
        self, tenant_id: str, sandbox_id: str | None = None, *, after: int = 0, limit: int = 100
    ) -> list[Event]:
        """Oldest first, those after event number `after`."""
        return await self._store.events(tenant_id, sandbox_id, after=after, limit=limit)

    @asynccontextmanager
    async def follow(self, tenant_id: str, *, after: int = 0) -> AsyncIterator[AsyncIterator[Event]]:
        """Events after number `after`, then those that happen; ends when the reader is too far behind."""
        send, receive = anyio.create_memory_object_stream[Event](_BEHIND_MAX)
        self._followers[send] = tenant_id

        async def events() -> AsyncIterator[Event]:
            last = after
            while past := await self._store.events(tenant_id, None, after=last, limit=1000):
                for event in past:
                    yield event
                last = past[-1].id
            async for event in receive:
                if event.id > last:
                    yield event

        try:
            yield events()
        finally:
            self._followers.pop(send, None)
            send.close()
            receive.close()
