"""envd, the agent in E2B's sandboxes, as an application: its services and endpoints, by their paths."""

from __future__ import annotations

import re

import anyio.abc
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from skerry.facades.e2b import files, filesystem, process
from skerry.facades.e2b.browsers import PAGES
from skerry.facades.e2b.connect import Endpoint, client_stream, server_stream, unary
from skerry.facades.e2b.errors import GONE, ConnectError, plain_error
from skerry.facades.e2b.read import Content
from skerry.facades.e2b.sandbox import gone
from skerry.facades.requests import left

_RPC = re.compile(r"/[A-Za-z0-9_.]+\.[A-Za-z0-9_]+/[A-Za-z0-9_]+")
_EVENT_KEEPALIVE: Content = {"event": {"keepalive": {}}}


def create_envd(group: anyio.abc.TaskGroup) -> Starlette:
    """The application that answers for port 49983 of every sandbox. Watchers that are polled live in `group`."""
    watchers = filesystem.Watchers(group)
    methods: dict[str, Endpoint] = {
        "/process.Process/List": unary(process.list_processes),
        "/process.Process/Start": server_stream(process.start, _EVENT_KEEPALIVE),
        "/process.Process/Connect": server_stream(process.connect, _EVENT_KEEPALIVE),
        "/process.Process/SendInput": unary(process.send_input),
        "/process.Process/StreamInput": client_stream(process.stream_input),
        "/process.Process/SendSignal": unary(process.send_signal),
        "/process.Process/Update": unary(process.update),
        "/process.Process/CloseStdin": unary(process.close_stdin),
        "/filesystem.Filesystem/Stat": unary(filesystem.stat),
        "/filesystem.Filesystem/MakeDir": unary(filesystem.make_directory),
        "/filesystem.Filesystem/Move": unary(filesystem.move),
        "/filesystem.Filesystem/ListDir": unary(filesystem.list_directory),
        "/filesystem.Filesystem/Remove": unary(filesystem.remove),
        "/filesystem.Filesystem/WatchDir": server_stream(filesystem.watch_directory, {"keepalive": {}}),
        "/filesystem.Filesystem/CreateWatcher": unary(watchers.create),
        "/filesystem.Filesystem/GetWatcherEvents": unary(watchers.events),
        "/filesystem.Filesystem/RemoveWatcher": unary(watchers.remove),
    }
    routes = [Route(path, endpoint, methods=["POST"]) for path, endpoint in methods.items()]
    routes += [
        Route("/files", files.download, methods=["GET"]),
        Route("/files", files.upload, methods=["POST"]),
        Route("/health", files.health, methods=["GET"]),
        Route("/metrics", files.metrics, methods=["GET"]),
        Route("/envs", files.envs, methods=["GET"]),
    ]
    return Starlette(
        middleware=[PAGES],
        routes=routes,
        exception_handlers={404: _nothing, 405: _nothing, ClientDisconnect: left, **dict.fromkeys(GONE, gone)},
    )


async def _nothing(request: Request, _: Exception) -> Response:
    message = f"{request.method} {request.url.path} is not here"
    if request.method == "POST" and _RPC.fullmatch(request.url.path):
        return JSONResponse(ConnectError("unimplemented", message).to_wire(), 404)
    return plain_error(404, message)
