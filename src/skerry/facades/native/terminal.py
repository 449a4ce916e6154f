"""A process's terminal over a WebSocket."""

from __future__ import annotations

import json
from typing import Any

import anyio
from fastapi import APIRouter, WebSocket
from pydantic import ValidationError
from starlette.websockets import WebSocketDisconnect

from skerry.errors import Error
from skerry.facades.native.access import Caller, CallerOf
from skerry.facades.requests import parse_json
from skerry.models import Exit, Output, Signal, TerminalSize

router = APIRouter(strict_content_type=False, tags=["processes"])

_REFUSED = 4000
"""WebSocket close codes of ours: this plus the HTTP status, so 4404 means not found."""


@router.websocket("/v1/sandboxes/{sandbox_id}/processes/{pid}/terminal")
async def terminal(
    socket: WebSocket, caller: CallerOf, sandbox_id: str, pid: int, stdout_offset: int | None = None
) -> None:
    """Binary frames: output and input. Text frames in: `resize`, `signal`; out, last: `exit`."""
    await socket.accept()
    try:
        async with (
            caller.core.processes.attach(caller.tenant_id, sandbox_id, pid, stdout_offset=stdout_offset) as events,
            anyio.create_task_group() as group,
        ):
            group.start_soon(_input, socket, caller, sandbox_id, pid, group.cancel_scope)
            async for event in events:
                if isinstance(event, Output):
                    await socket.send_bytes(event.data)
                elif isinstance(event, Exit):
                    await socket.send_text(json.dumps({"exit": event.model_dump(mode="json")}))
            group.cancel_scope.cancel()
        await socket.close()
    except* Error as errors:
        error = errors.exceptions[0]
        assert isinstance(error, Error)
        await socket.send_text(json.dumps(error.to_wire()))
        await socket.close(_REFUSED + error.status, error.code)
    except* (WebSocketDisconnect, RuntimeError):
        pass  # the caller has left; the process goes on


async def _input(socket: WebSocket, caller: Caller, sandbox_id: str, pid: int, scope: anyio.CancelScope) -> None:
    """Frames of the caller's, until it leaves."""
    processes, where = caller.core.processes, (caller.tenant_id, sandbox_id, pid)
    while True:
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            scope.cancel()
            return
        if (data := message.get("bytes")) is not None:
            await processes.write_stdin(*where, data)
            continue
        control = _control(message.get("text") or "")
        if isinstance(control, TerminalSize):
            await processes.resize(*where, control)
        elif isinstance(control, Signal):
            await processes.signal(*where, control)


def _control(text: str) -> TerminalSize | Signal | None:
    """What a text frame asks for; None for what means nothing."""
    try:
        content: Any = parse_json(text)
        if "resize" in content:
            return TerminalSize.model_validate(content["resize"])
        if "signal" in content:
            return Signal(signal=content["signal"])
    except (ValueError, TypeError, RecursionError, ValidationError):
        pass
    return None
