"""Frames of the agent protocol: constants, encoding, and strict parsing. No I/O."""

from __future__ import annotations

import json
import struct
from enum import IntEnum
from typing import Any

from skerry.errors import AgentViolation, RequestTooLarge

MAX_PAYLOAD = 262_144
"""Bytes in one frame."""
WINDOW = 1_048_576
"""Bytes of DATA that may be sent on a new channel before any CREDIT."""
MAX_CHANNEL = 2**32 - 1

HEADER = struct.Struct(">IBI")
_OVERHEAD = 5  # kind and channel are counted in the length


class Kind(IntEnum):
    """What a frame is; see the table in the protocol's page."""

    OPEN = 1
    DATA = 2
    DATA2 = 3
    ITEM = 4
    END = 5
    RESULT = 6
    ERROR = 7
    CANCEL = 8
    CREDIT = 9
    HELLO = 10
    WELCOME = 11


FROM_AGENT = frozenset({Kind.DATA, Kind.DATA2, Kind.ITEM, Kind.END, Kind.RESULT, Kind.ERROR, Kind.CREDIT, Kind.HELLO})
_BY_NUMBER: list[Kind | None] = [Kind(n) if n in FROM_AGENT else None for n in range(256)]


def header(kind: Kind, channel: int, size: int) -> bytes:
    """The nine bytes before a payload of `size` bytes."""
    return HEADER.pack(size + _OVERHEAD, kind, channel)


def frame(kind: Kind, channel: int, payload: bytes = b"") -> bytes:
    """A whole frame."""
    return HEADER.pack(len(payload) + _OVERHEAD, kind, channel) + payload


def json_frame(kind: Kind, channel: int, content: dict[str, Any]) -> bytes:
    """A frame with a JSON payload.

    Raises:
        RequestTooLarge: the payload exceeds MAX_PAYLOAD.
    """
    payload = json.dumps(content, separators=(",", ":")).encode()
    if len(payload) > MAX_PAYLOAD:
        raise RequestTooLarge(
            f"cannot send a request of {len(payload)} bytes to the sandbox: the limit is {MAX_PAYLOAD}; "
            "put large input into a file or send it as standard input",
            limit=MAX_PAYLOAD, current=len(payload),
        )  # fmt: skip
    return frame(kind, channel, payload)


def parse_header(data: bytes | bytearray | memoryview, offset: int) -> tuple[Kind, int, int]:
    """The kind, channel and payload size of the frame at `offset`, of which at least nine bytes are there.

    Raises:
        AgentViolation: a length or kind that no agent may send.
    """
    length, number, channel = HEADER.unpack_from(data, offset)
    size = length - _OVERHEAD
    if not 0 <= size <= MAX_PAYLOAD:
        raise AgentViolation(f"the agent sent a frame of length {length}")
    kind = _BY_NUMBER[number]
    if kind is None:
        raise AgentViolation(f"the agent sent a frame of kind {number}")
    return kind, channel, size


def parse_json(payload: bytes | bytearray | memoryview) -> dict[str, Any]:
    """A JSON payload. Raises AgentViolation when it is not one object."""
    try:
        content = json.loads(bytes(payload))
    except (ValueError, RecursionError):
        raise AgentViolation("the agent sent a payload that is not JSON") from None
    if not isinstance(content, dict):
        raise AgentViolation("the agent sent JSON that is not an object")
    return content


def parse_credit(payload: bytes | bytearray | memoryview) -> int:
    """Raises AgentViolation when the payload is not a number."""
    if len(payload) != 4:
        raise AgentViolation(f"the agent sent a credit of {len(payload)} bytes")
    return int.from_bytes(payload, "big")
