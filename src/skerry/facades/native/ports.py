"""Programs that listen inside a sandbox, below `/ports/{port}/`."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request, WebSocket
from starlette.responses import Response
from starlette.types import Scope

from skerry.facades.native.access import Caller, CallerOf
from skerry.facades.native.errors import render
from skerry.facades.proxy import Destination, Proxied, proxy_websocket, query_of
from skerry.facades.requests import Route

router = APIRouter(
    route_class=Route, strict_content_type=False, prefix="/v1/sandboxes/{sandbox_id}/ports/{port}", tags=["ports"]
)

Port = Annotated[int, Path(ge=1, le=65535)]
_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
_OURS = frozenset({b"authorization", b"x-api-key"})


async def http(request: Request, caller: CallerOf, sandbox_id: str, port: Port, path: str) -> Response:
    """Passed on to the program, and its answer back."""
    return Proxied(request, _destination(request.scope, caller, sandbox_id, port))


for _method in _METHODS:
    router.add_api_route(
        "/{path:path}", http, methods=[_method], response_class=Response, operation_id=f"port_{_method.lower()}"
    )


@router.websocket("/{path:path}")
async def websocket(socket: WebSocket, caller: CallerOf, sandbox_id: str, port: int, path: str) -> None:
    """Messages passed on to the program, and back."""
    await proxy_websocket(socket, _destination(socket.scope, caller, sandbox_id, port), render)


def _destination(scope: Scope, caller: Caller, sandbox_id: str, port: int) -> Destination:
    """Path and query as the caller wrote them, below the port."""
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    return Destination(
        caller.core, caller.tenant_id, sandbox_id, port,
        target=b"/" + raw.split(b"/ports/%d/" % port, 1)[-1] + query_of(scope), host=f"localhost:{port}".encode(),
        hidden=_OURS, prefix=scope["path"].split(f"/ports/{port}/", 1)[0] + f"/ports/{port}",
    )  # fmt: skip
