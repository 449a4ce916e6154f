"""Our errors as the native API answers them."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from starlette.responses import JSONResponse, Response

from skerry.errors import Error


def render(error: Error, headers: Mapping[str, str] | None = None) -> Response:
    """The one shape of every error."""
    headers = dict(headers or {})
    if error.status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    if error.retryable:
        headers["Retry-After"] = str(error.details.get("retry_after_s", 1))
    return JSONResponse(error.to_wire(), error.status, headers)
