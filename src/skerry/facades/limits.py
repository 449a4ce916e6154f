"""A bound on bodies that are read whole."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from skerry.errors import RequestTooLarge

_DRAIN_MAX = 64 * 1024 * 1024
_CLOSE = {"Connection": "close"}


class BodyRefused(HTTPException):
    """Raised from within the reading of a body, where FastAPI lets nothing else through."""

    def __init__(self, error: RequestTooLarge) -> None:
        super().__init__(error.status, error.message, _CLOSE)
        self.error = error


class BodyLimit:
    """Refuses a JSON body over `limit` bytes, by its announced length or when it gets there.

    Args:
        render: the façade's reply for an error, with these headers.
        streamed: paths whose bodies are streams, and not bounded.
    """

    def __init__(
        self, app: ASGIApp, limit: int, render: Callable[[RequestTooLarge, Mapping[str, str]], Response],
        streamed: re.Pattern[str] | None = None,
    ) -> None:  # fmt: skip
        self._app, self._limit, self._render, self._streamed = app, limit, render, streamed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD") or self._is_stream(scope["path"]):
            await self._app(scope, receive, send)
            return
        announced = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if not announced.isdigit() or int(announced) > self._limit:
            await _drain(receive)
            error = self._error(announced.decode("latin-1"), int(announced) if announced.isdigit() else None)
            await self._render(error, _CLOSE)(scope, receive, send)
            return
        read = 0

        async def counted() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self._limit:
                if message.get("more_body", False):
                    await _drain(receive)
                raise BodyRefused(self._error(f"more than {self._limit}", read))
            return message

        await self._app(scope, counted, send)

    def _is_stream(self, path: str) -> bool:
        return self._streamed is not None and self._streamed.fullmatch(path) is not None

    def _error(self, size: str, current: int | None) -> RequestTooLarge:
        return RequestTooLarge(
            f"cannot accept a body of {size} bytes: the limit is {self._limit}", limit=self._limit, current=current
        )


async def _drain(receive: Receive) -> None:
    """Throw the body away, up to a point: a client that is still sending would not see the answer."""
    left = _DRAIN_MAX
    while left > 0:
        message = await receive()
        left -= len(message.get("body", b""))
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            return
