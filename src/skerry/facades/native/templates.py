"""Templates: what there is, and building those that ship."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import APIRouter

from skerry.core import Core
from skerry.facades.native.access import CallerOf
from skerry.facades.streams import NdjsonResponse, ndjson_of
from skerry.models import Reply, Template

router = APIRouter(strict_content_type=False, prefix="/v1/templates", tags=["templates"])


class TemplateList(Reply):
    items: list[Template]


class BuildLog(Reply):
    type: str = "log"
    text: str


class BuildDone(Reply):
    type: str = "done"
    template: Template


@router.get("")
async def listing(caller: CallerOf) -> TemplateList:
    """Templates that are built."""
    return TemplateList(items=await caller.core.templates.all(caller.tenant_id))


@router.get("/{name}")
async def get(caller: CallerOf, name: str) -> Template:
    """One template."""
    return await caller.core.templates.get(caller.tenant_id, name)


@router.post("/{name}/build", responses=ndjson_of(BuildLog, BuildDone), response_class=NdjsonResponse)
async def build(caller: CallerOf, name: str) -> Any:
    """Build a template that ships, unless it is built already."""
    return NdjsonResponse(_building(caller.core, caller.tenant_id, name))


@asynccontextmanager
async def _building(core: Core, tenant_id: str, name: str) -> AsyncIterator[AsyncIterator[BuildLog | BuildDone]]:
    async def events() -> AsyncIterator[BuildLog | BuildDone]:
        async for text in core.templates.build(name):
            yield BuildLog(text=text)
        yield BuildDone(template=await core.templates.get(tenant_id, name))

    yield events()
