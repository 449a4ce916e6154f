"""Bounds on what clients send before their request is complete, with real sockets and no sandbox."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import anyio
import anyio.abc
import pytest
import uvicorn
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from skerry.facades.connections import BODY_S, HEAD_MAX, HEAD_S, HEADERS_MAX, PIPELINED_MAX, STREAM_S, Http, cut_stalled
from skerry.facades.streams import patient

pytestmark = pytest.mark.anyio

HEAD = b"POST / HTTP/1.1\r\nhost: x\r\n"


class App:
    """Answers with the body's length; `/late` only when it is let go, `/patient` asks for patience first."""

    def __init__(self) -> None:
        self.left = 0
        self.go = anyio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        if scope["path"] == "/patient":
            patient(scope)
        if scope["path"] == "/late":
            await self.go.wait()
        try:
            size = len(await request.body())
        except ClientDisconnect:
            self.left += 1
            return
        await PlainTextResponse(f"read {size}")(scope, receive, send)


class Served:
    def __init__(self, app: App, server: uvicorn.Server, port: int) -> None:
        self.app, self._server, self._port = app, server, port

    def pass_time(self, seconds: float) -> None:
        """As if nothing had come for that long."""
        cut_stalled(self._server.server_state.connections, anyio.current_time() + seconds)

    async def send(self, *pieces: bytes) -> anyio.abc.SocketStream:
        """On a new connection; what a server that has had enough does not take is let be."""
        stream = await anyio.connect_tcp("127.0.0.1", self._port)
        with suppress(anyio.BrokenResourceError):
            for piece in pieces:
                await stream.send(piece)
        return stream


async def answer(stream: anyio.abc.SocketStream) -> bytes:
    """Until the server closes."""
    reply = b""
    with anyio.fail_after(10), suppress(anyio.EndOfStream, anyio.BrokenResourceError):
        while True:
            reply += await stream.receive()
    await stream.aclose()
    return reply


@asynccontextmanager
async def serving() -> AsyncIterator[Served]:
    listener = socket.create_server(("127.0.0.1", 0))
    app = App()
    config = uvicorn.Config(app, http=Http, lifespan="off", log_level="critical", timeout_graceful_shutdown=1)  # type: ignore[arg-type]
    server = uvicorn.Server(config)
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup([listener])
    try:
        yield Served(app, server, listener.getsockname()[1])
    finally:
        app.go.set()
        await server.shutdown([listener])


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with serving() as found:
        yield found


CLOSE = b"connection: close\r\n"


@pytest.mark.parametrize(
    "pieces",
    [
        (HEAD + b"x-a: " + b"a" * (HEAD_MAX + 1) + b"\r\n\r\n",),
        (HEAD + b"x-a: ", *(b"a" * 10_000 for _ in range(100))),
        (HEAD, *(b"x-%d: a\r\n" % n for n in range(HEADERS_MAX)), b"\r\n"),
        (b"GET /" + b"a" * (HEAD_MAX + 1) + b" HTTP/1.1\r\n\r\n",),
        (HEAD + b"transfer-encoding: chunked\r\n\r\n0\r\nx-a: ", *(b"a" * 10_000 for _ in range(100))),
        (HEAD + b"transfer-encoding: chunked\r\n\r\n1;", *(b"a" * 10_000 for _ in range(100))),
    ],
    ids=["long header", "endless header", "many headers", "long path", "endless trailer", "endless extension"],
)
async def test_a_head_without_measure_is_refused(served: Served, pieces: tuple[bytes, ...]) -> None:
    reply = await answer(await served.send(*pieces))
    assert reply.startswith(b"HTTP/1.1 431 Request Header Fields Too Large\r\n")
    assert b"connection: close" in reply


async def test_what_is_large_but_not_too_large_is_served(served: Served) -> None:
    headers = b"".join(b"x-%d: %b\r\n" % (n, b"a" * 600) for n in range(HEADERS_MAX - 3))
    body = b"b" * 3_000_000
    reply = await answer(await served.send(HEAD + headers + CLOSE + b"content-length: %d\r\n\r\n" % len(body), body))
    assert reply.startswith(b"HTTP/1.1 200")
    assert reply.endswith(b"read 3000000")


async def test_a_body_is_no_part_of_the_next_head(served: Served) -> None:
    body = b"b" * 200_000
    first = HEAD + b"content-length: %d\r\n\r\n" % len(body) + body
    reply = await answer(await served.send(first + HEAD + CLOSE + b"content-length: 0\r\n\r\n"))
    assert reply.count(b"HTTP/1.1 200") == 2


async def test_no_connection_queues_more_than_its_share(served: Served) -> None:
    request = b"POST /late HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n"
    assert await answer(await served.send(request * (PIPELINED_MAX + 2))) == b""
    reply = b""
    stream = await served.send(request * 50)
    served.app.go.set()
    with anyio.fail_after(10):
        while reply.count(b"read 0") < 50:
            reply += await stream.receive()
    await stream.aclose()


@pytest.mark.parametrize("begun", [b"GET / HTTP/1.1\r\nhost:", b"\r\n", b"G"])
async def test_a_head_that_does_not_end_is_cut_off(served: Served, begun: bytes) -> None:
    stream = await served.send(begun)
    await anyio.sleep(0.05)
    served.pass_time(HEAD_S - 1)
    await stream.send(b"\r\n" if begun == b"\r\n" else b"E")  # a trickle wins no time
    await anyio.sleep(0.05)
    served.pass_time(HEAD_S + 1)
    assert (await answer(stream))[:12] == (b"" if begun == b"\r\n" else b"HTTP/1.1 408")


async def test_a_connection_that_says_nothing_is_closed(served: Served) -> None:
    stream = await served.send()
    await anyio.sleep(0.05)
    served.pass_time(HEAD_S + 1)
    assert await answer(stream) == b""


async def test_a_body_that_does_not_come_is_cut_off(served: Served) -> None:
    stream = await served.send(HEAD + b"content-length: 10\r\n\r\n1")
    await anyio.sleep(0.05)
    served.pass_time(BODY_S - 1)
    await stream.send(b"2")
    await anyio.sleep(0.05)
    served.pass_time(BODY_S - 1)
    await anyio.sleep(0.05)
    assert served.app.left == 0
    served.pass_time(BODY_S + 1)
    assert (await answer(stream)).startswith(b"HTTP/1.1 408")
    assert served.app.left == 1


async def test_a_stream_may_be_quiet_for_longer(served: Served) -> None:
    stream = await served.send(HEAD.replace(b" / ", b" /patient ") + b"content-length: 10\r\n\r\n1")
    await anyio.sleep(0.05)
    served.pass_time(STREAM_S - 1)
    await anyio.sleep(0.05)
    assert served.app.left == 0
    served.pass_time(STREAM_S + 1)
    assert (await answer(stream)).startswith(b"HTTP/1.1 408")


async def test_a_body_that_we_do_not_take_is_not_its_clients_fault(served: Served) -> None:
    size = 20_000_000
    async with anyio.create_task_group() as group:
        stream = await served.send(HEAD.replace(b" / ", b" /late ") + CLOSE + b"content-length: %d\r\n\r\n" % size)
        group.start_soon(stream.send, b"b" * size)
        await anyio.sleep(0.2)
        served.pass_time(BODY_S + 1)
        served.app.go.set()
        assert (await answer(stream)).endswith(b"read 20000000")
