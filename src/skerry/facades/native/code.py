"""`run_code` and its contexts."""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from skerry.facades.native.access import CallerOf
from skerry.facades.requests import Route
from skerry.facades.streams import NdjsonResponse, ndjson_of, while_connected
from skerry.models import CodeReply, CodeSpec, Context, ContextSpec, Done, ExecutionError, Reply, Result, Stderr, Stdout

router = APIRouter(route_class=Route, strict_content_type=False, prefix="/v1/sandboxes/{sandbox_id}", tags=["code"])


class ContextList(Reply):
    items: list[Context]


@router.post("/code/run", response_model=CodeReply)
async def run(request: Request, caller: CallerOf, sandbox_id: str, spec: CodeSpec) -> Response:
    """Run code to its end; it is interrupted when the caller leaves."""
    began = time.perf_counter()
    reply = await while_connected(request, lambda: caller.core.contexts.gather(caller.tenant_id, sandbox_id, spec))
    request.app.state.metrics.run_code.observe(time.perf_counter() - began)
    return Response(reply.__pydantic_serializer__.to_json(reply), media_type="application/json")


@router.post(
    "/code/stream", responses=ndjson_of(Stdout, Stderr, Result, ExecutionError, Done), response_class=NdjsonResponse
)
async def stream(caller: CallerOf, sandbox_id: str, spec: CodeSpec) -> Any:
    """Run code and follow it; it is interrupted when the caller leaves."""
    return NdjsonResponse(caller.core.contexts.run(caller.tenant_id, sandbox_id, spec))


@router.post("/contexts", status_code=201)
async def create_context(caller: CallerOf, sandbox_id: str, spec: ContextSpec) -> Context:
    """A context with an interpreter of its own."""
    return await caller.core.contexts.create(caller.tenant_id, sandbox_id, spec)


@router.get("/contexts")
async def contexts(caller: CallerOf, sandbox_id: str) -> ContextList:
    """Those that were made or used."""
    return ContextList(items=await caller.core.contexts.list(caller.tenant_id, sandbox_id))


@router.delete("/contexts/{context_id}", status_code=204, response_class=Response)
async def remove_context(caller: CallerOf, sandbox_id: str, context_id: str) -> None:
    """End a context's interpreter and forget it."""
    await caller.core.contexts.remove(caller.tenant_id, sandbox_id, context_id)


@router.post("/contexts/{context_id}/restart")
async def restart_context(caller: CallerOf, sandbox_id: str, context_id: str) -> Context:
    """A fresh interpreter for the context."""
    return await caller.core.contexts.restart(caller.tenant_id, sandbox_id, context_id)


@router.post("/contexts/{context_id}/interrupt", status_code=204, response_class=Response)
async def interrupt_context(caller: CallerOf, sandbox_id: str, context_id: str) -> None:
    """Interrupt what runs in it."""
    await caller.core.contexts.interrupt(caller.tenant_id, sandbox_id, context_id)
