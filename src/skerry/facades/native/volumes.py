"""Volumes, their snapshots, and their files without a sandbox."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from skerry.errors import InvalidRequest
from skerry.facades.download import FileDownload
from skerry.facades.native.access import CallerOf
from skerry.facades.native.content import BODY, REPLIES, Mode, octal, without_content
from skerry.facades.requests import Route, body_of
from skerry.models import (
    Volume,
    VolumeAttributes,
    VolumeDirectory,
    VolumeEntry,
    VolumeFileList,
    VolumePage,
    VolumeRename,
    VolumeResize,
    VolumeRestore,
    VolumeSnapshot,
    VolumeSnapshotPage,
    VolumeSnapshotSpec,
    VolumeSpec,
)

router = APIRouter(route_class=Route, strict_content_type=False, prefix="/v1/volumes", tags=["volumes"])

FilePath = Annotated[str, Query(description="From the volume's root; no link is followed")]
Id = Annotated[int | None, Query(ge=0, le=2**31 - 1)]


@router.post("", status_code=201)
async def create(caller: CallerOf, spec: VolumeSpec) -> Volume:
    """A new volume, empty or a copy of another one, or of a volume snapshot."""
    return await caller.core.volumes.create(caller.tenant_id, spec)


@router.get("")
async def listing(caller: CallerOf) -> VolumePage:
    """All, by name."""
    return VolumePage(items=await caller.core.volumes.all(caller.tenant_id))


@router.get("/{volume}")
async def get(caller: CallerOf, volume: str) -> Volume:
    """By name or id, with what it holds."""
    return await caller.core.volumes.get(caller.tenant_id, volume)


@router.delete("/{volume}", status_code=204, response_class=Response)
async def delete(caller: CallerOf, volume: str, snapshots: bool = False) -> None:
    """Refused while a sandbox has it mounted; and while it has snapshots, unless `snapshots` says that they go too."""
    await caller.core.volumes.delete(caller.tenant_id, volume, snapshots=snapshots)


@router.post("/{volume}/resize")
async def resize(caller: CallerOf, volume: str, wanted: VolumeResize) -> Volume:
    """Larger or smaller; refused while a sandbox has it mounted."""
    return await caller.core.volumes.resize(caller.tenant_id, volume, wanted)


@router.post("/{volume}/restore")
async def restore(caller: CallerOf, volume: str, wanted: VolumeRestore) -> Volume:
    """Give it the content and the size of one of its snapshots; refused while a sandbox has it mounted."""
    return await caller.core.volumes.restore(caller.tenant_id, volume, wanted.snapshot)


@router.post("/{volume}/snapshots", status_code=201)
async def snapshot(
    caller: CallerOf, volume: str, spec: VolumeSnapshotSpec = VolumeSnapshotSpec()  # noqa: B008
) -> VolumeSnapshot:  # fmt: skip
    """A copy as it is now, also while sandboxes write to it: they wait meanwhile."""
    return await caller.core.volumes.take_snapshot(caller.tenant_id, volume, spec)


@router.get("/{volume}/snapshots")
async def snapshots(caller: CallerOf, volume: str) -> VolumeSnapshotPage:
    """The oldest first."""
    return VolumeSnapshotPage(items=await caller.core.volumes.snapshots(caller.tenant_id, volume))


@router.get("/{volume}/snapshots/{snapshot}")
async def get_snapshot(caller: CallerOf, volume: str, snapshot: str) -> VolumeSnapshot:
    """By name or id."""
    return await caller.core.volumes.snapshot(caller.tenant_id, volume, snapshot)


@router.delete("/{volume}/snapshots/{snapshot}", status_code=204, response_class=Response)
async def delete_snapshot(caller: CallerOf, volume: str, snapshot: str) -> None:
    """Volumes that were made from it stay."""
    await caller.core.volumes.delete_snapshot(caller.tenant_id, volume, snapshot)


# --- files ----------------------------------------------------------------------------------------------------------


@router.get("/{volume}/files", response_class=Response, responses=REPLIES)
async def read(request: Request, caller: CallerOf, volume: str, path: FilePath) -> Response:
    """A file's content; `Range: bytes=a-b` for a part of it."""
    files, where = caller.core.volume_files, (caller.tenant_id, volume, path)
    return FileDownload(
        lambda: files.stat(*where),
        lambda offset, length: files.read(*where, offset=offset, length=length),
        request.headers.get("range"),
    )


@router.head("/{volume}/files", response_class=Response)
async def head(caller: CallerOf, volume: str, path: FilePath) -> Response:
    """A file's size, without its content."""
    info = await caller.core.volume_files.stat(caller.tenant_id, volume, path)
    return without_content(path, info.type, info.size)


@router.put("/{volume}/files", openapi_extra=BODY)
async def write(
    request: Request, caller: CallerOf, volume: str, path: FilePath, mode: Mode = None, parents: bool = True,
    uid: Id = None, gid: Id = None,
) -> VolumeEntry:  # fmt: skip
    """Replace a file by the body, atomically; it is on the disk when this answers. `mode` is octal."""
    return await caller.core.volume_files.write(
        caller.tenant_id, volume, path, body_of(request), mode=octal(mode), parents=parents, uid=uid, gid=gid
    )


@router.delete("/{volume}/files", status_code=204, response_class=Response)
async def remove(caller: CallerOf, volume: str, path: FilePath, recursive: bool = False) -> None:
    """Remove a file, a link or a directory."""
    await caller.core.volume_files.remove(caller.tenant_id, volume, path, recursive=recursive)


@router.patch("/{volume}/files")
async def set_attributes(caller: CallerOf, volume: str, wanted: VolumeAttributes) -> VolumeEntry:
    """Change permissions or owner."""
    return await caller.core.volume_files.set_attributes(
        caller.tenant_id, volume, wanted.path, mode=wanted.mode, uid=wanted.uid, gid=wanted.gid
    )


@router.get("/{volume}/files/stat")
async def stat(caller: CallerOf, volume: str, path: FilePath) -> VolumeEntry:
    """What a path is; a symbolic link is not followed."""
    return await caller.core.volume_files.stat(caller.tenant_id, volume, path)


@router.get("/{volume}/files/list")
async def list_files(
    caller: CallerOf, volume: str, path: FilePath = "/", depth: Annotated[int, Query(ge=1, le=16)] = 1,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
) -> VolumeFileList:  # fmt: skip
    """What is below a directory, `depth` levels deep."""
    return await caller.core.volume_files.list(caller.tenant_id, volume, path, depth=depth, limit=limit)


@router.post("/{volume}/files/mkdir")
async def make_directory(caller: CallerOf, volume: str, wanted: VolumeDirectory) -> VolumeEntry:
    """Make a directory."""
    return await caller.core.volume_files.make_directory(
        caller.tenant_id, volume, wanted.path, parents=wanted.parents, mode=wanted.mode, uid=wanted.uid, gid=wanted.gid
    )


@router.post("/{volume}/files/rename")
async def rename(caller: CallerOf, volume: str, wanted: VolumeRename) -> VolumeEntry:
    """Move a file or directory."""
    if not wanted.source.strip("/") or not wanted.target.strip("/"):
        raise InvalidRequest("cannot move the volume's root directory")
    return await caller.core.volume_files.rename(caller.tenant_id, volume, wanted.source, wanted.target)
