"""What E2B's sandboxes go through: their time, pause and resume, forks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import anyio
from fastapi import FastAPI
from pydantic import Field
from starlette.responses import JSONResponse, Response

from skerry.errors import CannotSnapshot, Error, SandboxNotFound
from skerry.facades.e2b.errors import plain_error
from skerry.facades.e2b.rest import RESTING, Body, Caller, CallerOf, opened, record_of
from skerry.facades.e2b.sandbox import Facts, facts_of
from skerry.models import (
    Fork,
    ForkSpec,
    OnTimeout,
    PauseSpec,
    ResumeSpec,
    Sandbox,
    SandboxState,
    SandboxUpdate,
)
from skerry.ports import SandboxRecord

V1_TIMEOUT_S, V2_TIMEOUT_S = 15, 300
Seconds = Annotated[int, Field(le=10 * 365 * 86400)]
"""No more than the core takes; how little is possible, each call says itself."""
_ANSWER_S = 5.0
"""In which a healthy sandbox answers."""
_FORKS_MAX = 100


class Timeout(Body):
    timeout: Seconds


class Refresh(Body):
    duration: Annotated[int, Field(ge=0, le=3600)] = 60


class PauseSandbox(Body):
    memory: bool | None = None
    requireHealthyGuest: bool | None = None


class ConnectSandbox(Body):
    timeout: Seconds | None = None
    memory: bool | None = None


class ResumeSandbox(ConnectSandbox):
    autoPause: bool | None = None


class ForkSandbox(Body):
    timeout: Seconds | None = None
    count: int | None = None


def add_routes(app: FastAPI) -> None:
    """Below `/sandboxes/{id}`."""
    app.post("/sandboxes/{sandbox_id}/timeout", status_code=204, response_class=Response)(set_timeout)
    app.post("/sandboxes/{sandbox_id}/refreshes", status_code=204, response_class=Response)(refresh)
    app.post("/sandboxes/{sandbox_id}/pause", status_code=204, response_class=Response)(pause)
    app.post("/sandboxes/{sandbox_id}/connect")(connect)
    app.post("/v2/sandboxes/{sandbox_id}/connect")(connect)
    app.post("/sandboxes/{sandbox_id}/resume", status_code=201)(resume)
    app.post("/sandboxes/{sandbox_id}/fork", status_code=201)(fork)


# --- time -----------------------------------------------------------------------------------------------------------


async def set_timeout(caller: CallerOf, sandbox_id: str, wanted: Timeout) -> Response:
    """`POST /sandboxes/{id}/timeout`: from now; with 0 its time is over now."""
    sandbox = (await _running(caller, sandbox_id)).sandbox
    if wanted.timeout < 0:
        return plain_error(400, "Timeout must not be negative")
    if wanted.timeout > 0:
        change = SandboxUpdate(timeout_s=float(wanted.timeout))
        await caller.core.sandboxes.update(caller.tenant_id, sandbox.id, change)
    elif sandbox.on_timeout is OnTimeout.PAUSE:
        await caller.core.lifecycle.pause(caller.tenant_id, sandbox.id, PauseSpec(keep_memory=sandbox.keep_memory))
    else:
        await caller.core.sandboxes.destroy(caller.tenant_id, sandbox.id)
    return Response(status_code=204)


async def refresh(caller: CallerOf, sandbox_id: str, wanted: Refresh) -> None:
    """`POST /sandboxes/{id}/refreshes`: so much time at least."""
    await _extend(caller, (await _running(caller, sandbox_id)).sandbox, wanted.duration)


async def _running(caller: Caller, sandbox_id: str) -> SandboxRecord:
    """One that is paused has no time to change. Raises SandboxNotFound."""
    record = await record_of(caller, sandbox_id)
    if record.sandbox.state in RESTING:
        raise SandboxNotFound(f"cannot change the time of sandbox {sandbox_id}: it is paused", sandbox_id=sandbox_id)
    return record


async def _extend(caller: Caller, sandbox: Sandbox, timeout_s: int) -> None:
    expires_at = sandbox.expires_at
    if timeout_s > 0 and expires_at is not None and expires_at < datetime.now(UTC) + timedelta(seconds=timeout_s):
        await caller.core.sandboxes.update(caller.tenant_id, sandbox.id, SandboxUpdate(timeout_s=float(timeout_s)))


# --- pause and resume -----------------------------------------------------------------------------------------------


async def pause(caller: CallerOf, sandbox_id: str, wanted: PauseSandbox | None = None) -> Response:
    """`POST /sandboxes/{id}/pause`: 409 says that it is paused already, and nothing else."""
    wanted, record = wanted or PauseSandbox(), await record_of(caller, sandbox_id)
    sandbox_id = record.sandbox.id
    if record.sandbox.state in RESTING:
        return plain_error(409, f"Error pausing sandbox - sandbox '{sandbox_id}' is already paused")
    if wanted.requireHealthyGuest and not await _answers(caller, sandbox_id):
        return plain_error(503, f"Sandbox '{sandbox_id}' does not answer; it keeps running", {"Should-Retry": "false"})
    try:
        spec = PauseSpec(keep_memory=wanted.memory is not False)
        await caller.core.lifecycle.pause(caller.tenant_id, sandbox_id, spec)
    except CannotSnapshot as error:
        return plain_error(500, error.message, {"Should-Retry": "false"})
    return Response(status_code=204)


async def _answers(caller: Caller, sandbox_id: str) -> bool:
    with anyio.move_on_after(_ANSWER_S):
        await caller.core.processes.list(caller.tenant_id, sandbox_id)
        return True
    return False


async def connect(caller: CallerOf, sandbox_id: str, wanted: ConnectSandbox | None = None) -> Response:
    """`POST /v2/sandboxes/{id}/connect`: resumes one that is paused; one that runs gets more time, never less."""
    wanted, record = wanted or ConnectSandbox(), await record_of(caller, sandbox_id)
    timeout_s, paused = V2_TIMEOUT_S if wanted.timeout is None else wanted.timeout, record.sandbox.state in RESTING
    if timeout_s < 0 or (paused and timeout_s == 0):
        return plain_error(400, "Timeout must be greater than 0")
    sandbox = await _resumed(caller, record.sandbox, timeout_s, wanted.memory)
    await _extend(caller, sandbox, timeout_s)
    return JSONResponse(opened(caller, sandbox, facts_of(record)), 201 if paused else 200)


async def resume(caller: CallerOf, sandbox_id: str, wanted: ResumeSandbox | None = None) -> Response:
    """`POST /sandboxes/{id}/resume`: of older SDKs."""
    wanted, record = wanted or ResumeSandbox(), await record_of(caller, sandbox_id)
    timeout_s = V1_TIMEOUT_S if wanted.timeout is None else wanted.timeout
    if timeout_s <= 0:
        return plain_error(400, "Timeout must be greater than 0")
    if record.sandbox.state not in RESTING:
        return plain_error(409, f"Sandbox {record.sandbox.id} is already running")
    if wanted.autoPause is not None:
        on_timeout = OnTimeout.PAUSE if wanted.autoPause else OnTimeout.KILL
        change = SandboxUpdate(on_timeout=on_timeout)
        await caller.core.sandboxes.update(caller.tenant_id, record.sandbox.id, change)
    sandbox = await _resumed(caller, record.sandbox, timeout_s, wanted.memory)
    return JSONResponse(opened(caller, sandbox, facts_of(record)), 201)


async def _resumed(caller: Caller, sandbox: Sandbox, timeout_s: int, memory: bool | None) -> Sandbox:
    """It runs, also after what is under way with it."""
    go_on = caller.core.lifecycle.resume
    if sandbox.state is SandboxState.STOPPED:
        go_on = caller.core.lifecycle.start_again
    spec = ResumeSpec(timeout_s=float(timeout_s) if timeout_s else None, keep_memory=memory is not False)
    return await go_on(caller.tenant_id, sandbox.id, spec)


# --- forks ----------------------------------------------------------------------------------------------------------


async def fork(caller: CallerOf, sandbox_id: str, wanted: ForkSandbox | None = None) -> Response:
    """`POST /sandboxes/{id}/fork`: copies of one that runs, or in the place of each why there is none."""
    wanted, record = wanted or ForkSandbox(), await record_of(caller, sandbox_id)
    timeout_s = V1_TIMEOUT_S if wanted.timeout is None else wanted.timeout
    count = 1 if wanted.count is None else wanted.count
    if timeout_s <= 0:
        return plain_error(400, "Timeout must be greater than 0")
    if count < 1:
        return plain_error(400, "Count must be at least 1")
    if count > _FORKS_MAX:
        return plain_error(400, f"Count cannot be greater than {_FORKS_MAX}")
    if record.sandbox.state in RESTING:
        return plain_error(409, f"Sandbox '{record.sandbox.id}' is paused and cannot be forked; resume it first")
    spec = ForkSpec(count=count, timeout_s=float(timeout_s))
    forks = (await caller.core.snapshots.fork(caller.tenant_id, record.sandbox.id, spec)).items
    return JSONResponse([_forked(caller, fork, facts_of(record)) for fork in forks], 201)


def _forked(caller: Caller, fork: Fork, facts: Facts) -> dict[str, Any]:
    if fork.sandbox is not None:
        return {"sandbox": opened(caller, fork.sandbox, facts)}
    error = Error.from_wire({"error": fork.error})
    return {"error": {"code": error.status, "message": error.message}}
