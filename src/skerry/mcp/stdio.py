"""One client, over standard input and output."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from typing import cast

import anyio
import anyio.lowlevel
from mcp.server.stdio import stdio_server

from skerry.errors import RequestTooLarge
from skerry.mcp.sandboxes import Offer, Sandboxes
from skerry.mcp.tools import make_server

_BLOCK = 64 * 1024
_LINE_MAX = 64 * 1024 * 1024
"""Bytes of one message; a longer one ends the connection."""


def serve_stdio(offer: Offer) -> None:
    """Serve until standard input ends, or Ctrl-C; then end all sandboxes that were made."""
    anyio.run(_serve, offer)


async def _serve(offer: Offer) -> None:
    server = make_server(Sandboxes(offer, implicit=True))
    stdin = cast("anyio.AsyncFile[str]", _Lines(sys.stdin.fileno()))  # the transport does nothing but iterate over it
    async with stdio_server(stdin=stdin) as (read, write):
        await server.run(read, write, server.create_initialization_options())


class _Lines:
    """Lines of text from a descriptor. The SDK's own reader waits in a thread, which nothing can interrupt: after a
    signal it would wait for one more line, and the sandboxes would stay."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    async def __aiter__(self) -> AsyncIterator[str]:
        held = bytearray()
        while data := await self._read():
            first, newline, rest = data.partition(b"\n")
            held += first
            if len(held) > _LINE_MAX:
                raise RequestTooLarge(f"cannot read a message of more than {_LINE_MAX} bytes")
            if newline:
                *lines, last = rest.split(b"\n")
                for line in (bytes(held), *lines):
                    yield line.decode(errors="replace")
                held = bytearray(last)

    async def _read(self) -> bytes:
        try:
            await anyio.wait_readable(self._descriptor)
        except PermissionError:  # a regular file: always readable, and epoll wants none
            await anyio.lowlevel.checkpoint()
        return os.read(self._descriptor, _BLOCK)
