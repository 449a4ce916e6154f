"""E2B's logs of a sandbox: what happened to it, as its events tell; also after its end."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query
from starlette.responses import JSONResponse, Response

from skerry.facades.e2b.rest import CallerOf, moment
from skerry.models import Event

_EVENTS_MAX = 10_000
"""Of one sandbox that are looked at."""
_ERRORS = frozenset({"sandbox.failed"})
_LEVELS = ("debug", "info", "warn", "error")


def add_routes(app: FastAPI) -> None:
    """`…/logs` of both generations."""
    app.get("/sandboxes/{sandbox_id}/logs")(logs_v1)
    app.get("/v2/sandboxes/{sandbox_id}/logs")(logs_v2)


async def logs_v1(
    caller: CallerOf, sandbox_id: str, start: Annotated[int, Query(ge=0)] = 0,
    limit: Annotated[int, Query(ge=0, le=10_000)] = 1000,
) -> Response:  # fmt: skip
    """`GET /sandboxes/{id}/logs`: the oldest first, from `start` (Unix milliseconds) on."""
    entries = [_entry(event) for event in await _events(caller, sandbox_id) if _milliseconds(event) >= start][:limit]
    lines = [{"timestamp": entry["timestamp"], "line": json.dumps(entry)} for entry in entries]
    return JSONResponse({"logs": lines, "logEntries": entries})


async def logs_v2(
    caller: CallerOf, sandbox_id: str, cursor: Annotated[int | None, Query(ge=0)] = None,
    limit: Annotated[int, Query(ge=0, le=1000)] = 1000, direction: Literal["forward", "backward"] = "forward",
    level: Literal["debug", "info", "warn", "error"] = "debug", search: Annotated[str, Query(max_length=256)] = "",
) -> Response:  # fmt: skip
    """`GET /v2/sandboxes/{id}/logs`: from `cursor` (Unix milliseconds) on, in the direction asked for."""
    backward = direction == "backward"
    found = []
    for event in sorted(await _events(caller, sandbox_id), key=lambda event: event.id, reverse=backward):
        if cursor is not None and (_milliseconds(event) > cursor if backward else _milliseconds(event) < cursor):
            continue
        entry = _entry(event)
        if _LEVELS.index(entry["level"]) >= _LEVELS.index(level) and search in entry["message"]:
            found.append(entry)
    return JSONResponse({"logs": found[:limit]})


async def _events(caller: CallerOf, sandbox_id: str) -> list[Event]:
    """Raises SandboxNotFound."""
    sandbox = await caller.core.sandboxes.get(caller.tenant_id, sandbox_id.partition("-")[0])
    return await caller.core.events.list(caller.tenant_id, sandbox.id, limit=_EVENTS_MAX)


def _milliseconds(event: Event) -> int:
    return int(event.at.timestamp() * 1000)


def _entry(event: Event) -> dict[str, Any]:
    fields = {name: value if isinstance(value, str) else json.dumps(value) for name, value in event.data.items()}
    level = "error" if event.type in _ERRORS else "info"
    return {"timestamp": moment(event.at), "level": level, "message": event.type, "fields": fields}
