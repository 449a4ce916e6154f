"""Files: bytes in and out, and what surrounds them."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from skerry.errors import InvalidRequest
from skerry.facades.download import Download
from skerry.facades.file_metadata import file_metadata
from skerry.facades.native.access import CallerOf
from skerry.facades.native.content import BODY, REPLIES, Mode, octal, without_content
from skerry.facades.requests import Route, body_of
from skerry.facades.streams import NdjsonResponse, ndjson_of
from skerry.models import FileInfo, FileList, MakeDirectory, Rename, SetAttributes, WatchEvent

router = APIRouter(
    route_class=Route, strict_content_type=False, prefix="/v1/sandboxes/{sandbox_id}/files", tags=["files"]
)

FilePath = Annotated[str, Query(description="Absolute, or relative to the user's home directory")]
User = Annotated[str | None, Query(min_length=1, max_length=256, description="Default: the template's")]


@router.get("", response_class=Response, responses=REPLIES)
async def read(request: Request, caller: CallerOf, sandbox_id: str, path: FilePath, user: User = None) -> Response:
    """A file's content; `Range: bytes=a-b` for a part of it."""
    _check(path)
    return Download(caller.core, (caller.tenant_id, sandbox_id, path), user, request.headers.get("range"))


@router.head("", response_class=Response)
async def head(caller: CallerOf, sandbox_id: str, path: FilePath, user: User = None) -> Response:
    """A file's size, without its content."""
    _check(path)
    info = await caller.core.files.stat(caller.tenant_id, sandbox_id, path, user=user)
    return without_content(path, info.type, info.size)


@router.put("", openapi_extra=BODY)
async def write(
    request: Request, caller: CallerOf, sandbox_id: str, path: FilePath, user: User = None,
    mode: Mode = None, parents: bool = True,
) -> FileInfo:  # fmt: skip
    """Replace a file by the body, atomically. `mode` is octal. Headers `X-Metadata-<key>` are noted on the file."""
    _check(path)
    return await caller.core.files.write(
        caller.tenant_id, sandbox_id, path, body_of(request), user=user,
        mode=octal(mode), parents=parents, metadata=file_metadata(request.headers),
    )  # fmt: skip


@router.delete("", status_code=204, response_class=Response)
async def remove(caller: CallerOf, sandbox_id: str, path: FilePath, user: User = None, recursive: bool = False) -> None:
    """Remove a file, a link or a directory."""
    _check(path)
    await caller.core.files.remove(caller.tenant_id, sandbox_id, path, user=user, recursive=recursive)


@router.patch("")
async def set_attributes(caller: CallerOf, sandbox_id: str, wanted: SetAttributes) -> FileInfo:
    """Change permissions or owner."""
    return await caller.core.files.set_attributes(caller.tenant_id, sandbox_id, wanted)


@router.get("/stat")
async def stat(caller: CallerOf, sandbox_id: str, path: FilePath, user: User = None) -> FileInfo:
    """What a path is; a symbolic link is not followed."""
    _check(path)
    return await caller.core.files.stat(caller.tenant_id, sandbox_id, path, user=user)


@router.get("/list")
async def listing(
    caller: CallerOf, sandbox_id: str, path: FilePath, user: User = None,
    depth: Annotated[int, Query(ge=1, le=64)] = 1, limit: Annotated[int, Query(ge=1, le=100_000)] = 10_000,
) -> FileList:  # fmt: skip
    """What is below a directory, `depth` levels deep."""
    _check(path)
    return await caller.core.files.list(caller.tenant_id, sandbox_id, path, user=user, depth=depth, limit=limit)


@router.post("/mkdir")
async def make_directory(caller: CallerOf, sandbox_id: str, wanted: MakeDirectory) -> FileInfo:
    """Make a directory."""
    return await caller.core.files.make_directory(caller.tenant_id, sandbox_id, wanted)


@router.post("/rename")
async def rename(caller: CallerOf, sandbox_id: str, wanted: Rename) -> FileInfo:
    """Move a file or directory."""
    return await caller.core.files.rename(caller.tenant_id, sandbox_id, wanted)


@router.get("/watch", responses=ndjson_of(WatchEvent), response_class=NdjsonResponse)
async def watch(caller: CallerOf, sandbox_id: str, path: FilePath, user: User = None, recursive: bool = False) -> Any:
    """Changes below a directory, after a line of type `ready`."""
    _check(path)
    events = caller.core.files.watch(caller.tenant_id, sandbox_id, path, user=user, recursive=recursive)
    return NdjsonResponse(events, first=b'{"type":"ready"}\n')


def _check(path: str) -> None:
    if "\0" in path:
        raise InvalidRequest("cannot use the path: it holds a NUL character")
