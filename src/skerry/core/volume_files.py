"""Files of volumes, without a sandbox."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager

from skerry.core.volumes import Volumes
from skerry.models import VolumeEntry, VolumeFileList
from skerry.ports import FileContent
from skerry.ports import VolumeFiles as Host


class VolumeFiles:
    """`reference`: a volume's name or id. Paths begin at its root, and no link is followed.

    Every call raises VolumeNotFound, or the `FileError` that says what was wrong with the path.
    """

    def __init__(self, volumes: Volumes, host: Host) -> None:
        self._volumes, self._host = volumes, host

    @asynccontextmanager
    async def read(
        self, tenant_id: str, reference: str, path: str, *, offset: int = 0, length: int | None = None
    ) -> AsyncIterator[FileContent]:
        """The file and its bytes from `offset` on."""
        volume_id = await self._volumes.usable(tenant_id, reference)
        async with self._host.read(volume_id, path, offset=offset, length=length) as content:
            yield content

    async def write(
        self, tenant_id: str, reference: str, path: str, chunks: AsyncIterable[bytes] | bytes, *,
        mode: int | None = None, parents: bool = True, uid: int | None = None, gid: int | None = None,
        replace: bool = True,
    ) -> VolumeEntry:  # fmt: skip
        """See `ports.VolumeFiles.write`."""
        volume_id = await self._volumes.usable(tenant_id, reference)
        return await self._host.write(
            volume_id, path, chunks, mode=mode, parents=parents, uid=uid, gid=gid, replace=replace
        )

    async def stat(self, tenant_id: str, reference: str, path: str) -> VolumeEntry:
        return await self._host.stat(await self._volumes.usable(tenant_id, reference), path)

    async def list(
        self, tenant_id: str, reference: str, path: str, *, depth: int = 1, limit: int = 10_000
    ) -> VolumeFileList:
        volume_id = await self._volumes.usable(tenant_id, reference)
        items, truncated = await self._host.list(volume_id, path, depth=depth, limit=limit)
        return VolumeFileList(items=items, truncated=truncated)

    async def make_directory(
        self, tenant_id: str, reference: str, path: str, *, parents: bool = True, mode: int = 0o755,
        uid: int | None = None, gid: int | None = None,
    ) -> VolumeEntry:  # fmt: skip
        volume_id = await self._volumes.usable(tenant_id, reference)
        return await self._host.make_directory(volume_id, path, parents=parents, mode=mode, uid=uid, gid=gid)

    async def rename(self, tenant_id: str, reference: str, source: str, target: str) -> VolumeEntry:
        return await self._host.rename(await self._volumes.usable(tenant_id, reference), source, target)

    async def remove(self, tenant_id: str, reference: str, path: str, *, recursive: bool = False) -> None:
        await self._host.remove(await self._volumes.usable(tenant_id, reference), path, recursive=recursive)

    async def set_attributes(
        self, tenant_id: str, reference: str, path: str, *, mode: int | None = None, uid: int | None = None,
        gid: int | None = None,
    ) -> VolumeEntry:  # fmt: skip
        volume_id = await self._volumes.usable(tenant_id, reference)
        return await self._host.set_attributes(volume_id, path, mode=mode, uid=uid, gid=gid)
