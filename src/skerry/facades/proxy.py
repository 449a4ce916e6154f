"""HTTP and WebSocket to programs that listen inside a sandbox, through the agent."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from typing import Any

import anyio
import httpcore
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from skerry.core import Core
from skerry.errors import Error, PortNotUnderstood
from skerry.facades.streams import patient
from skerry.ports import ByteStream

_HOP_BY_HOP = frozenset(
    {b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"te", b"trailer",
     b"transfer-encoding", b"upgrade", b"proxy-connection"}
)  # fmt: skip
_MESSAGE_MAX = 16 * 1024 * 1024


@dataclass(frozen=True)
class Destination:
    """A port of a sandbox, and how a façade's requests reach it."""

    core: Core
    tenant_id: str
    sandbox_id: str
    port: int
    target: bytes
    """Path and query for the program."""
    host: bytes
    """What the program sees as its name."""
    hidden: frozenset[bytes]
    """Headers that are the façade's own: a program in a sandbox never sees a key."""
    prefix: str = ""
    """What the outside has before the path."""


def query_of(scope: Scope) -> bytes:
    """With its question mark; empty when there is none."""
    query: bytes = scope["query_string"]
    return b"?" + query if query else b""


class Proxied(Response):
    """A request passed on to the program, and its answer back. Raises PortNotOpen, PortNotUnderstood, SandboxNotFound
    when it is sent."""

    def __init__(self, request: Request, destination: Destination) -> None:
        self._request, self._to = request, destination
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        to = self._to
        async with AsyncExitStack() as stack:
            stream = await stack.enter_async_context(to.core.dial(to.tenant_id, to.sandbox_id, to.port))
            connection = httpcore.AsyncHTTP11Connection(_origin(to.port), _Stream(stream), keepalive_expiry=0)
            try:
                response = await connection.handle_async_request(self._outgoing())
                stack.push_async_callback(response.aclose)
            except (httpcore.ProtocolError, httpcore.NetworkError, httpcore.TimeoutException) as error:
                raise PortNotUnderstood(
                    f"cannot read the answer of port {to.port} of sandbox {to.sandbox_id}: {error}", port=to.port
                ) from error
            headers = [(name.lower(), value) for name, value in response.headers if name.lower() not in _HOP_BY_HOP]
            await send({"type": "http.response.start", "status": response.status, "headers": headers})
            # What breaks off inside breaks off outside: no clean end is made up.
            async for chunk in response.aiter_stream():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _outgoing(self) -> httpcore.Request:
        request, to = self._request, self._to
        headers = [*_passed(request.scope["headers"], to.hidden), (b"host", to.host), *_forwarded(request.scope, to)]
        content: AsyncIterator[bytes] | None = None
        patient(request.scope)
        length = request.headers.get("content-length")
        if length is not None:
            headers.append((b"content-length", length.encode()))
            content = request.stream()
        elif "transfer-encoding" in request.headers:
            headers.append((b"transfer-encoding", b"chunked"))
            content = request.stream()
        url = httpcore.URL(scheme=b"http", host=b"localhost", port=to.port, target=to.target)
        # As most clients write them: not every program knows that case means nothing.
        written = [(b"-".join(part.capitalize() for part in name.split(b"-")), value) for name, value in headers]
        return httpcore.Request(request.method, url, headers=written, content=content)


def _origin(port: int) -> httpcore.Origin:
    return httpcore.Origin(b"http", b"localhost", port)


def _passed(headers: Iterable[tuple[bytes, bytes]], hidden: frozenset[bytes]) -> list[tuple[bytes, bytes]]:
    named = {part.strip().lower() for name, value in headers if name == b"connection" for part in value.split(b",")}
    skipped = _HOP_BY_HOP | hidden | named | {b"host", b"content-length"}
    return [(name, value) for name, value in headers if name not in skipped and not name.startswith(b"x-forwarded-")]


def _forwarded(scope: Scope, to: Destination) -> list[tuple[bytes, bytes]]:
    host = next((value for name, value in scope["headers"] if name == b"host"), b"")
    client = scope.get("client")
    headers = [
        (b"x-forwarded-host", host),
        (b"x-forwarded-proto", scope["scheme"].encode()),
        (b"x-forwarded-for", (client[0] if client else "").encode()),
    ]
    return [*headers, (b"x-forwarded-prefix", to.prefix.encode())] if to.prefix else headers


class _Stream(httpcore.AsyncNetworkStream):
    """httpcore's view of a connection into the sandbox."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._held = b""

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if not self._held:
            self._held = await self._stream.receive()
        data, self._held = self._held[:max_bytes], self._held[max_bytes:]
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        await self._stream.send(buffer)

    async def aclose(self) -> None:
        await self._stream.aclose()

    def get_extra_info(self, info: str) -> Any:
        return None


# --- WebSocket ------------------------------------------------------------------------------------------------------


async def proxy_websocket(socket: WebSocket, to: Destination, refusal: Callable[[Error], Response]) -> None:
    """Messages passed on to the program, and back.

    Args:
        refusal: the façade's reply, in place of a WebSocket, for PortNotOpen and whatever else keeps one from being.
    """
    try:
        async with to.core.dial(to.tenant_id, to.sandbox_id, to.port) as stream:
            inner = _Inner(stream, socket, to)
            await inner.shake_hands()
            await socket.accept(inner.subprotocol)
            async with anyio.create_task_group() as group:
                group.start_soon(inner.outwards, group.cancel_scope)
                await inner.inwards()
                group.cancel_scope.cancel()
    except* Error as errors:
        error = errors.exceptions[0]
        assert isinstance(error, Error)
        with suppress(RuntimeError):
            if socket.application_state is WebSocketState.CONNECTING:
                await socket.send_denial_response(refusal(error))
            else:
                await socket.close(4000 + error.status, error.code)
    except* (WebSocketDisconnect, RuntimeError):
        pass


class _Inner:
    """The WebSocket to the program inside, without I/O of its own: `websockets` does the protocol."""

    def __init__(self, stream: ByteStream, socket: WebSocket, to: Destination) -> None:
        self._stream, self._socket, self._to = stream, socket, to
        self._protocol = ClientProtocol(
            parse_uri(f"ws://localhost:{to.port}{to.target.decode('latin-1')}"),
            subprotocols=[Subprotocol(name) for name in socket.scope["subprotocols"]] or None,
            max_size=_MESSAGE_MAX,
        )

    @property
    def subprotocol(self) -> str | None:
        return self._protocol.subprotocol

    async def shake_hands(self) -> None:
        """Raises PortNotUnderstood when the program does not speak WebSocket."""
        request = self._protocol.connect()
        for name, value in _passed(self._socket.scope["headers"], self._to.hidden):
            if not name.startswith(b"sec-websocket-"):
                with suppress(KeyError, UnicodeDecodeError):
                    request.headers[name.decode()] = value.decode("latin-1")
        self._protocol.send_request(request)
        await self._flush()
        while self._protocol.state is State.CONNECTING and self._protocol.handshake_exc is None:
            data = await self._stream.receive()
            if not data:
                break
            self._protocol.receive_data(data)
        if self._protocol.state is not State.OPEN:
            reason = self._protocol.handshake_exc or "it closed the connection"
            raise PortNotUnderstood(f"cannot open a WebSocket to port {self._to.port}: {reason}", port=self._to.port)

    async def inwards(self) -> None:
        """The caller's messages, until it leaves."""
        while True:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                self._protocol.send_close(1000)
                await self._flush()
                return
            if (data := message.get("bytes")) is not None:
                self._protocol.send_binary(data)
            else:
                self._protocol.send_text((message.get("text") or "").encode())
            await self._flush()

    async def outwards(self, scope: anyio.CancelScope) -> None:
        """The program's messages, until it leaves."""
        parts: list[bytes] = []
        opcode = Opcode.BINARY
        while True:
            for event in self._protocol.events_received():
                if not isinstance(event, Frame):
                    continue
                if event.opcode in (Opcode.TEXT, Opcode.BINARY):
                    opcode, parts = event.opcode, []
                if event.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
                    parts.append(bytes(event.data))
                    if event.fin:
                        await self._deliver(opcode, b"".join(parts))
            await self._flush()
            if self._protocol.state is not State.OPEN:
                break
            data = await self._stream.receive()
            if not data:
                break
            self._protocol.receive_data(data)
        await self._socket.close(self._protocol.close_code or 1006 - 6)
        scope.cancel()

    async def _deliver(self, opcode: Opcode, data: bytes) -> None:
        if opcode is Opcode.TEXT:
            await self._socket.send_text(data.decode("utf-8", "replace"))
        else:
            await self._socket.send_bytes(data)

    async def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                await self._stream.send(data)
            else:
                await self._stream.send_eof()
