"""Volumes: which there are, who mounts them, when they may change.

A file is made before the store knows of it, and a row is removed after its file: whatever instant a server dies at, its
successor removes files that nobody knows, finishes what was being deleted, and believes the files about their sizes.
Which sandboxes have a volume mounted, their own records say.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime

import anyio

from skerry.core.quota import Storage
from skerry.core.volume_use import VolumeUse
from skerry.errors import (
    Conflict,
    Error,
    InvalidRequest,
    LimitExceeded,
    VolumeInUse,
    VolumeSnapshotNotFound,
)
from skerry.failpoints import reached
from skerry.models import (
    Volume,
    VolumeResize,
    VolumeSnapshot,
    VolumeSnapshotSpec,
    VolumeSpec,
    VolumeState,
)
from skerry.ports import Store, VolumeDisks, VolumeStore, VolumeUsage

logger = logging.getLogger(__name__)

MIB_PER_INODE = 64
"""Inodes of a new volume for each MiB: one for 16 KiB."""
INODES_MIN = 8192
_MIB = 1024 * 1024


class Volumes:
    """All volumes of this server.

    Args:
        size_mib: of a volume whose maker does not say.
        size_max_mib: of any volume.
    """

    def __init__(
        self, disks: VolumeDisks, store: VolumeStore, sandboxes: Store, storage: Storage, *, size_mib: int = 1024,
        size_max_mib: int = 1024 * 1024,
    ) -> None:  # fmt: skip
        self._disks, self._store, self.storage = disks, store, storage
        self.use = VolumeUse(store, sandboxes)
        self._size_mib, self._size_max_mib = size_mib, size_max_mib
        storage.count(self._counted)

    async def start(self) -> None:
        """Finish what a dead server has left half done."""
        await self._disks.start()
        known = set()
        for volume in await self._store.volumes(None):
            known.add(volume.id)
            if volume.state is VolumeState.DELETING:
                await self._finish_deleting(volume)
            else:
                await self._check(volume)
        snapshots = await self._store.snapshots(None)
        there = self._disks.names()
        for snapshot in snapshots:
            if snapshot.id not in there:
                logger.error("snapshot %s of volume %s has lost its file", snapshot.id, snapshot.volume_id)
                await self._store.remove_snapshot(snapshot.id)
        for name in there - known - {snapshot.id for snapshot in snapshots}:
            logger.warning("removing %s: no volume and no snapshot of that id", name)
            with suppress(Error):
                await self._disks.remove(name)

    async def stop(self, *, keep: bool = False) -> None:
        """Unmount everything. `keep`: sandboxes go on with what they have mounted."""
        await self._disks.stop(keep=keep)

    async def _finish_deleting(self, volume: Volume) -> None:
        try:
            await self._remove(volume, await self._snapshots(volume.id))
        except Error as error:  # the next server tries again
            logger.error("cannot finish deleting volume %s (%s): %s", volume.name, volume.id, error)

    async def _check(self, volume: Volume) -> None:
        """The file says what the volume is: a server may have died before it could note what it had changed."""
        if volume.id not in self._disks.names():
            logger.error("volume %s (%s) has lost its file", volume.name, volume.id)
            await self._store.save(volume.model_copy(update={"state": VolumeState.LOST}))
            return
        try:
            await self._note(volume.model_copy(update={"state": VolumeState.READY}), volume)
        except Error as error:
            logger.error("cannot look at volume %s (%s): %s", volume.name, volume.id, error)

    # --- volumes ----------------------------------------------------------------------------------------------------

    async def create(self, tenant_id: str, spec: VolumeSpec) -> Volume:
        """A new volume: empty, or a copy of `spec.source`.

        Raises:
            Conflict: the tenant has one of that name. LimitExceeded: it is too large, or the tenant has too much.
            VolumeNotFound: there is no such source. InvalidRequest, HostFull
        """
        if await self._store.volume(tenant_id, spec.name) is not None:
            raise Conflict(f"cannot make volume {spec.name!r}: there is one of that name", name=spec.name)
        new = "vol" + secrets.token_hex(10)
        if spec.source is None:
            size_mib = spec.size_mib or self._size_mib
            inodes = spec.inodes or max(INODES_MIN, size_mib * MIB_PER_INODE)
            if inodes > size_mib * 1024:
                raise InvalidRequest(
                    f"cannot make a volume of {size_mib} MiB with {inodes} inodes: one for each KiB is the most",
                    limit="inodes", maximum=size_mib * 1024,
                )  # fmt: skip
        else:
            if spec.inodes is not None:
                raise InvalidRequest("cannot choose the inodes of a copy: it has its source's")
            source, size_mib, live = await self._source(tenant_id, spec.source)
        self._check_size(max(size_mib, spec.size_mib or 0))
        async with self.storage.reserve(tenant_id, max(size_mib, spec.size_mib or 0), f"volume {spec.name!r}"):
            try:
                if spec.source is None:
                    await self._disks.create(new, size_mib, inodes)
                else:
                    await self._disks.copy(source, new, live=live)
                    if spec.size_mib is not None and spec.size_mib != size_mib:
                        await self._disks.resize(new, spec.size_mib)
                return await self._add(tenant_id, new, spec.name)
            except BaseException:
                with anyio.CancelScope(shield=True):
                    await self._disks.remove(new)
                raise

    async def _add(self, tenant_id: str, new: str, name: str) -> Volume:
        usage = await self._disks.usage(new)
        volume = Volume(
            id=new, name=name, state=VolumeState.READY, size_mib=usage.size_mib, inodes=usage.inodes,
            created_at=datetime.now(UTC),
        )  # fmt: skip
        await self._store.add(tenant_id, volume)
        reached("volume: added")
        return _measured(volume, usage)

    async def _source(self, tenant_id: str, reference: str) -> tuple[str, int, bool]:
        """Its file, its size, and whether it is a volume. Raises VolumeNotFound."""
        for snapshot in await self._store.snapshots(tenant_id):
            if snapshot.id == reference:
                return snapshot.id, snapshot.size_mib, False
        volume = await self.use.ready(tenant_id, reference)
        return volume.id, volume.size_mib, True

    def _check_size(self, size_mib: int) -> None:
        if size_mib > self._size_max_mib:
            raise LimitExceeded(
                f"cannot make a volume of {size_mib} MiB: {self._size_max_mib} MiB is the most (`volume_size_max_mib`)",
                limit="volume_size_max_mib", limit_mib=self._size_max_mib, requested_mib=size_mib,
            )  # fmt: skip

    async def all(self, tenant_id: str) -> list[Volume]:
        """By name, with who mounts them."""
        users = await self.use.users(tenant_id)
        return [
            volume.model_copy(update={"mounted_by": users.get(volume.id, [])})
            for volume in await self._store.volumes(tenant_id)
            if volume.state is not VolumeState.DELETING
        ]

    async def get(self, tenant_id: str, reference: str) -> Volume:
        """By name or id, with what it holds and who mounts it. Raises VolumeNotFound."""
        volume = await self.use.find(tenant_id, reference)
        users = (await self.use.users(tenant_id)).get(volume.id, [])
        volume = volume.model_copy(update={"mounted_by": users})
        if volume.state is not VolumeState.READY:
            return volume
        return _measured(volume, await self._disks.usage(volume.id))

    async def owner(self, volume_id: str) -> str | None:
        """Whose it is, for façades whose callers show a token of the volume instead of a key; None: there is none."""
        return await self._store.owner(volume_id)

    async def resize(self, tenant_id: str, reference: str, wanted: VolumeResize) -> Volume:
        """Make it larger or smaller while nobody uses it.

        Raises:
            VolumeInUse, VolumeTooSmall, LimitExceeded, HostFull, VolumeNotFound
        """
        self._check_size(wanted.size_mib)
        async with self.use.alone(tenant_id, reference, "resize") as volume:
            more = wanted.size_mib - volume.size_mib
            async with self.storage.reserve(tenant_id, more, f"volume {volume.name!r}"):
                await self._disks.resize(volume.id, wanted.size_mib)
                return await self._note(volume)

    async def restore(self, tenant_id: str, reference: str, snapshot: str) -> Volume:
        """Give it the content and the size of one of its snapshots, while nobody uses it.

        Raises:
            VolumeInUse, VolumeSnapshotNotFound, VolumeNotFound, LimitExceeded, HostFull
        """
        async with self.use.alone(tenant_id, reference, "restore") as volume:
            found = await self.snapshot(tenant_id, volume.id, snapshot)
            more = found.size_mib - volume.size_mib
            async with self.storage.reserve(tenant_id, more, f"volume {volume.name!r}"):
                await self._disks.replace(volume.id, found.id)
                return await self._note(volume)

    async def delete(self, tenant_id: str, reference: str, *, snapshots: bool = False) -> None:
        """Delete it while nobody has it mounted.

        Args:
            snapshots: delete its snapshots too.

        Raises:
            VolumeInUse: details hold `sandbox_ids`. Conflict: it has snapshots. VolumeNotFound
        """
        async with self.use.alone(tenant_id, reference, "delete", lost=True) as volume:
            its = await self._snapshots(volume.id)
            if its and not snapshots:
                raise Conflict(
                    f"cannot delete volume {volume.name!r}: its {len(its)} snapshots would go with it; say so",
                    snapshots=[snapshot.name for snapshot in its],
                )
            await self._store.save(volume.model_copy(update={"state": VolumeState.DELETING}))
            reached("volume: deleting")
            with anyio.CancelScope(shield=True):
                try:
                    await self._remove(volume, its)
                except VolumeInUse:  # by a transfer
                    await self._store.save(volume)
                    raise

    async def _remove(self, volume: Volume, snapshots: Sequence[VolumeSnapshot]) -> None:
        await self._disks.remove(volume.id)
        reached("volume: removed")
        for snapshot in snapshots:
            await self._disks.remove(snapshot.id)
        await self._store.remove(volume.id)

    async def _note(self, volume: Volume, known: Volume | None = None) -> Volume:
        """Store what its file says it is, unless that is `known` already."""
        usage = await self._disks.usage(volume.id)
        volume = volume.model_copy(update={"size_mib": usage.size_mib, "inodes": usage.inodes})
        if volume != known:
            await self._store.save(volume)
            reached("volume: noted")
        return _measured(volume, usage)

    # --- snapshots --------------------------------------------------------------------------------------------------

    async def take_snapshot(self, tenant_id: str, reference: str, spec: VolumeSnapshotSpec) -> VolumeSnapshot:
        """A copy of the volume as it is now, also while sandboxes have it mounted: their writes wait meanwhile.

        Raises:
            Conflict: it has one of that name. LimitExceeded, HostFull, VolumeNotFound
        """
        volume = await self.use.ready(tenant_id, reference)
        new = "vsn" + secrets.token_hex(10)
        if spec.name is not None and any(spec.name == item.name for item in await self._snapshots(volume.id)):
            raise Conflict(f"cannot make snapshot {spec.name!r}: the volume has one of that name", name=spec.name)
        stored = (await self._disks.usage(volume.id)).stored_bytes / _MIB
        async with self.storage.reserve(tenant_id, stored, f"a snapshot of volume {volume.name!r}"):
            try:
                await self._disks.copy(volume.id, new, live=True)
                usage = await self._disks.usage(new)
                snapshot = VolumeSnapshot(
                    id=new, name=spec.name or new, volume_id=volume.id, size_mib=usage.size_mib,
                    stored_mib=round(usage.stored_bytes / _MIB, 3), created_at=datetime.now(UTC),
                )  # fmt: skip
                await self._store.add_snapshot(tenant_id, snapshot)
                reached("volume: snapshot added")
            except BaseException:
                with anyio.CancelScope(shield=True):
                    await self._disks.remove(new)
                raise
        return snapshot

    async def snapshots(self, tenant_id: str, reference: str) -> list[VolumeSnapshot]:
        """Of one volume, the oldest first. Raises VolumeNotFound."""
        return await self._snapshots((await self.use.find(tenant_id, reference)).id)

    async def snapshot(self, tenant_id: str, reference: str, snapshot: str) -> VolumeSnapshot:
        """By the snapshot's name or id. Raises VolumeNotFound, VolumeSnapshotNotFound."""
        for item in await self.snapshots(tenant_id, reference):
            if snapshot in (item.id, item.name):
                return item
        raise VolumeSnapshotNotFound(f"cannot find snapshot {snapshot!r}: the volume has none with that name or id")

    async def delete_snapshot(self, tenant_id: str, reference: str, snapshot: str) -> None:
        """Raises VolumeNotFound, VolumeSnapshotNotFound."""
        found = await self.snapshot(tenant_id, reference, snapshot)
        await self._store.remove_snapshot(found.id)
        await self._disks.remove(found.id)

    async def usable(self, tenant_id: str, reference: str) -> str:
        """The id of a volume whose files can be used. Raises VolumeNotFound."""
        return (await self.use.ready(tenant_id, reference)).id

    async def _snapshots(self, volume_id: str) -> list[VolumeSnapshot]:
        return [item for item in await self._store.snapshots(None) if item.volume_id == volume_id]

    async def _counted(self, tenant_id: str) -> float:
        """Volumes with their size, which they may take at any time; snapshots with what they take."""
        volumes = sum(volume.size_mib for volume in await self._store.volumes(tenant_id))
        return volumes + sum(snapshot.stored_mib for snapshot in await self._store.snapshots(tenant_id))


def _measured(volume: Volume, usage: VolumeUsage) -> Volume:
    return volume.model_copy(
        update={
            "used_mib": round(usage.used_bytes / _MIB, 3), "inodes_used": usage.inodes_used,
            "stored_mib": round(usage.stored_bytes / _MIB, 3),
        }
    )  # fmt: skip
