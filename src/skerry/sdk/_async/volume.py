"""Volumes: directories that outlive sandboxes."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, Any, Self

from skerry.errors import FileMissing
from skerry.models import Volume as VolumeInfo
from skerry.models import VolumeEntry, VolumeFileList, VolumePage, VolumeSnapshot, VolumeSnapshotPage
from skerry.sdk import wire
from skerry.sdk._async.client import AsyncClient
from skerry.sdk.mounts import ReadOnly

_OCTETS = {"Content-Type": "application/octet-stream"}
_BLOCK = 1024 * 1024


class AsyncVolume:
    """One volume. Made by `create` or `connect`. `api_url` and `api_key` of every call are as for
    `AsyncSandbox.create`.

    Attributes:
        id: its id.
        name: its name.
        created: what it was when this object was made; `info()` asks anew.
        files: what is in it, without a sandbox.
    """

    def __init__(self, client: AsyncClient, created: VolumeInfo) -> None:
        self._client, self.created = client, created
        self.id, self.name = created.id, created.name
        self.files = AsyncVolumeFiles(client, created.id)

    # --- which volume -----------------------------------------------------------------------------------------------

    @classmethod
    async def create(
        cls, name: str, *, size: int | None = None, inodes: int | None = None, source: str | None = None,
        api_url: str | None = None, api_key: str | None = None,
    ) -> Self:  # fmt: skip
        """A new volume.

        Args:
            name: unique; 1 to 64 letters, digits, `.`, `_` and `-`.
            size: MiB of its file system, at least 16; default: the server's, 1,024 unless it is set otherwise.
            inodes: files, directories and links it may hold; default: one for each 16 KiB, at least 8,192.
            source: copy this volume (name or id) or volume snapshot (id).

        Raises:
            Conflict: there is one of that name. LimitExceeded, HostFull, VolumeNotFound
        """
        client = AsyncClient.shared(api_url, api_key)
        body = {"name": name, **wire.given(size_mib=size, inodes=inodes, source=source)}
        return cls(client, VolumeInfo.model_validate_json(await client.call("POST", "/v1/volumes", body)))

    @classmethod
    async def connect(cls, volume: str, *, api_url: str | None = None, api_key: str | None = None) -> Self:
        """An existing volume, by its name or id. Raises VolumeNotFound."""
        client = AsyncClient.shared(api_url, api_key)
        reply = await client.call("GET", wire.path_of("volumes", volume))
        return cls(client, VolumeInfo.model_validate_json(reply))

    @classmethod
    async def list(cls, *, api_url: str | None = None, api_key: str | None = None) -> list[VolumeInfo]:
        """All volumes, by name, without what they hold."""
        client = AsyncClient.shared(api_url, api_key)
        return VolumePage.model_validate_json(await client.call("GET", "/v1/volumes")).items

    async def info(self) -> VolumeInfo:
        """What it is now, what it holds, and which sandboxes have it mounted."""
        return VolumeInfo.model_validate_json(await self._client.call("GET", self._path()))

    async def delete(self, *, snapshots: bool = False) -> None:
        """Delete it; `snapshots`: and its snapshots.

        Raises:
            VolumeInUse: details hold the ids of the sandboxes that have it mounted (`sandbox_ids`).
            Conflict: it has snapshots. VolumeNotFound
        """
        await self._client.call("DELETE", self._path(**({"snapshots": True} if snapshots else {})))

    # --- what can be done with it -----------------------------------------------------------------------------------

    def read_only(self) -> ReadOnly:
        """For `AsyncSandbox.create(volumes={path: volume.read_only()})`: nobody inside can write, root included."""
        return ReadOnly(self.id)

    async def resize(self, size: int) -> VolumeInfo:
        """Make it that many MiB, while no sandbox has it mounted; its inodes change in proportion.

        Raises:
            VolumeInUse, VolumeTooSmall: details hold the `minimum_mib`. LimitExceeded, HostFull
        """
        reply = await self._client.call("POST", self._path("resize"), {"size_mib": size})
        return VolumeInfo.model_validate_json(reply)

    async def snapshot(self, name: str | None = None) -> VolumeSnapshot:
        """A copy of it as it is now. Sandboxes may have it mounted: their writes wait meanwhile.

        Raises:
            Conflict: it has one of that name. LimitExceeded, HostFull
        """
        reply = await self._client.call("POST", self._path("snapshots"), wire.given(name=name))
        return VolumeSnapshot.model_validate_json(reply)

    async def snapshots(self) -> Sequence[VolumeSnapshot]:
        """The oldest first."""
        return VolumeSnapshotPage.model_validate_json(await self._client.call("GET", self._path("snapshots"))).items

    async def delete_snapshot(self, snapshot: str) -> None:
        """By name or id. Raises VolumeSnapshotNotFound."""
        await self._client.call("DELETE", self._path("snapshots", snapshot))

    async def restore(self, snapshot: str) -> VolumeInfo:
        """Give it the content and the size of a snapshot, by name or id, while no sandbox has it mounted.

        Raises:
            VolumeInUse, VolumeSnapshotNotFound, LimitExceeded, HostFull
        """
        reply = await self._client.call("POST", self._path("restore"), {"snapshot": snapshot})
        return VolumeInfo.model_validate_json(reply)

    async def fork(self, name: str, *, snapshot: str | None = None, size: int | None = None) -> Self:
        """A new volume that is a copy of this one, or of one of its snapshots, by name or id.

        Raises:
            Conflict: there is one of that name. VolumeSnapshotNotFound, VolumeTooSmall, LimitExceeded, HostFull
        """
        source = self.id
        if snapshot is not None:
            reply = await self._client.call("GET", self._path("snapshots", snapshot))
            source = VolumeSnapshot.model_validate_json(reply).id
        body = {"name": name, "source": source, **wire.given(size_mib=size)}
        reply = await self._client.call("POST", "/v1/volumes", body)
        return type(self)(self._client, VolumeInfo.model_validate_json(reply))

    def _path(self, *parts: str, **query: Any) -> str:
        return wire.path_of("volumes", self.id, *parts, **query)


class AsyncVolumeFiles:
    """`volume.files`. Paths begin at the volume's root, and no symbolic link is followed. Every call raises the
    `FileError` that says what was wrong with a path, or VolumeNotFound."""

    def __init__(self, client: AsyncClient, volume_id: str) -> None:
        self._client, self._volume_id = client, volume_id

    async def read(self, path: str) -> str:
        """The content, as UTF-8 text."""
        return (await self.read_bytes(path)).decode()

    async def read_bytes(self, path: str) -> bytes:
        """The content."""
        return await self._client.call("GET", self._path(path=path))

    @asynccontextmanager
    async def read_stream(self, path: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """The content in pieces, for large files."""
        async with self._client.stream("GET", self._path(path=path)) as chunks:
            yield chunks

    async def write(
        self, path: str, content: str | bytes | AsyncIterable[bytes], *, mode: int | None = None, parents: bool = True,
        uid: int | None = None, gid: int | None = None,
    ) -> VolumeEntry:  # fmt: skip
        """Replace the file, wholly or not at all; it is on the server's disk on return.

        Args:
            mode: default: 0o644 for a new file, kept for an old one.
            parents: make missing directories.
            uid, gid: its owner; default: 1000 (`user` in sandboxes) for a new file, kept for an old one.
        """
        data = (
            content.encode() if isinstance(content, str) else content if isinstance(content, bytes) else aiter(content)
        )
        query = {"path": path, "mode": None if mode is None else f"{mode:04o}", "parents": parents}
        path = self._path(**query, **wire.given(uid=uid, gid=gid))
        return VolumeEntry.model_validate_json(await self._client.send("PUT", path, data, headers=_OCTETS))

    async def upload(self, local: str | Path, path: str, *, mode: int | None = None) -> VolumeEntry:
        """Copy a local file into the volume."""
        with open(local, "rb") as file:  # noqa: ASYNC230 - local disk, in blocks
            return await self.write(path, _blocks(file), mode=mode)

    async def download(self, path: str, local: str | Path) -> None:
        """Copy a file out of the volume."""
        async with self.read_stream(path) as chunks:
            with open(local, "wb") as file:  # noqa: ASYNC230 - local disk, in blocks
                async for chunk in chunks:
                    file.write(chunk)

    async def stat(self, path: str) -> VolumeEntry:
        """What the path is; a symbolic link is not followed."""
        return VolumeEntry.model_validate_json(await self._client.call("GET", self._path("stat", path=path)))

    async def exists(self, path: str) -> bool:
        """Whether there is anything at the path."""
        try:
            await self.stat(path)
        except FileMissing:
            return False
        return True

    async def list(self, path: str = "/", *, depth: int = 1, limit: int = 10_000) -> list[VolumeEntry]:
        """What is below a directory, `depth` levels deep (at most 16), in lexical order; at most `limit` entries."""
        query = {"path": path, "depth": depth, "limit": limit}
        return VolumeFileList.model_validate_json(await self._client.call("GET", self._path("list", **query))).items

    async def mkdir(self, path: str, *, parents: bool = True, mode: int = 0o755) -> VolumeEntry:
        """Make a directory, for uid 1000. Raises FileExists when it exists and `parents` is false."""
        body = {"path": path, "parents": parents, "mode": mode}
        return VolumeEntry.model_validate_json(await self._client.call("POST", self._path("mkdir"), body))

    async def rename(self, source: str, target: str) -> VolumeEntry:
        """Move a file or directory."""
        body = {"source": source, "target": target}
        return VolumeEntry.model_validate_json(await self._client.call("POST", self._path("rename"), body))

    async def remove(self, path: str, *, recursive: bool = False) -> None:
        """Remove a file, a link or a directory."""
        await self._client.call("DELETE", self._path(path=path, recursive=recursive))

    async def chmod(self, path: str, mode: int) -> VolumeEntry:
        """Change permissions."""
        return await self._set(path=path, mode=mode)

    async def chown(self, path: str, uid: int | None = None, gid: int | None = None) -> VolumeEntry:
        """Change owner or group."""
        return await self._set(path=path, uid=uid, gid=gid)

    async def _set(self, **fields: Any) -> VolumeEntry:
        return VolumeEntry.model_validate_json(await self._client.call("PATCH", self._path(), wire.given(**fields)))

    def _path(self, *parts: str, **query: Any) -> str:
        return wire.path_of("volumes", self._volume_id, "files", *parts, **query)


async def _blocks(file: IO[bytes]) -> AsyncIterator[bytes]:
    while block := file.read(_BLOCK):
        yield block
