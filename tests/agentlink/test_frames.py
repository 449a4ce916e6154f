"""Bytes to frames, whatever the bytes are."""

import asyncio
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skerry.agentlink.connection import Connection
from skerry.agentlink.frames import HEADER, MAX_PAYLOAD, Kind, frame, json_frame, parse_credit, parse_header, parse_json
from skerry.errors import AgentViolation, Error, RequestTooLarge

TOKEN = "token"


def test_a_frame_is_read_as_it_was_written() -> None:
    made = frame(Kind.DATA, 7, b"abc")
    assert parse_header(made, 0) == (Kind.DATA, 7, 3)
    assert made[HEADER.size :] == b"abc"


def test_a_request_too_large_for_a_frame_is_the_callers_mistake() -> None:
    with pytest.raises(RequestTooLarge) as caught:
        json_frame(Kind.OPEN, 1, {"text": "x" * MAX_PAYLOAD})
    assert caught.value.details == {"limit": MAX_PAYLOAD, "current": MAX_PAYLOAD + len('{"text":""}')}


@pytest.mark.parametrize("length", [0, 4, MAX_PAYLOAD + 6, 2**32 - 1])
def test_absurd_lengths_are_violations(length: int) -> None:
    with pytest.raises(AgentViolation):
        parse_header(HEADER.pack(length, Kind.DATA, 1), 0)


@pytest.mark.parametrize("kind", [0, Kind.OPEN, Kind.CANCEL, Kind.WELCOME, 12, 255])
def test_kinds_an_agent_may_not_send_are_violations(kind: int) -> None:
    with pytest.raises(AgentViolation):
        parse_header(HEADER.pack(5, kind, 1), 0)


@pytest.mark.parametrize("payload", [b"", b"{", b"[]", b"1", b"\xff", b"[" * 100_000])
def test_what_is_no_object_is_a_violation(payload: bytes) -> None:
    with pytest.raises(AgentViolation):
        parse_json(payload)


def test_a_credit_is_four_bytes() -> None:
    assert parse_credit(b"\0\0\1\0") == 256
    with pytest.raises(AgentViolation):
        parse_credit(b"\0\0\1")


class Wire(asyncio.Transport):
    """Takes what is written, and knows when it was hung up."""

    def __init__(self) -> None:
        super().__init__()
        self.aborted = False

    def write(self, data: object) -> None: ...
    def writelines(self, list_of_data: object) -> None: ...

    def abort(self) -> None:
        self.aborted = True


def feed(connection: Connection, stream: bytes, cuts: list[int]) -> None:
    """Give the bytes to the connection in pieces of these sizes."""
    while stream:
        size = cuts.pop() if cuts else len(stream)
        piece, stream = stream[:size], stream[size:]
        while piece:
            buffer = connection.get_buffer(-1)
            taken = min(len(buffer), len(piece))
            assert taken, "there is always room for more"
            buffer[:taken] = piece[:taken]
            buffer.release()
            piece = piece[taken:]
            connection.buffer_updated(taken)


async def converse(stream: bytes, cuts: list[int], greeted: bool) -> tuple[Wire, list[Error]]:
    ended: list[Error] = []
    connection = Connection(TOKEN, lambda _: None, lambda _, error: ended.append(error))
    wire = Wire()
    connection.connection_made(wire)
    if greeted:
        feed(connection, json_frame(Kind.HELLO, 0, {"protocol": 1, "token": TOKEN}), [])
        channel = connection.open({"op": "ping"})
        assert channel.number == 1
    feed(connection, stream, cuts)
    connection.close()
    return wire, ended


def test_a_connection_that_was_closed_before_it_was_made_is_hung_up() -> None:
    async def work() -> Wire:
        connection = Connection(TOKEN, lambda _: None, lambda *_: None)
        connection.close()
        wire = Wire()
        connection.connection_made(wire)
        return wire

    assert asyncio.run(work()).aborted


FRAMES = st.builds(
    lambda kind, channel, payload: frame(kind, channel, payload),
    st.sampled_from(Kind),
    st.integers(0, 3),
    st.one_of(
        st.binary(max_size=300),
        st.dictionaries(st.sampled_from(["code", "message", "token", "x"]), st.text(max_size=5)).map(
            lambda content: json.dumps(content).encode()
        ),
        st.integers(0, 2**32 - 1).map(lambda number: number.to_bytes(4, "big")),
    ),
)


@settings(max_examples=150, deadline=None)
@given(
    stream=st.one_of(st.binary(max_size=2000), st.lists(FRAMES, max_size=12).map(b"".join)),
    cuts=st.lists(st.integers(1, 50), max_size=30),
    greeted=st.booleans(),
)
def test_any_bytes_in_any_pieces_end_in_order(stream: bytes, cuts: list[int], greeted: bool) -> None:
    wire, ended = asyncio.run(converse(stream, cuts, greeted))
    assert wire.aborted
    assert len(ended) == 1, "the end is told exactly once"
    assert isinstance(ended[0], Error)
