"""E2B's volumes: the objects, which an API key opens, and their content, which each volume's own token does."""

from __future__ import annotations

import re
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header, Query, Request
from pydantic import Field
from starlette.responses import JSONResponse, Response

from skerry.errors import NotFound, Unauthenticated, VolumeNotFound
from skerry.facades.download import FileDownload
from skerry.facades.e2b.rest import Body, Caller, CallerOf, moment
from skerry.facades.requests import body_of
from skerry.models import FileType, Volume, VolumeEntry, VolumeMount, VolumeSpec, VolumeState

STREAMED = re.compile(r"/volumecontent/[^/]+/file")
"""Paths whose bodies are files."""
_PURPOSE = "volume"
_TYPES = {FileType.FILE: "file", FileType.DIRECTORY: "directory", FileType.SYMLINK: "symlink"}
_LIST_MAX = 10_000


class NewVolume(Body):
    name: Annotated[str, Field(min_length=1, max_length=64)]


class NewMount(Body):
    """Of a new sandbox; E2B knows volumes by name, and no read-only ones."""

    name: Annotated[str, Field(min_length=1, max_length=128)]
    path: str

    def wanted(self) -> VolumeMount:
        """Raises ValidationError."""
        return VolumeMount(volume=self.name, path=self.path)


class Attributes(Body):
    uid: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    gid: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    mode: Annotated[int, Field(ge=0, le=0o7777)] | None = None


def add_routes(app: FastAPI) -> None:
    """Everything below `/volumes` and `/volumecontent`."""
    app.get("/volumes")(listing)
    app.post("/volumes", status_code=201)(create)
    app.get("/volumes/{volume_id}")(get)
    app.delete("/volumes/{volume_id}", status_code=204, response_class=Response)(delete)
    app.get("/volumecontent/{volume_id}/path")(stat)
    app.patch("/volumecontent/{volume_id}/path")(set_attributes)
    app.delete("/volumecontent/{volume_id}/path", status_code=204, response_class=Response)(remove)
    app.get("/volumecontent/{volume_id}/dir")(list_directory)
    app.post("/volumecontent/{volume_id}/dir", status_code=201)(make_directory)
    app.get("/volumecontent/{volume_id}/file")(read)
    app.put("/volumecontent/{volume_id}/file", status_code=201)(write)


# --- volumes --------------------------------------------------------------------------------------------------------


async def listing(caller: CallerOf) -> Response:
    """`GET /volumes`."""
    found = await caller.core.volumes.all(caller.tenant_id)
    return JSONResponse([{"volumeID": volume.id, "name": volume.name} for volume in found])


async def create(caller: CallerOf, wanted: NewVolume) -> Response:
    """`POST /volumes`: of the server's default size."""
    volume = await caller.core.volumes.create(caller.tenant_id, VolumeSpec(name=wanted.name))
    return JSONResponse(_opened(caller, volume), 201)


async def get(caller: CallerOf, volume_id: str) -> Response:
    """`GET /volumes/{id}`: with the token that opens its content."""
    volume = await caller.core.volumes.use.find(caller.tenant_id, volume_id)
    if volume.state is not VolumeState.READY:
        raise VolumeNotFound(f"cannot use volume {volume_id}: it is {volume.state}")
    return JSONResponse(_opened(caller, volume))


async def delete(caller: CallerOf, volume_id: str) -> None:
    """`DELETE /volumes/{id}`: with its snapshots, which E2B's clients do not know of."""
    await caller.core.volumes.delete(caller.tenant_id, volume_id, snapshots=True)


def _opened(caller: Caller, volume: Volume) -> dict[str, Any]:
    return {"volumeID": volume.id, "name": volume.name, "token": caller.tokens.of(volume.id, _PURPOSE)}


# --- content --------------------------------------------------------------------------------------------------------


class Opened:
    """A volume whose token the caller has shown."""

    def __init__(self, request: Request, tenant_id: str, volume_id: str) -> None:
        self.files = request.app.state.core.volume_files
        self.where = (tenant_id, volume_id)


async def _opened_by_token(
    request: Request, volume_id: str, authorization: Annotated[str | None, Header()] = None
) -> Opened:
    """Raises Unauthenticated, NotFound."""
    state = request.app.state
    token = (authorization or "").partition(" ")[2].strip()
    if not state.tokens.fits(token, volume_id, _PURPOSE):
        raise Unauthenticated("the volume's token is missing or wrong")
    owner = await state.core.volumes.owner(volume_id)
    if owner is None:
        raise NotFound(f"volume {volume_id} not found")
    return Opened(request, owner, volume_id)


OpenedVolume = Annotated[Opened, Depends(_opened_by_token)]
Path = Annotated[str, Query(max_length=8192)]
Id = Annotated[int | None, Query(ge=0, le=2**31 - 1)]
Mode = Annotated[int | None, Query(ge=0, le=0o7777)]


async def stat(volume: OpenedVolume, path: Path) -> Response:
    """`GET /volumecontent/{id}/path`."""
    return JSONResponse(_entry(await volume.files.stat(*volume.where, path)))


async def set_attributes(volume: OpenedVolume, path: Path, wanted: Attributes) -> Response:
    """`PATCH /volumecontent/{id}/path`."""
    changed = await volume.files.set_attributes(*volume.where, path, mode=wanted.mode, uid=wanted.uid, gid=wanted.gid)
    return JSONResponse(_entry(changed))


async def remove(volume: OpenedVolume, path: Path) -> None:
    """`DELETE /volumecontent/{id}/path`: a directory with what is in it."""
    await volume.files.remove(*volume.where, path, recursive=True)


async def list_directory(volume: OpenedVolume, path: Path = "/", depth: Annotated[int, Query(ge=1)] = 1) -> Response:
    """`GET /volumecontent/{id}/dir`: at most 16 levels, and 10,000 entries."""
    found = await volume.files.list(*volume.where, path, depth=min(depth, 16), limit=_LIST_MAX)
    return JSONResponse([_entry(item) for item in found.items])


async def make_directory(
    volume: OpenedVolume, path: Path, uid: Id = None, gid: Id = None, mode: Mode = None, force: bool = False
) -> Response:
    """`POST /volumecontent/{id}/dir`. `force`: with its parents, and no matter when it is there."""
    made = await volume.files.make_directory(
        *volume.where, path, parents=force, mode=0o755 if mode is None else mode, uid=uid, gid=gid
    )
    return JSONResponse(_entry(made), 201)


async def read(request: Request, volume: OpenedVolume, path: Path) -> Response:
    """`GET /volumecontent/{id}/file`."""
    return FileDownload(
        lambda: volume.files.stat(*volume.where, path),
        lambda offset, length: volume.files.read(*volume.where, path, offset=offset, length=length),
        request.headers.get("range"),
    )


async def write(
    request: Request, volume: OpenedVolume, path: Path, uid: Id = None, gid: Id = None, mode: Mode = None,
    force: bool = False,
) -> Response:  # fmt: skip
    """`PUT /volumecontent/{id}/file`: replaced as a whole, with `force` or without, as E2B's clients say of it."""
    written = await volume.files.write(*volume.where, path, body_of(request), mode=mode, uid=uid, gid=gid)
    return JSONResponse(_entry(written), 201)


def _entry(item: VolumeEntry) -> dict[str, Any]:
    """VolumeEntryStat."""
    shown = {
        "name": item.name, "type": _TYPES.get(item.type, "unknown"), "path": item.path, "size": item.size,
        "mode": item.mode, "uid": item.uid, "gid": item.gid, "atime": moment(item.accessed_at),
        "mtime": moment(item.modified_at), "ctime": moment(item.changed_at),
    }  # fmt: skip
    return shown if item.target is None else {**shown, "target": item.target}
