"""Health, metrics, events of all sandboxes."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from skerry import __version__
from skerry.facades.native.access import CallerOf
from skerry.facades.requests import Route
from skerry.facades.streams import NdjsonResponse
from skerry.models import Event, Reply

router = APIRouter(route_class=Route, strict_content_type=False, tags=["server"])


class Health(Reply):
    status: str
    version: str


class EventList(Reply):
    items: list[Event]


@router.get("/health")
async def health() -> Health:
    """Whether the server answers; needs no key."""
    return Health(status="ok", version=__version__)


@router.get("/metrics", response_class=Response)
async def metrics(request: Request, caller: CallerOf) -> Response:
    """Prometheus text."""
    content, media_type = request.app.state.metrics.render(caller.core)
    return Response(content, media_type=media_type)


@router.get("/v1/events", response_model=EventList)
async def events(
    caller: CallerOf, after: Annotated[int, Query(ge=0)] = 0, limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    follow: bool = False,
) -> Any:  # fmt: skip
    """Events of all sandboxes, oldest first. `follow`: as NDJSON, with those that are still to happen."""
    if follow:
        return NdjsonResponse(caller.core.events.follow(caller.tenant_id, after=after), first=b'{"type":"ready"}\n')
    return EventList(items=await caller.core.events.list(caller.tenant_id, after=after, limit=limit))
