"""E2B's code interpreter, which its clients find on port 49999: the core's contexts in other words."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from skerry.core.runs import RunEvent
from skerry.errors import ContextNotFound, Error, LanguageNotFound
from skerry.facades.e2b.browsers import PAGES
from skerry.facades.e2b.errors import CALLERS_MISTAKES, GONE, HTTP_STATUS, ConnectError, first_problem
from skerry.facades.e2b.read import Content, json_object, mapping, optional_text, text
from skerry.facades.e2b.sandbox import gone, sandbox_of
from skerry.facades.requests import FAULT, left
from skerry.facades.streams import Framing, StreamResponse
from skerry.models import CodeSpec, Context, ContextSpec, Done, ExecutionError, Result, Stderr, Stdout

_KEEPALIVE_S = 5.0
_DEFAULT_CWD = "/home/user"
_LANGUAGES = {"js": "javascript", "ts": "typescript"}
_FIELDS = {
    "text/plain": "text", "text/html": "html", "text/markdown": "markdown", "image/svg+xml": "svg", "image/png": "png",
    "image/jpeg": "jpeg", "application/pdf": "pdf", "text/latex": "latex", "application/json": "json",
    "application/javascript": "javascript", "e2b/data": "data", "e2b/chart": "chart",
}  # fmt: skip


def _line(content: Content) -> bytes:
    return json.dumps(content, ensure_ascii=False).encode(errors="replace") + b"\n"


def _failure(error: Error) -> bytes | None:
    if isinstance(error, GONE):
        return None
    return _line({"type": "error", "name": type(error).__name__, "value": error.message, "traceback": ""})


_FRAMING = Framing(
    "application/x-ndjson",
    _line,
    _line({"type": "keepalive"}),
    _failure,
    _line({"type": "end_of_execution"}),
    head_at_once=True,
)


def _language(content: Content) -> str:
    named = (text(content, "language") or "python").lower()
    return _LANGUAGES.get(named, named)


async def execute(request: Request) -> Response:
    """`POST /execute`: run code and follow it; leaving interrupts it."""
    sandbox, content = sandbox_of(request), await json_object(request)
    sandbox.check_token(request.headers.get("x-access-token"))
    context = optional_text(content, "context_id")
    if context and content.get("language"):
        raise ConnectError("invalid_argument", "Only one of context_id or language can be provided")
    env = {name: text(mapping(content, "env_vars"), name) for name in mapping(content, "env_vars")}
    spec = CodeSpec(
        code=text(content, "code"), context_id=context or None, language=_language(content), env=env, timeout_s=None,
        structured=True,
    )  # fmt: skip
    return StreamResponse(_shown(sandbox.core.contexts.run(*sandbox.where, spec)), _FRAMING, heartbeat_s=_KEEPALIVE_S)


@asynccontextmanager
async def _shown(source: Any) -> AsyncIterator[AsyncIterator[Content]]:
    async with source as events:
        yield _events(events)


async def _events(events: AsyncIterator[RunEvent]) -> AsyncIterator[Content]:
    async for event in events:
        if isinstance(event, Stdout | Stderr):
            yield {"type": event.type, "text": event.text, "timestamp": datetime.now(UTC).isoformat()}
        elif isinstance(event, Result):
            yield _result(event)
        elif isinstance(event, ExecutionError):
            yield {"type": "error", "name": event.name, "value": event.value, "traceback": event.traceback}
        elif isinstance(event, Done):
            yield {"type": "number_of_executions", "execution_count": event.execution_count}


def _result(result: Result) -> Content:
    shown: Content = {"type": "result", "is_main_result": result.main, "extra": {}}
    for mime, value in result.data.items():
        if mime in _FIELDS:
            shown[_FIELDS[mime]] = value
        else:
            shown["extra"][mime] = value
    plain = shown.get("text")
    if isinstance(plain, str) and len(plain) > 1 and plain[0] == plain[-1] and plain[0] in "'\"":
        shown["text"] = plain[1:-1]
    return shown


async def create_context(request: Request) -> Response:
    """`POST /contexts`."""
    sandbox, content = sandbox_of(request), await json_object(request)
    spec = ContextSpec(language=_language(content), cwd=optional_text(content, "cwd") or _DEFAULT_CWD)
    return JSONResponse(_context(await sandbox.core.contexts.create(*sandbox.where, spec)))


async def contexts(request: Request) -> Response:
    """`GET /contexts`."""
    sandbox = sandbox_of(request)
    return JSONResponse([_context(context) for context in await sandbox.core.contexts.list(*sandbox.where)])


def _context(context: Context) -> Content:
    return {"id": context.id, "language": context.language, "cwd": _DEFAULT_CWD if context.cwd == "~" else context.cwd}


async def remove_context(request: Request) -> Response:
    """`DELETE /contexts/{id}`."""
    sandbox = sandbox_of(request)
    await sandbox.core.contexts.remove(*sandbox.where, request.path_params["id"])
    return JSONResponse(None)


async def restart_context(request: Request) -> Response:
    """`POST /contexts/{id}/restart`."""
    sandbox = sandbox_of(request)
    await sandbox.core.contexts.restart(*sandbox.where, request.path_params["id"])
    return JSONResponse(None)


async def health(_: Request) -> Response:
    return JSONResponse("OK")


async def _known_error(request: Request, error: Exception) -> Response:
    """Clients show the text."""
    if isinstance(error, ConnectError):
        return PlainTextResponse(error.message, HTTP_STATUS[error.code])
    if isinstance(error, ValidationError):
        return PlainTextResponse(first_problem(error), 400)
    assert isinstance(error, Error)
    if isinstance(error, ContextNotFound):
        return PlainTextResponse(f"Context {error.details.get('context_id', '')} not found", 404)
    status = 500 if isinstance(error, LanguageNotFound) else error.status
    return PlainTextResponse(error.message, status)


async def _fault(request: Request, error: Exception) -> Response:
    return PlainTextResponse(FAULT, 500)


def create_interpreter() -> Starlette:
    """The application that answers for port 49999 of every sandbox."""
    return Starlette(
        middleware=[PAGES],
        routes=[
            Route("/execute", execute, methods=["POST"]),
            Route("/contexts", create_context, methods=["POST"]),
            Route("/contexts", contexts, methods=["GET"]),
            Route("/contexts/{id}", remove_context, methods=["DELETE"]),
            Route("/contexts/{id}/restart", restart_context, methods=["POST"]),
            Route("/health", health, methods=["GET"]),
        ],
        exception_handlers={
            **dict.fromkeys(CALLERS_MISTAKES, _known_error), **dict.fromkeys(GONE, gone), ClientDisconnect: left,
            Exception: _fault,
        },
    )  # fmt: skip
