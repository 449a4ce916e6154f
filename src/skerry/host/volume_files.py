"""Files of volumes, without a sandbox: `ports.VolumeFiles`. What touches a disk is done in threads (`volume_work`)."""

from __future__ import annotations

import os
from collections.abc import AsyncIterable, AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import anyio

from skerry.host import volume_work as work
from skerry.host.volumes import Volumes
from skerry.models import VolumeEntry
from skerry.ports import FileContent

T = TypeVar("T")
_BLOCK = 1024 * 1024


class VolumeFiles:
    """`ports.VolumeFiles` over the volumes of this host."""

    def __init__(self, volumes: Volumes) -> None:
        self._volumes = volumes

    @asynccontextmanager
    async def read(
        self, volume: str, path: str, *, offset: int = 0, length: int | None = None
    ) -> AsyncIterator[FileContent]:
        """See `ports.VolumeFiles.read`."""
        async with self._volumes.use(volume) as root:
            descriptor, info = await self._volumes.run(volume, lambda: work.open_file(root, path))
            try:
                yield FileContent(info, self._chunks(volume, descriptor, offset, length))
            finally:
                os.close(descriptor)

    async def _chunks(self, volume: str, descriptor: int, offset: int, length: int | None) -> AsyncIterator[bytes]:
        left = length
        while left is None or left > 0:
            size = _BLOCK if left is None else min(_BLOCK, left)
            chunk = await self._volumes.run(volume, partial(os.pread, descriptor, size, offset))
            if not chunk:
                return
            offset += len(chunk)
            left = None if left is None else left - len(chunk)
            yield chunk

    async def write(
        self, volume: str, path: str, chunks: AsyncIterable[bytes] | bytes, *, mode: int | None = None,
        parents: bool = True, uid: int | None = None, gid: int | None = None, replace: bool = True,
    ) -> VolumeEntry:  # fmt: skip
        """See `ports.VolumeFiles.write`."""
        async with self._volumes.use(volume) as root:
            new = await self._volumes.run(volume, lambda: work.NewFile(root, path, parents, replace, mode, uid, gid))
            try:
                async for block in _blocks(chunks):
                    await self._volumes.run(volume, partial(new.write, block))
                return await self._volumes.run(volume, new.finish)
            finally:
                with anyio.CancelScope(shield=True):
                    await self._volumes.run(volume, new.close)

    async def stat(self, volume: str, path: str) -> VolumeEntry:
        """See `ports.VolumeFiles.stat`."""
        return await self._at(volume, lambda root: work.look(root, path))

    async def list(self, volume: str, path: str, *, depth: int = 1, limit: int) -> tuple[list[VolumeEntry], bool]:
        """See `ports.VolumeFiles.list`."""
        return await self._at(volume, lambda root: work.listed(root, path, depth, limit))

    async def make_directory(
        self, volume: str, path: str, *, parents: bool = True, mode: int = 0o755, uid: int | None = None,
        gid: int | None = None,
    ) -> VolumeEntry:  # fmt: skip
        """See `ports.VolumeFiles.make_directory`."""
        return await self._at(volume, lambda root: work.make_directory(root, path, parents, mode, uid, gid))

    async def rename(self, volume: str, source: str, target: str) -> VolumeEntry:
        """See `ports.VolumeFiles.rename`."""
        return await self._at(volume, lambda root: work.rename(root, source, target))

    async def remove(self, volume: str, path: str, *, recursive: bool = False) -> None:
        """See `ports.VolumeFiles.remove`."""
        await self._at(volume, lambda root: work.remove(root, path, recursive))

    async def set_attributes(
        self, volume: str, path: str, *, mode: int | None = None, uid: int | None = None, gid: int | None = None
    ) -> VolumeEntry:
        """See `ports.VolumeFiles.set_attributes`."""
        return await self._at(volume, lambda root: work.set_attributes(root, path, mode, uid, gid))

    async def _at(self, volume: str, act: Callable[[Path], T]) -> T:
        async with self._volumes.use(volume) as root:
            return await self._volumes.run(volume, lambda: act(root))


async def _blocks(chunks: AsyncIterable[bytes] | bytes) -> AsyncIterator[bytes]:
    """In pieces that are worth a thread each."""
    if isinstance(chunks, bytes | bytearray | memoryview):
        yield bytes(chunks)
        return
    held = bytearray()
    async for chunk in chunks:
        held += chunk
        if len(held) >= _BLOCK:
            yield bytes(held)
            held.clear()
    if held:
        yield bytes(held)
