"""Many clients, over HTTP ("streamable HTTP"). Every request must carry the API key: without it, any program on this
machine could use the sandboxes, and any page in a browser could try."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, MutableMapping
from hmac import compare_digest
from typing import Any

import anyio
import uvicorn

from skerry.errors import InvalidRequest
from skerry.mcp.sandboxes import Offer, Sandboxes
from skerry.mcp.tools import make_server

PATH = "/mcp"
_STOP_S = 5
_Message = MutableMapping[str, Any]
_App = Callable[[_Message, Callable[[], Awaitable[_Message]], Callable[[_Message], Awaitable[None]]], Awaitable[None]]


def serve_http(offer: Offer, host: str, port: int, key: str, ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or Ctrl-C; then end all sandboxes that were made.

    Args:
        host, port: where to listen; port 0: any free one.
        key: what requests must carry as bearer token.
        ready: called with the address once it is served.

    Raises:
        InvalidRequest: it cannot listen there.
    """
    anyio.run(_serve, offer, host, port, key, ready)


async def _serve(offer: Offer, host: str, port: int, key: str, ready: Callable[[str], None]) -> None:
    server = make_server(Sandboxes(offer, implicit=False))
    app = RequireKey(server.streamable_http_app(streamable_http_path=PATH, host=host), key)
    config = uvicorn.Config(app, log_level="warning", lifespan="on", timeout_graceful_shutdown=_STOP_S)
    with _listening(host, port) as listener:
        shown = f"[{host}]" if ":" in host else host
        # Connections wait in the listener's queue until the server accepts them, so it may be told now.
        ready(f"http://{shown}:{listener.getsockname()[1]}{PATH}")
        await uvicorn.Server(config).serve(sockets=[listener])


def _listening(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except OSError as error:
        raise InvalidRequest(f"cannot listen on {host}:{port}: {error}") from None


class RequireKey:
    """Lets only requests through that carry the key as bearer token."""

    def __init__(self, app: _App, key: str) -> None:
        self._app, self._expected = app, f"Bearer {key}".encode()

    async def __call__(
        self, scope: _Message, receive: Callable[[], Awaitable[_Message]], send: Callable[[_Message], Awaitable[None]]
    ) -> None:
        if scope["type"] == "http":
            given = dict(scope["headers"]).get(b"authorization", b"")
            if not compare_digest(given, self._expected):
                headers = [(b"www-authenticate", b"Bearer"), (b"content-type", b"text/plain")]
                await send({"type": "http.response.start", "status": 401, "headers": headers})
                await send({"type": "http.response.body", "body": b"the API key is missing or wrong\n"})
                return
        await self._app(scope, receive, send)
