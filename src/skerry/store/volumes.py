"""`ports.VolumeStore` in the same database."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc

from skerry.errors import Conflict
from skerry.models import Volume, VolumeSnapshot
from skerry.store.sql import SqlStore
from skerry.store.tables import volume_snapshots, volumes


class SqlVolumes:
    """Volumes and their snapshots."""

    def __init__(self, store: SqlStore) -> None:
        self._store = store

    async def add(self, tenant_id: str, volume: Volume) -> None:
        """See `ports.VolumeStore.add`."""
        values = {"id": volume.id, "tenant_id": tenant_id, "name": volume.name, "document": _document(volume)}
        try:
            await self._store.write(lambda c: c.execute(sa.insert(volumes).values(values)))
        except exc.IntegrityError as error:
            raise Conflict(
                f"cannot make volume {volume.name!r}: there is one of that name", name=volume.name
            ) from error

    async def save(self, volume: Volume) -> None:
        """See `ports.VolumeStore.save`."""
        change = sa.update(volumes).where(volumes.c.id == volume.id).values(document=_document(volume))
        await self._store.write(lambda c: c.execute(change))

    async def remove(self, volume_id: str) -> None:
        """See `ports.VolumeStore.remove`."""
        await self._store.write(lambda c: c.execute(sa.delete(volumes).where(volumes.c.id == volume_id)))

    async def volume(self, tenant_id: str, reference: str) -> Volume | None:
        """See `ports.VolumeStore.volume`. An id goes before a name that looks like one."""
        named = sa.or_(volumes.c.id == reference, volumes.c.name == reference)
        query = sa.select(volumes).where(volumes.c.tenant_id == tenant_id, named)
        rows = await self._store.write(lambda c: c.execute(query).all())
        rows = sorted(rows, key=lambda row: bool(row.id != reference))
        return Volume.model_validate(rows[0].document) if rows else None

    async def owner(self, volume_id: str) -> str | None:
        """See `ports.VolumeStore.owner`."""
        query = sa.select(volumes.c.tenant_id).where(volumes.c.id == volume_id)
        return await self._store.write(lambda c: c.execute(query).scalar())

    async def volumes(self, tenant_id: str | None) -> list[Volume]:
        """See `ports.VolumeStore.volumes`."""
        query = sa.select(volumes.c.document).order_by(volumes.c.name)
        if tenant_id is not None:
            query = query.where(volumes.c.tenant_id == tenant_id)
        return [
            Volume.model_validate(row) for row in await self._store.write(lambda c: c.execute(query).scalars().all())
        ]

    async def add_snapshot(self, tenant_id: str, snapshot: VolumeSnapshot) -> None:
        """See `ports.VolumeStore.add_snapshot`."""
        values = {
            "id": snapshot.id, "tenant_id": tenant_id, "volume_id": snapshot.volume_id, "name": snapshot.name,
            "document": snapshot.model_dump(mode="json"), "created_at": snapshot.created_at.timestamp(),
        }  # fmt: skip
        try:
            await self._store.write(lambda c: c.execute(sa.insert(volume_snapshots).values(values)))
        except exc.IntegrityError as error:
            raise Conflict(
                f"cannot make snapshot {snapshot.name!r}: the volume has one of that name", name=snapshot.name
            ) from error

    async def remove_snapshot(self, snapshot_id: str) -> None:
        """See `ports.VolumeStore.remove_snapshot`."""
        change = sa.delete(volume_snapshots).where(volume_snapshots.c.id == snapshot_id)
        await self._store.write(lambda c: c.execute(change))

    async def snapshots(self, tenant_id: str | None) -> list[VolumeSnapshot]:
        """See `ports.VolumeStore.snapshots`."""
        query = sa.select(volume_snapshots.c.document).order_by(volume_snapshots.c.created_at, volume_snapshots.c.id)
        if tenant_id is not None:
            query = query.where(volume_snapshots.c.tenant_id == tenant_id)
        rows = await self._store.write(lambda c: c.execute(query).scalars().all())
        return [VolumeSnapshot.model_validate(row) for row in rows]


def _document(volume: Volume) -> dict[str, Any]:
    """What is stored: not what is measured, nor who has it mounted."""
    return volume.model_dump(mode="json", exclude={"used_mib", "inodes_used", "stored_mib", "mounted_by"})
