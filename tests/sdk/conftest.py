"""A small real HTTP server that speaks the API's dialect, for what only goes wrong on the wire."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from collections.abc import AsyncIterator, Iterator

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from skerry.errors import HostFull, SnapshotNotFound

SANDBOX = {
    "id": "sb1", "template": "base", "isolation": "gvisor", "state": "running",
    "limits": {"cpu": 1, "memory_mib": 1, "disk_mib": 1, "pids": 1}, "internet": True, "metadata": {},
    "created_at": "2026-01-01T00:00:00Z", "expires_at": None, "idle_timeout_s": None, "new_field": "ignored",
}  # fmt: skip


async def create(request: Request) -> Response:
    body = await request.json()
    if body["template"] == "full":
        error = HostFull("no room", limit=1)
        return JSONResponse(error.to_wire(), error.status)
    if body["template"] == "broken":
        return Response("<html>a proxy's page</html>", 502)
    return JSONResponse(SANDBOX | {"metadata": {"sent": json.dumps(body)}}, 201)


async def stream(request: Request) -> Response:
    kind = (await request.json())["code"]

    async def lines() -> AsyncIterator[bytes]:
        yield b'{"type":"heartbeat"}\n{"type":"std'
        await asyncio.sleep(0.01)
        yield b'out","text":"cut in the middle"}\n'
        if kind == "fails":
            yield json.dumps({"type": "failure", **HostFull("lost").to_wire()}).encode() + b"\n"
        elif kind == "silent":
            await asyncio.sleep(30)
        elif kind == "breaks off":
            raise RuntimeError
        else:
            yield b'{"type":"done","execution_count":1,"duration_s":0,"context_id":"c"}\n'

    return StreamingResponse(lines())


async def page(request: Request) -> Response:
    if request.query_params.get("cursor") == "2":
        return JSONResponse({"items": [SANDBOX | {"id": "sb2"}], "next_cursor": None})
    return JSONResponse({"items": [SANDBOX], "next_cursor": "2"})


async def echo(request: Request) -> Response:
    return JSONResponse(SANDBOX | {"metadata": {"path": request.url.path, "key": request.headers["authorization"]}})


SNAPSHOT = {
    "id": "snap1", "name": None, "sandbox_id": "sb1", "template": "base", "memory": True, "limits": SANDBOX["limits"],
    "size_mib": 1.5, "pause_s": 0.1, "created_at": "2026-01-01T00:00:00Z",
}  # fmt: skip


async def change(request: Request) -> Response:
    """Says what came."""
    sent = await request.json()
    return JSONResponse(SANDBOX | {"metadata": {"path": request.url.path, "sent": json.dumps(sent)}})


async def fork(request: Request) -> Response:
    """As many as asked for; of more than two the rest fails, of more than nine all."""
    count = (await request.json())["count"]
    error = {"error": HostFull("no room", limit=2).to_wire()["error"]}
    made = 0 if count > 9 else min(count, 2)
    items = [{"sandbox": SANDBOX | {"id": f"sb{number}"}} for number in range(made)]
    return JSONResponse({"items": items + [error] * (count - made), "pause_s": 0.1}, 201)


async def snapshots(request: Request) -> Response:
    if request.method == "POST":
        name = (await request.json()).get("name")
        return JSONResponse(SNAPSHOT | {"name": name}, 201)
    if request.query_params.get("cursor") == "2":
        return JSONResponse({"items": [SNAPSHOT | {"id": "snap2"}]})
    asked = "&".join(f"{name}={value}" for name, value in sorted(request.query_params.items()))
    return JSONResponse({"items": [SNAPSHOT | {"name": asked}], "next_cursor": "2"})


async def snapshot(request: Request) -> Response:
    if request.path_params["name"] == "missing":
        error = SnapshotNotFound("cannot find it")
        return JSONResponse(error.to_wire(), error.status)
    if request.method == "DELETE":
        return Response(status_code=204)
    return JSONResponse(SNAPSHOT | {"name": request.path_params["name"]})


async def store(request: Request) -> Response:
    """Says what came: the digest of the content as the name, and the announced length as the owner."""
    content = await request.body()
    info = {
        "name": hashlib.sha256(content).hexdigest(), "path": "/x", "type": "file", "size": len(content), "mode": 0o644,
        "uid": 0, "gid": 0, "owner": request.headers.get("content-length", ""), "group": "root",
        "modified_at": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    return JSONResponse(info)


@pytest.fixture(scope="session")
def url() -> Iterator[str]:
    app = Starlette(
        routes=[
            Route("/v1/sandboxes", create, methods=["POST"]),
            Route("/v1/sandboxes", page, methods=["GET"]),
            Route("/v1/sandboxes/{id}/code/stream", stream, methods=["POST"]),
            Route("/v1/sandboxes/{id}/files", store, methods=["PUT"]),
            Route("/v1/sandboxes/{id}/fork", fork, methods=["POST"]),
            Route("/v1/sandboxes/{id}/snapshots", snapshots, methods=["POST"]),
            Route("/v1/sandboxes/{id}/{change}", change, methods=["POST"]),
            Route("/v1/snapshots", snapshots, methods=["GET"]),
            Route("/v1/snapshots/{name}", snapshot, methods=["GET", "DELETE"]),
            Route("/v1/sandboxes/{id:path}", echo, methods=["GET"]),
        ]
    )
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", lifespan="off", ws="none"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        pass
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(10)
