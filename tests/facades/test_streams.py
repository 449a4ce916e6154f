"""Lines of a stream, as bytes."""

import json
from base64 import b64decode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from skerry.errors import SandboxLost, SandboxNotFound
from skerry.facades import streams
from skerry.facades.streams import NdjsonResponse, line
from skerry.models import Output, Stdout

pytestmark = pytest.mark.anyio


def output(data: bytes, dropped: int = 0) -> Output:
    return Output.model_construct(type="stdout", offset=7, data=data, dropped=dropped)


async def test_output_is_written_by_hand_as_the_model_would_be() -> None:
    for event in (output(b""), output(bytes(range(256))), output(b"x", dropped=3)):
        read = json.loads(line(event))
        assert b64decode(read.pop("data")) == event.data
        assert read == {"type": "stdout", "offset": 7} | ({"dropped": 3} if event.dropped else {})
        assert Output.model_validate_json(line(event)).data == event.data


class Caller:
    """The other side of a response."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.left = anyio.Event()
        self.reading = anyio.Event()
        self.reading.set()

    async def receive(self) -> dict[str, Any]:
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        await self.reading.wait()
        self.sent.append(message)

    @property
    def lines(self) -> list[dict[str, Any]]:
        body = b"".join(message.get("body", b"") for message in self.sent)
        return [json.loads(text) for text in body.splitlines()]


class Source:
    """Events under the test's control."""

    def __init__(self) -> None:
        self.send, self._receive = anyio.create_memory_object_stream[Any](100)
        self.closed = False

    @asynccontextmanager
    async def events(self) -> AsyncIterator[AsyncIterator[Any]]:
        try:
            yield self._iterate()
        finally:
            self.closed = True
            self.send.close()
            self._receive.close()

    async def _iterate(self) -> AsyncIterator[Any]:
        async for event in self._receive:
            if isinstance(event, Exception):
                raise event
            yield event


async def respond(source: Source, caller: Caller) -> None:
    with anyio.fail_after(5):
        await NdjsonResponse(source.events())({"type": "http"}, caller.receive, caller.send)


async def test_a_whole_stream() -> None:
    source, caller = Source(), Caller()
    await source.send.send(Stdout(text="a"))
    source.send.close()
    await respond(source, caller)
    assert caller.lines == [{"type": "stdout", "text": "a"}]
    assert caller.sent[-1]["more_body"] is False
    assert source.closed


async def test_an_error_before_the_first_line_is_an_ordinary_one() -> None:
    source, caller = Source(), Caller()
    await source.send.send(SandboxNotFound("none"))
    with pytest.raises(SandboxNotFound):
        await respond(source, caller)
    assert caller.sent == []


async def test_a_later_error_is_a_last_line() -> None:
    source, caller = Source(), Caller()
    await source.send.send(Stdout(text="a"))
    await source.send.send(SandboxLost("gone"))
    await respond(source, caller)
    assert caller.lines[-1]["type"] == "failure"
    assert caller.lines[-1]["error"]["code"] == "sandbox.lost"


async def test_a_fault_tells_nothing_of_the_inside() -> None:
    source, caller = Source(), Caller()
    await source.send.send(Stdout(text="a"))
    await source.send.send(ZeroDivisionError("secret detail"))
    await respond(source, caller)
    assert caller.lines[-1]["error"]["code"] == "internal"
    assert "secret" not in json.dumps(caller.lines)


async def test_a_caller_who_leaves_ends_it_before_the_first_line_too() -> None:
    source, caller = Source(), Caller()
    caller.left.set()
    await respond(source, caller)
    assert source.closed


async def test_a_silent_stream_beats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "HEARTBEAT_S", 0.05)
    source, caller = Source(), Caller()
    async with anyio.create_task_group() as group:
        group.start_soon(respond, source, caller)
        await anyio.sleep(0.3)
        source.send.close()
    assert {"type": "heartbeat"} in caller.lines


async def test_a_caller_who_does_not_read_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "STALLED_S", 0.05)
    source, caller = Source(), Caller()
    caller.reading = anyio.Event()
    await source.send.send(Stdout(text="a"))
    await respond(source, caller)
    assert not any(message.get("more_body") is False for message in caller.sent), "left unfinished, so it is cut off"
    assert source.closed
