"""Snapshots: copies of sandboxes that were kept."""

from __future__ import annotations

from collections.abc import AsyncIterator

from skerry.models import Snapshot as SnapshotInfo
from skerry.models import SnapshotPage
from skerry.sdk import wire
from skerry.sdk._async.client import AsyncClient
from skerry.sdk._async.lifecycle import reference_of


class AsyncSnapshot:
    """What `Sandbox.snapshot` has kept. `api_url` and `api_key` of every call are as for `Sandbox.create`."""

    @classmethod
    async def list(
        cls, *, sandbox_id: str | None = None, name: str | None = None, api_url: str | None = None,
        api_key: str | None = None,
    ) -> AsyncIterator[SnapshotInfo]:  # fmt: skip
        """All snapshots, newest first; only those of one sandbox, or the one of a name, if asked for."""
        client = AsyncClient.shared(api_url, api_key)
        cursor: str | None = None
        while True:
            path = wire.path_of("snapshots", sandbox_id=sandbox_id, name=name, cursor=cursor)
            page = SnapshotPage.model_validate_json(await client.call("GET", path))
            for item in page.items:
                yield item
            if page.next_cursor is None:
                return
            cursor = page.next_cursor

    @classmethod
    async def get(cls, snapshot: str, *, api_url: str | None = None, api_key: str | None = None) -> SnapshotInfo:
        """One snapshot, by id or name. Raises SnapshotNotFound."""
        reply = await AsyncClient.shared(api_url, api_key).call("GET", wire.path_of("snapshots", snapshot))
        return SnapshotInfo.model_validate_json(reply)

    @classmethod
    async def remove(
        cls, snapshot: str | SnapshotInfo, *, api_url: str | None = None, api_key: str | None = None
    ) -> None:
        """Remove one, by id or name; sandboxes that were started from it are not touched. Raises SnapshotNotFound."""
        path = wire.path_of("snapshots", reference_of(snapshot))
        await AsyncClient.shared(api_url, api_key).call("DELETE", path)
