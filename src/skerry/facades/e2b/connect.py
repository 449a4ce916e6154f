"""Connect, the RPC protocol of envd, with its JSON codec: https://connectrpc.com/docs/protocol.

A method is a coroutine function from a request (a JSON object) to a reply, or a function to a context manager of an
event stream. Only JSON is spoken: that is what E2B's clients use; a protobuf request is answered 415.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from skerry.facades.e2b.encodings import inflated_message
from skerry.facades.e2b.errors import CALLERS_MISTAKES, GONE, HTTP_STATUS, ConnectError, connect_error
from skerry.facades.e2b.read import MESSAGE_MAX, Content, json_object, object_of
from skerry.facades.e2b.sandbox import SandboxCall, named_user, sandbox_of, user_of
from skerry.facades.streams import Framing, StreamResponse, patient

Events = AbstractAsyncContextManager[AsyncIterator[Content]]

_JSON, _STREAM = "application/json", "application/connect+json"
_ENVELOPE = struct.Struct(">BI")
_COMPRESSED, _LAST = 1, 2
_KEEPALIVE_S = 90.0
"""envd's own, when the client names none."""


@dataclass(frozen=True, slots=True)
class Call:
    """What a method needs to know of its request beside the content."""

    sandbox: SandboxCall
    user: str
    timeout_s: float | None
    """`Connect-Timeout-Ms`: for how long the client is interested."""


Endpoint = Callable[[Request], Awaitable[Response]]
Unary = Callable[[Call, Content], Awaitable[Content]]
ServerStream = Callable[[Call, Content], Events]
ClientStream = Callable[[Call, AsyncIterator[Content]], Awaitable[Content]]


def envelope(content: Mapping[str, Any], flags: int = 0) -> bytes:
    """One message of a stream."""
    data = json.dumps(content, separators=(",", ":")).encode()
    return _ENVELOPE.pack(flags, len(data)) + data


def unary(method: Unary) -> Endpoint:
    """The endpoint of a method that has one request and one reply."""

    async def endpoint(request: Request) -> Response:
        try:
            return JSONResponse(await method(_call(request, _JSON), await json_object(request)))
        except WrongCodec as wrong:
            return wrong.reply()
        except (ClientDisconnect, *GONE):
            raise
        except Exception as error:
            shown = connect_error(error, named_user(request))
            return JSONResponse(shown.to_wire(), HTTP_STATUS[shown.code])

    return endpoint


def server_stream(method: ServerStream, keepalive: Content) -> Endpoint:
    """The endpoint of a method that has one request and a stream of replies, with `keepalive` where there is none."""

    async def endpoint(request: Request) -> Response:
        try:
            source = method(_call(request, _STREAM), await _only_message(request))
        except WrongCodec as wrong:
            return wrong.reply()
        except (ClientDisconnect, *GONE):
            raise
        except Exception as error:
            return _refused_stream(error, request)
        every_s = float(_number(request.headers.get("keepalive-ping-interval", "")) or _KEEPALIVE_S)
        return StreamResponse(source, _framing(named_user(request), keepalive), heartbeat_s=every_s)

    return endpoint


def client_stream(method: ClientStream) -> Endpoint:
    """The endpoint of a method that has a stream of requests and one reply."""

    async def endpoint(request: Request) -> Response:
        patient(request.scope)
        try:
            reply = await method(_call(request, _STREAM), _messages(request))
        except WrongCodec as wrong:
            return wrong.reply()
        except (ClientDisconnect, *GONE):
            raise
        except Exception as error:
            return _refused_stream(error, request)
        return Response(envelope(reply) + envelope({}, _LAST), media_type=_STREAM)

    return endpoint


def _framing(user: str, keepalive: Content) -> Framing:
    def failure(error: Exception) -> bytes | None:
        if isinstance(error, GONE):
            return None  # a client that sees the connection break asks whether the sandbox is there, and says so
        return envelope({"error": connect_error(error, user).to_wire()}, _LAST)

    return Framing(
        _STREAM, envelope, envelope(keepalive), failure, envelope({}, _LAST),
        errors=CALLERS_MISTAKES, plain_errors=False,
    )  # fmt: skip


def _call(request: Request, codec: str) -> Call:
    """Raises WrongCodec; ConnectError when the token or the user cannot be accepted."""
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given != codec:
        raise WrongCodec(given, codec)
    sandbox = sandbox_of(request)
    sandbox.check_token(request.headers.get("x-access-token"))
    timeout_ms = _number(request.headers.get("connect-timeout-ms", ""))
    return Call(sandbox, user_of(request), timeout_ms / 1000 if timeout_ms else None)


class WrongCodec(Exception):
    """Answered by HTTP, as the protocol has it."""

    def __init__(self, given: str, wanted: str) -> None:
        super().__init__(f"cannot read {given or 'a request without content type'}: only {wanted} is spoken here")
        self._wanted = wanted

    def reply(self) -> Response:
        return Response(str(self), 415, {"Accept-Post": self._wanted})


def _number(header: str) -> int | None:
    """What a header says, when that is a number as the protocol has them."""
    return int(header) if re.fullmatch("[0-9]{1,10}", header) else None


def _refused_stream(error: Exception, request: Request) -> Response:
    shown = connect_error(error, named_user(request))
    return Response(envelope({"error": shown.to_wire()}, _LAST), media_type=_STREAM)


def _unpacked(request: Request, data: bytes) -> bytes:
    encoding = request.headers.get("connect-content-encoding", "identity").lower()
    if encoding != "gzip":
        raise ConnectError("unimplemented", f"a message compressed by {encoding!r}: only gzip is known here")
    return inflated_message(data, MESSAGE_MAX)


async def _only_message(request: Request) -> Content:
    found: Content | None = None
    async for message in _messages(request):
        if found is not None:
            raise ConnectError("invalid_argument", "expected one message in the request, and there are more")
        found = message
    if found is None:
        raise ConnectError("invalid_argument", "expected one message in the request, and there is none")
    return found


async def _messages(request: Request) -> AsyncIterator[Content]:
    """The messages of a request's stream. Raises ConnectError for what is no stream of messages."""
    held = bytearray()
    async for chunk in request.stream():
        held += chunk
        while len(held) >= _ENVELOPE.size:
            flags, size = _ENVELOPE.unpack_from(held)
            if size > MESSAGE_MAX:
                raise ConnectError("resource_exhausted", f"a message of {size} bytes exceeds {MESSAGE_MAX}")
            if len(held) < _ENVELOPE.size + size:
                break
            data = bytes(held[_ENVELOPE.size : _ENVELOPE.size + size])
            del held[: _ENVELOPE.size + size]
            if flags & _COMPRESSED:
                data = _unpacked(request, data)
            if flags & _LAST:
                return
            yield object_of(data)
    if held:
        raise ConnectError("invalid_argument", "the request ended in the middle of a message")
