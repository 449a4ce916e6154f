"""Long answers: events with heartbeats between, cut off when nobody reads, ended when the caller leaves."""

from __future__ import annotations

import asyncio
import json
import logging
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import anyio
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from skerry.errors import Error, InternalError
from skerry.models import Output

logger = logging.getLogger(__name__)

T = TypeVar("T")

HEARTBEAT_S = 15.0
_WATCH_AFTER_S = 0.02
STALLED_S = 60.0
"""A caller that takes nothing for that long is cut off."""
RESET = "skerry.reset"
"""Key of the scope's function that resets the connection."""
PATIENT = "skerry.patient"
"""Key of the scope's function that lets the caller take its time with the request's body."""
NDJSON = "application/x-ndjson"
_HEARTBEAT = b'{"type":"heartbeat"}\n'


def reset(scope: Scope) -> None:
    """Break the connection off: nobody can take that for the end of a reply, and nothing waits for a reader."""
    if RESET in scope:
        scope[RESET]()


def patient(scope: Scope) -> None:
    """The body is a stream that may be quiet for long: as long as somebody types, or a program talks."""
    if PATIENT in scope:
        scope[PATIENT]()


def line(event: BaseModel) -> bytes:
    """One event as a line."""
    if isinstance(event, Output):
        # By hand: this is the hot path of all output, and base64 needs no escaping.
        dropped = b',"dropped":%d' % event.dropped if event.dropped else b""
        return b'{"type":"%b","offset":%d%b,"data":"%b"}\n' % (
            event.type.encode(), event.offset, dropped, b64encode(event.data),
        )  # fmt: skip
    return event.__pydantic_serializer__.to_json(event) + b"\n"


@dataclass(frozen=True)
class Framing:
    """How a protocol writes a stream of events."""

    media_type: str
    render: Callable[[Any], bytes]
    heartbeat: bytes
    failure: Callable[[Any], bytes | None]
    """The last words when something went wrong on the way; None: the connection breaks off."""
    end: bytes = b""
    """The last words when nothing did."""
    errors: tuple[type[Exception], ...] = (Error,)
    """What may go wrong; everything else is a fault of the server's."""
    head_at_once: bool = False
    """The head of the reply is sent when the source is open, not with the first event."""
    plain_errors: bool = True
    """An error before the first event is an ordinary error reply."""
    headers: Mapping[str, str] = field(default_factory=lambda: {"Cache-Control": "no-store", "X-Accel-Buffering": "no"})


class StreamResponse(Response):
    """Streams the events of a context manager; a caller that leaves early leaves that."""

    def __init__(
        self, source: AbstractAsyncContextManager[AsyncIterator[Any]], framing: Framing, *, first: bytes | None = None,
        heartbeat_s: float | None = None, status_code: int = 200,
    ) -> None:  # fmt: skip
        self._source, self._framing, self._first = source, framing, first
        self._heartbeat_s = HEARTBEAT_S if heartbeat_s is None else heartbeat_s
        self.media_type = framing.media_type
        self.status_code = status_code
        self.background = None
        self.init_headers(framing.headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._send(scope, receive, _Writer(send, self.raw_headers))
        except* Stalled:
            reset(scope)

    async def _send(self, scope: Scope, receive: Receive, writer: _Writer) -> None:
        failure: Exception | None = None
        async with anyio.create_task_group() as group:
            group.start_soon(_leave_with_caller, receive, group.cancel_scope)
            group.start_soon(writer.beat, self._framing.heartbeat, self._heartbeat_s)
            try:
                await self._stream(writer)
            except self._framing.errors as error:
                failure = error
            except Stalled:
                raise
            except Exception:
                logger.exception("fault in a stream")
                failure = InternalError("the stream ended by a fault of the server's")
            last = self._framing.end if failure is None else self._framing.failure(failure)
            if last is None:
                reset(scope)
            elif failure is None or writer.started or not self._framing.plain_errors:
                await writer.end(last)
                failure = None
            group.cancel_scope.cancel()
        if failure is not None and last is not None:
            raise failure

    async def _stream(self, writer: _Writer) -> None:
        async with self._source as events:
            if self._framing.head_at_once:
                await writer.write(b"")
            if self._first is not None:
                await writer.write(self._first)
            async for event in events:
                await writer.write(self._framing.render(event))


class Stalled(Exception):
    """The caller has not read for too long."""


class _Writer:
    """Sends lines, and a heartbeat when there was none for a while."""

    def __init__(self, send: Send, headers: list[tuple[bytes, bytes]]) -> None:
        self._send, self._headers = send, headers
        self._lock = anyio.Lock()
        self._last = anyio.current_time()
        self.started = False

    async def write(self, data: bytes) -> None:
        async with self._lock:
            with anyio.move_on_after(STALLED_S) as scope:
                await self._start()
                await self._send({"type": "http.response.body", "body": data, "more_body": True})
            if scope.cancelled_caught:
                raise Stalled
            self._last = anyio.current_time()

    async def _start(self) -> None:
        if not self.started:
            self.started = True
            await self._send({"type": "http.response.start", "status": 200, "headers": self._headers})

    async def end(self, last: bytes) -> None:
        """With these last words, which may be none."""
        if last:
            await self.write(last)
        async with self._lock:
            await self._start()
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def beat(self, heartbeat: bytes, every_s: float) -> None:
        while True:
            await anyio.sleep(max(0.0, self._last + every_s - anyio.current_time()) + 0.01)
            if anyio.current_time() - self._last >= every_s:
                await self.write(heartbeat)


def _ndjson_failure(error: Error) -> bytes:
    return json.dumps({"type": "failure", **error.to_wire()}).encode() + b"\n"


_NDJSON = Framing(NDJSON, line, _HEARTBEAT, _ndjson_failure)


class NdjsonResponse(StreamResponse):
    """Events as lines of JSON. The head of the reply is sent with the first line, so an error before it is an ordinary
    error reply; a later one is a last line of type `failure`."""

    media_type = NDJSON

    def __init__(
        self, source: AbstractAsyncContextManager[AsyncIterator[Any]], status_code: int = 200, *,
        first: bytes | None = None,
    ) -> None:  # fmt: skip
        super().__init__(source, _NDJSON, first=first, status_code=status_code)


async def _leave_with_caller(receive: Receive, scope: anyio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


async def while_connected(request: Request, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """The result of `work`, which is cancelled when the caller leaves before it is done.

    Watching the caller takes a task; most work is done before it is worth one.
    """
    watch: list[asyncio.Task[None]] = []
    loop = asyncio.get_running_loop()
    with anyio.CancelScope() as scope:
        timer = loop.call_later(
            _WATCH_AFTER_S, lambda: watch.append(loop.create_task(_leave_with_caller(request.receive, scope)))
        )
        try:
            return await work()
        finally:
            timer.cancel()
            for task in watch:
                task.cancel()
    raise InternalError("the caller has left")  # nobody reads this


STREAMED: set[type[BaseModel]] = set()
"""Models that appear in streams only, for the OpenAPI document."""


def ndjson_of(*models: type[BaseModel]) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI description of a stream of these events."""
    STREAMED.update(models)
    references = [{"$ref": f"#/components/schemas/{model.__name__}"} for model in models]
    return {
        200: {
            "description": "One JSON object a line",
            "content": {NDJSON: {"schema": {"oneOf": references}}},
            "model": None,
        }
    }
