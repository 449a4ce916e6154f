"""Sandboxes: create, list, look, change, destroy."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from starlette.responses import Response

from skerry.core.states import LIVE
from skerry.errors import InvalidRequest
from skerry.facades.native.access import CallerOf
from skerry.facades.native.meta import EventList
from skerry.facades.requests import Route
from skerry.models import (
    Reply,
    Sandbox,
    SandboxPage,
    SandboxSpec,
    SandboxState,
    SandboxStats,
    SandboxUpdate,
    UsageSample,
)

router = APIRouter(route_class=Route, strict_content_type=False, prefix="/v1/sandboxes", tags=["sandboxes"])

IdempotencyKey = Annotated[str | None, Header(min_length=1, max_length=255)]


@router.post("", status_code=201)
async def create(
    request: Request, caller: CallerOf, spec: SandboxSpec, idempotency_key: IdempotencyKey = None
) -> Sandbox:
    """A running sandbox."""
    began = time.perf_counter()
    sandbox = await caller.core.create(caller.tenant_id, spec, idempotency_key)
    request.app.state.metrics.create.labels(sandbox.origin).observe(time.perf_counter() - began)
    return sandbox


@router.get("")
async def page(
    caller: CallerOf,
    state: Annotated[list[SandboxState] | None, Query()] = None,
    template: str | None = None,
    metadata: Annotated[list[str] | None, Query(max_length=64)] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: Annotated[str | None, Query(max_length=64)] = None,
) -> SandboxPage:
    """Newest first; those that have not ended, unless states are named."""
    return await caller.core.sandboxes.page(
        caller.tenant_id, states=state or LIVE, template=template, metadata=_pairs(metadata or []), limit=limit,
        cursor=cursor,
    )  # fmt: skip


def _pairs(metadata: list[str]) -> dict[str, str]:
    pairs = {}
    for pair in metadata:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise InvalidRequest(f"cannot filter by metadata {pair!r}: it must be name=value")
        pairs[name] = value
    return pairs


@router.get("/{sandbox_id}")
async def get(caller: CallerOf, sandbox_id: str) -> Sandbox:
    """Also after its end, with the reason."""
    return await caller.core.sandboxes.get(caller.tenant_id, sandbox_id)


@router.patch("/{sandbox_id}")
async def update(caller: CallerOf, sandbox_id: str, change: SandboxUpdate) -> Sandbox:
    """Fields left out stay as they are."""
    return await caller.core.sandboxes.update(caller.tenant_id, sandbox_id, change)


@router.delete("/{sandbox_id}", status_code=204, response_class=Response)
async def destroy(caller: CallerOf, sandbox_id: str) -> None:
    """End it now; also when it has ended already."""
    await caller.core.sandboxes.destroy(caller.tenant_id, sandbox_id)


@router.get("/{sandbox_id}/stats")
async def stats(caller: CallerOf, sandbox_id: str) -> SandboxStats:
    """What it holds and has used."""
    return await caller.core.sandboxes.stats(caller.tenant_id, sandbox_id)


class UsageHistory(Reply):
    items: list[UsageSample]


@router.get("/{sandbox_id}/stats/history")
async def history(caller: CallerOf, sandbox_id: str) -> UsageHistory:
    """What it has used over its life, the oldest first: a sample every five seconds, fewer of a long life."""
    return UsageHistory(items=await caller.core.sandboxes.history(caller.tenant_id, sandbox_id))


@router.get("/{sandbox_id}/events")
async def events(
    caller: CallerOf, sandbox_id: str, after: Annotated[int, Query(ge=0)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> EventList:  # fmt: skip
    """What happened to it, oldest first."""
    await caller.core.sandboxes.get(caller.tenant_id, sandbox_id)
    return EventList(items=await caller.core.events.list(caller.tenant_id, sandbox_id, after=after, limit=limit))
