"""E2B's templates: the builds of its `Template()`, their files and logs, aliases and tags."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query, Request
from pydantic import Field
from starlette.responses import JSONResponse, Response

from skerry.errors import InvalidRequest, TemplateNotFound
from skerry.facades.e2b import snapshots
from skerry.facades.e2b.errors import plain_error
from skerry.facades.e2b.rest import ENVD_VERSION, Body, CallerOf, moment
from skerry.facades.e2b.sandbox import whole_cores
from skerry.models import Build, BuildLine, BuildState, Limits, Recipe, Registry, Step, StepKind, Template

STREAMED = re.compile(r"/templates/uploads/[^/]+/[^/]+")
"""Paths whose bodies are archives."""
_UPLOAD = "upload"
_DISK_MIB = 4096
_PIDS = 512
_LEVELS = ("debug", "info", "warn", "error")


class NewTemplate(Body):
    name: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    alias: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    tags: list[str] | None = None
    cpuCount: Annotated[int, Field(ge=1, le=64)] | None = None
    memoryMB: Annotated[int, Field(ge=128, le=1 << 20)] | None = None
    minFreeDiskMb: Annotated[int, Field(ge=0, le=1 << 20)] | None = None


class ImageRegistry(Body):
    type: str
    username: str | None = None
    password: str | None = None


class Instruction(Body):
    type: Literal["COPY", "ENV", "RUN", "WORKDIR", "USER"]
    args: list[str] | None = None
    filesHash: str | None = None
    force: bool | None = None


class StartBuild(Body):
    fromImage: str | None = None
    fromTemplate: str | None = None
    fromImageRegistry: ImageRegistry | None = None
    force: bool | None = None
    steps: list[Instruction] | None = None
    startCmd: str | None = None
    readyCmd: str | None = None


class Tagging(Body):
    target: str
    tags: Annotated[list[str], Field(min_length=1)]


class Untagging(Body):
    name: str
    tags: Annotated[list[str], Field(min_length=1)]


def add_routes(app: FastAPI) -> None:
    """Everything below `/templates`."""
    app.post("/v3/templates", status_code=202)(request_build)
    app.post("/v2/templates", status_code=202)(request_build)
    app.get("/templates/{template_id}/files/{digest}", status_code=201)(files)
    app.put("/templates/uploads/{tenant_id}/{digest}")(upload)
    app.post("/v2/templates/{template_id}/builds/{build_id}", status_code=202)(start_build)
    app.get("/templates/{template_id}/builds/{build_id}/status")(status)
    app.get("/templates/{template_id}/builds/{build_id}/logs")(logs)
    app.get("/templates/aliases/{alias:path}")(alias)
    app.post("/templates/tags", status_code=201)(add_tags)
    app.delete("/templates/tags", status_code=204, response_class=Response)(remove_tags)
    app.get("/templates/{template_id}/tags")(tags)
    app.get("/templates")(listing)
    app.get("/v2/templates")(listing)
    app.delete("/templates/{template_id:path}", status_code=204, response_class=Response)(remove)


# --- builds ---------------------------------------------------------------------------------------------------------


async def request_build(caller: CallerOf, wanted: NewTemplate) -> Response:
    """`POST /v3/templates`: a build that waits for its recipe."""
    name = wanted.name or wanted.alias
    if name is None:
        return plain_error(400, "error validating the request: name: Field required")
    limits = Limits(
        cpu=float(wanted.cpuCount or 2), memory_mib=wanted.memoryMB or 1024, pids=_PIDS,
        disk_mib=max(_DISK_MIB, wanted.minFreeDiskMb or 0),
    )  # fmt: skip
    build, given = await caller.core.builds.request(caller.tenant_id, name, wanted.tags or [], limits)
    shown = {
        "templateID": build.template_id, "buildID": build.id, "public": False, "names": [build.name], "tags": given,
        "aliases": [build.name],
    }  # fmt: skip
    return JSONResponse(shown, 202)


async def files(request: Request, caller: CallerOf, template_id: str, digest: str) -> Response:
    """`GET /templates/{id}/files/{hash}`: where to upload the files of a COPY, and whether they are here already."""
    await caller.core.templates.record(caller.tenant_id, template_id)
    token = caller.tokens.of(f"{caller.tenant_id}/{digest}", _UPLOAD)
    url = f"{request.base_url}templates/uploads/{caller.tenant_id}/{digest}?token={token}"
    return JSONResponse({"present": caller.core.uploads.has(caller.tenant_id, digest), "url": url}, 201)


async def upload(request: Request, tenant_id: str, digest: str, token: str = "") -> Response:
    """`PUT` to the address that `files` gave: clients send no key with it."""
    state = request.app.state
    if not state.tokens.fits(token, f"{tenant_id}/{digest}", _UPLOAD):
        return plain_error(403, "the address of the upload is not valid")
    await state.core.uploads.keep(tenant_id, digest, request.stream())
    return Response(status_code=200)


async def start_build(caller: CallerOf, template_id: str, build_id: str, wanted: StartBuild) -> Response:
    """`POST /v2/templates/{id}/builds/{id}`: begin with this recipe."""
    registry = wanted.fromImageRegistry
    credentials = None
    if registry is not None:
        if registry.type != "registry" or registry.username is None or registry.password is None:
            return plain_error(400, f"registry type {registry.type} is not supported: use a username and a password")
        credentials = Registry(username=registry.username, password=registry.password)
    recipe = Recipe(
        from_image=wanted.fromImage or None, from_template=wanted.fromTemplate or None, registry=credentials,
        steps=[_step(step) for step in wanted.steps or []], start_command=wanted.startCmd or None,
        ready_command=wanted.readyCmd or None, force=wanted.force is True,
    )  # fmt: skip
    await caller.core.builds.begin(caller.tenant_id, template_id, build_id, recipe)
    return Response(status_code=202)


def _step(wanted: Instruction) -> Step:
    return Step(
        kind=StepKind(wanted.type.lower()), args=wanted.args or [], files=wanted.filesHash, force=wanted.force is True
    )


async def status(
    caller: CallerOf, template_id: str, build_id: str,
    offset: Annotated[int, Query(alias="logsOffset", ge=0)] = 0, limit: Annotated[int, Query(ge=1, le=100)] = 100,
    level: Literal["debug", "info", "warn", "error"] = "debug",
) -> Response:  # fmt: skip
    """`GET …/status`: state and log, a hundred lines at a time."""
    build = await caller.core.builds.get(caller.tenant_id, template_id, build_id)
    lines = [line for line in build.log if _LEVELS.index(line.level) >= _LEVELS.index(level)][offset : offset + limit]
    shown: dict[str, Any] = {
        "templateID": build.template_id, "buildID": build.id, "logs": [line.text for line in lines],
        "logEntries": [_entry(line) for line in lines],
        "status": "error" if build.state is BuildState.FAILED else build.state.value,
    }  # fmt: skip
    if build.state is BuildState.FAILED:
        of_step = [_entry(line) for line in build.log if line.step == build.step][-20:]
        shown["reason"] = {"message": build.message, "step": build.step, "logEntries": of_step}
    return JSONResponse(shown)


async def logs(caller: CallerOf, template_id: str, build_id: str) -> Response:
    """`GET …/logs`: all of it."""
    build: Build = await caller.core.builds.get(caller.tenant_id, template_id, build_id)
    return JSONResponse({"logs": [_entry(line) for line in build.log]})


def _entry(line: BuildLine) -> dict[str, Any]:
    return {"timestamp": moment(line.at), "level": line.level, "message": line.text, "step": line.step}


# --- names ----------------------------------------------------------------------------------------------------------


async def alias(caller: CallerOf, alias: str) -> Response:
    """`GET /templates/aliases/{alias}`: a name without a tag is there whatever its tags are."""
    templates = caller.core.templates
    try:
        template = await templates.get(caller.tenant_id, alias)
    except TemplateNotFound:
        with suppress(TemplateNotFound, InvalidRequest):
            if ":" not in alias and await templates.tags(caller.tenant_id, alias):
                return JSONResponse({"templateID": alias, "public": False})
        if snapshot := await snapshots.find(caller, alias):
            return JSONResponse({"templateID": snapshot.id, "public": False})
        return plain_error(404, f"template alias '{alias}' not found")
    return JSONResponse({"templateID": template.name, "public": template.build_id is None})


async def add_tags(caller: CallerOf, wanted: Tagging) -> Response:
    """`POST /templates/tags`."""
    build_id, given = await caller.core.templates.tag(caller.tenant_id, wanted.target, wanted.tags)
    return JSONResponse({"buildID": build_id, "tags": given}, 201)


async def remove_tags(caller: CallerOf, wanted: Untagging) -> None:
    """`DELETE /templates/tags`."""
    await caller.core.templates.untag(caller.tenant_id, wanted.name, wanted.tags)


async def tags(caller: CallerOf, template_id: str) -> Response:
    """`GET /templates/{id}/tags`."""
    found = await caller.core.templates.tags(caller.tenant_id, template_id)
    shown = [{"tag": tag.tag, "buildID": tag.build_id, "createdAt": moment(tag.created_at)} for tag in found]
    return JSONResponse(shown)


async def listing(caller: CallerOf) -> Response:
    """`GET /templates`."""
    return JSONResponse([_listed(template) for template in await caller.core.templates.all(caller.tenant_id)])


def _listed(template: Template) -> dict[str, Any]:
    built: datetime = template.built_at
    return {
        "templateID": template.name, "buildID": template.build_id or template.image.partition(":")[2][:32],
        "public": template.build_id is None, "cpuCount": whole_cores(template.limits.cpu),
        "memoryMB": template.limits.memory_mib, "diskSizeMB": template.limits.disk_mib, "aliases": [template.name],
        "names": [template.name], "createdAt": moment(built), "updatedAt": moment(built), "createdBy": None,
        "lastSpawnedAt": None, "spawnCount": 0, "buildCount": 1, "envdVersion": ENVD_VERSION, "buildStatus": "ready",
    }  # fmt: skip


async def remove(caller: CallerOf, template_id: str) -> None:
    """`DELETE /templates/{id}`: of a snapshot, too."""
    is_qualified = snapshots.is_qualified(template_id)
    if is_qualified and await snapshots.remove(caller, template_id):
        return
    try:
        await caller.core.builds.remove(caller.tenant_id, template_id)
    except TemplateNotFound:
        if is_qualified or not await snapshots.remove(caller, template_id):
            raise
