"""Processes: start, run, follow, write to, signal."""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from skerry.facades.native.access import CallerOf
from skerry.facades.requests import Route
from skerry.facades.streams import NdjsonResponse, ndjson_of, patient, while_connected
from skerry.models import Exit, Output, Process, ProcessResult, ProcessSpec, Reply, Signal, Started, TerminalSize

router = APIRouter(
    route_class=Route, strict_content_type=False, prefix="/v1/sandboxes/{sandbox_id}/processes", tags=["processes"]
)

Pid = Annotated[int, Path(ge=1, le=2**31 - 1)]
Offset = Annotated[int | None, Query(ge=0, le=2**62)]


class ProcessList(Reply):
    items: list[Process]


@router.post("", status_code=201)
async def start(caller: CallerOf, sandbox_id: str, spec: ProcessSpec) -> Process:
    """Start a process, which goes on by itself."""
    return await caller.core.processes.start(caller.tenant_id, sandbox_id, spec)


@router.post("/run", response_model=ProcessResult)
async def run(request: Request, caller: CallerOf, sandbox_id: str, spec: ProcessSpec) -> Response:
    """Run a process to its end; it is killed when the caller leaves."""
    began = time.perf_counter()
    result = await while_connected(request, lambda: caller.core.processes.gather(caller.tenant_id, sandbox_id, spec))
    request.app.state.metrics.process.observe(time.perf_counter() - began)
    return Response(result.__pydantic_serializer__.to_json(result), media_type="application/json")


@router.post("/stream", responses=ndjson_of(Started, Output, Exit), response_class=NdjsonResponse)
async def stream(caller: CallerOf, sandbox_id: str, spec: ProcessSpec) -> Any:
    """Start a process and follow it; it goes on when the caller leaves."""
    return NdjsonResponse(caller.core.processes.run(caller.tenant_id, sandbox_id, spec))


@router.get("")
async def listing(caller: CallerOf, sandbox_id: str) -> ProcessList:
    """Those that run, and those that ended in the last minute."""
    return ProcessList(items=await caller.core.processes.list(caller.tenant_id, sandbox_id))


@router.get("/{pid}/output", responses=ndjson_of(Started, Output, Exit), response_class=NdjsonResponse)
async def output(
    caller: CallerOf, sandbox_id: str, pid: Pid, stdout_offset: Offset = None, stderr_offset: Offset = None
) -> Any:
    """Follow a process from an offset of each stream; default: all that is held."""
    return NdjsonResponse(
        caller.core.processes.attach(
            caller.tenant_id, sandbox_id, pid, stdout_offset=stdout_offset, stderr_offset=stderr_offset
        )
    )


@router.post("/{pid}/stdin", status_code=204, response_class=Response)
async def stdin(request: Request, caller: CallerOf, sandbox_id: str, pid: Pid, eof: bool = False) -> None:
    """The body is written to the process's input; `eof` closes it."""
    patient(request.scope)
    await caller.core.processes.write_stdin(caller.tenant_id, sandbox_id, pid, request.stream(), eof=eof)


@router.post("/{pid}/signal", status_code=204, response_class=Response)
async def signal(caller: CallerOf, sandbox_id: str, pid: Pid, wanted: Signal) -> None:
    """Signal the process's group, or the process alone."""
    await caller.core.processes.signal(caller.tenant_id, sandbox_id, pid, wanted)


@router.post("/{pid}/resize", status_code=204, response_class=Response)
async def resize(caller: CallerOf, sandbox_id: str, pid: Pid, size: TerminalSize) -> None:
    """Change the size of its terminal."""
    await caller.core.processes.resize(caller.tenant_id, sandbox_id, pid, size)
