"""How requests are read, whatever façade they are for: what counts as JSON, and callers that leave in the middle."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

_CLIENT_CLOSED_REQUEST = 499
FAULT = "cannot finish the request: a fault of the server's; its log has the details"


def parse_json(data: bytes | bytearray | str) -> Any:
    """What JSON in UTF-8 says. Halves of characters (lone surrogates), which Python takes, are refused: they can be
    written nowhere, neither to a sandbox nor into a reply.

    Raises:
        json.JSONDecodeError: it is no such JSON.
        RecursionError: it is too deep.
    """
    try:
        text = data if isinstance(data, str) else data.decode("utf-8-sig")
        content = json.loads(text)
        if "\\u" in text:
            json.dumps(content, ensure_ascii=False).encode()
    except UnicodeDecodeError as error:
        raise json.JSONDecodeError("it is not UTF-8", "", error.start) from None
    except UnicodeEncodeError:
        raise json.JSONDecodeError("it holds half of a character, a lone surrogate", "", 0) from None
    return content


class _JsonRequest(Request):
    async def json(self) -> Any:
        return parse_json(await self.body())


class Route(APIRoute):
    """A route of FastAPI's, whose JSON `parse_json` reads."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            return await handler(_JsonRequest(request.scope, request.receive))

        return handle


async def body_of(request: Request) -> AsyncIterator[bytes]:
    """The body in pieces."""
    async for chunk in request.stream():
        if chunk:
            yield chunk


async def left(request: Request, error: Exception) -> Response:
    """The answer to a caller that left before its request was complete: nobody reads it, and nothing is wrong here."""
    return Response(status_code=_CLIENT_CLOSED_REQUEST)
