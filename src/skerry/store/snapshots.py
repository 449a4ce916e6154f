"""`ports.SnapshotStore` in the same database."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import sqlalchemy as sa

from skerry.models import Snapshot
from skerry.ports import SnapshotRecord, State
from skerry.store.sql import SqlStore, decode_cursor, encode_cursor
from skerry.store.tables import snapshots


class SqlSnapshots:
    """Snapshots of sandboxes."""

    def __init__(self, store: SqlStore) -> None:
        self._store = store

    async def add(self, record: SnapshotRecord) -> None:
        """See `ports.SnapshotStore.add`."""
        values = {
            "id": record.snapshot.id, "tenant_id": record.tenant_id, "name": record.snapshot.name,
            "sandbox_id": record.snapshot.sandbox_id, "document": record.snapshot.model_dump(mode="json"),
            "env": dict(record.env), "internal": dict(record.internal), "state": asdict(record.state),
        }  # fmt: skip

        def work(connection: sa.Connection) -> None:
            mine = snapshots.c.tenant_id == record.tenant_id
            taken = sa.update(snapshots).where(mine, snapshots.c.name == record.snapshot.name)
            connection.execute(taken.values(name=None))
            connection.execute(sa.insert(snapshots).values(values))

        await self._store.write(work)

    async def get(self, tenant_id: str, reference: str) -> SnapshotRecord | None:
        """See `ports.SnapshotStore.get`."""
        named = sa.or_(snapshots.c.id == reference, snapshots.c.name == reference)
        query = sa.select(snapshots).where(snapshots.c.tenant_id == tenant_id, named)
        row = await self._store.write(lambda connection: connection.execute(query).first())
        return None if row is None else _record(row)

    async def page(
        self, tenant_id: str, *, sandbox_id: str | None = None, name: str | None = None, limit: int = 100,
        cursor: str | None = None,
    ) -> tuple[list[SnapshotRecord], str | None]:  # fmt: skip
        """See `ports.SnapshotStore.page`."""
        number = snapshots.c.number
        query = sa.select(snapshots).where(snapshots.c.tenant_id == tenant_id).order_by(number.desc()).limit(limit + 1)
        if sandbox_id is not None:
            query = query.where(snapshots.c.sandbox_id == sandbox_id)
        if name is not None:
            # As bytes: LIKE takes letters of either case for the same.
            tagged = sa.and_(snapshots.c.name >= f"{name}:", snapshots.c.name < f"{name};")
            query = query.where(sa.or_(snapshots.c.name == name, tagged))
        if cursor is not None:
            query = query.where(number < decode_cursor(cursor))
        rows = await self._store.write(lambda connection: connection.execute(query).all())
        more = encode_cursor(rows[limit - 1].number) if len(rows) > limit else None
        return [_record(row) for row in rows[:limit]], more

    async def remove(self, tenant_id: str, snapshot_id: str) -> bool:
        """See `ports.SnapshotStore.remove`."""
        change = sa.delete(snapshots).where(snapshots.c.tenant_id == tenant_id, snapshots.c.id == snapshot_id)
        return (await self._store.write(lambda connection: connection.execute(change))).rowcount == 1

    async def stored_mib(self, tenant_id: str) -> float:
        """See `ports.SnapshotStore.stored_mib`."""
        total = sa.func.sum(snapshots.c.document["size_mib"].as_float())
        query = sa.select(total).where(snapshots.c.tenant_id == tenant_id)
        stored: float | None = await self._store.write(lambda connection: connection.execute(query).scalar())
        return stored or 0.0

    async def states(self) -> list[str]:
        """See `ports.SnapshotStore.states`."""
        rows = await self._store.write(lambda connection: connection.execute(sa.select(snapshots.c.state)).all())
        return [row.state["id"] for row in rows]


def _record(row: sa.Row[Any]) -> SnapshotRecord:
    snapshot = Snapshot.model_validate(row.document | {"name": row.name})
    return SnapshotRecord(snapshot, row.tenant_id, row.env, row.internal, State(**row.state))
