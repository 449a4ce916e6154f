"""Files in sandboxes: every operation is the agent's, as a user of the sandbox."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Mapping
from contextlib import asynccontextmanager

from skerry.core.sandboxes import Sandboxes
from skerry.models import FileInfo, FileList, MakeDirectory, Rename, SetAttributes, WatchEvent
from skerry.ports import FileContent


class Files:
    """`user`: None means the template's.

    Every call raises SandboxNotFound, SandboxNotRunning, or the `FileError` that says what was wrong.
    """

    def __init__(self, sandboxes: Sandboxes) -> None:
        self._sandboxes = sandboxes

    @asynccontextmanager
    async def read(
        self,
        tenant_id: str,
        sandbox_id: str,
        path: str,
        *,
        user: str | None,
        offset: int = 0,
        length: int | None = None,
    ) -> AsyncIterator[FileContent]:
        """The file and its bytes from `offset` on."""
        async with (
            self._sandboxes.use(tenant_id, sandbox_id) as (live, agent),
            agent.read_file(path, user=user or live.template.user, offset=offset, length=length) as content,
        ):
            yield content

    async def write(
        self, tenant_id: str, sandbox_id: str, path: str, chunks: AsyncIterable[bytes] | bytes, *, user: str | None,
        mode: int | None = None, parents: bool = True, metadata: Mapping[str, str] | None = None,
    ) -> FileInfo:  # fmt: skip
        """Replace a file's content and metadata, wholly or not at all."""
        async with self._sandboxes.use(tenant_id, sandbox_id) as (live, agent):
            return await agent.write_file(
                path, chunks, user=user or live.template.user, mode=mode, parents=parents, metadata=metadata
            )

    async def stat(self, tenant_id: str, sandbox_id: str, path: str, *, user: str | None) -> FileInfo:
        async with self._sandboxes.use(tenant_id, sandbox_id) as (live, agent):
            return await agent.stat(path, user=user or live.template.user)

    async def list(
        self, tenant_id: str, sandbox_id: str, path: str, *, user: str | None, depth: int = 1, limit: int = 10_000
    ) -> FileList:
        async with self._sandboxes.use(tenant_id, sandbox_id) as (live, agent):
            items, truncated = await agent.list_files(path, user=user or live.template.user, depth=depth, limit=limit)
            return FileList(items=items, truncated=truncated)

    async def make_directory(self, tenant_id: str, sandbox_id: str, wanted: MakeDirectory) -> FileInfo:
        async with self._sandboxes.use(tenant_id, sandbox_id) as (live, agent):
            return await agent.make_directory(
                wanted.path, user=wanted.user or live.template.user, parents=wanted.parents, mode=wanted.mode
            )

    async def rename(self, tenant_id: str, sandbox_id: str, wanted: Rename) -> FileInfo:
        async with self._sandboxes.use(tenant_id, sandbox_id) as (live, agent):
            return await agent.rename(wanted.source, wanted.target, user=wanted.user or live.template.user)

    async def remove(self, tenant_id: str, sandbox_id: str, path: str, *, user: str | None, recursive: bool) -> None:
        async with self._sandboxes.use(tenant_id, sandbox_id) as (live, agent):
            await agent.remove(path, user=user or live.template.user, recursive=recursive)

    async def set_attributes(self, tenant_id: str, sandbox_id: str, wanted: SetAttributes) -> FileInfo:
        async with self._sandboxes.use(tenant_id, sandbox_id) as (live, agent):
            return await agent.set_attributes(
                wanted.path, user=wanted.user or live.template.user, mode=wanted.mode, owner=wanted.owner,
                group=wanted.group,
            )  # fmt: skip

    @asynccontextmanager
    async def watch(
        self, tenant_id: str, sandbox_id: str, path: str, *, user: str | None, recursive: bool
    ) -> AsyncIterator[AsyncIterator[WatchEvent]]:
        async with (
            self._sandboxes.use(tenant_id, sandbox_id) as (live, agent),
            agent.watch(path, user=user or live.template.user, recursive=recursive) as events,
        ):
            yield events
