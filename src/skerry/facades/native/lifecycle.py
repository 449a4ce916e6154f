"""What sandboxes go through: pause and resume, stop and start, snapshots, forks."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from skerry.facades.native.access import CallerOf
from skerry.facades.requests import Route
from skerry.models import (
    ForkReply,
    ForkSpec,
    PauseSpec,
    ResumeSpec,
    RollbackSpec,
    Sandbox,
    Snapshot,
    SnapshotPage,
    SnapshotSpec,
    StopSpec,
)

router = APIRouter(route_class=Route, strict_content_type=False, prefix="/v1", tags=["lifecycle"])


@router.post("/sandboxes/{sandbox_id}/pause")
async def pause(caller: CallerOf, sandbox_id: str, spec: PauseSpec = PauseSpec()) -> Sandbox:  # noqa: B008
    """Nothing of it runs until it is resumed."""
    return await caller.core.lifecycle.pause(caller.tenant_id, sandbox_id, spec)


@router.post("/sandboxes/{sandbox_id}/resume")
async def resume(caller: CallerOf, sandbox_id: str, spec: ResumeSpec = ResumeSpec()) -> Sandbox:  # noqa: B008
    """It goes on where it was."""
    return await caller.core.lifecycle.resume(caller.tenant_id, sandbox_id, spec)


@router.post("/sandboxes/{sandbox_id}/stop")
async def stop(caller: CallerOf, sandbox_id: str, spec: StopSpec = StopSpec()) -> Sandbox:  # noqa: B008
    """End its processes and keep its files."""
    return await caller.core.lifecycle.stop(caller.tenant_id, sandbox_id, spec)


@router.post("/sandboxes/{sandbox_id}/start")
async def start(caller: CallerOf, sandbox_id: str, spec: ResumeSpec = ResumeSpec()) -> Sandbox:  # noqa: B008
    """Boot it again, after a stop."""
    return await caller.core.lifecycle.start_again(caller.tenant_id, sandbox_id, spec)


@router.post("/sandboxes/{sandbox_id}/fork", status_code=201)
async def fork(caller: CallerOf, sandbox_id: str, spec: ForkSpec = ForkSpec()) -> ForkReply:  # noqa: B008
    """Running copies of it; it goes on."""
    return await caller.core.snapshots.fork(caller.tenant_id, sandbox_id, spec)


@router.post("/sandboxes/{sandbox_id}/rollback")
async def rollback(caller: CallerOf, sandbox_id: str, spec: RollbackSpec) -> Sandbox:
    """Make it, in place, what it was at one of its snapshots."""
    return await caller.core.snapshots.rollback(caller.tenant_id, sandbox_id, spec.snapshot)


@router.post("/sandboxes/{sandbox_id}/snapshots", status_code=201)
async def take(caller: CallerOf, sandbox_id: str, spec: SnapshotSpec = SnapshotSpec()) -> Snapshot:  # noqa: B008
    """An immutable copy of it; it goes on."""
    return await caller.core.snapshots.take(caller.tenant_id, sandbox_id, spec)


@router.get("/snapshots")
async def snapshots(
    caller: CallerOf, sandbox_id: str | None = None, name: str | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: Annotated[str | None, Query(max_length=64)] = None,
) -> SnapshotPage:  # fmt: skip
    """Newest first."""
    return await caller.core.snapshots.page(
        caller.tenant_id, sandbox_id=sandbox_id, name=name, limit=limit, cursor=cursor
    )


@router.get("/snapshots/{snapshot}")
async def snapshot(caller: CallerOf, snapshot: str) -> Snapshot:
    """By id or name."""
    return await caller.core.snapshots.get(caller.tenant_id, snapshot)


@router.delete("/snapshots/{snapshot}", status_code=204, response_class=Response)
async def delete(caller: CallerOf, snapshot: str) -> None:
    """By id or name. Sandboxes started from it are not touched."""
    await caller.core.snapshots.remove(caller.tenant_id, snapshot)
