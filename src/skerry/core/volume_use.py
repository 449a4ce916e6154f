"""Who uses which volume: sandboxes by what their records say, changes one at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import anyio

from skerry.core.states import LIVE
from skerry.errors import InvalidRequest, VolumeInUse, VolumeNotFound
from skerry.models import MountedVolume, Volume, VolumeMount, VolumeState
from skerry.ports import Store, VolumeStore


class VolumeUse:
    """Volumes by name or id, and whether they may be mounted or changed."""

    def __init__(self, store: VolumeStore, sandboxes: Store) -> None:
        self._store, self._sandboxes = store, sandboxes
        self._changing: set[str] = set()
        self._lock = anyio.Lock()
        """Held while it is decided whether a volume may be mounted, or may be changed."""

    async def find(self, tenant_id: str, reference: str) -> Volume:
        """By name or id. Raises VolumeNotFound."""
        volume = await self._store.volume(tenant_id, reference)
        if volume is None or volume.state is VolumeState.DELETING:
            raise VolumeNotFound(f"cannot find volume {reference!r}: there is none with that name or id")
        return volume

    async def ready(self, tenant_id: str, reference: str) -> Volume:
        """One whose files can be used, by name or id. Raises VolumeNotFound."""
        volume = await self.find(tenant_id, reference)
        if volume.state is VolumeState.LOST:
            raise VolumeNotFound(
                f"cannot use volume {volume.name!r}: its file was removed from the server's data directory",
                volume_id=volume.id,
            )
        return volume

    @asynccontextmanager
    async def alone(self, tenant_id: str, reference: str, verb: str, *, lost: bool = False) -> AsyncIterator[Volume]:
        """A volume that no sandbox has mounted, and none can mount meanwhile. Raises VolumeInUse, VolumeNotFound."""
        async with self._lock:
            volume = await (self.find if lost else self.ready)(tenant_id, reference)
            users = (await self.users(tenant_id)).get(volume.id, [])
            if users:
                shown = ", ".join(users[:5]) + (" …" if len(users) > 5 else "")
                raise VolumeInUse(
                    f"cannot {verb} volume {volume.name!r}: it is mounted by {shown}; kill these sandboxes first",
                    sandbox_ids=users,
                )
            self._refuse_changing(volume, verb)
            self._changing.add(volume.id)
        try:
            yield volume
        finally:
            self._changing.discard(volume.id)

    def _refuse_changing(self, volume: Volume, verb: str) -> None:
        if volume.id in self._changing:
            raise VolumeInUse(
                f"cannot {verb} volume {volume.name!r}: another call changes it; try again when that is done",
                sandbox_ids=[],
            )

    async def resolve(self, tenant_id: str, wanted: Sequence[VolumeMount]) -> list[MountedVolume]:
        """The volumes that a new sandbox shall have, in the order in which they are mounted.

        Raises:
            VolumeNotFound
            InvalidRequest: two at one path, or one twice.
        """
        found: list[MountedVolume] = []
        for mount in sorted(wanted, key=lambda mount: mount.path.count("/")):  # what is below another comes after it
            volume = await self.ready(tenant_id, mount.volume)
            if any(mount.path == other.path for other in found):
                raise InvalidRequest(f"cannot mount two volumes at {mount.path}")
            if any(volume.id == other.id for other in found):
                raise InvalidRequest(f"cannot mount volume {volume.name!r} twice in one sandbox")
            found.append(MountedVolume(id=volume.id, name=volume.name, path=mount.path, read_only=mount.read_only))
        return found

    async def inherit(
        self, tenant_id: str, had: Sequence[MountedVolume], wanted: Sequence[VolumeMount], *, fixed: bool
    ) -> list[MountedVolume]:
        """The volumes of a sandbox that starts from what another one was, which had some.

        Args:
            fixed: memory knows those: none of them can be left out, or be at another path.

        Raises:
            VolumeNotFound: one has been deleted meanwhile. InvalidRequest
        """
        asked = await self.resolve(tenant_id, wanted)
        kept = []
        for mounted in had:
            clash = next((item for item in asked if item.path == mounted.path or item.id == mounted.id), None)
            if clash is None or (fixed and clash == mounted):
                kept.append(mounted)
            elif fixed:
                raise InvalidRequest(
                    f"cannot mount volume {clash.name!r} at {clash.path}: the memory that the sandbox starts with has "
                    f"{mounted.name!r} at {mounted.path}"
                )
        new = [item for item in asked if item not in kept]
        if fixed and any(old.path.startswith(f"{item.path}/") for item in new for old in kept):
            raise InvalidRequest("cannot mount a volume above one that the memory has mounted already")
        return sorted([*kept, *new], key=lambda item: item.path.count("/"))

    @asynccontextmanager
    async def placing(self, tenant_id: str, wanted: Sequence[MountedVolume]) -> AsyncIterator[None]:
        """A sandbox's record with these volumes is stored within the context: from then on they cannot be changed.

        Raises:
            VolumeNotFound, VolumeInUse: one is being changed.
        """
        if not wanted:
            yield
            return
        async with self._lock:
            for mounted in wanted:
                self._refuse_changing(await self.ready(tenant_id, mounted.id), "mount")
            yield

    async def users(self, tenant_id: str) -> dict[str, list[str]]:
        """By volume: the ids of sandboxes that have it mounted, or will again when they go on."""
        found: dict[str, list[str]] = {}
        cursor = None
        while True:
            records, cursor = await self._sandboxes.sandboxes(
                tenant_id, states=LIVE, oldest_first=True, limit=1000, cursor=cursor
            )
            for record in records:
                for mounted in record.sandbox.volumes:
                    found.setdefault(mounted.id, []).append(record.sandbox.id)
            if cursor is None:
                return found
