"""The plainest server of the same make (Starlette on uvicorn): what moving the bytes costs without any sandbox.

`python -m bench.echo` prints its address on one line and serves until SIGTERM.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

PIECE = bytes(256 * 1024)


async def take(request: Request) -> PlainTextResponse:
    """Count the body's bytes as they come, and answer how many there were."""
    count = 0
    async for piece in request.stream():
        count += len(piece)
    return PlainTextResponse(str(count))


async def give(request: Request) -> StreamingResponse:
    """`size` bytes, streamed."""
    size = int(request.query_params["size"])

    async def pieces() -> AsyncIterator[bytes]:
        left = size
        while left > 0:
            yield PIECE[:left]
            left -= len(PIECE)

    return StreamingResponse(pieces(), headers={"content-length": str(size)}, media_type="application/octet-stream")


def serve(app: Starlette) -> None:
    """On a free port, whose address is printed, until SIGTERM."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(128)
    print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    config = uvicorn.Config(app, log_level="warning", access_log=False, loop="uvloop", http="httptools")
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    serve(Starlette(routes=[Route("/bytes", take, methods=["PUT"]), Route("/bytes", give, methods=["GET"])]))
