"""What the clients cost by themselves: a server that knows one answer to each of their calls, and gives it at once.

`python -m bench.stub` prints its address on one line and serves until SIGTERM. E2B's calls and those of the native SDK
come to the same address, as they do at a real server.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from bench.echo import PIECE, serve
from skerry.facades.e2b.connect import envelope
from skerry.facades.e2b.rest import ENVD_VERSION

SIZE = 64 * 1024 * 1024
"""Of every file."""
KEY = f"e2b_{0:040}"
"""In the form that E2B's client insists on; not looked at."""
_ID, _NOW = "sbstub", "2026-01-01T00:00:00Z"
_LIMITS = {"cpu": 1.0, "memory_mib": 1024, "disk_mib": 4096, "pids": 512}
_SANDBOX = {
    "id": _ID, "template": "stub", "isolation": "gvisor", "state": "running", "limits": _LIMITS, "internet": True,
    "metadata": {}, "created_at": _NOW, "expires_at": None, "idle_timeout_s": None, "origin": "pool",
}  # fmt: skip
_E2B_SANDBOX = {
    "sandboxID": _ID, "templateID": "stub", "alias": "stub", "clientID": "stub", "envdVersion": ENVD_VERSION,
    "domain": None, "envdAccessToken": "stub", "trafficAccessToken": "stub",
}  # fmt: skip
_EXIT = {"type": "exit", "exit_code": 0, "signal": None, "reason": "exited", "duration_s": 0.0}
_RAN = {"pid": 1, "exit": _EXIT, "stdout": "", "stderr": "", "truncated": False}
_CODE = {
    "context_id": "stub", "stdout": "", "stderr": "", "error": None, "execution_count": 1, "duration_s": 0.0,
    "results": [{"type": "result", "data": {"text/plain": "2"}, "main": True}],
}  # fmt: skip
_FILE = {
    "name": "payload", "path": "/home/user/payload", "type": "file", "size": SIZE, "mode": 0o644, "uid": 1000,
    "gid": 1000, "owner": "user", "group": "user", "modified_at": _NOW,
}  # fmt: skip
_EXECUTED = [
    {"type": "result", "is_main_result": True, "extra": {}, "text": "2"},
    {"type": "number_of_executions", "execution_count": 1}, {"type": "end_of_execution"},
]  # fmt: skip
_STARTED = [
    envelope({"event": {"start": {"pid": 1}}}),
    envelope({"event": {"end": {"exitCode": 0, "exited": True, "status": "exit status 0"}}}),
    envelope({}, 2),
]


def _always(content: Mapping[str, Any], status: int = 200) -> Any:
    async def answer(request: Request) -> Response:
        await request.body()
        return JSONResponse(content, status)

    return answer


async def _kept_nowhere(request: Request) -> Response:
    async for _ in request.stream():
        pass
    shown: Any = _FILE if request.method == "PUT" else [{"path": _FILE["path"], "name": "payload", "type": "file"}]
    return JSONResponse(shown)


async def _content(_: Request) -> Response:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(SIZE // len(PIECE)):
            yield PIECE

    return StreamingResponse(pieces(), headers={"content-length": str(SIZE)}, media_type="application/octet-stream")


def _stream(pieces: list[bytes], media_type: str) -> Any:
    async def answer(request: Request) -> Response:
        await request.body()

        async def all_of_it() -> AsyncIterator[bytes]:
            for piece in pieces:
                yield piece

        return StreamingResponse(all_of_it(), media_type=media_type)

    return answer


async def _gone(_: Request) -> Response:
    return Response(status_code=204)


def create_app() -> Starlette:
    lines = [json.dumps(event).encode() + b"\n" for event in _EXECUTED]
    return Starlette(
        routes=[
            Route("/v1/sandboxes", _always(_SANDBOX, 201), methods=["POST"]),
            Route("/v1/sandboxes/{id}", _always(_SANDBOX), methods=["GET"]),
            Route("/v1/sandboxes/{id}", _gone, methods=["DELETE"]),
            Route("/v1/sandboxes/{id}/code/run", _always(_CODE), methods=["POST"]),
            Route("/v1/sandboxes/{id}/processes/run", _always(_RAN), methods=["POST"]),
            Route("/v1/sandboxes/{id}/files", _kept_nowhere, methods=["PUT"]),
            Route("/v1/sandboxes/{id}/files", _content, methods=["GET"]),
            Route("/sandboxes", _always(_E2B_SANDBOX, 201), methods=["POST"]),
            Route("/v2/sandboxes", _always(_E2B_SANDBOX, 201), methods=["POST"]),
            Route("/sandboxes/{id}", _gone, methods=["DELETE"]),
            Route("/execute", _stream(lines, "application/x-ndjson"), methods=["POST"]),
            Route("/process.Process/Start", _stream(_STARTED, "application/connect+json"), methods=["POST"]),
            Route("/files", _kept_nowhere, methods=["POST"]),
            Route("/files", _content, methods=["GET"]),
        ]
    )


if __name__ == "__main__":
    serve(create_app())
