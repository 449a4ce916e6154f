"""Templates: what there is, builds of those that ship and of users' own, and their tags."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from skerry.core import Core
from skerry.errors import NotFound, TemplateBuildFailed
from skerry.facades.native.access import Caller, CallerOf
from skerry.facades.requests import Route
from skerry.facades.streams import NdjsonResponse, ndjson_of
from skerry.models import Build, BuildSpec, BuildState, Limits, Reply, Tag, Template

router = APIRouter(route_class=Route, strict_content_type=False, prefix="/v1", tags=["templates"])


class TemplateList(Reply):
    items: list[Template]


class TagList(Reply):
    items: list[Tag]


class BuildLog(Reply):
    type: str = "log"
    text: str
    level: str = "info"
    step: str | None = None


class BuildDone(Reply):
    type: str = "done"
    template: Template


@router.get("/templates")
async def listing(caller: CallerOf) -> TemplateList:
    """Templates that are built."""
    return TemplateList(items=await caller.core.templates.all(caller.tenant_id))


@router.get("/templates/{name}")
async def get(caller: CallerOf, name: str) -> Template:
    """One template."""
    return await caller.core.templates.get(caller.tenant_id, name)


@router.delete("/templates/{name}", status_code=204, response_class=Response)
async def remove(caller: CallerOf, name: str) -> None:
    """Remove a template of the tenant's own, with its builds and tags; sandboxes that run go on."""
    await caller.core.builds.remove(caller.tenant_id, name)


# --- those that ship ------------------------------------------------------------------------------------------------


@router.post("/templates/{name}/build", responses=ndjson_of(BuildLog, BuildDone), response_class=NdjsonResponse)
async def build_shipped(caller: CallerOf, name: str) -> Any:
    """Build a template that ships, unless it is built already."""
    return NdjsonResponse(_building(caller.core, caller.tenant_id, name))


@asynccontextmanager
async def _building(core: Core, tenant_id: str, name: str) -> AsyncIterator[AsyncIterator[BuildLog | BuildDone]]:
    async def events() -> AsyncIterator[BuildLog | BuildDone]:
        async for text in core.templates.build(name):
            yield BuildLog(text=text)
        yield BuildDone(template=await core.templates.get(tenant_id, name))

    yield events()


# --- those that users build -----------------------------------------------------------------------------------------


@router.get("/build-files/{digest}", status_code=204, response_class=Response)
async def has_files(caller: CallerOf, digest: str) -> None:
    """Whether an archive was uploaded under that hash; 404 when not."""
    if not caller.core.uploads.has(caller.tenant_id, digest):
        raise NotFound(f"cannot find files {digest}: none were uploaded under that hash")


@router.put(
    "/build-files/{digest}",
    status_code=204,
    response_class=Response,
    openapi_extra={
        "requestBody": {"content": {"application/x-tar": {"schema": {"type": "string", "format": "binary"}}}}
    },
)
async def upload(request: Request, caller: CallerOf, digest: str) -> None:
    """Keep the body, a tar that may be compressed by gzip, for builds that name this hash; it is the caller's to choose
    and should change when the files do. Kept for a week."""
    await caller.core.uploads.keep(caller.tenant_id, digest, request.stream())


@router.post("/templates/{name}/builds", status_code=201)
async def build(caller: CallerOf, name: str, spec: BuildSpec) -> Build:
    """Begin to build a template. The name may carry a tag, `name:tag`; a tag means the build once it is ready."""
    limits = Limits(cpu=spec.cpu, memory_mib=spec.memory_mib, disk_mib=spec.disk_mib, pids=spec.pids)
    return await caller.core.builds.build(caller.tenant_id, name, spec.tags, limits, spec.recipe)


@router.get("/templates/{name}/builds/{build_id}")
async def get_build(caller: CallerOf, name: str, build_id: str) -> Build:
    """A build as it is now, with its log."""
    return await caller.core.builds.get(caller.tenant_id, name, build_id)


@router.get(
    "/templates/{name}/builds/{build_id}/log", responses=ndjson_of(BuildLog, BuildDone), response_class=NdjsonResponse
)
async def follow(caller: CallerOf, name: str, build_id: str) -> Any:
    """The log as it grows; last the template, or the error that says which step failed and why."""
    return NdjsonResponse(_following(caller, name, build_id))


@asynccontextmanager
async def _following(caller: Caller, name: str, build_id: str) -> AsyncIterator[AsyncIterator[BuildLog | BuildDone]]:
    async def events() -> AsyncIterator[BuildLog | BuildDone]:
        async for event in caller.core.builds.follow(caller.tenant_id, name, build_id):
            if not isinstance(event, Build):
                yield BuildLog(text=event.text, level=event.level, step=event.step)
            elif event.state is BuildState.READY and event.template is not None:
                yield BuildDone(template=event.template)
            else:
                raise _failure(event)

    yield events()


def _failure(build: Build) -> TemplateBuildFailed:
    log = [line.text for line in build.log if line.step == build.step][-20:]
    return TemplateBuildFailed(
        f"cannot build template {build.name!r}: step {build.step}: {build.message}", step=build.step, log=log
    )


# --- tags -----------------------------------------------------------------------------------------------------------


@router.get("/templates/{name}/tags")
async def tags(caller: CallerOf, name: str) -> TagList:
    """The tags of a template of the tenant's own."""
    return TagList(items=await caller.core.templates.tags(caller.tenant_id, name))


@router.put("/templates/{name}/tags/{tag}", status_code=204, response_class=Response)
async def tag(
    caller: CallerOf, name: str, tag: str,
    source: Annotated[str, Query(description="The tag whose build is meant")] = "default",
) -> None:  # fmt: skip
    """Let a tag mean what another one means now."""
    await caller.core.templates.tag(caller.tenant_id, f"{name}:{source}", [tag])


@router.delete("/templates/{name}/tags/{tag}", status_code=204, response_class=Response)
async def untag(caller: CallerOf, name: str, tag: str) -> None:
    """Take a tag away; its build stays."""
    await caller.core.templates.untag(caller.tenant_id, name, [tag])
