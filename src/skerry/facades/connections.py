"""Connections that speak HTTP: uvicorn's protocol, which bounds neither what a client sends before its request is
complete nor how long it takes. Here both are bounded, whatever application the request is for.

Time is not measured by a timer for each request but by one look at all connections every few seconds (`cut_stalled`):
a request costs a few assignments.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from skerry.facades.streams import PATIENT, RESET

HEAD_MAX = 64 * 1024
"""Bytes of a request's line and headers, of the trailers after its body, and of what is between the pieces of that."""
HEADERS_MAX = 100
PIPELINED_MAX = 100
"""Requests of one connection that wait for the one before."""
HEAD_S = 30.0
"""From the first byte of a head, or from the connection's beginning, to its end."""
BODY_S = 60.0
"""A client that has sent no byte of its body for that long is cut off."""
STREAM_S = 3600.0
"""The same for bodies that are as long as somebody types, or a program talks."""
LOOK_EVERY_S = 5.0
_LINGER_S = 1.0
"""How long a refused client may go on sending: before its last byte it would not see the answer."""


class Http(HttpToolsProtocol):
    """uvicorn's protocol with bounds; applications can reset the connection, and ask for patience with a body."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head = 0  # bytes of the head, or of the trailers, that are complete
        self._silent = 0  # bytes in whole reads since the parser told of anything but headers
        self._told = False
        self._head_since: float | None = self.loop.time()
        """When the head began that is not complete; None: none has begun."""
        self._body_at = 0.0
        """When the last byte of a body came."""
        self._patience_s = BODY_S
        self._refused = False

    # --- what comes ---------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        if self._head_since is None and self._is_idle:
            self._head_since = self.loop.time()
        self._told = False
        super().data_received(data)
        self._silent = 0 if self._told else self._silent + len(data)
        if self._silent > HEAD_MAX:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def on_message_begin(self) -> None:
        self._told = True
        self._head = 0
        if len(self.pipeline) >= PIPELINED_MAX:
            raise _TooMuch
        super().on_message_begin()
        self.scope[RESET] = self._reset  # type: ignore[literal-required]
        self.scope[PATIENT] = self._be_patient  # type: ignore[literal-required]

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value) + 4)
        if len(self.headers) >= HEADERS_MAX:
            raise _TooMuch
        super().on_header(name, value)

    def _count(self, size: int) -> None:
        self._head += size
        if self._head > HEAD_MAX:
            raise _TooMuch

    def on_headers_complete(self) -> None:
        self._told = True
        self._head, self._head_since = 0, None
        self._body_at, self._patience_s = self.loop.time(), BODY_S
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._told = True
        self._body_at = self.loop.time()
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._told = True
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """uvicorn calls it for whatever the parser, or something that it called, refuses."""
        too_much = self._head > HEAD_MAX or (self.headers is not None and len(self.headers) >= HEADERS_MAX)
        self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE if too_much else HTTPStatus.BAD_REQUEST)

    # --- what does not come -------------------------------------------------------------------------------------------

    @property
    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def look(self, now: float) -> None:
        """Cut it off when its client has been owing something for too long."""
        if self._refused or self.transport is None or self.transport.is_closing():
            return
        if self._is_idle:
            if self._head_since is not None and now - self._head_since > HEAD_S:
                if self.headers is None:
                    self.transport.close()  # it has never said anything: there is nothing to answer
                else:
                    self._refuse(HTTPStatus.REQUEST_TIMEOUT)
        elif self.cycle.more_body:
            if self.flow.read_paused or self.cycle.waiting_for_100_continue:
                self._body_at = now  # it is us who do not want more
            elif now - self._body_at > self._patience_s:
                self._refuse(HTTPStatus.REQUEST_TIMEOUT)

    def _be_patient(self) -> None:
        self._patience_s = STREAM_S

    # --- the end ------------------------------------------------------------------------------------------------------

    def _refuse(self, status: HTTPStatus) -> None:
        """Answer, unless an answer is under way already, and close."""
        if self._refused:
            return
        self._refused = True
        cycle = None if self._is_idle else self.cycle
        if self.pipeline or (cycle is not None and cycle.response_started):
            self._reset()
            return
        if cycle is not None:  # its application is told that the client has left
            cycle.disconnected = True
            cycle.message_event.set()
        text = status.phrase.encode()
        self.transport.write(
            STATUS_LINE[status] + b"content-type: text/plain; charset=utf-8\r\nconnection: close\r\n"
            b"content-length: %d\r\n\r\n%b" % (len(text), text)
        )
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.flow.resume_reading()
        self.loop.call_later(_LINGER_S, self.transport.close)

    def _reset(self) -> None:
        connection = self.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()


class _TooMuch(Exception):
    """Ends the parsing of a head."""


def cut_stalled(connections: Iterable[object], now: float) -> None:
    """Look at each connection.

    Args:
        now: the event loop's time.
    """
    for connection in list(connections):
        if isinstance(connection, Http):
            connection.look(now)
