"""One connection from an agent: bytes in, frames to channels; frames out, without waiting."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable
from typing import Any, cast

from skerry.agentlink import decode
from skerry.agentlink.channel import Channel
from skerry.agentlink.frames import (
    HEADER,
    MAX_CHANNEL,
    Kind,
    frame,
    header,
    json_frame,
    parse_credit,
    parse_header,
    parse_json,
)
from skerry.errors import AgentViolation, Error, LimitExceeded, SandboxLost

PROTOCOL = 1
MAX_CHANNELS = 4096
"""Requests under way in one sandbox."""
_BUFFER = 384 * 1024
"""Room for the largest frame and half of another: each live sandbox holds one."""
_HELLO_TIMEOUT_S = 5.0
_HELLO_MAX = 4096


class Connection(asyncio.BufferedProtocol):
    """What asyncio calls for one accepted socket.

    Args:
        token: what the agent must say first.
        on_ready: called when it has.
        on_closed: called once with the reason when a connection that was ready has ended.
    """

    def __init__(
        self, token: str, on_ready: Callable[[Connection], None], on_closed: Callable[[Connection, Error], None]
    ) -> None:
        self._token = token
        self._on_ready, self._on_closed = on_ready, on_closed
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray(_HELLO_MAX)
        self._begin = self._end = 0
        self._channels: dict[int, Channel] = {}
        self._abandoned: set[int] = set()
        self._last_channel = 0
        self._hello_timer: asyncio.TimerHandle | None = None
        self._failure: Error | None = None
        self.ready = False
        self.congested = False
        """The socket takes no more for now."""
        self.waiting: set[Channel] = set()
        """Channels that wait to send."""
        self.last_heard = 0.0
        """Loop time of the last bytes."""
        self.instance = ""
        self.fate: Error = SandboxLost("the connection to the sandbox's agent was lost")
        """What requests end with when the agent closes the connection."""

    # --- asyncio.BufferedProtocol -----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if self._failure is not None:  # closed between being accepted and this
            self._transport.abort()
            return
        self._hello_timer = asyncio.get_running_loop().call_later(_HELLO_TIMEOUT_S, self.close)

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._begin == self._end:
            self._begin = self._end = 0
        elif len(self._buffer) - self._end < len(self._buffer) // 4:
            held = self._buffer[self._begin : self._end]
            self._buffer[: len(held)] = held
            self._begin, self._end = 0, len(held)
        return memoryview(self._buffer)[self._end :]

    def buffer_updated(self, nbytes: int) -> None:
        self._end += nbytes
        self.last_heard = asyncio.get_running_loop().time()
        try:
            self._parse()
        except AgentViolation as violation:
            self.fail(violation)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.fail(self.fate)

    def pause_writing(self) -> None:
        self.congested = True

    def resume_writing(self) -> None:
        self.congested = False
        for channel in list(self.waiting):
            channel.socket_writable()

    # --- frames in --------------------------------------------------------------------------------------------------

    def _parse(self) -> None:
        buffer = self._buffer
        view = memoryview(buffer)
        try:
            while self._end - self._begin >= HEADER.size and self._failure is None:
                kind, number, size = parse_header(buffer, self._begin)
                if not self.ready and size > _HELLO_MAX - HEADER.size:
                    raise AgentViolation("the agent's first frame is too long")
                end = self._begin + HEADER.size + size
                if end > self._end:
                    break
                with view[self._begin + HEADER.size : end] as payload:
                    self._begin = end
                    if self.ready:
                        self._dispatch(kind, number, payload)
                    elif not self._greet(kind, number, payload):
                        break
        finally:
            view.release()

    def _dispatch(self, kind: Kind, number: int, payload: memoryview) -> None:
        channel = self._channels.get(number)
        if channel is None:
            self._dispatch_stray(kind, number)
            return
        if kind is Kind.DATA:
            channel.take_data(1, bytes(payload))
        elif kind is Kind.DATA2:
            channel.take_data(2, bytes(payload))
        elif kind is Kind.ITEM:
            channel.take_item(parse_json(payload), len(payload))
        elif kind is Kind.CREDIT:
            channel.take_credit(parse_credit(payload))
        elif kind is Kind.END:
            channel.take_end()
        elif kind is Kind.RESULT:
            answer = parse_json(payload)  # before the channel is forgotten: a violation must reach its reader
            del self._channels[number]
            channel.close(answer, None)
        elif kind is Kind.ERROR:
            failure = decode.error(parse_json(payload))
            del self._channels[number]
            channel.close(None, failure)
        else:
            raise AgentViolation(f"the agent sent {kind.name} in the middle of the conversation")

    def _dispatch_stray(self, kind: Kind, number: int) -> None:
        """Frames of a channel that was abandoned, or credit that crossed its end."""
        if number in self._abandoned:
            if kind in (Kind.RESULT, Kind.ERROR):
                self._abandoned.discard(number)
        elif kind is not Kind.CREDIT or number > self._last_channel:
            raise AgentViolation(f"the agent sent {kind.name} on channel {number}, which is not open")

    def _greet(self, kind: Kind, number: int, payload: memoryview) -> bool:
        """The first frame. A stranger is sent away without a word."""
        if kind is not Kind.HELLO or number != 0:
            self.close()
            return False
        hello = parse_json(payload)
        token = hello.get("token")
        if not isinstance(token, str) or not hmac.compare_digest(token.encode(), self._token.encode()):
            self.close()
            return False
        if hello.get("protocol") != PROTOCOL:
            raise AgentViolation(f"the agent speaks protocol {hello.get('protocol')!r}, this server speaks {PROTOCOL}")
        self.instance = str(hello.get("instance", ""))[:128]
        if self._hello_timer is not None:
            self._hello_timer.cancel()
        self.ready = True
        self.send_json(Kind.WELCOME, 0, {})
        self._on_ready(self)
        # The small buffer served the greeting only; what came with it moves over.
        held = bytes(self._buffer[self._begin : self._end])
        self._buffer, self._begin, self._end = bytearray(_BUFFER), 0, len(held)
        self._buffer[: len(held)] = held
        if held:
            self._parse()
        return False

    # --- frames out -------------------------------------------------------------------------------------------------

    def open(self, content: dict[str, Any]) -> Channel:
        """Start a request.

        Raises:
            LimitExceeded: too many are under way.
            SandboxLost, AgentViolation: the connection has ended.
        """
        if self._failure is not None:
            raise self._failure
        if len(self._channels) + len(self._abandoned) >= MAX_CHANNELS:
            raise LimitExceeded(
                f"cannot start another request in this sandbox: {MAX_CHANNELS} are under way", limit=MAX_CHANNELS
            )
        number = self._last_channel % MAX_CHANNEL + 1
        while number in self._channels or number in self._abandoned:
            number = number % MAX_CHANNEL + 1
        self._last_channel = number
        self.send_json(Kind.OPEN, number, content)
        channel = self._channels[number] = Channel(self, number)
        return channel

    def send(self, kind: Kind, number: int, payload: bytes = b"") -> None:
        if self._transport is not None and self._failure is None:
            self._transport.write(frame(kind, number, payload))

    def send_json(self, kind: Kind, number: int, content: dict[str, Any]) -> None:
        if self._transport is not None and self._failure is None:
            self._transport.write(json_frame(kind, number, content))

    def send_data(self, number: int, data: memoryview) -> None:
        """The data is copied by the transport if it cannot be sent at once."""
        if self._transport is not None and self._failure is None:
            self._transport.writelines((header(Kind.DATA, number, len(data)), data))

    def abandon(self, channel: Channel) -> None:
        """CANCEL, and forget the channel but for its number."""
        if self._channels.pop(channel.number, None) is not None:
            self._abandoned.add(channel.number)
            self.send(Kind.CANCEL, channel.number)
        channel.close(None, SandboxLost("the request was abandoned"))

    # --- the end ----------------------------------------------------------------------------------------------------

    def violated(self, what: str) -> AgentViolation:
        """End the connection because the agent broke the protocol; the error to raise."""
        violation = AgentViolation(what)
        self.fail(violation)
        return violation

    def fail(self, error: Error) -> None:
        """End the connection and every request on it with `error`. Only the first call counts."""
        if self._failure is not None:
            return
        self._failure = error
        if self._hello_timer is not None:
            self._hello_timer.cancel()
        if self._transport is not None:
            self._transport.abort()
        channels, self._channels = list(self._channels.values()), {}
        for channel in channels:
            channel.close(None, error)
        self._on_closed(self, error)

    def close(self) -> None:
        self.fail(SandboxLost("the connection to the sandbox's agent was closed"))
