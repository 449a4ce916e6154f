"""The application: its routes, its errors, what wraps them."""

from __future__ import annotations

import logging
import re
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

from skerry import __version__
from skerry.core import Core
from skerry.errors import Error, InternalError, InvalidRequest, NotFound
from skerry.facades.limits import BodyLimit, BodyRefused
from skerry.facades.native import (
    code,
    files,
    keys,
    lifecycle,
    meta,
    ports,
    processes,
    sandboxes,
    templates,
    terminal,
    volumes,
)
from skerry.facades.native.errors import render
from skerry.facades.native.metrics import Metrics
from skerry.facades.requests import FAULT, left
from skerry.facades.streams import STREAMED

logger = logging.getLogger(__name__)

# What is called most comes first: routes are tried one after the other.
_MODULES = (meta, code, processes, sandboxes, files, ports, terminal, lifecycle, volumes, templates, keys)
_STREAMED = re.compile(
    r"/v1/(sandboxes/[^/]+/(files|processes/\d+/stdin|ports/.*)|build-files/[^/]+|volumes/[^/]+/files)"
)
ERROR_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message", "retryable", "details"],
            "properties": {
                "code": {"type": "string"},
                "message": {"type": "string"},
                "retryable": {"type": "boolean"},
                "details": {"type": "object"},
            },
        }
    },
}


def create_app(core: Core, metrics: Metrics, *, body_limit: int = 16 * 1024 * 1024) -> FastAPI:
    """The API over a core.

    Args:
        body_limit: bytes of a JSON body.
    """
    app = FastAPI(
        title="Skerry", version=__version__, docs_url=None, redoc_url=None, strict_content_type=False,
        redirect_slashes=False, routes=[route for module in _MODULES for route in module.router.routes],
    )  # fmt: skip
    app.state.core, app.state.metrics = core, metrics
    app.openapi = lambda: _document(app)  # type: ignore[method-assign]
    app.add_exception_handler(Error, _error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(ClientDisconnect, left)
    app.add_exception_handler(Exception, _fault)
    app.add_middleware(BodyLimit, limit=body_limit, render=render, streamed=_STREAMED)
    return app


def _document(app: FastAPI) -> dict[str, Any]:
    """FastAPI's description, with the models that appear in streams only."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, routes=app.routes)
        models = [(model, "serialization") for model in sorted(STREAMED, key=lambda model: model.__name__)]
        _, streamed = models_json_schema(models, ref_template="#/components/schemas/{model}")  # type: ignore[arg-type]
        document["components"]["schemas"] |= streamed["$defs"]
        error = {"description": "Error", "content": {"application/json": {"schema": ERROR_SCHEMA}}}
        for operations in document["paths"].values():
            for operation in operations.values():
                operation["responses"]["4XX"] = error
        app.openapi_schema = document
    return app.openapi_schema


async def _error(request: Request, error: Exception) -> Response:
    assert isinstance(error, Error)
    return render(error)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    problems = [
        {"at": ".".join(str(part) for part in problem["loc"]), "problem": problem["msg"]} for problem in error.errors()
    ]
    first = problems[0] if problems else {"at": "request", "problem": "is not valid"}
    return render(InvalidRequest(f"cannot accept the request: {first['at']}: {first['problem']}", problems=problems))


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if isinstance(error, BodyRefused):
        return render(error.error, error.headers)
    if error.status_code == HTTPStatus.NOT_FOUND:
        return render(NotFound(f"cannot find {request.url.path}: there is no such route"))
    made: Error = InvalidRequest(f"cannot {request.method} {request.url.path}: {error.detail}")
    return JSONResponse(made.to_wire(), error.status_code, dict(error.headers or {}))


async def _fault(request: Request, error: Exception) -> Response:
    logger.error("fault in %s %s", request.method, request.url.path, exc_info=error)
    return render(InternalError(FAULT))
