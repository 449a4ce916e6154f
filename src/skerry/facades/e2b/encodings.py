"""Compression of bodies, by gzip: that of requests is undone, and content is sent compressed to who asks for it."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Iterator
from http import HTTPStatus

from anyio.to_thread import run_sync as to_thread
from starlette.requests import Request
from starlette.types import Message, Send

from skerry.facades.e2b.errors import ConnectError

_INFLATED = 256 * 1024
_GZIP = 31
"""zlib's number for gzip's format."""
_FAST = 1
_OF_PLAIN_CONTENT = (b"content-length", b"accept-ranges")


async def inflated(request: Request, otherwise: str = "invalid_argument") -> AsyncIterator[bytes]:
    """The body, without its compression, in pieces of at most 256 KiB where it had any.

    Args:
        otherwise: Connect's code for an encoding that is neither gzip nor identity.

    Raises:
        ConnectError: also for what is not compressed as it says, to its last byte.
    """
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding in ("", "identity"):
        async for chunk in request.stream():
            if chunk:
                yield chunk
        return
    if encoding != "gzip":
        raise ConnectError(otherwise, f"unsupported content encoding {encoding!r}: it is gzip or identity")
    inflater = _Inflater()
    async for chunk in request.stream():
        for piece in inflater.pieces(chunk):
            yield piece
    inflater.end()


def inflated_message(data: bytes, limit: int) -> bytes:
    """One message of a stream. Raises ConnectError, also when it has more than `limit` bytes."""
    inflater, whole = _Inflater(), bytearray()
    for piece in inflater.pieces(data):
        whole += piece
        if len(whole) > limit:
            raise ConnectError("resource_exhausted", f"a message exceeds {limit} bytes")
    inflater.end()
    return bytes(whole)


class _Inflater:
    """gzip's members one after the other: together they are one content."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(wbits=_GZIP)

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """What comes of this much more of the body. Raises ConnectError."""
        while data:
            if self._member.eof:
                self._member = zlib.decompressobj(wbits=_GZIP)
            try:
                piece = self._member.decompress(data, _INFLATED)
            except zlib.error as error:
                raise ConnectError("invalid_argument", f"the body is not gzip: {error}") from None
            if piece:
                yield piece
            data = self._member.unused_data if self._member.eof else self._member.unconsumed_tail

    def end(self) -> None:
        """Raises ConnectError when a member is not complete."""
        if not self._member.eof:
            raise ConnectError("invalid_argument", "the body ended in the middle of its gzip stream")


def chosen(header: str, *, ranged: bool) -> str | None:
    """How to send content to who accepts this: `gzip`, `identity`, or None when neither will do.

    HTTP libraries accept gzip by themselves, and content is most often sent over loopback: it is compressed for who
    asks for just that, as E2B's clients do by `gzip=True`, or will have nothing else. A part is sent as it is.
    """
    weights = {}
    for part in filter(None, (part.strip() for part in header.lower().split(","))):
        name, _, weight = part.partition(";q=")
        weights[name.strip()] = weight.strip() not in ("0", "0.0", "0.00", "0.000") if weight else True
    identity = weights.get("identity", weights.get("*", True))
    gzip = weights.get("gzip", weights.get("*", False)) and not ranged
    if gzip and (not identity or list(weights) == ["gzip"]):
        return "gzip"
    return "identity" if identity else None


def gzipped(send: Send) -> Send:
    """Sends a reply on, its content compressed where it is one with all of it."""
    packer = zlib.compressobj(_FAST, wbits=_GZIP)
    packing = False

    async def send_on(message: Message) -> None:
        nonlocal packing
        if message["type"] == "http.response.start" and message["status"] == HTTPStatus.OK:
            packing = True
            kept = [(name, value) for name, value in message["headers"] if name not in _OF_PLAIN_CONTENT]
            message = {**message, "headers": [*kept, (b"content-encoding", b"gzip")]}
        elif packing:
            data = message.get("body", b"")
            packed = await to_thread(packer.compress, data) if data else b""
            if not message.get("more_body", False):
                packed += packer.flush()
            elif not packed:
                return
            message = {**message, "body": packed}
        await send(message)

    return send_on
