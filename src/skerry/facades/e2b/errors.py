"""Our errors in the two shapes that E2B's clients know: its REST API's and Connect's."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus

from pydantic import ValidationError
from starlette.requests import HTTPConnection
from starlette.responses import HTMLResponse, JSONResponse, Response

from skerry.errors import (
    CannotStartProcess,
    DirectoryNotEmpty,
    Error,
    FileError,
    FileExists,
    FileMissing,
    HostFull,
    InvalidPath,
    InvalidRequest,
    IsADirectory,
    LimitExceeded,
    NoSpace,
    NotADirectory,
    NotAFile,
    NotFound,
    PermissionDenied,
    PortNotOpen,
    PortNotUnderstood,
    ProcessNotFound,
    RequestTooLarge,
    SandboxLost,
    SandboxNotFound,
    SandboxNotRunning,
    TemplateNotFound,
    Unauthenticated,
    UserNotFound,
)
from skerry.facades.requests import FAULT

logger = logging.getLogger(__name__)


HTTP_STATUS = {
    "canceled": 499, "unknown": 500, "invalid_argument": 400, "deadline_exceeded": 504, "not_found": 404,
    "already_exists": 409, "permission_denied": 403, "resource_exhausted": 429, "failed_precondition": 400,
    "unimplemented": 501, "internal": 500, "unavailable": 503, "unauthenticated": 401,
}  # fmt: skip
"""Connect's codes and the HTTP statuses of unary replies; https://connectrpc.com/docs/protocol#error-codes."""

_CONNECT: tuple[tuple[type[Error] | tuple[type[Error], ...], str], ...] = (
    ((ProcessNotFound, FileMissing, NotFound), "not_found"),
    (FileExists, "already_exists"),
    (PermissionDenied, "permission_denied"),
    ((NoSpace, LimitExceeded, HostFull, RequestTooLarge), "resource_exhausted"),
    ((NotADirectory, IsADirectory, NotAFile, InvalidPath, DirectoryNotEmpty, InvalidRequest), "invalid_argument"),
    (Unauthenticated, "unauthenticated"),
    ((SandboxNotFound, SandboxNotRunning, SandboxLost), "unavailable"),
    ((CannotStartProcess, FileError), "invalid_argument"),
)


class ConnectError(Exception):
    """An error in Connect's own terms."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message

    def to_wire(self) -> dict[str, str]:
        return {"code": self.code, "message": self.message}


CALLERS_MISTAKES = (ConnectError, Error, ValidationError)
"""What a method may raise; everything else is a fault of the server's."""


GONE = (SandboxNotFound, SandboxNotRunning, SandboxLost)
"""What a call of a sandbox raises when that is not there, or no longer: no method words it, `unavailable` does."""
NOT_FOUND = "The sandbox was not found"
NOT_OPEN = "The sandbox is running but port is not open"
"""In these words: clients look for them."""
_NOT_UNDERSTOOD = "The sandbox is running but what listens on the port cannot be understood"


def no_port(connection: HTTPConnection, sandbox_id: str, port: int, error: Error) -> Response:
    """The answer where a program in the sandbox should have given one."""
    if isinstance(error, GONE):
        return unavailable(connection, sandbox_id, NOT_FOUND)
    if isinstance(error, PortNotOpen | PortNotUnderstood):
        said = NOT_OPEN if isinstance(error, PortNotOpen) else _NOT_UNDERSTOOD
        return unavailable(connection, sandbox_id, said, port)
    return rest_error(error)


def unavailable(
    connection: HTTPConnection, sandbox_id: str, message: str, port: int | None = None, *, close: bool = False
) -> Response:
    """As E2B's proxy says it.

    Args:
        close: the connection after it: a client that is still sending need not come to its end before it hears it.
    """
    headers = {"Connection": "close"} if close else None
    if "text/html" in connection.headers.get("accept", ""):
        page = f"<!doctype html><title>Sandbox</title><h1>{message}</h1>"
        return HTMLResponse(page, HTTPStatus.BAD_GATEWAY, headers)
    shown = {"sandboxId": sandbox_id, "message": message, "code": 502}
    return JSONResponse(shown if port is None else {**shown, "port": port}, HTTPStatus.BAD_GATEWAY, headers)


def first_problem(error: ValidationError) -> str:
    """What is wrong with a value, in one line."""
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {first['msg']}" if where else first["msg"]


def connect_error(error: Exception, user: str) -> ConnectError:
    """The same error in Connect's terms, of a call made for `user`; a fault of ours is logged."""
    if isinstance(error, ConnectError):
        return error
    if isinstance(error, ValidationError):
        return ConnectError("invalid_argument", first_problem(error))
    if not isinstance(error, Error):
        logger.error("fault in a call of envd", exc_info=error)
        return ConnectError("internal", FAULT)
    if isinstance(error, UserNotFound):
        return ConnectError("unauthenticated", f"invalid username: '{user}'")
    code = next((code for kinds, code in _CONNECT if isinstance(error, kinds)), "internal")
    return ConnectError(code, error.message)


def rest_error(error: Error, more_headers: Mapping[str, str] | None = None) -> Response:
    """The same error as E2B's REST API answers it."""
    status, message = error.status, error.message
    if isinstance(error, SandboxNotFound | SandboxNotRunning):
        status = 404
        message = f"Sandbox \"{error.details.get('sandbox_id', '')}\" doesn't exist or you don't have access to it"
    elif isinstance(error, TemplateNotFound):
        message = f"template '{error.details.get('template', '')}' not found"
    headers = dict(more_headers or {})
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.TOO_MANY_REQUESTS:
        headers["Should-Retry"] = str(error.retryable).lower()
        if error.retryable:
            headers["Retry-After"] = str(error.details.get("retry_after_s", 1))
    return plain_error(status, message, headers)


def plain_error(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    """An error of E2B's REST API, and of envd's HTTP endpoints."""
    return JSONResponse({"code": status, "message": message}, status, headers)
